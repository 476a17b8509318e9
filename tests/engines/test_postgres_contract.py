"""The PostgreSQL engine keeps the contract: on each server of this machine, and behind PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from dcaf.engines import Engine
from dcaf.engines.postgres import PostgresEngine
from dcaf.testing import EngineContract
from tests.engines.postgres_servers import Server, bouncing, find_programs, name_schema

PATIENCE: Final = timedelta(seconds=10)
"""What the contract says of time is no matter of a machine that does other things, too."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server(find_programs()[0])
    yield found
    found.stop()


@pytest.fixture(scope="module")
def oldest() -> Iterator[Server]:
    found = Server(find_programs()[-1])
    yield found
    found.stop()


@pytest.fixture(scope="module")
def route(server: Server) -> Iterator[Callable[[str], str]]:
    with bouncing(server) as found:
        yield found


class TestPostgres(EngineContract):
    @pytest.fixture(autouse=True)
    def on(self, server: Server) -> None:
        self.server = server

    def make_engine(self, folder: Path) -> Engine:
        return PostgresEngine(self.server.url(), schema=name_schema(), timeout=PATIENCE)


class TestOldestPostgres(EngineContract):
    @pytest.fixture(autouse=True)
    def on(self, oldest: Server) -> None:
        self.server = oldest

    def make_engine(self, folder: Path) -> Engine:
        return PostgresEngine(self.server.url(), schema=name_schema(), timeout=PATIENCE, durability="relaxed")


class TestBehindPgBouncer(EngineContract):
    @pytest.fixture(autouse=True)
    def on(self, server: Server, route: Callable[[str], str]) -> None:
        self.server, self.route = server, route

    def make_engine(self, folder: Path) -> Engine:
        return PostgresEngine(self.route(self.server.url()), schema=name_schema(), timeout=PATIENCE, prepared=False)
