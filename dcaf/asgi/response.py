"""Put the session into a JSON answer, and let every other answer pass as it is.

What a reader gets wrong: the Session object is the truth, not the answer's text. A plain object that the application put
at ``data.session`` is overwritten, unless the application named the route with ``plain=``: otherwise an endpoint that
wraps user input in ``{"data": ...}`` would sign it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from dcaf.asgi.events import Events
from dcaf.asgi.locate import JSONText
from dcaf.asgi.problems import problem
from dcaf.asgi.threads import off_the_loop
from dcaf.core.errors import MalformedJSON, NotCarriedError, SessionError, SessionUnavailable, StateError
from dcaf.core.session import Session
from dcaf.core.state import RESERVED

REDIRECTION: Final = 300
SERVER_ERROR: Final = 500
WITHOUT_BODY: Final = (204, 205, 304)
PARTIAL: Final = 206
STALE_HEADERS: Final = ("etag", "content-md5", "digest", "content-digest", "repr-digest")


class Answer:
    """One answer on its way out.

    Args:
        scope: Of the request, for the name of the route.
        send: Where the answer goes.
        session: The session of the turn.
        arrived: Whether a session came in, so that one goes out in any case.
        adopts: Whether the application's own plain ``data.session`` is the new state, where nothing else changed it.
        seal: Makes the envelope of the session as it is then.
        max_response_bytes: The longest JSON answer that is held back to be completed.
        events: Whom to tell of what happened on the way.
    """

    def __init__(
        self,
        scope: Scope,
        send: Send,
        session: Session,
        *,
        arrived: bool,
        adopts: bool,
        seal: Callable[[], Awaitable[bytes]],
        max_response_bytes: int,
        events: Events,
    ) -> None:
        self._scope = scope
        self._send = send
        self._session = session
        self._arrived = arrived
        self._adopts = adopts
        self._seal = seal
        self._max_response_bytes = max_response_bytes
        self._events = events
        self._failed = False
        self._sealed: dict[str, bytes | None] = {}
        self._carried = False
        self._start: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            NotCarriedError: The session was modified, and this answer cannot carry it.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if message["type"] == "http.response.start":
            await self._begin({**message, "headers": list(message.get("headers", ()))})
        elif self._start is None:
            self._refuse_late_change(message)
            await self._send(message)
        elif message["type"] == "http.response.body":
            await self._collect(message)
        else:
            await self._let_go()
            await self._send(message)

    def look_back(self) -> None:
        """Tell the operator of a change that came after the session was sealed, in a background task perhaps: it is lost."""
        try:
            late = not self._failed and self._session._state.snapshot() != self._sealed
        except StateError:  # what came after cannot even be written
            late = True
        if late:
            self._events.lost(route(self._scope))

    async def _begin(self, message: Message) -> None:
        self._failed = message["status"] >= SERVER_ERROR
        if self._failed:
            await self._pass(message)
        elif self._is_json(message):
            self._start = message
        else:
            self._refuse_modified()
            await self._pass(message)

    async def _collect(self, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if not more:
            await self._complete()
        elif len(self._body) > self._max_response_bytes:
            await self._let_go()
            await self._send({"type": "http.response.body", "body": bytes(self._body), "more_body": True})

    async def _complete(self) -> None:
        text = await self._read(bytes(self._body))
        if self._adopts and text is not None:
            self._adopt(text)
        if text is not None:
            self._warn_of_plain(text)
        frame = text.frame() if text is not None and (self._arrived or self._session.is_modified) else None
        if frame is None:
            await self._let_go()
            await self._send({"type": "http.response.body", "body": bytes(self._body), "more_body": False})
            return
        before, after = frame
        self._sealed = self._session._state.snapshot()
        try:
            envelope = await self._seal()
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal)
        else:
            await self._finish(before + envelope + after)

    async def _refuse(self, refusal: SessionError | SessionUnavailable) -> None:
        """Answer with the problem instead: another turn came first, or nobody can tell."""
        self._events.refused(refusal)
        instead = problem(refusal)
        self._carried = True
        await self._send({"type": "http.response.start", "status": instead.status_code, "headers": instead.raw_headers})
        await self._send({"type": "http.response.body", "body": instead.body, "more_body": False})

    async def _read(self, data: bytes) -> JSONText | None:
        """The answer's text, if there is anything to do with it or to tell of it."""
        wanted = self._arrived or self._adopts or self._session.is_modified or b'"session"' in data
        return await off_the_loop(_parsed, data) if wanted and len(data) <= self._max_response_bytes else None

    async def _finish(self, data: bytes) -> None:
        start = self._taken()
        headers = MutableHeaders(raw=start["headers"])
        for name in STALE_HEADERS:
            del headers[name]
        headers["content-length"] = str(len(data))
        self._carried = True
        await self._pass(start)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def _let_go(self) -> None:
        """Send the start that was held back, as it was."""
        self._refuse_modified()
        await self._pass(self._taken())

    async def _pass(self, start: Message) -> None:
        if self._arrived or self._session._state.is_touched:
            MutableHeaders(raw=start["headers"])["cache-control"] = "no-store"
        await self._send(start)

    def _taken(self) -> Message:
        start, self._start = self._start, None
        assert start is not None
        return start

    def _is_json(self, start: Message) -> bool:
        headers = MutableHeaders(raw=start["headers"])
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        carries = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
        plain = headers.get("content-encoding", "identity") == "identity" and start["status"] not in (*WITHOUT_BODY, PARTIAL)
        return carries and plain and self._scope["method"] != "HEAD"

    def _refuse_late_change(self, message: Message) -> None:
        """An answer that left without the session must not end as if nothing had been changed since."""
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        if ends and not self._carried and not self._failed:
            self._refuse_modified()

    def _refuse_modified(self) -> None:
        if self._session.is_modified:
            raise NotCarriedError(
                f"{self._scope['method']} {route(self._scope)} changed the session, and its answer cannot carry it: that takes an "
                "unencoded JSON object whose `data` is an object, absent or null; not a stream, a redirect or a file. Answer with "
                "one, or leave the session alone. Mount compression outside SessionMiddleware."
            )

    def _adopt(self, text: JSONText) -> None:
        assert self._start is not None
        if _plain_session(text.value) is None or self._start["status"] >= REDIRECTION or self._session.is_modified:
            return
        # Read once more by the parser that keeps integers of any size, so that too large ones are refused and not rounded.
        found = _plain_session(json.loads(text.text))
        if isinstance(found, dict) and RESERVED not in found:
            self._session._state.replace(found)

    def _warn_of_plain(self, text: JSONText) -> None:
        """Tell of an object that the application itself put where the session goes: it counts on named routes alone."""
        if not self._adopts and _plain_session(text.value) is not None:
            self._events.overwritten(route(self._scope))


def route(scope: Scope) -> str:
    """The route's own path where the framework tells it, else the request's."""
    return str(getattr(scope.get("route"), "path", scope["path"]))


def _parsed(data: bytes) -> JSONText | None:
    try:
        return JSONText.read(data)
    except MalformedJSON:
        return None


def _plain_session(value: Any) -> Any:
    data = value.get("data") if isinstance(value, dict) else None
    return data.get("session") if isinstance(data, dict) else None
