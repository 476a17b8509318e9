"""A real browser, for every test that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dcaf.testing import serving
from tests.browser.visitor import Visitor
from tests.conftest import REQUIRED, program


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, started once a file: while it runs, this thread has an event loop that other tests would meet."""
    path = program("chromium")
    if "chromium" not in REQUIRED:
        pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page of a visitor who was nowhere before."""
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def visit(page: Any) -> Iterator[Any]:
    """Opens the page of an application."""
    with ExitStack() as servers:
        yield lambda app: Visitor(page, servers.enter_context(serving(app)) + "/")


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")
