"""What a turn did to its session, and how it is laid over what others have written since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dcaf.core.json_values import write
from dcaf.core.merging import CommutingChange, merge, read_value, reapply
from dcaf.core.parts import ABSENT
from dcaf.engines import Row
from dcaf.service.document_rows import DocumentChange
from dcaf.service.kept import value_of
from dcaf.service.places import APP, USER
from dcaf.service.remembered import MemoryChange, lay_over


class KeyChange(NamedTuple):
    """What a turn did to a key of its state.

    Attributes:
        before: Its value as JSON when it arrived; None for absent.
        after: Its value now.
        change: The increments or appends that led to it; None where it was changed in another way.
        is_clash: Whether another session had written the same value meanwhile, and its change was given up for this one.
    """

    before: bytes | None
    after: bytes | None
    change: CommutingChange | None = None
    is_clash: bool = False

    def __repr__(self) -> str:
        return "KeyChange(...)"

    def over(self, key: str, theirs: bytes | None) -> KeyChange:
        """The same, laid over a value that another session has written meanwhile. Where both wrote one value, this one stays."""
        counted = None if self.change is None else reapply(theirs, key, self.change)
        if counted is not None:
            return KeyChange(theirs, counted, self.change, self.is_clash)
        merged, paths = merge(*map(read_value, (self.before, theirs, self.after)))
        return KeyChange(theirs, None if merged is ABSENT else write(merged), self.change, self.is_clash or bool(paths))


class Mark(NamedTuple):
    """A checkpoint that a turn has set.

    Attributes:
        data: The session's own state at that moment, as JSON.
        messages: How many messages the turn had added.
    """

    data: bytes
    messages: int

    def __repr__(self) -> str:
        return "Mark(...)"


@dataclass(frozen=True, slots=True)
class Change:
    """What a turn did to its session.

    Attributes:
        values: Changed key -> what was done to it.
        messages: New messages, packed, each with its moment in milliseconds; None for that of the commit.
        ttl_ms: For how long the session is kept from now on; None for ever.
        memory: What was done to the memories of the user and of the session.
        version: Of the application's schema, where it is another one than before; None where it is the same.
        marks: Name -> the checkpoint that was set under it.
        is_rewind: Whether it takes the session back.
        documents: What was done to the documents of the session.
    """

    values: Mapping[str, KeyChange] = field(repr=False)
    messages: Sequence[tuple[bytes, int | None]] = field(default=(), repr=False)
    ttl_ms: int | None = None
    memory: Sequence[MemoryChange] = ()
    version: int | None = None
    marks: Mapping[str, Mark] = field(default_factory=dict, repr=False)
    is_rewind: bool = False
    documents: Sequence[DocumentChange] = ()

    @property
    def is_logged(self) -> bool:
        """Whether it says something of the state."""
        return bool(self.values) or self.version is not None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.values or self.messages or self.memory or self.marks or self.documents)

    def only(self, *, app: bool) -> Change:
        """What is shared across the application of it, or the rest, with messages, memory and documents."""
        values = {name: value for name, value in self.values.items() if name.startswith(APP) is app}
        return Change(values) if app else replace(self, values=values)

    def list_shared(self) -> list[str]:
        """The changed keys that other sessions have, too."""
        return [name for name in self.values if name.startswith((USER, APP))]

    def list_laid(self, first: Change) -> dict[str, bytes | None]:
        """The values that differ from those of the change that this one was made of."""
        return {name: value.after for name, value in self.values.items() if value.after != first.values[name].after}

    def count_clashes(self) -> int:
        """At how many keys the change of another session was given up for this one."""
        return sum(value.is_clash for value in self.values.values())

    def over(self, rows: Sequence[Row | None]) -> Change:
        """The same, laid over what others have written since.

        Args:
            rows: The shared keys as they are now, in the order of ``list_shared``; what the memories read, and the documents.

        Raises:
            DocumentConflictError: A document is of another revision than the turn expects.
        """
        shared = self.list_shared()
        found = zip(shared, rows, strict=False)
        values = {**self.values, **{name: self.values[name].over(name, value_of(row)) for name, row in found}}
        left = rows[len(shared) + sum(len(change.reads()) for change in self.memory) :]
        for change in self.documents:
            change.check(left)
        return replace(self, values=values, memory=lay_over(self.memory, rows[len(shared) :]))


def pack_change(change: Change) -> bytes:
    """What was changed, as JSON: ``set`` has keys and values, ``delete`` the keys that were removed.

    A change that takes the session back has a member ``rewind``, too; one after which the state is of another version of the
    application's schema, that ``version``.
    """
    after = {name: value.after for name, value in change.values.items()}
    values = b",".join(write(name) + b":" + value for name, value in after.items() if value is not None)
    more = b',"rewind":true' if change.is_rewind else b""
    more += b"" if change.version is None else b',"version":%d' % change.version
    return b'{"set":{%b},"delete":%b%b}' % (values, write([name for name, value in after.items() if value is None]), more)
