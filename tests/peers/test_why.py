"""What is lost silently: the page says what comes out now, and each row can come out both ways."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from tests.peers.baskets import SYSTEMS, Dcaf, StarletteSessions, System, column
from tests.peers.losses import ROWS, edited, meaning
from tests.peers.visitors import FORGED, MOST_COOKIE_BYTES, Heard, Visitor, forged
from tests.peers.why import (
    COOKIELESS,
    EDITED,
    ENDED,
    LARGE,
    NESTED,
    OLDER,
    OTHERS,
    PAGE,
    PARTS,
    SCRIPTLESS,
    SOCKET,
    STREAM,
    TYPED,
    UNMENTIONED,
    WORKER,
    Other,
    cell,
    in_page,
    usual,
)

DCAF = SYSTEMS[-1]
CARRIED = (NESTED, TYPED, "a typed object is changed after reading", UNMENTIONED, STREAM, SOCKET, LARGE, WORKER, COOKIELESS)
NOT_BETTER = {SCRIPTLESS: "error", OLDER: "accepted", ENDED: "accepted", "the client can read the state": "yes"}


def setting_of(other: Any) -> str:
    return f"{type(other.system).__name__}-{other.row}"


def test_why_says_what_comes_out_now() -> None:
    text = PAGE.read_text()
    assert text == in_page(text), "write it anew: python -m tests.peers.why"


def test_control_a_cell_that_was_written_by_hand_is_noticed() -> None:
    text = PAGE.read_text()
    for said, other in (("| kept |", "| lost |"), (" B, ", " KB, ")):
        changed = text.replace(said, other, 1)
        assert changed != text
        assert in_page(changed) == text


def test_control_a_page_without_a_place_for_a_table_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no place for the outcomes"):
        in_page(PAGE.read_text().replace("<!-- outcomes: written by", "<!-- outcomes: written with"))


@pytest.mark.parametrize("row", CARRIED)
def test_what_dcaf_carries_is_kept(row: str) -> None:
    assert cell(DCAF, row) == "kept"


def test_dcaf_tells_a_client_that_its_edit_is_refused() -> None:
    assert cell(DCAF, EDITED) == "refused: 400"


@pytest.mark.parametrize("row", NOT_BETTER)
def test_where_dcaf_does_no_better_the_table_says_so(row: str) -> None:
    assert cell(DCAF, row) == NOT_BETTER[row]
    assert cell(DCAF, row) != "kept"


def test_every_row_is_judged_here() -> None:
    assert {*CARRIED, *NOT_BETTER, EDITED} == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_does_not_come_out_alike_for_all_systems(row: str) -> None:
    assert len({cell(system, row) for system in SYSTEMS}) > 1


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_in_one_sentence_what_it_does(row: str) -> None:
    assert meaning(row).endswith(".")


@pytest.mark.parametrize("other", OTHERS, ids=setting_of)
def test_what_else_is_done_or_set_changes_how_its_row_comes_out(other: Other) -> None:
    assert cell(other.system, other.row) != cell(usual(other), other.row)


def test_control_every_row_has_a_dcaf_that_comes_out_otherwise() -> None:
    assert {other.row for other in OTHERS if isinstance(other.system, Dcaf)} | {EDITED} == set(ROWS)


def test_control_without_its_mac_dcaf_takes_an_edited_state() -> None:
    with patch("dcaf.core.signing.hmac.compare_digest", lambda expected, found: True):
        assert edited(DCAF) == "accepted"


@pytest.mark.parametrize("system", SYSTEMS, ids=column)
def test_an_edit_changes_what_the_client_holds(system: System) -> None:
    visitor = Visitor()
    visitor.ask(system.worker(), "begin")
    cheat = visitor.copy()
    cheat.edit()
    assert (cheat.jar, cheat.session) != (visitor.jar, visitor.session)


def test_a_client_keeps_a_cookie_of_4096_bytes_and_drops_a_longer_one() -> None:
    value = "x" * (MOST_COOKIE_BYTES - len("name"))
    assert after(f"name={value}; path=/") == {"name": value}
    assert after(f"name={value}x; path=/") == {}


@pytest.mark.parametrize("attribute", ["expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0; Path=/"])
def test_a_client_drops_a_cookie_that_has_ended(attribute: str) -> None:
    assert after("name=value", f"name=; {attribute}") == {}


def after(*lines: str) -> dict[str, str]:
    """The cookies of a client that was answered so."""

    class Answers:
        def ask(self, route: str, act: str, headers: dict[str, str], body: bytes) -> Heard:
            return Heard(200, list(lines))

        def speak(self, act: str, headers: dict[str, str], frame: Any) -> Heard | None:
            return None

    visitor = Visitor()
    visitor.ask(Answers(), "look")
    return visitor.jar


def test_a_client_without_cookies_or_without_a_script_keeps_none_of_them() -> None:
    system = StarletteSessions()
    cookieless, scriptless = Visitor(keeps_cookies=False), Visitor(keeps_json=False)
    assert cookieless.ask(system.worker(), "begin").state["role"] == "user"
    assert scriptless.ask(Dcaf().worker(), "begin").state["role"] == "user"
    assert (cookieless.jar, scriptless.session) == ({}, None)


def test_a_forger_finds_the_word_in_the_open_and_in_base64() -> None:
    assert forged('{"role":"user"}') == f'{{"role":"{FORGED}"}}'
    assert forged("eyJyb2xlIjoidXNlciJ9.mac") == "eyJyb2xlIjoicm9vdCJ9.mac"
    assert forged("3f2b9c0d") == "3f2b9c0d"


def test_the_parts_of_the_page_are_tables() -> None:
    assert all(part().startswith("|") for part in PARTS.values())
