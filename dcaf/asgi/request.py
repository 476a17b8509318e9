r"""Read, limit and verify a request body, and replay it with the verified state in place of every session.

A body that could be read as JSON by anybody is read here, whatever its method and Content-Type say: one that slipped past
would carry an unverified session into the application.

>>> is_json(b" \n{"), is_json(b"name=ada"), is_json(b" ")
(True, False, None)

What a reader gets wrong: only one candidate is ever verified, the first by position. If it is refused, no other is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
from starlette.types import Message, Receive, Scope

from dcaf.asgi import echo
from dcaf.asgi.flight import Flight
from dcaf.asgi.headers import Raw, is_encoded
from dcaf.asgi.locate import MAX_STRUCTURE, JSONText, structure
from dcaf.asgi.threads import INLINE_STRUCTURE, off_the_loop
from dcaf.asgi.walk import MAX_SESSIONS, Place
from dcaf.core.errors import BodyTooLarge, EncodedBody
from dcaf.core.seal import Opened

Verify: TypeAlias = Callable[[bytes], Opened | None]
"""Opens a token that stands in a body as it was sent; None where it is not one of ours."""

Parse: TypeAlias = Callable[[bytes], "tuple[JSONText, Sequence[Place]]"]

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
        opened: What the first of its sessions was sealed with, where that is known already.
        places: Every ``data.session``, by precedence.
        is_json: Whether it is JSON.
        is_changed: Whether it was rewritten.
        disconnected: The client left before its body was complete.
    """

    data: bytes
    more: bool = False
    json: JSONText | None = None
    opened: Opened | None = None
    places: Sequence[Place] = ()
    is_json: bool = False
    is_changed: bool = False
    disconnected: bool = False

    def candidate(self) -> Place | None:
        """The one session to verify: the first that is neither ``null`` nor ``{}``."""
        for place in self.places:
            if place.value or place.value not in (None, {}):
                return place
        return None

    def without_sessions(self) -> Any:
        """The value of the body with every session gone; None for a body that is not JSON."""
        if self.json is None:
            return None
        return orjson.loads(self.json.rewritten(self.places, None, b"")) if self.places else self.json.value

    def rewrite(self, candidate: Place | None, state: bytes) -> None:
        """Put the verified state in the candidate's place, and take every other session out. What came in is let go."""
        if self.json is not None and self.places:
            self.data = self.json.rewritten(self.places, candidate, state)
            self.is_changed = True
        self.json, self.opened, self.places = None, None, ()

    def replay(self, receive: Receive) -> Receive:
        """A receive function that gives what was read so far, then what comes."""
        pending: list[Message] = [{"type": "http.request", "body": self.data, "more_body": self.more}]
        self.data = b""

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        return replayed


async def read_body(scope: Scope, receive: Receive, max_body_bytes: int, flight: Flight, verify: Verify) -> Body:
    """Read a body as far as it must be read: one that is JSON wholly, any other up to its first bytes.

    Raises:
        EncodedBody: It has a Content-Encoding.
        BodyTooLarge: It is JSON over the limit; nothing beyond the limit was read.
        MalformedJSON: It is JSON that a strict parser refuses.
        SessionUnavailable: Too many bytes are being read already.
    """
    announced_bytes = _announced(scope["headers"])
    data: bytes | bytearray = b""
    more, kind = True, None
    while more and kind is not False:
        message = await receive()
        if message["type"] == "http.disconnect":
            return Body(bytes(data), disconnected=True)
        chunk, more = message.get("body", b""), message.get("more_body", False)
        data = _longer(data, chunk) if data else chunk
        flight.take(len(chunk))
        # Until it is clear whether it is JSON; white space alone is not.
        kind = is_json(chunk) if kind is None else kind
        if kind is not False and len(data) > max_body_bytes:
            raise BodyTooLarge(reason="length")
        if kind and announced_bytes > max_body_bytes:
            raise BodyTooLarge(reason="content-length")
    return await read_json(bytes(data), verify) if kind else Body(bytes(data), more=more)


async def read_json(data: bytes, verify: Verify) -> Body:
    """Take a whole JSON text, of a body or of a frame.

    Raises:
        BodyTooLarge: It has more structure than is parsed.
        MalformedJSON: A strict parser refuses it.
    """
    found = echo.find(data, verify)
    if found is not None:
        text, places = await _parsed(found.parsed, found.shortened)
        if places and found.is_at(places[0].value):
            return Body(data, json=text, opened=found.opened, places=places, is_json=True)
    text, places = await _parsed(_parse, data)
    return Body(data, json=text, places=places, is_json=True)


async def _parsed(parse: Parse, data: bytes) -> tuple[JSONText, Sequence[Place]]:
    if len(data) <= INLINE_STRUCTURE:
        return parse(data)
    if len(data) > MAX_SESSIONS and (structure(data) > MAX_STRUCTURE or data.count(b'"session"') > MAX_SESSIONS):
        raise BodyTooLarge(reason="structure")
    return await off_the_loop(parse, data)


def _announced(headers: Raw) -> int:
    """What Content-Length says; 0 where it says nothing that could be counted.

    Raises:
        EncodedBody: There is a Content-Encoding.
    """
    found = dict(headers)
    if b"content-encoding" in found and is_encoded(headers):
        raise EncodedBody(reason="content-encoding")
    length = found.get(b"content-length", b"")
    return int(length[:MOST_DIGITS]) if length.isdigit() else 0


def unopened(_: bytes) -> None:
    """Open nothing: where bodies carry no session, none of theirs is a candidate."""


def is_json(start: bytes) -> bool | None:
    """Whether a body that begins so could be read as a JSON object by anybody; None while too little of it is there."""
    text = start.lstrip(PASSED_OVER)
    return text.startswith(b"{") if text else None


def _longer(data: bytes | bytearray, chunk: bytes) -> bytearray:
    longer = data if isinstance(data, bytearray) else bytearray(data)
    longer += chunk
    return longer


def _parse(data: bytes) -> tuple[JSONText, Sequence[Place]]:
    text = JSONText.read(data)
    return text, text.sessions()
