"""Builds the site of the documents, and fails where a link leads nowhere.

    python -m tests.documents.website

The pages are copied first: the root also holds the virtual environment, which the generator would walk through. The navigation is
what docs/README.md lists, so a page that moves changes its link there and nothing else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
KIND: Final = re.compile(r"## (.+)")
GROUP: Final = re.compile(r"(\w[^|]*):")
LINKED: Final = re.compile(r"(?:[|*-] *)+\[([^\]]+)\]\(([^)#]+\.md)\)")


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the navigation.

    Attributes:
        depth: How far inside the others it is.
        title: What the reader sees.
        page: Where it leads; None of a heading.
    """

    depth: int
    title: str
    page: Path | None


def build_site(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build it in a folder: from the folder's ``pages`` to its ``site``. A warning is an error."""
    shutil.copy(ROOT / "zensical.toml", folder)
    (folder / "pages" / "SUMMARY.md").write_text("\n".join(write_navigation(folder / "pages")))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def copy_pages(folder: Path) -> None:
    """Copy the root's pages and docs/, in the folders that they have."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)


def write_navigation(pages: Path) -> Iterator[str]:
    """Nested lists: the overview, what docs/README.md lists, and the other pages."""
    index = Path("docs", "README.md")
    listed = [Item(0, "Overview", Path("README.md"))]
    listed += _read_index(pages, index, 0) if (pages / index).exists() else []
    named = {index, *(item.page for item in listed)}
    others = [page for page in (path.relative_to(pages) for path in sorted(pages.rglob("*.md"))) if page not in named]
    listed += [Item(0, "Project", None), *(Item(1, _read_title(pages / page), page) for page in others)] if others else []
    yield from (f"{'    ' * item.depth}- {f'[{item.title}]({item.page})' if item.page else item.title}" for item in listed)


def _read_index(pages: Path, index: Path, depth: int) -> list[Item]:
    """Each heading and group of an index that links to pages, and the pages; another index has its own below it."""
    found: list[Item] = []
    heads: list[Item] = []
    for line in (pages / index).read_text().splitlines():
        if kind := KIND.fullmatch(line):
            heads = [Item(depth, kind[1], None)]
        elif group := GROUP.fullmatch(line):
            heads = [*heads[:1], Item(depth + 1, group[1], None)]
        elif link := LINKED.match(line):
            page = (pages / index.parent / link[2]).resolve().relative_to(pages.resolve())
            found += [*(head for head in heads if head not in found), Item(depth + len(heads), link[1], page)]
            found += _read_index(pages, page, depth + len(heads) + 1) if page.name == "README.md" else []
    return found


def _read_title(page: Path) -> str:
    return page.read_text().partition("\n")[0].removeprefix("# ")


if __name__ == "__main__":
    copy_pages(ROOT / "build" / "pages")
    done = build_site(ROOT / "build")
    sys.stdout.write(done.stdout + done.stderr)
    sys.exit(done.returncode)
