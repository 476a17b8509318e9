"""Two changes of one JSON value that were made side by side, as one: three ways, member by member.

>>> merge({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3})
({'a': 2, 'b': 3}, [])
>>> merge(["x"], ["x", "y"], ["x", "z"])
(['x', 'y', 'z'], [])
>>> merge({"n": 0}, {"n": 1}, {"n": 1})
({'n': 1}, [('n',)])

What a reader gets wrong: two equal changes are not one. Two tools that each read 0 and wrote 1 have lost a count, so that is a
clash as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from dcaf.core.handles import ABSENT
from dcaf.core.json_values import read, write

Path: TypeAlias = tuple[str, ...]
"""The members on the way to a value, from the outside in."""

ROOT: Final[Path] = ()


def merge(
    base: Any, theirs: Any, mine: Any, *, wins: Callable[[Path], bool] = lambda _: True, at: Path = ROOT
) -> tuple[Any, list[Path]]:
    """The merged value, and the paths at which only one of two changes could be kept.

    Objects merge by member where all three are objects. Lists merge where both changes only added to the end: first the
    items of the one that gives way. Anything else is one value.

    Args:
        base: What both changes began with; ``ABSENT`` for none, here and below.
        theirs: The value after the one change.
        mine: The value after the other.
        wins: Whether, at a path, mine is kept where only one can be.
        at: Where these values stand.
    """
    if same(theirs, base):
        return mine, []
    if same(mine, base):
        return theirs, []
    if all(isinstance(value, dict) for value in (base, theirs, mine)):
        return _objects(base, theirs, mine, wins=wins, at=at)
    first, last = (theirs, mine) if wins(at) else (mine, theirs)
    if all(isinstance(value, list) for value in (base, first, last)) and _begin_alike(base, first, last):
        return first + last[len(base) :], []
    return last, [at]


def changes(base: Any, value: Any, at: Path = ROOT) -> list[Path]:
    """The paths at which a value differs from what it was, as deep as both are objects."""
    if same(base, value):
        return []
    if not (isinstance(base, dict) and isinstance(value, dict)):
        return [at]
    names = dict.fromkeys((*base, *value))
    return [path for name in names for path in changes(base.get(name, ABSENT), value.get(name, ABSENT), (*at, name))]


def same(one: Any, other: Any) -> bool:
    """Whether two values are written alike: 1, 1.0 and True are three."""
    if one is other or one is ABSENT or other is ABSENT:
        return one is other
    return write(one) == write(other)


def value_of(data: bytes | None) -> Any:
    """A written value; ``ABSENT`` where there is none."""
    return ABSENT if data is None else read(data)


def merge_own(base: bytes | None, theirs: bytes | None, mine: bytes | None) -> dict[str, Any]:
    """The library's own member with both changes. Each of its members is an object, and an empty one is left out."""
    before, other, own = (_object(data) for data in (base, theirs, mine))
    merged = {name: merge(before.get(name, {}), other.get(name, {}), own.get(name, {}))[0] for name in {**other, **own}}
    return {name: value for name, value in merged.items() if value}


def _objects(
    base: dict[str, Any], theirs: dict[str, Any], mine: dict[str, Any], *, wins: Callable[[Path], bool], at: Path
) -> tuple[dict[str, Any], list[Path]]:
    found: dict[str, Any] = {}
    clashes: list[Path] = []
    for name in dict.fromkeys((*theirs, *mine)):
        values = (side.get(name, ABSENT) for side in (base, theirs, mine))
        value, below = merge(*values, wins=wins, at=(*at, name))
        clashes += below
        if value is not ABSENT:
            found[name] = value
    return found, clashes


def _begin_alike(base: list[Any], *longer: list[Any]) -> bool:
    """Whether lists begin with all of a shorter one."""
    return all(same(items[: len(base)], base) for items in longer)


def _object(data: bytes | None) -> dict[str, Any]:
    found = {} if data is None else read(data)
    assert isinstance(found, dict)
    return found
