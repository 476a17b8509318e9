"""The PostgreSQL engine keeps the contract: on each server of this machine, and behind PgBouncer in transaction mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf.engines import Engine
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.testing import SearchEngineContract
from dcaf.testing.engine_machine import FIRST, SECOND, run_machine
from tests.engines.postgres_servers import Server, bouncing, execute, get_server, name_schema

EXAMPLES: Final = max(10, round(500 * float(os.environ.get("DCAF_SCALE", "0.02"))))
"""How often the machine begins anew."""

PATIENCE: Final = timedelta(seconds=10)
"""What the contract says of time is no matter of a machine that does other things, too."""


@pytest.fixture
def server() -> Server:
    return get_server()


@pytest.fixture(scope="module")
def route() -> Iterator[Callable[[str], str]]:
    with bouncing(get_server()) as found:
        yield found


def make_empty(url: str, **settings: Any) -> Callable[[Path], Engine]:
    """What makes an engine of one schema again and again: only its functions stay."""
    schema = name_schema()

    def make(_: Path) -> Engine:
        engine = PostgresEngine(url, schema=schema, timeout=PATIENCE, **settings)
        engine.declare([FIRST, SECOND])
        engine.sync.check()
        for table in (FIRST, SECOND):
            execute(url, f"DELETE FROM {schema}.{table.name}")
        return engine

    return make


class TestPostgres(SearchEngineContract):
    @pytest.fixture(autouse=True)
    def on(self, server: Server) -> None:
        self.server = server

    def make_engine(self, folder: Path) -> PostgresEngine:
        return PostgresEngine(self.server.url(), schema=name_schema(), timeout=PATIENCE)

    def test_it_does_what_a_dict_does(self, tmp_path: Path) -> None:
        run_machine(make_empty(self.server.url()), tmp_path, examples=EXAMPLES)


class TestOldestPostgres(SearchEngineContract):
    @pytest.fixture(autouse=True)
    def on(self) -> None:
        self.server = get_server(-1)

    def make_engine(self, folder: Path) -> PostgresEngine:
        return PostgresEngine(self.server.url(), schema=name_schema(), timeout=PATIENCE, durability="relaxed")

    def test_it_does_what_a_dict_does(self, tmp_path: Path) -> None:
        run_machine(make_empty(self.server.url(), durability="relaxed"), tmp_path, examples=EXAMPLES // 2)


class TestBehindPgBouncer(SearchEngineContract):
    @pytest.fixture(autouse=True)
    def on(self, server: Server, route: Callable[[str], str]) -> None:
        self.server, self.route = server, route

    def make_engine(self, folder: Path) -> PostgresEngine:
        return PostgresEngine(self.route(self.server.url()), schema=name_schema(), timeout=PATIENCE, prepared=False)

    def test_it_does_what_a_dict_does(self, tmp_path: Path) -> None:
        run_machine(make_empty(self.route(self.server.url()), prepared=False), tmp_path, examples=EXAMPLES // 2)
