"""Where things are: the map in ARCHITECTURE.md is of the tree, and the list of typical changes names modules that there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.package.architecture import PAGE, first_line, modules, read_rows, write_tables

CHANGES = tomllib.loads(Path(__file__).with_name("rooms.toml").read_text())["change"]


def test_each_typical_change_has_a_module_that_there_is() -> None:
    assert len({change["what"] for change in CHANGES}) == 30
    assert {change["room"] for change in CHANGES} <= set(modules())


def test_the_map_lists_every_module_once() -> None:
    assert sorted(name for name, _ in read_rows(PAGE.read_text())) == sorted(modules())


def test_the_map_says_of_each_module_what_its_first_line_says() -> None:
    other = {name: said for name, said in read_rows(PAGE.read_text()) if said != first_line(name)}
    assert other == {}, "run: python -m tests.package.architecture"


def test_control_a_module_that_the_map_leaves_out_is_missed() -> None:
    text = PAGE.read_text()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("| `core/claims.py`"))
    assert set(modules()) - {name for name, _ in read_rows(without)} == {"core/claims.py"}
    assert write_tables(text) == text


def test_the_table_of_test_folders_lists_each_folder_once() -> None:
    tests = PAGE.parent / "tests"
    cells = re.findall(r"^\| (`[^|]+`) \|", (tests / "README.md").read_text(), re.MULTILINE)
    listed = re.findall(r"`(\w+)`", " ".join(cells))
    folders = {path.parent.relative_to(tests).parts[0] for path in tests.rglob("*.py") if path.parent != tests}
    assert sorted(listed) == sorted(folders)
