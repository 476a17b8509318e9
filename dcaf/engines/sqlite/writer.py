"""The connection of a SQLite engine that writes: what waits is one commit.

It takes the lock beside the file, begins, does each transaction, and commits once: then all are answered. A transaction that fails
is taken back to its savepoint, and the others stand. Where the commit fails, nothing of it was written, and all are told so; or,
where the disk failed while it was made safe, that nobody can tell.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError
from dcaf.engines.sqlite.connection import VERSION, Connection, Settings
from dcaf.engines.sqlite.errors import GONE, NO_WAL, UNTOLD, build_error, describe, find_code, is_busy
from dcaf.engines.sqlite.file import FileLock
from dcaf.engines.sqlite.tables import TableSql
from dcaf.engines.sqlite.words import WordsSql
from dcaf.engines.sqlite.worker import Calls, Job
from dcaf.engines.transactions import EXPIRES, Record, Row, Table

NEIGHBOURS: Final = 8
"""How many rows after one that was written are looked at, to drop those that have expired."""

RETRY_S: Final = 0.0001
"""How long to wait for another process where the kernel has no lock for it."""


class Writer(Connection):
    """Writes: what waits is one commit.

    Args:
        settings: What both connections share.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lock = FileLock(settings.path)
        self._is_synchronous: bool | None = None
        self._written: dict[str, Record] = {}
        self._changes = 0
        self.commits: int = 0

    def serve(self, calls: Calls) -> None:
        jobs: list[Job] = []
        try:
            self._make_file()
            with self._lock:
                self._retry(self.open)
                waiting = calls.collect()
                is_durable = any(job.durable for job in waiting)
                self._set_synchronous(is_durable=is_durable)
                self._retry(self._begin)
                jobs = calls.begin(waiting)
                results = self._do_all(jobs)
                self._commit(is_durable=is_durable)
        except (sqlite3.Error, OSError, EngineError) as error:
            self._drop()
            for job in jobs or calls.begin(calls.collect()):
                job.fail(build_error(error))
        except BaseException:
            self._drop()
            raise
        else:
            for job, result in zip(jobs, results, strict=True):
                job.fail(result) if isinstance(result, EngineError | ConfigurationError) else job.finish(result)

    def close(self) -> None:
        super().close()
        self._is_synchronous, self._changes = None, 0
        self._lock.close()

    def require(self, table: Table) -> TableSql:
        if table.name not in self._checked:
            self._make(table)
            self._checked.add(table.name)
        return self._sql[table.name]

    def write(self, rows: Mapping[Record, Row | None], written: Mapping[Record, Row | None]) -> None:
        """Write what differs.

        Args:
            rows: What was read.
            written: What it is to be.
        """
        changed = [record for record, row in written.items() if row != rows[record]]
        if len(changed) > 1:
            self.database.execute("SAVEPOINT step")
        try:
            for record in changed:
                self._write_row(record, rows[record], written[record])
        except sqlite3.Error:
            self._take_back(is_nested=len(changed) > 1)
            raise
        if len(changed) > 1:
            self.database.execute("RELEASE step")
        self._written.update((record.table.name, record) for record in changed)

    def _write_row(self, record: Record, before: Row | None, row: Row | None) -> None:
        sql = self.require(record.table)
        words = nullcontext() if sql.words is None else sql.words.changing(self.database, record.key, before, row)
        with words:
            self._write_columns(sql, record, before, row)

    def _write_columns(self, sql: TableSql, record: Record, before: Row | None, row: Row | None) -> None:
        if row is None:
            self.database.execute(sql.delete, (record.key,))
        elif before is None:
            self.database.execute(sql.insert, (record.key, *row.values()))
        else:
            columns = tuple(column for column, value in row.items() if value != before[column])
            self.database.execute(sql.update(columns), (*(row[column] for column in columns), record.key))

    def _take_back(self, *, is_nested: bool) -> None:
        if is_nested and self.database.in_transaction:
            self.database.execute("ROLLBACK TO step")
            self.database.execute("RELEASE step")

    def drop_expired(self, table: Table, after: bytes, limit: int, now_ms: int) -> tuple[int, bytes | None]:
        """Drop those of the rows after a key that have expired.

        Args:
            table: Their table.
            after: The key.
            limit: How many rows are looked at.
            now_ms: The clock.

        Returns:
            How many were dropped, and the last key that was looked at; None where there are no more.
        """
        sql = self.require(table)
        if not sql.look_on:
            return 0, None
        rows = self.database.execute(sql.look_on, (now_ms, after, limit)).fetchall()
        over = [(key,) for key, is_over in rows if is_over]
        if over:
            self.database.executemany(sql.delete, over)
        return len(over), rows[-1][0] if len(rows) == limit else None

    def notice_other_file(self) -> None:
        raise EngineError(GONE)

    def _make_file(self) -> None:
        """Make an empty database where there is none: SQLite would let everybody of this machine read it.

        The files of the lock, which are made next, get its owner and mode.
        """
        if self._open is None:
            with suppress(FileExistsError):
                os.close(os.open(self._settings.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _set_up(self) -> None:
        super()._set_up()
        if self.get_pragma("journal_mode = WAL") != "wal":
            raise EngineError(NO_WAL)
        if not self._settings.has_lock:
            self.database.execute("PRAGMA busy_timeout = 0")  # its sleeps grow, and those who sleep longest never come to write
        if sys.platform == "darwin":
            self.database.execute("PRAGMA fullfsync = 1")

    def _set_synchronous(self, *, is_durable: bool) -> None:
        is_full = is_durable and self._settings.durability == "acknowledged"
        if is_full is not self._is_synchronous:
            self.database.execute(f"PRAGMA synchronous = {'FULL' if is_full else 'NORMAL'}")
            self._is_synchronous = is_full

    def _begin(self) -> None:
        self.database.execute("BEGIN IMMEDIATE")

    def _retry(self, call: Callable[[], None]) -> None:
        """Call, and call again while another program holds the database, where the kernel has no lock to wait for."""
        end = time.monotonic() + self._settings.timeout_s
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if self._settings.has_lock or not is_busy(error) or time.monotonic() > end:
                    raise
                time.sleep(RETRY_S)

    def _do_all(self, jobs: Iterable[Job]) -> list[Any]:
        results = [self._do(job) for job in jobs]
        for record in self._written.values() if any(job.durable for job in jobs) else ():
            if EXPIRES in record.table.columns:
                self.drop_expired(record.table, record.key, NEIGHBOURS, self.now_ms())
        self._written.clear()
        return results

    def _do(self, job: Job) -> Any:
        try:
            return job.call(self, self.now_ms())
        except (EngineError, ConfigurationError) as error:
            return error
        except sqlite3.Error as error:
            if find_code(error) & 0xFF != sqlite3.SQLITE_TOOBIG:  # whatever else it is, it is not this call's alone
                raise
            return build_error(error)

    def _commit(self, *, is_durable: bool) -> None:
        try:
            self.database.execute("COMMIT")
        except sqlite3.Error as error:
            if find_code(error) in UNTOLD:
                raise CommitUnknownError(f"While it was written, {describe(error)}: nobody can tell whether it was.") from None
            raise
        changes, self._changes = self._changes, self.database.total_changes
        self.commits += changes != self._changes
        if is_durable and changes == self._changes:
            self._sync_log()

    def _sync_log(self) -> None:
        """Make safe what was found as it should be: another one may have written that without waiting for the disk."""
        if self._settings.durability == "acknowledged":
            with suppress(FileNotFoundError):
                sync(self._settings.path.with_name(self._settings.path.name + "-wal"))

    def _drop(self) -> None:
        """Take everything back, and begin anew with the next call."""
        self._written.clear()
        with suppress(sqlite3.Error):
            if self._open is not None and self.database.in_transaction:
                self.database.execute("ROLLBACK")
        with suppress(sqlite3.Error, OSError):
            self.close()

    def _make(self, table: Table) -> None:
        sql = TableSql(table)
        statements = sql.find_missing(self.find_columns(table))
        for statement in statements:
            self.database.execute(statement)
        if statements:
            self.database.execute(f"PRAGMA user_version = {VERSION}")
        if sql.words is not None and not self.has_words(sql.words):
            self._make_words(sql, sql.words)
        self._sql[table.name] = sql

    def _make_words(self, sql: TableSql, words: WordsSql) -> None:
        if self.database.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone():
            self.database.execute(words.make)
        else:
            sql.words = None


def sync(path: Path) -> None:
    """Wait until the disk has a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
