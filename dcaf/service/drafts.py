"""What a turn is going to remember, and what a call of a tool in it is: part of a turn, and of its commit, or nothing.

>>> from dcaf.service.remembered import Fact, MemoryScope
>>> from dcaf.service.tables import Owner
>>> draft = MemoryDraft(MemoryScope.of_user(Owner("clinic", "p-123", partitions=1)))
>>> draft.put("allergies", Fact(b'["penicillin"]'))
>>> call = draft.begin()
>>> call.clear()
>>> call.find("allergies"), draft.find("allergies").fact
(Pending(fact=None), Fact(ttl_ms=None))
>>> draft.take_over(call)
>>> draft.find("allergies").fact is None
True
"""

from __future__ import annotations

from threading import RLock
from typing import NamedTuple

from dcaf.service.memory_plans import Recalled
from dcaf.service.remembered import Fact, MemoryChange, MemoryScope


class Pending(NamedTuple):
    """What is going to be remembered under a name.

    Attributes:
        fact: The fact; None for nothing.
    """

    fact: Fact | None


class MemoryDraft:
    """What is going to be written to one memory.

    Args:
        scope: Whose memory.
        below: The draft of the turn, or of the call around this one; None for that of the turn itself.
    """

    def __init__(self, scope: MemoryScope, below: MemoryDraft | None = None) -> None:
        self.scope: MemoryScope = scope
        self._below = below
        self._lock: RLock = RLock() if below is None else below._lock
        self._facts: dict[str, Fact | None] = {}
        self._clears = 0
        self._generation = 0
        self._created: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self._facts or self._clears)

    @property
    def generation(self) -> int:
        """The generation of the memory, as far as known."""
        return self._generation if self._below is None else self._below.generation

    def put(self, name: str, fact: Fact | None) -> None:
        """Remember a fact, or with None forget it."""
        with self._lock:
            self._facts[name] = fact

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._facts = {}
            self._clears += 1

    def find(self, name: str) -> Pending | None:
        """What is going to be under a name; None where only the engine knows."""
        with self._lock:
            if name in self._facts or self._clears:
                return Pending(self._facts.get(name))
            return None if self._below is None else self._below.find(name)

    def find_all(self) -> tuple[dict[str, Fact | None], bool]:
        """All that is going to be remembered or forgotten, and whether everything else is forgotten."""
        with self._lock:
            if self._clears or self._below is None:
                return dict(self._facts), self._clears > 0
            facts, is_cleared = self._below.find_all()
            return {**facts, **self._facts}, is_cleared

    def note(self, name: str, recalled: Recalled) -> None:
        """Keep of what was read what spares the commit a second attempt."""
        if self._below is not None:
            self._below.note(name, recalled)
            return
        created = None if recalled.row is None else recalled.row["created"]
        with self._lock:
            if recalled.generation != self._generation:
                self._generation, self._created = recalled.generation, {}
            if isinstance(created, int):
                self._created[name] = created

    def begin(self) -> MemoryDraft:
        """A draft over this one."""
        return MemoryDraft(self.scope, self)

    def take_over(self, other: MemoryDraft) -> None:
        """Do what another draft is going to do after what this one is."""
        with self._lock:
            if other._clears:
                self._facts, self._clears = {}, self._clears + other._clears
            self._facts |= other._facts

    def move(self, scope: MemoryScope) -> None:
        """Write to another memory from now on, of which nothing is known."""
        with self._lock:
            self.scope, self._generation, self._created = scope, 0, {}

    def find_changes(self) -> list[MemoryChange]:
        """What is to be committed: one change, or none."""
        with self._lock:
            if self.is_empty:
                return []
            return [MemoryChange(self.scope, dict(self._facts), self._clears, self._generation, dict(self._created))]

    def take_committed(self, change: MemoryChange) -> None:
        """Count only what came after ``find_changes`` as a change."""
        with self._lock:
            self._clears -= change.clears
            self._facts = {name: fact for name, fact in self._facts.items() if not _is_in(change, name, fact)}
            self._generation, self._created = change.after, {}


def _is_in(change: MemoryChange, name: str, fact: Fact | None) -> bool:
    return name in change.facts and change.facts[name] is fact
