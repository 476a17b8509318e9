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
"""The members on the way to a value, from the outside in."""

ROOT: Final[Path] = ()

EMPTY: Final = b"[]"


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


def read_value(data: bytes | None) -> Any:
    """A written value; ``ABSENT`` where there is none."""
    return ABSENT if data is None else read(data)


def merge_own(base: bytes | None, theirs: bytes | None, mine: bytes | None) -> dict[str, Any]:
    """The library's own member with both changes. Each of its members is an object, and an empty one is left out."""
    before, other, own = (_object(data) for data in (base, theirs, mine))
    merged = {name: merge(before.get(name, {}), other.get(name, {}), own.get(name, {}))[0] for name in {**other, **own}}
    return {name: value for name, value in merged.items() if value}


@dataclass(frozen=True, slots=True)
class Increment:
    """A number that is added to one; an absent value counts as 0."""

    by: int

    def apply(self, data: bytes | None, key: str) -> bytes:
        """The written sum.

        Raises:
            SessionTypeError: The value is no integer.
            SessionValueError: The sum is too large to be stored.
        """
        number = 0 if data is None else read(data)
        if type(number) is not int:
            raise SessionTypeError(f"incr({key!r}): the stored value is not an integer")
        return write(to_json(number + self.by, path=key))

    def combine(self, later: CommutingChange) -> CommutingChange:
        """This change and a later one of its kind, as one; one of another kind stands for itself."""
        return Increment(self.by + later.by) if isinstance(later, Increment) else later


@dataclass(frozen=True, slots=True)
class Append:
    """Items, as they are written, that are added to the end of a list; an absent value counts as an empty one."""

    items: list[bytes]

    def apply(self, data: bytes | None, key: str) -> bytes:
        """The written list.

        Raises:
            SessionTypeError: The value is no list.
        """
        return extend_list(write(read_list(data, key)), self.items)

    def combine(self, later: CommutingChange) -> CommutingChange:
        """As of ``Increment``. This object is extended, so that n items take n steps."""
        if not isinstance(later, Append):
            return later
        self.items.extend(later.items)
        return self


def reapply(data: bytes | None, key: str, change: CommutingChange) -> bytes | None:
    """A value after a change; None where that does not fit it any more."""
    try:
        return change.apply(data, key)
    except StateError:
        return None


@dataclass(slots=True)
class Tail:
    """Items that wait to be written into their slot, until somebody looks at it: then appending n of them takes n steps.

    Attributes:
        slot: The slot; its value is a list, to which handles no longer speak.
        length: How many items the list has with them.
        items: They themselves, as they are written.
    """

    slot: Slot
    length: int
    items: list[bytes]

    def append(self, item: bytes) -> None:
        """Let one more wait."""
        self.items.append(item)
        self.length += 1

    def join(self) -> None:
        """Write them into the slot; none waits any more."""
        self.slot.overwrite(extend_list(self.slot.data or EMPTY, self.items))
        self.items.clear()


def read_list(data: bytes | None, key: str) -> list[Any]:
    """A written list, for ``append``; an absent one is empty.

    Raises:
        SessionTypeError: It is no list.
    """
    found = [] if data is None else read(data)
    if type(found) is not list:
        raise SessionTypeError(f"append({key!r}): the stored value is not a list")
    return found


def extend_list(data: bytes, items: list[bytes]) -> bytes:
    """A list, compactly written, with more written items at its end."""
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
    """Whether lists begin with all of a shorter one."""
    return all(same(items[: len(base)], base) for items in longer)


def _object(data: bytes | None) -> dict[str, Any]:
    found = {} if data is None else read(data)
    assert isinstance(found, dict)
    return found


CommutingChange: TypeAlias = Increment | Append
