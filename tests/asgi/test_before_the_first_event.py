"""What comes before the first event of a stream: a checkpoint, also where the start of the answer is held up; a byte order mark."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

from dcaf import ConfigurationError, current_session
from dcaf.asgi import checkpoint
from dcaf.asgi.responses import BodySender
from dcaf.asgi.streams import SessionStream
from tests.asgi.wire import call, envelope, mounted, opened

NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
MARK = b"\xef\xbb\xbf"
WIRES = pytest.mark.parametrize("kind", [NDJSON, EVENTS])


class Timing(BaseHTTPMiddleware):
    """What adds a header to an answer whose start it has waited for."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["x-time"] = "1"
        return answer


def written(kind: str, value: Any) -> bytes:
    text = json.dumps(value).encode()
    return text + b"\n" if kind == NDJSON else b"data: " + text + b"\n\n"


def events_of(kind: str, body: bytes) -> list[Any]:
    """The events as their reader has them: a byte order mark counts only as the first of all."""
    body = body.removeprefix(MARK)
    if kind == NDJSON:
        return [json.loads(line) for line in body.splitlines()]
    lines = [line.removeprefix(b"data:") for line in body.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines]


async def add(name: str) -> None:
    current_session()[name] = True


async def told_twice() -> None:
    await checkpoint()
    await checkpoint()


async def in_steps() -> None:
    await checkpoint()
    await add("more")
    await checkpoint()


async def in_a_task() -> None:
    await asyncio.create_task(checkpoint())


BEFORE: dict[str, Callable[[], Any]] = {"once": checkpoint, "twice": told_twice, "in steps": in_steps, "in a task": in_a_task}
LAYERS = {"bare": 0, "under BaseHTTPMiddleware": 1, "under two of them": 2}


def streamed(kind: str, before: Any, layers: int, *, in_endpoint: bool = False, body: Any = None, **settings: Any) -> Any:
    async def chat(_: Any) -> StreamingResponse:
        async def begin() -> None:
            await add("built")
            await before()

        async def events() -> AsyncIterator[bytes]:
            if not in_endpoint:
                await begin()
            yield written(kind, {"type": "text_delta"})
            await add("told")
            yield written(kind, {"type": "done"})

        if in_endpoint:
            await begin()
        return StreamingResponse(events(), media_type=kind)

    middleware = [Middleware(Timing)] * layers
    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"])], middleware=middleware)
    return call(mounted(app, **settings), body or {}, asgi={"version": "3.0", "spec_version": "2.4"})  # or it asks for a disconnect


def assert_goes_out_first(sent: Any, kind: str, layers: int) -> None:
    """The law: the session is the first event, the stream is whole, and its end has the session as it is then."""
    events = events_of(kind, sent.body)
    assert [event["type"] for event in events][-3:] == ["session", "text_delta", "done"]
    assert opened(events[0]["data"]["session"])["built"] is True
    assert "told" not in opened(events[-3]["data"]["session"])
    assert opened(events[-1]["data"]["session"])["told"] is True
    assert sent.header("x-time") == ("1" if layers else None)


@pytest.mark.parametrize("arrived", [{}, {"data": {"session": envelope({"n": 1})}}], ids=["new", "arrived"])
@pytest.mark.parametrize("in_endpoint", [False, True], ids=["in the stream", "in the endpoint"])
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("layers", LAYERS)
@WIRES
def test_a_checkpoint_before_the_first_event_goes_out_first(
    kind: str, layers: str, before: str, in_endpoint: bool, arrived: Any
) -> None:
    number = LAYERS[layers]
    sent = streamed(kind, BEFORE[before], number, in_endpoint=in_endpoint, body=arrived)
    assert_goes_out_first(sent, kind, number)


@WIRES
def test_control_a_stream_that_forgets_what_was_asked_for_before_it_is_caught(kind: str, monkeypatch: Any) -> None:
    begin = SessionStream.begin

    async def forgets(self: Any, start: Any) -> None:
        self._owes_checkpoint = False
        await begin(self, start)

    monkeypatch.setattr(SessionStream, "begin", forgets)
    with pytest.raises((AssertionError, IndexError, KeyError)):
        assert_goes_out_first(streamed(kind, checkpoint, 1), kind, 1)


@WIRES
def test_control_an_answer_that_only_knows_a_stream_that_has_begun_is_caught(kind: str, monkeypatch: Any) -> None:
    async def refuses(self: Any, *, may_wait: bool = False) -> bool:
        return False if self._stream is None else await self._stream.checkpoint()

    monkeypatch.setattr(BodySender, "checkpoint", refuses)
    with pytest.raises((ConfigurationError, BaseExceptionGroup)):
        streamed(kind, checkpoint, 1)


@WIRES
@pytest.mark.parametrize("carriers", [("header",), ("cookie",)])
def test_where_no_stream_can_carry_the_session_it_is_an_error_at_once(kind: str, carriers: Any) -> None:
    with pytest.raises((ConfigurationError, BaseExceptionGroup)):
        streamed(kind, checkpoint, 1, carriers=carriers)


def test_what_was_asked_for_before_an_answer_in_json_goes_out_with_that() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await add("built")
        await checkpoint()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})

    assert opened(call(mounted(app), {}).envelope) == {"built": True}


# What must be first in any case

FIRST_EVENTS = {
    "a text": b"data: 1\n\n",
    "the end of the turn": b'data: {"type":"done"}\n\n',
    "an end without room": b'data: {"type":"done","data":[]}\n\n',
    "an end by name": b"event: done\ndata: 2\n\n",
    "what closes the stream": b"data: [DONE]\n\n",
    "a comment": b": ping\n\ndata: 3\n\n",
}
HAS_CHECKPOINT = pytest.mark.parametrize("has_checkpoint", [True, False], ids=["checkpoint", "none"])


def marked(chunks: list[bytes], *, has_checkpoint: bool) -> bytes:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS.encode())]})
        await add("built")
        if has_checkpoint:
            await checkpoint()
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    body: bytes = call(mounted(app), {}).body
    return body


def fields_of(body: bytes) -> list[bytes]:
    """The lines of a browser: those that are no field are dropped."""
    return [line for line in body.removeprefix(MARK).split(b"\n") if line.startswith((b"data:", b"event:"))]


def assert_all_is_read(body: bytes, text: bytes) -> None:
    """The law: every event of the application is read, and the session is."""
    assert MARK not in body.removeprefix(MARK)
    found = [line for line in fields_of(body) if b'"session":{' not in line and line != b"event: session"]
    assert found in (
        fields_of(text),
        [line for line in fields_of(text) if line not in fields_of(FIRST_EVENTS["the end of the turn"])],
    )
    sessions = [json.loads(line.removeprefix(b"data:")) for line in fields_of(body) if b'"session":{' in line]
    assert opened(sessions[-1]["data"]["session"]) == {"built": True}


@HAS_CHECKPOINT
@pytest.mark.parametrize("first", FIRST_EVENTS)
def test_a_byte_order_mark_stays_first_wherever_the_stream_is_cut(first: str, has_checkpoint: bool) -> None:
    text = MARK + FIRST_EVENTS[first] + b"data: 9\n\n"
    for at in range(1, 8):
        for chunks in (
            [text[:at], text[at:]],
            [text[:at], b"", text[at:]],
            [b"", *[bytes([byte]) for byte in text[:at]], text[at:]],
        ):
            assert_all_is_read(marked(chunks, has_checkpoint=has_checkpoint), text)
    assert_all_is_read(marked([text], has_checkpoint=has_checkpoint), text)


@HAS_CHECKPOINT
@pytest.mark.parametrize("begins", [MARK[:1], MARK[:2], MARK, b"\xef\xbb", b"\xef\xbf\xbf"])
def test_what_only_begins_like_one_is_passed_on(begins: bytes, has_checkpoint: bool) -> None:
    body = marked([begins], has_checkpoint=has_checkpoint)
    assert body.endswith(begins) or begins in body or begins == MARK
    assert b'"session":{' in body


def test_control_a_mark_that_is_not_taken_out_is_caught(monkeypatch: Any) -> None:
    def keeps(self: Any, chunk: bytes, *, more: bool) -> bytes:
        return chunk

    monkeypatch.setattr(SessionStream, "_without_mark", keeps)
    with pytest.raises(AssertionError):
        assert_all_is_read(marked([MARK + b"data: 1\n\n"], has_checkpoint=True), MARK + b"data: 1\n\n")
