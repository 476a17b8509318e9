"""What a connection of a PostgreSQL engine does for one call of each kind: a transaction, a scan, a step of a purge, a look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from dcaf.core.importing import extra
from dcaf.engines.postgres.connections import Connection
from dcaf.engines.postgres.functions import Plan, Shape
from dcaf.engines.postgres.settings import ASK, Settings, check_server
from dcaf.engines.postgres.tables import TableSql
from dcaf.engines.searching import Search
from dcaf.engines.transactions import Outcome, Page, Row

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
    from psycopg import errors as codes

Work: TypeAlias = "Callable[[Connection, float], Awaitable[Any]]"
"""What a call does: takes the connection, and when it must have ended, by the clock of the event loop."""

LOCKED: Final = 0.6
"""Which part of the time that is left a transaction waits for a lock."""

LONGEST_MS: Final = 2**31 - 1
"""The longest time that PostgreSQL can be told to wait."""


def find_wait_ms(end: float) -> int:
    """How long a transaction waits for a lock, in milliseconds."""
    return min(LONGEST_MS, max(1, int((end - asyncio.get_running_loop().time()) * 1000 * LOCKED)))


def transact(plan: Plan, in_steps: Work, refuse: Callable[[Shape], None]) -> Work:
    """The work of a transaction that is one function.

    Args:
        plan: The call of the function.
        in_steps: The same transaction in several statements, for a role that may not make a function.
        refuse: Called with a shape whose function is not there and cannot be made.
    """
    shape = plan.shape

    async def work(connection: Connection, end: float) -> Outcome:
        values = [find_wait_ms(end), *plan.values] if shape.writes else plan.values
        try:
            answer = await call(connection, values)
        except codes.UndefinedFunction:
            try:
                await connection.ask(shape.make)
            except codes.InsufficientPrivilege:
                refuse(shape)
                outcome: Outcome = await in_steps(connection, end)
                return outcome
            answer = await call(connection, values)
        return shape.build_outcome(answer, plan.order)

    async def call(connection: Connection, values: Sequence[Any]) -> Sequence[Any]:
        connection.is_committing = bool(shape.writes)
        try:
            answer = await connection.ask_for_row(shape.statement, values)
        except codes.UndefinedFunction:
            connection.is_committing = False
            raise
        return answer

    return work


def scan(sql: TableSql, equal: bytes | None, after: bytes, limit: int) -> Work:
    """The work of a scan."""

    async def work(connection: Connection, _end: float) -> list[tuple[bytes, Row]]:
        statement, values = (sql.scan, ()) if equal is None else (sql.scan_equal, (equal,))
        found = await connection.ask(statement, [after, limit, *values])
        return [(key, sql.build_row(row)) for key, *row in found]

    return work


def search(sql: TableSql, wanted: Search) -> Work:
    """The work of a search."""
    words = sql.words
    assert words is not None

    async def work(connection: Connection, _end: float) -> Page:
        found = await connection.ask(words.find, words.list_values(wanted))
        return [(key, sql.build_row(row)) for key, *row in found]

    return work


def purge(sql: TableSql, after: bytes, limit: int) -> Work:
    """The work of one step of a purge: returns how many rows were dropped, and the last key; None at the end of the table."""

    async def work(connection: Connection, _end: float) -> tuple[int, bytes | None]:
        if not sql.purge:  # nothing in the table expires
            return 0, None
        connection.is_committing = True
        ((seen, dropped, last),) = await connection.ask(sql.purge, [after, limit])
        return dropped, last if seen == limit else None

    return work


def check(settings: Settings) -> Work:
    """The work of a look at the settings. That the transaction has a number shows that the server takes writes."""

    async def work(connection: Connection, _end: float) -> Mapping[str, str]:
        (found,) = await connection.ask(ASK)
        details = check_server(settings, found)
        await connection.ask("SELECT pg_current_xact_id()::text")
        return details

    return work
