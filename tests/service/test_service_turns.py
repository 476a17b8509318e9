"""Turns of kept sessions: create, get, open, save, delete on every kind of place, on asyncio, on trio, and without a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from dcaf.core import Session, current_session
from dcaf.core.errors import (
    ConfigurationError,
    DcafError,
    SessionClosedError,
    SessionExistsError,
    SessionValueError,
    StaleSessionError,
    UnknownSessionError,
)
from dcaf.engines import Is, MemoryEngine
from dcaf.service import SessionService, commits
from dcaf.service.places import Place
from dcaf.service.tables import STATE, Owner
from tests.service.kept_places import Calls, KeptPlace, Watched

LARGEST = 2**63 - 1


class Deploy(Session):
    step: int = 1
    hosts: list[str] = []


class Failed(Exception):
    pass


def nest(depth: int) -> Any:
    """A value with so many objects in each other."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


# ---- create, get, open, save, delete


def test_what_a_turn_did_is_there_in_the_next(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        made = await calls.create(user="p", id="v", state={"step": 1, "cart": {"items": []}})
        async with calls.open(user="p", id="v") as session:
            assert session.to_dict() == made.to_dict() == {"step": 1, "cart": {"items": []}}
            session["cart"]["items"].append("widget")
            session.incr("step")
            session.append("log", "a")
            session.append("log", {"b": [None, True]})
        found = await calls.get(user="p", id="v")
        assert found is not None
        assert found.to_dict() == {"step": 2, "cart": {"items": ["widget"]}, "log": ["a", {"b": [None, True]}]}
        assert (found.id, found.user_id, found.revision) == ("v", "p", 2)
        async with calls.open(user="p", id="v") as session:
            del session["cart"]
            session["log"][1]["b"].append(2)
        assert await calls.read(user="p", id="v") == {"step": 2, "log": ["a", {"b": [None, True, 2]}]}

    calls.run(test)


def test_a_session_that_is_opened_without_an_id_is_made_when_its_block_ends(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        async with calls.open(user="p") as session:
            assert await calls.get(user="p", id=session.id) is None
        found = await calls.get(user="p", id=session.id)
        assert found is not None
        assert (found.to_dict(), found.revision, session.revision) == ({}, 1, 1)

    calls.run(test)


def test_a_block_that_raises_writes_nothing(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"step": 1, "user:a": 1, "app:a": 1})
        with pytest.raises(Failed):
            async with calls.open(user="p", id="v") as session:
                session.update({"step": 2, "user:a": 2, "app:a": 2, "user:b": 1, "app:b": 1, "other": 1})
                raise Failed
        with pytest.raises(Failed):
            async with calls.open(user="p") as new:
                new.update({"step": 2, "user:a": 2, "app:a": 2})
                raise Failed
        found = await calls.get(user="p", id="v")
        assert found is not None
        assert (found.to_dict(), found.revision) == ({"step": 1, "user:a": 1, "app:a": 1}, 1)
        assert await calls.get(user="p", id=new.id) is None

    calls.run(test)


def test_what_cannot_be_written_writes_nothing(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"a": {}})
        with pytest.raises(SessionValueError):
            async with calls.open(user="p", id="v") as session:
                session["step"], session["user:a"] = 2, 1
                session["a"]["self"] = object()
        assert await calls.read(user="p", id="v") == {"a": {}}
        with pytest.raises(SessionValueError):
            await calls.create(user="p", id="w", state={"user:a": 1, "step": float("nan")})
        assert await calls.get(user="p", id="w") is None
        assert await calls.read(user="p", id="v") == {"a": {}}

    calls.run(test)


def test_a_turn_that_changes_nothing_is_one_trip(kept_place: KeptPlace) -> None:
    engine = Watched(kept_place.open_engine())
    service = SessionService(engine, app="clinic")
    service.sync.create(user="p", id="v", state={"step": 1, "user:a": 1})
    place = Place("clinic", Owner("clinic", "p", partitions=engine.partitions), "v", engine.partitions)
    for step, trips in [(None, 1), (1, 1), (2, 2)]:
        before = engine.done
        with service.sync.open(user="p", id="v") as session:
            session.update({} if step is None else {"step": step})
            session["temp:a"] = 1
        assert engine.done - before == trips + (not place.is_with_app)
    found = service.sync.get(user="p", id="v")
    assert found is not None
    assert found.revision == 2


def test_what_get_returned_can_be_saved_again_and_again(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        session = await calls.create(user="p", id="v")
        for number in range(1, 4):
            session["step"] = number
            session.incr("count")
            session["user:a"] = number
            await calls.save(session)
            await calls.save(session)  # nothing has changed
            assert session.revision == number + 1
            assert not session.is_modified
        found = await calls.get(user="p", id="v")
        assert found is not None
        assert found.to_dict() == session.to_dict() == {"step": 3, "count": 3, "user:a": 3}
        assert found.updated_at == session.updated_at
        assert found.created_at == session.created_at
        other = await calls.get(user="p", id="v")
        assert other is not None
        other["step"], found["step"] = 4, 5
        await calls.save(other)
        with pytest.raises(StaleSessionError):
            await calls.save(found)
        assert await calls.read(user="p", id="v") == {"step": 4, "count": 3, "user:a": 3}

    calls.run(test)


def test_an_id_is_made_once(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"step": 1})
        with pytest.raises(SessionExistsError):
            await calls.create(user="p", id="v", state={"step": 2, "user:a": 1, "app:a": 1})
        assert await calls.read(user="p", id="v") == {"step": 1}

    calls.run(test)


def test_what_is_deleted_is_gone_and_what_it_shared_stays(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        session = await calls.create(user="p", id="v", state={"step": 1, "user:a": 1, "app:a": 1})
        assert await calls.delete(user="p", id="v") is True
        assert await calls.delete(user="p", id="v") is False
        assert await calls.get(user="p", id="v") is None
        session["step"] = 2
        with pytest.raises(UnknownSessionError):
            await calls.save(session)
        with pytest.raises(UnknownSessionError):
            async with calls.open(user="p", id="v"):
                raise AssertionError
        again = await calls.create(user="p", id="v", state={"new": 1})
        assert again.revision == 1
        assert await calls.read(user="p", id="v") == {"new": 1, "user:a": 1, "app:a": 1}
        with pytest.raises(UnknownSessionError):
            await calls.save(session)
        assert await calls.read(user="p", id="v") == {"new": 1, "user:a": 1, "app:a": 1}

    calls.run(test)


def test_control_a_stale_writer_is_let_in_where_the_birth_is_not_compared(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "is_at", lambda row, kept: Is(row, "revision", kept.revision))
    service = kept_place.open_service()
    session = service.sync.create(user="p", id="v", state={"step": 1})
    service.sync.delete(user="p", id="v")
    service.sync.create(user="p", id="v", state={"new": 1})
    session["step"] = 2
    service.sync.save(session)
    assert service.sync.get(user="p", id="v").to_dict() == {"new": 1, "step": 2}  # type: ignore[union-attr]


def test_a_typed_session_is_a_view_of_the_kept_one(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        async with calls.open(user="p") as session:
            deploy = Deploy.of(session)
            deploy.step += 1
            deploy.hosts.append("a")
            assert current_session(Deploy).step == 2
        async with calls.open(user="p", id=session.id) as session:
            Deploy.of(session).hosts.append("b")
        assert await calls.read(user="p", id=session.id) == {"step": 2, "hosts": ["a", "b"]}

    calls.run(test)


# ---- what is shared


def test_user_keys_are_shared_between_the_sessions_of_a_user_and_with_nobody_else(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        async with calls.open(user="p") as first:
            first.user["theme"] = "dark"
            first["own"] = 1
        async with calls.open(user="p") as second:
            assert second.to_dict() == {"user:theme": "dark"}
            second.user["theme"] = "light"
        assert await calls.read(user="p", id=first.id) == {"own": 1, "user:theme": "light"}
        async with calls.open(user="q") as other:
            assert other.to_dict() == {}
        for id_ in ("a", "b"):
            made = await calls.create(user=None, id=id_, state={f"user:{id_}": id_})
            assert made.user_id is None
        assert await calls.read(user=None, id="a") == {"user:a": "a"}
        assert await calls.read(user=None, id="b") == {"user:b": "b"}
        async with calls.open(user=None) as anonymous:
            assert anonymous.to_dict() == {}
        async with calls.open(user="p", id=first.id) as session:
            del session.user["theme"]
        assert await calls.read(user="p", id=second.id) == {}

    calls.run(test)


def test_app_keys_are_shared_across_the_application_and_with_no_other(calls: Calls, kept_place: KeptPlace) -> None:
    other = calls.of(SessionService(calls.service.engine, app="clinic2"))

    async def test(calls: Calls) -> None:
        async with calls.open(user="p") as first:
            first.app["motd"] = "hello"
        for user in ("p", "q", None):
            async with calls.open(user=user) as session:
                assert session.to_dict() == {"app:motd": "hello"}
        async with calls.open(user="q") as session:
            session.app["motd"] = "bye"
        assert await calls.read(user="p", id=first.id) == {"app:motd": "bye"}
        assert await other.get(user="p", id=first.id) is None
        async with other.open(user="p") as elsewhere:
            assert elsewhere.to_dict() == {}
        made = await other.create(user="p", id=first.id, state={"theirs": 1})
        assert await other.delete(user="p", id=made.id) is True
        assert await calls.read(user="p", id=first.id) == {"app:motd": "bye"}

    calls.run(test)


def test_temporary_keys_are_never_stored(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"temp:a": 1, "a": 1})
        async with calls.open(user="p", id="v") as session:
            session.temp["b"] = "never-stored"
            session["b"] = 1
        found = await calls.get(user="p", id="v")
        assert found is not None
        assert {**found} == {"a": 1, "b": 1}

    calls.run(test)
    assert b"never-stored" not in repr(calls.service.engine.sync.scan(STATE, limit=100)).encode()


def test_the_session_of_another_user_looks_like_an_unknown_one(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"secret": 1})
        await calls.create(user=None, id="w", state={"secret": 1})
        said = set()
        for user, id_ in [("q", "v"), ("q", "unknown"), (None, "v"), ("q", "w"), ("p", "w"), ("P", "v"), ("p ", "v"), ("p", "V")]:
            assert await calls.get(user=user, id=id_) is None
            assert await calls.delete(user=user, id=id_) is False
            with pytest.raises(UnknownSessionError) as raised:
                async with calls.open(user=user, id=id_):
                    raise AssertionError
            said.add(str(raised.value))
        assert len(said) == 1
        await calls.create(user="q", id="v", state={"mine": 1})
        assert await calls.read(user="p", id="v") == {"secret": 1}
        assert await calls.read(user="q", id="v") == {"mine": 1}

    calls.run(test)


def test_control_sessions_are_mixed_where_the_user_is_left_out_of_the_key(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Owner.__init__

    def forget_user(self: Owner, app: str, user: str | None, session_id: str = "", *, partitions: int) -> None:
        whole(self, app, "anybody", session_id, partitions=partitions)
        self.user = user

    monkeypatch.setattr(Owner, "__init__", forget_user)
    service = kept_place.open_service()
    service.sync.create(user="p", id="v", state={"secret": 1})
    assert service.sync.get(user="q", id="v") is not None


# ---- names and values

ODD_NAMES = [
    "a/b",
    "a",
    "/",
    "../..",
    "a\0",
    "a\0b",
    "\0",
    " ",
    "%",
    "🙂",
    "\u00e9",
    "e\u0301",
    "a:b",
    "{a}",
    "*",
    "'; --",
    "x" * 256,
    "🙂" * 256,
]


def test_odd_names_of_users_and_sessions_are_names_like_others(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        for name in ODD_NAMES:
            await calls.create(user=name, id="v", state={"user:is": name, "by": "user"})
            await calls.create(user="p", id=name, state={"by": name})
            await calls.create(user=None, id=name, state={"by": name, "user:is": name})
        for name in ODD_NAMES:
            found = await calls.get(user=name, id="v")
            assert found is not None
            assert (found.to_dict(), found.user_id) == ({"user:is": name, "by": "user"}, name)
            assert await calls.read(user="p", id=name) == {"by": name}
            assert await calls.read(user=None, id=name) == {"by": name, "user:is": name}
        for name in ODD_NAMES:
            assert await calls.delete(user="p", id=name) is True
            assert await calls.read(user=name, id="v") == {"user:is": name, "by": "user"}

    calls.run(test)


WRONG_NAMES: list[Any] = ["", "x" * 257, "x" * 300, "\ud800", b"p", 7, ["p"]]


@pytest.mark.parametrize("name", WRONG_NAMES, ids=range(len(WRONG_NAMES)))
def test_wrong_names_are_refused_before_anything_is_written(name: Any) -> None:
    service = SessionService(MemoryEngine(), app="clinic")
    refused: list[Callable[[], object]] = [
        lambda: service.open(user=name),
        lambda: service.open(user="p", id=name),
        lambda: service.sync.open(user=name, id="v"),
        lambda: service.sync.get(user=name, id="v"),
        lambda: service.sync.get(user="p", id=name),
        lambda: service.sync.delete(user=name, id="v"),
        lambda: service.sync.delete(user="p", id=name),
        lambda: service.sync.create(user=name, id="v"),
        lambda: service.sync.create(user="p", id=name),
        lambda: SessionService(MemoryEngine(), app=name),
    ]
    for call in refused:
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert repr(name) == "''" or repr(name) not in str(raised.value)
    assert service.engine.sync.scan(STATE) == []


WRONG_STATES: list[Any] = [
    [1],
    "a",
    7,
    {1: 2},
    {"dcaf": {}},
    {"a": object()},
    {"a": 2**64},
    {"a": "\ud800"},
    {"\ud800": 1},
    {"a": nest(80)},
]


@pytest.mark.parametrize("state", WRONG_STATES, ids=range(len(WRONG_STATES)))
def test_wrong_states_are_refused_before_anything_is_written(state: Any) -> None:
    service = SessionService(MemoryEngine(), app="clinic")
    with pytest.raises(DcafError):
        service.sync.create(user="p", id="v", state=state)
    assert service.sync.get(user="p", id="v") is None


LONG = "k" * 200
ODD_KEYS = [
    "a",
    "a\0",
    "a/b",
    "🙂",
    "\u00e9",
    "e\u0301",
    "=",
    "#",
    "",
    " ",
    "'",
    '"',
    "\\",
    "{",
    "k" * 179,
    "k" * 180,
    "k" * 181,
    LONG + "1",
    LONG + "2",
    "🙂" * 5_000,
]


def test_odd_keys_are_keys_like_others(calls: Calls) -> None:
    keys = [scope + key for scope in ("", "user:", "app:") for key in ODD_KEYS]
    state = {key: [number, key] for number, key in enumerate(keys)}

    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state=state)
        assert await calls.read(user="p", id="v") == state
        async with calls.open(user="p", id="v") as session:
            for key in keys:
                session[key].append("again")
            for scope in ("", "user:", "app:"):
                del session[scope + LONG + "1"]
        after = {key: [*value, "again"] for key, value in state.items() if not key.endswith(LONG + "1")}
        assert await calls.read(user="p", id="v") == after

    calls.run(test)


ODD_VALUES: list[Any] = [
    *("\0", "a\0b", "🙂", "e\u0301", "", "\u2028", "\x7f", '"\\/'),
    *(LARGEST, -LARGEST - 1, 2 * LARGEST + 1, 2**53 + 1, 0, 1.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, True, False, None),
    *([], {}, [[]], {"": {"\0": [None]}}),
    nest(64),
]


def test_values_come_back_byte_for_byte(calls: Calls) -> None:
    state = {f"{scope}{number}": value for scope in ("", "user:", "app:") for number, value in enumerate(ODD_VALUES)}

    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state=state)
        found = await calls.read(user="p", id="v")
        assert {key: repr(value) for key, value in found.items()} == {key: repr(value) for key, value in state.items()}
        async with calls.open(user="p", id="v") as session:
            for number, value in enumerate(ODD_VALUES):
                session.append("user:list", value)
                session[f"{number}"] = ODD_VALUES[number - 1]
        found = await calls.read(user="p", id="v")
        assert repr(found["user:list"]) == repr(ODD_VALUES)
        assert [repr(found[f"{number}"]) for number in range(len(ODD_VALUES))] == [
            repr(ODD_VALUES[number - 1]) for number in range(len(ODD_VALUES))
        ]

    calls.run(test)


def test_a_number_and_a_float_of_the_same_value_are_two_values(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"user:n": 1, "n": 1})
        async with calls.open(user="p", id="v") as session:
            session["user:n"] = session["n"] = 1.0
        found = await calls.read(user="p", id="v")
        assert (repr(found["user:n"]), repr(found["n"])) == ("1.0", "1.0")

    calls.run(test)


# ---- the block


def test_the_session_is_the_current_one_inside_its_block_alone(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v")
        async with calls.open(user="p", id="v") as outer:
            outer["name"] = "outer"
            async with calls.open(user="q") as inner:
                assert "name" not in current_session()
                current_session()["name"] = "inner"
            assert current_session()["name"] == "outer"
            assert inner["name"] == "inner"
            with pytest.raises(Failed):
                async with calls.open(user="q"):
                    raise Failed
            assert current_session()["name"] == "outer"
            with pytest.raises(UnknownSessionError):
                async with calls.open(user="p", id="unknown"):
                    raise AssertionError
            assert current_session()["name"] == "outer"
        with pytest.raises(ConfigurationError):
            current_session()

    calls.run(test)


def test_nothing_is_written_to_a_session_whose_turn_is_over(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        async with calls.open(user="p") as session:
            session["a"] = {"b": 1}
        with pytest.raises(SessionClosedError):
            session["a"] = 2
        with pytest.raises(SessionClosedError):
            session.user["a"] = 2
        with pytest.raises(SessionClosedError):
            session.incr("n")
        with pytest.raises(SessionClosedError):
            session.append("log", 1)
        with pytest.raises(SessionClosedError):
            await session.once("charge")
        with pytest.raises(Failed):
            async with calls.open(user="p", id=session.id) as failed:
                raise Failed
        with pytest.raises(SessionClosedError):
            failed["a"] = 2
        assert session.to_dict() == {"a": {"b": 1}}

    calls.run(test)


def test_nothing_is_written_to_a_session_whose_commit_was_refused(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v")
        with pytest.raises(StaleSessionError):
            async with calls.open(user="p", id="v") as session:
                session["a"] = 1
                async with calls.open(user="p", id="v") as other:
                    other["a"] = 2
        with pytest.raises(SessionClosedError):
            session["a"] = 3

    calls.run(test)


def test_a_turn_is_entered_once(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        turn = calls.service.open(user="p")
        async with calls.enter(turn) as session:
            session["a"] = 1
        with pytest.raises(ConfigurationError):
            async with calls.enter(turn):
                raise AssertionError

    calls.run(test)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_block_that_is_cancelled_writes_nothing(kept_place: KeptPlace, backend: str) -> None:
    service = kept_place.open_service()

    async def test() -> None:
        await service.create(user="p", id="v", state={"a": 1})
        with anyio.CancelScope() as scope:
            async with service.open(user="p", id="v") as session:
                session["a"] = session["user:a"] = session["app:a"] = 2
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        found = await service.get(user="p", id="v")
        assert found is not None
        assert found.to_dict() == {"a": 1}
        with pytest.raises(SessionClosedError):
            session["a"] = 3

    anyio.run(test, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("at", range(3))
def test_a_commit_that_is_cancelled_is_finished(kept_place: KeptPlace, backend: str, at: int) -> None:
    engine = Watched(kept_place.open_engine())
    service = SessionService(engine, app="clinic")

    async def test() -> None:
        await service.create(user="p", id="v")
        with anyio.CancelScope() as scope:
            async with service.open(user="p", id="v") as session:
                session["a"] = session["user:a"] = session["app:a"] = 2
                engine.before(at, scope.cancel)
        found = await service.get(user="p", id="v")
        assert found is not None
        assert found.to_dict() == {"a": 2, "user:a": 2, "app:a": 2}

    anyio.run(test, backend=backend)


@pytest.mark.parametrize(("partitions", "at"), [(1, 0), (8, 0), (8, 1)])
def test_a_commit_whose_task_is_cancelled_is_finished(partitions: int, at: int) -> None:
    engine = Watched(MemoryEngine(partitions=partitions))
    service = SessionService(engine, app="clinic")

    async def turn() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with service.open(user="p", id="v") as session:
            session["a"] = session["user:a"] = session["app:a"] = 2
            engine.before(at, task.cancel)

    async def test() -> None:
        await service.create(user="p", id="v")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(turn())
        found = await service.get(user="p", id="v")
        assert found is not None
        assert found.to_dict() == {"a": 2, "user:a": 2, "app:a": 2}

    asyncio.run(test())


# ---- what a session service does with the rest of a session's methods


def test_what_is_used_once_is_used_once_over_several_turns(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v")
        found = []
        for _ in range(2):
            async with calls.open(user="p", id="v") as session:
                found.append(await session.once("charge"))
        assert found == [True, False]

    calls.run(test)


def test_what_is_used_once_beside_a_change_is_used_once(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v")
        found = []
        for number in range(3):
            async with calls.open(user="p", id="v") as session:
                session["step"] = number
                found += [await session.once("charge"), await session.once(f"charge-{number}")]
        assert found == [True, True, False, True, False, True]
        assert await calls.read(user="p", id="v") == {"step": 2}

    calls.run(test)


def test_an_end_ends_the_session_or_is_refused(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"a": 1})
        try:
            async with calls.open(user="p", id="v") as session:
                session.end()
        except ConfigurationError:
            return
        assert await calls.get(user="p", id="v") is None

    calls.run(test)


def test_a_rotation_rotates_or_is_refused(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"a": 1})
        try:
            async with calls.open(user="p", id="v") as session:
                session.rotate()
        except ConfigurationError:
            return
        assert session.id != "v"
        assert await calls.get(user="p", id="v") is None

    calls.run(test)


def test_a_typed_view_knows_its_session() -> None:
    service = SessionService(MemoryEngine(), app="clinic")
    with service.sync.open(user="p", id=None) as session:
        assert session.id == Deploy.of(session).id == current_session().id


def test_a_copy_is_a_session_of_its_own() -> None:
    service = SessionService(MemoryEngine(), app="clinic")
    session = service.sync.create(user="p", id="v", state={"a": 1})
    copied = session.__copy__()
    copied["a"] = 2
    assert (session["a"], copied["a"]) == (1, 2)
    assert copied.id == "v"


def test_a_session_of_another_service_is_not_saved() -> None:
    engine = MemoryEngine()
    service, other = SessionService(engine, app="clinic"), SessionService(engine, app="other")
    with service.sync.open(user="p") as session, pytest.raises(DcafError):
        session["a"] = 1
        other.sync.save(session)
    for wrong in (Session(), {"a": 1}, None, Session.from_dict({"a": 1})):
        with pytest.raises(ConfigurationError):
            service.sync.save(wrong)  # type: ignore[arg-type]


def test_what_was_created_shows_what_it_shares(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"user:theme": "dark", "app:motd": "hello"})
        made = await calls.create(user="p", id="w", state={"a": 1})
        assert made.to_dict() == await calls.read(user="p", id="w")

    calls.run(test)


def test_what_was_saved_shows_what_it_shares(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v", state={"user:visits": 1, "app:visits": 1})
        first, second = [await calls.get(user="p", id="v"), await calls.create(user="p", id="w")]
        assert first is not None
        for session in (first, second):
            session.incr("user:visits")
            session.incr("app:visits")
            await calls.save(session)
        assert await calls.read(user="p", id="w") == {"user:visits": 3, "app:visits": 3}
        assert second.to_dict() == {"user:visits": 3, "app:visits": 3}

    calls.run(test)


def test_what_a_closed_service_is_asked_is_an_error(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(user="p", id="v")
        calls.service.engine.sync.close()
        with pytest.raises(DcafError):
            await calls.get(user="p", id="v")
        with pytest.raises(DcafError):
            await calls.create(user="p", id="w")
        with pytest.raises(DcafError):
            async with calls.open(user="p", id="v"):
                raise AssertionError

    calls.run(test)


def test_threads_have_turns_of_their_own(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with service.sync.open(user=f"p{number}") as session:
                session["mine"] = number
                assert current_session()["mine"] == number
            assert service.sync.get(user=f"p{number}", id=session.id).to_dict() == {"mine": number}  # type: ignore[union-attr]
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
