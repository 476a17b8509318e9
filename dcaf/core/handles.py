"""The live objects that a session hands out, key by key: notice what has changed in them, and write it back.

A slot keeps one key's value as JSON bytes. Whoever reads it gets a live object, of which the slot keeps a handle. Before the slot
is read again, and before the session is sealed, an object that changed is written back.

>>> slot = Slot("cart", b'{"items":[]}')
>>> slot.get_live()["items"].append("widget")
>>> slot.write_back()
>>> slot.data
b'{"items":["widget"]}'

What a reader gets wrong: an object is compared with what the slot reads as, not with the stored bytes. So a model that knows
only some of the members, and was only read, never erases the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from dcaf.core.adapters import Description, describe, same_type
from dcaf.core.errors import SessionAliasError, SessionTypeError, SessionValueError
from dcaf.core.json_values import from_json, read, to_json, write
from dcaf.core.parts import ABSENT, ATOMS, base_of
from dcaf.core.round_trip import is_same
from dcaf.core.typed_objects import Undeclared, is_conclusive, snapshot

IMMUTABLE: Final = (str, int, float, bytes, type(None), date, time, datetime, timedelta, Decimal, UUID, Enum)
"""Types whose objects cannot change, and so need no handle."""

CONTAINERS: Final = (Mapping, list, tuple, set, frozenset, deque)
"""Containers may hold objects that JSON cannot say, so they are never handed out in place of the stored value."""


class Handle:
    """One live object of a slot.

    Args:
        given: The object.
        as_type: The type that it was read as; None for a plain container, and for an object that was stored without a type.
        path: The key, for a message.
        base: The value in its slot, as JSON bytes.
        is_handed_out: Whether the slot handed it out; else it was stored, or given as a default.
        through: A type that the object is converted to when it is written; None for none.
        undeclared: The stored members that its type does not declare; None where there are none.

    Attributes:
        kind: The type that writes it; None for a plain container.
        snapshot: How it was written fast when it last agreed with its slot.
        is_stale: Whether the slot has changed since in another way.
    """

    __slots__ = (
        "_type",
        "as_type",
        "base",
        "given",
        "is_handed_out",
        "is_stale",
        "kind",
        "path",
        "snapshot",
        "through",
        "undeclared",
    )

    def __init__(
        self,
        given: Any,
        as_type: Any,
        *,
        path: str,
        base: bytes,
        is_handed_out: bool = False,
        through: Any = None,
        undeclared: Undeclared | None = None,
    ) -> None:
        self.given: Any = given
        self.as_type: Any = as_type
        self.path: str = path
        self.is_handed_out: bool = is_handed_out
        self.through: Any = through
        self.undeclared: Undeclared | None = undeclared
        self._type: Any = type(given) if as_type is None and not isinstance(given, CONTAINERS) else as_type
        self.kind: Description | None = None if self._type is None else describe(self._type)
        self.remember(base)

    def remember(self, base: bytes) -> None:
        """Remember how the object looks now; it agrees with a value of its slot."""
        self.base: bytes = base
        self.snapshot: bytes | None = snapshot(self.given, self.kind)
        self.is_stale: bool = False

    def write_value(self) -> bytes:
        """Write the object as it looks now.

        Raises:
            SessionValueError: It holds something that may not be stored.
            SessionTypeError: It no longer fits the type that it is written through.
        """
        data = write(to_json(self.given, self.as_type, path=self.path, kept=self.undeclared))
        if self.through is None:
            return data
        return write(to_json(from_json(data, self.through, path=self.path), self.through, path=self.path))

    def is_changed(self) -> bool:
        """Whether the object differs from the value in its slot.

        Raises:
            SessionValueError: It holds something that may not be stored.
        """
        found = snapshot(self.given, self.kind)
        if found == self.snapshot and is_conclusive(found, self.given, self.kind):
            return False
        if self.kind is None or self.through is not None:
            return self.write_value() != self.base
        return self._reads_otherwise(found)

    def is_for(self, as_type: Any) -> bool:
        """Whether this object can be handed out for a type; None asks for the plain value."""
        if self.is_stale:
            return False
        if self.is_handed_out or self.as_type is not None:
            return same_type(self.as_type, as_type)
        return type(self.given) is as_type and self.kind is not None

    def _reads_otherwise(self, found: bytes | None) -> bool:
        """Whether the slot's value reads as another object than this one.

        Where two readings differ, as of a type that numbers its objects, only the written form can tell.
        """
        try:
            again = from_json(self.base, self._type, path=self.path)
            if is_same(self.given, again):
                return False
            if is_same(again, from_json(self.base, self._type, path=self.path)):
                return True
        except SessionTypeError:
            pass
        return found != self.snapshot


class Slot:
    """One key of a session.

    Attributes:
        key: The key.
        arrived: Its value as it came in, as JSON bytes; None where it was absent.
        data: Its current value, without unwritten changes of handles; None where it is absent.
        handles: The live objects.
        is_rewritten: Whether it was changed in another way than by ``overwrite``.
    """

    __slots__ = ("arrived", "data", "handles", "is_rewritten", "key")

    def __init__(self, key: str, arrived: bytes | None) -> None:
        self.key: str = key
        self.arrived: bytes | None = arrived
        self.data: bytes | None = arrived
        self.handles: tuple[Handle, ...] = ()
        self.is_rewritten: bool = False

    def get_live(self) -> Any:
        """Hand out the plain value; a container is live. ``ABSENT`` where the key is absent.

        Raises:
            SessionAliasError, SessionValueError: As ``write_back``.
        """
        if self.handles:
            self._write_back_others()
            found = self._live(None)
            if found is not None:
                return found.given
            self.write_back()
        if self.data is None:
            return ABSENT
        value = read(self.data)
        return self._keep(value, None, is_handed_out=True) if isinstance(value, (dict, list)) else value

    def get_live_as(self, as_type: Any) -> Any:
        """Hand out the value as a type: the same object each time, as long as it is current. ``ABSENT`` as ``get_live``.

        Raises:
            SessionTypeError: The stored value does not fit.
            SessionAliasError, SessionValueError: As ``write_back``.
        """
        self._write_back_others()
        found = self._live(as_type)
        if found is not None:
            return found.given
        self.write_back()
        return (
            ABSENT if self.data is None else self._keep(from_json(self.data, as_type, path=self.key), as_type, is_handed_out=True)
        )

    @property
    def undeclared(self) -> Undeclared | None:
        """The stored members that the types of its handles do not declare; None where there are none."""
        found: Undeclared | None = None
        for handle in self.handles:
            if handle.undeclared is not None:
                found = handle.undeclared.union(found)
        return found

    def get_default(self, default: Any, as_type: Any) -> Any:
        """Hand out a default in place of an absent value; it is stored if it changes.

        Raises:
            SessionValueError: The default itself may not be stored.
        """
        if not _may_change(default):
            return default
        data = write(to_json(default, as_type, path=self.key))
        new = Handle(default, as_type, path=self.key, base=data)
        for handle in self.handles:
            if handle.is_for(as_type) and handle.base == new.base:
                return handle.given
        self.handles += (new,)
        return default

    def put(self, data: bytes, given: Any, as_type: Any = None) -> None:
        """Store a written value. Earlier handles no longer count; the object that it was made from becomes one.

        A container of plain JSON is the very object that ``get_live`` hands out, as in a dict.
        """
        before = None
        if self.handles:
            before = self.undeclared
            self.handles = ()
        self.data, self.is_rewritten = data, True
        if type(given) not in ATOMS:  # spares most values the call of ``_keep``
            self._keep(given, as_type, undeclared=None if before is None else before.restrict_to(given))
            if as_type is None and self.handles and is_plain(given):
                self.handles[0].is_handed_out = True

    def watch(self, given: Any, through: Any) -> None:
        """Make an object a handle whose changes are converted to a type. One that cannot be written is not watched."""
        try:
            to_json(given, path=self.key)
        except SessionValueError:
            return
        if _may_change(given):
            self.handles += (Handle(given, None, path=self.key, base=self.data or b"", through=through),)

    def overwrite(self, data: bytes | None) -> None:
        """Replace a value that is written back; its handles become stale, and are still watched. None makes it absent."""
        self.data = data
        for handle in self.handles:
            handle.is_stale = True

    def drop(self) -> None:
        """Make the key absent. Its handles no longer count."""
        self.data, self.handles, self.is_rewritten = None, (), True

    def write_back(self) -> None:
        """Write back the handle that changed, if one did.

        Raises:
            SessionAliasError: Two handles changed, or a stale one did.
            SessionValueError: A handle holds something that may not be stored.
        """
        changed = [handle for handle in self.handles if handle.is_changed()] if self.handles else None
        if not changed:
            return
        if len(changed) > 1 or changed[0].is_stale:
            raise SessionAliasError(
                f"session[{self.key!r}] was changed through two objects that were handed out of it, and one change would be "
                "lost. Change it through one of them, or store the result with set()."
            )
        self._write_back_handle(changed[0])

    def _write_back_others(self) -> None:
        """Write back, unless there is a single handle on a present key: it cannot be stale, so it may be handed out as it is."""
        if len(self.handles) > 1 or self.data is None:
            self.write_back()

    def _write_back_handle(self, handle: Handle) -> None:
        self.data, self.is_rewritten = handle.write_value(), True
        for other in self.handles:
            other.is_stale = True
        handle.remember(self.data)

    def _live(self, as_type: Any) -> Handle | None:
        if self.data is not None:
            for handle in self.handles:
                if handle.is_for(as_type):
                    return handle
        return None

    def _keep(self, given: Any, as_type: Any, *, is_handed_out: bool = False, undeclared: Undeclared | None = None) -> Any:
        if self.data is not None and _may_change(given):
            handle = Handle(given, as_type, path=self.key, base=self.data, is_handed_out=is_handed_out, undeclared=undeclared)
            kind = handle.kind
            if is_handed_out and kind is not None and handle.snapshot != self.data and (kind.names or kind.rows):
                handle.undeclared = Undeclared(read(self.data), given, kind) or None
            self.handles += (handle,)
        return given


def is_plain(value: object) -> bool:
    """Whether a value has the builtin types alone, so that its JSON reads as an equal one."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return type(value) in ATOMS


def _may_change(value: object) -> bool:
    """Whether an object may change. An object of a subclass of str or a number counts as one that cannot."""
    return not isinstance(value, IMMUTABLE) and base_of(value) is value
