"""What may happen to a PostgreSQL engine: servers and connections that end, forks, event loops, cancelled calls, full pools."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
import trio

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError
from dcaf.engines import Delete, Now, Put, Record, Table, Transaction
from dcaf.engines.postgres import functions as postgres_functions
from dcaf.engines.postgres import loops as postgres_loops
from dcaf.engines.postgres.connections import Pool, _Connection
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.engines.postgres.functions import Names
from tests.engines.engine_processes import fork
from tests.engines.postgres_processes import COUNTS, OTHERS, add, count, make_tables, open_counts, run_together, start
from tests.engines.postgres_servers import Server, execute, find_programs, get_server, wait_until
from tests.engines.postgres_wire import WireProxy

SHORT = timedelta(seconds=0.6)
ENGINES_OWN = "application_name = 'dcaf' AND datname = current_database()"


@pytest.fixture
def server() -> Server:
    return get_server()


@pytest.fixture
def url(server: Server) -> str:
    return server.make_database()


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    found = open_counts(url)
    yield found
    found.sync.close()


@contextmanager
def holding(engine: PostgresEngine, url: str, key: bytes = b"a") -> Iterator[None]:
    """Be another transaction that holds a row's lock."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [engine._calls.names.lock(Record(COUNTS, key))])
        yield


def count_waiting(url: str) -> int:
    """How many statements of engines wait for a lock."""
    return int(execute(url, f"SELECT count(*) FROM pg_stat_activity WHERE {ENGINES_OWN} AND wait_event_type = 'Lock'")[0][0])


def count_locks(url: str) -> int:
    mine = "SELECT oid FROM pg_database WHERE datname = current_database()"
    return int(execute(url, f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = ({mine})")[0][0])


def find_pool(engine: PostgresEngine) -> Pool:
    """The connections of the thread that serves calls without ``await``."""
    thread = engine._calls._background
    assert thread
    return engine._calls._homes[thread.loop].pool


# Processes


def test_tables_are_made_by_eight_processes_at_once(url: str) -> None:
    assert run_together(lambda: make_tables(url), 8) == [0] * 8
    engine = open_counts(url)
    assert [count(engine, table=table) for table in (COUNTS, *OTHERS)] == [8] * 5
    engine.sync.close()


def test_control_without_the_lock_some_of_them_fail(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Names.number

    def number(names: Names, *parts: bytes) -> int:
        return random.SystemRandom().getrandbits(62) if parts == (b"making",) else whole(names, *parts)

    monkeypatch.setattr(Names, "number", number)
    for _ in range(10):
        url = server.make_database()
        if any(run_together(lambda: make_tables(url), 8)):  # noqa: B023 - it ends before the next round
            return
    raise AssertionError("All have made their tables.")


def test_a_process_that_is_forked_opens_connections_of_its_own(engine: PostgresEngine) -> None:
    engine.sync.transact(add())
    asyncio.run(engine.transact(add()))

    def work() -> None:
        assert count(engine) == 2
        asyncio.run(engine.transact(add()))
        engine.sync.transact(add())
        engine.sync.close()

    fork(work)
    fork(lambda: count(engine))  # and one that ends without closing anything
    engine.sync.transact(add())
    asyncio.run(engine.transact(add()))
    assert count(engine) == 6


def test_control_a_forked_process_that_takes_itself_for_its_parent_is_answered_by_nobody(engine: PostgresEngine) -> None:
    engine.sync.transact(add())

    def work() -> None:
        engine._calls._pid = os.getpid()
        ended = threading.Event()

        def ask() -> None:
            count(engine)
            ended.set()

        threading.Thread(target=ask, daemon=True).start()
        assert ended.wait(2)

    with pytest.raises(AssertionError):
        fork(work)
    assert count(engine) == 1


# Event loops, and calls that nobody waits for


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_a_loop_that_is_closed_under_a_call_takes_nothing_with_it(run: Callable[..., Any], url: str) -> None:
    engine = open_counts(url)
    engine.sync.transact(add())

    async def leave() -> None:
        if run is asyncio.run:
            task = asyncio.ensure_future(engine.transact(add()))
            await asyncio.to_thread(wait_until, lambda: count_waiting(url) == 1, "It does not wait")
            del task
        else:
            with trio.move_on_after(0.3):
                await engine.transact(add())

    with holding(engine, url):
        run(leave) if run is trio.run else run(leave())
    engine.sync.transact(add(b"b"))
    assert count(engine) in {1, 2}
    for _ in range(2):
        assert run(engine.transact, add(b"b")).applied if run is trio.run else run(engine.transact(add(b"b"))).applied
    engine.sync.close()
    wait_until(lambda: count_locks(url) == 0, "A lock is left")


def test_connections_of_loops_that_were_closed_are_closed_too(engine: PostgresEngine, url: str) -> None:
    for _ in range(8):
        asyncio.run(engine.transact(add()))
    wait_until(lambda: count_sessions(url) <= 3, "Connections are left")
    assert count(engine) == 8


def count_sessions(url: str) -> int:
    return int(execute(url, f"SELECT count(*) FROM pg_stat_activity WHERE {ENGINES_OWN}")[0][0])


async def cancel_in_mid_air(engine: PostgresEngine, url: str) -> None:
    """Cancel two calls, each at a time, that wait for a lock; then let the lock go."""
    for number in range(2):
        with holding(engine, url):
            task = asyncio.ensure_future(engine.transact(add()))
            await asyncio.to_thread(wait_until, lambda: count_waiting(url) == 1, "It does not wait")
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(wait_until, lambda: count_waiting(url) == 0, "It still waits")
        await engine.transact(add(b"other"))
        assert count(engine, b"other") == number + 1
    await engine.aclose()


def test_a_call_that_is_cancelled_in_mid_air_leaves_no_connection_in_use_and_no_lock_held(url: str) -> None:
    engine = open_counts(url, pool_size=1)
    asyncio.run(cancel_in_mid_air(engine, url))
    wait_until(lambda: count_locks(url) == 0 and count_sessions(url) == 0, "A lock or a session is left")


def test_control_where_connections_are_not_given_back_the_next_call_has_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Pool.give_back
    monkeypatch.setattr(
        Pool, "give_back", lambda pool, connection: asyncio.sleep(0) if connection.is_committing else whole(pool, connection)
    )
    engine = open_counts(url, pool_size=1, timeout=timedelta(seconds=2))
    with pytest.raises(EngineError, match="connections were in use"):
        asyncio.run(cancel_in_mid_air(engine, url))
    engine.sync.close()


def test_a_call_that_was_cancelled_before_it_began_is_taken_back(url: str) -> None:
    engine = open_counts(url, pool_size=1)

    async def run() -> None:
        with holding(engine, url):
            begun = asyncio.ensure_future(engine.transact(add()))
            await asyncio.to_thread(wait_until, lambda: count_waiting(url) == 1, "It does not wait")
            waiting = asyncio.ensure_future(engine.transact(add(b"waiting")))
            await asyncio.sleep(0.05)
            for task in (begun, waiting):
                task.cancel()
            await asyncio.wait([begun, waiting])
        await engine.transact(add(b"last"))
        await engine.aclose()

    asyncio.run(run())
    again = open_counts(url)
    assert [count(again, key) for key in (b"a", b"waiting", b"last")] == [0, 0, 1]
    again.sync.close()


async def take_and_give_back(engine: PostgresEngine, rounds: int) -> list[int]:
    """Be cancelled while something is taken, give it back at once over another connection; returns when it was still taken."""
    record, found = Record(COUNTS, b"a"), []
    take = Transaction([record], writes=[Put(record, {"holder": b"ada"})])
    give_back = Transaction([record], writes=[Put(record, {"holder": None})])
    for number in range(rounds):
        task = asyncio.ensure_future(engine.transact(take))
        for _ in range(number % 12):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        engine.sync.transact(give_back)
        await asyncio.sleep(0.01)
        (row,) = (await engine.transact(Transaction([record]))).rows
        if row is None or row["holder"] is not None:
            found.append(number)
    return found


def test_what_comes_after_a_call_that_was_cancelled_comes_after_it(engine: PostgresEngine) -> None:
    engine.sync.transact(add())
    assert asyncio.run(take_and_give_back(engine, 36)) == []


def test_control_where_its_end_is_not_waited_for_what_comes_after_it_may_be_overtaken(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(*_: Any) -> None:
        return None

    monkeypatch.setattr(postgres_loops, "_end", leave)
    engine.sync.transact(add())
    assert asyncio.run(take_and_give_back(engine, 120)) != []


# Time


def test_a_call_that_waits_for_a_lock_or_a_connection_ends_in_time_and_says_why(url: str) -> None:
    engine = open_counts(url, pool_size=1, timeout=SHORT)
    prepare(engine)

    async def run() -> list[Any]:
        calls = [engine.transact(add()), engine.transact(add(b"b"))]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    with holding(engine, url):
        began = time.monotonic()
        first, second = asyncio.run(run())
        took = time.monotonic() - began
    assert type(first) is type(second) is EngineError
    assert "held these rows" in str(first)
    assert "All 1 connections were in use for 0.3 s" in str(second)
    assert took < 2 * SHORT.total_seconds()
    assert [count(engine), count(engine, b"b")] == [1, 0]
    engine.sync.close()


def prepare(engine: PostgresEngine) -> None:
    """Let the tables be there, whatever the machine does besides."""
    for _ in range(50):
        with suppress(EngineError):
            engine.sync.transact(add())
            break
        time.sleep(0.1)
    for _ in range(50):
        with suppress(EngineError):
            assert count(engine) == 1
            return
    raise AssertionError("There are no tables.")


def test_a_statement_that_takes_too_long_is_cancelled_and_its_connection_is_replaced(url: str) -> None:
    engine = open_counts(url, timeout=SHORT)
    prepare(engine)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE dcaf.counts")
        with pytest.raises(EngineError, match="told to give up") as found:
            count(engine)
        assert type(found.value) is EngineError
    assert count(engine) == 1
    assert find_pool(engine).in_use == 0
    engine.sync.close()


def test_a_server_that_stands_still_is_told_of_in_time_and_goes_on(url: str, server: Server) -> None:
    engine = open_counts(url, timeout=SHORT)
    prepare(engine)
    server.signal_all(signal.SIGSTOP)
    try:
        for call, kind in ((lambda: engine.sync.transact(add()), CommitUnknownError), (lambda: count(engine), EngineError)):
            began = time.monotonic()
            with pytest.raises(kind) as found:
                call()
            assert type(found.value) is kind
            assert time.monotonic() - began < 2 * SHORT.total_seconds()
            assert trio_error(engine) is EngineError
    finally:
        server.signal_all(signal.SIGCONT)
    wait_until(lambda: counts(engine), "It does not go on")
    assert count(engine) in {1, 2}
    engine.sync.close()


def counts(engine: PostgresEngine) -> bool:
    with suppress(EngineError):
        return count(engine) > 0
    return False


def trio_error(engine: PostgresEngine) -> type[Exception]:
    try:
        trio.run(engine.transact, Transaction([Record(COUNTS, b"a")]))
    except EngineError as error:
        return type(error)
    raise AssertionError("It answers.")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("postgres@", "nobody_here@"), "no such user"),
        (("/test_", "/nowhere_"), "no such database"),
        (("host=/tmp/", "host=/tmp/nowhere/"), "no such socket"),
        (("postgres@", "full@"), "no connection left"),
    ],
)
def test_why_there_is_no_connection_is_told(change: tuple[str, str], told: str, url: str) -> None:
    with suppress(psycopg.errors.DuplicateObject):
        execute(url, "CREATE ROLE full LOGIN CONNECTION LIMIT 0")
    engine = open_counts(url.replace(*change))
    with pytest.raises(EngineError, match=told) as found:
        count(engine)
    assert type(found.value) is EngineError
    engine.sync.close()


def test_a_server_that_is_not_there_is_told_of_at_once() -> None:
    engine = PostgresEngine("postgresql://app:hunter2@127.0.0.1:1/shop")
    engine.declare([COUNTS])
    began = time.monotonic()
    with pytest.raises(EngineError, match="cannot be reached") as found:
        count(engine)
    assert time.monotonic() - began < 1
    assert not any(part in f"{found.value!r}{engine!r}{engine.url}" for part in ("hunter2",))
    engine.sync.close()


# Connections, and servers, that end


def end_sessions(url: str) -> None:
    execute(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ENGINES_OWN}")


def test_a_connection_that_ends_in_mid_statement_leaves_a_write_unknown_and_a_read_undone(engine: PostgresEngine, url: str) -> None:
    prepare(engine)
    cases: list[tuple[bytes, str | None, Callable[[], object], type[Exception]]] = [
        (b"a", None, lambda: engine.sync.transact(add()), CommitUnknownError),
        (b"x", "LOCK TABLE dcaf.counts", lambda: count(engine), EngineError),
        (b"x", "LOCK TABLE dcaf.counts", lambda: engine.sync.transact(add(*(b"%d" % at for at in range(30)))), EngineError),
    ]
    for key, statement, call, kind in cases:
        raised: list[BaseException] = []
        with holding(engine, url, key), psycopg.connect(url) as other:
            if statement:
                other.execute(statement.encode())
            thread = threading.Thread(target=lambda: raised.append(catch(call)))  # noqa: B023 - it ends before the next round
            thread.start()
            wait_until(lambda: count_waiting(url) == 1, "It does not wait")
            end_sessions(url)
            thread.join(20)
        assert [type(error) for error in raised] == [kind]
    assert count(engine) == 1
    assert count(engine, b"1") == 0


def catch(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        return error
    raise AssertionError("It does not fail.")


def test_connections_that_end_while_nobody_uses_them_are_replaced_unnoticed(engine: PostgresEngine, url: str) -> None:
    for number in range(5):
        engine.sync.transact(add())
        assert count(engine) == number + 1
        end_sessions(url)
        time.sleep(0.05)


def test_control_without_a_look_the_next_call_fails(engine: PostgresEngine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Connection, "is_fresh", lambda connection: connection.is_idle)
    with pytest.raises(CommitUnknownError):
        test_connections_that_end_while_nobody_uses_them_are_replaced_unnoticed(engine, url)


def test_where_the_answer_to_a_commit_is_lost_it_may_have_been_written(url: str, server: Server) -> None:
    proxy = WireProxy(server.folder)
    engine = open_counts(url.replace(str(server.folder), str(proxy.folder)))
    engine.sync.transact(add())
    many = add(*(b"%d" % number for number in range(30)))
    for call, kind in ((add(), CommitUnknownError), (Transaction([Record(COUNTS, b"a")]), EngineError), (many, EngineError)):
        proxy.cut_answers = True
        error = catch(partial(engine.sync.transact, call))
        proxy.cut_answers = False
        assert type(error) is kind
    assert count(engine) == 2  # nothing was sent again
    assert count(engine, b"1") == 0
    engine.sync.close()
    proxy.close()


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that may be killed; its log is written late where nobody waits for it."""
    found = Server(find_programs()[0], "wal_writer_delay = 10s", "wal_writer_flush_after = 2GB", *getattr(request, "param", []))
    yield found
    found.stop()


def wait_for_lines(lines: list[str], more: int) -> None:
    seen = len(lines)
    wait_until(lambda: len(lines) >= seen + more, "It does not go on")


def kill_server(server: Server, url: str, times: int) -> tuple[int, int, int]:
    """Kill the server under a program that writes, again and again.

    Returns the last number that the program said, how often nobody could tell, and what the server has in the end.
    """
    process = start("write_through_restarts", url)
    assert process.stdout
    lines: list[str] = [process.stdout.readline()]
    reading = threading.Thread(target=lambda: lines.extend(process.stdout or []))
    reading.start()
    for attempt in range(times):
        wait_for_lines(lines, 4)
        time.sleep(random.Random(attempt).random() * 0.2)
        server.kill()
        server.start()
    wait_for_lines(lines, 4)
    process.kill()
    process.wait()
    reading.join(10)
    process.stdout.close()
    said, unknown = max(tuple(map(int, line.split())) for line in lines if line.endswith("\n"))
    return said, unknown, int(execute(url, "SELECT count FROM dcaf.counts WHERE key = 'a'")[0][0])


def test_no_acknowledged_write_is_lost_when_the_server_is_killed(own: Server, scale: float) -> None:
    said, unknown, written = kill_server(own, own.url(), max(2, round(50 * scale)))
    print(f"{said} acknowledged, {unknown} unknown, {written} written")
    assert said <= written <= said + 1  # the numbers have no gap but for those that nobody could tell, and one was on its way


@pytest.mark.parametrize("own", [["synchronous_commit = off"]], indirect=True)
def test_control_a_server_that_does_not_wait_for_the_disk_loses_acknowledged_writes(own: Server) -> None:
    numbers: list[int] = []
    engine = open_counts(own.url(), vouched=["synchronous_commit"])
    for _ in range(20):
        engine.sync.transact(add())
        numbers.append(count(engine))
    own.kill()
    own.start()
    left = execute(own.url(), "SELECT to_regclass('dcaf.counts') IS NOT NULL")[0][0] and count(engine)
    assert left < max(numbers)
    engine.sync.close()


def delete_twice(server: Server) -> int:
    """Delete a row without waiting for the disk, and then with waiting, though it is gone; then kill the server."""
    engine = open_counts(server.url())
    engine.sync.transact(add())
    for record in (Record(COUNTS, b"of functions that have to be made"), Record(COUNTS, b"a")):
        for durable in (False, True):
            assert engine.sync.transact(Transaction([record], writes=[Delete(record)], durable=durable)).applied
    server.kill()
    server.start()
    found = count(engine)
    engine.sync.close()
    return found


def test_what_is_found_deleted_is_made_safe_too(own: Server) -> None:
    assert delete_twice(own) == 0


def test_control_without_that_it_comes_back(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_functions, "MAKE_SAFE", "NULL;")
    assert delete_twice(own) == 1


# The server's clock


def test_the_clock_of_the_caller_does_not_matter(engine: PostgresEngine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(COUNTS, b"a")
    whole = time.time
    for off in (-45, 45):
        monkeypatch.setattr(time, "time", lambda off=off: whole() + off)
        outcome = engine.sync.transact(Transaction([record], writes=[Put(record, {"count": 1, "expires": Now(5_000)})]))
        ((now,),) = execute(url, "SELECT extract(epoch FROM clock_timestamp()) * 1000")
        assert abs(outcome.now_ms - float(now)) < 4_000
        assert count(engine) == 1
        assert [key for key, _ in engine.sync.scan(COUNTS)] == [b"a"]


# What the server says no to


def alter(url: str, setting: str) -> None:
    execute(url, f"ALTER DATABASE {url.split('/')[3].partition('?')[0]} SET {setting}")


def test_a_server_that_does_not_wait_for_the_disk_is_refused_or_vouched_for(url: str) -> None:
    alter(url, "synchronous_commit = off")
    engine = open_counts(url)
    for call in (lambda: count(engine), engine.sync.check, lambda: asyncio.run(engine.transact(add()))):
        with pytest.raises(ConfigurationError) as found:
            call()
        assert all(part in str(found.value) for part in ("synchronous_commit is off", "= on", 'durability="relaxed"', "vouch"))
    alter(url, "synchronous_commit = on")
    end_sessions(url)
    time.sleep(0.05)
    assert count(engine) == 0  # it looks again
    engine.sync.close()
    alter(url, "synchronous_commit = off")
    for settings in ({"durability": "relaxed"}, {"vouched": ["synchronous_commit"]}):
        other = open_counts(url, **settings)
        other.sync.transact(add())
        assert other.sync.check().details["synchronous_commit"] == "off"
        other.sync.close()
    other = open_counts(f"{url}&vouch=synchronous_commit")
    assert other.sync.check().details["vouched"] == "synchronous_commit"
    other.sync.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_all_is_refused(setting: str, url: str, server: Server) -> None:
    server.execute(f"ALTER SYSTEM SET {setting} = off")
    server.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: server.execute(f"SHOW {setting}") == [("off",)], "The setting does not change")
        for durability in ("acknowledged", "relaxed"):
            engine = open_counts(url, durability=durability)
            with pytest.raises(ConfigurationError, match=f"{setting} is off"):
                count(engine)
            engine.sync.close()
        engine = open_counts(url, vouched=[setting])
        assert count(engine) == 0
        engine.sync.close()
    finally:
        server.execute(f"ALTER SYSTEM RESET {setting}")
        server.execute("SELECT pg_reload_conf()")
    wait_until(lambda: server.execute(f"SHOW {setting}") == [("on",)], "The setting does not change")


def test_transactions_that_would_see_what_is_past_are_refused_also_where_that_comes_later(url: str) -> None:
    engine = open_counts(url)
    engine.sync.transact(add())
    alter(url, "default_transaction_isolation = 'repeatable read'")
    end_sessions(url)
    time.sleep(0.05)
    with pytest.raises(EngineError, match="READ COMMITTED"):
        engine.sync.transact(add())
    engine.sync.close()
    engine = open_counts(url)
    with pytest.raises(ConfigurationError, match="read committed"):
        count(engine)
    engine.sync.close()


def test_a_server_that_takes_no_writes_is_refused(url: str) -> None:
    engine = open_counts(url)
    engine.sync.transact(add())
    alter(url, "default_transaction_read_only = on")
    end_sessions(url)
    time.sleep(0.05)
    with pytest.raises(EngineError, match="read-only") as found:
        engine.sync.transact(add())
    assert type(found.value) is EngineError
    with pytest.raises(ConfigurationError, match="takes no writes"):
        engine.sync.check()
    engine.sync.close()


def test_a_role_without_rights_is_told_what_it_needs_and_one_with_them_makes_nothing(url: str, server: Server) -> None:
    name = f"role_{os.urandom(4).hex()}"
    execute(url, f"CREATE ROLE {name} LOGIN")
    execute(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    theirs = url.replace("postgres@", f"{name}@")
    engine = open_counts(theirs)
    with pytest.raises(EngineError, match=r"GRANT it .* \(42501\)"):
        engine.sync.transact(add())
    owner = open_counts(url)
    owner.sync.transact(add())
    owner.sync.close()
    execute(url, f"GRANT USAGE, CREATE ON SCHEMA dcaf TO {name}")
    execute(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dcaf TO {name}")
    engine.sync.transact(add())
    assert count(engine) == 2
    engine.sync.close()


def test_a_schema_of_a_newer_release_and_a_table_of_another_program_are_refused(url: str) -> None:
    engine = open_counts(url)
    engine.sync.transact(add())
    engine.sync.close()
    other = PostgresEngine(url)
    other.declare([Table("counts", {"count": bytes})])
    with pytest.raises(ConfigurationError, match="another table called counts"):
        other.sync.check()
    other.sync.close()
    execute(url, 'UPDATE dcaf."dcaf-version" SET version = 2')
    engine = open_counts(url)
    with pytest.raises(ConfigurationError, match="newer release"):
        count(engine)
    engine.sync.close()


def test_a_later_release_adds_columns_and_an_older_one_goes_on(url: str) -> None:
    older, newer = Table("grows", {"count": int}), Table("grows", {"count": int, "more": bytes, "expires": int})
    engines = []
    for table in (older, newer):
        engine = PostgresEngine(url)
        engine.declare([table])
        record = Record(table, b"a")
        engine.sync.transact(Transaction([record], writes=[Put(record, {"count": 1})]))
        engines.append((engine, record))
    (old, in_old), (new, in_new) = engines
    new.sync.transact(Transaction([in_new], writes=[Put(in_new, {"more": b"x"})]))
    old.sync.transact(Transaction([in_old], writes=[Put(in_old, {"count": 2})]))
    assert new.sync.transact(Transaction([in_new])).rows == ({"count": 2, "more": b"x", "expires": None},)
    assert old.sync.transact(Transaction([in_old])).rows == ({"count": 2},)
    for engine, _ in engines:
        engine.sync.close()


def test_no_message_has_a_key_or_a_value(engine: PostgresEngine, url: str, caplog: pytest.LogCaptureFixture) -> None:
    engine.sync.transact(add())
    execute(url, "ALTER TABLE dcaf.counts ADD CHECK (holder <> 'the value')")
    record = Record(COUNTS, b"the key")
    for records in ([record], [record, *(Record(COUNTS, b"%d" % number) for number in range(20))]):
        with pytest.raises(EngineError) as found:
            engine.sync.transact(Transaction(records, writes=[Put(record, {"holder": b"the value"})]))
        told = f"{found.value}{found.value!r}{found.value.__cause__!r}{caplog.text}"
        assert "23514" in told
        assert not any(part in told for part in ("the key", "the value", b"the value".hex(), b"the key".hex()))
