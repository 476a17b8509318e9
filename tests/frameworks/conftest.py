"""The versions that the matrix ran with: printed at the end."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.frameworks.programs import FRAMEWORKS, SERVERS

CLIENTS = ("httpx2", "websockets")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print them, where a cell of the matrix was run."""
    cells = [report for report in terminalreporter.getreports("passed") if "test_framework_matrix" in report.nodeid]
    if cells:
        named = [f"{name} {version(name)}" for name in (*FRAMEWORKS, *SERVERS, *CLIENTS)]
        terminalreporter.write_line(f"frameworks: {len(cells)} tests with {', '.join(named)}")
