"""``python -m tests.package.architecture`` writes the tables of ARCHITECTURE.md: each module with its own first line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "ARCHITECTURE.md"
TABLE: Final = re.compile(r"(<!-- modules of ([a-z]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ROW: Final = re.compile(r"^\| `([a-z_0-9/]+\.py)` \| (.+) \|$", re.MULTILINE)
HEAD: Final = "| module | what it is for |\n|---|---|\n"


def modules(package: str = "") -> list[str]:
    """Every module but those that only name what a package exports, by name; of one package, or of all."""
    found = sorted(path.relative_to(ROOT / "dcaf") for path in (ROOT / "dcaf" / package).rglob("*.py"))
    return [str(path) for path in found if path.name != "__init__.py" or path.parent.name == "page"]


def first_line(module: str) -> str:
    """What a module says that it is for, as a cell of a table."""
    first = (ROOT / "dcaf" / module).read_text().split("\n", 1)[0]
    return first.lstrip("r").strip('"').replace("|", r"\|")


def read_rows(text: str) -> list[tuple[str, str]]:
    """The modules in the tables of a page, and what it says of each."""
    return ROW.findall(text)


def write_tables(text: str) -> str:
    """The page with its tables made anew."""

    def table(found: re.Match[str]) -> str:
        rows = [f"| `{module}` | {first_line(module)} |\n" for module in modules(found[2])]
        return f"{found[1]}{HEAD}{''.join(rows)}{found[4]}"

    return TABLE.sub(table, text)


if __name__ == "__main__":
    PAGE.write_text(write_tables(PAGE.read_text()))
