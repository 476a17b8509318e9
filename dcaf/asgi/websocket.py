"""The session on a WebSocket: one object for the whole connection, a turn for each JSON frame that comes in.

A frame with a session in it refills the object, and one without goes on with it. So a tool, a task and the endpoint all hold the
same session from the first frame to the last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from threading import get_ident
from typing import Any, Final

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dcaf.asgi.body import find_sessions, may_be_json, open_nothing
from dcaf.asgi.carriers import PresentedToken
from dcaf.asgi.config import Config
from dcaf.asgi.json_sessions import JSONText
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.problems import build_error, find_members
from dcaf.asgi.streams import checkpoint_sender
from dcaf.core.context import Within, running
from dcaf.core.errors import BodyTooLarge, SessionConflict, SessionError, SessionUnavailable
from dcaf.core.mapping import state_of
from dcaf.core.session import Session

TOO_BIG: Final = 1009
"""Close code: a message that is too big to process (RFC 6455, section 7.4.1)."""

FRAMES_ADVICE: Final = 'Frames carry the session where carriers= has "body": SessionMiddleware(..., carriers=("body", "cookie"))'


class ConnectionPhase(Enum):
    """The phase of a connection.

        phase             what happens                               next
        CONNECTING        the application accepts                    OPEN
        CONNECTING, OPEN  the application closes, or the client      CLOSED
        any               a frame or its session is too large        CUT_OFF

    Once it is cut off, what the application sends is dropped.
    """

    CONNECTING = auto()
    OPEN = auto()
    CLOSED = auto()
    CUT_OFF = auto()


async def open_handshake(config: Config, scope: Scope, presented: Sequence[PresentedToken]) -> ASGITurn:
    """Open the session of a handshake, or begin one for a socket before its first frame. Raises as ``ASGITurn.open``."""
    turn = ASGITurn(config, scope)
    turn.is_begun, turn.presented = False, presented
    try:
        if presented:
            await turn.open()
            turn.report_opened(0)
        else:
            turn.binding = config.sealer.binding(await config.identity.find_subject(scope))
            turn.session = config.sealer.start()
            await turn.hold(None)
    except BaseException:
        await turn.release()
        raise
    return turn


class SocketConnection(ABC):
    """One connection: the application in its session, and the messages that come in, each given to it once.

    Args:
        turn: The turn before the first frame.
        scope: Of the connection, as the application has it.
        receive, send: Those of the server.
    """

    def __init__(self, turn: ASGITurn, scope: Scope, receive: Receive, send: Send) -> None:
        self._config: Config = turn.config
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session: Session = turn.session
        self._turn = turn
        self._taken: Message | None = None

    async def run(self, app: ASGIApp) -> None:
        """Have the application serve the connection, and take care of changes that no frame has carried."""
        with running(self._session), Within(checkpoint_sender, (get_ident(), self.checkpoint)):
            try:
                await app(self._scope, self.receive, self.send)
                await self.finish()
            finally:
                self._turn.end()
                await self._turn.release()

    async def receive(self) -> Message:
        """The next message for the application: a JSON frame shows the verified state, if any, and all others pass."""
        while True:
            # Kept until the application has it: if it is cancelled while a frame is opened, it gets the frame the next time.
            message = self._taken = self._taken or await self._receive()
            given = await self._admit(message)
            self._taken = None
            if given is not None:
                return given

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """

    @abstractmethod
    async def checkpoint(self, *, may_wait: bool = False) -> bool:
        """Send the session as it is now; False where no frame carries it, or the connection is not open. Raises as ``send``."""

    @abstractmethod
    async def finish(self) -> None:
        """Send the changes that no frame carried, before the connection closes; report them where that is not possible."""

    @abstractmethod
    async def _admit(self, message: Message) -> Message | None:
        """What the application gets for a message that came in; None where it was answered here."""


class SessionWebSocket(SocketConnection):
    """A connection whose frames carry the session. Arguments as of ``SocketConnection``."""

    def __init__(self, turn: ASGITurn, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(turn, scope, receive, send)
        self._adopts = turn.is_plain
        self._sending = anyio.Lock(fast_acquire=True)
        self._phase = ConnectionPhase.CONNECTING
        self._is_busy = False
        self._is_lost = False

    async def send(self, message: Message) -> None:
        if self._phase is ConnectionPhase.CUT_OFF:
            return
        if message["type"] == "websocket.send":
            async with self._sending:
                await self._send_frame(message, _read_data(message))
            return
        if message["type"] == "websocket.accept":
            await self._send(message)
            if self._phase is ConnectionPhase.CONNECTING:
                self._phase = ConnectionPhase.OPEN
            return
        if message["type"] == "websocket.close":
            await self._close(message)
            return
        await self._send(message)

    async def checkpoint(self, *, may_wait: bool = False) -> bool:  # noqa: ARG002
        if self._phase is ConnectionPhase.OPEN and not self._turn.is_sent:
            async with self._sending:
                await self._send_session(ends_turn=False)
        elif self._phase is ConnectionPhase.CLOSED and self._turn.is_kept and not self._turn.is_sent:
            async with self._sending:  # its client has left, and a store has an earlier state of this turn: it gets the newest
                await self._turn.seal_event(ends_turn=False)
        return self._phase is ConnectionPhase.OPEN

    async def finish(self) -> None:
        if self._is_lost or not self._turn.is_changed:
            return
        try:
            if self._phase is ConnectionPhase.OPEN:
                async with self._sending:
                    await self._send_session(ends_turn=True)
            self._is_lost = self._turn.is_changed
        except OSError:  # the client has left already
            self._is_lost = True
        if self._is_lost:
            self._turn.report_lost()

    async def _admit(self, message: Message) -> Message | None:
        if message["type"] == "websocket.disconnect":
            self._mark_closed()
        data = _read_data(message)
        if message["type"] != "websocket.receive" or not may_be_json(data):
            return message
        try:
            return await self._open(message, data)
        except (SessionError, SessionUnavailable) as refusal:
            self._taken = None  # it is refused once, even if the application is cancelled meanwhile
            with suppress(OSError):  # the client has left already: that message comes in next
                await self._refuse(refusal, as_bytes=message.get("text") is None)
        return None if self._phase is ConnectionPhase.OPEN else {"type": "websocket.disconnect", "code": TOO_BIG}

    async def _open(self, message: Message, data: bytes) -> Message:
        """Open the turn of a frame; the frame with the verified state in it."""
        if self._is_busy:
            raise SessionConflict(reason="busy")
        if len(data) > self._config.max_body_bytes:
            raise BodyTooLarge(reason="length")
        turn = ASGITurn(self._config, self._turn.outer)
        turn.found = await find_sessions(data, self._config.verify)
        # What is being sealed between two turns is committed first: it must not be taken for the state of this one.
        async with self._sending:
            if state_of(self._session).is_ending and not self._turn.is_sent:
                await self._send_session(ends_turn=True)
            await self._turn.release()
            try:
                await turn.open(self._turn)
                given = self._go_on(turn, message)
            except BaseException:
                await turn.release()
                raise
        turn.report_opened(len(data))
        return given

    def _go_on(self, turn: ASGITurn, message: Message) -> Message:
        """Go on with the turn of a frame; the session of the connection becomes that of the frame."""
        found, before = turn.found, self._turn
        assert found is not None
        kept = turn.place
        visible = b"" if kept is None else self._config.sealer.visible(turn.session, whole=self._adopts)
        given = _replace_data(message, found.text.rewrite(found.places, kept, visible)) if found.places else message
        if turn.session is not self._session and not _is_echo(turn.session, self._session):
            if before.is_changed:
                before.report_lost()
            state_of(self._session).journal = None
            state_of(self._session).refill(state_of(turn.session))
        elif before.is_begun:
            self._session.temp.clear()
        state_of(self._session).take_lease(turn.lease)
        turn.session, turn.adopts, turn.found, turn.place = self._session, self._adopts, None, None
        turn.scope, self._turn, self._is_busy = self._scope, turn, True
        return given

    async def _close(self, message: Message) -> None:
        """Close the connection, even if the session cannot be written."""
        try:
            await self.finish()
        finally:
            self._mark_closed()
            await self._send(message)

    def _mark_closed(self) -> None:
        if self._phase is not ConnectionPhase.CUT_OFF:
            self._phase = ConnectionPhase.CLOSED

    async def _send_frame(self, message: Message, data: bytes) -> None:
        if not may_be_json(data):
            await self._send(message)
            return
        try:
            cleared = await self._turn.remove_sessions(data)
            ends, text = await self._turn.ends_turn(None, cleared)
            if ends and text is not None:
                await self._end_turn(message, text)
            else:
                await self._send(message if cleared is data else _replace_data(message, cleared))
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal, as_bytes=message.get("text") is None)

    async def _end_turn(self, message: Message, text: JSONText) -> None:
        """Send the frame that ends the turn, with the session in it or before it."""
        turn, data = self._turn, text.data
        turn.adopts = turn.adopts and self._is_busy
        try:
            completed = await turn.complete(text) if len(data) <= self._config.max_response_bytes else None
            if completed is None and not turn.is_over:
                await self._send_event(ends_turn=True, as_bytes=message.get("text") is None)
            await self._send(_replace_data(message, data if completed is None else completed))
        finally:
            self._is_busy = False
            await turn.release()

    async def _send_session(self, *, ends_turn: bool) -> None:
        """Send the session as it is now, or why it cannot be sealed."""
        try:
            await self._send_event(ends_turn=ends_turn, as_bytes=False)
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal, as_bytes=False)

    async def _send_event(self, *, ends_turn: bool, as_bytes: bool) -> None:
        await self._send(_make_frame(await self._turn.seal_event(ends_turn=ends_turn), as_bytes=as_bytes))

    async def _refuse(self, refusal: SessionError | SessionUnavailable, *, as_bytes: bool) -> None:
        self._config.events.report_refusal(refusal)
        await self._send(_make_frame(build_error(refusal.code, **find_members(refusal)), as_bytes=as_bytes))
        if refusal.http_status == BodyTooLarge.http_status:
            await self.finish()
            self._phase = ConnectionPhase.CUT_OFF
            await self._send({"type": "websocket.close", "code": TOO_BIG, "reason": refusal.code})


class PassingWebSocket(SocketConnection):
    """A connection whose frames carry no session: those that come in have none left in them, and those that go out pass.

    Its turn is that of the handshake, and lasts as long as the connection. Arguments as of ``SocketConnection``.
    """

    def __init__(self, turn: ASGITurn, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(turn, scope, receive, send)
        turn.advice = FRAMES_ADVICE

    async def send(self, message: Message) -> None:
        await self._send(message)

    async def finish(self) -> None:
        if self._turn.is_changed:
            self._turn.report_lost()

    async def checkpoint(self, *, may_wait: bool = False) -> bool:  # noqa: ARG002
        return False

    async def _admit(self, message: Message) -> Message | None:
        data = _read_data(message)
        if message["type"] != "websocket.receive" or not may_be_json(data):
            return message
        try:
            if len(data) > self._config.max_body_bytes:
                raise BodyTooLarge(reason="length")
            found = await find_sessions(data, open_nothing)
        except SessionError as refusal:
            return await self._refuse(refusal, as_bytes=message.get("text") is None)
        return _replace_data(message, found.text.rewrite(found.places, None, b"")) if found.places else message

    async def _refuse(self, refusal: SessionError, *, as_bytes: bool) -> Message | None:
        self._taken = None
        self._config.events.report_refusal(refusal)
        with suppress(OSError):  # the client has left already: that message comes in next
            await self._send(_make_frame(build_error(refusal.code), as_bytes=as_bytes))
        if refusal.http_status != BodyTooLarge.http_status:
            return None
        await self._send({"type": "websocket.close", "code": TOO_BIG, "reason": refusal.code})
        return {"type": "websocket.disconnect", "code": TOO_BIG}


def _is_echo(arrived: Session, kept: Session) -> bool:
    """Whether the client has only sent back what it got, so that values handed out of the session stay valid."""
    one, other = state_of(arrived).standing, state_of(kept).standing
    if one is None or other is None or not one.token or state_of(kept).is_ending:
        return False
    return one.claims == other.claims and b"".join(one.token) == b"".join(other.token)


def _read_data(message: Message) -> bytes:
    """The text or the bytes of a frame; a text that UTF-8 cannot encode is refused when it is parsed."""
    text = message.get("text")
    return (message.get("bytes") or b"") if text is None else text.encode(errors="surrogatepass")


def _make_frame(data: bytes, *, as_bytes: bool) -> dict[str, Any]:
    return {"type": "websocket.send", "bytes": data} if as_bytes else {"type": "websocket.send", "text": data.decode()}


def _replace_data(message: Message, data: bytes) -> Message:
    """The frame with another text, as text or bytes as before."""
    key = "bytes" if message.get("text") is None else "text"
    return {**message, key: data if key == "bytes" else data.decode(errors="surrogatepass")}
