from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dcaf.engines import MemoryEngine, SqliteEngine
from dcaf.testing import FrozenClock
from tests.ledger.ledger_world import KeptWorld, World

PARTITIONS = 64
"""Of the engine in memory, as if it were several servers. SQLite has one."""


ONLY_TOKENS = {
    "test_a_token_that_an_older_worker_moved_on_is_adopted_while_the_roll_out_goes_on": "an older worker has no state",
    "test_control_without_the_comparison_two_states_have_one_number": "the revision of the kept session is compared as well",
    "test_the_session_of_a_process_that_died_is_free_after_the_lease": "needs a file",
    "test_the_file_has_neither_token_nor_state_nor_subject": "the state is in the file",
    "test_nothing_is_used_in_a_session_that_has_ended": "asks the ledger itself",
    "test_nothing_is_used_by_a_turn_whose_session_another_one_took": "asks the ledger itself",
}
"""Tests of states that are in their tokens, and why."""


@pytest.fixture(params=["memory", "sqlite", "kept"])
def kind(request: pytest.FixtureRequest) -> Any:
    """The engine; ``kept`` is one in memory with a session service over the ledger."""
    return request.param


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about tokens alone where a session service keeps the states."""
    left = [item for item in items if _is_of_tokens(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def _is_of_tokens(item: Any) -> bool:
    found = getattr(item, "callspec", None)
    return found is not None and found.params.get("kind") == "kept" and item.originalname in ONLY_TOKENS


@pytest.fixture
def build(kind: str, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world on one of the engines; its arguments are those of ``World``, and ``engine_clock=``."""
    engines: list[Any] = []

    def make(*, engine: Any = None, engine_clock: Any = None, **settings: Any) -> World:
        clock = settings.setdefault("clock", FrozenClock())
        if engine is None:
            at = engine_clock or clock
            engine = SqliteEngine(tmp_path / "dcaf.db", clock=at) if kind == "sqlite" else make_memory(kind, at)
            engines.append(engine)
        return (KeptWorld if kind == "kept" else World)(engine, **settings)

    yield make
    for engine in engines:
        engine.sync.close()


def make_memory(kind: str, clock: Any) -> MemoryEngine:
    """An engine in memory. Behind a service it has one partition, so that all that a turn needs lies together."""
    return MemoryEngine(clock=clock, partitions=1 if kind == "kept" else PARTITIONS)
