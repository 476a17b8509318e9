"""A sync function in a worker thread, which keeps its place among those threads until it has ended, whoever still waits for it.

>>> anyio.run(call_in_thread, lambda: threading.current_thread() is threading.main_thread())
False

What a reader gets wrong: the places are anyio's, and Starlette's sync endpoints have the same (40, unless the application says
otherwise: ``anyio.to_thread.current_default_thread_limiter().total_tokens``). Where all are taken, a call waits.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from dcaf.tools.contained import contained

T = TypeVar("T")

_left: Final[set[asyncio.Task[Any]]] = set()
"""Tasks that nobody waits for; asyncio itself holds none."""


async def call_in_thread(call: Callable[[], Any], *, abandon: bool = False) -> Any:
    """Make a call of somebody else's code in a worker thread, with the caller's context variables.

    Args:
        call: The call.
        abandon: A cancelled caller does not wait for it. The thread runs on, and nobody sees what comes of it.

    Raises:
        ExitError: It ended with something that is no Exception.
    """
    result, error = await _run(functools.partial(_caught, call), abandon=abandon)
    try:
        with contained(in_thread=True):
            if error is not None:
                raise error
    finally:
        del error  # its frames hold this one
    return result


def leave_to_thread(call: Callable[[], object]) -> None:
    """Make a call in a worker thread when there is a place, and wait for nothing of it; not at all where the program ends first."""
    work = functools.partial(_run, functools.partial(_caught, call), abandon=True)
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        task = asyncio.get_running_loop().create_task(work())
        _left.add(task)
        task.add_done_callback(_left.discard)
    else:
        from trio.lowlevel import spawn_system_task  # noqa: PLC0415 - it is installed where it runs

        spawn_system_task(work)


def _caught(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - asyncio would end with some of them, and cannot pass on others
        return None, error


async def _run(work: Callable[[], T], *, abandon: bool) -> T:
    if not abandon or anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon)
    return await _Place(anyio.to_thread.current_default_thread_limiter()).run(work)


class _Place:
    """One place among an asyncio loop's threads, where anyio gives it back when the caller leaves; trio waits for the thread."""

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._is_running = self._is_left = False

    async def run(self, call: Callable[[], T]) -> T:
        """Make the call when there is a place."""
        await self._limiter.acquire_on_behalf_of(self)
        try:
            return await anyio.to_thread.run_sync(self._work, call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        finally:
            self._leave()

    def _work(self, call: Callable[[], T]) -> T:
        if not self._begins():
            raise RuntimeError("nobody waits for this call, and it has not begun")
        try:
            return call()
        finally:
            with self._lock:
                self._is_running, is_left = False, self._is_left
            if is_left:
                with suppress(RuntimeError):  # the loop is closed: nobody waits for a place any more
                    self._loop.call_soon_threadsafe(self._limiter.release_on_behalf_of, self)

    def _begins(self) -> bool:
        with self._lock:
            self._is_running = not self._is_left
            return self._is_running

    def _leave(self) -> None:
        with self._lock:
            self._is_left, is_running = True, self._is_running
        if not is_running:
            self._limiter.release_on_behalf_of(self)
