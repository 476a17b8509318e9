"""An answer that could not be sent is cleared away: the one that the application gives instead arrives whole, and alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from dcaf import Session, SessionMiddleware
from dcaf.asgi.responses import AnswerPhase, BodySender
from dcaf.core.errors import DcafError, SessionConflict
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, Recorder, Sent, call, envelope, mounted, opened
from tests.stores_for_tests import ToldStore

TEXT = (b"content-type", b"text/plain")
LINES = (b"content-type", b"application/x-ndjson")


def with_nan(session: Session) -> None:
    session["prices"] = [1.0]
    session["prices"].append(float("nan"))


def with_object(session: Session) -> None:
    session["cart"] = {"items": []}
    session["cart"]["items"].append(object())


def in_two_ways(session: Session) -> None:
    session["cart"] = {"items": []}
    plain, typed = session["cart"], session.get("cart", as_type=dict[str, list[int]])
    plain["items"].append(1)
    assert typed is not None
    typed["items"].append(2)


def with_deep(session: Session) -> None:
    session["tree"] = inner = []
    for _ in range(100):
        following: list[Any] = []
        inner.append(following)
        inner = following


BROKEN: dict[str, Callable[[Session], None]] = {
    "no number": with_nan,
    "an object": with_object,
    "two ways": in_two_ways,
    "too deep": with_deep,
}

Parts = tuple[int, tuple[Any, ...], tuple[bytes, ...]]
FAILS: dict[str, Parts] = {
    "JSON": (200, (JSON_TYPE,), (b'{"x":1}',)),
    "JSON in parts": (200, (JSON_TYPE, (b"content-length", b"7")), (b'{"x"', b":1}")),
    "JSON without an object": (200, (JSON_TYPE,), (b"[1]",)),
    "a text": (200, (TEXT,), (b"text",)),
    "nothing": (204, (), (b"",)),
    "a redirect": (302, ((b"location", b"/"),), (b"",)),
    "JSON that is encoded": (200, (JSON_TYPE, (b"content-encoding", b"gzip")), (b"\x1f\x8b",)),
}
INSTEAD: dict[str, Parts] = {
    "a text": (500, (TEXT,), (b"sorry",)),
    "a text in parts": (500, (TEXT, (b"content-length", b"5")), (b"so", b"rry")),
    "JSON": (500, (JSON_TYPE,), (b'{"error":"sorry"}',)),
    "JSON in parts": (503, (JSON_TYPE, (b"retry-after", b"9")), (b'{"error":', b'"sorry"}')),
    "nothing": (500, (), (b"",)),
    "a stream": (500, (LINES,), (b'{"type":"error"}\n', b'{"type":"done"}\n')),
}


async def give(send: Any, parts: Parts) -> None:
    status, headers, chunks = parts
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    for at, chunk in enumerate(chunks):
        await send({"type": "http.response.body", "body": chunk, "more_body": at + 1 < len(chunks)})


class Careful:
    """An application that gives another answer where the first cannot be sent.

    Args:
        tool: What it does to the session.
        first: What it answers.
        instead: What it answers then.
        repair: What it does to the session before that.
    """

    def __init__(self, tool: Any, first: Parts, instead: Parts, repair: Any = None) -> None:
        self.tool, self.first, self.instead, self.repair = tool, first, instead, repair
        self.raised: list[Exception] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.tool(scope["dcaf.session"])
        try:
            await give(send, self.first)
        except DcafError as error:
            self.raised.append(error)
            if self.repair:
                self.repair(scope["dcaf.session"])
            await give(send, self.instead)


def assert_arrives_whole(app: Careful, sent: Sent) -> None:
    """The law: of what was sent, all is of the second answer, and nothing of the first or of a session."""
    status, headers, chunks = app.instead
    assert len(app.raised) == 1
    assert [message["type"] for message in sent.messages].count("http.response.start") == 1
    assert sent.messages[0]["type"] == "http.response.start"
    assert (sent.status, sent.body) == (status, b"".join(chunks))
    assert {(name.decode(), value.decode()) for name, value in headers} <= {*sent.headers}
    assert [message.get("more_body", False) for message in sent.messages[1:]][-1] is False
    assert (sent.header("content-length") or str(len(sent.body)), sent.header("set-cookie")) == (str(len(sent.body)), None)


CARRIERS = pytest.mark.parametrize("carriers", [("body",), ("header",), ("cookie",), ("body", "cookie")], ids=", ".join)


@CARRIERS
@pytest.mark.parametrize("fails", FAILS)
def test_the_applications_own_answer_arrives_after_one_that_cannot_be_written(fails: str, carriers: Any) -> None:
    for write in BROKEN.values():
        for instead in INSTEAD.values():
            app = Careful(write, FAILS[fails], instead)
            assert_arrives_whole(app, call(mounted(app, carriers=carriers), {}))


@pytest.mark.parametrize("instead", INSTEAD)
@pytest.mark.parametrize("fails", [name for name in FAILS if not name.startswith("JSON") or "object" in name or "encoded" in name])
def test_and_after_one_that_carries_no_session(fails: str, instead: str) -> None:
    app = Careful(lambda session: session.incr("n"), FAILS[fails], INSTEAD[instead])
    assert_arrives_whole(app, call(mounted(app), {"data": {"session": envelope({"n": 1})}}))


@pytest.mark.parametrize("instead", INSTEAD)
def test_and_after_one_that_is_too_long(instead: str) -> None:
    first: Parts = (200, (JSON_TYPE,), (b'{"x":"' + b"x" * 100, b'x"}'))
    app = Careful(lambda session: session.incr("n"), first, INSTEAD[instead])
    assert_arrives_whole(app, call(mounted(app, max_response_bytes=100), {"data": {"session": envelope({"n": 1})}}))


@pytest.mark.parametrize("answer", [b'["an array"]', [b'["an ', b'array"]']])
@pytest.mark.parametrize("limit_bytes", [100, 5])
def test_a_problem_is_sent_alone_in_place_of_an_answer_that_was_held_back(answer: Any, limit_bytes: int) -> None:
    app = Recorder(answer, tool=lambda session: session.incr("n"))
    store = ToldStore(commit=SessionConflict())
    sent = call(mounted(app, store=store, carriers=("body", "cookie"), max_response_bytes=limit_bytes), {})
    assert [message["type"] for message in sent.messages] == ["http.response.start", "http.response.body"]
    assert sent.status == 409


@pytest.mark.parametrize("fails", ["JSON", "JSON in parts"])
def test_control_a_body_that_is_kept_for_the_next_answer_is_caught(fails: str, monkeypatch: Any) -> None:
    complete = BodySender._complete

    async def stays(self: Any, data: bytes) -> None:
        try:
            await complete(self, data)
        except Exception:
            self._phase = AnswerPhase.OVER
            raise

    monkeypatch.setattr(BodySender, "_complete", stays)
    app = Careful(with_nan, FAILS[fails], INSTEAD["a text"])
    with pytest.raises((AssertionError, IndexError)):
        assert_arrives_whole(app, call(mounted(app), {}))


def repair(session: Session) -> None:
    session.clear()
    session["n"] = 1


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("fails", FAILS)
def test_a_session_that_was_repaired_goes_out_with_the_answer_instead(fails: str, broken: str) -> None:
    for instead in ("JSON", "JSON in parts"):
        status, headers, chunks = INSTEAD[instead]
        assert status >= 500
        app = Careful(BROKEN[broken], FAILS[fails], (409, headers, chunks), repair)
        sent = call(mounted(app), {})
        assert (sent.status, sent.json["error"], opened(sent.envelope)) == (409, "sorry", {"n": 1})
        assert sent.header("content-length") == str(len(sent.body))


@CARRIERS
@pytest.mark.parametrize("broken", BROKEN)
def test_a_handler_of_starlettes_around_the_middleware_answers_alone(broken: str, carriers: Any) -> None:
    async def chat(request: Any) -> JSONResponse:
        BROKEN[broken](request.session)
        return JSONResponse({"x": 1})

    async def sorry(request: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"sorry: {type(error).__name__}", 500)

    middleware = [Middleware(SessionMiddleware, keys=RING, audience=AUDIENCE, carriers=carriers)]
    app = Starlette(
        routes=[Route("/api/chat", chat, methods=["POST"])], middleware=middleware, exception_handlers={Exception: sorry}
    )
    sent = Sent()
    with pytest.raises(DcafError) as raised:  # which that handler raises again, for the server's log
        call(kept(app, sent), {})
    assert (sent.status, sent.body.decode()) == (500, f"sorry: {type(raised.value).__name__}")
    assert [message["type"] for message in sent.messages] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("fails", ["JSON", "a text"])
def test_one_of_starlettes_inside_it_takes_the_first_start_for_sent_and_nothing_is(fails: str) -> None:
    """The exception: the server answers then, because nothing was sent."""

    async def chat(request: Any) -> Any:
        request.session["n"] = 1
        with_nan(request.session)
        return JSONResponse({"x": 1}) if fails == "JSON" else PlainTextResponse("text")

    async def sorry(request: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", 500)

    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"])], exception_handlers={DcafError: sorry})
    sent = Sent()
    with pytest.raises(RuntimeError, match="response already started"):
        call(kept(mounted(app), sent), {})
    assert sent.messages == []


def kept(app: Any, sent: Sent) -> Any:
    async def keep(scope: Any, receive: Any, send: Any) -> None:
        async def both(message: Any) -> None:
            sent.messages.append(message)
            await send(message)

        await app(scope, receive, both)

    return keep


# Where a stream or a socket is open already

DONE = b'{"type":"done"}\n'


@pytest.mark.parametrize("broken", BROKEN)
def test_in_a_stream_the_applications_own_error_arrives_and_a_repaired_session_ends_it(broken: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [LINES]})
        await send({"type": "http.response.body", "body": b"1\n", "more_body": True})
        BROKEN[broken](scope["dcaf.session"])
        with pytest.raises(DcafError):
            await send({"type": "http.response.body", "body": DONE, "more_body": True})
        repair(scope["dcaf.session"])
        await send({"type": "http.response.body", "body": b'{"type":"error","code":"own"}\n', "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    sent = call(mounted(app), {})
    events = [json.loads(line) for line in sent.body.splitlines()]
    assert [event if type(event) is int else event["type"] for event in events] == [1, "error", "session"]
    assert opened(events[-1]["data"]["session"]) == {"n": 1}
    assert sent.messages[-1]["more_body"] is False


@pytest.mark.parametrize("broken", BROKEN)
def test_on_a_socket_the_applications_own_error_arrives_and_the_next_turn_is_served(broken: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        BROKEN[broken](scope["dcaf.session"])
        with pytest.raises(DcafError):
            await send({"type": "websocket.send", "text": '{"type":"done"}'})
        await send({"type": "websocket.send", "text": '{"type":"error","code":"own"}'})
        repair(scope["dcaf.session"])
        await receive()
        await send({"type": "websocket.send", "text": '{"type":"done"}'})
        await receive()

    with Peer(mounted(app)) as peer:
        assert peer.ask({}) == {"type": "error", "code": "own"}
        assert opened(peer.ask({})["data"]["session"]) == {"n": 1}
        peer.leave()


@pytest.mark.parametrize("broken", BROKEN)
def test_on_a_socket_the_applications_own_close_leaves_though_nothing_can_be_sealed(broken: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        BROKEN[broken](scope["dcaf.session"])
        with suppress(DcafError):
            await send({"type": "websocket.close", "code": 1011})

    with Peer(mounted(app)) as peer:
        peer.say({})
        assert peer.hear() == {"type": "websocket.close", "code": 1011}
