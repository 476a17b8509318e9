"""What a Redis engine is told, and servers that would lose or drop what they acknowledge: refused, or vouched for."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError
from dcaf.engines import Put, Record, RedisEngine, Table, Transaction, open_engine
from dcaf.engines.redis.settings import Settings
from tests.engines.engine_processes import COUNTS, add
from tests.engines.redis_servers import DURABLE, RedisServer, running, wait_until

BLOBS = Table("blobs", {"data": bytes})
SECOND = ("--appendonly", "yes", "--appendfsync", "everysec")
NO_CONFIG = ("--rename-command", "CONFIG", "")
EVICTING = ("--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru")
FULL = ("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")


@contextmanager
def opened(server: RedisServer, **settings: Any) -> Iterator[RedisEngine]:
    engine = RedisEngine(server.url, **{"prefix": f"test-{uuid4().hex[:16]}", **settings})
    engine.declare([COUNTS, BLOBS])
    try:
        yield engine
    finally:
        engine.sync.close()


def refuse(server: RedisServer, *words: str, **settings: Any) -> None:
    """The first call is refused, with await and without, and the message has these words."""
    with opened(server, **settings) as engine:
        for call in (lambda: engine.sync.transact(add()), lambda: asyncio.run(engine.transact(add())), engine.sync.check):
            with pytest.raises(ConfigurationError) as found:
                call()
            assert all(word in str(found.value) for word in words), str(found.value)


def accept(server: RedisServer, expected: str, **settings: Any) -> dict[str, str]:
    """It works, with await and without; returns what it says of itself."""
    with opened(server, **settings) as engine:
        assert engine.sync.transact(add()).applied
        assert asyncio.run(engine.transact(add())).applied
        health = engine.sync.check()
        assert health.durability == expected
        return dict(health.details)


# Settings


def test_a_server_without_a_log_is_refused() -> None:
    with running() as server:
        words = ("appendonly no", "set appendonly yes", "vouched=", "?vouch=appendonly")
        refuse(server, *words)
        refuse(server, *words, durability="relaxed")
        assert accept(server, "acknowledged", vouched=["appendonly", "appendfsync"])["vouched"] == "appendfsync, appendonly"


def test_a_log_that_is_written_once_a_second_is_for_what_may_be_lost() -> None:
    with running(*SECOND) as server:
        refuse(server, "appendfsync everysec", "set appendfsync always", 'durability="relaxed"', "vouched=", "when the power goes")
        assert accept(server, "relaxed", durability="relaxed")["appendfsync"] == "everysec"
        accept(server, "acknowledged", vouched=("appendfsync",))


def test_a_log_that_is_left_to_the_system_is_refused() -> None:
    with running("--appendonly", "yes", "--appendfsync", "no") as server:
        refuse(server, "appendfsync no", "set appendfsync always")
        refuse(server, "appendfsync no", "set appendfsync always", durability="relaxed")


def test_a_server_that_drops_rows_is_refused() -> None:
    with running(*DURABLE, *EVICTING) as server:
        refuse(server, "maxmemory-policy allkeys-lru", "set maxmemory-policy noeviction", "log-out", "?vouch=maxmemory-policy")
        refuse(server, "maxmemory-policy allkeys-lru", durability="relaxed")
        accept(server, "acknowledged", vouched=("maxmemory-policy",))
    with running(*DURABLE, "--maxmemory-policy", "allkeys-lru") as server:  # without a limit it drops nothing
        accept(server, "acknowledged")


def attempt(engine: RedisEngine, transaction: Transaction) -> Any:
    try:
        return engine.sync.transact(transaction)
    except EngineError as error:
        return error


def fill(engine: RedisEngine) -> list[bool]:
    """Write some rows, and many others; whether each write was acknowledged, and at the end whether the first rows are there."""
    first = [Record(COUNTS, b"log-out-%d" % number) for number in range(50)]
    for record in first:
        engine.sync.transact(add(record.key))
    written = []
    for number in range(60):
        record = Record(BLOBS, b"%d" % number)
        found = attempt(engine, Transaction([record], writes=[Put(record, {"data": bytes(200_000)})]))
        assert not isinstance(found, Exception) or (type(found) is EngineError and "memory is full" in str(found))
        written.append(not isinstance(found, Exception))
    return [all(written), None not in engine.sync.transact(Transaction(first)).rows]


def test_a_server_whose_memory_is_full_refuses_and_drops_nothing() -> None:
    with running(*DURABLE, *FULL) as server, opened(server) as engine:
        assert fill(engine) == [False, True]


def test_control_one_that_drops_rows_takes_a_log_out_back() -> None:
    with running(*DURABLE, *EVICTING) as server, opened(server, vouched=("maxmemory-policy",)) as engine:
        assert fill(engine) == [True, False]


@pytest.mark.parametrize("options", [DURABLE, SECOND])
def test_a_server_that_forbids_config_is_vouched_for(options: tuple[str, ...]) -> None:
    with running(*options, *NO_CONFIG) as server:
        refuse(server, "does not let its setting appendfsync be read", 'vouched=("appendfsync",)', "?vouch=appendfsync")
        assert "appendfsync" not in accept(server, "acknowledged", vouched=("appendfsync",))
        with pytest.raises(ConfigurationError, match="appendfsync"):
            open_counts(f"{server.url}").sync.transact(add())
        engine = open_counts(f"{server.url}?vouch=appendfsync&socket_keepalive=yes")
        assert engine.sync.transact(add()).applied
        engine.sync.close()


def test_a_server_that_forbids_config_is_still_asked_for_what_else_it_says() -> None:
    with running(*NO_CONFIG) as server:
        refuse(server, "appendonly no", vouched=("appendfsync",))
    with running(*DURABLE, *NO_CONFIG, *EVICTING) as server:
        refuse(server, "maxmemory-policy allkeys-lru", vouched=("appendfsync",))


def test_a_user_who_may_read_no_setting_vouches_for_all() -> None:
    with running(*DURABLE) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "shop", "on", ">hunter2", "~*", "+@all", "-info", "-config")
        url = server.url.replace("//", "//shop:hunter2@")
        with pytest.raises(ConfigurationError, match="appendonly be read"):
            open_counts(url).sync.transact(add())
        engine = open_counts(url, vouched=("appendonly", "appendfsync", "maxmemory-policy"))
        assert engine.sync.transact(add()).applied
        assert (engine.url, "hunter2" in repr(engine)) == (server.url, False)
        engine.sync.close()


def test_a_setting_that_was_changed_is_seen_by_a_look_and_by_the_next_connection() -> None:
    with running(*DURABLE) as server, opened(server) as engine, server.client() as client:
        engine.sync.check()
        client.config_set("appendfsync", "no")
        with pytest.raises(EngineError, match="appendfsync no"):
            engine.sync.check()
        client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(ConfigurationError, match="appendfsync no"):
            engine.sync.transact(add())


def test_a_replica_takes_no_writes() -> None:
    with running(*DURABLE) as server, opened(server) as engine:
        engine.sync.transact(add())
        with server.client() as client:
            client.replicaof("127.0.0.1", 1)
        for call in (lambda: engine.sync.transact(add()), lambda: asyncio.run(engine.transact(add())), engine.sync.check):
            with pytest.raises(EngineError, match="replica") as found:
                call()
            assert type(found.value) is EngineError
        with server.client() as client:
            client.replicaof("NO", "ONE")
        assert engine.sync.transact(add()).applied


def test_who_may_not_do_what_the_engine_needs_is_told() -> None:
    with running(*DURABLE) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all", "-evalsha")
            client.execute_command("ACL", "SETUSER", "half", "on", ">hunter2", "~*", "+@all", "-hset")
        for user, kind in (("reader", EngineError), ("half", CommitUnknownError)):
            engine = open_counts(server.url.replace("//", f"//{user}:hunter2@"))
            with pytest.raises(EngineError, match="may not run") as found:
                engine.sync.transact(add())
            assert type(found.value) is kind
            engine.sync.close()


def test_a_password_is_in_no_message() -> None:
    with running(*DURABLE) as server:
        with server.client() as client:
            client.config_set("requirepass", "hunter2")
        for url in (server.url, server.url.replace("//", "//:hunter3@"), "redis://:hunter3@127.0.0.1:1/0"):
            engine = open_counts(url, timeout=timedelta(seconds=0.5))
            for kind in ("sync", "asyncio"):
                with pytest.raises(EngineError) as found:
                    engine.sync.transact(add()) if kind == "sync" else asyncio.run(engine.transact(add()))
                assert "hunter" not in f"{found.value!r} {found.value.__cause__!r} {engine!r} {engine.url}"
                assert type(found.value) is EngineError
            engine.sync.close()
        engine = open_counts(server.url.replace("//", "//:hunter2@"))
        assert engine.sync.transact(add()).applied
        engine.sync.close()


def open_counts(url: str, **settings: Any) -> RedisEngine:
    engine = RedisEngine(url, **{"prefix": f"test-{uuid4().hex[:16]}", **settings})
    engine.declare([COUNTS])
    return engine


# Kills


def count_under_kills(server: RedisServer, kills: int, **settings: Any) -> tuple[int, int, int]:
    """How many writes were acknowledged, of how many nobody can tell, and how many the server has, after it was killed so often."""
    acknowledged, unknown, is_over = 0, 0, threading.Event()

    def write() -> None:
        nonlocal acknowledged, unknown
        while not is_over.is_set():
            try:
                engine.sync.transact(add())
                acknowledged += 1
            except CommitUnknownError:
                unknown += 1
            except EngineError:
                time.sleep(0.005)

    with opened(server, **settings) as engine:
        engine.sync.transact(add())
        acknowledged += 1
        writing = threading.Thread(target=write)
        writing.start()
        for _ in range(kills):
            before = acknowledged
            wait_until(lambda before=before: acknowledged > before + 50, "Nothing is written.")
            server.kill()
            server.start()
        is_over.set()
        writing.join()
        row = engine.sync.transact(Transaction([Record(COUNTS, b"a")])).rows[0]
        return acknowledged, unknown, 0 if row is None else int(row["count"] or 0)


@pytest.mark.parametrize(("options", "durability"), [(DURABLE, "acknowledged"), (SECOND, "relaxed")])
def test_a_server_that_is_killed_loses_nothing_that_it_has_acknowledged(
    options: tuple[str, ...], durability: str, scale: float
) -> None:
    kills = max(2, round(8 * scale))
    with running(*options) as server:
        acknowledged, unknown, found = count_under_kills(server, kills, durability=durability)
    print(f"{kills} kills: {acknowledged} writes were acknowledged, {unknown} are unknown, {found} are there.")
    assert acknowledged > 50 * kills
    assert acknowledged <= found <= acknowledged + unknown


def test_control_one_without_a_log_loses_all() -> None:
    with running() as server:
        acknowledged, _, found = count_under_kills(server, 1, vouched=("appendonly", "appendfsync"))
    assert found < acknowledged


# Arguments


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        ("mysql://app:hunter2@db", {}, "begins with one of redis://"),
        ("redis:///0#hunter2", {}, "%23"),
        ("redis://:hunter2@[bad", {}, "percent-encoding"),
        ("redis://:hunter2@a,b/0", {}, "Only the url of a cluster"),
        ("redis://:hunter2@host:port/0", {}, "port"),
        ("redis://:hunter2@host/0?socket_timeout=soon", {}, "Invalid value for 'socket_timeout'"),
        ("redis://:hunter2@host/0?vouch=everything", {}, "appendonly, appendfsync, maxmemory-policy"),
        ("redis://host", {"vouched": ["save"]}, "takes the names"),
        ("redis://host", {"vouched": "appendfsync"}, "several names"),
        ("redis://host", {"vouched": 7}, "several names"),
        ("redis://host", {"durability": "none"}, "durability="),
        ("redis://host", {"timeout": timedelta()}, "longer than none"),
        ("redis://host", {"timeout": 1}, "timedelta"),
        ("redis://host", {"prefix": "a{b}"}, "prefix="),
        ("redis://host", {"prefix": ""}, "prefix="),
        ("redis://host", {"most_connections": 0}, "most_connections="),
        ("redis://host", {"sentinel": object()}, "sentinel="),
        (7, {}, "a url"),
    ],
)
def test_a_wrong_argument_is_told_without_a_password(url: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as found:
        RedisEngine(url, **settings)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://app:hunter2@cache:6380/3?vouch=appendfsync&ssl_password=hunter2", "rediss://cache:6380/3"),
        ("rediss+cluster://:hunter2@one:1,two/", "rediss+cluster://one:1,two/"),
        ("unix://app:hunter2@/run/redis.sock?db=2&password=hunter2", "unix:///run/redis.sock"),
        ("redis://:p%2Fhunter2%40@cache", "redis://cache"),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, shown: str) -> None:
    engine = open_engine(url)
    assert isinstance(engine, RedisEngine)
    assert (engine.url, repr(engine)) == (shown, f"RedisEngine({shown!r})")


@pytest.mark.parametrize("host", ["a..b", "-", "\u00e4" * 70])
def test_a_host_that_is_none_cannot_be_reached(host: str) -> None:
    engine = open_counts(f"redis://:hunter2@{host}/0")
    for kind in ("sync", "asyncio"):
        with pytest.raises(EngineError) as found:
            engine.sync.transact(add()) if kind == "sync" else asyncio.run(engine.transact(add()))
        assert type(found.value) is EngineError
        assert "hunter2" not in str(found.value)
    engine.sync.close()


def test_the_environment_may_name_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_STORAGE", "redis")
    monkeypatch.delenv("DB_CONNECTION_STRING", raising=False)
    with pytest.raises(ConfigurationError, match="DB_CONNECTION_STRING"):
        open_engine()
    monkeypatch.setenv("DB_CONNECTION_STRING", "redis://cache:6379/0")
    assert open_engine().url == "redis://cache:6379/0"


def test_the_client_library_gets_what_the_url_says_besides() -> None:
    settings = Settings("redis://app:p%40ss@cache:6380/3?vouch=appendfsync&health_check_interval=7", timeout_s=1)
    arguments = settings.build_arguments(is_async=False)
    assert arguments == {
        "username": "app",
        "password": "p@ss",
        "host": "cache",
        "port": 6380,
        "db": 3,
        "health_check_interval": 7,
    }


def test_a_release_that_is_too_old_is_refused() -> None:
    settings = Settings("redis://cache", timeout_s=1)
    with pytest.raises(ConfigurationError, match=r"6\.0\.16 is too old"):
        settings.judge({"redis_version": "6.0.16"})
