"""The JavaScript client in a Node.js process, and variants of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcaf.demo import create_demo
from dcaf.testing import serving
from tests.clients.driven import CLIENT, Node, driven
from tests.clients.servers import KEYS


@pytest.fixture(scope="module")
def browser(node: str) -> Iterator[Node]:
    """Where the client runs."""
    with driven(node) as process:
        yield process


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo's service."""
    with serving(create_demo(KEYS)) as found:
        yield found


@pytest.fixture
def variant(tmp_path: Path) -> Callable[[str, str], Path]:
    """The client with one place of it changed."""

    def changed(line: str, by: str) -> Path:
        text = CLIENT.read_text()
        assert text.count(line) == 1, "the place is not there any more"
        (tmp_path / "variant.mjs").write_text(text.replace(line, by))
        return tmp_path / "variant.mjs"

    return changed
