"""Somebody else's code, called so that it can end its call and nothing more: not the program, and not the task that it runs in.

>>> import sys
>>> async def call() -> None:
...     with contained():
...         sys.exit(2)
>>> anyio.run(call)
Traceback (most recent call last):
...
dcaf.core.errors.ExitError: The code that was called ended with SystemExit. Raise an Exception instead.

What a reader gets wrong: a cancellation from outside passes, and so does what a signal's handler raises, as Ctrl-C does. Both are
told from the code's own by where they come from, not by their type.
"""

from __future__ import annotations

import asyncio
import dis
import signal
import threading
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any, Final

import anyio

from dcaf.core.errors import ExitError

ENDS_ITERATION: Final = (StopIteration, StopAsyncIteration)
"""Exceptions by their class, and yet no errors: where they pass a generator or a coroutine they mean something else."""


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
        """Whether somebody else ends the code: the one who cancels it, closes it, or has sent a signal."""
        leaves = list(_leaves(error))
        if all(isinstance(leaf, anyio.get_cancelled_exc_class()) for leaf in leaves):
            return is_cancelled()
        if self._in_thread:
            return False
        if isinstance(error, GeneratorExit):
            return trace is not None and trace.tb_next is None  # thrown in where the code is called, and not raised by it
        return any(_is_of_signal(leaf) for leaf in leaves)


def is_cancelled() -> bool:
    """Whether this very task is being cancelled, by a scope around it or by itself."""
    if anyio.current_effective_deadline() == float("-inf"):
        return True
    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
