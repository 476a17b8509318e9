r"""Read, limit and verify a request body, and replay it with the verified state in place of every session.

A body that could be read as JSON by anybody is read here, whatever its method and Content-Type say: one that slipped past
would carry an unverified session into the application.

>>> is_json(b" \n{"), is_json(b"name=ada"), is_json(b" ")
(True, False, None)

What a reader gets wrong: only one candidate is ever verified, the first by position. If it is refused, no other is tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope

from dcaf.asgi.flight import Flight
from dcaf.asgi.headers import drop_digests
from dcaf.asgi.holes import Holes, cut
from dcaf.asgi.locate import MAX_SESSIONS, MAX_STRUCTURE, JSONText, Place, structure
from dcaf.asgi.threads import off_the_loop
from dcaf.core.errors import BodyTooLarge, EncodedBody

PASSED_OVER: Final = (
    b"\0"
    + b"".join(mark.encode() for mark in ("\ufeff", "\ufffe", *(chr(code) for code in range(0x3001) if chr(code).isspace())))
    + b"\xfe\xff"
)
"""Every byte of white space, of a byte order mark and of the wider encodings: what some parser passes over, or strips."""

MOST_DIGITS: Final = 18
"""Of a Content-Length that are read: the integer of a longer one could take the loop for itself."""


@dataclass(slots=True)
class Body:
    """What came in: the bytes read so far, and, of a JSON body, its text and the places of its sessions.

    Attributes:
        data: To be replayed before anything more is received.
        more: Whether more is to be received.
        json: The parsed text, until it is rewritten; None for any other body, which passes untouched.
        places: Every ``data.session``, by precedence.
        is_json: Whether it is JSON.
        is_changed: Whether it was rewritten.
        disconnected: The client left before its body was complete.
    """

    data: bytes
    more: bool = False
    json: JSONText | None = None
    places: tuple[Place, ...] = ()
    is_json: bool = False
    is_changed: bool = False
    disconnected: bool = False

    def candidate(self) -> Place | None:
        """The one session to verify: the first that is neither ``null`` nor ``{}``."""
        return next((place for place in self.places if self.member(place) not in (None, {})), None)

    def member(self, place: Place) -> Any:
        """The value that stands at a place."""
        assert self.json is not None
        return self.json.at(place)

    def without_sessions(self) -> Any:
        """The value of the body with every session gone; None for a body that is not JSON."""
        if self.json is None:
            return None
        return orjson.loads(self.json.rewritten(self.places, {}))

    def rewrite(self, candidate: Place | None, state: bytes) -> None:
        """Put the verified state in the candidate's place, and take every other session out. The parsed text is let go."""
        if self.json is not None and self.places:
            self.data = self.json.rewritten(self.places, {candidate: state} if candidate else {})
            self.is_changed = True
        self.json, self.places = None, ()

    def replay(self, receive: Receive) -> Receive:
        """A receive function that gives what was read so far, then what comes."""
        pending: list[Message] = [{"type": "http.request", "body": self.data, "more_body": self.more}]
        self.data = b""

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        return replayed

    def scope(self, scope: Scope) -> Scope:
        """The scope of a rewritten body, whose headers say its length and no longer what is untrue of it."""
        if not self.is_changed:
            return scope
        changed = {**scope, "headers": list(scope["headers"])}
        headers = MutableHeaders(scope=changed)
        drop_digests(headers)
        if "content-length" in headers:
            headers["content-length"] = str(len(self.data))
        return changed


async def read_body(scope: Scope, receive: Receive, max_body_bytes: int, flight: Flight) -> Body:
    """Read a body as far as it must be read: one that is JSON wholly, any other up to its first bytes.

    Raises:
        EncodedBody: It has a Content-Encoding.
        BodyTooLarge: It is JSON over the limit; nothing beyond the limit was read.
        MalformedJSON: It is JSON that a strict parser refuses.
        SessionUnavailable: Too many bytes are being read already.
    """
    headers = Headers(scope=scope)
    if any(value.strip().lower() != "identity" for value in headers.getlist("content-encoding")):
        raise EncodedBody(reason="content-encoding")
    reader = _Reader(receive, max_body_bytes, flight)
    kind = await reader.sniff()
    if kind and _announced(headers) > max_body_bytes:
        raise BodyTooLarge(reason="content-length")
    if kind:
        await reader.rest()
    if reader.disconnected or not kind:
        return Body(bytes(reader.data), more=reader.more, disconnected=reader.disconnected)
    return await read_json(bytes(reader.data))


async def read_json(data: bytes) -> Body:
    """Take a whole JSON text, of a body or of a frame.

    Raises:
        BodyTooLarge: It has more structure than is parsed.
        MalformedJSON: A strict parser refuses it.
    """
    small, holes = cut(data)
    if structure(small) > MAX_STRUCTURE or small.count(b'"session"') > MAX_SESSIONS:
        raise BodyTooLarge(reason="structure")
    text, places = await off_the_loop(lambda small: _parse(small, holes), small)
    return Body(data, json=text, places=places, is_json=True)


def _announced(headers: Headers) -> int:
    """What Content-Length says; 0 where it says nothing that could be counted."""
    text = headers.get("content-length", "")
    return int(text[:MOST_DIGITS]) if text.isascii() and text.isdecimal() else 0


def is_json(start: bytes) -> bool | None:
    """Whether a body that begins so could be read as a JSON object by anybody; None while too little of it is there."""
    text = start.lstrip(PASSED_OVER)
    return text.startswith(b"{") if text else None


class _Reader:
    """The messages of one body, counted while it could be JSON."""

    def __init__(self, receive: Receive, limit_bytes: int, flight: Flight) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._flight = flight
        self.more = True
        self.data = bytearray()
        self.disconnected = False

    async def sniff(self) -> bool:
        """Read until it is clear whether the body is JSON; a body of white space alone is not."""
        kind = None
        while kind is None and self.more:
            kind = is_json(await self._next())
            self._check(kind=kind)
        return bool(kind)

    async def rest(self) -> None:
        """Read a JSON body to its end, or until the client leaves."""
        while self.more:
            await self._next()
            self._check(kind=True)

    async def _next(self) -> bytes:
        message = await self._receive()
        self.disconnected = message["type"] == "http.disconnect"
        self.more = not self.disconnected and message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        self.data += chunk
        self._flight.take(len(chunk))
        return chunk

    def _check(self, *, kind: bool | None) -> None:
        if kind is not False and len(self.data) > self._limit_bytes:
            raise BodyTooLarge(reason="length")


def _parse(data: bytes, holes: Holes) -> tuple[JSONText, tuple[Place, ...]]:
    text = JSONText.read(data, holes)
    return text, tuple(text.sessions())
