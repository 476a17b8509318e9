"""Two changes of one JSON value that were made side by side, as one: three ways, member by member.

>>> merge({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3}, is_read=True)
({'a': 2, 'b': 3}, [])
>>> merge(["x"], ["x", "y"], ["x", "z"], is_read=True)
(['x', 'y', 'z'], [])
>>> merge({"n": 0}, {"n": 1}, {"n": 2}, is_read=False)
({'n': 2}, ['.n'])

What a reader gets wrong: two changes to the same value are not one. Two tools that each read 0 and wrote 1 have lost a count, so
what was read counts as a clash even where both wrote alike.
"""

from __future__ import annotations

from typing import Any, Final

from dcaf.core.handles import ABSENT
from dcaf.core.paths import join
from dcaf.core.values import write

NOTHING: Final[tuple[Any, ...]] = ()


def merge(base: Any, earlier: Any, later: Any, *, is_read: bool, at: tuple[str | int, ...] = NOTHING) -> tuple[Any, list[str]]:
    """The merged value, and the paths at which the later change won over the earlier one.

    Objects merge by member where all three are objects. Lists merge where both changes only added to the end: first the
    earlier items, then the later ones. Anything else is one value.

    Args:
        base: What both changes began with; ``ABSENT`` for none, here and below.
        earlier: The value after the change that gives way.
        later: The value after the change that wins.
        is_read: Whether either may have been computed from what it began with.
        at: Where these values stand, for the paths.
    """
    if _same(earlier, base):
        return later, []
    if _same(later, base):
        return earlier, []
    if all(isinstance(value, dict) for value in (base, earlier, later)):
        return _objects(base, earlier, later, is_read=is_read, at=at)
    if all(isinstance(value, list) for value in (base, earlier, later)) and _begin_alike(base, earlier, later):
        return earlier + later[len(base) :], []
    if _same(earlier, later) and not is_read:
        return later, []
    return later, [join(at)]


def _objects(
    base: dict[str, Any], earlier: dict[str, Any], later: dict[str, Any], *, is_read: bool, at: tuple[str | int, ...]
) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    clashes: list[str] = []
    for key in dict.fromkeys((*earlier, *later)):
        values = (side.get(key, ABSENT) for side in (base, earlier, later))
        value, below = merge(*values, is_read=is_read, at=(*at, key))
        clashes += below
        if value is not ABSENT:
            found[key] = value
    return found, clashes


def _begin_alike(base: list[Any], *longer: list[Any]) -> bool:
    """Whether lists begin with all of a shorter one."""
    return all(_same(items[: len(base)], base) for items in longer)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are written alike: 1, 1.0 and True are three."""
    if one is other or ABSENT in (one, other):
        return one is other
    return write(one) == write(other)
