"""What the promises measured: printed at the end, and, at full numbers, kept for the documents."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.promises.places import file, pgbouncer, place, postgres_server, redis_cluster, redis_server, served
from tests.promises.table import MEASURED, describe, list_missing

__all__ = ["file", "pgbouncer", "place", "postgres_server", "redis_cluster", "redis_server", "served"]  # fixtures

RESULTS: dict[int, list[str]] = {}


@pytest.fixture
def measured() -> Callable[[int, str], None]:
    """Say what a promise measured, in one sentence."""

    def say(number: int, sentence: str) -> None:
        RESULTS.setdefault(number, []).append(sentence)

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, and, at full numbers, what was not."""
    for number in sorted(RESULTS):
        for sentence in RESULTS[number]:
            terminalreporter.write_line(f"P{number}: {sentence}")
    if os.environ.get("DCAF_SCALE") == "1" and (missing := list_missing(RESULTS)):
        terminalreporter.write_line(f"not kept, since this was not measured: {', '.join(missing)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the figures of a full run of every promise that passed."""
    is_full = os.environ.get("DCAF_SCALE") == "1" and not list_missing(RESULTS)
    if is_full and session.testsfailed == 0:
        kept = {"run": describe(), "measured": {str(number): RESULTS[number] for number in sorted(RESULTS)}}
        MEASURED.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
