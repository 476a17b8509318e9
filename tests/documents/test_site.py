"""The site is built of the documents as they are, and a link that leads nowhere stops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.website import build_site, copy_pages, write_navigation


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    copy_pages(tmp_path / "pages")
    done = build_site(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "pages").with_suffix("") for path in (tmp_path / "pages").rglob("*.md")}
    folders = {page.parent if page.name == "README" else page for page in pages if page.name != "SUMMARY"}
    assert [folder for folder in folders if not (tmp_path / "site" / folder / "index.html").exists()] == []


@pytest.mark.parametrize("link", ["[gone](docs/gone.md)", "[gone](docs/here.md#gone)"])
def test_control_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path, link: str) -> None:
    (tmp_path / "pages" / "docs").mkdir(parents=True)
    (tmp_path / "pages" / "docs" / "here.md").write_text("# Here\n")
    (tmp_path / "pages" / "README.md").write_text(f"# Start\n\n{link}\n")
    assert build_site(tmp_path).returncode != 0


def test_the_navigation_is_what_the_index_of_the_documents_lists(tmp_path: Path) -> None:
    (tmp_path / "docs" / "guides").mkdir(parents=True)
    index = "# Documents\n\n## How-to\n\nServe them:\n\n| page | what |\n|---|---|\n| [Stores](guides/stores.md) | words |\n"
    (tmp_path / "docs" / "README.md").write_text(f"{index}\n## Project\n\n- [Security](../SECURITY.md)\n")
    for page in ("README.md", "CHANGES.md", "SECURITY.md", "docs/guides/stores.md"):
        (tmp_path / page).write_text(f"# Title of {page}\n")
    assert list(write_navigation(tmp_path)) == [
        "- [Overview](README.md)",
        "- How-to",
        "    - Serve them",
        "        - [Stores](docs/guides/stores.md)",
        "- Project",
        "    - [Security](SECURITY.md)",
        "- Project",
        "    - [Title of CHANGES.md](CHANGES.md)",
    ]
