"""Writes docs/promises.md from what a full run measured: `make promises` ends with it."""

from __future__ import annotations

import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[2] / "docs"
MEASURED: Final = DOCS / "measured.json"
PAGE: Final = DOCS / "promises.md"

PROMISES: Final = {
    12: (
        "what a session accepts it can seal, and a JavaScript client that echoes it changes nothing",
        "signing the readable object",
    ),
    34: (
        "no unverified state reaches the application, whatever parser it uses",
        "passing on what cannot be parsed; rewriting application/json alone",
    ),
    35: ("no signing oracle: nothing of the user's is sealed outside named routes", "adoption on every route"),
}
"""Number -> (promise, control: the broken variant that the same test catches). Numbers are stable; others come later."""


def rendered(run: dict[str, Any]) -> str:
    """The page, for one run."""
    rows = [f"| P{number} | {promise} | {control} | {_figure(run, number)} |" for number, (promise, control) in PROMISES.items()]
    return "\n".join([HEAD.format(**run["run"]), *rows, ""])


def _figure(run: dict[str, Any], number: int) -> str:
    return "; ".join(run["measured"].get(str(number), ["not measured"]))


def describe() -> dict[str, str]:
    """Which run this is."""
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "python": platform.python_version(), "system": platform.system()}


HEAD: Final = """\
# What dcaf promises, as tests

Each promise is a test with a number, and a control: a broken variant that the same test must catch. `make promises` runs
them at full numbers and writes this page; `make test` runs the same code and the same controls at a fiftieth.

Last full run: {date}, Python {python}, {system}.

| promise | what holds | control | measured |
|---|---|---|---|"""


if __name__ == "__main__":
    PAGE.write_text(rendered(json.loads(MEASURED.read_text())))
    sys.stdout.write(f"wrote {PAGE.name}\n")
