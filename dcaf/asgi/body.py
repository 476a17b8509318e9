r"""What a body is, and the sessions in it: parsed under limits, off the event loop where it is large.

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
"""Every byte of white space, of a byte order mark and of the wider encodings: what some parser passes over, or strips."""

MOST_DIGITS: Final = 18
"""Of a Content-Length that are read: the integer of a longer one could take the loop for itself."""

IN_FLIGHT: Final = "bytes-in-flight"
"""Why a request is refused while too many bodies are being read, for the log."""

INLINE_BYTES: Final = 256 * 1024
"""Texts up to this size are parsed on the event loop, larger ones in a thread: the interpreter interrupts that now and then."""

INLINE_STRUCTURE: Final = 5_000
"""So are texts with up to so many braces, brackets and commas: finding the sessions among more takes milliseconds."""


class BytesInFlight:
    """How many bytes of bodies are being read at once: bounded for the whole process, however many clients send slowly.

    Args:
        limit_bytes: Of all of them together. One body has a limit of its own.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes: int = limit_bytes
        self.taken_bytes: int = 0

    def take(self, size: int) -> None:
        """Count some bytes of a body.

        Raises:
            SessionUnavailable: There are too many, of all bodies together.
        """
        self.taken_bytes += size
        if self.taken_bytes > self.limit_bytes:
            raise SessionUnavailable(reason=IN_FLIGHT)

    def give_back(self, size: int) -> None:
        """Count them no more."""
        self.taken_bytes -= size


def announced_bytes(headers: Mapping[bytes, bytes]) -> int:
    """What Content-Length says; 0 where it says nothing that could be counted."""
    length = headers.get(b"content-length", b"")
    return int(length[:MOST_DIGITS]) if length.isdigit() else 0


def may_be_json(start: bytes) -> bool | None:
    """Whether a body that begins so could be read as a JSON object by anybody; None while too little of it is there."""
    if start.startswith(b"{"):
        return True
    text = start.lstrip(SKIPPED)
    return text.startswith(b"{") if text else None


async def find_sessions(data: bytes, verify: Verify) -> BodySessions:
    """Parse a whole JSON text, of a body or of a frame, and find its sessions.

    Args:
        data: The text.
        verify: Opens the token that stands first in it; it is not parsed then.

    Raises:
        BodyTooLarge: It has more structure, or more sessions, than are read.
        MalformedJSON: A strict parser refuses it, or a member is repeated on the way to a session.
    """
    short = shorten(data, verify)
    if short is not None:
        found = short.read(data) if len(short.data) <= INLINE_STRUCTURE else await _limited(short.data, short.read)
        if found is not None:
            return found
    return await _limited(data, read_body)


def open_nothing(_: bytes) -> None:
    """Open nothing: where bodies carry no session, none of theirs is a candidate."""


async def off_the_loop(function: Callable[[bytes], T], data: bytes) -> T:
    """Call a function with a text, here if that is quick and in a thread if it is not. Raises what it raises."""
    # A text cannot have more structure than bytes, so that of most is not counted.
    if len(data) <= INLINE_STRUCTURE or (len(data) <= INLINE_BYTES and count_structure(data) <= INLINE_STRUCTURE):
        return function(data)
    return await anyio.to_thread.run_sync(function, data, limiter=_parsers())


async def _limited(data: bytes, read: Callable[[bytes], T]) -> T:
    if len(data) <= INLINE_STRUCTURE:
        return read(data)
    if len(data) > MAX_STRUCTURE and count_structure(data) > MAX_STRUCTURE:
        raise BodyTooLarge(reason="structure")
    return await off_the_loop(read, data)


_limiter: Final[RunVar[anyio.CapacityLimiter | None]] = RunVar("dcaf_parsers")


def _parsers() -> anyio.CapacityLimiter:
    """Threads of their own, so that large texts never wait behind the application's, nor the other way round.

    An event loop has its own: what is waited for in one cannot be waited for in another.
    """
    found = _limiter.get(None)
    if found is None:
        found = anyio.CapacityLimiter(2)
        _limiter.set(found)
    return found
