"""The roll-out of a ledger: sessions of before are taken in once, into the store that was there, until it is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dcaf.asgi import SessionMiddleware
from dcaf.engines import Delete, Record, Transaction
from dcaf.ledger.tables import SESSIONS, STORE, TABLES, store_row
from tests.ledger.ledger_world import AUDIENCE, RING, World, claims_of, find_subject, number_of, run

ENDED = (409, "session-ended")
CONFLICT = (409, "session-conflict")


class Before:
    """The service of before: the same keys and no ledger, over the application of a world."""

    def __init__(self, world: World) -> None:
        self._service = SessionMiddleware(world._app, keys=RING, audience=AUDIENCE, subject=find_subject, clock=world.clock)
        self._world = world

    async def turn(self, session: Any = None, how: str = "count", **sent: Any) -> Any:
        service, self._world.service = self._world.service, self._service
        try:
            return await self._world.turn(session, how, **sent)
        finally:
            self._world.service = service


def rolled_out(build: Any, **settings: Any) -> World:
    world: World = build()
    until = world.clock.now + timedelta(days=7)
    return build(engine=world.engine, clock=world.clock, adopt_until=until, **settings)  # type: ignore[no-any-return]


@pytest.mark.parametrize("subject", ["ada", None])
@pytest.mark.parametrize("freshness", [True, False], ids=["L2", "L1"])
def test_a_session_of_before_is_adopted_and_is_fresh_from_then_on(build: Any, subject: str | None, freshness: bool) -> None:
    world = rolled_out(build, freshness=freshness)

    async def scenario() -> Any:
        old = await Before(world).turn(subject=subject)
        older = await Before(world).turn(old.session, subject=subject)
        adopted = await world.turn(older.session, subject=subject)
        return adopted, await world.turn(adopted.session, subject=subject), await world.turn(old.session, subject=subject)

    adopted, after, before = run(scenario)
    assert (adopted.status, after.status, after.value["n"]) == (200, 200, 4)
    assert ("ep" in claims_of(adopted.session)) is (subject is not None)
    if freshness:
        assert before.code in {"session-conflict", "session-superseded"}
        assert world.names.count("adopted") == 1


def test_control_without_a_roll_out_it_has_ended(build: Any) -> None:
    world = build()
    assert run(lambda: adopt(world)).told == ENDED


async def adopt(world: World) -> Any:
    old = await Before(world).turn()
    return await world.turn(old.session)


def test_after_the_roll_out_it_has_ended(build: Any) -> None:
    world = rolled_out(build)

    async def scenario() -> Any:
        old = await Before(world).turn()
        world.clock.tick(timedelta(days=7, seconds=1))
        session = (await Before(world).turn(old.session)).session
        return await world.turn(session)

    assert run(scenario).told == ENDED


def test_a_token_that_an_older_worker_moved_on_is_adopted_while_the_roll_out_goes_on(build: Any) -> None:
    """Anonymous sessions have no epoch, so that workers of both releases serve them."""
    world = rolled_out(build)

    async def scenario() -> Any:
        session = (await Before(world).turn(subject=None)).session
        for service in (world, Before(world), Before(world), world):
            session = (await service.turn(session, subject=None)).session
        return session

    assert number_of(run(scenario)) == 5


def test_two_requests_that_adopt_one_session_at_once_are_an_answer_and_a_conflict(build: Any) -> None:
    world = rolled_out(build)

    async def scenario() -> Any:
        old = await Before(world).turn()
        one = asyncio.ensure_future(world.turn(old.session, "waits"))
        await world.entered.wait()
        other = await world.turn(old.session)
        world.go.set()
        answer = await one
        return answer, other, await world.turn(old.session, "waits"), await world.turn(old.session, say="another")

    answer, other, again, another = run(scenario)
    assert answer.status == 200
    assert other.told == CONFLICT, "the session goes on: its client must not drop it"
    assert (again.told, again.value["applied"]) == (CONFLICT, True), "and a lost answer of the turn that adopted it is repaired"
    assert another.value["applied"] is False


def test_a_session_that_was_revoked_or_logged_out_before_is_not_adopted(build: Any) -> None:
    world = rolled_out(build)

    async def scenario() -> Any:
        revoked, logged_out = (await Before(world).turn()).session, (await Before(world).turn(subject="bob")).session
        world.clock.tick(timedelta(seconds=5))
        await world.ledger.revoke(claims_of(revoked)["sid"])
        await world.ledger.log_out("bob")
        world.clock.tick(timedelta(seconds=5))
        resealed = (await Before(world).turn(logged_out, subject="bob")).session
        later = (await Before(world).turn(subject="bob")).session
        return (
            await world.turn(revoked),
            await world.turn(logged_out, subject="bob"),
            await world.turn(resealed, subject="bob"),
            await world.turn(later, subject="bob"),
        )

    revoked, logged_out, resealed, later = run(scenario)
    assert revoked.told == logged_out.told == resealed.told == ENDED
    assert later.status == 200


def test_a_store_that_was_emptied_meanwhile_adopts_nothing_more(build: Any) -> None:
    world = rolled_out(build)

    async def scenario() -> Any:
        first = await adopt(world)
        empty(world)
        return await world.turn(first.session), await adopt(world)

    known, new = run(scenario)
    assert known.told == new.told == ENDED


def empty(world: World) -> None:
    sync = world.engine.sync
    for table in TABLES:
        if table.indexed:
            for key, _ in sync.scan(table):
                for partition in range(world.engine.partitions):
                    remove(sync, Record(table, key, partition))
    for partition in range(world.engine.partitions):
        remove(sync, store_row(partition))


def remove(sync: Any, record: Record) -> None:
    sync.transact(Transaction([record], writes=[Delete(record)]))


def test_several_workers_share_one_mark_whoever_starts_first(build: Any) -> None:
    world = rolled_out(build)

    async def scenario() -> Any:
        await adopt(world)
        world.clock.tick(timedelta(hours=1))
        late = build(engine=world.engine, clock=world.clock, adopt_until=world.clock.now + timedelta(days=1))
        return await adopt(late), await adopt(world), late.ledger.marker == world.ledger.marker

    late, early, same = run(scenario)
    assert (late.status, early.status, same) == (200, 200, True)


def test_a_safe_request_adopts_and_claims_nothing(build: Any) -> None:
    world = rolled_out(build)

    async def scenario() -> Any:
        old = await Before(world).turn()
        looked = await world.turn(old.session, "read", method="GET")
        return looked, [row["claim"] for _, row in world.engine.sync.scan(SESSIONS)], await world.turn(looked.session)

    looked, claims, after = run(scenario)
    assert (looked.status, claims, after.status) == (200, [None], 200)


def test_the_store_is_marked_only_where_a_roll_out_was_asked_for(build: Any) -> None:
    world = build()
    run(world.turn)
    assert world.engine.sync.transact(Transaction([store_row(0)])).rows[0]["adopting"] is None
    assert STORE.name == "dcaf_store"
