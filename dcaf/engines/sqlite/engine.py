"""Rows in one SQLite file, for all processes of one machine: the engine to begin with, and enough for most.

    engine = SqliteEngine("/var/lib/shop/dcaf.db")

One thread writes, one reads, and one searches, whoever calls: event loops of asyncio and trio, threads, and processes that were
forked. What waits while the disk writes is one more commit for all of it.

What a reader gets wrong: a process that is forked while a connection is open must not touch the file (SQLite's locks belong to the
process, and the memory says that it has them). So the connections are closed before each fork, and opened again on both sides.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Final
from weakref import WeakSet

import anyio
import anyio.to_thread

from dcaf.core.arguments import require, require_clock
from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines.base import Durability, Health, Tables, check_scan, require_promise
from dcaf.engines.searching import Search, SyncSearchEngine, check_search
from dcaf.engines.sqlite import calls as work
from dcaf.engines.sqlite.connection import VERSION, Settings
from dcaf.engines.sqlite.errors import NEWER, describe, is_busy
from dcaf.engines.sqlite.file import check_place, read_mountinfo
from dcaf.engines.sqlite.reader import Reader
from dcaf.engines.sqlite.worker import CLOSED, Job, Pause, Worker
from dcaf.engines.sqlite.writer import Writer
from dcaf.engines.transactions import Outcome, Page, Row, Table, Transaction, check_transaction

TIMEOUT: Final = timedelta(seconds=1)
"""How long a call waits until it begins. A turn that cannot be checked in this time is answered with a 503."""


PURGED_AT_ONCE: Final = 1000
"""How many rows a purge looks at in one transaction, so that nobody waits long behind it."""

STILL_S: Final = 5.0
"""How long a fork waits for what is being written."""

FORKED: Final = (
    "This process was forked while the database was open, without Python being told or while another program held it, and SQLite's "
    "locks do not go along. Open the engine after the fork: under uWSGI, set lazy-apps."
)


class SqliteEngine:
    """An engine over one SQLite file. Its folder must be there; the file is made when it is first used.

    Args:
        path: The file.
        durability: ``"acknowledged"`` waits for the disk before it acknowledges; ``"relaxed"`` does not, and a power cut may lose
            the last seconds. Neither loses anything when the process ends.
        timeout: Until a call must have begun, and the same time again until it must have ended.
        clock: Returns seconds since the epoch.

    Attributes:
        url: ``sqlite:///`` and the absolute path.
        sync: The same methods without ``await``.
        partitions: 1.

    Raises:
        ConfigurationError: The file cannot be kept there, is no database, or was written by a newer release.
    """

    partitions: int = 1

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "acknowledged",
        timeout: timedelta = TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        timeout_s = require_promise(durability, timeout)
        found = find_absolute(path)
        check_place(found, read_mountinfo())
        probe(found)
        self.url: str = f"sqlite:///{found}"
        self._calls = _Calls(Settings(found, require_clock("clock=", clock), timeout_s, durability))
        self.sync: SyncSearchEngine = _Sync(self._calls)

    def __repr__(self) -> str:
        return f"SqliteEngine({self.url!r})"

    def declare(self, tables: Iterable[Table]) -> None:
        self._calls.tables.declare(tables)

    async def transact(self, transaction: Transaction) -> Outcome:
        worker, job = self._calls.plan_transaction(transaction)
        outcome: Outcome = await worker.wait_async(job)
        return outcome

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        worker, job = self._calls.plan_scan(table, equal, after, limit)
        rows: Sequence[tuple[bytes, Row]] = await worker.wait_async(job)
        return rows

    async def purge(self, table: Table) -> int:
        count = 0
        after: bytes | None = b""
        while after is not None:
            worker, job = self._calls.plan_purge(table, after)
            dropped, after = await worker.wait_async(job)
            count += dropped
        return count

    async def search(self, wanted: Search) -> Page:
        worker, job = self._calls.plan_search(wanted)
        page: Page = await worker.wait_async(job)
        return page

    async def check(self) -> Health:
        began = time.perf_counter()
        worker, job = self._calls.plan_check()
        return self._calls.describe(await worker.wait_async(job), began)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._calls.close)


class _Sync:
    """The methods without ``await``."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def transact(self, transaction: Transaction) -> Outcome:
        worker, job = self._calls.plan_transaction(transaction)
        outcome: Outcome = worker.wait(job)
        return outcome

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        worker, job = self._calls.plan_scan(table, equal, after, limit)
        rows: Sequence[tuple[bytes, Row]] = worker.wait(job)
        return rows

    def purge(self, table: Table) -> int:
        count = 0
        after: bytes | None = b""
        while after is not None:
            worker, job = self._calls.plan_purge(table, after)
            dropped, after = worker.wait(job)
            count += dropped
        return count

    def search(self, wanted: Search) -> Page:
        worker, job = self._calls.plan_search(wanted)
        page: Page = worker.wait(job)
        return page

    def check(self) -> Health:
        began = time.perf_counter()
        worker, job = self._calls.plan_check()
        return self._calls.describe(worker.wait(job), began)

    def close(self) -> None:
        self._calls.close()


class _Calls:
    """The threads, and which of them does what; made anew in a process that was forked."""

    def __init__(self, settings: Settings) -> None:
        self.tables = Tables()
        self._settings = settings
        self._is_closed = False
        self._is_still = False
        self._pauses: list[Pause] = []
        self._begin_anew()
        _ALL.add(self)

    def plan_transaction(self, transaction: Transaction) -> tuple[Worker, Job]:
        check_transaction(transaction)
        for one in transaction.named:
            self.tables.require(one.table)
        if not transaction.writes:
            return self._reading(), Job(work.transact(transaction), writes=False)
        return self._writing(), Job(work.transact(transaction), writes=True, durable=transaction.durable)

    def plan_scan(self, table: Table, equal: bytes | None, after: bytes, limit: int) -> tuple[Worker, Job]:
        self.tables.require(table)
        check_scan(table, equal, limit, after)
        return self._reading(), Job(work.scan(table, equal, after, limit), writes=False)

    def plan_search(self, wanted: Search) -> tuple[Worker, Job]:
        check_search(wanted)
        self.tables.require(wanted.table)
        self._check()
        return self._searcher, Job(work.search(wanted), writes=False)

    def plan_purge(self, table: Table, after: bytes) -> tuple[Worker, Job]:
        self.tables.require(table)
        return self._writing(), Job(work.purge(table, after, PURGED_AT_ONCE), writes=True)

    def plan_check(self) -> tuple[Worker, Job]:
        return self._writing(), Job(work.check, writes=False)

    def describe(self, details: Mapping[str, str], began: float) -> Health:
        own = {"path": str(self._settings.path), "lock": "flock" if self._settings.has_lock else "none"}
        return Health(self._settings.durability, (time.perf_counter() - began) * 1000, {**own, **details})

    def close(self) -> None:
        self._is_closed = True
        if self._pid == os.getpid():
            for worker in (self._searcher, self._reader, self._writer):
                worker.stop()

    def before_fork(self) -> None:
        self._pauses = [worker.pause() for worker in (self._searcher, self._reader, self._writer)]
        end = time.monotonic() + STILL_S
        self._is_still = all(pause.reached.wait(max(0, end - time.monotonic())) for pause in self._pauses)

    def after_fork_in_parent(self) -> None:
        for pause in self._pauses:
            pause.over.set()

    def after_fork_in_child(self) -> None:
        if self._is_still:
            self._begin_anew()

    def _begin_anew(self) -> None:
        timeout_s = self._settings.timeout_s
        self._pid = os.getpid()
        self._is_still = False
        self._pauses = []
        self.writing: Writer = Writer(self._settings)
        self._writer: Worker = Worker(self.writing, name="dcaf-sqlite-writer", timeout_s=timeout_s)
        self._reader: Worker = Worker(Reader(self._settings, self._writer), name="dcaf-sqlite-reader", timeout_s=timeout_s)
        # A search may take long, and no turn is to wait for it.
        self._searcher: Worker = Worker(Reader(self._settings, self._writer), name="dcaf-sqlite-searcher", timeout_s=timeout_s)

    def _reading(self) -> Worker:
        self._check()
        return self._reader

    def _writing(self) -> Worker:
        self._check()
        return self._writer

    def _check(self) -> None:
        if self._is_closed:
            raise EngineError(CLOSED)
        if self._pid == os.getpid():
            return
        if any(worker.was_used for worker in (self._searcher, self._reader, self._writer)):
            raise EngineError(FORKED)
        with _LOCK:
            if self._pid != os.getpid():
                self._begin_anew()


_LOCK: Final = Lock()
_ALL: Final[WeakSet[_Calls]] = WeakSet()
"""The engines of this process, for ``os.fork``."""


def _before_fork() -> None:
    for calls in list(_ALL):
        calls.before_fork()


def _after_fork_in_parent() -> None:
    for calls in list(_ALL):
        calls.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for calls in list(_ALL):
        calls.after_fork_in_child()


if sys.platform != "win32":
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def find_absolute(path: str | os.PathLike[str]) -> Path:
    """An absolute path, whatever the current folder is later."""
    require("path=", path, (str, os.PathLike), "the path of a file")
    name = os.fspath(path)
    if not isinstance(name, str) or "\0" in name or not _is_name_of_file(name):
        raise ConfigurationError("path= takes the path of a file, in a text that a file system takes.")
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute leaves `..` in it


def _is_name_of_file(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def probe(path: Path) -> None:
    """Look whether a file that is there is a database of this release.

    Raises:
        ConfigurationError: It is none.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        if is_busy(error):  # it is one
            return
        raise ConfigurationError(f"{path}: {describe(error)}.") from None
    if version > VERSION:
        raise ConfigurationError(f"{path}: {NEWER}")
