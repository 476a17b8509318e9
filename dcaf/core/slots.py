"""The slots of one state: made when a key is first touched, in the order of a dict, and within the limit of a token.

>>> slots = Slots(Payload(b'{"a":1,"b":2}'))
>>> slots._find_slot("a").data, slots._find_slot("c"), slots._present_keys()
(b'1', None, ['a', 'b'])
>>> count_bytes({"step": b"1"}, 0, 100), count_bytes_at_most("step", b"1")
(10, 29)

The size of a state is counted by an upper bound for each key. Only where their sum is over the limit, every key is counted exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dcaf.core.base64url import Payload
from dcaf.core.claims import Claims, Standing
from dcaf.core.errors import SessionValueError
from dcaf.core.handles import Slot
from dcaf.core.json_values import read, to_json, write
from dcaf.core.merging import EMPTY, Tail, read_list
from dcaf.core.parts import ABSENT, ATOMS
from dcaf.core.payload import Members, members_of

if TYPE_CHECKING:
    from dcaf.core.journal import Journal
    from dcaf.core.store import Lease

PUNCTUATION_BYTES: Final = len('"":,')
WIDEST: Final = 6
"""The most bytes that one character of a written key takes, as an escape."""

RESERVED: Final = "dcaf"
"""The library's own key, in the envelope and in the sealed state."""

TEMPORARY: Final = "temp:"
"""Keys with this prefix live until the turn ends: they are never sealed and never shown."""

Lock: Final = type(RLock())
"""The class of a reentrant lock, because ``RLock`` itself is a function around it."""


class Resumed(NamedTuple):
    """A session that a server keeps, and of which a client gets the newest token once more.

    Attributes:
        claims: What its newest token says. Binding and times are those of the moment when it is sealed.
        payload: Its state.
        version: Of the state's schema.
        shared: What the keys begin with that other sessions have, too.
    """

    claims: Claims
    payload: Payload
    version: int
    shared: tuple[str, ...]

    def __repr__(self) -> str:
        return "Resumed(...)"


class Closing(NamedTuple):
    """What becomes of a session when it is sealed next: it ends, or goes on as another one, or gives way to another one.

    Attributes:
        rotates: Whether it goes on, under a new id.
        subject: Whom the new session, or that other one, is bound to; None for the same as before.
        resumed: That other one; None for none.
    """

    rotates: bool
    subject: str | None = None
    resumed: Resumed | None = None


def count_bytes_at_most(key: str, data: bytes) -> int:
    """An upper bound for the bytes of one key and its written value."""
    return WIDEST * len(key) + len(data) + PUNCTUATION_BYTES


def count_bytes(lasting: Mapping[str, bytes], own_bytes: int, limit_bytes: int) -> int:
    """Count the bytes of a written state exactly.

    Args:
        lasting: Its keys and their written values.
        own_bytes: The size of the library's own member.
        limit_bytes: How many bytes fit into the token.

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


class Slots:
    """The storage of a state, below its atomic methods. Callers of its private methods hold the lock.

    Args:
        arrived: The state as it came in; None for a new, empty one. It is parsed when it is first touched.
        standing: The session that the state belongs to; None outside a conversation.
        limit_bytes: The most bytes that the written state may have; None for no limit.

    Attributes:
        arrived, standing, limit_bytes: As above.
        lock: Makes several steps atomic; whoever holds it may take it again.
        late: Called by a change after the turn has ended, before the change is refused; None until then.
        lease: The turn's lease on the session; None where no store keeps it.
        journal: What is added beside the state; None where no store keeps such things.
        size_changes: How often a key came or went, so that an iteration can notice it.
        queue: Where ``dcaf.tools`` keeps the order of a session's calls; None before the first one.
        closing: What the application wants to become of the session when it is sealed next; None for nothing special.
        is_closed: Whether the session was ended, and the client is to get no token of it any more.
        has_spent: Whether a store was asked to use up a key of the session, so that its client must have a token of it.
    """

    __slots__ = (
        *("_library", "_looked", "_members", "_most_bytes", "_moved", "_own_arrived", "_slots", "_tails"),
        *(
            "arrived",
            "closing",
            "has_spent",
            "is_closed",
            "journal",
            "late",
            "lease",
            "limit_bytes",
            "lock",
            "queue",
            "size_changes",
            "standing",
        ),
    )

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        self.arrived: Payload = arrived or Payload(b"{}")
        self.standing: Standing | None = standing
        self.late: Callable[[], None] | None = None
        self.lease: Lease | None = None
        self.journal: Journal | None = None
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
        self.size_changes: int = 0
        self.queue: object | None = None
        self.closing: Closing | None = None
        self.is_closed: bool = False
        self.has_spent: bool = False

    def take_lease(self, lease: Lease | None) -> None:
        """Go on under a lease, or under none; what was added beside the state and not committed goes on under it, too."""
        with self.lock:
            before, self.lease, self.journal = self.journal, lease, getattr(lease, "journal", None)
            if before is not None and self.journal not in (None, before) and not before.is_empty:
                self.journal.take_over(before)

    def slot(self, key: str) -> Slot:
        """The slot of a key, made where there is none.

        Raises:
            SessionValueError: There may be no such key.
        """
        with self.lock:
            slot = self._find_slot(key)
            if slot is None:
                slot = self._slots[check_key(key)] = Slot(key, None)
            return slot

    def peek(self, key: str) -> Any:
        """The value of an untouched key that no live object can change; ABSENT where the slot must be asked."""
        if key in self._slots or key in self._tails:
            return ABSENT
        members = self._members
        if members is None:
            with self.lock:
                members = self._load()
        value = members.get(key, ABSENT)
        return value if type(value) in ATOMS else ABSENT

    def _find_slot(self, key: str) -> Slot | None:
        """The slot of a key, made where the key arrived and is untouched; None where there is no such key."""
        if key in self._tails:
            self._write_tail(key)
        slot = self._slots.get(key)
        if slot is None and key in (members := self._members or self._load()):
            slot = self._slots[key] = Slot(key, members.written(key))
        return slot

    def _load(self) -> Members:
        """What arrived, by key; the slots have what has changed since."""
        members = self._members
        if members is None:
            members = members_of(self.arrived)
            if RESERVED in members:
                self._library = self._own_arrived = members.written(RESERVED)
                del members[RESERVED]
            self._set_members(members, len(self.arrived.data))
        return members

    def _set_members(self, members: Members, at_most_bytes: int) -> None:
        self._members, self._most_bytes = members, at_most_bytes
        if "\n".join(members).find(TEMPORARY) >= 0:  # one search, because hardly any state has one
            for key in members:
                if key.startswith(TEMPORARY):
                    self._slots[key] = Slot(key, members.written(key))

    def _present_keys(self) -> list[str]:
        """The present keys in order; handles that changed are not written back first."""
        members, slots, moved = self._load(), self._slots, self._moved
        arrived = [key for key in members if not (key in moved or (key in slots and slots[key].data is None))]
        return arrived + [key for key, slot in slots.items() if slot.data is not None and (key in moved or key not in members)]

    def _current_members(self) -> Members:
        """The present keys and their values; handles that changed are not written back first."""
        self._write_tails()
        members = self._members or self._load()
        return members.updated({key: slot.data for key, slot in self._slots.items()}, self._moved)

    def _lasting_members(self) -> Members:
        """The members that are sealed. Every temporary key has a slot, so that it can be left out."""
        if self._tails:
            self._write_tails()
        values: dict[str, bytes | None] = {}
        for key, slot in self._slots.items():
            values[key] = None if key.startswith(TEMPORARY) else slot.data
        return (self._members or self._load()).updated(values, self._moved)

    def _insert(self, slot: Slot) -> None:
        """Move an absent key to the last place, before it becomes present."""
        self._count_size_change()
        self._move(slot)

    def _count_size_change(self) -> None:
        self.size_changes += 1

    def _move(self, slot: Slot) -> None:
        key = slot.key
        if key in self._load():
            self._moved.add(key)
        self._slots[key] = self._slots.pop(key)

    def _tail(self, key: str) -> Tail:
        """The pending appends of a list, empty where there are none so far."""
        found = self._tails.get(key)
        if found is None:
            slot = self.slot(key)
            slot.write_back()
            found = Tail(slot, len(read_list(slot.data, key)), [])
        return found

    def _count_tail_bytes(self, tail: Tail, item: bytes) -> int:
        """An upper bound for the bytes that an item adds."""
        slot, more_bytes = tail.slot, len(item) + len(",")
        if slot.key in self._tails:
            return more_bytes
        if slot.data is None:
            return count_bytes_at_most(slot.key, EMPTY) + more_bytes
        return more_bytes + (len(slot.data) if slot.handles else 0)  # its handles may have grown uncounted

    def _begin_tail(self, tail: Tail) -> None:
        """Begin pending appends, if there are none: the list is written compactly, and its handles become stale."""
        slot = tail.slot
        if slot.key not in self._tails:
            if slot.data is None:
                self._insert(slot)
            slot.overwrite(EMPTY if slot.data is None else write(read(slot.data)))
            self._tails[slot.key] = tail

    def _write_tail(self, key: str) -> None:
        self._tails.pop(key).write()

    def _write_tails(self) -> None:
        for key in [*self._tails]:
            self._write_tail(key)

    def _check_growth(self, key: str, more_bytes: int, data: bytes | Callable[[], bytes]) -> None:
        """Refuse one value that would not fit, as ``_check_size`` does.

        Args:
            key: Its key.
            more_bytes: An upper bound for the bytes that it adds.
            data: The written value, or a function that writes it, which is called only where the exact size counts.
        """
        if self._members is None:
            self._load()
        if key.startswith(TEMPORARY):
            return
        self._most_bytes += more_bytes
        if self.limit_bytes is not None and self._most_bytes > self.limit_bytes:
            self._most_bytes = self._check_exactly({key: data if isinstance(data, bytes) else data()})

    def _check_size(self, coming: Mapping[str, bytes | None]) -> None:
        """Refuse values that would not fit into a token, before anything is stored. None stands for an absent key."""
        if self._members is None:
            self._load()
        for key, data in coming.items():
            if data is not None:
                self._most_bytes += count_bytes_at_most(key, data)
        if self.limit_bytes is not None and self._most_bytes > self.limit_bytes:
            self._most_bytes = self._check_exactly(coming)

    def _check_exactly(self, coming: Mapping[str, bytes | None]) -> int:
        """The exact size of the written state in bytes. Raises as ``_check_size``."""
        if self.limit_bytes is None:
            return 0
        now = self._current_members()
        present: dict[str, bytes | None] = {key: now.written(key) for key in now}
        present.update(coming)
        lasting = {key: data for key, data in present.items() if data is not None and not key.startswith(TEMPORARY)}
        return count_bytes(lasting, 0 if self._library is None else len(self._library) + len('"dcaf":,'), self.limit_bytes)


def check_key(key: str) -> str:
    """Refuse a key that a session cannot have.

    Raises:
        SessionValueError: It is no text, the library's own key, or no Unicode.
    """
    if not isinstance(key, str):
        raise SessionValueError(f"a key of type {type(key).__name__} cannot be stored; keys must be strings")
    if key == RESERVED:
        raise SessionValueError(f"{key!r} is the library's own key; choose another")
    to_json(str.__str__(key), path="the key")
    return str.__str__(key)
