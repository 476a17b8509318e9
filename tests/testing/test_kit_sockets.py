"""What only a WebSocket and a lifespan do: sockets that are kept, left and refused, and applications that start, fail and end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf import SessionMiddleware, current_session
from dcaf.core.errors import ConfigurationError
from dcaf.testing import AsyncSessionClient, Reply, SessionClient, serving
from tests.testing.counting import AUDIENCE, HOW, RING, Switchboard, talking

DONE = {"type": "done"}
SOON = timedelta(seconds=0.1)


def app_of(endpoint: Any, *, session: bool = True) -> Any:
    app = Starlette(routes=[WebSocketRoute("/api/chat-ws", endpoint)])
    return SessionMiddleware(app, keys=RING, audience=AUDIENCE) if session else app


@pytest.fixture(scope="module")
def board() -> Iterator[Switchboard]:
    one = Switchboard()
    with serving(one) as one.url:
        yield one


@pytest.fixture(params=[(how, where) for how in HOW for where in ("inside", "network")], ids="-".join)
def dial(request: Any, board: Switchboard) -> Any:
    how, where = request.param

    def dialled(app: Any, **options: Any) -> Any:
        board.app = app
        return talking(how, app if where == "inside" else board.url, wire="websocket", **options)

    return dialled


@pytest.fixture(params=HOW)
def inside(request: Any) -> Any:
    return lambda app, **options: talking(request.param, app, **{"wire": "websocket", **options})


def frames(*sent: Any, close: int | None = None) -> Any:
    """An endpoint that answers each frame with these."""

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            for frame in sent:
                await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_json(frame))
            if close is not None:
                await socket.close(close)
                return

    return endpoint


def test_a_socket_that_the_service_closes_is_opened_anew(dial: Any) -> None:
    opened: list[int] = []

    async def one_turn(socket: WebSocket) -> None:
        opened.append(1)
        await socket.accept()
        await socket.receive_json()
        await socket.send_json({**DONE, "n": current_session().incr("n")})
        await socket.close()

    with dial(app_of(one_turn)) as talk:
        assert [talk.send("x").session for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert len(opened) == 3


def test_a_close_before_the_end_of_the_turn_says_its_code(dial: Any) -> None:
    with dial(app_of(frames({"type": "text_delta", "text": "Hi"}, close=4001), session=False)) as talk:
        replies = [talk.send("x") for _ in range(2)]
    assert [(reply.text, reply.close_code, reply.code) for reply in replies] == [("Hi", 4001, None)] * 2


def test_a_session_that_comes_between_two_turns_is_kept(dial: Any) -> None:
    async def late(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            await socket.send_json(DONE)
            await socket.send_json({"type": "session", "data": {"session": {"late": True}}})
            await socket.send_text("no json")

    with dial(app_of(late, session=False)) as talk:
        assert talk.send("x").session == {}
        assert any(talk.send("x").session == {} and talk.envelope == {"late": True} for _ in range(50))


def test_binary_frames_and_frames_over_several_lines_are_events_too(dial: Any) -> None:
    pretty = json.dumps({"type": "done", "data": {"session": {"n": 1}}}, indent=2).encode()
    with dial(app_of(frames(b"\xff\x00", pretty), session=False)) as talk:
        reply = talk.send("x")
    assert (reply.session, [event["type"] for event in reply.events]) == ({"n": 1}, ["done"])


def test_bytes_that_are_no_text_go_out_as_a_binary_frame(dial: Any) -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        while (got := await socket.receive())["type"] == "websocket.receive":
            await socket.send_json({**DONE, "bytes": got.get("bytes") is not None})

    with dial(app_of(echo, session=False)) as talk:
        assert talk.post(b"\xff").events[0]["bytes"] is True
        assert talk.post(b"{}").events[0]["bytes"] is False


def test_another_frame_ends_a_turn_where_the_application_says_so(dial: Any) -> None:
    ends = {"terminal": lambda _, value: value == {"final": True}}
    with dial(app_of(frames(DONE, {"final": True}), session=False), **ends) as talk:
        assert [talk.send("x").events for _ in range(2)] == [[DONE, {"final": True}]] * 2


def test_a_turn_that_does_not_end_is_an_error_that_says_what_ends_one(dial: Any) -> None:
    with dial(app_of(frames({"type": "text_delta", "text": "Hi"}), session=False), timeout=SOON) as talk:
        with pytest.raises(TimeoutError, match=r"0\.1 s after 1 frames.*done or error.*terminal="):
            talk.send("x")
        with pytest.raises(TimeoutError):
            talk.send("x")


def test_the_path_has_its_query_and_the_handshake_its_headers(dial: Any) -> None:
    async def tell(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            told = {"query": socket.query_params["v"], "user": socket.headers["x-user"], "json": "content-type" in socket.headers}
            await socket.send_json({**DONE, **told})

    with dial(app_of(tell, session=False), path="/api/chat-ws?v=2%20a", headers={"X-User": "ada"}) as talk:
        (event,) = talk.send("x").events
    assert event == {**DONE, "query": "2 a", "user": "ada", "json": False}


def test_a_handshake_that_is_refused_is_the_answer(dial: Any) -> None:
    async def deny(socket: WebSocket) -> None:
        await socket.send_denial_response(JSONResponse({"code": "who-are-you"}, 401))

    async def close(socket: WebSocket) -> None:
        await socket.close()

    with dial(app_of(deny, session=False)) as talk:
        replies = [talk.send("x") for _ in range(2)]
    assert [(reply.status, reply.code, reply.body) for reply in replies] == [(401, "who-are-you", {"code": "who-are-you"})] * 2
    with dial(app_of(close, session=False)) as talk:
        assert talk.send("x").status == 403


async def broken(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive_text()
    raise ValueError("the tool broke")


async def broken_at_once(_: WebSocket) -> None:
    raise ValueError("the door broke")


@pytest.mark.parametrize(("endpoint", "words"), [(broken, "the tool broke"), (broken_at_once, "the door broke")])
def test_what_the_application_raises_is_raised_once(inside: Any, endpoint: Any, words: str) -> None:
    with inside(app_of(endpoint, session=False)) as talk:
        for _ in range(2):
            with pytest.raises(ValueError, match=words):
                talk.send("x")


def test_what_it_raises_after_its_turn_is_raised_when_the_client_leaves(inside: Any) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await socket.send_json(DONE)
        await socket.receive()
        raise ValueError("too late")

    with pytest.raises(ValueError, match="too late"), inside(app_of(endpoint, session=False)) as talk:
        talk.send("x")
    with inside(app_of(endpoint, session=False), raise_server_exceptions=False) as talk:
        talk.send("x")


def test_what_it_raises_is_an_answer_where_the_client_is_told_so(inside: Any) -> None:
    quiet = {"raise_server_exceptions": False}
    with inside(app_of(broken, session=False), **quiet) as talk:
        assert [(reply.status, reply.close_code) for reply in (talk.send("x"), talk.send("x"))] == [(101, 1006)] * 2
    with inside(app_of(broken_at_once, session=False), **quiet) as talk:
        assert talk.send("x").status == 500

    async def chat(_: Request) -> Any:
        raise ValueError

    with inside(Starlette(routes=[Route("/api/chat", chat, methods=["POST"])]), wire="json", **quiet) as talk:
        assert talk.send("x").status == 500


def test_an_application_that_ends_without_a_word_has_broken_off(inside: Any) -> None:
    async def mute(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        if scope["query_string"] == b"accept":
            await send({"type": "websocket.accept"})

    with inside(mute) as talk:
        assert talk.send("x").status == 500
    with inside(mute, path="/?accept") as talk:
        assert (talk.send("x").close_code, talk.send("x").close_code) == (1006, 1006)


def test_an_application_that_does_not_notice_the_leaving_is_cancelled(inside: Any, monkeypatch: Any) -> None:
    ended: list[str] = []

    async def deaf(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await socket.send_json(DONE)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    monkeypatch.setattr("dcaf.testing.asgi.LEAVING_S", 0.05)
    with inside(app_of(deaf, session=False)) as talk:
        talk.send("x")
    assert ended == ["cancelled"]


def test_what_is_sent_to_a_client_that_has_left_is_an_error_of_the_network(inside: Any) -> None:
    seen: list[type] = []

    async def chatty(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": json.dumps(DONE)})
        assert (await receive())["type"] == "websocket.disconnect"
        try:
            await send({"type": "websocket.send", "text": "{}"})
        except OSError as error:
            seen.append(type(error))
            raise

    with inside(chatty) as talk:
        talk.send("x")
    assert seen == [OSError]


# Applications that start and end


def living(events: list[str], *, fails: bool = False) -> Any:
    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        events.append("start")
        if fails:
            raise ValueError("no database")
        yield {"db": asyncio.get_running_loop()}
        events.append("stop")

    async def chat(request: Request) -> Any:
        return JSONResponse({"content": str(request.state.db is asyncio.get_running_loop())})

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            text = str(websocket.state.db is asyncio.get_running_loop())
            await websocket.send_json({"type": "text_delta", "text": text})
            await websocket.send_json(DONE)

    routes = [Route("/api/chat", chat, methods=["POST"]), WebSocketRoute("/api/chat-ws", socket)]
    return SessionMiddleware(Starlette(routes=routes, lifespan=lifespan), keys=RING, audience=AUDIENCE)


@pytest.mark.parametrize("wire", ["json", "websocket"])
def test_with_starts_and_stops_the_application_in_the_loop_of_its_turns(wire: Any) -> None:
    events: list[str] = []
    with SessionClient(living(events), wire=wire) as client:
        assert [client.send("x").text for _ in range(2)] == ["True", "True"]
        assert events == ["start"]
    assert events == ["start", "stop"]


@pytest.mark.parametrize("wire", ["json", "websocket"])
def test_async_with_does_so_in_the_loop_of_the_test(wire: Any) -> None:
    events: list[str] = []
    app = living(events)

    async def test() -> list[str | None]:
        async with AsyncSessionClient(app, wire=wire) as client:
            return [(await client.send("x")).text for _ in range(2)]

    assert asyncio.run(test()) == ["True", "True"]
    assert events == ["start", "stop"]


def test_an_application_that_cannot_start_says_so() -> None:
    with pytest.raises(ValueError, match="no database"), SessionClient(living([], fails=True)):
        pass

    async def test() -> None:
        async with AsyncSessionClient(living([], fails=True)):
            pass

    with pytest.raises(ValueError, match="no database"):
        asyncio.run(test())


def test_a_start_that_fails_without_raising_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        message = await receive()
        await send({"type": f"{message['type']}.{words}", "message": "no database"})
        if words == "complete":
            await receive()
            await send({"type": "lifespan.shutdown.failed", "message": "not empty"})

    words = "failed"
    with pytest.raises(RuntimeError, match=r"startup\.failed: no database"), SessionClient(app):
        pass
    words = "complete"
    with pytest.raises(RuntimeError, match=r"shutdown\.failed: not empty"), SessionClient(app):
        pass


def test_an_application_without_a_lifespan_needs_none() -> None:
    async def no_word(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("hi")(scope, receive, send)

    async def picky(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse("hi")(scope, receive, send)

    for app in (no_word, picky):
        with SessionClient(app) as client:
            assert client.send("x").content == b"hi"


def test_two_clients_of_one_application_are_two_conversations() -> None:
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            current_session().incr("n")
            await asyncio.sleep(0.01)
            await socket.send_json(DONE)

    async def test() -> list[Reply]:
        async with AsyncSessionClient(app, wire="websocket") as one, AsyncSessionClient(app, wire="websocket") as other:
            await one.send("x")
            return list(await asyncio.gather(one.send("x"), other.send("x")))

    app = app_of(chat)
    assert [reply.session for reply in asyncio.run(test())] == [{"n": 2}, {"n": 1}]


# Settings


@pytest.mark.parametrize(
    ("app", "settings", "words"),
    [
        (print, {"wire": "xml"}, r"wire='xml' is unknown: write one of 'json', 'ndjson', 'sse', 'websocket'"),
        ("ws://x", {}, "must begin with http://"),
        (print, {"timeout": timedelta(0)}, "timeout= must be more than nothing"),
    ],
)
@pytest.mark.parametrize("kind", [SessionClient, AsyncSessionClient])
def test_a_setting_that_cannot_be_is_refused_when_the_client_is_made(kind: Any, app: Any, settings: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        kind(app, **settings)
