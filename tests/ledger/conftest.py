from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dcaf.engines import MemoryEngine, SqliteEngine
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import World

PARTITIONS = 64
"""Of the engine in memory, as if it were several servers. SQLite has one."""


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def build(kind: str, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world on one of the engines; its arguments are those of ``World``, and ``engine_clock=``."""
    engines: list[Any] = []

    def make(*, engine: Any = None, engine_clock: Any = None, **settings: Any) -> World:
        clock = settings.setdefault("clock", FrozenClock())
        if engine is None:
            at = engine_clock or clock
            engine = (
                MemoryEngine(clock=at, partitions=PARTITIONS) if kind == "memory" else SqliteEngine(tmp_path / "dcaf.db", clock=at)
            )
            engines.append(engine)
        return World(engine, **settings)

    yield make
    for engine in engines:
        engine.sync.close()
