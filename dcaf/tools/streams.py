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


async def items(stream: Stream) -> AsyncGenerator[Any, None]:
    """What it yields, as it comes."""
    step, close = _on_loop(stream) if isinstance(stream, AsyncGenerator) else _in_threads(stream)
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


def _in_threads(stream: Generator[Any, Any, Any]) -> Steps:
    """All its steps run in one context, so that what it sets in a context variable is there in the next."""
    with calling():
        context = copy_context()

    async def step() -> Any:
        return await anyio.to_thread.run_sync(lambda: context.run(next, stream, END))

    async def close() -> None:
        await anyio.to_thread.run_sync(lambda: context.run(stream.close))

    return step, close
