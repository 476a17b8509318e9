"""Archived sessions: they can be read and restored, and neither written nor found in the list of the others."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from dcaf.core.errors import (
    ConfigurationError,
    SessionArchivedError,
    SessionClosedError,
    SessionConflict,
    SessionEnded,
    UnknownSessionError,
)
from dcaf.engines import AllOf, Engine, Is, MemoryEngine
from dcaf.service import SessionService, kept
from dcaf.service.tables import LISTS, OF_SESSIONS, SESSIONS
from tests.service.kept_places import Calls, KeptPlace, Watched
from tests.service.test_service_as_store import Clinic, claims_of, say

OLD = timedelta(milliseconds=1)
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class Clock:
    """The engine's clock, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def serve(**settings: Any) -> tuple[Clock, MemoryEngine, SessionService]:
    clock = Clock()
    engine = MemoryEngine(clock=clock, partitions=4)
    return clock, engine, SessionService(engine, app="clinic", **settings)


def rows_of(engine: MemoryEngine, *tables: Any) -> dict[str, dict[Any, Any]]:
    """Every row of some tables."""
    return {table.name: {key: dict(row) for key, row in engine._rows._found.get(table.name, {}).items()} for table in tables}


def test_an_archived_session_comes_back_whole(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"step": 1, "user:theme": "dark"}, title="T", labels={"room": "4"})
        async with calls.open(user="p", id="v") as session:
            session["step"] = 2
            session.messages.add("user", "Hello!")
            session.messages.add("assistant", tool_calls=[CALL])
            session.memory.here.set("mood", "worried")
        await calls.ask("checkpoint", user="p", id="v", name="here")
        before = await calls.get(user="p", id="v")
        assert await calls.ask("archive", user="p", id="v") == 1
        assert await calls.ask("archive", user="p", id="v") == 0
        found = await calls.get(user="p", id="v")
        assert before is not None
        assert found is not None
        assert (found.to_dict(), found.revision, found.title) == (before.to_dict(), before.revision, "T")
        assert (await calls.ask("messages", user="p", id="v")).total == 2
        assert len((await calls.ask("list_events", user="p", id="v")).items) == 4
        assert (await calls.ask("list", user="p")).items == []
        (item,) = (await calls.ask("list", user="p", archived=True)).items
        assert (item.id, item.labels, item.archived_at is not None) == ("v", {"room": "4"}, True)
        assert await calls.ask("restore", user="p", id="v") is True
        assert await calls.ask("restore", user="p", id="v") is False
        async with calls.open(user="p", id="v") as session:
            session.messages.add("tool", "done", tool_call_id="c1")
            session.incr("step")
        assert await calls.read(user="p", id="v") == {"step": 3, "user:theme": "dark"}
        assert [item.id for item in (await calls.ask("list", user="p")).items] == ["v"]
        assert (await calls.ask("list", user="p", archived=True)).items == []
        assert [one.name for one in await calls.ask("checkpoints", user="p", id="v")] == ["here"]

    calls.run(test)


def test_nothing_is_written_to_an_archived_session(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        made = await calls.create(user="p", id="v", state={"step": 1})
        await calls.ask("append", user="p", id="v", messages=[("user", "Hello!")])
        await calls.ask("archive", user="p", id="v")
        with pytest.raises(SessionArchivedError):
            async with calls.open(user="p", id="v"):
                raise AssertionError
        made["step"] = 2
        with pytest.raises(SessionArchivedError):
            await calls.save(made)
        whose = {"user": "p", "id": "v"}
        refused: list[tuple[str, dict[str, Any]]] = [
            ("append", {"messages": [("user", "And?")]}),
            ("merge", {"state": {"step": 3}}),
            ("rewind", {"to": 0}),
            ("fork", {"new_id": "w"}),
            ("checkpoint", {"name": "here"}),
        ]
        for method, arguments in refused:
            with pytest.raises(SessionArchivedError):
                await calls.ask(method, **whose, **arguments)
        assert await calls.read(user="p", id="v") == {"step": 1}
        assert await calls.get(user="p", id="w") is None

    calls.run(test)


@pytest.mark.parametrize("on_busy", ["reject", "merge"])
def test_a_turn_whose_session_is_archived_meanwhile_writes_nothing(on_busy: Any) -> None:
    _, engine, service = serve(on_busy=on_busy)
    service.sync.create(user="p", id="v", state={"step": 1})
    before = None
    with pytest.raises(SessionArchivedError), service.sync.open(user="p", id="v") as session:
        session.update({"step": 2, "user:a": 1, "app:a": 1})
        session.messages.add("user", "?")
        session.memory.set("a", 1)
        session.memory.here.set("a", 1)
        service.sync.archive(user="p", id="v")
        before = rows_of(engine, SESSIONS, LISTS, *OF_SESSIONS)
    assert rows_of(engine, SESSIONS, LISTS, *OF_SESSIONS) == before


def test_control_a_turn_writes_where_only_a_closed_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "is_open", lambda record: AllOf(Is(record, "closed", None), Is(record, "closed", None)))
    with pytest.raises(pytest.fail.Exception):
        test_a_turn_whose_session_is_archived_meanwhile_writes_nothing("reject")


def test_idle_sessions_are_archived_and_others_are_not(kept_place: KeptPlace) -> None:
    service, other = kept_place.open_service(), kept_place.open_service(app="other")
    ids = [f"v{number}" for number in range(5)]
    for session_id in ids:
        service.sync.create(user="p", id=session_id)
        service.sync.create(user=None, id=session_id)
    other.sync.create(user="p", id="v")
    service.sync.archive(user="p", id="v0")
    assert service.sync.archive(idle=timedelta(hours=1)) == 0
    time.sleep(0.02)  # more than OLD
    assert service.sync.archive(idle=OLD) == len(ids) * 2 - 1
    assert service.sync.list(user="p").items == []
    assert {item.id for item in service.sync.list(user="p", archived=True).items} == set(ids)
    assert [item.id for item in other.sync.list(user="p").items] == ["v"]
    for session_id in ids:
        assert service.sync.restore(user=None, id=session_id) is True
        assert service.sync.restore(user="p", id=session_id) is True
    assert {item.id for item in service.sync.list(user="p").items} == set(ids)


def test_idle_is_counted_from_the_last_commit() -> None:
    clock, _, service = serve()
    for session_id in ("a", "b", "c"):
        service.sync.create(user="p", id=session_id)
    clock.now += 60
    service.sync.append(user="p", id="b", messages=[("user", "?")])
    clock.now += 60
    with service.sync.open(user="p", id="c") as session:
        session["step"] = 1
    assert service.sync.archive(idle=timedelta(seconds=121)) == 0
    assert service.sync.archive(idle=timedelta(seconds=120)) == 1
    assert service.sync.archive(idle=timedelta(seconds=60)) == 1
    assert [item.id for item in service.sync.list(user="p").items] == ["c"]


def test_a_session_that_is_committed_while_idle_ones_are_archived_is_not() -> None:
    clock = Clock()
    engine = Watched(MemoryEngine(clock=clock))
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v")
    clock.now += 60

    def commit() -> None:
        with service.sync.open(user="p", id="v") as session:
            session["step"] = 1

    engine.before(1, commit)
    assert service.sync.archive(idle=timedelta(seconds=60)) == 0
    assert [item.id for item in service.sync.list(user="p").items] == ["v"]


def test_an_archived_session_does_not_end_and_has_its_time_anew_when_it_is_restored() -> None:
    clock, _, service = serve(ttl=timedelta(seconds=60))
    service.sync.create(user="p", id="v", state={"step": 1})
    service.sync.create(user="p", id="w")
    service.sync.archive(user="p", id="v")
    clock.now += 1_000
    assert service.sync.purge().sessions == 1
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert found.expires_at is None
    with pytest.raises(UnknownSessionError):
        service.sync.archive(user="p", id="w")
    assert service.sync.restore(user="p", id="v")
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert found.expires_at == datetime.fromtimestamp(clock.now + 60, UTC)
    clock.now += 60
    assert service.sync.get(user="p", id="v") is None


@pytest.mark.parametrize("way", ["delete", "erase", "purge"])
def test_nothing_is_left_of_an_archived_session(kept_place: KeptPlace, way: str) -> None:
    service = kept_place.open_service()
    service.sync.create(user="p", id="v", state={"step": 1, "user:a": 1})
    with service.sync.open(user="p", id="v") as session:
        session.messages.add("user", "?")
        session.memory.here.set("a", 1)
        session.checkpoint("here")
    service.sync.archive(user="p", id="v")
    if way == "delete":
        assert service.sync.delete(user="p", id="v")
    elif way == "erase":
        assert service.sync.erase(user="p")[:4] == (1, 1, 1, 1)
    else:
        assert service.sync.purge(before=datetime.now(UTC) + timedelta(hours=1))[:3] == (1, 1, 1)
    assert service.sync.list(user="p", archived=True).items == []
    engine: Engine = kept_place.open_engine()
    if isinstance(engine, MemoryEngine):
        left = rows_of(engine, SESSIONS, LISTS, *OF_SESSIONS)
        assert all(row["name"].startswith(b"user:") for rows in left.values() for row in rows.values() if row.get("name"))
        assert not left[SESSIONS.name]
        assert not left[LISTS.name]
    assert service.sync.create(user="p", id="v").messages.total == 0
    assert [item.id for item in service.sync.list(user="p").items] == ["v"]


def test_a_closed_session_is_still_closed_when_it_is_restored() -> None:
    _, _, service = serve()
    service.sync.create(user="p", id="v")
    service.sync.archive(user="p", id="v")
    assert service.sync.close(user="p", id="v")
    service.sync.restore(user="p", id="v")
    with pytest.raises(SessionClosedError) as caught:
        service.sync.append(user="p", id="v", messages=[("user", "?")])
    assert not isinstance(caught.value, SessionArchivedError)


def test_an_archived_session_is_found_by_get_or_create() -> None:
    _, _, service = serve()
    service.sync.create(user="p", id="v", state={"step": 1})
    service.sync.archive(user="p", id="v")
    assert service.sync.get_or_create(user="p", id="v")["step"] == 1


@pytest.mark.parametrize("user", ["q", None])
def test_the_session_of_another_user_is_neither_archived_nor_restored(user: str | None) -> None:
    _, _, service = serve()
    service.sync.create(user="p", id="v")
    for method in (service.sync.archive, service.sync.restore):
        with pytest.raises(UnknownSessionError):
            method(user=user, id="v")
    assert [item.id for item in service.sync.list(user="p").items] == ["v"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"user": "p"},
        {"id": "v"},
        {"user": "p", "id": "v", "idle": OLD},
        {"user": "p", "idle": OLD},
        {"idle": 3},
        {"idle": timedelta(0)},
        {"idle": timedelta(days=99_999)},
    ],
)
def test_what_is_to_be_archived_is_said_clearly(arguments: dict[str, Any]) -> None:
    _, _, service = serve()
    service.sync.create(user="p", id="v")
    with pytest.raises(ConfigurationError):
        service.sync.archive(**arguments)
    assert len(service.sync.list(user="p").items) == 1


async def do_soon(clinic: Clinic, envelope: Any) -> Any:
    """A turn as soon as the claim of a refused one is given back, which happens beside it."""
    with anyio.fail_after(10):
        while True:
            with suppress(SessionConflict):
                return await clinic.do(envelope, say("And?"))
            await anyio.sleep(0.01)


def test_an_archived_session_is_refused_behind_a_middleware_and_taken_again_when_it_is_restored() -> None:
    _, _, service = serve()

    async def main() -> None:
        clinic = Clinic(service)
        envelope = await clinic.do(None, say("Hello!"))
        session_id = claims_of(envelope)["sid"]
        assert await service.archive(user="ada", id=session_id) == 1
        with pytest.raises(SessionEnded):
            await clinic.do(envelope, say("And?"))
        assert (await service.messages(user="ada", id=session_id)).total == 1
        assert await service.restore(user="ada", id=session_id)
        envelope = await do_soon(clinic, envelope)
        with pytest.raises(SessionEnded):
            async with clinic.turn(envelope) as turn:
                turn.session["step"] = 1
                await service.archive(user="ada", id=session_id)
        found = await service.get(user="ada", id=session_id)
        assert found is not None
        assert (found.to_dict(), found.messages.total) == ({}, 2)

    anyio.run(main)
