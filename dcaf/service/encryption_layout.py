"""How the tables of a service are kept encrypted: which columns are, what the keys of rows have in them, and which of it is hidden.

    rows of a session     owner 16 . "s" . session 16 . then a number, or "=" and a name
    rows of an owner      owner 16 . "u" . "=" and a name
    of an application     owner 16 . "=" and a name
    documents             owner 16 . "s" . session 16 . "=" and a name; a space is there as a session of an owner of its own
    lists                 owner 16 . perhaps a byte . minute 8 . session 16

Owner and session are digests that everybody can compute who guesses a name, and names are text. What stands in the database for
them is worked out with a key (``encryption_names``). Numbers stay as they are, since rows are read in their order. Names have none
there: documents, which are read by what their names begin with, have a table of their names besides (``encryption_order``).

What a reader gets wrong: a table that is not described here is not kept encrypted by anybody's good will. The engine refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.core.store import digest_parts
from dcaf.engines import Range, Record, Row, Table
from dcaf.service.tables import (
    ARTIFACTS,
    CHANGES,
    CHECKPOINTS,
    DIGEST_BYTES,
    DOCUMENTS,
    INDEXED,
    LISTS,
    MEMORY,
    MESSAGES,
    NUMBER_BYTES,
    OF_OWNER,
    OF_SESSION,
    SESSIONS,
    STATE,
    WORDS,
    pack_name,
)

SUFFIX: Final = "_sealed"
"""The rows of encrypted applications lie in tables of their own: no table has rows of both kinds."""

TAG: Final = "tag"
"""The column by which a value is compared that is encrypted, and so is other bytes each time."""

NAME: Final = "name"
"""The column of a name in a table of names."""

LENGTH_BYTES: Final = 4
NONE: Final = b"\xff" * LENGTH_BYTES

NAMES: Final = Table("dcaf_sealed_apps", {"box": bytes})
"""Digest of an application -> its key of names, encrypted; and in the other partitions only that its rows are encrypted."""


OWNER_END: Final = DIGEST_BYTES
SESSION_START: Final = OWNER_END + 1
SESSION_END: Final = SESSION_START + DIGEST_BYTES

NO_SEARCH: Final = (
    "Messages that are encrypted cannot be searched: an index of their words would have to be read by whoever reads the database. "
    "Leave out encrypt=, or search in what you read. What is remembered can be searched: memory.search() keeps no index."
)
NO_FILES: Final = (
    "Files are not kept where a service encrypts: their bytes lie in another store, and nothing encrypts them. Leave out "
    "artifacts=, or keep them in a service of another app= without encrypt=."
)
APART: Final = "The columns {} of {} are encrypted together, so a write has all of them or none."


def pack_text(name: bytes) -> bytes:
    """A name as keys of states, facts and checkpoints have it."""
    return pack_name(name.decode())


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is kept encrypted.

    Attributes:
        table: The table, as the service knows it.
        cells: Column in the database -> the columns that are encrypted in it, together.
        compared: The column that a condition may compare in rows that no session has for itself; None for none.
        is_list: Whether its keys have a minute before the session.
        refused: Why nothing is written to it; None where it is kept.
        find_name: Finds where in a key the name begins, as far as there is one; None where no key has names.
        pack_name: What stands in a key for a name.
        names: The table in the database that has the names alone, under the same keys; None where nobody asks for their order.
        sealed: The table in the database.
        stored: Both tables in the database, if there are two, and which of their columns are encrypted.
        inside: The columns that are encrypted.
        plain: The others.
        empty: The columns that are encrypted, each without a value.
        openings: Of each column in the database that is encrypted: its name, what its places begin with, and what is in it.
    """

    table: Table
    cells: Mapping[str, tuple[str, ...]] = field(hash=False)
    compared: str | None = None
    is_list: bool = False
    find_name: Callable[[bytes], int | None] | None = None
    refused: str | None = None
    pack_name: Callable[[bytes], bytes] = pack_text
    names: Table | None = None
    sealed: Table = field(init=False)
    stored: tuple[tuple[Table, tuple[str, ...]], ...] = field(init=False)
    inside: frozenset[str] = field(init=False)
    plain: tuple[str, ...] = field(init=False)
    empty: dict[str, bytes | int | None] = field(init=False, hash=False)
    openings: tuple[tuple[str, bytes, tuple[str, ...]], ...] = field(init=False)

    def __post_init__(self) -> None:
        inside = frozenset(name for names in self.cells.values() for name in names)
        columns = {name: kind for name, kind in self.table.columns.items() if name in self.cells or name not in inside}
        more: dict[str, type[int | bytes]] = {} if self.compared is None else {TAG: bytes}
        name = self.table.name + SUFFIX
        sealed = Table(name, {**columns, **more}, large=self.table.large, ordered=self.table.ordered)
        object.__setattr__(self, "sealed", sealed)
        beside = () if self.names is None else ((self.names, (NAME,)),)
        object.__setattr__(self, "stored", ((sealed, tuple(self.cells)), *beside))
        object.__setattr__(self, "inside", inside)
        object.__setattr__(self, "plain", tuple(name for name in self.table.columns if name not in inside))
        object.__setattr__(self, "empty", dict.fromkeys(inside))
        openings = tuple((column, begin_place(name, column), names) for column, names in self.cells.items())
        object.__setattr__(self, "openings", openings)

    def start_of_name(self, key: bytes) -> int | None:
        """Where in a key of the service's the name begins; None where it has none."""
        return None if self.find_name is None else self.find_name(key)

    def has_tag(self, key: bytes) -> bool:
        """Whether conditions may compare the row of this key: several sessions share it."""
        return self.compared is not None and key[OWNER_END:SESSION_START] != OF_SESSION

    def restore_name(self, key: bytes, row: Row) -> bytes:
        """A key of a row with the name that stands in the row, in place of what stands in the key for it."""
        start = self.start_of_name(key)
        name = None if start is None else row[NAME]
        return key if start is None or not isinstance(name, bytes) else key[:start] + self.pack_name(name)


def is_by_name(wanted: Range) -> bool:
    """Whether a range has rows in the order of their names: it begins and ends among the names of one session, or of one space."""
    layout, end = LAYOUTS.get(wanted.table.name), wanted.end
    if layout is None or layout.names is None or end is None:
        return False
    start = layout.start_of_name(wanted.start)
    return start is not None and len(wanted.start) >= start and len(end) >= start


def begin_place(table: str, column: str) -> bytes:
    """What the places of a column begin with; the key of a row comes behind it. Names have no NUL character."""
    return b"\0".join((table.encode(), column.encode(), b""))


def name_row(app: str, partition: int) -> Record:
    """The row of an application, in a partition."""
    return Record(NAMES, digest_parts(b"sealed", app.encode())[:DIGEST_BYTES], partition)


def pack(values: Sequence[bytes | None]) -> bytes | None:
    """Several values as one text, each behind its length; one alone as it is; None where all are None.

    >>> unpack(pack([b"step", None]), 2), unpack(pack([b"step"]), 1), pack([None, None])
    ([b'step', None], [b'step'], None)
    """
    if all(value is None for value in values):
        return None
    return values[0] if len(values) == 1 else b"".join(map(_pack_one, values))


def unpack(packed: bytes, count: int) -> list[bytes | None]:
    """So many values."""
    if count == 1:
        return [packed]
    found: list[bytes | None] = []
    at = 0
    while at < len(packed):
        length, at = packed[at : at + LENGTH_BYTES], at + LENGTH_BYTES
        size = 0 if length == NONE else int.from_bytes(length, "big")
        found.append(None if length == NONE else packed[at : at + size])
        at += size
    return found


def _pack_one(value: bytes | None) -> bytes:
    return NONE if value is None else len(value).to_bytes(LENGTH_BYTES, "big") + value


def _after_place(key: bytes) -> int:
    """Where in a key of a state, or of a session's rows, the rest begins: behind the session, the user, or the application."""
    return {OF_SESSION: SESSION_END, OF_OWNER: SESSION_START}.get(key[OWNER_END:SESSION_START], OWNER_END)


def _find_fact(key: bytes) -> int | None:
    """Where in a key of a memory the name begins: behind the scope, a letter and the generation. The head has none."""
    start = _after_place(key) + (key[OWNER_END:SESSION_START] == OF_SESSION)
    return None if key[start : start + 1] == b"h" else start + 1 + NUMBER_BYTES


def _find_document(_: bytes) -> int:
    """Where in a key of a document its name begins: behind the session, or the space, and a sign."""
    return SESSION_END + 1


def _pack_document(name: bytes) -> bytes:
    return name


DOCUMENT_NAMES: Final = Table("dcaf_kept_documents_names", {NAME: bytes, "expires": int}, ordered=True)
"""The same keys as those of documents -> the name, encrypted; and when the document ends."""

LAYOUTS: Final[dict[str, Layout]] = {
    layout.table.name: layout
    for layout in (
        Layout(SESSIONS, {"id": ("id", "user"), **{name: (name,) for name in ("title", "labels", "metadata", "open_calls")}}),
        Layout(STATE, {"value": ("name", "value")}, compared="value", find_name=_after_place),
        Layout(MESSAGES, {"data": ("data",)}),
        Layout(CHANGES, {"data": ("data",)}),
        Layout(CHECKPOINTS, {"data": ("name", "data")}, find_name=_after_place),
        Layout(LISTS, {"session": ("session",)}, is_list=True),
        Layout(MEMORY, {"value": ("name", "value")}, find_name=_find_fact),
        Layout(WORDS, {}, refused=NO_SEARCH),
        Layout(INDEXED, {}, refused=NO_SEARCH),
        Layout(
            DOCUMENTS,
            {"data": ("space", "name", "json", "data")},
            find_name=_find_document,
            pack_name=_pack_document,
            names=DOCUMENT_NAMES,
        ),
        Layout(ARTIFACTS, {}, refused=NO_FILES),
    )
}
"""Name of a table -> how it is kept. Tables of a ledger are kept as they are: they have numbers, digests and encrypted answers."""


def check_cells(layout: Layout, column: str, written: Mapping[str, object]) -> bool:
    """Whether a write has what stands encrypted in a column.

    Raises:
        ConfigurationError: It has some of it.
    """
    names = layout.cells[column]
    count = sum(name in written for name in names)
    if count not in {0, len(names)}:
        raise ConfigurationError(APART.format(" and ".join(names), layout.table.name))
    return count > 0
