"""One call of a tool's function, with the arguments of a model.

What a reader gets wrong: what a model sends for a parameter that dcaf fills is dropped, counted and logged, and is no error. A
model cannot correct what it was never shown.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import anyio

from dcaf.core.current import _call
from dcaf.core.errors import ConfigurationError, ToolApprovalError, ToolArgumentError, ToolTimeoutError
from dcaf.core.session import Session
from dcaf.tools.callables import Way, outcome
from dcaf.tools.contained import contained
from dcaf.tools.parameters import Reading
from dcaf.tools.streams import is_stream, items

logger: Final[logging.Logger] = logging.getLogger("dcaf")


@dataclass(frozen=True, slots=True)
class Running:
    """A tool, for a call of it.

    Attributes:
        tool: Its name.
        way: How its function is called.
        reading: Its parameters.
        forged: Counts what a model sent and may not fill.
        needs_approval: Whether a person must approve each call.
        is_parallel: Whether its calls wait for no others.
        limit_s: How long a call may take; None is without end.
    """

    tool: str
    way: Way
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
        if self.way.waits:
            raise ConfigurationError(
                f"{self.tool} is a method, and there is no object: run the tool of one, thing.{self.tool}. On a class method "
                "write @tool above @classmethod."
            )

    async def _result(
        self, arguments: Mapping[str, Any], session: Session | None, *, abandon: bool = False, is_approved: bool = False
    ) -> Any:
        if self.way.waits:
            self.check_has_object()
        read = self.reading.finished()
        token = _call.set(is_approved)
        try:
            values = read.arguments.validate(self.own(arguments))
            call = functools.partial(read.plan.call, self.way.function, values, session)
            return await outcome(call, on_loop=self.way.starts_on_loop, abandon=abandon)
        finally:
            _call.reset(token)
