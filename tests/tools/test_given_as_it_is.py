"""A tool, or a function that takes a session, that is given to another framework as if it were its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pydantic_ai
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from dcaf import ReadOnlySession, Session, SessionKey, Tool, tool
from dcaf.core import ConfigurationError
from dcaf.core.arguments import FRAMEWORKS, describe_framework
from dcaf.tools import PlatformContext


@tool
def add(item: str, session: Session) -> str:
    """Add an item."""
    return item


@tool
def peek(session: ReadOnlySession) -> int:
    """Look."""
    return len(session)


@tool
def cart(items: Annotated[list[str], SessionKey("items")]) -> int:
    """Count."""
    return len(items)


@tool
def who(platform: PlatformContext) -> str:
    """Say who it is."""
    return str(platform)


def plain(session: Session) -> None: ...


GIVEN: dict[str, tuple[Callable[..., Any], str]] = {
    "a tool": (add, "A Session"),
    "a plain function": (plain, "A Session"),
    "a reader": (peek, "A ReadOnlySession"),
    "a key": (cart, "SessionKey('items')"),
    "a platform": (who, "A PlatformContext"),
}

WAYS: dict[str, Callable[[Any], Any]] = {
    "Agent(tools=)": lambda given: pydantic_ai.Agent("test", tools=[given]),
    "Tool()": pydantic_ai.Tool,
    "agent.tool_plain": lambda given: pydantic_ai.Agent("test").tool_plain(given),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", GIVEN)
def test_the_error_names_the_framework_and_says_what_to_give_it(given: str, way: str, monkeypatch: Any) -> None:
    function, what = GIVEN[given]
    monkeypatch.setitem(FRAMEWORKS, "pydantic_ai", ("pydantic-ai", "of_none"))
    with pytest.raises(ConfigurationError) as caught:
        WAYS[way](function)
    assert str(caught.value) == (
        f"{what} is filled by dcaf, and never by a model. pydantic-ai takes no tool of dcaf's as it is: give it a function that "
        "awaits `tool.run(arguments)`, with `tool.name`, `tool.description` and `tool.input_schema`."
    )


def test_where_there_is_an_integration_the_error_says_to_import_it(monkeypatch: Any) -> None:
    monkeypatch.setitem(FRAMEWORKS, "pydantic_ai", ("pydantic-ai", "fastapi"))
    with pytest.raises(ConfigurationError, match=r"import dcaf\.integrations\.fastapi, which makes one of its own of it\.$"):
        pydantic_ai.Agent("test", tools=[add])


def test_what_it_says_to_give_works() -> None:
    async def bridge(**arguments: Any) -> Any:
        return await add.run(arguments, session=session)

    session = Session()
    made = pydantic_ai.Tool.from_schema(bridge, add.name, add.description, add.input_schema)
    agent = pydantic_ai.Agent("test", tools=[made])
    assert asyncio.run(agent.run("go")).output == '{"add":"a"}'


def test_a_tool_that_is_taken_for_a_type_says_what_it_is() -> None:
    with pytest.raises(ConfigurationError, match=r"add is a tool of dcaf's, and no type: `add\.check\(arguments\)`"):
        TypeAdapter[Any](add)  # type: ignore[arg-type]


def test_a_field_may_hold_a_tool() -> None:
    class Menu(BaseModel):
        first: Tool[..., Any]
        second: Tool[..., Any] | None = None

    assert Menu(first=add).first == add
    with pytest.raises(ValidationError, match="instance of Tool"):
        Menu(first=plain)  # type: ignore[arg-type]


def test_below_no_framework_nothing_is_said() -> None:
    assert describe_framework("x") is None
