"""The connections of a PostgreSQL engine: through poolers, to servers that greet slowly, hang, or stand by; and their ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError
from dcaf.engines import Plus, Put, Record, Table, Transaction
from dcaf.engines.postgres import connections as postgres_connections
from dcaf.engines.postgres import homes as postgres_homes
from dcaf.engines.postgres import loops as postgres_loops
from dcaf.engines.postgres import schema as postgres_schema
from dcaf.engines.postgres.connections import _Connection
from dcaf.engines.postgres.engine import PostgresEngine
from tests.engines.postgres_processes import COUNTS, add, count, open_counts
from tests.engines.postgres_servers import Server, bouncing, execute, find_programs, get_server, name_schema, wait_until

SHORT = timedelta(seconds=0.6)
READ = Transaction([Record(COUNTS, b"a")])


@pytest.fixture
def server() -> Server:
    return get_server()


@pytest.fixture
def url(server: Server) -> str:
    return server.make_database()


# Through a pooler


async def mix(url: str, schema: str) -> tuple[dict[str, int], list[str]]:
    """Write with two functions through a pooler of few connections; returns what is wrong in the row, and the errors."""
    table = Table("two", {"a": int, "b": int})
    record = Record(table, b"k")
    engines = [PostgresEngine(url, schema=schema, timeout=timedelta(seconds=10), pool_size=1) for _ in range(6)]
    written, errors = {"a": 0, "b": 0}, []

    async def write(engine: PostgresEngine, column: str) -> None:
        for _ in range(15):
            try:
                await engine.transact(Transaction([record], writes=[Put(record, {column: Plus(1)})]))
                written[column] += 1
            except EngineError as error:
                errors.append(str(error))

    for engine in engines:
        engine.declare([table])
    await engines[0].transact(Transaction([record], writes=[Put(record, {"a": 0, "b": 0})]))
    await asyncio.gather(*(write(engine, "ab"[at % 2]) for at, engine in enumerate(engines)))
    (row,) = (await engines[0].transact(Transaction([record]))).rows
    for engine in engines:
        await engine.aclose()
    assert row
    return {column: int(row[column] or 0) - times for column, times in written.items()}, errors


def test_through_a_pooler_that_knows_nothing_of_prepared_statements_each_transaction_is_its_own(server: Server) -> None:
    with bouncing(server, "default_pool_size = 3") as route:
        assert asyncio.run(mix(route(server.url()), name_schema())) == ({"a": 0, "b": 0}, [])


def test_control_with_prepared_statements_they_are_mixed_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(connection: _Connection, settings: Any) -> None:
        return None

    monkeypatch.setattr(_Connection, "look", look)
    with bouncing(server, "default_pool_size = 3") as route:
        for _ in range(5):
            try:
                wrong, errors = asyncio.run(mix(route(server.url()), name_schema()))
            except EngineError:
                return
            if errors or any(wrong.values()):
                return
    raise AssertionError("Nothing was mixed up.")


def test_a_setting_that_another_client_of_a_pooler_has_left_is_noticed(server: Server) -> None:
    with bouncing(server, "default_pool_size = 1") as route:
        engine = open_counts(route(server.url()), schema=name_schema())
        engine.sync.transact(add())
        with psycopg.connect(route(server.url()), autocommit=True, prepare_threshold=None) as other:
            other.execute("SET default_transaction_isolation = 'repeatable read'")
        with pytest.raises(EngineError, match="DC001"):
            engine.sync.transact(add())
        engine.sync.close()


def make(url: str, **settings: Any) -> None:
    """Make the tables."""
    engine = open_counts(url, **settings)
    engine.sync.transact(add())
    engine.sync.close()


# Servers


class Standby(Server):
    """A standby that lags: it has what there was when the server was made."""

    def start(self) -> None:
        (self.folder / "data" / "standby.signal").touch()
        super().start()


@contextmanager
def listening() -> Iterator[str]:
    """The folder of a socket that takes connections, and says nothing."""
    folder = Path(tempfile.mkdtemp(prefix="px", dir="/tmp"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / ".s.PGSQL.5432"))
        listener.listen(50)
        yield str(folder)
    shutil.rmtree(folder)


def name_both(first: Server | str, second: Server) -> str:
    """The url of two hosts."""
    folder = first if isinstance(first, str) else first.folder
    return f"postgresql://postgres@/postgres?host={folder},{second.folder}"


def test_a_standby_is_never_read_though_the_primary_has_gone() -> None:
    standby = Standby(find_programs()[0])
    with ExitStack() as stack:
        stack.callback(standby.stop)
        with ExitStack() as first:
            primary = Server(find_programs()[0])
            first.callback(primary.stop)
            engine = stack.enter_context(closing(open_counts(name_both(standby, primary)).sync))
            engine.transact(add())
            assert engine.transact(READ).rows != (None,)
        time.sleep(0.1)
        for call in (lambda: engine.transact(READ), lambda: engine.scan(COUNTS), lambda: engine.transact(add())):
            with pytest.raises(EngineError, match="read-only") as found:
                call()
            assert type(found.value) is EngineError
        alone = stack.enter_context(closing(open_counts(standby.url()).sync))
        with pytest.raises(ConfigurationError, match="takes no writes"):
            alone.check()


async def knock(folder: str) -> int:
    """Call again and again where each connection is refused; returns how many were tried in half a second."""
    tried = 0

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    async def call(end: float) -> None:
        while time.monotonic() < end:
            assert not await answers(engine)

    server = await asyncio.start_unix_server(refuse, f"{folder}/.s.PGSQL.5432")
    engine = open_counts(f"postgresql://postgres@/postgres?host={folder}")
    await asyncio.gather(*(call(time.monotonic() + 0.5) for _ in range(8)))
    await engine.aclose()
    server.close()
    print(tried, "attempts")
    return tried


def test_a_server_that_refuses_connections_is_not_asked_more_often_the_more_calls_there_are(tmp_path: Path) -> None:
    assert 2 <= asyncio.run(knock(str(tmp_path))) <= 12


def test_control_without_a_pause_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connections, "AGAIN_S", 0.0)
    assert asyncio.run(knock(str(tmp_path))) > 12


def test_a_host_that_says_nothing_is_passed_over(server: Server) -> None:
    with listening() as folder:
        engine = open_counts(name_both(folder, server), schema=name_schema(), timeout=SHORT)
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"could not be reached|were not ready"):
            count(engine)
        assert time.monotonic() - began < 2 * SHORT.total_seconds()
        wait_until(lambda: counts(engine), "The other host is not asked", 10)
        engine.sync.close()


def counts(engine: PostgresEngine) -> bool:
    with suppress(EngineError):
        return count(engine) >= 0
    return False


class Slow:
    """A proxy to a server that lets each new connection wait."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="px", dir="/tmp"))
        self._server = str(server.folder / ".s.PGSQL.5432")
        self._seconds = seconds

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._forward, str(self.folder / ".s.PGSQL.5432"))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._seconds)
        far_reader, far_writer = await asyncio.open_unix_connection(self._server)
        with suppress(OSError):
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_a_server_that_greets_more_slowly_than_a_call_may_take_is_reached_in_the_end(server: Server) -> None:
    asyncio.run(wait_for_greeting(server))


async def wait_for_greeting(server: Server) -> None:
    slow, schema = Slow(server, 0.5), name_schema()
    make(server.url(), schema=schema)
    proxy = await slow.serve()
    engine = open_counts(f"postgresql://postgres@/postgres?host={slow.folder}", schema=schema, timeout=SHORT)
    engine._calls._known.ready.update(engine._calls._known.tables)  # as when the last connection has ended
    found = [await answers(engine) for _ in range(5)]
    assert found[0] is False
    assert found[-2:] == [True, True]
    await engine.aclose()
    proxy.close()
    shutil.rmtree(slow.folder)


async def answers(engine: PostgresEngine) -> bool:
    with suppress(EngineError):
        await engine.transact(READ)
        return True
    return False


def count_sessions(url: str) -> int:
    return int(
        execute(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dcaf' AND datname = current_database()")[0][0]
    )


def test_connections_of_a_burst_are_closed_though_one_is_used_all_the_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connections, "IDLE_S", 0.5)  # long enough to be counted on a busy machine

    async def run() -> None:
        engine = open_counts(url)
        await asyncio.gather(*(engine.transact(READ) for _ in range(200)))
        assert await asyncio.to_thread(count_sessions, url) > 3
        end = time.monotonic() + 20
        while await asyncio.to_thread(count_sessions, url) > 1:
            assert time.monotonic() < end
            await engine.transact(READ)
        await engine.aclose()

    asyncio.run(run())
    wait_until(lambda: count_sessions(url) == 0, "A session is left")


def test_where_no_more_connections_can_be_had_calls_wait_for_those_there_are(url: str) -> None:
    name = f"few_{time.monotonic_ns()}"
    execute(url, f"CREATE ROLE {name} LOGIN SUPERUSER CONNECTION LIMIT 2")
    make(url)
    execute(url, f"ALTER ROLE {name} NOSUPERUSER")
    execute(url, f"GRANT ALL ON SCHEMA dcaf TO {name}")
    execute(url, f"GRANT ALL ON ALL TABLES IN SCHEMA dcaf TO {name}")

    async def run() -> None:
        engine = open_counts(url.replace("postgres@", f"{name}@"))
        await engine.transact(READ)
        await asyncio.gather(*(engine.transact(add(b"%d" % at)) for at in range(50)))
        await engine.aclose()

    asyncio.run(run())


# Tables that grow


GROWN = Table("counts", {"more": int})


def grow(url: str) -> int:
    """Let a newer release add a column while a backup reads the table; returns how often an older one has written meanwhile."""
    make(url)
    older, newer = open_counts(url, timeout=timedelta(seconds=2)), PostgresEngine(url, timeout=timedelta(seconds=0.3))
    newer.declare([GROWN])
    written, end = 0, time.monotonic() + 2
    with psycopg.connect(url) as backup:
        backup.execute("SELECT FROM dcaf.counts")
        assert not reads(newer)
        while time.monotonic() < end:
            older.sync.transact(add())
            written += 1
    wait_until(lambda: reads(newer), "The column is not there")
    for engine in (older, newer):
        engine.sync.close()
    return written


def reads(engine: PostgresEngine) -> bool:
    with suppress(EngineError):
        return engine.sync.transact(Transaction([Record(GROWN, b"a")])).rows == ({"more": None},)
    return False


def test_an_older_release_goes_on_while_a_newer_one_waits_for_a_table(url: str) -> None:
    assert grow(url) > 20


def test_control_where_the_newer_one_waits_without_a_break_the_older_one_stands_still(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "LOCKED_MS", 9_000)
    with pytest.raises(EngineError):
        grow(url)


def test_why_a_column_cannot_be_added_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_homes, "SET_UP_S", 1.0)
    make(url)
    with psycopg.connect(url) as backup, closing(PostgresEngine(url, timeout=timedelta(seconds=5)).sync) as newer:
        newer._calls.declare([GROWN])  # type: ignore[attr-defined]
        backup.execute("SELECT FROM dcaf.counts")
        with pytest.raises(EngineError, match="held a table"):
            newer.check()


# Answers that do not come


def test_a_write_whose_thread_does_not_answer_may_have_been_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_loops, "PATIENCE", 0.2)
    engine = open_counts(url, timeout=timedelta(seconds=1.5))
    make(url)
    assert count(engine) == 1
    thread = engine._calls._background
    assert thread
    raised: list[BaseException] = []
    for call, kind in ((add(), CommitUnknownError), (READ, EngineError)):
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE dcaf.counts")
            caller = threading.Thread(target=lambda: raised.append(catch(engine, call)))  # noqa: B023 - it ends before the next round
            caller.start()
            wait_until(lambda: is_waiting(url), "It does not wait")
            thread.loop.call_soon_threadsafe(time.sleep, 1)  # as where the process stands still
        caller.join(5)
        assert type(raised[-1]) is kind
        wait_until(lambda: counts(engine), "It does not go on")
    assert count(engine) == 2
    engine.sync.close()


def catch(engine: PostgresEngine, transaction: Transaction) -> BaseException:
    try:
        engine.sync.transact(transaction)
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        return error
    raise AssertionError("It does not fail.")


def is_waiting(url: str) -> bool:
    mine = "application_name = 'dcaf' AND datname = current_database()"
    return bool(execute(url, f"SELECT 1 FROM pg_stat_activity WHERE {mine} AND wait_event_type = 'Lock'"))


def test_a_write_that_no_standby_confirms_may_be_lost(server: Server, url: str) -> None:
    make(url)
    engine = open_counts(url, timeout=SHORT)
    assert count(engine) == 1
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: server.execute("SHOW synchronous_standby_names") == [("nobody",)], "The setting does not change")
        for transaction in (add(), add(*(b"%d" % at for at in range(30)))):
            error = catch(engine, transaction)
            assert type(error) is CommitUnknownError
            assert "standby" in str(error)
        assert count(engine) == 2
    finally:
        execute(f"{server.url()}&options=-csynchronous_commit%3Dlocal", "ALTER SYSTEM RESET synchronous_standby_names")
        execute(f"{server.url()}&options=-csynchronous_commit%3Dlocal", "SELECT pg_reload_conf()")
    wait_until(lambda: server.execute("SHOW synchronous_standby_names") == [("",)], "The setting does not change")
    engine.sync.transact(add())
    engine.sync.close()


# Ends


def test_an_event_loop_ends_while_a_connection_is_being_opened() -> None:
    def work() -> None:
        with listening() as folder:
            engine = open_counts(f"postgresql://postgres@/postgres?host={folder}", timeout=timedelta(seconds=0.2))
            began = time.monotonic()
            with suppress(EngineError):
                asyncio.run(engine.transact(READ))
            assert time.monotonic() - began < 1.5

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What asyncio has to complain of."""
    found: list[str] = []
    yield found
    gc.collect()
    found += [record.getMessage() for record in caplog.records if record.name == "asyncio" and record.levelno >= logging.ERROR]


async def leave_failing_calls(server: Server, url: str) -> None:
    """Cancel the callers of calls that fail, and of the making of tables that fails."""
    engine, nowhere = open_counts(url, timeout=SHORT), open_counts("postgresql://postgres@/postgres?host=/tmp/nowhere")
    while not await answers(engine):
        pass
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE dcaf.counts")
        calls = [asyncio.ensure_future(call.transact(READ)) for call in (engine, engine, nowhere)]
        await asyncio.sleep(0.02)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    await engine.aclose()
    await nowhere.aclose()


def test_calls_that_fail_when_nobody_waits_for_them_are_no_error_of_the_event_loop(
    server: Server, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(url)
    with told(caplog) as found:
        asyncio.run(leave_failing_calls(server, url))
    assert found == []


def test_engines_that_end_at_any_time_leave_no_task_behind(server: Server, url: str, caplog: pytest.LogCaptureFixture) -> None:
    make(url)
    engine = open_counts(url, timeout=SHORT)
    wait_until(lambda: counts(engine), "It does not begin")
    with told(caplog) as found:
        server.signal_all(signal.SIGSTOP)
        try:
            assert type(catch(engine, add())) is CommitUnknownError
            engine.sync.close()
        finally:
            server.signal_all(signal.SIGCONT)
        asyncio.run(open_counts(url).transact(add()))
    assert found == []


def test_a_process_that_was_forked_ends_without_a_word(url: str) -> None:
    program = """if True:
        import asyncio, os, sys
        from tests.engines.postgres_processes import *
        engine = open_counts(sys.argv[1])
        engine.sync.transact(add())
        asyncio.run(engine.transact(add()))
        child = os.fork()
        count(engine)
        if child:
            os.waitpid(child, 0)
        print(count(engine))
    """
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("2\n2\n", "")


# A wait that goes on behind its time


def wait_behind_a_lost_end(server: Server) -> float:
    """A connection comes, and is of no use, at the moment at which the wait for it ends; how long the call takes."""

    async def test() -> float:
        engine = open_counts(server.url(), schema=name_schema(), timeout=timedelta(seconds=0.6))
        await engine.transact(add())
        pool = engine._calls._homes[asyncio.get_running_loop()].pool._pool
        get, asked = pool.getconn, []

        async def lose(timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as of the pool
            asked.append(timeout)
            if len(asked) == 1:
                connection = await get(timeout=timeout)
                with suppress(asyncio.CancelledError):  # as asyncio.wait_for of Python 3.11 does
                    await asyncio.sleep(60)
                connection.drop()
                return connection
            await asyncio.sleep(min(timeout or 60.0, 3.0))
            raise psycopg_pool.PoolTimeout("nobody gives one")

        pool.getconn = lose  # type: ignore[method-assign]
        began = time.monotonic()
        with pytest.raises(EngineError):
            await engine.transact(add())
        took_s = time.monotonic() - began
        pool.getconn = get  # type: ignore[method-assign]
        await engine.aclose()
        assert len(asked) == 2
        return took_s

    return asyncio.run(test())


def test_a_wait_ends_in_time_where_its_end_is_lost(server: Server) -> None:
    assert wait_behind_a_lost_end(server) < 0.6


def test_control_a_pool_that_waits_as_long_as_it_likes_is_late(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connections, "LATE_S", 3600.0)
    assert wait_behind_a_lost_end(server) > 2
