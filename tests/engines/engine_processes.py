"""Programs over one SQLite file, for tests of several processes: ``python -m tests.engines.engine_processes NAME FILE ...``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dcaf.core.errors import EngineError
from dcaf.engines import Plus, Put, Record, SqliteEngine, Table, Transaction
from dcaf.engines.sqlite.file import FileLock

ROOT: Final = Path(__file__).parents[2]
COUNTS: Final = Table("counts", {"count": int, "holder": bytes, "expires": int}, indexed="holder")
OTHERS: Final = [Table(f"others_{number}", {"count": int, "data": bytes}, large=number % 2 == 0) for number in range(4)]


def open_counts(path: str | Path) -> SqliteEngine:
    engine = SqliteEngine(path)
    engine.declare([COUNTS, *OTHERS])
    return engine


def add(key: bytes = b"a", *, table: Table = COUNTS, durable: bool = True) -> Transaction:
    record = Record(table, key)
    return Transaction([record], writes=[Put(record, {"count": Plus(1)})], durable=durable)


def fork(work: Callable[[], Any]) -> None:
    """Do something in a forked process, which must end in time and without an error."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the parent is told
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("The forked process hangs.")


def start(name: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engines.engine_processes", name, str(path), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write_until_killed(path: str) -> None:
    """Say each number once it was acknowledged."""
    engine = open_counts(path)
    record = Record(COUNTS, b"a")
    while True:
        outcome = engine.sync.transact(Transaction([record], writes=[Put(record, {"count": Plus(1)})]))
        row = outcome.rows[0]
        os.write(1, b"%d\n" % (1 if row is None else int(row["count"] or 0) + 1))


def say_before_writing(path: str) -> None:
    """Say each number too early."""
    engine = open_counts(path)
    record = Record(COUNTS, b"a")
    while True:
        row = engine.sync.transact(Transaction([record])).rows[0]
        os.write(1, b"%d\n" % (1 if row is None else int(row["count"] or 0) + 1))
        time.sleep(0.02)
        engine.sync.transact(add())


def make_tables(path: str) -> None:
    """Make all tables as soon as the parent says so, and count in each."""
    engine = open_counts(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for table in (COUNTS, *OTHERS):
        engine.sync.transact(add(table=table))
    engine.sync.close()


def serve_turns(path: str, tasks: str, seconds: str) -> None:
    """Write with so many tasks, for so long; print how long each write took."""
    engine = open_counts(path)
    engine.sync.transact(add(b"%d" % os.getpid()))
    took: list[float] = []

    async def turn(number: int) -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            with suppress(EngineError):  # it has waited in vain, which took its time, too
                await engine.transact(add(b"%d-%d" % (os.getpid(), number)))
            took.append(time.perf_counter() - began)

    async def run() -> None:
        await asyncio.gather(*(turn(number) for number in range(int(tasks))))

    print("ready", flush=True)
    sys.stdin.readline()
    end = time.perf_counter() + float(seconds)
    asyncio.run(run())
    print(json.dumps(took), flush=True)


def write_ten_times(path: Path) -> None:
    engine = open_counts(path)
    for _ in range(10):
        engine.sync.transact(add())
    engine.sync.close()


def end_with_calls_that_wait(path: str) -> None:
    """End, with a thousand calls in the queue, most of which have not begun."""
    engine = open_counts(path)
    engine.sync.transact(add())
    for number in range(1_000):
        worker, job = engine._calls.plan_transaction(add(b"%d" % number))
        worker.put(job)
    print("ends", flush=True)


def end_with_calls_that_cannot_begin(path: str) -> None:
    """End, while another one holds the lock for which the thread waits."""
    engine = open_counts(path)
    engine.sync.transact(add())
    other = FileLock(Path(path))
    other.__enter__()
    worker, job = engine._calls.plan_transaction(add())
    worker.put(job)
    time.sleep(0.2)
    print("ends", flush=True)


def hold_lock(path: str) -> None:
    """Hold the lock beside the file until the parent says something."""
    with FileLock(Path(path)):
        print("held", flush=True)
        sys.stdin.readline()


def hold_database(path: str) -> None:
    """Be a program that knows nothing of dcaf, and is in the middle of a transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()


if __name__ == "__main__":
    if os.environ.get("ENGINE_PROCESSES_WITHOUT_LOCK"):
        FileLock.__enter__ = lambda lock: None  # type: ignore[method-assign]
    globals()[sys.argv[1]](*sys.argv[2:])
