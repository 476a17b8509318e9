"""A search among the messages of one user, in a SQLite file, beside a look at each of them (``LIKE``).

The words of the messages are as frequent as those of a language are: the n-th has a share of 1/n. One message has a word of its
own.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from dcaf.service import SessionService
from dcaf.service.tables import MESSAGES, Owner
from tests.benchmarks.harness import Effort, folder, interleaved, of_coroutine, of_function, written
from tests.benchmarks.ledger_engines import sqlite_engine
from tests.benchmarks.service_ways import APP

USER: Final = "user-7"
SIZES: Final = (1_000, 10_000, 100_000)
QUICK_SIZES: Final = SIZES[:-1]
OF_A_SESSION: Final = 1_000
AT_ONCE: Final = 500

VOCABULARY: Final = [f"{number:x}word" for number in range(20_000)]
SHARES: Final = list(accumulate(1 / (1 + number) for number in range(len(VOCABULARY))))
WORDS: Final = 30
"""How many words a message has."""

RARE: Final = "penicillin"
ASKED: Final = {
    "a word that one message has": RARE,
    "a word that one of 100 has": VOCABULARY[300],
    "a word that most have": VOCABULARY[0],
    "five words, frequent and rare": " ".join([*VOCABULARY[:3], VOCABULARY[300], RARE]),
}
"""What is asked -> the words."""

SEARCH: Final = "search"
LIKE: Final = "LIKE"


def measured(effort: Effort, *, quick: bool) -> dict[str, Any]:
    """Number of messages -> way -> what is asked; how long the first search took, which indexes all, and how large the file is."""
    found: dict[str, Any] = {"times": {}, "index": {}}
    for number in QUICK_SIZES if quick else SIZES:
        with folder() as at, asyncio.Runner() as runner:
            service = SessionService(sqlite_engine(at / "rows.db", durable=False), app=APP)
            runner.run(fill(service, number))
            before = measure_file(at / "rows.db")
            first_s = time_first(runner, service)
            found["times"][f"{number:,}"] = time_searches(runner, service, at / "rows.db", effort)
            runner.run(service.aclose())
            after = measure_file(at / "rows.db")
        found["index"][f"{number:,}"] = {"first_s": round(first_s, 2), "bytes": after - before, "messages_bytes": before}
    return found


def measure_file(path: Path) -> int:
    """Bytes of a file, with what its log has."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


async def fill(service: SessionService, number: int) -> None:
    """Have a user with so many messages, of which one has the rare word."""
    chosen = random.Random(1)
    for first in range(0, number, AT_ONCE):
        texts = [" ".join(chosen.choices(VOCABULARY, cum_weights=SHARES, k=WORDS)) for _ in range(min(AT_ONCE, number - first))]
        texts[0] += f" {RARE}" if first == number // 2 // AT_ONCE * AT_ONCE else ""
        session = f"session-{first // OF_A_SESSION}"
        await service.get_or_create(user=USER, id=session)
        await service.append(user=USER, id=session, messages=[("user", text) for text in texts])


def time_first(runner: asyncio.Runner, service: SessionService) -> float:
    """Seconds of the search that indexes all."""
    start = time.perf_counter()
    assert len(runner.run(service.search(RARE, user=USER))) == 1
    return time.perf_counter() - start


def time_searches(runner: asyncio.Runner, service: SessionService, path: Path, effort: Effort) -> dict[str, Any]:
    """Way -> what is asked -> the time."""
    with closing(sqlite3.connect(path)) as connection:
        ways: dict[str, Callable[[str], Any]] = {
            SEARCH: lambda words: of_coroutine(runner, partial(service.search, words, user=USER)),
            LIKE: lambda words: of_function(partial(look, connection, words)),
        }
        subjects = {f"{way}: {asked}": make(words) for way, make in ways.items() for asked, words in ASKED.items()}
        samples = written(interleaved(subjects, effort))
    return {way: {asked: samples[f"{way}: {asked}"] for asked in ASKED} for way in ways}


def look(connection: sqlite3.Connection, words: str) -> list[Any]:
    """The newest ten messages of the user that have any of the words, found without an index of words."""
    key = Owner(APP, USER, partitions=1).key
    has = " OR ".join("CAST(data AS TEXT) LIKE ?" for _ in words.split())
    statement = f'SELECT "key", data FROM {MESSAGES.name} WHERE "key" >= ? AND "key" < ? AND ({has}) ORDER BY "key" DESC LIMIT 10'
    return connection.execute(statement, [key, key + b"\xff" * 20, *(f"%{word}%" for word in words.split())]).fetchall()
