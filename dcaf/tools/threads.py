"""Call the code of others: in a worker thread, and so that it can end its own call and nothing more.

>>> import sys
>>> async def call() -> None:
...     with contained():  # it ends neither the program nor the task that it runs in
...         sys.exit(2)
>>> anyio.run(call)
Traceback (most recent call last):
...
dcaf.core.errors.ExitError: The code that was called ended with SystemExit. Raise an Exception instead.
>>> anyio.run(call_in_thread, lambda: threading.current_thread() is threading.main_thread())
False

A cancellation from outside passes, and so does what a signal's handler raises, as Ctrl-C does. They differ from the code's own by
where they come from, not by their type.

What a reader gets wrong: the threads are anyio's, and Starlette's sync endpoints have the same (40, unless the application says
otherwise: ``anyio.to_thread.current_default_thread_limiter().total_tokens``). A call keeps its place among them until it has ended,
whoever still waits for it; where all are taken, a call waits.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType, TracebackType
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from dcaf.core.errors import ExitError

T = TypeVar("T")

ENDS_ITERATION: Final = (StopIteration, StopAsyncIteration)
"""Exceptions by their class, and yet no errors: where they pass a generator or a coroutine they mean something else."""

_left: Final[set[asyncio.Task[Any]]] = set()
"""Tasks that nobody waits for; asyncio itself holds none."""


class contained:  # noqa: N801 - it is used as a function is
    """Turn what is no Exception into one, for the code inside.

    Args:
        in_thread: What is raised was raised in a worker thread, where no signal comes.

    Raises:
        ExitError: The code ended with something that is no Exception, of its own making; that is the cause.
    """

    __slots__ = ("_in_thread",)

    def __init__(self, *, in_thread: bool = False) -> None:
        self._in_thread = in_thread

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or (isinstance(error, Exception) and not isinstance(error, ENDS_ITERATION)):
            return
        if not self._is_from_outside(error, trace):
            raise ExitError(type(error).__name__) from error

    def _is_from_outside(self, error: BaseException, trace: TracebackType | None) -> bool:
        """Whether the code is ended from outside: it is cancelled or closed, or a signal was sent."""
        leaves = list(_leaves(error))
        if all(isinstance(leaf, anyio.get_cancelled_exc_class()) for leaf in leaves):
            return is_cancelled()
        if self._in_thread:
            return False
        if isinstance(error, GeneratorExit):
            return trace is not None and trace.tb_next is None  # thrown in where the code is called, and not raised by it
        return any(_is_of_signal(leaf) for leaf in leaves)


async def call_and_wait(call: Callable[[], Any], *, on_loop: bool, abandon: bool = False) -> Any:
    """Call code of others and wait for what comes of it. The caller contains what that code does.

    Args:
        call: The call.
        on_loop: As ``starts_on_loop`` of the callables says; any other call runs in a thread, with the caller's context variables.
        abandon: A cancelled call does not wait for its thread, which keeps its place among the threads until it has ended.
    """
    result = call() if on_loop else await call_in_thread(call, abandon=abandon)
    return await result if inspect.isawaitable(result) else result


async def call_in_thread(call: Callable[[], Any], *, abandon: bool = False) -> Any:
    """Call code of others in a worker thread, with the caller's context variables.

    Args:
        call: The call.
        abandon: A cancelled caller does not wait for it. The thread runs on, and nobody sees what comes of it.

    Raises:
        ExitError: It ended with something that is no Exception.
    """
    result, error = await _run(functools.partial(_catch, call), abandon=abandon)
    try:
        with contained(in_thread=True):
            if error is not None:
                raise error
    finally:
        del error  # its frames hold this one
    return result


def leave_to_thread(call: Callable[[], object]) -> None:
    """Make a call in a worker thread when there is a place, and wait for nothing of it; not at all where the program ends first."""
    work = functools.partial(_run, functools.partial(_catch, call), abandon=True)
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        task = asyncio.get_running_loop().create_task(work())
        _left.add(task)
        task.add_done_callback(_left.discard)
    else:
        from trio.lowlevel import spawn_system_task  # noqa: PLC0415 - it is installed where it runs

        spawn_system_task(work)


def is_cancelled() -> bool:
    """Whether this very task is being cancelled, by a scope around it or by itself."""
    if anyio.current_effective_deadline() == float("-inf"):
        return True
    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Handover:
    """Work in a thread, which its caller may leave: whoever is the last to be there cleans up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_busy = False
        self._is_left = False

    def begin(self) -> bool:
        """Have the thread begin; False where the caller has left."""
        with self._lock:
            self._is_busy = not self._is_left
            return self._is_busy

    def end(self) -> bool:
        """Have the thread end; True where the caller has left, so that the thread cleans up."""
        with self._lock:
            self._is_busy = False
            return self._is_left

    def leave(self) -> bool:
        """Have the caller leave; True where the thread is not busy, so that the caller cleans up."""
        with self._lock:
            self._is_left = True
            return not self._is_busy


def _catch(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
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
        self._handover = Handover()

    async def run(self, call: Callable[[], T]) -> T:
        """Make the call when there is a place."""
        await self._limiter.acquire_on_behalf_of(self)
        try:
            return await anyio.to_thread.run_sync(self._work, call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        finally:
            if self._handover.leave():
                self._limiter.release_on_behalf_of(self)

    def _work(self, call: Callable[[], T]) -> T:
        if not self._handover.begin():
            raise RuntimeError("nobody waits for this call, and it has not begun")
        try:
            return call()
        finally:
            if self._handover.end():
                with suppress(RuntimeError):  # the loop is closed: nobody waits for a place any more
                    self._loop.call_soon_threadsafe(self._limiter.release_on_behalf_of, self)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _is_of_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised it: one written in Python is among its frames, and Python's own for Ctrl-C has none."""
    if threading.current_thread() is not threading.main_thread():
        return False
    frames = list(_frames(error.__traceback__))
    handlers = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None}
    if any(code in handlers for code, _ in frames):
        return True
    is_of_python = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return is_of_python and not (frames and _raises(*frames[-1]))


def _frames(trace: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_lasti
        trace = trace.tb_next


def _code_of(handler: Any) -> CodeType | None:
    for name in ("func", "__func__", "__wrapped__"):  # of a partial, of a method in it, of a function that is decorated
        handler = getattr(handler, name, handler)
    return getattr(handler, "__code__", None)


def _raises(code: CodeType, at: int) -> bool:
    """Whether an instruction is a ``raise``: a signal comes between two others."""
    return dis.opname[code.co_code[at]].startswith(("RAISE", "RERAISE"))
