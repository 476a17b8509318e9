"""Says which mutants the tests did not kill, and writes docs/evidence/mutants.md: `make mutants` ends with it.

A mutant is the code with one small change. The tests must fail for each; one that they cannot tell from the code is listed in
explained.toml with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parents[1] / "docs" / "evidence" / "mutants.md"
KILLED: Final = frozenset({"killed", "timeout"})
MUTMUT: Final = str(Path(sys.executable).with_name("mutmut"))


class Mutant(NamedTuple):
    """One change, by the function it is in, as Python names it, and the line that it makes."""

    function: str
    line: str


def results() -> list[tuple[str, str]]:
    """Every mutant of the last run: its name and what became of it."""
    lines = _mutmut("results", "--all", "true").splitlines()
    pairs = (line.strip().rpartition(": ") for line in lines if "__mutmut_" in line)
    return [(name, status) for name, _, status in pairs]


def survivors(found: list[tuple[str, str]]) -> set[Mutant]:
    """The mutants that were not killed."""
    return {Mutant(_function(name), _changed(_mutmut("show", name))) for name, status in found if status not in KILLED}


def explained() -> dict[Mutant, str]:
    """The mutants that cannot be killed, with the reason."""
    listed = tomllib.loads((HERE / "explained.toml").read_text())["mutant"]
    return {Mutant(one["function"], one["line"]): one["reason"] for one in listed}


def complaints(survived: set[Mutant], reasons: dict[Mutant, str]) -> list[str]:
    """What is wrong: a survivor without a reason, a reason without a survivor. Empty when all is well."""
    without = [f"not killed: {one.function}: {one.line}" for one in sorted(survived - reasons.keys())]
    stale = [f"listed, and killed or gone: {one.function}: {one.line}" for one in sorted(reasons.keys() - survived)]
    return without + stale


def rendered(found: list[tuple[str, str]], reasons: dict[Mutant, str]) -> str:
    """The page, for a run of which nothing is to be complained."""
    made = Counter(_module(name) for name, _ in found)
    killed = Counter(_module(name) for name, status in found if status in KILLED)
    rows = [f"| `{module}` | {made[module]:,} | {killed[module]:,} | {made[module] - killed[module]} |" for module in sorted(made)]
    total = f"| together | {made.total():,} | {killed.total():,} | {made.total() - killed.total()} |"
    why = [f"| `{one.function}` | `{one.line}` | {reason} |" for one, reason in reasons.items()]
    return "\n".join([HEAD.format(version=version("mutmut")), *rows, total, MIDDLE, *why, ""])


def _mutmut(*arguments: str) -> str:
    return subprocess.run([MUTMUT, *arguments], check=True, capture_output=True, text=True).stdout


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _function(name: str) -> str:
    """``dcaf.core.keys.xǁKeyǁparse__mutmut_3`` is in ``dcaf.core.keys.Key.parse``."""
    module, _, mangled = name.partition("__mutmut_")[0].rpartition(".")
    return f"{module}.{mangled.removeprefix('x').removeprefix('_').strip('ǁ').replace('ǁ', '.')}"


def _changed(diff: str) -> str:
    added = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    return " ".join(added)


HEAD: Final = """\
# Mutants

A mutant is the code with one small change: another operator, another constant, an argument that is left out. The tests must
notice each. `make mutants` makes them with mutmut {version} for the modules that decide who is trusted, runs the tests of the
core and the vectors against each, and writes this page. It fails where a mutant lives that is not listed below.

| module | mutants | killed | explained |
|---|---|---|---|"""
MIDDLE: Final = """
mutmut changes what stands in functions. Constants of a module are not changed by it: the frozen vectors, and tests at the edges,
fix them. Neither are properties, which here give back one attribute.

The explained ones change nothing that a test could see:

| function | the changed line | why it is the same |
|---|---|---|"""


if __name__ == "__main__":
    run = results()
    wrong = complaints(survivors(run), explained())
    if wrong or not run:
        sys.exit("\n".join(wrong) or "no mutant was made")
    PAGE.write_text(rendered(run, explained()))
    sys.stdout.write(f"{len(run):,} mutants, {len(explained())} of them explained, the others killed; wrote {PAGE.name}\n")
