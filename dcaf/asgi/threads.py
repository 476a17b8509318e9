"""Parse what is large in a thread, so that nobody else waits for it.

What a reader gets wrong: the interpreter still does one thing at a time. What is in a thread is interrupted every few
milliseconds; a parser written in C is not, which is why there are limits besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from dcaf.asgi.locate import structure

T = TypeVar("T")

INLINE_BYTES: Final = 256 * 1024
"""Texts up to this size are parsed on the event loop, larger ones in a thread."""

INLINE_STRUCTURE: Final = 5_000
"""So are texts with up to so many braces, brackets and commas: finding the sessions among more takes milliseconds."""


_limiter: Final[RunVar[anyio.CapacityLimiter | None]] = RunVar("dcaf_parsers")


async def off_the_loop(function: Callable[[bytes], T], data: bytes) -> T:
    """Call a function with a text, here if that is quick and in a thread if it is not. Raises what it raises."""
    # A text cannot have more structure than bytes, so that of most is not counted.
    if len(data) <= INLINE_STRUCTURE or (len(data) <= INLINE_BYTES and structure(data) <= INLINE_STRUCTURE):
        return function(data)
    return await anyio.to_thread.run_sync(function, data, limiter=_parsers())


def _parsers() -> anyio.CapacityLimiter:
    """Threads of their own, so that large texts never wait behind the application's, nor the other way round.

    An event loop has its own: what is waited for in one cannot be waited for in another.
    """
    found = _limiter.get(None)
    if found is None:
        found = anyio.CapacityLimiter(2)
        _limiter.set(found)
    return found
