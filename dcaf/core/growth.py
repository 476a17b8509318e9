"""Changes that need not know the value they change: counting, and adding to the end of a list.

>>> Added(2).then(Added(3)).applied(b"1", "visits"), Appended([b'"b"']).applied(b'["a"]', "log")
(b'6', b'["a","b"]')

What a reader gets wrong: they commute. Two calls that each count, or append, lose nothing of one another, in whatever order they
end; so each is remembered as what it is, and not as the value that it has led to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dcaf.core.errors import SessionTypeError, StateError
from dcaf.core.handles import Slot
from dcaf.core.json_values import read, to_json, write

EMPTY: Final = b"[]"


@dataclass(frozen=True, slots=True)
class Added:
    """A number that is added to one; an absent value counts as 0."""

    by: int

    def applied(self, data: bytes | None, key: str) -> bytes:
        """The written sum.

        Raises:
            SessionTypeError: The value is no integer.
            SessionValueError: The sum is too large to be stored.
        """
        number = 0 if data is None else read(data)
        if type(number) is not int:
            raise SessionTypeError(f"incr({key!r}): the stored value is not an integer")
        return write(to_json(number + self.by, path=key))

    def then(self, later: Growth) -> Growth:
        """This change and a later one of its kind, as one; one of another kind stands for itself."""
        return Added(self.by + later.by) if isinstance(later, Added) else later


@dataclass(frozen=True, slots=True)
class Appended:
    """Items, as they are written, that are added to the end of a list; an absent value counts as an empty one."""

    items: list[bytes]

    def applied(self, data: bytes | None, key: str) -> bytes:
        """The written list.

        Raises:
            SessionTypeError: The value is no list.
        """
        return extended(write(read_list(data, key)), self.items)

    def then(self, later: Growth) -> Growth:
        """As of ``Added``; it is this one that grows, so that n items take n steps."""
        if not isinstance(later, Appended):
            return later
        self.items.extend(later.items)
        return self


Growth: TypeAlias = Added | Appended


def grow_again(data: bytes | None, key: str, change: Growth) -> bytes | None:
    """A value after a change; None where that does not fit it any more."""
    try:
        return change.applied(data, key)
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
        self.slot.amend(extended(self.slot.data or EMPTY, self.items))
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


def extended(data: bytes, items: list[bytes]) -> bytes:
    """A list, compactly written, with more written items at its end."""
    return b"[%b]" % b",".join([data[1:-1], *items] if data != EMPTY else items)
