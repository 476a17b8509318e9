"""Workers of uvicorn are replaced one after the other, from L0 to a session service and back, while their clients go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.service.kept_places import SHARED, KeptPlace, find_kept_place
from tests.service.rolling import Processes, Traffic, conversing
from tests.service.test_rolling_changes import BACK, THERE, check_histories

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.1"))
TURNS: Final = max(2, round(200 * SCALE))
USERS: Final = (*(f"user-{number}" for number in range(8)), *[None] * 4)

pytestmark = pytest.mark.soak


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    """Where all workers keep their rows."""
    found = find_kept_place(request.param, tmp_path)
    yield found
    found.close()


def roll(place: KeptPlace, *levels: str) -> Traffic:
    async def main() -> Traffic:
        workers = Processes(place, levels[0])
        await workers.start()
        async with conversing(workers, USERS) as traffic:
            await traffic.move_to(*levels[1:], turns=TURNS)
        await check_histories(place.open_service("clinic"), traffic)
        return traffic

    return asyncio.run(main())


def test_workers_of_every_level_come_and_go_and_nothing_is_lost(place: KeptPlace) -> None:
    traffic = roll(place, *THERE, *BACK[1:], "L3")
    print(f"{place.kind}: {dict(traffic.answered)} turns, {traffic.unavailable} refused with 503 and sent again")
    assert traffic.lost == []
    assert traffic.unavailable > 0


def test_control_without_draining_the_sessions_are_stuck(tmp_path: Path) -> None:
    place = find_kept_place("sqlite", tmp_path)
    assert roll(place, "L3", "L2").lost == ["stuck"] * len(USERS)
