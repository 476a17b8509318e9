"""The slots of one state: made when a key is first touched, in the order of a dict, and within the limit of a token.

How much room the keys of a state take in its token, and what is said where they are too large for it.

>>> size_of({"step": b"1"}, 0, 100), at_most("step", b"1")
(10, 29)

What a reader gets wrong: the first is exact and looks at every key. The second is what one key can add at most; while their sum
fits, nobody needs to look.

The slots of one state: made when a key is first touched, in the order of a dict, and within the room of a token.

>>> slots = Slots(Payload(b'{"a":1,"b":2}'))
>>> slots._found("a").data, slots._found("c"), slots._present()
(b'1', None, ['a', 'b'])

What a reader gets wrong: the order. A key stands where it arrived, and a new one where it was set. One that arrived, was dropped
and was set again has moved to the place of its slot, as in a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.errors import SessionValueError
from dcaf.core.handles import ABSENT, Slot
from dcaf.core.json_values import read, to_json, write
from dcaf.core.merging import EMPTY, Tail, read_list
from dcaf.core.parts import ATOMS
from dcaf.core.payload import Members, members_of

if TYPE_CHECKING:
    from dcaf.core.store import Lease

AROUND: Final = len('"":,')
WIDEST: Final = 6
"""Bytes of one character of a written key, at most: that of an escape."""


def at_most(key: str, data: bytes) -> int:
    """The bytes of one key and its written value, at most."""
    return WIDEST * len(key) + len(data) + AROUND


def size_of(lasting: Mapping[str, bytes], own_bytes: int, limit_bytes: int) -> int:
    """The bytes of a written state.

    Args:
        lasting: Its keys and their written values.
        own_bytes: Of the library's own member.
        limit_bytes: How many fit into its token.

    Raises:
        SessionValueError: There are more; the message names the largest keys.
    """
    sizes = {key: len(write(key)) + len(data) + len(":,") for key, data in lasting.items()}
    size = sum(sizes.values()) + own_bytes + 1
    if size > limit_bytes:
        largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
        listed = ", ".join(f"{key!r} ({sizes[key]:,} bytes)" for key in largest)
        raise SessionValueError(
            f"the session would be larger than the {limit_bytes:,} bytes that fit into its token; the largest keys "
            f"are {listed}. Store less, raise max_token_bytes, or keep the state on the server"
        )
    return size


RESERVED: Final = "dcaf"
"""The one key that the library keeps for itself, in the envelope and in the sealed state."""

TEMPORARY: Final = "temp:"
"""Keys with this prefix live until the turn ends: they are never sealed and never shown."""


Lock: Final = type(RLock())
"""The class of such a lock; ``RLock`` itself is a function around it."""


class Slots:
    """What a state is made of. Whoever calls its methods has the lock.

    Args:
        arrived: The state as it came in; None for a new, empty one. It is parsed at the first touch.
        standing: Which session it is of; None outside a conversation.
        limit_bytes: How large the written state may become; None for no limit.

    Attributes:
        arrived, standing, limit_bytes: As above.
        lock: It makes several steps one; who has it may take it again.
        lease: The hold of the turn on the session; None where no store keeps it.
        size_changes: How often a key came or went: who goes through the keys can tell by it that they are others now.
        queue: Who runs the tools of a session keeps their order here; None as long as nobody does.
    """

    __slots__ = (
        *("_late", "_library", "_looked", "_members", "_most_bytes", "_moved", "_own_arrived", "_slots", "_tails"),
        *("arrived", "lease", "limit_bytes", "lock", "queue", "size_changes", "standing"),
    )

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        self.arrived: Payload = arrived or Payload(b"{}")
        self.standing: Standing | None = standing
        self.lease: Lease | None = None
        self.limit_bytes: int | None = limit_bytes
        self._members: Members | None = None
        self._slots: dict[str, Slot] = {}
        self._moved: set[str] = set()
        self._tails: dict[str, Tail] = {}
        self._library: bytes | None = None
        self._own_arrived: bytes | None = None
        self._most_bytes = 0
        self.lock: AbstractContextManager[object] = Lock()
        self._looked = False
        self._late: Callable[[], None] | None = None
        self.size_changes: int = 0
        self.queue: object | None = None

    def slot(self, key: str) -> Slot:
        """The slot of a key, made where there is none.

        Raises:
            SessionValueError: There may be no such key.
        """
        with self.lock:
            slot = self._found(key)
            if slot is None:
                slot = self._slots[checked(key)] = Slot(key, None)
            return slot

    def peek(self, key: str) -> Any:
        """The value of a key that nobody has touched and that cannot change in anyone's hands; ABSENT where its slot must tell."""
        if key in self._slots or key in self._tails:
            return ABSENT
        members = self._members
        if members is None:
            with self.lock:
                members = self._loaded()
        value = members.get(key, ABSENT)
        return value if type(value) in ATOMS else ABSENT

    def _found(self, key: str) -> Slot | None:
        """The slot of a key, made where it arrived and nobody has touched it."""
        if key in self._tails:
            self._join(key)
        slot = self._slots.get(key)
        if slot is None and key in (members := self._members or self._loaded()):
            slot = self._slots[key] = Slot(key, members.written(key))
        return slot

    def _loaded(self) -> Members:
        """What arrived, by key; the slots say what has become of it."""
        members = self._members
        if members is None:
            members = members_of(self.arrived)
            if RESERVED in members:
                self._library = self._own_arrived = members.written(RESERVED)
                del members[RESERVED]
            self._hold(members, len(self.arrived.data))
        return members

    def _hold(self, members: Members, at_most_bytes: int) -> None:
        self._members, self._most_bytes = members, at_most_bytes
        if "\n".join(members).find(TEMPORARY) >= 0:  # in one step what is true of hardly any state
            for key in members:
                if key.startswith(TEMPORARY):
                    self._slots[key] = Slot(key, members.written(key))

    def _present(self) -> list[str]:
        """The present keys in order, as far as written back."""
        members, slots, moved = self._loaded(), self._slots, self._moved
        arrived = [key for key in members if not (key in moved or (key in slots and slots[key].data is None))]
        return arrived + [key for key, slot in slots.items() if slot.data is not None and (key in moved or key not in members)]

    def _now(self) -> Members:
        """The present keys and their values, as far as written back."""
        self._join_all()
        members = self._members or self._loaded()
        return members.updated({key: slot.data for key, slot in self._slots.items()}, self._moved)

    def _lasting(self) -> Members:
        """Those of them that are sealed; each temporary one has a slot."""
        if self._tails:
            self._join_all()
        values: dict[str, bytes | None] = {}
        for key, slot in self._slots.items():
            values[key] = None if key.startswith(TEMPORARY) else slot.data
        return (self._members or self._loaded()).updated(values, self._moved)

    def _insert(self, slot: Slot) -> None:
        """Let an absent key take the last place, before it becomes present."""
        self._count_size_change()
        self._move(slot)

    def _count_size_change(self) -> None:
        self.size_changes += 1

    def _move(self, slot: Slot) -> None:
        key = slot.key
        if key in self._loaded():
            self._moved.add(key)
        self._slots[key] = self._slots.pop(key)

    def _tail(self, key: str) -> Tail:
        """What waits to be appended to a list; nothing so far, where none has begun."""
        found = self._tails.get(key)
        if found is None:
            slot = self.slot(key)
            slot.settle()
            found = Tail(slot, len(read_list(slot.data, key)), [])
        return found

    def _bytes_of(self, tail: Tail, item: bytes) -> int:
        """How many bytes an item adds at most."""
        slot, more_bytes = tail.slot, len(item) + len(",")
        if slot.key in self._tails:
            return more_bytes
        if slot.data is None:
            return at_most(slot.key, EMPTY) + more_bytes
        return more_bytes + (len(slot.data) if slot.handles else 0)  # what was handed out may have grown, and nobody has counted it

    def _begin(self, tail: Tail) -> None:
        """Let items wait, if none do: the list is written compactly, and what was handed out of it is overtaken."""
        slot = tail.slot
        if slot.key not in self._tails:
            if slot.data is None:
                self._insert(slot)
            slot.amend(EMPTY if slot.data is None else write(read(slot.data)))
            self._tails[slot.key] = tail

    def _join(self, key: str) -> None:
        self._tails.pop(key).join()

    def _join_all(self) -> None:
        for key in [*self._tails]:
            self._join(key)

    def _grow(self, key: str, more_bytes: int, data: bytes | Callable[[], bytes]) -> None:
        """Refuse one value, as it is written or as a function writes it, so many bytes longer at most, as ``_check_size``."""
        if self._members is None:
            self._loaded()
        if key.startswith(TEMPORARY):
            return
        self._most_bytes += more_bytes
        if self.limit_bytes is not None and self._most_bytes > self.limit_bytes:
            self._most_bytes = self._check_exactly({key: data if isinstance(data, bytes) else data()})

    def _check_size(self, coming: Mapping[str, bytes | None]) -> None:
        """Refuse, before anything is stored, what would not fit into a token. None takes a key out."""
        if self._members is None:
            self._loaded()
        for key, data in coming.items():
            if data is not None:
                self._most_bytes += at_most(key, data)
        if self.limit_bytes is not None and self._most_bytes > self.limit_bytes:
            self._most_bytes = self._check_exactly(coming)

    def _check_exactly(self, coming: Mapping[str, bytes | None]) -> int:
        """The size of the written state, in bytes; refuse it as ``_check_size``."""
        if self.limit_bytes is None:
            return 0
        now = self._now()
        present: dict[str, bytes | None] = {key: now.written(key) for key in now}
        present.update(coming)
        lasting = {key: data for key, data in present.items() if data is not None and not key.startswith(TEMPORARY)}
        return size_of(lasting, 0 if self._library is None else len(self._library) + len('"dcaf":,'), self.limit_bytes)


def checked(key: str) -> str:
    """A key that there may be.

    Raises:
        SessionValueError: There may not.
    """
    if not isinstance(key, str):
        raise SessionValueError(f"a key of type {type(key).__name__} cannot be stored; keys must be strings")
    if key == RESERVED:
        raise SessionValueError(f"{key!r} is the library's own key; choose another")
    to_json(str.__str__(key), path="the key")
    return str.__str__(key)
