"""Programs over one PostgreSQL schema, for tests of several processes: forked, or ``python -m`` this module."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines import Plus, Put, Record, Table, Transaction
from dcaf.engines.postgres.engine import PostgresEngine

ROOT: Final = Path(__file__).parents[2]
COUNTS: Final = Table("counts", {"count": int, "holder": bytes, "data": bytes, "expires": int}, indexed="holder")
OTHERS: Final = [Table(f"others_{number}", {"count": int, "data": bytes}, large=number % 2 == 0) for number in range(4)]
PATIENCE: Final = timedelta(seconds=15)


def open_counts(url: str, **settings: Any) -> PostgresEngine:
    engine = PostgresEngine(url, **{"timeout": PATIENCE, **settings})
    engine.declare([COUNTS, *OTHERS])
    return engine


def add(*keys: bytes, table: Table = COUNTS, durable: bool = True) -> Transaction:
    records = [Record(table, key) for key in keys or (b"a",)]
    return Transaction(records, writes=[Put(record, {"count": Plus(1)}) for record in records], durable=durable)


def count(engine: PostgresEngine, key: bytes = b"a", *, table: Table = COUNTS) -> int:
    row = engine.sync.transact(Transaction([Record(table, key)])).rows[0]
    found = 0 if row is None else row["count"] or 0
    assert isinstance(found, int)
    return found


def run_together(work: Callable[[], object], times: int) -> list[int | None]:
    """Do something in several forked processes at once, and return how each has ended."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(times)

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a control fails by intent
        barrier.wait(60)
        work()

    processes = [context.Process(target=run) for _ in range(times)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def make_tables(url: str) -> None:
    engine = open_counts(url)
    for table in (COUNTS, *OTHERS):
        engine.sync.transact(add(table=table))
    engine.sync.close()


def count_up(url: str, times: int) -> None:
    engine = open_counts(url)
    for _ in range(times):
        engine.sync.transact(add())
    engine.sync.close()


def start(name: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engines.postgres_processes", name, url]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def write_through_restarts(url: str) -> None:
    """Say each number once it was acknowledged, and how often nobody could tell; go on whatever happens to the server."""
    engine = open_counts(url, timeout=timedelta(seconds=2), vouched=["synchronous_commit"])
    unknown = 0
    while True:
        try:
            row = engine.sync.transact(add()).rows[0]
        except CommitUnknownError:
            unknown += 1
        except EngineError:
            time.sleep(0.02)
        else:
            os.write(1, b"%d %d\n" % (1 if row is None else int(row["count"] or 0) + 1, unknown))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
