"""An agent service for clients to talk to, with a record of what really came over the wire, and six ways to talk to it."""

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

from dcaf import Key, Keyring, SessionMiddleware, current_session
from dcaf.client import AsyncClient, Client, Reply
from dcaf.core.errors import SessionConflict, SessionUnavailable
from dcaf.testing import sealed
from tests.stores_for_tests import ToldStore

RING = Keyring(Key.generate("k7"))
AUDIENCE = "shop"
ASKED = {
    "id": "ap-1",
    "type": "tool_call",
    "name": "drop_volume",
    "input": {"volume": "pg"},
    "execute": False,
    "rejection_reason": None,
    "description": "Delete volume pg",
    "intent": "Free space",
}


def envelope(state: dict[str, Any], **options: Any) -> dict[str, Any]:
    return sealed(state, keys=RING, audience=AUDIENCE, **options)


def events_of(body: Any) -> list[dict[str, Any]]:
    """What the agent answers to a body: it counts its turns, and does what the last message says."""
    last = body["messages"][-1]
    session = current_session()
    before = session.to_dict()
    session.append("said", last["content"])
    said, items = last["content"], (last.get("data") or {}).get("approvals") or []
    events: list[dict[str, Any]] = []
    if items:
        outputs = [{"id": item["id"], "output": "done" if item["execute"] else item["rejection_reason"]} for item in items]
        events.append({"type": "executed_approvals", "executed_approvals": outputs})
    if said == "ask":
        second = {**ASKED, "id": "ap-2"}
        events += [{"type": "approvals", "approvals": [ASKED]}, {"type": "approvals", "approvals": [second]}]
    events += [{"type": "text_delta", "text": "turn "}, {"type": "text_delta", "text": str(session.incr("n"))}]
    if said in {"fail", "burn"}:
        if said == "fail":  # an agent's turn that failed leaves the session as it was; "burn" leaves it changed
            session.clear()
            session.update(before)
        return [
            *events,
            {"type": "error", "error": "The tool broke.", "code": "tool-broke"},
            {"type": "done", "stop_reason": "error"},
        ]
    return [*events, {"type": "done", "stop_reason": "end_turn", "meta_data": {"is_complete": not session.get("open")}}]


async def chat(request: Request) -> JSONResponse:
    events = events_of(await request.json())
    if events[-1].get("stop_reason") == "error":
        return JSONResponse({"detail": "The tool broke.", "code": "tool-broke"}, 500)
    data: dict[str, Any] = {}
    for event in events:
        if isinstance(event.get(event["type"]), list):
            data[event["type"]] = [*data.get(event["type"], []), *event[event["type"]]]
    text = "".join(event.get("text", "") for event in events)
    return JSONResponse({"role": "assistant", "content": text, "data": data, "meta_data": events[-1]["meta_data"]})


async def chat_stream(request: Request) -> StreamingResponse:
    events = events_of(await request.json())

    async def lines() -> Any:
        for event in events:
            yield json.dumps(event) + "\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def chat_ws(socket: WebSocket) -> None:
    await socket.accept()
    async for body in socket.iter_json():
        for event in events_of(body):
            await socket.send_json(event)
        if body["messages"][-1]["content"] == "hang up":
            await socket.close()
            return


class Service:
    """The application, and every body and frame that a client sent to it."""

    def __init__(self, **settings: Any) -> None:
        routes = [
            Route("/api/chat", chat, methods=["POST"]),
            Route("/api/chat-stream", chat_stream, methods=["POST"]),
            WebSocketRoute("/api/chat-ws", chat_ws),
        ]
        self.store = ToldStore()
        self.app = SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE, store=self.store, **settings)
        self.texts: list[str] = []
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
                    self.texts.append(b"".join(chunks).decode())
            return message

        await self.app(scope, heard, send)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(text) for text in self.texts]

    @property
    def tokens(self) -> list[Any]:
        """The token of each body; None where it has no session."""
        sessions = [(body.get("data") or {}).get("session") for body in self.bodies]
        return [session and session["dcaf"]["token"] for session in sessions]

    def refuse(self, kind: str | None) -> None:
        kinds: dict[str, Any] = {"conflict": SessionConflict(reason="busy"), "unavailable": SessionUnavailable(reason="store")}
        self.store.happening = {} if kind is None else {"open": kinds[kind]}


class Switchboard:
    """One server for many services, one after the other."""

    url = ""

    def __init__(self) -> None:
        self.service = Service()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.service(scope, receive, send)


WIRES = ("send", "stream", "socket", "async send", "async stream", "async socket")


class Talk:
    """One client on one wire, driven from synchronous code; what it says is one reply, on each wire alike."""

    def __init__(self, wire: str, url: str, **options: Any) -> None:
        self.wire = wire
        self.runner = asyncio.Runner()
        options = {"sleep": (lambda _: asyncio.sleep(0)) if wire.startswith("async") else (lambda _: None), **options}
        self.client: Client | AsyncClient = (AsyncClient if wire.startswith("async") else Client)(url, **options)
        self.socket: Any = self.client.socket() if wire.endswith("socket") else None

    def say(self, *said: Any, **options: Any) -> Reply:
        how = "stream" if self.wire.endswith("stream") else "send"
        speak = getattr(self.socket or self.client, how)
        if how == "send":
            reply: Reply = self.done(speak(*said, **options))
            return reply
        return self.done(self._read(speak(*said, **options))) if "async" in self.wire else read(speak(*said, **options))

    def done(self, value: Any) -> Any:
        return self.runner.run(value) if asyncio.iscoroutine(value) else value

    def close(self) -> None:
        if self.socket is not None:
            self.done(self.socket.close())
        self.done(self.client.close())
        self.runner.close()

    async def _read(self, stream: Any) -> Reply:
        async with stream:
            async for _ in stream:
                pass
        reply: Reply = stream.reply
        return reply


def read(stream: Any) -> Reply:
    with stream:
        for _ in stream:
            pass
    reply: Reply = stream.reply
    return reply


@contextmanager
def talking(wire: str, url: str, **options: Any) -> Iterator[Talk]:
    talk = Talk(wire, url, **options)
    try:
        yield talk
    finally:
        talk.close()
