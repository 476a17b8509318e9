"""What a newcomer is told of where things are: the list of typical changes, and the list of modules in ARCHITECTURE.md."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHANGES = tomllib.loads(Path(__file__).with_name("rooms.toml").read_text())["change"]
MODULE = re.compile(r"^\| `([a-z_0-9/]+(?:\.py)?)` \| (.+) \|$", re.MULTILINE)


def modules() -> set[str]:
    """Every module of the package but the windows, which only name what a package gives."""
    found = {str(path.relative_to(ROOT / "dcaf")) for path in (ROOT / "dcaf").rglob("*.py")}
    return {name for name in found if not name.endswith("__init__.py")} | {"agent/page/__init__.py"}


def listed(text: str) -> list[str]:
    """The modules in the tables of a page, in their order."""
    return [name for name, _ in MODULE.findall(text)]


def test_each_typical_change_has_a_module_that_there_is() -> None:
    assert len({change["what"] for change in CHANGES}) == 30
    assert {change["room"] for change in CHANGES} <= modules()


def test_the_map_lists_every_module_once() -> None:
    found = listed((ROOT / "ARCHITECTURE.md").read_text())
    assert len(found) == len(set(found))
    assert set(found) == modules()


def test_the_map_says_of_each_module_what_its_first_line_says() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    other = {name: said for name, said in MODULE.findall(text) if said != first_line(name)}
    assert other == {}


def test_control_a_module_that_the_map_leaves_out_is_missed() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("| `core/claims.py`"))
    assert set(listed(without)) == modules() - {"core/claims.py"}


def first_line(module: str) -> str:
    """What a module is for, as a row of a table has it."""
    first = (ROOT / "dcaf" / module).read_text().split("\n", 1)[0]
    return first.lstrip("r").strip('"').replace("|", r"\|")
