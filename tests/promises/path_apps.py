"""One application under each framework, whose paths name a user: what it answers, and what it does to the session on the way."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from litestar import Litestar, post, websocket
from litestar import Request as LitestarRequest
from litestar import WebSocket as LitestarSocket
from litestar.response import Stream
from quart import Quart
from quart import websocket as quart_socket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf import current_session

LINES, JSON, TEXT = "application/x-ndjson", "application/json", "text/plain"
PLANTED = b'{"type":"text_delta","data":{"session":{"own":1}}}\n'
DONE = b'{"type":"done","data":{"session":{"own":1}}}'


async def own() -> AsyncIterator[bytes]:
    yield b'{"data":{"session":{"own":1}}}'


async def stored() -> AsyncIterator[bytes]:
    current_session().incr("n")
    yield b"{}"


async def array() -> AsyncIterator[bytes]:
    current_session().incr("n")
    yield b"[]"


async def large() -> AsyncIterator[bytes]:
    current_session()["large"] = "x" * 9_000
    yield b"hello"


async def late() -> AsyncIterator[bytes]:
    yield b"hello"
    current_session().incr("n")
    yield b"bye"


async def lines() -> AsyncIterator[bytes]:
    yield PLANTED
    current_session().incr("n")
    yield DONE + b"\n"


async def broken() -> AsyncIterator[bytes]:
    current_session().incr("n")
    yield PLANTED
    raise RuntimeError("the application's own words")


ACTS: dict[str, tuple[str, Callable[[], AsyncIterator[bytes]]]] = {
    "own": (JSON, own),
    "stored": (JSON, stored),
    "array": (JSON, array),
    "large": (TEXT, large),
    "text": (TEXT, stored),
    "late": (TEXT, late),
    "lines": (LINES, lines),
    "broken": (LINES, broken),
}
ACTIONS = tuple(ACTS)


async def _touched(act: str) -> tuple[str, AsyncIterator[bytes]]:
    """Media type and body; what is done before the first byte is done before the answer starts, but in streams."""
    kind, made = ACTS[act]
    body = made()
    if kind == LINES or act == "late":
        return kind, body
    first = await anext(body)

    async def whole() -> AsyncIterator[bytes]:
        yield first

    return kind, whole()


async def starlette_act(request: Request) -> StreamingResponse:
    kind, body = await _touched(request.path_params["act"])
    return StreamingResponse(body, media_type=kind)


async def starlette_talk(socket: WebSocket) -> None:
    await socket.accept()
    async for _ in socket.iter_text():
        await socket.send_text(DONE.decode())
        current_session().incr("late")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """No framework at all."""
    act = scope["path"].rpartition("/")[2]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": DONE.decode()})
            current_session().incr("late")
        return
    await receive()
    if act not in ACTS:
        current_session().incr("n")
        act = "text"
    kind, body = await _touched(act)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
    async for chunk in body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def not_found(request: Request, _: Exception) -> StreamingResponse:
    """A page for what is not there, which changes the session, and so cannot be carried."""
    current_session().incr("n")
    return StreamingResponse(stored(), 404, media_type=TEXT)


OWN = [Route("/users/{name}/{act}", starlette_act, methods=["POST"]), WebSocketRoute("/users/{name}", starlette_talk)]
BELOW = [Route("/{act}", starlette_act, methods=["POST"]), WebSocketRoute("/", starlette_talk)]


def starlette() -> Any:
    return Starlette(routes=OWN, exception_handlers={404: not_found})


def mounted() -> Any:
    return Starlette(routes=[Mount("/users/{name}", routes=BELOW)], exception_handlers={404: not_found})


def mounted_plain() -> Any:
    return Starlette(routes=[Mount("/users", app=plain)])


def fastapi() -> Any:
    app = FastAPI(exception_handlers={404: not_found})

    @app.post("/users/{name}/{act}")
    async def answer(name: str, act: str) -> StreamingResponse:
        kind, body = await _touched(act)
        return StreamingResponse(body, media_type=kind)

    app.add_api_websocket_route("/users/{name}", starlette_talk)
    return app


def fastapi_below() -> Any:
    app = FastAPI()
    app.mount("/users/{name}", Starlette(routes=BELOW))
    return app


def litestar() -> Any:
    @post("/users/{name:str}/{act:str}", status_code=200)
    async def answer(request: LitestarRequest[Any, Any, Any]) -> Stream:
        kind, body = await _touched(request.path_params["act"])
        return Stream(body, media_type=kind)

    @websocket("/users/{name:str}")
    async def talk(socket: LitestarSocket[Any, Any, Any]) -> None:
        await socket.accept()
        async for _ in socket.iter_data("text"):
            await socket.send_data(DONE.decode())
            current_session().incr("late")

    root = logging.getLogger()
    before = root.level, root.handlers[:]
    app = Litestar([answer, talk], openapi_config=None)
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    return app


def quart() -> Any:
    app = Quart(__name__)

    @app.post("/users/<name>/<act>")
    async def answer(name: str, act: str) -> Any:
        kind, body = await _touched(act)
        return body, {"Content-Type": kind}

    @app.websocket("/users/<name>")
    async def talk(name: str) -> None:
        while True:
            await quart_socket.receive()
            await quart_socket.send(DONE.decode())
            current_session().incr("late")

    return app


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "no framework": lambda: plain,
    "Starlette": starlette,
    "Starlette, mounted": mounted,
    "Starlette, no framework below": mounted_plain,
    "FastAPI": fastapi,
    "FastAPI, Starlette below": fastapi_below,
    "Litestar": litestar,
    "Quart": quart,
}
NAMED: dict[str, str] = {
    "Starlette": "/users/{name}/{act}",
    "Starlette, mounted": "/{act}",
    "Starlette, no framework below": "/users",
    "FastAPI": "/users/{name}/{act}",
    "FastAPI, Starlette below": "/{act}",
    "Litestar": "/users/{name}/{act}",
}
"""What an operator reads of a route, where the framework tells it."""
