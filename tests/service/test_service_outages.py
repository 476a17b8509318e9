"""What becomes of kept sessions where clocks differ, loops stand still, stores are old, and servers refuse or evict."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from dcaf.core import SessionConflict, SessionEnded, SessionHost, SessionInvalid
from dcaf.core.errors import ConfigurationError, DcafError, EngineError, StaleSessionError
from dcaf.engines import Engine, MemoryEngine, PostgresEngine, RedisEngine, SqliteEngine
from dcaf.ledger import Ledger
from dcaf.service import Messages, SessionService
from dcaf.testing import FrozenClock
from tests.engines.postgres_servers import execute, get_server
from tests.engines.redis_servers import DURABLE, running
from tests.engines.test_redis_settings import EVICTING, FULL
from tests.service.fair_processes import count_kept, serve
from tests.service.kept_places import find_kept_place
from tests.service.test_service_as_store import AUDIENCE, RING, Clinic
from tests.service.test_service_faults import read

LEASE: Final = timedelta(milliseconds=300)


def count(session: Any) -> None:
    session.incr("n")
    session.append("log", session["n"])


# ---- a store that is older than what it handed out


def restore(path: Path, act: Callable[[SessionService], Any]) -> Any:
    """Copy the file of a service, let something happen, and put the copy back."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    with serving(path) as lost:
        happened = act(lost)
    for found in path.parent.glob(f"{path.name}*"):
        found.unlink()
    shutil.copy(copy, path)
    return happened


@contextmanager
def serving(path: Path) -> Iterator[SessionService]:
    service = SessionService(SqliteEngine(path), app=AUDIENCE)
    try:
        yield service
    finally:
        service.engine.sync.close()


def go_on_with_what_was_lost(path: Path) -> None:
    """A token that is newer than the store is refused, and changes nothing of what is kept."""
    with serving(path) as service:
        first = anyio.run(Clinic(service).do, None, count)
    newer = restore(path, lambda lost: anyio.run(Clinic(lost).do, first, count))
    with serving(path) as restored:
        with pytest.raises(SessionEnded) as refused:
            anyio.run(Clinic(restored).do, newer, count)
        assert refused.value.reason == "restored"
        [kept] = restored.sync.list(user="ada").items
        assert read(restored, kept.id, "ada") == {"n": 1, "log": [1]}
        assert anyio.run(Clinic(restored).read, first) == {"n": 1, "log": [1]}


def test_a_token_that_is_newer_than_a_restored_file_is_refused(tmp_path: Path) -> None:
    go_on_with_what_was_lost(tmp_path / "dcaf.db")


def test_control_without_the_comparison_it_is_taken_for_an_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.opening.is_ahead", lambda *rows, **settings: False)
    with pytest.raises(DcafError, match="session"):
        go_on_with_what_was_lost(tmp_path / "dcaf.db")


def test_a_session_that_somebody_held_while_the_file_was_restored_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "dcaf.db"
    with serving(path) as service:
        service.sync.create(user="p", id="v", state={"a": 1})

    def go_on(lost: SessionService) -> Any:
        with lost.sync.open(user="p", id="v") as session:
            session["a"] = 2
        return lost.sync.get(user="p", id="v")

    held = restore(path, go_on)
    with serving(path) as restored:
        held["b"] = 3
        with pytest.raises(StaleSessionError):
            restored.sync.save(held)
        assert read(restored) == {"a": 1}


# ---- clocks


def turn_about(engine: Engine, engine_clock: FrozenClock, *apart_s: int) -> list[dict[str, Any]]:
    """Workers whose clocks are so many seconds off that of the store have turns of one session, one after the other."""
    ledger = Ledger(engine, audience=AUDIENCE)
    sessions = SessionService(engine, app=AUDIENCE, ledger=ledger)
    clocks = [FrozenClock(engine_clock.now + timedelta(seconds=seconds)) for seconds in apart_s]
    hosts = [SessionHost(keys=RING, audience=AUDIENCE, store=sessions, clock=clock) for clock in clocks]

    async def main() -> list[dict[str, Any]]:
        envelope, found = None, []
        for at in range(6):
            async with hosts[at % len(hosts)].turn(envelope, subject="ada") as turn:
                count(turn.session)
                Messages.of(turn.session).add("user", f"{at}")
            envelope = turn.envelope
            found.append(turn.session.to_dict())
            for clock in (engine_clock, *clocks):
                clock.tick(timedelta(seconds=1))
        [kept] = (await sessions.list(user="ada")).items
        said = (await sessions.messages(user="ada", id=kept.id)).items
        assert [message.content for message in said] == [f"{at}" for at in range(6)]
        moments = [message.at for message in said if message.at is not None]
        assert moments == sorted(moments)
        return found

    return anyio.run(main)


@pytest.mark.parametrize("apart_s", [(45, 0), (-45, 0), (20, -25)])
def test_workers_whose_clocks_are_45_seconds_apart_keep_one_session(apart_s: tuple[int, int]) -> None:
    clock = FrozenClock()
    found = turn_about(MemoryEngine(clock=clock, partitions=8), clock, *apart_s)
    assert found == [{"n": at, "log": [*range(1, at + 1)]} for at in range(1, 7)]


def test_control_clocks_that_are_ten_minutes_apart_are_noticed() -> None:
    clock = FrozenClock()
    with pytest.raises(SessionInvalid):
        turn_about(MemoryEngine(clock=clock), clock, 600, 0)


def test_processes_whose_clocks_are_45_seconds_apart_share_a_file(tmp_path: Path) -> None:
    """On SQLite the clock of the store is that of each process."""
    clock = FrozenClock()
    clocks = [clock, FrozenClock(clock.now + timedelta(seconds=45))]
    engines = [SqliteEngine(tmp_path / "dcaf.db", clock=each) for each in clocks]
    services = [SessionService(engine, app="clinic", ttl=timedelta(minutes=5)) for engine in engines]
    services[0].sync.create(user="p", id="v")
    for at in range(8):
        with services[at % 2].sync.open(user="p", id="v") as session:
            count(session)
            session.messages.add("user", f"{at}")
        for each in clocks:
            each.tick(timedelta(seconds=1))
    for service in services:
        assert read(service)["log"] == [*range(1, 9)]
        assert [message.content for message in service.sync.messages(user="p", id="v").items] == [f"{at}" for at in range(8)]
        assert [item.id for item in service.sync.list(user="p").items] == ["v"]
        service.engine.sync.close()


# ---- a loop that stands still


def block_a_loop(engine: Engine) -> tuple[dict[str, Any], list[str]]:
    """A turn blocks its loop for longer than its lease; returns what is kept then, and what a rival was told meanwhile."""
    service = SessionService(engine, app=AUDIENCE, ledger=Ledger(engine, audience=AUDIENCE, lease=LEASE))
    first = anyio.run(Clinic(service).do, None, count)
    told: list[str] = []

    def rival() -> None:
        other = SessionService(engine, app=AUDIENCE, ledger=Ledger(engine, audience=AUDIENCE, lease=LEASE))
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            time.sleep(0.1)
            try:
                asyncio.run(Clinic(other).do(first, lambda session: session.update(rival=True)))
                told.append("taken")
            except SessionConflict:
                told.append("refused")

    def block(session: Any) -> None:
        thread.start()
        time.sleep(0.8)
        count(session)

    thread = threading.Thread(target=rival)
    try:
        anyio.run(Clinic(service).do, first, block)
    finally:
        thread.join()
    [kept] = service.sync.list(user="ada").items
    return read(service, kept.id, "ada"), told


def test_a_turn_that_blocks_its_loop_for_longer_than_its_lease_keeps_its_session() -> None:
    kept, told = block_a_loop(MemoryEngine(partitions=8))
    assert (kept, {*told}) == ({"n": 2, "log": [1, 2]}, {"refused"})


def test_control_without_a_thread_that_renews_it_the_session_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.ledger.renewals.Renewals.add", lambda self, turn: None)
    with pytest.raises(SessionConflict):
        block_a_loop(MemoryEngine(partitions=8))


# ---- servers


def take_turns(service: SessionService, number: int = 1) -> None:
    for _ in range(number):
        with service.sync.open(user="p", id="v") as session:
            count(session)
            session["user:n"] = session["n"]


def become_read_only(setting: str) -> None:
    """A PostgreSQL takes no more writes while a service uses it, and then takes them again."""
    url = get_server().make_database()
    name = url.partition("@/")[2].partition("?")[0]
    service = SessionService(PostgresEngine(url), app="clinic")
    service.sync.create(user="p", id="v")
    take_turns(service)
    session = service.sync.get(user="p", id="v")
    assert session is not None
    count(session)
    execute(get_server().url(), f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}")
    execute(get_server().url(), f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    time.sleep(0.05)
    with pytest.raises(EngineError, match="read-only") as raised:
        service.sync.save(session)
    assert type(raised.value) is EngineError, "nothing was written, and that is certain"
    execute(get_server().url(), f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    execute(get_server().url(), f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    time.sleep(0.05)
    assert read(service) == {"n": 1, "log": [1], "user:n": 1}
    service.sync.save(session)
    take_turns(service)
    assert read(service) == {"n": 3, "log": [1, 2, 3], "user:n": 3}
    service.engine.sync.close()


def test_a_server_that_takes_no_more_writes_is_told_and_used_again_when_it_does() -> None:
    become_read_only("on")


def test_control_a_server_that_takes_writes_is_written() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        become_read_only("off")


def fill_a_server(engine: RedisEngine) -> list[str]:
    """Keep sessions in a server until its memory is full, and more; returns what is wrong with those that were acknowledged."""
    service = SessionService(engine, app="clinic")
    acknowledged: list[str] = []
    refused: list[str] = []
    try:
        for at in range(60):
            name = f"{at}"
            try:
                service.sync.create(user=name, id="v", state={"n": 1, "text": "x" * 100_000})
            except EngineError as error:
                refused.append(str(error))
            else:
                acknowledged.append(name)
        assert all("memory is full" in message for message in refused)
        found = {name: service.sync.get(user=name, id="v") for name in acknowledged}
        return [name for name, session in found.items() if session is None or session.get("n") != 1]
    finally:
        engine.sync.close()


def test_a_server_that_evicts_rows_keeps_no_sessions() -> None:
    with running(*DURABLE, *EVICTING) as server, pytest.raises(ConfigurationError, match="maxmemory-policy"):
        SessionService(RedisEngine(server.url), app="clinic").sync.create(user="p", id="v")


def test_a_server_whose_memory_is_full_drops_no_session() -> None:
    with running(*DURABLE, *FULL) as server:
        assert fill_a_server(RedisEngine(server.url)) == []


def test_control_one_that_evicts_rows_loses_acknowledged_sessions() -> None:
    with running(*DURABLE, *EVICTING) as server:
        assert fill_a_server(RedisEngine(server.url, vouched=("maxmemory-policy",)))


# ---- several processes on one file


def test_four_processes_with_eight_turns_at_once_are_all_served(tmp_path: Path) -> None:
    """How alike they are served, and how fast, is measured where nothing runs beside them: ``make soak``."""
    place = find_kept_place("sqlite", tmp_path)
    place.open_service().sync.create(user="p")  # makes the tables
    place.close()
    served = serve(place, seconds=0.2)
    assert count_kept(place) == [len(took_s) for took_s in served.took_s]
    assert served.fairness > 0
    place.close()
