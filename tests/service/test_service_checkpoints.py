"""Checkpoints, and sessions that are taken back: to one, to so many messages, to before a message, in one step or in many."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcaf.core import Session, current_session
from dcaf.core.errors import (
    ConfigurationError,
    EngineError,
    SessionClosedError,
    SessionValueError,
    UnknownSessionError,
)
from dcaf.engines import MemoryEngine
from dcaf.service import KeptSession, Messages, SessionService, rewinding
from dcaf.service.journal import TurnJournal
from dcaf.service.tables import CHECKPOINTS, MESSAGES
from dcaf.tools import ToolRunner, tool
from tests.service.kept_places import Calls, KeptPlace, Watched
from tests.service.test_archive import rows_of, serve
from tests.service.test_service_as_store import Clinic, claims_of

WHOSE: dict[str, Any] = {"user": "p", "id": "v"}


def say(service: SessionService, count: int = 2, **state: Any) -> None:
    """A turn with so many messages."""
    with service.sync.open(**WHOSE) as session:
        session.update(state)
        for _ in range(count):
            session.messages.add("user", "?")


def look(service: SessionService) -> tuple[dict[str, Any], int]:
    """The state, and how many messages there are: as the row says, and as are there."""
    found = service.sync.get(**WHOSE)
    assert found is not None
    page = service.sync.messages(**WHOSE, limit=1_000)
    assert [message.number for message in page.items] == [*range(1, page.total + 1)][-1_000:]
    return found.to_dict(), page.total


def names_of(service: SessionService) -> list[str]:
    return [checkpoint.name for checkpoint in service.sync.checkpoints(**WHOSE)]


def test_a_session_is_taken_back_to_a_checkpoint(calls: Calls) -> None:
    async def test(calls: Calls) -> None:
        await calls.create(**WHOSE, state={"step": 0, "user:a": 0, "app:a": 0})
        async with calls.open(**WHOSE) as session:
            session["step"] = 1
            session.messages.add("user", "one")
        assert await calls.ask("checkpoint", **WHOSE, name="outside") == 1
        async with calls.open(**WHOSE) as session:
            session["step"], session["cart"], session["user:a"], session["app:a"] = 2, [1.0, {}], 2, 2
            session.messages.add("user", "two")
            session.checkpoint("before payment")
            session["step"], session["paid"] = 3, True
            session["cart"].append("x")
            session.messages.add("user", "three")
            session.checkpoint("later")
        found = await calls.ask("checkpoints", **WHOSE)
        assert [(one.name, one.messages) for one in found] == [("outside", 1), ("before payment", 2), ("later", 3)]
        assert await calls.ask("rewind", **WHOSE, checkpoint="before payment") == 1
        assert await calls.read(**WHOSE) == {"step": 2, "cart": [1.0, {}], "user:a": 2, "app:a": 2}
        page = await calls.ask("messages", **WHOSE)
        assert [message.content for message in page.items] == ["one", "two"]
        assert [one.name for one in await calls.ask("checkpoints", **WHOSE)] == ["outside", "before payment"]
        with pytest.raises(ConfigurationError):
            await calls.ask("rewind", **WHOSE, checkpoint="later")
        assert await calls.ask("rewind", **WHOSE, checkpoint="before payment") == 0  # as often as one likes
        assert await calls.ask("rewind", **WHOSE, message=2) == 1
        assert await calls.read(**WHOSE) == {"step": 1, "user:a": 2, "app:a": 2}
        assert [one.name for one in await calls.ask("checkpoints", **WHOSE)] == ["outside"]

    calls.run(test)


def test_a_checkpoint_of_a_turn_that_raises_is_not_kept() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE)
    with pytest.raises(ZeroDivisionError), service.sync.open(**WHOSE) as session:
        session.checkpoint("here")
        raise ZeroDivisionError
    assert names_of(service) == []


def test_a_checkpoint_is_where_the_turn_has_put_it_also_where_others_have_added_messages() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE, state={"n": 0})
    with service.sync.open(**WHOSE) as session:
        session.messages.add("user", "one")
        session.checkpoint("here")
        session.messages.add("user", "two")
        service.sync.append(**WHOSE, messages=[("user", "another")])
    service.sync.rewind(**WHOSE, checkpoint="here")
    assert [message.content for message in service.sync.messages(**WHOSE).items] == ["another", "one"]


@tool
async def pay(sum_: int, session: Session, messages: Messages) -> str:
    """Pay.

    Args:
        sum_: How much; 0 fails.
    """
    messages.add("user", f"pay {sum_}")
    transaction_of(session).checkpoint(f"before {sum_}")
    session["paid"] = sum_
    if not sum_:
        raise ValueError
    return "paid"


def transaction_of(session: Session) -> KeptSession:
    """The session of a tool, with what a service knows of it."""
    return KeptSession.of(session)


def run_tools(sums: list[int]) -> SessionService:
    _, _, service = serve()

    async def main() -> None:
        await service.create(**WHOSE, state={"paid": -1})
        async with service.open(**WHOSE) as session:
            session.messages.add("user", "first")
            for sum_ in sums:
                with suppress(Exception):
                    await ToolRunner.of(session).run(pay, {"sum_": sum_})

    anyio.run(main)
    return service


def test_a_tool_sets_checkpoints_and_one_that_fails_does_not() -> None:
    service = run_tools([1, 0, 2])
    assert [(one.name, one.messages) for one in service.sync.checkpoints(**WHOSE)] == [("before 1", 2), ("before 2", 3)]
    service.sync.rewind(**WHOSE, checkpoint="before 2")
    assert look(service) == ({"paid": 1}, 3)
    service.sync.rewind(**WHOSE, checkpoint="before 1")
    assert look(service) == ({"paid": -1}, 2)


def test_control_a_checkpoint_of_a_failed_tool_is_kept_where_it_goes_into_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = TurnJournal.mark
    monkeypatch.setattr(TurnJournal, "mark", lambda journal, name, data: mark(journal._below or journal, name, data))
    assert len(run_tools([1, 0, 2]).sync.checkpoints(**WHOSE)) == 3


def test_what_was_used_once_stays_used_after_a_rewind_to_a_checkpoint() -> None:
    _, _, service = serve()

    async def main() -> list[bool]:
        await service.create(**WHOSE, state={"n": 0})
        await service.checkpoint(**WHOSE, name="here")
        async with service.open(**WHOSE) as session:
            first = await session.once("payment")
            session["n"] = 1
        await service.rewind(**WHOSE, checkpoint="here")
        async with service.open(**WHOSE) as session:
            return [first, await session.once("payment"), session["n"] == 0]

    assert anyio.run(main) == [True, False, True]


def test_checkpoints_are_set_behind_a_middleware() -> None:
    _, _, service = serve()

    async def main() -> None:
        clinic = Clinic(service)
        async with clinic.turn() as turn:
            turn.session["n"] = 1
            current_session(KeptSession).checkpoint("here")
            turn.session["n"] = 2
        session_id = claims_of(turn.envelope)["sid"]
        await service.rewind(user="ada", id=session_id, checkpoint="here")
        found = await service.get(user="ada", id=session_id)
        assert found is not None
        assert found.to_dict() == {"n": 1}

    anyio.run(main)


def test_a_name_that_is_set_again_moves() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE)
    for number in range(3):
        say(service, 1, n=number)
        service.sync.checkpoint(**WHOSE, name="here")
    say(service, 1, n=9)
    assert names_of(service) == ["here"]
    service.sync.rewind(**WHOSE, checkpoint="here")
    assert look(service) == ({"n": 2}, 3)


def test_a_session_that_is_saved_again_sets_its_checkpoints_once() -> None:
    _, _, service = serve()
    session = service.sync.create(**WHOSE)
    session.checkpoint("here")
    service.sync.save(session)
    service.sync.checkpoint(**WHOSE, name="here")
    session["n"] = 1
    service.sync.save(session)
    session["n"] = 2
    service.sync.save(session)
    service.sync.rewind(**WHOSE, checkpoint="here")
    assert look(service) == ({}, 0)


def test_a_checkpoint_makes_no_turn_stale() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE)
    with service.sync.open(**WHOSE) as session:
        session["n"] = 1
        service.sync.checkpoint(**WHOSE, name="here")
    service.sync.rewind(**WHOSE, checkpoint="here")
    assert look(service) == ({}, 0)


def test_checkpoints_go_with_their_session_and_not_with_a_fork(kept_place: KeptPlace) -> None:
    service = kept_place.open_service()
    service.sync.create(**WHOSE)
    for number in range(60):
        service.sync.checkpoint(**WHOSE, name=f"c{number:02}")
    assert sorted(names_of(service)) == [f"c{number:02}" for number in range(60)]
    service.sync.fork(**WHOSE, new_id="w")
    assert service.sync.checkpoints(user="p", id="w") == []
    service.sync.delete(**WHOSE)
    service.sync.create(**WHOSE)
    assert names_of(service) == []


@pytest.mark.parametrize("name", ["", None, 3, "x" * 257, "\udfff"])
def test_a_checkpoint_has_a_name(name: Any) -> None:
    _, _, service = serve()
    session = service.sync.create(**WHOSE)
    for call in (
        lambda: session.checkpoint(name),
        lambda: service.sync.checkpoint(**WHOSE, name=name),
        lambda: service.sync.rewind(**WHOSE, checkpoint=name),
    ):
        with pytest.raises(ConfigurationError):
            call()
    assert names_of(service) == []


def test_a_checkpoint_is_of_a_state_that_can_be_kept_in_a_turn_that_runs() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE, state={"a": {}})
    with service.sync.open(**WHOSE) as session:
        session["a"]["self"] = object()
        with pytest.raises(SessionValueError):
            session.checkpoint("here")
        session["a"] = {}
    with pytest.raises(SessionClosedError):
        session.checkpoint("here")
    assert names_of(service) == []


def test_odd_names_are_names_like_others() -> None:
    _, _, service = serve()
    service.sync.create(**WHOSE)
    names = ["a", "A", " a", "ä" * 200, "ä" * 201, "\x00", "=", "#"]
    for number, name in enumerate(names):
        say(service, 1, n=number)
        service.sync.checkpoint(**WHOSE, name=name)
    assert names_of(service) == names
    for number, name in reversed(list(enumerate(names))):
        service.sync.rewind(**WHOSE, checkpoint=name)
        assert look(service) == ({"n": number}, number + 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"to": 1, "message": 1},
        {"to": 1, "checkpoint": "here"},
        {"to": 3},
        {"to": -1},
        {"message": 0},
        {"message": 3},
        {"message": "1"},
        {"to": True},
        {"checkpoint": "unknown"},
    ],
)
def test_a_point_to_which_nothing_can_be_taken_back_is_refused(arguments: dict[str, Any]) -> None:
    _, engine, service = serve()
    service.sync.create(**WHOSE)
    say(service)
    service.sync.checkpoint(**WHOSE, name="here")
    before = rows_of(engine, MESSAGES, CHECKPOINTS)
    with pytest.raises(ConfigurationError):
        service.sync.rewind(**WHOSE, **arguments)
    assert rows_of(engine, MESSAGES, CHECKPOINTS) == before


def test_a_session_that_is_not_there_has_no_checkpoints() -> None:
    _, _, service = serve()
    for call in (
        lambda: service.sync.checkpoints(**WHOSE),
        lambda: service.sync.checkpoint(**WHOSE, name="here"),
        lambda: service.sync.rewind(**WHOSE, checkpoint="here"),
        lambda: service.sync.rewind(**WHOSE, message=1),
    ):
        with pytest.raises(UnknownSessionError):
            call()


# In many steps


@settings(max_examples=80, deadline=None)
@given(
    turns=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=8),
    to=st.integers(0, 20),
    at_once=st.integers(1, 3),
    marked=st.integers(0, 7),
)
@example(turns=[(4, True), (4, False), (4, True)], to=1, at_once=1, marked=0)
def test_a_session_is_taken_back_in_many_steps_as_in_one(turns: list[tuple[int, bool]], to: int, at_once: int, marked: int) -> None:
    found = []
    for step in (at_once, 1_000):
        for goal in ("to", "checkpoint"):
            _, _, service = serve()
            service.sync.create(**WHOSE, state={"n": 0})
            service.sync.checkpoint(**WHOSE, name="here")
            for number, (count, is_changed) in enumerate(turns):
                say(service, count, **({"n": number + 1} if is_changed else {}))
                if number == marked:
                    service.sync.checkpoint(**WHOSE, name="here")
            total = look(service)[1]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rewinding, "AT_ONCE", step)
                where: dict[str, Any] = {"to": min(to, total)} if goal == "to" else {"checkpoint": "here"}
                dropped = service.sync.rewind(**WHOSE, **where)
            assert look(service)[1] == total - dropped
            found.append((goal, dropped, *look(service), names_of(service)))
    assert found[:2] == found[2:]


def test_a_rewind_that_dies_has_taken_the_session_back_a_part_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewinding, "AT_ONCE", 3)

    def fail() -> None:
        raise EngineError("It is down.")

    died = 0
    while True:
        engine = Watched(MemoryEngine())
        service = SessionService(engine, app="clinic")
        service.sync.create(**WHOSE, state={"n": 0})
        for number in range(1, 11):
            say(service, 1, n=number)
        engine.before(died, fail)
        try:
            assert service.sync.rewind(**WHOSE, to=0) == 10
            break
        except EngineError:
            died += 1
        state, total = look(service)
        assert state == {"n": total}
        assert service.sync.rewind(**WHOSE, to=0) == total
        assert look(service) == ({"n": 0}, 0)
    assert died > 8


def test_a_rewind_of_thousands_of_messages_is_bounded(kept_place: KeptPlace) -> None:
    engine = Watched(kept_place.open_engine())
    service = SessionService(engine, app="clinic")
    service.sync.create(**WHOSE, state={"n": 0})
    service.sync.checkpoint(**WHOSE, name="here")
    service.sync.append(**WHOSE, messages=[("user", "?")] * 1_200)
    service.sync.merge(**WHOSE, state={"n": 1})
    before = engine.done
    assert service.sync.rewind(**WHOSE, checkpoint="here") == 1_200
    assert engine.done - before < 30
    assert look(service) == ({"n": 0}, 0)


def test_control_a_rewind_that_dies_is_seen_where_its_steps_have_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewinding, "_replay", lambda _: ({"n": b"0"}, 0))
    with pytest.raises(AssertionError):
        test_a_rewind_that_dies_has_taken_the_session_back_a_part_of_the_way(monkeypatch)
