"""The page of contracts: it is made of what was measured, which has every behaviour, and dcaf's cells are what its tests say."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import pytest

from tests.related.contract_page import MEASURED, PAGE, ROOT, describe_dcaf, in_page, render
from tests.related.contracts import CONTRACTS, HELD, OF_DCAF, list_behaviours
from tests.related.installed_cells import WRITING
from tests.related.installed_systems import INSTALLED
from tests.related.two_writers import TURNS, Written

AGAIN = "write it anew: make contracts"


@pytest.fixture
def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def list_versions() -> dict[str, str]:
    """Package -> the version of the Makefile."""
    rule = (ROOT / "Makefile").read_text().partition("\n$(SERVICES):")[2].partition("\n\n")[0]
    return dict(re.findall(r"([a-z-]+)(?:\[[a-z,]+\])?==([\d.]+)", rule))


def test_the_page_says_what_was_measured(measured: dict[str, Any]) -> None:
    text = PAGE.read_text()
    assert text == in_page(text, measured), AGAIN


def test_every_behaviour_was_asked_of_every_system(measured: dict[str, Any]) -> None:
    versions = list_versions()
    titles = [kind.title.format(versions[kind.package]) for kind in INSTALLED]
    assert list(measured["cells"]) == [describe_dcaf(), *titles], AGAIN
    for cells in measured["cells"].values():
        assert {key: list(found) for key, found in cells.items()} == {
            key: list(contract.behaviours) for key, contract in CONTRACTS.items()
        }, AGAIN


def test_the_cells_of_dcaf_are_what_its_tests_say(measured: dict[str, Any]) -> None:
    cells = measured["cells"][describe_dcaf()]
    assert {one: cells[one[0]][one[1]] for one in list_behaviours()} == {one: OF_DCAF.get(one, HELD) for one in list_behaviours()}


def test_two_writers_were_measured_where_two_processes_reach_a_session(measured: dict[str, Any]) -> None:
    versions, writers = list_versions(), measured["writers"]
    assert [name for name in writers if not name.startswith("dcaf")] == [
        kind.title.format(versions[kind.package]) for kind in WRITING
    ]
    own = [Written(*figures) for name, figures in writers.items() if name.startswith("dcaf")]
    assert len(own) == 6
    assert all(written.acknowledged + written.refused == 2 * TURNS for written in own)
    assert all((written.failed, written.lost, written.torn) == (0, 0, 0) for written in own)


def test_control_a_cell_that_was_written_by_hand_is_noticed(measured: dict[str, Any]) -> None:
    text = PAGE.read_text()
    for said, other in (("| held |", "| lost |"), ("not installable", "held"), ("| 120 |", "| 121 |")):
        changed = text.replace(said, other, 1)
        assert changed != text
        assert in_page(changed, measured) == text


def test_control_another_measurement_gives_another_page(measured: dict[str, Any]) -> None:
    other = deepcopy(measured)
    other["cells"][describe_dcaf()]["adk"]["an_id_that_is_taken_is_refused"] = "a second session takes its place"
    assert render(other)["adk"] != render(measured)["adk"]
    assert render(other)["counts"] != render(measured)["counts"]


def test_control_a_page_without_a_place_for_a_table_is_noticed(measured: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="no place for the counts"):
        in_page(PAGE.read_text().replace("<!-- counts: written by", "<!-- counts: written with"), measured)
