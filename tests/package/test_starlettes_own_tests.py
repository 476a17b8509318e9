"""Starlette's own tests of its sessions, from its source distribution, with the drop-in in the place of its middleware.

Nothing in them is changed but the import and the key. What fails by choice is named below, with the reason that
docs/coming-from/starlette-sessions.md gives, and a test of that list that passes is a failure here: then the page is wrong.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from dcaf import Key
from tests.conftest import REQUIRED

IMPORT: Final = "from starlette.middleware.sessions import Session, SessionMiddleware"
OURS: Final = "from dcaf.integrations.starlette import Session, SessionMiddleware"
KEY: Final = 'secret_key="example"'
BACKENDS: Final = ("asyncio", "trio")

NO_LIFETIME: Final = "max_age= under a second is a wrong setting here: a session that is over at once is none"
BY_CHOICE: Final = {"test_session_expires": NO_LIFETIME, "test_session_zero_max_age": NO_LIFETIME}
"""Tests that fail -> why."""


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Starlette's source, of the version that is installed; without the package index the test is skipped, or fails."""
    folder = tmp_path_factory.mktemp("starlette")
    name = f"starlette=={version('starlette')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
    done = subprocess.run([*pip, "--dest", str(folder), name], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"{name} could not be fetched from the package index: {done.stderr[-300:]}"
        if "pypi" in REQUIRED:
            pytest.fail(f"{reason}, and DCAF_REQUIRE names it")
        pytest.skip(reason)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def outcomes(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of each test, with its parameters -> what it ended with; empty where it passed."""
    return run(distribution, tmp_path_factory.mktemp("run"), f'keys="{Key.generate().text()}", audience="starlette"', OURS)


def run(distribution: Path, folder: Path, key: str, imported: str) -> dict[str, str]:
    """Run them in a process of their own, with another import and another key."""
    tests = folder / "tests"
    (tests / "middleware").mkdir(parents=True)
    for name in ("__init__.py", "conftest.py", "types.py", "middleware/__init__.py", "middleware/test_session.py"):
        (tests / name).write_text((distribution / "tests" / name).read_text())
    text = (tests / "middleware" / "test_session.py").read_text()
    assert text.count(IMPORT) == 1
    assert KEY in text
    (tests / "middleware" / "test_session.py").write_text(text.replace(IMPORT, imported).replace(KEY, key))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb",
        "line",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "--junitxml",
        "found.xml",
    ]
    subprocess.run([*command, "tests/middleware"], cwd=folder, capture_output=True, check=False)
    found = ET.parse(folder / "found.xml").getroot().iter("testcase")
    return {case.get("name", ""): "".join(part.get("message", "") for part in case) for case in found}


def failed(outcomes: dict[str, str]) -> set[str]:
    """The tests that did not pass with every backend, without their parameters."""
    return {name.partition("[")[0] for name, told in outcomes.items() if told}


def test_they_pass_but_for_what_is_refused_by_choice(outcomes: dict[str, str]) -> None:
    others = {name: told for name, told in outcomes.items() if told and name.partition("[")[0] not in BY_CHOICE}
    assert others == {}
    assert len(outcomes) > len(BACKENDS) * len(BY_CHOICE)


@pytest.mark.parametrize("name", BY_CHOICE)
def test_what_is_refused_by_choice_is_refused_and_the_page_names_it(outcomes: dict[str, str], name: str) -> None:
    told = [told for test, told in outcomes.items() if test.partition("[")[0] == name]
    assert told
    assert all("max_age= is a number of seconds, from 1 up" in each for each in told), f"{name} passes: {BY_CHOICE[name]}"
    page = Path(__file__).parents[2] / "docs" / "coming-from" / "starlette-sessions.md"
    assert "`max_age=0`" in page.read_text()


def test_control_they_pass_all_on_starlettes_own_middleware(distribution: Path, tmp_path: Path) -> None:
    outcomes = run(distribution, tmp_path, KEY, IMPORT)
    assert failed(outcomes) == set()


def test_control_a_session_that_is_no_dict_fails_many_of_them(distribution: Path, tmp_path: Path) -> None:
    plain = "from dcaf.integrations.starlette import Session, SessionMiddleware as Base\n"
    plain += "from dcaf import SessionMiddleware as Plain\nclass SessionMiddleware(Base):\n    _shown_as = None"
    outcomes = run(distribution, tmp_path, f'keys="{Key.generate().text()}", audience="starlette"', plain)
    assert len(failed(outcomes) - BY_CHOICE.keys()) > 5
