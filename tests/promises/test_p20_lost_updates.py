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

from dcaf.engines import SqliteEngine
from dcaf.ledger import Ledger
from tests.promises.ledgers import AUDIENCE, Make, Service, at_once, closing, exchange, make_ledger, make_nothing, workers

TURNS, TABS, USER = 10_000, 4, "ada"


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


def take_turns(folder: Path, make: Make, seed: int, number: int) -> tuple[int, int]:
    """A process with some tabs, which send so many turns, of one session, as fast as they can."""
    counts, rng = Counts(), random.Random(seed)
    asyncio.run(_take_turns(folder, make, counts, rng, number))
    return counts.acknowledged, counts.refused


async def _take_turns(folder: Path, make: Make, counts: Counts, rng: random.Random, number: int) -> None:
    store, shelf = make(folder / "dcaf.db"), Shelf(folder / "shelf")
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


def begin(folder: Path, make: Make) -> None:
    """Begin the session that all tabs share."""

    async def run() -> Any:
        store = make(folder / "dcaf.db")
        async with closing(store):
            return (await exchange(Service(store).app, "first", user=USER)).newest

    (folder / "shelf").touch()
    Shelf(folder / "shelf").put(asyncio.run(run()))


def lost(folder: Path, make: Make, number: int) -> tuple[int, int, int]:
    """Of so many turns from two processes: how many were acknowledged, refused, and acknowledged and lost."""
    begin(folder, make)
    with workers() as found:
        both = at_once(found, take_turns, (folder, make, 1, number // 2), (folder, make, 2, number // 2))
    acknowledged, refused = 1 + both[0][0] + both[1][0], both[0][1] + both[1][1]
    return acknowledged, refused, acknowledged - Shelf(folder / "shelf").get()["n"]


@pytest.mark.promise(20)
def test_no_acknowledged_turn_is_lost(tmp_path: Path, scale: float, measured: Callable[[int, str], None]) -> None:
    number = int(TURNS * scale)
    acknowledged, refused, gone = lost(tmp_path, make_ledger, number)
    measured(
        20,
        f"{gone} of {acknowledged:,} acknowledged turns lost, of {number:,} that {2 * TABS} tabs sent to two processes at once for "
        f"one session; {refused:,} were refused with 409",
    )
    assert gone == 0
    assert acknowledged + refused == number + 1
    assert min(acknowledged, refused) >= number / 50


def make_branches(path: Path) -> Ledger:
    """Broken for this promise: several states go on side by side."""
    return Ledger(SqliteEngine(path), audience=AUDIENCE, branches=True)


@pytest.mark.promise(20)
@pytest.mark.parametrize("make", [make_nothing, make_branches])
def test_control_a_state_that_is_read_changed_and_written_is_caught(
    make: Make, tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    acknowledged, refused, gone = lost(tmp_path, make, int(TURNS * scale) if make is make_nothing else 200)
    if make is make_nothing:
        measured(20, f"without a ledger {acknowledged - gone:,} of {acknowledged:,} are kept")
    assert refused == 0
    assert gone > acknowledged / 5
