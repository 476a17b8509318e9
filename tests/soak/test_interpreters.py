"""The signature matrix on every supported Python that can be had: the machine's own, and 3.14 as WebAssembly too.

Each interpreter gets an environment of its own, from pip and npm. Which ones ran is printed; that none ran is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import REQUIRED, program

pytestmark = pytest.mark.soak

ROOT: Final = Path(__file__).parents[2]
OTHERS: Final = ("3.12", "3.13", "3.14")
PYODIDE: Final = "pyodide@314.0.7"
WASM: Final = "pyemscripten_2026_0_wasm32"
TESTS: Final = ["tests/tools", "tests/core/test_readonly.py", "tests/core/test_session_key.py"]
WITHOUT_THREADS: Final = ["test_signatures.py", "test_injection.py", "test_resolution.py", "test_methods.py", "test_schema.py"]
DEPENDENCIES: Final = [*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"], "pytest"]
RAN: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _some_ran() -> Iterator[None]:
    yield
    sys.stdout.write(f"\nran on: {', '.join(RAN) or 'none'}\n")
    assert RAN, "no other interpreter was found, so nothing was shown"


def interpreter(version: str) -> str | None:
    """A Python of that version that answers, on the path or where pyenv keeps them; the newest."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [
        shutil.which(f"python{version}"),
        *(str(path / "bin" / "python") for path in sorted(kept.glob(f"{version}.*"), reverse=True)),
    ]
    return next((place for place in places if place and _answers(place, version)), None)


def _answers(place: str, version: str) -> bool:
    command = [place, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == version


def checked(command: list[str], **more: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900, env={**os.environ, **more})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("version", OTHERS)
def test_the_matrix_holds_on_the_machine_s_other_pythons(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        reason = f"there is no Python {version} on this machine"
        if f"python{version}" in REQUIRED:
            pytest.fail(f"{reason}, and DCAF_REQUIRE names it")
        pytest.skip(reason)
    checked([python, "-m", "venv", str(tmp_path / "env")])
    own = str(tmp_path / "env" / "bin" / "python")
    checked([own, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", "trio", *DEPENDENCIES])
    said = checked([own, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", *TESTS, "dcaf/tools"], PYTHONPATH=str(ROOT))
    assert "passed" in said or "100%" in said
    RAN.append(checked([own, "-c", "import sys; print('Python', sys.version.split()[0])"]).strip())


def test_the_matrix_holds_on_python_3_14_as_webassembly(tmp_path: Path) -> None:
    npm, node = program("npm"), program("node")
    checked([npm, "install", "--silent", "--prefix", str(tmp_path), PYODIDE])
    wheels = str(tmp_path / "wheels")
    platform = [
        "--only-binary",
        ":all:",
        "--platform",
        WASM,
        "--python-version",
        "3.14",
        "--implementation",
        "cp",
        "--abi",
        "cp314",
    ]
    wanted = [name for name in DEPENDENCIES if not name.startswith("orjson")]
    constraints = ["--constraint", "constraints.txt"]
    checked([sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels, *constraints, *platform, *wanted])
    tests = [f"tests/tools/{name}" for name in WITHOUT_THREADS] + TESTS[1:]
    script = str(Path(__file__).with_name("interpreter.mjs"))
    said = checked([node, script, str(tmp_path / "node_modules" / "pyodide"), wheels, str(ROOT), *tests, "--basetemp=/tmp/matrix"])
    assert said.startswith("Python 3.14."), said
    assert "100%" in said
    RAN.append(said.splitlines()[0])
