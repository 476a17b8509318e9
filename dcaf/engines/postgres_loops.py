"""Where the calls of a PostgreSQL engine run: in the event loop of asyncio that calls; for all other callers, in one of a thread.

Each call is a task of its own. A caller that is cancelled takes it back where it has not begun; else it is left to itself, comes to
its end, and gives its connection back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Final

from dcaf.core.errors import EngineError

PATIENCE: Final = 3.0
"""How much longer than a call may take another thread waits for its end."""


class Tasks:
    """The calls that run in one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, Any], has_begun: Callable[[], bool]) -> Any:
        """Run a call to its end, and return what it returns, unless the caller is cancelled.

        Args:
            call: The call.
            has_begun: Whether something was sent to the server.
        """
        task = asyncio.ensure_future(call)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not has_begun():
                task.cancel()
            raise

    async def finish(self, timeout_s: float) -> None:
        """Wait for what runs."""
        running = [task for task in self._running if task is not asyncio.current_task()]
        if running:
            await asyncio.wait(running, timeout=timeout_s)


class LoopThread:
    """An event loop of asyncio in a thread, which starts with the first call."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()  # psycopg takes no other on Windows
        self._thread = Thread(target=self._main, name="dcaf-postgres", daemon=True)
        self._thread.start()

    def wait(self, call: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float) -> Any:
        """Run a call there, and wait for it in a thread.

        Raises:
            EngineError: It failed, or did not come to its end in several times its time.
        """
        future = self._start(call)
        try:
            return future.result(PATIENCE * timeout_s + PATIENCE)
        except TimeoutError:
            raise EngineError("The engine has not answered.") from None
        finally:
            future.cancel()

    async def wait_in_trio(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a call there, and wait for it in an event loop of trio."""
        trio: Any = sys.modules["trio"]
        token, done = trio.lowlevel.current_trio_token(), trio.Event()

        def wake(_: Future[Any]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        future = self._start(call)
        future.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            future.cancel()
        return future.result(0)

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)

    def _start(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(call(), self.loop)

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()
