"""What may be used once in a session is: all of a message or none, and by one turn of one process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dcaf.core import SessionConflict, SessionEnded, SessionHost
from dcaf.core.single_use import spend
from dcaf.ledger.lease import LedgerLease
from dcaf.ledger.tables import use_row
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import AUDIENCE, RING, claims_of, run


@pytest.fixture(params=[True, False], ids=["L2", "L1"])
def freshness(request: pytest.FixtureRequest) -> Any:
    return request.param


def host_of(world: Any) -> Any:
    return SessionHost(keys=RING, audience=AUDIENCE, store=world.ledger, clock=world.clock)


def test_a_key_is_used_once_in_a_session_whatever_is_presented(build: Any, freshness: bool) -> None:
    world = build(freshness=freshness)

    async def scenario() -> None:
        first = await world.turn()
        second = await world.turn(first.session, "once-a")
        for session in (first.session, second.session or first.session, first.session):
            await world.turn(session, "once-a")
        await world.turn(first.session, "once-b")
        await world.turn((await world.turn()).session, "once-a")

    run(scenario)
    assert world.used[0] is True
    assert world.used[-1] is True, "another session"
    assert world.used.count(True) == 3


def test_control_a_use_that_is_remembered_for_its_turn_alone_is_noticed(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = count()
    monkeypatch.setattr("dcaf.ledger.rotation.use_row", lambda root, key, at: use_row(root, f"{key} {next(turns)}", at))
    world = build(freshness=False)

    async def scenario() -> None:
        first = await world.turn()
        for _ in range(2):
            await world.turn(first.session, "once-a")

    run(scenario)
    assert world.used == [True, True]


def uses_after_rotations(world: Any) -> list[bool]:
    async def scenario() -> None:
        session = (await world.turn()).session
        for how in ("once-a", "rotate", "once-a", "once-b", "rotate", "once-a", "once-b"):
            session = (await world.turn(session, how)).session or session

    run(scenario)
    used: list[bool] = world.used
    return used


def test_what_was_used_stays_so_when_the_session_goes_on_under_another_id(build: Any, freshness: bool) -> None:
    assert uses_after_rotations(build(freshness=freshness)) == [True, False, True, False, False]


def test_what_was_used_stays_so_when_a_rotated_session_is_adopted(build: Any) -> None:
    before = build(freshness=False)
    after = build(engine=before.engine, clock=before.clock, adopt_until=datetime(2999, 1, 1, tzinfo=UTC))

    async def scenario() -> None:
        session = (await before.turn()).session
        for world, how in ((before, "once-a"), (before, "rotate"), (after, "once-a"), (after, "count"), (after, "once-a")):
            session = (await world.turn(session, how)).session or session

    run(scenario)
    assert (before.used, after.used) == ([True], [False, False])


def test_control_uses_by_the_id_alone_are_forgotten_by_a_rotation(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.lease.LedgerLease.note", lambda self, row: None)
    assert uses_after_rotations(build()) == [True, True, True, True, True]


DIES = """
import os, sys, time
from dcaf.engines import SqliteEngine
from tests.ledger.ledger_world import World, run
async def die(session):
    print(await session.once("a"), flush=True)
    os._exit(9)
world = World(SqliteEngine(sys.argv[1], clock=lambda: float(sys.argv[2])))
world.in_turn = die
run(lambda: world.turn(None, key="k1"))
"""


def uses_after_a_death(build: Any, tmp_path: Path, *, say: str | None = None, key: str = "k1") -> list[bool]:
    """What a first turn is told that uses something up, where a process died between that and the commit of a first turn."""
    clock = FrozenClock()
    command = [sys.executable, "-c", DIES, str(tmp_path / "dcaf.db"), str(clock())]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout == "True\n"
    world = build(clock=clock)

    async def use(session: Any) -> None:
        world.used.append(await session.once("a"))

    async def scenario() -> None:
        assert (await world.turn(None, key="k1")).code == "session-conflict", "it may still go on"
        clock.tick(timedelta(seconds=16))
        world.in_turn = use
        begun = await world.turn(None, key=key, say=say)
        assert begun.status == 200
        await world.turn(begun.session)

    run(scenario)
    used: list[bool] = world.used
    return used


def test_a_first_turn_whose_process_died_does_not_use_once_more_when_it_is_sent_again(
    build: Any, kind: str, tmp_path: Path
) -> None:
    if kind != "sqlite":
        return  # it dies with its process
    assert uses_after_a_death(build, tmp_path) == [False, False]


@pytest.mark.parametrize("other", [{"say": "another"}, {"key": "k2"}])
def test_another_first_turn_uses_for_itself(build: Any, kind: str, tmp_path: Path, other: Any) -> None:
    if kind != "sqlite":
        return
    assert uses_after_a_death(build, tmp_path, **other) == [True, False]


def test_control_uses_by_the_id_alone_are_done_again_by_a_first_turn_that_is_sent_again(
    build: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "sqlite":
        return
    monkeypatch.setattr("dcaf.ledger.lease.LedgerLease.share_uses", lambda self, keyed: None)
    assert uses_after_a_death(build, tmp_path) == [True, False]


def test_several_are_used_together_or_none_of_them(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        async with host_of(world).turn(None, subject="ada") as turn:
            return [await spend(turn.session, keys) for keys in (["a", "b"], ["b", "c"], ["c"], ["a", "c"])]

    assert run(scenario) == [True, False, True, False]


def given_back_after_a_cancellation(world: Any) -> list[bool]:
    """What is said of a key after somebody gave up while it was used, and gave it back."""
    entered = asyncio.Event()
    transact = world.ledger.transact

    async def slowly(transaction: Any) -> Any:
        outcome = await transact(transaction)
        if any(write.record.table.name == "dcaf_uses" for write in transaction.writes) and not entered.is_set():
            entered.set()
            await asyncio.sleep(60)
        return outcome

    async def scenario() -> list[bool]:
        async with host_of(world).turn(None, subject="ada") as turn:
            turn.session["n"] = 1
            world.ledger.transact = slowly
            asking = asyncio.ensure_future(spend(turn.session, ["a"]))
            await entered.wait()
            asking.cancel()
            await asyncio.wait([asking])
            await turn.session._state.lease.give_back(["a"])
            return [await spend(turn.session, ["a"]) for _ in range(2)]

    found: list[bool] = run(scenario)
    return found


def test_what_was_used_while_somebody_gave_up_can_be_given_back(build: Any) -> None:
    assert given_back_after_a_cancellation(build()) == [True, False]


def test_control_a_use_that_counts_when_its_answer_is_there_is_never_given_back(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spend_and_note(self: Any, keys: Any) -> bool:
        try:
            return await ask(self, keys)
        except asyncio.CancelledError:
            self._spent -= {*keys}
            raise

    ask = LedgerLease.spend
    monkeypatch.setattr(LedgerLease, "spend", spend_and_note)
    assert given_back_after_a_cancellation(build()) == [False, False]


def test_what_was_used_stays_so_when_the_turn_fails(build: Any) -> None:
    world = build()

    async def scenario() -> None:
        first = await world.turn()
        world.in_turn = lambda session: session.once("a")
        await world.turn(first.session, "raises")
        world.in_turn = lambda session: None
        world.used.clear()

        async def again(session: Any) -> None:
            world.used.append(await session.once("a"))

        world.in_turn = again
        await world.turn(first.session)

    run(scenario)
    assert world.used == [False]


def test_a_turn_gives_back_only_what_it_used_itself(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        async with host_of(world).turn(None, subject="ada") as turn:
            turn.session["n"] = 1
            await spend(turn.session, ["a"])
        async with host_of(world).turn(turn.envelope, subject="ada") as other:
            lease = other._turn.lease
            await spend(other.session, ["b"])
            await lease.give_back(["a", "b"])
            return [await spend(other.session, [key]) for key in "ab"]

    assert run(scenario) == [False, True]


@pytest.mark.parametrize("what", ["revoke", "log_out"])
def test_nothing_is_used_in_a_session_that_has_ended(build: Any, freshness: bool, what: str) -> None:
    world = build(freshness=freshness)

    async def scenario() -> None:
        first = await world.turn()
        async with host_of(world).turn(first.session, subject="ada") as turn:
            if what == "revoke":
                await world.ledger.revoke(claims_of(first.session)["sid"])
            else:
                await world.ledger.log_out("ada")
            with pytest.raises(SessionEnded):
                await turn.session.once("a")

    run(scenario)


def test_nothing_is_used_by_a_turn_whose_session_another_one_took(build: Any) -> None:
    world = build()

    async def scenario() -> None:
        first = await world.turn()
        with pytest.raises(SessionConflict):
            async with host_of(world).turn(first.session, subject="ada") as turn:
                await world.ledger.unlock(turn.session.id)
                await world.turn(first.session)
                await turn.session.once("a")

    run(scenario)


def test_with_branches_a_key_is_used_once_in_all_of_them(build: Any) -> None:
    world = build(branches=True)

    async def scenario() -> Any:
        first = await world.turn()
        branches = [await world.turn(first.session) for _ in range(3)]
        assert len({claims_of(branch.session)["seq"] for branch in branches}) == 3
        for branch in branches:
            await world.turn(branch.session, "once-a")

    run(scenario)
    assert world.used == [True, False, False]


RACES = 100
RACE = """
import asyncio, json, sys
from dcaf.core import Key, Keyring, SessionHost
from dcaf.ledger import Ledger
host = SessionHost(keys=Keyring(Key.from_bytes("k7", bytes(range(32)))), audience="shop",
                   store=Ledger(sys.argv[1], audience="shop", freshness=False))
async def race():
    won = []
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        async with host.turn(json.loads(sys.argv[2]), subject="ada") as turn:
            won.append(await turn.session.once(f"key {number}"))
    print(json.dumps(won))
asyncio.run(race())
"""


def test_of_two_processes_exactly_one_uses_each_key(build: Any, kind: str) -> None:
    if kind != "sqlite":
        return  # no other process sees it
    world = build(clock=time.time, freshness=False)
    session = run(world.turn).session
    command = [sys.executable, "-c", RACE, world.engine.url, json.dumps(session), str(RACES)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [json.loads(racer.communicate()[0]) for racer in racers]
    assert [first + second for first, second in zip(*won, strict=True)] == [1] * RACES


def test_of_many_tasks_exactly_one_uses_a_key(build: Any) -> None:
    world = build(freshness=False)

    async def scenario() -> Any:
        first = await world.turn()
        await asyncio.gather(*[world.turn(first.session, "once-a") for _ in range(20)])

    run(scenario)
    assert world.used.count(True) == 1
