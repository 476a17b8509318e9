"""What a ledger costs, turn by turn: beside the same statements inline, many turns at once, few rows and a million, and its row.

A turn is what the middleware asks a ledger in one: to open a session, and to commit a state of 2 KB. All files are on one disk, and
commits wait for it (``synchronous=FULL``).

What a reader gets wrong: the microseconds are mostly the disk's. So the table has what the disk takes for one small write, too.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final, Protocol

from dcaf.core import SessionHost
from dcaf.core.base64url import Payload, encode
from dcaf.core.claims import Binding, Claims
from dcaf.core.store import OpenRequest, Sealed
from dcaf.engines import Engine, Is, MemoryEngine, Put, Record, Transaction
from dcaf.engines.sqlite.tables import TableSql
from dcaf.ledger import Ledger
from dcaf.ledger.tables import SESSIONS, store_row, subject_digest
from tests.benchmarks.harness import Batch, Effort, folder, interleaved, of_coroutine, repeat, take_turns, time_together, written
from tests.benchmarks.ledger_engines import Counting, Inline, LeastHop, Timed, Ungrouped, sqlite_engine
from tests.benchmarks.sealing import AUDIENCE, RING

INLINE: Final = "the same statements inline"
LEAST: Final = "the least hand-over"
IN_A_ROW: Final = "commits in a row"
THREAD: Final = "thread and queue"
GROUPED: Final = "what waits is one commit"
UNGROUPED: Final = "a commit for each"
AT_ONCE: Final = 64
FEW: Final = 10
MANY: Final = 1_000_000
SAMPLED: Final = 2_000
"""So many sessions of the million have turns."""

LIFETIME_S: Final = 30 * 24 * 3600
ANSWER_BYTES: Final = 2_900
"""A state of 2 KB as the kept answer has it: in a token, encrypted."""

CACHE_KIB: Final = 262_144
"""For the set-up alone."""


class Conversation:
    """A session whose turns a ledger opens and commits.

    Args:
        ledger: The ledger.
        number: Which one: its id and its subject follow from it.
        epoch: The epoch of its token; None where it begins with its first turn.
        sequence: The number of its newest state.
    """

    def __init__(self, ledger: Ledger, number: int, *, epoch: int | None = None, sequence: int = 1) -> None:
        self._ledger = ledger
        self._binding = Binding(AUDIENCE, subject_of(number))
        self._id = encode(key_of(number))
        now_s = int(time.time())
        self._claims: Claims = Claims(AUDIENCE, self._id, sequence, now_s, now_s, now_s + LIFETIME_S, ep=epoch)
        self._begun = epoch is not None
        self._answer = os.urandom(ANSWER_BYTES)
        self._payload = Payload(b"{}")

    async def turn(self) -> None:
        """One turn."""
        lease = await self._ledger.open(OpenRequest(self._id, self._claims if self._begun else None, self._binding))
        claims = self._claims._replace(seq=lease.sequence, ep=lease.epoch)
        answer = lease.sequence.to_bytes(8, "big") + self._answer  # another one each time, as encryption makes it
        await lease.commit(Sealed(self._payload, claims, b"", b"", is_changed=True, keep=lambda: answer), ends_turn=True)
        self._claims, self._begun = claims, True


def key_of(number: int) -> bytes:
    """The key of a session's row; a million of them lie evenly, and in order."""
    return (number * ((1 << 128) // (MANY + 1))).to_bytes(16, "big")


def number_of(key: bytes) -> int:
    """The number of the session with a key."""
    return int.from_bytes(key, "big") // ((1 << 128) // (MANY + 1))


def subject_of(number: int) -> str:
    """The subject of a session."""
    return f"user-{number}"


def measured(effort: Effort, *, many: int) -> dict[str, Any]:
    """All of it; ``many`` is the number of sessions of the larger ledger."""
    with folder() as place, asyncio.Runner() as runner:
        return {
            "disk_us": disk_us(place),
            "thread": beside_inline(runner, place, effort),
            "grouped": at_once(runner, place, effort),
            "growth": growth(runner, place, effort, many),
            "row": row_bytes(runner, place),
            "trips": runner.run(trips()),
        }


def disk_us(place: Path, times: int = 200) -> float:
    """Microseconds to write 4 KB at the end of a file and to wait for the disk: the median."""
    took = []
    with (place / "disk").open("wb", buffering=0) as file:
        for _ in range(times):
            start = time.perf_counter()
            file.write(bytes(4_096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return round(sorted(took)[times // 2] * 1e6, 1)


def beside_inline(runner: asyncio.Runner, place: Path, effort: Effort) -> dict[str, Any]:
    """Claim and commit of a turn, and commits in a row, in the engine alone: inline, by the least hand-over, and as it is."""
    engines = {
        INLINE: Timed(Inline(place / "inline.db")),
        LEAST: Timed(LeastHop(place / "least.db")),
        THREAD: Timed(sqlite_engine(place / "thread.db")),
    }
    subjects: dict[str, Batch] = {}
    for name, engine in engines.items():
        turn = Conversation(Ledger(engine, audience=AUDIENCE), 1).turn
        subjects[f"claim, {name}"] = time_in_engine(runner, turn, partial(getattr, engine, "claims_s"))
        subjects[f"commit, {name}"] = time_in_engine(runner, turn, partial(getattr, engine, "commits_s"))
        subjects[f"{IN_A_ROW}, {name}"] = of_coroutine(runner, Counter(engine, AT_ONCE).count)
    try:
        return written(interleaved(subjects, effort))
    finally:
        close_engines(runner, *engines.values())


def at_once(runner: asyncio.Runner, place: Path, effort: Effort) -> dict[str, Any]:
    """64 at once, and the time that each adds: commits of the engine alone, and whole turns of a ledger."""
    engines: dict[str, Engine] = {GROUPED: sqlite_engine(place / "grouped.db"), UNGROUPED: Ungrouped(place / "ungrouped.db")}
    subjects: dict[str, Batch] = {}
    for name, engine in engines.items():
        ledger = Ledger(engine, audience=AUDIENCE)
        conversations = [Conversation(ledger, number) for number in range(1, AT_ONCE + 1)]
        counters = [Counter(engine, number) for number in range(AT_ONCE + 1, 2 * AT_ONCE + 1)]
        subjects[f"turns, {name}"] = time_together(runner, [conversation.turn for conversation in conversations])
        subjects[f"commits, {name}"] = time_together(runner, [counter.count for counter in counters])
    try:
        return written(interleaved(subjects, effort))
    finally:
        close_engines(runner, *engines.values())


class Counter:
    """A row that is compared and written durably, as a commit does it, without anything around it."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self._row = Record(SESSIONS, key_of(number))
        self._at: int | None = None

    async def count(self) -> None:
        """Add one."""
        following = (self._at or 0) + 1
        when = None if self._at is None else Is(self._row, "sequence", self._at)
        outcome = await self._engine.transact(Transaction([self._row], when=when, writes=[Put(self._row, {"sequence": following})]))
        assert outcome.applied
        self._at = following


def growth(runner: asyncio.Runner, place: Path, effort: Effort, many: int) -> dict[str, Any]:
    """A turn of one of ten sessions, and of one of many, whose rows are written with SQL beforehand."""
    start, samples, ledgers = time.perf_counter(), {}, []
    for number in (FEW, many):
        ledger = Ledger(sqlite_engine(place / f"{number}.db"), audience=AUDIENCE)
        ledgers.append(ledger)
        epoch = runner.run(find_origin(ledger))
        fill(place / f"{number}.db", number, epoch)
        step = max(1, number // SAMPLED)
        turns = cycle([Conversation(ledger, one, epoch=epoch).turn for one in range(1, number + 1, step)])
        samples[f"{number:,}"] = take_turns(runner, turns)
    filled_s = time.perf_counter() - start
    try:
        found = written(interleaved(samples, effort))
    finally:
        close_engines(runner, *(ledger.engine for ledger in ledgers))
    return {"turns": found, "filled_s": round(filled_s, 1), "file_bytes": round(_pages(place / f"{many}.db") / many, 1)}


def fill(path: Path, number: int, epoch: int) -> None:
    """Write the rows of so many sessions, each as one turn leaves it."""
    sql = TableSql(SESSIONS)
    index = sql.make[1].split('"')[1]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("BEGIN")
        connection.execute(f'DROP INDEX "{index}"')
        rows = ((key, *(row.get(column) for column in sql.columns)) for key, row in list_rows(number, epoch))
        connection.executemany(sql.insert, rows)
        connection.execute(sql.make[1])
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def list_rows(number: int, epoch: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Key and columns of so many sessions, each as one turn leaves it; what is not among the columns is empty."""
    now_s = int(time.time())
    shared = {"epoch": epoch, "sequence": 1, "base": 0, "born": now_s, "ends": now_s + LIFETIME_S, "is_presented": 0, "is_whole": 1}
    shared |= {"committed": now_s * 1000, "expires": (now_s + LIFETIME_S) * 1000}
    for one in range(1, number + 1):
        key = key_of(one)
        yield key, shared | {"subject": subject_digest(AUDIENCE, subject_of(one)), "answer": key}


def row_bytes(runner: asyncio.Runner, place: Path) -> dict[str, Any]:
    """Bytes of the row of a session, as SQLite keeps it, after a turn and while one holds it; without the index."""
    path = place / "row.db"
    ledger = Ledger(sqlite_engine(path), audience=AUDIENCE)
    runner.run(_several([Conversation(ledger, number).turn for number in range(1, AT_ONCE + 1)]))
    free = _payload(path) / AT_ONCE
    epoch = runner.run(find_origin(ledger))
    for number in range(1, AT_ONCE + 1):
        runner.run(_claim(ledger, number, epoch))
    held = _payload(path) / AT_ONCE
    close_engines(runner, ledger.engine)
    return {"free": round(free, 1), "held": round(held, 1)}


async def trips(counting: type[Counting] = Counting) -> dict[str, Any]:
    """Kind of turn -> round trips until the application runs, and after it."""
    found: dict[str, Any] = {}
    for subject, who in ((None, "anonymous"), ("ada", "with a subject")):
        for level, freshness in (("L1", False), ("L2", True)):
            engine = counting(MemoryEngine())
            host = SessionHost(keys=RING, audience=AUDIENCE, store=Ledger(engine, audience=AUDIENCE, freshness=freshness))
            await count_trips(host, engine, subject)  # makes the store
            found |= {f"{level}, {who}, {kind}": one for kind, one in (await count_trips(host, engine, subject)).items()}
    return found


class Counted(Protocol):
    """What counts round trips."""

    @property
    def trips(self) -> int:
        """How many there were so far."""


async def count_trips(host: SessionHost, engine: Counted, subject: str | None) -> dict[str, Any]:
    """Kind of turn of a new session -> its round trips."""
    found = {}
    found["first turn"], envelope = await _trips(host, engine, None, subject)
    found["later turn"], envelope = await _trips(host, engine, envelope, subject)
    found["nothing written"], _ = await _trips(host, engine, envelope, subject, writes=False)
    return found


async def _trips(host: SessionHost, engine: Counted, envelope: Any, subject: str | None, *, writes: bool = True) -> Any:
    before = engine.trips
    async with host.turn(envelope, subject=subject) as turn:
        opened = engine.trips - before
        if writes:
            turn.session.incr("n")
    return {"open": opened, "commit": engine.trips - before - opened}, turn.envelope


def time_in_engine(runner: asyncio.Runner, turn: Callable[[], Any], spent_s: Callable[[], float]) -> Batch:
    """Time what turns spend in the engine."""

    def batch(times: int) -> float:
        before = spent_s()
        runner.run(repeat(turn, times))
        return spent_s() - before

    return batch


async def _several(calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        await call()


async def find_origin(ledger: Ledger) -> int:
    """The epoch of all subjects of a store, which is made where it is not there; its tables are, too."""
    await ledger.unlock(encode(key_of(1)))
    (row,) = (await ledger.transact(Transaction([store_row(0)]))).rows
    assert row is not None
    origin = row["origin"]
    assert isinstance(origin, int)
    return origin


async def _claim(ledger: Ledger, number: int, epoch: int) -> None:
    now_s = int(time.time())
    claims = Claims(AUDIENCE, encode(key_of(number)), 1, now_s, now_s, now_s + LIFETIME_S, ep=epoch)
    await ledger.open(OpenRequest(claims.sid, claims, Binding(AUDIENCE, subject_of(number))))


def _payload(path: Path) -> float:
    """Bytes of all rows of sessions."""
    return _asked(path, "SELECT sum(payload) FROM dbstat WHERE name = 'dcaf_sessions'")


def _pages(path: Path) -> float:
    """Bytes of the file that sessions and their index take."""
    return _asked(path, "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'dcaf_sessions%'")


def _asked(path: Path, statement: str) -> float:
    with closing(sqlite3.connect(path)) as connection:
        return float(connection.execute(statement).fetchone()[0])


def close_engines(runner: asyncio.Runner, *engines: Engine) -> None:
    for engine in engines:
        runner.run(engine.aclose())
