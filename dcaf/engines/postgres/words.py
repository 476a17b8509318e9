r"""The index of the words of one table on PostgreSQL: a tsvector beside them, which the server keeps by itself.

>>> from dcaf.engines.transactions import Table
>>> notes = Table("notes", {"words": bytes}, ordered=True, searchable="words")
>>> list_terms(Search(notes, b"p-123/", ("no", "ärztin"), limit=10))
["'702d3132332fno'", "'702d3132332f\\\\303\\\\244rztin'", "'702d3132332f\\\\303\\\\244rztin':*"]

Before each word stands the scope of its row: so a search goes through rows of that scope alone. What is not ASCII is written in its
bytes, so that the encoding of the database does not matter.

What a reader gets wrong: ``ts_rank`` does not know how rare a word is. So the search weighs each word by how many of the rows that
it has found have it.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

from typing import Final

from dcaf.engines.postgres.functions import Names
from dcaf.engines.postgres.sql import quote_column
from dcaf.engines.searching import Search
from dcaf.engines.transactions import Table
from dcaf.engines.words import SCOPE_BYTES, name_scope

VECTOR: Final = '"words-"'
"""The column that the server makes. No column of a Table has such a name."""

MOST_RANKED: Final = 1_000
"""Of how many rows a word counts at most: so a search ends in time, whatever it is given, and a rare word is always among them."""

FIRST_BYTE_OF_OTHERS: Final = 0x80

_VECTOR_OF: Final = f"""(of_key bytea, given bytea) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $dcaf$
SELECT string_agg(chr(39) || encode(substring(of_key FROM 1 FOR {SCOPE_BYTES}), 'hex')
|| replace(w.word, chr(92), chr(92) || chr(92)) || chr(39) || ':' || w.place::text, ' ')::tsvector
FROM unnest(string_to_array(encode(given, 'escape'), ' ')) WITH ORDINALITY AS w(word, place) $dcaf$"""


class WordsSql:
    """The statements of the index of a table.

    Args:
        table: The table, which is searchable.
        names: Its schema.

    Attributes:
        make_function: What makes the function that the column of the words needs.
        column: The column of a new table that has the words as the server looks for them.
        make_index: What makes the index.
        find: Rows by their words, the best first. Takes what ``list_values`` gives.
    """

    def __init__(self, table: Table, names: Names) -> None:
        name, function = names.quote(table.name), names.quote(f"{table.name}-words")
        words = quote_column(table.searchable or "")
        self.make_function: str = f"CREATE OR REPLACE FUNCTION {function}{_VECTOR_OF}"
        self.column: str = f'{VECTOR} tsvector GENERATED ALWAYS AS ({function}("key", {words})) STORED'
        self.make_index: str = f'CREATE INDEX "{table.name}-by-words" ON {name} USING gin ({VECTOR}) WITH (fastupdate = off)'
        self.find: str = _build_search(name, ", ".join(f"t.{quote_column(column)}" for column in ("key", *table.columns)))

    def list_values(self, wanted: Search) -> list[object]:
        """What ``find`` takes."""
        rows = wanted.rows
        return [rows.start, rows.end or b"", rows.end is None, " ".join(list_terms(wanted)), wanted.limit]


def list_terms(wanted: Search) -> list[str]:
    """What PostgreSQL looks for, each as a tsquery without a space."""
    scope = name_scope(wanted.prefix)
    return [f"'{scope}{_write(word)}'{':*' if is_start else ''}" for word, is_start in wanted.terms]


def _write(word: str) -> str:
    """A word in ASCII, as ``encode(..., 'escape')`` writes its bytes; its backslashes are doubled, as between quotes."""
    return "".join(chr(byte) if byte < FIRST_BYTE_OF_OTHERS else f"\\\\{byte:03o}" for byte in word.encode())


def _build_search(name: str, columns: str) -> str:
    between = 't."key" >= $1::bytea AND ($3::boolean OR t."key" < $2::bytea)'
    return f"""WITH
terms AS MATERIALIZED (SELECT q.place, q.term::tsquery AS term
  FROM pg_catalog.unnest(pg_catalog.string_to_array($4::text, ' '::text)) WITH ORDINALITY AS q(term, place)),
met AS MATERIALIZED (SELECT q.place, q.term, f."key", f.vector FROM terms AS q CROSS JOIN LATERAL
  (SELECT t."key", t.{VECTOR} AS vector FROM {name} AS t WHERE t.{VECTOR} @@ q.term AND {between} LIMIT {MOST_RANKED}) AS f),
weights AS MATERIALIZED (SELECT m.place, pg_catalog.ln(1::float8 +
  (SELECT pg_catalog.count(DISTINCT n."key") FROM met AS n)::float8 / pg_catalog.count(*)::float8) AS weight
  FROM met AS m GROUP BY m.place),
best AS (SELECT m."key", pg_catalog.sum(pg_catalog.ts_rank(m.vector, m.term, 1)::float8 * w.weight) AS fit
  FROM met AS m JOIN weights AS w ON w.place = m.place GROUP BY m."key" ORDER BY 2 DESC, 1 DESC LIMIT $5)
SELECT {columns} FROM best JOIN {name} AS t ON t."key" = best."key" ORDER BY best.fit DESC, best."key" DESC"""
