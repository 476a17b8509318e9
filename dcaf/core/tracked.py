"""A state that a server keeps, whose changes can be laid once more over a newer one that another turn has committed meanwhile.

>>> state = Tracked(Payload(b'{"visits":1,"log":["a"],"step":1}'))
>>> state.add("visits", 1), state.append("log", "b"), state.put("step", 2)
(2, None, None)
>>> state.rebase(Payload(b'{"visits":5,"log":["a","c"],"step":1,"new":true}'))
[]
>>> state.plain()
b'{"visits":6,"log":["a","c","b"],"step":2,"new":true}'

What a reader gets wrong: this is not a merge of two results. What counts and what appends is done again; of anything else each
changed member is kept, and where both turns changed one, this turn comes later and its value stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.errors import StateError
from dcaf.core.growth import Added, Appended, Growth
from dcaf.core.handles import ABSENT, Slot
from dcaf.core.merge import merge
from dcaf.core.slots import TEMPORARY
from dcaf.core.state import Frozen, State
from dcaf.core.values import read, write


class Tracked(State):
    """A state that remembers of each key how it was changed: by counting and appending alone, or otherwise."""

    __slots__ = ("_grown",)

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(arrived, standing, limit_bytes=limit_bytes)
        self._grown: dict[str, Growth] = {}

    def add(self, key: str, by: int) -> int:
        """As of a state."""
        with self._lock:
            found = super().add(key, by)
            self._remember(key, Added(by))
            return found

    def append(self, key: str, value: object) -> None:
        """As of a state."""
        with self._lock:
            super().append(key, value)
            self._remember(key, Appended([self._tails[key].items[-1]]))

    def overwrite(
        self,
        values: Mapping[str, bytes | None],
        changes: Mapping[str, Growth],
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """As of a state; changes that commute stay what they are."""
        with self._lock:
            super().overwrite(values, changes, own)
            for key in values:
                if key in changes:
                    self._remember(key, changes[key])
                else:
                    self._slots[key].is_rewritten = True

    def arrives(self, payload: Payload, standing: Standing, frozen: Frozen | None = None) -> None:
        """As of a state; what was changed since it was frozen is merged as a value."""
        super().arrives(payload, standing, frozen)
        self._grown.clear()
        for slot in self._slots.values():
            slot.is_rewritten = slot.data != slot.arrived

    def refill(self, other: State) -> None:
        """As of a state."""
        with self._lock:
            super().refill(other)
            self._grown.clear()

    def rebase(self, newer: Payload) -> list[str]:
        """Lay what was changed over a newer state; gives the keys where both had changed one value, and this one's was kept.

        What was handed out of a key that the newer state changes is overtaken.

        Raises:
            SessionAliasError, SessionValueError: What was done to the session cannot be written.
        """
        base = State(newer)
        with self._lock:
            self.settle()
            members = base._loaded()
            merged = {key: self._merged(slot, base) for key, slot in self._slots.items() if not key.startswith(TEMPORARY)}
            own = _merged_own(self._own_arrived, base._library, self._library)
            self._arrived, self._own_arrived, self._library = newer, base._library, own
            self._hold(members, len(newer.data))
            for key, (theirs, data, _) in merged.items():
                slot = self._slots[key]
                slot.arrived = theirs
                if data != slot.data:
                    slot.amend(data)
            self._count_size_change()
            return [key for key, (_, _, is_clash) in merged.items() if is_clash]

    def _merged(self, slot: Slot, base: State) -> tuple[bytes | None, bytes | None, bool]:
        """Of one key: the value in the newer state, the one from now on, and whether a change gave way."""
        found = base._found(slot.key)
        theirs = None if found is None else found.data
        if slot.data == slot.arrived:
            return theirs, theirs, False
        if theirs == slot.arrived:
            return theirs, slot.data, False
        counted = None if slot.is_rewritten else _again(theirs, slot.key, self._grown.get(slot.key))
        if counted is not None:
            return theirs, counted, False
        value, paths = merge(_value(slot.arrived), _value(theirs), _value(slot.data))
        return theirs, None if value is ABSENT else write(value), bool(paths)

    def _remember(self, key: str, change: Growth) -> None:
        before = self._grown.get(key)
        self._grown[key] = change if before is None else before.then(change)


def _again(data: bytes | None, key: str, change: Growth | None) -> bytes | None:
    """A value after a change that commutes; None where there is none, or it does not fit the value any more."""
    if change is None:
        return None
    try:
        return change.applied(data, key)
    except StateError:
        return None


def _merged_own(base: bytes | None, theirs: bytes | None, mine: bytes | None) -> bytes | None:
    """The library's own member with both changes. Each of its members is an object, and an empty one is left out."""
    before, other, own = (_object(data) for data in (base, theirs, mine))
    merged = {name: merge(before.get(name, {}), other.get(name, {}), own.get(name, {}))[0] for name in {**other, **own}}
    found = {name: value for name, value in merged.items() if value}
    return write(found) if found else None


def _value(data: bytes | None) -> Any:
    return ABSENT if data is None else read(data)


def _object(data: bytes | None) -> dict[str, Any]:
    found = {} if data is None else read(data)
    return found if isinstance(found, dict) else {}
