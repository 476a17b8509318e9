"""The command line, as a user calls it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dcaf import Key
from dcaf.cli import main
from dcaf.demo import story

DCAF = str(Path(sys.executable).with_name("dcaf"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DCAF, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_keys_new_prints_one_key_and_nothing_else() -> None:
    first, second = run("keys", "new"), run("keys", "new")
    assert (first.returncode, first.stderr) == (0, "")
    assert Key.parse(first.stdout.strip()).text() + "\n" == first.stdout
    assert first.stdout != second.stdout


def test_the_demo_ends_well_and_shows_what_held() -> None:
    done = run("demo")
    assert done.returncode == 0
    assert "11 of 11 held." in done.stdout
    for shown in (
        "user       execute",
        "assistant  Deployed api with 3 replicas.",
        "envelope   ",
        "cheat      ",
        "400 session-invalid",
    ):
        assert shown in done.stdout


def test_control_the_demo_fails_when_something_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(story, "CONVERSATION", (("start", {"wizard_step": 2}),))
    assert main(["demo"]) == 1
    assert "FAILED  after 'start'" in capsys.readouterr().out


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("demo", "--serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["keys"], ["cook"], ["demo", "--port", "x"]])
def test_a_wrong_command_line_says_how_to_write_it(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage: dcaf" in done.stderr
