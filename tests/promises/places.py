"""Where the rows of a promise are: in a SQLite file, or on a server. Any process opens an engine of its own there.

>>> Place("memory", "memory://").open_engine().url
'memory://'
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import pytest

from dcaf.engines import Engine, open_engine
from tests.engines import postgres_servers
from tests.engines.redis_servers import DURABLE, RedisCluster, RedisServer, is_whole, running, wait_until

SECOND: Final = timedelta(seconds=1)
TENTH: Final = 0.1


ON_SERVERS: Final = ("redis", "redis-cluster", "postgres", "pgbouncer")
"""The kinds of places that have a server, as tests name them."""

ENGINES: Final = ("sqlite", "redis", "postgres")
"""One kind of place for each engine, for controls."""


@dataclass(frozen=True)
class Place:
    """Where rows are, in a form that goes to another process.

    Attributes:
        name: What a reader calls it.
        url: As ``open_engine`` takes it.
        part: Which part of a promise's full numbers ``make promises`` runs here. ``make soak`` runs all of them.
    """

    name: str
    url: str
    part: float = 1.0

    def open_engine(self, timeout: timedelta = SECOND) -> Engine:
        """An engine, for this process."""
        return open_engine(self.url, timeout=timeout)


class Server(Protocol):
    """The server of a place, which may be killed while others use it."""

    def kill(self) -> None:
        """Kill all its processes with -9, and wait until they have ended."""

    def start(self) -> None:
        """Start it with the data that it left, and wait until it answers."""

    def freeze(self) -> None:
        """Stop all its processes, so that it takes connections and answers nothing."""

    def thaw(self) -> None:
        """Have them go on."""


class Nodes:
    """The servers of a cluster, as one.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: RedisCluster) -> None:
        self.servers = cluster.servers

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self._wait()

    def freeze(self) -> None:
        for server in self.servers:
            server.freeze()

    def thaw(self) -> None:
        for server in self.servers:
            server.thaw()
        self._wait()

    def _wait(self) -> None:
        """Wait until the nodes know of each other that they are back."""
        clients = [server.client() for server in self.servers]
        wait_until(lambda: all(map(is_whole, clients)), "The cluster does not come together.")
        for client in clients:
            client.close()


class Postgres:
    """A PostgreSQL.

    Args:
        server: The server.
    """

    def __init__(self, server: postgres_servers.Server) -> None:
        self.server = server

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def freeze(self) -> None:
        self.server.signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self.server.signal_all(signal.SIGCONT)


def in_file(path: Path) -> Place:
    """The place of rows in a SQLite file, which need not be there yet."""
    return Place("SQLite", f"sqlite:///{path}")


def on_redis(server: RedisServer) -> Place:
    """The place of rows on a Redis that has none."""
    empty(server)
    return Place("Redis", server.url)


@contextmanager
def on_forgetful_redis() -> Iterator[tuple[Place, Server]]:
    """The place of rows on a Redis as it comes, which keeps nothing: the operator says that it does."""
    with running() as server:
        yield Place("Redis", f"{server.url}?vouch=appendonly,appendfsync"), server


def on_cluster(cluster: RedisCluster) -> Place:
    """The same on a cluster."""
    for server in cluster.servers:
        empty(server)
    return Place("Redis Cluster", cluster.url, TENTH)


def on_postgres(server: postgres_servers.Server) -> Place:
    """The place of rows in a schema that is not there yet."""
    return Place("PostgreSQL", f"{server.url()}&schema={postgres_servers.name_schema()}")


def behind_pgbouncer(server: postgres_servers.Server, route: Callable[[str], str]) -> Place:
    """The same through a PgBouncer that knows nothing of prepared statements."""
    return Place("PgBouncer", f"{route(on_postgres(server).url)}&prepared=no", TENTH)


def empty(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that loses nothing."""
    server = RedisServer(*DURABLE)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster of three of them."""
    cluster = RedisCluster(*DURABLE)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres_servers.Server]:
    """A PostgreSQL as it comes."""
    server = postgres_servers.Server(postgres_servers.find_programs()[0])
    yield server
    server.stop()


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: postgres_servers.Server) -> Iterator[Callable[[str], str]]:
    """A PgBouncer before it: what makes its url of one of the server's."""
    with postgres_servers.bouncing(postgres_server, "server_login_retry = 1") as route:
        yield route


@pytest.fixture
def file(tmp_path: Path) -> Place:
    """A SQLite file, for controls that break what does not depend on the engine."""
    return in_file(tmp_path / "dcaf.db")


@pytest.fixture(params=["sqlite", *ON_SERVERS])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each kind of place in turn, without rows."""
    if request.param == "sqlite":
        return in_file(tmp_path / "dcaf.db")
    return find_place(request, request.param)[0]


@pytest.fixture(params=ON_SERVERS)
def served(request: pytest.FixtureRequest) -> tuple[Place, Server]:
    """Each kind of place that has a server, without rows, and the server."""
    return find_place(request, request.param)


def find_place(request: pytest.FixtureRequest, kind: str) -> tuple[Place, Server]:
    """A place of a kind, on the server of this run of tests."""
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return on_redis(server), server
    if kind == "redis-cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        return on_cluster(cluster), Nodes(cluster)
    postgres: postgres_servers.Server = request.getfixturevalue("postgres_server")
    if kind == "postgres":
        return on_postgres(postgres), Postgres(postgres)
    return behind_pgbouncer(postgres, request.getfixturevalue("pgbouncer")), Postgres(postgres)
