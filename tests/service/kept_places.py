"""Where the session services of tests keep their rows: memory, a file, a Redis, a cluster, PostgreSQL; and three ways to call them.

>>> place = KeptPlace("memory-8")
>>> Calls("sync", place.open_service()).run(lambda calls: calls.create(user="ada", state={"step": 1})).to_dict()
{'step': 1}
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import anyio
import pytest

from dcaf.engines import Engine, MemoryEngine, Outcome, PostgresEngine, RedisEngine, SqliteEngine, Transaction
from dcaf.service import KeptSession, ServiceTurn, SessionService
from tests.engines.postgres_servers import get_server
from tests.engines.redis_servers import share_cluster, share_server

T = TypeVar("T")

KINDS: Final = ("memory", "memory-8", "sqlite", "redis", "redis-cluster", "postgres")
SHARED: Final = ("sqlite", "redis", "postgres")
"""The kinds of places that other processes reach, one for each engine."""

CALLED: Final = (
    *(("asyncio", kind) for kind in ("memory-8", "sqlite", "redis", "redis-cluster", "postgres")),
    ("trio", "sqlite"),
    *(("sync", kind) for kind in ("memory", "redis")),
)
"""On what event loop a service is called, and where its rows are. The ways differ in the engine alone."""

ON_MEMORY: Final = {"memory": 1, "memory-8": 8}
"""Kind of place -> how many partitions its engine has."""


@dataclass
class KeptPlace:
    """Where rows are. Without its engines it goes to another process.

    Attributes:
        kind: One of ``KINDS``.
        where: The file or the url.
        prefix: Before the keys of its rows on a Redis; the schema in PostgreSQL.
    """

    kind: str
    where: str = ""
    prefix: str = "dcaf"
    _engines: list[Engine] = field(default_factory=list, repr=False)

    def open_engine(self) -> Engine:
        """An engine; on memory it is the same each time."""
        if self.kind in ON_MEMORY and self._engines:
            return self._engines[0]
        self._engines.append(self._make_engine())
        return self._engines[-1]

    def open_service(self, app: str = "clinic", **settings: Any) -> SessionService:
        """A service with an engine of its own."""
        return SessionService(self.open_engine(), app=app, **settings)

    def close(self) -> None:
        for engine in self._engines:
            engine.sync.close()
        self._engines.clear()

    def without_engines(self) -> KeptPlace:
        """The same, for another process."""
        return KeptPlace(self.kind, self.where, self.prefix)

    def _make_engine(self) -> Engine:
        if self.kind in ON_MEMORY:
            return MemoryEngine(partitions=ON_MEMORY[self.kind])
        if self.kind == "postgres":
            return PostgresEngine(self.where, schema=self.prefix)
        return SqliteEngine(self.where) if self.kind == "sqlite" else RedisEngine(self.where, prefix=self.prefix)


def find_kept_place(kind: str, folder: Path) -> KeptPlace:
    """A place of a kind that has no rows."""
    if kind in ON_MEMORY:
        return KeptPlace(kind)
    if kind == "sqlite":
        return KeptPlace(kind, str(folder / f"{uuid4().hex}.db"))
    if kind == "postgres":
        return KeptPlace(kind, get_server().url(), f"kept_{uuid4().hex[:16]}")
    url = share_server().socket_url if kind == "redis" else share_cluster().url
    return KeptPlace(kind, url, f"kept-{uuid4().hex[:16]}")


@pytest.fixture(params=KINDS)
def kept_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    """Each kind of place in turn, without rows."""
    found = find_kept_place(request.param, tmp_path)
    yield found
    found.close()


@pytest.fixture(params=SHARED)
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    """Those that other processes reach."""
    found = find_kept_place(request.param, tmp_path)
    yield found
    found.close()


@pytest.fixture(params=CALLED, ids="-".join)
def calls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Calls]:
    """A service on each kind of place, called in each way on one of them at least."""
    way, kind = request.param
    found = find_kept_place(kind, tmp_path)
    yield Calls(way, found.open_service())
    found.close()


class Calls:
    """A service, called on asyncio, on trio, or without an event loop, by the same test.

    Args:
        way: ``asyncio``, ``trio`` or ``sync``.
        service: The service.
    """

    def __init__(self, way: str, service: SessionService) -> None:
        self.way = way
        self.service = service

    def run(self, test: Callable[[Calls], Awaitable[T]]) -> T:
        """Run a test with these calls."""
        if self.way != "sync":
            return anyio.run(test, self, backend=self.way)
        try:
            test(self).__await__().__next__()
        except StopIteration as end:
            result: T = end.value
            return result
        raise AssertionError("A call without an event loop has waited for one.")

    def of(self, service: SessionService) -> Calls:
        """Another service, called in the same way."""
        return Calls(self.way, service)

    @asynccontextmanager
    async def open(self, *, user: str | None, id: str | None = None) -> AsyncIterator[KeptSession]:  # noqa: A002
        async with self.enter(self.service.open(user=user, id=id)) as session:
            yield session

    @asynccontextmanager
    async def enter(self, turn: ServiceTurn) -> AsyncIterator[KeptSession]:
        """The block of a turn."""
        if self.way == "sync":
            with turn as session:
                yield session
        else:
            async with turn as session:
                yield session

    async def ask(self, method: str, *given: Any, **arguments: Any) -> Any:
        """Call a method of the service, by its name."""
        if self.way == "sync":
            return getattr(self.service.sync, method)(*given, **arguments)
        return await getattr(self.service, method)(*given, **arguments)

    async def create(self, **arguments: Any) -> KeptSession:
        return self.service.sync.create(**arguments) if self.way == "sync" else await self.service.create(**arguments)

    async def get(self, **arguments: Any) -> KeptSession | None:
        return self.service.sync.get(**arguments) if self.way == "sync" else await self.service.get(**arguments)

    async def read(self, **arguments: Any) -> dict[str, Any]:
        """The state of a session that is there."""
        found = await self.get(**arguments)
        assert found is not None
        return found.to_dict()

    async def save(self, session: KeptSession) -> None:
        if self.way == "sync":
            self.service.sync.save(session)
        else:
            await self.service.save(session)

    async def delete(self, **arguments: Any) -> bool:
        return self.service.sync.delete(**arguments) if self.way == "sync" else await self.service.delete(**arguments)


class Watched:
    """An engine whose transactions are counted, and before one of which something else is done.

    Args:
        engine: The engine, which does the work.

    Attributes:
        done: How many transactions were sent to it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._actions: dict[int, Callable[[], object]] = {}
        self.done = 0
        self.url = engine.url
        self.partitions = engine.partitions
        self.sync: Any = _WatchedSync(self, engine)
        self.declare = engine.declare
        self.scan, self.purge, self.check, self.aclose = engine.scan, engine.purge, engine.check, engine.aclose

    def before(self, number: int, action: Callable[[], object]) -> None:
        """Do something before the transaction of this number from now, the first of which is 0. What it raises is raised there."""
        self._actions[self.done + number] = action

    def count(self) -> None:
        """Take note of a transaction that begins."""
        action = self._actions.pop(self.done, None)
        self.done += 1
        if action is not None:
            action()

    async def transact(self, transaction: Transaction) -> Outcome:
        self.count()
        return await self._engine.transact(transaction)


class _WatchedSync:
    def __init__(self, watched: Watched, engine: Engine) -> None:
        self._watched, self._engine = watched, engine
        self.scan, self.purge, self.check, self.close = engine.sync.scan, engine.sync.purge, engine.sync.check, engine.sync.close

    def transact(self, transaction: Transaction) -> Outcome:
        self._watched.count()
        return self._engine.sync.transact(transaction)
