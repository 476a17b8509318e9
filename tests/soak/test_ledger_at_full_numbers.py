"""The promises of the ledger at full numbers where ``make promises`` runs a part of them.

That is on a cluster of Redis, behind PgBouncer, and on each server where the server of the store is killed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.promises import test_p19_lost_answers as p19
from tests.promises import test_p20_lost_updates as p20
from tests.promises import test_p21_replays as p21
from tests.promises import test_p22_revoked as p22
from tests.promises import test_p23_killed as p23
from tests.promises import test_p33_once as p33
from tests.promises.ledgers import make_ledger
from tests.promises.places import Place, Server, find_place

SCALE = float(os.environ.get("DCAF_SCALE", "0.1"))

pytestmark = pytest.mark.soak


@pytest.fixture(params=["redis-cluster", "pgbouncer"])
def served(request: pytest.FixtureRequest) -> tuple[Place, Server]:
    """The kinds of places of which ``make promises`` runs a part, and their servers."""
    return find_place(request, request.param)


@pytest.fixture
def place(served: tuple[Place, Server]) -> Place:
    return served[0]


def test_lost_answers_leave_nobody_stuck_and_nothing_done_twice(place: Place) -> None:
    sums = p19.converse(place, make_ledger, int(p19.CONVERSATIONS * SCALE))
    print(f"{place.name}: {sums}")
    assert (sums.stuck, sums.twice, sums.missing, sums.handed) == (0, 0, 0, Counter())
    assert sums.lost


def test_no_acknowledged_turn_is_lost(place: Place, tmp_path: Path) -> None:
    acknowledged, refused, gone = p20.lost(place, tmp_path, make_ledger, int(p20.TURNS * SCALE))
    print(f"{place.name}: {gone} of {acknowledged:,} turns lost, {refused:,} refused")
    assert gone == 0
    assert min(acknowledged, refused) > p20.TURNS * SCALE / 50


def test_no_older_token_is_accepted(place: Place) -> None:
    counts = p21.replayed(place, make_ledger, int(p21.REPLAYS * SCALE))
    print(f"{place.name}: {dict(counts)}")
    assert (counts["ran"], counts["accepted"], counts["handed over"]) == (0, 0, 0)
    assert counts["409 session-superseded"]


def test_no_late_commit_brings_a_revoked_session_back(place: Place) -> None:
    counts = p22.resurrected(place, make_ledger, int(p22.SESSIONS * SCALE))
    print(f"{place.name}: {dict(counts)}")
    assert (counts["taken"], counts["go on"], counts["listed"]) == (0, 0, 0)
    assert all(counts[f"late, {way}"] for way in p22.WAYS)


def test_nothing_acknowledged_is_lost_when_a_process_is_killed(place: Place) -> None:
    number = int(p23.KILLS * SCALE)
    acknowledged, lost = p23.killed(place, p23.make_ledger, number)
    print(f"{place.name}: {lost} of {acknowledged:,} lost by {number} kills")
    assert lost == 0
    assert acknowledged > number


@pytest.mark.parametrize("served", ["redis", "redis-cluster", "postgres", "pgbouncer"], indirect=True)
def test_nothing_acknowledged_is_lost_when_the_server_of_the_store_is_killed(served: tuple[Place, Server]) -> None:
    place, server = served
    number = int(p23.KILLS * SCALE)
    acknowledged, lost = p23.killed(place, p23.make_ledger, number, server=server)
    print(f"{place.name}: {lost} of {acknowledged:,} lost by {number} kills of the store")
    assert lost == 0
    assert acknowledged > number


def test_what_may_be_done_once_is_granted_once(place: Place) -> None:
    number = int(p33.KEYS * SCALE)
    assert p33.granted(place, p33.make_branches, number) == {f"key {at}": 1 for at in range(number)}
