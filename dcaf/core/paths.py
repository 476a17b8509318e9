"""Where in a value a problem stands, said without saying the value.

>>> join(["items", 2, "unit price"])
".items[2]['unit price']"

What a reader gets wrong: a message of pydantic may quote the value, and a validator's own words may too. Those are replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

QUOTING: Final = {"value_error", "assertion_error", "union_tag_invalid", "uuid_parsing", "url_parsing"}
OWN_WORDS: Final = frozenset(get_args(ErrorType)) - QUOTING
"""Errors whose message is pydantic's own and does not quote the value."""


class Refusal(Exception):
    """A value may not be stored; each container that it passes on its way up adds its step to the path."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem: str = problem
        self.path: str = ""

    def under(self, step: str | int | None) -> Refusal:
        """The same problem, seen from one container further out; None where that one adds nothing to a path."""
        self.path = self.path if step is None else join((step,)) + self.path
        return self


def misfit(path: str, as_type: Any, error: ValidationError) -> str:
    """Say where a value does not fit its type, without saying the value."""
    name = as_type.__name__ if isinstance(as_type, type) else str(as_type)
    lines = [f"{where}: {problem}" for where, problem in problems(path, error)]
    return f"the value does not fit {name}\n  " + "\n  ".join(lines)


def problems(path: str, error: ValidationError) -> list[tuple[str, str]]:
    """Path and problem of each misfit, without the value."""
    return [(path + join(item["loc"]), _problem(item)) for item in error.errors(include_input=False, include_url=False)]


def locate(item: Any, written: Any) -> Refusal:
    """What is wrong with a written value that its type does not read, and where: the labels of unions are no steps."""
    steps, here = [], written
    for step in item["loc"]:
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and step in range(len(here))):
            here = here[step]
            steps.append(step)
    if item["type"] == "missing":
        steps.append(item["loc"][-1])
    refusal = Refusal(f"would not be read back: {_problem(item)}")
    refusal.path = join(steps)
    return refusal


def join(steps: Iterable[str | int]) -> str:
    """A path as it would be written in Python, after the name of the value."""
    return "".join(_step(step) for step in steps)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{step!r}]"


def _problem(item: Any) -> str:
    return str(item["msg"]) if item["type"] in OWN_WORDS else "refused by the type's own validator"
