"""The session in streams, byte for byte: the clock and the randomness stand still, so that an envelope is known beforehand."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dcaf import current_session, tool
from dcaf.asgi import checkpoint
from dcaf.asgi.framing import Piece
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.responses import BodySender
from dcaf.asgi.streams import EVENTS, LINES, SessionStream
from dcaf.core.base64url import Payload
from dcaf.core.errors import ConfigurationError, NotCarriedError, SessionAliasError, SessionConflict, SessionUnavailable
from dcaf.core.sealer import Sealer
from dcaf.core.session import Session
from dcaf.core.state import State
from dcaf.core.store import StatelessLease
from tests.asgi.wire import AUDIENCE, RING, Sent, call, exchange, messages_of, mounted, scope_of
from tests.stores_for_tests import ToldStore, after

NOW = 1_789_000_000
OLD = {"step": 2}
NDJSON = "application/x-ndjson"
TOKEN = re.compile(rb"dcaf1s\.[\w.-]+", re.ASCII)


def envelope(state: Any = OLD, sequence: int = 1) -> bytes:
    """What stands at ``data.session`` when this state goes out with this number."""
    sealer = Sealer(keys=RING, audience=AUDIENCE, clock=lambda: NOW, randomness=bytes)
    session = sealer.start()
    session.update(state)
    return sealer.seal(session, sealer.binding(), sequence=sequence)


def filled(template: bytes, *sealed: tuple[Any, int]) -> bytes:
    """The template, with an envelope for each @ in it."""
    parts = template.split(b"@")
    assert len(parts) == len(sealed) + 1
    return b"".join(part + (envelope(*sealed[at]) if at < len(sealed) else b"") for at, part in enumerate(parts))


def arrived(state: Any = OLD) -> dict[str, Any]:
    return {"data": {"session": json.loads(envelope(state))}}


def opened(found: Any) -> Any:
    """The state that a sealed session holds, by the library's own verification."""
    sealer = Sealer(keys=RING, audience=AUDIENCE, clock=lambda: NOW)
    return sealer.open(found, sealer.binding()).to_dict()


Step = bytes | Callable[[Session], Any]


def count(session: Session) -> None:
    session.incr("step")


def check(_: Session) -> Awaitable[None]:
    return checkpoint()


def fall(_: Session) -> None:
    raise RuntimeError("the model is gone")


class Streaming:
    """An application that sends chunks, and does things between them."""

    def __init__(self, *steps: Step, kind: str = NDJSON, status: int = 200, headers: Any = (), before: Any = ()) -> None:
        self.steps, self.before, self.status = steps, before, status
        self.headers = [(b"content-type", kind.encode()), *headers]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        for step in self.before:
            await self.does(step)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for step in self.steps:
            if isinstance(step, bytes):
                await send({"type": "http.response.body", "body": step, "more_body": True})
            else:
                await self.does(step)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def does(self, step: Any) -> None:
        done = step(current_session())
        if isinstance(done, Awaitable):
            await done


def service(app: Any, **options: Any) -> Any:
    return mounted(app, **{"clock": lambda: NOW, "randomness": bytes, **options})


def streamed(*steps: Step, body: Any = None, method: str = "POST", path: str = "/api/chat", options: Any = None, **of: Any) -> Sent:
    """One turn; a session has arrived unless a body says otherwise."""
    sent = call(service(Streaming(*steps, **of), **(options or {})), arrived() if body is None else body, method=method, path=path)
    assert [message.get("more_body", False) for message in sent.messages[1:]] == [True] * (len(sent.messages) - 2) + [False]
    return sent


def receiving(body: Any = None) -> Any:
    """Gives the body, and then nothing: the client stays."""
    pending = messages_of(json.dumps(arrived() if body is None else body).encode())

    async def receive() -> Any:
        if not pending:
            await anyio.sleep_forever()
        return pending.pop(0)

    return receive


def failing(*steps: Step, body: Any = None, raises: Any = RuntimeError, options: Any = None, **of: Any) -> Sent:
    """One turn in which the application raises, and the exception comes out of the middleware."""
    sent = Sent()

    async def send(message: Any) -> None:
        sent.messages.append(message)

    with pytest.raises(raises):
        asyncio.run(service(Streaming(*steps, **of), **(options or {}))(scope_of(), receiving(body), send))
    return sent


# The event that ends the turn

DONE_LINES = [
    (b'{"type":"done"}\n', b'{"data":{"session":@},"type":"done"}\n'),
    (b' { "type" : "done" } \r\n', b' {"data":{"session":@}, "type" : "done" } \r\n'),
    (b'{"type":"done","data":null,"n":1.0}\n', b'{"type":"done","data":{"session":@},"n":1.0}\n'),
    (b'{"type":"done","data":{}}\n', b'{"type":"done","data":{"session":@}}\n'),
    (b'{"type":"done","data":{"x":1e5}}\n', b'{"type":"done","data":{"session":@,"x":1e5}}\n'),
    (b'{"type":"done","data":{"session":null}}\n', b'{"type":"done","data":{"session":@}}\n'),
    (b'{"type":"done","data":{"a":1,"session":{"step":9},"b":2}}\n', b'{"type":"done","data":{"a":1,"session":@,"b":2}}\n'),
    (b'{"type":"d\\u006fne"}\n', b'{"data":{"session":@},"type":"d\\u006fne"}\n'),
    (b'{"type":"x","type":"done"}\n', b'{"data":{"session":@},"type":"x","type":"done"}\n'),
]
OWN_LINE = b'{"type":"session","data":{"session":@}}\n'
NO_ROOM = [
    b'{"type":"done","data":[1]}\n',
    b'{"type":"done","data":"x"}\n',
    b'{"type":"done","data":0}\n',
    b'{"type":"done","data":false}\n',
    b'{"type":"done","data":{},"data":{}}\n',
    b'{"type":"done","data":{"session":null,"session":null}}\n',
]
DONE_EVENTS = [
    (b'event: done\ndata: {"a":1}\n\n', b'event: done\ndata: {"data":{"session":@},"a":1}\n\n'),
    (b'data: {"type":"done"}\n\n', b'data: {"data":{"session":@},"type":"done"}\n\n'),
    (b'data:{"type":"done"}\r\n\r\n', b'data:{"data":{"session":@},"type":"done"}\r\n\r\n'),
    (b'data:  {"type":"done"}\r\r', b'data:  {"data":{"session":@},"type":"done"}\r\r'),
    (b"data: {}\nid: 7\nevent: done\n\n", b'data: {"data":{"session":@}}\nid: 7\nevent: done\n\n'),
    (b'data: {"type":\ndata: "done"}\n: c\n\n', b'data: {"data":{"session":@},"type":\ndata: "done"}\n: c\n\n'),
    (
        b'data: {"type":"done","data":{"session":{\nid: 1\ndata: "a":1}\ndata:}}\n\n',
        b'data: {"type":"done","data":{"session":@\nid: 1\ndata: }}\n\n',
    ),
]
OWN_EVENT = b'event: session\ndata: {"type":"session","data":{"session":@}}\n\n'
NO_ROOM_EVENTS = [
    b"event: done\ndata: 5\n\n",
    b"event: done\ndata: not JSON\n\n",
    b"event: done\n\n",
    b"event: done\ndata\n\n",
    b'event: done\ndata: {"data":[]}\n\n',
    b'data: {"type":"done","data":{},"data":{}}\n\n',
]
TERMINALS = [
    *((NDJSON, event, around) for event, around in DONE_LINES),
    *((NDJSON, event, OWN_LINE + event) for event in NO_ROOM),
    *((EVENTS, event, around) for event, around in DONE_EVENTS),
    *((EVENTS, event, OWN_EVENT + event) for event in NO_ROOM_EVENTS),
]


def a_terminal_event_carries_the_session(kind: str, event: bytes, around: bytes) -> None:
    for change, state, sequence in ((count, {"step": 3}, 2), (lambda _: None, OLD, 1)):
        for size in (1, 5, len(event)):
            chunks = [event[at : at + size] for at in range(0, len(event), size)]
            sent = streamed(b": a\n\n" if kind == EVENTS else b'{"a":1}\n', change, *chunks, kind=kind)
            assert sent.body.partition(b"\n")[2].removeprefix(b"\n") == filled(around, (state, sequence))


@pytest.mark.parametrize(("kind", "event", "around"), TERMINALS)
def test_the_event_that_ends_the_turn_carries_the_session_and_no_other_byte_changes(kind: str, event: bytes, around: bytes) -> None:
    a_terminal_event_carries_the_session(kind, event, around)


@pytest.mark.parametrize("kind", [*LINES, "Application/X-NDJSON; charset=utf-8"])
def test_each_media_type_of_lines_is_one(kind: str) -> None:
    sent = streamed(count, b'{"type":"done"}\n', kind=kind)
    assert sent.body == filled(b'{"data":{"session":@},"type":"done"}\n', ({"step": 3}, 2))


def test_every_event_that_ends_the_turn_carries_it_and_the_last_one_counts() -> None:
    done = b'{"type":"done"}\n'
    sent = streamed(count, done, done, count, done + done)
    expected = b'{"data":{"session":@},"type":"done"}\n' * 4
    assert sent.body == filled(expected, ({"step": 3}, 2), ({"step": 3}, 2), ({"step": 4}, 3), ({"step": 4}, 3))


def test_a_new_session_goes_out_with_the_number_1() -> None:
    sent = streamed(count, b'{"type":"done"}\n', body={})
    assert sent.body == filled(b'{"data":{"session":@},"type":"done"}\n', ({"step": 1}, 1))


def test_a_last_line_without_its_end_is_an_event_too() -> None:
    sent = streamed(count, b'{"a":1}\n{"type":"done"}')
    assert sent.body == filled(b'{"a":1}\n{"data":{"session":@},"type":"done"}', ({"step": 3}, 2))
    assert streamed(count, b'{"type":"done","data":1}').body == filled(OWN_LINE + b'{"type":"done","data":1}', ({"step": 3}, 2))


@pytest.mark.parametrize("unended", [b'data: {"type":"done"}\n', b'data: {"type":"done"}', b"event: done\ndata: {}\n"])
def test_a_last_event_that_no_empty_line_ends_does_not_take_the_session_along_where_a_browser_drops_it(unended: bytes) -> None:
    sent = streamed(count, b"data: 1\n\n", unended, kind=EVENTS)
    read = [block for block in re.split(rb"\n\n", sent.body)[:-1] if TOKEN.search(block)]
    assert len(read) == 1, "a browser dispatches no event without its empty line (HTML, 9.2.6)"


@pytest.mark.parametrize(
    ("terminal", "event", "around"),
    [
        (lambda name, _: name == "stop", b'event: stop\ndata: {"data":{}}\n\n', b'event: stop\ndata: {"data":{"session":@}}\n\n'),
        (
            lambda _, value: isinstance(value, dict) and value.get("k") == "end",
            b'data: {"k":"end"}\n\n',
            b'data: {"data":{"session":@},"k":"end"}\n\n',
        ),
        (lambda name, value: name is None and value is None, b"data: bye bye\n\n", OWN_EVENT + b"data: bye bye\n\n"),
        (lambda _, value: value == [1], b"data: [1]\n\n", OWN_EVENT + b"data: [1]\n\n"),
    ],
    ids=["by name", "by value", "no JSON", "no object"],
)
def test_an_application_says_which_event_of_its_own_vocabulary_ends_a_turn(terminal: Any, event: bytes, around: bytes) -> None:
    before = b'event: done\ndata: {"type":"done"}\n\n'
    sent = streamed(count, before, event, kind=EVENTS, options={"terminal": terminal})
    assert sent.body == before + filled(around, ({"step": 3}, 2))


# An event of its own


@pytest.mark.parametrize(
    ("kind", "steps", "expected", "sealed"),
    [
        (NDJSON, (count, b'{"a":1}\n'), b'{"a":1}\n' + OWN_LINE, [({"step": 3}, 2)]),
        (NDJSON, (count, b'{"a":1}'), b'{"a":1}\n' + OWN_LINE, [({"step": 3}, 2)]),
        (NDJSON, (count, b'{"a":1}\n  '), b'{"a":1}\n  \n' + OWN_LINE, [({"step": 3}, 2)]),
        (NDJSON, (count,), OWN_LINE, [({"step": 3}, 2)]),
        (NDJSON, (), OWN_LINE, [(OLD, 1)]),
        (
            NDJSON,
            (count, b'{"type":"done"}\n', count, b'{"b":1}\n'),
            b'{"data":{"session":@},"type":"done"}\n{"b":1}\n' + OWN_LINE,
            [({"step": 3}, 2), ({"step": 4}, 3)],
        ),
        (NDJSON, (count, b"[DONE]\n"), OWN_LINE + b"[DONE]\n", [({"step": 3}, 2)]),
        (EVENTS, (count, b"data: 1\n\n"), b"data: 1\n\n" + OWN_EVENT, [({"step": 3}, 2)]),
        (EVENTS, (count, b"data: 1\n\ndata: 2"), b"data: 1\n\n" + OWN_EVENT + b"data: 2", [({"step": 3}, 2)]),
        (EVENTS, (count, b"data: 1\n\n: ping"), b"data: 1\n\n" + OWN_EVENT + b": ping", [({"step": 3}, 2)]),
        (EVENTS, (count, b"data: [DONE]\n\n"), OWN_EVENT + b"data: [DONE]\n\n", [({"step": 3}, 2)]),
        (EVENTS, (count, b"data: [DONE]"), OWN_EVENT + b"data: [DONE]", [({"step": 3}, 2)]),
        (
            EVENTS,
            (b"event: done\ndata: {}\n\n", count, b"data:[DONE]\r\n\r\n"),
            b'event: done\ndata: {"data":{"session":@}}\n\n' + OWN_EVENT + b"data:[DONE]\r\n\r\n",
            [(OLD, 1), ({"step": 3}, 2)],
        ),
        (EVENTS, (b"data: [DONE]\n\n", count), OWN_EVENT + b"data: [DONE]\n\n" + OWN_EVENT, [(OLD, 1), ({"step": 3}, 2)]),
    ],
)
def test_a_stream_that_ends_without_such_an_event_or_changes_after_it_gets_one_of_ours(
    kind: str, steps: Any, expected: bytes, sealed: Any
) -> None:
    assert streamed(*steps, kind=kind).body == filled(expected, *sealed)


def test_where_nothing_changed_after_the_session_went_out_nothing_follows() -> None:
    sent = streamed(count, b"event: done\ndata: {}\n\n", b"data: 1\n\n", b"data: [DONE]\n\n", kind=EVENTS)
    assert sent.body == filled(b'event: done\ndata: {"data":{"session":@}}\n\ndata: 1\n\ndata: [DONE]\n\n', ({"step": 3}, 2))


@pytest.mark.parametrize("limit", [40, 60])
def test_after_an_event_over_the_limit_the_session_goes_out_on_its_own(limit: int) -> None:
    long = b'{"type":"done","text":"' + b"x" * 100
    sent = streamed(count, long, b'"}\n', options={"max_response_bytes": limit})
    assert sent.body == long + b'"}\n' + filled(OWN_LINE, ({"step": 3}, 2))
    sent = streamed(count, long, options={"max_response_bytes": limit})
    assert sent.body == long + b"\n" + filled(OWN_LINE, ({"step": 3}, 2))
    sent = streamed(count, b"data: " + long, b'"}\n', kind=EVENTS, options={"max_response_bytes": limit})
    assert sent.body == b"data: " + long + b'"}\n\n\n' + filled(OWN_EVENT, ({"step": 3}, 2))


@pytest.mark.parametrize(
    ("kind", "rest"),
    [(EVENTS, b'data: {"type":"done"}'), (EVENTS, b"data: [DONE]"), (NDJSON, b'{"type":"done"}'), (NDJSON, b"[DONE]")],
)
def test_the_rest_of_an_event_over_the_limit_takes_no_session_along(kind: str, rest: bytes) -> None:
    long = b"data: " + b"x" * 100 + (b"\n" if kind == EVENTS else b"")
    sent = streamed(count, long, rest, kind=kind, options={"max_response_bytes": 50})
    apart, own = (b"\n\n", OWN_EVENT) if kind == EVENTS else (b"\n", OWN_LINE)
    assert sent.body == long + rest + apart + filled(own, ({"step": 3}, 2))


class SilentAtTheEnd(SessionStream):
    """Broken: a stream without a terminal event ends without the session."""

    async def _finish(self) -> bytes:
        return await self._complete_piece(self._cutter.rest())


class Blind(SessionStream):
    """Broken: it looks at no event, and writes the session at the end."""

    async def _complete_piece(self, piece: Piece) -> bytes:
        return piece.raw


def test_control_a_stream_that_looks_at_no_event_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", Blind)
    for terminal in TERMINALS:
        with pytest.raises(AssertionError):
            a_terminal_event_carries_the_session(*terminal)


def test_control_a_stream_that_ends_without_the_session_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", SilentAtTheEnd)
    with pytest.raises(AssertionError):
        test_a_stream_that_ends_without_such_an_event_or_changes_after_it_gets_one_of_ours(
            NDJSON, (count, b"{}\n"), b"{}\n" + OWN_LINE, [({"step": 3}, 2)]
        )


# What passes as it is

PASSING = [b'{"type":"delta"}\n{"type":', b'"done","data":{"note":{"session":{"own":1}}}}\n', b"", b"\n\n", b"[DONE]\nrest"]


def nothing_is_added(kind: str) -> None:
    sent = streamed(*PASSING, b": ping\n\nevent: done\ndata: {}\n\ndata: [DONE]\n\n", kind=kind, body={"x": 1})
    assert sent.body == b"".join(PASSING) + b": ping\n\nevent: done\ndata: {}\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_where_nothing_came_in_and_nothing_was_stored_every_byte_is_the_applications_own(kind: str) -> None:
    nothing_is_added(kind)


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_a_session_that_came_in_goes_out_although_nobody_touched_it(kind: str) -> None:
    (token,) = TOKEN.findall(streamed(b"1\n", kind=kind).body)
    assert token == TOKEN.findall(envelope())[0]


class Eager(SessionStream):
    """Broken: it ends with the session although none is due."""

    async def _finish(self) -> bytes:
        return self._cutter.close(self._cutter.rest().raw, await self._session_event(ends_turn=True))


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_control_a_session_that_nobody_wanted_is_caught(monkeypatch: Any, kind: str) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", Eager)
    with pytest.raises(AssertionError):
        nothing_is_added(kind)


OWN_HEADERS = ((b"content-length", b"33"), (b"etag", b'"x"'), (b"digest", b"y"), (b"cache-control", b"public"), (b"x-own", b"1"))


def its_start_says_nothing_untrue() -> None:
    bodies: list[Any] = [None, {}]
    for body in bodies:
        sent = streamed(b"1\n", headers=OWN_HEADERS, body=body)
        assert sorted(sent.headers) == [("cache-control", "no-store"), ("content-type", NDJSON), ("x-own", "1")]


def test_the_start_of_a_stream_loses_its_length_and_etag_and_is_not_to_be_stored() -> None:
    its_start_says_nothing_untrue()


class Untrue(SessionStream):
    """Broken: it keeps the headers."""

    async def begin(self, start: Any) -> None:
        await self._send_message(start)


def test_control_a_start_that_keeps_its_headers_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", Untrue)
    with pytest.raises(AssertionError):
        its_start_says_nothing_untrue()


def it_passes_byte_for_byte(**options: Any) -> None:
    for kind in (NDJSON, EVENTS):
        sent = streamed(*PASSING, kind=kind, headers=OWN_HEADERS, body={}, **options)
        assert (sent.body, sent.headers[1:]) == (b"".join(PASSING), [(n.decode(), v.decode()) for n, v in OWN_HEADERS])
        assert [message.get("body") for message in sent.messages[1:]] == [*PASSING, b""]
        sent = streamed(*PASSING, kind=kind, headers=OWN_HEADERS, **options)
        assert (sent.body, sent.header("cache-control"), sent.header("etag")) == (b"".join(PASSING), "no-store", '"x"')


PASS = {"pass_streams": ("/raw",)}


def test_a_named_routes_streams_pass_byte_for_byte() -> None:
    it_passes_byte_for_byte(path="/raw", options=PASS)
    it_passes_byte_for_byte(options={"pass_streams": lambda _: True})


def test_control_a_stream_of_a_route_that_was_not_named_does_not() -> None:
    with pytest.raises(AssertionError):
        it_passes_byte_for_byte(path="/other", options=PASS)


CANNOT: dict[str, Any] = {
    "named route": {"options": {"pass_streams": ("/api/chat",)}},
    "encoded": {"headers": [(b"content-encoding", b"gzip")]},
    "206": {"status": 206},
    "HEAD": {"method": "HEAD"},
    "no stream": {"kind": "text/plain"},
}


@pytest.mark.parametrize("case", CANNOT)
def test_a_change_that_a_stream_cannot_carry_is_an_error_before_it_starts(case: str) -> None:
    with pytest.raises(NotCarriedError, match="/api/chat changed the session"):
        streamed(b"1\n", before=[count], **CANNOT[case])


@pytest.mark.parametrize("case", CANNOT)
def test_a_change_that_a_stream_cannot_carry_is_an_event_once_it_has_started(case: str, caplog: Any) -> None:
    seen: list[Any] = []
    of = {**CANNOT[case]}
    of["options"] = {**of.get("options", {}), "on_event": seen.append}
    sent = streamed(b'{"type":"done"}\n', count, **of)
    assert sent.body == b'{"type":"done"}\n'
    assert [(event.name, event.route) for event in seen] == [("lost", "/api/chat")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("case", CANNOT)
def test_a_checkpoint_where_the_session_cannot_go_out_is_an_error(case: str) -> None:
    with pytest.raises(ConfigurationError, match="no stream is being sent"):
        streamed(b"1\n", check, **CANNOT[case])


class Silent(BodySender):
    """Broken: it passes what it cannot complete, and says nothing."""

    def _check_unmodified(self, *_: Any) -> None:
        pass


def test_control_a_change_that_is_dropped_silently_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.request.BodySender", Silent)
    for case in CANNOT:
        with pytest.raises(pytest.fail.Exception):
            test_a_change_that_a_stream_cannot_carry_is_an_error_before_it_starts(case)


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_a_stream_with_the_status_500_passes_and_seals_nothing(kind: str) -> None:
    seen: list[Any] = []
    sent = streamed(
        *PASSING, count, kind=kind, status=500, before=[count], headers=OWN_HEADERS[:3], options={"on_event": seen.append}
    )
    assert (sent.body, sent.header("etag"), sent.header("cache-control")) == (b"".join(PASSING), '"x"', "no-store")
    assert not seen


def test_a_stream_with_the_status_404_carries_the_session() -> None:
    sent = streamed(count, b'{"type":"done"}\n', status=404)
    assert sent.body == filled(b'{"data":{"session":@},"type":"done"}\n', ({"step": 3}, 2))


def test_other_messages_pass_also_after_the_last_chunk() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", NDJSON.encode()), (b"trailer", b"x-sum")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.push", "path": "/x"})
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n'})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    sent = call(service(app), arrived())
    assert [message["type"].rpartition(".")[2] for message in sent.messages] == ["start", "push", "body", "trailers"]


def test_a_change_is_told_as_lost_where_the_server_itself_sends_a_file_of_lines() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        current_session().incr("step")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", NDJSON.encode())]})
        await send({"type": "http.response.pathsend", "path": "/x.ndjson"})

    with suppress(NotCarriedError):
        call(service(app, on_event=seen.append), arrived())
        assert [event.name for event in seen] == ["lost"]


# Checkpoints


def a_checkpoint_sends_the_session_at_once() -> None:
    bodies: list[bytes] = []

    def look(_: Session) -> None:
        bodies.append(b"".join(message.get("body", b"") for message in messages))

    messages: list[Any] = []
    app = service(Streaming(b'{"a":1}\n', count, check, look, b'{"b":1}\n', check, count, count, check, look, b'{"type":"done"}\n'))

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(app(scope_of(), receiving(), send))
    first = b'{"a":1}\n' + filled(OWN_LINE, ({"step": 3}, 2))
    second = first + b'{"b":1}\n' + filled(OWN_LINE, ({"step": 5}, 3))
    assert bodies == [first, second]
    look(current := Session())
    assert current.is_empty
    assert bodies[-1] == second + filled(b'{"data":{"session":@},"type":"done"}\n', ({"step": 5}, 3))


def test_a_checkpoint_sends_the_session_at_once_and_only_where_it_changed() -> None:
    a_checkpoint_sends_the_session_at_once()


@pytest.mark.parametrize(
    ("kind", "steps", "expected"),
    [
        (NDJSON, (b'{"a":', count, check, b"1}\n"), OWN_LINE + b'{"a":1}\n'),
        (EVENTS, (b"event: a\ndata: ", count, check, b"1\n", b"\n"), OWN_EVENT + b"event: a\ndata: 1\n\n"),
        (EVENTS, (b": pi", count, check, b"ng\n\n"), OWN_EVENT + b": ping\n\n"),
        (EVENTS, (b"data: a\r", count, check, b"\ndata: b\r\n\r\n"), OWN_EVENT + b"data: a\r\ndata: b\r\n\r\n"),
        (EVENTS, (b"data: a\r\n\r", count, check, b"\n"), b"data: a\r\n\r" + OWN_EVENT + b"\n"),
    ],
)
def test_a_checkpoint_in_the_middle_of_an_event_goes_before_it(kind: str, steps: Any, expected: bytes) -> None:
    assert streamed(*steps, kind=kind).body == filled(expected, ({"step": 3}, 2))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_event_that_ends_the_turn_is_known_although_a_checkpoint_fell_into_it(size: int) -> None:
    text = b'event: done\r\ndata: {"x":1}\r\n\r\n'
    steps = [step for at in range(0, len(text), size) for step in (text[at : at + size], check)]
    sent = streamed(count, *steps, kind=EVENTS)
    seen = [json.loads(line.removeprefix(b"data: ")) for line in sent.body.split(b"\n") if b"dcaf1s" in line]
    assert seen[-1]["x"] == 1
    assert opened(seen[-1]["data"]["session"]) == {"step": 3}


def a_checkpoint_waits_for_the_end_of_what_is_partly_out() -> None:
    long = b"x" * 60
    limit = {"max_response_bytes": 40}
    sent = streamed(long, count, check, b'y\n{"b":', b"1}\n", options=limit)
    assert sent.body == filled(long + b"y\n" + OWN_LINE + b'{"b":1}\n', ({"step": 3}, 2))
    steps = (b"data: " + long, count, check, b"y\n", b"data: z\n", b"\n", b"data: b\n\n")
    sent = streamed(*steps, kind=EVENTS, options=limit)
    assert sent.body == filled(b"data: " + long + b"y\ndata: z\n\n" + OWN_EVENT + b"data: b\n\n", ({"step": 3}, 2))


def test_a_checkpoint_in_an_event_that_is_partly_out_goes_right_after_it() -> None:
    a_checkpoint_waits_for_the_end_of_what_is_partly_out()


class Careless(SessionStream):
    """Broken: a checkpoint is written at once, wherever the stream is."""

    async def checkpoint(self) -> bool:
        await self._send_message(
            {"type": "http.response.body", "body": await self._session_event(ends_turn=False), "more_body": True}
        )
        return True


def test_control_a_checkpoint_in_the_middle_of_an_event_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", Careless)
    with pytest.raises(AssertionError):
        a_checkpoint_waits_for_the_end_of_what_is_partly_out()
    with pytest.raises(AssertionError):
        a_checkpoint_sends_the_session_at_once()


def test_a_checkpoint_without_a_session_sends_nothing() -> None:
    assert streamed(b"1\n", check, b"2\n", body={}).body == b"1\n2\n"


def test_a_session_that_arrived_and_did_not_change_goes_out_at_a_checkpoint_once() -> None:
    assert streamed(b"1\n", check, b"2\n", check).body == filled(b"1\n" + OWN_LINE + b"2\n", (OLD, 1))


def test_a_checkpoint_outside_a_turn_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no stream is being sent"):
        asyncio.run(checkpoint())


def test_a_checkpoint_before_the_stream_starts_goes_out_as_soon_as_it_has_begun() -> None:
    sent = streamed(b"1\n", before=[count, check])
    assert sent.body == filled(OWN_LINE + b"1\n", ({"step": 3}, 2))
    assert [message["type"] for message in sent.messages][:2] == ["http.response.start", "http.response.body"]


def test_a_checkpoint_inside_a_tool_is_an_error() -> None:
    @tool
    async def build() -> str:
        """Build."""
        await checkpoint()
        return "built"

    sent = failing(b"1\n", count, lambda _: build.run({}), raises=ConfigurationError)
    assert sent.body == b'1\n{"type":"error","code":"internal-error"}\n'


def after_the_end(*steps: Callable[[Session], Any]) -> tuple[Sent, list[Any]]:
    """A turn whose background does things when the stream is over."""
    seen: list[Any] = []

    async def background() -> None:
        for step in steps:
            done = step(current_session())
            if isinstance(done, Awaitable):
                with suppress(ConfigurationError):
                    await done

    async def chat(_: Any) -> StreamingResponse:
        return StreamingResponse(iter(['{"type":"done"}\n']), media_type=NDJSON, background=BackgroundTask(background))

    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"])])
    return asyncio.run(_quietly(service(app, on_event=seen.append))), seen


async def _quietly(app: Any) -> Sent:
    sent = Sent()

    async def send(message: Any) -> None:
        sent.messages.append(message)

    with suppress(RuntimeError):
        await app(scope_of(), receiving(), send)
    return sent


@pytest.mark.parametrize("steps", [(check,), (count, check), (count, check, check), (count, check, fall)])
def test_a_checkpoint_after_the_end_sends_nothing_more(steps: Any) -> None:
    sent, seen = after_the_end(*steps)
    assert sent.body == filled(b'{"data":{"session":@},"type":"done"}\n', (OLD, 1))
    assert [message["more_body"] for message in sent.messages[1:]][-1] is False
    assert [event.name for event in seen] == ["lost"] * (steps[-1] is check and count in steps)


def test_a_checkpoint_after_the_end_is_an_error() -> None:
    seen: list[Any] = []

    async def late(_: Session) -> None:
        with pytest.raises(ConfigurationError, match="no stream is being sent"):
            await checkpoint()
        seen.append(True)

    after_the_end(late)
    assert seen


def test_a_chunk_that_completes_nothing_sends_no_message() -> None:
    sent = streamed(b'{"a"', b":1", b"}\n", b'{"type":', b'"done"}\n')
    assert [message["body"][:4] for message in sent.messages[1:]] == [b'{"a"', b'{"da', b""]


# Exceptions


def told(refusal: Any) -> bytes:
    """The error event of a refusal: the application has run, and the client learns that where nobody can tell what is kept."""
    ran = b',"ran":true' if isinstance(refusal, SessionUnavailable) else b""
    return b'{"type":"error","code":"%b"%b}\n' % (refusal.code.encode(), ran)


def an_exception_ends_in_an_error_event() -> None:
    for kind, error in (
        (NDJSON, b'{"type":"error","code":"internal-error"}\n'),
        (EVENTS, b'event: error\ndata: {"type":"error","code":"internal-error"}\n\n'),
    ):
        assert failing(b"1\n\n", count, fall, b"2\n\n", kind=kind).body == b"1\n\n" + error
        assert failing(b"1\n\n", count, b"data: par", fall, kind=kind).body == b"1\n\n" + error
        assert failing(fall, kind=kind).body == error
        assert failing(count, fall, kind=kind, body={}).body == error


def test_an_exception_after_the_start_is_an_error_event_and_nothing_is_sealed() -> None:
    an_exception_ends_in_an_error_event()


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_an_error_event_can_be_read_after_an_event_that_is_partly_out(kind: str) -> None:
    part = b"data: " + b"x" * 60
    sent = failing(count, part, fall, kind=kind, options={"max_response_bytes": 40})
    assert sent.body.startswith(part + b"\n")
    assert sent.body.rstrip(b"\n").split(b"\n")[-1].endswith(b'{"type":"error","code":"internal-error"}')


def test_after_a_checkpoint_an_exception_leaves_the_checkpoint_as_what_counts() -> None:
    sent = failing(count, check, count, b"1\n", fall)
    assert sent.body == filled(OWN_LINE, ({"step": 3}, 2)) + b'1\n{"type":"error","code":"internal-error"}\n'


def test_without_a_session_an_exception_adds_nothing() -> None:
    assert failing(b"1\n", fall, body={}).body == b"1\n"


def test_an_exception_before_the_start_sends_nothing() -> None:
    assert failing(b"1\n", before=[count, fall]).messages == []


def test_an_exception_after_the_last_chunk_sends_nothing_more() -> None:
    sent, _ = after_the_end(fall)
    assert sent.body == filled(b'{"data":{"session":@},"type":"done"}\n', (OLD, 1))


class Quiet(SessionStream):
    """Broken: the stream just stops."""

    async def fail(self) -> None:
        pass


class Sealing(SessionStream):
    """Broken: it seals what the application that raised had done so far."""

    async def fail(self) -> None:
        await self._send_message(
            {"type": "http.response.body", "body": await self._session_event(ends_turn=False), "more_body": True}
        )
        await super().fail()


@pytest.mark.parametrize("broken", [Quiet, Sealing])
def test_control_a_stream_that_stops_or_seals_when_the_application_raises_is_caught(monkeypatch: Any, broken: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", broken)
    with pytest.raises(AssertionError):
        an_exception_ends_in_an_error_event()


def alias(session: Session) -> None:
    """Change one value through two handles."""
    one, other = session.get("list", [], as_type=list[int]), session["list"]
    one.append(1)
    other.append(2)


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_a_value_that_was_changed_in_two_ways_is_an_error_at_the_event_that_ends_the_turn(kind: str) -> None:
    steps = (b"1\n\n", alias, b'{"type":"done"}\n' if kind == NDJSON else b"2\n\nevent: done\ndata: {}\n\n")
    sent = failing(*steps, kind=kind, body=arrived({"list": [0]}), raises=SessionAliasError)
    passed = b"1\n\n" if kind == NDJSON else b"1\n\n2\n\n"
    assert sent.body.startswith(passed)
    assert sent.body.count(b"internal-error") == 1
    assert not TOKEN.search(sent.body)
    assert sent.messages[-1]["more_body"] is True


def test_a_value_that_was_changed_in_two_ways_is_an_error_at_the_end() -> None:
    sent = failing(alias, b'{"a":1}\n', body=arrived({"list": [0]}), raises=SessionAliasError)
    assert sent.body == b'{"a":1}\n{"type":"error","code":"internal-error"}\n'


# A store that refuses


REFUSALS = [SessionConflict(reason="seq"), SessionUnavailable(reason="down")]


def a_refused_commit_is_the_last_event(refusal: Any) -> None:
    line = told(refusal)
    for steps in (
        (count, b'1\n{"type":"done"}\n2\n', b"3\n"),
        (count, b"1\n", check, b"2\n", count, b'{"type":"done"}\n'),
        (count, b"1\n"),
        (count, b"1\n[DONE]\n"),
    ):
        seen: list[Any] = []
        sent = streamed(*steps, options={"store": ToldStore(commit=refusal), "on_event": seen.append})
        assert sent.body == b"1\n" + line
        assert [(event.name, event.code) for event in seen] == [("refused", refusal.code)]
    event = b"event: error\ndata: " + line + b"\n"
    sent = streamed(
        count, b"data: 1\n\nevent: done\ndata: {}\n\ndata: 2\n\n", kind=EVENTS, options={"store": ToldStore(commit=refusal)}
    )
    assert sent.body == b"data: 1\n\n" + event


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_commit_that_is_refused_is_the_last_event_and_nothing_follows(refusal: Any) -> None:
    a_refused_commit_is_the_last_event(refusal)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_second_commit_that_is_refused_leaves_the_first_as_what_counts(refusal: Any) -> None:
    sent = streamed(count, check, count, b'{"type":"done"}\n2\n', options={"store": ToldStore(commit=after(1, refusal))})
    assert sent.body == filled(OWN_LINE, ({"step": 3}, 2)) + told(refusal)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_checkpoint_after_a_refused_commit_is_ignored_like_every_event_after_it(refusal: Any) -> None:
    sent = streamed(count, check, b"1\n", count, check, b"2\n", options={"store": ToldStore(commit=refusal)})
    assert sent.body == told(refusal)


async def refuse_later(_: Any) -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    raise SessionConflict(reason="seq")


def test_a_task_that_waited_to_send_sends_nothing_after_a_refused_commit() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        current_session().incr("step")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", NDJSON.encode())]})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(checkpoint)
            tasks.start_soon(send, {"type": "http.response.body", "body": b"1\n", "more_body": True})

    sent = asyncio.run(_quietly(service(app, store=ToldStore(commit=refuse_later))))
    assert sent.body == b'{"type":"error","code":"session-conflict"}\n'
    assert [message.get("more_body") for message in sent.messages[1:]] == [False]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_exception_after_a_refusal_adds_nothing(refusal: Any) -> None:
    sent = failing(count, check, fall, options={"store": ToldStore(commit=refusal)})
    assert sent.body == told(refusal)


class GoingOn(SessionStream):
    """Broken: after a refusal the rest goes out all the same."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body" and self.has_ended:
            await self._send_message(message)
        else:
            await super().send(message)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_control_a_stream_that_goes_on_after_a_refusal_is_caught(monkeypatch: Any, refusal: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", GoingOn)
    with pytest.raises(AssertionError):
        a_refused_commit_is_the_last_event(refusal)


# A client that leaves


class Gone:
    """A server whose client leaves after so many messages."""

    def __init__(self, after: int, body: Any = None) -> None:
        self.after, self.body, self.tried = after, arrived() if body is None else body, 0
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        self.tried += 1
        if self.tried > self.after:
            raise OSError
        self.messages.append(message)

    def serve(self, app: Any) -> None:
        asyncio.run(app(scope_of(), receiving(self.body), self.send))


def nothing_is_tried_when_the_client_is_gone() -> None:
    seen: list[Any] = []
    for number in (0, 1, 2):
        server = Gone(number)
        with pytest.raises(OSError):
            server.serve(service(Streaming(b"1\n", count, b"2\n", b'{"type":"done"}\n'), on_event=seen.append))
        assert (server.tried, len(server.messages)) == (number + 1, number)
    assert not seen


def test_when_the_client_is_gone_no_error_event_is_tried() -> None:
    nothing_is_tried_when_the_client_is_gone()


class Insisting(SessionStream):
    """Broken: it tries to tell a client that is gone."""

    async def _send_message(self, message: Any) -> None:
        try:
            await self._send(message)
        finally:
            self._gone = False


def test_control_an_error_event_for_a_client_that_is_gone_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", Insisting)
    with pytest.raises(AssertionError):
        nothing_is_tried_when_the_client_is_gone()


def test_the_applications_exception_comes_out_although_the_client_left_before_it() -> None:
    with pytest.raises(RuntimeError, match="the model is gone"):
        Gone(2).serve(service(Streaming(b"1\n", count, fall)))


def test_starlettes_streaming_response_ends_quietly_when_the_client_leaves() -> None:
    closed = []

    async def chat(_: Any) -> StreamingResponse:
        async def events() -> Any:
            try:
                for _ in range(100):
                    current_session().incr("step")
                    yield "1\n"
                    await anyio.lowlevel.checkpoint()
            finally:
                closed.append(True)

        return StreamingResponse(events(), media_type=NDJSON)

    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"])])

    async def run() -> Any:
        pending = [messages_of(json.dumps(arrived()).encode())[0], {"type": "http.disconnect"}]
        sent = []

        async def receive() -> Any:
            return pending.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)
            await anyio.lowlevel.checkpoint()

        await service(app)({**scope_of(), "asgi": {"spec_version": "2.3"}}, receive, send)
        return sent

    sent = asyncio.run(run())
    assert not any(TOKEN.search(message.get("body", b"")) for message in sent)


# plain=: the application's own object is the state

PLAIN = {"plain": ("/api/chat",)}
DONE_WITH = b'{"type":"done","data":{"session":%b,"y":1.0}}\n'


def adopted(own: bytes, *before: Step, options: Any = None, **of: Any) -> Any:
    """What the client holds after a terminal event with this object."""
    sent = streamed(*before, DONE_WITH % own, options={**PLAIN, **(options or {})}, **of)
    return json.loads(sent.body.splitlines()[-1])["data"]["session"]


def only_named_routes_adopt() -> None:
    seen: list[Any] = []
    options = {"on_event": seen.append, "plain": ("/api/chat",)}
    assert opened(adopted(b'{"own":[1,2.5]}', options=options)) == {"own": [1, 2.5]}
    assert not seen
    for path in ("/other", "/other"):
        app = service(Streaming(DONE_WITH % b'{"own":1}', DONE_WITH % b'{"own":1}'), **options)
        for _ in range(2):
            sent = call(app, arrived(), path=path)
            assert sent.body == filled((DONE_WITH % b"@") * 2, (OLD, 1), (OLD, 1))
    assert [(event.name, event.route) for event in seen] == [("overwritten", "/other")] * 2  # once for each service


def test_on_a_named_route_alone_the_object_of_the_terminal_event_is_the_state() -> None:
    only_named_routes_adopt()


@pytest.mark.parametrize(("own", "state", "sequence"), [(b'{"own":1}', {"own": 1}, 2), (b"{}", {}, 2), (b'{"step":2}', OLD, 1)])
@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_an_object_replaces_the_state_byte_for_byte_around_it(kind: str, own: bytes, state: Any, sequence: int) -> None:
    event = DONE_WITH if kind == NDJSON else b"event: done\nid: 1\ndata: " + DONE_WITH + b"\n"
    sent = streamed(event % own, kind=kind, options=PLAIN)
    assert sent.body == filled(event % b"@", (state, sequence))


@pytest.mark.parametrize("own", [b"null", b"[1]", b'"x"', b"0"])
def test_what_is_no_object_leaves_the_state(own: bytes) -> None:
    assert opened(adopted(own)) == OLD


@pytest.mark.parametrize("event", [b'{"type":"done"}\n', b'{"type":"done","data":{}}\n', b'{"type":"done","data":null}\n'])
def test_an_absent_object_leaves_the_state(event: bytes) -> None:
    assert opened(json.loads(streamed(event, options=PLAIN).body)["data"]["session"]) == OLD


@pytest.mark.parametrize("own", [b'{"dcaf":{}}', b'{"x":1,"dcaf":{"token":"new"}}', b'{"dc\\u0061f":null}'])
def test_an_object_with_a_dcaf_member_is_never_the_state(own: bytes) -> None:
    assert opened(adopted(own)) == OLD


def test_an_object_in_an_event_that_does_not_end_the_turn_is_never_the_state() -> None:
    line = b'{"type":"delta","data":{"session":{"own":1}}}\n'
    sent = streamed(line, b'{"type":"done"}\n', options=PLAIN)
    assert sent.body == line + filled(b'{"data":{"session":@},"type":"done"}\n', (OLD, 1))


def test_what_a_tool_changed_wins_over_the_applications_object() -> None:
    assert opened(adopted(b'{"own":1}', count)) == {"step": 3}


def test_what_a_tool_changed_wins_also_where_a_checkpoint_has_sent_it_already() -> None:
    assert opened(adopted(b'{"own":1}', count, check)) == {"step": 3}


def test_what_a_tool_changed_wins_also_where_an_earlier_event_has_sent_it_already() -> None:
    assert opened(adopted(b'{"own":1}', count, b'{"type":"done"}\n')) == {"step": 3}


def test_what_a_tool_changed_after_an_object_was_adopted_wins_over_the_next_object() -> None:
    steps = (DONE_WITH % b'{"own":1}', lambda session: session.set("own", 5), check)
    assert opened(adopted(b'{"own":2}', *steps)) == {"own": 5}


def test_a_second_object_of_the_application_replaces_its_first() -> None:
    assert opened(adopted(b'{"own":2}', DONE_WITH % b'{"own":1}')) == {"own": 2}


@pytest.mark.parametrize("status", [302, 404])
def test_outside_2xx_nothing_is_adopted(status: int) -> None:
    assert opened(adopted(b'{"own":1}', status=status)) == OLD


class Adopting(BodySender):
    """Broken: it adopts on every route."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turn.adopts = True


async def as_it_is(_: Any, data: bytes, *__: Any) -> bytes:
    return data


def test_control_adoption_on_every_route_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(ASGITurn, "remove_sessions", as_it_is)
    monkeypatch.setattr("dcaf.asgi.request.BodySender", Adopting)
    with pytest.raises(AssertionError):
        only_named_routes_adopt()


# Numbers and tokens


def numbers_count_the_changes(**options: Any) -> None:
    done = b'{"type":"done"}\n'
    steps = (count, check, check, done, b"1\n", count, done, done, count, check, count)
    for body, first in (({}, 1), (arrived(), 2)):
        sent = streamed(*steps, body=body, options=options)
        sealer = Sealer(keys=RING, audience=AUDIENCE, clock=lambda: NOW)
        found = [sealer.open({"dcaf": {"token": token.decode()}}, sealer.binding()) for token in TOKEN.findall(sent.body)]
        assert [session.sequence - first for session in found] == [0, 0, 1, 1, 2, 3]
        start = found[0]["step"]
        assert [session["step"] - start for session in found] == [0, 0, 1, 1, 2, 3]


def test_each_token_of_a_stream_opens_and_its_number_counts_the_changes() -> None:
    numbers_count_the_changes()


def test_the_numbers_of_a_store_count_the_changes_too() -> None:
    numbers_count_the_changes(store=ToldStore())


def test_an_untouched_session_keeps_its_number() -> None:
    numbers = (b'{"type":"done"}\n' * 2, b'{"data":{"session":@},"type":"done"}\n' * 2)
    assert streamed(numbers[0]).body == filled(numbers[1], (OLD, 1), (OLD, 1))
    assert streamed(numbers[0], options={"store": ToldStore()}).body == filled(numbers[1], (OLD, 1), (OLD, 1))


def test_control_an_untouched_session_taken_for_a_changed_one_is_numbered_anew(monkeypatch: Any) -> None:
    payload = State.payload
    monkeypatch.setattr(State, "payload", lambda self: Payload(payload(self).data))
    numbers = (b'{"type":"done"}\n' * 2, b'{"data":{"session":@},"type":"done"}\n' * 2)
    with pytest.raises(AssertionError):
        assert streamed(numbers[0], options={"store": ToldStore()}).body == filled(numbers[1], (OLD, 1), (OLD, 1))


def test_control_a_lease_that_never_counts_is_caught(monkeypatch: Any) -> None:
    async def commit(self: Any, sealed: Any, *, ends_turn: bool) -> None: ...

    monkeypatch.setattr(StatelessLease, "commit", commit)
    with pytest.raises(AssertionError):
        numbers_count_the_changes(store=ToldStore())


# Under Starlette, and with compression


def lines(*, changed: bool = True) -> Starlette:
    async def chat(request: Any) -> StreamingResponse:
        async def events() -> Any:
            if changed:
                request.session.incr("step")
            for number in range(50):
                yield json.dumps({"type": "delta", "n": number, "text": "é" * 20}) + "\n"
            yield '{"type":"done"}\n'

        return StreamingResponse(events(), media_type=NDJSON)

    return Starlette(routes=[Route("/api/chat", chat, methods=["POST"])])


def test_a_starlette_stream_is_read_line_by_line_by_an_http_client() -> None:
    with TestClient(service(lines())).stream("POST", "/api/chat", json=arrived()) as reply:
        found = [json.loads(line) for line in reply.iter_lines()]
    assert [line["type"] for line in found] == ["delta"] * 50 + ["done"]
    assert opened(found[-1]["data"]["session"]) == {"step": 3}


def compressed_outside_carries(app: Any) -> None:
    reply = TestClient(app).post("/api/chat", json=arrived(), headers={"accept-encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert opened(json.loads(reply.text.splitlines()[-1])["data"]["session"]) == {"step": 3}


def test_compression_outside_compresses_the_stream_with_the_session() -> None:
    compressed_outside_carries(GZipMiddleware(service(lines())))


def test_compression_inside_is_an_error_that_says_so_for_a_changed_session() -> None:
    with pytest.raises(NotCarriedError, match="mount compression outside SessionMiddleware"):
        compressed_outside_carries(service(GZipMiddleware(lines())))


def test_compression_inside_passes_an_unchanged_session() -> None:
    headers = [(b"content-type", b"application/json"), (b"accept-encoding", b"gzip")]
    app = service(GZipMiddleware(lines(changed=False)))
    body = messages_of(json.dumps(arrived()).encode())
    sent = asyncio.run(exchange(app, scope_of(headers=headers), body))
    assert sent.header("content-encoding") == "gzip"
    assert sent.header("cache-control") == "no-store"
    assert b"dcaf1s" not in gzip.decompress(sent.body)


def test_two_tasks_that_send_at_once_keep_every_event_whole() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", NDJSON.encode())]})

        async def one(name: str) -> None:
            for number in range(20):
                line = json.dumps({"n": number, "by": name}).encode() + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
                current_session().incr(name)
                await checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, "a")
            tasks.start_soon(one, "b")
        await send({"type": "http.response.body", "body": b'{"type":"done"}\n'})

    async def run() -> list[bytes]:
        bodies: list[bytes] = []

        async def send(message: Any) -> None:
            await anyio.lowlevel.checkpoint()
            bodies.append(message.get("body", b""))

        await service(app)(scope_of(), receiving({}), send)
        return bodies

    found = [json.loads(line) for line in b"".join(asyncio.run(run())).splitlines()]
    assert opened(found[-1]["data"]["session"]) == {"a": 20, "b": 20}
    states = [opened(line["data"]["session"]) for line in found if "data" in line]
    totals = [sum(state.values()) for state in states]
    assert totals == sorted(totals)
