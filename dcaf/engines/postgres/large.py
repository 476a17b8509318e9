"""A transaction of more rows than a function has arguments for: in several statements, compared in Python.

A few rows are locked one by one, as functions do it. For more, the server might run out of room for locks, which all of its
connections share; so such a transaction waits until it is the only one that writes.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dcaf.core.errors import EngineError
from dcaf.engines.evaluation import apply
from dcaf.engines.postgres.calls import Work, find_wait_ms
from dcaf.engines.postgres.connections import Connection
from dcaf.engines.postgres.functions import Names, order_locks
from dcaf.engines.postgres.sql import BEGUN_SQL, KINDS, NOW_SQL, insert_row, set_commit
from dcaf.engines.postgres.tables import TableSql
from dcaf.engines.postgres.values import LISTS, Marks, Numbers, Texts
from dcaf.engines.transactions import Outcome, Page, Range, Record, Row, Table, Transaction

MOST_LOCKED: Final = 50
"""How many rows are locked one by one. PostgreSQL has room for 64 locks of each connection, if all of them take so many."""


def transact_in_steps(transaction: Transaction, names: Names, tables: Mapping[str, TableSql], *, is_waited_for: bool) -> Work:
    """The work of a transaction of many rows, or of one whose shape has no function."""

    async def work(connection: Connection, end: float) -> Outcome:
        await begin(connection, end)
        ((now_ms,),) = await connection.ask(f"SELECT {NOW_SQL if transaction.writes else BEGUN_SQL}")
        rows = await _read(connection, transaction.records, tables, now_ms)
        pages = tuple([await _read_page(connection, wanted, tables[wanted.table.name], now_ms) for wanted in transaction.ranges])
        try:
            written = apply(transaction, rows, now_ms)
        except EngineError:
            await connection.ask("ROLLBACK")
            raise
        if written:
            await _write(connection, written, rows, names, tables)
        connection.is_committing = bool(written)
        await connection.ask("COMMIT")
        return Outcome(written is not None, tuple([rows[record] for record in transaction.reads]), now_ms, pages)

    async def begin(connection: Connection, end: float) -> None:
        if not transaction.writes:
            await connection.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return
        await connection.ask("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        # Where this process stands still, or its event loop was closed, the server lets go of the locks by itself.
        names_of_limits = ("lock_timeout", "idle_in_transaction_session_timeout")
        limits = ", ".join(f"set_config('{name}'::text, $1::text, TRUE)" for name in names_of_limits)
        await connection.ask(f"SELECT {set_commit(is_waited_for=is_waited_for)}, {limits}", [str(find_wait_ms(end))])
        await _lock(connection, transaction, names)

    return work


async def _lock(connection: Connection, transaction: Transaction, names: Names) -> None:
    locks = order_locks(transaction, names)
    if len(locks) > MOST_LOCKED:
        await connection.ask("SELECT pg_advisory_xact_lock($1::bigint)", [names.gate])
        return
    await connection.ask("SELECT pg_advisory_xact_lock_shared($1::bigint)", [names.gate])
    await connection.ask(
        "SELECT CASE WHEN x.alone THEN pg_advisory_xact_lock(x.number) ELSE pg_advisory_xact_lock_shared(x.number) END "
        "FROM unnest($1::bigint[], $2::boolean[]) AS x(number, alone)",
        [Numbers(number for number, _ in locks), Marks(is_alone for _, is_alone in locks)],
    )


async def _read_page(connection: Connection, wanted: Range, sql: TableSql, now_ms: int) -> Page:
    bounds = [wanted.start, wanted.end or b"", wanted.end is None, now_ms, wanted.limit]
    found = await connection.ask(sql.ranges[wanted.backwards], bounds)
    return [(key, sql.build_row(row)) for key, *row in found]


async def _read(
    connection: Connection, records: Sequence[Record], tables: Mapping[str, TableSql], now_ms: int
) -> dict[Record, Row | None]:
    rows: dict[Record, Row | None] = dict.fromkeys(records)
    for table, keys in _group(records).items():
        sql = tables[table.name]
        for key, *values in await connection.ask(sql.read, [Texts(keys), now_ms]):
            rows[Record(table, key)] = sql.build_row(values)
    return rows


async def _write(
    connection: Connection,
    written: Mapping[Record, Row | None],
    before: Mapping[Record, Row | None],
    names: Names,
    tables: Mapping[str, TableSql],
) -> None:
    # A row that has expired may have columns of a newer release: the new one does not take them over.
    for table, keys in _group(record for record, row in written.items() if row is None or before[record] is None).items():
        await connection.ask(tables[table.name].delete, [Texts(keys)])
    for table, keys in _group(record for record, row in written.items() if row is not None).items():
        rows = [written[Record(table, key)] or {} for key in keys]
        columns = [Texts(keys), *(LISTS[kind](row[column] for row in rows) for column, kind in table.columns.items())]
        await connection.ask(_insert(table, names), columns)


def _insert(table: Table, names: Names) -> str:
    kinds = ["bytea", *(KINDS[kind] for kind in table.columns.values())]
    lists = ", ".join(f"pg_catalog.unnest(${at + 1}::{kind}[])" for at, kind in enumerate(kinds))
    return insert_row(names.quote(table.name), table, f"SELECT * FROM ROWS FROM ({lists})", is_values=False)


def _group(records: Iterable[Record]) -> dict[Table, list[bytes]]:
    """Table -> the keys of its rows, in their order."""
    found: dict[Table, list[bytes]] = {}
    for record in records:
        found.setdefault(record.table, []).append(record.key)
    return found
