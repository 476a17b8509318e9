"""Turn a transaction of a service into one whose rows are encrypted, and what it came to back again.

    keys          owner, session and name are hidden
    values        are encrypted, each bound to its place
    comparisons   of an encrypted value are those of its tag
    pages         have the service's keys again; those of names are in their order where a page has all of its range, and where
                  a table of names says it (``encryption_order``)

Rows of other tables, as a ledger has them, stay as they are. So no rule of a service, and none of a ledger, knows of any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from dcaf.core.errors import CommitUnknownError, ConfigurationError, SealedRowError
from dcaf.core.keys import Keyring
from dcaf.engines import (
    AllOf,
    AnyOf,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Outcome,
    Page,
    Put,
    Range,
    Record,
    Row,
    Transaction,
    Write,
)
from dcaf.engines.transactions import check_transaction
from dcaf.service.encryption_cells import Cells
from dcaf.service.encryption_layout import LAYOUTS, NAME, TAG, Layout, begin_place, check_cells, name_row, pack, unpack
from dcaf.service.encryption_names import Names, open_names
from dcaf.service.tables import Columns, find_app

WRITTEN: Final = "It was written. What was read with it cannot be told: a row of it cannot be opened."
NOT_COMPARED: Final = "The column {} of {} is encrypted, and is compared with nothing."
ANOTHERS: Final = b"?"
"""Stands for the id of a session of another application, in a table that is walked through as a whole."""


class Rows:
    """Seals the rows of one application, and opens them.

    Args:
        names: What hides the keys.
        app: The application.
        keys: The ring.
        partitions: Of the engine.
        randomness: That many random bytes.

    Attributes:
        cells: What encrypts.
    """

    def __init__(self, names: Names, app: str, keys: Keyring, partitions: int, randomness: Callable[[int], bytes]) -> None:
        self._names = names
        self._app = app
        self._partitions = partitions
        self._unmarked = set(range(partitions)) - {find_app(app, partitions)[1]}
        self.cells: Cells = Cells(keys, app, names.mark, randomness)

    def seal(self, transaction: Transaction) -> Transaction:
        """The transaction for the database.

        Raises:
            ConfigurationError: It is none, or compares, or reads in an order, what is encrypted.
        """
        check_transaction(transaction, self._partitions)
        hidden: dict[Record, Record] = {record: self.hide(record) for record in transaction.records}
        when = transaction.when
        is_first = bool(transaction.writes) and transaction.partition in self._unmarked
        marks = [Put(name_row(self._app, transaction.partition), {"box": None})] if is_first else []
        return Transaction(
            [hidden[record] for record in transaction.reads],
            when=None if when is None else self._seal_condition(when, hidden),
            writes=[*(one for write in transaction.writes for one in self._seal_write(write, hidden[write.record])), *marks],
            durable=transaction.durable,
            ranges=[self._hide_range(wanted) for wanted in transaction.ranges],
        )

    def open(self, transaction: Transaction, outcome: Outcome) -> Outcome:
        """What a transaction came to, as the service knows it.

        Raises:
            SealedRowError: A row of it cannot be opened. Nothing was written.
            CommitUnknownError: The same, and it was written.
        """
        try:
            rows = tuple([self._open_read(record, row) for record, row in zip(transaction.reads, outcome.rows, strict=True)])
            pages = tuple([self._open_page(*one) for one in zip(transaction.ranges, outcome.pages, strict=True)])
        except SealedRowError as error:
            if outcome.applied and transaction.writes:
                raise CommitUnknownError(f"{WRITTEN} {error}") from error
            raise
        if outcome.applied and transaction.writes:
            self._unmarked.discard(transaction.partition)
        return Outcome(outcome.applied, rows, outcome.now_ms, pages)

    @property
    def names(self) -> Names:
        """What hides the keys."""
        return self._names

    def hide(self, record: Record) -> Record:
        """Where a row lies in the database."""
        layout = LAYOUTS.get(record.table.name)
        return record if layout is None else Record(layout.sealed, self._names.hide(layout, record.key), record.partition)

    def hide_names(self, wanted: Range, limit: int) -> Range:
        """Where the names lie of a session, or of a space, of which a range by name has some."""
        layout = LAYOUTS[wanted.table.name]
        assert layout.names is not None  # the range is by name
        start = self._names.hide(layout, wanted.start[: layout.start_of_name(wanted.start)])
        return Range.of_prefix(layout.names, start, limit, partition=wanted.partition)

    def open_names(self, wanted: Range, page: Page) -> list[bytes]:
        """The keys of the rows whose names were found by such a range.

        Raises:
            SealedRowError: One cannot be opened.
        """
        layout = LAYOUTS[wanted.table.name]
        assert layout.names is not None
        stem, place = wanted.start[: layout.start_of_name(wanted.start)], begin_place(layout.names.name, NAME)
        return [stem + layout.pack_name(self.cells.open(place + key, cast("bytes", row[NAME] or b""))) for key, row in page]

    def hide_last(self, layout: Layout, key: bytes) -> bytes:
        """The key in the database of the last row of a page; nothing for nothing."""
        return self._names.hide(layout, key) if key else key

    def open_found(
        self, layout: Layout, found: Iterable[tuple[bytes, Row]], *, is_everybodys: bool = False
    ) -> list[tuple[bytes, Row]]:
        """Rows that were found by a range or a scan, with their keys in the database.

        Args:
            layout: Of their table.
            found: The keys and the rows.
            is_everybodys: Whether rows of other applications may be among them. They come with an id that finds nothing.

        Raises:
            SealedRowError: One cannot be opened.
        """
        opened: list[tuple[bytes, Row]] = []
        show, has_names = self._names.show, layout.find_name is not None
        for hidden, row in found:
            key = show(layout, hidden)
            if is_everybodys and self._is_anothers(layout, row):
                opened.append((layout.mark_unknown(key), {**_copy(layout, row), "id": ANOTHERS}))
                continue
            plain = self._open_row(layout, hidden, row)
            opened.append((layout.restore_name(key, plain) if has_names else key, plain))
        return opened

    def _hide_range(self, wanted: Range) -> Range:
        layout = LAYOUTS.get(wanted.table.name)
        return wanted if layout is None else self._names.hide_range(layout, wanted)

    def _seal_condition(self, condition: Condition, hidden: Mapping[Record, Record]) -> Condition:
        if isinstance(condition, AllOf | AnyOf):
            return type(condition)(*(self._seal_condition(one, hidden) for one in condition))
        if isinstance(condition, Not):
            return Not(self._seal_condition(condition.condition, hidden))
        if isinstance(condition, Is):
            return self._seal_comparison(condition, hidden[condition.record])
        if isinstance(condition, Exists):
            return Exists(hidden[condition.record])
        return condition._replace(record=hidden[condition.record])

    def _seal_comparison(self, condition: Is, hidden: Record) -> Is:
        layout, column = LAYOUTS.get(condition.record.table.name), condition.column
        if layout is None or not any(column in names for names in layout.cells.values()):
            return Is(hidden, column, condition.value)
        if column != layout.compared or isinstance(condition.value, int):
            raise ConfigurationError(NOT_COMPARED.format(column, layout.table.name))
        return Is(hidden, TAG, self._names.tag(layout, condition.record.key, condition.value))

    def _seal_write(self, write: Write, hidden: Record) -> list[Write]:
        layout = LAYOUTS.get(write.record.table.name)
        beside = None if layout is None or layout.names is None else Record(layout.names, hidden.key, hidden.partition)
        if isinstance(write, Delete):
            return [Delete(hidden), *([] if beside is None else [Delete(beside)])]
        if layout is None:
            return [Put(hidden, write.values)]
        if layout.refused is not None:
            raise ConfigurationError(layout.refused)
        named = [] if beside is None or NAME not in write.values else [Put(beside, self._seal_name(write, beside))]
        return [Put(hidden, self._seal_values(layout, write, hidden)), *named]

    def _seal_name(self, write: Put, beside: Record) -> Columns:
        name = self.cells.seal(begin_place(beside.table.name, NAME) + beside.key, _value(write, NAME) or b"")
        return {NAME: name, **{column: write.values[column] for column in ("expires",) if column in write.values}}

    def _seal_values(self, layout: Layout, write: Put, hidden: Record) -> Columns:
        sealed: Columns = {name: value for name, value in write.values.items() if name not in layout.inside}
        for column, start, names in layout.openings:
            if check_cells(layout, column, write.values):
                plain = pack([_value(write, name) for name in names])
                sealed[column] = None if plain is None else self.cells.seal(start + hidden.key, plain)
        if layout.compared is not None and layout.compared in write.values and layout.has_tag(write.record.key):
            sealed[TAG] = self._names.tag(layout, write.record.key, _value(write, layout.compared))
        return sealed

    def _open_read(self, record: Record, row: Row | None) -> Row | None:
        layout = LAYOUTS.get(record.table.name)
        if layout is None or row is None:
            return row
        return self._open_row(layout, self._names.hide(layout, record.key), row)

    def _open_page(self, wanted: Range, page: Page) -> Page:
        layout = LAYOUTS.get(wanted.table.name)
        if layout is None:
            return page
        opened = self.open_found(layout, page, is_everybodys=wanted.end is None)
        if len(opened) < wanted.limit and _is_whole(layout, wanted):
            opened.sort(key=_key_of, reverse=wanted.backwards)
        return opened

    def _open_row(self, layout: Layout, hidden: bytes, row: Row) -> Row:
        opened = _copy(layout, row)
        for column, start, names in layout.openings:
            cell = row[column]
            if isinstance(cell, bytes):
                plain = self.cells.open(start + hidden, cell)
                if len(names) == 1:
                    opened[column] = plain
                else:
                    opened.update(zip(names, unpack(plain, len(names)), strict=True))
        return opened

    def _is_anothers(self, layout: Layout, row: Row) -> bool:
        cells = [cell for column in layout.cells if isinstance(cell := row[column], bytes)]
        return not any(map(self.cells.is_ours, cells))


__all__ = ["Rows", "open_names"]


def _copy(layout: Layout, row: Row) -> dict[str, bytes | int | None]:
    """A row of the service's without what is encrypted."""
    return layout.empty | {name: row[name] for name in layout.plain}


def _value(write: Put, column: str) -> bytes | None:
    value = write.values[column]
    if value is None or isinstance(value, bytes):
        return value
    raise ConfigurationError(NOT_COMPARED.format(column, write.record.table.name))


def _is_whole(layout: Layout, wanted: Range) -> bool:
    """Whether a range of rows with names is none that goes on from a page before, whose order it would have to keep."""
    start = layout.start_of_name(wanted.start)
    return layout.find_name is not None and (start is None or len(wanted.start) <= start)


def _key_of(found: tuple[bytes, Row]) -> bytes:
    return found[0]
