"""A session that is written after its turn: every way to write it is an error and is told, on every wire; reading goes on."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from dcaf import Session, current_session
from dcaf.core.errors import SessionClosedError
from dcaf.core.mapping import StateMapping
from dcaf.core.state import State
from dcaf.integrations.starlette import SessionMiddleware as DropIn
from dcaf.tools import tool
from tests.asgi.sockets import Agent, Peer
from tests.asgi.wire import AUDIENCE, RING, Recorder, call, envelope, exchange, messages_of, mounted, scope_of

STATE = {"n": 1, "cart": {"items": [1]}, "list": [1], "user:theme": "dark"}


def use(session: Session) -> None:
    """Use up a key, which waits for nothing here."""
    with suppress(StopIteration):
        session.once("late").send(None)


class Deploy(Session):
    n: int = 0
    note: str = ""


Write = Callable[[Session], Any]

WRITES: dict[str, Write] = {
    "__setitem__": lambda session: session.__setitem__("late", 1),
    "__delitem__": lambda session: session.__delitem__("n"),
    "__ior__": lambda session: session.__ior__({"late": 1}),
    "set": lambda session: session.set("n", 2),
    "delete": lambda session: session.delete("n"),
    "incr": lambda session: session.incr("n"),
    "append": lambda session: session.append("list", 2),
    "update": lambda session: session.update(late=1),
    "clear": lambda session: session.clear(),
    "pop": lambda session: session.pop("n"),
    "popitem": lambda session: session.popitem(),
    "setdefault": lambda session: session.setdefault("late", 1),
    "end": lambda session: session.end(),
    "rotate": lambda session: session.rotate(),
    "once": use,
}
"""Each method that changes a session."""

READS: dict[str, Callable[[Session], Any]] = {
    "__getitem__": lambda session: session["cart"],
    "__contains__": lambda session: "n" in session,
    "__iter__": list,
    "__reversed__": lambda session: [*reversed(session)],
    "__len__": len,
    "__eq__": lambda session: session == {},
    "__or__": lambda session: session | {"a": 1},
    "__ror__": lambda session: {"a": 1} | session,
    "__repr__": repr,
    "__bool__": bool,
    "__copy__": copy.copy,
    "__deepcopy__": copy.deepcopy,
    "get": lambda session: session.get("cart", as_type=dict[str, list[int]]),
    "has": lambda session: session.has("n"),
    "keys": lambda session: [*session.keys()],
    "items": lambda session: [*session.items()],
    "values": lambda session: [*session.values()],
    "copy": lambda session: session.copy(),
    "to_dict": lambda session: session.to_dict(),
    "temp": lambda session: dict(session.temp),
    "user": lambda session: dict(session.user),
    "app": lambda session: dict(session.app),
    "is_modified": lambda session: session.is_modified,
    "is_empty": lambda session: session.is_empty,
    "changes": lambda session: session.changes,
    "id": lambda session: session.id,
    "sequence": lambda session: session.sequence,
    "created_at": lambda session: session.created_at,
    "expires_at": lambda session: session.expires_at,
    "restarted": lambda session: session.restarted,
}
"""Each that only looks at it."""

ELSEWHERE: dict[str, Write] = {
    "temp:": lambda session: session.temp.update(late=1),
    "user:": lambda session: session.user.incr("late"),
    "app:": lambda session: session.app.append("late", 1),
    "a scope is cleared": lambda session: session.user.clear(),
    "a field": lambda session: setattr(Deploy.of(session), "n", 7),
    "a method of a typed one": lambda session: Deploy.of(session).set("note", "late"),
    "by a key that is no field": lambda session: Deploy.of(session).incr("late"),
}
"""Other doors to the same state."""

MADE_OF_CLASSES = {"from_dict", "fromkeys", "of"}


def test_every_method_of_a_session_is_known_here_to_write_or_to_read() -> None:
    own = {name for each in (Session, StateMapping) for name in vars(each) if not name.startswith("_")}
    inherited = {"pop", "popitem", "setdefault"}
    operators = {name for name in vars(StateMapping) if name.startswith("__") and name in {*WRITES, *READS}}
    assert own | inherited == {name for name in {*WRITES, *READS} - operators if not name.startswith("__")} | MADE_OF_CLASSES


# A turn on each wire, whose session somebody keeps


def by_body(told: list[Any], **settings: Any) -> Session:
    return kept_by(Recorder(), {"data": {"session": envelope(STATE)}}, told, **settings)


def kept_by(app: Recorder, body: Any, told: list[Any], headers: Any = (), **settings: Any) -> Session:
    call(mounted(app, on_event=told.append, **settings), body, headers=[(b"content-type", b"application/json"), *headers])
    found: Session = app.scopes[0]["dcaf.session"]
    return found


def by_stream(kind: bytes, **settings: Any) -> Callable[[list[Any]], Session]:
    ends = b'data: {"type":"done"}\n\n' if b"event" in kind else b'{"type":"done"}\n'
    app = Recorder([b": \n\n" if b"event" in kind else b"1\n", ends], headers=((b"content-type", kind),))
    return lambda told: kept_by(app, {"data": {"session": envelope(STATE)}}, told, **settings)


def by_header(told: list[Any]) -> Session:
    token = envelope(STATE)["dcaf"]["token"].encode()
    return kept_by(Recorder(), {}, told, [(b"dcaf-session", token)], carriers=("header",))


def by_cookie(told: list[Any]) -> Session:
    token = envelope(STATE)["dcaf"]["token"].encode()
    return kept_by(Recorder(), {}, told, [(b"cookie", b"__Host-dcaf=" + token)], carriers=("cookie",))


def of_a_turn_that_failed(told: list[Any]) -> Session:
    def fail(session: Session) -> None:
        raise LookupError

    app = Recorder(tool=fail)
    with suppress(LookupError):
        kept_by(app, {"data": {"session": envelope(STATE)}}, told)
    found: Session = app.scopes[0]["dcaf.session"]
    return found


def of_a_refused_answer(told: list[Any]) -> Session:
    app = Recorder(b"text", headers=((b"content-type", b"text/plain"),), tool=lambda session: session.incr("n"))
    with suppress(Exception):
        kept_by(app, {"data": {"session": envelope(STATE)}}, told)
    found: Session = app.scopes[0]["dcaf.session"]
    return found


def by_socket(told: list[Any], **settings: Any) -> Session:
    agent = Agent()
    with Peer(mounted(agent, on_event=told.append, **settings)) as peer:
        peer.ask({"data": {"session": envelope(STATE)}})
        peer.leave()
    found: Session = agent.session
    return found


def by_a_socket_that_failed(told: list[Any]) -> Session:
    def fail(session: Session) -> None:
        raise LookupError

    agent = Agent(fail)
    with Peer(mounted(agent, on_event=told.append)) as peer:
        peer.say({"data": {"session": envelope(STATE)}})
        with pytest.raises(LookupError):
            peer.hear()
    found: Session = agent.session
    return found


def by_the_handshake_of_a_socket(told: list[Any]) -> Session:
    token = envelope(STATE)["dcaf"]["token"].encode()
    agent = Agent()
    headers = [(b"cookie", b"__Host-dcaf=" + token)]
    with Peer(mounted(agent, on_event=told.append, carriers=("cookie",)), headers=headers) as peer:
        peer.leave()
    found: Session = agent.session
    return found


WIRES: dict[str, Callable[[list[Any]], Session]] = {
    "a JSON answer": by_body,
    "a JSON answer of a plain route": lambda told: by_body(told, plain=("/api/chat",)),
    "an encrypted session": lambda told: kept_by(
        Recorder(), {"data": {"session": envelope(STATE, encrypt=True)}}, told, encrypt=True
    ),
    "NDJSON": by_stream(b"application/x-ndjson"),
    "server-sent events": by_stream(b"text/event-stream"),
    "a stream that passes": by_stream(b"text/event-stream", pass_streams=("/api/chat",)),
    "a header": by_header,
    "a cookie": by_cookie,
    "a turn that failed": of_a_turn_that_failed,
    "a refused answer": of_a_refused_answer,
    "a socket": by_socket,
    "a socket of a plain route": lambda told: by_socket(told, plain=("/ws",)),
    "a socket that failed": by_a_socket_that_failed,
    "a handshake": by_the_handshake_of_a_socket,
}


def is_told(session: Session, write: Write, told: list[Any]) -> None:
    """The law: the write is an error, it is told once, and nothing is changed."""
    before = session.copy()
    del told[:]
    with pytest.raises(SessionClosedError, match="after its turn was over"):
        write(session)
    assert [event.name for event in told] == ["lost"]
    assert session.copy() == before


@pytest.mark.parametrize("wire", WIRES)
def test_a_write_after_the_turn_is_an_error_and_told_on_every_wire(wire: str) -> None:
    told: list[Any] = []
    session = WIRES[wire](told)
    assert session.get("cart") == {"items": [1]}
    for write in (WRITES | ELSEWHERE).values():
        is_told(session, write, told)


@pytest.mark.parametrize("wire", WIRES)
def test_reading_after_the_turn_goes_on_and_tells_of_nothing(wire: str) -> None:
    told: list[Any] = []
    session = WIRES[wire](told)
    before = session.copy()
    del told[:]
    for read in READS.values():
        read(session)
    assert Deploy.of(session).n == before["n"]
    assert (session.copy(), told) == (before, [])


def test_a_copy_that_is_taken_after_the_turn_is_nobodys_and_may_be_written() -> None:
    told: list[Any] = []
    own = copy.copy(by_body(told))
    own["late"] = 1
    assert (own["late"], told) == (1, [])


@pytest.mark.parametrize("write", [*WRITES, *ELSEWHERE])
def test_control_a_session_that_does_not_end_is_caught(write: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(State, "end", lambda *_: None)
    told: list[Any] = []
    session = by_body(told)
    with pytest.raises(pytest.fail.Exception):
        is_told(session, (WRITES | ELSEWHERE)[write], told)


@pytest.mark.parametrize("wire", ["a JSON answer", "a socket"])
def test_control_an_end_that_tells_nobody_is_caught(wire: str, monkeypatch: Any) -> None:
    end = State.end
    monkeypatch.setattr(State, "end", lambda state, _: end(state, lambda: None))
    told: list[Any] = []
    session = WIRES[wire](told)
    with pytest.raises(AssertionError):
        is_told(session, WRITES["set"], told)


# Who writes: a task, a thread, the next request, a tool


@tool
def late_tool(session: Session) -> str:
    """Write."""
    session["late"] = 1
    return "written"


async def _task() -> None:
    await asyncio.sleep(0)
    current_session()["late"] = 1


async def _in_a_thread() -> None:
    await asyncio.to_thread(lambda: current_session().update(late=1))


async def _bare_thread() -> None:
    session, raised = current_session(), list[Exception]()

    def write() -> None:
        try:
            session.incr("n")
        except SessionClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    await asyncio.to_thread(thread.join)
    raise raised[0]


async def _tool() -> None:
    with suppress(SessionClosedError):
        await late_tool.run({})
    raise SessionClosedError("whatever a tool makes of it, the operator is told")


LATER = {"a task": _task, "a thread of asyncio": _in_a_thread, "a thread": _bare_thread, "a tool": _tool}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("carriers", [("body",), ("header",), ("cookie",)])
def test_whoever_is_started_by_a_turn_and_writes_after_it_is_told(later: str, carriers: Any) -> None:
    told: list[Any] = []

    async def run() -> Any:
        gate, tasks = asyncio.Event(), list[Any]()

        async def after() -> None:
            await gate.wait()
            await LATER[later]()

        async def chat(request: Any) -> JSONResponse:
            tasks.append(asyncio.create_task(after()))
            return JSONResponse({})

        app = mounted(
            Starlette(routes=[Route("/api/chat", chat, methods=["POST"])]),
            on_event=lambda event: told.append(event.name),
            carriers=carriers,
        )
        sent = await exchange(app, scope_of(), messages_of(b"{}"))
        assert told == []
        gate.set()
        with pytest.raises(SessionClosedError):
            await tasks[0]
        return sent

    assert asyncio.run(run()).status == 200
    assert told == ["lost"]


def test_the_session_of_one_user_that_was_kept_takes_nothing_from_the_next() -> None:
    kept: list[Session] = []
    errors: list[Exception] = []

    def write(session: Session) -> None:
        kept.append(session)
        try:
            kept[0]["name"] = f"user {len(kept)}"
        except SessionClosedError as error:
            errors.append(error)

    app = mounted(Recorder(tool=write))
    first, second = call(app, {}), call(app, {})
    assert (first.envelope["name"], second.envelope, len(errors)) == ("user 1", None, 1)
    assert kept[0].to_dict() == {"name": "user 1"}


# The drop-in, whose session is a dict

DICT_WRITES: dict[str, Callable[[Any], Any]] = {
    "__setitem__": lambda shown: shown.__setitem__("late", 1),
    "__delitem__": lambda shown: shown.__delitem__("n"),
    "__ior__": lambda shown: shown.__ior__({"late": 1}),
    "update": lambda shown: shown.update(late=1),
    "clear": lambda shown: shown.clear(),
    "pop": lambda shown: shown.pop("n"),
    "popitem": lambda shown: shown.popitem(),
    "setdefault": lambda shown: shown.setdefault("late", 1),
}


def kept_dict(told: list[Any]) -> Any:
    kept: list[Any] = []

    async def chat(request: Any) -> JSONResponse:
        request.session.update(STATE)
        kept.append(request.session)
        return JSONResponse({})

    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"])])
    call(DropIn(app, keys=RING, audience=AUDIENCE, on_event=told.append), {})
    del told[:]
    return kept[0]


@pytest.mark.parametrize("write", DICT_WRITES)
def test_each_writing_method_of_the_drop_ins_dict_is_told_and_undone(write: str) -> None:
    told: list[Any] = []
    shown = kept_dict(told)
    with pytest.raises(SessionClosedError):
        DICT_WRITES[write](shown)
    assert {event.name for event in told} == {"lost"}
    del told[:]
    assert (dict(shown), json.loads(json.dumps(shown)), shown.get("n"), "n" in shown, len(shown)) == (STATE, STATE, 1, True, 4)
    assert told == []


def test_every_method_that_changes_a_dict_is_known_here() -> None:
    looks = {"copy", "fromkeys", "get", "items", "keys", "values", "__ior__"}
    assert {name for name in vars(dict) if not name.startswith("_")} - looks == {*DICT_WRITES} - {
        "__setitem__",
        "__delitem__",
        "__ior__",
    }


def test_what_is_written_past_the_dicts_methods_is_told_to_the_next_who_looks() -> None:
    told: list[Any] = []
    shown = kept_dict(told)
    dict.__setitem__(shown, "late", 1)
    with pytest.raises(SessionClosedError):
        shown.get("n")
    assert [event.name for event in told] == ["lost"]
