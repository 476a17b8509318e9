"""A tool is called like its function, and run like a model calls it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel

from dcaf import ConfigurationError, ReadOnlySession, Session, SessionKey, Tool, current_session, tool
from dcaf.core import ToolArgumentError
from dcaf.core.context import running


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


def test_a_session_that_the_model_sends_is_dropped_recorded_and_never_injected(caplog: pytest.LogCaptureFixture) -> None:
    session = Session()
    forged = {"item": {"name": "bolt"}, "session": {"approved": "hunter2"}}
    before = add.forged["session"]
    assert run(add, forged, session) == "bolt s"
    assert session.to_dict() == {"basket": [{"name": "bolt", "quantity": 1}]}
    assert add.forged["session"] == before + 1
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "add: the model sent session, which is not its to fill; dropped"
    ]
    assert "hunter2" not in caplog.text
    assert "session" in forged, "what the caller gave is as it was"


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


def missing_first(first: int = 1, second: int = 2, /) -> tuple[int, int]:
    return first, second


def test_control_positional_only_parameters_get_their_own_values() -> None:
    assert run(tool(missing_first), {"first": 8, "second": 9}) == (8, 9)
    assert run(tool(missing_first), {"first": 8}) == (8, 2)


def test_a_positional_only_parameter_that_is_left_out_keeps_its_default() -> None:
    assert run(tool(missing_first), {"second": 9}) == (1, 9)


def test_a_session_never_lands_in_a_positional_only_parameter_that_was_left_out() -> None:
    @tool
    def both(name: str = "nobody", session: Session | None = None, /) -> tuple[str, bool]:
        return name, session is not None

    assert run(both, {}, Session()) == ("nobody", True)


def act(name: str, memory: Session, session: Session | None = None) -> str:
    assert session is not None
    return f"{name} {memory.to_dict()} {session.to_dict()}"


@pytest.mark.parametrize("forged", ["session", "memory"])
def test_no_forged_argument_reaches_a_function_that_takes_sessions(forged: str) -> None:
    made = tool(act)
    assert run(made, {"name": "x", forged: {"approved": True}}, Session.from_dict({"n": 1})) == "x {'n': 1} {'n': 1}"
    assert made.forged == {forged: 1}


@pytest.mark.parametrize("unknown", ["deploy", "dcaf.session", "_session", "Session"])
def test_an_argument_that_the_function_does_not_have_is_refused(unknown: str) -> None:
    assert refusal(tool(act), {"name": "x", unknown: {"approved": True}}, Session()) == (
        "the value does not fit act\n"
        f"  arguments{'.' + unknown if unknown.isidentifier() else f'[{unknown!r}]'}: Extra inputs are not permitted"
    )


def test_a_session_that_the_model_sends_to_a_tool_without_one_is_dropped_too() -> None:
    @tool
    def double(n: int) -> int:
        return 2 * n

    assert run(double, {"n": 4, "session": {}}) == 8
    assert double.forged == {"session": 1}


def test_control_a_parameter_of_that_name_that_is_the_models_is_filled_and_not_counted() -> None:
    @tool
    def book(session: str) -> str:
        return session

    assert run(book, {"session": "Monday"}) == "Monday"
    assert book.forged == {}


def test_a_missing_argument_is_named_and_nothing_runs() -> None:
    assert refusal(add, {}, Session()) == "the value does not fit add\n  arguments.item: Field required"


@pytest.mark.parametrize("arguments", [None, "{}", 3, [1]])
def test_arguments_that_are_no_object_are_the_models_fault(arguments: Any) -> None:
    assert "arguments" in refusal(add, arguments, Session())


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people write them: a plain function around whatever it is given."""

    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


def test_control_a_decorated_function_keeps_its_signature_and_its_session() -> None:
    @tool
    @counted
    def store(name: str, session: Session) -> str:
        session["name"] = name
        return name

    session = Session()
    assert list(store.input_schema["properties"]) == ["name"]
    assert run(store, {"name": "ada"}, session) == "ada"
    assert session["name"] == "ada"


def test_a_coroutine_that_a_plain_function_returns_is_awaited() -> None:
    @tool
    @counted
    async def store(name: str, session: Session) -> str:
        session["name"] = name
        return name

    session = Session()
    found = run(store, {"name": "ada"}, session)
    if inspect.iscoroutine(found):
        found.close()
    assert found == "ada"
    assert session["name"] == "ada"


class Shop:
    """An object that is called."""

    def __call__(self, number: int) -> int:
        return number


class Later:
    """An object that is called and awaited."""

    async def __call__(self, number: int) -> int:
        return number


@pytest.mark.parametrize("made", [Shop(), Later(), functools.partial(missing_first, 1)], ids=["object", "async object", "partial"])
def test_what_has_no_name_of_its_own_is_refused_with_what_to_write(made: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="name="):
        tool(made)


def test_an_object_that_is_awaited_is_awaited() -> None:
    found = run(tool(name="later")(Later()), {"number": 3})
    if inspect.iscoroutine(found):
        found.close()
    assert found == 3


def test_a_sync_tool_sees_the_callers_context_variables() -> None:
    caller: ContextVar[str] = ContextVar("caller")

    @tool
    def who() -> str:
        found = caller.get()
        caller.set("the tool")
        return found

    async def turn() -> tuple[str, str]:
        caller.set("ada")
        return await who.run({}), caller.get()

    assert asyncio.run(turn()) == ("ada", "ada"), "and what it sets stays in its thread"


def test_a_sync_tool_does_not_block_the_loop() -> None:
    released = threading.Event()

    @tool
    def wait() -> bool:
        return released.wait(10)

    async def turn() -> bool:
        waiting = asyncio.create_task(wait.run({}))
        await asyncio.sleep(0.01)
        released.set()
        found: bool = await waiting
        return found

    assert asyncio.run(turn()) is True


def test_parallel_tools_of_one_turn_add_up() -> None:
    @tool
    def count(session: Session) -> int:
        return session.incr("n")

    async def turn(session: Session) -> None:
        await asyncio.gather(*(count.run({}, session=session) for _ in range(20)))

    session = Session()
    asyncio.run(turn(session))
    assert session["n"] == 20


def test_a_tool_runs_under_trio_too() -> None:
    session = Session()
    assert anyio.run(functools.partial(add.run, {"item": {"name": "bolt"}}, session=session), backend="trio") == "bolt s"
    assert session["basket"] == [{"name": "bolt", "quantity": 1}]


def test_a_given_session_counts_before_the_one_of_the_turn() -> None:
    @tool
    def mark(session: Session) -> None:
        session["marked"] = True

    of_the_turn, given = Session(), Session()
    with running(of_the_turn):
        run(mark, {}, given)
    assert (of_the_turn.to_dict(), given.to_dict()) == ({}, {"marked": True})


def test_an_empty_session_that_is_given_is_no_missing_one() -> None:
    @tool
    def count(session: Session) -> int:
        return len(session)

    with running(Session.from_dict({"n": 1})):
        assert run(count, {}, Session()) == 0


@tool
def maybe(
    session: Session | None, log: ReadOnlySession | None = None, cart: Annotated[dict[str, int] | None, SessionKey("c")] = None
) -> bool:
    assert (session is None) == (log is None)
    return session is None and cart is None


def test_an_optional_session_is_none_where_no_session_is_running() -> None:
    assert run(maybe, {}) is True


def test_control_an_optional_session_is_there_where_one_is_running() -> None:
    with running(Session()):
        assert run(maybe, {}) is False


def test_one_parameter_that_cannot_be_none_needs_a_session_for_all() -> None:
    @tool
    def both(first: Session | None, second: Session) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        run(both, {})
    assert str(caught.value) == (
        "current_session() was called outside a turn. Mount SessionMiddleware around the application, and call it while a "
        "request is handled, or pass the session along. Exempt routes have no session."
    )


def test_a_tool_that_fails_leaves_nothing() -> None:
    @tool
    def half(session: Session) -> None:
        session["half"] = True
        raise LookupError

    session = Session()
    with pytest.raises(LookupError):
        run(half, {}, session)
    assert session.to_dict() == {}


@pytest.mark.parametrize("made", ["go", 5, {}], ids=["text", "number", "dict"])
def test_what_cannot_be_called_is_refused_exactly(made: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool(made)
    assert str(caught.value) == "@tool takes a function; its settings are keyword arguments."
