"""One call of a tool's function, with the arguments of a model.

What a reader gets wrong: what a model sends for a parameter that dcaf fills is dropped, counted and logged, and is no error. A
model cannot correct what it was never shown.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from dcaf.core.current import calling, current_session
from dcaf.core.errors import ConfigurationError, ToolArgumentError
from dcaf.core.session import Session, session_behind
from dcaf.tools.callables import Way, outcome
from dcaf.tools.contained import contained
from dcaf.tools.reading import Reading
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
    """

    tool: str
    way: Way
    reading: Reading
    forged: Counter[str]

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

    async def collected(
        self, arguments: Mapping[str, Any], session: Session | None, *, abandon: bool = False, is_approved: bool = False
    ) -> Any:
        """What the function returns; of a generator, a list of what it yields.

        Args:
            arguments: Name -> value, as the model sent them.
            session: None takes that of the turn that is running.
            abandon: A cancelled call does not wait for its thread, which has a session of its own.
            is_approved: Whether a person has approved it.

        Raises:
            ToolArgumentError, ConfigurationError, ExitError: As ``Tool.run``.
        """
        result = await self._result(arguments, session, abandon=abandon, is_approved=is_approved)
        if not is_stream(result):
            return result
        async with aclosing(items(result, abandon=abandon, is_approved=is_approved)) as found:
            return [item async for item in found]

    async def pieces(
        self, arguments: Mapping[str, Any], session: Session | None, *, is_approved: bool = False
    ) -> AsyncGenerator[Any, None]:
        """What it yields, as it comes; of a function that is no generator, its one result. Arguments and errors as above."""
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
        self.check_has_object()
        session = None if session is None else session_behind(session, "session=")
        read, function = self.reading.finished(), self.way.function
        with calling(is_approved=is_approved), contained():
            values = read.arguments.validate(self.own(arguments))
            call = functools.partial(read.plan.call, function, values, self._session(read, session))
            return await outcome(call, on_loop=self.way.starts_on_loop, abandon=abandon)

    def _session(self, read: Reading, given: Session | None) -> Session | None:
        if given is not None or not read.plan.injected:
            return given
        try:
            return current_session()
        except ConfigurationError:
            if read.plan.needs_session:
                raise
            return None
