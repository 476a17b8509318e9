"""Where the rows of a promise are: in a SQLite file, or on a server. Any process opens an engine of its own there.

>>> Place("memory", "memory://").open_engine().url
'memory://'
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import pytest

from dcaf.engines import Engine, open_engine

SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class Place:
    """Where rows are, in a form that goes to another process.

    Attributes:
        name: What a reader calls it.
        url: As ``open_engine`` takes it.
        part: Which part of a promise's full numbers ``make promises`` runs here. ``make soak`` runs all of them.
    """

    name: str
    url: str
    part: float = 1.0

    def open_engine(self, timeout: timedelta = SECOND) -> Engine:
        """An engine, for this process."""
        return open_engine(self.url, timeout=timeout)


class Server(Protocol):
    """The server of a place, which may be killed while others use it."""

    def kill(self) -> None:
        """Kill all its processes with -9, and wait until they have ended."""

    def start(self) -> None:
        """Start it with the data that it left, and wait until it answers."""

    def pause(self) -> None:
        """Stop all its processes, so that it takes connections and answers nothing."""

    def resume(self) -> None:
        """Have them go on."""


def in_file(path: Path) -> Place:
    """The place of rows in a SQLite file, which need not be there yet."""
    return Place("SQLite", f"sqlite:///{path}")


@pytest.fixture
def file(tmp_path: Path) -> Place:
    """A SQLite file, for controls that break what does not depend on the engine."""
    return in_file(tmp_path / "dcaf.db")


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each kind of place in turn, without rows."""
    return in_file(tmp_path / "dcaf.db")
