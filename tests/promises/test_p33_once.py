"""P33, of what an application allows itself once: however often, from whichever older session, and by which process it is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcaf.engines import SqliteEngine
from dcaf.ledger import Ledger
from tests.promises.ledgers import AUDIENCE, Make, Service, at_once, closing, exchange, make_nothing, workers

KEYS, TIMES = 1_000, 3


def make_branches(path: Path) -> Ledger:
    """A ledger that accepts older sessions: what is used up is all that holds."""
    return Ledger(SqliteEngine(path), audience=AUDIENCE, branches=True)


def begin(path: Path, make: Make) -> Any:
    """A session with one turn."""

    async def run() -> Any:
        store = make(path)
        async with closing(store):
            return (await exchange(Service(store).app, "first", user="ada")).newest

    return asyncio.run(run())


def use(path: Path, make: Make, session: Any, number: int) -> Counter[str]:
    """Use each key several times at once, all from one session; key -> how often it was granted."""

    async def run() -> Counter[str]:
        store = make(path)
        service = Service(store)
        async with closing(store):
            for at in range(number):
                await asyncio.gather(*(exchange(service.app, f"key {at}", session, user="ada") for _ in range(TIMES)))
        return service.effects

    return asyncio.run(run())


def granted(folder: Path, make: Make, number: int) -> Counter[str]:
    path = folder / "dcaf.db"
    with workers() as found:
        (session,) = at_once(found[:1], begin, (path, make))
        return sum(at_once(found, use, *[(path, make, session, number)] * 2), Counter[str]())


@pytest.mark.promise(33)
def test_what_may_be_done_once_is_granted_once(tmp_path: Path, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(20, int(KEYS * scale))
    counts = granted(tmp_path, make_branches, number)
    measured(33, f"session.once(): {counts.total() - len(counts)} of {2 * TIMES * number:,} turns of two processes got a key again")
    assert counts == {f"key {at}": 1 for at in range(number)}


@pytest.mark.promise(33)
def test_control_without_a_ledger_it_is_granted_each_time(tmp_path: Path) -> None:
    assert granted(tmp_path, make_nothing, 5) == {f"key {at}": 2 * TIMES for at in range(5)}
