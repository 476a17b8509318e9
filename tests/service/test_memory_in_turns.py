"""The memory of the session of a turn is committed with the turn: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from dcaf.core.errors import EngineError, SessionClosedError, StaleSessionError
from dcaf.engines import Delete, Engine, MemoryEngine, Range, RedisEngine, SqliteEngine, Transaction
from dcaf.service import SessionService
from dcaf.service.tables import MEMORY
from tests.engines.redis_servers import share_server


def make_engine(kind: str, folder: Path) -> Engine:
    if kind == "redis":
        return RedisEngine(share_server().socket_url, prefix=f"test-{uuid4().hex[:16]}")
    return SqliteEngine(folder / "dcaf.db") if kind == "sqlite" else MemoryEngine(partitions=8 if kind == "memory-8" else 1)


@pytest.fixture(params=["memory", "memory-8", "sqlite", "redis"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionService]:
    found = SessionService(make_engine(request.param, tmp_path), app="clinic")
    yield found
    found.engine.sync.close()


def test_it_is_written_with_the_turn_and_shared_between_the_sessions_of_the_user(sessions: SessionService) -> None:
    async def main() -> None:
        async with sessions.open(user="p-123") as session:
            session.memory.set("allergies", ["penicillin"], ttl=timedelta(days=90))
            session.memory.here.set("allergies", "asked")
            assert await session.memory.get("allergies", as_type=list[str]) == ["penicillin"]
            assert await sessions.memory(user="p-123").get("allergies") is None
        async with sessions.open(user="p-123") as other:
            assert await other.memory.get("allergies") == ["penicillin"]
            assert await other.memory.here.get("allergies") is None
        async with sessions.open(user="p-123", id=session.id) as again:
            assert await again.memory.here.get("allergies") == "asked"
        async with sessions.open(user="p-124") as third:
            assert await third.memory.all() == []
        assert await sessions.memory(user="p-123").get("allergies", as_type=list[str]) == ["penicillin"]
        await sessions.aclose()

    anyio.run(main)


def test_a_turn_that_fails_remembers_nothing(sessions: SessionService) -> None:
    first = sessions.sync.create(user="p", id="v1")
    assert first.revision == 1
    with pytest.raises(ZeroDivisionError), sessions.sync.open(user="p", id="v1") as session:
        session.memory.set("k", 1)
        raise ZeroDivisionError
    with pytest.raises(StaleSessionError), sessions.sync.open(user="p", id="v1") as session:
        session.memory.set("k", 1)
        session.memory.here.set("k", 1)
        with sessions.sync.open(user="p", id="v1") as other:
            other["step"] = 1
    assert sessions.sync.memory(user="p").get("k") is None
    with sessions.sync.open(user="p", id="v1") as session:
        assert session.memory.sync.here.get("k") is None
    with pytest.raises(SessionClosedError):
        session.memory.set("k", 1)


def test_two_turns_of_one_user_write_and_clear_at_once(sessions: SessionService) -> None:
    sessions.sync.memory(user="p").set("old", 1)
    with sessions.sync.open(user="p") as one:
        one.memory.set("a", 1)
        one.memory.set("old", 2)
        with sessions.sync.open(user="p") as two:
            two.memory.clear()
            two.memory.set("b", 2)
        assert sessions.sync.memory(user="p").get("old") is None
    assert {fact.key: fact.value for fact in sessions.sync.memory(user="p").all()} == {"a": 1, "b": 2, "old": 2}


def test_a_session_under_merge_is_laid_over_and_remembers(sessions: SessionService) -> None:
    merging = SessionService(sessions.engine, app="clinic", on_busy="merge")
    merging.sync.create(user="p", id="v1")
    with merging.sync.open(user="p", id="v1") as session:
        session["a"] = 1
        session.memory.here.set("k", 1)
        with merging.sync.open(user="p", id="v1") as other:
            other["b"] = 2
            other.memory.here.clear()
            other.memory.here.set("n", 2)
    with merging.sync.open(user="p", id="v1") as session:
        assert (session.to_dict(), session.memory.here.sync.get("k")) == ({"a": 1, "b": 2}, 1)
        assert session.memory.here.sync.get("n") == 2


@pytest.mark.parametrize("user", ["p", None])
def test_no_row_is_left_of_a_session_that_was_deleted(sessions: SessionService, user: str | None) -> None:
    sessions.sync.create(user=user, id="v1")
    with sessions.sync.open(user=user, id="v1") as session:
        session.memory.here.set("k", 1)
        if user is None:
            session.memory.set("k", 1)
    sessions.sync.delete(user=user, id="v1")
    assert list_rows(sessions) == []
    sessions.sync.create(user=user, id="v1")
    with sessions.sync.open(user=user, id="v1") as session:
        assert (session.memory.sync.get("k"), session.memory.here.sync.get("k")) == (None, None)


def test_a_clear_of_a_turn_leaves_no_fact_in_any_row(sessions: SessionService) -> None:
    with sessions.sync.open(user="p") as session:
        session.memory.set("a", "canary")
    with sessions.sync.open(user="p") as session:
        session.memory.clear()
    (head,) = list_rows(sessions)
    assert (head["name"], head["value"], head["generation"]) == (None, None, 1)


def test_a_user_that_was_erased_has_no_fact_in_any_row(sessions: SessionService) -> None:
    with sessions.sync.open(user="p") as session:
        session.memory.set("a", "canary")
        session.memory.here.set("b", "canary")
    assert sessions.sync.erase(user="p")[:4] == (1, 0, 2, 0)
    assert [(row["name"], row["value"]) for row in list_rows(sessions)] == [(None, None)]
    assert sessions.sync.memory(user="p").all() == []


class FailsToDelete(MemoryEngine):
    """An engine that fails when rows are deleted alone, as after a commit."""

    def __init__(self) -> None:
        super().__init__()
        before = self.sync.transact

        def transact(transaction: Transaction) -> Any:
            if transaction.writes and all(isinstance(write, Delete) for write in transaction.writes):
                raise EngineError("The server is gone.")
            return before(transaction)

        self.sync.transact = transact  # type: ignore[method-assign]


def test_a_turn_stands_whose_rows_cannot_be_dropped() -> None:
    sessions = SessionService(FailsToDelete(), app="clinic")
    sessions.sync.memory(user="p").set("a", 1)
    with sessions.sync.open(user="p") as session:
        session.memory.clear()
    assert sessions.sync.memory(user="p").all() == []
    with pytest.raises(EngineError):
        sessions.sync.memory(user="p").clear()


def list_rows(sessions: SessionService) -> list[Any]:
    engine = sessions.engine
    pages = [
        engine.sync.transact(Transaction([], ranges=[Range(MEMORY, b"", None, 100, partition=partition)])).pages[0]
        for partition in range(engine.partitions)
    ]
    return [row for page in pages for _, row in page]
