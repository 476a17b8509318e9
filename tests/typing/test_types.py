"""What type checkers know about a session: mypy and pyright reveal the same types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REVEALED = Path(__file__).with_name("revealed.py")
EXPECTED = re.findall(r"reveal_type\(.*\)  # (.+)", REVEALED.read_text())


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


def mypy_spelling(text: str) -> str:
    """mypy qualifies names and spells out literals."""
    text = re.sub(r"Literal\['small', 'large'\]", "Literal['small'] | Literal['large']", text)
    text = re.sub(r"\b(Item|Deploy)\b", r"revealed.\1", text)
    return re.sub(r"^Session$", "dcaf.core.session.Session", text)
