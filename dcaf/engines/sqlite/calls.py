"""What the connections of a SQLite engine do for one call of each kind: a transaction, a scan, a step of a purge, a look.

Each function returns what a job of the worker calls in its thread, with the connection and the clock. A transaction is read,
evaluated in Python (``base.apply``) and written; the connection has begun a transaction of SQLite around it, so that nobody else
writes in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from dcaf.core.errors import ConfigurationError
from dcaf.engines.evaluation import apply
from dcaf.engines.searching import Search
from dcaf.engines.sqlite.connection import Connection
from dcaf.engines.sqlite.writer import Writer
from dcaf.engines.transactions import MOST_KEY_BYTES, Outcome, Page, Plus, Put, Range, Record, Row, Table, Transaction

NO_FTS5: Final = "This SQLite was built without FTS5, and so cannot search: use a Python whose SQLite has it."

LAST_KEY: Final = b"\xff" * (MOST_KEY_BYTES + 1)
"""Comes after each key."""

Work: TypeAlias = "Callable[[Connection, int], Any]"
"""What a job calls: takes the connection and the clock, in milliseconds since the epoch."""


def transact(transaction: Transaction) -> Work:
    """The work of a transaction."""
    replaced = find_replaced(transaction)
    looked_at = [record for record in transaction.records if record not in replaced]

    def work(connection: Connection, now_ms: int) -> Outcome:
        rows = connection.read(looked_at, now_ms)
        rows.update(replaced)
        pages = tuple([_find_page(connection, wanted, now_ms) for wanted in transaction.ranges])
        written = apply(transaction, rows, now_ms)
        if written:
            assert isinstance(connection, Writer)
            connection.write(rows, written)
        return Outcome(written is not None, tuple(rows[record] for record in transaction.reads), now_ms, pages)

    return work


def find_replaced(transaction: Transaction) -> dict[Record, None]:
    """The rows that are written whole and that nobody asks for: what was there before makes no difference."""
    found = {
        write.record: None
        for write in transaction.writes
        if isinstance(write, Put)
        and len(write.values) == len(write.record.table.columns)
        and write.record.table.searchable is None  # whose index must be told what was there
        and not any(isinstance(value, Plus) for value in write.values.values())
    }
    for record in transaction.reads:
        found.pop(record, None)
    return found


def scan(table: Table, equal: bytes | None, after: bytes, limit: int) -> Work:
    """The work of a scan."""

    def work(connection: Connection, now_ms: int) -> list[tuple[bytes, Row]]:
        sql = connection.require(table)
        statement, values = (sql.scan, ()) if equal is None else (sql.scan_equal, (equal,))
        return sql.build_page(connection.database.execute(statement, (*values, after, now_ms, limit)))

    return work


def _find_page(connection: Connection, wanted: Range, now_ms: int) -> Page:
    sql = connection.require(wanted.table)
    end = LAST_KEY if wanted.end is None else wanted.end
    return sql.build_page(connection.database.execute(sql.ranges[wanted.backwards], (wanted.start, end, now_ms, wanted.limit)))


def search(wanted: Search) -> Work:
    """The work of a search."""

    def work(connection: Connection, _now_ms: int) -> Page:
        sql = connection.require(wanted.table)
        if sql.words is None:
            raise ConfigurationError(NO_FTS5)
        return sql.build_page(connection.database.execute(sql.words.find, sql.words.list_values(wanted)))

    return work


def purge(table: Table, after: bytes, limit: int) -> Work:
    """The work of one step of a purge; see ``drop_expired``."""

    def work(connection: Connection, now_ms: int) -> tuple[int, bytes | None]:
        assert isinstance(connection, Writer)
        return connection.drop_expired(table, after, limit, now_ms)

    return work


def check(connection: Connection, now_ms: int) -> dict[str, str]:
    """The work of a look at the settings; that it was begun shows that the file can be written."""
    return {
        "sqlite": sqlite3.sqlite_version,
        "journal_mode": str(connection.get_pragma("journal_mode")),
        "clock_ms": str(now_ms),
    }
