"""All that is known of a tool's parameters: who fills each and why, what the model is shown, and what a docstring says of them.

They are read when the tool is made, and once more at its first use if a name was missing then.

>>> def greet(name: str, count: "Count") -> str: ...
>>> reading = Reading(greet, Names.of(greet), Settings(name="greet"))
>>> Count = int  # defined after the tool
>>> reading.plan.lost, reading.finish().plan.lost, reading.finish().arguments.schema["properties"]["count"]
({'count': 'Count'}, {}, {'type': 'integer'})

What is missing at the first use stays missing; the log and ``explain`` say so.

>>> print(Explanation.of("greet", reading.finish().plan))
greet
  name   the model  str, required
  count  the model  int, required
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Final

from pydantic.fields import FieldInfo

from dcaf.tools.annotations import Names
from dcaf.tools.callables import find_docstring
from dcaf.tools.docstrings import Docstring
from dcaf.tools.injectables import format_annotation
from dcaf.tools.injection_plan import Plan
from dcaf.tools.schema import Arguments, strict
from dcaf.tools.settings import Settings

logger: Final[logging.Logger] = logging.getLogger("dcaf")

LOST: Final = "%s: %r takes any JSON value: its annotation names %r, which cannot be found"


class Reading:
    """The parameters of one tool.

    Args:
        function: What is to be called.
        names: Where its annotations look for names.
        settings: What was given with it: its name, for messages, and how its schema is made.
        waits: Its first parameter is the object that it waits for.

    Attributes:
        plan: Who fills what.
        hidden: The names under which a model may send nothing.
        docstring: What the docstring says.
        arguments: The model's part.
        schema: What the model is shown.

    Raises:
        ConfigurationError: As ``Plan``, ``Arguments`` and ``strict``.
    """

    def __init__(self, function: Callable[..., Any], names: Names, settings: Settings, *, waits: bool = False) -> None:
        tool, given = settings.name or "", settings.input_schema
        self._function = function
        self._settings = settings
        self._waits = waits
        self._finished: Reading | None = None
        self.plan: Plan = Plan.of(function, names, waits=waits, is_named=given is None)
        self.hidden: frozenset[str] = self.plan.hidden
        self.docstring: Docstring = Docstring.of(find_docstring(function), hidden=self.hidden)
        self.arguments: Arguments = Arguments(tool, self.plan, self.docstring, given)
        self.schema: dict[str, Any] = strict(self.arguments.schema, tool=tool) if settings.strict else self.arguments.schema
        # Kept only while something is missing, because they hold the locals of the code that made the tool.
        self._names = names if self.plan.lost and not names.is_last else None

    def finish(self) -> Reading:
        """The same, or what is known now that the tool is used. Raises as the constructor."""
        if self._finished is None and self._names is not None:
            self._finished = Reading(self._function, self._names.at_last(), self._settings, waits=self._waits)
            self._names = None
            for name, lost in self._finished.plan.lost.items():
                logger.warning(LOST, self._settings.name, name, lost)
        return self if self._finished is None else self._finished


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter.

    Attributes:
        parameter: Its name, with the stars that it has.
        filled_by: ``the model``, ``the session``, ``session['cart']``, ``nobody`` and the like.
        why: What in the signature says so.
    """

    parameter: str
    filled_by: str
    why: str


REACHED: Final = Row("current_session()", "the session", "called in its code, and no parameter declares it: it may write")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A table, readable with ``str``.

    Attributes:
        tool: The tool's name.
        rows: The injected parameters last, else in the order of the signature.
    """

    tool: str
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, tool: str, plan: Plan, *, reaches_session: bool = False) -> Explanation:
        """Explain a plan.

        Args:
            tool: The tool's name.
            plan: Who fills what.
            reaches_session: Its code calls ``current_session``, and it declares no session.
        """
        return cls(tool, (*_rows(plan), *([REACHED] if reaches_session else [])))

    def __str__(self) -> str:
        first = max((len(row.parameter) for row in self.rows), default=0)
        second = max((len(row.filled_by) for row in self.rows), default=0)
        lines = [f"  {row.parameter:{first}}  {row.filled_by:{second}}  {row.why}" for row in self.rows]
        return "\n".join([self.tool, *(lines or ["  (no parameters)"])])


def _rows(plan: Plan) -> Iterator[Row]:
    for parameter in plan.open:
        yield Row(parameter.name, "the model", _why_open(parameter, plan.lost.get(parameter.name)))
    for parameter in plan.rest:
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else "*"
        yield Row(stars + parameter.name, "nobody", "a model has no names for it, unless input_schema says them")
    for name, fill in plan.injected.items():
        without = ", or None" if fill.may_be_none else ""
        yield Row(name, fill.what + without, plan.reasons[name])


def _why_open(parameter: Parameter, lost: str | None) -> str:
    if lost is not None:
        return f"any JSON value, {_need(parameter)}: its annotation names {lost!r}, which cannot be found"
    if parameter.annotation is parameter.empty:
        return f"any JSON value, {_need(parameter)}: it has no annotation"
    return f"{format_annotation(parameter.annotation)}, {_need(parameter)}"


def _need(parameter: Parameter) -> str:
    default = parameter.default
    is_required = default is parameter.empty or (isinstance(default, FieldInfo) and default.is_required())
    return "required" if is_required else "optional"
