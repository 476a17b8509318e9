"""What a caller gives by mistake: each argument of every public callable of the client and the testing kit, forty wrong values."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

import dcaf.client
import dcaf.testing
from dcaf import Session
from dcaf.client import (
    Approval,
    AsyncClient,
    AsyncSocket,
    AsyncStream,
    Client,
    Conversation,
    Event,
    Reply,
    Retries,
    ServiceError,
    ServiceFailed,
    SessionDead,
    Socket,
    Stream,
    Turn,
    TurnConflict,
    TurnTooLarge,
)
from dcaf.core import DcafError
from dcaf.core.errors import SessionValueError
from dcaf.testing import (
    HARMLESS,
    MISUSES,
    AsyncSessionClient,
    FrozenClock,
    Misuse,
    SessionClient,
    aborted,
    cut,
    expired,
    fixed_keys,
    held,
    sealed,
    serving,
    tampered,
)
from dcaf.testing import Reply as KitReply
from tests.testing.counting import ASKED, AUDIENCE, RING, Counter

CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class Odd:
    """An object with nothing that anybody could want of it."""


def function(*_: Any) -> None: ...


WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "0": lambda: 0,
    "-1": lambda: -1,
    "a large number": lambda: 10**400,
    "a float": lambda: 1.5,
    "nan": lambda: float("nan"),
    "an empty text": lambda: "",
    "a text": lambda: "x",
    "a text with a line feed": lambda: "x\r\ny: z",
    "half a character": lambda: "\ud800",
    "bytes": lambda: b"x",
    "a bytearray": lambda: bytearray(b"x"),
    "a memoryview": lambda: memoryview(b"x"),
    "an empty list": list,
    "a list": lambda: [1],
    "a list of texts": lambda: ["x"],
    "a tuple": lambda: (1, 2),
    "an empty dict": dict,
    "a dict": lambda: {"a": 1},
    "a dict of objects": lambda: {"a": Odd()},
    "a dict with numbers for names": lambda: {1: 2},
    "a dict that is odd inside": lambda: {"content": 5, "data": 5, "dcaf": 5, "messages": 5, "type": 5, "id": 5},
    "a set": lambda: {1},
    "a circle": lambda: CIRCULAR,
    "a dict with a circle": lambda: {"a": CIRCULAR},
    "a dict that is deep": lambda: {"a": DEEP},
    "an object": Odd,
    "a class": lambda: Session,
    "a session": Session,
    "a function": lambda: function,
    "a generator": lambda: iter([1]),
    "a datetime": lambda: datetime(2026, 1, 1),  # noqa: DTZ001 - without a zone
    "the last datetime": lambda: datetime.max.replace(tzinfo=UTC),
    "a timedelta": lambda: timedelta(seconds=5),
    "no time": lambda: timedelta(0),
    "the longest timedelta": lambda: timedelta.max,
    "the shortest timedelta": lambda: timedelta.min,
    "a path": lambda: Path("x"),
    "an exception": lambda: ValueError("x"),
}


@dataclass
class Entry:
    """A callable, and arguments with which it works: made anew for every call."""

    call: Callable[..., Any]
    given: Callable[[], dict[str, Any]]
    takes_anything: tuple[str, ...] = ()
    positional: tuple[str, ...] = field(default=())


ENVELOPE = sealed({"n": 1}, keys=RING, audience=AUDIENCE)
ITEM = {"id": "a", "name": "wipe", "input": {}, "description": "", "intent": ""}
APP = Counter()


def turn() -> Turn:
    return Turn(Conversation(), "hi")


def waiting() -> Conversation:
    return Conversation(messages=[{"role": "assistant", "content": "?", "data": {"approvals": [ITEM]}}])


def spoken(method: str, kind: type, **options: Any) -> Callable[..., Any]:
    """Say something with a client of an application in this process, or of the kit."""

    def call(**arguments: Any) -> Any:
        said = [arguments.pop(name) for name in ("said", "text", "decision", "body") if name in arguments]
        if kind is Client:
            http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={"content": "ok"})))
            return _iterated(getattr(Client("http://x", http=http), method)(*said, **arguments))
        if kind is AsyncClient:
            return asyncio.run(_awaited(method, said, arguments))
        if kind is SessionClient:
            client = SessionClient(APP, **options)
            client.messages = [{"role": "assistant", "content": "", "data": {"approvals": [ASKED]}}]
            return getattr(client, method)(*said, **arguments)
        return asyncio.run(_kit_awaited(method, said, arguments, options))

    return call


def _iterated(value: Any) -> Any:
    return list(value) if isinstance(value, Stream) else value


async def _awaited(method: str, said: list[Any], arguments: dict[str, Any]) -> Any:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={"content": "ok"})))
    found = getattr(AsyncClient("http://x", http=http), method)(*said, **arguments)
    if isinstance(found, AsyncStream):
        return [event async for event in found]
    return await found


async def _kit_awaited(method: str, said: list[Any], arguments: dict[str, Any], options: dict[str, Any]) -> Any:
    async with AsyncSessionClient(APP, **options) as client:
        client.messages = [{"role": "assistant", "content": "", "data": {"approvals": [ASKED]}}]
        return await getattr(client, method)(*said, **arguments)


def settings() -> dict[str, Any]:
    return {
        "base_url": "http://x",
        "headers": {"x": "y"},
        "fields": {"thread_id": "t-1"},
        "session": ENVELOPE,
        "messages": [],
        "path": "/a",
        "stream_path": "/b",
        "socket_path": "/c",
        "on_dead": "raise",
        "history": "server",
        "timeout": timedelta(seconds=5),
        "http": None,
        "retries": Retries(),
        "sleep": None,
    }


def kit_settings() -> dict[str, Any]:
    return {
        "app": APP,
        "wire": "json",
        "path": "/api/chat",
        "envelope": ENVELOPE,
        "messages": [],
        "headers": {"x": "y"},
        "fields": {"thread_id": "t-1"},
        "echo": HARMLESS["strip nulls"],
        "history": "server",
        "terminal": function,
        "timeout": timedelta(seconds=5),
        "raise_server_exceptions": True,
    }


def seal_settings() -> dict[str, Any]:
    return {
        "state": {"n": 1},
        "keys": RING,
        "audience": AUDIENCE,
        "subject": "ada",
        "conversation": "t-1",
        "age": timedelta(0),
        "lived": timedelta(0),
        "sequence": 1,
        "version": 0,
        "encrypt": False,
        "idle_timeout": timedelta(days=7),
        "absolute_timeout": timedelta(days=30),
        "clock": FrozenClock(),
    }


def without(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def problem() -> dict[str, Any]:
    return {"code": "x", "status": 409, "detail": "d", "retry_after": timedelta(seconds=1)}


def in_loop(kind: Any) -> Callable[..., Any]:
    async def made(**arguments: Any) -> Any:
        return kind(**arguments)

    return lambda **arguments: asyncio.run(made(**arguments))


def opened(**given: Any) -> Any:
    return SessionClient(given.pop("app"), **given)


SAYING: dict[str, Any] = {"said": "hi", "decisions": {}, "thread_id": "t-1"}
ENTRIES: dict[str, Entry] = {
    "Approval": Entry(Approval, lambda: {**ITEM, "body": ITEM}, ("input",)),
    "Approval.read": Entry(Approval.read, lambda: {"item": ITEM}),
    "Client": Entry(Client, settings),
    "AsyncClient": Entry(in_loop(AsyncClient), settings),
    **{
        f"{kind.__name__}.{name}": Entry(spoken(name, kind), lambda: dict(SAYING), ("thread_id",))
        for kind in (Client, AsyncClient)
        for name in ("send", "stream")
    },
    "Conversation": Entry(
        Conversation,
        lambda: {
            name: value
            for name, value in settings().items()
            if name in {"fields", "session", "messages", "on_dead", "retries", "history"}
        },
    ),
    "Conversation.body": Entry(lambda **given: Conversation().body(**given), lambda: {"message": {"content": "x"}, "fields": {}}),
    "Conversation.adopt": Entry(
        lambda **given: Conversation().adopt(**given), lambda: {"value": {}, "status": 200}, ("value", "status")
    ),
    "Conversation.settle": Entry(lambda **given: Conversation().settle(**given), lambda: {"items": []}),
    "Conversation.keep": Entry(
        lambda **given: Conversation().keep(**given), lambda: {"message": {}, "answer": {}, "begins": False}, ("begins",)
    ),
    "Event": Entry(Event, lambda: {"body": {"type": "done"}}),
    "Reply": Entry(Reply, lambda: {"body": {}, "restarted": None, "attempts": 1}),
    "Retries": Entry(Retries, lambda: {"pauses": (timedelta(seconds=1),), "patience": timedelta(seconds=5)}),
    "Turn": Entry(Turn, lambda: {"conversation": waiting(), "said": "hi", "decisions": {"a": True}, "fields": {}}),
    "Turn.answered": Entry(
        lambda **given: turn().answered(**given),
        lambda: {"status": 200, "headers": {"content-type": "application/json"}, "content": b'{"content":"x"}'},
    ),
    "Turn.is_stream": Entry(lambda **given: turn().is_stream(**given), lambda: {"status": 200, "headers": {}}),
    "Turn.feed": Entry(lambda **given: list(turn().feed(**given)), lambda: {"chunk": b""}),
    "Turn.frame": Entry(lambda **given: turn().frame(**given), lambda: {"text": '{"type":"done"}'}),
    "Turn.overheard": Entry(lambda **given: turn().overheard(**given), lambda: {"text": "{}"}),
    "Turn.leave": Entry(lambda **given: turn().leave(**given), lambda: {"frames": ["{}"]}),
    "Turn.patience": Entry(lambda **given: turn().patience(**given), lambda: {"timeout_s": 1.5}, ("timeout_s",)),
    **{
        kind.__name__: Entry(
            kind, lambda: {"conversation": Conversation(), "url": "ws://x", "headers": {}, "timeout_s": 1.5, "sleep": function}
        )
        for kind in (Socket, AsyncSocket)
    },
    "Stream": Entry(Stream, lambda: {"turn": turn(), "events": _no_event()}),
    "AsyncStream": Entry(AsyncStream, lambda: {"turn": turn(), "events": _no_event_either()}),
    **{kind.__name__: Entry(kind, problem) for kind in (ServiceError, ServiceFailed, SessionDead, TurnTooLarge)},
    "TurnConflict": Entry(TurnConflict, lambda: {**problem(), "applied": True}),
    "SessionClient": Entry(opened, kit_settings),
    "AsyncSessionClient": Entry(in_loop(AsyncSessionClient), kit_settings),
    **{
        f"{kind.__name__}.{name}": Entry(spoken(name, kind, raise_server_exceptions=False), given, ("thread_id", "body", "text"))
        for kind in (SessionClient, AsyncSessionClient)
        for name, given in (
            ("send", lambda: {"text": "hi", "thread_id": "t-1"}),
            ("post", lambda: {"body": {"messages": [{"content": "x"}]}}),
        )
    },
    "SessionClient.decide": Entry(
        lambda decision, text: _deciding().decide(decision, text), lambda: {"decision": True, "text": "yes"}
    ),
    "FrozenClock": Entry(FrozenClock, lambda: {"now": datetime(2026, 1, 1, tzinfo=UTC)}),
    "FrozenClock.tick": Entry(lambda **given: FrozenClock().tick(**given), lambda: {"by": timedelta(seconds=1)}),
    "Misuse": Entry(Misuse, lambda: {"level": "L0", "status": 400, "code": "x", "setting": None, "play": function}),
    "Misuse.expected": Entry(MISUSES["swap users"].expected, lambda: {"settings": (), "level": "L0"}),
    **{
        f"MISUSES[{name!r}]": Entry(misuse.play, lambda: {"client": SessionClient(APP), "other": SessionClient(APP), "text": "hi"})
        for name, misuse in MISUSES.items()
    },
    **{f"HARMLESS[{name!r}]": Entry(echo, lambda: {"envelope": ENVELOPE}) for name, echo in HARMLESS.items()},
    "kit Reply": Entry(
        KitReply,
        lambda: {"status": 200, "body": {}, "headers": {}, "sent_bytes": 1, "content": b"", "close_code": None},
        ("body",),
    ),
    "kit Reply.of_answer": Entry(
        KitReply.of_answer, lambda: {"status": 200, "headers": {"A": "b"}, "content": b"", "sent_bytes": 1}
    ),
    "kit Reply.of_frames": Entry(KitReply.of_frames, lambda: {"frames": ["{}"], "sent_bytes": 1, "close_code": None}),
    "aborted": Entry(aborted, lambda: {"client": SessionClient(APP), "text": "hi", "at": 0}),
    "cut": Entry(cut, lambda: {"body": b"abc", "at": 1}),
    "held": Entry(held, lambda: {"content_type": "application/json", "text": b"{}", "old": None, "whole": False}, ("whole",)),
    "sealed": Entry(sealed, seal_settings),
    "expired": Entry(expired, lambda: without(seal_settings(), "age")),
    "serving": Entry(serving, lambda: {"app": APP, "port": 0}),
    "tampered": Entry(tampered, lambda: {"envelope": ENVELOPE}),
}
ONE_MESSAGE = ("AnswerUnreadable", "ApprovalUnknown", "ClientError", "ServiceUnreachable", "TurnOvertaken", "TurnUnfinished")
NO_ENTRY = {
    "Applied": "a type",
    "HARMLESS": "a table: its functions are entries",
    "MISUSES": "likewise",
    "Decision": "a type",
    "EngineContract": "a class of tests, which pytest makes and calls",
    "SearchEngineContract": "likewise",
    "Echo": "a type",
    "HistoryMode": "a type",
    "OnDead": "a type",
    "Wire": "a type",
    "fixed_keys": "it takes nothing",
    **dict.fromkeys(ONE_MESSAGE, "an error whose message is its one argument"),
}


def _deciding() -> SessionClient:
    client = SessionClient(APP)
    client.messages = [{"role": "assistant", "content": "", "data": {"approvals": [ASKED]}}]
    return client


def _no_event() -> Generator[Event]:
    yield from ()


async def _no_event_either() -> AsyncGenerator[Event]:
    for event in list[Event]():
        yield event


def cells() -> list[tuple[str, str]]:
    return [(name, argument) for name, entry in ENTRIES.items() for argument in entry.given()]


def said(entry: Entry, argument: str, value: Any) -> BaseException | None:
    """What a call said that had one wrong argument; None where it went well."""
    try:
        entry.call(**{**entry.given(), argument: value})
    except BaseException as error:  # noqa: BLE001 - whatever it is is judged
        return error
    return None


def is_told(error: BaseException | None, argument: str) -> bool:
    """Whether an error is one of this library and names the argument; a value that was taken is none."""
    return error is None or (isinstance(error, DcafError) and (argument in str(error) or _names_another(error, argument)))


def _names_another(error: DcafError, argument: str) -> bool:
    """Whether it says by another word what is wrong with a value that is of the right type."""
    known = {
        "said": "message",
        "text": "user",
        "decisions": "decision",
        "headers": "The answer",
        "thread_id": "fields",
        "status": "answer",
        "state": "value",
    }
    words = (known.get(argument, argument), "service answered", "event is no JSON", "The stream", "envelope", "clock", "wait")
    return isinstance(error, SessionValueError) or any(word in str(error) for word in words)


@pytest.mark.parametrize(("name", "argument"), cells(), ids=str)
def test_a_wrong_argument_ends_in_an_error_that_names_it(name: str, argument: str) -> None:
    entry = ENTRIES[name]
    assert said(entry, argument, entry.given()[argument]) is None, "what the test gives is right"
    found = {label: said(entry, argument, make()) for label, make in WRONG.items()}
    assert {label: repr(error) for label, error in found.items() if not is_told(error, argument)} == {}
    if argument not in entry.takes_anything:
        assert sum(error is not None for error in found.values()) > len(WRONG) // 2, "most are refused, and not taken silently"


def test_every_public_name_is_walked() -> None:
    public = {*dcaf.client.__all__, *dcaf.testing.__all__}
    assert public - {name.split(".")[0].split("[")[0] for name in ENTRIES} - NO_ENTRY.keys() == set()
    for name, entry in ENTRIES.items():
        if inspect.isclass(entry.call) or inspect.ismethod(entry.call):
            assert set(inspect.signature(entry.call).parameters) - {"_"} == set(entry.given()), name


def test_control_a_function_that_checks_nothing_is_caught() -> None:
    unchecked = Entry(lambda text: text.partition("x"), lambda: {"text": "hi"})
    found = [said(unchecked, "text", make()) for make in WRONG.values()]
    assert not all(is_told(error, "text") for error in found)


def test_no_message_has_the_value_that_was_wrong() -> None:
    for name, argument in cells():
        for value in ("canary-xyzzy", {"canary-xyzzy": Odd()}, [b"canary-xyzzy"], ["canary-xyzzy"]):
            error = said(ENTRIES[name], argument, value)
            is_named = argument in {"wire", "decisions", "state"}
            assert error is None or is_named or "xyzzy" not in str(error), (name, argument, error)


def test_keys_of_the_kit_are_what_they_are() -> None:
    assert fixed_keys().active.kid == "testonly"
