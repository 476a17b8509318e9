r"""The SQL of one table on PostgreSQL: what makes it, finds rows and drops those that have expired.

>>> SEATS = Table("seats", {"holder": bytes, "until": int}, indexed="holder")
>>> print(*TableSql(SEATS, Names("dcaf")).make, sep="\n")
CREATE TABLE "dcaf"."seats" ("until" bigint, "key" bytea CONSTRAINT "seats-key" PRIMARY KEY, "holder" bytea) WITH (fillfactor = 85)
CREATE INDEX "seats-by-holder" ON "dcaf"."seats" (substring("holder" FROM 1 FOR 64), "key") WHERE "holder" IS NOT NULL

There is no index on ``expires``: with one, each change of it would write every index of its row anew. Tables and indexes
share one space of names, and no table is called as an index is.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dcaf.engines.postgres.functions import Names
from dcaf.engines.postgres.sql import BEGUN_SQL, KINDS, NOW_SQL, name_column
from dcaf.engines.postgres.words import WordsSql
from dcaf.engines.transactions import EXPIRES, Row, Table, Value

FILL: Final = 85
"""How full a page is made, in percent: the rest is for new versions of its rows, which then need no new entries in an index."""

LARGE: Final = ", toast_tuple_target = 8160"
"""Lets a large row lie in its table as long as a page has room for it. Out of line, each change of it is several rows of another
table, and entries of its index. Its table is its own, so that it is in nobody's way there."""

INDEXED_BYTES: Final = 64
"""How much of a value is in the index: an entry of PostgreSQL's has 2,700 bytes at most."""


class TableSql:
    """The statements of a table.

    Args:
        table: The table.
        names: Its schema.

    Attributes:
        table: The table.
        make: What makes it, and its index.
        add: Column -> what adds it to a table of an older release.
        scan: Rows of any indexed value. Takes a key and a limit.
        scan_equal: Rows of one indexed value. Takes a key, a limit and the value; empty without an indexed column.
        purge: Drops what has expired of the next rows. Takes a key and a limit; returns how many it has looked at, how many it
            dropped, and the last key. Empty where none expires.
        read: Rows of many keys. Takes a list of keys, and now.
        ranges: Whether backwards -> rows between two keys. Takes them, whether there is no end, now, and a limit.
        delete: Drops rows. Takes a list of keys.
        words: What finds its rows by their words; None for a table that is not searchable.
    """

    def __init__(self, table: Table, names: Names) -> None:
        self.table: Table = table
        name = names.quote(table.name)
        kinds = {name_column(column): KINDS[kind] for column, kind in table.columns.items()}
        key = f'"key" bytea CONSTRAINT "{table.name}-key" PRIMARY KEY'
        # Numbers first: after bytes, each would begin at the next multiple of eight.
        numbers, others = ([f'"{column}" {kind}' for column, kind in kinds.items() if kind == which] for which in KINDS.values())
        storage = f"fillfactor = {FILL}{LARGE if table.large else ''}"
        self.words: WordsSql | None = None if table.searchable is None else WordsSql(table, names)
        vector = [] if self.words is None else [self.words.column]
        self.make: list[str] = [f"CREATE TABLE {name} ({', '.join([*numbers, key, *others, *vector])}) WITH ({storage})"]
        if self.words is not None:
            self.make = [self.words.make_function, *self.make, self.words.make_index]
        if table.large:
            # What is sealed or compressed does not become smaller.
            plain = ", ".join(f'ALTER "{column}" SET STORAGE EXTERNAL' for column, kind in kinds.items() if kind == "bytea")
            self.make += [f"ALTER TABLE {name} {plain}"] if plain else []
        start = f"substring({{}} FROM 1 FOR {INDEXED_BYTES})"
        if table.indexed is not None:
            column = f'"{name_column(table.indexed)}"'
            where = f'({start.format(column)}, "key") WHERE {column} IS NOT NULL'
            self.make.append(f'CREATE INDEX "{table.name}-by-{table.indexed}" ON {name} {where}')
        self.add: dict[str, str] = {column: f'ALTER TABLE {name} ADD COLUMN "{column}" {kind}' for column, kind in kinds.items()}
        columns = ", ".join(f't."{column}"' for column in ("key", *kinds))
        # A query of its own for the clock: it is read once, and not for each row.
        lives = f' AND (t."{EXPIRES}" IS NULL OR t."{EXPIRES}" > (SELECT {BEGUN_SQL}))' if EXPIRES in kinds else ""
        rows = f'SELECT {columns} FROM {name} AS t WHERE t."key" > $1{lives}'
        self.scan: str = f'{rows} ORDER BY t."key" LIMIT $2'
        equal = f't."{name_column(table.indexed or "")}"'
        self.scan_equal: str = (
            ""
            if table.indexed is None
            else f'{rows} AND {start.format(equal)} = {start.format("$3::bytea")} AND {equal} = $3 ORDER BY t."key" LIMIT $2'
        )
        self.purge: str = _build_purge(name) if EXPIRES in kinds else ""
        alive = f' AND (t."{EXPIRES}" IS NULL OR t."{EXPIRES}" > $2::bigint)' if EXPIRES in kinds else " AND $2::bigint IS NOT NULL"
        self.read: str = f'SELECT {columns} FROM {name} AS t WHERE t."key" = ANY($1::bytea[]){alive}'
        still = f' AND (t."{EXPIRES}" IS NULL OR t."{EXPIRES}" > $4::bigint)' if EXPIRES in kinds else " AND $4::bigint IS NOT NULL"
        between = f't."key" >= $1::bytea AND ($3::boolean OR t."key" < $2::bytea){still}'
        self.ranges: dict[bool, str] = {
            backwards: f'SELECT {columns} FROM {name} AS t WHERE {between} ORDER BY t."key"{" DESC" if backwards else ""} LIMIT $5'
            for backwards in (False, True)
        }
        self.delete: str = f'DELETE FROM {name} AS t WHERE t."key" = ANY($1::bytea[])'

    def build_row(self, values: Sequence[Value]) -> Row:
        """A row of what was selected, without its key."""
        return dict(zip(self.table.columns, values, strict=True))

    def find_missing(self, there: Mapping[str, str]) -> Iterable[str]:
        """What must be done where a table of these columns is there; where there is none, it is made."""
        return [statement for column, statement in self.add.items() if column not in there] if there else self.make

    def fits(self, there: Mapping[str, str]) -> bool:
        """Whether a table of these columns and types may be this one, or that of another release."""
        kinds = {"key": "bytea"} | {name_column(column): KINDS[kind] for column, kind in self.table.columns.items()}
        return not there or ("key" in there and all(there.get(column, kind) == kind for column, kind in kinds.items()))


def _build_purge(name: str) -> str:
    """The rows are locked and looked at once more, whoever has prolonged one meanwhile; one that is being written is left."""
    return f"""WITH
page AS MATERIALIZED (SELECT t."key", t."{EXPIRES}" FROM {name} AS t WHERE t."key" > $1 ORDER BY t."key" LIMIT $2),
held AS MATERIALIZED (SELECT t."key" FROM {name} AS t
  WHERE t."key" IN (SELECT page."key" FROM page WHERE page."{EXPIRES}" <= (SELECT {NOW_SQL}))
  AND t."{EXPIRES}" <= (SELECT {NOW_SQL}) FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM {name} AS t USING held WHERE t."key" = held."key" RETURNING 1)
SELECT (SELECT count(*) FROM page), (SELECT count(*) FROM gone), (SELECT page."key" FROM page ORDER BY page."key" DESC LIMIT 1)"""
