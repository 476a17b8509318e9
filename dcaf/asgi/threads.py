"""Parse what is large in a thread, so that nobody else waits for it.

What a reader gets wrong: the interpreter still does one thing at a time. What is in a thread is interrupted every few
milliseconds; a parser written in C is not, which is why there are limits besides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from dcaf.asgi.locate import structure

T = TypeVar("T")

INLINE_BYTES: Final = 256 * 1024
"""Texts up to this size are parsed on the event loop, larger ones in a thread."""

INLINE_STRUCTURE: Final = 5_000
"""So are texts with up to so many braces, brackets and commas: finding the sessions among more takes milliseconds."""


async def off_the_loop(function: Callable[[bytes], T], data: bytes) -> T:
    """Call a function with a text, here if that is quick and in a thread if it is not. Raises what it raises."""
    if len(data) <= INLINE_BYTES and structure(data) <= INLINE_STRUCTURE:
        return function(data)
    return await anyio.to_thread.run_sync(function, data, limiter=_parsers())


@cache
def _parsers() -> anyio.CapacityLimiter:
    """Threads of their own, so that large texts never wait behind the application's, nor the other way round."""
    return anyio.CapacityLimiter(2)
