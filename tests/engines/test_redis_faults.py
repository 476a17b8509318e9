"""What may happen to a Redis engine, and what then holds: forks, closed loops, cancelled calls, servers that hang or go away."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import anyio
import pytest
import redis.connection
import trio

from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines import Now, Outcome, Plus, Put, Record, RedisEngine, Table, Transaction
from dcaf.engines.redis import engine as engine_module
from dcaf.engines.redis import lua as redis_lua
from dcaf.engines.redis.loops import Lane, Loop
from tests.engines.engine_processes import COUNTS, OTHERS, add, fork
from tests.engines.redis_servers import DURABLE, RedisServer, change_scripts, share_server

SHORT = timedelta(seconds=0.3)
READ = Transaction([Record(COUNTS, b"a")])


@pytest.fixture(scope="module")
def server() -> RedisServer:
    return share_server()


@pytest.fixture
def engine(server: RedisServer) -> Iterator[RedisEngine]:
    engine = open_counts(server.url)
    yield engine
    engine.sync.close()


def open_counts(url: str, **settings: Any) -> RedisEngine:
    engine = RedisEngine(url, **{"prefix": f"test-{uuid4().hex[:16]}", **settings})
    engine.declare([COUNTS, *OTHERS])
    return engine


def count(engine: RedisEngine, key: bytes = b"a", table: Table = COUNTS) -> int:
    row = engine.sync.transact(Transaction([Record(table, key)])).rows[0]
    return 0 if row is None else int(row["count"] or 0)


def list_clients(server: RedisServer) -> set[str]:
    """The ids of the connections that have run a script."""
    with server.client() as client:
        return {found["id"] for found in client.client_list() if found["cmd"] in {"evalsha", "eval"}}


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """A server that hangs: its machine takes what is sent, and nothing comes back."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


# Scripts


def write_beside_something_else(engine: RedisEngine, server: RedisServer) -> None:
    """A transaction fails in Redis, since a key of its index is something else; nothing of it was written."""
    prefix = engine._calls._settings.prefix
    with server.client() as client:
        client.set(f"{prefix}:{{0}}:counts=keys", "of somebody else")
        records = [Record(OTHERS[0], b"the first"), Record(COUNTS, b"the second")]
        writes = [Put(record, {"count": 1}) for record in records]
        with pytest.raises(EngineError) as found:
            engine.sync.transact(Transaction(records, writes=writes))
        assert not any(client.exists(f"{prefix}:{{0}}:{record.table.name}:{record.key.decode()}") for record in records)
    assert type(found.value) is EngineError
    assert "WRONGTYPE" in str(found.value)
    assert "the first" not in str(found.value)


def test_a_script_that_fails_keeps_nothing(engine: RedisEngine, server: RedisServer) -> None:
    write_beside_something_else(engine, server)
    engine.sync.transact(add(table=OTHERS[0]))


def look_last(text: str) -> str:
    """The script that writes rows before it has looked at their sorted sets."""
    lines = text.splitlines()
    looking, entering = ([line for line in lines if word in line] for word in ("ZCARD", "'ZADD'"))
    left = [line for line in lines if line not in {*looking, *entering}]
    return "\n".join([*left[:-1], *entering, left[-1]])


def test_control_a_script_that_writes_before_it_has_looked_keeps_a_half(
    engine: RedisEngine, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_scripts(monkeypatch, look_last)
    with pytest.raises(AssertionError):
        write_beside_something_else(engine, server)


def write_much(engine: RedisEngine) -> None:
    """8,001 rows in one transaction, and 8,001 columns in one row."""
    records = [Record(COUNTS, b"%d" % number) for number in range(8_001)]
    writes = [Put(record, {"count": Plus(at), "holder": b"ada"}) for at, record in enumerate(records)]
    assert engine.sync.transact(Transaction(records, writes=writes)).applied
    rows = engine.sync.transact(Transaction(records)).rows
    assert [row and row["count"] for row in rows] == list(range(8_001))
    assert len(engine.sync.scan(COUNTS, equal=b"ada", limit=9_000)) == 8_001
    wide = Table("wide", {f"column_{number}": int for number in range(8_001)})
    engine.declare([wide])
    record = Record(wide, b"a")
    engine.sync.transact(Transaction([record], writes=[Put(record, dict.fromkeys(wide.columns, 7))]))
    assert engine.sync.transact(Transaction([record])).rows == (dict.fromkeys(wide.columns, 7),)


def test_a_transaction_may_be_larger_than_the_stack_of_lua(server: RedisServer) -> None:
    engine = open_counts(server.url, timeout=timedelta(seconds=20))
    write_much(engine)
    engine.sync.close()


def test_control_all_at_once_is_more_than_the_stack_of_lua_takes(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    change_scripts(monkeypatch, lambda text: text.replace("at + 999", "#items"))
    engine = open_counts(server.url, timeout=timedelta(seconds=20))
    with pytest.raises(EngineError):
        write_much(engine)
    engine.sync.close()


def test_a_server_that_has_forgotten_the_scripts_gets_them_again(engine: RedisEngine, server: RedisServer) -> None:
    engine.sync.transact(add())
    with server.client() as client:
        client.script_flush()
        engine.sync.transact(add())
        client.script_flush()

    async def run() -> None:
        await asyncio.gather(*(engine.transact(add()) for _ in range(5)))

    asyncio.run(run())
    assert count(engine) == 7


def test_now_is_the_clock_of_the_server_whatever_the_client_thinks(
    engine: RedisEngine, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = time.time
    monkeypatch.setattr(time, "time", lambda: whole() + 45)
    record = Record(COUNTS, b"a")
    outcome = engine.sync.transact(Transaction([record], writes=[Put(record, {"expires": Now(10_000)})]))
    with server.client() as client:
        seconds, micros = client.time()
    assert abs(seconds * 1000 + micros // 1000 - outcome.now_ms) < 2_000
    assert abs(time.time() * 1000 - outcome.now_ms) > 40_000
    assert engine.sync.transact(Transaction([record])).rows[0] is not None


# Forks and processes


def use_after_a_fork(engine: RedisEngine, server: RedisServer) -> None:
    """A child has connections of its own, with await and without, and its parent keeps its own."""
    engine.sync.transact(add())
    before = list_clients(server)
    assert len(before) == 1

    def work() -> None:
        engine.sync.transact(add())
        assert len(list_clients(server)) == 2
        asyncio.run(engine.transact(add()))
        engine.sync.close()

    fork(work)
    engine.sync.transact(add())
    assert list_clients(server) == before


def test_a_process_that_was_forked_opens_its_own_connections(server: RedisServer) -> None:
    with_server_of_its_own(use_after_a_fork)


def with_server_of_its_own(test: Callable[[RedisEngine, RedisServer], None]) -> None:
    server = RedisServer(*DURABLE)
    engine = open_counts(server.url)
    try:
        test(engine, server)
    finally:
        engine.sync.close()
        server.stop()


def test_control_a_child_that_keeps_the_connections_of_its_parent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module._Calls, "begin_anew_in_child", lambda calls: setattr(calls, "_pid", os.getpid()))
    monkeypatch.setattr(redis.connection.ConnectionPool, "_checkpid", lambda pool: None)
    with pytest.raises(AssertionError):
        with_server_of_its_own(use_after_a_fork)


def test_a_fork_inside_an_event_loop_leaves_the_connection_of_the_loop_alone(engine: RedisEngine) -> None:
    async def run() -> None:
        await engine.transact(add())
        for _ in range(3):
            fork(lambda: [engine.sync.transact(add()) for _ in range(3)])
            await engine.transact(add())

    asyncio.run(run())
    assert count(engine) == 1 + 3 * 4


def test_a_fork_amid_writes_of_other_threads_harms_neither_side(engine: RedisEngine) -> None:
    is_over = threading.Event()
    written: list[Outcome] = []

    def write() -> None:
        while not is_over.is_set():
            written.append(engine.sync.transact(add(b"parent")))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        fork(lambda: [engine.sync.transact(add(b"child")) for _ in range(5)])
    is_over.set()
    for thread in threads:
        thread.join()
    assert (count(engine, b"parent"), count(engine, b"child")) == (len(written), 15)


def test_eight_processes_that_begin_at_once_count_together(server: RedisServer) -> None:
    with server.client() as client:
        client.script_flush()
    prefix = f"test-{uuid4().hex[:16]}"
    go, let_go = os.pipe()
    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            count_in_child(server, prefix, go, let_go)
        children.append(pid)
    for one in (go, let_go):
        os.close(one)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
    engine = open_counts(server.url, prefix=prefix)
    assert [count(engine, table=table) for table in (COUNTS, *OTHERS)] == [8 * 5] * 5
    assert [key for key, _ in engine.sync.scan(COUNTS)] == [b"a"]
    engine.sync.close()


def count_in_child(server: RedisServer, prefix: str, go: int, let_go: int) -> None:
    code = 1
    try:
        os.close(let_go)
        os.read(go, 1)  # until all are there
        engine = open_counts(server.url, prefix=prefix, timeout=timedelta(seconds=10))
        for table in (COUNTS, *OTHERS):
            for _ in range(5):
                engine.sync.transact(add(table=table))
        code = 0
    finally:
        os._exit(code)


# Event loops, and calls that nobody waits for


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_a_loop_that_is_closed_under_a_call_takes_nothing_with_it(run: Any, engine: RedisEngine, server: RedisServer) -> None:
    thawing = threading.Timer(0.3, server.thaw)

    async def leave() -> None:
        await engine.transact(add(b"b"))
        server.freeze()
        thawing.start()
        with anyio.move_on_after(0.05):
            await engine.transact(add())

    run(leave) if run is trio.run else run(leave())
    thawing.join()
    assert count(engine) in {0, 1}
    assert run(engine.transact, add(b"b")).applied if run is trio.run else run(engine.transact(add(b"b"))).applied
    assert count(engine, b"b") == 2


def test_a_loop_that_is_closed_without_a_word_is_forgotten(engine: RedisEngine) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.transact(add()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asyncio and the client library say that it should have been told
        loop.close()
        asyncio.run(engine.transact(add()))
        assert list(engine._calls._loops) != [loop]
        gc.collect()
    assert count(engine) == 2


def cancel_one_that_was_sent_and_one_that_was_not(engine: RedisEngine, server: RedisServer) -> None:
    async def run() -> None:
        await engine.transact(add(b"before"))
        clients = list_clients(server)
        with frozen(server):
            sent = asyncio.ensure_future(engine.transact(add(b"sent")))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(engine.transact(add(b"waiting")))
            await asyncio.sleep(0.05)
            for task in (sent, waiting):
                task.cancel()
            await asyncio.wait([sent, waiting])
        assert (await engine.transact(add(b"after"))).rows == (None,)  # and no answer of another
        assert list_clients(server) == clients

    with_server_clean(server)
    asyncio.run(run())
    assert [count(engine, key) for key in (b"before", b"sent", b"waiting", b"after")] == [1, 1, 0, 1]


def with_server_clean(server: RedisServer) -> None:
    """End the connections that earlier tests have left."""
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def test_a_call_that_was_cancelled_after_it_was_sent_is_finished_and_one_that_was_not_is_never_sent(
    engine: RedisEngine, server: RedisServer
) -> None:
    cancel_one_that_was_sent_and_one_that_was_not(engine, server)


def test_control_without_taking_back_a_cancelled_call_is_done_later(
    engine: RedisEngine, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Lane._exchange

    async def exchange(lane: Lane, calls: Any, **settings: Any) -> None:
        await whole(lane, lane._begun or calls, **settings)

    monkeypatch.setattr(Lane, "_exchange", exchange)
    with pytest.raises(AssertionError):
        cancel_one_that_was_sent_and_one_that_was_not(engine, server)


def test_a_call_of_trio_that_was_cancelled_gives_its_connection_back(server: RedisServer) -> None:
    engine = open_counts(server.url, most_connections=1)

    async def run() -> None:
        await engine.transact(add())
        with frozen(server):
            with trio.move_on_after(0.05):
                await engine.transact(add())
            threading.Timer(0.1, server.thaw).start()
            assert (await engine.transact(add(b"b"))).applied
            await trio.sleep(0.2)

    trio.run(run)
    assert count(engine) == 2
    engine.sync.close()


def test_an_engine_that_is_closed_finishes_what_was_begun(server: RedisServer) -> None:
    engine = open_counts(server.url)

    async def run() -> None:
        await engine.transact(add())
        calls = [asyncio.ensure_future(engine.transact(add())) for _ in range(5)]
        await asyncio.sleep(0)
        await engine.aclose()
        assert all(outcome.applied for outcome in await asyncio.gather(*calls))
        with pytest.raises(EngineError, match="closed"):
            await engine.transact(add())

    asyncio.run(run())


# Servers that hang, and connections that die


def call_in(kind: str, engine: RedisEngine, transaction: Transaction) -> Any:
    """Do a transaction, or return what it raises."""

    async def run() -> Any:
        try:
            return await engine.transact(transaction)
        except EngineError as error:
            return error

    if kind == "trio":
        return trio.run(run)
    if kind == "asyncio":
        return asyncio.run(run())
    try:
        return engine.sync.transact(transaction)
    except EngineError as error:
        return error


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
def test_a_server_that_hangs_is_told_in_time_and_whether_it_may_have_written(kind: str, server: RedisServer) -> None:
    engine = open_counts(server.url, timeout=SHORT)
    with frozen(server):
        began = time.monotonic()
        found = call_in(kind, engine, add())
        assert time.monotonic() - began < 2.5 * SHORT.total_seconds()
        assert type(found) is EngineError  # no connection could be made
    engine.sync.transact(READ)  # a connection is there now

    async def run() -> list[Any]:
        if kind != "sync":
            await engine.transact(READ)
        server.freeze()
        began = time.monotonic()
        found = [await attempt(kind, engine, transaction) for transaction in (add(), READ)]
        assert time.monotonic() - began < 5 * SHORT.total_seconds()
        return found

    try:
        wrote, read = trio.run(run) if kind == "trio" else asyncio.run(run())
    finally:
        server.thaw()
    assert isinstance(wrote, CommitUnknownError)
    assert type(read) is EngineError
    assert count(engine) in {0, 1}
    engine.sync.close()


async def attempt(kind: str, engine: RedisEngine, transaction: Transaction) -> Any:
    try:
        return engine.sync.transact(transaction) if kind == "sync" else await engine.transact(transaction)
    except EngineError as error:
        return error


def test_what_waits_behind_a_call_that_hangs_was_not_written(server: RedisServer) -> None:
    engine = open_counts(server.url, timeout=SHORT)

    async def run() -> list[Any]:
        await engine.transact(READ)
        with frozen(server):
            first = asyncio.ensure_future(engine.transact(add()))
            await asyncio.sleep(0.1)
            calls = [first, *(asyncio.ensure_future(engine.transact(add(b"later"))) for _ in range(3))]
            await asyncio.wait([first])
            # The others are tried on a connection of their own, which cannot be made either.
            return list(await asyncio.gather(*calls, return_exceptions=True))

    first, *others = asyncio.run(run())
    assert isinstance(first, CommitUnknownError)
    assert [type(other) for other in others] == [EngineError] * 3
    assert count(engine, b"later") == 0
    engine.sync.close()


def test_a_process_whose_connections_are_all_in_use_says_so(server: RedisServer) -> None:
    engine = open_counts(server.url, timeout=SHORT, most_connections=1)
    engine.sync.transact(READ)
    with frozen(server), ThreadPoolExecutor(2) as threads:
        first = threads.submit(call_in, "sync", engine, add())
        time.sleep(0.05)
        second = threads.submit(call_in, "sync", engine, add(b"b"))
        assert isinstance(first.result(), CommitUnknownError)
        found = second.result()
    assert type(found) is EngineError
    assert "Nothing was written" in str(found)
    assert count(engine, b"b") == 0
    engine.sync.close()


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
def test_a_connection_that_is_killed_in_the_middle_of_a_call(kind: str, server: RedisServer) -> None:
    engine = open_counts(server.url, timeout=timedelta(seconds=5))

    async def run() -> list[Any]:
        await attempt(kind, engine, READ)
        found = []
        for transaction in (add(), READ):
            with server.client() as client:
                client.client_pause(5_000, all=False)  # scripts may write
                killing = threading.Timer(0.1, kill_clients, [server])
                killing.start()
                found.append(await attempt(kind, engine, transaction))
                killing.join()
                client.client_unpause()
            assert (await attempt(kind, engine, READ)).applied
        return found

    wrote, read = trio.run(run) if kind == "trio" else asyncio.run(run())
    assert isinstance(wrote, CommitUnknownError)
    assert type(read) is EngineError
    engine.sync.close()


def kill_clients(server: RedisServer) -> None:
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
def test_a_connection_that_has_died_while_nobody_used_it_is_nobodys_harm(
    kind: str, engine: RedisEngine, server: RedisServer
) -> None:
    async def run() -> None:
        for _ in range(3):
            assert (await attempt(kind, engine, add())).applied
            kill_clients(server)
            await anyio.sleep(0.02)

    anyio.run(run, backend="trio" if kind == "trio" else "asyncio")
    assert count(engine) == 3


def test_a_server_that_went_away_and_came_back_is_used_again() -> None:
    server = RedisServer(*DURABLE)
    engine = open_counts(server.url, timeout=SHORT)
    try:
        asyncio.run(go_away_and_come_back(engine, server))
        assert count(engine) == 2
    finally:
        engine.sync.close()
        server.stop()


async def go_away_and_come_back(engine: RedisEngine, server: RedisServer) -> None:
    await engine.transact(add())
    server.kill()
    await asyncio.sleep(0.01)  # the loop hears of it
    for call in (lambda: engine.transact(add()), lambda: engine.scan(COUNTS), lambda: engine.purge(COUNTS), engine.check):
        with pytest.raises(EngineError) as found:
            await call()
        assert type(found.value) is EngineError
        assert str(server.port) not in str(found.value)
    server.start()
    assert (await engine.transact(add())).applied
    assert (await engine.check()).durability == "acknowledged"


def test_loops_in_several_threads_have_connections_of_their_own(engine: RedisEngine) -> None:
    def work(_: int) -> None:
        async def run() -> None:
            await asyncio.gather(*(engine.transact(add()) for _ in range(20)))

        asyncio.run(run())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(8)))
    assert count(engine) == 8 * 20
    assert isinstance(next(iter(engine._calls._loops.values()), None), Loop | None)


def test_scripts_are_what_their_names_say() -> None:
    scripts = (redis_lua.TRANSACTING, redis_lua.FINDING, redis_lua.SWEEPING)
    assert [script.text.decode() for script in scripts] == [redis_lua.TRANSACT, redis_lua.FIND, redis_lua.SWEEP]
