"""Who fills each parameter of a tool, and why: the answer to "where does this value come from?".

>>> print(Explanation("greet", (Row("name", "the model", "str, required"), Row("session", "the session", "annotated as Session"))))
greet
  name     the model    str, required
  session  the session  annotated as Session

What a reader gets wrong: what a partial has decided, and the object that a method is bound to, are no parameters any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import Parameter
from typing import Final

from pydantic.fields import FieldInfo

from dcaf.tools.injection import Plan
from dcaf.tools.providers import spelled


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
    return f"{spelled(parameter.annotation)}, {_need(parameter)}"


def _need(parameter: Parameter) -> str:
    default = parameter.default
    is_required = default is parameter.empty or (isinstance(default, FieldInfo) and default.is_required())
    return "required" if is_required else "optional"
