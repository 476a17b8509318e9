"""One turn of a session at a time: who gets it, who is told to wait, and how it is given back."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any

import pytest

from dcaf.engines import Exists, Is, Transaction
from dcaf.ledger.tables import SESSIONS
from tests.ledger.ledger_world import claims_of, number_of, run

LEASE = timedelta(seconds=0.3)
CONFLICT = (409, "session-conflict")


def is_held(world: Any, envelope: Any) -> bool:
    (row,) = world.engine.sync.transact(Transaction([world.session_row(claims_of(envelope)["sid"])])).rows
    return row is not None and row["claim"] is not None


async def two_at_once(world: Any) -> Any:
    first = await world.turn()
    one = asyncio.ensure_future(world.turn(first.session, "waits"))
    await world.entered.wait()
    other = asyncio.ensure_future(world.turn(first.session, "count"))
    await asyncio.sleep(0.05)
    world.go.set()
    return await one, await other


def test_two_turns_at_once_are_one_answer_and_one_conflict(build: Any) -> None:
    world = build()
    one, other = run(lambda: two_at_once(world))
    assert (one.status, one.value["n"]) == (200, 2)
    assert other.told == CONFLICT
    assert other.headers["retry-after"] == "1"
    assert other.session is None, "the client's session may still be good"
    assert world.ran == ["count", "waits"]
    assert "busy" in world.names


def test_control_without_the_rule_both_turns_run(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.opening.is_free", Exists)
    world = build()
    run(lambda: two_at_once(world))
    assert world.ran == ["count", "waits", "count"]


def test_serialize_waits_and_is_then_answered_as_one_that_is_behind(build: Any) -> None:
    world = build(on_busy="serialize")
    one, other = run(lambda: two_at_once(world))
    assert one.status == 200
    assert other.told == CONFLICT
    assert (other.value["applied"], other.session["dcaf"]["token"]) == (False, one.session["dcaf"]["token"])
    assert world.ran == ["count", "waits"]
    assert world.names.count("busy") == 0
    assert world.names.count("reissued") == 1


def test_serialize_runs_the_turn_where_the_first_one_changed_nothing(build: Any) -> None:
    world = build(on_busy="serialize")

    async def scenario() -> Any:
        first = await world.turn()
        held = asyncio.ensure_future(world.turn(first.session, "raises"))
        world.in_turn = lambda session: asyncio.sleep(0.05)
        other = await world.turn(first.session)
        await held
        return other

    assert run(scenario).status == 200


def test_serialize_waits_no_longer_than_it_is_told_to(build: Any) -> None:
    world = build(on_busy="serialize", busy_timeout=timedelta(milliseconds=30))

    async def scenario() -> Any:
        first = await world.turn()
        one = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        other = await world.turn(first.session)
        world.go.set()
        await one
        return other

    assert run(scenario).told == CONFLICT
    assert world.names.count("busy") == 1


@pytest.mark.parametrize("how", ["count", "read", "500", "raises", "text", "stream", "stream-raises", "end", "rotate"])
def test_a_claim_is_given_back_however_the_turn_ends(build: Any, how: str) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        await world.turn(first.session, how)
        return first.session

    assert not is_held(world, run(scenario))


@pytest.mark.parametrize("leaves_after", [0, 1, 2])
@pytest.mark.parametrize("how", ["count", "stream"])
def test_a_claim_is_given_back_when_the_client_leaves(build: Any, how: str, leaves_after: int) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        await world.turn(first.session, how, leaves_after=leaves_after)
        return first.session

    assert not is_held(world, run(scenario))


def test_a_claim_is_given_back_when_the_turn_is_cancelled(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        task = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        assert is_held(world, first.session)
        task.cancel()
        await asyncio.wait([task])
        return first.session

    assert not is_held(world, run(scenario))


@pytest.mark.parametrize("rounds", range(12))
def test_an_open_that_is_cancelled_leaves_nothing_claimed(build: Any, rounds: int) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        task = asyncio.ensure_future(world.turn(first.session, "waits"))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        world.engine.sync.purge(SESSIONS)  # waits behind a claim that has begun: it may come after its turn was cancelled
        for _ in range(100):
            if not is_held(world, first.session):
                break
            await asyncio.sleep(0.01)
        return first.session

    assert not is_held(world, run(scenario))


def test_a_safe_request_claims_nothing_and_is_served_beside_a_turn(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        task = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        looked = await world.turn(first.session, "read", method="GET")
        world.go.set()
        return looked, await task

    looked, answered = run(scenario)
    assert (looked.status, looked.value["n"]) == (200, 1)
    assert (answered.status, answered.value["n"]) == (200, 2)


def test_what_a_safe_request_writes_counts_only_while_nobody_holds_the_session(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        alone = await world.turn(first.session, "count", method="GET")
        task = asyncio.ensure_future(world.turn(alone.session, "waits"))
        await world.entered.wait()
        beside = await world.turn(alone.session, "count", method="GET")
        world.go.set()
        return alone, beside, await task

    alone, beside, turn = run(scenario)
    assert (alone.status, number_of(alone.session)) == (200, 2)
    assert beside.told == CONFLICT
    assert turn.status == 200


def test_a_tool_that_blocks_the_loop_for_longer_than_the_lease_keeps_its_session(build: Any) -> None:
    """A thread renews the claim; another process would not have got it either."""
    world = build(clock=time.time, lease=LEASE)
    rival = build(engine=world.engine, clock=time.time, lease=LEASE)
    answer, told = block(world, rival)
    assert (answer.status, answer.value["n"]) == (200, 2)
    assert told
    assert set(told) == {CONFLICT}


def test_control_without_the_thread_the_session_is_taken(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.renewals.Renewals.add", lambda self, turn: None)
    world = build(clock=time.time, lease=LEASE)
    rival = build(engine=world.engine, clock=time.time, lease=LEASE)
    answer, told = block(world, rival)
    assert answer.told == CONFLICT
    assert (200, None) in told


def block(world: Any, rival: Any) -> Any:
    """A turn that blocks its loop, and what rivals in another thread are told meanwhile."""
    told: list[Any] = []

    async def scenario() -> Any:
        first = await world.turn()
        threads = asyncio.ensure_future(asyncio.to_thread(try_for, rival, first.session, told, 0.8))
        await asyncio.sleep(0.05)
        answer = await world.turn(first.session, "blocks")
        await threads
        return answer

    def try_for(rival: Any, session: Any, told: list[Any], seconds: float) -> None:
        time.sleep(0.3)
        end = time.monotonic() + seconds - 0.1
        while time.monotonic() < end:
            told.append(asyncio.run(rival.turn(session)).told)
            time.sleep(0.1)

    return run(scenario), told


def test_a_lease_that_is_over_does_not_refuse_the_commit(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        task = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        world.clock.tick(timedelta(seconds=100))
        world.go.set()
        return await task

    assert run(scenario).status == 200


async def taken_by_another(world: Any) -> Any:
    first = await world.turn()
    one = asyncio.ensure_future(world.turn(first.session, "waits"))
    await world.entered.wait()
    world.clock.tick(timedelta(seconds=100))
    second = await world.turn(first.session)
    world.go.set()
    return await one, second


def test_a_turn_whose_session_another_one_took_is_refused(build: Any) -> None:
    world = build(max_turn=timedelta(milliseconds=1))
    one, second = run(lambda: taken_by_another(world))
    assert (second.status, second.value["n"]) == (200, 2)
    assert one.told == CONFLICT
    assert "taken" in world.names


def test_control_without_the_comparison_two_states_have_one_number(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.lease.is_mine", lambda row, claim: Exists(row))
    monkeypatch.setattr(
        "dcaf.ledger.lease.Is", lambda row, column, value: Exists(row) if column == "sequence" else Is(row, column, value)
    )
    world = build(max_turn=timedelta(milliseconds=1))
    one, second = run(lambda: taken_by_another(world))
    assert number_of(one.session) == number_of(second.session)


DIES = """
import asyncio, json, os, signal, sys
from datetime import timedelta
from dcaf.core import Key, Keyring, SessionHost
from dcaf.ledger import Ledger
ring = Keyring(Key.from_bytes("k7", bytes(range(32))))
ledger = Ledger(sys.argv[1], audience="shop", lease=timedelta(seconds=0.5))
async def turn():
    async with SessionHost(keys=ring, audience="shop", store=ledger).turn(json.loads(sys.argv[2]), subject="ada"):
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(turn())
"""


def test_the_session_of_a_process_that_died_is_free_after_the_lease(build: Any, kind: str) -> None:
    if kind != "sqlite":
        return  # it died with its process
    world = build(clock=time.time)

    async def scenario() -> Any:
        first = await world.turn()
        command = [sys.executable, "-c", DIES, world.engine.url, json.dumps(first.session)]
        dead = await asyncio.create_subprocess_exec(*command)
        assert await dead.wait() == -9
        early = await world.turn(first.session)
        await asyncio.sleep(0.5)
        return early, await world.turn(first.session)

    early, late = run(scenario)
    assert early.told == CONFLICT
    assert late.status == 200


def test_a_hung_turn_holds_its_session_no_longer_than_max_turn(build: Any) -> None:
    world = build(clock=time.time, lease=LEASE, max_turn=timedelta(seconds=0.5))

    async def scenario() -> Any:
        first = await world.turn()
        hung = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        await asyncio.sleep(0.4)
        early = await world.turn(first.session)
        await asyncio.sleep(0.6)
        late = await world.turn(first.session)
        world.go.set()
        return early, late, await hung

    early, late, hung = run(scenario)
    assert early.told == CONFLICT, "the lease alone would be over"
    assert late.status == 200
    assert hung.told == CONFLICT


def test_an_operator_takes_a_session_from_a_turn_that_hangs(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        session_id = claims_of(first.session)["sid"]
        assert await world.ledger.unlock(session_id) is False
        hung = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        assert await world.ledger.unlock(session_id) is True
        second = await world.turn(first.session)
        world.go.set()
        return second, await hung

    second, hung = run(scenario)
    assert second.status == 200
    assert hung.told == CONFLICT
    assert "unlocked" in world.names


def test_a_checkpoint_keeps_the_session_until_the_stream_ends(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        stream = asyncio.ensure_future(world.turn(first.session, "stream-waits"))
        await world.entered.wait()
        held = is_held(world, first.session)
        world.go.set()
        answer = await stream
        return held, answer, await world.turn(answer.session)

    held, answer, after = run(scenario)
    assert held
    assert [number_of(session) for session in answer.sessions] == [2, 3]
    assert (after.status, after.value["n"]) == (200, 4)


def test_a_first_turn_that_streams_holds_the_session_that_it_begins(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        stream = asyncio.ensure_future(world.turn(None, "stream-waits"))
        await world.entered.wait()
        (live,) = await world.ledger.sessions("ada")
        world.go.set()
        await stream
        (after,) = await world.ledger.sessions("ada")
        return live.is_busy, after.is_busy

    assert run(scenario) == (True, False)
