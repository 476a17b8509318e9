"""Run a tool's function with the arguments of a model: a plain value, or a stream of them.

What a generator yields, one by one, whoever wrote it: a sync one is advanced in a thread, an async one on the loop.

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

One call of a tool's function, with the arguments of a model.

What a reader gets wrong: what a model sends for a parameter that dcaf fills is dropped, counted and logged, and is no error. A
model cannot correct what it was never shown.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, TypeAlias

import anyio

from dcaf.core.context import _call, calling
from dcaf.core.errors import ConfigurationError, ToolApprovalError, ToolArgumentError, ToolTimeoutError
from dcaf.core.session import Session
from dcaf.tools.callables import CallTarget, outcome
from dcaf.tools.parameters import Reading
from dcaf.tools.threads import call_in_thread, contained, is_cancelled, leave_to_thread

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


logger: Final[logging.Logger] = logging.getLogger("dcaf")


@dataclass(frozen=True, slots=True)
class Running:
    """A tool, for a call of it.

    Attributes:
        tool: Its name.
        target: How its function is called.
        reading: Its parameters.
        forged: Counts what a model sent and may not fill.
        needs_approval: Whether a person must approve each call.
        is_parallel: Whether its calls wait for no others.
        limit_s: How long a call may take; None is without end.
    """

    tool: str
    target: CallTarget
    reading: Reading
    forged: Counter[str]
    needs_approval: bool
    is_parallel: bool
    limit_s: float | None

    def check_approval(self, *, is_approved: bool) -> None:
        """Refuse a call that needs the approval of a person and has none.

        Raises:
            ToolApprovalError: It does.
            ConfigurationError: This is neither True nor False.
        """
        if not isinstance(is_approved, bool):
            raise ConfigurationError("is_approved= takes True or False.")
        if self.needs_approval and not is_approved:
            raise ToolApprovalError(f"{self.tool} needs the approval of a person. Ask for it.")

    def own(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments without those that only dcaf may fill.

        Raises:
            ToolArgumentError: They are no mapping.
        """
        if type(arguments) is not dict and not isinstance(arguments, Mapping):
            raise ToolArgumentError("arguments: not an object", [("arguments", "Input should be an object, name -> value")])
        hidden = self.reading.finished().hidden
        if hidden.isdisjoint(arguments):
            return dict(arguments)
        forged = sorted(hidden & set(arguments))
        self.forged.update(forged)
        logger.warning("%s: the model sent %s, which is not its to fill; dropped", self.tool, ", ".join(forged))
        return {name: value for name, value in arguments.items() if name not in hidden}

    async def collected(self, arguments: Mapping[str, Any], session: Session | None, *, is_approved: bool = False) -> Any:
        """What the function returns, if it does so in time; of a generator, a list of what it yields.

        A cancelled call does not wait for its thread. The caller contains what the code of others does.

        Args:
            arguments: Name -> value, as the model sent them.
            session: None where there is none.
            is_approved: Whether a person has approved it.

        Raises:
            ToolTimeoutError: It took longer than it may.
            ToolArgumentError, ConfigurationError, ExitError: As ``Tool.run``.
        """
        with nullcontext() if self.limit_s is None else anyio.move_on_after(self.limit_s):
            result = await self._result(arguments, session, abandon=True, is_approved=is_approved)
            if not is_stream(result):
                return result
            async with aclosing(items(result, abandon=True, is_approved=is_approved)) as found:
                return [item async for item in found]
        raise ToolTimeoutError(
            f"{self.tool} took longer than {self.limit_s:g} seconds and was stopped. Nothing that it did to the session is left."
        )

    async def pieces(
        self, arguments: Mapping[str, Any], session: Session | None, *, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """What it yields, as it comes; of a function that is no generator, its one result. Arguments and errors as above."""
        with contained():
            result = await self._result(arguments, session, is_approved=is_approved)
        if not is_stream(result):
            yield result
            return
        async with aclosing(items(result, is_approved=is_approved)) as found:
            async for item in found:
                yield item

    def check_has_object(self) -> None:
        """Refuse a method that waits for its object."""
        if self.target.waits:
            raise ConfigurationError(
                f"{self.tool} is a method, and there is no object: run the tool of one, thing.{self.tool}. On a class method "
                "write @tool above @classmethod."
            )

    async def _result(
        self, arguments: Mapping[str, Any], session: Session | None, *, abandon: bool = False, is_approved: bool = False
    ) -> Any:
        if self.target.waits:
            self.check_has_object()
        read = self.reading.finished()
        token = _call.set(is_approved)
        try:
            values = read.arguments.validate(self.own(arguments))
            call = functools.partial(read.plan.call, self.target.function, values, session)
            return await outcome(call, on_loop=self.target.starts_on_loop, abandon=abandon)
        finally:
            _call.reset(token)
