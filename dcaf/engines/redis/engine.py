"""Rows in Redis or Valkey, for processes on many machines: one server, one behind Sentinels, or a cluster.

    engine = RedisEngine("rediss://dcaf:password@redis.internal:6379/0")

A transaction is one script, and one round trip. Calls of one event loop that wait at the same time leave as one pipeline.

What a reader gets wrong: Redis as it comes loses what it has acknowledged, and may drop rows when its memory is full. So the first
connection looks at the server's settings, and the engine refuses one that does not keep what ``durability=`` promises.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar
from weakref import WeakSet

import anyio
import anyio.to_thread

from dcaf.core.arguments import items_of, require
from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError
from dcaf.core.importing import extra
from dcaf.engines.base import Durability, Health, SyncEngine, Tables, check_scan, require_promise
from dcaf.engines.redis import calls as work
from dcaf.engines.redis.calls import PARTITIONS, Plan, Request, Wanted
from dcaf.engines.redis.cluster import Places
from dcaf.engines.redis.errors import BUSY, CLOSED, UNKNOWN
from dcaf.engines.redis.loops import Loop
from dcaf.engines.redis.script import Keys, has_sets
from dcaf.engines.redis.settings import NAMES, Settings
from dcaf.engines.redis.shapes import Shapes
from dcaf.engines.redis.threads import Threads
from dcaf.engines.transactions import Outcome, Row, Table, Transaction, check_transaction

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    from redis.sentinel import Sentinel

T = TypeVar("T")

TIMEOUT: Final = timedelta(seconds=1)
"""How long a call may take. A turn that cannot be checked in this time is answered with a 503."""

MOST_CONNECTIONS: Final = 16
"""How many connections the threads of a process have to one server."""

PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,40}")


class RedisEngine:
    """An engine over Redis 6.2 or newer, or Valkey.

    What was acknowledged is on the disk of the server that has said so. A replica that takes its place, by Sentinels or in a
    cluster, may lack the last of it: Redis sends it to replicas afterwards. The ledger notices that, and does not prevent it.

    Args:
        url: ``redis://user:password@host:6379/0``, ``rediss://`` for TLS, ``unix:///path``, as the package ``redis`` takes them;
            and ``redis+cluster://`` or ``rediss+cluster://``, which may name several hosts. Where Sentinels are asked, the host is
            the name of the service.
        prefix: Stands before each key, so that several applications can share a server.
        durability: ``"acknowledged"`` wants ``appendonly yes`` and ``appendfsync always``; ``"relaxed"`` takes ``everysec``, too,
            with which a power cut loses the last second. Both want a Redis that drops no row when its memory is full.
        timeout: Until a call must have ended. A purge takes this for each of its steps, which are short.
        vouched: Settings that the operator answers for, where the server does not let them be read or keeps rows in another way:
            of ``appendonly``, ``appendfsync`` and ``maxmemory-policy``.
        sentinel: The package's own object that finds the server, for threads (``redis.sentinel.Sentinel``).
        most_connections: How many connections the threads of a process may have to one server. An event loop has one.

    Attributes:
        url: Where the rows are, without a user and a password.
        sync: The same methods without ``await``.
        partitions: How many places rows have.

    Raises:
        ConfigurationError: An argument is wrong. What only the server can tell is told by the first call.
    """

    partitions: int = PARTITIONS

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "dcaf",
        durability: Durability = "acknowledged",
        timeout: timedelta = TIMEOUT,
        vouched: Collection[str] = (),
        sentinel: Sentinel | None = None,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        timeout_s = require_promise(durability, timeout)
        if not PREFIX.fullmatch(require("prefix=", prefix, str, "a text")):
            raise ConfigurationError("prefix= takes up to 40 letters, digits, and the characters _ . : -")
        names = None if isinstance(vouched, str) else items_of(vouched)
        if names is None:
            raise ConfigurationError(f"vouched= takes several names of {', '.join(NAMES)}.")
        if require("most_connections=", most_connections, int, "a number, 1 or more") < 1:
            raise ConfigurationError("most_connections= is 1 or more.")
        settings = Settings(
            require("url=", url, str, "a url, such as redis://localhost:6379/0"),
            timeout_s=timeout_s,
            durability=durability,
            vouched=names,
            prefix=prefix,
            has_sentinel=sentinel is not None,
        )
        if sentinel is not None and (settings.is_cluster or not isinstance(sentinel, Sentinel)):
            raise ConfigurationError("sentinel= takes a redis.sentinel.Sentinel, with a url redis://NAME-OF-THE-SERVICE/0.")
        self.url: str = settings.url
        self._calls = _Calls(settings, sentinel, most_connections)
        self.sync: SyncEngine = _Sync(self._calls)

    def __repr__(self) -> str:
        return f"RedisEngine({self.url!r})"

    def declare(self, tables: Iterable[Table]) -> None:
        self._calls.tables.declare(tables)

    async def transact(self, transaction: Transaction) -> Outcome:
        return await self._calls.run_async(self._calls.plan_transaction(transaction))

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        self._calls.check_scan(table, equal, limit, after)
        places = await self._calls.find_places_async()
        return await self._calls.run_async(self._calls.plan_scan(Wanted(table, equal, after, limit), places))

    async def purge(self, table: Table) -> int:
        return await self._calls.run_async(self._calls.plan_purge(table), is_long=True)

    async def check(self) -> Health:
        places = await self._calls.find_places_async()
        return await self._calls.run_async(self._calls.plan_check(places))

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._calls.aclose()


class _Sync:
    """The methods without ``await``."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def transact(self, transaction: Transaction) -> Outcome:
        return self._calls.run(self._calls.plan_transaction(transaction))

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        self._calls.check_scan(table, equal, limit, after)
        places = self._calls.find_places()
        return self._calls.run(self._calls.plan_scan(Wanted(table, equal, after, limit), places))

    def purge(self, table: Table) -> int:
        return self._calls.run(self._calls.plan_purge(table), is_long=True)

    def check(self) -> Health:
        return self._calls.run(self._calls.plan_check(self._calls.find_places()))

    def close(self) -> None:
        self._calls.close()


class _Calls:
    """The connections, and who has which; made anew in a process that was forked."""

    def __init__(self, settings: Settings, sentinel: Any, most_connections: int) -> None:
        self.tables = Tables()
        self._settings = settings
        self._sentinel = sentinel
        self._most_connections = most_connections
        self._keys = Keys(settings.prefix)
        self._shapes = Shapes()
        self._is_closed = False
        self._orphans: list[Any] = []
        self._loops: dict[asyncio.AbstractEventLoop, Loop] = {}
        self._begin_anew()
        _ALL.add(self)

    def plan_transaction(self, transaction: Transaction) -> Plan[Outcome]:
        check_transaction(transaction, PARTITIONS)
        for one in transaction.named:
            self.tables.require(one.table)
        return work.transact(transaction, self._keys, self._shapes)

    def check_scan(self, table: Table, equal: bytes | None, limit: int, after: bytes) -> None:
        self.tables.require(table)
        check_scan(table, equal, limit, after)

    def plan_scan(self, wanted: Wanted, places: Places) -> Plan[list[tuple[bytes, Row]]]:
        if not has_sets(wanted.table):
            return work.scan(wanted, self._keys, places.nodes)
        return work.find(wanted, self._keys, is_cluster=places.is_cluster)

    def plan_purge(self, table: Table) -> Plan[int]:
        self.tables.require(table)
        self._check()
        return work.purge(table, self._keys, is_cluster=self._places.is_cluster)

    def plan_check(self, places: Places) -> Plan[Health]:
        return work.check(self._settings, places.examples)

    def run(self, plan: Plan[T], *, is_long: bool = False) -> T:
        """Do a call in the engine's time; a long one takes that for each of its steps."""
        self._check()
        end = None if is_long else time.monotonic() + self._settings.timeout_s
        return work.run(plan, partial(self._threads.ask, end=end))

    async def run_async(self, plan: Plan[T], *, is_long: bool = False) -> T:
        self._check()
        loop = self._find_loop()
        now = time.monotonic() if loop is None else asyncio.get_running_loop().time()
        end = None if is_long else now + self._settings.timeout_s
        return await work.run_async(plan, partial(self._ask_in_thread if loop is None else loop.ask, end=end))

    def find_places(self) -> Places:
        self._check()
        self._threads.ask([])
        return self._places

    async def find_places_async(self) -> Places:
        self._check()
        loop = self._find_loop()
        await (self._ask_in_thread([]) if loop is None else loop.ask([]))
        return self._places

    async def aclose(self) -> None:
        own = self._find_loop()
        self.close()
        if own is not None:
            await own.close()

    def close(self) -> None:
        self._is_closed = True
        with self._lock:
            loops, self._loops = self._loops, {}
        for home, loop in loops.items():
            if not home.is_closed():
                home.call_soon_threadsafe(loop.stop)
        self._threads.close()

    def begin_anew_in_child(self) -> None:
        """Leave the connections of the parent alone: to close one may disturb the parent's event loop."""
        self._orphans.append((self._threads, self._loops))
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = Lock()
        self._places = Places(is_cluster=self._settings.is_cluster)
        self._threads: Threads = Threads(self._settings, self._places, self._sentinel, self._most_connections)
        self._loops = {}

    def _check(self) -> None:
        if self._is_closed:
            raise EngineError(CLOSED)
        if self._pid != os.getpid():  # forked without telling Python
            with _LOCK:
                if self._pid != os.getpid():
                    self.begin_anew_in_child()

    def _find_loop(self) -> Loop | None:
        """The connections of this event loop; None for one of trio."""
        try:
            home = asyncio.get_running_loop()
        except RuntimeError:
            return None
        loop = self._loops.get(home)
        return self._make_loop(home) if loop is None else loop

    def _make_loop(self, home: asyncio.AbstractEventLoop) -> Loop:
        with self._lock:
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]
            loop = self._loops[home] = Loop(self._settings, self._places, self._sentinel)
        return loop

    async def _ask_in_thread(self, requests: Sequence[Request], end: float | None = None) -> list[Any]:
        end = time.monotonic() + self._settings.timeout_s if end is None else end
        call = partial(self._threads.ask, requests, end)
        try:
            with anyio.move_on_after(end - time.monotonic()):
                return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        except BaseException:
            self._threads.give_up(requests)
            raise
        if self._threads.give_up(requests):
            raise CommitUnknownError(UNKNOWN)
        raise EngineError(BUSY.format(self._settings.timeout_s))


_LOCK: Final = Lock()
_ALL: Final[WeakSet[_Calls]] = WeakSet()
"""The engines of this process, for ``os.fork``."""


def _after_fork_in_child() -> None:
    for calls in list(_ALL):
        calls.begin_anew_in_child()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
