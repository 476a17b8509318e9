"""The session on a WebSocket: one object for the whole connection, a turn for each JSON frame that comes in.

What a reader gets wrong: a frame that carries a session refills the object, and one that carries none goes on with it. So a
tool, a task and the endpoint all hold the same session from the first frame to the last.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from typing import Any, Final

import anyio
from starlette.types import Message, Receive, Scope, Send

from dcaf.asgi.outgoing import Outgoing, error_text
from dcaf.asgi.problems import START_OVER
from dcaf.asgi.request import is_json, read_json, unopened
from dcaf.asgi.turn import Turn, Turns
from dcaf.core.errors import BodyTooLarge, SessionConflict, SessionError, SessionUnavailable
from dcaf.core.session import Session

TOO_BIG: Final = 1009
"""Close code: a message that is too big to process (RFC 6455, section 7.4.1)."""

NO_WAY_BACK: Final = 'Frames carry the session where carriers= has "body": SessionMiddleware(..., carriers=("body", "cookie"))'


class Socket:
    """One connection.

    Args:
        turns: Who opens and seals.
        scope: Of the connection.
        receive: Gives what comes in.
        send: Takes what goes out.
        first: A turn of a new session, for what happens before the first frame.
        adopts: Whether the application's own plain ``data.session`` is the new state, where nothing else changed it.
        max_body_bytes: The longest JSON frame that is read.
    """

    def __init__(
        self,
        turns: Turns,
        scope: Scope,
        receive: Receive,
        send: Send,
        first: Turn,
        *,
        adopts: bool,
        max_body_bytes: int,
    ) -> None:
        self._turns = turns
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session = first.session
        self._adopts = adopts
        self._max_body_bytes = max_body_bytes
        self._sending = anyio.Lock(fast_acquire=True)
        self._thread = get_ident()
        self._last = first
        self._is_busy = False
        self._is_open = False
        self._is_closed = False
        self._is_lost = False
        self._out = Outgoing(scope, first, turns, adopts=False)

    async def receive(self) -> Message:
        """The next message for the application: a JSON frame has the verified state in it, and any other passes as it is."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._is_open = False
            data = _data(message)
            if message["type"] != "websocket.receive" or not is_json(data):
                return message
            try:
                return await self._opened(message, data)
            except (SessionError, SessionUnavailable) as refusal:
                with suppress(OSError):  # the client has left already, and that comes in next
                    await self._refuse(refusal, as_bytes=message.get("text") is None)
            if not self._is_open:
                return {"type": "websocket.disconnect", "code": TOO_BIG}

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if self._is_closed:
            return
        if message["type"] == "websocket.send":
            async with self._sending:
                await self._frame(message, _data(message))
            return
        if message["type"] == "websocket.close":
            await self.finish()
            self._is_open = False
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._is_open = True

    async def checkpoint(self) -> bool:
        """Send the session as it is now; False where it is not open, and in another thread's event loop. Raises as ``send``."""
        if get_ident() != self._thread:
            return False
        if self._is_open and not self._out.is_sent:
            async with self._sending:
                await self._own_or_refuse(as_bytes=False)
        return self._is_open

    async def finish(self) -> None:
        """Send the changes that no frame carried, before the connection closes; tell of them where it is closed already."""
        if self._is_lost or not self._out.is_changed:
            return
        try:
            if self._is_open:
                async with self._sending:
                    await self._own_or_refuse(as_bytes=False)
            self._is_lost = self._out.is_changed
        except OSError:  # the client has left already
            self._is_lost = True
        if self._is_lost:
            self._out.lose()

    async def _opened(self, message: Message, data: bytes) -> Message:
        if self._is_busy:
            raise SessionConflict(reason="busy")
        if len(data) > self._max_body_bytes:
            raise BodyTooLarge(reason="length")
        body = await read_json(data, self._turns.sealer.opened)
        turn = await self._turns.open(self._scope, body, self._last)
        if turn.session is not self._session and not self._is_ours(turn.session):
            self._out.look_back()
            self._session._state.refill(turn.session._state)
        elif self._last.is_open:
            self._session.temp.clear()
        self._last = turn._replace(session=self._session)
        self._out = Outgoing(self._scope, self._last, self._turns, adopts=self._adopts)
        self._is_busy = True
        return _with(message, body.data)

    def _is_ours(self, session: Session) -> bool:
        """Whether the client has only sent back what it got: then what was handed out of the session stays good."""
        claims = self._turns.sealer.claims_of
        return session.sequence > 0 and claims(session) == claims(self._session)

    async def _frame(self, message: Message, data: bytes) -> None:
        as_bytes = message.get("text") is None
        try:
            completed = await self._completed(data, as_bytes=as_bytes) if is_json(data) else data
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal, as_bytes=as_bytes)
        else:
            await self._send(message if completed is data else _with(message, completed))

    async def _completed(self, data: bytes, *, as_bytes: bool) -> bytes:
        """A JSON frame with the session in it, or after it, where it ends the turn; with none but ours in any case."""
        cleared = await self._out.cleared(data)
        ends, text = await self._out.ends_turn(None, cleared)
        if not ends or text is None:
            return cleared
        self._out.adopts = self._out.adopts and self._is_busy
        self._is_busy = False
        completed = await self._out.completed(text) if len(data) <= self._turns.limit_bytes else None
        if completed is None and not self._out.is_sent:
            await self._own(as_bytes=as_bytes)
        return cleared if completed is None else completed

    async def _own_or_refuse(self, *, as_bytes: bool) -> None:
        try:
            await self._own(as_bytes=as_bytes)
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal, as_bytes=as_bytes)

    async def _own(self, *, as_bytes: bool) -> None:
        await self._send(_message(await self._out.event(), as_bytes=as_bytes))

    async def _refuse(self, refusal: SessionError | SessionUnavailable, *, as_bytes: bool) -> None:
        self._turns.events.refused(refusal)
        members = {"data": START_OVER} if refusal.offers_restart else {}
        await self._send(_message(error_text(refusal.code, **members), as_bytes=as_bytes))
        if refusal.http_status == BodyTooLarge.http_status:
            await self.finish()
            self._is_open, self._is_closed = False, True
            await self._send({"type": "websocket.close", "code": TOO_BIG, "reason": refusal.code})


class PassingSocket:
    """A connection whose frames carry no session: those that go out pass, and those that come in have none left in them.

    Args:
        turns: Who is told of a change.
        scope: Of the connection.
        receive: Gives what comes in.
        send: Takes what goes out.
        turn: The turn of the handshake, which lasts as long as the connection.
        max_body_bytes: The longest JSON frame that is read.
    """

    def __init__(self, turns: Turns, scope: Scope, receive: Receive, send: Send, turn: Turn, *, max_body_bytes: int) -> None:
        self._receive = receive
        self.send: Send = send
        self._max_body_bytes = max_body_bytes
        self._events = turns.events
        self._out = Outgoing(scope, turn, turns, adopts=False)
        self._out._in_time = NO_WAY_BACK

    async def receive(self) -> Message:
        """The next message for the application."""
        while True:
            message = await self._receive()
            data = _data(message)
            if message["type"] != "websocket.receive" or not is_json(data):
                return message
            try:
                return await self._emptied(message, data)
            except SessionError as refusal:
                self._events.refused(refusal)
                with suppress(OSError):  # the client has left already, and that comes in next
                    await self.send(_message(error_text(refusal.code), as_bytes=message.get("text") is None))
                if refusal.http_status == BodyTooLarge.http_status:
                    await self.send({"type": "websocket.close", "code": TOO_BIG, "reason": refusal.code})
                    return {"type": "websocket.disconnect", "code": TOO_BIG}

    async def checkpoint(self) -> bool:
        """False: no frame carries the session."""
        return False

    async def finish(self) -> None:
        """Tell of changes, which nothing carries."""
        self._out.look_back()

    async def _emptied(self, message: Message, data: bytes) -> Message:
        if len(data) > self._max_body_bytes:
            raise BodyTooLarge(reason="length")
        body = await read_json(data, unopened)
        body.rewrite(None, b"")
        return _with(message, body.data) if body.is_changed else message


def _data(message: Message) -> bytes:
    """The text or the bytes of a frame; a text that UTF-8 cannot say is malformed when it is parsed."""
    text = message.get("text")
    return (message.get("bytes") or b"") if text is None else text.encode(errors="surrogatepass")


def _message(data: bytes, *, as_bytes: bool) -> dict[str, Any]:
    return {"type": "websocket.send", "bytes": data} if as_bytes else {"type": "websocket.send", "text": data.decode()}


def _with(message: Message, data: bytes) -> Message:
    """The frame with another text, as what it was: text or bytes."""
    key = "bytes" if message.get("text") is None else "text"
    return {**message, key: data if key == "bytes" else data.decode(errors="surrogatepass")}
