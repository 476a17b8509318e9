"""An engine of several servers: each subject's rows lie together, and a session that is rotated to another subject moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dcaf.core import EngineError
from dcaf.engines import Condition, Exists, MemoryEngine, Not, Outcome, Put, Record, Transaction
from dcaf.engines.partitions import find_partition
from dcaf.ledger.rotation import Root, split
from dcaf.ledger.tables import SESSIONS, STORE, TABLES
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import World, claims_of, run

ENDED = (409, "session-ended")
PARTITIONS = 64
FAR = ["ada", "bob", "cy", "dora", "eve", "finn", "gus", "hal"]
"""Subjects that lie in several partitions."""


class Watched(MemoryEngine):
    """Fails, or lets something happen, before it commits a session.

    Attributes:
        fails: How many more commits are done before the engine fails; None for all.
        before_write: What happens before the next one; None for nothing.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(clock=clock, partitions=PARTITIONS)
        self.fails: int | None = None
        self.before_write: Any = None

    async def transact(self, transaction: Transaction) -> Outcome:
        if transaction.durable and any(write.record.table == SESSIONS for write in transaction.writes):
            if self.fails is not None:
                self.fails -= 1
                if self.fails < 0:
                    raise EngineError("away")
            if self.before_write is not None:
                happen, self.before_write = self.before_write, None
                await happen()
        return await super().transact(transaction)


def make(**settings: Any) -> World:
    clock = FrozenClock()
    return World(Watched(clock), clock=clock, **settings)


def rows_of(world: World) -> dict[str, list[tuple[int, bytes]]]:
    """Name of a table -> partition and key of each row in it."""
    kept = world.engine._rows._found
    return {table.name: sorted((partition, key) for key, partition in kept.get(table.name, {})) for table in TABLES}


def test_all_rows_of_a_subject_lie_in_one_partition_and_subjects_in_many() -> None:
    world = make()

    async def scenario() -> None:
        for subject in FAR:
            session = (await world.turn(subject=subject, key="k")).session
            session = (await world.turn(session, "once-a", subject=subject)).session
            await world.turn(session, "rotate", subject=subject, key="k2")
            await world.ledger.log_out(subject)

    run(scenario)
    rows = rows_of(world)
    expected = {world.epoch_row(subject).partition for subject in FAR}
    assert {partition for name in rows for partition, _ in rows[name] if name != STORE.name} == expected
    assert len(expected) >= 6
    assert {partition for partition, _ in rows[STORE.name]} == expected | {0}


def test_an_anonymous_session_lies_where_its_id_says() -> None:
    world = make()

    async def scenario() -> Any:
        return [(await world.turn(subject=None)).session for _ in range(20)]

    sids = [claims_of(session)["sid"] for session in run(scenario)]
    assert {key: partition for partition, key in rows_of(world)[SESSIONS.name]} == {
        world.session_row(sid, None).key: find_partition(None, sid, PARTITIONS) for sid in sids
    }
    assert len({partition for partition, _ in rows_of(world)[SESSIONS.name]}) > 8


@pytest.mark.parametrize("subject", FAR)
def test_what_was_used_stays_so_when_a_session_moves_to_another_subject(subject: str) -> None:
    world = make()

    async def scenario() -> Any:
        first = (await world.turn(subject=None)).session
        used = (await world.turn(first, "once-a", subject=None)).session or first
        moved = (await world.turn(used, f"rotate-{subject}", subject=None)).session
        again = (await world.turn(moved, "once-a", subject=subject)).session or moved
        new = (await world.turn(again, "once-b", subject=subject)).session or again
        back = (await world.turn(new, "rotate-zoe", subject=subject)).session
        for how in ("once-b", "once-a", "once-c"):
            back = (await world.turn(back, how, subject="zoe")).session or back
        return await world.turn(used, subject=None), await world.turn(new, subject=subject), await world.turn(back, subject="zoe")

    old, before, after = run(scenario)
    assert world.used == [True, False, True, False, False, True]
    assert (old.told, before.told, after.status) == (ENDED, ENDED, 200)


def test_where_what_begins_is_written_and_what_ends_is_not_the_session_is_as_it_was() -> None:
    world = make()

    async def scenario() -> Any:
        first = (await world.turn(subject=None)).session
        world.engine.fails = 1  # the new row is written, and the end of the old one is not
        failed = await world.turn(first, "rotate-ada", subject=None)
        world.engine.fails = None
        return failed, await world.turn(first, subject=None), await world.turn(failed.session, subject="ada")

    failed, goes_on, begun = run(scenario)
    assert (failed.status, failed.code, failed.session) == (503, "session-unavailable", None)
    assert (goes_on.status, goes_on.value["n"], begun.value["n"]) == (200, 2, 1)
    assert "rotated" not in world.names


def test_a_session_that_ended_meanwhile_is_not_begun_anew_elsewhere() -> None:
    assert overtaken() == []


def test_control_without_taking_it_back_it_lives_on_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(*_: Any) -> None: ...

    monkeypatch.setattr("dcaf.ledger.lease.LedgerLease._take_back", keep)
    assert len(overtaken()) == 1


def overtaken() -> list[Any]:
    """What lives on of a session that was revoked while it was moved to another subject."""
    world = make()

    async def scenario() -> Any:
        first = (await world.turn(subject=None)).session

        async def revoke() -> None:
            await world.ledger.revoke(claims_of(first)["sid"])

        world.engine.before_write = revoke
        refused = await world.turn(first, "rotate-ada", subject=None)
        assert refused.told == ENDED
        return await world.ledger.sessions("ada")

    found: list[Any] = run(scenario)
    return found


def test_what_begins_is_written_first_and_what_only_compares_before_that() -> None:
    own, other = Record(SESSIONS, b"new", 1), Record(SESSIONS, b"old", 2)
    conditions: list[Condition] = [Not(Exists(own)), Exists(other)]
    parts = split([own, other], conditions, [Put(own, {"sequence": 1}), Put(other, {"ended": 1})])
    assert [(part.partition, part.when) for part in parts] == [(1, conditions[0]), (2, conditions[1])]
    parts = split([own, other], conditions, [Put(own, {"sequence": 1})])
    assert [part.partition for part in parts] == [2, 1]


def test_what_an_operator_does_reaches_every_partition() -> None:
    world = make()

    async def scenario() -> Any:
        sessions = {subject: (await world.turn(subject=subject)).session for subject in [*FAR, None]}
        ended = {subject: claims_of(sessions[subject])["sid"] for subject in ("ada", None)}
        for session_id in ended.values():
            await world.ledger.revoke(session_id)
        listed = [live.id async for live in world.ledger.all_sessions()]
        told = {subject: (await world.turn(sessions[subject], subject=subject)).told for subject in (*ended, "bob")}
        await world.ledger.mark_restored()
        world.clock.tick(timedelta(seconds=2))
        after = [(await world.turn(session, subject=subject)).told for subject, session in sessions.items()]
        return listed, told, after, (await world.turn(subject="ada")).status

    listed, told, after, anew = run(scenario)
    assert len(listed) == len(FAR) - 1
    assert (told["ada"], told[None], told["bob"][0]) == (ENDED, ENDED, 200)
    assert set(after) == {ENDED}
    assert anew == 200


def test_a_session_that_nobody_knows_yet_is_revoked_wherever_it_may_begin() -> None:
    world = make(freshness=False)

    async def scenario() -> Any:
        session = (await world.turn()).session
        await world.ledger.revoke(claims_of(session)["sid"])
        return await world.turn(session)

    assert run(scenario).told == ENDED


def test_a_claim_is_taken_away_in_the_partition_where_it_is() -> None:
    world = make()

    async def scenario() -> Any:
        session = (await world.turn()).session
        found: list[bool] = []

        async def unlock(_: Any) -> None:
            found.append(await world.ledger.unlock(claims_of(session)["sid"]))

        world.in_turn = unlock
        await world.turn(session)
        return found, await world.ledger.unlock("A" * 22)

    assert run(scenario) == ([True], False)


def test_a_roll_out_has_one_mark_in_every_partition() -> None:
    world = make(adopt_until=datetime(2999, 1, 1, tzinfo=UTC))

    async def scenario() -> Any:
        await world.ledger.prepare()
        return [await world.ledger.transact(Transaction([world.store_row(subject)])) for subject in FAR]

    assert {outcome.rows[0]["adopting"] for outcome in run(scenario)} == {world.ledger.marker}


def test_a_partition_that_was_lost_ends_its_sessions_and_no_other() -> None:
    world = make()

    async def scenario() -> Any:
        sessions = {subject: (await world.turn(subject=subject)).session for subject in FAR}
        lost = world.epoch_row("ada").partition
        for rows in world.engine._rows._found.values():
            for key in [key for key in rows if key[1] == lost]:
                del rows[key]
        world.clock.tick(timedelta(seconds=2))
        return {subject: (await world.turn(session, subject=subject)).told for subject, session in sessions.items()}

    told = run(scenario)
    assert told.pop("ada") == ENDED
    assert {status for status, _ in told.values()} == {200}


def test_the_partition_of_what_was_used_is_kept_in_the_row_where_it_is_another() -> None:
    own = Root(bytes(16), 7)
    assert (own.pack(7), Root.unpack(own.pack(7), 7)) == (bytes(16), own)
    assert Root.unpack(own.pack(300), 300) == own
