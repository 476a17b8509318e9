"""What type checkers know about a session: mypy and pyright reveal the same types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REVEALED = Path(__file__).with_name("revealed.py")
EXPECTED = re.findall(r"reveal_type\(.*\)  # (.+)", REVEALED.read_text())
REFUSED = re.sub(r"  # type: ignore\[.+?\]", "", Path(__file__).with_name("refused.py").read_text())
LINES = {at for at, line in enumerate(REFUSED.splitlines(), start=1) if line.endswith("# refused")}


def test_mypy_infers_what_a_typed_get_returns() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy_cache/typing", str(REVEALED)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r'Revealed type is "(.+)"', done.stdout) == [mypy_spelling(text) for text in EXPECTED], (
        done.stdout + done.stderr
    )
    assert done.returncode == 0, done.stdout


def test_pyright_infers_what_a_typed_get_returns() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(REVEALED)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Type of" not in done.stdout and "error" not in done.stdout:
        pytest.skip(f"pyright could not be fetched: {done.stderr[-200:]}")
    assert re.findall(r'Type of ".+" is "(.+)"', done.stdout) == EXPECTED, done.stdout
    assert done.returncode == 0, done.stdout


def refused_by(command: list[str], program: Path, text: str) -> set[int]:
    """The lines of a program in which a type checker finds an error."""
    program.write_text(text)
    done = subprocess.run([sys.executable, "-m", *command, str(program)], capture_output=True, text=True, check=False)
    if "error" not in done.stdout and done.returncode:
        pytest.skip(f"{command[0]} could not be fetched: {done.stderr[-200:]}")
    return {int(line) for line in re.findall(r"\.py:(\d+)(?::\d+)?(?::| -) error", done.stdout)}


MYPY = ["mypy", "--strict", "--config-file=", "--cache-dir=.mypy_cache/typing"]
PYRIGHT = ["pyright", "--pythonpath", sys.executable]


@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_what_would_fail_when_it_runs_is_refused_before(command: list[str], tmp_path: Path) -> None:
    assert refused_by(command, tmp_path / "refused.py", REFUSED) == LINES


@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_control_a_class_that_takes_any_attribute_is_refused_nothing(command: list[str], tmp_path: Path) -> None:
    loose = "    def __setattr__(self, name: str, value: object) -> None: ...\n"
    text = REFUSED.replace("    step: int = 1\n", f"    step: int = 1\n{loose}", 1)
    misspelled = {at for at, line in enumerate(text.splitlines(), start=1) if "stpe = " in line and "Deploy." not in line}
    assert not misspelled & refused_by(command, tmp_path / "loose.py", text)


def mypy_spelling(text: str) -> str:
    """mypy qualifies names and spells out literals."""
    text = re.sub(r"Literal\['small', 'large'\]", "Literal['small'] | Literal['large']", text)
    text = re.sub(r"\b(Item|Deploy)\b", r"revealed.\1", text)
    return re.sub(r"^Session$", "dcaf.core.session.Session", text)
