"""The event loop of sync runs: one for the whole process, so that a connection which one run has opened is there for the next.

>>> async def answer() -> int:
...     return 42
>>> wait_for(answer), wait_for(answer)
(42, 42)

A thread that works for a running loop, as that of a sync endpoint or tool does, waits for that one. So
the clients of a service's models are used in its loop alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from dcaf.core.errors import ConfigurationError, TurnTimeoutError

T = TypeVar("T")

IN_LOOP: Final = "wait_for() was called inside a running event loop. Await the function itself."
BLOCKED: Final = (
    "The turn could not begin in {limit_s:g} seconds (timeout): an async function blocks the loop that sync runs share. "
    "Make it a plain function, which gets a thread, or await what it waits for."
)


def wait_for(call: Callable[[], Awaitable[T]], *, limit_s: float | None = None, in_loop: str = IN_LOOP) -> T:
    """Call an async function and wait for it, in a thread that has no event loop.

    It sees the caller's context variables. What interrupts the waiting thread, as a KeyboardInterrupt does, cancels the call, and
    is raised when the call has ended.

    Args:
        call: The function.
        limit_s: Seconds until it must have begun; None waits without end.
        in_loop: What to say where an event loop is running in this thread: what to write instead.

    Raises:
        ConfigurationError: An event loop is running in this thread.
        TurnTimeoutError: It could not begin: something blocks the loop.
    """
    if running_loop() is not None:
        raise ConfigurationError(in_loop)
    if _works_for_loop():
        return _Wait(call, anyio.from_thread.run, anyio.from_thread.run_sync, is_worker=True).result()
    portal = _shared.portal(limit_s)
    return _Wait(call, portal.call, portal.call, is_worker=False).result()


def running_loop() -> Any:
    """The event loop that runs in this thread, of asyncio, or what stands for one of trio; None where there is none.

    The thread is asked, and no context variable: those go along into other threads.
    """
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    trio = sys.modules.get("trio")
    with suppress(RuntimeError):
        return None if trio is None else trio.lowlevel.current_trio_token()
    return None


@dataclass(slots=True)
class _Wait(Generic[T]):
    """One call, and the thread that waits for it.

    Attributes:
        call: What is called.
        run: Runs an async function in the loop, and waits.
        run_sync: Runs a function in the loop, and waits.
        is_worker: Whether the thread is one of the loop's own.
        is_left: Whether nobody waits any more.
    """

    call: Callable[[], Awaitable[T]]
    run: Callable[..., Any]
    run_sync: Callable[..., Any]
    is_worker: bool
    is_left: bool = False
    _scope: anyio.CancelScope | None = None
    _has_ended: threading.Event = field(default_factory=threading.Event)

    def result(self) -> T:
        """What it returns. Raises what it raises."""
        try:
            value, error = self.run(self._call_and_catch)
        except BaseException:
            self._leave()
            raise
        if error is not None:
            raise error
        return cast("T", value)

    async def _call_and_catch(self) -> tuple[T | None, BaseException | None]:
        """What it returns, and what it raises: an exit that is raised in a loop would end the loop."""
        try:
            with anyio.CancelScope() as self._scope, _one_thread_more() if self.is_worker else nullcontext():
                return None if self.is_left else await self.call(), None
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            return None, error
        finally:
            self._has_ended.set()
        return None, None

    def _leave(self) -> None:
        """Stop the call where it goes on: this thread was interrupted."""
        self.is_left = True  # before the scope is looked at: a call that begins later sees it
        if self._scope is not None and not self._has_ended.is_set():
            self.run_sync(self._scope.cancel)
            self._has_ended.wait()


@contextmanager
def _one_thread_more() -> Iterator[None]:
    """Another thread for the loop, while one of its own waits for it: else all that there are could be waiting."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens += 1
    try:
        yield
    finally:
        limiter.total_tokens -= 1


def _works_for_loop() -> bool:
    """Whether this is a worker thread of a loop. Raises what a cancellation raises where its work was cancelled."""
    if threading.get_ident() == _shared.orphan:
        return False
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


class _SharedLoop:
    """The loop of threads that have none. It begins with the first run, in a thread that keeps no program alive.

    Attributes:
        orphan: In a process that was forked, the thread that the fork has left: the loop that it worked for is not there.
    """

    def __init__(self) -> None:
        self.orphan: int | None = None
        self._kept: tuple[BlockingPortal, asyncio.AbstractEventLoop] | None = None
        self._lock = threading.Lock()

    def portal(self, limit_s: float | None) -> BlockingPortal:
        """The way into the loop, when it answers."""
        with self._lock:
            if self._kept is None or self._kept[1].is_closed():
                self._kept = _start()
            portal, loop = self._kept
        answers = threading.Event()
        loop.call_soon_threadsafe(answers.set)
        if not answers.wait(limit_s):
            raise TurnTimeoutError(BLOCKED.format(limit_s=limit_s or 0.0))
        return portal

    def begin_anew(self) -> None:
        """Forget the loop, in a process that was forked: its thread is not there."""
        self.orphan = threading.get_ident()
        self._kept = None
        self._lock = threading.Lock()


def _start() -> tuple[BlockingPortal, asyncio.AbstractEventLoop]:
    ready: Future[BlockingPortal] = Future()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop, ready), name="dcaf sync runs", daemon=True)
    Context().run(thread.start)  # some builds of Python hand a thread the context of whoever starts it
    return ready.result(), loop


def _run_loop(loop: asyncio.AbstractEventLoop, ready: Future[BlockingPortal]) -> None:
    """Run the loop. An exit that one task wants ends none of the others."""
    serving = loop.create_task(_serve(ready))
    while not serving.done():
        with suppress(KeyboardInterrupt, SystemExit):
            loop.run_until_complete(serving)


async def _serve(ready: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        ready.set_result(portal)
        await portal.sleep_until_stopped()


_shared: Final = _SharedLoop()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_shared.begin_anew)
