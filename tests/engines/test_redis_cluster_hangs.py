"""While a cluster answers nothing, every call ends in its time, also those that first ask who has the rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from dcaf.core.errors import EngineError
from dcaf.engines import Plus, Put, Record, RedisEngine, Table, Transaction
from tests.engines.redis_servers import DURABLE, RedisCluster, is_whole, wait_until

HITS = Table("hits", {"n": int})
TIMEOUT = timedelta(seconds=0.5)
LONGEST_S = 1.4


@pytest.fixture(scope="module")
def started() -> Iterator[RedisCluster]:
    cluster = RedisCluster(*DURABLE)
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(started: RedisCluster) -> RedisCluster:
    """A cluster whose servers know that all of them are there."""
    clients = [server.client() for server in started.servers]
    wait_until(lambda: all(map(is_whole, clients)), "The cluster does not come together.")
    for client in clients:
        client.close()
    return started


def add(at: int) -> Transaction:
    record = Record(HITS, b"%d" % at, at)
    return Transaction([record], writes=[Put(record, {"n": Plus(1)})])


async def time_burst(engine: RedisEngine) -> list[float]:
    """How long each of several calls takes that come at once and fail, in seconds."""

    async def time_one(at: int) -> float:
        began = time.monotonic()
        with pytest.raises(EngineError):
            await engine.transact(add(at))
        return time.monotonic() - began

    return await asyncio.gather(*map(time_one, range(8)))


def test_calls_to_a_cluster_that_hangs_end_in_time(cluster: RedisCluster) -> None:
    async def run() -> list[float]:
        engine = RedisEngine(cluster.url, timeout=TIMEOUT)
        engine.declare([HITS])
        await asyncio.gather(*(engine.transact(add(at)) for at in range(8)))
        for server in cluster.servers:
            server.freeze()
        took = [one for _ in range(4) for one in await time_burst(engine)]  # by the third nobody knows the servers any more
        for server in cluster.servers:
            server.thaw()
        await engine.aclose()
        return took

    assert max(asyncio.run(run())) < LONGEST_S


def test_one_server_that_hangs_keeps_nobody_from_the_others(cluster: RedisCluster) -> None:
    async def run() -> list[Exception | None]:
        engine = RedisEngine(cluster.url, timeout=TIMEOUT)
        engine.declare([HITS])
        await asyncio.gather(*(engine.transact(add(at)) for at in range(8)))
        cluster.servers[0].freeze()
        found: list[Exception | None] = []
        for _ in range(4):
            done = await asyncio.gather(*(engine.transact(add(at)) for at in range(8)), return_exceptions=True)
            found = [one if isinstance(one, Exception) else None for one in done]
        cluster.servers[0].thaw()
        await engine.aclose()
        return found

    failed = [one for one in asyncio.run(run()) if one is not None]
    assert 0 < len(failed) < 8
    assert all(isinstance(one, EngineError) for one in failed)
