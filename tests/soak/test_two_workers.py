"""Two workers of uvicorn over one store behind nginx: keys rotate, sessions are revoked, workers and the store are killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.promises.behind_nginx import run
from tests.promises.places import Place, Server

SCALE = float(os.environ.get("DCAF_SCALE", "0.1"))


@pytest.mark.soak
def test_ten_thousand_turns_leave_nobody_stuck_and_nothing_done_twice(file: Place, tmp_path: Path) -> None:
    sums = run(tmp_path, file, int(10_000 * SCALE), kills=max(2, int(20 * SCALE)))
    print(f"two workers behind nginx: {sums}")
    assert (sums.stuck, sums.twice, sums.missing, sums.resurrected) == (0, 0, 0, 0)
    assert min(sums.killed, sums.unanswered, sums.revoked, sums.rotated) > 1


@pytest.mark.soak
@pytest.mark.parametrize("served", ["redis", "postgres"], indirect=True)
def test_ten_thousand_turns_survive_kills_of_the_server_of_the_store(served: tuple[Place, Server], tmp_path: Path) -> None:
    place, server = served
    sums = run(tmp_path, place, int(10_000 * SCALE), kills=max(4, int(40 * SCALE)), server=server)
    print(f"two workers behind nginx, {place.name}: {sums}")
    assert (sums.stuck, sums.twice, sums.missing, sums.resurrected) == (0, 0, 0, 0)
    assert min(sums.killed, sums.store_killed, sums.unanswered, sums.revoked, sums.rotated) > 1


@pytest.mark.soak
def test_control_without_a_ledger_turns_are_done_twice(tmp_path: Path) -> None:
    assert run(tmp_path, None, 300, kills=1).twice > 0
