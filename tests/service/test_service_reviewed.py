"""What reviewers have found of kept sessions: steps of several calls between one another, halves that fail, timelines, ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from dcaf.core.errors import CommitUnknownError, ConfigurationError, DcafError, EngineError, StaleSessionError
from dcaf.engines import Engine, Is, MemoryEngine, Outcome, Put, Record, Search, Transaction
from dcaf.service import DeleteSessionRequest, SessionService, SyncSessionService
from dcaf.service.changes import KeyChange
from dcaf.service.kept import About
from dcaf.service.plans import Aside, Asked, Plan, ask
from dcaf.service.tables import MEMORY, MESSAGES, SESSIONS, STATE

SOON = timedelta(milliseconds=1)


class Steps:
    """A call that is done step by step.

    Args:
        engine: Where.
        plan: The call.
    """

    def __init__(self, engine: Engine, plan: Plan[Any]) -> None:
        self._engine, self._plan = engine, plan
        self._next: Asked | None = next(plan)
        self.result: Any = None

    def go(self, number: int | None = None) -> Any:
        """Do so many transactions; None for all that are left."""
        while self._next is not None and number != 0:
            outcome = ask(self._engine, self._next)
            number = None if number is None else number - 1
            try:
                self._next = self._plan.send(outcome)
            except StopIteration as end:
                self._next, self.result = None, end.value
        return self.result

    def until(self, table: Any) -> None:
        """Go on until the next transaction reads a range of a table."""
        while self._next is not None and not _reads(self._next, table):
            self.go(1)


def _reads(asked: Asked, table: Any) -> bool:
    if isinstance(asked, Aside | Search):
        return False
    transactions = (asked,) if isinstance(asked, Transaction) else asked
    return any(wanted.table is table for one in transactions for wanted in one.ranges)


class Failing:
    """The methods without await of an engine, one of whose transactions fails: that which writes keys of a state alone."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.fails = False

    def transact(self, transaction: Transaction) -> Outcome:
        if self.fails and transaction.writes and all(write.record.table is STATE for write in transaction.writes):
            self.fails = False
            raise EngineError("It is down. Nothing was written.")
        found: Outcome = self._inner.transact(transaction)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def serve(engine: Engine | None = None, **settings: Any) -> tuple[Engine, SessionService, SyncSessionService]:
    engine = MemoryEngine() if engine is None else engine
    service = SessionService(engine, app="clinic", **settings)
    return engine, service, service.sync


def fill(calls: SyncSessionService, count: int = 3) -> None:
    calls.create(user="u", id="v", state={"x": 1})
    calls.append(user="u", id="v", messages=[("user", f"secret {number}") for number in range(count)])


def turn(calls: SyncSessionService, **state: Any) -> None:
    with calls.open(user="u", id="v") as session:
        session.update(state)
        session.messages.add("user", "?")
        session.messages.add("assistant", "!")


def state_of(calls: SyncSessionService, session_id: str = "v") -> dict[str, Any] | None:
    found = calls.get(user="u", id=session_id)
    return None if found is None else found.to_dict()


def count_rows(engine: Engine, table: Any) -> int:
    assert isinstance(engine, MemoryEngine)
    return len(engine._rows._found.get(table.name, {}))


# Who sees what


def test_a_new_anonymous_session_sees_nothing_of_an_older_one_of_its_id() -> None:
    _, _, calls = serve(ttl=SOON)
    calls.create(user=None, id="v", state={"user:name": "Ada", "app:motd": "hello"})
    time.sleep(0.005)
    assert calls.get_or_create(user=None, id="v").to_dict() == {"app:motd": "hello"}


def test_a_purge_is_of_its_own_application() -> None:
    engine, _, calls = serve(ttl=SOON, randomness=lambda number: b"\1" * number)
    others = SessionService(engine, app="other", randomness=lambda number: b"\1" * number).sync
    calls.create(user="u", id="v")
    others.create(user="u", id="v", state={"x": 1})
    time.sleep(0.005)
    assert (others.purge().sessions, calls.purge().sessions) == (0, 1)
    assert others.get(user="u", id="v") is not None


def test_a_session_is_saved_by_its_own_service() -> None:
    _, _, calls = serve()
    _, _, elsewhere = serve()
    with calls.open(user="u") as session:
        session["a"] = 1
        with pytest.raises(ConfigurationError):
            elsewhere.save(session)
    assert elsewhere.get(user="u", id=session.id) is None


# A fork between others


def test_a_purge_that_has_seen_a_fork_begin_leaves_it_when_it_is_there() -> None:
    engine, service, calls = serve()
    fill(calls)
    fork = Steps(engine, service._calls.fork("u", "v", "f", None))
    fork.go(2)
    engine.sync.transact(Transaction([], writes=[Put(service._calls._place("u", "f").row, {"dropped": 1})]))  # long ago
    purge = Steps(engine, service._calls.purge(None, None))
    purge.go(1)
    fork.go()
    purge.go()
    assert (state_of(calls, "f"), calls.messages(user="u", id="f").total) == ({"x": 1}, 3)


def test_a_purge_leaves_a_fork_that_is_being_made() -> None:
    engine, service, calls = serve()
    fill(calls)
    fork = Steps(engine, service._calls.fork("u", "v", "f", None))
    fork.go(2)
    assert calls.purge().sessions == 0
    assert fork.go().id == "f"
    assert state_of(calls, "f") == {"x": 1}


@pytest.mark.parametrize("steps", range(1, 8))
def test_a_fork_that_is_dropped_meanwhile_leaves_no_row(steps: int) -> None:
    engine, service, calls = serve()
    fill(calls)
    fork = Steps(engine, service._calls.fork("u", "v", "f", None))
    fork.go(3)
    drop = Steps(engine, service._calls.delete(DeleteSessionRequest(user="u", id="f")))
    drop.go(steps)
    fork.go(1)
    drop.go()
    with pytest.raises(DcafError):
        fork.go()
    calls.create(user="u", id="f")
    assert calls.messages(user="u", id="f").items == []
    calls.erase(user="u")
    assert [count_rows(engine, table) for table in (MESSAGES, SESSIONS)] == [0, 0]


def test_a_fork_of_a_session_that_is_taken_back_meanwhile_is_refused_and_leaves_no_row() -> None:
    engine, service, calls = serve()
    fill(calls, 4)
    fork = Steps(engine, service._calls.fork("u", "v", "f", None))
    fork.go(2)
    calls.rewind(user="u", id="v", to=1)
    with pytest.raises(StaleSessionError):
        fork.go()
    assert (state_of(calls, "f"), count_rows(engine, MESSAGES)) == (None, 1)


def test_an_erase_takes_what_a_turn_writes_meanwhile() -> None:
    engine, service, calls = serve()
    calls.create(user="u", id="v")
    opened = calls.open(user="u", id="v")
    session = opened.__enter__()
    session.memory.set("illness", "flu")
    erase = Steps(engine, service._calls.erase("u"))
    erase.until(SESSIONS)
    opened.__exit__(None, None, None)
    erase.go()
    assert calls.memory(user="u").all() == []


# Halves


def test_what_fails_elsewhere_after_the_session_was_written_is_told_and_not_done_twice() -> None:
    engine: Any = MemoryEngine(partitions=64)
    engine.sync = failing = Failing(engine.sync)
    _, _, calls = serve(engine, on_busy="merge")
    calls.create(user="u", id="v")
    session = calls.get(user="u", id="v")
    assert session is not None
    session.incr("visits")
    session["app:motd"] = 1
    session.messages.add("user", "hi")
    failing.fails = True
    with pytest.raises(CommitUnknownError):
        calls.save(session)
    calls.save(session)
    assert (state_of(calls), calls.messages(user="u", id="v").total) == ({"visits": 1}, 1)
    failing.fails = True
    with pytest.raises(CommitUnknownError):
        calls.merge(user="u", id="v", state={"step": 1, "app:motd": 2})


def test_memory_and_keys_of_the_application_that_another_one_writes_are_written_together() -> None:
    _, _, calls = serve(MemoryEngine(partitions=64))
    calls.create(user="u", id="v")
    with calls.open(user="u", id="v") as session:
        session.app["motd"] = "x"
        session.memory.set("m", 1)
        session.memory.delete("n")
        calls.create(user="w", state={"app:motd": "other"})
    assert state_of(calls) == {"app:motd": "x"}
    assert calls.memory(user="u").get("m") == 1


def test_a_cancelled_creation_is_whole() -> None:
    engine = MemoryEngine(partitions=64)
    service = SessionService(engine, app="clinic")

    async def create() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await service.create(user="u", id="v", state={"step": 1, "app:motd": 2})

    anyio.run(create)
    assert state_of(service.sync) in (None, {"step": 1, "app:motd": 2})


# Timelines


def test_what_was_taken_back_does_not_come_again() -> None:
    _, _, calls = serve()
    calls.create(user="u", id="v")
    for value in (1, 2, 1):
        turn(calls, x=value)
    calls.rewind(user="u", id="v", to=2)
    turn(calls, y=1)
    assert calls.rewind(user="u", id="v", to=4) == 0
    assert state_of(calls) == {"x": 1, "y": 1}


def test_with_no_message_a_session_has_the_state_with_which_it_was_made() -> None:
    _, _, calls = serve()
    calls.create(user="u", id="v", state={"step": 1})
    with calls.open(user="u", id="v") as session:
        session["step"] = 5
    calls.rewind(user="u", id="v", to=0)
    assert state_of(calls) == {"step": 1}
    with calls.open(user="u") as session:
        session["step"] = 1
        session.messages.add("user", "a")
    calls.rewind(user="u", id=session.id, to=0)
    assert state_of(calls, session.id) == {"step": 1}


def test_a_fork_that_is_taken_back_further_than_it_begins_keeps_its_first_state() -> None:
    _, _, calls = serve()
    calls.create(user="u", id="v")
    turn(calls, x=1)
    turn(calls, y=1)
    calls.fork(user="u", id="v", new_id="f")
    calls.rewind(user="u", id="f", to=2)
    assert state_of(calls, "f") == {"x": 1, "y": 1}


# Ends and words


@pytest.mark.parametrize("ttl", [timedelta.max, timedelta(microseconds=1), timedelta(0), timedelta(days=-1)])
def test_a_time_to_live_that_no_session_can_have_is_refused(ttl: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="ttl="):
        serve(ttl=ttl)


def test_what_was_remembered_for_a_while_is_gone_from_the_rows() -> None:
    for is_erased in (False, True):
        engine, _, calls = serve()
        calls.memory(user="u").set("illness", "flu", ttl=SOON)
        time.sleep(0.005)
        if is_erased:
            calls.erase(user="u")
        else:
            calls.purge()
        rows = engine._rows._found[MEMORY.name].values()  # type: ignore[attr-defined]
        assert [row["value"] for row in rows if row["value"] is not None] == []


def test_a_session_that_is_saved_again_and_again_moves_up_in_the_list() -> None:
    clock = [1e9]
    _, _, calls = serve(MemoryEngine(clock=lambda: clock[0]))
    session = calls.create(user="u", id="old")
    for value in (1, 2, 3):
        clock[0] += 600
        session["a"] = value
        calls.save(session)
        calls.create(user="u", id=f"new {value}")
        clock[0] += 600
    session["a"] = 4
    calls.save(session)
    names = [kept.id for kept in calls.list(user="u").items]
    assert names.index("old") < names.index("new 2")


def test_a_message_has_its_own_moment_also_when_it_was_just_saved() -> None:
    _, _, calls = serve()
    session = calls.create(user="u", id="v")
    session.messages.add("user", "hi", at=datetime(2020, 1, 1, tzinfo=UTC))
    calls.save(session)
    calls.append(user="u", id="v", messages=[{"role": "user", "content": "ho", "at": "2021-01-01T00:00:00Z"}])
    assert [message.at and message.at.year for message in session.messages] == [2020]
    assert [message.at and message.at.year for message in calls.messages(user="u", id="v").items] == [2020, 2021]


def test_a_window_over_more_than_was_read_is_refused() -> None:
    _, _, calls = serve()
    fill(calls, 60)
    with calls.open(user="u", id="v") as session, pytest.raises(ConfigurationError, match="50 were read"):
        session.messages.window(last=58)
    with calls.open(user="u", id="v", last=58) as session:
        assert len(session.messages.window(last=58)) == 58


def test_a_message_that_is_too_long_is_refused_before_anything_is_written() -> None:
    _, _, calls = serve()
    calls.create(user="u", id="v")
    with calls.open(user="u", id="v") as session, pytest.raises(DcafError):
        session.messages.add("user", "x" * 2_000_000)
    with pytest.raises(DcafError):
        calls.append(user="u", id="v", messages=[("user", "x" * 2_000_000)])
    assert calls.messages(user="u", id="v").total == 0


def test_no_representation_shows_a_value() -> None:
    record = Record(STATE, b"the key")
    put, condition = Put(record, {"value": b"the secret"}), Is(record, "value", b"the secret")
    shown: list[object] = [put, condition, Transaction([record], when=condition, writes=[put])]
    shown += [Outcome(True, ({"value": b"the secret"},), 0), KeyChange(b"the secret", b"the secret"), About("the secret")]
    for each in shown:
        assert "secret" not in repr(each)
        assert "the key" not in repr(each)


def test_what_was_used_once_stays_used_after_a_rewind_and_in_a_fork() -> None:
    sessions = SessionService("memory://", app="clinic")

    async def main() -> list[bool]:
        async with sessions.open(user="ada", id=None) as session:
            session.messages.add("user", "a")
        async with sessions.open(user="ada", id=session.id) as second:
            used = [await second.once("pay")]
            second.messages.add("user", "b")
        other = await sessions.fork(user="ada", id=session.id, at=1)
        await sessions.rewind(user="ada", id=session.id, to=1)
        for name in (session.id, other.id):
            async with sessions.open(user="ada", id=name) as again:
                used.append(await again.once("pay"))
        return used

    assert anyio.run(main) == [True, False, False]
