"""Two writers, sessions that are deleted and made anew, large ones, and processes that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from dcaf.core.errors import (
    CommitUnknownError,
    DcafError,
    EngineError,
    SessionExistsError,
    StaleSessionError,
    UnknownSessionError,
)
from dcaf.engines import AllOf, Delete, Engine, Exists, MemoryEngine, Transaction
from dcaf.service import KeptSession, SessionService, commits, dropping, reading
from dcaf.service.places import Place
from dcaf.service.session import KeptState
from dcaf.service.tables import TABLES
from tests.service import kept_processes
from tests.service.kept_places import KeptPlace, Watched, find_kept_place

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
ROUNDS = max(10, round(1_000 * SCALE))
KILLS = max(1, round(50 * SCALE))

Who = tuple[str, SessionService]


class Stopped(Exception):
    """What an engine raises where the process has died."""


def stop() -> None:
    raise Stopped


def read(service: SessionService, id: str = "v", user: str | None = "p") -> dict[str, Any]:  # noqa: A002
    found = service.sync.get(user=user, id=id)
    assert found is not None
    return found.to_dict()


def find_rows(engine: Engine) -> dict[str, list[bytes]]:
    """The keys of all rows of a service, by table."""
    return {table.name: [key for key, _ in engine.sync.scan(table, limit=100_000)] for table in TABLES}


# ---- two writers


async def play_round(writers: list[Who], number: int) -> list[type[BaseException] | None]:
    """Two turns of one session that are open at once; returns what each came to."""
    barrier = asyncio.Barrier(len(writers))

    async def turn(name: str, service: SessionService) -> None:
        async with service.open(user="p", id="v") as session:
            await barrier.wait()
            session["last"] = name
            session[f"{name}.{number}"] = number
            session["user:last"] = session["app:last"] = name
            for key in ("n", "user:n", "app:n"):
                session.incr(key)
            for key in ("log", "user:log", "app:log"):
                session.append(key, [name, number])

    found = await asyncio.gather(*(turn(*writer) for writer in writers), return_exceptions=True)
    return [None if one is None else type(one) for one in found]


async def play_rounds_that_reject(place: KeptPlace, rounds: int) -> None:
    writers = [("a", place.open_service()), ("b", place.open_service())]
    service = writers[0][1]
    await service.create(user="p", id="v")
    won: list[list[Any]] = []
    for number in range(rounds):
        came = await play_round(writers, number)
        assert sorted(came, key=repr) == [StaleSessionError, None], came
        won.append([writers[came.index(None)][0], number])
    found = await service.get(user="p", id="v")
    assert found is not None
    last = won[-1][0]
    assert found.to_dict() == {
        **{f"{name}.{number}": number for name, number in won},
        **{scope + "last": last for scope in ("", "user:", "app:")},
        **{scope + "n": rounds for scope in ("", "user:", "app:")},
        **{scope + "log": won for scope in ("", "user:", "app:")},
    }
    assert found.revision == rounds + 1


async def play_rounds_that_merge(place: KeptPlace, rounds: int) -> None:
    writers = [(name, place.open_service(on_busy="merge")) for name in ("a", "b", "c")]
    service = writers[0][1]
    await service.create(user="p", id="v")
    for number in range(rounds):
        assert await play_round(writers, number) == [None, None, None]
    found = await service.get(user="p", id="v")
    assert found is not None
    state, names = found.to_dict(), [name for name, _ in writers]
    total = rounds * len(writers)
    assert {key: state.pop(key) for key in ("n", "user:n", "app:n")} == {"n": total, "user:n": total, "app:n": total}
    expected = sorted([name, number] for name in names for number in range(rounds))
    for scope in ("", "user:", "app:"):
        log = state.pop(f"{scope}log")
        assert sorted(log) == expected
        assert [number for _, number in log] == sorted(number for _, number in log)
        assert state.pop(f"{scope}last") in names
    assert state == {f"{name}.{number}": number for name in names for number in range(rounds)}
    assert found.revision == total + 1


def test_of_two_turns_at_once_exactly_one_is_kept(kept_place: KeptPlace) -> None:
    asyncio.run(play_rounds_that_reject(kept_place, ROUNDS))


def test_control_both_are_kept_where_the_revision_is_not_compared(kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "is_at", lambda row, _: Exists(row))
    monkeypatch.setattr(commits, "catch_up", lambda kept, _: kept)
    with pytest.raises(AssertionError):
        asyncio.run(play_rounds_that_reject(kept_place, 3))


def test_of_turns_at_once_that_merge_all_are_kept(kept_place: KeptPlace) -> None:
    asyncio.run(play_rounds_that_merge(kept_place, ROUNDS // 2))


def test_control_changes_are_lost_where_only_the_revision_is_taken_over(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeptState, "rebase", lambda _, newer: [])
    with pytest.raises(AssertionError):
        asyncio.run(play_rounds_that_merge(kept_place, 3))


def test_a_stale_turn_without_a_change_is_no_error(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    service.sync.create(user="p", id="v")
    with service.sync.open(user="p", id="v") as session, service.sync.open(user="p", id="v") as other:
        other["a"] = 1
        session["temp:a"] = 1
    assert read(service) == {"a": 1}


def test_turns_of_two_sessions_at_once_are_both_kept(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    for id_ in ("v", "w"):
        service.sync.create(user="p", id=id_)
    with service.sync.open(user="p", id="v") as first, service.sync.open(user="p", id="w") as second:
        for session in (first, second):
            session.user[session.id or ""] = session["own"] = session.id
            session.user["both"] = session.id
    assert read(service, "v") == {"own": "v", "user:v": "v", "user:w": "w", "user:both": "v"}
    assert read(service, "w") == {"own": "w", "user:v": "v", "user:w": "w", "user:both": "v"}


# ---- counters that are shared


def check_counts(service: SessionService, sessions: int, turns: int) -> None:
    state = read(service, service.sync.create(user="p").id)
    total = sessions * turns
    assert state == {"user:n": total, "app:n": total, "user:log": [1] * total, "app:log": [1] * total}


async def count_in_tasks(place: KeptPlace, sessions: int, turns: int) -> None:
    service = place.open_service()

    async def go() -> None:
        made = await service.create(user="p")
        for _ in range(turns):
            async with service.open(user="p", id=made.id) as session:
                for scope in (session.user, session.app):
                    scope.incr("n")
                    scope.append("log", 1)

    await asyncio.gather(*(go() for _ in range(sessions)))


def count_in_threads(place: KeptPlace, sessions: int, turns: int) -> None:
    services = [place.open_service() for _ in range(2)]

    def go(number: int) -> None:
        service = services[number % 2]
        made = service.sync.create(user="p")
        for _ in range(turns):
            kept_processes.count_once(service, made.id)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_tasks_lose_nothing_of_what_their_sessions_share(kept_place: KeptPlace) -> None:
    asyncio.run(count_in_tasks(kept_place, 8, ROUNDS // 4))
    check_counts(kept_place.open_service(), 8, ROUNDS // 4)


def test_threads_lose_nothing_of_what_their_sessions_share(kept_place: KeptPlace) -> None:
    count_in_threads(kept_place, 4, ROUNDS // 4)
    check_counts(kept_place.open_service(), 4, ROUNDS // 4)


def test_control_counts_are_lost_where_shared_values_are_not_compared(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "_is_unchanged", lambda *_: [])
    monkeypatch.setattr(commits, "join", lambda conditions: reduce(AllOf, conditions) if conditions else None)
    asyncio.run(count_in_tasks(kept_place, 8, 3))
    with pytest.raises(AssertionError):
        check_counts(kept_place.open_service(), 8, 3)


def test_processes_lose_nothing_of_what_their_sessions_share(shared_place: KeptPlace) -> None:
    turns = ROUNDS // 4
    shared_place.open_service().sync.create(user="p")  # makes the tables
    processes = [kept_processes.start(kept_processes.count, shared_place, "2", str(turns)) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n")
        assert process.returncode == 0
    check_counts(shared_place.open_service(), 4, turns)


# ---- sessions that are deleted, and made anew


@pytest.mark.parametrize("on_busy", ["reject", "merge"])
def test_a_turn_whose_session_is_deleted_meanwhile_writes_nothing(kept_place: KeptPlace, on_busy: str) -> None:
    service = kept_place.open_service(on_busy=on_busy)
    service.sync.create(user="p", id="v", state={"a": 1})
    with pytest.raises(UnknownSessionError), service.sync.open(user="p", id="v") as session:
        session["a"] = session["user:a"] = session["app:a"] = 2
        assert service.sync.delete(user="p", id="v")
    assert service.sync.get(user="p", id="v") is None
    assert not any(find_rows(service.engine).values())


@pytest.mark.parametrize("on_busy", ["reject", "merge"])
def test_a_turn_whose_session_is_made_anew_meanwhile_writes_nothing(kept_place: KeptPlace, on_busy: str) -> None:
    service = kept_place.open_service(on_busy=on_busy)
    for revisions in range(3):
        service.sync.create(user="p", id="v", state={"old": 1})
        with pytest.raises(UnknownSessionError), service.sync.open(user="p", id="v") as session:
            session["a"] = session["user:a"] = session["app:a"] = 2
            service.sync.delete(user="p", id="v")
            service.sync.create(user="p", id="v", state={"new": 1})
            for number in range(revisions):
                with service.sync.open(user="p", id="v") as newer:
                    newer["new"] = number
        assert read(service) == {"new": revisions - 1 if revisions else 1}
        assert service.sync.delete(user="p", id="v")


def test_a_merging_turn_whose_session_is_made_anew_before_it_reads_again_writes_nothing() -> None:
    engine = Watched(MemoryEngine())
    service = SessionService(engine, app="clinic", on_busy="merge")
    service.sync.create(user="p", id="v", state={"old": 1})

    def make_anew() -> None:
        service.sync.delete(user="p", id="v")
        service.sync.create(user="p", id="v", state={"new": 1})

    with suppress(UnknownSessionError), service.sync.open(user="p", id="v") as session:
        session["a"] = 2
        with service.sync.open(user="p", id="v") as other:
            other["b"] = 2
        engine.before(1, make_anew)  # it is refused as stale, and then reads again
    assert read(service) == {"new": 1}


def test_of_two_that_delete_at_once_one_at_least_does(kept_place: KeptPlace) -> None:
    async def test() -> None:
        services = [kept_place.open_service() for _ in range(2)]
        for _ in range(ROUNDS // 2):
            await services[0].create(user="p", id="v", state={str(number): number for number in range(5)})
            found = await asyncio.gather(*(service.delete(user="p", id="v") for service in services))
            assert any(found)
            assert await services[0].get(user="p", id="v") is None
            await services[1].delete(user="p", id="v")
            assert not any(find_rows(services[0].engine).values())

    asyncio.run(test())


def test_what_is_committed_between_the_steps_of_a_delete_is_deleted() -> None:
    clock = [1_000_000.0]
    engine = Watched(MemoryEngine(clock=lambda: clock[0]))
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v")

    def commit() -> None:
        with service.sync.open(user="p", id="v") as session:
            session["a"] = 1

    clock[0] += 120
    engine.before(1, commit)
    assert service.sync.delete(user="p", id="v") is True
    assert service.sync.get(user="p", id="v") is None


def test_what_is_committed_between_the_steps_of_a_delete_is_deleted_in_the_same_minute(kept_place: KeptPlace) -> None:
    engine = Watched(kept_place.open_engine())
    service = SessionService(engine, app="clinic")
    for at in range(1, 5):
        service.sync.create(user="p", id="v", state={"a": 1})
        refused: list[Exception] = []

        def commit(refused: list[Exception] = refused) -> None:
            try:
                with service.sync.open(user="p", id="v") as session:
                    session.incr("a")
            except UnknownSessionError as error:
                refused.append(error)

        engine.before(at, commit)
        assert service.sync.delete(user="p", id="v") is True
        assert service.sync.get(user="p", id="v") is None
        assert len(refused) == (at > 1)
        assert not any(find_rows(engine).values())


def test_nothing_is_left_of_an_anonymous_session_that_is_deleted(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    service.sync.create(user=None, id="v", state={"a": 1, "user:a": 1})
    service.sync.create(user=None, id="w", state={"user:a": 2})
    assert service.sync.delete(user=None, id="v") is True
    assert read(service, "w", None) == {"user:a": 2}
    service.sync.create(user=None, id="v", state={"new": 1})
    assert read(service, "v", None) == {"new": 1}
    for id_ in ("v", "w"):
        service.sync.delete(user=None, id=id_)
    assert not any(find_rows(service.engine).values())


OLD = {f"old{number}": number for number in range(7)}
NEW = {"new": 1, "old3": "new"}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete of a few rows takes several steps."""
    monkeypatch.setattr(dropping, "DROPPED_AT_ONCE", 3)


def make_old(service: SessionService) -> None:
    service.sync.create(user="p", id="v", state=OLD)
    for number in range(5):
        with service.sync.open(user="p", id="v") as session:
            session["old0"] = number + 100


def count_steps(engine: Engine) -> int:
    """How many transactions a delete of the old session takes."""
    watched = Watched(engine)
    service = SessionService(watched, app="steps")
    make_old(service)
    before = watched.done
    service.sync.delete(user="p", id="v")
    assert watched.done - before > 6
    return watched.done - before


def use_anew(service: SessionService) -> None:
    """Come upon what is left of the old session: find nothing of it, make a new one, and write to that."""
    assert service.sync.get(user="p", id="v") is None
    with pytest.raises(UnknownSessionError), service.sync.open(user="p", id="v"):
        raise AssertionError
    made = service.sync.create(user="p", id="v", state=NEW)
    assert (made.to_dict(), made.revision) == (NEW, 1)
    with pytest.raises(SessionExistsError):
        service.sync.create(user="p", id="v")
    with service.sync.open(user="p", id="v") as session:
        assert session.to_dict() == NEW
        session["more"] = 1


def check_new(service: SessionService) -> None:
    """No row of the old one is in the new one, and none of the new one was lost."""
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert (found.to_dict(), found.revision) == ({**NEW, "more": 1}, 2)
    counts = {name: len(keys) for name, keys in find_rows(service.engine).items()}
    assert counts == dict.fromkeys(counts, 0) | {
        "dcaf_kept_sessions": 1,
        "dcaf_kept_state": 3,
        "dcaf_kept_changes": 2,
        "dcaf_kept_lists": 1,
    }
    assert service.sync.delete(user="p", id="v") is True
    assert not any(find_rows(service.engine).values())


def delete_and_use(engine: Engine, steps: Callable[[Watched], None]) -> SessionService:
    """Delete the old session, by an engine that was told of another one's steps."""
    service, watched = SessionService(engine, app="clinic"), Watched(engine)
    make_old(service)
    steps(watched)
    with suppress(Stopped):
        SessionService(watched, app="clinic").sync.delete(user="p", id="v")
    return service


@pytest.mark.usefixtures("small_steps")
def test_a_session_is_made_anew_wherever_a_delete_has_died(kept_place: KeptPlace) -> None:
    engine = kept_place.open_engine()
    for at in range(2, count_steps(engine)):
        service = delete_and_use(engine, lambda watched, at=at: watched.before(at, stop))  # type: ignore[misc]
        use_anew(service)
        check_new(service)


@pytest.mark.usefixtures("small_steps")
def test_a_delete_that_has_died_anywhere_is_finished_by_the_next(kept_place: KeptPlace) -> None:
    engine = kept_place.open_engine()
    for at in range(1, count_steps(engine)):
        service = delete_and_use(engine, lambda watched, at=at: watched.before(at, stop))  # type: ignore[misc]
        assert service.sync.delete(user="p", id="v") is (at == 1)
        assert not any(find_rows(engine).values())


@pytest.mark.usefixtures("small_steps")
def test_a_session_is_made_anew_wherever_a_delete_pauses(kept_place: KeptPlace) -> None:
    engine = kept_place.open_engine()
    other = SessionService(engine, app="clinic")
    for at in range(2, count_steps(engine)):
        check_new(delete_and_use(engine, lambda watched, at=at: watched.before(at, lambda: use_anew(other))))  # type: ignore[misc]


@pytest.mark.usefixtures("small_steps")
def test_a_session_is_deleted_and_made_anew_wherever_a_delete_pauses() -> None:
    """The other one dies, too, at each of its steps, and a third one comes upon what both have left."""
    engine = MemoryEngine(partitions=8)
    steps = count_steps(engine)
    for at in range(1, steps):
        for its in range(1, steps):
            service, watched, other = SessionService(engine, app="clinic"), Watched(engine), Watched(engine)

            def delete_and_die(other: Watched = other, its: int = its) -> None:
                other.before(its, stop)
                with suppress(Stopped, SessionExistsError):
                    SessionService(other, app="clinic").sync.create(user="p", id="v", state={"half": 1})
                with suppress(Stopped):
                    SessionService(other, app="clinic").sync.delete(user="p", id="v")

            make_old(service)
            watched.before(at, delete_and_die)
            SessionService(watched, app="clinic").sync.delete(user="p", id="v")
            service.sync.delete(user="p", id="v")
            use_anew(service)
            check_new(service)


@pytest.mark.usefixtures("small_steps")
def test_control_a_new_session_is_lost_where_a_delete_does_not_look_whose_rows_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine()
    other = SessionService(engine, app="clinic")
    monkeypatch.setattr(dropping, "AllOf", lambda first, _: Exists(first.record))
    with pytest.raises(AssertionError):
        check_new(delete_and_use(engine, lambda watched: watched.before(2, lambda: use_anew(other))))


@pytest.mark.usefixtures("small_steps")
def test_control_old_rows_come_back_where_a_new_session_does_not_drop_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def delete_row(place: Place, row: Any, **_: Any) -> Generator[Any, Any, None]:
        yield Transaction([place.row], writes=[Delete(place.row)])

    engine = MemoryEngine()
    service = delete_and_use(engine, lambda watched: watched.before(3, stop))
    monkeypatch.setattr(dropping, "drop_rows", delete_row)
    with pytest.raises(AssertionError):
        use_anew(service)


def test_two_that_make_one_session_at_once_make_it_once(kept_place: KeptPlace) -> None:
    async def test() -> None:
        services = [kept_place.open_service() for _ in range(4)]
        for number in range(max(5, ROUNDS // 4)):
            tasks = (service.create(user="p", id=f"{number}", state={str(at): at}) for at, service in enumerate(services))
            found = await asyncio.gather(*tasks, return_exceptions=True)
            won = [at for at, one in enumerate(found) if isinstance(one, KeptSession)]
            assert len(won) == 1
            assert [type(one) for at, one in enumerate(found) if at != won[0]] == [SessionExistsError] * 3
            state = await services[0].get(user="p", id=f"{number}")
            assert state is not None
            assert state.to_dict() == {str(won[0]): won[0]}

    asyncio.run(test())


# ---- sessions that end


def test_a_session_that_has_ended_is_not_there_and_its_id_is_free() -> None:
    clock = [1_000_000.0]
    service = SessionService(MemoryEngine(clock=lambda: clock[0]), app="clinic", ttl=timedelta(seconds=60))
    made = service.sync.create(user="p", id="v", state={"old": 1})
    clock[0] += 59.9
    with service.sync.open(user="p", id="v") as session:
        session["older"] = 1
    clock[0] += 59.9
    assert service.sync.get(user="p", id="v") is not None
    clock[0] += 0.1
    assert session.expires_at is not None
    assert session.expires_at.timestamp() == clock[0]
    assert service.sync.get(user="p", id="v") is None
    assert service.sync.delete(user="p", id="v") is False
    service.sync.create(user="p", id="v", state={"new": 1})
    assert read(service) == {"new": 1}
    made["a"] = 1
    with pytest.raises(UnknownSessionError):
        service.sync.save(made)


@pytest.mark.parametrize("on_busy", ["reject", "merge"])
def test_a_turn_that_outlives_its_session_writes_nothing(on_busy: Any) -> None:
    clock = [1_000_000.0]
    service = SessionService(MemoryEngine(clock=lambda: clock[0]), app="clinic", ttl=timedelta(seconds=60), on_busy=on_busy)
    service.sync.create(user="p", id="v", state={"old": 1})
    with pytest.raises(UnknownSessionError), service.sync.open(user="p", id="v") as session:
        session["a"] = session["user:a"] = 1
        clock[0] += 61
    assert service.sync.get(user="p", id="v") is None


# ---- engines that fail


def test_an_engine_that_fails_between_the_two_parts_of_a_commit_leaves_no_doubt() -> None:
    engine = Watched(MemoryEngine(partitions=8))
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v")

    def fail() -> None:
        raise EngineError("It failed.")

    with pytest.raises(DcafError) as raised, service.sync.open(user="p", id="v") as session:
        session["a"] = session["app:a"] = 1
        engine.before(1, fail)
    assert isinstance(raised.value, CommitUnknownError) or read(service) == {}


def test_an_engine_that_fails_leaves_the_session_as_it_was_and_it_can_be_saved_again(kept_place: KeptPlace) -> None:
    engine = Watched(kept_place.open_engine())
    service = SessionService(engine, app="clinic")
    session = service.sync.create(user="p", id="v", state={"n": 1})

    def fail() -> None:
        raise EngineError("It failed.")

    for number in range(2, 5):
        session.incr("n")
        session.append("log", number)
        session.incr("user:n")
        engine.before(0, fail)
        with pytest.raises(EngineError):
            service.sync.save(session)
        assert session.is_modified
        session.append("log", -number)
        service.sync.save(session)
        assert read(service) == session.to_dict()
    assert read(service) == {"n": 4, "user:n": 3, "log": [2, -2, 3, -3, 4, -4]}


# ---- large sessions


MOST_AT_ONCE = 200
"""How many keys that are shared a turn of these tests writes."""


def fill(service: SessionService, state: dict[str, Any]) -> None:
    """Write a state in several turns."""
    service.sync.create(user="p", id="v")
    for at in range(0, len(state), MOST_AT_ONCE):
        with service.sync.open(user="p", id="v") as session:
            session.update(dict([*state.items()][at : at + MOST_AT_ONCE]))


def test_a_session_of_three_thousand_keys(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    state = {f"{number}": [number] for number in range(3_000)}
    service.sync.create(user="p", id="v", state=state)
    assert read(service) == state
    with service.sync.open(user="p", id="v") as session:
        for number in range(0, 3_000, 2):
            del session[f"{number}"]
        session["1"].append("again")
    assert read(service) == {f"{number}": [number] for number in range(1, 3_000, 2)} | {"1": [1, "again"]}
    assert service.sync.delete(user="p", id="v") is True
    assert not any(find_rows(service.engine).values())


@pytest.mark.parametrize("scope", ["user:", "app:"])
def test_a_turn_that_writes_three_thousand_shared_keys(kept_place: KeptPlace, scope: str) -> None:
    service = kept_place.open_service()
    state = {f"{scope}{number}": [number] for number in range(3_000)}
    service.sync.create(user="p", id="v", state=state)
    assert read(service) == state
    with service.sync.open(user="p", id="v") as session:
        for number in range(0, 3_000, 2):
            del session[f"{scope}{number}"]
        session[f"{scope}1"].append("again")
    assert read(service) == {f"{scope}{number}": [number] for number in range(1, 3_000, 2)} | {f"{scope}1": [1, "again"]}


@pytest.mark.parametrize("keys", [999, 1_000, 1_001])
@pytest.mark.parametrize("scope", ["", "user:", "app:"])
def test_a_page_that_is_just_full_is_read_to_its_end(scope: str, keys: int) -> None:
    service = SessionService(MemoryEngine(), app="clinic")
    state = {f"{scope}{number}": number for number in range(keys)}
    fill(service, state)
    assert read(service) == state


def test_control_keys_are_missed_where_a_full_page_is_taken_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverReached(int):
        def __le__(self, other: int) -> bool:
            return False

    service = SessionService(MemoryEngine(), app="clinic")
    fill(service, {f"{number}": number for number in range(1_001)})
    monkeypatch.setattr(reading, "MOST_KEYS", NeverReached(1_000))
    assert len(read(service)) == 1_000


def test_a_state_of_five_megabytes(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    text = "".join(random.Random(1).choices('abc\0"é', k=1 << 20))
    state = {
        "large": text,
        "user:large": text[::-1],
        "many": [text[:1000]] * 1_000,
        **{f"k{at}": text[at : at + 1000] for at in range(999)},
    }
    service.sync.create(user="p", id="v", state=state)
    assert read(service) == state
    with service.sync.open(user="p", id="v") as session:
        session["user:large"] += "more"
        session.append("many", "more")
    assert read(service) == {**state, "user:large": text[::-1] + "more", "many": [*state["many"], "more"]}


# ---- processes that are killed


def kill_while_it_commits(program: Callable[..., None], place: KeptPlace, seconds: float) -> None:
    """Nothing that was acknowledged is lost, and nothing is half there."""
    service = place.open_service()
    service.sync.delete(user="p", id="v")
    service.sync.create(user="p", id="v", state={"n": 0, "a": 0, "b": {"c": 0}, "user:a": 0, "app:a": 0})
    process = kept_processes.start(program, place)
    assert process.stdout is not None
    said = [process.stdout.readline()]
    time.sleep(seconds)
    process.kill()
    said += process.stdout.readlines()
    process.communicate()
    acknowledged = max(int(line) for line in said if line.endswith("\n"))
    found = service.sync.get(user="p", id="v")
    assert found is not None
    number = found["n"]
    assert acknowledged <= number <= acknowledged + 1
    assert (found["a"], found["b"], found["user:a"], found.revision) == (number, {"c": number}, number, number + 1)
    assert found["app:a"] in {number, acknowledged}
    if "log" in found:
        assert found["log"] == [*range(1, number + 1)]
        kept = {f"k{at % 7}": at for at in range(max(1, number - 5), number + 1)}
        assert {key: value for key, value in found.items() if key[0] == "k"} == kept


@pytest.mark.parametrize("at", range(KILLS))
def test_a_process_that_is_killed_loses_nothing_acknowledged(shared_place: KeptPlace, at: int) -> None:
    kill_while_it_commits(kept_processes.commit_until_killed, shared_place, random.random() * 0.2)


@pytest.mark.parametrize("program", [kept_processes.say_before_committing, kept_processes.commit_by_halves])
def test_control_a_process_that_is_killed_loses_what_it_said_too_early(program: Callable[..., None], tmp_path: Path) -> None:
    place = find_kept_place("sqlite", tmp_path)
    with pytest.raises(AssertionError):
        kill_while_it_commits(program, place, 0.0)
    place.close()
