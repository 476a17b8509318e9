"""Two processes write to one session: dcaf loses no turn that it has acknowledged, and tells of each that it refuses."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from dcaf.engines import MemoryEngine
from tests.related.kept_system import DcafService
from tests.related.related_systems import Event, find
from tests.related.two_writers import DcafBlind, Written, _count_torn, measure
from tests.service.kept_places import KeptPlace, find_kept_place

TURNS = 20
TRIES = 5


def write(name: str, place: KeptPlace) -> Written:
    return measure(name, f"{place.kind} {place.where} {place.prefix}", turns=TURNS)


def test_nothing_acknowledged_is_lost_and_what_is_refused_is_told(shared_place: KeptPlace) -> None:
    written = write("DcafService", shared_place)
    assert written.acknowledged + written.refused == 2 * TURNS
    assert (written.failed, written.lost, written.torn) == (0, 0, 0)


def test_turns_that_are_merged_all_count(tmp_path: Path) -> None:
    assert write("DcafMerging", find_kept_place("sqlite", tmp_path)) == Written(2 * TURNS, 0, 0, 0, 0)


def test_control_a_writer_that_asks_for_no_revision_loses(tmp_path: Path) -> None:
    assert any(write("DcafBlind", find_kept_place("sqlite", tmp_path)).lost for _ in range(TRIES))


@pytest.mark.parametrize(("kind", "counted"), [(DcafService, 1), (DcafBlind, 1)])
def test_of_two_turns_at_once_one_counts(kind: type[DcafService], counted: int) -> None:
    async def write_both() -> tuple[int, int]:
        system = kind(MemoryEngine())
        await system.create("ann", "v1", state={"count": 0})
        holders = [await find(system, "ann", "v1") for _ in range(2)]
        taken = 0
        for holder in holders:
            try:
                await system.append(holder, Event("?", state={"count": holder.state["count"] + 1}))
            except system.stale:
                continue
            taken += 1
        return taken, (await find(system, "ann", "v1")).state["count"]

    taken, count = anyio.run(write_both)
    assert count == counted
    assert (taken == count) is (kind is DcafService)


def test_a_question_is_torn_from_its_answer_by_what_stands_between() -> None:
    assert _count_torn(["question a1", "answer a1", "question b1", "question a2", "answer b1", "answer a2"]) == 2
