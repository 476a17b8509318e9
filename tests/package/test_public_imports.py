"""What is public is what an ``__all__`` names: README, guides and examples import nothing else."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = (
    *("dcaf", "dcaf.core", "dcaf.asgi", "dcaf.tools", "dcaf.agent", "dcaf.client", "dcaf.testing", "dcaf.demo"),
    *("dcaf.engines", "dcaf.ledger", "dcaf.service", "dcaf.integrations.fastapi", "dcaf.integrations.starlette"),
)
FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")]
PAGES = sorted(path for path in FILES if "reference" not in path.parts)
IMPORT = re.compile(r"^[ >.]*(from dcaf[\w.]* import (?:\([^)]*\)|[^\n#]+))", re.MULTILINE)


def imported(text: str) -> set[tuple[str, str]]:
    """Each name that a text imports from dcaf, with the module that it takes it from."""
    nodes = [ast.parse(found).body[0] for found in IMPORT.findall(text)]
    return {(node.module or "", alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}


def undeclared(text: str) -> set[tuple[str, str]]:
    """Those that no ``__all__`` has."""
    return {(module, name) for module, name in imported(text) if module not in PUBLIC or name not in import_module(module).__all__}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_imports_public_names_alone(page: Path) -> None:
    assert undeclared(page.read_text()) == set()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_name_that_is_declared_is_there(module: str) -> None:
    package = import_module(module)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert len(set(package.__all__)) == len(package.__all__)


def test_control_a_private_name_and_a_private_module_are_noticed() -> None:
    text = "from dcaf import Session, hidden\n>>> from dcaf.core.state import State\nfrom dcaf.tools import (\n    Call,\n)\n"
    assert undeclared(text) == {("dcaf", "hidden"), ("dcaf.core.state", "State")}
