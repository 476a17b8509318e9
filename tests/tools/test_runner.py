"""Several calls in one turn: what the session is afterwards, on both event loops."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from dcaf import ReadOnlySession, Session, SessionKey, current_session, tool
from dcaf.core import ConfigurationError, SessionAliasError, ToolApprovalError, ToolArgumentError, ToolError, ToolTimeoutError
from dcaf.core.state import State
from dcaf.core.transaction import Overlay
from dcaf.tools import Call, ToolRunner

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def on(backend: str, function: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(function, backend=backend)


def session_of(**values: Any) -> Session:
    return Session.from_dict(values)


def ran(backend: str, session: Session, *calls: tuple[Any, dict[str, Any]]) -> Any:
    """Run the calls of one message; gives the turn and the results."""
    turn = ToolRunner.of(session)

    async def run() -> Any:
        return await turn.run_all([Call(called, arguments) for called, arguments in calls])

    return turn, on(backend, run)


async def _add_after_waiting(pause_s: float, session: Session) -> int:
    found = session.get("n", 0)
    await anyio.sleep(pause_s)
    session["n"] = found + 1
    return int(session["n"])


async def _set_after_waiting(value: str, pause_s: float, session: Session) -> None:
    assert session.get("other") is None
    await anyio.sleep(pause_s)
    session["k"] = value


async def _append_in_place(item: str, session: Session) -> None:
    session["cart"]["items"].append(item)
    await anyio.sleep(0.01)


async def _set_one(key: str, session: Session) -> None:
    assert session.get("other") is None
    await anyio.sleep(0.01)
    session[key] = key


async def _delete(key: str, session: Session) -> None:
    assert session.get("other") is None
    await anyio.sleep(0.01)
    session.delete(key)


add, set_k, append, set_one, delete = (
    tool(name=function.__name__.strip("_"))(function)
    for function in (_add_after_waiting, _set_after_waiting, _append_in_place, _set_one, _delete)
)
add_parallel, set_k_parallel, append_parallel, set_one_parallel, delete_parallel = (
    tool(name=function.__name__.strip("_"), parallel=True)(function)
    for function in (_add_after_waiting, _set_after_waiting, _append_in_place, _set_one, _delete)
)


# 1. increment after await


@both
def test_counts_after_waiting_are_not_lost(backend: Any) -> None:
    session = session_of(n=0)
    turn, results = ran(backend, session, (add, {"pause_s": 0.02}), (add, {"pause_s": 0.0}))
    assert session["n"] == 2
    assert [result.value for result in results] == [1, 2]
    assert turn.conflicts == []


@both
def test_in_parallel_a_lost_count_is_told_and_never_silent(backend: Any) -> None:
    session = session_of(n=0)
    turn, _ = ran(backend, session, (add_parallel, {"pause_s": 0.02}), (add_parallel, {"pause_s": 0.0}))
    assert session["n"] == 1
    (conflict,) = turn.conflicts
    assert (conflict.key, conflict.kind) == ("n", "stale-read")


def test_control_without_a_note_of_what_was_read_the_loss_is_silent(monkeypatch: Any) -> None:
    """The broken twin: equal writes look like one."""
    monkeypatch.setattr(Overlay, "find", State.find)
    monkeypatch.setattr(Overlay, "peek", State.peek)
    session = session_of(n=0)
    turn, _ = ran("asyncio", session, (add_parallel, {"pause_s": 0.02}), (add_parallel, {"pause_s": 0.0}))
    assert session["n"] == 1
    assert turn.conflicts == []


def test_control_tools_that_share_the_session_lose_a_count() -> None:
    session = session_of(n=0)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for pause in (0.02, 0.0):
                group.start_soon(_add_after_waiting, pause, session)

    anyio.run(run)
    assert session["n"] == 1


@both
@pytest.mark.parametrize("parallel", [False, True])
def test_incr_and_append_never_clash(backend: Any, parallel: Any) -> None:
    @tool(parallel=parallel)
    async def count(pause_s: float, session: Session) -> None:
        session.incr("n")
        session.append("log", pause_s)
        await anyio.sleep(pause_s)
        session.incr("n", 10)

    session = session_of(n=5)
    turn, _ = ran(backend, session, *[(count, {"pause_s": pause}) for pause in (0.03, 0.0, 0.01)])
    assert session["n"] == 38
    assert sorted(session["log"]) == [0.0, 0.01, 0.03]
    assert turn.conflicts == []


# 2. append in place


@both
@pytest.mark.parametrize("called", [append, append_parallel])
def test_items_appended_in_place_are_all_there_in_the_order_of_the_calls(backend: Any, called: Any) -> None:
    session = session_of(cart={"items": ["x"], "n": 1})
    turn, _ = ran(backend, session, (called, {"item": "a"}), (called, {"item": "b"}))
    assert session["cart"] == {"items": ["x", "a", "b"], "n": 1}
    assert turn.conflicts == []


# 3. same key


@both
def test_of_two_writes_of_one_key_the_later_call_wins_however_long_it_takes(backend: Any) -> None:
    for slow, fast in ((0.02, 0.0), (0.0, 0.02)):
        session = session_of(k="old")
        calls = [{"value": "first", "pause_s": slow}, {"value": "second", "pause_s": fast}]
        turn, _ = ran(backend, session, *[(set_k, call) for call in calls])
        assert session["k"] == "second"
        assert turn.conflicts == []
        session = session_of(k="old")
        turn, _ = ran(backend, session, *[(set_k_parallel, call) for call in calls])
        assert session["k"] == "second"
        (conflict,) = turn.conflicts
        assert (conflict.key, conflict.path, conflict.kind) == ("k", "", "write-write")
        assert conflict.dropped is not None
        assert (conflict.kept.index, conflict.dropped.index) == (1, 0)
        assert conflict.kept.tool == conflict.dropped.tool == "set_after_waiting"


@both
def test_an_earlier_call_that_writes_blindly_after_a_later_one_gives_way_and_one_that_read_goes_on(backend: Any) -> None:
    @tool(parallel=True)
    async def late(pause_s: float, reads: bool, session: Session) -> None:
        await anyio.sleep(pause_s)
        before = session["k"] if reads else "blind"
        session["k"] = f"{pause_s} after {before}"

    for reads, expected, conflicts in ((False, "0.0 after blind", 1), (True, "0.02 after 0.0 after old", 0)):
        session = session_of(k="old")
        turn, _ = ran(backend, session, *[(late, {"pause_s": pause, "reads": reads}) for pause in (0.02, 0.0)])
        assert session["k"] == expected
        assert len(turn.conflicts) == conflicts


@both
def test_equal_writes_that_nobody_read_are_no_conflict(backend: Any) -> None:
    session = session_of(k="old")
    turn, _ = ran(backend, session, *[(set_k_parallel, {"value": "same", "pause_s": pause}) for pause in (0.02, 0.0)])
    assert session["k"] == "same"
    assert turn.conflicts == []


@both
def test_disjoint_members_of_one_object_are_both_kept(backend: Any) -> None:
    @tool(parallel=True)
    async def put(name: str, session: Session) -> None:
        session["cart"][name] = name
        await anyio.sleep(0.01)

    session = session_of(cart={"x": 1})
    turn, _ = ran(backend, session, (put, {"name": "a"}), (put, {"name": "b"}))
    assert session["cart"] == {"x": 1, "a": "a", "b": "b"}
    assert turn.conflicts == []


# 4. disjoint keys


@both
@pytest.mark.parametrize("called", [set_one, set_one_parallel])
def test_disjoint_keys_are_all_kept(backend: Any, called: Any) -> None:
    session = session_of(x=1)
    turn, _ = ran(backend, session, *[(called, {"key": key}) for key in "abc"])
    assert session.to_dict() == {"x": 1, "a": "a", "b": "b", "c": "c"}
    assert turn.conflicts == []


# 5. raise after write


@both
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_call_that_raises_leaves_nothing_and_the_others_stay(backend: Any, kind: Any, parallel: Any) -> None:
    def write(session: Session) -> None:
        session["a"] = "dirty"
        session["cart"]["items"].append("dirty")
        session.temp["t"] = "dirty"
        current_session()["b"] = "dirty"
        raise ValueError("secret words")

    @tool(parallel=parallel)
    async def failing(session: Session) -> None:
        write(session)

    @tool(parallel=parallel)
    def failing_in_thread(session: Session) -> None:
        write(session)

    session = session_of(cart={"items": []})
    called = failing if kind == "async" else failing_in_thread
    turn, results = ran(backend, session, (called, {}), (set_one, {"key": "k"}), (called, {}))
    assert session.copy() == {"cart": {"items": []}, "k": "k"}
    assert [result.is_error for result in results] == [True, False, True]
    assert "secret" not in results[0].text
    assert "tool-failed" in results[0].text
    assert turn.conflicts == []


# 6. cancel


@both
def test_a_cancelled_call_leaves_nothing_and_lets_the_next_one_run(backend: Any) -> None:
    session, turn = session_of(), None

    @tool
    async def endless(session: Session) -> None:
        session["a"] = "dirty"
        await anyio.sleep_forever()

    async def run() -> None:
        nonlocal turn
        turn = ToolRunner.of(session)
        async with anyio.create_task_group() as group:
            group.start_soon(turn.run, endless, {})
            await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        await turn.run(set_one, {"key": "k"})

    on(backend, run)
    assert session.to_dict() == {"k": "k"}


@both
def test_a_call_that_is_cancelled_while_it_waits_does_not_hold_up_the_others(backend: Any) -> None:
    session = session_of(n=0)

    async def run() -> None:
        turn = ToolRunner.of(session)
        waiting = anyio.CancelScope()

        async def second() -> None:
            with waiting:
                await turn.run(add, {"pause_s": 0.0})

        async with anyio.create_task_group() as group:
            group.start_soon(turn.run, add, {"pause_s": 0.03})
            await anyio.sleep(0.005)
            group.start_soon(second)
            await anyio.sleep(0.005)
            group.start_soon(turn.run, add, {"pause_s": 0.0})
            waiting.cancel()

    on(backend, run)
    assert session["n"] == 2


# 7. nested agent


@both
@pytest.mark.parametrize("by", ["the same turn", "a turn of its own", "the tool itself"])
def test_a_tool_that_calls_tools_neither_deadlocks_nor_leaks(backend: Any, by: Any) -> None:
    session = session_of(n=0)

    async def run() -> None:
        turn = ToolRunner.of(session)

        @tool
        async def agent(fails: bool, session: Session) -> None:
            session.incr("n", 100)
            if by == "the same turn":
                await turn.run_all([Call(add, {"pause_s": 0.01}), Call(add, {"pause_s": 0.0})])
            elif by == "a turn of its own":
                await ToolRunner.of(session).run_all([Call(add, {"pause_s": 0.01}), Call(add, {"pause_s": 0.0})])
            else:
                await add.run({"pause_s": 0.0})
                await add.run({"pause_s": 0.0})
            assert session["n"] == 102
            if fails:
                raise ValueError

        with anyio.fail_after(5):
            results = await turn.run_all([Call(agent, {"fails": True}), Call(agent, {"fails": False})])
        assert [result.is_error for result in results] == [True, False]

    on(backend, run)
    assert session["n"] == 102


# 8. delete


@both
def test_a_deleted_key_stays_deleted_and_a_clash_with_a_write_is_told(backend: Any) -> None:
    session = session_of(k="old", x=1)
    turn, _ = ran(backend, session, (set_one, {"key": "k"}), (delete, {"key": "k"}), (delete, {"key": "missing"}))
    assert session.to_dict() == {"x": 1}
    assert turn.conflicts == []
    session = session_of(k="old", x=1)
    turn, _ = ran(backend, session, (delete_parallel, {"key": "k"}), (set_one_parallel, {"key": "k"}))
    assert session.to_dict() == {"k": "k", "x": 1}
    assert [conflict.kind for conflict in turn.conflicts] == ["write-write"]


# 9. generator closed early


async def _async_steps(session: Session) -> AsyncIterator[int]:
    for step in range(3):
        current_session()["step"] = step
        session.append("steps", step)
        yield step


def _sync_steps(session: Session) -> Iterator[int]:
    for step in range(3):
        current_session()["step"] = step
        session.append("steps", step)
        yield step


@both
@pytest.mark.parametrize("steps", [_async_steps, _sync_steps])
def test_a_stream_that_is_read_to_its_end_is_kept_and_one_that_is_closed_is_gone(backend: Any, steps: Any) -> None:
    called = tool(name="steps")(steps)

    async def run() -> Session:
        session = session_of(step=-1)
        turn = ToolRunner.of(session)
        async with aclosing(turn.stream(called, {})) as items:
            async for item in items:
                assert session["step"] == -1
                if item == 1:
                    break
        assert session.to_dict() == {"step": -1}
        with pytest.raises(ConfigurationError):
            current_session()
        assert [item async for item in turn.stream(called, {})] == [0, 1, 2]
        assert await turn.run(called, {}) == [0, 1, 2]
        return session

    assert on(backend, run).to_dict() == {"step": 2, "steps": [0, 1, 2, 0, 1, 2]}


# 10. a hundred calls


@both
@pytest.mark.parametrize("parallel", [False, True])
def test_a_hundred_calls_lose_nothing(backend: Any, parallel: Any) -> None:
    @tool(parallel=parallel)
    def count(index: int, session: Session) -> int:
        session.incr("n")
        session.append("log", index)
        session[f"own{index}"] = index
        return index

    session = session_of()
    turn, results = ran(backend, session, *[(count, {"index": index}) for index in range(100)])
    assert session["n"] == 100
    assert sorted(session["log"]) == list(range(100))
    assert parallel or session["log"] == list(range(100))
    assert [result.value for result in results] == list(range(100))
    assert turn.conflicts == []


# Order, reading, threads


@both
def test_writers_keep_their_order_and_the_others_do_not_wait(backend: Any) -> None:
    said: list[str] = []
    go = threading.Event()

    @tool
    def writes(session: Session) -> None:
        assert go.wait(5)
        session["k"] = 1
        said.append("writes")

    @tool
    async def reads(session: ReadOnlySession) -> None:
        assert "k" not in session
        said.append("reads")
        go.set()

    @tool
    async def asks_for_nothing() -> None:
        said.append("nothing")

    turn, results = ran(backend, session_of(), (writes, {}), (reads, {}), (asks_for_nothing, {}))
    assert not any(result.is_error for result in results)
    assert said[-1] == "writes"
    assert sorted(said) == ["nothing", "reads", "writes"]
    assert turn.conflicts == []


@both
def test_a_later_call_sees_what_an_earlier_one_wrote(backend: Any) -> None:
    class Cart(BaseModel):
        items: list[str] = []

    @tool
    def put(item: str, cart: Annotated[Cart, SessionKey("cart")] = Cart()) -> list[str]:
        cart.items.append(item)
        return list(cart.items)

    session = session_of()
    _, results = ran(backend, session, (put, {"item": "a"}), (put, {"item": "b"}))
    assert [result.value for result in results] == [["a"], ["a", "b"]]
    assert session["cart"] == {"items": ["a", "b"]}


def test_a_change_by_two_objects_in_one_call_fails_that_call_alone() -> None:
    @tool
    def twice(session: Session) -> None:
        one, other = session.get("k", as_type=dict[str, int]), session["k"]
        assert one is not None
        one["a"] = 1
        other["a"] = 2

    session = session_of(k={"a": 0})
    _, (result, good) = ran("asyncio", session, (twice, {}), (set_one, {"key": "x"}))
    assert isinstance(result.error, SessionAliasError)
    assert not good.is_error
    assert session.to_dict() == {"k": {"a": 0}, "x": "x"}


def test_what_was_handed_out_before_a_turn_is_overtaken_and_not_lost() -> None:
    session = session_of(cart={"items": []})
    mine = session["cart"]
    ran("asyncio", session, (append, {"item": "a"}))
    assert session["cart"]["items"] == ["a"]
    mine["items"].append("mine")
    with pytest.raises(SessionAliasError):
        session.to_dict()


def test_a_write_before_a_call_returned_is_seen_by_it_and_by_nobody_else() -> None:
    seen: list[Any] = []

    @tool
    async def slow(session: Session) -> None:
        session["k"] = "new"
        await anyio.sleep(0.02)
        seen.append(session["k"])

    session = session_of(k="old")

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ToolRunner.of(session).run, slow, {})
            await anyio.sleep(0.005)
            seen.append(session["k"])

    anyio.run(run)
    assert seen == ["old", "new"]
    assert session["k"] == "new"


# Time and approval


@both
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_call_that_takes_too_long_is_stopped_and_leaves_nothing(backend: Any, kind: Any) -> None:
    late = threading.Event()

    @tool(timeout=timedelta(seconds=0.05))
    async def slow(session: Session) -> None:
        session["a"] = "dirty"
        await anyio.sleep_forever()

    @tool(timeout=timedelta(seconds=0.05))
    def slow_in_thread(session: Session) -> None:
        session["a"] = "dirty"
        time.sleep(0.3)
        session["b"] = "late"
        late.set()

    session = session_of()
    begin = time.monotonic()
    _, (result, _) = ran(backend, session, (slow if kind == "async" else slow_in_thread, {}), (set_one, {"key": "k"}))
    assert isinstance(result.error, ToolTimeoutError)
    assert "0.05 seconds" in result.text
    assert kind == "async" or late.wait(5)
    assert session.to_dict() == {"k": "k"}
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("timeout", [5, 0.5, timedelta(0), timedelta(seconds=-1), "5"])
def test_a_timeout_that_is_none_is_refused_when_the_tool_is_made(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timedelta"):
        tool(timeout=timeout)(lambda: None)


def test_a_tool_that_needs_approval_does_not_run_without_one() -> None:
    @tool(requires_approval=True)
    def deploy(session: Session) -> str:
        session["deployed"] = True
        return "done"

    assert deploy.requires_approval
    assert not add.requires_approval
    session = session_of()
    turn = ToolRunner.of(session)
    with pytest.raises(ToolApprovalError):
        anyio.run(turn.run, deploy, {})
    with pytest.raises(ToolApprovalError):
        anyio.run(lambda: deploy.run({}, session=session))
    (result,) = anyio.run(turn.run_all, [Call(deploy, {})])
    assert "tool-approval" in result.text
    assert session.to_dict() == {}
    (result,) = anyio.run(turn.run_all, [Call(deploy, {}, is_approved=True)])
    assert result.text == "done"
    assert session.to_dict() == {"deployed": True}


# Results


class Plan(BaseModel):
    name: str
    due: timedelta = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ({"a": [1, 2.5, True]}, '{"a":[1,2.5,true]}'),
        (Plan(name="p"), '{"name":"p","due":"PT1S"}'),
        ([Plan(name="p")], '[{"name":"p","due":"PT1S"}]'),
        (float("nan"), '"NaN"'),
        ("ünïcode", "ünïcode"),
    ],
)
def test_a_model_reads_a_result_as_text(value: Any, text: Any) -> None:
    @tool
    def gives() -> Any:
        return value

    _, (result,) = ran("asyncio", session_of(), (gives, {}))
    assert result.text == text
    assert not result.is_error


def test_a_result_that_cannot_be_written_is_an_error_and_leaves_nothing() -> None:
    @tool
    def gives(session: Session) -> Any:
        session["a"] = "dirty"
        return object()

    session = session_of()
    _, (result,) = ran("asyncio", session, (gives, {}))
    assert isinstance(result.error, TypeError)
    assert session.to_dict() == {}


def test_errors_tell_the_model_what_to_do_and_nothing_else(caplog: Any) -> None:
    @tool
    def scale(replicas: int, names: list[str], session: Session) -> None:
        if replicas > 9:
            raise ToolError("At most 9 replicas. Ask the person for fewer.")
        raise RuntimeError(f"it is {session['secret']}")

    session = session_of(secret="canary-value")
    calls: list[dict[str, Any]] = [{"replicas": "many", "names": [1]}, {"replicas": 10, "names": []}, {"replicas": 1, "names": []}]
    with caplog.at_level(logging.DEBUG):
        _, results = ran("asyncio", session, *[(scale, call) for call in calls])
    assert isinstance(results[0].error, ToolArgumentError)
    assert results[0].error.problems == (
        ("arguments.replicas", "Input should be a valid integer, unable to parse string as an integer"),
        ("arguments.names[0]", "Input should be a valid string"),
    )
    assert '"path":"arguments.names[0]"' in results[0].text
    assert results[1].text == '{"error":{"code":"tool-error","message":"At most 9 replicas. Ask the person for fewer."}}'
    assert "RuntimeError" in results[2].text
    assert "canary" not in results[2].text + caplog.text + repr(results)


def broken_pieces(session: Session) -> Iterator[int]:
    yield 1
    raise IndexError(session["secret"])


async def broken_later(session: Session) -> None:
    await anyio.lowlevel.checkpoint()
    raise IndexError(session["secret"])


@functools.wraps(broken_later)
async def broken_inside(*args: Any, **kwargs: Any) -> None:
    await broken_later(*args, **kwargs)


class Broken:
    def method(self, session: Session) -> None:
        below = session["secret"]
        _below(below)


def _below(value: str) -> None:
    raise IndexError(value)


@pytest.mark.parametrize(
    ("function", "first", "last"),
    [
        (broken_pieces, "broken_pieces", 'raise IndexError(session["secret"])'),
        (broken_later, "broken_later", 'raise IndexError(session["secret"])'),
        (broken_inside, "broken_later", 'raise IndexError(session["secret"])'),
        (Broken().method, "method", "raise IndexError(value)"),
    ],
    ids=["generator", "coroutine", "decorated", "method"],
)
def test_the_log_says_where_in_a_tool_an_error_was_and_not_what_it_says(function: Any, first: str, last: str, caplog: Any) -> None:
    _, (result,) = ran("asyncio", session_of(secret="canary-value"), (tool(function), {}))
    assert result.is_error
    (record,) = [record for record in caplog.records if record.name == "dcaf"]
    told, frame, *_, source = record.getMessage().splitlines()
    assert told == f"dcaf: {function.__name__} failed: IndexError"
    assert frame.startswith(f'  File "{__file__}", line ')
    assert frame.endswith(f", in {first}")
    assert source.strip() == last
    assert "canary" not in caplog.text


@pytest.mark.parametrize("error", [ToolError("canary"), ToolArgumentError("canary"), ToolTimeoutError("canary")])
def test_what_a_tool_says_to_the_model_is_no_error_to_be_looked_for(error: Exception, caplog: Any) -> None:
    def says() -> None:
        raise error

    ran("asyncio", session_of(), (tool(says), {}))
    assert [record.getMessage() for record in caplog.records] == [f"dcaf: says failed: {type(error).__name__}"]


def test_what_calls_itself_without_end_does_not_fill_the_log(caplog: Any) -> None:
    def one(depth: int = 0) -> int:
        return other(depth + 1)

    def other(depth: int) -> int:
        return one(depth + 1)

    ran("asyncio", session_of(), (tool(one), {}))
    assert "dcaf: one failed: RecursionError\n" in caplog.text
    assert 40 < caplog.text.count("\n  File ") <= 50


def test_a_result_that_nobody_can_write_shows_where_it_was_written(caplog: Any) -> None:
    def gives() -> Any:
        return object()

    ran("asyncio", session_of(), (tool(gives), {}))
    assert "dcaf: gives failed: TypeError\n" in caplog.text
    assert "in said_of" in caplog.text


def test_a_mistake_of_the_developer_is_raised_after_the_others_have_run() -> None:
    @tool
    def unbound() -> None:
        raise ConfigurationError("write something else")

    session = session_of()
    with pytest.raises(ConfigurationError, match="write something else"):
        ran("asyncio", session, (unbound, {}), (set_one, {"key": "k"}))
    assert session.to_dict() == {"k": "k"}


def test_the_log_of_a_conflict_names_tools_and_neither_keys_nor_values(caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        ran("asyncio", session_of(k="old-canary"), *[(set_k_parallel, {"value": f"canary{n}", "pause_s": 0.0}) for n in (1, 2)])
    assert "set_after_waiting was kept over set_after_waiting (write-write)" in caplog.text
    assert "canary" not in caplog.text


def test_what_a_turn_changed_is_sealed_as_any_change() -> None:
    session = session_of(k=1)
    assert not session.is_modified
    ran("asyncio", session, (set_one, {"key": "new"}))
    assert session.changes == {"set": {"new": "new"}, "delete": []}


def test_a_tool_knows_whether_it_writes() -> None:
    @tool
    def reads(session: ReadOnlySession) -> None: ...
    @tool
    def nothing(x: int) -> None: ...
    @tool
    def one_key(cart: Annotated[dict[str, Any] | None, SessionKey("cart")]) -> None: ...

    assert [called.writes_session for called in (add, reads, nothing, one_key)] == [True, False, False, True]


# What a hostile review found


@both
@pytest.mark.parametrize("through", ["the outer turn", "a turn of its own, then the outer one"])
def test_calls_three_deep_through_one_turn_neither_hang_nor_outlive_their_caller(backend: Any, through: Any) -> None:
    session = session_of(n=0)
    turn = ToolRunner.of(session)

    @tool(parallel=True)
    async def leaf(session: Session) -> None:
        session.incr("n")

    @tool
    async def middle(session: Session) -> None:
        await turn.run(leaf, {})
        assert session["n"] == 1

    @tool
    async def top(session: Session) -> None:
        await (turn if through == "the outer turn" else ToolRunner.of(session)).run(middle, {})
        assert session["n"] == 1
        raise ValueError

    async def run() -> None:
        with anyio.fail_after(5):
            await turn.run_all([Call(top, {})])

    on(backend, run)
    assert session["n"] == 0


@both
def test_a_call_that_cannot_be_read_holds_up_no_other(backend: Any) -> None:
    @tool
    def broken(session: "Sessoin") -> None: ...  # type: ignore[name-defined] # noqa: F821, UP037

    session = session_of()
    turn = ToolRunner.of(session)

    async def run() -> None:
        with anyio.fail_after(5):
            with pytest.raises(ConfigurationError):
                await turn.run_all([Call(set_one, {"key": "a"}), Call(broken, {})])
            await turn.run(set_one, {"key": "b"})

    on(backend, run)
    assert session.to_dict() == {"a": "a", "b": "b"}


def test_a_tool_that_waits_for_something_cancelled_fails_alone() -> None:
    import asyncio

    @tool
    async def waits(session: Session) -> None:
        session["a"] = "dirty"
        task = asyncio.create_task(asyncio.sleep(9))
        await asyncio.sleep(0)
        task.cancel()
        await task

    session = session_of()
    _, (result, good) = ran("asyncio", session, (waits, {}), (set_one, {"key": "k"}))
    assert result.is_error
    assert not good.is_error
    assert session.to_dict() == {"k": "k"}


class Unsayable(ToolError):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [ToolError("no file \ud800"), Unsayable("x")])
def test_an_error_that_cannot_be_said_stops_nothing(error: Any) -> None:
    @tool
    def fails() -> None:
        raise error

    _, (result, good) = ran("asyncio", session_of(), (fails, {}), (set_one, {"key": "k"}))
    assert '"code":"tool-error"' in result.text
    assert not good.is_error


def test_a_result_is_written_once() -> None:
    @tool
    def rows() -> Any:
        return {"rows": (index for index in range(3))}

    @tool
    def lone() -> str:
        return "\ud800"

    _, (result, bad) = ran("asyncio", session_of(), (rows, {}), (lone, {}))
    assert result.text == '{"rows":[0,1,2]}'
    assert bad.is_error


def side_by_side(session: Session, *bodies: Callable[[Session], Any]) -> ToolRunner:
    """Run each body as a parallel call that has touched its session before any other is committed."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    for index, body in enumerate(bodies):

        async def called(session: Session, body: Any = body, index: int = index) -> None:
            session.get(f"never {index}")
            await anyio.sleep(0.01)
            body(session)

        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("session", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Session)]
        )
        calls.append((tool(name=f"body{index}", parallel=True)(called), {}))
    turn, results = ran("asyncio", session, *calls)
    assert not any(result.is_error for result in results), [result.error for result in results]
    return turn  # type: ignore[no-any-return]


def counted_then_written(session: Session) -> None:
    session.incr("n")
    session["n"] = 1


def test_a_key_that_was_counted_and_then_written_is_written() -> None:
    session = session_of()
    turn = side_by_side(session, counted_then_written, lambda session: session.set("n", 4))
    assert session["n"] == 4
    assert len(turn.conflicts) == 1


def _put(session: Session, value: Any) -> None:
    session["n"] = value


def _lock(session: Session) -> None:
    try:
        del session["n"]
    except KeyError:
        session["n"] = 1


@pytest.mark.parametrize(
    "body",
    [
        lambda session: _put(session, session.incr("n") + 10),
        lambda session: _put(session, copy.copy(session).get("n", 0) + 1),
        lambda session: _put(session, session.to_dict().get("n", 0) + 1),
        lambda session: _put(session, len(session)),
        lambda session: _put(session, 1 if session.is_empty else 2),
        lambda session: _put(session, len({**session})),
        lambda session: _put(session, 2 if "n" in session else 1),
        lambda session: _put(session, session.get("n", [0], as_type=list[int])[0]),
        _lock,
    ],
)
def test_whatever_way_a_key_was_read_a_lost_change_is_told(body: Any) -> None:
    turn = side_by_side(session_of(), body, body)
    assert [conflict.kind for conflict in turn.conflicts] == ["stale-read"]


def test_what_a_nested_call_read_counts_also_where_it_failed() -> None:
    @tool
    def tells(session: ReadOnlySession) -> None:
        raise ToolError(str(session.get("n", 0)))

    @tool(parallel=True)
    async def agent(session: Session) -> None:
        (result,) = await ToolRunner.of(session).run_all([Call(tells, {})])
        await anyio.sleep(0.01)
        session["n"] = int(str(result.error)) + 1

    turn, _ = ran("asyncio", session_of(n=0), (agent, {}), (agent, {}))
    assert [conflict.kind for conflict in turn.conflicts] == ["stale-read"]


@pytest.mark.parametrize(
    ("base", "one", "other", "expected", "conflicts"),
    [
        ([], ["a"], ["a"], ["a"], 0),
        ([], [1, 1], [2, 2], [2, 2], 1),
        ({}, {"only1": 1}, {"only2": 2}, {"only2": 2}, 1),
    ],
)
def test_whole_values_that_were_written_blindly_are_not_mixed(
    base: Any, one: Any, other: Any, expected: Any, conflicts: Any
) -> None:
    session = session_of(k=base)
    turn = side_by_side(session, lambda session: session.set("k", one), lambda session: session.set("k", other))
    assert session["k"] == expected
    assert len(turn.conflicts) == conflicts


def test_a_list_that_was_read_and_set_longer_keeps_both_items() -> None:
    session = session_of(log=["x"])
    turn = side_by_side(
        session,
        lambda session: session.set("log", [*session["log"], "a"]),
        lambda session: session.set("log", [*session["log"], "b"]),
    )
    assert session["log"] == ["x", "a", "b"]
    assert turn.conflicts == []


def test_the_latest_call_wins_at_each_path_whatever_the_order_in_which_they_end() -> None:
    @tool(parallel=True)
    async def put(name: str, value: str, pause_s: float, session: Session) -> None:
        found = session["d"]
        await anyio.sleep(pause_s)
        found[name] = value

    session = session_of(d={"x": "", "y": ""})
    calls = [{"name": "x", "value": "A", "pause_s": 0.02}, {"name": "x", "value": "B", "pause_s": 0.04}]
    turn, _ = ran("asyncio", session, *[(put, call) for call in [*calls, {"name": "y", "value": "C", "pause_s": 0.0}]])
    assert session["d"] == {"x": "B", "y": "C"}
    (conflict,) = turn.conflicts
    assert conflict.dropped is not None
    assert (conflict.path, conflict.kept.index, conflict.dropped.index) == (".x", 1, 0)


@both
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_what_a_closed_stream_does_while_it_cleans_up_is_gone_too(backend: Any, kind: Any) -> None:
    async def steps(session: Session) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            current_session()["leak"] = 1

    def steps_in_threads(session: Session) -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            current_session()["leak"] = 1

    called = tool(name="steps")(steps if kind == "async" else steps_in_threads)
    session = session_of()

    async def run() -> None:
        from dcaf.core.context import running

        with running(session):
            async with aclosing(ToolRunner.of(session).stream(called, {})) as pieces:
                async for _ in pieces:
                    break

    on(backend, run)
    assert session.to_dict() == {}


@both
def test_a_writer_that_would_wait_for_the_stream_its_own_task_reads_is_told_so(backend: Any) -> None:
    called = tool(name="steps")(_async_steps)
    session = session_of()

    async def run() -> None:
        turn = ToolRunner.of(session)
        with anyio.fail_after(5):
            async with aclosing(turn.stream(called, {})) as pieces:
                async for _ in pieces:
                    with pytest.raises(ConfigurationError, match="reading"):
                        await turn.run(set_one, {"key": "k"})
                    break
            await turn.run(set_one, {"key": "k"})

    on(backend, run)
    assert session.to_dict() == {"k": "k"}


@both
def test_a_sync_generator_that_takes_too_long_is_stopped_and_closes_itself_later(backend: Any) -> None:
    closed = threading.Event()

    @tool(timeout=timedelta(seconds=0.05))
    def slow(session: Session) -> Iterator[int]:
        try:
            session["a"] = "dirty"
            yield 1
            time.sleep(0.4)
            yield 2
        finally:
            closed.set()

    session = session_of()
    begin = time.monotonic()
    seen: list[float] = []

    async def run() -> None:
        (result,) = await ToolRunner.of(session).run_all([Call(slow, {})])
        assert isinstance(result.error, ToolTimeoutError)
        seen.append(time.monotonic() - begin)

    on(backend, run)
    assert seen[0] < 0.35
    assert closed.wait(5)
    assert session.to_dict() == {}


def test_an_item_is_appended_as_it_was_then() -> None:
    def body(session: Session) -> None:
        item = {"a": 1}
        session.append("log", item)
        item["a"] = 9

    session = session_of()
    turn = side_by_side(session, body, body)
    assert session["log"] == [{"a": 1}, {"a": 1}]
    assert turn.conflicts == []


def test_a_reader_commits_nothing_and_so_is_refused_nothing() -> None:
    state = State(limit_bytes=40)
    session = Session._over(state)
    session["log"] = []
    session["log"].extend(["x" * 60])

    @tool
    def reads(session: ReadOnlySession) -> int:
        return len(session)

    _, (result,) = ran("asyncio", session, (reads, {}))
    assert result.value == 1


def test_conflicts_of_a_nested_agent_count_where_its_call_was_kept() -> None:
    def agent_of(fails: bool) -> Any:
        @tool(name="agent")
        async def agent(session: Session) -> None:
            await ToolRunner.of(session).run_all([])
            inner = ToolRunner.of(session)
            await inner.run_all([Call(add_parallel, {"pause_s": 0.01}), Call(add_parallel, {"pause_s": 0.0})])
            assert len(inner.conflicts) == 1
            if fails:
                raise ValueError

        return agent

    turn, _ = ran("asyncio", session_of(n=0), (agent_of(fails=True), {}))
    assert turn.conflicts == []


def test_a_copy_of_a_call_s_session_has_every_key_of_it() -> None:
    session = Session.from_dict({"kept": [1], "changed": 1, "gone": 1})
    overlay = Session._over(Overlay(session._state))
    overlay["changed"] = 2
    del overlay["gone"]
    overlay.temp["scratch"] = True
    copied = copy.copy(overlay)
    assert copied.to_dict() == {"kept": [1], "changed": 2}
    assert copied.temp["scratch"] is True
    copied["kept"].append(2)
    assert overlay["kept"] == [1]
