"""P23: a service, and the server of its store, are killed in the middle of writing, and nothing that was acknowledged is lost.

Beside it another process serves from the same place. It goes on with each conversation from the last answer that its client got.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

import dcaf.engines.sqlite.engine
import dcaf.engines.sqlite.writer
from dcaf.core.errors import StoreError
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.ledger import Ledger
from tests.engines import postgres_servers
from tests.forked import CONTEXT
from tests.promises.broken_engines import AnswersFirst
from tests.promises.ledgers import AUDIENCE, PATIENCE, Got, Service, Worker, closing, exchange
from tests.promises.places import ENGINES, Place, Postgres, Server, on_forgetful_redis, on_postgres

Make = Callable[[Place], Ledger]

KILLS, FEWEST, CONVERSATIONS = 100, 4, 8
KILLS_OF_SERVERS = 20
"""A killed PostgreSQL takes seconds to start again. The soak tests kill each server a hundred times."""
LEASE = timedelta(seconds=0.2)
LONGEST_S = 0.15
STUCK_S = 20.0


def make_ledger(place: Place) -> Ledger:
    return Ledger(place.open_engine(PATIENCE), audience=AUDIENCE, lease=LEASE)


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


def serve(place: Place, make: Make, pipe: Any, held: dict[str, Any], name: str) -> None:
    """Serve all conversations at once until somebody kills this; each acknowledgement goes out by the pipe."""

    async def run() -> None:
        ledger = make(place)
        service = Service(ledger)
        async with asyncio.TaskGroup() as group:
            group.create_task(revoke(service, ledger, pipe, name))
            for user, session in held.items():
                group.create_task(hold(service, pipe, user, session, name))

    asyncio.run(run())


async def hold(service: Service, pipe: Any, user: str, session: Any, name: str) -> None:
    """Take turns in one conversation for ever."""
    for at in range(10**6):
        got = await exchange(service.app, f"{user}.{name}.{at}", session, user=user, path=("/chat", "/stream")[at % 2])
        session = got.newest or session
        if got.newest is not None:  # with it the client goes on, also where that of an earlier turn came late
            pipe.send((user, session, False))
        if not is_acknowledged(got):
            await asyncio.sleep(0.01)


async def revoke(service: Service, ledger: Ledger, pipe: Any, name: str) -> None:
    """Begin sessions and end them for ever."""
    for at in range(10**6):
        user = f"gone.{name}.{at}"
        got = await exchange(service.app, "first", user=user)
        if got.newest is not None and await is_ended(ledger, user if at % 2 else None, service.begun[user]):
            pipe.send((user, got.newest, True))
        else:
            await asyncio.sleep(0.01)


async def is_ended(ledger: Ledger, user: str | None, session_id: str) -> bool:
    """End all sessions of a user, or one; False where the store is down."""
    try:
        await (ledger.revoke(session_id) if user is None else ledger.log_out(user))
    except StoreError:
        return False
    return True


def is_acknowledged(got: Got) -> bool:
    return got.status == 200 and got.newest is not None and not any(value.get("type") == "error" for value in got.values)


def make_hasty(place: Place) -> Ledger:
    """Broken: what was written is acknowledged, and committed up to a tenth of a second later, with what came meanwhile."""

    class Hasty(dcaf.engines.sqlite.writer.Writer):
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

    dcaf.engines.sqlite.engine.Writer = Hasty  # type: ignore[attr-defined]  # this process is killed afterwards
    return make_ledger(place)


def make_answering_first(place: Place) -> Ledger:
    """Broken: what was written is acknowledged first, and sent to the store a tenth of a second later."""
    return Ledger(AnswersFirst(place.open_engine(PATIENCE)), audience=AUDIENCE, lease=LEASE)


async def send(service: Service, words: str, session: Any, user: str) -> Got:
    """Send a turn, more than once where the store is down: it may be back, and a connection to it not yet."""
    end, got = time.monotonic() + STUCK_S, Got(503, [])
    while got.status >= 500 and time.monotonic() < end:
        got = await exchange(service.app, words, session, user=user)
        await asyncio.sleep(0.02 if got.status >= 500 else 0)
    return got


def look(place: Place, known: Known) -> tuple[int, Known]:
    """Go on with each conversation, and try each session that has ended: how much is lost of what was acknowledged."""

    async def go_on(service: Service, user: str, session: Any) -> bool:
        end = time.monotonic() + STUCK_S
        while time.monotonic() < end:
            got = await send(service, "look", session, user)  # a GET has the session of a lost answer in a header
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
        ledger = make_ledger(place)
        async with closing(ledger):
            service = Service(ledger)
            live = [(user, session) for user, session in known.held.items() if session is not None]
            went_on = await asyncio.gather(*(go_on(service, user, session) for user, session in live))
            came_back = [(await send(service, "x", session, user)).status == 200 for user, session in known.ended]
        return len(went_on) - sum(went_on) + sum(came_back)

    return asyncio.run(run()), Known(known.held)


def killed(place: Place, make: Make, number: int, *, server: Server | None = None, until_lost: bool = False) -> tuple[int, int]:
    """Kill a process so often: how many acknowledgements there were, and how many of these were lost."""
    rng, known, lost = random.Random(23), Known({f"user-{at}": None for at in range(CONVERSATIONS)}), 0
    acknowledged, other = 0, Worker()
    try:
        for at in range(number):
            kill(partial(serve, place, make), known, str(at), rng, server)
            acknowledged += known.acknowledged
            other.ask(look, place, known)
            found, known = other.answer()
            lost += found
            if lost and until_lost:
                break
    finally:
        other.stop()
    return acknowledged, lost


def kill(serving: Callable[..., None], known: Known, name: str, rng: random.Random, server: Server | None) -> None:
    """Have a process serve, kill the server of its store at a random moment, and the process at another one."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=serving, args=(theirs, known.held, name), daemon=True)
    process.start()
    theirs.close()
    with suppress(EOFError):
        take(ours, known, rng.random() * LONGEST_S)
        if server is not None:
            server.kill()
            server.start()
            take(ours, known, rng.random() * LONGEST_S)
        process.kill()
        take_rest(ours, known)
    process.join()
    ours.close()
    assert process.exitcode == -signal.SIGKILL, "the process has ended by itself"


def take(pipe: Any, known: Known, for_s: float) -> None:
    """Take the acknowledgements that have come, a new one, and those of some time after it."""
    take_rest(pipe, known)
    assert pipe.poll(STUCK_S), "no turn is acknowledged any more"
    end = time.monotonic() + for_s
    while pipe.poll(max(0.0, end - time.monotonic())):
        take_one(pipe, known)


def take_rest(pipe: Any, known: Known) -> None:
    while pipe.poll(0):
        take_one(pipe, known)


def take_one(pipe: Any, known: Known) -> None:
    user, session, is_ended = pipe.recv()
    known.take(user, session, is_ended=is_ended)


@pytest.mark.promise(23)
def test_no_acknowledged_commit_is_lost_when_a_process_is_killed(
    place: Place, scale: float, measured: Callable[[int, str], None]
) -> None:
    number = max(FEWEST, int(KILLS * scale * place.part))
    acknowledged, lost = killed(place, make_ledger, number)
    measured(
        23,
        f"{place.name}: {lost} of {acknowledged:,} acknowledged turns, revocations and log-outs lost, by {number} times kill -9 of "
        "the service",
    )
    assert lost == 0
    assert acknowledged > number * 4


@pytest.mark.promise(23)
def test_no_acknowledged_commit_is_lost_when_the_server_of_the_store_is_killed(
    served: tuple[Place, Server], scale: float, measured: Callable[[int, str], None]
) -> None:
    place, server = served
    number = max(2, int(KILLS_OF_SERVERS * scale * place.part))
    acknowledged, lost = killed(place, make_ledger, number, server=server)
    measured(
        23,
        f"{place.name}: {lost} of {acknowledged:,} lost, by {number} times kill -9 of the store, which starts again, and of the "
        "service",
    )
    assert lost == 0
    assert acknowledged > number * 4


def make_relaxed(place: Place) -> Ledger:
    """Broken for this promise: what is acknowledged is still in the server's memory."""
    engine = PostgresEngine(place.url, timeout=PATIENCE, durability="relaxed")
    return Ledger(engine, audience=AUDIENCE, lease=LEASE)


@pytest.mark.promise(23)
def test_control_a_postgresql_that_does_not_wait_for_its_log_is_caught(postgres_server: postgres_servers.Server) -> None:
    assert killed(on_postgres(postgres_server), make_relaxed, 20, server=Postgres(postgres_server), until_lost=True)[1] > 0


@pytest.mark.promise(23)
def test_control_a_redis_as_it_comes_is_caught() -> None:
    with on_forgetful_redis() as (place, server):
        assert killed(place, make_ledger, 1, server=server)[1] > 0


@pytest.mark.promise(23)
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_control_an_engine_that_acknowledges_before_it_writes_is_caught(place: Place) -> None:
    assert killed(place, make_answering_first, 20, until_lost=True)[1] > 0


@pytest.mark.promise(23)
def test_control_an_engine_that_acknowledges_before_it_commits_is_caught(file: Place) -> None:
    assert killed(file, make_hasty, 20, until_lost=True)[1] > 0
