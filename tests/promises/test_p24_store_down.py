"""P24: while its store is down, slow or half open, a service answers 503 in a second, and takes nobody for new; then it recovers.

The service is a process. Another program holds the database, or is stopped while it holds the lock beside it; the file cannot grow;
its disk is taken away; or the disk does not answer a commit. What is sent then: turns of sessions that there are, of a subject and
of nobody, as a stream, as a look, and first turns.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import dcaf.engines.sqlite_writer
from dcaf import current_session
from dcaf.core import Lease, OpenRequest, SessionEnded, SessionStore, StatelessLease
from dcaf.core.errors import EngineError
from dcaf.ledger import Ledger
from tests.promises.ledgers import AUDIENCE, LEASE, Make, Service, at_once, closing, exchange, workers
from tests.promises.places import Place, in_file

LONGEST_S: Final = 1.0
BEGUN_S: Final = 2.0
"""Of the turns whose commit the disk has begun: a second until it must have begun, and one until it must have ended."""

GRACE_S: Final = 0.5
"""For the machine, on which five of these run at once."""

RECOVERED_S: Final = 2.0
PATIENCE_S: Final = 4.0
EVERY_S: Final = 0.05
MOVED: Final = ("200", "409 session-conflict", "409 session-superseded")
"""What is also answered where the store is only slow: all turns of a session have the same token."""

STRANGER: Final = """
import fcntl, sqlite3, sys
kind, path = sys.argv[1:]
if kind == "database":
    connection = sqlite3.connect(path, isolation_level=None, timeout=20)
    connection.execute("BEGIN EXCLUSIVE")
else:
    file = open(path + "-lock", "a")
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
SENT: Final[list[dict[str, Any]]] = [
    {"user": "ada"},
    {"user": None},
    {"user": "ada", "path": "/stream"},
    {"user": "ada", "method": "GET"},
    {"user": "ada", "key": "k"},
    {"user": "eve", "first": True},
    {"user": None, "first": True},
]


@contextmanager
def stranger(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the database, or the lock beside it."""
    command = [sys.executable, "-c", STRANGER, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is in a transaction."""
    with stranger("database", path):
        yield


@contextmanager
def half_open(path: Path) -> Iterator[None]:
    """Another worker was stopped while it wrote, and does not end."""
    with stranger("lock", path) as process:
        process.send_signal(signal.SIGSTOP)
        yield


@contextmanager
def full(path: Path) -> Iterator[None]:
    """No file can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def taken_away(path: Path) -> Iterator[None]:
    """The disk of the database is not there."""
    away = path.parent.with_name(path.parent.name + "-away")
    path.parent.rename(away)
    try:
        yield
    finally:
        away.rename(path.parent)


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """The disk does not answer a commit: the very first call that writes it, and nothing that comes after, has begun."""
    over, commits = threading.Event(), dcaf.engines.sqlite_writer.Writer._commit

    def commit(writer: Any, *, is_durable: bool) -> None:
        over.wait()
        commits(writer, is_durable=is_durable)

    dcaf.engines.sqlite_writer.Writer._commit = commit  # type: ignore[assignment, method-assign]  # in a process of its own
    try:
        yield
    finally:
        dcaf.engines.sqlite_writer.Writer._commit = commits  # type: ignore[method-assign]
        over.set()


@contextmanager
def slow(path: Path) -> Iterator[None]:
    """Another program holds the database for most of the time."""
    over = threading.Event()

    def hold() -> None:
        while not over.wait(0.1):
            with stranger("database", path):
                over.wait(0.6)

    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(0.3)
    try:
        yield
    finally:
        over.set()
        thread.join()


Outage = Callable[[], AbstractContextManager[None]]
"""Has a store be down for as long as the context lasts."""

OUTAGES: Final[dict[str, Callable[[Path], AbstractContextManager[None]]]] = {
    "locked by another program": locked,
    "half open": half_open,
    "full": full,
    "taken away": taken_away,
    "hanging in a commit": hanging,
    "slow": slow,
}


@dataclass
class Endured:
    """How a service came through.

    Attributes:
        slowest_s: The longest time until an answer, of those that did not hang in a commit that had begun.
        begun_s: Of those that did.
        sent: How many turns were sent.
        answers: Status and code -> how often.
        taken_for_new: How many of the sessions that there are were dropped, or served as if there were none.
        recovered_s: After how long a turn was done again.
    """

    slowest_s: float = 0.0
    begun_s: float = 0.0
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    taken_for_new: int = 0
    unchecked: int = 0
    recovered_s: float = PATIENCE_S

    def failures(self, *, is_slow: bool) -> list[str]:
        """What is not as promised."""
        allowed = {"503 session-unavailable", *(MOVED if is_slow else ())}
        wrong = [answer for answer in self.answers if answer not in allowed]
        wrong += ["unchecked"] * (self.unchecked > 0 and not is_slow)
        wrong += ["taken for new"] * (self.taken_for_new > 0)
        wrong += ["slow"] * (self.slowest_s > LONGEST_S + GRACE_S or self.begun_s > BEGUN_S + GRACE_S)
        return wrong + ["not recovered"] * (self.recovered_s > RECOVERED_S)

    def describe(self, name: str) -> str:
        """What a reader of the promises is told."""
        in_flight = f", {self.begun_s:.1f} s where the commit had begun" if self.begun_s else ""
        return (
            f"{name}: {self.answers['503 session-unavailable']} of {self.sent} turns were answered with 503, the slowest after "
            f"{self.slowest_s:.1f} s{in_flight}; {self.taken_for_new} were taken for new; a turn was done {self.recovered_s:.2f} s "
            "after it returned"
        )


def endure(place: Place, make: Make, name: str, bursts: int, outage: Outage) -> Endured:
    """Send turns, some at a time, while the store of a service is down, and see when it does one again."""
    endured = Endured()

    async def send(service: Watched, held: dict[str | None, Any], how: dict[str, Any], at: int) -> None:
        is_first, user, words = how.get("first", False), how["user"], f"{name} {at}"
        began = time.monotonic()
        more = {key: value for key, value in how.items() if key in {"path", "method", "key"}}
        turn = exchange(service.app, words, None if is_first else held[user], user=user, **more)
        try:
            got = await asyncio.wait_for(turn, PATIENCE_S)
        except TimeoutError:
            endured.answers["nothing"] += 1
            took_s = PATIENCE_S
        else:
            endured.answers[f"{got.status} {got.code or ''}".strip()] += 1
            endured.taken_for_new += not is_first and (is_restart(got) or service.began.get(words, 1) is None)
            endured.unchecked += not is_first and words in service.began
            took_s = time.monotonic() - began
        endured.sent += 1
        if name == "hanging in a commit" and at == 0:
            endured.begun_s = max(endured.begun_s, took_s)
        else:
            endured.slowest_s = max(endured.slowest_s, took_s)

    async def go_on(service: Service, held: dict[str | None, Any]) -> float:
        began, session = time.monotonic(), held["ada"]
        while time.monotonic() - began < PATIENCE_S:
            got = await exchange(service.app, f"after {name}", session, user="ada")
            session = got.newest or session
            if got.status == 200:
                assert session["n"] >= 2
                return time.monotonic() - began
            await asyncio.sleep(EVERY_S)
        return PATIENCE_S

    async def run() -> None:
        store = make(place)
        service = Watched(store)
        async with closing(store):
            held = {user: (await exchange(service.app, "first", user=user)).newest for user in ("ada", None)}
            with outage():
                for burst in range(bursts):
                    jobs = [asyncio.ensure_future(send(service, held, how, burst * 100 + at)) for at, how in enumerate(SENT[:1])]
                    await asyncio.sleep(0.02)
                    jobs += [asyncio.ensure_future(send(service, held, how, burst * 100 + 1 + at)) for at, how in enumerate(SENT)]
                    await asyncio.gather(*jobs)
            endured.recovered_s = await go_on(service, held)

    asyncio.run(run())
    return endured


class Watched(Service):
    """A service that notes with which state each turn began.

    Attributes:
        began: Message -> the count of the session when the application began; None for a session that is new.
    """

    def __init__(self, store: SessionStore | None) -> None:
        super().__init__(store)
        self.began: dict[str, int | None] = {}

    async def _take_turn(self, scope: Any, receive: Any, send: Any) -> None:
        async def look() -> Any:
            message = await receive()
            if message.get("body"):
                self.began[json.loads(message["body"])["say"]] = current_session().get("n")
            return message

        await super()._take_turn(scope, look, send)


def is_restart(got: Any) -> bool:
    """Whether a client was told to begin anew."""
    return got.session is not None and got.newest is None


def make_ledger(place: Place) -> Ledger:
    return Ledger(place.open_engine(), audience=AUDIENCE, lease=LEASE)


def endured(folder: Path, cases: Sequence[tuple[str, Make]], bursts: int) -> list[Endured]:
    """Several outages at once, each in a process and a folder of its own."""
    arguments = []
    for at, (name, make) in enumerate(cases):
        path = folder / str(at) / "disk" / "dcaf.db"
        path.parent.mkdir(parents=True)
        arguments.append((in_file(path), make, name, bursts, partial(OUTAGES[name], path)))
    with workers(len(cases)) as found:
        return at_once(found, endure, *arguments)


@pytest.mark.promise(24)
def test_a_service_whose_store_is_down_says_so_in_a_second_and_takes_nobody_for_new(
    tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    cases: list[tuple[str, Make]] = [(name, make_ledger) for name in OUTAGES]
    found = dict(zip(OUTAGES, endured(tmp_path, cases, max(1, int(20 * scale))), strict=True))
    for name, one in found.items():
        measured(24, one.describe(f"SQLite, {name}"))
    wrong = {name: (failures, one) for name, one in found.items() if (failures := one.failures(is_slow=name == "slow"))}
    assert wrong == {}


class FailsOpen:
    """Broken: where the store cannot be asked, the turn goes on without it."""

    level = "L2"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def open(self, request: OpenRequest) -> Lease:
        try:
            return await self.ledger.open(request)
        except EngineError:
            return self.do_without(request)

    def do_without(self, request: OpenRequest) -> Lease:
        return StatelessLease(request)


class Forgets(FailsOpen):
    """Broken: what cannot be found is not there."""

    def do_without(self, request: OpenRequest) -> Lease:
        raise SessionEnded(reason="unknown")


def make_failing_open(place: Place) -> SessionStore:
    return FailsOpen(make_ledger(place))


def make_forgetting(place: Place) -> SessionStore:
    return Forgets(make_ledger(place))


def make_patient(place: Place) -> Ledger:
    """Broken: it waits for its database for as long as that takes."""
    return Ledger(place.open_engine(timedelta(seconds=30)), audience=AUDIENCE)


@pytest.mark.promise(24)
def test_control_stores_that_fail_open_forget_or_wait_are_caught(tmp_path: Path) -> None:
    cases: list[tuple[str, Make]] = [
        ("locked by another program", make_failing_open),
        ("full", make_forgetting),
        ("half open", make_patient),
    ]
    is_open, forgets, waits = (set(one.failures(is_slow=False)) for one in endured(tmp_path, cases, 1))
    assert {"unchecked", "200"} <= is_open
    assert {"taken for new", "409 session-ended"} <= forgets
    assert {"slow", "nothing"} <= waits
