"""A transaction of more rows than a function has arguments for: in several statements, compared in Python.

Up to a thousand rows are locked one by one, as functions do it. For more, the server would need a lock each, of which it has some
thousands; so such a transaction waits until it is the only one that writes.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dcaf.core.errors import EngineError
from dcaf.engines.evaluation import apply
from dcaf.engines.postgres_calls import Work, find_wait_ms
from dcaf.engines.postgres_connections import Connection
from dcaf.engines.postgres_functions import KINDS, NOW_SQL, Names, insert_row, order_locks
from dcaf.engines.postgres_tables import TableSql
from dcaf.engines.postgres_values import LISTS, Marks, Numbers, Texts
from dcaf.engines.transactions import Outcome, Record, Row, Table, Transaction

MOST_LOCKED: Final = 1_000
"""How many rows are locked one by one."""


def transact_in_steps(transaction: Transaction, names: Names, tables: Mapping[str, TableSql], *, is_waited_for: bool) -> Work:
    """The work of a transaction of many rows, or of one whose shape has no function."""

    async def work(connection: Connection, end: float) -> Outcome:
        await begin(connection, end)
        ((now_ms,),) = await connection.ask(f"SELECT {NOW_SQL}::bigint")
        rows = await _read(connection, transaction.reads, tables, now_ms)
        try:
            written = apply(transaction, rows, now_ms)
        except EngineError:
            await connection.ask("ROLLBACK")
            raise
        if written:
            await _write(connection, written, names, tables)
        connection.is_committing = bool(written)
        await connection.ask("COMMIT")
        return Outcome(written is not None, tuple([rows[record] for record in transaction.reads]), now_ms)

    async def begin(connection: Connection, end: float) -> None:
        if not transaction.writes:
            await connection.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return
        await connection.ask("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        if not is_waited_for:
            await connection.ask("SELECT set_config('synchronous_commit', 'off', TRUE)")
        wait = str(find_wait_ms(end))
        # Where this process stands still, or its event loop was closed, the server lets go of the locks by itself.
        limits = "set_config('lock_timeout', $1::text, TRUE), set_config('idle_in_transaction_session_timeout', $1::text, TRUE)"
        await connection.ask(f"SELECT {limits}", [wait])
        await _lock(connection, transaction, names)

    return work


async def _lock(connection: Connection, transaction: Transaction, names: Names) -> None:
    locks = order_locks(transaction, names)
    if len(locks) > MOST_LOCKED:
        await connection.ask(f"SELECT pg_advisory_xact_lock({names.gate})")
        return
    await connection.ask(f"SELECT pg_advisory_xact_lock_shared({names.gate})")
    await connection.ask(
        "SELECT CASE WHEN x.alone THEN pg_advisory_xact_lock(x.number) ELSE pg_advisory_xact_lock_shared(x.number) END "
        "FROM unnest($1::bigint[], $2::boolean[]) AS x(number, alone)",
        [Numbers(number for number, _ in locks), Marks(is_alone for _, is_alone in locks)],
    )


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
    connection: Connection, written: Mapping[Record, Row | None], names: Names, tables: Mapping[str, TableSql]
) -> None:
    for table, keys in _group(record for record, row in written.items() if row is None).items():
        await connection.ask(tables[table.name].delete, [Texts(keys)])
    for table, keys in _group(record for record, row in written.items() if row is not None).items():
        rows = [written[Record(table, key)] or {} for key in keys]
        columns = [Texts(keys), *(LISTS[kind](row[column] for row in rows) for column, kind in table.columns.items())]
        await connection.ask(_insert(table, names), columns)


def _insert(table: Table, names: Names) -> str:
    kinds = ["bytea", *(KINDS[kind] for kind in table.columns.values())]
    lists = ", ".join(f"${at + 1}::{kind}[]" for at, kind in enumerate(kinds))
    return insert_row(names.quote(table.name), table, f"SELECT * FROM unnest({lists})", is_values=False)


def _group(records: Iterable[Record]) -> dict[Table, list[bytes]]:
    """Table -> the keys of its rows, in their order."""
    found: dict[Table, list[bytes]] = {}
    for record in records:
        found.setdefault(record.table, []).append(record.key)
    return found
