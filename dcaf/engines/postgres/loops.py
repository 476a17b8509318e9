"""Where the calls of a PostgreSQL engine run: in the event loop of asyncio that calls; for all other callers, in one of a thread.

Each call is a task of its own. A caller that is cancelled takes it back where nothing was sent; else it waits for its end, which it
hastens. So what the caller does next comes after it, also over another connection: whoever was cancelled while it took something
can give it back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Final, Protocol

import anyio

from dcaf.core.errors import EngineError

GRACE_S: Final = 0.05
"""How long a statement goes on whose caller was cancelled: most have come to their end by then, and their connections are kept."""

PATIENCE: Final = 3.0
"""How many times its own time another thread waits for a call, and so many seconds."""


class Stoppable(Protocol):
    """A call."""

    @property
    def has_begun(self) -> bool:
        """Whether something was sent to the server."""

    def stop(self) -> None:
        """Tell the server to give it up."""


class Tasks:
    """The calls that run in one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, call: Stoppable, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a call to its end, and return what it returns.

        Args:
            call: The call.
            work: What it does.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def end(task: asyncio.Task[Any]) -> None:
            self._running.discard(task)
            forget(task)
            _set(done)  # where it was cancelled before it began

        task = loop.create_task(_tell(work, done))
        self._running.add(task)
        task.add_done_callback(end)
        try:
            await done  # not the task, which would be cancelled; nor a shield, which takes another turn of the event loop
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await _end(call, task)
            raise
        return task.result()

    async def finish(self, timeout_s: float) -> None:
        """Wait for what runs."""
        running = [task for task in self._running if task is not asyncio.current_task()]
        if running:
            await asyncio.wait(running, timeout=timeout_s)


async def _tell(work: Coroutine[Any, Any, Any], done: asyncio.Future[None]) -> Any:
    """Do a work, and tell its end, which comes before whoever waits goes on."""
    try:
        return await work
    finally:
        _set(done)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


async def _end(call: Stoppable, task: asyncio.Task[Any]) -> None:
    if not call.has_begun:
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=GRACE_S)
    if not done:
        call.stop()
        await asyncio.wait([task])


def forget(task: asyncio.Task[Any]) -> None:
    """Take note of how a task has ended, whoever else may have gone: else asyncio logs an error that nobody has asked for."""
    if not task.cancelled():
        task.exception()


class LoopThread:
    """An event loop of asyncio in a thread, which starts with the first call."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()  # psycopg takes no other on Windows
        self._stopped = asyncio.Event()
        self._thread = Thread(target=self._main, name="dcaf-postgres", daemon=True)
        self._thread.start()

    def wait(self, call: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float) -> Any:
        """Run a call there, and wait for it in a thread.

        Raises:
            TimeoutError: It did not come to its end in several times its time, and may do so later.
            EngineError: It failed.
        """
        done = Event()
        guest = _Guest(self.loop, call, done.set)
        try:
            is_done = done.wait(PATIENCE * timeout_s + PATIENCE)
        except BaseException:  # an interrupt
            guest.cancel()
            raise
        if not is_done:
            guest.cancel()
            raise TimeoutError
        return guest.take()

    async def wait_in_trio(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a call there, and wait for it in an event loop of trio."""
        trio: Any = sys.modules["trio"]
        token, done = trio.lowlevel.current_trio_token(), trio.Event()

        def wake() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        guest = _Guest(self.loop, call, wake)
        try:
            await done.wait()
        except BaseException:
            guest.cancel()
            with trio.CancelScope(shield=True):
                await done.wait()
            raise
        return guest.take()

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(5)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._stopped.wait())


class _Guest:
    """A call of another thread.

    Args:
        loop: Where it runs.
        call: What it does.
        wake: Called in the loop when it has come to its end.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[Any, Any, Any]], wake: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._call = call
        self._wake = wake
        self._task: asyncio.Task[Any] | None = None
        try:
            loop.call_soon_threadsafe(self._start)
        except RuntimeError:
            raise EngineError("The engine is closed.") from None

    def cancel(self) -> None:
        """Have it cancelled, if it has not come to its end."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)

    def take(self) -> Any:
        """Its result; raises the error where it failed."""
        assert self._task is not None
        return self._task.result()

    def _start(self) -> None:
        self._task = self._loop.create_task(self._call())
        self._task.add_done_callback(self._finish)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        forget(task)
        self._wake()
