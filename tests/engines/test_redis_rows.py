"""What stands in Redis stays whole: while a cluster moves rows, where the user may not run all commands, where rows expire."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from redis.crc import key_slot

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines import Delete, Now, Put, Range, Record, RedisEngine, Table, Transaction
from dcaf.engines.redis import calls as redis_calls
from dcaf.engines.redis.calls import Request
from dcaf.engines.redis.lua import FIND, Script
from dcaf.engines.redis.settings import Settings, read_settings
from tests.engines.redis_servers import (
    DURABLE,
    RedisCluster,
    RedisServer,
    Wire,
    change_scripts,
    find_free_port,
    make_certificate,
    running,
    share_cluster,
    share_server,
    wait_until,
)

ROWS = Table("rows", {"n": int, "who": bytes, "expires": int}, indexed="who", ordered=True)
PLAIN = Table("plain", {"n": int, "data": bytes})
PARTITION = 3
SLOT = key_slot(b"{3}")
SHORT = timedelta(seconds=0.2)


@pytest.fixture(scope="module")
def server() -> RedisServer:
    return share_server()


@pytest.fixture(scope="module")
def cluster() -> RedisCluster:
    return share_cluster()


@contextmanager
def opened(url: str, **settings: Any) -> Iterator[RedisEngine]:
    engine = RedisEngine(url, **{"prefix": f"test-{uuid4().hex[:16]}", **settings})
    engine.declare([ROWS, PLAIN])
    try:
        yield engine
    finally:
        engine.sync.close()


def put(engine: RedisEngine, key: bytes, partition: int = 0, **values: Any) -> bool:
    record = Record(ROWS, key, partition)
    return engine.sync.transact(Transaction([record], writes=[Put(record, values)])).applied


def find(engine: RedisEngine, who: bytes | None = None, limit: int = 100) -> list[bytes]:
    """The keys that a scan finds, with await and without."""
    found = [key for key, _ in engine.sync.scan(ROWS, equal=who, limit=limit)]
    assert [key for key, _ in asyncio.run(engine.scan(ROWS, equal=who, limit=limit))] == found
    return found


# A cluster that moves rows


class Move:
    """A partition's slot on its way from its server to another."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._source, self._target, self._third = [cluster.servers[(SLOT * 3 // 16384 + step) % 3] for step in range(3)]

    def begin(self) -> None:
        source, target = self._get_id(self._source), self._get_id(self._target)
        self._set(self._target, "IMPORTING", source)
        self._set(self._source, "MIGRATING", target)

    def move(self, *keys: str) -> None:
        with self._source.client() as client:
            client.execute_command("MIGRATE", "127.0.0.1", self._target.port, "", 0, 5_000, "KEYS", *keys)

    def end(self) -> None:
        with self._source.client() as client:
            left = client.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 1_000)
        if left:
            self.move(*left)
        for server in (self._target, self._source, self._third):
            self._set(server, "NODE", self._get_id(self._target))

    def take_back(self) -> None:
        for server in (self._source, self._target):
            self._set(server, "STABLE")

    def reverse(self) -> None:
        self._source, self._target = self._target, self._source

    def _set(self, server: RedisServer, *words: str) -> None:
        with server.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", SLOT, *words)

    def _get_id(self, server: RedisServer) -> str:
        with server.client() as client:
            found: bytes = client.execute_command("CLUSTER", "MYID")
        return found.decode()


def change_while_it_moves(cluster: RedisCluster) -> None:
    """The only value of an index changes while the slot moves, and rows of a moving slot are made again and dropped."""
    with opened(cluster.url) as engine:
        put(engine, b"k", PARTITION, n=1, who=b"ada")
        move = Move(cluster)
        move.begin()
        try:
            assert put(engine, b"k", PARTITION, n=2, who=b"bob")
        finally:
            move.take_back()
        assert (find(engine, b"ada"), find(engine, b"bob"), find(engine)) == ([], [b"k"], [b"k"])


def test_an_index_stays_whole_while_a_cluster_moves_it(cluster: RedisCluster) -> None:
    change_while_it_moves(cluster)


def put_index_last(text: str) -> str:
    """The script with the other order: what leaves the sorted sets goes first, what comes into them last."""
    lines = text.splitlines()
    entering, leaving = ([line for line in lines if f"'{command}'" in line] for command in ("ZADD", "ZREM"))
    left = [line for line in lines if line not in {*entering, *leaving} and "ZCARD" not in line]
    return "\n".join([*left[:-1], *leaving, *entering, left[-1]])


def test_control_an_index_that_is_emptied_first_is_lost(cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    change_scripts(monkeypatch, put_index_last)
    with pytest.raises(EngineError):
        change_while_it_moves(cluster)


def read_range(engine: RedisEngine) -> int:
    """How many rows a range of the partition has."""
    wanted = Range(ROWS, b"", None, 100, partition=PARTITION)
    return len(engine.sync.transact(Transaction([], ranges=[wanted])).pages[0])


def sweep_while_it_moves(cluster: RedisCluster) -> list[str]:
    """The sorted sets are moved before their rows; what a scan and a purge say meanwhile."""
    said = []
    with opened(cluster.url, timeout=SHORT) as engine:
        for number in range(5):
            put(engine, b"%d" % number, PARTITION, n=1, who=b"eve")
        move = Move(cluster)
        move.begin()
        prefix = engine._calls._settings.prefix
        move.move(f"{prefix}:{{3}}:rows=keys", f"{prefix}:{{3}}:rows=values")
        calls = (
            lambda: find(engine, b"eve"),
            lambda: engine.sync.purge(ROWS),
            lambda: asyncio.run(engine.purge(ROWS)),
            lambda: read_range(engine),
        )
        for call in calls:
            try:
                call()
            except EngineError as error:
                said.append(repr(error))
        move.end()
        try:
            assert (len(find(engine, b"eve")), len(find(engine)), read_range(engine)) == (5, 5, 5)
        finally:
            move.reverse()
            move.begin()
            move.end()
    return said


def test_a_scan_and_a_purge_wait_for_a_server_that_has_all_rows(cluster: RedisCluster) -> None:
    said = sweep_while_it_moves(cluster)
    assert len(said) == 4
    assert all("EngineError('Nothing was written: the cluster moves these rows" in message for message in said)


def test_control_a_server_that_only_just_takes_them_over_drops_their_index(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Anywhere(Request):
        def __init__(self, command: tuple[bytes, ...], *, needs_all: bool = False, **settings: Any) -> None:
            super().__init__(command, **settings)

    monkeypatch.setattr(redis_calls, "Request", Anywhere)
    with pytest.raises(AssertionError):
        sweep_while_it_moves(cluster)


# Users who may not run all commands


@contextmanager
def forbidding(server: RedisServer, command: str) -> Iterator[str]:
    """The url of a user who may run all but this."""
    name = f"user-{uuid4().hex[:8]}"
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", name, "on", ">hunter2", "~*", "+@all", f"-{command}")
        yield server.url.replace("//", f"//{name}:hunter2@")
        client.execute_command("ACL", "DELUSER", name)


COMMANDS = ["zadd", "hset", "zrem", "del", "hdel", "pexpireat", "persist", "zrangebylex"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_look_says_that_a_command_is_forbidden(command: str, server: RedisServer) -> None:
    with forbidding(server, command) as url, opened(url) as engine:
        for look in (engine.sync.check, lambda: asyncio.run(engine.check())):
            with pytest.raises(EngineError, match="may not run what the engine needs"):
                look()


def test_control_a_look_that_only_makes_a_row_does_not(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = redis_calls._list_probes
    monkeypatch.setattr(redis_calls, "_list_probes", lambda *arguments: probes(*arguments)[:1])
    with forbidding(server, "zrem") as url, opened(url) as engine:
        engine.sync.check()


def test_a_look_leaves_nothing(server: RedisServer) -> None:
    with opened(server.url) as engine, server.client() as client:
        engine.sync.check()
        assert client.keys(f"{engine._calls._settings.prefix}:*") == []


def write_without_index(server: RedisServer) -> None:
    """Who may not write an index writes no row without one."""
    with forbidding(server, "zadd") as url, opened(server.url) as engine:
        with opened(url, prefix=engine._calls._settings.prefix) as half, pytest.raises(EngineError):
            put(half, b"a", n=1, who=b"ada")
        assert engine.sync.transact(Transaction([Record(ROWS, b"a")])).rows == (None,)


def test_no_row_is_written_without_its_index(server: RedisServer) -> None:
    write_without_index(server)


def test_control_a_script_that_writes_the_index_last_leaves_a_row_that_nobody_finds(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_scripts(monkeypatch, put_index_last)
    with pytest.raises(AssertionError):
        write_without_index(server)


# Rows that have expired


def leave_members(engine: RedisEngine, server: RedisServer, count: int) -> None:
    """Members of sorted sets whose rows are gone."""
    with server.client() as client:
        by_key, by_value = engine._calls._keys.find_indexes(0, ROWS)
        size = (3).to_bytes(4, "big")
        for at in range(0, count, 5_000):
            names = [b"%06d" % number for number in range(at, min(at + 5_000, count))]
            client.zadd(by_key, dict.fromkeys(names, 0))
            client.zadd(by_value, dict.fromkeys([size + b"ada" + name for name in names], 0))


def count_members(engine: RedisEngine, server: RedisServer) -> tuple[int, ...]:
    with server.client() as client:
        return tuple(client.zcard(name) for name in engine._calls._keys.find_indexes(0, ROWS))


def count_dropped(engine: RedisEngine, server: RedisServer) -> list[int]:
    """How many members each script of a scan drops."""
    calls = engine._calls
    plan = redis_calls.find(redis_calls.Wanted(ROWS, b"ada", b"", 5), calls._keys, is_cluster=False)
    requests, left = next(plan), [count_members(engine, server)[1]]
    with suppress(StopIteration):
        while True:
            requests = plan.send(calls._threads.ask(requests))
            left.append(count_members(engine, server)[1])
    return [before - after for before, after in pairwise([*left, count_members(engine, server)[1]])]


def find_among_the_dead(server: RedisServer) -> None:
    """A scan that walks over members without rows drops them, and a thousand at most in one script."""
    with opened(server.url, timeout=timedelta(seconds=20)) as engine:
        leave_members(engine, server, 7_000)
        put(engine, b"z", n=1, who=b"ada")
        assert count_members(engine, server) == (7_001, 7_001)
        dropped = count_dropped(engine, server)
        assert (sum(dropped), max(dropped)) == (7_000, 1_000)
        leave_members(engine, server, 7_000)
        assert (find(engine, b"ada", limit=5), find(engine, limit=5)) == ([b"z"], [b"z"])
        assert count_members(engine, server) == (1, 1)


def test_a_scan_drops_members_without_rows_and_keeps_nobody_waiting(server: RedisServer) -> None:
    find_among_the_dead(server)


@pytest.mark.parametrize("change", [("local left = 1000", "local left = 7999"), ("redis.pcall('ZREM'", "redis.pcall('ZCARD'")])
def test_control_a_scan_that_looks_at_all_at_once_or_keeps_them(
    change: tuple[str, str], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert change[0] in FIND
    monkeypatch.setattr(redis_calls, "FINDING", Script(FIND.replace(*change)))
    with pytest.raises(AssertionError):
        find_among_the_dead(server)


def test_a_scan_goes_on_where_it_has_stopped(server: RedisServer) -> None:
    """Rows of all partitions, more than one script looks at, in the order of their keys, page by page."""
    with opened(server.url, timeout=timedelta(seconds=20)) as engine:
        keys = [b"%04d" % number for number in range(2_000)]
        for partition in range(engine.partitions):
            records = [Record(ROWS, key, partition) for key in keys if int(key) * 7 % engine.partitions == partition]
            writes = [Put(record, {"who": b"ada" if partition == 5 else b"bob", "n": 1}) for record in records]
            assert engine.sync.transact(Transaction(records, writes=writes)).applied
        for limit, most in ((1, 20), (7, 140), (100, 2_000), (5_000, 2_000)):
            assert walk(engine, limit, most) == keys[:most]
        assert find(engine, b"ada", 5_000) == [key for key in keys if int(key) * 7 % engine.partitions == 5]


def walk(engine: RedisEngine, limit: int, most: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < most:
        page = engine.sync.scan(ROWS, after=found[-1] if found else b"", limit=limit)
        found += [key for key, _ in page]
        if len(page) < limit:
            break
    return found


def test_a_row_that_has_expired_is_made_again_without_what_it_had(server: RedisServer) -> None:
    """Redis has its key still where its clock and the column differ."""
    with opened(server.url) as engine, server.client() as client:
        put(engine, b"a", n=1, who=b"ada")
        key = engine._calls._keys.find_rows(0, ROWS) + b"a"
        client.hset(key, "expires", 1)
        put(engine, b"a", who=b"bob")
        record = Record(ROWS, b"a")
        assert engine.sync.transact(Transaction([record])).rows == ({"n": None, "who": b"bob", "expires": None},)
        assert (find(engine, b"ada"), find(engine, b"bob"), client.pttl(key)) == ([], [b"a"], -1)
        put(engine, b"a", expires=Now(60_000))
        client.hset(key, "expires", 1)
        put(engine, b"a", n=2)
        assert (engine.sync.transact(Transaction([record])).rows[0] or {})["n"] == 2
        assert client.pttl(key) == -1
        engine.sync.transact(Transaction([record], writes=[Delete(record)]))
        assert client.exists(key) == 0


# Servers that do not keep what they acknowledge


def read(engine: RedisEngine) -> tuple[Any, ...]:
    return engine.sync.transact(Transaction([Record(ROWS, b"a")])).rows


async def read_async(engine: RedisEngine) -> tuple[Any, ...]:
    try:
        return (await engine.transact(Transaction([Record(ROWS, b"a")]))).rows
    except (ConfigurationError, EngineError):
        await asyncio.sleep(0.05)  # asyncio closes a connection whose handshake has failed
        raise


def refuse(engine: RedisEngine, kind: type[Exception], words: str) -> None:
    """Nothing is read, with await and without, and a look says why."""
    with pytest.raises(kind, match=words):
        read(engine)
    with pytest.raises(kind, match=words):
        asyncio.run(read_async(engine))
    with pytest.raises(kind, match=words):
        engine.sync.check()


def test_a_server_that_syncs_nothing_while_it_rewrites_its_log_is_refused() -> None:
    with running(*DURABLE, "--no-appendfsync-on-rewrite", "yes") as server:
        words = "no-appendfsync-on-rewrite yes, .* set no-appendfsync-on-rewrite no, .*vouch=appendfsync"
        for durability in ("acknowledged", "relaxed"):
            with opened(server.url, durability=durability) as engine:
                refuse(engine, ConfigurationError, words)
        with opened(server.url, vouched=["appendfsync"]) as engine:
            assert engine.sync.check().details["no-appendfsync-on-rewrite"] == "yes"
        with server.client() as client:
            client.config_set("no-appendfsync-on-rewrite", "no")
        with opened(server.url) as engine:
            assert engine.sync.check().durability == "acknowledged"


def test_a_replica_answers_no_reads_and_a_failover_is_spoken_of(server: RedisServer) -> None:
    with running(*DURABLE) as first, running(*DURABLE, "--replicaof", "127.0.0.1", str(first.port)) as second:
        with opened(second.url) as engine:
            refuse(engine, EngineError, "this server is a replica")
        with first.client() as client:
            wait_until(lambda: client.info("replication")["connected_slaves"] == 1, "The replica does not follow.")
        with opened(first.url) as engine:
            assert "loses what the new server has not got" in engine.sync.check().details["failover"]
    with opened(server.url) as engine:
        assert "failover" not in engine.sync.check().details


def test_a_cluster_is_spoken_of_as_one_that_has_failovers(cluster: RedisCluster) -> None:
    with opened(cluster.url) as engine:
        assert "loses what the new server has not got" in engine.sync.check().details["failover"]


def test_settings_that_cannot_be_read_are_neither_wrong_nor_right() -> None:
    assert read_settings([b"redis_version:7.4.1\r\n", Exception(), Exception()]) == {"redis_version": "7.4.1"}
    names = ("appendonly", "appendfsync", "maxmemory-policy")
    for version in ("7.0-rc1", "8", "255.255.255", "unstable"):
        Settings("redis://cache", timeout_s=1, vouched=names).judge({"redis_version": version})
    with pytest.raises(ConfigurationError, match="does not let its setting appendonly be read"):
        Settings("redis://cache", timeout_s=1).judge({"redis_version": "7.4.1"})


# Urls


@pytest.mark.parametrize(
    "words", ["max_connections=10", "timeout=5", "timout=3", "ssl_cert_reqs=none", "single_connection_client=true"]
)
def test_what_no_connection_takes_is_refused_at_once(words: str) -> None:
    for scheme in ("redis", "redis+cluster"):
        with pytest.raises(ConfigurationError, match="most_connections= of RedisEngine") as found:
            RedisEngine(f"{scheme}://cache/0?{words}")
        assert "timout" not in str(found.value)  # it may be a part of a password


def test_what_a_connection_takes_reaches_it(server: RedisServer) -> None:
    with opened(f"{server.url}?client_name=shop&health_check_interval=7&socket_timeout=0.5&protocol=3") as engine:
        assert read(engine) == asyncio.run(read_async(engine)) == (None,)
        with server.client() as client:
            assert "shop" in {found["name"] for found in client.client_list()}
    RedisEngine("rediss://cache?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:/hunter2@cache/0",
        "redis://:12/hunter2@cache/0",
        "redis://:?hunter2@cache/0",
        "redis://:?a=1&hunter2@cache/0",
        "redis+cluster://:/hunter2@one,two",
        "rediss://app:7/hunter2@cache",
        "unix://app:p/hunter2@/run/redis.sock",
        "redis://cache:6379/hunter2",
    ],
)
def test_a_password_that_is_not_encoded_is_shown_nowhere(url: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoding") as found:
        RedisEngine(url)
    assert "hunter2" not in f"{found.value!r} {found.value.__cause__!r}"


def test_a_path_of_a_socket_and_a_number_of_a_database_are_shown() -> None:
    shown = [RedisEngine(url).url for url in ("unix://:a%2Fb@/run/redis%40a.sock?db=2", "redis://cache/", "redis://cache/3")]
    assert shown == ["unix:///run/redis%40a.sock", "redis://cache/", "redis://cache/3"]


# What is told


def test_why_there_is_no_tls_is_told(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    authority = f"{tmp_path}/cert.pem"
    files = ("--tls-cert-file", authority, "--tls-key-file", f"{tmp_path}/key.pem", "--tls-ca-cert-file", authority)
    port = find_free_port()
    with running(*DURABLE, "--tls-port", str(port), *files, "--tls-auth-clients", "no"):
        for url, words in (
            (f"rediss://localhost:{port}/0?ssl_ca_certs={authority}", "for another name than the host"),
            (f"rediss://127.0.0.1:{port}/0", "its certificate is not trusted"),
            (f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/nowhere.pem", "no file of a name that the url has"),
            (f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/key.pem", "TLS does not come about"),
            (f"redis://127.0.0.1:{port}/0", "write rediss://"),
            (f"unix://{tmp_path}/nowhere.socket", "no file of a name that the url has"),
        ):
            with opened(url) as engine:
                refuse(engine, EngineError, words)


def test_keys_of_somebody_else_are_neither_found_nor_told(server: RedisServer) -> None:
    with opened(server.url) as engine, server.client() as client:
        prefix = engine._calls._settings.prefix
        for key in ("{hunter2}:plain:a", "{}:plain:a", "{999999}:plain:a", "{77}:plain:a", "{1}:others:}:plain:a", "{1}:plain"):
            client.hset(f"{prefix}:{key}", "n", 1)
        record = Record(PLAIN, b"a}:plain:b", 5)
        engine.sync.transact(Transaction([record], writes=[Put(record, {"n": 1})]))
        assert [key for key, _ in engine.sync.scan(PLAIN)] == [b"a}:plain:b"]
        client.hset(f"{prefix}:{{1}}:plain:b", "n", "hunter2")
        for kind in ("sync", "asyncio"):
            with pytest.raises(EngineError, match="A row of plain holds something else") as found:
                engine.sync.scan(PLAIN) if kind == "sync" else asyncio.run(engine.scan(PLAIN))
            assert "hunter2" not in f"{found.value!r} {found.value.__cause__!r}"


def test_a_row_ends_at_a_moment() -> None:
    with pytest.raises(ConfigurationError, match="expires of sessions is int"):
        Table("sessions", {"expires": bytes})


# Time


def write_large(server: RedisServer) -> Counter[str]:
    """What 60 writes of 200 kB come to that wait together, over a wire on which they take twice as long as they may."""
    wire = Wire(server.port, pause_s=0.005)
    timeout = timedelta(seconds=0.5)

    async def run(engine: RedisEngine) -> list[Any]:
        await read_async(engine)
        records = [Record(PLAIN, b"%d" % number) for number in range(60)]
        calls = [engine.transact(Transaction([one], writes=[Put(one, {"data": bytes(200_000)})])) for one in records]
        found = await asyncio.gather(*calls, return_exceptions=True)
        wire.close()
        await asyncio.sleep(0.05)  # asyncio closes a connection of which a half is not sent
        return found

    with opened(f"redis://127.0.0.1:{wire.port}/0", timeout=timeout) as engine:
        return Counter(type(found).__name__ for found in asyncio.run(run(engine)))


def test_of_much_that_waits_together_most_is_answered_or_not_sent(server: RedisServer) -> None:
    found = write_large(server)
    print(found)
    assert found["Outcome"] >= 5
    assert found["CommitUnknownError"] <= 6


def test_control_of_one_large_pipeline_nobody_can_tell_anything(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.engines.redis.loops.MOST_BYTES_AT_ONCE", 2**40)
    assert write_large(server)["CommitUnknownError"] > 30


@pytest.mark.parametrize("kind", ["asyncio", "trio", "sync"])
def test_a_scan_ends_in_its_time_beside_many_keys_of_others(kind: str) -> None:
    """It has many steps, of which each is short."""
    with running("--appendonly", "no") as server, server.client() as client:
        for _ in range(10):
            client.mset({uuid4().hex: 1 for _ in range(5_000)})
        wire = Wire(server.port, pause_s=0.02)
        url = f"redis://127.0.0.1:{wire.port}/0?vouch=appendonly,appendfsync"
        with opened(url, timeout=timedelta(seconds=0.3)) as engine:
            engine.sync.transact(Transaction([Record(PLAIN, b"a")]))
            began = time.monotonic()
            with pytest.raises(EngineError, match=r"busy|answer"):
                scan(kind, engine)
            assert time.monotonic() - began < 1
            assert engine.sync.purge(ROWS) == 0
        wire.close()


def scan(kind: str, engine: RedisEngine) -> None:
    if kind == "sync":
        engine.sync.scan(PLAIN)
    elif kind == "asyncio":
        asyncio.run(engine.scan(PLAIN))
    else:
        trio.run(engine.scan, PLAIN)
