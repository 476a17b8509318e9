"""Round trips of a turn of a session service, counted on the wire between it and Redis or PostgreSQL.

What a reader gets wrong: keys of a state that all sessions of an application share may lie elsewhere in Redis, and are asked for by
themselves, at the same time as the rest.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from dcaf.engines import Engine
from dcaf.service import SessionService
from tests.benchmarks.harness import folder
from tests.benchmarks.ledger_servers import OnWire, postgres_engine, redis_engine
from tests.benchmarks.service_ways import APP, POSTGRES, REDIS, SAID, state_of
from tests.benchmarks.store_servers import EACH_SECOND, Place, find_postgres, find_redis, postgres, redis
from tests.benchmarks.wire_trips import counted

FIRST: Final = "first turn of a session"
LATER: Final = "later turn"
APPENDED: Final = "one message added"
READ: Final = "newest messages read"


def measured() -> dict[str, Any] | None:
    """Server -> kind of turn -> round trips. None where one of the servers is not here."""
    if not (find_redis() and find_postgres()):
        return None
    with (
        folder() as at,
        redis(at / "redis", EACH_SECOND) as in_redis,
        postgres(at / "pg") as in_postgres,
        asyncio.Runner() as runner,
    ):
        return {
            REDIS: runner.run(count_all(at, in_redis)),
            POSTGRES: runner.run(count_all(at, in_postgres)),
        }


async def count_all(at: Path, place: Place, on_wire: type[OnWire] = OnWire) -> dict[str, Any]:
    """Kind of turn -> round trips until the application runs, and after it.

    Every kind is taken once before it counts: connections are opened, scripts are loaded and functions are made on first use.
    """
    between = place._replace(folder=at / f"service-{place.kind}")
    between.folder.mkdir()
    with counted(place.socket, between.socket) as wire:
        engine = on_wire(open_engine(between), wire)
        service = SessionService(engine, app=APP)
        await _count(service, engine)
        found = await _count(service, engine)
        await engine.aclose()
    return found


def open_engine(place: Place) -> Engine:
    """An engine over a server."""
    return postgres_engine(place.url) if place.kind == "postgres" else redis_engine(place.url, durability="relaxed")


async def _count(service: SessionService, engine: OnWire) -> dict[str, Any]:
    first, session = await _count_turn(service, engine, None)
    later, _ = await _count_turn(service, engine, session)
    before = engine.trips
    await service.append(user="ada", id=session, messages=[("user", SAID)])
    appended = engine.trips - before
    await service.messages(user="ada", id=session)
    return {FIRST: first, LATER: later, APPENDED: {"commit": appended}, READ: {"open": engine.trips - before - appended}}


async def _count_turn(service: SessionService, engine: OnWire, session_id: str | None) -> tuple[dict[str, int], str]:
    before = engine.trips
    async with service.open(user="ada", id=session_id) as session:
        opened = engine.trips - before
        session.messages.add("user", SAID)
        session.update(state_of(1))
    return {"open": opened, "commit": engine.trips - before - opened}, session.id
