"""Lay the changes of a turn over a newer state that another turn has committed in the meantime.

A state that remembers of each key what was counted and appended, so that it can be done once more over another value.

>>> state = Growing()
>>> state.add("visits", 1), state.add("visits", 2)
(1, 3)
>>> state._grown
{'visits': Added(by=3)}

A state that a server keeps, whose changes can be laid once more over a newer one that another turn has committed meanwhile.

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
from typing import Any, NamedTuple

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.handles import ABSENT, Slot
from dcaf.core.json_values import write
from dcaf.core.merging import Added, Appended, Growth, grow_again, merge, merge_own, value_of
from dcaf.core.slots import TEMPORARY
from dcaf.core.state import Frozen, State


class Growing(State):
    """What the call of a tool, and a turn whose state a server keeps, have in common. Arguments are those of a state."""

    __slots__ = ("_grown",)

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(arrived, standing, limit_bytes=limit_bytes)
        self._grown: dict[str, Growth] = {}

    def add(self, key: str, by: int) -> int:
        """As of a state; the change itself is remembered, so that it never clashes with another of its kind."""
        with self.lock:
            found = super().add(key, by)
            self._remember(key, Added(by))
            return found

    def append(self, key: str, value: object) -> None:
        """As ``add``."""
        with self.lock:
            super().append(key, value)
            self._remember(key, Appended([self._tails[key].items[-1]]))

    def _remember(self, key: str, change: Growth) -> None:
        before = self._grown.get(key)
        self._grown[key] = change if before is None else before.then(change)


class _Sealing(NamedTuple):
    """How the keys of a state that is being committed were changed before it was frozen.

    Attributes:
        grown: By counting and appending: key -> how.
        rewritten: The keys that were changed otherwise.
    """

    grown: dict[str, Growth]
    rewritten: set[str]


class Tracked(Growing):
    """A state that remembers of each key how it was changed: by counting and appending alone, or otherwise."""

    __slots__ = ("_sealing",)

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(arrived, standing, limit_bytes=limit_bytes)
        self._sealing: _Sealing | None = None

    def overwrite(
        self,
        values: Mapping[str, bytes | None],
        changes: Mapping[str, Growth],
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """As of a state; changes that commute stay what they are."""
        with self.lock:
            super().overwrite(values, changes, own)
            for key in values:
                if key in changes:
                    self._remember(key, changes[key])
                else:
                    self._slots[key].is_rewritten = True

    def freeze(self) -> Frozen:
        """As of a state; how each key is changed from now on is remembered apart."""
        self._thaw()
        frozen = super().freeze()
        self._sealing = _Sealing(self._grown, {key for key, slot in self._slots.items() if slot.is_rewritten})
        self._forget()
        return frozen

    def arrives(self, payload: Payload, standing: Standing, frozen: Frozen | None = None) -> None:
        """As of a state; of how the keys were changed only what came since they were frozen is remembered."""
        super().arrives(payload, standing, frozen)
        self._sealing = None
        if frozen is None:
            self._forget()

    def refill(self, other: State) -> None:
        """As of a state."""
        with self.lock:
            super().refill(other)
            self._grown, self._sealing = {}, None

    def rebase(self, newer: Payload) -> list[str]:
        """Lay what was changed over a newer state; gives the keys where both had changed one value, and this one's was kept.

        What was handed out of a key that the newer state changes is overtaken.

        Raises:
            SessionAliasError, SessionValueError: What was done to the session cannot be written.
        """
        base = State(newer)
        with self.lock:
            self._thaw()
            self.settle()
            members = base._loaded()
            merged = {key: self._merged(slot, base) for key, slot in self._slots.items() if not key.startswith(TEMPORARY)}
            own = merge_own(self._own_arrived, base._library, self._library)
            self.arrived, self._own_arrived, self._library = newer, base._library, write(own) if own else None
            self._hold(members, len(newer.data))
            for key, (theirs, data, _) in merged.items():
                slot = self._slots[key]
                slot.arrived = theirs
                if data != slot.data:
                    slot.amend(data)
                if data == theirs:  # what was done to it is undone, and does not tell how it is changed from now on
                    slot.is_rewritten = False
                    self._grown.pop(key, None)
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
        change = None if slot.is_rewritten else self._grown.get(slot.key)
        counted = None if change is None else grow_again(theirs, slot.key, change)
        if counted is not None:
            return theirs, counted, False
        value, paths = merge(value_of(slot.arrived), value_of(theirs), value_of(slot.data))
        return theirs, None if value is ABSENT else write(value), bool(paths)

    def _forget(self) -> None:
        self._grown = {}
        for slot in self._slots.values():
            slot.is_rewritten = False

    def _thaw(self) -> None:
        """Take what was frozen for changed still: it was not committed."""
        if self._sealing is None:
            return
        later, (self._grown, rewritten), self._sealing = self._grown, self._sealing, None
        for key, change in later.items():
            self._remember(key, change)
        for key in rewritten:
            self._slots[key].is_rewritten = True
