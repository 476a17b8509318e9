"""A tool is called like its function, and run like a model calls it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from dcaf import ConfigurationError, Session, Tool, current_session, tool
from dcaf.core import ToolArgumentError
from dcaf.core.current import running


class Item(BaseModel):
    name: str
    quantity: int = 1


@tool
def add(item: Item, session: Session, size: Literal["s", "l"] = "s") -> str:
    """Put an item into the basket.

    It may be any item.

    Args:
        item: What to put.
        size: How big it is.
    """
    assert isinstance(item, Item)
    session.append("basket", item)
    return f"{item.name} {size}"


def run(made: Tool[..., Any], arguments: dict[str, Any], session: Session | None = None) -> Any:
    return asyncio.run(made.run(arguments, session=session))


def refusal(made: Tool[..., Any], arguments: dict[str, Any], session: Session) -> str:
    with pytest.raises(ToolArgumentError) as caught:
        run(made, arguments, session)
    return str(caught.value)


def test_a_tool_is_called_like_the_function_that_it_wraps() -> None:
    session = Session()
    assert add(Item(name="bolt"), session) == "bolt s"
    assert add(item=Item(name="nut"), session=session, size="l") == "nut l"
    assert [item["name"] for item in session["basket"]] == ["bolt", "nut"]


def test_a_models_arguments_are_validated_into_the_declared_types() -> None:
    session = Session()
    assert run(add, {"item": {"name": "bolt", "quantity": "3"}}, session) == "bolt s"
    assert session["basket"] == [{"name": "bolt", "quantity": 3}]


def test_arguments_that_do_not_fit_are_named_with_their_path_and_nothing_runs() -> None:
    session = Session()
    assert refusal(add, {"item": {"name": "bolt", "quantity": "many"}, "size": "m"}, session) == (
        "the value does not fit add\n"
        "  arguments.item.quantity: Input should be a valid integer, unable to parse string as an integer\n"
        "  arguments.size: Input should be 's' or 'l'"
    )
    assert session.is_empty


def test_a_session_that_the_model_sends_is_refused_and_never_injected() -> None:
    session = Session()
    assert "arguments.session: Extra inputs are not permitted" in refusal(
        add, {"item": {"name": "bolt"}, "session": {"approved": True}}, session
    )
    assert session.is_empty


def test_nothing_of_the_session_is_in_what_the_model_sees() -> None:
    assert "session" not in str(add.input_schema).lower()
    assert add.description == "Put an item into the basket.\n\nIt may be any item."
    assert add.input_schema["required"] == ["item"]
    assert add.input_schema["properties"]["size"] == {
        "default": "s",
        "description": "How big it is.",
        "enum": ["s", "l"],
        "type": "string",
    }


def test_name_and_description_can_be_said() -> None:
    @tool(name="go", description="Go there.")
    def move(where: str) -> str:
        """Other words."""
        return where

    assert (move.name, move.description, move("x"), repr(move)) == ("go", "Go there.", "x", "<Tool go>")
    assert move.__doc__ == "Other words."


def test_a_sync_tool_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    main = threading.get_ident()

    @tool
    def sync(session: Session) -> bool:
        return threading.get_ident() != main and current_session() is session

    @tool
    async def coroutine(session: Session) -> bool:
        return threading.get_ident() == main and current_session() is session

    session = Session()
    with running(session):
        assert run(sync, {}) is True
        assert run(coroutine, {}) is True


def test_without_a_session_a_tool_takes_the_one_of_the_turn() -> None:
    @tool
    def count(session: Session) -> int:
        return session.incr("n")

    session = Session()
    with running(session):
        run(count, {})
    assert session["n"] == 1
    with pytest.raises(ConfigurationError, match="called outside a turn"):
        run(count, {})


def test_a_tool_that_takes_no_session_needs_none() -> None:
    @tool
    def double(n: int) -> int:
        return 2 * n

    assert run(double, {"n": 4}) == 8


def test_a_typed_view_shares_the_session() -> None:
    class Deploy(Session):
        step: int = 1

    @tool
    def advance(session: Deploy) -> int:
        session.step += 1
        return session.step

    session = Session()
    assert run(advance, {}, session) == 2
    assert session.to_dict() == {"step": 2}


def test_positional_only_parameters_are_filled_too() -> None:
    @tool
    def both(name: str, session: Session, /) -> str:
        session["name"] = name
        return name

    session = Session()
    assert run(both, {"name": "ada"}, session) == "ada"
    assert session["name"] == "ada"


def test_what_a_tool_raises_comes_out_as_it_is() -> None:
    @tool
    def fail(session: Session) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail, {}, Session())


def test_only_a_function_is_made_a_tool() -> None:
    with pytest.raises(ConfigurationError, match="@tool takes a function"):
        tool("go")  # type: ignore[call-overload]
