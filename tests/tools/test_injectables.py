"""A new injectable: one registration, and every tool that is annotated with it gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import pytest

from dcaf import ConfigurationError, Session, tool
from dcaf.tools.injectables import PROVIDERS, Fill, register_provider
from dcaf.tools.injection_plan import Plan

Deps = TypeVar("Deps")


class Memory(Generic[Deps]):
    """What an application remembers of a user, over all sessions."""

    def __init__(self, user: Any) -> None:
        self.user = user


class ShortMemory(Memory[int]): ...


@dataclass(frozen=True, slots=True)
class MemoryFill(Fill):
    """The memory of the user whose session it is."""

    kind: type[Memory[Any]]
    writes: ClassVar[bool] = False

    def __call__(self, session: Session | None) -> Memory[Any] | None:
        return None if session is None else self.kind(session.get("user"))

    @property
    def what(self) -> str:
        return "the user's memory"


@pytest.fixture
def _registered() -> Iterator[None]:
    register_provider(Memory, lambda kind, may_be_none: MemoryFill(may_be_none, kind))
    yield
    del PROVIDERS[Memory]


def plain(name: str, memory: Memory[Any]) -> tuple[str, Any]:
    return type(memory).__name__, memory.user


def in_brackets(name: str, memory: Memory[int]) -> tuple[str, Any]:
    return type(memory).__name__, memory.user


def subclass(name: str, memory: Annotated[ShortMemory, "short"]) -> tuple[str, Any]:
    return type(memory).__name__, memory.user


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize(("function", "kind"), [(plain, "Memory"), (in_brackets, "Memory"), (subclass, "ShortMemory")])
def test_a_class_that_is_registered_is_filled_and_no_model_sees_it(function: Any, kind: str) -> None:
    made = tool(function)
    assert list(made.input_schema["properties"]) == ["name"]
    assert asyncio.run(made.run({"name": "x", "memory": "forged"}, session=Session.from_dict({"user": "mira"}))) == (kind, "mira")
    assert made.forged == {"memory": 1}
    assert not made.writes_session
    assert "the user's memory" in str(made.explain())


@pytest.mark.usefixtures("_registered")
def test_it_may_be_none_where_no_session_is_running_and_else_one_is_needed() -> None:
    def find(memory: Memory[Any] | None = None) -> str:
        return str(memory)

    assert asyncio.run(tool(find).run({})) == "None"
    with pytest.raises(ConfigurationError, match="plain takes a session"):
        Plan.of(plain).call(plain, {"name": "x"}, None)


@pytest.mark.usefixtures("_registered")
def test_inside_another_type_it_is_filled_by_nobody() -> None:
    def several(memories: list[Memory[Any]]) -> None: ...

    with pytest.raises(ConfigurationError, match="inside another type"):
        tool(several)


@pytest.mark.usefixtures("_registered")
def test_a_class_has_one_provider() -> None:
    for kind in (Memory, Session):
        with pytest.raises(ConfigurationError, match=f"{kind.__name__} has a provider already"):
            register_provider(kind, PROVIDERS[Session])


def test_control_without_the_registration_it_is_no_type_of_a_model() -> None:
    with pytest.raises(ConfigurationError, match="pydantic cannot describe"):
        tool(plain)
