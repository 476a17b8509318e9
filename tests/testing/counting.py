"""A counting agent on the four wires, a record of what clients sent to it, and the sixteen ways to talk to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf import SessionMiddleware, current_session
from dcaf.core.errors import SessionConflict, SessionUnavailable
from dcaf.testing import AsyncSessionClient, SessionClient, fixed_keys, sealed
from tests.stores_for_tests import ToldStore

RING = fixed_keys()
AUDIENCE = "counter"
ASKED = {"id": "ap-1", "type": "tool_call", "name": "drop_volume", "input": {"volume": "pg"}}
WIRES = ("json", "ndjson", "sse", "websocket")
HOW = ("sync", "async")
WHERE = ("inside", "network")


def envelope(state: dict[str, Any], **options: Any) -> dict[str, Any]:
    return sealed(state, keys=RING, audience=AUDIENCE, **options)


def answer(body: Any) -> list[dict[str, Any]]:
    """The events of a turn: it counts, asks for an approval, tells what was decided, or fails on its way."""
    last = body["messages"][-1]
    session = current_session()
    said = last["content"]
    items = (last.get("data") or {}).get("approvals") or []
    events: list[dict[str, Any]] = []
    if items:
        events.append({"type": "executed_approvals", "executed_approvals": [item.get("execute", "no") for item in items]})
    if said == "ask":
        events.append({"type": "approvals", "approvals": [ASKED]})
    events += [{"type": "text_delta", "text": "turn "}, {"type": "text_delta", "text": str(session.incr("n"))}]
    if said == "fail":
        return [*events, {"type": "error", "code": "tool-broke"}]
    return [*events, {"type": "done"}]


async def chat(request: Request) -> JSONResponse:
    events = answer(await request.json())
    if events[-1]["type"] == "error":
        return JSONResponse({"code": "tool-broke"}, 500)
    data = {event["type"]: event[event["type"]] for event in events if event["type"] in event}
    text = "".join(event.get("text", "") for event in events)
    return JSONResponse({"role": "assistant", "content": text, "data": data})


async def chat_stream(request: Request) -> StreamingResponse:
    events = answer(await request.json())
    return StreamingResponse((json.dumps(event) + "\n" for event in events), media_type="application/x-ndjson")


async def chat_events(request: Request) -> StreamingResponse:
    events = answer(await request.json())
    return StreamingResponse((f"data: {json.dumps(event)}\n\n" for event in events), media_type="text/event-stream")


async def chat_ws(socket: WebSocket) -> None:
    await socket.accept()
    async for body in socket.iter_json():
        for event in answer(body):
            await socket.send_json(event)


REFUSALS: dict[str, Any] = {
    "session-conflict": SessionConflict(reason="busy"),
    "session-unavailable": SessionUnavailable(reason="x"),
}


class Counter:
    """The application, and every body and frame that a client sent to it."""

    def __init__(self, **settings: Any) -> None:
        routes = [
            Route("/api/chat", chat, methods=["POST"]),
            Route("/api/chat-stream", chat_stream, methods=["POST"]),
            Route("/api/chat-events", chat_events, methods=["POST"]),
            WebSocketRoute("/api/chat-ws", chat_ws),
        ]
        self.store = ToldStore()
        given = {"keys": RING, "audience": AUDIENCE, "store": self.store, **settings}
        self.app = SessionMiddleware(Starlette(routes=routes), **given)
        self.texts: list[str | bytes] = []
        self.opened = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        chunks: list[bytes] = []
        self.opened += scope["type"] == "websocket"

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive":
                self.texts.append(message["text"])
            elif message["type"] == "http.request":
                chunks.append(message["body"])
                if not message.get("more_body"):
                    self.texts.append(b"".join(chunks))
            return message

        await self.app(scope, heard, send)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(text) for text in self.texts]


class Switchboard:
    """One server for many applications, one after the other."""

    app: Any = None
    url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Talk:
    """One client, driven from synchronous code."""

    def __init__(self, client: SessionClient | AsyncSessionClient) -> None:
        self.client = client
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        """A method of the client, which waits where it must."""
        found = getattr(self.client, name)
        return (lambda *args, **options: self.run(found(*args, **options))) if callable(found) else found

    def run(self, value: Any) -> Any:
        return self._runner.run(value) if asyncio.iscoroutine(value) else value

    def end(self) -> None:
        try:
            self.run(self.client.close())
        finally:
            self._runner.close()


@contextmanager
def talking(how: str, app: Any, **options: Any) -> Iterator[Talk]:
    talk = Talk((AsyncSessionClient if how == "async" else SessionClient)(app, **options))
    try:
        yield talk
    finally:
        talk.end()
