"""Programs over one PostgreSQL schema, for tests of several processes: ``python -m tests.engines.postgres_processes NAME URL ...``.

With ``POSTGRES_PROCESSES_BREAK`` they are broken as the controls want them.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines import Plus, Put, Record, Table, Transaction
from dcaf.engines.postgres import PostgresEngine
from dcaf.engines.postgres_functions import Names, Shape

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


def start(name: str, url: str, *arguments: str, broken: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engines.postgres_processes", name, url, *arguments]
    environment = {**os.environ, "POSTGRES_PROCESSES_BREAK": broken}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_together(name: str, url: str, *arguments: str, times: int, broken: str = "") -> list[int]:
    """Run a program several times at once, and return how each has ended."""
    processes = [start(name, url, *arguments, broken=broken) for _ in range(times)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=100)
    return [process.returncode for process in processes]


def wait_for_all() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def make_tables(url: str) -> None:
    engine = open_counts(url)
    wait_for_all()
    for table in (COUNTS, *OTHERS):
        engine.sync.transact(add(table=table))
    engine.sync.close()


def count_up(url: str, times: str) -> None:
    engine = open_counts(url)
    engine.sync.check()
    wait_for_all()
    for _ in range(int(times)):
        engine.sync.transact(add())
    engine.sync.close()


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


def break_as_told(how: str) -> None:
    if how == "no lock of who makes tables":
        whole = Names.number
        setattr(Names, "number", lambda names, *parts: secrets.randbelow(2**62) if parts == (b"making",) else whole(names, *parts))  # noqa: B010
    if how == "no locks of rows":
        setattr(Shape, "_take_locks", lambda shape: "PERFORM pg_sleep(0);")  # noqa: B010


if __name__ == "__main__":
    break_as_told(os.environ.get("POSTGRES_PROCESSES_BREAK", ""))
    globals()[sys.argv[1]](*sys.argv[2:])
