"""P23: a service process is killed in the middle of writing, again and again, and nothing that it acknowledged is lost.

Beside it another process serves from the same file. It goes on with each conversation from the last answer that its client got.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dcaf.engines.sqlite
import dcaf.engines.sqlite_writer
from dcaf.engines import SqliteEngine
from dcaf.ledger import Ledger
from tests.forked import CONTEXT
from tests.promises.ledgers import AUDIENCE, Got, Service, Worker, closing, exchange

KILLS, CONVERSATIONS = 100, 8
LEASE = timedelta(seconds=0.2)
LONGEST_S = 0.15
STUCK_S = 20.0


def make_ledger(path: Path) -> Ledger:
    return Ledger(SqliteEngine(path, timeout=timedelta(seconds=20)), audience=AUDIENCE, lease=LEASE)


@dataclass
class Known:
    """What clients know.

    Attributes:
        held: Conversation -> the last session that its client got; None for a conversation that is to begin.
        ended: Sessions whose revocation was acknowledged, and whose they were.
        acknowledged: How many turns and revocations were acknowledged.
    """

    held: dict[str, Any] = field(default_factory=dict)
    ended: list[tuple[str, Any]] = field(default_factory=list)
    acknowledged: int = 0

    def take(self, user: str, session: Any, *, is_ended: bool) -> None:
        self.acknowledged += 1
        if is_ended:
            self.ended.append((user, session))
        else:
            self.held[user] = session


def serve(path: Path, make: Callable[[Path], Ledger], pipe: Any, held: dict[str, Any], name: str) -> None:
    """Serve all conversations at once until somebody kills this; each acknowledgement goes out by the pipe."""

    async def hold(service: Service, user: str) -> None:
        session, at = held[user], 0
        while True:
            at += 1
            got = await exchange(service.app, f"{user}.{name}.{at}", session, user=user, path=("/chat", "/stream")[at % 2])
            session = got.newest or session
            if is_acknowledged(got):
                pipe.send((user, session, False))
            else:
                await asyncio.sleep(0.01)

    async def revoke(service: Service, ledger: Ledger) -> None:
        for at in range(10**6):
            user = f"gone.{name}.{at}"
            session = (await exchange(service.app, "first", user=user)).newest
            await (ledger.log_out(user) if at % 2 else ledger.revoke(service.begun[user]))
            pipe.send((user, session, True))

    async def run() -> None:
        ledger = make(path)
        service = Service(ledger)
        async with asyncio.TaskGroup() as group:
            group.create_task(revoke(service, ledger))
            for user in held:
                group.create_task(hold(service, user))

    asyncio.run(run())


def is_acknowledged(got: Got) -> bool:
    return got.status == 200 and got.newest is not None and not any(value.get("type") == "error" for value in got.values)


def serve_hastily(path: Path, make: Callable[[Path], Ledger], *more: Any) -> None:
    """Broken: what was written is acknowledged, and committed up to a tenth of a second later, with what came meanwhile."""

    class Hasty(dcaf.engines.sqlite_writer.Writer):
        began_at = 0.0

        def _set_synchronous(self, *, is_durable: bool) -> None:
            """SQLite takes no such setting in a transaction."""

        def _begin(self) -> None:
            if not self.database.in_transaction:
                self.began_at = time.monotonic()
                super()._begin()

        def _commit(self, *, is_durable: bool) -> None:
            if time.monotonic() - self.began_at > 0.1:
                super()._commit(is_durable=is_durable)

    dcaf.engines.sqlite.Writer = Hasty  # type: ignore[attr-defined]  # this process is killed afterwards
    serve(path, make, *more)


def look(path: Path, known: Known) -> tuple[int, Known]:
    """Go on with each conversation, and try each session that has ended: how much is lost of what was acknowledged."""

    async def go_on(service: Service, user: str, session: Any) -> bool:
        end = time.monotonic() + STUCK_S
        while time.monotonic() < end:
            got = await exchange(service.app, "look", session, user=user)  # a GET has the session of a lost answer in a header
            if got.status == 200:
                known.held[user] = got.newest or session
                return True
            if got.newest is None and got.code != "session-conflict":
                known.held[user] = None
                return False
            is_newer = got.newest is not None and got.newest["n"] >= session["n"]
            assert got.newest is None or is_newer, "an older session was given for a newer one"
            session = got.newest or session
            await asyncio.sleep(0.02)
        return False

    async def run() -> int:
        ledger = make_ledger(path)
        async with closing(ledger):
            service = Service(ledger)
            live = [(user, session) for user, session in known.held.items() if session is not None]
            went_on = await asyncio.gather(*(go_on(service, user, session) for user, session in live))
            came_back = [(await exchange(service.app, "x", session, user=user)).status == 200 for user, session in known.ended]
        return len(went_on) - sum(went_on) + sum(came_back)

    return asyncio.run(run()), Known(known.held)


def killed(folder: Path, serve: Callable[..., None], number: int, *, until_lost: bool = False) -> tuple[int, int]:
    """Kill a process so often: how many acknowledgements there were, and how many of these were lost."""
    rng, known, lost = random.Random(23), Known({f"user-{at}": None for at in range(CONVERSATIONS)}), 0
    acknowledged, other = 0, Worker()
    try:
        for at in range(number):
            kill(folder / "dcaf.db", serve, known, str(at), rng)
            acknowledged += known.acknowledged
            other.ask(look, folder / "dcaf.db", known)
            found, known = other.answer()
            lost += found
            if lost and until_lost:
                break
    finally:
        other.stop()
    return acknowledged, lost


def kill(path: Path, serve: Callable[..., None], known: Known, name: str, rng: random.Random) -> None:
    """Have a process serve, and kill it at a random moment after its first acknowledgement."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=serve, args=(path, make_ledger, theirs, known.held, name), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(STUCK_S), "no turn is acknowledged any more"
        end = time.monotonic() + rng.random() * LONGEST_S
        while ours.poll(max(0.0, end - time.monotonic())):
            take(ours, known)
        process.kill()
        while ours.poll(0):
            take(ours, known)
    except EOFError:
        pass
    process.join()
    ours.close()


def take(pipe: Any, known: Known) -> None:
    user, session, is_ended = pipe.recv()
    known.take(user, session, is_ended=is_ended)


@pytest.mark.promise(23)
def test_no_acknowledged_commit_is_lost_when_a_process_is_killed(
    tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    number = max(4, int(KILLS * scale))
    acknowledged, lost = killed(tmp_path, serve, number)
    measured(23, f"{lost} of {acknowledged:,} acknowledged turns, revocations and log-outs lost, by {number} times kill -9")
    assert lost == 0
    assert acknowledged > number * 4


@pytest.mark.promise(23)
def test_control_an_engine_that_acknowledges_before_it_commits_is_caught(tmp_path: Path) -> None:
    assert killed(tmp_path, serve_hastily, 20, until_lost=True)[1] > 0
