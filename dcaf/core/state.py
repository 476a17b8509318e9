"""All keys of one session: parsed when first touched, compared with what arrived, written as one JSON object.

>>> state = State(Payload(b'{"step":1,"cart":{"items":[]}}'))
>>> state.slot("cart").lend()["items"].append("widget")
>>> state.changed(), state.payload().data
(['cart'], b'{"step":1,"cart":{"items":["widget"]}}')

What a reader gets wrong: the member ``dcaf`` of the sealed object is the library's own. It is in no slot, so nothing that
a tool does can read, change or clear it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.errors import SessionClosedError, SessionValueError
from dcaf.core.handles import Slot
from dcaf.core.json_values import read, to_json, write, write_atom
from dcaf.core.merging import EMPTY, Added, Growth, extended
from dcaf.core.payload import lacks
from dcaf.core.round_trip import is_same
from dcaf.core.slots import RESERVED, TEMPORARY, Slots, at_most, checked

__all__ = ["RESERVED", "TEMPORARY", "Frozen", "State"]

QUOTED: Final = b'"dcaf"'


class Frozen(NamedTuple):
    """A state at the moment when it was sealed.

    Attributes:
        payload: What was sealed.
        values: Key -> value of those that were touched; None for an absent one.
        library: The library's own member.
        moved: The keys that had left their places.
    """

    payload: Payload
    values: dict[str, bytes | None]
    library: bytes | None
    moved: frozenset[str]


class State(Slots):
    """The keys of one session, shared by every view of it. Each method is atomic; what is handed out of it is not.

    Args:
        arrived: The state as it came in; None for a new, empty one. It is parsed at the first touch.
        standing: Which session it is of; None outside a conversation.
        limit_bytes: How large the written state may become; None for no limit.

    Attributes:
        standing: As above.
        size_changes, queue: As of Slots.
    """

    __slots__ = ()

    @property
    def is_touched(self) -> bool:
        """Whether anybody looked at the state."""
        return self._looked or self._members is not None or bool(self._slots)

    def look(self) -> None:
        """Say that somebody looks at it all, which may be without parsing it."""
        self._looked = True

    def find(self, key: str) -> Slot | None:
        """The slot of a key, if there is one; the key may be absent all the same."""
        slot = self._slots.get(key)
        if slot is None or self._tails:
            with self.lock:
                slot = self._found(key)
        return slot

    def __contains__(self, key: object) -> bool:
        with self.lock:
            slot = self.find(key) if isinstance(key, str) else None
            if slot is None:
                return False
            slot.settle()
            return slot.data is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self, prefix: str = "") -> list[str]:
        """The present keys that begin with a prefix, in order. Raises as ``settle``."""
        with self.lock:
            self.settle()
            return [key for key in self._present() if key.startswith(prefix)]

    def values(self, prefix: str = "") -> dict[str, bytes]:
        """The written values of these keys. Raises as ``settle``."""
        with self.lock:
            keys, slots, members = self.keys(prefix), self._slots, self._loaded()
            data = [slots[key].data if key in slots else members.written(key) for key in keys]
            return {key: written for key, written in zip(keys, data, strict=True) if written is not None}

    def put(self, key: str, value: object, *, as_type: Any = None) -> None:
        """Convert, check and store a value; the object itself stays live.

        Raises:
            SessionValueError: The value may not be stored, or the state would be too large.
        """
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            slot = self._found(key) if type(key) is str else None
            name = checked(key) if slot is None else key
            data = write_atom(value) if as_type is None else None
            if data is None:
                kept = slot.undeclared if slot is not None and slot.handles else None
                data = write(to_json(value, as_type, path=name, kept=kept))
            self._grow(name, at_most(name, data), data)
            slot = self.slot(name) if slot is None else slot
            if slot.data is None:
                self._insert(slot)
            slot.put(data, value, as_type)

    def put_validated(self, key: str, validated: object, given: object, *, as_type: Any) -> None:
        """Store a value that was validated as a type; what was given stays live, itself where it is of that type already.

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
        """Add to a number, whatever was done to it; an absent one counts as 0. Returns the sum.

        Raises:
            SessionTypeError: The value is no integer.
            SessionAliasError: What was handed out has changed in two ways already.
            SessionValueError: As ``put``.
        """
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            slot = self.slot(key)
            slot.settle()
            data = Added(by).applied(slot.data, key)
            self._grow(key, at_most(key, data) if slot.data is None else len(data) - len(slot.data), data)
            if slot.data is None:
                self._insert(slot)
            slot.amend(data)
            return int(data)

    def append(self, key: str, value: object) -> None:
        """Add an item to the end of a list, whatever was done to it; an absent one counts as empty.

        Raises:
            SessionTypeError: The value is no list.
            SessionAliasError, SessionValueError: As ``add``. Nothing was changed.
        """
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            tail = self._tail(key)
            item = write(to_json(value, path=f"{key}[{tail.length}]"))
            self._grow(key, self._bytes_of(tail, item), lambda: extended(tail.slot.data or EMPTY, [*tail.items, item]))
            self._begin(tail)
            tail.append(item)

    def drop(self, key: str) -> bool:
        """Make a key absent, whatever was done to its value; False where it was absent."""
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            slot = self._found(key)
            if slot is not None and slot.data is None:
                slot.settle()
            if slot is None or slot.data is None:
                return False
            slot.drop()
            self._count_size_change()
            return True

    def drop_all(self, *, kept: tuple[str, ...] = (), prefix: str = "") -> None:
        """Make every key with a prefix absent, but for those that begin with one of ``kept``."""
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            for key in {**self._loaded(), **self._slots}:
                if key.startswith(prefix) and not (kept and key.startswith(kept)):
                    self.slot(key).drop()
            self._count_size_change()

    def copy(self) -> State:
        """A state of its own with the same keys, and the same that arrived. Raises as ``settle``."""
        with self.lock:
            self.settle()
            copied = State(self.arrived, self.standing, limit_bytes=self.limit_bytes)
            copied._loaded()  # first, because it reads the library's member
            for key, slot in self._slots.items():
                copied.slot(key).data = slot.data
            copied._slots = {key: copied._slots[key] for key in self._slots}  # whatever came first when it was loaded
            copied._moved = {*self._moved}
            copied._library = self._library
            return copied

    def put_all(self, values: Mapping[str, object]) -> None:
        """Store several values, or none of them.

        Raises:
            SessionValueError: As ``put``.
        """
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            written = dict(self._written(key, value) for key, value in values.items())
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
            if self._late is not None:
                self._refuse_late(self._late)
            written = dict(self._written(key, value) for key, value in values.items())
            self.settle()
            going = [key for key in self._lasting() if key not in written]
            self._check_size({**dict.fromkeys(going), **written})
            for key in going:
                self.drop(key)
            self.put_all(values)
            if [*self._lasting()] != [*written]:
                for key in written:
                    self.move_to_end(key)

    def move_to_end(self, key: str) -> None:
        """Make a key the last one, if it is present."""
        with self.lock:
            slot = self._found(key)
            if slot is not None and slot.data is not None:
                self._move(slot)

    def overwrite(
        self,
        values: Mapping[str, bytes | None],
        changes: Mapping[str, Growth],  # noqa: ARG002
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """Take over written values; what was handed out of them is overtaken.

        Args:
            values: Key -> value, None for an absent one.
            changes: Key -> what made it, where that commutes. Here the values say all.
            own: The library's own member, empty for none; None leaves it as it is.

        Raises:
            SessionValueError: The state would be too large. Nothing was changed.
        """
        with self.lock:
            if self._late is not None:
                self._refuse_late(self._late)
            if self._members is None:
                self._loaded()
            before = self._library
            if own is not None:
                self._library = write(dict(own)) if own else None
                self._most_bytes += at_most(RESERVED, self._library or b"")
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
                slot.amend(data)

    def own(self) -> dict[str, Any]:
        """The library's own member: a copy, empty where there is none."""
        with self.lock:
            self._loaded()
            found = None if self._library is None else read(self._library)
            return found if isinstance(found, dict) else {}

    def keep(self, own: Mapping[str, Any]) -> None:
        """Replace the library's own member; an empty one is left out. Raises as ``overwrite``."""
        self.overwrite({}, {}, own)

    def settle(self) -> None:
        """Write back every handle that changed.

        Raises:
            SessionAliasError, SessionValueError: As ``Slot.settle``.
        """
        with self.lock:
            if self._tails:
                self._join_all()
            for slot in self._slots.values():
                if slot.handles:
                    slot.settle()

    def freeze(self) -> Frozen:
        """What is to be sealed, and how every key stood in it. The caller has the lock. Raises as ``settle``."""
        payload = self.payload()
        return Frozen(payload, {key: slot.data for key, slot in self._slots.items()}, self._library, frozenset(self._moved))

    def arrives(self, payload: Payload, standing: Standing, frozen: Frozen | None = None) -> None:
        """Take what was sealed of it for what arrived: only what comes after is a change. The caller has the lock.

        Args:
            payload: What was sealed.
            standing: Of the token.
            frozen: How the keys stood when it was made; None where that was just now.
        """
        if payload is not self.arrived:
            self._members = None  # of a large state the old bytes need not wait for the answer
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
        """Load what was sealed at once where something was written since: loaded later, it would be taken for all there is."""
        library, most_bytes, self._own_arrived = self._library, self._most_bytes, frozen.library
        has_later = self._tails or any(slot.data is not slot.arrived for slot in self._slots.values())
        if has_later or library != frozen.library:
            self._loaded()
            self._library, self._most_bytes = library, most_bytes

    def end(self, late: Callable[[], None]) -> None:
        """End the turn: from now on each change is an error, and ``late`` is called."""
        self._late = late

    @property
    def has_ended(self) -> bool:
        """Whether the turn has ended."""
        return self._late is not None

    def _refuse_late(self, late: Callable[[], None]) -> NoReturn:
        late()
        raise SessionClosedError(
            "The session was changed after its turn was over: the answer has left without the change. Change it before the answer "
            "is sent, or, in a task that outlives the request, keep what it finds elsewhere and store it in the next turn."
        )

    def refill(self, other: State) -> None:
        """Become what another state is: whoever holds this one sees the other's keys from now on."""
        with self.lock:
            self.arrived, self.standing, self.limit_bytes = other.arrived, other.standing, other.limit_bytes
            self._members, self._slots, self._most_bytes = other._members, other._slots, other._most_bytes
            self._library, self._own_arrived = other._library, other._own_arrived
            self._moved, self._tails, self._looked = other._moved, other._tails, other._looked
            self._count_size_change()

    def changed(self) -> list[str]:
        """The lasting keys whose value is not what arrived, or was last sealed. Raises as ``settle``."""
        found: list[str] = []
        if not self._slots:
            return found
        with self.lock:
            if self._tails:
                self._join_all()
            for key, slot in self._slots.items():
                if slot.handles:
                    slot.settle()
                if slot.data is not slot.arrived and slot.data != slot.arrived and not key.startswith(TEMPORARY):
                    found.append(key)
        return found

    def is_changed(self) -> bool:
        """Whether what would be sealed is not what arrived: a key, or the library's own member. Raises as ``settle``."""
        if not self._slots:
            return self._library != self._own_arrived
        with self.lock:
            return bool(self.changed()) or self._library != self._own_arrived

    @property
    def is_sealed(self) -> bool:
        """Whether the last token holds the state as it is, its keys in this order. Raises as ``settle``."""
        is_held = self.standing is not None and self.standing.token != ()
        return is_held and not (self.is_changed() or self._is_reordered())

    def payload(self) -> Payload:
        """What is to be sealed: the lasting keys and the library's own member. Raises as ``settle``.

        A state that nobody changed is the very payload that arrived, unless its keys have another order now.
        """
        with self.lock:
            if not (self.changed() or self._library != self._own_arrived or self._is_reordered()):
                return self.arrived
            members = self._lasting()
            if self._library is not None:
                members = members.updated({RESERVED: self._library})
            payload = members.payload()
            if self.limit_bytes is not None and len(payload.data) > self.limit_bytes:
                self._check_exactly({})
            return payload

    def plain(self, shows: Callable[[str], bool] | None = None, payload: Payload | None = None) -> bytes:
        """Write what a tool or an application may see: the lasting keys alone, or some of them. Raises as ``settle``.

        Args:
            shows: Tells which of them; None shows all.
            payload: What is being sealed of the state. Where it was written now and holds nothing else, it is what is shown.
        """
        if shows is None and payload is not None and payload is not self.arrived and self._library is None:
            return payload.data
        with self.lock:
            if shows is None and self._is_plain():
                return self.arrived.data
            self.settle()
            present = self._lasting()
            hidden = [] if shows is None else [key for key in present if not shows(key)]
            return present.updated(dict.fromkeys(hidden)).payload().data

    def _is_plain(self) -> bool:
        """Whether what arrived is all that is to be shown: nobody changed it, and it has no member of the library's."""
        if self._members is None and not self._slots and self.arrived.index is None:
            return lacks(self.arrived, QUOTED)
        self._loaded()  # cut by the index, which is quicker than to look at every byte of a large state
        return self._library is None and not (self.is_changed() or self._is_reordered())

    def _is_reordered(self) -> bool:
        """Whether the lasting keys have another order than those that arrived, which counts as no change."""
        return bool(self._moved) and [*self._lasting()] != [*self._loaded()]

    def _written(self, key: str, value: object) -> tuple[str, bytes]:
        name = checked(key)
        slot = self._slots.get(name)
        return name, write(to_json(value, path=name, kept=None if slot is None else slot.undeclared))
