"""Engines that fail, clocks that disagree, events, and settings that are wrong; and what a turn costs."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dcaf.core import ConfigurationError, Keyring, SessionHost, SessionSuperseded
from dcaf.core.errors import CommitUnknownError, EngineError
from dcaf.engines import MemoryEngine, SqliteEngine, Transaction
from dcaf.ledger import Ledger, LedgerEvent
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import AUDIENCE, RING, World, claims_of, run

UNAVAILABLE = (503, "session-unavailable")


class Counting:
    """An engine over another one: counts what goes through it, and fails where a test says so.

    Attributes:
        seen: Each transaction, in order.
        fails: Takes a transaction; what it returns is raised in its place.
        unknown: Whether the transaction is applied all the same.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.url, self.sync = engine.url, engine.sync
        self.seen: list[Transaction] = []
        self.fails: Any = lambda transaction: None
        self.unknown = False

    async def transact(self, transaction: Transaction) -> Any:
        self.seen.append(transaction)
        error = self.fails(transaction)
        if error is None or self.unknown:
            outcome = await self._engine.transact(transaction)
        if error is not None:
            raise error
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.fixture
def counted(build: Any) -> Any:
    world = build()
    return build(engine=Counting(world.engine), clock=world.clock)


def on(number: int, error: Exception) -> Any:
    """Fail the transaction of this number from now on."""
    left = iter(range(number))
    return lambda transaction: error if next(left, None) is None else None


@pytest.mark.parametrize("error", [EngineError("away"), CommitUnknownError("who knows")])
@pytest.mark.parametrize(("step", "ran"), [(0, False), (1, True)])
@pytest.mark.parametrize("unknown", [False, True])
def test_a_failing_engine_is_a_503_that_says_whether_the_turn_ran_and_drops_nothing(
    counted: World, error: Exception, step: int, ran: bool, unknown: bool
) -> None:
    if unknown and not isinstance(error, CommitUnknownError):
        return

    async def scenario() -> Any:
        first = await counted.turn()
        counted.engine.fails, counted.engine.unknown = on(step, error), unknown
        failed = await counted.turn(first.session)
        counted.engine.fails = lambda transaction: None
        await asyncio.sleep(0.05)
        counted.clock.tick(timedelta(seconds=16))
        return failed, await counted.turn(first.session)

    failed, after = run(scenario)
    assert (failed.told, failed.value["ran"]) == (UNAVAILABLE, ran)
    assert failed.session is None
    assert failed.headers["retry-after"] == "1"
    if unknown and ran:
        assert (after.code, after.value["applied"], after.session["n"]) == ("session-conflict", True, 2)
    else:
        assert (after.status, after.value["n"]) == (200, 2)


def test_a_claim_that_could_not_be_given_back_lapses(counted: World) -> None:
    async def scenario() -> Any:
        first = await counted.turn()
        counted.engine.fails = on(1, EngineError("away"))
        read = await counted.turn(first.session, "read")
        counted.engine.fails = lambda transaction: None
        counted.clock.tick(timedelta(seconds=16))
        return read, await counted.turn(first.session)

    read, after = run(scenario)
    assert (read.status, after.status) == (200, 200)


def test_a_closed_engine_is_a_503(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        await world.engine.aclose()
        return await world.turn(first.session)

    assert run(scenario).told == UNAVAILABLE


def test_a_ledger_closes_the_engine_that_it_has_opened_and_no_other(build: Any, tmp_path: Path) -> None:
    world, own = build(), Ledger(f"sqlite:///{tmp_path}/own.db", audience=AUDIENCE)
    opened = own.engine

    async def scenario() -> Any:
        for ledger in (world.ledger, own, own):
            await ledger.aclose()
        return await world.turn()

    assert run(scenario).status == 200
    with pytest.raises(EngineError, match="closed"):
        run(opened.check)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/own.db"])
def test_an_application_that_is_started_again_finds_its_sessions(url: str, tmp_path: Path) -> None:
    ledger = Ledger(url.format(folder=tmp_path), audience=AUDIENCE)
    host = SessionHost(keys=RING, audience=AUDIENCE, store=ledger)

    async def count(envelope: Any) -> Any:
        async with host.turn(envelope) as turn:
            turn.session.incr("n")
        await ledger.aclose()
        return turn.envelope

    first = run(lambda: count(None))
    second = run(lambda: count(first))
    third = run(lambda: count(second))
    assert third["n"] == 3
    with pytest.raises(SessionSuperseded):
        run(lambda: count(first))


def test_an_engine_that_hangs_is_a_503_in_about_a_second(build: Any, kind: str, tmp_path: Path) -> None:
    if kind != "sqlite":
        return  # it never waits
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        with closing(sqlite3.connect(tmp_path / "dcaf.db", isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            hung = await world.turn(first.session)
            took_s = time.monotonic() - began
            stranger.execute("ROLLBACK")
        return hung, took_s

    hung, took_s = run(scenario)
    assert (hung.told, hung.value["ran"]) == (UNAVAILABLE, False)
    assert took_s < 3


def test_a_turn_opens_in_one_transaction_and_commits_in_one(counted: World) -> None:
    async def scenario() -> Any:
        costs = []
        first = await counted.turn()
        for session, how, key, method in (
            (None, "count", None, "POST"),
            (None, "count", "k1", "POST"),
            (first.session, "count", None, "POST"),
        ):
            counted.engine.seen.clear()
            answer = await counted.turn(session, how, key=key, method=method)
            costs.append([transaction.durable for transaction in counted.engine.seen])
        for how, method, key in (("read", "POST", None), ("read", "GET", None), ("count", "POST", "k2")):
            counted.engine.seen.clear()
            await counted.turn(answer.session, how, method=method, key=key)
            costs.append([transaction.durable for transaction in counted.engine.seen])
        return costs

    new, with_key, changed, untouched, safe, keyed = run(scenario)
    assert new == with_key == changed == keyed == [False, True]
    assert untouched == [False, False], "opened, and given back"
    assert safe == [False]


@pytest.mark.parametrize("ahead_s", [45, -45])
def test_clocks_that_are_45_seconds_apart_change_nothing(build: Any, ahead_s: int) -> None:
    engine_clock = FrozenClock()
    world = build(engine_clock=engine_clock, clock=FrozenClock(engine_clock.now + timedelta(seconds=ahead_s)))

    async def scenario() -> Any:
        first = await world.turn()
        lost = await world.turn(first.session, key="k1")
        again = await world.turn(first.session, key="k1")
        goes_on = await world.turn(lost.session)
        await world.ledger.log_out("ada")
        ended = await world.turn(goes_on.session)
        return again, goes_on, ended, await world.turn((await world.turn()).session)

    again, goes_on, ended, anew = run(scenario)
    assert (again.value["applied"], goes_on.value["n"]) == (True, 3)
    assert ended.code == "session-ended"
    assert anew.status == 200


def test_a_clock_of_the_engine_that_steps_back_an_hour_ends_nothing(build: Any) -> None:
    engine_clock = FrozenClock()
    world = build(engine_clock=engine_clock)

    async def scenario() -> Any:
        first = await world.turn()
        turn = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        engine_clock.tick(timedelta(hours=-1))
        world.go.set()
        second = await turn
        await world.ledger.log_out("bob")
        return second, await world.turn(second.session), await world.turn((await world.turn(subject="bob")).session, subject="bob")

    assert [answer.status for answer in run(scenario)] == [200, 200, 200]


def test_a_row_of_a_session_has_less_than_200_bytes(build: Any, kind: str, tmp_path: Path) -> None:
    if kind != "sqlite":
        return
    world = build()

    async def scenario() -> Any:
        for _ in range(100):
            first = await world.turn(key="a-key-of-a-request")
            world.go.clear()
            turn = asyncio.ensure_future(world.turn(first.session, "waits"))
            await world.entered.wait()
            world.go.set()
            await turn

    run(scenario)
    with closing(sqlite3.connect(tmp_path / "dcaf.db")) as database:
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(dcaf_sessions)")]
        size = "+".join(f"coalesce(length(CAST({name} AS BLOB)),0)" for name in columns if name not in {"expires", "until"})
        payload = database.execute("SELECT sum(payload), sum(ncell) FROM dbstat WHERE name='dcaf_sessions'").fetchone()
        assert database.execute(f"SELECT max({size}) FROM dcaf_sessions").fetchone()[0] < 200
    assert payload[0] / 100 < 200


def test_events_are_logged_without_a_secret(build: Any, caplog: pytest.LogCaptureFixture) -> None:
    world = build()
    with caplog.at_level(logging.DEBUG, "dcaf"):

        async def scenario() -> Any:
            first = await world.turn(subject="ada-lovelace", key="a-secret-key")
            await world.turn(first.session, subject="ada-lovelace")
            await world.turn(first.session, subject="ada-lovelace")
            await world.ledger.log_out("ada-lovelace")
            await world.ledger.revoke(claims_of(first.session)["sid"])
            return first.session

        session = run(scenario)
    lines = [record.getMessage() for record in caplog.records if "ledger" in record.getMessage()]
    assert [line.split()[2] for line in lines] == world.names == ["reissued", "logged-out", "revoked"]
    for secret in (session["dcaf"]["token"], claims_of(session)["sid"], "ada-lovelace", "a-secret-key"):
        assert secret not in caplog.text
    assert world.events[0].session == world.events[2].session
    assert world.events[1].session is None


def test_what_on_event_raises_changes_nothing(build: Any) -> None:
    def fail(event: LedgerEvent) -> None:
        raise RuntimeError("a bug in a counter")

    world = build(on_event=fail)

    async def scenario() -> Any:
        first = await world.turn()
        await world.turn(first.session)
        await world.ledger.log_out("ada")
        return await world.turn(first.session)

    assert run(scenario).code == "session-ended"


def test_a_ledger_of_another_audience_is_refused_and_told(build: Any, caplog: pytest.LogCaptureFixture) -> None:
    world = build()
    world.ledger.audience = "another"
    assert run(world.turn).told == UNAVAILABLE
    assert "audience=" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"engine": 7}, "a url or an engine"),
        ({"engine": object()}, "a url or an engine"),
        ({"engine": MemoryEngine}, "a url or an engine"),
        ({"engine": "nothing"}, "sqlite:////var/lib/shop/dcaf.db"),
        ({"audience": ""}, "audience='deploy-agent'"),
        ({"audience": None}, "audience="),
        ({"lease": 15}, "lease="),
        ({"lease": timedelta()}, "lease="),
        ({"max_turn": timedelta(-1)}, "max_turn="),
        ({"reissue": 600}, "reissue="),
        ({"busy_timeout": None}, "busy_timeout="),
        ({"absolute_timeout": 30}, "absolute_timeout="),
        ({"freshness": "yes"}, "freshness="),
        ({"branches": 1}, "branches="),
        ({"branches": True, "freshness": False}, "branches=True"),
        ({"on_busy": "merge"}, "on_busy"),
        ({"max_answer_bytes": -1}, "max_answer_bytes="),
        ({"max_answer_bytes": "512"}, "max_answer_bytes="),
        ({"adopt_until": datetime(2026, 12, 1)}, "tzinfo=UTC"),  # noqa: DTZ001
        ({"adopt_until": "2026-12-01"}, "adopt_until="),
        ({"on_event": "log"}, "on_event="),
        ({"randomness": b"abc"}, "randomness="),
    ],
)
def test_a_wrong_setting_says_what_to_write(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        Ledger(**{"engine": "memory://", "audience": AUDIENCE, **wrong})
    assert says in str(found.value)


def test_wrong_arguments_of_its_methods_say_what_to_write() -> None:
    ledger = Ledger("memory://", audience=AUDIENCE)
    host = SessionHost(keys=Keyring.ephemeral(), audience=AUDIENCE, store=ledger)

    async def keep_another() -> None:
        async with host.turn(None, subject="bob") as turn:
            await ledger.log_out("ada", keep=turn.session)

    for call in (
        lambda: ledger.log_out(""),
        lambda: ledger.sessions(7),  # type: ignore[arg-type]
        lambda: ledger.revoke("short"),
        lambda: ledger.unlock(None),  # type: ignore[arg-type]
        keep_another,
    ):
        with pytest.raises(ConfigurationError):
            asyncio.run(call())


def test_random_bytes_that_are_none_are_refused(build: Any) -> None:
    world = build(randomness=lambda count: b"")
    assert run(world.turn).told == UNAVAILABLE


def test_it_says_what_it_is(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/dcaf.db", audience=AUDIENCE, adopt_until=datetime(2999, 1, 1, tzinfo=UTC))
    assert repr(ledger) == f"<Ledger L2 sqlite:///{tmp_path}/dcaf.db>"
    assert isinstance(ledger.engine, SqliteEngine)
    assert json.loads(json.dumps(run(ledger.check).durability)) == "acknowledged"
    run(ledger.aclose)
