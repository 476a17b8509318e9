"""The wizard driven by a Node.js process that gets only the URL and echoes `data.session`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dcaf.demo.story import APPROVE, CONVERSATION
from tests.conftest import Served

CLIENT = Path(__file__).with_name("wizard.mjs")


def conversation(node: str, url: str, mode: str, texts: list[str]) -> list[dict[str, Any]]:
    """What came back for each text."""
    done = subprocess.run(
        [node, str(CLIENT), url, mode], input="\n".join(texts) + "\n", capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def mirrors(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in turn["session"].items() if key != "dcaf"} for turn in turns]


@pytest.mark.parametrize("mode", ["top", "messages", "edited", "edited-messages"])
def test_the_whole_conversation_holds_in_javascript(node: str, served: Served, mode: str) -> None:
    turns = conversation(node, served.url, mode, [text for text, _ in CONVERSATION])
    assert mirrors(turns) == [expected for _, expected in CONVERSATION]
    assert {turn["status"] for turn in turns} == {200}


@pytest.mark.parametrize("mode", ["top", "messages"])
def test_a_cleared_session_stays_cleared_although_older_messages_carry_sealed_ones(node: str, served: Served, mode: str) -> None:
    turns = conversation(node, served.url, mode, ["service api", "3 replicas", "execute", APPROVE, "hello", "execute", APPROVE])
    assert mirrors(turns)[3:] == [{}, {}, {}, {}]
    assert turns[6]["content"].startswith("Nothing to deploy")
    assert [turn["older"] for turn in turns] == [0, 1, 2, 3, 4, 5, 6], "the history must carry what could come back"


def test_control_a_client_that_drops_the_cleared_session_falls_back_to_the_one_before(node: str, served: Served) -> None:
    """`{}` is no session, so the newest older one counts: without the sealed empty session the clearing is undone."""
    turns = conversation(node, served.url, "forgetful", ["service api", "3 replicas", "execute", APPROVE, "hello"])
    assert [turn["older"] for turn in turns] == [0, 1, 2, 3, 3]
    assert mirrors(turns)[3] == {}
    assert mirrors(turns)[4] == {"service": "api", "wizard_step": 3, "replicas": 3}


def test_numbers_that_javascript_edits_in_the_mirror_have_no_effect(node: str, served: Served) -> None:
    turns = conversation(node, served.url, "edited", ["service api", "3 replicas", "execute", APPROVE])
    assert turns[3]["content"] == "Deployed api with 3 replicas."


def test_control_a_client_that_goes_back_to_an_older_session_gets_its_state_back(node: str, served: Served) -> None:
    """Without a server's memory an older session is as good as a newer one, as the documents say."""
    turns = conversation(node, served.url, "first", ["service api", "3 replicas", "hello"])
    assert mirrors(turns)[2] == {"service": "api", "wizard_step": 2}


def test_nested_changes_of_the_basket_are_kept(node: str, served: Served) -> None:
    turns = conversation(node, served.url, "top", ["add 2 widget", "add 1 bolt", "one more bolt"])
    assert mirrors(turns)[2] == {"basket": {"items": [{"name": "widget", "quantity": 2}, {"name": "bolt", "quantity": 2}]}}
