"""What both connections of a SQLite engine have in common: when they open the file, what they require of it, how they read rows.

What a reader gets wrong: a connection belongs to its thread. It is opened, used and closed there. Where another file, or none, is
at the path since, the next call opens what is there now.
"""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dcaf.core.errors import EngineError
from dcaf.engines.base import Durability
from dcaf.engines.evaluation import exists
from dcaf.engines.sqlite.errors import NEWER
from dcaf.engines.sqlite.file import HAS_FLOCK
from dcaf.engines.sqlite.tables import TableSql, join_rows
from dcaf.engines.sqlite.words import WordsSql
from dcaf.engines.sqlite.worker import Calls
from dcaf.engines.transactions import Record, Row, Table

VERSION: Final = 1
"""What the tables look like, in ``PRAGMA user_version``. Columns that come later are added, and need no other number."""

CACHED_STATEMENTS: Final = 512

MOST_JOINED: Final = 16
"""How many rows one statement reads at most. SQLite joins 64."""


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
        settings: What it shares with the other one.
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

    def has_words(self, words: WordsSql) -> bool:
        """Whether the file has the index of a searchable table."""
        return bool(self.database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (words.name,)).fetchone())


def identify(path: Path) -> tuple[int, int] | None:
    """Which file is at a path; None for none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, at every call
    except OSError:
        return None
    return found.st_dev, found.st_ino
