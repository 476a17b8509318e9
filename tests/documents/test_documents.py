"""The documents: every block is run by a test, every link leads somewhere, and they speak of the project alone."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RUN = {"python", "sh", "json", "toml", "js", "ts"}
PICTURES = {"text", "http"}
OF_DOCSTRINGS = {"py", "pycon"}  # signatures, and examples that the tests of the modules run
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("name", NAMES)
def test_every_code_block_is_in_a_language_that_the_tests_run(name: str) -> None:
    text = (ROOT / name).read_text()
    opened = re.findall(r"^\s*```(.*)$", text, re.MULTILINE)[::2]
    assert set(opened) <= RUN | PICTURES | (OF_DOCSTRINGS if name.startswith("docs/reference/") else set())


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    missing = [link for link in links if not ((ROOT / name).parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_short_enough_to_read(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert [line for line in lines if len(line) > 140 and not line.startswith("|")] == []


def test_nothing_names_a_machine_s_own_paths_or_a_registry() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    words = [
        word.encode() for word in ("/" + "work/", "/" + "root/", "pypi." + "org", "files.python" + "hosted", "registry.npm" + "js")
    ]
    found = [(name, word) for name in files for word in words if word in (ROOT / name).read_bytes()]
    assert found == []


def test_the_page_of_promises_is_what_the_last_full_run_measured() -> None:
    spec = importlib.util.spec_from_file_location("promises_table", ROOT / "tests" / "promises" / "table.py")
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    last = json.loads(table.MEASURED.read_text())
    assert table.PAGE.read_text() == table.rendered(last)
    assert table.README.read_text() == table.in_readme(table.README.read_text(), last)
