"""A ledger over Redis and over PostgreSQL, next to the smallest question that the same client library can ask the same server.

The rows are those of a ledger over SQLite (``ledger_turns``), and so are the turns. Each server listens on a Unix socket, and has
its files on the disk of the other benchmarks.

What a reader gets wrong: a PING waits for no disk. So the ratio to it is taken with a Redis that waits for none either, and what a
write costs that waits stands beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final, TypeAlias

from dcaf.core import SessionHost
from dcaf.engines import Durability, Engine
from dcaf.ledger import Ledger
from dcaf.ledger.origins import make_store
from dcaf.ledger.tables import store_row
from tests.benchmarks import server_rows, store_servers
from tests.benchmarks.harness import Batch, Effort, folder, interleaved, of_coroutine, take_turns, time_together, written
from tests.benchmarks.ledger_engines import TIMEOUT_S, Around, Timed, sqlite_engine
from tests.benchmarks.ledger_turns import (
    FEW,
    SAMPLED,
    Conversation,
    close_engines,
    count_trips,
    disk_us,
    find_origin,
    time_in_engine,
)
from tests.benchmarks.sealing import AUDIENCE, RING
from tests.benchmarks.store_servers import Place
from tests.benchmarks.wire_trips import Wire, counted

SQLITE: Final = "SQLite"
REDIS: Final = "Redis, every write synced"
REDIS_EACH_SECOND: Final = "Redis, synced each second"
POSTGRES: Final = "PostgreSQL"
FLOORS: Final = {REDIS: "PING", REDIS_EACH_SECOND: "PING", POSTGRES: "SELECT 1"}
"""Row -> the smallest question to its server."""

TOGETHER: Final = (8, 64)
TIMEOUT: Final = timedelta(seconds=TIMEOUT_S)
Fill: TypeAlias = Callable[[int, int], None]
"""Writes so many sessions, of an epoch."""


def redis_engine(url: str, *, durability: Durability = "acknowledged") -> Engine:
    """A Redis engine."""
    from dcaf.engines.redis.engine import RedisEngine

    return RedisEngine(url, durability=durability, timeout=TIMEOUT)


def postgres_engine(url: str) -> Engine:
    """A PostgreSQL engine."""
    from dcaf.engines.postgres.engine import PostgresEngine

    return PostgresEngine(url, timeout=TIMEOUT)


def open_engine(name: str, place: Place) -> Engine:
    """The engine of a row."""
    if name == POSTGRES:
        return postgres_engine(place.url)
    return redis_engine(place.url, durability="acknowledged" if name == REDIS else "relaxed")


class OnWire(Around):
    """An engine whose server is behind a wire that counts."""

    def __init__(self, inner: Engine, wire: Wire) -> None:
        super().__init__(inner)
        self._wire = wire

    @property
    def trips(self) -> int:
        """How many round trips there were."""
        return self._wire.trips


def are_here() -> bool:
    """Whether both servers are on this machine."""
    return store_servers.find_redis() is not None and store_servers.find_postgres() is not None


def measured(effort: Effort, *, many: int) -> dict[str, Any] | None:
    """All of it; ``many`` is the number of sessions of the larger ledger. None where one of the servers is not here."""
    if not are_here():
        return None
    with folder() as at, servers(at) as places, asyncio.Runner() as runner:
        return {
            "disk_us": disk_us(at),
            "trips": {name: trips(runner, at, name, places[name]) for name in (REDIS, POSTGRES)},
            "floors": {name: beside_floor(runner, name, place, effort) for name, place in places.items()},
            "at_once": at_once(runner, at, places, effort),
            "growth": {
                REDIS: growth_of_redis(runner, at, effort, many),
                POSTGRES: growth_of_postgres(runner, places, effort, many),
            },
        }


@contextmanager
def servers(at: Path) -> Iterator[dict[str, Place]]:
    """All servers while the block runs."""
    with (
        store_servers.redis(at / "always", store_servers.SYNCED) as synced,
        store_servers.redis(at / "everysec", store_servers.EACH_SECOND) as each_second,
        store_servers.postgres(at / "pg") as postgres,
    ):
        yield {REDIS: synced, REDIS_EACH_SECOND: each_second, POSTGRES: postgres}


def trips(runner: asyncio.Runner, at: Path, name: str, place: Place, on_wire: type[OnWire] = OnWire) -> dict[str, Any]:
    """Kind of turn -> round trips until the application runs, and after it; counted on the wire.

    Every kind is taken once before it counts: connections are opened, scripts are loaded and functions are made on first use.
    """
    between = place._replace(folder=at / f"wire-{place.kind}")
    between.folder.mkdir()
    found: dict[str, Any] = {}
    with counted(place.socket, between.socket) as wire:
        engine = on_wire(open_engine(name, between), wire)
        runner.run(_make_stores(engine))
        for level, freshness in (("L1", False), ("L2", True)):
            host = SessionHost(keys=RING, audience=AUDIENCE, store=Ledger(engine, audience=AUDIENCE, freshness=freshness))
            for subject, who in ((None, "anonymous"), ("ada", "with a subject")):
                runner.run(count_trips(host, engine, subject))
                found |= {f"{level}, {who}, {kind}": one for kind, one in runner.run(count_trips(host, engine, subject)).items()}
        runner.run(engine.aclose())
    return found


async def _make_stores(engine: Engine) -> None:
    """Make the store in each partition, which a ledger does when it first uses one."""
    ledger = Ledger(engine, audience=AUDIENCE)
    for partition in range(engine.partitions):
        await make_store(ledger, store_row(partition))


def beside_floor(runner: asyncio.Runner, name: str, place: Place, effort: Effort) -> dict[str, Any]:
    """Claim and commit of a turn, in the engine alone, and the smallest question through the same client library."""
    engine = Timed(open_engine(name, place))
    turn = Conversation(Ledger(engine, audience=AUDIENCE), 1).turn
    with asking(runner, place) as ask:
        subjects = {
            FLOORS[name]: of_coroutine(runner, ask),
            "claim": time_in_engine(runner, turn, partial(getattr, engine, "claims_s")),
            "commit": time_in_engine(runner, turn, partial(getattr, engine, "commits_s")),
        }
        found = written(interleaved(subjects, effort))
    runner.run(engine.aclose())
    return found


@contextmanager
def asking(runner: asyncio.Runner, place: Place) -> Iterator[Callable[[], Awaitable[object]]]:
    """What asks a server the smallest question, on a connection of the client library, while the block runs."""
    if place.kind == "redis":
        from redis.asyncio import Redis

        client = Redis.from_url(place.url)
        yield client.ping
        runner.run(client.aclose())
    else:
        from psycopg import AsyncConnection

        connection = runner.run(AsyncConnection.connect(place.url, autocommit=True))
        yield partial(connection.execute, "SELECT 1")
        runner.run(connection.close())


def at_once(runner: asyncio.Runner, at: Path, places: Mapping[str, Place], effort: Effort) -> dict[str, Any]:
    """Number of turns at once -> engine -> the time that each turn adds."""
    engines = {SQLITE: sqlite_engine(at / "dcaf.db")} | {name: open_engine(name, place) for name, place in places.items()}
    ledgers = {name: Ledger(engine, audience=AUDIENCE) for name, engine in engines.items()}
    found = {}
    for number in TOGETHER:
        subjects: dict[str, Batch] = {}
        for name, ledger in ledgers.items():
            conversations = [Conversation(ledger, 1_000 * number + one) for one in range(number)]
            subjects[name] = time_together(runner, [conversation.turn for conversation in conversations])
        found[str(number)] = written(interleaved(subjects, effort))
    close_engines(runner, *engines.values())
    return found


def growth_of_redis(runner: asyncio.Runner, at: Path, effort: Effort, many: int) -> dict[str, Any]:
    """A turn of one of ten sessions, and of one of many, each in a Redis of its own; the bytes of a session there."""
    with (
        store_servers.redis(at / "few", store_servers.SYNCED) as few_place,
        store_servers.redis(at / "many", store_servers.SYNCED) as many_place,
    ):
        ledgers = {FEW: Ledger(open_engine(REDIS, few_place), audience=AUDIENCE)}
        ledgers[many] = Ledger(open_engine(REDIS, many_place), audience=AUDIENCE)
        start = time.perf_counter()
        fills = {FEW: partial(server_rows.fill_redis, few_place.url), many: partial(server_rows.fill_redis, many_place.url)}
        found = _growth(runner, ledgers, fills, effort)
        return {**found, "took_s": round(time.perf_counter() - start, 1), "bytes": server_rows.bytes_in_redis(many_place.url, many)}


def growth_of_postgres(runner: asyncio.Runner, places: Mapping[str, Place], effort: Effort, many: int) -> dict[str, Any]:
    """The same in PostgreSQL, each in a schema of its own."""
    urls = {number: f"{places[POSTGRES].url}&schema=of_{number}" for number in (FEW, many)}
    ledgers = {number: Ledger(postgres_engine(url), audience=AUDIENCE) for number, url in urls.items()}
    start, url = time.perf_counter(), places[POSTGRES].url
    fills = {number: partial(server_rows.fill_postgres, url, f"of_{number}") for number in urls}
    found = _growth(runner, ledgers, fills, effort)
    return {
        **found,
        "took_s": round(time.perf_counter() - start, 1),
        "bytes": server_rows.bytes_in_postgres(url, f"of_{many}", many),
    }


def _growth(runner: asyncio.Runner, ledgers: Mapping[int, Ledger], fills: Mapping[int, Fill], effort: Effort) -> dict[str, Any]:
    samples = {}
    for number, ledger in ledgers.items():
        epoch = runner.run(find_origin(ledger))
        fills[number](number, epoch)
        step = max(1, number // SAMPLED)
        turns = cycle([Conversation(ledger, one, epoch=epoch).turn for one in range(1, number + 1, step)])
        samples[f"{number:,}"] = take_turns(runner, turns)
    found = written(interleaved(samples, effort))
    close_engines(runner, *(ledger.engine for ledger in ledgers.values()))
    return {"turns": found}
