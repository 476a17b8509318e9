"""Servers that remember: the page says what comes out now, and a row can come out both ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.baskets import Dcaf, InMemory
from tests.peers.remembering import PAGE, ROWS, DjangoCache, WithLedger, at_once, cell, in_page

AT_ONCE = "two turns at once"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log of what is refused."""
    with caplog.at_level("CRITICAL", logger="dcaf"):
        yield


class Branching(WithLedger):
    """A ledger that lets several states go on side by side, and so does not promise that each turn counts."""

    terms = {"branches": True}


def test_the_page_says_what_comes_out_now_where_a_server_remembers() -> None:
    text = PAGE.read_text()
    assert text == in_page(text), "write it anew: python -m tests.peers.remembering"


def test_with_a_ledger_each_turn_that_is_served_counts() -> None:
    assert cell(WithLedger, AT_ONCE) == "1 of 2 served, 1 of them counted, the other is refused: 409"


@pytest.mark.parametrize("kind", [InMemory, DjangoCache, Dcaf])
def test_without_one_a_turn_that_was_served_is_lost(kind: type[InMemory | DjangoCache | Dcaf]) -> None:
    assert cell(kind, AT_ONCE) == "2 of 2 served, 1 of them counted"


def test_control_a_ledger_that_holds_nothing_loses_a_turn_too() -> None:
    assert at_once(Branching()) == "2 of 2 served, 1 of them counted"


@pytest.mark.parametrize("row", ROWS)
def test_each_row_comes_out_otherwise_with_a_ledger(row: str) -> None:
    assert cell(WithLedger, row) != cell(Dcaf, row)
