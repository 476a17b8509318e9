"""A tool's mutable default: each call that leaves it out gets its own."""

from __future__ import annotations

import asyncio
import enum
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dcaf import ConfigurationError, Keyring, Session, tool
from dcaf.agent import Agent, create_app
from dcaf.testing import SessionClient
from dcaf.tools import Call, ToolRunner
from dcaf.tools.callables import find_default_factory
from dcaf.tools.tool import Tool
from tests.agent.agents import scripted, wants


class Order(BaseModel):
    names: list[str] = []


class Fixed(BaseModel):
    """Has a hash, and holds what can change: pydantic does not copy it."""

    model_config = ConfigDict(frozen=True)
    names: list[str] = []

    def __hash__(self) -> int:
        return 1


@dataclass
class Basket:
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Held:
    basket: Basket


class Colour(enum.Enum):
    RED = ["r"]


def in_list(who: str, session: Session, names: list[str] = []) -> int:  # noqa: B006
    names.append(who)
    return len(names)


def in_dict(who: str, session: Session, names: dict[str, int] = {}) -> int:  # noqa: B006
    names[who] = 1
    return len(names)


def in_set(who: str, session: Session, names: set[str] = set()) -> int:  # noqa: B006
    names.add(who)
    return len(names)


def in_model(who: str, session: Session, order: Order = Order()) -> int:
    order.names.append(who)
    return len(order.names)


def in_dataclass(who: str, session: Session, basket: Basket = Basket()) -> int:
    basket.names.append(who)
    return len(basket.names)


def in_tuple(who: str, session: Session, pair: tuple[int, list[str]] = (1, [])) -> int:
    pair[1].append(who)
    return len(pair[1])


def in_something_frozen(who: str, session: Session, held: Held = Held(Basket())) -> int:
    held.basket.names.append(who)
    return len(held.basket.names)


def without_annotation(who, session, names=[]):  # type: ignore[no-untyped-def]  # noqa: B006
    names.append(who)
    return len(names)


def keyword_only(who: str, session: Session, *, names: list[str] = []) -> int:  # noqa: B006
    names.append(who)
    return len(names)


def positional_only(who: str, names: list[str] = [], session: Session | None = None, /) -> int:  # noqa: B006
    names.append(who)
    return len(names)


def in_field(who: str, session: Session, names: list[str] = Field([])) -> int:
    names.append(who)
    return len(names)


def in_field_with_a_hash(who: str, session: Session, pair: tuple[int, list[str]] = Field((1, []))) -> int:
    pair[1].append(who)
    return len(pair[1])


def in_field_of_the_annotation(who: str, session: Session, fixed: Annotated[Fixed, Field(default=Fixed())]) -> int:
    fixed.names.append(who)
    return len(fixed.names)


async def in_coroutine(who: str, session: Session, names: list[str] = []) -> int:  # noqa: B006
    names.append(who)
    return len(names)


def in_generator(who: str, session: Session, names: list[str] = []) -> Iterator[int]:  # noqa: B006
    names.append(who)
    yield len(names)


async def in_async_generator(who: str, session: Session, names: list[str] = []) -> AsyncIterator[int]:  # noqa: B006
    names.append(who)
    yield len(names)


class Shop:
    @tool
    def sell(self, who: str, session: Session, names: list[str] = []) -> int:  # noqa: B006
        names.append(who)
        return len(names)


FUNCTIONS: Final[list[Callable[..., Any]]] = [
    in_list,
    in_dict,
    in_set,
    in_model,
    in_dataclass,
    in_tuple,
    in_something_frozen,
    without_annotation,
    keyword_only,
    positional_only,
    in_field,
    in_field_with_a_hash,
    in_field_of_the_annotation,
    in_coroutine,
    in_generator,
    in_async_generator,
]


async def run(made: Tool[..., Any], who: str) -> Any:
    return await made.run({"who": who}, session=Session())


async def stream(made: Tool[..., Any], who: str) -> Any:
    return [item async for item in made.stream({"who": who}, session=Session())]


async def in_turn(made: Tool[..., Any], who: str) -> Any:
    return await ToolRunner.of(Session()).run(made, {"who": who})


async def in_turns_stream(made: Tool[..., Any], who: str) -> Any:
    return [item async for item in ToolRunner.of(Session()).stream(made, {"who": who})]


async def with_null(made: Tool[..., Any], who: str) -> Any:
    name = next(name for name in made.input_schema["properties"] if name != "who")
    is_any = name in {"names", "pair"} and "type" not in made.input_schema["properties"][name]
    return await made.run({"who": who} if is_any else {"who": who, name: None}, session=Session())


@pytest.mark.parametrize("way", [run, stream, in_turn, in_turns_stream, with_null])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_one_call_does_to_a_default_is_not_there_in_the_next(function: Callable[..., Any], way: Callable[..., Any]) -> None:
    made = tool(function)
    assert [asyncio.run(way(made, who)) for who in ("ada", "eve")] in ([1, 1], [[1], [1]])


def test_two_calls_at_once_share_no_default() -> None:
    made = tool(in_coroutine)
    results = asyncio.run(ToolRunner.of(Session()).run_all([Call(made, {"who": "ada"}), Call(made, {"who": "eve"})]))
    assert [result.value for result in results] == [1, 1]


def test_a_method_gets_its_own_too() -> None:
    assert [asyncio.run(shop.sell.run({"who": "ada"}, session=Session())) for shop in (Shop(), Shop())] == [1, 1]


def test_a_schema_by_hand_that_leaves_the_parameter_out_changes_nothing() -> None:
    made = tool(input_schema={"type": "object", "properties": {"who": {"type": "string"}}})(in_list)
    assert [asyncio.run(run(made, who)) for who in ("ada", "eve")] == [1, 1]


def test_a_plain_call_keeps_pythons_own_semantics_and_reaches_no_call_of_a_model() -> None:
    def collect(who: str, names: list[str] = []) -> list[str]:  # noqa: B006
        names.append(who)
        return names

    made = tool(collect)
    assert made("ada") is made("bea")
    assert made("cleo") == ["ada", "bea", "cleo"]
    assert asyncio.run(made.run({"who": "eve"})) == ["eve"]


def test_what_the_model_sends_counts() -> None:
    assert asyncio.run(tool(in_list).run({"who": "ada", "names": ["eve"]}, session=Session())) == 2


def test_the_schema_shows_the_default_whatever_calls_have_done() -> None:
    made = tool(in_list)
    asyncio.run(run(made, "ada"))
    assert made.input_schema["properties"]["names"]["default"] == []


def test_nothing_of_one_user_is_in_the_default_that_another_users_call_gets() -> None:
    def remember(who: str, session: Session, names: list[str] = []) -> None:  # noqa: B006
        names.append(who)
        session["names"] = names

    answers = [answer for who in ("ada", "eve") for answer in ([wants("remember", {"who": who})], "Done.")]
    app = create_app(Agent(scripted(*answers), tools=[remember]), keys=Keyring.ephemeral(), audience="shop")
    assert [SessionClient(app).send(who).session["names"] for who in ("ada", "eve")] == [["ada"], ["eve"]]


class Missing:
    """A marker as many libraries have one."""

    def __repr__(self) -> str:
        return "MISSING"


@pytest.mark.parametrize(
    "default",
    [
        None,
        1,
        "a",
        b"a",
        (1, ("a",)),
        Colour.RED,
        len,
        lambda: 1,
        int,
        re.compile("a"),
        range(3),
        object(),
        Missing(),
        frozenset,
    ],
    ids=lambda default: type(default).__name__,
)
def test_what_no_call_can_change_is_the_same_object_in_each(default: Any) -> None:
    def given(value: Any = default) -> bool:
        return value is default

    assert find_default_factory(default) is None
    assert asyncio.run(tool(given).run({})) is True


def test_an_equal_copy_of_what_is_not_known_to_be_fixed_is_given() -> None:
    def given(path: Path = Path("a"), *, names: frozenset[str] = frozenset({"a"})) -> tuple[Path, frozenset[str]]:
        return path, names

    assert asyncio.run(tool(given).run({})) == (Path("a"), frozenset({"a"}))


COPY: Final = (
    "which cannot be copied, so that all calls would share it. Write None as the default and make the object in the function, or "
    "decide the parameter with functools.partial."
)


@pytest.mark.parametrize(
    "default", [threading.Lock(), [threading.Lock()], Field(threading.Lock())], ids=["it", "in it", "in Field"]
)
def test_a_default_that_cannot_be_copied_is_refused_with_what_to_write(default: Any) -> None:
    def locked(who: str, lock: Any = default) -> None: ...

    kind = "list" if isinstance(default, list) else "lock"
    with pytest.raises(ConfigurationError) as refused:
        tool(locked)
    assert str(refused.value) == f"locked: the parameter 'lock' has a {kind} as its default, {COPY}"


def test_a_partial_decides_what_all_calls_share() -> None:
    from functools import partial

    lock = threading.Lock()

    def locked(who: str, lock: Any = None) -> Any:
        return lock

    made = tool(name="locked")(partial(locked, lock=lock))
    assert asyncio.run(made.run({"who": "ada"})) is lock
