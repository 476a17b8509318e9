"""A turn of a session service among few sessions and among a million, in one SQLite file each.

The rows of most sessions are written with SQL, as copies of one that the service itself has made and given a turn. Those that have
turns are longer: each of them reads as many messages as any other, in every file.

What a reader gets wrong: copies differ in more than their keys. ``id``, ``user`` and ``session`` name them, and ``birth`` tells one
from another.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

from dcaf.engines import MemoryEngine, Range, Row, Table, Transaction
from dcaf.engines.sqlite.tables import TableSql
from dcaf.service.tables import CHANGES, DIGEST_BYTES, LISTS, MESSAGES, SESSIONS, STATE, Owner
from tests.benchmarks.harness import Batch, Effort, folder, interleaved, take_turns, written
from tests.benchmarks.ledger_engines import sqlite_engine
from tests.benchmarks.service_ways import APP, LAST, Dcaf, DcafConversation, name_session, name_user

SIZES: Final = (10, 1_000, 100_000, 1_000_000)
QUICK_SIZES: Final = SIZES[:-2]
SAMPLED: Final = 1_000
"""So many sessions have turns at most; they lie evenly among all."""

COPIED: Final = (SESSIONS, STATE, MESSAGES, CHANGES, LISTS)
NAMES: Final = frozenset({"id", "session", "user", "birth"})
"""Columns in which a copy differs."""

FAST: Final = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144")
"""For the set-up alone."""


class Keys(NamedTuple):
    """Where the rows of a session lie.

    Attributes:
        owner: What the keys of all of them begin with.
        session: What the keys of all but those of lists begin with.
        number: Which session it is.
    """

    owner: bytes
    session: bytes
    number: int


class Model(NamedTuple):
    """The rows of one session.

    Attributes:
        keys: Where they lie.
        rows: Table -> key and row of each of them.
    """

    keys: Keys
    rows: dict[Table, list[tuple[bytes, Row]]]


def measured(effort: Effort, *, quick: bool) -> dict[str, Any]:
    """Number of sessions -> a turn; how long it took to write them all, and how large the largest file is."""
    sizes = QUICK_SIZES if quick else SIZES
    with folder() as at, asyncio.Runner() as runner:
        start = time.perf_counter()
        services = {number: fill(runner, at / f"{number}.db", number) for number in sizes}
        filled_s = time.perf_counter() - start
        subjects = {f"{number:,}": time_turns(runner, service, number) for number, service in services.items()}
        turns = written(interleaved(subjects, effort))
        for service in services.values():
            runner.run(service.aclose())
        size = (at / f"{sizes[-1]}.db").stat().st_size
    return {"turns": turns, "filled_s": round(filled_s, 1), "bytes": round(size / sizes[-1], 1)}


def time_turns(runner: asyncio.Runner, service: Dcaf, number: int) -> Batch:
    """Turns of the sampled sessions, one after the other."""
    return take_turns(runner, cycle([DcafConversation(service.service, one).turn for one in sample(number)]))


def sample(number: int) -> range:
    """Those of so many sessions that have turns."""
    return range(0, number, max(1, number // SAMPLED))


def fill(runner: asyncio.Runner, path: Path, number: int) -> Dcaf:
    """Write so many sessions to a file; returns the service over it."""
    made = Dcaf(sqlite_engine(path, durable=False))
    for one in sample(number):
        runner.run(made.begin(one, LAST))
    runner.run(made.aclose())
    others = set(range(number)).difference(sample(number))
    copy(path, runner.run(build_model()), sorted(map(find_keys, others)))
    return Dcaf(sqlite_engine(path))


async def build_model() -> Model:
    """A session after a turn."""
    library = Dcaf(MemoryEngine())
    await (await library.begin(0, 0)).turn()
    return await read_rows(library, 0)


async def read_rows(library: Dcaf, number: int) -> Model:
    """The rows of a session, in the order of their keys."""
    engine = library.service.engine
    owner = Owner(APP, name_user(number), partitions=engine.partitions)
    ranges = [Range.of_prefix(table, owner.key, 100, partition=owner.partition) for table in COPIED]
    found = await engine.transact(Transaction([], ranges=ranges))
    rows = {table: list(page) for table, page in zip(COPIED, found.pages, strict=True)}
    return Model(find_keys(number), rows)


def find_keys(number: int) -> Keys:
    """Where the rows of a session lie."""
    owner = Owner(APP, name_user(number), partitions=1)
    return Keys(owner.key, owner.session_key(name_session(number)), number)


def copy(path: Path, model: Model, places: Sequence[Keys]) -> None:
    """Write copies of a session to a file, in the order of their keys."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in FAST:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        for table in COPIED:
            connection.executemany(TableSql(table).insert, list_rows(model, table, places))
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def list_rows(model: Model, table: Table, places: Iterable[Keys]) -> Iterator[tuple[Any, ...]]:
    """Key and columns of the rows of a table, for each copy."""
    is_named, rows = not NAMES.isdisjoint(table.columns), [(key, tuple(row.values())) for key, row in model.rows[table]]
    for place in places:
        for key, values in rows:
            yield (_move(key, model.keys, place), *(_rename(table, values, place.number) if is_named else values))


def _move(key: bytes, old: Keys, new: Keys) -> bytes:
    """The same key, of another session: at its end where it is one of a list, at its beginning else."""
    if key.startswith(old.session):
        return new.session + key.removeprefix(old.session)
    return new.owner + key[len(old.owner) : -DIGEST_BYTES] + new.session[-DIGEST_BYTES:]


def _rename(table: Table, values: Sequence[Any], number: int) -> list[Any]:
    """What a copy has in the columns of a row."""
    session = name_session(number).encode()
    names = {"id": session, "session": session, "user": name_user(number).encode(), "birth": os.urandom(8)}
    return [names.get(column, value) for column, value in zip(table.columns, values, strict=True)]
