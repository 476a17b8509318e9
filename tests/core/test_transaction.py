"""transaction(): all of it is kept, or nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from dcaf import Session, current_session, tool, transaction
from dcaf.core import ConfigurationError, SessionAliasError, SessionValueError
from dcaf.core.context import running
from dcaf.core.errors import SessionClosedError
from dcaf.core.state import State
from dcaf.core.transaction import Overlay
from dcaf.tools import Call, ToolRunner


class Deploy(Session):
    step: int = 0


@tool
async def note(item: str, session: Session) -> None:
    """Note it."""
    found = session.get("log", [])
    await asyncio.sleep(0.001)
    session["log"] = [*found, item]


def test_what_is_done_is_seen_inside_alone_and_kept_at_the_end() -> None:
    session = Session.from_dict({"cart": {"items": []}})
    with transaction(session) as draft:
        draft["step"] = 1
        draft["cart"]["items"].append("nut")
        assert session.copy() == {"cart": {"items": []}}
        assert current_session() is draft
    assert session.to_dict() == {"cart": {"items": ["nut"]}, "step": 1}


def test_outside_of_it_the_current_session_is_what_it_was() -> None:
    session = Session()
    with running(session):
        with transaction(session):
            assert current_session() is not session
        assert current_session() is session
    with pytest.raises(ConfigurationError, match="outside a turn"):
        current_session()


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_of_what_raises_nothing_is_left(error: type[BaseException]) -> None:
    session = Session.from_dict({"log": ["x"]})
    with pytest.raises(error), transaction(session) as draft:
        draft["log"].append("y")
        draft.temp["t"] = 1
        del draft["log"]
        raise error
    assert session.copy() == {"log": ["x"]}
    assert not session.is_modified


def test_it_gives_a_session_of_the_same_class() -> None:
    deploy = Deploy()
    with transaction(deploy) as draft:
        draft.step += 2
        assert deploy.step == 0
    assert deploy.step == 2


def test_tools_inside_join_it_whichever_session_they_are_given() -> None:
    async def main(session: Session, *, fails: bool) -> None:
        with transaction(session) as draft:
            before = ToolRunner.of(session)
            await asyncio.gather(note.run({"item": "none"}), note.run({"item": "outer"}, session=session))
            await note.run({"item": "draft"}, session=draft)
            await before.run_all([Call(note, {"item": "all"})])
            assert len(draft["log"]) == 4
            assert "log" not in session
            if fails:
                raise LookupError

    session = Session()
    with pytest.raises(LookupError):
        asyncio.run(main(session, fails=True))
    assert session.to_dict() == {}
    asyncio.run(main(session, fails=False))
    assert session["log"] == ["none", "outer", "draft", "all"]


def test_in_a_call_of_a_tool_it_is_part_of_the_call() -> None:
    session = Session()

    @tool
    async def both(fails: bool, own: Session) -> None:
        with transaction(session) as draft:
            draft.append("log", "draft")
        assert own["log"] == ["draft"]
        with pytest.raises(ValueError, match="inner"), transaction(own) as draft:
            draft.append("log", "gone")
            raise ValueError("inner")
        if fails:
            raise LookupError

    results = ToolRunner.of(session).run_all_sync([Call(both, {"fails": True}), Call(both, {"fails": False})])
    assert [result.is_error for result in results] == [True, False]
    assert session.to_dict() == {"log": ["draft"]}


@pytest.mark.parametrize("given", ["outer", "draft"])
def test_one_inside_another_is_part_of_it(given: str) -> None:
    session = Session()
    with pytest.raises(LookupError), transaction(session) as outer:
        with transaction(session if given == "outer" else outer) as inner:
            inner["a"] = 1
        assert outer["a"] == 1
        raise LookupError
    assert session.to_dict() == {}
    with transaction(session) as outer:
        outer["a"] = 1
        with pytest.raises(LookupError), transaction(session if given == "outer" else outer) as inner:
            inner["a"] = 2
            raise LookupError
    assert session.to_dict() == {"a": 1}


def test_one_of_another_session_between_them_changes_nothing() -> None:
    session, other = Session(), Session()
    with transaction(session) as outer, transaction(other), transaction(session) as inner:
        inner["a"] = 1
        assert "a" not in outer
    assert (session.to_dict(), other.to_dict()) == ({"a": 1}, {})


CLASHES: dict[str, tuple[Callable[[Session], Any], Callable[[Session], Any], dict[str, Any], list[str]]] = {
    "a count": (lambda s: s.incr("n"), lambda s: s.incr("n", 10), {"n": 12}, []),
    "an append": (lambda s: s.append("l", 1), lambda s: s.append("l", 2), {"n": 1, "l": [2, 1]}, []),
    "other keys": (lambda s: s.set("a", 1), lambda s: s.set("b", 2), {"n": 1, "a": 1, "b": 2}, []),
    "a stale read": (lambda s: s.set("n", s["n"] + 1), lambda s: s.set("n", 5), {"n": 2}, ["stale-read"]),
    "a blind write": (lambda s: s.set("n", 7), lambda s: s.set("n", 5), {"n": 7}, ["write-write"]),
}


@pytest.mark.parametrize("kind", CLASHES)
def test_it_clashes_with_what_changed_meanwhile_as_any_overlay_does(kind: str, caplog: Any) -> None:
    inside, outside, expected, told = CLASHES[kind]
    session = Session.from_dict({"n": 1})
    with transaction(session) as draft:
        draft.get("never")
        inside(draft)
        outside(session)
    assert {key: session[key] for key in expected} == expected
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"dcaf: a transaction was kept over a change from outside ({kind})" for kind in told]


def test_threads_that_commit_at_once_lose_nothing() -> None:
    session = Session()
    start = threading.Barrier(8)

    def count(index: int) -> None:
        start.wait(5)
        for _ in range(20):
            with transaction(session) as draft:
                draft.incr("n")
                draft.append("log", index)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert session["n"] == 160
    assert sorted(session["log"]) == sorted([*range(8)] * 20)


def test_control_threads_that_share_a_plain_number_lose_counts() -> None:
    session = Session.from_dict({"n": 0})
    read = threading.Barrier(2)

    def count() -> None:
        found = session["n"]
        read.wait(5)
        session["n"] = found + 1

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(count)
    assert session["n"] == 1


def test_what_cannot_be_written_is_raised_at_the_end_and_nothing_is_kept() -> None:
    session = Session.from_dict({"k": {"a": 0}, "x": 1})
    with pytest.raises(SessionAliasError), transaction(session) as draft:
        draft["x"] = 2
        one, other = draft.get("k", as_type=dict[str, int]), draft["k"]
        assert one is not None
        one["a"], other["a"] = 1, 2
    assert session.to_dict() == {"k": {"a": 0}, "x": 1}
    small = Session._over(State(limit_bytes=40))
    small["log"] = "x" * 20
    with pytest.raises(SessionValueError), transaction(small) as draft:
        draft["log"] = []
        draft["log"].extend(["x" * 60])
    assert small.to_dict() == {"log": "x" * 20}


def test_a_change_after_it_has_ended_is_an_error_and_one_after_it_failed_goes_nowhere() -> None:
    session = Session()
    with transaction(session) as draft:
        draft["a"] = 1
    with pytest.raises(SessionClosedError, match="had ended"):
        draft["a"] = 2
    assert draft["a"] == 1
    with pytest.raises(LookupError), transaction(session) as draft:
        raise LookupError
    draft["a"] = 3
    assert session.to_dict() == {"a": 1}


def test_a_task_that_outlives_it_runs_tools_on_the_session_itself() -> None:
    async def main() -> Session:
        session = Session()
        ended = asyncio.Event()

        async def later() -> None:
            await ended.wait()
            await note.run({"item": "later"}, session=session)

        with transaction(session) as draft:
            draft["a"] = 1
            task = asyncio.create_task(later())
        ended.set()
        await task
        return session

    assert asyncio.run(main()).to_dict() == {"a": 1, "log": ["later"]}


def test_in_a_thread_that_has_the_context_it_is_the_current_one() -> None:
    session = Session()
    with transaction(session) as draft, ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, current_session).result() is draft


@pytest.mark.parametrize("wrong", [None, {}, Session, 5, "x"])
def test_what_is_no_session_is_refused_before_it_begins(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"transaction\(\) takes a"):
        transaction(wrong)


def test_what_it_reads_counts_for_the_call_around_it() -> None:
    session = Session.from_dict({"n": 0})
    outer = Overlay(session._state)
    with pytest.raises(LookupError), transaction(Session._over(outer)) as draft:
        assert draft["n"] == 0
        raise LookupError
    session["n"] = 5
    Session._over(outer).set("n", 1)
    assert [clash.kind for clash in outer.commit().clashes] == ["stale-read"]


def test_nothing_of_the_session_is_in_the_log(caplog: Any) -> None:
    session = Session.from_dict({"canary-key": "a"})
    with caplog.at_level(logging.DEBUG), transaction(session) as draft:
        draft["canary-key"] = "canary-value"
        session["canary-key"] = "other"
    assert len(caplog.records) == 1
    assert "canary" not in caplog.text
