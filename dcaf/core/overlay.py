"""The session as one call of a tool sees it: its own until it has returned, and then part of the session, or gone.

>>> from dcaf.core.base64url import Payload
>>> state = State(Payload(b'{"step":1,"log":["a"]}'))
>>> one, other = Overlay(state), Overlay(state)
>>> one.put("step", 2)
>>> other.slot("log").lend().append("b")
>>> one.commit().keys, other.commit().clashes, state.plain()
(['step'], [], b'{"step":2,"log":["a","b"]}')

What a reader gets wrong: reading counts. A call that read a key, and writes it after another call did, has written something that
was computed from what is no longer there. That is a clash even where both wrote the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from dcaf.core.errors import StateError
from dcaf.core.handles import ABSENT, Slot
from dcaf.core.merge import merge
from dcaf.core.state import Change, State
from dcaf.core.values import read, write


class Clash(NamedTuple):
    """A value that two calls changed, where one change had to give way.

    Attributes:
        key: The key of the session.
        path: Where below the key, as in ``.items[0]``; empty for the whole value.
        kind: ``stale-read`` where the call had read the key before it wrote, else ``write-write``.
    """

    key: str
    path: str
    kind: Literal["stale-read", "write-write"]


class Committed(NamedTuple):
    """What a commit did.

    Attributes:
        keys: The keys that the call had changed.
        clashes: Where two changes could not both be kept.
    """

    keys: list[str]
    clashes: list[Clash]


class Overlay(State):
    """What one call reads and writes, over the state of its turn, or over another call's.

    Args:
        parent: The state below. It is looked at when the call first touches its session, and not written before ``commit``.
    """

    __slots__ = ("_changes", "_parent", "_reads")

    def __init__(self, parent: State) -> None:
        super().__init__(standing=parent.standing, limit_bytes=parent._limit_bytes)
        self._parent = parent
        self._reads: set[str] = set()
        self._changes: dict[str, list[Change]] = {}

    def find(self, key: str) -> Slot | None:
        """As of a state; the key counts as read."""
        self._reads.add(key)
        return super().find(key)

    def __iter__(self) -> Iterator[str]:
        keys = list(super().__iter__())
        self._reads.update(keys)
        return iter(keys)

    def plain(self, shows: Callable[[str], bool] | None = None) -> bytes:
        """As of a state; every key counts as read."""
        self._reads.update(self._loaded())
        return super().plain(shows)

    def amend(self, key: str, change: Change) -> None:
        """As of a state; the change itself is remembered, so that it never clashes with another of its kind."""
        with self._lock:
            super().amend(key, change)
            self._changes.setdefault(key, []).append(change)

    def commit(self, *, wins: Callable[[str], bool] = lambda _: True) -> Committed:
        """Make what this call did part of the state below, all of it or, when this raises, nothing.

        Args:
            wins: Whether this call's change of a key wins over what others have committed: it comes later in the turn.

        Raises:
            SessionAliasError, SessionValueError: What the call did cannot be written, or would be too large together.
        """
        with self._lock, self._parent._lock:
            if not self.is_touched:
                return Committed([], [])
            self.settle()
            self._parent.settle()
            changed = [slot for slot in self._loaded().values() if slot.data != slot.arrived]
            merged = {slot.key: self._merged(slot, wins=wins(slot.key)) for slot in changed}
            self._parent.overwrite(
                {key: data for key, (data, _) in merged.items()},
                {key: self._changes[key] for key in merged if self._commutes(self._loaded()[key])},
            )
            self._parent.note_reads(self._reads)
            return Committed(list(merged), [clash for _, clashes in merged.values() for clash in clashes])

    def overwrite(self, values: Mapping[str, bytes | None], changes: Mapping[str, list[Change]]) -> None:
        """As of a state; changes that commute stay what they are."""
        super().overwrite(values, changes)
        for key, own in changes.items():
            self._changes.setdefault(key, []).extend(own)

    def note_reads(self, keys: set[str]) -> None:
        """Count keys as read: a call that was made within this one has read them."""
        self._reads |= keys

    def _loaded(self) -> dict[str, Slot]:
        if self._slots is None:
            with self._parent._lock:
                self._parent.settle()
                slots = self._parent._loaded().values()
                self._slots = {slot.key: Slot(slot.key, slot.data) for slot in slots if slot.data is not None}
                self._library, self._at_most_bytes = self._parent._library, self._parent._at_most_bytes
        return self._slots

    def _commutes(self, slot: Slot) -> bool:
        """Whether all that the call did to a key was to count and to append."""
        if slot.key not in self._changes:
            return False
        return _changed(slot.arrived, self._changes[slot.key]) == slot.data

    def _merged(self, slot: Slot, *, wins: bool) -> tuple[bytes | None, list[Clash]]:
        """What a key is to be in the state below, and where one change gave way."""
        below = self._parent._loaded().get(slot.key)
        theirs = None if below is None else below.data
        is_read = slot.key in self._reads
        if theirs == slot.arrived and (wins or is_read or self._commutes(slot)):
            return slot.data, []
        if theirs == slot.arrived:  # written blindly, after a later call had written it
            return theirs, [Clash(slot.key, "", "write-write")]
        if self._commutes(slot) and (counted := _changed(theirs, self._changes[slot.key])) is not None:
            return counted, []
        base, mine, others = (ABSENT if data is None else read(data) for data in (slot.arrived, slot.data, theirs))
        earlier, later = (others, mine) if wins else (mine, others)
        value, paths = merge(base, earlier, later, is_read=is_read)
        kind: Literal["stale-read", "write-write"] = "stale-read" if is_read else "write-write"
        return None if value is ABSENT else write(value), [Clash(slot.key, path, kind) for path in paths]


def _changed(data: bytes | None, changes: list[Change]) -> bytes | None:
    """A value after some changes; None where one of them does not fit it any more."""
    try:
        for change in changes:
            data = change(data)
    except StateError:
        return None
    return data
