"""Epochs and tombstones: what ends every session of a subject, or one, and that nothing brings it back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest

from dcaf import Session, tool
from dcaf.core import SessionHost
from dcaf.engines import Delete, Exists, Record, Transaction
from dcaf.ledger.tables import ANSWERS, EPOCHS, SESSIONS
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import AUDIENCE, RING, claims_of, run

ENDED = (409, "session-ended")


@pytest.fixture(params=[True, False], ids=["L2", "L1"])
def freshness(request: pytest.FixtureRequest) -> Any:
    return request.param


def read(world: Any, record: Record) -> Any:
    return world.engine.sync.transact(Transaction([record])).rows[0]


def remove(world: Any, record: Record) -> None:
    world.engine.sync.transact(Transaction([record], writes=[Delete(record)]))


def test_a_log_out_ends_every_session_of_its_subject_and_no_other(build: Any, freshness: bool) -> None:
    world = build(freshness=freshness)

    async def scenario() -> Any:
        sessions = [(await world.turn()).session for _ in range(3)]
        others = [(await world.turn(subject=subject)).session for subject in ("bob", None)]
        await world.ledger.log_out("ada")
        ended = [await world.turn(session) for session in sessions]
        alive = [await world.turn(session, subject=subject) for session, subject in zip(others, ("bob", None), strict=True)]
        again = await world.turn((await world.turn()).session)
        return ended, alive, again

    ended, alive, again = run(scenario)
    assert {answer.told for answer in ended} == {ENDED}
    assert all(answer.session == {"dcaf": {"token": "new"}} for answer in ended)
    assert {answer.status for answer in (*alive, again)} == {200}
    assert "logged-out" in world.names


def test_control_without_the_comparison_a_log_out_ends_nothing(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.opening.has_epoch", lambda epoch, value: None)
    world = build()

    async def scenario() -> Any:
        session = (await world.turn()).session
        await world.ledger.log_out("ada")
        return await world.turn(session)

    assert run(scenario).status in {200, 409}
    assert world.ran == ["count", "count"]


def test_a_log_out_spares_the_session_that_asks(build: Any, freshness: bool) -> None:
    world = build(freshness=freshness)

    async def scenario() -> Any:
        mine, other = (await world.turn()).session, (await world.turn()).session
        world.in_turn = lambda session: world.ledger.log_out("ada", keep=session)
        kept = await world.turn(mine, "read")
        world.in_turn = lambda session: None
        return kept, await world.turn(kept.session), await world.turn(other), await world.turn(mine)

    kept, goes_on, other, before = run(scenario)
    assert (kept.status, goes_on.status, goes_on.value["n"]) == (200, 200, 2)
    assert other.told == before.told == ENDED
    assert claims_of(kept.session)["ep"] == read(world, world.epoch_row())["epoch"]


def test_a_log_out_in_a_call_of_a_tool_spares_its_session(build: Any) -> None:
    world = build()

    @tool
    async def leave(session: Session) -> str:
        """End all other sessions."""
        session["left"] = True
        await world.ledger.log_out("ada", keep=session)
        return "done"

    async def scenario() -> Any:
        first = await world.turn()
        world.in_turn = lambda session: leave.run({}, session=session)
        kept = await world.turn(first.session, "read")
        world.in_turn = lambda session: None
        return kept, await world.turn(kept.session)

    kept, after = run(scenario)
    assert kept.session["left"] is True
    assert after.status == 200


def test_a_log_out_during_a_turn_refuses_its_commit(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        turn = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        await world.ledger.log_out("ada")
        world.go.set()
        return await turn

    assert run(scenario).told == ENDED


def test_a_new_session_that_a_log_out_overtakes_is_not_begun(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        turn = asyncio.ensure_future(world.turn(None, "waits"))
        await world.entered.wait()
        await world.ledger.log_out("ada")
        world.go.set()
        return await turn

    assert run(scenario).told == ENDED


def test_no_epoch_comes_twice_also_when_the_clock_steps_back(build: Any) -> None:
    clock = FrozenClock()
    world = build(engine_clock=clock)
    found = []

    async def scenario() -> None:
        for step in (0, 5, -3600, 0, 0, 3599, -7200):
            clock.tick(timedelta(seconds=step))
            await world.ledger.log_out("ada")
            found.append(read(world, world.epoch_row())["epoch"])

    run(scenario)
    assert found == sorted(set(found))


def test_an_epoch_is_that_of_birth_and_anonymous_sessions_have_none(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        second = await world.turn(first.session)
        return claims_of(first.session), claims_of(second.session), claims_of((await world.turn(subject=None)).session)

    first, second, anonymous = run(scenario)
    assert first["ep"] == second["ep"] == read(world, world.store_row())["origin"]
    assert "ep" not in anonymous


def test_at_the_first_level_no_session_has_a_row(build: Any) -> None:
    world = build(freshness=False)

    async def scenario() -> Any:
        first = await world.turn()
        await world.turn(first.session)
        return await world.turn(first.session), await world.ledger.sessions("ada")

    again, live = run(scenario)
    assert again.status == 200, "an older token stays good"
    assert live == []
    assert world.engine.sync.scan(SESSIONS) == []
    assert (world.ledger.level, build(engine=world.engine).ledger.level) == ("L1", "L2")


def test_rows_that_were_removed_by_hand_are_no_permission(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        session = (await world.turn()).session
        remove(world, world.session_row(claims_of(session)["sid"]))
        without_row = await world.turn(session)
        await world.ledger.log_out("ada")
        later = (await world.turn()).session
        remove(world, world.epoch_row())
        return without_row, await world.turn(later)

    for answer in run(scenario):
        assert answer.told == ENDED
    assert world.names.count("restored") == 2


def test_a_revoked_session_has_ended_and_its_answers_are_gone(build: Any, freshness: bool) -> None:
    world = build(freshness=freshness)

    async def scenario() -> Any:
        first = await world.turn()
        second = await world.turn(first.session, key="k1")
        await world.ledger.revoke(claims_of(second.session)["sid"])
        return [await world.turn(session, key=key) for session in (first.session, second.session) for key in ("k1", None)]

    answers = run(scenario)
    assert {answer.told for answer in answers} == {ENDED}
    assert world.engine.sync.purge(ANSWERS) == 0
    assert "revoked" in world.names


def test_a_revocation_during_a_turn_refuses_its_commit_and_its_checkpoints(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        turns = []
        for how in ("waits", "stream-waits"):
            world.entered, world.go = asyncio.Event(), asyncio.Event()
            session = (await world.turn(first.session) if how == "waits" else await world.turn()).session
            turn = asyncio.ensure_future(world.turn(session, how))
            await world.entered.wait()
            await world.ledger.revoke(claims_of(session)["sid"])
            world.go.set()
            turns.append(await turn)
        return turns

    answer, stream = run(scenario)
    assert answer.told == ENDED
    assert (stream.status, stream.code) == (200, "session-ended")


def test_no_late_commit_brings_a_revoked_session_back(build: Any) -> None:
    """Threads, each with a loop of its own, turn a session while another one revokes it."""
    world = build()
    host = SessionHost(keys=RING, audience=AUDIENCE, store=world.ledger, clock=world.clock)

    async def go_on(envelope: Any) -> None:
        with pytest.raises(Exception, match="session"):
            while True:
                async with host.turn(envelope, subject="ada") as turn:
                    turn.session.incr("n")
                envelope = turn.envelope

    def go_on_in_a_thread(envelope: Any) -> None:
        run(lambda: go_on(envelope))

    for _ in range(10):
        session = run(world.turn).session
        session_id = claims_of(session)["sid"]
        threads = [Thread(target=go_on_in_a_thread, args=[session]) for _ in range(3)]
        for thread in threads:
            thread.start()
        asyncio.run(world.ledger.revoke(session_id))
        ended = read(world, world.session_row(session_id))["ended"]
        for thread in threads:
            thread.join(10)
        assert ended is not None
        assert read(world, world.session_row(session_id))["ended"] == ended
        assert asyncio.run(world.turn(session)).told == ENDED


def test_control_a_commit_that_does_not_look_at_the_tombstone_is_noticed(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dcaf.engines import Is

    def left_out(row: Any, column: str, value: Any) -> Any:
        return Exists(row) if column in {"ended", "sequence"} else Is(row, column, value)

    monkeypatch.setattr("dcaf.ledger.lease.Is", left_out)
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        turn = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        await world.ledger.revoke(claims_of(first.session)["sid"])
        world.go.set()
        return await turn

    assert run(scenario).status == 200


def test_a_session_that_nobody_knows_yet_is_revoked_before_it_is_committed(build: Any) -> None:
    world = build()
    seen: list[str] = []
    world.in_turn = lambda session: seen.append(session.id)

    async def scenario() -> Any:
        turn = asyncio.ensure_future(world.turn(None, "waits", key="k1"))
        await world.entered.wait()
        await world.ledger.revoke(seen[0])
        world.go.set()
        return await turn

    assert run(scenario).told == ENDED


def test_a_tombstone_is_kept_as_long_as_a_token_could_be_valid(build: Any) -> None:
    world = build(
        absolute_timeout=timedelta(days=3), middleware={"absolute_timeout": timedelta(days=3), "idle_timeout": timedelta(1)}
    )

    async def scenario() -> Any:
        first = await world.turn()
        session_id = claims_of(first.session)["sid"]
        await world.ledger.revoke(session_id)
        await world.ledger.revoke("A" * 22)
        world.clock.tick(timedelta(days=3, seconds=59))
        kept = await world.ledger.purge()
        world.clock.tick(timedelta(seconds=2))
        return kept, await world.ledger.purge()

    kept, gone = run(scenario)
    assert (kept.sessions, gone.sessions) == (0, 1 + world.engine.partitions)
    assert world.names.count("purged") == 2


def test_a_purge_while_a_turn_is_open_takes_nothing_from_it(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn()
        turn = asyncio.ensure_future(world.turn(first.session, "waits"))
        await world.entered.wait()
        purged = await world.ledger.purge()
        world.go.set()
        return purged, await turn

    purged, answer = run(scenario)
    assert tuple(purged) == (0, 0, 0)
    assert answer.status == 200


def test_an_application_ends_its_session(build: Any, freshness: bool) -> None:
    world = build(freshness=freshness)

    async def scenario() -> Any:
        first = await world.turn()
        ended = await world.turn(first.session, "end")
        return ended, await world.turn(first.session), await world.turn(ended.session)

    ended, after, anew = run(scenario)
    assert ended.session["dcaf"]["token"] == "new"
    assert after.told == ENDED
    assert (anew.status, anew.value["n"]) == (200, 1)
    assert "ended" in world.names


def test_a_session_goes_on_under_another_id_and_the_old_one_has_ended(build: Any, freshness: bool) -> None:
    world = build(freshness=freshness)

    async def scenario() -> Any:
        first = await world.turn(subject=None)
        rotated = await world.turn(first.session, "rotate-ada", subject=None)
        old = await world.turn(first.session, subject=None)
        return first, rotated, old, await world.turn(rotated.session), await world.ledger.log_out("ada")

    first, rotated, old, after, _ = run(scenario)
    assert claims_of(first.session)["sid"] != claims_of(rotated.session)["sid"]
    assert old.told == ENDED
    assert (after.status, after.value["n"]) == (200, 2)
    assert run(lambda: world.turn(after.session)).told == ENDED, "it is ada's now"
    assert "rotated" in world.names


def test_a_rotation_that_another_turn_overtook_ends_nothing(build: Any) -> None:
    world = build(max_turn=timedelta(milliseconds=1))

    async def scenario() -> Any:
        first = await world.turn()
        entered, go = asyncio.Event(), asyncio.Event()

        async def wait(session: Any) -> None:
            entered.set()
            await go.wait()

        world.in_turn = wait
        rotating = asyncio.ensure_future(world.turn(first.session, "rotate"))
        await entered.wait()
        world.in_turn = lambda session: None
        world.clock.tick(timedelta(seconds=100))
        second = await world.turn(first.session)
        go.set()
        return await rotating, await world.turn(second.session), await world.ledger.sessions("ada")

    rotated, after, live = run(scenario)
    assert rotated.told == (409, "session-conflict")
    assert (after.status, len(live)) == (200, 1)
    assert "rotated" not in world.names


def test_live_sessions_are_listed(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        sessions = [(await world.turn()).session for _ in range(3)]
        await world.turn(subject="bob")
        await world.ledger.revoke(claims_of(sessions[0])["sid"])
        after = [live async for live in world.ledger.all_sessions()]
        listed = await world.ledger.sessions("ada")
        world.clock.tick(timedelta(days=5))
        looked = await world.turn(sessions[1], "read")
        world.clock.tick(timedelta(days=5))
        return sessions, after, listed, looked, await world.ledger.sessions("ada")

    sessions, after, listed, looked, later = run(scenario)
    assert {live.id for live in listed} == {claims_of(session)["sid"] for session in sessions[1:]}
    assert len(after) == 3
    assert {live.sequence for live in listed} == {1}
    assert looked.status == 200
    assert [live.id for live in later] == [claims_of(sessions[1])["sid"]], "a session that is only looked at lives on"


def test_a_session_is_recreated_under_no_old_id(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        ids = set()
        for _ in range(5):
            session = (await world.turn()).session
            ids.add(claims_of(session)["sid"])
            await world.ledger.revoke(claims_of(session)["sid"])
        return ids

    assert len(run(scenario)) == 5


def test_the_table_of_epochs_is_never_purged(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        session = (await world.turn()).session
        await world.ledger.log_out("ada")
        world.clock.tick(timedelta(days=4000))
        await world.ledger.purge()
        world.clock.tick(timedelta(days=-4000))
        return await world.turn(session)

    assert run(scenario).told == ENDED
    assert world.engine.sync.purge(EPOCHS) == 0
