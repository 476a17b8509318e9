"""Where the rows of a promise are: in a SQLite file, or on a server. Any process opens an engine of its own there.

>>> Place("memory", "memory://").open_engine().url
'memory://'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import pytest

from dcaf.engines import Engine, RedisEngine, open_engine
from tests.engines.redis_servers import DURABLE, RedisCluster, RedisServer, is_whole, wait_until

SECOND: Final = timedelta(seconds=1)
TENTH: Final = 0.1


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
        if self.url.startswith("redis"):
            return RedisEngine(self.url, timeout=timeout)
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


def in_file(path: Path) -> Place:
    """The place of rows in a SQLite file, which need not be there yet."""
    return Place("SQLite", f"sqlite:///{path}")


def on_redis(server: RedisServer) -> Place:
    """The place of rows on a Redis that has none."""
    empty(server)
    return Place("Redis", server.url)


def on_cluster(cluster: RedisCluster) -> Place:
    """The same on a cluster."""
    for server in cluster.servers:
        empty(server)
    return Place("Redis Cluster", cluster.url, TENTH)


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


@pytest.fixture
def file(tmp_path: Path) -> Place:
    """A SQLite file, for controls that break what does not depend on the engine."""
    return in_file(tmp_path / "dcaf.db")


@pytest.fixture(params=["sqlite", "redis", "redis-cluster"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each kind of place in turn, without rows."""
    find: dict[str, Callable[[], Place]] = {
        "sqlite": lambda: in_file(tmp_path / "dcaf.db"),
        "redis": lambda: on_redis(request.getfixturevalue("redis_server")),
        "redis-cluster": lambda: on_cluster(request.getfixturevalue("redis_cluster")),
    }
    return find[request.param]()
