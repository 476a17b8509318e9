r"""The index of the words of one table: FTS5, which keeps no words itself, beside the table that has them.

>>> notes = WordsSql(Table("notes", {"words": bytes}, ordered=True, searchable="words"))
>>> print(notes.make)
CREATE VIRTUAL TABLE "notes-words" USING fts5("words", content='', tokenize='ascii')
>>> list_terms(b"p-123/", [("no", False), ("penicillin", False), ("penicillin", True)])
'"702d3132332fno" OR "702d3132332fpenicillin" OR "702d3132332fpenicillin"*'

Before each word stands the scope of its row: so a search goes through rows of that scope, and counts in them how rare a word is.
The tokenizer splits where ASCII has neither a letter nor a digit, and so at the spaces alone.

What a reader gets wrong: FTS5 forgets a row only if it is told the same words that it was given. So they are taken from the row
before it is changed.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from dcaf.engines.searching import Search
from dcaf.engines.transactions import MOST_KEY_BYTES, Row, Table, Value
from dcaf.engines.words import name_scope

DOCUMENT: Final = '"document-" INTEGER PRIMARY KEY'
"""What a row of a searchable table is called in the index. No column of a Table has such a name."""

LAST_KEY: Final = b"\xff" * (MOST_KEY_BYTES + 1)


class WordsSql:
    """The statements of the index of a table.

    Args:
        table: The table.

    Attributes:
        name: Its name.
        make: What makes it.
        find: Rows by their words, the best first: the columns, and then the key. Takes what ``list_values`` gives.
    """

    def __init__(self, table: Table) -> None:
        self._column = table.searchable or ""
        self.name: str = f"{table.name}-words"
        columns = ", ".join(f't."{column}"' for column in table.columns)
        self.make: str = f"""CREATE VIRTUAL TABLE "{self.name}" USING fts5("words", content='', tokenize='ascii')"""
        document = f'SELECT {{}}"document-", ? FROM "{table.name}" WHERE "key" = ?'
        self._add = f'INSERT INTO "{self.name}" (rowid, "words") {document.format("")}'
        forget = document.format("'delete', ")
        self._forget = f'INSERT INTO "{self.name}" ("{self.name}", rowid, "words") {forget}'
        # CROSS JOIN: the words first, and then the rows.
        joined = f'FROM "{self.name}" AS w CROSS JOIN "{table.name}" AS t ON t."document-" = w.rowid'
        where = f'WHERE w."{self.name}" MATCH ? AND t."key" >= ? AND t."key" < ?'
        self.find: str = f'SELECT {columns}, t."key" {joined} {where} ORDER BY w.rank, t."key" DESC LIMIT ?'

    def list_values(self, wanted: Search) -> tuple[Value | str, ...]:
        """What ``find`` takes."""
        rows = wanted.rows
        return list_terms(wanted.prefix, wanted.terms), rows.start, LAST_KEY if rows.end is None else rows.end, wanted.limit

    @contextmanager
    def changing(self, database: sqlite3.Connection, key: bytes, before: Row | None, row: Row | None) -> Iterator[None]:
        """Let the index follow the change of a row, which is done inside."""
        gone, come = self._words_of(key, before), self._words_of(key, row)
        if gone and gone != come:
            database.execute(self._forget, (gone, key))
        yield
        if come and gone != come:
            database.execute(self._add, (come, key))

    def _words_of(self, key: bytes, row: Row | None) -> str:
        """What the index is told of a row; an empty text of one without words."""
        words = None if row is None else row[self._column]
        if not isinstance(words, bytes) or not words:
            return ""
        scope = name_scope(key)
        return scope + words.decode().replace(" ", f" {scope}")


def list_terms(prefix: bytes, terms: Iterable[tuple[str, bool]]) -> str:
    """What FTS5 looks for.

    Args:
        prefix: What the keys of the rows begin with.
        terms: Words, and whether each is the beginning of others. They have no character that FTS5 would understand.
    """
    scope = name_scope(prefix)
    return " OR ".join(f'"{scope}{word}"{"*" if is_start else ""}' for word, is_start in terms)
