"""Merge two changes of one JSON value that were made at the same time; counts and appends never conflict.

>>> merge({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3})
({'a': 2, 'b': 3}, [])
>>> merge(["x"], ["x", "y"], ["x", "z"])
(['x', 'y', 'z'], [])
>>> merge({"n": 0}, {"n": 1}, {"n": 1})
({'n': 1}, [('n',)])
>>> Increment(2).combine(Increment(3)).apply(b"1", "visits"), Append([b'"b"']).apply(b'["a"]', "log")
(b'6', b'["a","b"]')

What a reader gets wrong: two equal changes are a conflict as well. Two tools that each read 0 and wrote 1 have lost a count. An
``Increment`` does not read, so two of them lose nothing, in whichever order they end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dcaf.core.errors import SessionTypeError, StateError
from dcaf.core.handles import Slot
from dcaf.core.json_values import read, to_json, write
from dcaf.core.parts import ABSENT

Path: TypeAlias = tuple[str, ...]
"""The names of the members on the way to a value, the outermost first."""

ROOT: Final[Path] = ()

EMPTY: Final = b"[]"


def merge(
    base: Any, theirs: Any, mine: Any, *, wins: Callable[[Path], bool] = lambda _: True, at: Path = ROOT
) -> tuple[Any, list[Path]]:
    """Merge two values three ways; returns the merged value, and the paths at which only one of two changes could be kept.

    Three objects merge member by member. Lists merge where both changes only appended; the items of the losing change come first.
    Anything else is one value.

    Args:
        base: The value before both changes; ``ABSENT`` for none, here and below.
        theirs: The value after the one change.
        mine: The value after the other.
        wins: Tells whether mine is kept at a path where only one can be.
        at: The path of these values.
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
    """Whether two values are written alike; 1, 1.0 and True are not."""
    if one is other or one is ABSENT or other is ABSENT:
        return one is other
    return write(one) == write(other)


def read_value(data: bytes | None) -> Any:
    """Read a written value; ``ABSENT`` for None."""
    return ABSENT if data is None else read(data)


def merge_own(base: bytes | None, theirs: bytes | None, mine: bytes | None) -> dict[str, Any]:
    """Merge two changes of the library's own member. Each member of it is an object, and an empty one is left out."""
    before, other, own = (_object(data) for data in (base, theirs, mine))
    merged = {name: merge(before.get(name, {}), other.get(name, {}), own.get(name, {}))[0] for name in {**other, **own}}
    return {name: value for name, value in merged.items() if value}


@dataclass(frozen=True, slots=True)
class Increment:
    """A number that is added to one; an absent value counts as 0."""

    by: int

    def apply(self, data: bytes | None, key: str) -> bytes:
        """Write the sum.

        Raises:
            SessionTypeError: The value is no integer.
            SessionValueError: The sum is too large to be stored.
        """
        number = 0 if data is None else read(data)
        if type(number) is not int:
            raise SessionTypeError(f"incr({key!r}): the stored value is not an integer")
        return write(to_json(number + self.by, path=key))

    def combine(self, later: CommutingChange) -> CommutingChange:
        """This change and a later one as one change; a later one of another kind replaces it."""
        return Increment(self.by + later.by) if isinstance(later, Increment) else later


@dataclass(frozen=True, slots=True)
class Append:
    """Written items that are added to the end of a list; an absent value counts as an empty one."""

    items: list[bytes]

    def apply(self, data: bytes | None, key: str) -> bytes:
        """Write the list.

        Raises:
            SessionTypeError: The value is no list.
        """
        return extend_list(write(read_list(data, key)), self.items)

    def combine(self, later: CommutingChange) -> CommutingChange:
        """As ``Increment.combine``. This object is extended in place, so that n items take n steps."""
        if not isinstance(later, Append):
            return later
        self.items.extend(later.items)
        return self


CommutingChange: TypeAlias = Increment | Append
"""A change that need not know the value it changes."""


def reapply(data: bytes | None, key: str, change: CommutingChange) -> bytes | None:
    """Apply a change once more to another value; None where the change no longer fits it."""
    try:
        return change.apply(data, key)
    except StateError:
        return None


@dataclass(slots=True)
class Tail:
    """Pending appends: written into their slot when it is next read, so that appending n items takes n steps.

    Attributes:
        slot: The slot; its value is a list, and its handles are stale.
        length: The length of the list with the pending items.
        items: The pending items, written.
    """

    slot: Slot
    length: int
    items: list[bytes]

    def append(self, item: bytes) -> None:
        """Add a pending item."""
        self.items.append(item)
        self.length += 1

    def write(self) -> None:
        """Write all pending items into the slot."""
        self.slot.overwrite(extend_list(self.slot.data or EMPTY, self.items))
        self.items.clear()


def read_list(data: bytes | None, key: str) -> list[Any]:
    """Read a written list for ``append``; an absent one is empty.

    Raises:
        SessionTypeError: The value is no list.
    """
    found = [] if data is None else read(data)
    if type(found) is not list:
        raise SessionTypeError(f"append({key!r}): the stored value is not a list")
    return found


def extend_list(data: bytes, items: list[bytes]) -> bytes:
    """Add written items to the end of a compactly written list."""
    return b"[%b]" % b",".join([data[1:-1], *items] if data != EMPTY else items)


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
    """Whether each list begins with all items of a shorter one."""
    return all(same(items[: len(base)], base) for items in longer)


def _object(data: bytes | None) -> dict[str, Any]:
    found = {} if data is None else read(data)
    assert isinstance(found, dict)
    return found
