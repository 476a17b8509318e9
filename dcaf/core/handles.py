"""What was handed out of a session and may have changed: containers and typed objects, key by key.

A slot keeps one key's value as JSON bytes, the only truth. Whoever reads it gets a live object, its handle. Before the
slot is read again, and before it is sealed, a handle that changed is written back.

>>> slot = Slot("cart", b'{"items":[]}')
>>> slot.lend()["items"].append("widget")
>>> slot.settle()
>>> slot.data
b'{"items":["widget"]}'

What a reader gets wrong: a handle is compared with how it looked when it was handed out, not with the stored bytes. So a
model that knows only some of the members, and was only read, never erases the others.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from dcaf.core.errors import SessionAliasError, StateError
from dcaf.core.values import CONTAINERS, JSON, from_json, mark, read, to_json, write

IMMUTABLE: Final = (str, int, float, bytes, type(None), date, time, datetime, timedelta, Decimal, UUID, Enum)
"""Types whose objects cannot change in the hands of a tool, and so need no handle."""


class Handle:
    """One object in the hands of a tool.

    Attributes:
        given: The object.
        as_type: The type it was asked for as; None for plain containers and for what was given to ``set``.
        base: How it looked, as JSON bytes, when it last agreed with its slot.
        stale: Its slot has changed since by another way.
    """

    __slots__ = ("as_type", "base", "given", "mark", "path", "stale")

    def __init__(self, given: Any, as_type: Any, *, path: str) -> None:
        self.given: Any = given
        self.as_type: Any = as_type
        self.path: str = path
        self.agree()

    def agree(self) -> None:
        """Remember how the object looks now, as what its slot knows.

        Raises:
            SessionValueError: It holds something that may not be stored.
        """
        self.mark: bytes | None = mark(self.given, self.as_type)
        self.base: bytes = self.written() if self.mark is None else self.mark
        self.stale: bool = False

    def written(self) -> bytes:
        """Write the object as it looks now.

        Raises:
            SessionValueError: It holds something that may not be stored.
        """
        return write(to_json(self.given, self.as_type, path=self.path))

    def is_changed(self) -> bool:
        """Whether the object looks different from what its slot knows.

        Raises:
            SessionValueError: It holds something that may not be stored.
        """
        if self.mark is not None and mark(self.given, self.as_type) == self.mark:
            return False
        return self.written() != self.base

    def is_for(self, as_type: Any) -> bool:
        """Whether this is the object to hand out for a type."""
        declared = self.as_type == as_type or (self.as_type is None and type(self.given) is as_type)
        return declared and not self.stale


class Slot:
    """One key of a session.

    Attributes:
        key: The key.
        arrived: Its value as it came in, as JSON bytes; None where it was absent.
        data: Its value now, as far as written back; None where it is absent.
    """

    __slots__ = ("arrived", "data", "handles", "key")

    def __init__(self, key: str, arrived: bytes | None) -> None:
        self.key: str = key
        self.arrived: bytes | None = arrived
        self.data: bytes | None = arrived
        self.handles: list[Handle] = []

    def lend(self) -> Any:
        """Hand out the plain value; a container is live. None where the key is absent.

        Raises:
            SessionAliasError, SessionValueError: As ``settle``.
        """
        self.settle()
        for handle in self.handles:
            if handle.as_type is None and type(handle.given) in CONTAINERS and not handle.stale:
                return handle.given
        return None if self.data is None else self._keep(read(self.data))

    def lend_as(self, as_type: Any) -> Any:
        """Hand out the value as a type: the same object each time, as long as it is the truth.

        Raises:
            SessionTypeError: The stored value does not fit.
            SessionAliasError, SessionValueError: As ``settle``.
        """
        if len(self.handles) == 1 and self.handles[0].is_for(as_type):
            return self.handles[0].given
        self.settle()
        for handle in self.handles:
            if handle.is_for(as_type):
                return handle.given
        assert self.data is not None
        return self._keep(from_json(self.data, as_type, path=self.key), as_type)

    def offer(self, default: Any, as_type: Any) -> Any:
        """Hand out a default in place of an absent value; it is stored if it changes.

        Raises:
            SessionValueError: The default itself may not be stored.
        """
        if isinstance(default, IMMUTABLE):
            return default
        offered = Handle(default, as_type, path=self.key)
        for handle in self.handles:
            if handle.is_for(as_type) and handle.base == offered.base:
                return handle.given
        self.handles.append(offered)
        return default

    def put(self, data: bytes, given: Any, as_type: Any = None) -> None:
        """Store a written value. What was handed out before no longer counts; the object it was made from does."""
        self.data = data
        self.handles.clear()
        self._keep(given, as_type)

    def watch(self, given: Any) -> None:
        """Let one more object stand for the value: a change to it is a change to the session."""
        self._keep(given)

    def drop(self) -> None:
        """Make the key absent. What was handed out no longer counts."""
        self.data = None
        self.handles.clear()

    def settle(self) -> None:
        """Write back what changed in the hands of a tool.

        Raises:
            SessionAliasError: Two handles changed, or one that had already been overtaken.
            SessionValueError: A handle holds something that may not be stored.
        """
        changed = [handle for handle in self.handles if handle.is_changed()]
        if not changed:
            return
        if len(changed) > 1 or changed[0].stale:
            raise SessionAliasError(
                f"session[{self.key!r}] was changed through two objects that were handed out of it, and one change would be "
                "lost. Change it through one of them, or store the result with set()."
            )
        self._write_back(changed[0])

    def _write_back(self, handle: Handle) -> None:
        looks = handle.written()
        self.data = looks if self.data in (None, handle.base) else self._merged(handle, looks)
        for other in self.handles:
            other.stale = True
        handle.agree()

    def _merged(self, handle: Handle, looks: bytes) -> bytes:
        """Keep the members that the handle's type does not declare, unless they would change what it reads back."""
        assert self.data is not None
        merged = write(_merge(read(self.data), read(handle.base), read(looks)))
        kind = handle.as_type or type(handle.given)
        try:
            again = write(to_json(from_json(merged, kind, path=self.key), kind, path=self.key))
        except StateError:
            return looks
        return merged if again == looks else looks

    def _keep(self, given: Any, as_type: Any = None) -> Any:
        if not isinstance(given, IMMUTABLE):
            self.handles.append(Handle(given, as_type, path=self.key))
        return given


def _merge(stored: JSON, base: JSON, new: JSON) -> JSON:
    """Apply the difference between base and new to what is stored."""
    if new == base:
        return stored
    if isinstance(stored, dict) and isinstance(base, dict) and isinstance(new, dict):
        unknown = {key: value for key, value in stored.items() if key not in base and key not in new}
        return {key: _merge(stored.get(key), base.get(key), value) for key, value in new.items()} | unknown
    if isinstance(stored, list) and isinstance(base, list) and isinstance(new, list) and len(stored) == len(base):
        return _merge_list(stored, base, new)
    return new


def _merge_list(stored: list[JSON], base: list[JSON], new: list[JSON]) -> list[JSON]:
    """Keep equal beginnings and ends as stored; items between them are paired where their number is the same."""
    shorter = min(len(base), len(new))
    head = next((i for i in range(shorter) if base[i] != new[i]), shorter)
    tail = next((i for i in range(shorter - head) if base[-1 - i] != new[-1 - i]), shorter - head)
    old_middle, old_base, middle = (items[head : len(items) - tail] for items in (stored, base, new))
    if len(old_base) == len(middle):
        middle = [_merge(*items) for items in zip(old_middle, old_base, middle, strict=True)]
    return stored[:head] + middle + stored[len(stored) - tail :]
