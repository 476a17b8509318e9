"""Turns of a client of its own loop, against a store: it adopts what reaches it whole, and its turns end in every way there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio

from dcaf import Session
from dcaf.asgi import SessionMiddleware, checkpoint
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, scope_of

TEXT = (b"content-type", b"text/plain")
LINES = (b"content-type", b"application/x-ndjson")


async def send_json(send: Any, value: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [JSON_TYPE]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Count, and answer as the path says."""
    if scope["type"] == "websocket":
        await talk(scope, receive, send)
        return
    session: Session = scope["dcaf.session"]
    await receive()
    how = scope["path"].removeprefix("/")
    if how == "raises":
        session.incr("n")
        raise RuntimeError("a bug")
    if how == "text":
        await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
        await send({"type": "http.response.body", "body": b"hi"})
        return
    if how == "stream":
        await stream(session, send)
        return
    await asyncio.sleep(0)
    session.incr("n")
    if how == "too-long":
        session["long"] = "x" * 3000
    if how == "slow":
        await asyncio.sleep(60)
    await send_json(send, {"n": session["n"]}, 500 if how == "500" else 200)


async def stream(session: Session, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [LINES]})
    for number in range(3):
        session.incr("n")
        await send({"type": "http.response.body", "body": b'{"type":"text"}\n', "more_body": True})
        if number == 1:
            await checkpoint()
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def talk(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        said = json.loads(message["text"])
        scope["dcaf.session"].incr("n")
        if said.get("how") == "raises":
            raise RuntimeError("a bug")
        await asyncio.sleep(0)
        if said.get("how") == "checkpoint":
            await checkpoint()
            scope["dcaf.session"].incr("n")
        await send({"type": "websocket.send", "text": '{"type":"text"}'})
        await send({"type": "websocket.send", "text": '{"type":"done"}'})


def service(store: Any, application: Any = app, **settings: Any) -> SessionMiddleware:
    """For a user, whose lost answers a ledger gives once more."""
    whose = {"subject": lambda scope: "ada"}
    return SessionMiddleware(application, **{"keys": RING, "audience": AUDIENCE, "store": store, **whose, **settings})


@dataclass
class Client:
    """A client that keeps the newest session which reached it.

    Attributes:
        service: Whom it talks to.
        session: What it keeps.
        answers: Status and code of each answer; a turn without an answer has none.
    """

    service: Any
    session: Any = None
    answers: list[Any] = field(default_factory=list)

    async def turn(self, how: str = "ok", *, leaves_after: int | None = None, headers: Any = ()) -> Any:
        """One request; gives the last JSON of its answer, None where none came.

        Args:
            how: The path.
            leaves_after: After how many messages of the answer the client has left: its server raises then.
            headers: Further ones.
        """
        body = json.dumps({"messages": [], "data": {"session": self.session}}).encode()
        pending, arrived = [{"type": "http.request", "body": body, "more_body": False}], Arrived(self)

        async def receive() -> Any:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if leaves_after is not None and arrived.count >= leaves_after:
                raise OSError("the client has left")
            arrived.take(message)

        await self.service(scope_of(path=f"/{how}", headers=(JSON_TYPE, *headers)), receive, send)
        return arrived.last

    async def go_on(self) -> Any:
        """The next turn, as a client makes it: where an answer was lost it adopts the session of the refusal, and asks again."""
        found = await self.turn()
        if self.answers[-1] == (409, "session-conflict") and found.get("data"):
            found = await self.turn()
        return found


class Arrived:
    """What of an answer has reached a client; a whole JSON answer, and each line, is adopted when it is there."""

    def __init__(self, client: Client) -> None:
        self.client, self.count, self.status = client, 0, 0
        self.is_lines, self.data, self.last = False, b"", None

    def take(self, message: Any) -> None:
        self.count += 1
        if message["type"] == "http.response.start":
            self.status, self.is_lines = message["status"], LINES in list(message["headers"])
            return
        self.data += message.get("body", b"")
        if self.is_lines:
            *lines, self.data = self.data.split(b"\n")
            for line in lines:
                self.adopt(json.loads(line))
        if not message.get("more_body", False):
            with suppress(ValueError):
                self.adopt(json.loads(self.data))
            code = self.last.get("code") if isinstance(self.last, dict) else None
            self.client.answers.append((self.status, code))

    def adopt(self, value: Any) -> None:
        self.last = value
        data = value.get("data")
        if isinstance(data, dict) and "session" in data:
            self.client.session = data["session"]


async def cancelled(turn: Awaitable[Any], after: int, by: str) -> None:
    """Cancel a turn after so many rounds of the event loop: its task, or by a time-out's scope around it."""
    if by == "scope":
        async with anyio.create_task_group() as group:

            async def run() -> None:
                with suppress(OSError, RuntimeError):
                    await turn

            group.start_soon(run)
            for _ in range(after):
                await asyncio.sleep(0)
            group.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(turn)
    for _ in range(after):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError, OSError, RuntimeError):
        await task


async def talked(served: Any, frames: list[Any], *, leaves_after: int | None = None, client: Client) -> None:
    """A connection of some frames; the client adopts each session that reaches it, and leaves."""
    coming: list[Any] = [{"type": "websocket.connect"}]
    coming += [{"type": "websocket.receive", "text": json.dumps(frame)} for frame in frames]
    sent = 0

    async def receive() -> Any:
        await asyncio.sleep(0)
        return coming.pop(0) if coming else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if leaves_after is not None and sent > leaves_after:
            raise OSError("the client has left")
        if message["type"] == "websocket.send":
            found = json.loads(message["text"])
            session = (found.get("data") or {}).get("session")
            client.session = client.session if session is None else session

    scope = {**scope_of(path="/ws"), "type": "websocket", "subprotocols": []}
    with suppress(RuntimeError, OSError):
        await served(scope, receive, send)


Run = Callable[[Client], Awaitable[Any]]
