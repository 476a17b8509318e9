"""Walk the parts of a value, and name the path of a problem in it without quoting the value.

>>> from collections import deque
>>> [*parts_of({"a": 1, "b": deque()})], [*parts_of((True, None))], [*parts_of(5)]
([('a', 1), ('b', deque([]))], [(0, True), (1, None)], [])
>>> class Shout(str): ...
>>> type(base_of(Shout("hey")))
<class 'str'>
>>> join_path(["items", 2, "unit price"])
".items[2]['unit price']"

The parts go by the class of an object and not by the type that is declared for it, so that an object of a
subclass shows all that it has.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from types import NoneType
from typing import Any, Final, TypeAlias, get_args

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core.core_schema import ErrorType

Step: TypeAlias = "str | int | None"
"""The name of a member, a key, or the index of an item; None adds nothing to a path."""

ATOMS: Final = (str, int, float, bool, NoneType)
SETS: Final = (set, frozenset)
SEQUENCES: Final = (list, tuple, deque, *SETS)
ABSENT: Final = object()
"""Stands for a value that is not there, where None is a value."""


def _real(kind: type) -> type:
    """The class of the standard library, also where a test has replaced it to stop the clock (freezegun)."""
    return next(base for base in kind.__mro__ if base.__module__ == "datetime")


DATE, DATETIME, TIME, TIMEDELTA = _real(date), _real(datetime), _real(time), _real(timedelta)

DAY: Final = ("year", "month", "day")
CLOCK: Final = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
TIMES: Final[dict[type, tuple[str, ...]]] = {
    DATETIME: (*DAY, *CLOCK),
    DATE: DAY,
    TIME: CLOCK,
    TIMEDELTA: ("days", "seconds", "microseconds"),
}
"""What each kind of time is made of; a datetime first, which is a date too."""

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
        self.path = self.path if step is None else join_path((step,)) + self.path
        return self


def describe_misfit(path: str, as_type: Any, error: ValidationError) -> str:
    """Say where a value does not fit its type, without saying the value."""
    name = as_type.__name__ if isinstance(as_type, type) else str(as_type)
    lines = [f"{where}: {problem}" for where, problem in list_problems(path, error)]
    return f"the value does not fit {name}\n  " + "\n  ".join(lines)


def list_problems(path: str, error: ValidationError) -> list[tuple[str, str]]:
    """Path and problem of each misfit, without the value."""
    return [(path + join_path(item["loc"]), _problem(item)) for item in error.errors(include_input=False, include_url=False)]


def locate_misfit(item: Any, written: Any) -> Refusal:
    """Turn an error of pydantic about a written value into a refusal with its path; the labels of unions are no steps of it."""
    steps, here = [], written
    for step in item["loc"]:
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and step in range(len(here))):
            here = here[step]
            steps.append(step)
    if item["type"] == "missing":
        steps.append(item["loc"][-1])
    refusal = Refusal(f"would not be read back: {_problem(item)}")
    refusal.path = join_path(steps)
    return refusal


def join_path(steps: Iterable[str | int]) -> str:
    """A path as it would be written in Python, after the name of the value."""
    return "".join(_step(step) for step in steps)


def parts_of(value: object) -> Iterator[tuple[Step, Any]]:
    """The parts of a value with the steps to them; none where it is neither an object with members nor a container.

    Private attributes of a model are not among them, because no model writes or reads them.
    """
    if isinstance(value, BaseModel):
        return _members(value)
    if isinstance(value, Mapping):
        return ((key_step(key), item) for key, item in value.items())
    if isinstance(value, SEQUENCES):
        return enumerate(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((name, getattr(value, name)) for name in fields_of(type(value)) if hasattr(value, name))
    return iter(())


def _fields_of(kind: Any) -> tuple[str, ...]:
    """The names of the members that a model or a dataclass declares."""
    return tuple(kind.model_fields if issubclass(kind, BaseModel) else (item.name for item in dataclasses.fields(kind)))


fields_of: Final[Callable[[type], tuple[str, ...]]] = lru_cache(maxsize=1024)(_fields_of)


def extra_of(value: object) -> Mapping[str, Any]:
    """The members that an object has beyond those of its class, where the class allows that."""
    return getattr(value, "__pydantic_extra__", None) or {}


def base_of(value: Any) -> Any:
    """The equal plain value of an object of a subclass of a text, number or time, or of a NumPy scalar; else the object itself."""
    made = _plain(value)
    return made if type(made) is not type(value) and (is_equal(made, value) or _is_nan(made)) else value


def is_equal(one: Any, other: Any) -> bool:
    """Whether two objects are equal by their own ``==``; False where that raises."""
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - the code of some other library runs here
        return False


def key_step(key: object) -> Step:
    """The step to what stands under a key of a mapping."""
    if isinstance(key, str):
        return str.__str__(key)
    return key if isinstance(key, int) else str(key) if isinstance(key, date) else type(key).__name__


def holds_non_finite(value: Any) -> bool:
    """Whether a NaN or an infinity is somewhere in a value."""
    kind = type(value)
    if kind in ATOMS:
        return kind is float and not math.isfinite(value)
    if kind is list or kind is tuple:
        return any(map(holds_non_finite, value))
    if isinstance(value, float):
        return not math.isfinite(value)
    return any(map(holds_non_finite, _inside(value)))


def _members(model: BaseModel) -> Iterator[tuple[Step, Any]]:
    values = model.__dict__
    is_root = isinstance(model, RootModel)
    for name in type(model).model_fields:
        if name in values:
            yield None if is_root else name, values[name]
    yield from extra_of(model).items()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return _numpy(value) if type(value).__module__ == "numpy" else _time(value)


def _time(value: Any) -> Any:
    """The same time as an object of the standard library's own class."""
    for kind, names in TIMES.items():
        if isinstance(value, kind):
            return kind(**{name: getattr(value, name) for name in names})
    return value


def _numpy(value: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    item = value.item() if isinstance(value, numpy.generic) else value
    return item if type(item) in (str, int, float, bool) else value


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{step!r}]"


def _problem(item: Any) -> str:
    return str(item["msg"]) if item["type"] in OWN_WORDS else "refused by the type's own validator"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _inside(value: Any) -> Iterable[Any]:
    """The parts of a value without the steps to them, which is faster."""
    if isinstance(value, BaseModel):
        members = map(value.__dict__.get, fields_of(type(value)))
        return (*members, *extra_of(value).values())
    return value.values() if isinstance(value, dict) else (part for _, part in parts_of(value))
