"""P19, with P22 and P23, over the network: two workers of uvicorn on one SQLite file behind nginx (ten times more: `make soak`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.promises.behind_nginx import run

TURNS = 1_000


@pytest.mark.promise(19)
def test_behind_nginx_nobody_is_stuck_and_nothing_is_done_twice(
    tmp_path: Path, scale: float, measured: Callable[[int, str], None]
) -> None:
    sums = run(tmp_path, max(150, int(TURNS * scale)), kills=max(1, int(3 * scale)))
    measured(
        19,
        f"behind nginx: {sums.stuck} conversations stuck, {sums.twice} of {sums.turns:,} turns applied twice, "
        f"{sums.resurrected} of {sums.revoked} revoked sessions go on; {sums.killed} times kill -9, {sums.rotated} new keys",
    )
    assert (sums.stuck, sums.twice, sums.missing, sums.resurrected) == (0, 0, 0, 0)
    assert sums.killed
    assert sums.unanswered


@pytest.mark.promise(19)
def test_control_behind_nginx_without_a_ledger_turns_are_done_twice(tmp_path: Path) -> None:
    assert run(tmp_path, 150, kills=0, is_kept=False).twice > 0
