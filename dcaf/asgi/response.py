"""Put the session into an answer: whole into a JSON object, event by event into a stream; any other answer passes as it is.

What a reader gets wrong: an answer that cannot carry a changed session is an error before it starts. A client that got it
would go on with the state of before.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.types import Message, Scope, Send

from dcaf.asgi.beside import SERVER_ERROR, Beside
from dcaf.asgi.headers import JSON, carrying, is_encoded, is_json, media_type
from dcaf.asgi.outgoing import BEFORE_THE_ANSWER, parsed
from dcaf.asgi.planted import clear_whole
from dcaf.asgi.route import name_request
from dcaf.asgi.stream import Stream, cutter
from dcaf.asgi.threads import INLINE_STRUCTURE, off_the_loop
from dcaf.asgi.turn import Turn, Turns
from dcaf.asgi.uncarried import NOT_WHOLE, finding, uncarried
from dcaf.core.errors import NotCarriedError, SessionError, SessionUnavailable

REDIRECTION: Final = 300
JSON_TYPE: Final = JSON.encode()


class Answer(Beside):
    """One answer on its way out, whose body carries the session.

    Args:
        scope: Of the request.
        turn: The turn.
        turns: Who seals it.
        send: Where the answer goes.
        is_json: Whether the request's body was JSON: its answer alone may hold a new state, where its route was named.
    """

    stream: Stream | None = None
    _in_time = BEFORE_THE_ANSWER
    _start: Message | None = None
    _body: bytes | bytearray = b""

    def __init__(self, scope: Scope, turn: Turn, turns: Turns, send: Send, *, is_json: bool) -> None:
        super().__init__(scope, turn, turns, send, adopts=is_json and turns.is_plain(scope))

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            NotCarriedError: The session was modified, and this answer cannot carry it.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if self.stream is not None:
            return await self.stream.send(message)
        if message["type"] == "http.response.start":
            return await self._begin({**message, "headers": message.get("headers", ())})
        if self._start is not None and message["type"] == "http.response.body":
            last = message.get("body", b"")
            if message.get("more_body", False):
                return await self._collect(last)
            return await self._complete(self._start, bytes(self._body + last) if self._body else last)
        if self._start is not None:
            await self._let_go(None)
        return await self._send(message)

    def look_back(self) -> None:
        """Tell the operator of a change that nothing carried, in a background task perhaps: it is lost.

        A client that left a stream early has only kept its old session.
        """
        if self.stream is None or (self.stream.has_ended and not self.stream.is_refused):
            super().look_back()

    async def checkpoint(self) -> bool:
        """Send the session as it is now; False where no stream is being sent. Raises as ``send``."""
        return self.stream is not None and await self.stream.checkpoint()

    async def fail(self) -> None:
        """The application raised: a stream that has begun ends with an error event, and nothing is sealed."""
        await super().fail()
        if self.stream is not None:
            await self.stream.fail()

    async def _begin(self, start: Message) -> None:
        status, kind = start["status"], self._kind(start)
        self._failed = self._failed or status >= SERVER_ERROR
        self.adopts: bool = self.adopts and status < REDIRECTION
        start = self._dropping(start) if self._turn.stale and not self._failed else start
        if is_json(kind):
            self._start = start
        elif self._failed:
            await self._pass(start)
        elif not self.turns.passes_streams(self.scope) and (lines := cutter(kind, self.turns.limit_bytes)) is not None:
            self.stream = Stream(self, lines, self._send)
            await self.stream.begin(start)
        else:
            await self._pass_by(start, None)

    async def _collect(self, part: bytes) -> None:
        self._body = self._body or bytearray()
        self._body += part
        if len(self._body) > self.turns.limit_bytes:
            await self._let_go(self._body)
            await self._send({"type": "http.response.body", "body": bytes(self._body), "more_body": True})

    async def _complete(self, start: Message, data: bytes) -> None:
        completed = None
        try:
            if self._may_carry(data):
                text = parsed(data) if len(data) <= INLINE_STRUCTURE else await off_the_loop(parsed, data)
                completed = None if text is None else await self.completed(text)
            cleared = data if completed is not None else await self.cleared(data, partial(clear_whole, objects_only=True))
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal)
            return
        if completed is None:
            self._start = start if cleared is data else {**start, "headers": carrying(start["headers"], len(cleared))}
            await self._let_go(cleared)
        else:
            self._start = None
            await self._send({**start, "headers": carrying(start["headers"], len(completed))})
        await self._send({"type": "http.response.body", "body": cleared if completed is None else completed, "more_body": False})

    def _may_carry(self, data: bytes) -> bool:
        """Whether it is worth while to parse an answer: the session is to go out with it."""
        return len(data) <= self.turns.limit_bytes and not self._failed and (self.is_due or self.adopts)

    async def _let_go(self, data: bytes | bytearray | None) -> None:
        """Send the start that was held back, as it was."""
        await self._pass_by(self._taken(), data)

    async def _pass_by(self, start: Message, data: bytes | bytearray | None) -> None:
        """Send the start of an answer whose body, read or not, cannot carry the session: of a new one, its headers may."""
        if self._failed:
            await self._pass(start)
        elif self.turns.carriers and not self._turn.arrived:
            await self._pass_beside(start)
        else:
            self._refuse_modified(start, data)
            await self._pass(start)

    def _taken(self) -> Message:
        start, self._start = self._start, None
        assert start is not None
        return start

    def _kind(self, start: Message) -> str:
        """The media type of an answer whose whole body is there as it is; empty for any other."""
        if start["status"] in NOT_WHOLE or self.scope["method"] == "HEAD":
            return ""
        found = dict(start["headers"])
        if b"content-encoding" in found and is_encoded(start["headers"]):
            return ""
        return JSON if found.get(b"content-type") == JSON_TYPE else media_type(start["headers"])

    def _refuse_modified(self, start: Message, data: bytes | bytearray | None) -> None:
        if self.session.is_modified:
            found = finding(self.scope["method"], start, data, limit_bytes=self.turns.limit_bytes)
            raise NotCarriedError(uncarried(name_request(self.scope), found))
