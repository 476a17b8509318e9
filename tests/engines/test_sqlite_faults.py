"""What may happen to a SQLite engine, and what then holds: forks, kills, cancelled calls, closed loops, full disks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from dcaf.core import ConfigurationError
from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines import Outcome, Put, Record, SqliteEngine, Table, Transaction
from dcaf.engines.sqlite import engine as engine_module
from dcaf.engines.sqlite import writer as writing
from dcaf.engines.sqlite.connection import Settings
from dcaf.engines.sqlite.errors import build_error
from dcaf.engines.sqlite.worker import Worker
from dcaf.engines.sqlite.writer import Writer
from tests.engines.engine_processes import COUNTS, OTHERS, add, fork, open_counts, start, write_ten_times


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dcaf.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SqliteEngine]:
    engine = open_counts(path)
    yield engine
    engine.sync.close()


def count(engine: SqliteEngine, key: bytes = b"a", table: Table = COUNTS) -> int:
    row = engine.sync.transact(Transaction([Record(table, key)])).rows[0]
    return 0 if row is None else int(row["count"] or 0)


def count_in_file(path: Path, key: bytes = b"a", table: str = "counts") -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"SELECT count FROM {table} WHERE key = ?", (key,)).fetchone()
        return 0 if found is None else found[0]


# Forks


def test_processes_that_were_forked_after_the_engine_was_used_write_beside_it(engine: SqliteEngine) -> None:
    engine.sync.transact(add())

    def work() -> None:
        for _ in range(10):
            engine.sync.transact(add())
        asyncio.run(engine.transact(add()))
        engine.sync.close()

    for _ in range(3):
        fork(work)
        engine.sync.transact(add())
    assert count(engine) == 1 + 3 * 12


def test_a_fork_amid_writes_of_other_threads_harms_neither_side(engine: SqliteEngine) -> None:
    is_over = threading.Event()
    written: list[Outcome] = []

    def write() -> None:
        while not is_over.is_set():
            written.append(engine.sync.transact(add(b"parent")))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        fork(lambda: [engine.sync.transact(add(b"child")) for _ in range(5)])
    is_over.set()
    for thread in threads:
        thread.join()
    assert (count(engine, b"parent"), count(engine, b"child")) == (len(written), 25)


def test_a_fork_in_the_middle_of_a_transaction_waits_for_its_commit(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.sync.transact(add())
    held = hold_commits(monkeypatch)
    writing = threading.Thread(target=lambda: engine.sync.transact(add()))
    writing.start()
    held.reached.wait()
    letting_go = threading.Timer(0.3, held.over.set)
    letting_go.start()
    began = time.monotonic()
    fork(lambda: engine.sync.transact(add()))
    assert time.monotonic() - began >= 0.2
    for thread in (writing, letting_go):
        thread.join()
    assert count(engine) == 3


def test_workers_that_are_forked_from_one_that_has_loaded_the_engine_write_side_by_side(path: Path) -> None:
    """As ``gunicorn --preload`` with two workers does it: the parent has used the engine, and uses it again."""
    engine = open_counts(path)
    engine.sync.transact(add())
    go, let_go = os.pipe()

    def serve() -> None:
        os.close(let_go)
        os.read(go, 1)  # until both are there
        for _ in range(20):
            asyncio.run(engine.transact(add()))
        engine.sync.close()

    workers = [multiprocessing.get_context("fork").Process(target=serve) for _ in range(2)]
    for worker in workers:
        worker.start()
    os.close(go)
    os.close(let_go)
    for _ in range(5):
        engine.sync.transact(add())
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert count(engine) == 1 + 2 * 20 + 5
    engine.sync.close()


def test_processes_that_are_spawned_open_the_file_themselves(engine: SqliteEngine, path: Path) -> None:
    engine.sync.transact(add())
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_ten_times, args=(path,)) for _ in range(2)]
    for process in processes:
        process.start()
    engine.sync.transact(add())
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert count(engine) == 22


@pytest.mark.parametrize("program", ["end_with_calls_that_wait", "end_with_calls_that_cannot_begin"])
def test_a_process_ends_within_a_second_whatever_still_waits(program: str, path: Path) -> None:
    took_s = [measure_end(program, path) for _ in range(3)]
    print(took_s)
    assert min(took_s) < 1
    with contextlib.closing(open_counts(path).sync) as sync:  # and the file is in nobody's hands
        sync.transact(add())


def measure_end(program: str, path: Path) -> float:
    """Seconds from the end of a program to that of its process."""
    with start(program, path) as process:
        assert process.stdout
        assert process.stdout.readline() == "ends\n"
        began = time.monotonic()
        assert process.wait(30) == 0
        return time.monotonic() - began


def fork_a_writer_that_outlives_its_parent(path: Path) -> None:
    """A parent writes, forks and closes its engine; the child writes ten times and is killed."""
    parent = open_counts(path)
    parent.sync.transact(add())
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        parent.sync.transact(add())
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        for _ in range(10):
            parent.sync.transact(add())
        os.kill(os.getpid(), signal.SIGKILL)
    os.read(ready[0], 1)
    parent.sync.close()
    os.write(go[1], b"1")
    os.waitpid(pid, 0)


def test_what_a_forked_process_was_acknowledged_outlives_both(path: Path) -> None:
    fork_a_writer_that_outlives_its_parent(path)
    assert count_in_file(path) == 12


def test_control_connections_that_stay_open_over_a_fork_lose_acknowledged_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphans: list[Any] = []

    def begin_anew(calls: Any) -> None:  # the child opens new connections, and keeps those of its parent from being closed
        orphans.append((calls._reader, calls._writer, calls.writing))
        calls._begin_anew()

    monkeypatch.setattr(engine_module._Calls, "before_fork", lambda calls: None)
    monkeypatch.setattr(engine_module._Calls, "after_fork_in_child", begin_anew)
    fork_a_writer_that_outlives_its_parent(path)
    assert count_in_file(path) < 12


def test_a_fork_of_which_python_was_not_told_is_refused_in_words(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.sync.transact(add())
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(EngineError, match="lazy-apps"):
            engine.sync.transact(add())
    engine.sync.transact(add())


# Event loops, and calls that nobody waits for


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_a_loop_that_is_closed_under_a_commit_takes_nothing_with_it(
    run: Callable[..., Any], engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = hold_commits(monkeypatch)

    async def leave() -> None:
        if run is asyncio.run:
            task = asyncio.ensure_future(engine.transact(add()))
            await asyncio.to_thread(begun.reached.wait)
            task.cancel()
        else:
            with trio.move_on_after(0.2):
                await engine.transact(add())

    run(leave) if run is trio.run else run(leave())
    begun.over.set()
    assert count(engine) in {0, 1}
    engine.sync.transact(add(b"b"))
    assert count(engine) == 1
    assert run(engine.transact, add(b"b")).applied if run is trio.run else run(engine.transact(add(b"b"))).applied


class Held:
    """Commits that wait until the test lets them go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()


def hold_commits(patch: pytest.MonkeyPatch) -> Held:
    held = Held()
    whole = Writer._commit

    def commit(writer: Writer, *, is_durable: bool) -> None:
        held.reached.set()
        held.over.wait()
        whole(writer, is_durable=is_durable)

    patch.setattr(Writer, "_commit", commit)
    return held


def test_a_call_that_was_cancelled_before_it_began_is_skipped_and_one_that_has_begun_is_finished(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_commits(monkeypatch)

    async def run() -> None:
        begun = asyncio.ensure_future(engine.transact(add(b"begun")))
        await asyncio.to_thread(held.reached.wait)
        waiting = asyncio.ensure_future(engine.transact(add(b"waiting")))
        await asyncio.sleep(0.01)
        for task in (begun, waiting):
            task.cancel()
        await asyncio.wait([begun, waiting])
        held.over.set()
        await engine.transact(add(b"last"))

    asyncio.run(run())
    assert [count(engine, key) for key in (b"begun", b"waiting", b"last")] == [1, 0, 1]


def test_control_without_taking_back_a_cancelled_call_is_done_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_give_up", lambda worker, job: False)
    with contextlib.closing(open_counts(path).sync) as sync, pytest.raises(AssertionError):
        engine = open_counts(path)
        try:
            test_a_call_that_was_cancelled_before_it_began_is_skipped_and_one_that_has_begun_is_finished(engine, monkeypatch)
        finally:
            engine.sync.close()
            sync.check()


def test_whoever_waits_too_long_is_told_whether_it_may_have_been_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold_commits(monkeypatch)
    engine = SqliteEngine(path, timeout=timedelta(seconds=0.1))
    engine.declare([COUNTS])

    async def run() -> list[Any]:
        first = asyncio.ensure_future(engine.transact(add()))
        await asyncio.to_thread(held.reached.wait)
        return list(await asyncio.gather(first, engine.transact(add()), return_exceptions=True))

    first, second = asyncio.run(run())
    assert isinstance(first, CommitUnknownError)
    assert type(second) is EngineError
    with pytest.raises(EngineError, match="busy for"):
        engine.sync.transact(add())
    with pytest.raises(EngineError):
        trio.run(engine.transact, add())
    held.over.set()
    time.sleep(0.1)
    assert count(engine) == 1
    engine.sync.close()


def test_what_waits_together_is_one_commit(engine: SqliteEngine) -> None:
    async def run() -> None:
        for _ in range(5):
            await asyncio.gather(*(engine.transact(add(b"%d" % number)) for number in range(64)))

    asyncio.run(run())
    assert 5 <= engine._calls.writing.commits <= 5 * 20
    assert sum(count(engine, b"%d" % number) for number in range(64)) == 5 * 64


def test_one_that_fails_does_not_take_the_others_of_its_commit_with_it(engine: SqliteEngine) -> None:
    def full(key: bytes) -> Transaction:
        record = Record(COUNTS, key)
        return Transaction([record], writes=[Put(record, {"count": 2**63 - 1})])

    engine.sync.transact(full(b"full"))

    async def run() -> list[Any]:
        calls = [add(b"a"), add(b"full"), add(b"b"), add(b"full"), add(b"c")]
        return await asyncio.gather(*(engine.transact(call) for call in calls), return_exceptions=True)

    assert [isinstance(found, Outcome) for found in asyncio.run(run())] == [True, False, True, False, True]
    assert [count(engine, key) for key in (b"a", b"b", b"c")] == [1, 1, 1]


def test_a_clock_that_raises_fails_its_calls_and_nothing_else(path: Path) -> None:
    is_broken = False

    def clock() -> float:
        if is_broken:
            raise ZeroDivisionError
        return 1_000.0

    engine = SqliteEngine(path, clock=clock)
    engine.declare([COUNTS])
    engine.sync.transact(add())
    is_broken = True
    for _ in range(2):
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            engine.sync.transact(add())
    is_broken = False
    assert engine.sync.transact(add()).now_ms == 1_000_000
    assert count(engine) == 2
    engine.sync.close()


# Several processes


def kill_writers(path: Path, program: str, times: int) -> Iterator[tuple[int, int]]:
    """Kill a program that writes, again and again: the last number that it said, and what the file has then."""
    known = 0
    for attempt in range(times):
        process = start(program, path)
        assert process.stdout
        assert process.stdin
        first = process.stdout.readline()
        time.sleep(random.Random(attempt).random() * 0.2)
        process.kill()
        numbers = [first, *process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        process.stdin.close()
        known = max([known, *map(int, numbers)])
        yield known, count_in_file(path)


def test_no_acknowledged_write_is_lost_when_the_process_is_killed(path: Path, scale: float) -> None:
    for said, written in kill_writers(path, "write_until_killed", max(3, round(100 * scale))):
        assert said <= written


def test_control_what_is_said_before_it_is_written_is_lost(path: Path) -> None:
    assert any(said > written for said, written in kill_writers(path, "say_before_writing", 8))


def test_tables_are_made_by_eight_processes_at_once(path: Path) -> None:
    processes = [start("make_tables", path) for _ in range(8)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in processes] == [0] * 8
    assert [count_in_file(path, table=table.name) for table in (COUNTS, *OTHERS)] == [8] * 5


@pytest.mark.parametrize("program", ["hold_lock", "hold_database"])
def test_another_program_that_holds_the_database_is_told_of_in_time(program: str, path: Path) -> None:
    engine = SqliteEngine(path, timeout=timedelta(seconds=0.3))
    engine.declare([COUNTS])
    engine.sync.transact(add())
    process = start(program, path)
    assert process.stdout
    process.stdout.readline()
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"hands of another program|another program holds|busy"):
        engine.sync.transact(add())
    assert time.monotonic() - began < 2
    assert count(engine) == 1  # whoever reads does not wait
    process.communicate("go\n", timeout=20)
    time.sleep(0.1)
    engine.sync.transact(add())
    assert count(engine) == 2
    engine.sync.close()


def test_without_a_lock_of_the_kernel_a_retry_stands_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.engines.sqlite.file.HAS_FLOCK", False)
    engines = [SqliteEngine(path) for _ in range(4)]
    for engine in engines:
        engine._calls._settings = Settings(path, time.time, 5.0, "acknowledged", has_lock=False)
        engine._calls._begin_anew()
        engine.declare([COUNTS])
    threads = [
        threading.Thread(target=lambda engine=engine: [engine.sync.transact(add()) for _ in range(20)]) for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(engines[0]) == 80
    assert engines[0].sync.check().details["lock"] == "none"
    assert not path.with_name("dcaf.db-lock").exists()
    for engine in engines:
        engine.sync.close()


# The disk


def test_a_full_disk_in_a_commit_writes_nothing_and_is_over_when_there_is_room(engine: SqliteEngine, path: Path) -> None:
    engine.sync.transact(add())
    record, other = Record(OTHERS[0], b"the key"), Record(COUNTS, b"a")
    large = Transaction([record, other], writes=[Put(other, {"count": 7}), Put(record, {"data": b"the value" * 500_000})])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("dcaf.db-wal").stat().st_size + 1_000_000, limit[1]))
        with pytest.raises(EngineError) as found:
            engine.sync.transact(large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "disk" in str(found.value)
    assert not any(part in str(found.value) for part in ("the key", "the value", "INSERT", "others"))
    assert (count(engine), count_in_file(path)) == (1, 1)
    assert engine.sync.transact(large).applied
    assert count(engine) == 7


def test_a_database_that_may_not_grow_says_that_the_disk_is_full(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.sync.transact(add())
    whole = Writer._begin

    def begin(writer: Writer) -> None:
        writer.database.execute("PRAGMA max_page_count = 20")
        whole(writer)

    record = Record(OTHERS[0], b"a")
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_begin", begin)
        with pytest.raises(EngineError, match=r"disk is full \(SQLITE_FULL\)"):
            engine.sync.transact(Transaction([record], writes=[Put(record, {"data": bytes(1_000_000)})]))
    engine.sync.transact(Transaction([record], writes=[Put(record, {"data": bytes(1_000_000)})]))


def test_an_error_while_the_log_is_made_safe_is_no_no(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"

    class Broken:
        def __init__(self, whole: sqlite3.Connection) -> None:
            self._whole = whole

        def execute(self, statement: str) -> Any:
            if statement == "COMMIT":
                raise error
            return self._whole.execute(statement)

    engine.sync.transact(add())
    whole = Writer._commit

    def commit(writer: Writer, *, is_durable: bool) -> None:
        opened = writer._open
        writer._open = Broken(writer.database)  # type: ignore[assignment]
        try:
            whole(writer, is_durable=is_durable)
        finally:
            writer._open = opened

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_commit", commit)
        with pytest.raises(CommitUnknownError, match="nobody can tell"):
            engine.sync.transact(add())
    assert count(engine) == 1
    engine.sync.transact(add())


def test_a_database_that_was_removed_is_told_once(engine: SqliteEngine, path: Path) -> None:
    engine.sync.transact(add())
    path.unlink()
    with pytest.raises(EngineError, match="removed or replaced"):
        engine.sync.transact(add())
    assert count(engine) == 0
    engine.sync.transact(add())
    assert (count(engine), count_in_file(path)) == (1, 1)


def test_a_file_that_became_read_only_is_told(path: Path) -> None:
    engine = open_counts(path)
    engine.sync.transact(add())
    engine.sync.close()
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may write it all the same
        with (
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
            pytest.raises(sqlite3.Error) as found,
        ):
            connection.execute("DELETE FROM counts")
        assert "cannot be written" in str(build_error(found.value))
    else:
        with pytest.raises(ConfigurationError, match="cannot be read and written"):
            SqliteEngine(path)


def test_a_write_that_changes_nothing_leaves_the_file_as_it_is(engine: SqliteEngine, path: Path) -> None:
    record = Record(COUNTS, b"a")
    same = Transaction([record], writes=[Put(record, {"count": 5, "holder": b"ada"})])
    engine.sync.transact(same)
    log = path.with_name("dcaf.db-wal")
    before = (log.stat().st_size, path.stat().st_mtime_ns, engine._calls.writing.commits)
    for _ in range(5):
        assert engine.sync.transact(same).applied
    assert (log.stat().st_size, path.stat().st_mtime_ns, engine._calls.writing.commits) == before
    engine.sync.transact(add())
    assert log.stat().st_size > before[0]


def test_expired_rows_are_dropped_in_passing(engine: SqliteEngine, path: Path) -> None:
    keys = [b"%03d" % number for number in range(60)]
    for key in keys:
        record = Record(COUNTS, key)
        engine.sync.transact(Transaction([record], writes=[Put(record, {"expires": 1})]))
    engine.sync.transact(add(b"000"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        left = connection.execute("SELECT count(*) FROM counts").fetchone()[0]
    assert 60 - 2 * writing.NEIGHBOURS <= left < 60
    engine.sync.purge(COUNTS)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM counts").fetchone()[0] == 1


def test_a_commit_waits_for_the_disk_unless_nothing_of_it_must(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = Writer._commit

    def commit(writer: Writer, *, is_durable: bool) -> None:
        seen.append(writer.get_pragma("synchronous"))
        whole(writer, is_durable=is_durable)

    monkeypatch.setattr(Writer, "_commit", commit)
    for durability in ("acknowledged", "relaxed"):
        engine = SqliteEngine(path, durability=durability)
        engine.declare([COUNTS])
        for is_durable in (True, False, True):
            engine.sync.transact(add(durable=is_durable))
        engine.sync.close()
    assert seen == [2, 1, 2, 1, 1, 1]


def test_what_is_found_as_it_should_be_is_made_safe_too(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(writing, "sync", synced.append)
    record = Record(COUNTS, b"a")
    writes = [Put(record, {"count": 5})]
    engine.sync.transact(Transaction([record], writes=writes, durable=False))
    assert synced == []
    engine.sync.transact(Transaction([record], writes=writes, durable=True))
    assert [found.name for found in synced] == ["dcaf.db-wal"]
