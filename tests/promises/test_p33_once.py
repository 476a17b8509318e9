"""P33, of what an application allows itself once: however often, from whichever older session, and by which process it is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dcaf.ledger import Ledger
from tests.promises.broken_engines import ReadsThenWrites
from tests.promises.ledgers import AUDIENCE, PATIENCE, Make, Service, at_once, closing, exchange, make_nothing, workers
from tests.promises.places import ENGINES, Place

KEYS, FEWEST, TIMES = 1_000, 20, 3


def make_branches(place: Place) -> Ledger:
    """A ledger that accepts older sessions: what is used up is all that holds."""
    return Ledger(place.open_engine(PATIENCE), audience=AUDIENCE, branches=True)


def begin(place: Place, make: Make) -> Any:
    """A session with one turn."""

    async def run() -> Any:
        store = make(place)
        async with closing(store):
            return (await exchange(Service(store).app, "first", user="ada")).newest

    return asyncio.run(run())


def use(place: Place, make: Make, session: Any, number: int) -> Counter[str]:
    """Use each key several times at once, all from one session; key -> how often it was granted."""

    async def run() -> Counter[str]:
        store = make(place)
        service = Service(store)
        async with closing(store):
            for at in range(number):
                await asyncio.gather(*(exchange(service.app, f"key {at}", session, user="ada") for _ in range(TIMES)))
        return service.effects

    return asyncio.run(run())


def granted(place: Place, make: Make, number: int) -> Counter[str]:
    with workers() as found:
        (session,) = at_once(found[:1], begin, (place, make))
        return sum(at_once(found, use, *[(place, make, session, number)] * 2), Counter[str]())


@pytest.mark.promise(33)
def test_what_may_be_done_once_is_granted_once(place: Place, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(FEWEST, int(KEYS * scale * place.part))
    counts = granted(place, make_branches, number)
    again = counts.total() - len(counts)
    measured(33, f"{place.name}, session.once(): {again} of {2 * TIMES * number:,} turns of two processes got a key again")
    assert counts == {f"key {at}": 1 for at in range(number)}


def make_torn(place: Place) -> Ledger:
    """Broken: the engine looks at a condition in one step, and writes in another."""
    return Ledger(ReadsThenWrites(place.open_engine(PATIENCE)), audience=AUDIENCE, branches=True)


@pytest.mark.promise(33)
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_control_an_engine_that_reads_and_then_writes_grants_a_key_again(place: Place) -> None:
    assert granted(place, make_torn, FEWEST).total() > FEWEST


@pytest.mark.promise(33)
def test_control_without_a_ledger_it_is_granted_each_time(file: Place) -> None:
    assert granted(file, make_nothing, 5) == {f"key {at}": 2 * TIMES for at in range(5)}
