"""The documents: every block is run by a test, every link leads somewhere, and they speak of the project alone."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from dcaf.client import ApprovalUnknown, ClientError, ServiceError
from dcaf.core import AgentError, DcafError, SessionInvalid

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
def test_every_link_to_a_heading_finds_it(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", (ROOT / name).read_text())
    pages = [((ROOT / name).parent / link if link else ROOT / name, heading) for link, heading in links]
    assert [(page.name, heading) for page, heading in pages if heading not in headings_of(page)] == []


def test_every_page_is_in_the_index_once() -> None:
    index = ROOT / "docs" / "README.md"
    rows = re.findall(r"^\| \[[^]]+\]\(([^)#]+)\)", index.read_text(), re.MULTILINE)
    listed = [(index.parent / row).resolve() for row in rows]
    generated = index.parent / "reference"  # lists its pages itself
    pages = {path.resolve() for path in DOCUMENTS if path.is_relative_to(index.parent) and not path.is_relative_to(generated)}
    assert len(listed) == len(set(listed))
    assert pages - {index.resolve()} <= set(listed)


def test_every_code_is_on_the_page_of_failures() -> None:
    assert {SessionInvalid, ApprovalUnknown} <= leaves(DcafError)
    page = (ROOT / "docs" / "guides" / "failures.md").read_text()
    missing = [error.__name__ for error in leaves(DcafError) if f"`{error.__name__}`" not in page]
    assert missing == []
    assert [error.code for error in leaves(DcafError) if error.code != ClientError.code and f"`{error.code}`" not in page] == []


def test_control_a_heading_and_a_code_that_no_page_has_are_caught() -> None:
    found = headings_of(ROOT / "docs" / "guides" / "failures.md")
    assert "in-clientmjs" in found
    assert {"in-client.mjs", "in-the-kitchen", "begin-a-new-session"} & found == set()
    assert ServiceError in leaves(DcafError)
    assert ClientError not in leaves(DcafError)


def headings_of(page: Path) -> set[str]:
    """The headings of a page, spelled as links to them are."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leaves(error: type[DcafError]) -> set[type[DcafError]]:
    """The exceptions of dcaf that are raised: those without a subclass, and the two that have both."""
    own = {each for each in error.__subclasses__() if each.__module__.startswith("dcaf.")}
    below = {leaf for each in own for leaf in leaves(each)}
    return below | ({error} if not own or error in (AgentError, ServiceError) else set())


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
