"""Lay the changes of a turn over a newer state that another turn has committed in the meantime.

>>> state = RebasableState(Payload(b'{"visits":1,"log":["a"],"step":1}'))
>>> state.add("visits", 1), state.append("log", "b"), state.put("step", 2)
(2, None, None)
>>> state.rebase(Payload(b'{"visits":5,"log":["a","c"],"step":1,"new":true}'))
[]
>>> state.plain()
b'{"visits":6,"log":["a","c","b"],"step":2,"new":true}'

Counts and appends are done again on the newer state. Of everything else each changed member is kept; where both turns changed one,
the value of this turn stays, because it comes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.handles import Slot
from dcaf.core.json_values import write
from dcaf.core.merging import Append, CommutingChange, Increment, merge, merge_own, read_value, reapply
from dcaf.core.parts import ABSENT
from dcaf.core.slots import TEMPORARY
from dcaf.core.state import Frozen, State

NOTHING: Final = Increment(0)
"""Remembered for a key that was overwritten in another way than by increments and appends."""


class CommutingState(State):
    """A state that remembers for each key the increments and appends, so that they can be applied again. Arguments as ``State``."""

    __slots__ = ("_commuting",)

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(arrived, standing, limit_bytes=limit_bytes)
        self._commuting: dict[str, CommutingChange] = {}

    def add(self, key: str, by: int) -> int:
        """As ``State.add``; the increment itself is remembered, so that it never clashes with another one."""
        with self.lock:
            found = super().add(key, by)
            self._remember(key, Increment(by))
            return found

    def append(self, key: str, value: object) -> None:
        """As ``State.append``; the item is remembered."""
        with self.lock:
            super().append(key, value)
            self._remember(key, Append([self._tails[key].items[-1]]))

    def overwrite(
        self,
        values: Mapping[str, bytes | None],
        changes: Mapping[str, CommutingChange],
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """As ``State.overwrite``; ``changes`` are remembered."""
        with self.lock:
            super().overwrite(values, changes, own)
            for key in values:
                slot = self._slots[key]
                slot.is_rewritten = slot.is_rewritten or key not in changes
                self._remember(key, changes.get(key, NOTHING))

    def _remember(self, key: str, change: CommutingChange) -> None:
        before = self._commuting.get(key)
        self._commuting[key] = change if before is None else before.combine(change)


class RebasableState(CommutingState):
    """The state of a turn whose session a store keeps: what was changed can be laid over a newer state."""

    __slots__ = ("_sealing",)

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(arrived, standing, limit_bytes=limit_bytes)
        self._sealing: _Sealing | None = None

    def freeze(self) -> Frozen:
        """As ``State.freeze``; later changes are remembered separately."""
        self._thaw()
        frozen = super().freeze()
        self._sealing = _Sealing(self._commuting, {key for key, slot in self._slots.items() if slot.is_rewritten})
        self._forget()
        return frozen

    def find_commuting(self, key: str) -> CommutingChange | None:
        """How a key was changed before the state was frozen; None where it was not by increments or appends alone."""
        sealing = self._sealing
        return None if sealing is None or key in sealing.rewritten else sealing.commuting.get(key)

    def mark_sealed(self, payload: Payload, standing: Standing | None, frozen: Frozen | None = None) -> None:
        """As ``State.mark_sealed``; only the changes since the state was frozen stay remembered."""
        super().mark_sealed(payload, standing, frozen)
        self._sealing = None
        if frozen is None:
            self._forget()

    def refill(self, other: State) -> None:
        """As ``State.refill``; nothing of before is remembered."""
        with self.lock:
            super().refill(other)
            self._commuting, self._sealing = {}, None

    def rebase(self, newer: Payload) -> list[str]:
        """Lay the changes over a newer state; returns the keys where both had changed one value, and this state's was kept.

        Handles of a key that the newer state changes become stale.

        Raises:
            SessionAliasError, SessionValueError: A change cannot be written.
        """
        base = State(newer)
        with self.lock:
            self._thaw()
            self.write_back()
            members = base._load()
            merged = {key: self._merge(slot, base) for key, slot in self._slots.items() if not key.startswith(TEMPORARY)}
            own = merge_own(self._own_arrived, base._library, self._library)
            self.arrived: Payload = newer
            self._own_arrived, self._library = base._library, write(own) if own else None
            self._set_members(members, len(newer.data))
            for key, (theirs, data, _) in merged.items():
                slot = self._slots[key]
                slot.arrived = theirs
                if data != slot.data:
                    slot.overwrite(data)
                if data == theirs:  # its changes cancel out, and say nothing about later ones
                    slot.is_rewritten = False
                    self._commuting.pop(key, None)
            self._count_size_change()
            return [key for key, (_, _, is_clash) in merged.items() if is_clash]

    def _merge(self, slot: Slot, base: State) -> tuple[bytes | None, bytes | None, bool]:
        """The value of one key in the newer state, its merged value, and whether a change was lost."""
        found = base._find_slot(slot.key)
        theirs = None if found is None else found.data
        if slot.data == slot.arrived:
            return theirs, theirs, False
        if theirs == slot.arrived:
            return theirs, slot.data, False
        change = None if slot.is_rewritten else self._commuting.get(slot.key)
        counted = None if change is None else reapply(theirs, slot.key, change)
        if counted is not None:
            return theirs, counted, False
        value, paths = merge(read_value(slot.arrived), read_value(theirs), read_value(slot.data))
        return theirs, None if value is ABSENT else write(value), bool(paths)

    def _forget(self) -> None:
        self._commuting = {}
        for slot in self._slots.values():
            slot.is_rewritten = False

    def _thaw(self) -> None:
        """Join the changes before and after a freeze whose commit failed."""
        if self._sealing is None:
            return
        later, (self._commuting, rewritten), self._sealing = self._commuting, self._sealing, None
        for key, change in later.items():
            self._remember(key, change)
        for key in rewritten:
            self._slots[key].is_rewritten = True


class _Sealing(NamedTuple):
    """How the keys of a state were changed before it was frozen for a commit.

    Attributes:
        commuting: Key -> its increments or appends.
        rewritten: The keys that were changed in another way.
    """

    commuting: dict[str, CommutingChange]
    rewritten: set[str]
