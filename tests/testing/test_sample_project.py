"""A project of somebody else's: it installs the wheel, and tests its own agent with what is in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "sample_project"
NEEDED = ("pyproject.toml", "README.md", "LICENSE")
REMEMBERS = 'session.get("order", Order(), as_type=Order)\n    order.dishes'
FORGETS = "Order()\n    order.dishes"

LONELY = [f"-pno:{point.name}" for point in entry_points(group="pytest11") if "dcaf" not in point.name]
"""The sample has not the plugins of this environment, some of which take seconds to load."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def done(*command: Any, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command's result, in an environment without what this run has set for itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV", "DCAF"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: Any) -> Path:
    """The wheel of the work tree, built without the network."""
    folder: Path = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "dcaf", folder / "dcaf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in NEEDED:
        shutil.copy(ROOT / name, folder)
    built = done(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: Any) -> Path:
    """An environment with that wheel, and with the libraries of this one but not its dcaf."""
    folder: Path = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    binary = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    # the path alone: the editable dcaf of that folder is a .pth in it, and those are not read from here
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", binary, "--disable-pip-version-check")
    installed = done(*pip, "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel, folder=folder)
    assert installed.returncode == 0, installed.stderr
    where = done(binary, "-c", "import dcaf; print(dcaf.__file__)", folder=folder)
    assert where.stdout.startswith(str(packages)), where
    return binary


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__", "conftest.py"))
    return tmp_path / "project"


@pytest.fixture
def run(python: Path, project: Path) -> Run:
    return lambda *options, **environment: done(python, "-m", "pytest", *LONELY, *options, folder=project, **environment)


def test_the_wheel_names_the_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "[pytest11]\ndcaf.testing.plugin = dcaf.testing.plugin\n" in archive.read(name).decode()


def test_the_sample_passes_and_has_the_fixtures_from_the_wheel(run: Run) -> None:
    tested = run()
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert re.search(r"\n?\.{10} ", tested.stdout), tested.stdout


def test_control_a_tool_that_loses_its_state_fails(run: Run, project: Path) -> None:
    service = project / "restaurant" / "service.py"
    assert REMEMBERS in service.read_text()
    service.write_text(service.read_text().replace(REMEMBERS, FORGETS))
    tested = run()
    failed = set(re.findall(r"FAILED \S+::(\w+)", tested.stdout))
    assert tested.returncode == 1, tested.stderr
    assert failed >= {"test_a_tool", "test_a_conversation", "test_the_till_reads_what_the_waiter_wrote"}
    assert "test_a_route" not in failed


def test_naming_the_plugin_as_well_loads_it_once(run: Run, project: Path) -> None:
    (project / "restaurant" / "test_service.py").write_text("def test_a(dcaf_session): assert dcaf_session.is_empty\n")
    (project / "conftest.py").write_text('pytest_plugins = ["dcaf.testing.plugin"]\n')
    tested = run("-p", "dcaf.testing.plugin", PYTEST_PLUGINS="dcaf.testing.plugin")
    assert tested.returncode == 0, tested.stdout + tested.stderr


WITHOUT = "import sys; sys.modules['httpx2'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def test_without_the_extra_pytest_starts_and_a_test_is_told_what_to_install(python: Path, project: Path) -> None:
    (project / "restaurant" / "test_service.py").write_text(
        "def test_a(dcaf_session): assert dcaf_session.is_empty\ndef test_b(session_client): session_client(print)\n"
    )
    tested = done(python, "-c", WITHOUT, *LONELY, folder=project)
    assert "ModuleNotFoundError: dcaf.testing needs httpx2: pip install 'dcaf[testing]'" in tested.stdout
    assert re.findall(r"FAILED \S+::(\w+)", tested.stdout) == ["test_b"]
