"""A store that is older than what it handed out: it is told, refused, and an operator ends what was sealed before."""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dcaf.engines import SqliteEngine
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import World, run

ENDED = (409, "session-ended")


def restore(world: World, path: Path, clock: Any, act: Any) -> Any:
    """Copy the file, let things happen, and put the copy back; the world with it, and what happened."""
    world.engine.sync.close()
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    lost = World(SqliteEngine(path, clock=clock), clock=clock)
    happened = run(lambda: act(lost))
    lost.engine.sync.close()
    for name in path.parent.iterdir():
        if name.name.startswith(path.name):
            name.unlink()
    shutil.copy(copy, path)
    return World(SqliteEngine(path, clock=clock), clock=clock), happened


@pytest.fixture
def clock() -> Any:
    return FrozenClock()


@pytest.fixture
def world(tmp_path: Path, clock: Any) -> Any:
    made = World(SqliteEngine(tmp_path / "dcaf.db", clock=clock), clock=clock)
    yield made
    made.engine.sync.close()


def test_a_number_an_epoch_and_a_session_that_the_copy_does_not_have_are_refused_and_told(
    world: World, tmp_path: Path, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(world.turn).session

    async def act(lost: World) -> Any:
        moved = (await lost.turn(first)).session
        once = (await lost.turn((await lost.turn()).session, "once-a")).session
        clock.tick()
        await lost.ledger.log_out("bob")
        return moved, once, (await lost.turn(subject="bob")).session

    restored, (moved, once, bobs) = restore(world, tmp_path / "dcaf.db", clock, act)

    async def scenario() -> Any:
        return await restored.turn(moved), await restored.turn(once), await restored.turn(bobs, subject="bob")

    with caplog.at_level(logging.ERROR, "dcaf"):
        told = [answer.told for answer in run(scenario)]
    restored.engine.sync.close()
    assert told == [ENDED] * 3
    assert restored.names.count("restored") == 3
    assert restored.ran == []
    lines = [record.getMessage() for record in caplog.records]
    assert any("run `dcaf ledger restored`" in line for line in lines)
    for session in (moved, once, bobs):
        assert session["dcaf"]["token"] not in caplog.text


def test_control_without_the_comparison_a_token_ahead_of_its_row_is_only_superseded(
    world: World, tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcaf.ledger.opening.is_ahead", lambda *rows, **settings: False)
    first = run(world.turn).session

    async def act(lost: World) -> Any:
        return (await lost.turn(first)).session

    restored, moved = restore(world, tmp_path / "dcaf.db", clock, act)
    run(lambda: restored.turn(moved))
    restored.engine.sync.close()
    assert "restored" not in restored.names


@pytest.mark.parametrize("freshness", [True, False], ids=["L2", "L1"])
@pytest.mark.parametrize("subject", ["ada", None])
@pytest.mark.parametrize("ahead_s", [0, 45, -45])
def test_marking_it_ends_every_token_of_before_and_none_of_later(
    build: Any, freshness: bool, subject: str | None, ahead_s: int
) -> None:
    """Also where the clock of the application is 45 s off that of the store, for whoever has a subject."""
    engine_clock = FrozenClock()
    world = build(engine_clock=engine_clock, clock=FrozenClock(engine_clock.now + timedelta(seconds=ahead_s)), freshness=freshness)

    def tick(seconds: float) -> None:
        engine_clock.tick(timedelta(seconds=seconds))
        world.clock.tick(timedelta(seconds=seconds))

    async def scenario() -> Any:
        before = (await world.turn(subject=subject)).session
        tick(2 if subject else 60)
        await world.ledger.mark_restored()
        tick(2 if subject else 60)
        later = (await world.turn(subject=subject)).session
        return await world.turn(before, subject=subject), await world.turn(later, subject=subject)

    ended, goes_on = run(scenario)
    assert ended.told == ENDED
    if subject is None or ahead_s >= 0:
        assert goes_on.status == 200
    assert "marked-restored" in world.names


@pytest.mark.parametrize("subject", ["ada", None])
def test_marking_it_during_a_turn_refuses_its_commit(build: Any, subject: str | None) -> None:
    world = build()

    async def scenario() -> Any:
        first = await world.turn(subject=subject)
        turn = asyncio.ensure_future(world.turn(first.session, "waits", subject=subject))
        await world.entered.wait()
        world.clock.tick(timedelta(seconds=5))
        await world.ledger.mark_restored()
        world.go.set()
        return await turn

    assert run(scenario).told == ENDED


def test_what_was_ended_so_is_not_listed(build: Any) -> None:
    world = build()

    async def scenario() -> Any:
        await world.turn()
        world.clock.tick()
        await world.ledger.mark_restored()
        return await world.ledger.sessions("ada"), [live async for live in world.ledger.all_sessions()]

    assert run(scenario) == ([], [])
