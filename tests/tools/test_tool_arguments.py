"""What a public callable of the tools is given by mistake ends in an error of dcaf, or in Python's own of a wrong call."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from dcaf import ConfigurationError, ReadOnlySession, Session, SessionKey, Tool, tool
from dcaf.core import DcafError, ToolArgumentError
from dcaf.tools import Call, PlatformContext, ToolRunner
from dcaf.tools import results as module


@tool
def note(text: str, session: Session) -> str:
    """Note."""
    session.append("notes", text)
    return "ok"


def nested(depth: int) -> Any:
    found: Any = None
    for _ in range(depth):
        found = {"a": [found]}
    return found


class Odd:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


WRONG: dict[str, Any] = {
    "None": None,
    "a text": "text",
    "an empty text": "",
    "bytes": b"text",
    "a number": 3,
    "nan": float("nan"),
    "True": True,
    "a dict": {"a": 1},
    "an empty dict": {},
    "a dict with other keys": {1: 2, None: 3},
    "a dict with a surrogate": {"\ud800": "\udfff"},
    "a deep dict": nested(400),
    "a very deep dict": nested(20_000),
    "a list": [1],
    "a tuple": (1, 2),
    "a set": {1},
    "an iterator": iter([1]),
    "an object": object(),
    "an odd object": Odd(),
    "a namespace": SimpleNamespace(name="x"),
    "a mock": MagicMock(),
    "a class": dict,
    "Session, the class": Session,
    "Tool, the class": Tool,
    "ToolRunner, the class": ToolRunner,
    "a Session": Session(),
    "a ReadOnlySession": ReadOnlySession(),
    "a function": lambda: None,
    "a builtin": len,
    "an exception": ValueError("x"),
    "an exception's class": ValueError,
    "a duration": timedelta(seconds=1),
    "a negative duration": timedelta(seconds=-1),
    "a key": SessionKey("cart"),
    "a tool": note,
    "a call": Call(note, {}),
    "a module": asyncio,
    "ellipsis": ...,
    "a coroutine function": asyncio.sleep,
}


def consumed(stream: Any) -> Any:
    async def run() -> Any:
        return [item async for item in stream]

    return asyncio.run(run())


def runs(make: Callable[[], Any]) -> Any:
    """What comes of a coroutine that is made inside the loop."""

    async def run() -> Any:
        return await make()

    return asyncio.run(run())


def _with_setting(name: str, make: Callable[..., Any], value: Any) -> Any:
    return make(**{"name": "act", name: value})


SETTINGS = ("name", "description", "input_schema", "strict", "requires_approval", "parallel", "timeout")
ENTRIES: dict[str, Callable[[Any], Any]] = {
    "tool(x)": tool,
    "Tool(x)": Tool,
    "tool(name=)(x)": tool(name="act"),
    **{f"tool({name}=x)": functools.partial(_with_setting, name, tool) for name in SETTINGS},
    **{f"Tool({name}=x)": functools.partial(_with_setting, name, functools.partial(Tool, lambda n: n)) for name in SETTINGS},
    "replace": lambda x: note.__replace__(name=x),
    "tool.run(x)": lambda x: runs(lambda: note.run(x, session=Session())),
    "tool.run(text=x)": lambda x: runs(lambda: note.run({"text": x}, session=Session())),
    "tool.run(session=x)": lambda x: runs(lambda: note.run({"text": "a"}, session=x)),
    "tool.stream(x)": lambda x: consumed(note.stream(x, session=Session())),
    "tool.stream(session=x)": lambda x: consumed(note.stream({"text": "a"}, session=x)),
    "tool.check(x)": note.check,
    "tool.complete(x)": note.complete,
    "tool.complete(text=x)": lambda x: note.complete({"text": x}),
    "ToolRunner.of(x)": ToolRunner.of,
    "runner.run(x)": lambda x: runs(lambda: ToolRunner.of(Session()).run(x, {"text": "a"})),
    "runner.run(tool, x)": lambda x: runs(lambda: ToolRunner.of(Session()).run(note, x)),
    "runner.run(is_approved=x)": lambda x: runs(lambda: ToolRunner.of(Session()).run(note, {"text": "a"}, is_approved=x)),
    "runner.run_all(x)": lambda x: runs(lambda: ToolRunner.of(Session()).run_all(x)),
    "runner.run_all_sync(x)": lambda x: ToolRunner.of(Session()).run_all_sync(x),
    "tool.run(is_approved=x)": lambda x: runs(lambda: note.run({"text": "a"}, session=Session(), is_approved=x)),
    "runner.run_all([x])": lambda x: runs(lambda: ToolRunner.of(Session()).run_all([x])),
    "runner.stream(x)": lambda x: consumed(ToolRunner.of(Session()).stream(x, {})),
    "runner.stream(tool, x)": lambda x: consumed(ToolRunner.of(Session()).stream(note, x)),
    "Call(x)": lambda x: Call(x, {}),
    "Call(tool, x)": lambda x: runs(lambda: ToolRunner.of(Session()).run_all([Call(note, x)])),
    "Call(id=x)": lambda x: Call(note, {}, id=x),
    "Call(is_approved=x)": lambda x: Call(note, {}, is_approved=x),
    "PlatformContext(x)": PlatformContext,
    "PlatformContext().get(x)": PlatformContext({"a": 1}).get,
    "SessionKey(x)": SessionKey,
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_wrong_argument_ends_in_an_error_of_dcaf(entry: str) -> None:
    for name, value in WRONG.items():
        error = _raised(ENTRIES[entry], value)
        assert error is None or _is_ours(error), (name, error)


def _raised(entry: Callable[[Any], Any], value: Any) -> Exception | None:
    try:
        entry(value)
    except (DcafError, TypeError) as error:
        return error
    return None


def _is_ours(error: Exception) -> bool:
    """Whether it is dcaf's, or Python's of a call with wrong names; and short enough to be read."""
    return len(str(error)) < 600 and (isinstance(error, DcafError) or "argument" in str(error) or "unhashable" in str(error))


def test_control_without_a_look_at_the_tool_its_inside_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "is_tool", lambda _: True)
    with pytest.raises(AttributeError):
        test_a_wrong_argument_ends_in_an_error_of_dcaf("runner.run(x)")


MESSAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "a dict for a session": (
        lambda: runs(lambda: note.run({"text": "a"}, session={})),  # type: ignore[arg-type]
        "session= takes a Session, and not a dict. For plain values write Session.from_dict({...}).",
    ),
    "the class for a session": (
        lambda: ToolRunner.of(Session),  # type: ignore[arg-type]
        "ToolRunner.of() takes a session, and not the class Session. Write Session() for an empty one.",
    ),
    "a function for a tool": (
        lambda: Call(len, {}),  # type: ignore[arg-type]
        "A call is of a tool, not of a builtin_function_or_method: write @tool above the function.",
    ),
    "a call for a list of calls": (
        lambda: runs(lambda: ToolRunner.of(Session()).run_all(Call(note, {}))),  # type: ignore[arg-type]
        "run_all takes a list of calls: [Call(tool, arguments), ...].",
    ),
    "a word for an approval": (
        lambda: Call(note, {}, is_approved="no"),  # type: ignore[arg-type]
        "is_approved= takes True or False.",
    ),
    "a number for a name": (lambda: tool(name=5), 'name= takes the name that a model calls, for instance name="deploy".'),  # type: ignore[call-overload]
    "None for a function": (lambda: tool(None), "@tool takes a function; its settings are keyword arguments."),  # type: ignore[call-overload]
    "a list for the platform's context": (
        lambda: PlatformContext([]),  # type: ignore[arg-type]
        "platform_context is a dict, name -> value, and not a list.",
    ),
}


@pytest.mark.parametrize(("make", "message"), MESSAGES.values(), ids=MESSAGES)
def test_the_error_says_what_to_write(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert str(caught.value) == message


def test_arguments_that_are_no_object_are_told_to_the_model() -> None:
    for arguments in (None, "text", [1], 3):
        with pytest.raises(ToolArgumentError) as caught:
            note.check(arguments)  # type: ignore[arg-type]
        assert caught.value.problems == (("arguments", "Input should be an object, name -> value"),)
        (result,) = asyncio.run(ToolRunner.of(Session()).run_all([Call(note, arguments)]))  # type: ignore[arg-type]
        assert '"code":"tool-argument"' in result.text


def test_an_unknown_setting_is_pythons_own_error_at_once() -> None:
    with pytest.raises(TypeError, match="requires_aproval"):
        tool(requires_aproval=True)  # type: ignore[call-overload]


def test_a_wrong_plain_call_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'session'"):
        note("a")  # type: ignore[call-arg]


def _texts() -> Iterator[str]:
    yield "a"


def test_what_is_no_list_is_not_read_as_one() -> None:
    with pytest.raises(ConfigurationError, match="run_all takes a list of calls"):
        runs(lambda: ToolRunner.of(Session()).run_all(_texts()))  # type: ignore[arg-type]
