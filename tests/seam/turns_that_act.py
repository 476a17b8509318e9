"""Turns that do what they are told to, each way a turn can be made: in JSON, in a stream, on a socket, by a host."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

from dcaf import Session, SessionHost
from dcaf.asgi import SessionMiddleware
from dcaf.asgi.problems import find_members
from dcaf.core import SessionError, SessionUnavailable
from dcaf.core.errors import SessionClosedError
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, call

Act = Callable[[Session], Any]
LINES = (b"content-type", b"application/x-ndjson")


def one(_: Session) -> None:
    """Do nothing."""


def count(session: Session) -> None:
    session.incr("n")


class Acting:
    """A service; each turn does ``act``, and answers as its path or its connection asks for.

    Attributes:
        act: What the next turn does.
        seen: The session that each turn began with.
    """

    def __init__(self, **settings: Any) -> None:
        self.act: Act = one
        self.seen: list[dict[str, Any]] = []
        self.subject: str | None = None
        self.settings: dict[str, Any] = {"keys": RING, "audience": AUDIENCE, **settings}
        self.middleware = SessionMiddleware(self._serve, subject=lambda _: self.subject, **self.settings)

    def turn(self, act: Act, session: Any = None, *, way: str = "json", headers: Any = ()) -> Any:
        """One turn; what its client reads: the body, or the event or frame that ends it."""
        self.act = act
        if way == "host":
            return asyncio.run(self._host(session))
        asked = {"data": {"session": session}}
        if way == "socket":
            with Peer(self.middleware) as peer:
                return peer.ask(asked)
        sent = call(self.middleware, asked, path=f"/{way}", headers=(JSON_TYPE, *headers))
        return json.loads(sent.body.splitlines()[-1])

    async def _host(self, session: Any) -> Any:
        host = SessionHost(**{name: value for name, value in self.settings.items() if name != "conversation"})
        try:
            async with host.turn(session, subject=self.subject) as turn:
                await self._do(turn.session)
        except (SessionError, SessionUnavailable) as refusal:
            return {"code": refusal.code, **find_members(refusal)}
        return {"data": {"session": turn.envelope}}

    async def _do(self, session: Session) -> None:
        self.seen.append(session.to_dict())
        found = self.act(session)
        if inspect.isawaitable(found):
            await found

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._talk(scope, receive, send)
            return
        await receive()
        await self._do(scope["dcaf.session"])
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [LINES]})
            await send({"type": "http.response.body", "body": b'{"type":"text"}\n', "more_body": True})
            await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": False})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
        await send({"type": "http.response.body", "body": b'{"type":"done"}'})

    async def _talk(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await self._do(scope["dcaf.session"])
            await send({"type": "websocket.send", "text": '{"type":"done"}'})


def session_of(found: Any) -> Any:
    return found.get("data", {}).get("session")


def refuses(act: Callable[[], Any]) -> bool:
    """Whether something is refused because the session is closed."""
    try:
        act()
    except SessionClosedError:
        return True
    return False
