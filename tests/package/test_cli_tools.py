"""`dcaf tools`, as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dcaf.cli import main

DCAF = str(Path(sys.executable).with_name("dcaf"))
SHOP = """
from dcaf import Session, tool

@tool
def sell(name: str, session: Session) -> None: ...

@tool
def count() -> None: ...

again = sell
both = [sell, count]
by_name = {"sell": sell}

class Shelf:
    @tool
    def put(self, item: str, session: Session) -> None: ...

shelf = Shelf()
nothing = 5
"""
SELL = "sell\n  name     the model    str, required\n  session  the session  annotated as Session\n"
COUNT = "count\n  (no parameters)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    return tmp_path


Shown = Callable[[str], tuple[str, str, int]]


def run(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DCAF, "tools", target], cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def shown_of(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """What the command prints, says of an error, and ends with, without a process of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "shop", raising=False)

    def shown(target: str) -> tuple[str, str, int]:
        code = main(["tools", target])
        return *capsys.readouterr(), code

    return shown


def test_the_command_shows_a_tool_and_says_what_is_none(folder: Path) -> None:
    done = run(folder, "shop:sell")
    assert (done.stdout, done.stderr, done.returncode) == (SELL, "", 0)
    done = run(folder, "shop:gone")
    assert (done.stdout, done.stderr, done.returncode) == ("", "dcaf: shop has no 'gone'.\n", 2)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("shop:sell", SELL),
        ("shop:both", f"{SELL}\n{COUNT}"),
        ("shop:by_name", SELL),
        ("shop", f"{SELL}\n{COUNT}"),
        ("shop:shelf.put", "put\n  item     the model    str, required\n  session  the session  annotated as Session\n"),
    ],
)
def test_the_tools_that_are_named_are_shown_each_once(shown_of: Shown, target: str, shown: str) -> None:
    assert shown_of(target) == (shown, "", 0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop:nothing", "shop:nothing is no tool, and has none: make one with @tool."),
        ("shop:gone", "shop has no 'gone'."),
        ("gone", "There is no module 'gone' here: give one as package.module:name."),
        ("gone.deeper:x", "There is no module 'gone' here: give one as package.module:name."),
    ],
)
def test_a_target_that_is_no_tool_is_said_in_one_line(shown_of: Shown, target: str, said: str) -> None:
    assert shown_of(target) == ("", f"dcaf: {said}\n", 2)


def test_a_module_that_fails_shows_its_own_error(folder: Path) -> None:
    done = run(folder, "broken")
    assert done.returncode == 1
    assert "No module named 'no_such_thing'" in done.stderr
