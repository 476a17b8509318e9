"""Put the session into a stream: into each event that ends a turn, else into an event of its own at the end.

What a reader gets wrong: no event waits for a later one. The session goes out with the event that ends the turn, and a change
after it goes out once more, at the end; the last one counts.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from typing import Final

import anyio
from starlette.types import Message, Send

from dcaf.asgi.headers import carrying
from dcaf.asgi.lines import Cutter, EventStream, LineStream, Piece
from dcaf.asgi.outgoing import Outgoing, error_text
from dcaf.asgi.planted import HINT_BYTES, may_plant
from dcaf.asgi.terminal import is_done, says_nothing
from dcaf.core.errors import SessionError, SessionUnavailable, StateError

LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
EVENTS: Final = "text/event-stream"
CLOSER: Final = b"[DONE]"
"""The text of the event after which some clients stop reading (the chat completions of OpenAI end so)."""

WHOLE: Final = ("http.response.pathsend",)
"""Messages by which the server itself sends the whole answer."""


def cutter(content_type: str, limit_bytes: int) -> Cutter | None:
    """What cuts streams of a media type; None for any other."""
    if content_type == EVENTS:
        return EventStream(limit_bytes)
    return LineStream(limit_bytes) if content_type in LINES else None


class Stream:
    """One streamed answer.

    Args:
        out: The session of the turn.
        cutter: Cuts this kind of stream.
        send: Where the answer goes.
    """

    def __init__(self, out: Outgoing, cutter: Cutter, send: Send) -> None:
        self._out = out
        self._cutter = cutter
        self._send = send
        self._sending = anyio.Lock(fast_acquire=True)
        self._thread = get_ident()
        self.has_ended: bool = False
        self._gone = False
        self._owed = False
        self._unread = False
        self._tail = b""
        self.is_refused: bool = False

    async def begin(self, start: Message) -> None:
        """Send the start at once. What it will carry is not known yet, so it is not to be stored."""
        await self._give({**start, "headers": carrying(start["headers"], None)})

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if self._passes(message):
            await self._give(message)
            return
        async with self._sending:
            if message["type"] == "http.response.body" and not self.has_ended:
                await self._body(message.get("body", b""), more=message.get("more_body", False))
            elif message["type"] != "http.response.body":
                self.has_ended = self.has_ended or message["type"] in WHOLE
                await self._give(message)

    async def checkpoint(self) -> bool:
        """Send the session as it is now; in the middle of an event that has partly left, right after it.

        False where the stream has ended, but for one that was refused, and in another thread's event loop. Raises as ``send``.
        """
        if get_ident() != self._thread:
            return False
        async with self._sending:
            if self.has_ended:
                return self.is_refused
            self._owed = True
            await self._body(b"", more=True)
            return True

    async def fail(self) -> None:
        """End with an error event: the application raised. The session that the client has stays the one that counts."""
        if not self.has_ended and not self._gone and self._out.is_due:
            with suppress(OSError):  # the client has left, and the application's own exception goes on
                await self._end(b"", "internal-error")

    def _passes(self, message: Message) -> bool:
        """Whether a message is whole events of which none can end the turn: then there is nothing to do for it."""
        chunk = message.get("body", b"")
        return (
            message.get("more_body", False)
            and not (self.has_ended or self._owed or self._sending.locked())
            and self._out.turns.terminal is is_done
            and says_nothing(chunk)
            and self._cutter.is_whole(chunk)
        )

    async def _body(self, chunk: bytes, *, more: bool) -> None:
        done = bytearray()
        try:
            for piece in self._cutter.feed(chunk):
                done += await self._piece(piece)
            if not more:
                done += await self._last()
            elif self._owed and self._cutter.is_between:
                done += b"" if self._is_sent else await self._own()
                self._owed = False
        except (SessionError, SessionUnavailable) as refusal:
            self._out.turns.events.refused(refusal)
            self.is_refused = True
            await self._end(bytes(done), refusal.code)
        except StateError:
            await self._give({"type": "http.response.body", "body": bytes(done), "more_body": True})
            raise
        else:
            self.has_ended = not more
            if done or not chunk or not more:
                await self._give({"type": "http.response.body", "body": bytes(done), "more_body": more})

    async def _piece(self, piece: Piece) -> bytes:
        """The bytes of a piece, with the session in it, or before it, where it ends the turn; with none but ours in any case."""
        if piece.is_part:
            return self._passed(piece.raw)
        piece = await self._cleared(piece)
        if piece.data is None:
            return piece.raw
        ends, text = await self._out.ends_turn(piece.name, piece.data)
        if ends and text is not None:
            completed = await self._out.completed(text)
            if completed is not None:
                self._unread = False
                return self._cutter.replaced(piece, completed)
        before = (ends or piece.data.strip() == CLOSER) and not self._is_sent
        return (await self._own() if before else b"") + piece.raw

    async def _cleared(self, piece: Piece) -> Piece:
        data = piece.data and await self._out.cleared(piece.data)
        raw = piece.raw if data is None or data == piece.data else self._cutter.replaced(piece, data)
        return Piece(await self._out.cleared(raw), piece.name, data)

    def _passed(self, part: bytes) -> bytes:
        """A part of what is too long to be looked at: if a session could be in it, ours is to come after it."""
        self._tail += part
        self._unread = self._unread or (may_plant(self._tail) and not self._out.turns.is_plain(self._out.scope))
        self._tail = self._tail[-HINT_BYTES:]
        return part

    @property
    def _is_sent(self) -> bool:
        return self._out.is_sent and not self._unread

    async def _last(self) -> bytes:
        rest = await self._piece(self._cutter.rest())
        return rest if self._is_sent else self._cutter.closed(rest, await self._own())

    async def _own(self) -> bytes:
        self._unread = False
        return self._cutter.event("session", await self._out.event())

    async def _end(self, done: bytes, code: str) -> None:
        self.has_ended = True
        body = done + self._cutter.closed(b"", self._cutter.event("error", error_text(code)))
        await self._give({"type": "http.response.body", "body": body, "more_body": False})

    async def _give(self, message: Message) -> None:
        self._gone = True
        await self._send(message)
        self._gone = False
