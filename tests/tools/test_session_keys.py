"""One key of the session as a parameter: read typed, written back, made where there is none."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Optional

import pytest
from pydantic import BaseModel, Field

from dcaf import ConfigurationError, ReadOnlySession, Session, SessionKey, Tool, tool
from dcaf.core import SessionReadOnlyError, SessionTypeError


class Cart(BaseModel):
    items: list[str] = []


def run(made: Tool[..., Any], session: Session | None, **arguments: Any) -> Any:
    return asyncio.run(made.run(arguments, session=session))


@tool
def add(item: str, cart: Annotated[Cart, SessionKey("cart")] = Cart()) -> int:
    """Add an item."""
    cart.items.append(item)
    return len(cart.items)


def test_the_value_is_typed_and_a_change_to_it_is_one_to_the_session() -> None:
    session = Session.from_dict({"cart": {"items": ["a"], "owner": "ada"}})
    assert run(add, session, item="b") == 2
    assert session.changes == {"set": {"cart": {"items": ["a", "b"], "owner": "ada"}}, "delete": []}
    assert list(add.input_schema["properties"]) == ["item"]


def test_an_absent_value_is_the_default_live_and_new_for_each_session() -> None:
    first, second = Session(), Session()
    assert [run(add, first, item="a"), run(add, first, item="b"), run(add, second, item="c")] == [1, 2, 1]
    assert (first.to_dict(), second.to_dict()) == ({"cart": {"items": ["a", "b"]}}, {"cart": {"items": ["c"]}})


def test_a_default_that_is_only_read_stores_nothing() -> None:
    @tool
    def count(cart: Annotated[Cart, SessionKey("cart")] = Cart()) -> int:
        return len(cart.items)

    session = Session()
    assert run(count, session) == 0
    assert not session.is_modified


def test_a_default_may_be_made_by_a_pydantic_field() -> None:
    @tool
    def put(cart: Annotated[Cart, SessionKey("cart")] = Field(default_factory=Cart)) -> None:
        cart.items.append("x")

    session = Session()
    run(put, session)
    assert session.to_dict() == {"cart": {"items": ["x"]}}


def inside(cart: Annotated[Cart | None, SessionKey("cart")]) -> Any:
    return cart


def outside(cart: Optional[Annotated[Cart, SessionKey("cart")]]) -> Any:  # noqa: UP045
    return cart


def by_default(cart: Annotated[Cart, SessionKey("cart")] = None) -> Any:  # type: ignore[assignment]
    return cart


@pytest.mark.parametrize("function", [inside, outside, by_default])
def test_an_absent_value_is_none_where_it_may_be_and_so_it_is_without_a_session(function: Any) -> None:
    assert run(tool(function), Session()) is None
    assert run(tool(function), None) is None
    assert run(tool(function), Session.from_dict({"cart": {}})) == Cart()


def needed(cart: Annotated[Cart, SessionKey("cart")]) -> Cart:
    return cart


def test_an_absent_value_that_is_needed_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(SessionTypeError) as caught:
        run(tool(needed), Session())
    assert str(caught.value) == (
        "cart: the session has no such key, and the tool's parameter has no default. Give it one, or allow None."
    )


@pytest.mark.parametrize("made", [tool(needed), add], ids=["needed", "default"])
def test_without_a_session_nothing_is_filled_that_would_be_lost(made: Tool[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="called outside a turn"):
        run(made, None, **({"item": "x"} if made is add else {}))


def test_a_value_that_does_not_fit_is_an_error_with_its_path() -> None:
    with pytest.raises(SessionTypeError, match=r"cart\.items: Input should be a valid array"):
        run(tool(needed), Session.from_dict({"cart": {"items": 5}}))


def test_the_metadata_beside_the_key_counts() -> None:
    @tool
    def step(number: Annotated[int, SessionKey("step"), Field(ge=1)] = 1) -> int:
        return number

    assert (run(step, Session()), run(step, Session.from_dict({"step": 3}))) == (1, 3)
    with pytest.raises(SessionTypeError, match="step: Input should be greater than or equal to 1"):
        run(step, Session.from_dict({"step": 0}))


def test_a_key_may_have_a_prefix_and_its_value_any_type() -> None:
    @tool
    def seen(theme: Annotated[str, SessionKey("user:theme")], value: Annotated[Any, SessionKey("value")]) -> Any:
        return [theme, value]

    assert run(seen, Session.from_dict({"user:theme": "dark", "value": None})) == ["dark", None]


def test_a_key_the_session_and_a_reader_see_one_state() -> None:
    @tool
    def all_three(cart: Annotated[Cart, SessionKey("cart")], session: Session, seen: ReadOnlySession) -> Any:
        cart.items.append("x")
        return session["cart"]["items"], seen["cart"]["items"]

    assert run(all_three, Session.from_dict({"cart": {}})) == (["x"], ["x"])


def test_a_tool_that_only_reads_cannot_write() -> None:
    @tool
    def sneak(session: ReadOnlySession) -> None:
        session.set("n", 1)  # type: ignore[attr-defined]

    session = Session()
    with pytest.raises(SessionReadOnlyError):
        run(sneak, session)
    assert session.is_empty


class Opaque:
    """Nothing that pydantic could describe."""


def uninstantiated(cart: Annotated[Cart, SessionKey]) -> None: ...
def around_a_session(cart: Annotated[Session, SessionKey("cart")]) -> None: ...
def twice(cart: Annotated[Cart, SessionKey("cart"), SessionKey("other")]) -> None: ...
def inside_a_list(carts: list[Annotated[Cart, SessionKey("cart")]]) -> None: ...
def inside_a_union(cart: Annotated[Cart, SessionKey("cart")] | int) -> None: ...
def of_no_type(cart: Annotated[Opaque, SessionKey("cart")]) -> None: ...


@pytest.mark.parametrize(
    "function", [uninstantiated, around_a_session, twice, inside_a_list, inside_a_union, of_no_type], ids=lambda item: item.__name__
)
def test_a_key_that_can_be_filled_by_nobody_is_refused_when_the_tool_is_made(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{function.__name__}: the annotation of 'carts?' "):
        tool(function)
