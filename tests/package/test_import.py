"""What `import dcaf` costs and loads, and what its names are."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import dcaf

PACKAGE = Path(dcaf.__file__).parent
OPTIONAL = (
    "cryptography",
    "uvicorn",
    "httpx2",
    "httpx",
    "fastapi",
    "pydantic_ai",
    "websockets",
    "redis",
    "psycopg",
    "sqlite3",
    "obstore",
)
WINDOWS = ("dcaf", "dcaf.core", "dcaf.asgi", "dcaf.tools", "dcaf.agent", "dcaf.client", "dcaf.testing")
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def loaded_by(statement: str) -> set[str]:
    """The optional packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print([name for name in {OPTIONAL} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


def test_importing_dcaf_loads_no_driver_no_framework_and_no_crypto() -> None:
    assert loaded_by("import dcaf") == set()


def test_control_the_same_question_sees_a_package_that_is_loaded() -> None:
    assert loaded_by("import dcaf.integrations.fastapi") >= {"fastapi"}


@pytest.mark.alone
def test_importing_dcaf_takes_less_than_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import dcaf"], check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize("name", WINDOWS)
def test_the_names_of_a_floor_are_complete_sorted_and_real(name: str) -> None:
    module = importlib.import_module(name)
    public = {key for key, value in vars(module).items() if not key.startswith("_") and not isinstance(value, type(sys))}
    assert list(module.__all__) == sorted(module.__all__, key=lambda key: (not key[0].isupper(), key))
    assert public == set(module.__all__)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text
    assert len(text.splitlines()[0]) > 20
    assert text.splitlines()[0].endswith((".", ":", "?"))


def has_code(tree: ast.Module) -> bool:
    return any(not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign) for node in tree.body)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_with_code_postpones_its_annotations(path: Path) -> None:
    text = path.read_text()
    assert "from __future__ import annotations\n" in text or (path.name == "__init__.py" and not has_code(ast.parse(text)))


def test_control_a_window_with_code_of_its_own_is_told_from_a_bare_one() -> None:
    assert not has_code(ast.parse('"""Doc."""\nfrom a import b\n__all__ = ["b"]\n'))
    assert has_code(ast.parse('"""Doc."""\ndef f(): ...\n'))


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_the_wheel_ships_the_mark_of_types_and_every_module(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, check=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "dcaf/py.typed" in names
    assert {str(path.relative_to(PACKAGE.parent)) for path in MODULES} <= names
    assert not {name for name in names if name.startswith(("tests", "examples", "docs"))}
