"""All keys of one session: parsed when first touched, compared with what arrived, written as one JSON object.

>>> state = State(Payload(b'{"step":1,"cart":{"items":[]}}'))
>>> state.slot("cart").lend()["items"].append("widget")
>>> state.changed(), state.payload().data
(['cart'], b'{"step":1,"cart":{"items":["widget"]}}')

What a reader gets wrong: the member ``dcaf`` of the sealed object is the library's own. It is in no slot, so nothing that
a tool does can read, change or clear it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from threading import RLock
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from dcaf.core.base64url import Payload
from dcaf.core.claims import Claims
from dcaf.core.errors import SessionInvalid, SessionValueError
from dcaf.core.handles import Slot
from dcaf.core.members import join, split
from dcaf.core.values import read, to_json, write

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Standing:
    """Which session a state is of, and since when.

    Attributes:
        claims: What its last token said; for a new session, with the sequence 0.
        restarted: Code of the refusal after which the session was started; None where none was refused.
    """

    claims: Claims = field(repr=False)
    restarted: str | None = None


RESERVED: Final = "dcaf"
"""The one key that the library keeps for itself, in the envelope and in the sealed state."""

TEMPORARY: Final = "temp:"
"""Keys with this prefix live until the turn ends: they are never sealed and never shown."""


def _locked(method: Callable[Concatenate[State, P], R]) -> Callable[Concatenate[State, P], R]:
    """Let one thread at a time into a method: sync tools run in threads, and share the session."""

    @wraps(method)
    def alone(self: State, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[State, P], R]", alone)


class State:
    """The keys of one session, shared by every view of it. Each method is atomic; what is handed out of it is not.

    Args:
        arrived: The state as it came in; None for a new, empty one. It is parsed at the first touch.
        standing: Which session it is of; None outside a conversation.
        limit_bytes: How large the written state may become; None for no limit.
    """

    __slots__ = ("_arrived", "_library", "_limit_bytes", "_lock", "_slots", "standing")

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        self._arrived = arrived or Payload(b"{}")
        self.standing = standing
        self._limit_bytes = limit_bytes
        self._slots: dict[str, Slot] | None = None
        self._library: bytes | None = None
        self._lock = RLock()

    @property
    def is_touched(self) -> bool:
        """Whether anybody looked at the state; until then it has not been parsed."""
        return self._slots is not None

    @_locked
    def slot(self, key: str) -> Slot:
        """The slot of a key, made where there is none.

        Raises:
            SessionValueError: There may be no such key.
        """
        slots = self._loaded()
        if key not in slots:
            slots[_checked(key)] = Slot(key, None)
        return slots[key]

    def find(self, key: str) -> Slot | None:
        """The slot of a key, if there is one; the key may be absent all the same."""
        slots = self._slots
        return (self._load() if slots is None else slots).get(key)

    @_locked
    def __contains__(self, key: object) -> bool:
        slot = self.find(key) if isinstance(key, str) else None
        if slot is None:
            return False
        slot.settle()
        return slot.data is not None

    @_locked
    def __iter__(self) -> Iterator[str]:
        """The present keys: as they arrived, then as they were first asked for."""
        self.settle()
        return iter([slot.key for slot in self._loaded().values() if slot.data is not None])

    @_locked
    def put(self, key: str, value: object, *, as_type: Any = None) -> None:
        """Convert, check and store a value; the object itself stays live.

        Raises:
            SessionValueError: The value may not be stored, or the state would be too large.
        """
        key, data = _written(key, value, as_type)
        self._check_size({key: data})
        self.slot(key).put(data, value, as_type)

    @_locked
    def put_validated(self, key: str, validated: object, given: object, *, as_type: Any) -> None:
        """Store a value that was validated as a type; what was given stays live, itself where it is of that type already.

        Raises:
            SessionValueError: As ``put``.
        """
        data = write(to_json(validated, as_type, path=key))
        if _reads_as(given, as_type, data):
            self.put(key, given, as_type=as_type)
        else:
            self.put(key, validated, as_type=as_type)
            self.slot(key).watch(given, as_type)

    @_locked
    def amend(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Change a value by another way than what was handed out of it, which is overtaken.

        Args:
            key: The key.
            change: Makes the new value of the present one, both written; None stands for an absent one.

        Raises:
            SessionAliasError: What was handed out has changed in two ways already.
            SessionValueError: As ``put``.
        """
        slot = self.slot(key)
        slot.settle()
        data = change(slot.data)
        self._check_size({key: data})
        slot.amend(data)

    @_locked
    def drop(self, key: str) -> bool:
        """Make a key absent, whatever was done to its value; False where it was absent."""
        slot = self.find(key)
        if slot is None or (slot.data is None and key not in self):
            return False
        slot.drop()
        return True

    @_locked
    def drop_all(self, *, kept: tuple[str, ...] = (), prefix: str = "") -> None:
        """Make every key with a prefix absent, but for those that begin with one of ``kept``."""
        for key, slot in self._loaded().items():
            if key.startswith(prefix) and not (kept and key.startswith(kept)):
                slot.drop()

    @_locked
    def copy(self) -> State:
        """A state of its own with the same keys, and the same that arrived. Raises as ``settle``."""
        self.settle()
        copied = State(self._arrived, self.standing, limit_bytes=self._limit_bytes)
        for key, slot in self._loaded().items():
            copied.slot(key).data = slot.data
        return copied

    @_locked
    def put_all(self, values: Mapping[str, object]) -> None:
        """Store several values, or none of them.

        Raises:
            SessionValueError: As ``put``.
        """
        written = dict(_written(key, value, None) for key, value in values.items())
        self._check_size(written)
        for (key, data), value in zip(written.items(), values.values(), strict=True):
            self.slot(key).put(data, value)

    @_locked
    def replace(self, values: Mapping[str, object]) -> None:
        """Make these the lasting keys, or, when one of them is refused, change nothing.

        Raises:
            SessionValueError: As ``put``.
        """
        written = dict(_written(key, value, None) for key, value in values.items())
        going = [key for key in self._lasting() if key not in written]
        self._check_size(written, without=going)
        for key in going:
            self.slot(key).drop()
        self.put_all(values)

    @_locked
    def settle(self) -> None:
        """Write back every handle that changed.

        Raises:
            SessionAliasError, SessionValueError: As ``Slot.settle``.
        """
        for slot in self._loaded().values():
            slot.settle()

    @_locked
    def seal(self, sealing: Callable[[Payload], Standing]) -> None:
        """Have the lasting keys sealed. From then on they are what arrived, and only what comes after is a change.

        Args:
            sealing: Is given the payload, and returns what its token says; what it raises leaves the state as it was.

        Raises:
            SessionAliasError, SessionValueError: As ``settle``.
        """
        payload = self.payload()
        self.standing = sealing(payload)
        self._arrived = payload
        for slot in (self._slots or {}).values():
            slot.arrived = slot.data

    @_locked
    def refill(self, other: State) -> None:
        """Become what another state is: whoever holds this one sees the other's keys from now on."""
        self._arrived, self.standing, self._limit_bytes = other._arrived, other.standing, other._limit_bytes
        self._slots, self._library = other._slots, other._library

    @_locked
    def changed(self) -> list[str]:
        """The lasting keys whose value is not what arrived, or was last sealed. Raises as ``settle``."""
        if self._slots is None:
            return []
        self.settle()
        return [key for key, slot in self._slots.items() if slot.data != slot.arrived and not key.startswith(TEMPORARY)]

    @_locked
    def payload(self) -> Payload:
        """What is to be sealed: the lasting keys and the library's own member. Raises as ``settle``.

        A state that nobody changed is the very payload that arrived.
        """
        if not self.changed():
            return self._arrived
        self._check_size({})
        own = {} if self._library is None else {RESERVED: self._library}
        return join((self._lasting() | own).items())

    @_locked
    def plain(self, shows: Callable[[str], bool] | None = None) -> bytes:
        """Write what a tool or an application may see: the lasting keys alone, or some of them. Raises as ``settle``."""
        if shows is None and self._slots is None and self._arrived.index is None and self._looks_plain():
            return self._arrived.data
        return join((key, data) for key, data in self._lasting().items() if shows is None or shows(key)).data

    @_locked
    def _load(self) -> dict[str, Slot]:
        return self._loaded()

    def _loaded(self) -> dict[str, Slot]:
        if self._slots is None:
            members = self._members()
            self._library = members.pop(RESERVED, None)
            self._slots = {key: Slot(key, value) for key, value in members.items()}
        return self._slots

    def _looks_plain(self) -> bool:
        """Whether what arrived is an object without the library's member, as far as its first and last bytes tell."""
        try:
            data = self._arrived.data
        except ValueError:
            return False
        return data.startswith(b"{") and data.endswith(b"}") and b'"dcaf"' not in data

    def _members(self) -> dict[str, bytes]:
        """The written values that arrived: cut out by the index where there is one, else parsed and written anew."""
        try:
            found = None if self._arrived.index is None else split(self._arrived.data, self._arrived.index)
            if found is not None:
                return dict(found)
            values = read(self._arrived.data)
        except ValueError:
            values = None
        if not isinstance(values, dict):  # sealed with our key, so by another program that has it
            raise SessionInvalid(reason="state")
        return {key: write(value) for key, value in values.items()}

    def _lasting(self) -> dict[str, bytes]:
        self.settle()
        found = {key: slot.data for key, slot in self._loaded().items() if not key.startswith(TEMPORARY)}
        return {key: data for key, data in found.items() if data is not None}

    def _check_size(self, coming: dict[str, bytes], without: Sequence[str] = ()) -> None:
        """Refuse, before anything is stored, what would not fit into a token."""
        if self._limit_bytes is None:
            return
        present = {slot.key: slot.data for slot in self._loaded().values() if slot.data is not None} | coming
        lasting = {key: data for key, data in present.items() if not key.startswith(TEMPORARY) and key not in without}
        sizes = {key: len(write(key)) + len(data) + len(":,") for key, data in lasting.items()}
        own = 0 if self._library is None else len(self._library) + len('"dcaf":,')
        if sum(sizes.values()) + own + 1 > self._limit_bytes:
            largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
            listed = ", ".join(f"{key!r} ({sizes[key]:,} bytes)" for key in largest)
            raise SessionValueError(
                f"the session would be larger than the {self._limit_bytes:,} bytes that fit into its token; the largest keys "
                f"are {listed}. Store less, raise max_token_bytes, or keep the state on the server"
            )


def _written(key: str, value: object, as_type: Any) -> tuple[str, bytes]:
    name = _checked(key)
    return name, write(to_json(value, as_type, path=name))


def _checked(key: str) -> str:
    if not isinstance(key, str):
        raise SessionValueError(f"a key of type {type(key).__name__} cannot be stored; keys must be strings")
    if key == RESERVED:
        raise SessionValueError(f"{key!r} is the library's own key; choose another")
    to_json(str.__str__(key), path="the key")
    return str.__str__(key)


def _reads_as(given: object, as_type: Any, data: bytes) -> bool:
    try:
        return write(to_json(given, as_type, path="value")) == data
    except SessionValueError:
        return False
