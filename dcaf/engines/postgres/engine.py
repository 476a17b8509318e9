"""Rows in a PostgreSQL database, for all processes of many machines. Needs the extra: ``pip install 'dcaf[postgres]'``.

    engine = PostgresEngine("postgresql://app@db.example/shop")

PostgreSQL 13 or newer. A transaction is one round trip, and behind PgBouncer in transaction mode, too. Each event loop of asyncio
has connections of its own; calls without ``await``, and those of trio, run in the event loop of a thread.

What a reader gets wrong: a connection that ends while a transaction is on its way tells nobody whether it was committed. Then the
call raises CommitUnknownError, and sends nothing again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from typing import Any, Final

import anyio

from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines.base import Durability, Health, Tables, check_scan
from dcaf.engines.postgres import calls as work
from dcaf.engines.postgres.connections import Connection
from dcaf.engines.postgres.errors import CLOSED, UNANSWERED, UNANSWERED_WRITE
from dcaf.engines.postgres.functions import Names, Shape, plan_call
from dcaf.engines.postgres.homes import Call, Home, Known
from dcaf.engines.postgres.large import transact_in_steps
from dcaf.engines.postgres.loops import LoopThread
from dcaf.engines.postgres.settings import POOL_SIZE, SCHEMA, TIMEOUT, Settings, read_settings
from dcaf.engines.postgres.sql import Key
from dcaf.engines.postgres.tables import TableSql
from dcaf.engines.searching import Search, SyncSearchEngine, check_search
from dcaf.engines.transactions import Outcome, Page, Row, Table, Transaction, check_transaction

PURGED_AT_ONCE: Final = 1000
"""How many rows a purge looks at in one transaction, so that nobody waits long behind it."""

MOST_SHAPES: Final = 200
"""For how many shapes of transactions a process uses functions. Those that come later go in steps."""


class PostgresEngine:
    """An engine over a schema of a PostgreSQL database. The schema and its tables are made when they are first used.

    Args:
        url: ``postgresql://user:password@host/database``, with the options of libpq. It may say ``schema``, ``pool_size``,
            ``prepared`` and ``vouch`` (names with commas between them), too.
        schema: The schema. Several applications may share a database, each with a schema of its own.
        durability: ``"acknowledged"`` waits for the disk before it acknowledges, and refuses a server that does not;
            ``"relaxed"`` does not wait, and a power cut may lose the last seconds.
        timeout: How long a call takes at most.
        pool_size: How many connections there are at most, for each event loop.
        prepared: Whether statements are prepared on connections that go to the server itself. Through PgBouncer none is.
        vouched: Names of settings of the server that may be off since the operator vouches for what they do: ``"fsync"``,
            ``"full_page_writes"``, ``"synchronous_commit"``.

    Attributes:
        url: Where the rows are, without a password.
        sync: The same methods without ``await``.
        partitions: 1.

    Raises:
        ConfigurationError: An argument is wrong. What only the server can tell is raised by the first call.
    """

    partitions: int = 1

    def __init__(
        self,
        url: str,
        *,
        schema: str = SCHEMA,
        durability: Durability = "acknowledged",
        timeout: timedelta = TIMEOUT,
        pool_size: int = POOL_SIZE,
        prepared: bool = True,
        vouched: Collection[str] = (),
    ) -> None:
        settings = read_settings(
            url,
            schema=schema,
            durability=durability,
            timeout=timeout,
            pool_size=pool_size,
            prepared=prepared,
            vouched=vouched,
        )
        self.url: str = settings.url
        self._calls = _Calls(settings)
        self.sync: SyncSearchEngine = _Sync(self._calls)

    def __repr__(self) -> str:
        return f"PostgresEngine({self.url!r})"

    def declare(self, tables: Iterable[Table]) -> None:
        self._calls.declare(tables)

    async def transact(self, transaction: Transaction) -> Outcome:
        outcome: Outcome = await self._calls.run(self._calls.plan_transaction(transaction))
        return outcome

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        rows: Sequence[tuple[bytes, Row]] = await self._calls.run(self._calls.plan_scan(table, equal, after, limit))
        return rows

    async def purge(self, table: Table) -> int:
        count = 0
        after: bytes | None = b""
        while after is not None:
            dropped, after = await self._calls.run(self._calls.plan_purge(table, after))
            count += dropped
        return count

    async def search(self, wanted: Search) -> Page:
        page: Page = await self._calls.run(self._calls.plan_search(wanted))
        return page

    async def check(self) -> Health:
        health: Health = await self._calls.run(self._calls.plan_check())
        return health

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._calls.aclose()


class _Sync:
    """The methods without ``await``."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def transact(self, transaction: Transaction) -> Outcome:
        outcome: Outcome = self._calls.wait(self._calls.plan_transaction(transaction))
        return outcome

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        rows: Sequence[tuple[bytes, Row]] = self._calls.wait(self._calls.plan_scan(table, equal, after, limit))
        return rows

    def purge(self, table: Table) -> int:
        count = 0
        after: bytes | None = b""
        while after is not None:
            dropped, after = self._calls.wait(self._calls.plan_purge(table, after))
            count += dropped
        return count

    def search(self, wanted: Search) -> Page:
        page: Page = self._calls.wait(self._calls.plan_search(wanted))
        return page

    def check(self) -> Health:
        health: Health = self._calls.wait(self._calls.plan_check())
        return health

    def close(self) -> None:
        self._calls.close()


class _Calls:
    """What the process knows of the schema, and where its calls run; the latter is made anew in a process that was forked."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = Names(settings.schema)
        self._known = Known(settings, self.names)
        self._declared = Tables()
        self._shapes: dict[Key, Shape | None] = {}
        self._is_closed = False
        self._lock = Lock()
        self._pid = os.getpid()
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._background: LoopThread | None = None

    def declare(self, tables: Iterable[Table]) -> None:
        self._known.tables.update((table.name, TableSql(table, self.names)) for table in self._declared.declare(tables))

    def plan_transaction(self, transaction: Transaction) -> Call:
        check_transaction(transaction)
        tables = [one.table for one in transaction.named]
        for table in tables:
            self._declared.require(table)
        is_waited_for = transaction.durable and self.settings.durability == "acknowledged"
        plan = plan_call(transaction, self.names, is_waited_for=is_waited_for, remember=self._remember)
        in_steps = transact_in_steps(transaction, self.names, self._known.tables, is_waited_for=is_waited_for)
        do = in_steps if plan is None else work.transact(plan, in_steps, self._refuse)
        return Call(do, tables, writes=bool(transaction.writes))

    def plan_scan(self, table: Table, equal: bytes | None, after: bytes, limit: int) -> Call:
        self._declared.require(table)
        check_scan(table, equal, limit, after)
        return Call(work.scan(self._known.tables[table.name], equal, after, limit), [table])

    def plan_search(self, wanted: Search) -> Call:
        check_search(wanted)
        self._declared.require(wanted.table)
        return Call(work.search(self._known.tables[wanted.table.name], wanted), [wanted.table])

    def plan_purge(self, table: Table, after: bytes) -> Call:
        self._declared.require(table)
        return Call(work.purge(self._known.tables[table.name], after, PURGED_AT_ONCE), [table], writes=True)

    def plan_check(self) -> Call:
        began = time.perf_counter()

        async def look(connection: Connection, end: float) -> Health:
            details = await work.check(self.settings)(connection, end)
            own = {"schema": self.settings.schema, "pool_size": str(self.settings.pool_size)}
            return Health(self.settings.durability, (time.perf_counter() - began) * 1000, {**own, **details})

        return Call(look, self._declared, asks=True)

    async def run(self, call: Call) -> Any:
        self._check()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            thread = self._thread()
            return await thread.wait_in_trio(lambda: self._home(thread.loop).run(call))
        return await self._home(loop).run(call)

    def wait(self, call: Call) -> Any:
        self._check()
        thread = self._thread()
        try:
            return thread.wait(lambda: self._home(thread.loop).run(call), self.settings.timeout_s)
        except TimeoutError:
            raise CommitUnknownError(UNANSWERED_WRITE) if call.writes else EngineError(UNANSWERED) from None

    async def aclose(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await anyio.to_thread.run_sync(self.close)
            return
        self._is_closed = True
        if self._homes.get(loop) is not None:
            await self._homes[loop].aclose()
        await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        self._is_closed = True
        if self._pid != os.getpid():
            return
        with self._lock:
            homes, self._homes = self._homes, {}
            thread, self._background = self._background, None
        for loop, home in homes.items():
            if thread is not None and loop is thread.loop:
                with suppress(TimeoutError):
                    thread.wait(home.aclose, self.settings.timeout_s)
            else:
                home.close()
        if thread is not None:
            thread.stop()

    def _check(self) -> None:
        if self._is_closed:
            raise EngineError(CLOSED)
        if self._pid != os.getpid():
            with _LOCK:
                self._begin_anew()

    def _begin_anew(self) -> None:
        """In a process that was forked: let go of what belongs to its parent. Happens once; the caller holds the lock."""
        if self._pid == os.getpid():
            return
        self._lock = Lock()
        for home in self._homes.values():
            home.pool.abandon()
        _ABANDONED.append((self._homes, self._background))
        self._homes, self._background = {}, None
        self._pid = os.getpid()

    def _thread(self) -> LoopThread:
        with self._lock:
            found = self._background = self._background or LoopThread()
        return found

    def _home(self, loop: asyncio.AbstractEventLoop) -> Home:
        """Where calls run in an event loop; called in it."""
        home = self._homes.get(loop)
        if home is None:
            with self._lock:
                for other in [one for one in self._homes if one.is_closed()]:
                    self._homes.pop(other).pool.drop_all()
                home = self._homes[loop] = Home(self._known, loop)
        return home

    def _remember(self, key: Key, build: Callable[[], Shape | None]) -> Shape | None:
        try:
            return self._shapes[key]
        except KeyError:
            return self._shapes.setdefault(key, build()) if len(self._shapes) < MOST_SHAPES else None

    def _refuse(self, shape: Shape) -> None:
        self._shapes[shape.key] = None


_LOCK: Final = Lock()
_ABANDONED: Final[list[object]] = []
"""What belongs to the parent of this process: nothing of it may be closed here."""
