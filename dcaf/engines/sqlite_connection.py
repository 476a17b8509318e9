"""The two connections of a SQLite engine: one writes, many transactions at once, and one reads beside it.

The one that writes takes the lock beside the file, begins, does each transaction, and commits once: then all are answered. A
transaction that fails is taken back to its savepoint, and the others stand. Where the commit fails, nothing of it was written, and
all are told so; or, where the disk failed while it was made safe, that nobody can tell.

What a reader gets wrong: a connection belongs to its thread. It is opened, used and closed there.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError
from dcaf.engines.base import EXPIRES, Durability, Outcome, Record, Row, Table, Transaction, Value, apply, exists
from dcaf.engines.sqlite_file import HAS_FLOCK, FileLock
from dcaf.engines.sqlite_tables import TableSql, join_rows
from dcaf.engines.worker import Calls, Job, Worker

VERSION: Final = 1
"""What the tables look like, in ``PRAGMA user_version``. Columns that come later are added, and need no other number."""

NEIGHBOURS: Final = 8
"""How many rows after one that was written are looked at, to drop those that have expired."""

RETRY_S: Final = 0.0001
"""How long to wait for another process where the kernel has no lock for it."""

CACHED_STATEMENTS: Final = 512

MOST_JOINED: Final = 16
"""How many rows one statement reads at most. SQLite joins 64."""

NEWER: Final = (
    "The database was written by a newer release of dcaf, or by another program: install that release, or name another file."
)
GONE: Final = (
    "The database file was removed or replaced while it was in use. Nothing was written; the next call opens what is there now."
)
NO_WAL: Final = "SQLite cannot keep a write-ahead log beside this file: name a file on a disk of this machine."

REASONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "another program holds the database",
    sqlite3.SQLITE_LOCKED: "another program holds the database",
    sqlite3.SQLITE_READONLY: "the database cannot be written: see who owns file and folder, or whether the disk is read-only",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk answers with an error",
    sqlite3.SQLITE_CORRUPT: "the database is damaged: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database: name another file",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: see whether its folder is there, and who may write it",
    sqlite3.SQLITE_TOOBIG: "a value is too large",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}

UNTOLD: Final = frozenset(
    [
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR,
    ]
)
"""Errors of a commit after which the log may have all of it."""

Work: TypeAlias = "Callable[[Connection, int], Any]"
"""What a job calls: takes the connection and the clock, in milliseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What both connections share.

    Attributes:
        path: The database's absolute path.
        clock: Returns seconds since the epoch.
        timeout_s: How long SQLite waits for other programs.
        durability: What survives of an acknowledged write.
        has_lock: Whether the kernel's lock is taken.
    """

    path: Path
    clock: Callable[[], float]
    timeout_s: float
    durability: Durability
    has_lock: bool = HAS_FLOCK


class Connection(ABC):
    """A connection that is opened when it is first used, and anew where the file is another one.

    Args:
        settings: As above.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._sql: dict[str, TableSql] = {}
        self._joined: dict[tuple[str, ...], str] = {}
        self._checked: set[str] = set()

    @property
    def database(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._open is not None
        return self._open

    @abstractmethod
    def serve(self, calls: Calls) -> None:
        """Do what waits."""

    @abstractmethod
    def require(self, table: Table) -> TableSql:
        """The statements of a table that is there."""

    def now_ms(self) -> int:
        """The clock, in milliseconds since the epoch."""
        return int(self._settings.clock() * 1000)

    def close(self) -> None:
        """Close the connection. The next call opens it again."""
        connection, self._open = self._open, None
        self._checked.clear()
        if connection is not None:
            connection.close()

    def read(self, records: Sequence[Record], now_ms: int) -> dict[Record, Row | None]:
        """Rows, as many at once as SQLite joins; None for each that is not there."""
        found: dict[Record, Row | None] = {}
        for at in range(0, len(records), MOST_JOINED):
            found |= self._read_joined(records[at : at + MOST_JOINED], now_ms)
        return found

    def _read_joined(self, records: Sequence[Record], now_ms: int) -> dict[Record, Row | None]:
        tables = [self.require(record.table) for record in records]
        names = tuple([record.table.name for record in records])
        statement = self._joined.get(names)
        if statement is None:
            statement = self._joined[names] = join_rows(tables)
        values = self.database.execute(statement, [record.key for record in records]).fetchone()
        found: dict[Record, Row | None] = {}
        at = 0
        for record, sql in zip(records, tables, strict=True):
            end = at + 1 + len(sql.columns)
            row = None if values[at] is None else sql.build_row(values[at + 1 : end])
            found[record] = row if exists(row, now_ms) else None
            at = end
        return found

    def open(self) -> None:
        """Open the file, unless it is open.

        Raises:
            EngineError: The file is another one than before, or of a newer release, or cannot be used.
            sqlite3.Error: SQLite cannot open it.
        """
        if self._open is not None and self._file == identify(self._settings.path):
            return
        if self._open is not None:
            self.close()
            self.notice_other_file()
        path, timeout_s = self._settings.path, self._settings.timeout_s
        self._open = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, cached_statements=CACHED_STATEMENTS)
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise
        self._file = identify(path)

    @abstractmethod
    def notice_other_file(self) -> None:
        """Called where another file, or none, is now at the path."""

    def _set_up(self) -> None:
        if self.get_pragma("user_version") > VERSION:
            raise EngineError(NEWER)

    def get_pragma(self, name: str) -> Any:
        """What SQLite says of a setting."""
        return self.database.execute(f"PRAGMA {name}").fetchone()[0]

    def find_columns(self, table: Table) -> set[str]:
        """The columns that a table has in the file; none where there is no table.

        Raises:
            EngineError: It is a table of another program.
        """
        found = {row[1]: row[2] for row in self.database.execute(f'PRAGMA table_info("{table.name}")')}
        kinds = {"key": "BLOB"} | {name: "INTEGER" if kind is int else "BLOB" for name, kind in table.columns.items()}
        if found and ("key" not in found or any(found.get(name, kind) != kind for name, kind in kinds.items())):
            raise EngineError(f"The database has another table called {table.name}: name another file.")
        return set(found)


class Reader(Connection):
    """Reads beside the one that writes, from a snapshot that is as new as the call.

    Args:
        settings: As above.
        writer: Gets the calls for which a table has to be made first.
    """

    def __init__(self, settings: Settings, writer: Worker) -> None:
        super().__init__(settings)
        self._writer = writer

    def serve(self, calls: Calls) -> None:
        jobs = deque(calls.begin(calls.collect()))
        try:
            self.open()
            self.database.execute("BEGIN")
            while jobs:
                self._do(jobs[0])
                jobs.popleft()
            self.database.execute("COMMIT")
        except _NotMade:
            self.close()
            for job in jobs:
                calls.pass_on(job, self._writer)
        except (sqlite3.Error, OSError, EngineError) as error:
            self.close()
            for job in jobs:
                job.fail(build_error(error))
        except BaseException:
            self.close()
            raise

    def require(self, table: Table) -> TableSql:
        if table.name not in self._checked:
            sql = TableSql(table)
            if sql.find_missing(self.find_columns(table)):
                raise _NotMade
            self._sql[table.name] = sql
            self._checked.add(table.name)
        return self._sql[table.name]

    def open(self) -> None:
        if not self._settings.path.exists():  # to open it would make an empty one
            raise _NotMade
        super().open()

    def notice_other_file(self) -> None:
        """Read what is there now: nothing that was acknowledged is at stake."""

    def _set_up(self) -> None:
        super()._set_up()
        self.database.execute("PRAGMA query_only = 1")

    def _do(self, job: Job) -> None:
        try:
            job.finish(job.call(self, self.now_ms()))
        except (EngineError, ConfigurationError) as error:
            job.fail(error)


class Writer(Connection):
    """Writes: what waits is one commit.

    Args:
        settings: As above.
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

    def open(self) -> None:
        if self._open is None:
            with suppress(FileExistsError):  # SQLite would let everybody of this machine read it
                os.close(os.open(self._settings.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        super().open()

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
        self._sql[table.name] = sql


class _NotMade(Exception):
    """A table, or a column of it, is not there yet."""


def transact(transaction: Transaction) -> Work:
    """The work of a transaction."""

    def work(connection: Connection, now_ms: int) -> Outcome:
        rows = connection.read(transaction.reads, now_ms)
        written = apply(transaction, rows, now_ms)
        if written:
            assert isinstance(connection, Writer)
            connection.write(rows, written)
        return Outcome(written is not None, tuple(rows[record] for record in transaction.reads), now_ms)

    return work


def scan(table: Table, equal: bytes | None, after: bytes, limit: int) -> Work:
    """The work of a scan."""

    def work(connection: Connection, now_ms: int) -> list[tuple[bytes, Row]]:
        sql = connection.require(table)
        statement, values = (sql.scan, ()) if equal is None else (sql.scan_equal, (equal,))
        found: Iterable[tuple[bytes, *tuple[Value, ...]]] = connection.database.execute(statement, (*values, after, now_ms, limit))
        return [(key, sql.build_row(row)) for key, *row in found]

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


def identify(path: Path) -> tuple[int, int] | None:
    """Which file is at a path; None for none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, at every call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def build_error(error: Exception) -> EngineError:
    """An error for one caller. It has no text of a statement, no key and no value."""
    if isinstance(error, EngineError):
        return type(error)(*error.args)
    return EngineError(f"Nothing was written: {describe(error)}.")


def describe(error: Exception) -> str:
    """What has happened, in words, and what SQLite or the system call it."""
    if isinstance(error, OSError):
        return f"the database, or the lock beside it, cannot be opened ({os.strerror(error.errno or 0)})"
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{REASONS.get(find_code(error) & 0xFF, 'SQLite answers with an error')} ({name})"


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program holds the database."""
    return find_code(error) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def find_code(error: Exception) -> int:
    """SQLite's extended code of an error; that of an error without one is SQLITE_ERROR."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


def sync(path: Path) -> None:
    """Wait until the disk has a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
