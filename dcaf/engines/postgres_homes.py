"""The connections of a PostgreSQL engine in one event loop, and the way of a call there: tables first, then a connection, in time.

What a reader gets wrong: tables are made by a task of their own, for which a call waits no longer than for anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from dcaf.core.errors import DcafError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.postgres_calls import Work
from dcaf.engines.postgres_connections import UNTIL_FOUND, Connection, Pool, limit
from dcaf.engines.postgres_errors import MISSING, SETTING_UP, build_error
from dcaf.engines.postgres_functions import Names
from dcaf.engines.postgres_loops import Tasks
from dcaf.engines.postgres_schema import set_up
from dcaf.engines.postgres_settings import Settings
from dcaf.engines.postgres_tables import TableSql
from dcaf.engines.transactions import Table

with extra("dcaf.engines.postgres", "dcaf[postgres]"):
    import psycopg

SET_UP_S: Final = 30.0
"""How long tables may take to be made; no call waits that long for them."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a process knows of its schema.

    Attributes:
        settings: What the engine was told.
        names: The names of the schema.
        tables: The tables that were declared, by their names.
        ready: The names of those that are there.
    """

    settings: Settings
    names: Names
    tables: dict[str, TableSql] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)


class Call:
    """One call.

    Args:
        work: What it does.
        tables: The tables that it needs.

    Attributes:
        work, tables: As above.
        connection: The connection on which it is; None where nothing was sent, or nothing is awaited any more.
    """

    __slots__ = ("connection", "tables", "work")

    def __init__(self, work: Work, tables: Iterable[Table]) -> None:
        self.work: Work = work
        self.connection: Connection | None = None
        self.tables: set[str] = {table.name for table in tables}

    @property
    def has_begun(self) -> bool:
        """Whether something was sent to the server."""
        return self.connection is not None

    def stop(self) -> None:
        """Tell the server to give it up."""
        if self.connection is not None:
            self.connection.cancel()


class _MissingError(Exception):
    """Something that was there is not there any more."""


class Home:
    """The connections and the calls of one event loop.

    Args:
        known: What the process knows of the schema.
        loop: The event loop.

    Attributes:
        pool: The connections.
    """

    def __init__(self, known: Known, loop: asyncio.AbstractEventLoop) -> None:
        self.pool: Pool = Pool(known.settings, loop)
        self._known = known
        self._loop = loop
        self._tasks = Tasks()
        self._setting_up: asyncio.Task[None] | None = None

    async def run(self, call: Call) -> Any:
        """Do a call, and return what it returns.

        Raises:
            EngineError, CommitUnknownError, ConfigurationError: As of an engine.
        """
        return await self._tasks.run(call, self._serve(call))

    async def aclose(self) -> None:
        """Finish what was begun, and close the connections."""
        await self._tasks.finish(self._known.settings.timeout_s)
        self.pool.close()

    def close(self) -> None:
        """Close it from another thread, or where nobody can wait."""
        if self._loop.is_closed():
            self.pool.drop_all()
            return
        try:
            self._loop.call_soon_threadsafe(self.pool.close)
        except RuntimeError:
            self.pool.drop_all()

    async def _serve(self, call: Call) -> Any:
        end = self._loop.time() + self._known.settings.timeout_s
        await self._prepare(call, end)
        try:
            return await self._try(call, end)
        except _MissingError:
            self._known.ready.clear()
        await self._prepare(call, end)
        return await self._try(call, end, is_last=True)

    async def _try(self, call: Call, end: float, *, timeout_s: float | None = None, is_last: bool = False) -> Any:
        timeout_s = timeout_s or self._known.settings.timeout_s
        connection = await self.pool.take(end - (1 - UNTIL_FOUND) * timeout_s)
        try:
            call.connection = connection
            with limit(connection, end, timeout_s):
                return await call.work(connection, end)
        except psycopg.Error as error:
            if error.sqlstate in MISSING and not is_last:
                raise _MissingError from None
            raise build_error(error, may_have_written=connection.is_committing, is_lost=connection.is_lost) from None
        finally:
            call.connection = None
            self.pool.give_back(connection)

    async def _prepare(self, call: Call, end: float) -> None:
        """Let the tables of a call be there."""
        if call.tables <= self._known.ready and self._known.ready:
            return
        if self._setting_up is None or self._setting_up.done():
            self._setting_up = self._loop.create_task(self._set_up())
            self._setting_up.add_done_callback(_look_at_error)
        done, _ = await asyncio.wait([self._setting_up], timeout=end - self._loop.time())
        if not done:
            raise EngineError(SETTING_UP.format(self._known.settings.timeout_s))
        error = self._setting_up.exception()
        if isinstance(error, DcafError):
            raise type(error)(*error.args)  # one for each caller
        self._setting_up.result()
        if not call.tables <= self._known.ready:  # declared since it began
            await self._prepare(call, end)

    async def _set_up(self) -> None:
        known = self._known
        tables = dict(known.tables)

        async def work(connection: Connection, end: float) -> None:
            await set_up(connection, end, known.settings, known.names, list(tables.values()))

        await self._try(Call(work, ()), self._loop.time() + SET_UP_S, timeout_s=SET_UP_S, is_last=True)
        known.ready.update(tables)


def _look_at_error(task: asyncio.Task[None]) -> None:
    """Whoever waited for it may have been cancelled; then asyncio would complain that nobody has looked."""
    if not task.cancelled():
        task.exception()
