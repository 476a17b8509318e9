"""Put the session into a stream: into each event that ends a turn, into an event of its own at the end, or at a checkpoint.

    async def events():
        await build()
        await checkpoint()
        yield '{"type": "done"}'

No event waits for a later one. The session goes out with the event that ends the turn, and after a later change once more, at the
end; the last one counts. A checkpoint sends it in the middle, so that a client which leaves early has what was done so far.

What a reader gets wrong: a checkpoint sends what tools have finished. Inside a tool call the writes are not committed yet, so it is
refused there.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Final, Protocol

import anyio
from starlette.types import Message, Send

from dcaf.asgi.config import cannot_end_turn, is_done
from dcaf.asgi.framing import MARK, Cutter, EventStream, LineStream, Piece
from dcaf.asgi.headers import describe_new_body
from dcaf.asgi.json_walk import HINT_BYTES, may_hold_session
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.problems import build_error, find_members
from dcaf.core.context import in_a_call
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable, StateError

LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
EVENTS: Final = "text/event-stream"
CLOSER: Final = b"[DONE]"
"""The text of the event after which some clients stop reading (the chat completions of OpenAI end so)."""

WHOLE: Final = ("http.response.pathsend",)
"""Messages that ask the server to send the whole answer by itself."""


class SendCheckpoint(Protocol):
    """Sends the session as it is now; False where no answer that carries it is on its way."""

    async def __call__(self, *, may_wait: bool = False) -> bool:
        """Send it; if no stream has begun yet and ``may_wait`` is true, as soon as one has."""


checkpoint_sender: Final[ContextVar[tuple[int, SendCheckpoint]]] = ContextVar("dcaf_checkpoint")
"""The thread that an answer is sent from, and what sends a checkpoint into it."""


async def checkpoint() -> None:
    """Send the session as it is now, as an event of its own, where it changed since it was last sent.

    Raises:
        ConfigurationError: No stream that carries a session is being sent here, or a tool is being called.
        SessionAliasError, SessionValueError: What tools did to the session cannot be written.
    """
    if in_a_call():
        raise ConfigurationError(
            "checkpoint() was called inside a tool, whose writes are not committed before it returns. Call it between tools."
        )
    thread, send = checkpoint_sender.get((0, None))
    # An event loop in another thread has a copy of the context variables, and cannot write to the connection.
    if send is None or thread != get_ident() or not await send(may_wait=True):
        raise ConfigurationError(
            "checkpoint() was called where no stream is being sent. Call it while an NDJSON answer, server-sent events or a "
            "WebSocket turn are on their way."
        )


class SessionStream:
    """A streamed answer that carries the session.

    Args:
        turn, cutter, send: The turn, what cuts this kind of stream, and where the answer goes.
        owes_checkpoint: Whether the session is to go out as soon as the stream has begun.

    Attributes:
        has_ended: Whether nothing more goes out.
        is_refused: Whether it ended because the session could not be sealed.
    """

    def __init__(self, turn: ASGITurn, cutter: Cutter, send: Send, *, owes_checkpoint: bool = False) -> None:
        self._turn = turn
        self._cutter = cutter
        self._send = send
        self._sending = anyio.Lock(fast_acquire=True)
        self._thread = get_ident()
        self.has_ended: bool = False
        self.is_refused: bool = False
        self._is_sending = False
        self._owes_checkpoint = owes_checkpoint
        self._has_bytes = False
        self._mark: bytes | None = None
        self._is_unread = False
        self._tail = b""

    async def begin(self, start: Message) -> None:
        """Send the start at once. Nobody knows yet which session the answer will carry, so it must not be stored."""
        await self._send_message({**start, "headers": describe_new_body(start["headers"], None)})
        if self._owes_checkpoint and not self._turn.is_sent:
            async with self._sending:
                await self._send_body(b"", more=True)

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if self._passes(message):
            self._has_bytes = True
            await self._send_message(message)
            return
        async with self._sending:
            if message["type"] == "http.response.body" and not self.has_ended:
                await self._send_body(message.get("body", b""), more=message.get("more_body", False))
            elif message["type"] != "http.response.body":
                self.has_ended = self.has_ended or message["type"] in WHOLE
                await self._send_message(message)

    async def checkpoint(self) -> bool:
        """Send the session as it is now; where a part of an event has left already, right after that event.

        False in another thread's event loop, and where the stream has ended, unless because the session was refused. Raises as
        ``send``.
        """
        if get_ident() != self._thread:
            return False
        async with self._sending:
            if self.has_ended:
                return self.is_refused
            self._owes_checkpoint = True
            await self._send_body(b"", more=True)
            return True

    async def fail(self) -> None:
        """Send an error event after an exception of the application, and do not end the stream: the server breaks it off.

        A client that saw a proper end would take half an answer for a whole one.
        """
        if not self.has_ended and not self._is_sending and self._turn.is_due:
            with suppress(OSError):  # the client has left; the application's own exception is raised
                await self._end(b"", build_error("internal-error"), more=True)

    def _passes(self, message: Message) -> bool:
        """Whether a message is whole events of which none can end the turn: it is sent as it is."""
        chunk = message.get("body", b"")
        return (
            message.get("more_body", False)
            and not (self.has_ended or self._owes_checkpoint or self._sending.locked())
            and self._mark is None
            and self._turn.config.terminal is is_done
            and cannot_end_turn(chunk)
            and self._cutter.is_whole(chunk)
        )

    async def _send_body(self, chunk: bytes, *, more: bool) -> None:
        done = bytearray()
        try:
            for piece in self._cutter.feed(self._without_mark(chunk, more=more)):
                done += await self._complete_piece(piece)
            if not more:
                done += await self._finish()
            elif self._owes_checkpoint and self._cutter.is_between:
                done += b"" if self._is_sent else await self._session_event(ends_turn=False)
                self._owes_checkpoint = False
        except (SessionError, SessionUnavailable) as refusal:
            self._turn.config.events.report_refusal(refusal)
            self.is_refused = True
            told = find_members(refusal) if isinstance(refusal, SessionUnavailable) else {}
            await self._end(bytes(done), build_error(refusal.code, **told))
        except StateError:
            await self._send_message({"type": "http.response.body", "body": bytes(done), "more_body": True})
            raise
        else:
            self.has_ended = not more
            if done or not chunk or not more:
                await self._send_message({"type": "http.response.body", "body": bytes(done), "more_body": more})

    def _without_mark(self, chunk: bytes, *, more: bool) -> bytes:
        """A chunk without the byte order mark that may only stand first, where an event of ours stands first already."""
        self._has_bytes = self._has_bytes or chunk != b""
        if self._mark is None:
            return chunk
        chunk = self._mark + chunk
        if more and len(chunk) < len(MARK) and MARK.startswith(chunk):
            self._mark = chunk
            return b""
        self._mark = None
        return chunk.removeprefix(MARK)

    async def _complete_piece(self, piece: Piece) -> bytes:
        """The bytes of a piece without foreign sessions; if it ends the turn, with the session in it or before it."""
        if piece.is_part:
            return self._pass_part(piece.raw)
        piece = await self._remove_sessions(piece)
        if piece.data is None:
            return piece.raw
        ends, text = await self._turn.ends_turn(piece.name, piece.data)
        if ends and text is not None:
            completed = await self._turn.complete(text)
            if completed is not None:
                self._is_unread = False
                return self._cutter.replace_data(piece, completed)
        before = (ends or piece.data.strip() == CLOSER) and not self._is_over
        return (await self._session_event(ends_turn=True) if before else b"") + piece.raw

    async def _remove_sessions(self, piece: Piece) -> Piece:
        data = piece.data and await self._turn.remove_sessions(piece.data)
        raw = piece.raw if data is None or data == piece.data else self._cutter.replace_data(piece, data)
        return Piece(await self._turn.remove_sessions(raw), piece.name, data)

    def _pass_part(self, part: bytes) -> bytes:
        """A part of an event that is too long to be looked at: if it could hold a session, ours is sent after it."""
        self._tail += part
        self._is_unread = self._is_unread or (may_hold_session(self._tail) and not self._turn.is_plain)
        self._tail = self._tail[-HINT_BYTES:]
        return part

    @property
    def _is_sent(self) -> bool:
        return self._turn.is_sent and not self._is_unread

    @property
    def _is_over(self) -> bool:
        return self._turn.is_over and not self._is_unread

    async def _finish(self) -> bytes:
        rest = await self._complete_piece(self._cutter.rest())
        return rest if self._is_over else self._cutter.close(rest, await self._session_event(ends_turn=True))

    async def _session_event(self, *, ends_turn: bool) -> bytes:
        self._is_unread = False
        event = self._cutter.write_event("session", await self._turn.seal_event(ends_turn=ends_turn))
        if not self._has_bytes:
            self._mark = b""
        return event

    async def _end(self, done: bytes, error: bytes, *, more: bool = False) -> None:
        self.has_ended = True
        body = done + self._cutter.close(b"", self._cutter.write_event("error", error))
        await self._send_message({"type": "http.response.body", "body": body, "more_body": more})

    async def _send_message(self, message: Message) -> None:
        self._is_sending = True
        await self._send(message)
        self._is_sending = False


def choose_cutter(content_type: str, limit_bytes: int) -> Cutter | None:
    """What cuts streams of a media type; None where it is not one of a stream."""
    if content_type == EVENTS:
        return EventStream(limit_bytes)
    return LineStream(limit_bytes) if content_type in LINES else None
