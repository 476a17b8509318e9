"""The promises of kept sessions at full numbers where ``make promises`` runs a part of them, and tasks of one process at them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.promises import test_p20_kept_sessions as p20
from tests.promises import test_p23_kept_sessions as p23
from tests.promises.broken_services import make_merging, make_service
from tests.promises.places import Place, Server, find_place
from tests.service.fair_processes import Served, count_kept, serve
from tests.service.kept_places import KINDS, KeptPlace, find_kept_place
from tests.service.test_service_faults import play_rounds_that_merge, play_rounds_that_reject

KILLS = 100

Play = Callable[[KeptPlace, int], Coroutine[Any, Any, None]]

SCALE = float(os.environ.get("DCAF_SCALE", "0.1"))

pytestmark = pytest.mark.soak


@pytest.fixture(params=["redis-cluster", "pgbouncer"])
def served(request: pytest.FixtureRequest) -> tuple[Place, Server]:
    """The kinds of places of which ``make promises`` runs a part, and their servers."""
    return find_place(request, request.param)


def test_of_two_turns_that_are_open_at_once_one_is_kept(served: tuple[Place, Server]) -> None:
    place, _ = served
    number = int(p20.ROUNDS * SCALE)
    played = p20.play(place, make_service, number)
    print(f"{place.name}: {number:,} rounds in {played.took_s:.0f} s")
    assert [len(names) for names in played.kept] == [1] * number
    assert (played.lost, played.mixed) == ([], 0)


def test_of_two_turns_that_merge_both_are_kept(served: tuple[Place, Server]) -> None:
    place, _ = served
    number = int(p20.ROUNDS * SCALE)
    played = p20.play(place, make_merging, number)
    print(f"{place.name}: {number:,} rounds that merge in {played.took_s:.0f} s")
    assert [len(names) for names in played.kept] == [len(p20.NAMES)] * number
    assert (played.lost, played.mixed) == ([], 0)


@pytest.mark.parametrize("place", ["sqlite", "redis", "redis-cluster", "postgres", "pgbouncer"], indirect=True)
def test_no_acknowledged_turn_is_lost_when_a_process_is_killed(place: Place) -> None:
    number = int(KILLS * SCALE)
    found = p23.killed(place, make_service, number)
    print(p23.describe(place, found, number, "the service"))
    assert (found.lost, found.halves) == (0, [])
    assert found.acknowledged > number


@pytest.mark.parametrize("served", ["redis", "redis-cluster", "postgres", "pgbouncer"], indirect=True)
def test_no_acknowledged_turn_is_lost_when_the_server_is_killed(served: tuple[Place, Server]) -> None:
    place, server = served
    number = int(KILLS * SCALE)
    found = p23.killed(place, make_service, number, server=server)
    print(p23.describe(place, found, number, "the server"))
    assert (found.lost, found.halves) == (0, [])
    assert found.acknowledged > number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("play", [play_rounds_that_reject, play_rounds_that_merge])
def test_turns_of_one_process_at_once(play: Play, kind: str, tmp_path: Path) -> None:
    place, number, began = find_kept_place(kind, tmp_path), int(p20.ROUNDS * SCALE), time.monotonic()
    asyncio.run(play(place, number))
    print(f"{kind}: {play.__name__}, {number:,} times, in {time.monotonic() - began:.0f} s")
    place.close()


def serve_on_a_file(folder: Path) -> Served:
    """Four processes have eight turns at once, each, on one SQLite file."""
    place = find_kept_place("sqlite", folder)
    place.open_service().sync.create(user="p")  # makes the tables
    place.close()
    served = serve(place, seconds=max(1.0, 60 * SCALE))
    assert count_kept(place) == [len(took_s) for took_s in served.took_s]
    place.close()
    return served


def test_four_processes_with_eight_turns_at_once_are_served_alike(tmp_path: Path) -> None:
    served = serve_on_a_file(tmp_path)
    print(f"with the kernel's lock: {served}")
    assert served.fairness >= 0.8


def test_control_by_a_retry_instead_of_the_lock_they_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.engines.sqlite.file.HAS_FLOCK", False)
    served = serve_on_a_file(tmp_path)
    print(f"by a retry: {served}")
    assert served.fairness < 0.8
