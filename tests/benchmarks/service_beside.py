"""Session services beside one another, in one process whose rows take turns: dcaf, google-adk, openai-agents.

    .venv/services/bin/python -m tests.benchmarks.service_beside FOLDER_OF_REDIS FOLDER_OF_POSTGRES

prints JSON. ``measured`` runs it in that environment, and starts the servers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from dcaf.engines import Engine
from tests.benchmarks import store_servers
from tests.benchmarks.harness import (
    FULL,
    QUICK,
    ROOT,
    Batch,
    Effort,
    folder,
    interleaved,
    of_coroutine,
    take_turns,
    time_together,
    written,
)
from tests.benchmarks.ledger_engines import TIMEOUT_S, sqlite_engine
from tests.benchmarks.service_ways import (
    ADK_DATABASE,
    ADK_SQLITE,
    AGENTS_REDIS,
    AGENTS_SQLALCHEMY,
    AGENTS_SQLITE,
    DCAF,
    IN_ONE,
    IN_WAL,
    LAST,
    POSTGRES,
    REDIS,
    SQLITE,
    Conversation,
    Dcaf,
    Library,
)
from tests.benchmarks.store_servers import Place

PYTHON: Final = Path(os.environ.get("DCAF_SERVICES", ROOT / ".venv" / "services")) / "bin" / "python"
"""The environment of the other libraries, which ``make bench`` makes. ``DCAF_SERVICES`` names another one."""

LIBRARIES: Final = ("google-adk", "openai-agents", "SQLAlchemy", "aiosqlite", "asyncpg", "redis", "hiredis", "psycopg")
DURABLE: Final = {SQLITE: "synchronous FULL", POSTGRES: "synchronous_commit on", REDIS: "appendonly yes, appendfsync everysec"}
"""What each connection has to say of its durability, at the end."""

SESSIONS: Final = 8
"""So many have turns, one after the other."""

TOGETHER: Final = 32
READERS: Final = 12
LONG: Final = 1_000
EVENTS: Final = (10, 100, 1_000, 10_000, 100_000)
FEW_EVENTS: Final = EVENTS[:-2]
READ: Final = EVENTS[0]
"""So many messages are read in a turn where sessions of different lengths are compared: the shortest has no more."""

POOLED: Final = 160
"""Events in all sessions of one length together: a short session would not stay short if all turns were its own."""


def measured(*, quick: bool) -> dict[str, Any] | None:
    """Everything, measured in the other environment. None where that, or one of the servers, is not here."""
    if not (PYTHON.exists() and store_servers.find_redis() and store_servers.find_postgres()):
        return None
    with (
        folder() as at,
        store_servers.redis(at / "redis", store_servers.EACH_SECOND) as redis,
        store_servers.postgres(at / "pg") as postgres,
    ):
        command = [str(PYTHON), "-m", __spec__.name, str(redis.folder), str(postgres.folder), *(["--quick"] if quick else [])]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(redis: Place, postgres: Place, effort: Effort, *, quick: bool) -> dict[str, Any]:
    """The same, in this environment."""
    with folder() as at, asyncio.Runner() as runner:
        libraries = {SQLITE: on_sqlite(at), POSTGRES: on_postgres(postgres), REDIS: on_redis(redis)}
        own = libraries[SQLITE]
        found = {
            "turns": {place: time_turns(runner, some, effort) for place, some in libraries.items()},
            "at_once": time_at_once(runner, pick(own, DCAF, AGENTS_SQLITE, ADK_SQLITE), effort),
            "long": time_long(runner, pick(own, DCAF, AGENTS_SQLITE, ADK_SQLITE, ADK_DATABASE), effort),
            "events": time_growth(runner, pick(own, DCAF, AGENTS_SQLITE, ADK_SQLITE), FEW_EVENTS if quick else EVENTS, effort),
            "durable": {place: runner.run(ask_all(some, DURABLE[place])) for place, some in libraries.items()},
            "versions": {name: version(name) for name in LIBRARIES},
        }
        runner.run(close_all(library for some in libraries.values() for library in some.values()))
    return found


def on_sqlite(at: Path) -> dict[str, Library]:
    """Those that keep sessions in a SQLite file, each in one of its own."""
    from tests.benchmarks import service_peers as peers

    return {
        DCAF: Dcaf(sqlite_engine(at / "dcaf.db")),
        AGENTS_SQLITE: peers.agents_sqlite(at / "agents.db"),
        AGENTS_SQLITE + IN_ONE: peers.agents_sqlite(at / "agents-one.db", peers.AT_ONCE),
        ADK_SQLITE: peers.AdkSqlite(at / "adk.db"),
        ADK_SQLITE + IN_WAL: peers.AdkSqlite(set_wal(at / "adk-wal.db")),
        ADK_DATABASE: peers.AdkDatabase(f"sqlite+aiosqlite:///{at / 'database.db'}"),
        ADK_DATABASE + IN_WAL: peers.AdkDatabase(f"sqlite+aiosqlite:///{set_wal(at / 'database-wal.db')}"),
    }


def set_wal(path: Path) -> Path:
    """Make a file in WAL mode, which stays in it; returns the path."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return path


def on_postgres(place: Place) -> dict[str, Library]:
    """Those that keep sessions in PostgreSQL, all in one."""
    from dcaf.engines.postgres.engine import PostgresEngine
    from tests.benchmarks import service_peers as peers

    url = f"postgresql+asyncpg://postgres@/postgres?host={place.folder}"
    engine: Engine = PostgresEngine(place.url, timeout=timedelta(seconds=TIMEOUT_S))
    return {
        DCAF: Dcaf(engine),
        AGENTS_SQLALCHEMY: peers.agents_sqlalchemy(url),
        AGENTS_SQLALCHEMY + IN_ONE: peers.agents_sqlalchemy(url, peers.AT_ONCE),
        ADK_DATABASE: peers.AdkDatabase(url),
    }


def on_redis(place: Place) -> dict[str, Library]:
    """Those that keep sessions in Redis, all in one."""
    from dcaf.engines.redis.engine import RedisEngine
    from tests.benchmarks import service_peers as peers

    engine: Engine = RedisEngine(place.url, durability="relaxed", timeout=timedelta(seconds=TIMEOUT_S))
    return {
        DCAF: Dcaf(engine),
        AGENTS_REDIS: peers.agents_redis(place.url),
        AGENTS_REDIS + IN_ONE: peers.agents_redis(place.url, peers.AT_ONCE),
    }


def pick(libraries: Mapping[str, Library], *names: str) -> dict[str, Library]:
    """Some of them."""
    return {name: libraries[name] for name in names}


def time_turns(runner: asyncio.Runner, libraries: Mapping[str, Library], effort: Effort) -> dict[str, Any]:
    """Turns, one after the other."""
    subjects: dict[str, Batch] = {}
    for name, library in libraries.items():
        begun = runner.run(begin_all(library, range(SESSIONS), LAST))
        subjects[name] = take_turns(runner, cycle([one.turn for one in begun]))
    return written(interleaved(subjects, effort))


def time_at_once(runner: asyncio.Runner, libraries: Mapping[str, Library], effort: Effort) -> dict[str, Any]:
    """Turns of 32 sessions at once; what each of them adds."""
    subjects: dict[str, Batch] = {}
    for name, library in libraries.items():
        begun = runner.run(begin_all(library, range(100, 100 + TOGETHER), LAST))
        subjects[name] = time_together(runner, [one.turn for one in begun])
    return written(interleaved(subjects, effort))


def time_long(runner: asyncio.Runner, libraries: Mapping[str, Library], effort: Effort) -> dict[str, Any]:
    """One message more, and the newest 50, of a session of 1,000."""
    appending: dict[str, Batch] = {}
    reading: dict[str, Batch] = {}
    for name, library in libraries.items():
        one, other = runner.run(begin_all(library, (200, 201), LONG))
        appending[name], reading[name] = of_coroutine(runner, one.append), of_coroutine(runner, other.read)
    return {"append": written(interleaved(appending, effort)), "read": written(interleaved(reading, effort))}


def time_growth(runner: asyncio.Runner, libraries: Mapping[str, Library], events: Iterable[int], effort: Effort) -> dict[str, Any]:
    """Library -> events of a session -> a turn of one that has so many, which reads the newest ten of them."""
    subjects: dict[tuple[str, int], Batch] = {}
    for name, library in libraries.items():
        for number in events:
            numbers = [1_000 + 10 * number + at for at in range(max(1, POOLED // number))]
            begun = runner.run(begin_all(library, numbers, number, READ))
            subjects[name, number] = take_turns(runner, cycle([one.turn for one in begun]))
    once = replace(effort, batch_s=0)  # else a short session would not stay short
    samples = interleaved({f"{name} {number}": batch for (name, number), batch in subjects.items()}, once)
    return {name: written({f"{number:,}": samples[f"{name} {number}"] for number in events}) for name in libraries}


async def begin_all(library: Library, numbers: Iterable[int], messages: int, last: int = LAST) -> list[Conversation]:
    """Begin sessions, and read each a few times at once: then the connections of all threads and pools are open."""
    begun = [await library.begin(number, messages, last) for number in numbers]
    for one in begun:
        await asyncio.gather(*[one.read() for _ in range(READERS)])
    return begun


async def ask_all(libraries: Mapping[str, Library], wanted: str) -> dict[str, str]:
    """What the own connection of each says of its durability.

    Raises:
        RuntimeError: One of them is not as durable as the others.
    """
    told = {name: await library.ask() for name, library in libraries.items()}
    if other := {name: one for name, one in told.items() if wanted not in one}:
        raise RuntimeError(f"not {wanted}: {other}")
    return told


async def close_all(libraries: Iterable[Library]) -> None:
    """Close their connections."""
    for library in libraries:
        await library.aclose()


def main() -> None:
    """Compare, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.service_beside", description=__doc__.partition("\n")[0])
    parser.add_argument("redis", type=Path, help="the folder of its socket")
    parser.add_argument("postgres", type=Path, help="the folder of its socket")
    parser.add_argument("--quick", action="store_true", help="roughly")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    places = Place("redis", given.redis), Place("postgres", given.postgres)
    sys.stdout.write(json.dumps(compare(*places, QUICK if given.quick else FULL, quick=given.quick)))


if __name__ == "__main__":
    main()
