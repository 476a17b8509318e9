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

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import copy_context
from typing import Any, Final, TypeAlias

import anyio
import anyio.to_thread

from dcaf.core.current import calling

Stream: TypeAlias = Generator[Any, Any, Any] | AsyncGenerator[Any, Any]

END: Final = object()


def is_stream(result: object) -> bool:
    """Whether a result comes in pieces."""
    return inspect.isgenerator(result) or inspect.isasyncgen(result)


async def items(stream: Stream, *, abandon: bool = False) -> AsyncGenerator[Any, None]:
    """What it yields, as it comes.

    Args:
        stream: The generator.
        abandon: Whether a cancelled reader does not wait for the thread of a sync generator; the thread then closes it.
    """
    step, close = _on_loop(stream) if isinstance(stream, AsyncGenerator) else _in_threads(stream, abandon=abandon)
    try:
        while (item := await step()) is not END:
            yield item
    finally:
        with anyio.CancelScope(shield=True):  # a cancelled reader still lets the generator clean up
            await close()


Steps: TypeAlias = tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]


def _on_loop(stream: AsyncGenerator[Any, Any]) -> Steps:
    async def step() -> Any:
        with calling():
            return await anext(stream, END)

    return step, stream.aclose


def _in_threads(stream: Generator[Any, Any, Any], *, abandon: bool) -> Steps:
    """All its steps run in one context, so that what it sets in a context variable is there in the next."""
    with calling():
        context = copy_context()
    is_busy = is_left = False

    def advance() -> Any:
        nonlocal is_busy
        try:
            return context.run(next, stream, END)
        finally:
            is_busy = False
            if is_left:
                context.run(stream.close)

    async def step() -> Any:
        nonlocal is_busy
        is_busy = True
        return await anyio.to_thread.run_sync(advance, abandon_on_cancel=abandon)

    async def close() -> None:
        nonlocal is_left
        is_left = is_busy
        if not is_left:
            await anyio.to_thread.run_sync(lambda: context.run(stream.close))

    return step, close
