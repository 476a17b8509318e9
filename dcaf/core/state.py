"""All keys of one session: parsed when first touched, compared with what arrived, written as one JSON object.

>>> state = State(Payload(b'{"step":1,"cart":{"items":[]}}'))
>>> state.slot("cart").get_live()["items"].append("widget")
>>> state.changed_keys(), state.payload().data
(['cart'], b'{"step":1,"cart":{"items":["widget"]}}')

The member ``dcaf`` of the sealed object is the library's own. It is in no slot, so no tool can read, change or clear it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.errors import SessionClosedError, SessionValueError
from dcaf.core.handles import Slot
from dcaf.core.json_values import read, to_json, write, write_atom
from dcaf.core.merging import EMPTY, CommutingChange, Increment, extend_list
from dcaf.core.payload import lacks, members_of
from dcaf.core.round_trip import is_same
from dcaf.core.slots import RESERVED, TEMPORARY, Closing, Resumed, Slots, check_key, count_bytes_at_most

__all__ = ["RESERVED", "TEMPORARY", "Frozen", "State"]

QUOTED: Final = b'"dcaf"'


class Frozen(NamedTuple):
    """A state as it was when it was sealed.

    Attributes:
        payload: The sealed state.
        values: Key -> value of the touched keys; None for an absent one.
        library: The library's own member.
        moved: The arrived keys that had left their places.
    """

    payload: Payload
    values: dict[str, bytes | None]
    library: bytes | None
    moved: frozenset[str]

    def __repr__(self) -> str:
        return "Frozen(...)"


class State(Slots):
    """The keys of one session, shared by every view of it. Each method is atomic; the live objects that it hands out are not.

    Arguments and attributes are those of ``Slots``.
    """

    __slots__ = ()

    @property
    def is_touched(self) -> bool:
        """Whether anything has read or changed the state."""
        return self._looked or self._members is not None or bool(self._slots)

    def mark_seen(self) -> None:
        """Count the whole state as read, also where nothing of it is parsed."""
        self._looked = True

    def find(self, key: str) -> Slot | None:
        """The slot of a key, if there is one; the slot of an absent key has no value."""
        slot = self._slots.get(key)
        if slot is None or self._tails:
            with self.lock:
                slot = self._find_slot(key)
        return slot

    def __contains__(self, key: object) -> bool:
        with self.lock:
            slot = self.find(key) if isinstance(key, str) else None
            if slot is None:
                return False
            slot.write_back()
            return slot.data is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self, prefix: str = "") -> list[str]:
        """The present keys that begin with a prefix, in order. Raises as ``write_back``."""
        with self.lock:
            self.write_back()
            return [key for key in self._present_keys() if key.startswith(prefix)]

    def values(self, prefix: str = "") -> dict[str, bytes]:
        """The written values of these keys. Raises as ``write_back``."""
        with self.lock:
            keys, slots, members = self.keys(prefix), self._slots, self._load()
            data = [slots[key].data if key in slots else members.written(key) for key in keys]
            return {key: written for key, written in zip(keys, data, strict=True) if written is not None}

    def put(self, key: str, value: object, *, as_type: Any = None) -> None:
        """Convert, check and store a value; the object stays live.

        Raises:
            SessionValueError: The value may not be stored, or the state would be too large.
        """
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            slot = self._find_slot(key) if type(key) is str else None
            name = check_key(key) if slot is None else key
            data = write_atom(value) if as_type is None else None
            if data is None:
                kept = slot.undeclared if slot is not None and slot.handles else None
                data = write(to_json(value, as_type, path=name, kept=kept))
            self._check_growth(name, count_bytes_at_most(name, data), data)
            slot = self.slot(name) if slot is None else slot
            if slot.data is None:
                self._insert(slot)
            slot.put(data, value, as_type)

    def put_validated(self, key: str, validated: object, given: object, *, as_type: Any) -> None:
        """Store a value that was validated as a type; the object that was given stays live, too.

        Raises:
            SessionValueError: As ``put``.
        """
        with self.lock:
            if is_same(given, validated):
                self.put(key, given, as_type=as_type)
            else:
                self.put(key, validated, as_type=as_type)
                self.slot(key).watch(given, as_type)

    def add(self, key: str, by: int) -> int:
        """Add to a number and return the sum; an absent one counts as 0.

        Raises:
            SessionTypeError: The value is no integer.
            SessionAliasError: Two handles of the value have changed already.
            SessionValueError: As ``put``.
        """
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            slot = self.slot(key)
            slot.write_back()
            data = Increment(by).apply(slot.data, key)
            self._check_growth(key, count_bytes_at_most(key, data) if slot.data is None else len(data) - len(slot.data), data)
            if slot.data is None:
                self._insert(slot)
            slot.overwrite(data)
            return int(data)

    def append(self, key: str, value: object) -> None:
        """Add an item to the end of a list; an absent one counts as empty.

        Raises:
            SessionTypeError: The value is no list.
            SessionAliasError, SessionValueError: As ``add``. Nothing was changed.
        """
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            tail = self._tail(key)
            item = write(to_json(value, path=f"{key}[{tail.length}]"))
            self._check_growth(
                key, self._count_tail_bytes(tail, item), lambda: extend_list(tail.slot.data or EMPTY, [*tail.items, item])
            )
            self._begin_tail(tail)
            tail.append(item)

    def drop(self, key: str) -> bool:
        """Make a key absent; False where it was absent already."""
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            slot = self._find_slot(key)
            if slot is not None and slot.data is None:
                slot.write_back()
            if slot is None or slot.data is None:
                return False
            slot.drop()
            self._count_size_change()
            return True

    def drop_all(self, *, kept: tuple[str, ...] = (), prefix: str = "") -> None:
        """Make every key with a prefix absent, except those that begin with one of ``kept``."""
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            for key in {**self._load(), **self._slots}:
                if key.startswith(prefix) and not (kept and key.startswith(kept)):
                    self.slot(key).drop()
            self._count_size_change()

    def copy(self) -> State:
        """An independent state with the same keys and the same arrived payload. Raises as ``write_back``."""
        with self.lock:
            self.write_back()
            copied = State(self.arrived, self.standing, limit_bytes=self.limit_bytes)
            copied._load()  # first, because it reads the library's member
            for key, slot in self._slots.items():
                copied.slot(key).data = slot.data
            copied._slots = {key: copied._slots[key] for key in self._slots}  # in this state's order
            copied._moved = {*self._moved}
            copied._library = self._library
            return copied

    def put_all(self, values: Mapping[str, object]) -> None:
        """Store several values or, when one of them is refused, none.

        Raises:
            SessionValueError: As ``put``.
        """
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            written = dict(self._convert(key, value) for key, value in values.items())
            self._check_size(written)
            for (key, data), value in zip(written.items(), values.values(), strict=True):
                slot = self.slot(key)
                if slot.data is None:
                    self._insert(slot)
                slot.put(data, value)

    def replace(self, values: Mapping[str, object]) -> None:
        """Make these the lasting keys, in this order, or, when one of them is refused, change nothing.

        Raises:
            SessionValueError: As ``put``.
        """
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            written = dict(self._convert(key, value) for key, value in values.items())
            self.write_back()
            going = [key for key in self._lasting_members() if key not in written]
            self._check_size({**dict.fromkeys(going), **written})
            for key in going:
                self.drop(key)
            self.put_all(values)
            if [*self._lasting_members()] != [*written]:
                for key in written:
                    self.move_to_end(key)

    def move_to_end(self, key: str) -> None:
        """Make a key the last one, if it is present."""
        with self.lock:
            slot = self._find_slot(key)
            if slot is not None and slot.data is not None:
                self._move(slot)

    def overwrite(
        self,
        values: Mapping[str, bytes | None],
        changes: Mapping[str, CommutingChange],  # noqa: ARG002
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace values by written ones; handles of them become stale.

        Args:
            values: Key -> value, None for an absent one.
            changes: Key -> the change that led to its value, where that commutes; a plain state needs the values alone.
            own: The library's own member, empty for none; None leaves it as it is.

        Raises:
            SessionValueError: The state would be too large. Nothing was changed.
        """
        with self.lock:
            if self.late is not None:
                self._refuse_late(self.late)
            if self._members is None:
                self._load()
            before = self._library
            if own is not None:
                self._library = write(dict(own)) if own else None
                self._most_bytes += count_bytes_at_most(RESERVED, self._library or b"")
            try:
                self._check_size(values)
            except SessionValueError:
                self._library = before
                raise
            for key, data in values.items():
                slot = None if self._tails else self._slots.get(key)
                if slot is None:
                    slot = self.slot(key)
                if slot.data is None and data is not None:
                    self._insert(slot)
                if data is None:
                    self._count_size_change()
                slot.overwrite(data)

    def own(self) -> dict[str, Any]:
        """The library's own member: a copy, empty where there is none."""
        with self.lock:
            self._load()
            found = None if self._library is None else read(self._library)
            return found if isinstance(found, dict) else {}

    def keep(self, own: Mapping[str, Any]) -> None:
        """Replace the library's own member; an empty one is left out. Raises as ``overwrite``."""
        self.overwrite({}, {}, own)

    def write_back(self) -> None:
        """Write back every handle that changed.

        Raises:
            SessionAliasError, SessionValueError: As ``Slot.write_back``.
        """
        with self.lock:
            if self._tails:
                self._write_tails()
            for slot in self._slots.values():
                if slot.handles:
                    slot.write_back()

    def freeze(self) -> Frozen:
        """The payload to seal, and the values in it. The caller holds the lock. Raises as ``write_back``."""
        payload = self.payload()
        if self.journal is not None:
            self.journal.freeze()
        return Frozen(payload, {key: slot.data for key, slot in self._slots.items()}, self._library, frozenset(self._moved))

    def mark_sealed(self, payload: Payload, standing: Standing | None, frozen: Frozen | None = None) -> None:
        """Count only what differs from a sealed payload as a change from now on. The caller holds the lock.

        Args:
            payload: The sealed payload.
            standing: The standing that its token gives; None where there is no token.
            frozen: The state when the payload was made; None where nothing can have changed since.
        """
        if payload is not self.arrived:
            self._members = None  # frees the old bytes of a large state before the answer is sent
        self.standing, self.arrived = standing, payload
        if frozen is None:
            self._own_arrived = self._library
            self._moved.clear()
            for slot in self._slots.values():
                slot.arrived = slot.data
            return
        if self._moved == frozen.moved:
            self._moved.clear()
        for key, data in frozen.values.items():
            if key in self._slots:
                self._slots[key].arrived = data
        self._keep_later(frozen)

    def _keep_later(self, frozen: Frozen) -> None:
        """Load the sealed payload at once where something was written since, so that a later load does not replace that."""
        library, most_bytes, self._own_arrived = self._library, self._most_bytes, frozen.library
        has_later = self._tails or any(slot.data is not slot.arrived for slot in self._slots.values())
        if has_later or library != frozen.library:
            self._load()
            self._library, self._most_bytes = library, most_bytes

    def close(self, closing: Closing) -> None:
        """Have the session end, or go on as another one, when it is sealed next; one that ends can no longer be changed.

        Raises:
            SessionClosedError: The turn is over, or the session was ended.
        """
        with self.lock:
            self.require_open()
            before = self.closing
            if closing.subject is None and before is not None:
                closing = closing._replace(subject=before.subject)
            self.closing: Closing | None = closing
            if not closing.rotates:
                self.late = _ignore_late

    def reopen(self) -> None:
        """Let the session be changed again: it was to end, and its store has not ended it."""
        with self.lock:
            self.closing = None
            if self.late is _ignore_late:
                self.late = None

    @property
    def is_ending(self) -> bool:
        """Whether the application has ended the session: it ends when it is sealed next, or did so."""
        return self.closing is not None and not self.closing.rotates

    @property
    def resumed(self) -> Resumed | None:
        """The session of which the client gets the token in place of this one; None for none."""
        return None if self.closing is None else self.closing.resumed

    def require_open(self) -> None:
        """Refuse what would be lost, because the turn is over or the session was ended.

        Raises:
            SessionClosedError: It is.
        """
        if self.late is not None:
            self._refuse_late(self.late)

    def mark_spent(self) -> None:
        """Take note that a store was asked to use up a key of the session."""
        self.has_spent = True

    def mark_closed(self) -> None:
        """Take note that the session was ended, so that nothing more of it goes out."""
        self.is_closed: bool = True

    def end(self, late: Callable[[], None]) -> None:
        """End the turn: from now on each change calls ``late`` and is an error."""
        self.late: Callable[[], None] | None = late

    @property
    def has_ended(self) -> bool:
        """Whether the turn has ended."""
        return self.late is not None

    def _refuse_late(self, late: Callable[[], None]) -> NoReturn:
        late()
        if self.resumed is not None:
            raise SessionClosedError("The turn has given its session up for another one: nothing that is written to it is kept.")
        if self.is_ending:
            raise SessionClosedError("The session was ended by session.end(): nothing that is written to it now would be kept.")
        raise SessionClosedError(
            "The session was changed after its turn was over: the answer has left without the change. Change it before the answer "
            "is sent, or, in a task that outlives the request, keep what it finds elsewhere and store it in the next turn."
        )

    def refill(self, other: State) -> None:
        """Take over everything of another state, so that the views of this one show the other's keys."""
        with self.lock:
            self.arrived: Payload = other.arrived
            self.standing = other.standing
            self.limit_bytes: int | None = other.limit_bytes
            self._members, self._slots, self._most_bytes = other._members, other._slots, other._most_bytes
            self._library, self._own_arrived = other._library, other._own_arrived
            self._moved, self._tails, self._looked = other._moved, other._tails, other._looked
            if self.closing is not None:
                self.closing, self.is_closed, self.late = None, False, None
            self.has_spent: bool = other.has_spent
            self._count_size_change()

    def changed_keys(self) -> list[str]:
        """The lasting keys whose values differ from what arrived or was last sealed. Raises as ``write_back``."""
        found: list[str] = []
        if not self._slots:
            return found
        with self.lock:
            if self._tails:
                self._write_tails()
            for key, slot in self._slots.items():
                if slot.handles:
                    slot.write_back()
                if slot.data is not slot.arrived and slot.data != slot.arrived and not key.startswith(TEMPORARY):
                    found.append(key)
        return found

    def changed_values(self) -> dict[str, tuple[bytes | None, bytes | None]]:
        """Changed key -> its value as it arrived or was last sealed, and now; the library's own too. Raises as ``write_back``."""
        with self.lock:
            found = {key: (self._slots[key].arrived, self._slots[key].data) for key in self.changed_keys()}
            if self._library != self._own_arrived:
                found[RESERVED] = (self._own_arrived, self._library)
            return found

    def is_changed(self) -> bool:
        """Whether a lasting key or the library's own member has changed since it arrived, or the session is to be closed.

        What was added beside the state counts, too. Raises as ``write_back``.
        """
        if self.closing is not None:
            return not self.is_closed
        if self.journal is not None and self.has_additions:
            return True
        if not self._slots:
            return self._library != self._own_arrived
        with self.lock:
            return bool(self.changed_keys()) or self._library != self._own_arrived

    @property
    def has_additions(self) -> bool:
        """Whether something was added beside the state, and not committed."""
        return self.journal is not None and not self.journal.is_empty

    @property
    def is_sealed(self) -> bool:
        """Whether the last token seals just this state, the order of its keys included. Raises as ``write_back``."""
        is_held = self.standing is not None and self.standing.token != ()
        return is_held and not (self.is_changed() or self._is_reordered())

    def payload(self) -> Payload:
        """The lasting keys and the library's own member, as they are sealed. Raises as ``write_back``.

        Where nothing has changed, the order of the keys included, it is the very payload that arrived.
        """
        with self.lock:
            if not (self.changed_keys() or self._library != self._own_arrived or self._is_reordered()):
                return self.arrived
            members = self._lasting_members()
            if self._library is not None:
                members = members.updated({RESERVED: self._library})
            payload = members.payload()
            if self.limit_bytes is not None and len(payload.data) > self.limit_bytes:
                self._check_exactly({})
            return payload

    def plain(self, shows: Callable[[str], bool] | None = None, payload: Payload | None = None) -> bytes:
        """Write the lasting keys, or some of them, for a tool or an application. Raises as ``write_back``.

        Args:
            shows: Tells which keys; None shows all.
            payload: The payload that is being sealed, which need not be written again where it is the same.
        """
        if shows is None and payload is not None and payload is not self.arrived and self._library is None:
            return payload.data
        with self.lock:
            if shows is None and self._is_plain():
                return self.arrived.data
            self.write_back()
            present = self._lasting_members()
            hidden = [] if shows is None else [key for key in present if not shows(key)]
            return present.updated(dict.fromkeys(hidden)).payload().data

    def lay_under(self, other: Payload) -> Payload:
        """What arrived, with the members of another payload over its own."""
        members = members_of(other)
        if not members:
            return self.arrived
        return members_of(self.arrived).updated({key: members.written(key) for key in members}).payload()

    def find_commuting(self, key: str) -> CommutingChange | None:  # noqa: ARG002
        """How a key was changed before the state was frozen; None where nobody remembers, as here."""
        return None

    def _is_plain(self) -> bool:
        """Whether the arrived payload has just the keys to show: nothing has changed, and the library has no member in it."""
        if self._members is None and not self._slots and self.arrived.index is None:
            return lacks(self.arrived, QUOTED)
        self._load()  # cut by the index, which is faster than a search through all bytes of a large state
        return self._library is None and not (self.is_changed() or self._is_reordered())

    def _is_reordered(self) -> bool:
        """Whether the lasting keys have another order than the arrived ones, which does not count as a change."""
        return bool(self._moved) and [*self._lasting_members()] != [*self._load()]

    def _convert(self, key: str, value: object) -> tuple[str, bytes]:
        name = check_key(key)
        slot = self._slots.get(name)
        return name, write(to_json(value, path=name, kept=None if slot is None else slot.undeclared))


def _ignore_late() -> None:
    """A late write raises where it is made, and nothing else happens."""
