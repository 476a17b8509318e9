"""The connections of a PostgreSQL engine in one event loop, and the way of a call there: tables first, then a connection, in time.

What a reader gets wrong: tables are made by a task of their own, for which a call waits no longer than for anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from dcaf.core.errors import CommitUnknownError, ConfigurationError, DcafError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.postgres.calls import Work
from dcaf.engines.postgres.connections import Connection, Pool
from dcaf.engines.postgres.errors import MISSING, SETTING_UP, UNREPLICATED, build_error
from dcaf.engines.postgres.functions import Names
from dcaf.engines.postgres.limits import UNTIL_FOUND
from dcaf.engines.postgres.loops import Tasks, forget
from dcaf.engines.postgres.schema import set_up
from dcaf.engines.postgres.settings import Settings
from dcaf.engines.postgres.tables import TableSql
from dcaf.engines.transactions import Table

with extra("dcaf.engines.postgres.engine", "dcaf[postgres]"):
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
        writes: Whether it may write.
        asks: Whether it asks what the server is. Such a call is told of a setting that is refused; for another one, whose server
            was good when it began, the server is not there.

    Attributes:
        work, tables, writes, asks: As above.
        connection: The connection on which it is; None where nothing was sent, or nothing is awaited any more.
        has_begun: Whether it has had a connection, so that something may have been sent to the server.
    """

    __slots__ = ("asks", "connection", "has_begun", "tables", "work", "writes")

    def __init__(self, work: Work, tables: Iterable[Table], *, writes: bool = False, asks: bool = False) -> None:
        self.work: Work = work
        self.writes: bool = writes
        self.asks: bool = asks
        self.has_begun: bool = False
        self.connection: Connection | None = None
        self.tables: set[str] = {table.name for table in tables}

    def stop(self) -> None:
        """Tell the server to give it up."""
        if self.connection is not None:
            self.connection.give_up()


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
        self.pool: Pool = Pool(known.settings)
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
        await self.pool.close()

    def close(self) -> None:
        """Close it from another thread, or where nobody can wait."""
        if self._loop.is_closed():
            self.pool.drop_all()
            return
        try:
            self._loop.call_soon_threadsafe(self.pool.close_soon)
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
        connection = await self._take(call, end - (1 - UNTIL_FOUND) * timeout_s)
        try:
            call.connection, call.has_begun = connection, True
            connection.watch.begin(end, timeout_s)
            found = await call.work(connection, end)
        except psycopg.Error as error:
            if error.sqlstate in MISSING and not is_last:
                raise _MissingError from None
            raise build_error(error, may_have_written=connection.is_committing, is_lost=connection.closed) from None
        else:
            if connection.is_committing and connection.has_warned:
                raise CommitUnknownError(UNREPLICATED)
            return found
        finally:
            call.connection = None
            connection.watch.finish()
            await self.pool.give_back(connection)

    async def _take(self, call: Call, end: float) -> Connection:
        try:
            return await self.pool.take(end)
        except ConfigurationError as error:
            if call.asks:
                raise
            raise EngineError(f"Nothing was written. {error}") from None

    async def _prepare(self, call: Call, end: float) -> None:
        """Let the tables of a call be there."""
        if call.tables <= self._known.ready and self._known.ready:
            return
        if self._setting_up is None or self._setting_up.done():
            self._setting_up = self._loop.create_task(self._set_up())
            self._setting_up.add_done_callback(forget)
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
            await set_up(connection, end - SET_UP_S / 2, known.names, list(tables.values()))

        await self._try(Call(work, (), asks=True), self._loop.time() + SET_UP_S, timeout_s=SET_UP_S, is_last=True)
        known.ready.update(tables)
