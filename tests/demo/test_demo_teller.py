"""What a turn of the demo changed, in a line."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf.cli import demo
from dcaf.demo.teller import Check, TurnRecord, WaitingCall, find_changes, print_cheat, print_checks, print_turn


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({}, {"a": None}, [("a", "null")]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, [("a.c", "")]),
        ({"a": [1]}, {"a": [1, {"b": 2}]}, [("a[1]", '{"b": 2}')]),
        ({"a": [1, 2]}, {"a": [1]}, [("a[1]", "")]),
        ({"a": [1]}, {"a": {"b": 1}}, [("a", '{"b": 1}')]),
        ({"a": {"b": 1}}, {"a": {}}, [("a", "{}")]),
        ({"a": 1, "b": 2}, {"b": 3, "c": "ü"}, [("b", "3"), ("c", '"ü"'), ("a", "")]),
    ],
)
def test_a_change_is_told_by_its_path(before: Any, after: Any, found: list[tuple[str, str]]) -> None:
    assert list(find_changes(before, after)) == found


def test_the_line_of_a_turn_says_what_changed_what_is_gone_and_what_waits() -> None:
    waiting = [WaitingCall("deploy", {})]
    assert TurnRecord("", "", {"a": 1, "b": 2, "c": 3}, {"a": 2}, 345, waiting).outcome == "a 2, b, c gone, deploy waits"
    assert TurnRecord("", "", {"a": 1}, {"a": 1}, 345).outcome == "no change"


def test_a_demo_that_is_served_says_where_to_talk_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    demo._announce("http://127.0.0.1:1")
    first, _, curl, *_ = capsys.readouterr().out.splitlines()
    assert first == "The wizard runs at http://127.0.0.1:1. Open it in a browser, or talk to it from another terminal:"
    assert curl.startswith("curl -s http://127.0.0.1:1/api/chat ")


def test_what_the_service_says_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said, literal = "[red]x[/red] \x1b[2J\x07\u202e\x9b", r"[red]x[/red] \x1b[2J\x07\u202e\x9b"
    print_turn(TurnRecord("", said, {}, {}, 345, [WaitingCall(said, {})]))
    print_cheat(Check("", "", said))
    print_checks([Check(said, "", said)])
    # said, waiting, answered; in the table and below it, what and found
    assert capsys.readouterr().out.count(literal) == 7
