"""Run a tool's function with the arguments of a model: for a value, or for a stream of them.

What a generator yields comes one by one: a sync one is advanced in a thread, an async one on the loop.

>>> import anyio
>>> def count():
...     yield 1
...     yield 2
>>> async def collect() -> list[int]:
...     return [item async for item in iterate(count())]
>>> anyio.run(collect)
[1, 2]

Whoever stops early must close it (``contextlib.aclosing``). Then the generator is closed too, at its ``yield``, and what it does in
``finally`` has been done when ``aclose`` returns.

What a model sends for a parameter that dcaf fills is dropped, counted and logged, and is no error: a model cannot correct what it
was never shown.
"""

from __future__ import annotations

import functools
import inspect
import logging
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
from dcaf.tools.callables import CallTarget
from dcaf.tools.parameters import Reading
from dcaf.tools.threads import Handover, call_and_wait, call_in_thread, contained, is_cancelled, leave_to_thread

logger: Final[logging.Logger] = logging.getLogger("dcaf")

AnyGenerator: TypeAlias = Generator[Any, Any, Any] | AsyncGenerator[Any, Any]

CallScope: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Makes what says of the code inside it that it is a tool's."""

END: Final = object()


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs the function of one tool.

    Attributes:
        tool: The name of the tool.
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

    def drop_forged(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments without those that only dcaf may fill.

        Raises:
            ToolArgumentError: They are no mapping.
        """
        if type(arguments) is not dict and not isinstance(arguments, Mapping):
            raise ToolArgumentError("arguments: not an object", [("arguments", "Input should be an object, name -> value")])
        hidden = self.reading.finish().hidden
        if hidden.isdisjoint(arguments):
            return dict(arguments)
        forged = sorted(hidden & set(arguments))
        self.forged.update(forged)
        logger.warning("%s: the model sent %s, which is not its to fill; dropped", self.tool, ", ".join(forged))
        return {name: value for name, value in arguments.items() if name not in hidden}

    async def run(self, arguments: Mapping[str, Any], session: Session | None, *, is_approved: bool = False) -> Any:
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
            result = await self._call(arguments, session, abandon=True, is_approved=is_approved)
            if not is_generator(result):
                return result
            async with aclosing(iterate(result, abandon=True, is_approved=is_approved)) as found:
                return [item async for item in found]
        raise ToolTimeoutError(
            f"{self.tool} took longer than {self.limit_s:g} seconds and was stopped. Nothing that it did to the session is left."
        )

    async def stream(
        self, arguments: Mapping[str, Any], session: Session | None, *, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """What it yields, as it comes; of a function that is no generator, its one result. Arguments and errors as above."""
        with contained():
            result = await self._call(arguments, session, is_approved=is_approved)
        if not is_generator(result):
            yield result
            return
        async with aclosing(iterate(result, is_approved=is_approved)) as found:
            async for item in found:
                yield item

    def check_has_object(self) -> None:
        """Refuse a method that waits for its object."""
        if self.target.waits:
            raise ConfigurationError(
                f"{self.tool} is a method, and there is no object: run the tool of one, thing.{self.tool}. On a class method "
                "write @tool above @classmethod."
            )

    async def _call(
        self, arguments: Mapping[str, Any], session: Session | None, *, abandon: bool = False, is_approved: bool = False
    ) -> Any:
        if self.target.waits:
            self.check_has_object()
        read = self.reading.finish()
        token = _call.set(is_approved)
        try:
            values = read.arguments.validate(self.drop_forged(arguments))
            call = functools.partial(read.plan.call, self.target.function, values, session)
            return await call_and_wait(call, on_loop=self.target.starts_on_loop, abandon=abandon)
        finally:
            _call.reset(token)


def is_generator(result: object) -> bool:
    """Whether a result comes in pieces."""
    return isinstance(result, GeneratorType | AsyncGeneratorType)


async def iterate(stream: AnyGenerator, *, abandon: bool = False, is_approved: bool = False) -> AsyncGenerator[Any, None]:
    """What a generator yields, as it comes.

    Args:
        stream: The generator.
        abandon: Whether a cancelled reader does not wait for the thread of a sync generator; the thread then closes it.
        is_approved: Whether a person has approved the call that made it.

    Raises:
        ExitError: It ended with something that is no Exception, and that is no cancellation from outside.
    """
    scope = functools.partial(calling, is_approved=is_approved)
    steps = _OnLoop(stream, scope) if isinstance(stream, AsyncGenerator) else _Threaded(stream, scope, abandon=abandon)
    try:
        while (item := await steps.step()) is not END:
            yield item
    finally:
        is_left = abandon and is_cancelled()
        with anyio.CancelScope(shield=True):  # a cancelled reader still lets the generator clean up
            await steps.close(is_left=is_left)


class _OnLoop:
    """Advances and closes an async generator."""

    def __init__(self, stream: AsyncGenerator[Any, Any], scope: CallScope) -> None:
        self._stream = stream
        self._scope = scope

    async def step(self) -> Any:
        with self._scope(), contained():
            return await anext(self._stream, END)

    async def close(self, *, is_left: bool) -> None:  # noqa: ARG002 - as of the other one
        with self._scope(), contained():
            await self._stream.aclose()


class _Threaded:
    """Advances and closes a sync generator, all in one context: a context variable that one step sets is there in the next."""

    def __init__(self, stream: Generator[Any, Any, Any], scope: CallScope, *, abandon: bool) -> None:
        self._stream = stream
        self._abandon = abandon
        self._handover = Handover()
        with scope():
            self._context = copy_context()

    async def step(self) -> Any:
        with contained():
            return await call_in_thread(self._advance, abandon=self._abandon)

    async def close(self, *, is_left: bool) -> None:
        """Close it; a thread that is still busy with it does so itself.

        Args:
            is_left: Nobody waits any more: a thread does it when there is a place.
        """
        is_idle = self._handover.leave()
        if not is_idle or not _has_begun(self._stream):
            return
        if is_left:
            leave_to_thread(self._end)
        else:
            with contained():
                await call_in_thread(self._end)

    def _advance(self) -> Any:
        if not self._handover.begin():
            return END
        try:
            return self._context.run(next, self._stream, END)
        finally:
            if self._handover.end():
                self._end()

    def _end(self) -> None:
        self._context.run(self._stream.close)


def _has_begun(stream: Generator[Any, Any, Any]) -> bool:
    """Whether there is something of it that closing would run."""
    return inspect.getgeneratorstate(stream) == inspect.GEN_SUSPENDED
