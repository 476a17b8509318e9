"""What a generator yields, one by one, whoever wrote it: a sync one is advanced in a thread, an async one on the loop.

>>> import anyio
>>> async def collect() -> list[int]:
...     return [item async for item in items(iter_of_two())]
>>> def iter_of_two():
...     yield 1
...     yield 2
>>> anyio.run(collect)
[1, 2]

What a reader gets wrong: whoever stops early must close it (``contextlib.aclosing``). Then the generator is closed too, at its
``yield``, and what it does in ``finally`` has been done when ``aclose`` returns.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from contextvars import copy_context
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, TypeAlias

import anyio

from dcaf.core.current import calling
from dcaf.tools.contained import contained, is_cancelled
from dcaf.tools.threads import call_in_thread, leave_to_thread

Stream: TypeAlias = Generator[Any, Any, Any] | AsyncGenerator[Any, Any]

Inside: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Says for the code inside that it is a tool's."""

END: Final = object()


def is_stream(result: object) -> bool:
    """Whether a result comes in pieces."""
    return isinstance(result, GeneratorType | AsyncGeneratorType)


async def items(stream: Stream, *, abandon: bool = False, is_approved: bool = False) -> AsyncGenerator[Any, None]:
    """What it yields, as it comes.

    Args:
        stream: The generator.
        abandon: Whether a cancelled reader does not wait for the thread of a sync generator; the thread then closes it.
        is_approved: Whether a person has approved the call that made it.

    Raises:
        ExitError: It ended with something that is no Exception, and that is no cancellation from outside.
    """
    within = functools.partial(calling, is_approved=is_approved)
    steps = _OnLoop(stream, within) if isinstance(stream, AsyncGenerator) else _Threaded(stream, within, abandon=abandon)
    try:
        while (item := await steps.step()) is not END:
            yield item
    finally:
        is_left = abandon and is_cancelled()
        with anyio.CancelScope(shield=True):  # a cancelled reader still lets the generator clean up
            await steps.close(is_left=is_left)


class _OnLoop:
    """An async generator."""

    def __init__(self, stream: AsyncGenerator[Any, Any], within: Inside) -> None:
        self._stream = stream
        self._within = within

    async def step(self) -> Any:
        """The next item, or END."""
        with self._within(), contained():
            return await anext(self._stream, END)

    async def close(self, *, is_left: bool) -> None:  # noqa: ARG002 - as of the other one
        """Close it."""
        with self._within(), contained():
            await self._stream.aclose()


class _Threaded:
    """A sync generator. All its steps run in one context, so that what it sets in a context variable is there in the next."""

    def __init__(self, stream: Generator[Any, Any, Any], within: Inside, *, abandon: bool) -> None:
        self._stream = stream
        self._abandon = abandon
        self._lock = threading.Lock()
        self._is_busy = self._is_left = False
        with within():
            self._context = copy_context()

    async def step(self) -> Any:
        """The next item, or END."""
        with contained():
            return await call_in_thread(self._advance, abandon=self._abandon)

    async def close(self, *, is_left: bool) -> None:
        """Close it; a thread that is still busy with it does so itself.

        Args:
            is_left: Nobody waits any more: a thread does it when there is a place.
        """
        with self._lock:
            self._is_left, is_busy = True, self._is_busy
        if is_busy or not _has_begun(self._stream):
            return
        if is_left:
            leave_to_thread(self._end)
        else:
            with contained():
                await call_in_thread(self._end)

    def _advance(self) -> Any:
        if not self._begins():
            return END
        try:
            return self._context.run(next, self._stream, END)
        finally:
            with self._lock:
                self._is_busy, is_left = False, self._is_left
            if is_left:
                self._end()

    def _begins(self) -> bool:
        with self._lock:
            self._is_busy = not self._is_left
            return self._is_busy

    def _end(self) -> None:
        self._context.run(self._stream.close)


def _has_begun(stream: Generator[Any, Any, Any]) -> bool:
    """Whether there is something of it that closing would run."""
    return inspect.getgeneratorstate(stream) == inspect.GEN_SUSPENDED
