"""Encrypt everything anew that is not under the key that encrypts now, so that the older ones can be taken out of the ring.

It goes through all rows as they are in the database, beside the turns that go on. A row is written only where it is still what was
read; one that a turn has written meanwhile is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, cast

from dcaf.core.errors import SealedRowError
from dcaf.core.keys import Keyring
from dcaf.engines import Condition, Is, Put, Range, Record, Row, Transaction
from dcaf.service.encryption import Reencrypted
from dcaf.service.encryption_cells import Cells, place_of
from dcaf.service.encryption_layout import LAYOUTS, name_row
from dcaf.service.encryption_names import NO_MARK
from dcaf.service.plans import Plan
from dcaf.service.remembered import join
from dcaf.service.tables import Columns, find_app

AT_ONCE: Final = 200
AT_ONCE_LARGE: Final = 20
"""How many rows are read in one transaction: rows that may have a megabyte each are fewer."""


class _Renewal(NamedTuple):
    """A row that is to be written.

    Attributes:
        before: Its cells as they were read, which it must have still.
        put: What is written.
    """

    before: Sequence[Condition]
    put: Put


RENEWED: Final = Reencrypted(rows=1)
CURRENT: Final = Reencrypted(current=1)
REFUSED: Final = Reencrypted(refused=1)


def reencrypt(app: str, keys: Keyring, cells: Cells, partitions: int) -> Plan[Reencrypted]:
    """Encrypt all rows of an application anew that need it, and its key of names.

    Args:
        app: The application.
        keys: The ring.
        cells: Of the application.
        partitions: Of the engine.
    """
    found = yield from _renew_row(Cells(keys, app, NO_MARK), name_row(app, find_app(app, partitions)[1]), ["box"])
    for layout in LAYOUTS.values():
        for table, columns in layout.stored:
            limit = AT_ONCE_LARGE if table.large else AT_ONCE
            for partition in range(partitions):
                rows = Range(table, b"", None, limit, partition=partition)
                found = found.plus((yield from _renew_range(cells, rows, columns)))
    return found


def _renew_range(cells: Cells, rows: Range, columns: Sequence[str]) -> Plan[Reencrypted]:
    found = Reencrypted()
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        ours = [(Record(rows.table, key, rows.partition), row) for key, row in page if _is_ours(cells, row, columns)]
        found = found.plus((yield from _renew_page(cells, ours, columns)))
        if len(page) < rows.limit:
            return found
        rows = Range(rows.table, page[-1][0] + b"\0", None, rows.limit, partition=rows.partition)


def _renew_page(cells: Cells, rows: Sequence[tuple[Record, Row]], columns: Sequence[str]) -> Plan[Reencrypted]:
    """Encrypt some rows in one transaction; one by one where another has written one of them."""
    found, renewals = Reencrypted(), []
    for record, row in rows:
        renewal = _renew(cells, record, row, columns)
        if isinstance(renewal, Reencrypted):
            found = found.plus(renewal)
        else:
            renewals.append(renewal)
    if not renewals or (yield _write(renewals)).applied:
        return found.plus(Reencrypted(rows=len(renewals)))
    for renewal in renewals:
        found = found.plus((yield from _renew_row(cells, renewal.put.record, columns)))
    return found


def _renew_row(cells: Cells, record: Record, columns: Sequence[str]) -> Plan[Reencrypted]:
    while True:
        row = (yield Transaction([record])).rows[0]
        if row is None:
            return Reencrypted()
        renewal = _renew(cells, record, row, columns)
        if isinstance(renewal, Reencrypted):
            return renewal
        if (yield _write([renewal])).applied:
            return RENEWED


def _renew(cells: Cells, record: Record, row: Row, columns: Sequence[str]) -> _Renewal | Reencrypted:
    """What is written of a row; or what it counts as where nothing is."""
    old = {column: cell for column, cell in _list_cells(row, columns) if not cells.is_current(cell)}
    if not old:
        return CURRENT
    places = {column: place_of(record.table.name, record.key, column) for column in old}
    try:
        renewed: Columns = {column: cells.seal(places[column], cells.open(places[column], cell)) for column, cell in old.items()}
    except SealedRowError:
        return REFUSED
    return _Renewal([Is(record, column, cell) for column, cell in old.items()], Put(record, renewed))


def _write(renewals: Sequence[_Renewal]) -> Transaction:
    when = join([condition for renewal in renewals for condition in renewal.before])
    return Transaction([renewal.put.record for renewal in renewals], when=when, writes=[renewal.put for renewal in renewals])


def _is_ours(cells: Cells, row: Row, columns: Sequence[str]) -> bool:
    return any(cells.is_ours(cell) for _, cell in _list_cells(row, columns))


def _list_cells(row: Row, columns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    return ((column, cast("bytes", row[column])) for column in columns if row[column] is not None)
