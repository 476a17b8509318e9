"""P24 in a file: while it is locked, full or away, a service answers 503 in a second, and takes nobody for new; then it recovers.

The service is a process. Another program holds the database, or is stopped while it holds the lock beside it; the file cannot grow;
its disk is taken away; or the disk does not answer a commit.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import dcaf.engines.sqlite.writer
from tests.promises.enduring import Endured, endure, make_failing_open, make_forgetting, make_ledger, make_patient
from tests.promises.ledgers import Make, at_once, workers
from tests.promises.places import in_file

STRANGER: Final = """
import fcntl, sqlite3, sys
kind, path = sys.argv[1:]
if kind == "database":
    connection = sqlite3.connect(path, isolation_level=None, timeout=20)
    connection.execute("BEGIN EXCLUSIVE")
else:
    file = open(path + "-lock", "a")
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def stranger(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the database, or the lock beside it."""
    command = [sys.executable, "-c", STRANGER, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is in a transaction."""
    with stranger("database", path):
        yield


@contextmanager
def half_open(path: Path) -> Iterator[None]:
    """Another worker was stopped while it wrote, and does not end."""
    with stranger("lock", path) as process:
        process.send_signal(signal.SIGSTOP)
        yield


@contextmanager
def full(path: Path) -> Iterator[None]:
    """No file can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def taken_away(path: Path) -> Iterator[None]:
    """The disk of the database is not there."""
    away = path.parent.with_name(path.parent.name + "-away")
    path.parent.rename(away)
    try:
        yield
    finally:
        away.rename(path.parent)


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """The disk does not answer a commit: the very first call that writes it, and nothing that comes after, has begun."""
    over, commits = threading.Event(), dcaf.engines.sqlite.writer.Writer._commit

    def commit(writer: Any, *, is_durable: bool) -> None:
        over.wait()
        commits(writer, is_durable=is_durable)

    dcaf.engines.sqlite.writer.Writer._commit = commit  # type: ignore[assignment, method-assign]  # in a process of its own
    try:
        yield
    finally:
        dcaf.engines.sqlite.writer.Writer._commit = commits  # type: ignore[method-assign]
        over.set()


@contextmanager
def slow(path: Path) -> Iterator[None]:
    """Another program holds the database for most of the time."""
    over = threading.Event()

    def hold() -> None:
        while not over.wait(0.1):
            with stranger("database", path):
                over.wait(0.6)

    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(0.3)
    try:
        yield
    finally:
        over.set()
        thread.join()


OUTAGES: Final[dict[str, Callable[[Path], AbstractContextManager[None]]]] = {
    "locked by another program": locked,
    "half open": half_open,
    "full": full,
    "taken away": taken_away,
    "hanging in a commit": hanging,
    "slow": slow,
}


def endured(folder: Path, cases: Sequence[tuple[str, Make]], bursts: int) -> list[Endured]:
    """Several outages at once, each in a process and a folder of its own."""
    arguments = []
    for at, (name, make) in enumerate(cases):
        path = folder / str(at) / "disk" / "dcaf.db"
        path.parent.mkdir(parents=True)
        arguments.append((in_file(path), make, name, bursts, partial(OUTAGES[name], path)))
    with workers(len(cases)) as found:
        return at_once(found, endure, *arguments)


@pytest.mark.promise(24)
def test_a_service_whose_store_is_down_says_so_in_a_second_and_takes_nobody_for_new(
    tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    cases: list[tuple[str, Make]] = [(name, make_ledger) for name in OUTAGES]
    found = dict(zip(OUTAGES, endured(tmp_path, cases, max(1, int(20 * scale))), strict=True))
    for name, one in found.items():
        measured(24, one.describe(f"SQLite, {name}"))
    wrong = {name: (failures, one) for name, one in found.items() if (failures := one.failures(is_slow=name == "slow"))}
    assert wrong == {}


@pytest.mark.promise(24)
def test_control_stores_that_fail_open_forget_or_wait_are_caught(tmp_path: Path) -> None:
    cases: list[tuple[str, Make]] = [
        ("locked by another program", make_failing_open),
        ("full", make_forgetting),
        ("half open", make_patient),
    ]
    is_open, forgets, waits = (set(one.failures(is_slow=False)) for one in endured(tmp_path, cases, 1))
    assert {"unchecked", "200"} <= is_open
    assert {"taken for new", "409 session-ended"} <= forgets
    assert {"slow", "nothing"} <= waits
