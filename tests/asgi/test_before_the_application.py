"""What the library does to a session before the application runs, a migration or an import, is no change of the application."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcaf.asgi import Import
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.core.errors import NotCarriedError
from dcaf.core.sealer import Sealer
from dcaf.core.session import Session
from dcaf.core.state import State
from tests.asgi.sockets import Agent, Peer
from tests.asgi.wire import JSON_TYPE, Recorder, call, envelope, mounted, opened

VERSIONS: dict[int, Any] = {
    1: lambda values: {"count": values.pop("n"), **values},
    2: lambda values: {"turns": values.pop("count"), **values},
    3: lambda values: {**values, "new": True},
}


def door(accept: Any = dict) -> Import:
    return Import(until=datetime.now(UTC) + timedelta(days=1), accept=accept)


class Older:
    """A session of before, and the service that it comes to.

    Args:
        settings: Of the middleware.
        session: As the client has it.
        state: As the application has it.
    """

    def __init__(self, settings: dict[str, Any], session: Any, state: dict[str, Any]) -> None:
        self.settings, self.session, self.state = settings, session, state


def migrated(version: int, state: dict[str, Any], **sealed: Any) -> Older:
    steps = {step: VERSIONS[step] for step in range(1, version + 1)}
    return Older({"version": version, "migrations": steps, **sealed}, envelope({"n": 7}, **sealed), state)


OLDER: dict[str, Callable[[], Older]] = {
    "a migration": lambda: migrated(1, {"count": 7}),
    "two migrations": lambda: migrated(2, {"turns": 7}),
    "three, of which one adds": lambda: migrated(3, {"turns": 7, "new": True}),
    "an import": lambda: Older({"unsigned": door()}, {"n": 7}, {"n": 7}),
    "an import that narrows": lambda: Older({"unsigned": door(lambda plain: {"n": plain["n"]})}, {"n": 7, "admin": True}, {"n": 7}),
    "an import under a version": lambda: Older(
        {"unsigned": door(), "version": 1, "migrations": {1: VERSIONS[1]}}, {"count": 7}, {"count": 7}
    ),
}
EVERY = pytest.mark.parametrize("older", OLDER)

TEXT = (b"content-type", b"text/plain")
UNABLE: dict[str, dict[str, Any]] = {
    "a text": {"answer": b"n,7", "headers": (TEXT,)},
    "nothing": {"answer": b"", "status": 204, "headers": ()},
    "a redirect": {"answer": b"", "status": 303, "headers": ((b"location", b"/"),)},
    "a file": {"answer": [b"\x89PNG", b"\r\n"], "headers": ((b"content-type", b"image/png"),)},
    "a part": {"answer": b"{}", "status": 206, "headers": (JSON_TYPE,)},
    "an encoded one": {"answer": b"\x1f\x8b", "headers": (JSON_TYPE, (b"content-encoding", b"gzip"))},
    "an array": {"answer": b"[1]", "headers": (JSON_TYPE,)},
    "broken JSON": {"answer": b'{"a":', "headers": (JSON_TYPE,)},
    "a server error": {"answer": b"sorry", "status": 500, "headers": (TEXT,)},
    "a stream that passes": {"answer": [b"data: 1\n\n", b"data: 2\n\n"], "headers": ((b"content-type", b"text/event-stream"),)},
}


def look(session: Session) -> None:
    """What changes nothing."""
    assert not session.is_modified
    session.to_dict()


def answered_unable(older: Older, unable: str, tool: Any = look, told: Any = None) -> tuple[Any, Recorder]:
    app = Recorder(**UNABLE[unable], tool=tool)
    service = mounted(
        app, **older.settings, **({"pass_streams": ("/api/chat",)} if unable == "a stream that passes" else {}), on_event=told
    )
    return call(service, {"data": {"session": older.session}}), app


@pytest.mark.parametrize("tool", [None, look], ids=["not looked at", "read"])
@pytest.mark.parametrize("unable", UNABLE)
@EVERY
def test_an_answer_that_carries_no_session_passes_and_the_next_turn_begins_alike(older: str, unable: str, tool: Any) -> None:
    each, told = OLDER[older](), list[Any]()
    for _ in range(2):
        sent, app = answered_unable(each, unable, tool, told.append)
        wanted = UNABLE[unable]["answer"]
        assert (sent.status, sent.body) == (
            UNABLE[unable].get("status", 200),
            wanted if isinstance(wanted, bytes) else b"".join(wanted),
        )
        assert app.states == [each.state]
    assert {event.name for event in told} <= {"imported"}


@EVERY
def test_on_a_socket_whose_turn_nothing_ends_nothing_is_lost(older: str) -> None:
    each, told = OLDER[older](), list[Any]()
    agent = Agent(look, '{"type":"text_delta"}')
    with Peer(mounted(agent, **each.settings, on_event=told.append)) as peer:
        assert peer.ask({"data": {"session": each.session}}) == {"type": "text_delta"}
        peer.leave()
    assert agent.states == [each.state]
    assert {event.name for event in told} <= {"imported"}


@EVERY
def test_where_the_application_changed_it_too_such_an_answer_is_still_an_error(older: str) -> None:
    with pytest.raises(NotCarriedError):
        answered_unable(OLDER[older](), "a text", lambda session: session.incr("added"))


@EVERY
def test_an_answer_that_can_carry_it_has_the_new_state(older: str) -> None:
    each = OLDER[older]()
    sent = call(mounted(Recorder(tool=look), **each.settings), {"data": {"session": each.session}})
    assert {name: value for name, value in sent.envelope.items() if name != "dcaf"} == each.state
    app = Recorder()
    call(mounted(app, **each.settings), {"data": {"session": sent.envelope}})
    assert app.states == [each.state]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("carrier", ["header", "cookie"])
def test_beside_the_body_an_older_session_is_read_alike_and_nothing_is_an_error(carrier: str, version: int) -> None:
    each = migrated(version, {"turns": 7, "new": True} if version == 3 else {"turns" if version == 2 else "count": 7})
    token = each.session["dcaf"]["token"].encode()
    own = (b"cookie", b"__Host-dcaf=" + token) if carrier == "cookie" else (b"dcaf-session", token)
    for unable in ("a text", "nothing", "a server error", "an array"):
        app = Recorder(**UNABLE[unable], tool=look)
        sent = call(mounted(app, carriers=(carrier,), **each.settings), {}, headers=(JSON_TYPE, own))
        assert (sent.status, app.states) == (UNABLE[unable].get("status", 200), [each.state])


# The application's own plain object


def next_of(state: dict[str, Any]) -> dict[str, Any]:
    """What the application of before the middleware makes of a state: it counts, and adds to what it finds."""
    return {**{name: value + 1 if type(value) is int else value for name, value in state.items()}, "seen": True}


def plainly(body: bytes) -> bytes:
    found = (json.loads(body).get("data") or {}).get("session") or {}
    return json.dumps({"type": "done", "data": {"session": next_of(found)}}).encode()


def by_json(older: Older, session: Any) -> Any:
    return served(older, session, plainly, JSON_TYPE)


def by_chunks(older: Older, session: Any) -> Any:
    return served(older, session, lambda body: [plainly(body)[:9], plainly(body)[9:]], JSON_TYPE)


def by_lines(older: Older, session: Any) -> Any:
    return served(
        older, session, lambda body: [b'{"type":"text_delta"}\n', plainly(body) + b"\n"], (b"content-type", b"application/x-ndjson")
    )


def by_events(older: Older, session: Any) -> Any:
    return served(
        older, session, lambda body: [b": ping\n\n", b"data: " + plainly(body) + b"\n\n"], (b"content-type", b"text/event-stream")
    )


def served(older: Older, session: Any, answer: Any, kind: Any) -> Any:
    app = Recorder(answer, headers=(kind,))
    sent = call(mounted(app, plain=("/api/chat",), **older.settings), {"data": {"session": session}})
    last = [line for line in sent.body.splitlines() if b'"done"' in line][-1]
    return json.loads(last.removeprefix(b"data:"))["data"]["session"]


def by_socket(older: Older, session: Any) -> Any:
    agent = Agent(None, lambda message: plainly(message["text"].encode()).decode())
    with Peer(mounted(agent, plain=("/ws",), **older.settings)) as peer:
        return peer.ask({"data": {"session": session}})["data"]["session"]


def by_messages(older: Older, session: Any) -> Any:
    app = Recorder(lambda body: json.dumps({"data": {"session": next_of(read_message(body))}}).encode())
    sent = call(mounted(app, plain=("/api/chat",), **older.settings), {"messages": [{"data": {"session": session}}]})
    return sent.envelope


def read_message(body: bytes) -> Any:
    return json.loads(body)["messages"][0]["data"]["session"]


PLAIN_WIRES = {
    "JSON": by_json,
    "JSON in parts": by_chunks,
    "NDJSON": by_lines,
    "server-sent events": by_events,
    "a socket": by_socket,
    "a session in a message": by_messages,
}


def assert_each_turn_counts(older: Older, turn: Callable[[Older, Any], Any]) -> None:
    """The law: what the application answers is the new state in the first turn as in the others."""
    session, expected = older.session, older.state
    for _ in range(3):
        session, expected = turn(older, session), next_of(expected)
        assert {name: value for name, value in session.items() if name != "dcaf"} == expected


@pytest.mark.parametrize("wire", PLAIN_WIRES)
@EVERY
def test_the_applications_own_plain_object_is_the_new_state_from_the_first_turn_on(older: str, wire: str) -> None:
    assert_each_turn_counts(OLDER[older](), PLAIN_WIRES[wire])


@pytest.mark.parametrize("wire", PLAIN_WIRES)
@pytest.mark.parametrize("older", ["a migration", "an import"])
def test_control_what_the_library_did_counted_as_a_change_is_caught(older: str, wire: str, monkeypatch: Any) -> None:
    opens = ASGITurn.open

    async def counts(turn: ASGITurn, before: ASGITurn | None = None) -> None:
        await opens(turn, before)
        turn._was_changed = True

    monkeypatch.setattr(ASGITurn, "open", counts)
    with pytest.raises(AssertionError):
        assert_each_turn_counts(OLDER[older](), PLAIN_WIRES[wire])


@EVERY
def test_control_a_session_that_comes_changed_into_the_application_is_caught(older: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(State, "is_changed", lambda state: True)
    with pytest.raises((AssertionError, NotCarriedError)):
        answered_unable(OLDER[older](), "a text")


@EVERY
def test_a_change_by_the_session_object_wins_over_the_plain_one_in_the_first_turn_too(older: str) -> None:
    each = OLDER[older]()
    app = Recorder(plainly, tool=lambda session: session.incr("added"))
    sent = call(mounted(app, plain=("/api/chat",), **each.settings), {"data": {"session": each.session}})
    assert {name: value for name, value in sent.envelope.items() if name != "dcaf"} == {**each.state, "added": 1}


# What an import may not let in


class Lazy(Mapping[str, Any]):
    """A mapping that says only when it is read that it cannot be."""

    def __getitem__(self, key: str) -> Any:
        return object()

    def __iter__(self) -> Iterator[str]:
        return iter(["cart"])

    def __len__(self) -> int:
        return 1


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
UNSTORABLE: dict[str, Any] = {
    "an object": {"cart": object()},
    "no number": {"cart": float("nan")},
    "no end": {"cart": float("inf")},
    "65 levels": {"cart": nested(65)},
    "very many levels": {"cart": nested(50_000)},
    "a cycle": {"cart": CYCLE},
    "half a character": {"cart": "\ud800"},
    "half a character in a key": {"cart": {"\ud800": 1}},
    "too large": {"cart": "x" * 300_000},
    "too many": {f"k{number}": "x" * 100 for number in range(4_000)},
    "too large an integer": {"cart": 10**400},
    "a key that is none": {7: 1},
    "a key in a value that is none": {"cart": {1: 2}},
    "a key of the library's own": {"dcaf": {"token": "x"}},
    "half a character for a key": {"\ud800": 1},
    "too long a key": {"k" * 300_000: 1},
    "a lazy mapping": Lazy(),
}
SENT: dict[str, bytes] = {
    "65 levels": b"[" * 65 + b"]" * 65,
    "250 levels": b"[" * 250 + b"]" * 250,
    "objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "too large": b'"' + b"x" * 300_000 + b'"',
    "too large an integer": b"9" * 400,
}


def assert_refused(told: list[Any], sent: Any, app: Recorder) -> None:
    """The law: a refusal of the request, told once; never an error of the server's."""
    assert 400 <= sent.status < 500
    assert sent.code in ("session-unsigned", "malformed-json")
    assert [event.name for event in told] == ["refused"]
    assert not app.reached


@pytest.mark.parametrize("place", ["the body", "a message"])
@pytest.mark.parametrize("kept", UNSTORABLE)
def test_what_accept_keeps_and_no_session_can_store_is_a_refusal(kept: str, place: str) -> None:
    told: list[Any] = []
    app = Recorder()
    data = {"data": {"session": {"cart": 1}}}
    service = mounted(app, unsigned=door(lambda plain: UNSTORABLE[kept]), on_event=told.append)
    assert_refused(told, call(service, data if place == "the body" else {"messages": [data]}), app)


@pytest.mark.parametrize("value", SENT)
def test_what_a_client_sends_and_no_session_can_store_is_a_refusal(value: str) -> None:
    for body in (b'{"data":{"session":{"cart":%s}}}', b'{"messages":[{"data":{"session":{"cart":%s}}}]}'):
        told: list[Any] = []
        app = Recorder()
        service = mounted(app, unsigned=door(), on_event=told.append)
        assert_refused(told, call(service, body % SENT[value]), app)


@pytest.mark.parametrize("kept", UNSTORABLE)
def test_on_a_socket_it_is_an_error_frame_and_the_next_frame_is_served(kept: str) -> None:
    values: list[Any] = [UNSTORABLE[kept], {"cart": 2}]
    agent = Agent()
    with Peer(mounted(agent, unsigned=door(lambda plain: values.pop(0)))) as peer:
        refused = peer.ask({"data": {"session": {"cart": 1}}})
        assert (refused["type"], refused["code"]) == ("error", "session-unsigned")
        assert opened(peer.ask({"data": {"session": {"cart": 1}}})["data"]["session"]) == {"cart": 2}
    assert agent.states == [{"cart": 2}]


def test_control_an_import_that_stores_unchecked_is_caught(monkeypatch: Any) -> None:
    def raises(*_: Any) -> Any:
        raise ValueError("cannot be stored")

    monkeypatch.setattr(Sealer, "import_plain", raises)
    with pytest.raises(ValueError, match="cannot be stored"):
        call(mounted(Recorder(), unsigned=door()), {"data": {"session": {"cart": 1}}})
