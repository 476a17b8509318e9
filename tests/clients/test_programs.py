"""A program that is missing skips its tests, and fails them where it is required."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS_CURL = "tests/clients/test_curl.py::test_the_line_that_the_demo_prints_works_when_pasted"
OTHERS = [f"-pno:{point.name}" for point in entry_points(group="pytest11")]
"""Plugins, some of which take seconds to load."""


def outcome(required: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One test that needs curl, on a path where there is none."""
    command = [sys.executable, "-m", "pytest", NEEDS_CURL, "-pno:cacheprovider", *OTHERS]
    settings = {**os.environ, "PATH": str(folder), "DCAF_REQUIRE": required}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False, timeout=60)


def test_a_missing_program_skips_its_tests_and_says_why(tmp_path: Path) -> None:
    done = outcome("", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "curl is not on this machine" in done.stdout


@pytest.mark.parametrize("required", ["curl", "node, curl"])
def test_control_a_missing_program_that_is_required_fails_them(tmp_path: Path, required: str) -> None:
    done = outcome(required, tmp_path)
    assert done.returncode == 1, done.stdout
    assert "curl is not on this machine, and DCAF_REQUIRE names it" in done.stdout
