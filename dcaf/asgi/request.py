r"""Read, limit and verify a request body, and replay it with the verified state in place of every session.

A body that could be read as JSON by anybody is read here, whatever its method and Content-Type say: one that slipped past
would carry an unverified session into the application.

>>> is_json(b" \n{"), is_json(b"name=ada"), is_json(b" ")
(True, False, None)

What a reader gets wrong: only one candidate is ever verified, the first by position. If it is refused, no other is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio.to_thread
import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope

from dcaf.asgi.locate import MAX_STRUCTURE, JSONText, Place, structure
from dcaf.core.errors import BodyTooLarge, EncodedBody

SPACE: Final = b" \t\n\r"
BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")
SNIFFED_BYTES: Final = 4
INLINE_BYTES: Final = 256 * 1024
"""Bodies up to this size are parsed on the event loop, larger ones in a thread."""


@dataclass(slots=True)
class Body:
    """What came in: the messages read so far, and, of a JSON body, its text and the places of its sessions.

    Attributes:
        messages: To be replayed before anything more is received.
        json: The parsed text; None for any other body, which passes untouched.
        places: Every ``data.session``, by precedence.
        disconnected: The client left before its body was complete.
    """

    messages: list[Message]
    json: JSONText | None = None
    places: tuple[Place, ...] = ()
    disconnected: bool = False

    def candidate(self) -> Place | None:
        """The one session to verify: the first that is neither ``null`` nor ``{}``."""
        return next((place for place in self.places if self.member(place) not in (None, {})), None)

    def member(self, place: Place) -> Any:
        """The value that stands at a place."""
        assert self.json is not None
        return orjson.loads(place.text(self.json.text))

    def without_sessions(self) -> Any:
        """The value of the body with every session gone; None for a body that is not JSON."""
        if self.json is None:
            return None
        return orjson.loads(self.json.rewritten(self.places, {})) if self.places else self.json.value

    def rewrite(self, candidate: Place | None, state: bytes) -> None:
        """Put the verified state in the candidate's place, and take every other session out."""
        if self.json is None or not self.places:
            return
        data = self.json.rewritten(self.places, {candidate: state} if candidate else {})
        self.messages = [{"type": "http.request", "body": data, "more_body": False}]

    def replay(self, receive: Receive) -> Receive:
        """A receive function that gives the messages read so far, then what comes."""
        pending = self.messages[::-1]

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        return replayed

    def scope(self, scope: Scope) -> Scope:
        """The scope of a rewritten body: its Content-Length is the new one."""
        if self.json is None or not self.places:
            return scope
        changed = {**scope, "headers": list(scope["headers"])}
        headers = MutableHeaders(scope=changed)
        if "content-length" in headers:
            headers["content-length"] = str(len(self.messages[0]["body"]))
        return changed


async def read_body(scope: Scope, receive: Receive, max_body_bytes: int) -> Body:
    """Read a body as far as it must be read: one that is JSON wholly, any other up to its first bytes.

    Raises:
        EncodedBody: It has a Content-Encoding.
        BodyTooLarge: It is JSON over the limit; nothing beyond the limit was read.
        MalformedJSON: It is JSON that a strict parser refuses.
    """
    headers = Headers(scope=scope)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise EncodedBody(reason="content-encoding")
    reader = _Reader(receive, max_body_bytes)
    kind = await reader.sniff()
    if reader.disconnected:
        return Body(reader.messages, disconnected=True)
    if not kind:
        return Body(reader.messages)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise BodyTooLarge(reason="content-length")
    data = await reader.rest()
    if data is None:
        return Body(reader.messages, disconnected=True)
    text, places = await _off_the_loop(_parse, data)
    return Body([{"type": "http.request", "body": data, "more_body": False}], text, places)


def is_json(start: bytes) -> bool | None:
    """Whether a body that begins so could be read as JSON in any encoding; None while too little of it is there."""
    if start.startswith(BYTE_ORDER_MARKS) or b"\0" in start[:SNIFFED_BYTES]:
        return True
    text = start.lstrip(SPACE)
    if text.startswith(b"{"):
        return True
    return None if not text or len(start) < SNIFFED_BYTES else False


class _Reader:
    """The messages of one body, counted while it could be JSON."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._more = True
        self._data = bytearray()
        self.messages: list[Message] = []
        self.disconnected = False

    async def sniff(self) -> bool:
        """Read until it is clear whether the body is JSON; a body of white space alone is not."""
        sample, kind = b"", None
        while kind is None and self._more:
            sample += await self._next()
            sample = sample[:SNIFFED_BYTES] + sample[SNIFFED_BYTES:].lstrip(SPACE)[:1]
            kind = is_json(sample)
            self._check(kind=kind)
        return bool(kind)

    async def rest(self) -> bytes | None:
        """Read a JSON body to its end; None where the client left before."""
        while self._more:
            await self._next()
            self._check(kind=True)
        return None if self.disconnected else bytes(self._data)

    async def _next(self) -> bytes:
        message = await self._receive()
        self.messages.append(message)
        self.disconnected = message["type"] == "http.disconnect"
        self._more = not self.disconnected and message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        self._data += chunk
        return chunk

    def _check(self, *, kind: bool | None) -> None:
        if kind is not False and len(self._data) > self._limit_bytes:
            raise BodyTooLarge(reason="length")


def _parse(data: bytes) -> tuple[JSONText, tuple[Place, ...]]:
    text = JSONText.read(data)
    return text, tuple(text.sessions())


async def _off_the_loop(function: Callable[[bytes], Any], data: bytes) -> Any:
    if structure(data) > MAX_STRUCTURE:
        raise BodyTooLarge(reason="structure")
    if len(data) <= INLINE_BYTES:
        return function(data)
    return await anyio.to_thread.run_sync(function, data)
