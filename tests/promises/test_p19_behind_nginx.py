"""P19, with P22 and P23, over the network: two workers of uvicorn over one store behind nginx (ten times more: `make soak`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.promises.behind_nginx import run
from tests.promises.places import Place, Server, on_forgetful_redis

TURNS = 1_000


@pytest.mark.promise(19)
def test_behind_nginx_nobody_is_stuck_and_nothing_is_done_twice(
    file: Place, tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    sums = run(tmp_path, file, max(150, int(TURNS * scale)), kills=max(1, int(3 * scale)))
    measured(19, f"{file.name}, behind nginx: {sums.describe()}")
    assert (sums.stuck, sums.twice, sums.missing, sums.resurrected) == (0, 0, 0, 0)
    assert sums.killed
    assert sums.unanswered


@pytest.mark.promise(19)
@pytest.mark.parametrize("served", ["redis", "postgres"], indirect=True)
def test_behind_nginx_the_server_of_the_store_may_be_killed_too(
    served: tuple[Place, Server], tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    place, server = served
    sums = run(tmp_path, place, max(150, int(TURNS * scale)), kills=max(2, int(6 * scale)), server=server)
    measured(19, f"{place.name}, behind nginx: {sums.describe()}")
    assert (sums.stuck, sums.twice, sums.missing, sums.resurrected) == (0, 0, 0, 0)
    assert min(sums.killed, sums.store_killed, sums.unanswered) > 0


@pytest.mark.promise(19)
def test_control_behind_nginx_without_a_ledger_turns_are_done_twice(tmp_path: Path) -> None:
    assert run(tmp_path, None, 150, kills=0).twice > 0


@pytest.mark.promise(19)
def test_control_behind_nginx_conversations_are_stuck_where_the_store_forgets(tmp_path: Path) -> None:
    with on_forgetful_redis() as (place, server):
        sums = run(tmp_path, place, 150, kills=2, server=server)
    assert sums.store_killed
    assert sums.stuck > 0
