"""`dcaf demo`, as it looks in a terminal and through a pipe: the same plain lines."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from dcaf.agent.app import _warn_once
from dcaf.demo import story
from tests.demo.terminals import ENVIRONMENT, run_in_terminal

DCAF = str(Path(sys.executable).with_name("dcaf"))
PLAIN = Path(__file__).with_name("plain.txt").read_text()


def masked(lines: str) -> str:
    """Without what differs from run to run."""
    return re.sub(r"(?m)^(envelope   )\d+", r"\1N", re.sub(r"(http://127\.0\.0\.1:)\d+", r"\1PORT", lines))


def test_a_pipe_gets_the_plain_lines_byte_for_byte() -> None:
    piped = subprocess.run([DCAF, "demo"], capture_output=True, check=False, timeout=60, env=ENVIRONMENT)
    assert piped.returncode == 0
    assert b"\x1b" not in piped.stdout
    assert masked(piped.stdout.decode()) == PLAIN


def test_a_terminal_gets_the_same_lines_and_the_same_exit_code() -> None:
    seen = run_in_terminal([DCAF, "demo"], columns=80)
    assert seen.code == 0
    assert "\x1b" not in seen.raw
    assert masked(seen.raw.replace("\r\n", "\n")) == PLAIN


def test_the_closing_table_shows_of_every_turn_what_only_this_turn_did() -> None:
    lines = PLAIN.splitlines()
    heading = next(line for line in lines if line.startswith("held?"))
    rows = [line[heading.index("what came") :] for line in lines if line.startswith("held    after")]
    assert len(set(rows)) == len(rows) == 8
    assert rows[1] == 'wizard_step 2, service "api"'


def test_the_whole_session_is_compared_although_the_table_shows_what_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the second turn the table would show the same; the session has a member too many."""
    wrong = (("start", {"wizard_step": 1}), ("service api", {"wizard_step": 2, "service": "api", "left": 1}))
    monkeypatch.setattr(story, "CONVERSATION", wrong)
    assert story.tell() == 1
    printed = capsys.readouterr().out
    assert "FAILED  after 'service api'" in printed
    assert printed.endswith("6 of 7 held.\n")


@pytest.mark.parametrize("command", [["demo"], ["demo", "--serve", "--port", "70000"]])
def test_what_the_service_would_warn_of_is_not_in_the_story(command: list[str]) -> None:
    told = subprocess.run([DCAF, *command], capture_output=True, check=False, timeout=60, env=ENVIRONMENT, text=True)
    assert [line for line in told.stderr.splitlines() if "port" not in line] == []


def test_control_the_service_does_warn(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _warn_once.cache_clear()  # as in a process that has not told of it yet
    monkeypatch.setattr(story, "without_warnings", nullcontext)
    assert story.tell() == 0
    said = [record.getMessage() for record in caplog.records if record.name == "dcaf"]
    assert [len([line for line in said if word in line]) for word in ("ephemeral key", "no ledger", "refused code=")] == [1, 1, 3]


def test_control_a_check_that_fails_is_shown_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "CONVERSATION", (("start", {"wizard_step": 2}),))
    assert story.tell() == 1
    printed = capsys.readouterr().out
    assert "FAILED  after 'start'" in printed
    assert 'after \'start\': expected {"wizard_step": 2}, found {"wizard_step": 1}' in printed
    assert printed.endswith("5 of 6 held.\n")
