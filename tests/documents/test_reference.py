"""The reference is what the docstrings say, and nothing public is on no page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from griffe import Parser, visit

from dcaf import SessionMiddleware
from dcaf.agent import Agent, RunConfig, create_app, serve
from dcaf.asgi import CookieCarrier, HeaderCarrier, Import
from dcaf.client import AsyncClient, Client
from dcaf.integrations.starlette import SessionMiddleware as DropIn
from dcaf.tools import Tool
from tests.documents import reference
from tests.documents.objects import list_arguments, list_unknown

ROOT = Path(__file__).parents[2]
PAGES = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if path.name not in ("decisions.md", "CHANGELOG.md")]
WORDS = frozenset(re.findall(r"\w+", "\n".join(path.read_text() for path in PAGES)))
TEXTS = {path.name: path.read_text() for path in reference.FOLDER.iterdir()}
TAKE_SETTINGS: list[Callable[..., Any]] = [
    SessionMiddleware,
    DropIn,
    CookieCarrier,
    HeaderCarrier,
    Import,
    Agent,
    RunConfig,
    Tool,
    Client,
    AsyncClient,
    create_app,
    serve,
]
IMPORTED = re.compile(r"^\s*(?:from (dcaf[\w.]*) import|import (dcaf[\w.]*))", re.MULTILINE)


def test_the_pages_are_what_the_docstrings_say() -> None:
    assert reference.render_pages() == TEXTS, "run: python -m tests.documents.reference"


def test_nothing_public_is_without_a_description() -> None:
    assert reference.list_undescribed() == []


def test_every_public_name_has_an_entry_of_its_own() -> None:
    headings = {
        page: [reference.get_anchor(line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)] for page, text in TEXTS.items()
    }
    links = [public.link.partition("#") for public in reference.list_entries().values()]
    assert [(page, anchor) for page, _, anchor in links if headings[page].count(anchor) != 1] == []


@pytest.mark.parametrize("path", reference.SETTINGS)
def test_every_setting_has_a_row_with_its_description(path: str) -> None:
    package, _, name = path.rpartition(".")
    public = next(public for public in reference.list_public()[package] if public.name == name)
    text = TEXTS[public.link.partition("#")[0]].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `\**(\w+)` \| .+ \| .* \| (.*) \|$", text, re.MULTILINE))
    settings = inspect.signature(getattr(import_module(package), name)).parameters
    assert [setting for setting in settings if not rows.get(setting)] == []


def test_every_package_that_gives_names_is_on_the_page() -> None:
    packages = {path.parent for path in (ROOT / "dcaf").rglob("__init__.py") if "__all__" in path.read_text()}
    named = {".".join(path.relative_to(ROOT).parts) for path in packages}
    assert named <= set(reference.PACKAGES)


@pytest.mark.parametrize("package", list(reference.PACKAGES))
def test_every_public_name_is_on_a_page(package: str) -> None:
    assert [name for name in reference.names_of(import_module(package)) if name not in WORDS] == []


@pytest.mark.parametrize("taker", TAKE_SETTINGS)
def test_every_setting_is_on_a_page(taker: Callable[..., Any]) -> None:
    assert [name for name in inspect.signature(taker).parameters if name not in WORDS] == []


def test_what_the_documents_and_the_examples_import_is_public() -> None:
    files = [*PAGES, *ROOT.glob("examples/*.py")]
    imported = {(path.name, one or two) for path in files for one, two in IMPORTED.findall(path.read_text())}
    public = {*reference.PACKAGES, "dcaf.integrations"}
    assert {(name, module) for name, module in imported if module not in public} == set()


def test_control_a_name_that_no_page_has_is_caught() -> None:
    assert "SessionMiddleware" in WORDS
    assert "SessionMiddlewares" not in WORDS


def test_control_an_argument_without_a_description_is_caught() -> None:
    code = 'def send(text, *, to):\n    """Send.\n\n    Args:\n        text: Words.\n        form: Gone.\n    """'
    function = visit(
        "post", filepath=Path("post.py"), code=code, docstring_parser=Parser.google, docstring_options=reference.QUIET
    )["send"]
    assert [row.name for row in list_arguments(function) if not row.description] == ["to"]
    assert list_unknown(function) == ["form"]
