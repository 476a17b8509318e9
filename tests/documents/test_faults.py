"""The page of faults: each test that it names is there, and each fault has one for the session service and a control."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "evidence" / "faults.md"
NAMED: Final = re.compile(r"`([a-z0-9_/]+)::(test_[a-z0-9_]+)`")


def read_tables(page: str) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the two tables: what holds, and what shows it."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    rows = [row for row in found if row[0] not in {"fault", "---"}]
    return [row for row in rows if len(row) == 2], [row for row in rows if len(row) == 4]


def find_problems(page: str) -> list[str]:
    """What is wrong with the page."""
    held, shown = read_tables(page)
    problems = [] if [row[0] for row in held] == [row[0] for row in shown] else ["The two tables have other faults."]
    for fault, *cells in shown:
        names = [NAMED.findall(cell) for cell in cells]
        problems += [f"{fault}: no test of the session service"] if not names[1] else []
        problems += (
            [f"{fault}: no control"] if not names[2] or not all(name.startswith("test_control") for _, name in names[2]) else []
        )
        problems += [f"{fault}: {file} has no {name}" for each in names for file, name in each if name not in find_tests(file)]
    return problems


@cache
def find_tests(file: str) -> frozenset[str]:
    """The functions and methods of a file of tests."""
    path = ROOT / "tests" / f"{file}.py"
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_fault_has_the_tests_that_the_page_names() -> None:
    page = PAGE.read_text()
    assert find_problems(page) == []
    assert len(read_tables(page)[1]) > 20


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ("test_tables_are_made_by_eight_processes_at_once", "test_tables_are_made"),
        ("service/test_service_histories::", "service/test_histories::"),
        ("| a purge while a turn is open | the", "| a purge | the"),
        ("service/test_service_outages::test_control_clocks_that_are_ten_minutes_apart_are_noticed", "-"),
    ],
)
def test_control_a_page_that_says_something_else_is_caught(said: str, other: str) -> None:
    page = PAGE.read_text()
    assert said in page
    assert find_problems(page.replace(said, other))
