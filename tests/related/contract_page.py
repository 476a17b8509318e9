"""Writes docs/evidence/contracts.md and contracts.json: ``make contracts`` asks dcaf and every related system again.

What a reader gets wrong: the cells of the other systems are measured, and nothing is asserted of them. Those of dcaf are tests.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anyio

from tests.benchmarks.tables import table, words
from tests.related.contracts import CONTRACTS, HELD, NOT_THERE, OF_DCAF, REASONS, list_behaviours, try_out
from tests.related.kept_system import DcafService
from tests.related.two_writers import Written, measure
from tests.service.kept_places import KINDS, SHARED, find_kept_place

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "evidence" / "contracts.md"
MEASURED: Final = PAGE.with_suffix(".json")
END: Final = "<!-- until here -->"
NONE: Final = "-"

NOT_INSTALLABLE: Final = {
    "adk-rust and its Python binding": "is on no index; the binding takes a branch of adk-rust that has changed since",
    "pyai 0.5.0": "is not on PyPI, where another package has the name; openstackai is the same package under a newer name",
    "genai_platform": "is on no index",
}
"""What cannot be asked -> why."""

Measured = Mapping[str, Any]


def describe_dcaf() -> str:
    return DcafService.title.format(version("dcaf"))


def ask_dcaf(folder: Path) -> dict[str, dict[str, str]]:
    """Contract -> behaviour -> what dcaf makes of it, which is the same on every engine."""
    found: list[dict[str, dict[str, str]]] = []
    for kind in KINDS:
        place, cells = find_kept_place(kind, folder), {key: dict[str, str]() for key in CONTRACTS}
        engine = place.open_engine()  # one for all: PostgreSQL has a most of connections
        for key, name in list_behaviours():
            cells[key][name] = anyio.run(partial(try_out, CONTRACTS[key].behaviours[name], DcafService(engine)))
        place.close()
        found.append(cells)
    assert all(cells == found[0] for cells in found), "dcaf does not do the same on every engine"
    return found[0]


def write_dcaf(folder: Path) -> dict[str, list[int]]:
    """What becomes of the turns of two processes, on every engine that two of them reach."""
    found = {}
    for kind in SHARED:
        for name, setting in (("DcafService", ""), ("DcafMerging", ', `on_busy="merge"`')):
            place = find_kept_place(kind, folder)
            found[f"{describe_dcaf()} on {kind}{setting}"] = list(measure(name, f"{place.kind} {place.where} {place.prefix}"))
    return found


def ask_installed(python: str) -> dict[str, Any]:
    """What the interpreter of the other environment says of the systems that are installed there."""
    command = [python, "-W", "ignore", "-m", "tests.related.installed_cells"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def gather(python: str) -> dict[str, Any]:
    """Everything that the page is made of."""
    others = ask_installed(python)
    with tempfile.TemporaryDirectory() as folder:
        cells = {describe_dcaf(): ask_dcaf(Path(folder)), **others["cells"]}
        writers = {**write_dcaf(Path(folder)), **others["writers"]}
    return {"python": platform.python_version(), "cells": cells, "writers": writers}


def count_held(measured: Measured) -> str:
    """How many behaviours of each contract each system holds."""
    rows = [[system, *(_count(list(cells[key].values())) for key in CONTRACTS)] for system, cells in measured["cells"].items()]
    rows += [[system, *(["not installable"] * len(CONTRACTS))] for system in NOT_INSTALLABLE]
    return table(["", *(contract.title for contract in CONTRACTS.values())], rows)


def list_cells(measured: Measured, key: str) -> str:
    """What each system makes of each behaviour of a contract."""
    rows = [
        [name.replace("_", " "), *(_shorten(cells[key][name]) for cells in measured["cells"].values())]
        for name in CONTRACTS[key].behaviours
    ]
    return words([f"**{CONTRACTS[key].title}**", *measured["cells"]], rows)


def list_reasons() -> str:
    """What dcaf does otherwise, and why."""
    lines = [f"- **{name.replace('_', ' ')}**: {REASONS[key, name]}" for key, name in OF_DCAF]
    return "\n".join(lines)


def list_missing() -> str:
    return "\n".join(f"- {system} {reason}." for system, reason in NOT_INSTALLABLE.items())


def list_writers(measured: Measured) -> str:
    """What became of the turns of two processes."""
    head = ["", "acknowledged", "refused", "failed", "updates lost", "questions without their answer"]
    return table(head, [[system, *map(str, Written(*figures))] for system, figures in measured["writers"].items()])


def render(measured: Measured) -> dict[str, str]:
    """Name of a part of the page -> what is written there."""
    parts = {"counts": count_held(measured), "missing": list_missing()}
    parts |= {key: list_cells(measured, key) for key in CONTRACTS}
    return parts | {"reasons": list_reasons(), "writers": list_writers(measured)}


def in_page(text: str, measured: Measured) -> str:
    """The page with its parts as they were measured."""
    for name, part in render(measured).items():
        before, begin, rest = text.partition(f"<!-- {name}: written by make contracts -->")
        _, end, after = rest.partition(END)
        assert end, f"the page has no place for the {name}"
        text = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    return text


def _count(cells: list[str]) -> str:
    without = cells.count(NOT_THERE)
    return f"{cells.count(HELD)} of {len(cells)}" + (f", {without} without a call" if without else "")


def _shorten(cell: str) -> str:
    return NONE if cell == NOT_THERE else cell.replace("|", "\\|")


if __name__ == "__main__":
    found = gather(sys.argv[1])
    MEASURED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(in_page(PAGE.read_text(), found))
    sys.stdout.write(f"wrote {MEASURED.name} and {PAGE.name}\n")
