r"""Parse a request body under limits, and find the sessions in it: off the event loop where it is large.

>>> may_be_json(b" \n{"), may_be_json(b"name=ada"), may_be_json(b" ")
(True, False, None)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from dcaf.asgi.json_sessions import MAX_STRUCTURE, BodySessions, Verify, count_structure, read_body, shorten
from dcaf.core.errors import BodyTooLarge, SessionUnavailable

T = TypeVar("T")

SKIPPED: Final = (
    b"\0"
    + b"".join(mark.encode() for mark in ("\ufeff", "\ufffe", *(chr(code) for code in range(0x3001) if chr(code).isspace())))
    + b"\xfe\xff"
)
"""The bytes that some parser skips or strips: of white space, of byte order marks, and of the wider encodings."""

MOST_DIGITS: Final = 18
"""How many digits of a Content-Length are read: converting a very long one would block the event loop."""

IN_FLIGHT: Final = "bytes-in-flight"
"""Why a request is refused while too many bodies are being read, for the log."""

INLINE_BYTES: Final = 256 * 1024
"""Texts up to this size are parsed on the event loop, larger ones in a thread, which the interpreter interrupts now and then."""

INLINE_STRUCTURE: Final = 5_000
"""The same for braces, brackets and commas: finding the sessions among more of them takes milliseconds."""

_limiter: Final[RunVar[anyio.CapacityLimiter | None]] = RunVar("dcaf_parsers")


class BytesInFlight:
    """Bounds the bytes of bodies that are being read at once in this process, however many clients send slowly.

    Args:
        limit_bytes: The limit of all bodies together. One body has a limit of its own.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes: int = limit_bytes
        self.taken_bytes: int = 0

    def take(self, size: int) -> None:
        """Count some bytes of a body.

        Raises:
            SessionUnavailable: All bodies together have too many.
        """
        self.taken_bytes += size
        if self.taken_bytes > self.limit_bytes:
            raise SessionUnavailable(reason=IN_FLIGHT, ran=False)

    def give_back(self, size: int) -> None:
        """Count them no longer."""
        self.taken_bytes -= size


def read_content_length(headers: Mapping[bytes, bytes]) -> int:
    """The value of Content-Length; 0 where it is missing or not a number."""
    length = headers.get(b"content-length", b"")
    return int(length[:MOST_DIGITS]) if length.isdigit() else 0


def may_be_json(start: bytes) -> bool | None:
    """Whether any parser could read a body with this beginning as a JSON object; None while more of it is needed to tell."""
    if start.startswith(b"{"):
        return True
    text = start.lstrip(SKIPPED)
    return text.startswith(b"{") if text else None


async def find_sessions(data: bytes, verify: Verify) -> BodySessions:
    """Parse a whole JSON text, of a body or of a frame, and find its sessions.

    Args:
        data: The text.
        verify: Opens the token that stands first in it, so that it need not be parsed.

    Raises:
        BodyTooLarge: It has more structure, or more sessions, than are read.
        MalformedJSON: A strict parser refuses it, or a member is repeated on the way to a session.
    """
    short = shorten(data, verify)
    if short is not None:
        found = short.read(data) if len(short.data) <= INLINE_STRUCTURE else await _read_limited(short.data, short.read)
        if found is not None:
            return found
    return await _read_limited(data, read_body)


def open_nothing(_: bytes) -> None:
    """Open no token: where bodies carry no session, none in them counts."""


async def off_the_loop(function: Callable[[bytes], T], data: bytes) -> T:
    """Call a function with a text: here if that is quick, else in a thread. Raises what the function raises."""
    # A text cannot have more structure than bytes, so it need not be counted in a short one.
    if len(data) <= INLINE_STRUCTURE or (len(data) <= INLINE_BYTES and count_structure(data) <= INLINE_STRUCTURE):
        return function(data)
    return await anyio.to_thread.run_sync(function, data, limiter=_parsers())


async def _read_limited(data: bytes, read: Callable[[bytes], T]) -> T:
    if len(data) <= INLINE_STRUCTURE:
        return read(data)
    if len(data) > MAX_STRUCTURE and count_structure(data) > MAX_STRUCTURE:
        raise BodyTooLarge(reason="structure")
    return await off_the_loop(read, data)


def _parsers() -> anyio.CapacityLimiter:
    """The limiter of the threads that parse: large texts never wait behind the application's own calls, nor the other way round.

    Each event loop has its own, since a limiter cannot be awaited in another one.
    """
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(2)
        _limiter.set(limiter)
    return limiter
