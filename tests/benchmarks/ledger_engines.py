"""Engines around a SQLite engine, for measuring it: one that counts, one that times, one without a thread, one with as little of it
as can be, one that never groups.

What a reader gets wrong: all of them run the engine's own statements, from ``dcaf.engines.sqlite.calls``. They differ in who
runs them, and when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from dcaf.engines import Engine, Health, Outcome, Row, SqliteEngine, SyncEngine, Table, Transaction
from dcaf.engines.sqlite.calls import transact
from dcaf.engines.sqlite.connection import Settings
from dcaf.engines.sqlite.worker import Calls, Job, Worker
from dcaf.engines.sqlite.writer import Writer

TIMEOUT_S = 30.0
"""Longer than any call takes here: what is slow shall be slow, and not refused."""


def sqlite_engine(path: Path, *, durable: bool = True) -> SqliteEngine:
    """The engine itself."""
    return SqliteEngine(path, durability="acknowledged" if durable else "relaxed", timeout=timedelta(seconds=TIMEOUT_S))


class Around:
    """Another engine, as it is.

    Args:
        inner: The engine.
    """

    def __init__(self, inner: Engine) -> None:
        self.inner = inner
        self.url: str = inner.url
        self.sync: SyncEngine = inner.sync
        self.partitions: int = inner.partitions

    def declare(self, tables: Iterable[Table]) -> None:
        self.inner.declare(tables)

    async def transact(self, transaction: Transaction) -> Outcome:
        return await self.inner.transact(transaction)

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        return await self.inner.scan(table, equal=equal, after=after, limit=limit)

    async def purge(self, table: Table) -> int:
        return await self.inner.purge(table)

    async def check(self) -> Health:
        return await self.inner.check()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Counting(Around):
    """Counts the transactions, each of which is a round trip where the rows are in another process.

    Attributes:
        trips: How many there were.
    """

    trips: int = 0

    async def transact(self, transaction: Transaction) -> Outcome:
        self.trips += 1
        return await super().transact(transaction)


class Timed(Around):
    """Adds up how long its transactions take.

    Attributes:
        claims_s: Seconds in those that need not be durable: the claims.
        commits_s: Seconds in the others.
    """

    claims_s: float = 0.0
    commits_s: float = 0.0

    async def transact(self, transaction: Transaction) -> Outcome:
        start = time.perf_counter()
        outcome = await super().transact(transaction)
        took_s = time.perf_counter() - start
        if transaction.durable:
            self.commits_s += took_s
        else:
            self.claims_s += took_s
        return outcome


class Inline(Around):
    """The statements of a SQLite engine in the thread that asks: the event loop stands still until the disk has written.

    Args:
        path: The file.

    Attributes:
        writer: The connection.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite_engine(path))
        self.writer: Writer = Writer(_settings(path))

    async def transact(self, transaction: Transaction) -> Outcome:
        job = _job(transaction)
        self.writer.serve(_One(job))
        outcome: Outcome = job.take()
        return outcome

    async def aclose(self) -> None:
        self.writer.close()
        await super().aclose()


class LeastHop(Around):
    """The least that a hand-over takes: a queue, a thread that serves one call at a time, and a future that it wakes."""

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite_engine(path))
        self._writer = Writer(_settings(path))
        self._queue: SimpleQueue[tuple[Job, asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    async def transact(self, transaction: Transaction) -> Outcome:
        job, future = _job(transaction), asyncio.get_running_loop().create_future()
        self._queue.put((job, future))
        await future
        outcome: Outcome = job.take()
        return outcome

    async def aclose(self) -> None:
        self._queue.put(None)
        self._thread.join()
        await super().aclose()

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            job, future = item
            self._writer.serve(_One(job))
            future.get_loop().call_soon_threadsafe(future.set_result, None)
        self._writer.close()


class Ungrouped(Around):
    """The thread and the queue of a SQLite engine, with a commit for each transaction."""

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite_engine(path))
        self._worker = Worker(_OneByOne(Writer(_settings(path))), name="ungrouped", timeout_s=TIMEOUT_S)

    async def transact(self, transaction: Transaction) -> Outcome:
        outcome: Outcome = await self._worker.wait_async(_job(transaction))
        return outcome

    async def aclose(self) -> None:
        self._worker.stop()
        await super().aclose()


class _One:
    """The calls that wait, where that is one."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def collect(self) -> list[Job]:
        return [self._job]

    def begin(self, jobs: Iterable[Job]) -> list[Job]:
        return list(jobs)

    def pass_on(self, job: Job, other: Worker) -> None:
        raise NotImplementedError("a writer passes nothing on")


class _OneByOne:
    """Does each call by itself. All that waited are woken at the end, once: what grouping saves there is not in the comparison."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def serve(self, calls: Calls) -> None:
        for job in calls.begin(calls.collect()):
            self._writer.serve(_One(job))

    def close(self) -> None:
        self._writer.close()


def _job(transaction: Transaction) -> Job:
    return Job(transact(transaction), writes=True, durable=transaction.durable)


def _settings(path: Path) -> Settings:
    return Settings(path, time.time, TIMEOUT_S, "acknowledged")
