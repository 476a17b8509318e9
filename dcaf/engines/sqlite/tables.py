r"""The SQL of one table: its text is made once, so that SQLite compiles each statement once for a connection.

>>> SEATS = Table("seats", {"holder": bytes, "expires": int}, indexed="holder")
>>> sql = TableSql(SEATS)
>>> print(*sql.make, sep="\n")
CREATE TABLE "seats" ("key" BLOB PRIMARY KEY NOT NULL, "holder" BLOB, "expires" INTEGER) WITHOUT ROWID
CREATE INDEX "seats_by_holder" ON "seats" ("holder", "key") WHERE "holder" IS NOT NULL
>>> join_rows([sql])
'SELECT r0."key", r0."holder", r0."expires" FROM (SELECT 1) LEFT JOIN "seats" AS r0 ON r0."key" = ?'

Names of tables and columns are what ``base.NAME`` allows, so nothing in them needs to be escaped. Keys and values are never in the
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from dcaf.engines.sqlite.words import DOCUMENT, WordsSql
from dcaf.engines.transactions import EXPIRES, Row, Table, Value

read_key: Final[Callable[[Sequence[Any]], bytes]] = itemgetter(-1)


class TableSql:
    """The statements of a table.

    Args:
        table: The table.

    Attributes:
        table: The table.
        columns: The names of its columns, in the order in which rows have them.
        make: What makes it, and its index.
        add: Column -> what adds it to a table of an older release.
        insert: One row, in the place of one that has expired. Takes the key and the columns.
        delete: One row. Takes the key.
        scan: Rows of any indexed value, as ``build_page`` reads them. Takes a key, now, and a limit.
        scan_equal: Rows of one indexed value. Takes it, a key, now, and a limit; empty without an indexed column.
        ranges: Whether backwards -> rows between two keys. Takes them, now, and a limit.
        words: What finds its rows by their words; None for a table that is not searchable, or where SQLite has no FTS5.
        look_on: The keys after one, and whether each has expired. Takes now, a key, and a limit; empty where none expires.
    """

    def __init__(self, table: Table) -> None:
        self.table: Table = table
        self.columns: tuple[str, ...] = tuple(table.columns)
        name, columns = f'"{table.name}"', ", ".join(f'"{column}"' for column in table.columns)
        kinds = {column: "INTEGER" if kind is int else "BLOB" for column, kind in table.columns.items()}
        declared = "".join(f', "{column}" {kind}' for column, kind in kinds.items())
        self.words: WordsSql | None = None if table.searchable is None else WordsSql(table)
        key = '"key" BLOB PRIMARY KEY NOT NULL' if self.words is None else f'{DOCUMENT}, "key" BLOB UNIQUE NOT NULL'
        has_rowid = table.large or self.words is not None
        self.make: list[str] = [f"CREATE TABLE {name} ({key}{declared}){'' if has_rowid else ' WITHOUT ROWID'}"]
        if table.indexed is not None:
            # Most rows of many tables have nothing there: these cost the index nothing.
            where = f'("{table.indexed}", "key") WHERE "{table.indexed}" IS NOT NULL'
            self.make.append(f'CREATE INDEX "{table.name}_by_{table.indexed}" ON {name} {where}')
        self.add: dict[str, str] = {column: f'ALTER TABLE {name} ADD COLUMN "{column}" {kind}' for column, kind in kinds.items()}
        self.insert: str = f'INSERT OR REPLACE INTO {name} ("key", {columns}) VALUES (?{", ?" * len(kinds)})'
        self.delete: str = f'DELETE FROM {name} WHERE "key" = ?'
        lives = f' AND ("{EXPIRES}" IS NULL OR "{EXPIRES}" > ?)' if EXPIRES in kinds else " AND ? IS NOT NULL"
        rows = f'SELECT {columns}, "key" FROM {name} WHERE '
        self.scan: str = f'{rows}"key" > ?{lives} ORDER BY "key" LIMIT ?'
        self.scan_equal: str = (
            "" if table.indexed is None else f'{rows}"{table.indexed}" = ? AND "key" > ?{lives} ORDER BY "key" LIMIT ?'
        )
        self.ranges: dict[bool, str] = {
            backwards: f'{rows}"key" >= ? AND "key" < ?{lives} ORDER BY "key"{" DESC" if backwards else ""} LIMIT ?'
            for backwards in (False, True)
        }
        self.look_on: str = (
            f'SELECT "key", "{EXPIRES}" <= ? FROM {name} WHERE "key" > ? ORDER BY "key" LIMIT ?' if EXPIRES in kinds else ""
        )
        self._updates: dict[tuple[str, ...], str] = {}

    def update(self, columns: tuple[str, ...]) -> str:
        """What changes these columns of a row. Takes their values, and the key."""
        if columns not in self._updates:
            changes = ", ".join(f'"{column}" = ?' for column in columns)
            self._updates[columns] = f'UPDATE "{self.table.name}" SET {changes} WHERE "key" = ?'
        return self._updates[columns]

    def build_row(self, values: Sequence[Value]) -> Row:
        """A row of the values of its columns."""
        return dict(zip(self.columns, values, strict=True))

    def build_page(self, found: Iterable[Sequence[Value]]) -> list[tuple[bytes, Row]]:
        """Keys and rows of what a scan or a range has selected: the columns, and then the key."""
        selected = list(found)
        rows = map(dict, map(zip, repeat(self.columns), selected))  # a loop over rows takes three times as long
        return list(zip(map(read_key, selected), rows, strict=True))

    def find_missing(self, there: Iterable[str]) -> list[str]:
        """What must be done where a table of these columns is there; where there is none, it is made."""
        names = set(there)
        return [statement for column, statement in self.add.items() if column not in names] if names else self.make


def join_rows(tables: Sequence[TableSql]) -> str:
    """What reads a row of each of these tables. Takes their keys; a row that is not there has no key.

    One statement for all rows of a transaction: each statement lets the threads of the process take turns, and so has its price.
    """
    columns = [f'r{at}."{column}"' for at, sql in enumerate(tables) for column in ("key", *sql.columns)]
    joined = [f' LEFT JOIN "{sql.table.name}" AS r{at} ON r{at}."key" = ?' for at, sql in enumerate(tables)]
    return f"SELECT {', '.join(columns)} FROM (SELECT 1){''.join(joined)}"
