"""All that is known of a tool's parameters: read when it is made, and once more at first use if a name was missing then.

>>> def greet(name: str, count: "Count") -> str: ...
>>> reading = Reading(greet, Names.of(greet), tool="greet")
>>> Count = int  # defined after the tool
>>> reading.plan.lost, reading.finished().plan.lost, reading.finished().arguments.schema["properties"]["count"]
({'count': 'Count'}, {}, {'type': 'integer'})

What a reader gets wrong: the second time is the last. What is missing then stays missing, and the log and ``explain`` say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from dcaf.tools.annotations import Names
from dcaf.tools.callables import documentation
from dcaf.tools.docstrings import Docstring
from dcaf.tools.injection import Plan
from dcaf.tools.schema import Arguments, strict

logger: Final[logging.Logger] = logging.getLogger("dcaf")


class Reading:
    """The parameters of one tool.

    Args:
        function: What is to be called.
        names: Where its annotations look for names.
        tool: Its name, for messages.
        waits: Its first parameter is the object that it waits for.
        given: A schema that was written by hand; None to make one.
        is_strict: Whether the schema must be one for strict providers.

    Attributes:
        plan: Who fills what.
        hidden: The names under which a model may send nothing.
        said: What the docstring says.
        arguments: The model's part.
        schema: What the model is shown.

    Raises:
        ConfigurationError: As ``Plan``, ``Arguments`` and ``strict``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        names: Names,
        *,
        tool: str,
        waits: bool = False,
        given: Mapping[str, Any] | None = None,
        is_strict: bool = False,
    ) -> None:
        self._function = function
        self._settings: dict[str, Any] = {"tool": tool, "waits": waits, "given": given, "is_strict": is_strict}
        self._finished: Reading | None = None
        self.plan: Plan = Plan.of(function, names, waits=waits, is_named=given is None)
        self.hidden: frozenset[str] = self.plan.hidden
        self.said: Docstring = Docstring.of(documentation(function), hidden=self.hidden)
        self.arguments: Arguments = Arguments(tool, self.plan, self.said, given)
        self.schema: dict[str, Any] = strict(self.arguments.schema, tool=tool) if is_strict else self.arguments.schema
        # Kept only while something is missing: the names hold the locals of whoever made the tool.
        self._names = names if self.plan.lost and not names.is_last else None

    def finished(self) -> Reading:
        """The same, or what is known now that the tool is used. Raises as the constructor."""
        if self._finished is None and self._names is not None:
            self._finished = Reading(self._function, self._names.at_last(), **self._settings)
            self._names = None
            for name, lost in self._finished.plan.lost.items():
                tool = self._settings["tool"]
                logger.warning("%s: %r takes any JSON value: its annotation names %r, which cannot be found", tool, name, lost)
        return self if self._finished is None else self._finished
