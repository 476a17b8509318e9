"""P22: once a revocation is acknowledged, no turn that is still under way brings the session back.

One process serves; another one revokes sessions at random moments of their turns. A turn whose commit begins after the moment at
which that was acknowledged must be refused, and so must every one that begins later. Both read the same clock of the machine. Every
other turn waits until it is told of the revocation, however long the store takes.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from dcaf import current_session
from dcaf.core import Session
from dcaf.engines import AnyOf, Delete, Exists, Not, Transaction
from dcaf.ledger import Ledger
from dcaf.ledger.lease import LedgerLease
from dcaf.ledger.rules import has_epoch, is_mine
from dcaf.ledger.tables import epoch_row
from tests.forked import CONTEXT
from tests.promises.ledgers import AUDIENCE, LEASE, PATIENCE, Got, Service, Worker, closing, exchange, make_ledger
from tests.promises.places import ENGINES, Place

Make = Callable[[Place], Ledger]
SESSIONS, FEWEST, AT_ONCE = 1_000, 40, 8
SHORTEST_S, LONGEST_S, PATIENCE_S = 0.01, 0.03, 10.0
WAYS = ("revoke", "revoke in the first turn", "log out", "revoke on a stream")
"""How a session ends: in a later turn, before its first commit, by a log-out, before the first checkpoint of a stream."""


@dataclass
class Case:
    """A session that is revoked in the middle of a turn.

    Attributes:
        way: How.
        user: Whose it is.
        newest: The last session that the client got.
        resumed_at: When the application went on after the pause in which the revocation is asked for, on the machine's clock.
        is_taken: Whether the turn was answered as if all were well.
    """

    way: str
    user: str
    newest: Any = None
    resumed_at: float = 0.0
    is_taken: bool = False


def serve(place: Place, make: Make, pipe: Any, number: int, seed: int) -> list[Case]:
    """Hold conversations, and tell by a pipe which session is in the middle of a turn."""
    rng = random.Random(seed)
    cases = {f"user-{at}": Case(WAYS[at % len(WAYS)], f"user-{at}") for at in range(number)}

    async def run() -> None:
        ledger = make(place)
        service = Service(ledger)
        told = {user: asyncio.Event() for user in cases}
        listen(pipe, lambda user: told[user].set())

        async def pause(message: str) -> None:
            user, _, is_last = message.partition(" ")
            if is_last:
                pipe.send((cases[user].way, current_session().id, user))
                if rng.random() < 0.5:
                    await asyncio.wait_for(told[user].wait(), PATIENCE_S)
                else:
                    await asyncio.sleep(SHORTEST_S + rng.random() * LONGEST_S)
                cases[user].resumed_at = time.monotonic()

        async def hold(case: Case) -> None:
            if case.way != "revoke in the first turn":
                case.newest = (await exchange(service.app, case.user, user=case.user)).newest
            path = "/stream" if case.way == "revoke on a stream" else "/chat"
            got = await exchange(service.app, f"{case.user} now", case.newest, path=path, user=case.user)
            case.is_taken = is_well(got)
            case.newest = got.newest or case.newest

        service.pause = pause
        limit = asyncio.Semaphore(AT_ONCE)

        async def in_time(case: Case) -> None:
            async with limit:
                await hold(case)

        async with closing(ledger):
            await asyncio.gather(*map(in_time, cases.values()))
        pipe.send(None)

    asyncio.run(run())
    return list(cases.values())


def listen(pipe: Any, take: Callable[[Any], None]) -> None:
    """Have this event loop take what comes by a pipe, until that is None, or until the loop is closed."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        item: Any = ()
        with suppress(RuntimeError, EOFError):
            while item is not None:
                item = pipe.recv()
                loop.call_soon_threadsafe(take, item)

    threading.Thread(target=read, daemon=True).start()


def is_well(got: Got) -> bool:
    """Whether a turn was answered to its end, and not with an error."""
    return got.status == 200 and not any(value.get("type") == "error" for value in got.values)


def revoke(place: Place, make: Make, pipe: Any, seed: int) -> dict[str, float]:
    """Revoke what a pipe names, after a random while; when each was acknowledged, on the machine's clock."""
    rng, told = random.Random(seed), dict[str, float]()

    async def end(ledger: Ledger, way: str, session_id: str, user: str) -> None:
        await asyncio.sleep(rng.random() * LONGEST_S / 2)
        await (ledger.log_out(user) if way == "log out" else ledger.revoke(session_id))
        told[user] = time.monotonic()
        pipe.send(user)

    async def run() -> None:
        ledger, coming = make(place), asyncio.Queue[Any]()
        listen(pipe, coming.put_nowait)
        async with closing(ledger), asyncio.TaskGroup() as group:
            while item := await coming.get():
                group.create_task(end(ledger, *item))

    asyncio.run(run())
    return told


def look(place: Place, make: Make, cases: list[Case]) -> tuple[int, int]:
    """How many sessions still go on with what their clients hold, or are listed as live."""

    async def run() -> tuple[int, int]:
        ledger = make(place)
        async with closing(ledger):
            app = Service(ledger).app
            goes_on = [(await exchange(app, "later", case.newest, user=case.user)).status == 200 for case in cases if case.newest]
            alive = [await ledger.sessions(case.user) for case in cases]
        return sum(goes_on), sum(map(len, alive))

    return asyncio.run(run())


def resurrected(place: Place, make: Make, number: int) -> Counter[str]:
    """Of so many sessions, each revoked in a turn: how many turns counted that were under way, and how many go on."""
    counts = Counter[str]()
    theirs, ours = CONTEXT.Pipe()
    serving, revoking = Worker(), Worker()
    try:
        serving.ask(serve, place, make, ours, number, 1)
        revoking.ask(revoke, place, make, theirs, 2)
        cases, told = serving.answer(), revoking.answer()
        serving.ask(look, place, make, cases)
        counts["go on"], counts["listed"] = serving.answer()
    finally:
        serving.stop()
        revoking.stop()
    for case in cases:
        is_late = told[case.user] < case.resumed_at
        counts["late"] += is_late
        counts["taken"] += is_late and case.is_taken
        counts[f"late, {case.way}"] += is_late
    return counts


@pytest.mark.promise(22)
def test_no_late_commit_brings_a_revoked_session_back(place: Place, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(FEWEST, int(SESSIONS * scale * place.part))
    counts = resurrected(place, make_ledger, number)
    measured(
        22,
        f"{place.name}: {counts['taken']} of {counts['late']:,} commits that began after their revocation was acknowledged to "
        f"another process were taken, and {counts['go on']} of {number:,} revoked sessions go on",
    )
    assert (counts["taken"], counts["go on"], counts["listed"]) == (0, 0, 0)
    assert all(counts[f"late, {way}"] for way in WAYS), counts


class Deletes(Ledger):
    """Broken: what is revoked is deleted, and a commit writes whether its row is there or not."""

    async def revoke(self, session_id: str) -> None:
        for row in await self.find_rows(session_id):
            await self.transact(Transaction([row], writes=[Delete(row)]))

    async def log_out(self, subject: str, *, keep: Session | None = None) -> None:
        row = epoch_row(self.audience, subject, self.partitions)
        await self.transact(Transaction([row], writes=[Delete(row)]))

    async def open(self, request: Any) -> Any:
        lease = await super().open(request)
        if isinstance(lease, LedgerLease):
            lease.__class__ = Writes
        return lease


class Writes(LedgerLease):
    """Its commit."""

    def _standing(self) -> Any:
        row = self._session.row
        return [has_epoch(self._session.epoch, self.epoch), AnyOf(Not(Exists(row)), is_mine(row, self.claim))]


def make_deleting(place: Place) -> Ledger:
    return Deletes(place.open_engine(PATIENCE), audience=AUDIENCE, lease=LEASE)


@pytest.mark.promise(22)
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_control_a_revocation_that_deletes_is_caught(place: Place) -> None:
    counts = resurrected(place, make_deleting, 40)
    assert counts["taken"] > 5
    assert counts["go on"] > 5
    assert counts["listed"] > 5
