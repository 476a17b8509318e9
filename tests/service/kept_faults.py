"""What tests do to the place of a session service: hold it up, cut its connections, fill it."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg

from dcaf.engines import Engine, PostgresEngine, RedisEngine, SqliteEngine
from dcaf.service import SessionService
from tests.conftest import program
from tests.engines.postgres_servers import execute, get_server, run
from tests.engines.redis_servers import RedisServer, share_cluster, share_server, wait_until
from tests.service.kept_places import ON_MEMORY, KeptPlace

SHORT: Final = timedelta(seconds=0.6)
PATIENCE: Final = timedelta(seconds=30)
"""For calls that somebody holds up for a while, and for those that write much, beside other tests."""

PAUSE_MS: Final = 60_000
ROOM: Final = 300_000
LOG_BYTES: Final = 16 * 1024 * 1024
"""Of a file of PostgreSQL's log."""


def open_with(place: KeptPlace, *, connections: int = 4, timeout: timedelta = SHORT) -> SessionService:
    """A service whose calls have so much time, over so many connections. On memory neither matters."""
    engine: Engine
    if place.kind in ON_MEMORY:
        return place.open_service()
    if place.kind == "sqlite":
        engine = SqliteEngine(place.where, timeout=timeout)
    elif place.kind == "postgres":
        engine = PostgresEngine(place.where, schema=place.prefix, timeout=timeout, pool_size=connections)
    else:
        engine = RedisEngine(place.where, prefix=place.prefix, timeout=timeout, most_connections=connections)
    place._engines.append(engine)
    return SessionService(engine, app="clinic")


@contextmanager
def holding_up(place: KeptPlace) -> Iterator[None]:
    """Let nobody write there for a while: what is sent waits. The tables are there already."""
    if place.kind == "sqlite":
        other = sqlite3.connect(place.where, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.close()
    elif place.kind == "postgres":
        with psycopg.connect(place.where) as connection:
            connection.execute(f'LOCK TABLE "{place.prefix}".dcaf_kept_sessions'.encode())
            yield
    else:
        with ExitStack() as stack:
            for server in find_servers(place):
                client = stack.enter_context(server.client())
                client.client_pause(PAUSE_MS, all=False)
                stack.callback(client.client_unpause)
            yield


def find_servers(place: KeptPlace) -> list[RedisServer]:
    return share_cluster().servers if place.kind == "redis-cluster" else [share_server()]


def wait_until_held_up(place: KeptPlace, number: int = 1) -> None:
    """Wait until so many writes wait for who holds them up."""
    if place.kind != "sqlite":
        wait_until(lambda: count_waiting(place) >= number, "Nobody waits.", seconds=10)


def count_waiting(place: KeptPlace) -> int:
    if place.kind == "postgres":
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dcaf' AND wait_event_type = 'Lock'"
        return int(execute(place.where, waiting)[0][0])
    found = 0
    for server in find_servers(place):
        with server.client() as client:
            found += int(client.info("clients")["blocked_clients"])
    return found


def cut_connections(place: KeptPlace) -> None:
    """End all connections of engines, also those that wait."""
    if place.kind == "postgres":
        execute(place.where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dcaf'")
        return
    for server in find_servers(place):
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)


@contextmanager
def filling_up(place: KeptPlace) -> Iterator[None]:
    """Leave room for a few hundred kilobytes more, and none for a megabyte."""
    if place.kind == "sqlite":
        with _limiting_own_files(Path(place.where + "-wal").stat().st_size + ROOM):
            yield
    elif place.kind == "postgres":
        table = f"oid = '\"{place.prefix}\".dcaf_kept_messages'::regclass"
        statement = f"SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE {table}"
        size = int(execute(place.where, statement)[0][0])
        assert size > LOG_BYTES, "The limit is for the files of its log, too."
        _limit_files_of_backends(f"{size + ROOM}")
        try:
            yield
        finally:
            _limit_files_of_backends("unlimited")
    else:
        with ExitStack() as stack:
            for server in find_servers(place):
                client = stack.enter_context(server.client())
                client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + ROOM)
                stack.callback(client.config_set, "maxmemory", 0)
            yield


@contextmanager
def _limiting_own_files(size: int) -> Iterator[None]:
    """Let files of this process become so large, and no larger."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)


def _limit_files_of_backends(size: str) -> None:
    """The same of the processes that serve engines in PostgreSQL."""
    backends = execute(get_server().url(), "SELECT pid FROM pg_stat_activity WHERE application_name = 'dcaf'")
    for (pid,) in backends:
        run([program("prlimit"), f"--pid={pid}", f"--fsize={size}:"])
