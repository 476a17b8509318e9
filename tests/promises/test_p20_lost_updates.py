"""P20: of turns that are sent at once, by several tabs to several processes, none is lost that was acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcaf.core import SessionStore
from dcaf.ledger import Ledger
from tests.promises.broken_engines import ReadsThenWrites
from tests.promises.ledgers import AUDIENCE, PATIENCE, Make, Service, at_once, closing, exchange, make_ledger, make_nothing, workers
from tests.promises.places import ENGINES, Place

TURNS, FEWEST, TABS, USER = 10_000, 100, 4, "ada"


class Shelf:
    """What the tabs of a browser share: the newest session, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, session: Any) -> None:
        with self.path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if session["n"] > json.loads(file.read() or '{"n": 0}')["n"]:
                file.seek(0)
                file.truncate()
                json.dump(session, file)

    def get(self) -> Any:
        with self.path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return json.loads(file.read() or "null")


class Counts:
    """What came of the turns of one process.

    Attributes:
        acknowledged: How many were answered with 200.
        refused: How many were answered with 409.
    """

    def __init__(self) -> None:
        self.acknowledged, self.refused = 0, 0


def take_turns(place: Place, make: Make, shelf: Shelf, seed: int, number: int) -> tuple[int, int]:
    """A process with some tabs, which send so many turns, of one session, as fast as they can."""
    counts, rng = Counts(), random.Random(seed)
    asyncio.run(_take_turns(make(place), shelf, counts, rng, number))
    return counts.acknowledged, counts.refused


async def _take_turns(store: SessionStore | None, shelf: Shelf, counts: Counts, rng: random.Random, number: int) -> None:
    service = Service(store, uses_once=False)
    turns = iter(range(number))

    async def tab(which: int) -> None:
        held = shelf.get()
        for at in turns:
            got = await exchange(service.app, f"{which}.{at}", held, user=USER)
            assert got.status in (200, 409), got
            counts.acknowledged += got.status == 200
            counts.refused += got.status == 409
            if got.status == 200:
                shelf.put(got.newest)
            held = got.newest or shelf.get()
            await asyncio.sleep(rng.random() * (0.002 if got.status == 200 else 0.03))

    async with closing(store):
        await asyncio.gather(*(tab(which) for which in range(TABS)))


def begin(place: Place, make: Make, shelf: Shelf) -> None:
    """Begin the session that all tabs share."""

    async def run() -> Any:
        store = make(place)
        async with closing(store):
            return (await exchange(Service(store).app, "first", user=USER)).newest

    shelf.path.touch()
    shelf.put(asyncio.run(run()))


def lost(place: Place, folder: Path, make: Make, number: int) -> tuple[int, int, int]:
    """Of so many turns from two processes: how many were acknowledged, refused, and acknowledged and lost."""
    shelf = Shelf(folder / "shelf")
    begin(place, make, shelf)
    with workers() as found:
        both = at_once(found, take_turns, *((place, make, shelf, seed, number // 2) for seed in (1, 2)))
    acknowledged, refused = 1 + both[0][0] + both[1][0], both[0][1] + both[1][1]
    return acknowledged, refused, acknowledged - shelf.get()["n"]


@pytest.mark.promise(20)
def test_no_acknowledged_turn_is_lost(place: Place, tmp_path: Path, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(FEWEST, int(TURNS * scale * place.part))
    acknowledged, refused, gone = lost(place, tmp_path, make_ledger, number)
    measured(
        20,
        f"{place.name}: {gone} of {acknowledged:,} acknowledged turns lost, of {number:,} that {2 * TABS} tabs sent to two "
        f"processes at once for one session; {refused:,} were refused with 409",
    )
    assert gone == 0
    assert acknowledged + refused == number + 1
    assert min(acknowledged, refused) >= number / 50


def make_torn(place: Place) -> Ledger:
    """Broken: the engine looks at a condition in one step, and writes in another."""
    return Ledger(ReadsThenWrites(place.open_engine(PATIENCE)), audience=AUDIENCE)


@pytest.mark.promise(20)
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_control_an_engine_that_reads_and_then_writes_is_caught(place: Place, tmp_path: Path) -> None:
    assert lost(place, tmp_path, make_torn, 200)[2] > 0


def make_branches(place: Place) -> Ledger:
    """Broken for this promise: several states go on side by side."""
    return Ledger(place.open_engine(), audience=AUDIENCE, branches=True)


@pytest.mark.promise(20)
@pytest.mark.parametrize("make", [make_nothing, make_branches])
def test_control_a_state_that_is_read_changed_and_written_is_caught(
    make: Make, file: Place, tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    acknowledged, refused, gone = lost(file, tmp_path, make, int(TURNS * scale) if make is make_nothing else 200)
    if make is make_nothing:
        measured(20, f"without a ledger {acknowledged - gone:,} of {acknowledged:,} are kept")
    assert refused == 0
    assert gone > acknowledged / 5
