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

    def under(self, step: str | int) -> Refusal:
        """The same problem, seen from one container further out."""
        self.path = join((step,)) + self.path
        return self


def misfit(path: str, as_type: Any, error: ValidationError) -> str:
    """Say where a value does not fit its type, without saying the value."""
    name = as_type.__name__ if isinstance(as_type, type) else str(as_type)
    lines = [f"{where}: {problem}" for where, problem in problems(path, error)]
    return f"the value does not fit {name}\n  " + "\n  ".join(lines)


def problems(path: str, error: ValidationError) -> list[tuple[str, str]]:
    """Path and problem of each misfit, without the value."""
    return [(path + join(item["loc"]), _problem(item)) for item in error.errors(include_input=False, include_url=False)]


def join(steps: Iterable[str | int]) -> str:
    """A path as it would be written in Python, after the name of the value."""
    return "".join(_step(step) for step in steps)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{step!r}]"


def _problem(item: Any) -> str:
    return str(item["msg"]) if item["type"] in OWN_WORDS else "refused by the type's own validator"
