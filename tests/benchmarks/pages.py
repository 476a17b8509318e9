"""Writes what a run measured: docs/evidence/performance.md, its plots, the line of the README, a table in docs/guides/levels.md.

    python -m tests.benchmarks.pages

It measures nothing: docs/evidence/performance.json has the last run. What a person wrote stands in page.template.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from string import Template
from typing import Final

from tests.benchmarks import ledger_parts, plots, service_parts
from tests.benchmarks.parts import PARTS, short
from tests.benchmarks.sealing import DCAF as SUITES
from tests.benchmarks.states import SIZES
from tests.benchmarks.tables import over, ratio
from tests.benchmarks.targets import Run
from tests.benchmarks.turns import BARE

ROOT: Final = Path(__file__).parents[2]
EVIDENCE: Final = ROOT / "docs" / "evidence"
MEASURED: Final = EVIDENCE / "performance.json"
PAGE: Final = EVIDENCE / "performance.md"
README: Final = ROOT / "README.md"
LEVELS: Final = ROOT / "docs" / "guides" / "levels.md"
TEMPLATE: Final = Path(__file__).with_name("page.template")
BEGIN: Final = "<!-- performance: begin -->"
END: Final = "<!-- performance: end -->"
LEVELS_BEGIN: Final = "<!-- figures of the ledger, from docs/evidence/performance.md: begin -->"
LEVELS_END: Final = "<!-- figures of the ledger: end -->"
PLOTTED: Final = "16 KB"


def rendered(run: Run) -> str:
    """The page, for one run."""
    return Template(TEMPLATE.read_text()).substitute({name: part(run) for name, part in PARTS.items()})


def in_readme(text: str, run: Run) -> str:
    """The README with its line about what a turn costs, for one run."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{short(run)}\n{END}{rest.partition(END)[2]}"


def in_levels(text: str, run: Run) -> str:
    """The guide to levels with its table of figures, for one run."""
    before, _, rest = text.partition(LEVELS_BEGIN)
    return f"{before}{LEVELS_BEGIN}\n\n{ledger_parts.short(run)}\n\n{LEVELS_END}{rest.partition(LEVELS_END)[2]}"


def pictures(run: Run) -> dict[Path, str]:
    """The plots, for one run."""
    added, core = over(run["turns"]["write"], BARE), run["sealing"]["one"]
    others = [name for name in core[PLOTTED] if not name.startswith(("dcaf", "floor"))]
    peers = {other: {suite: ratio(core, other, suite)[PLOTTED] for suite in SUITES} for other in others}
    known = {other: {suite: value for suite, value in found.items() if value is not None} for other, found in peers.items()}
    return {
        EVIDENCE / "performance-overhead.svg": plots.lines(
            "What a session adds to a turn that writes one small key", "microseconds, over the size of the state", added, SIZES
        ),
        EVIDENCE / "performance-ratio.svg": plots.bars(
            f"dcaf's core beside others: open a {PLOTTED} state, write one small key, seal",
            "how many times faster dcaf is, on a logarithmic scale",
            known,
        ),
        **{EVIDENCE / name: picture for name, picture in service_parts.pictures(run).items()},
    }


def write_documents(run: Run) -> None:
    """Write all of them."""
    PAGE.write_text(rendered(run))
    README.write_text(in_readme(README.read_text(), run))
    LEVELS.write_text(in_levels(LEVELS.read_text(), run))
    for path, picture in pictures(run).items():
        path.write_text(picture)


if __name__ == "__main__":
    write_documents(json.loads(MEASURED.read_text()))
    sys.stdout.write(f"wrote {PAGE.name}, its plots, the line of {README.name}, and the table of {LEVELS.name}\n")
