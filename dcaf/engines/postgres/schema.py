"""Make the schema of a PostgreSQL engine, whoever else makes it at the same time.

What a reader gets wrong: ``CREATE ... IF NOT EXISTS`` fails where two sessions do it at once, and where a role may use what is
there but make nothing. So the engine first looks, without a lock; what is missing, it looks for again under an advisory lock.
"""

# ruff: noqa: S608 - the names in its statements are what a pattern allows; values are never in the text

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.postgres.calls import find_wait_ms
from dcaf.engines.postgres.connections import Connection
from dcaf.engines.postgres.functions import Names
from dcaf.engines.postgres.tables import TableSql

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    from psycopg import errors as codes

VERSION: Final = 1
"""What the tables look like. Columns that come later are added, and need no other number."""

VERSION_TABLE: Final = "dcaf-version"
"""No table of an engine has a name like this."""

NEWER: Final = "The schema {} was written by a newer release of dcaf: install that release, or name another schema= or database."
FOREIGN: Final = "The schema {} has another table called {}: name another schema=."

LOCKED_MS: Final = 100
"""How long a table is waited for, and all who want it wait behind."""

PAUSE_S: Final = 1.0
"""How long they are left alone after that."""

LIMIT_WAIT: Final = "SELECT set_config('lock_timeout', $1::text, TRUE)"
HELD: Final = (
    "Nothing was written: other transactions, perhaps those of a backup, have held a table for too long to add a column to it."
)

COLUMNS: Final = """SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_namespace AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE n.nspname = $1"""


class Found(NamedTuple):
    """What is there.

    Attributes:
        is_there: Whether the schema is.
        tables: Table -> column -> its type.
        version: Its version; None where it has none.
    """

    is_there: bool
    tables: Mapping[str, Mapping[str, str]]
    version: int | None


async def set_up(connection: Connection, end: float, names: Names, tables: Sequence[TableSql]) -> None:
    """Make what is missing. While something reads a table for long, as a backup does, nothing can be added to it; then this tries
    again and again, since whoever waits for such a lock holds up all that come after.

    Args:
        connection: The connection.
        end: Until when it is tried, by the clock of the event loop.
        names: The schema.
        tables: The tables.

    Raises:
        ConfigurationError: The schema is refused.
        EngineError: Other transactions have held a table for all that time.
        psycopg.Error: It could not be done.
    """
    while list(_find_missing(await _look(connection, names), names, tables)):
        try:
            await _make(connection, end, names, tables)
        except codes.LockNotAvailable:
            await connection.ask("ROLLBACK")
            if asyncio.get_running_loop().time() + PAUSE_S > end:
                raise EngineError(HELD) from None
            await asyncio.sleep(PAUSE_S)


async def _make(connection: Connection, end: float, names: Names, tables: Sequence[TableSql]) -> None:
    await connection.ask("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    await connection.ask(LIMIT_WAIT, [str(find_wait_ms(end))])
    await connection.ask(f"SELECT pg_advisory_xact_lock({names.making})")
    await connection.ask(LIMIT_WAIT, [str(LOCKED_MS)])
    for statement in _find_missing(await _look(connection, names), names, tables):
        await connection.ask(statement)
    await connection.ask("COMMIT")


async def _look(connection: Connection, names: Names) -> Found:
    rows = await connection.ask(COLUMNS, [names.schema])
    tables: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        if table is not None and column is not None:
            tables.setdefault(table, {})[column] = kind
    version = None
    if VERSION_TABLE in tables:
        versions = await connection.ask(f"SELECT max(version) FROM {names.quote(VERSION_TABLE)}")
        version = versions[0][0]
    return Found(bool(rows), tables, version)


def _find_missing(found: Found, names: Names, tables: Sequence[TableSql]) -> Iterable[str]:
    if found.version is not None and found.version > VERSION:
        raise ConfigurationError(NEWER.format(names.schema))
    if not found.is_there:
        yield f'CREATE SCHEMA "{names.schema}"'
    if found.version is None:
        name = names.quote(VERSION_TABLE)
        if VERSION_TABLE not in found.tables:
            yield f"CREATE TABLE {name} (version integer NOT NULL)"
        yield f"INSERT INTO {name} (version) VALUES ({VERSION})"
    for sql in tables:
        there = found.tables.get(sql.table.name, {})
        if not sql.fits(there):
            raise ConfigurationError(FOREIGN.format(names.schema, sql.table.name))
        yield from sql.find_missing(there)
