"""What goes over the wire to Redis: one command for a transaction, one pipeline for what waits together, and to which server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio.to_thread
import pytest
import redis
import trio
from redis.crc import key_slot
from redis.sentinel import Sentinel

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines import Exists, Not, Now, Plus, Put, Record, RedisEngine, Table, Transaction
from dcaf.engines.redis.script import Keys
from tests.engines.engine_processes import COUNTS, OTHERS, add
from tests.engines.redis_servers import (
    DURABLE,
    RedisCluster,
    RedisServer,
    Wire,
    find_free_port,
    find_server,
    make_certificate,
    monitoring,
    running,
    share_cluster,
    share_server,
    wait_until,
)

PARTITION = 5
SLOT = key_slot(b"{5}")


@pytest.fixture(scope="module")
def server() -> RedisServer:
    return share_server()


@pytest.fixture(scope="module")
def cluster() -> RedisCluster:
    return share_cluster()


def open_counts(url: str, **settings: Any) -> RedisEngine:
    engine = RedisEngine(url, **{"prefix": f"test-{uuid4().hex[:16]}", **settings})
    engine.declare([COUNTS, *OTHERS])
    return engine


def add_in(partition: int, key: bytes = b"a") -> Transaction:
    record = Record(COUNTS, key, partition)
    return Transaction([record], writes=[Put(record, {"count": Plus(1)})])


def count(engine: RedisEngine, partition: int = 0, key: bytes = b"a") -> int:
    row = engine.sync.transact(Transaction([Record(COUNTS, key, partition)])).rows[0]
    return 0 if row is None else int(row["count"] or 0)


def large() -> Transaction:
    """As a ledger's: several rows of several tables, a condition, writes with an index and an end."""
    rows = [Record(COUNTS, b"session"), Record(COUNTS, b"epoch"), Record(OTHERS[0], b"answer"), Record(OTHERS[1], b"use")]
    writes = [
        Put(rows[0], {"count": Plus(1), "holder": b"ada", "expires": Now(60_000)}),
        Put(rows[2], {"data": bytes(2_000)}),
        Put(rows[3], {"count": 1}),
    ]
    return Transaction(rows, when=Not(Exists(rows[1])), writes=writes)


# One server


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
def test_a_transaction_is_one_command_and_one_round_trip(kind: str, server: RedisServer) -> None:
    wire = Wire(server.port)
    engine = open_counts(f"redis://127.0.0.1:{wire.port}/0")
    found: list[tuple[str, str]] = []

    async def run() -> None:
        await call(kind, engine, large())  # it connects, and the script is loaded
        before = wire.round_trips
        with monitoring(server) as commands:
            for _ in range(20):
                assert (await call(kind, engine, large())).applied
        found.extend(commands)
        assert wire.round_trips == before + 20

    trio.run(run) if kind == "trio" else asyncio.run(run())
    sent = [command for who, command in found if who.split()[-1] != "lua"]
    print(
        f"{len(sent)} commands for 20 transactions: {set(sent)}; the scripts call {len(found) - len(sent)} more inside the server."
    )
    assert sent == ["EVALSHA"] * 20
    engine.sync.close()
    wire.close()


async def call(kind: str, engine: RedisEngine, transaction: Transaction) -> Any:
    return engine.sync.transact(transaction) if kind == "sync" else await engine.transact(transaction)


def send_together(server: RedisServer) -> int:
    """How many round trips 64 calls take that wait together."""
    wire = Wire(server.port)
    engine = open_counts(f"redis://127.0.0.1:{wire.port}/0")

    async def run() -> int:
        await engine.transact(add())
        before = wire.round_trips
        outcomes = await asyncio.gather(*(engine.transact(add()) for _ in range(64)))
        assert sorted(int(outcome.rows[0]["count"] or 0) for outcome in outcomes if outcome.rows[0]) == list(range(1, 65))
        return wire.round_trips - before

    try:
        return asyncio.run(run())
    finally:
        engine.sync.close()
        wire.close()


def test_calls_that_wait_together_leave_as_one_pipeline(server: RedisServer) -> None:
    round_trips = send_together(server)
    print(f"64 calls that wait together: {round_trips} round trips.")
    assert round_trips <= 3


def test_control_calls_that_are_sent_one_by_one_take_a_round_trip_each(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcaf.engines.redis.loops.MOST_AT_ONCE", 1)
    assert send_together(server) == 64


def test_a_scan_by_an_index_is_one_round_trip(server: RedisServer) -> None:
    wire = Wire(server.port)
    engine = open_counts(f"redis://127.0.0.1:{wire.port}/0")
    for number in range(100):
        record = Record(COUNTS, b"%03d" % number, number * 5 % engine.partitions)
        engine.sync.transact(Transaction([record], writes=[Put(record, {"holder": b"ada" if number % 2 else b"bob"})]))
    engine.sync.scan(COUNTS, equal=b"ada")
    before = wire.round_trips
    assert [key for key, _ in engine.sync.scan(COUNTS, equal=b"ada")] == [b"%03d" % number for number in range(1, 100, 2)]
    assert wire.round_trips == before + 1
    engine.sync.close()
    wire.close()


def test_a_purge_drops_what_the_sorted_sets_have_of_rows_that_are_gone(server: RedisServer) -> None:
    engine = open_counts(server.url)
    prefix = engine._calls._settings.prefix
    for number in range(30):
        record = Record(COUNTS, b"%d" % number, number)
        ends = Now(50) if number < 20 else None
        engine.sync.transact(Transaction([record], writes=[Put(record, {"holder": b"ada", "expires": ends})]))
    time.sleep(0.1)
    record = Record(COUNTS, b"0", 0)  # made again, for another holder
    engine.sync.transact(Transaction([record], writes=[Put(record, {"holder": b"bob"})]))
    assert [key for key, _ in engine.sync.scan(COUNTS, equal=b"ada")] == sorted(b"%d" % number for number in range(20, 30))
    assert (engine.sync.purge(COUNTS), engine.sync.purge(COUNTS)) == (19, 0)
    with server.client() as client:
        left = {key.decode().rpartition(":")[2] for key in client.scan_iter(f"{prefix}:*") if b"=" not in key}
        sets = sum(client.zcard(key) for key in client.scan_iter(f"{prefix}:*=*"))
    assert left == {"0", *map(str, range(20, 30))}
    assert sets == 2 * 11
    engine.sync.close()


def test_a_row_of_a_ledger_is_small(server: RedisServer) -> None:
    """An id and a subject's digest, eight numbers and a claim."""
    numbers = ("number", "base", "born", "began", "until", "dies", "seen", "expires")
    table = Table("ledger", {**dict.fromkeys(numbers, int), "claim": bytes, "subject": bytes}, indexed="subject")
    engine = open_counts(server.url)
    engine.declare([table])
    values: dict[str, Any] = dict.fromkeys(numbers, 1_790_000_000_000)
    values |= {"number": 7, "base": 6, "expires": Now(10**9), "claim": bytes(16), "subject": bytes(32)}
    records = [Record(table, uuid4().bytes) for _ in range(500)]
    with server.client() as client:
        before = client.info("memory")["used_memory"]
        engine.sync.transact(Transaction(records, writes=[Put(record, values) for record in records]))
        after = client.info("memory")["used_memory"]
        prefix = engine._calls._settings.prefix.encode()
        row = client.memory_usage(prefix + b":{0}:ledger:" + records[0].key)
    print(f"A row takes {row} bytes, and with its places in the sorted sets and Redis's own tables {(after - before) / 500:.0f}.")
    assert row < 350
    engine.sync.close()


# A cluster of three


def test_rows_are_spread_over_the_servers_of_a_cluster(cluster: RedisCluster) -> None:
    engine = open_counts(cluster.url)

    async def run() -> None:
        await asyncio.gather(*(engine.transact(add_in(partition)) for partition in range(engine.partitions)))

    asyncio.run(run())
    for partition in range(engine.partitions):
        engine.sync.transact(add_in(partition))
    prefix = engine._calls._settings.prefix
    found = []
    for server in cluster.servers:
        with server.client() as client:
            found.append(len(list(client.scan_iter(f"{prefix}:*:counts:*"))))
    assert sum(found) == engine.partitions
    assert min(found) > engine.partitions / 5
    assert {count(engine, partition) for partition in range(engine.partitions)} == {2}
    assert engine.sync.check().details["servers"] == "3"
    engine.sync.close()


def use_two_tables(url: str) -> None:
    engine = open_counts(url)
    try:
        for partition in (0, PARTITION, engine.partitions - 1):
            records = [Record(table, key, partition) for table in (COUNTS, *OTHERS) for key in (b"a", b"b", b"c")]
            writes = [Put(record, {"count": Plus(1)}) for record in records]
            assert engine.sync.transact(Transaction(records, writes=writes)).applied
    finally:
        engine.sync.close()


def test_all_rows_of_a_transaction_are_on_one_server_of_the_cluster(cluster: RedisCluster) -> None:
    use_two_tables(cluster.url)


def test_control_rows_with_tags_of_their_own_are_not(
    cluster: RedisCluster, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_rows(keys: Keys, partition: int, table: Table) -> bytes:
        return keys._prefix + b":{%b-%d}:" % (table.name.encode(), partition)

    monkeypatch.setattr(Keys, "find_rows", find_rows)
    use_two_tables(server.url)
    with pytest.raises(EngineError, match="CROSSSLOT"):
        use_two_tables(cluster.url)


def move_slot(cluster: RedisCluster, source: int, target: int, *, keys: bool = False) -> None:
    """Move the slot of a partition from one server to another."""
    clients = [server.client() for server in cluster.servers]
    ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
    clients[target].execute_command("CLUSTER", "SETSLOT", SLOT, "IMPORTING", ids[source])
    clients[source].execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", ids[target])
    if keys:
        found = clients[source].execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 1_000)
        port = cluster.servers[target].port
        clients[source].execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5_000, "KEYS", *found)
        for client in (clients[target], clients[source], *clients):
            client.execute_command("CLUSTER", "SETSLOT", SLOT, "NODE", ids[target])
        wait_until(lambda: len({tell(client) for client in clients}) == 1, "The servers do not agree.")
    for client in clients:
        client.close()


def tell(client: Any) -> tuple[str, str]:
    """What a server knows of the cluster: its epoch, and who has the slot."""
    nodes = client.execute_command("CLUSTER NODES")
    information = client.execute_command("CLUSTER INFO")
    owners = [name for name, node in nodes.items() if any(int(part[0]) <= SLOT <= int(part[-1]) for part in node["slots"])]
    return information["cluster_current_epoch"], str(owners)


def find_owner(cluster: RedisCluster) -> int:
    return SLOT * 3 // 16384


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
def test_rows_that_are_moved_to_another_server_are_found_there(kind: str, cluster: RedisCluster) -> None:
    owner = find_owner(cluster)
    other = (owner + 1) % 3
    engine = open_counts(cluster.url)

    async def run() -> None:
        await call(kind, engine, plain(b"old"))
        await call(kind, engine, add_in(PARTITION))
        move_slot(cluster, owner, other)  # it has begun: what is not there yet is made at the other one
        for key in (b"old", b"new", b"new"):
            await call(kind, engine, plain(key))
        with cluster.servers[other].client() as client:
            prefix = engine._calls._settings.prefix
            assert client.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 9) == [f"{prefix}:{{5}}:others_0:new".encode()]
        move_slot(cluster, owner, other, keys=True)
        for key in (b"old", b"new"):
            assert (await call(kind, engine, plain(key))).rows[0]["count"] == 2
        await call(kind, engine, add_in(PARTITION))
        move_slot(cluster, other, owner, keys=True)
        await call(kind, engine, add_in(PARTITION))

    def plain(key: bytes) -> Transaction:
        record = Record(OTHERS[0], key, PARTITION)
        return Transaction([record], writes=[Put(record, {"count": Plus(1)})])

    trio.run(run) if kind == "trio" else asyncio.run(run())
    assert count(engine, PARTITION) == 3
    engine.sync.close()


def test_rows_of_which_a_half_is_moved_are_waited_for(cluster: RedisCluster) -> None:
    owner = find_owner(cluster)
    other = (owner + 1) % 3
    engine = open_counts(cluster.url, timeout=timedelta(seconds=0.5))
    both = [Record(OTHERS[1], b"here", PARTITION), Record(OTHERS[1], b"there", PARTITION)]
    transaction = Transaction(both, writes=[Put(record, {"count": Plus(1)}) for record in both])
    engine.sync.transact(Transaction(both[:1], writes=[Put(both[0], {"count": 1})]))
    move_slot(cluster, owner, other)
    for kind in ("asyncio", "sync"):
        with pytest.raises(EngineError, match="moves these rows") as found:
            asyncio.run(call(kind, engine, transaction))
        assert type(found.value) is EngineError
    move_slot(cluster, owner, other, keys=True)
    assert engine.sync.transact(transaction).rows[0]["count"] == 1  # type: ignore[index]
    move_slot(cluster, other, owner, keys=True)
    engine.sync.close()


def test_a_server_of_a_cluster_that_hangs_or_dies_is_nobody_elses_harm() -> None:
    cluster = RedisCluster(*DURABLE, "--cluster-require-full-coverage", "no")
    engine = open_counts(cluster.url, timeout=timedelta(seconds=0.4))
    other = open_counts(f"redis+cluster://127.0.0.1:{cluster.servers[1].port}", prefix=engine._calls._settings.prefix)
    partitions = [next(p for p in range(engine.partitions) if key_slot(b"{%d}" % p) * 3 // 16384 == at) for at in range(3)]

    async def run() -> None:
        for partition in partitions:
            await engine.transact(add_in(partition))
        cluster.servers[0].freeze()
        calls = [asyncio.ensure_future(engine.transact(add_in(partition))) for partition in partitions]
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, EngineError) for one in done] == [True, False, False]
        cluster.servers[0].thaw()
        cluster.servers[0].kill()
        await asyncio.sleep(0.02)
        with pytest.raises(EngineError):
            await engine.transact(add_in(partitions[0]))
        assert (await engine.transact(add_in(partitions[1]))).applied
        cluster.servers[0].start()
        await anyio.to_thread.run_sync(wait_until, lambda: is_there(other, partitions[0]), "It does not come back.")
        assert (await engine.transact(add_in(partitions[0]))).applied

    try:
        asyncio.run(run())
        assert [count(engine, partition) for partition in partitions[1:]] == [3, 2]
    finally:
        engine.sync.close()
        other.sync.close()
        cluster.stop()


def is_there(engine: RedisEngine, partition: int) -> bool:
    with contextlib.suppress(EngineError):
        return count(engine, partition) > 0
    return False


def test_a_url_says_whether_it_is_a_cluster(cluster: RedisCluster, server: RedisServer) -> None:
    for url, message in (
        (cluster.url.replace("redis+cluster", "redis"), r"write redis\+cluster://"),
        (server.url.replace("redis://", "redis+cluster://"), "write redis://"),
    ):
        engine = open_counts(url)
        for kind in ("sync", "asyncio"):
            with pytest.raises(ConfigurationError, match=message):
                asyncio.run(call(kind, engine, add()))
        engine.sync.close()


def test_a_cluster_is_found_by_any_of_its_hosts(cluster: RedisCluster) -> None:
    ports = [1, cluster.servers[2].port]
    engine = open_counts(f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports)}")
    assert engine.sync.transact(add_in(PARTITION)).applied
    assert asyncio.run(engine.transact(add_in(PARTITION))).applied
    engine.sync.close()


# Sentinels, and TLS


def test_sentinels_say_where_the_server_is_also_after_a_failover(tmp_path: Path) -> None:
    prompt = (*DURABLE, "--repl-diskless-sync-delay", "0")
    with running(*prompt) as first, running(*prompt, "--replicaof", "127.0.0.1", str(first.port)) as second:
        wait_until(lambda: is_online(first), "The replica does not follow.")
        port = find_free_port()
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"port {port}\ndir {tmp_path}\nsentinel monitor shop 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000\n"
        )
        with sentinel_running(configuration, port):
            asyncio.run(follow(port, second))


@contextlib.contextmanager
def sentinel_running(configuration: Path, port: int) -> Iterator[None]:
    import subprocess

    with subprocess.Popen([find_server(), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


async def follow(port: int, second: RedisServer) -> None:
    sentinel: Any = Sentinel([("127.0.0.1", port)], socket_timeout=1)  # type: ignore[no-untyped-call]
    periods = ("info-period", 100, "ping-period", 100, "ask-period", 100, "publish-period", 100)
    wait_until(lambda: listens(sentinel), "The Sentinel does not listen.")
    sentinel.sentinels[0].execute_command("SENTINEL", "DEBUG", *periods)
    wait_until(lambda: knows_replica(sentinel), "The Sentinel does not see the replica.")
    engine = open_counts("redis://shop/0", sentinel=sentinel)
    for kind in ("asyncio", "sync"):
        assert (await call(kind, engine, add())).applied
    key = f"{engine._calls._settings.prefix}:{{0}}:counts:a"
    with second.client() as client:
        wait_until(lambda: int(client.hget(key, "count") or 0) == 2, "The replica does not follow.")
    wait_until(lambda: has_begun(sentinel), "The Sentinel does not begin.")
    wait_until(lambda: sentinel.discover_master("shop")[1] == second.port, "There is no failover.")
    with second.client() as client:
        for kind in ("asyncio", "sync"):
            before, end = int(client.hget(key, "count")), time.monotonic() + 20
            while int(client.hget(key, "count")) == before:  # until the old server has ended its connections, they are used
                assert time.monotonic() < end
                with contextlib.suppress(EngineError):
                    await call(kind, engine, add())
    await engine.aclose()
    for one in sentinel.sentinels:
        one.close()


def listens(sentinel: Any) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(sentinel.sentinels[0].ping())
    return False


def knows_replica(sentinel: Any) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(sentinel.discover_slaves("shop"))
    return False


def has_begun(sentinel: Any) -> bool:
    """Begin a failover, once the Sentinel has heard of the replica what it needs."""
    with contextlib.suppress(redis.ResponseError):
        return bool(sentinel.sentinels[0].execute_command("SENTINEL", "FAILOVER", "shop"))
    return False


def is_online(server: RedisServer) -> bool:
    with server.client() as client:
        return "online" in str(client.info("replication"))


def test_tls_is_spoken_and_the_server_is_known_by_its_authority(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    files = ("--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/key.pem", "--tls-auth-clients", "no")
    port = find_free_port()
    with running(*DURABLE, "--tls-port", str(port), *files, "--tls-ca-cert-file", f"{tmp_path}/cert.pem"):
        engine = open_counts(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/cert.pem")
        assert engine.sync.transact(add()).applied
        assert asyncio.run(engine.transact(add())).applied
        assert count(engine) == 2
        engine.sync.close()
        engine = open_counts(f"rediss://127.0.0.1:{port}/0")
        for kind in ("sync", "asyncio"):
            with pytest.raises(EngineError, match="its certificate is not trusted"):
                asyncio.run(call_and_wait(kind, engine))
        engine.sync.close()


async def call_and_wait(kind: str, engine: RedisEngine) -> None:
    """Leave asyncio the time to close a connection whose handshake has failed."""
    try:
        await call(kind, engine, add())
    finally:
        await asyncio.sleep(0.05)
