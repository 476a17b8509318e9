"""Calls of tools on one session, made at once by whoever likes to: from tasks, threads and event loops, by tool.run alone."""

from __future__ import annotations

import asyncio
import functools
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from dcaf import ReadOnlySession, Session, Tool, current_session, tool
from dcaf.core import ConfigurationError, ToolApprovalError, ToolTimeoutError
from dcaf.core.context import running
from dcaf.core.errors import SessionClosedError
from dcaf.tools import Call, ToolRunner, queue
from dcaf.tools.queue import queue_of

TEN = range(10)
PAUSE_S = 0.002


async def _put_async(item: int, session: Session, *, fails: bool = False) -> int:
    found = session.get("basket", [])
    await anyio.sleep(PAUSE_S)
    session["basket"] = [*found, item]
    if fails:
        raise LookupError(item)
    return item


def _put_sync(item: int, session: Session, *, fails: bool = False) -> int:
    found = session.get("basket", [])
    time.sleep(PAUSE_S)
    session["basket"] = [*found, item]
    if fails:
        raise LookupError(item)
    return item


async def _put_undeclared(item: int, *, fails: bool = False) -> int:
    return await _put_async(item, current_session(), fails=fails)


async def _put_in_pieces(item: int, session: Session, *, fails: bool = False) -> AsyncIterator[int]:
    yield await _put_async(item, session, fails=fails)


def _put_in_pieces_sync(item: int, session: Session, *, fails: bool = False) -> Iterator[int]:
    yield _put_sync(item, session, fails=fails)


KINDS: dict[str, Tool[..., Any]] = {
    function.__name__: tool(name="put")(function)
    for function in (_put_async, _put_sync, _put_undeclared, _put_in_pieces, _put_in_pieces_sync)
}

One = Callable[[int], Coroutine[Any, Any, Any]]


def in_tasks(one: One) -> None:
    async def main() -> None:
        await asyncio.gather(*(one(index) for index in TEN), return_exceptions=True)

    asyncio.run(main())


def in_trio(one: One) -> None:
    async def quiet(index: int) -> None:
        with suppress(LookupError):
            await one(index)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for index in TEN:
                group.start_soon(quiet, index)

    anyio.run(main, backend="trio")


def in_threads(one: One) -> None:
    """Each with an event loop of its own."""
    start = threading.Barrier(len(TEN))

    def work(index: int) -> None:
        start.wait(10)
        asyncio.run(one(index))

    with ThreadPoolExecutor(len(TEN)) as pool:
        list(pool.map(lambda index: pool_error(work, index), TEN))


def in_threads_of_a_loop(one: One) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            for index in TEN:
                group.start_soon(anyio.to_thread.run_sync, pool_error, anyio.from_thread.run, one, index)

    anyio.run(main)


def in_two_kinds_of_loop(one: One) -> None:
    def half(backend: str, indices: range) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                for index in indices:
                    group.start_soon(quiet, index)

        async def quiet(index: int) -> None:
            with suppress(LookupError):
                await one(index)

        anyio.run(main, backend=backend)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(half, ("asyncio", "trio"), (TEN[:5], TEN[5:])))


def pool_error(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except LookupError as error:
        return error


WAYS: dict[str, Callable[[One], None]] = {
    way.__name__: way for way in (in_tasks, in_trio, in_threads, in_threads_of_a_loop, in_two_kinds_of_loop)
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_ten_at_once_lose_nothing_and_one_that_raises_leaves_nothing(way: str, kind: str) -> None:
    session, put = Session(), KINDS[kind]

    async def one(index: int) -> Any:
        return await put.run({"item": index, "fails": index == 4}, session=session)

    WAYS[way](one)
    assert sorted(session["basket"]) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    left = queue_of(session._state)
    assert (left.present, left.writers, len(left._tickets)) == (0, {}, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_control_the_function_alone_loses_writes_and_leaves_what_a_failed_one_wrote(way: str, kind: str, monkeypatch: Any) -> None:
    """What tool.run did before: call the function with the session itself."""
    monkeypatch.setattr(sys.modules[__name__], "PAUSE_S", 0.05)  # long enough for all to have read, on a machine that is busy
    session, put = Session(), KINDS[kind]

    async def one(index: int) -> Any:
        with running(session):
            return await put._executor.run({"item": index, "fails": index == 4}, session)

    WAYS[way](one)
    assert len(session["basket"]) < 9


@pytest.mark.parametrize("kind", KINDS)
def test_those_that_are_called_in_one_task_keep_the_order_in_which_they_came(kind: str) -> None:
    session = Session()
    in_tasks(lambda index: KINDS[kind].run({"item": index}, session=session))
    assert session["basket"] == list(TEN)


async def _call_somehow(put: Tool[..., Any], call: dict[str, Any], session: Session, how: str) -> None:
    match how:
        case "run":
            await put.run(call, session=session)
        case "runner":
            await ToolRunner.of(session).run(put, call)
        case "run_all":
            (result,) = await ToolRunner.of(Session.of(session)).run_all([Call(put, call)])
            if result.error is not None:
                raise result.error
        case _:
            async with aclosing(put.stream(call, session=session)) as pieces:
                assert len([piece async for piece in pieces]) == 1


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_mixed_what_returned_is_there_once_and_nothing_else(seed: int) -> None:
    """Kinds, ways of calling, failures, cancellations and views at random, from four threads, one of them of trio."""
    session = Session()
    kept: list[int] = []

    async def one(item: int, source: random.Random) -> None:
        put, call = source.choice([*KINDS.values()]), {"item": item, "fails": source.random() < 0.2}
        how = source.choice(["run", "runner", "run_all", "stream"])
        limit_s = source.choice([None, None, 0.0, PAUSE_S, 5 * PAUSE_S])
        if how == "run_all":
            limit_s = None  # who is cancelled while it waits for the other calls of a message may miss that this one was kept
        with suppress(LookupError), anyio.move_on_after(limit_s):
            await _call_somehow(put, call, session, how)
            kept.append(item)

    def work(number: int) -> None:
        source = random.Random(f"{seed} {number}")

        async def main() -> None:
            async with anyio.create_task_group() as group:
                for index in range(12):
                    group.start_soon(one, 100 * number + index, source)

        anyio.run(main, backend="trio" if number == 3 else "asyncio")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(session.get("basket", [])) == sorted(kept)
    left = queue_of(session._state)
    assert (left.present, left.writers, len(left._tickets)) == (0, {}, 0)


# Inside a call


@pytest.mark.parametrize("given", ["its own", "that of the turn", "none"])
@pytest.mark.parametrize("by", ["itself", "a task", "a thread of the loop", "ten tasks"])
def test_a_writer_inside_a_writer_is_part_of_its_call(by: str, given: str) -> None:
    session = Session()
    put = KINDS["_put_async"]

    @tool
    async def outer(fails: bool, own: Session) -> None:
        own["outer"] = True
        one = functools.partial(put.run, {"item": 1}, session={"its own": own, "that of the turn": session, "none": None}[given])
        if by == "a task":
            await asyncio.create_task(one())
        elif by == "a thread of the loop":
            await anyio.to_thread.run_sync(anyio.from_thread.run, one)
        elif by == "ten tasks":
            await asyncio.gather(*(one() for _ in TEN))
        else:
            await one()
        assert len(own["basket"]) == (10 if by == "ten tasks" else 1)
        assert "basket" not in session
        if fails:
            raise LookupError

    async def main() -> None:
        with anyio.fail_after(10):
            with pytest.raises(LookupError):
                await outer.run({"fails": True}, session=session)
            assert session.to_dict() == {}
            await asyncio.gather(*(outer.run({"fails": index == 1}, session=session) for index in range(2)), return_exceptions=True)

    asyncio.run(main())
    assert session.to_dict() == {"outer": True, "basket": [1] * (10 if by == "ten tasks" else 1)}


def test_a_writer_that_reads_a_stream_inside_itself_waits_for_nobody() -> None:
    session = Session()

    @tool
    async def reads(own: Session) -> list[int]:
        found = []
        for kind in ("_put_in_pieces", "_put_in_pieces_sync"):
            async with aclosing(KINDS[kind].stream({"item": 1}, session=session)) as pieces:
                found += [piece async for piece in pieces]
        return found

    async def main() -> None:
        with anyio.fail_after(10):
            found = await asyncio.gather(*(reads.run({}, session=session) for _ in range(3)))
        assert found == [[1, 1]] * 3

    asyncio.run(main())
    assert session["basket"] == [1] * 6


def test_a_session_of_another_between_them_does_not_hide_the_call() -> None:
    """A tool on one session calls one on another, which calls one on the first: that is part of the first call."""
    first, second = Session(), Session()
    put = KINDS["_put_async"]

    @tool
    async def middle(session: Session) -> None:
        session["middle"] = True
        await put.run({"item": 1}, session=first)

    @tool
    async def outer(session: Session) -> None:
        await middle.run({}, session=second)
        assert session["basket"] == [1]
        raise LookupError

    async def main() -> None:
        with anyio.fail_after(10), pytest.raises(LookupError):
            await outer.run({}, session=first)

    asyncio.run(main())
    assert (first.to_dict(), second.to_dict()) == ({}, {"middle": True})


def test_a_task_that_outlives_its_call_is_told_that_nobody_sees_its_write_and_may_run_a_tool() -> None:
    async def main() -> Session:
        session, ended, tasks = Session(), asyncio.Event(), []

        async def later(own: Session) -> None:
            await ended.wait()
            assert own["n"] == 1
            for late in (lambda: own.set("n", 2), lambda: own.incr("n"), lambda: own.append("l", 1), lambda: own.delete("n")):
                with pytest.raises(SessionClosedError, match="had ended"):
                    late()
            await KINDS["_put_async"].run({"item": 1}, session=session)

        @tool
        async def starts(own: Session) -> None:
            own["n"] = 1
            tasks.append(asyncio.create_task(later(own)))

        await starts.run({}, session=session)
        ended.set()
        await asyncio.gather(*tasks)
        return session

    assert asyncio.run(main()).to_dict() == {"n": 1, "basket": [1]}


# Who waits


def test_readers_and_parallel_calls_run_at_once_and_one_that_waits_writes_after_the_one_before() -> None:
    said: list[str] = []

    async def main() -> None:
        session, may_end = Session(), asyncio.Event()

        @tool
        async def writes(session: Session) -> None:
            session["n"] = 1
            await may_end.wait()
            said.append("writes")

        @tool
        async def reads(session: ReadOnlySession) -> None:
            assert "n" not in session
            said.append("reads")

        @tool(parallel=True)
        async def beside(session: Session) -> None:
            session["beside"] = True
            said.append("beside")

        @tool
        async def after(session: Session) -> None:
            said.append(f"after {session['n']} {session['beside']}")

        first = asyncio.create_task(writes.run({}, session=session))
        await asyncio.sleep(0)
        last = asyncio.create_task(after.run({}, session=session))
        await asyncio.gather(reads.run({}, session=session), beside.run({}, session=session))
        may_end.set()
        await asyncio.gather(first, last)

    asyncio.run(main())
    assert said == ["reads", "beside", "writes", "after 1 True"]


def bury(task: asyncio.Task[Any]) -> None:
    """Take the last word from a task whose loop has been closed."""
    with suppress(RuntimeError, ValueError):
        task.get_coro().close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    if task.done() and not task.cancelled():
        task.exception()


class Held:
    """A writer that holds the session of a test in an event loop of its own, until it is told how to end."""

    def __init__(self, session: Session) -> None:
        self.loop = asyncio.new_event_loop()
        self.begun = threading.Event()
        self._ends = asyncio.Event()

        @tool
        async def holds(session: Session) -> None:
            session["held"] = True
            self.begun.set()
            await self._ends.wait()
            raise LookupError

        self.task = self.loop.create_task(holds.run({}, session=session))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        assert self.begun.wait(10)

    def end(self, how: str) -> None:
        if how == "raises":
            self.loop.call_soon_threadsafe(self._ends.set)
        elif how == "is cancelled":
            self.loop.call_soon_threadsafe(self.task.cancel)
        time.sleep(0.02)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        if how == "its loop is closed":
            self.loop.close()

    def close(self) -> None:
        self.loop.close()
        bury(self.task)


ENDS = ("raises", "is cancelled", "its loop stands still", "its loop is closed")


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whoever_waits_goes_on_when_the_one_before_it_in_another_loop_ends(backend: str, how: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(queue, "PATIENCE_S", 0.05)
    session, put = Session(), KINDS["_put_async"]
    held = Held(session)

    def wait() -> None:
        async def main() -> None:
            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    for index in range(3):
                        group.start_soon(functools.partial(put.run, {"item": index}, session=session))

        anyio.run(main, backend=backend)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        time.sleep(0.02)
        assert "basket" not in session
        held.end(how)
        waiting.result(10)
    assert sorted(session["basket"]) == [0, 1, 2]
    held.close()
    assert "held" not in session


def test_control_without_a_look_at_the_one_in_front_a_closed_loop_stops_everybody(monkeypatch: Any) -> None:
    monkeypatch.setattr(queue.Ticket, "is_lost", False)
    monkeypatch.setattr(queue, "PATIENCE_S", 0.05)
    session = Session()
    held = Held(session)
    held.end("its loop is closed")

    async def main() -> None:
        with anyio.fail_after(0.3):
            await KINDS["_put_async"].run({"item": 1}, session=session)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    held.close()


def test_one_whose_loop_was_closed_while_it_waited_holds_up_nobody(monkeypatch: Any) -> None:
    session, put = Session(), KINDS["_put_async"]
    held = Held(session)
    lost = asyncio.new_event_loop()
    waiting = lost.create_task(put.run({"item": 1}, session=session))
    lost.run_until_complete(asyncio.sleep(0.01))
    lost.close()

    async def main() -> None:
        with anyio.fail_after(10):
            call = asyncio.create_task(put.run({"item": 2}, session=session))
            await asyncio.sleep(0)
            await asyncio.to_thread(held.end, "raises")
            await call

    asyncio.run(main())
    assert session["basket"] == [2]
    held.close()
    bury(waiting)


def test_one_whose_loop_stood_still_while_it_waited_has_its_turn_when_that_runs_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(queue, "PATIENCE_S", 0.05)
    session, put = Session(), KINDS["_put_async"]
    held = Held(session)
    still = asyncio.new_event_loop()
    waiting = [still.create_task(put.run({"item": index}, session=session)) for index in range(3)]
    still.run_until_complete(asyncio.sleep(0.01))
    held.end("raises")
    asyncio.run(put.run({"item": 9}, session=session))
    assert session["basket"] == [9]
    still.run_until_complete(asyncio.wait_for(asyncio.gather(*waiting), 10))
    assert session["basket"] == [9, 0, 1, 2]
    assert len(queue_of(session._state)._tickets) == 0
    still.close()
    held.close()


def test_a_loop_that_waits_for_one_in_another_loop_is_not_blocked() -> None:
    session = Session()
    held, ticks = Held(session), []

    async def main() -> None:
        call = asyncio.create_task(KINDS["_put_async"].run({"item": 1}, session=session))
        for index in range(5):
            await asyncio.sleep(0.005)
            ticks.append(index)
        assert not call.done()
        await asyncio.to_thread(held.end, "raises")
        await asyncio.wait_for(call, 10)

    asyncio.run(main())
    held.close()
    assert len(ticks) == 5


# Time and approval


@pytest.mark.parametrize("has_session", [True, False])
def test_a_timeout_holds_for_a_bare_call(has_session: bool) -> None:
    @tool(timeout=timedelta(seconds=0.02))
    async def slow(session: Session | None = None) -> None:
        if session is not None:
            session["a"] = "dirty"
        await asyncio.sleep(9)

    session = Session()
    with pytest.raises(ToolTimeoutError, match="slow took longer than"):
        asyncio.run(slow.run({}, session=session if has_session else None))
    assert session.to_dict() == {}


def test_approval_is_needed_by_a_bare_call_and_its_stream() -> None:
    @tool(requires_approval=True)
    def wipe(session: Session) -> str:
        session["wiped"] = True
        return "done"

    async def streamed(session: Session | None, **named: Any) -> list[Any]:
        return [piece async for piece in wipe.stream({}, session=session, **named)]

    session = Session()
    for call in (lambda: wipe.run({}, session=session), lambda: streamed(session)):
        with pytest.raises(ToolApprovalError, match="wipe needs the approval of a person"):
            asyncio.run(call())
    for wrong in (1, "yes", None):
        with pytest.raises(ConfigurationError, match="is_approved= takes True or False"):
            asyncio.run(wipe.run({}, session=session, is_approved=wrong))  # type: ignore[arg-type]
    assert session.to_dict() == {}
    assert asyncio.run(wipe.run({}, session=session, is_approved=True)) == "done"
    assert asyncio.run(streamed(session, is_approved=True)) == ["done"]


# The runner


def test_all_runners_of_one_session_share_one_order_and_each_has_its_own_conflicts() -> None:
    @tool(parallel=True)
    async def double(session: Session) -> None:
        found = session["n"]
        await anyio.sleep(0.01)
        session["n"] = found * 2

    session = Session.from_dict({"n": 1})
    one, other = ToolRunner.of(session), ToolRunner.of(Session.of(session))

    async def main() -> None:
        await asyncio.gather(one.run(double, {}), other.run(double, {}))

    asyncio.run(main())
    assert (len(one.conflicts), len(other.conflicts)) == (0, 1)
    (conflict,) = other.conflicts
    assert conflict.dropped is not None
    assert (conflict.dropped.index, conflict.kept.index) == (0, 1)


def test_a_runner_is_not_made_by_itself() -> None:
    with pytest.raises(ConfigurationError, match=r"Write ToolRunner\.of\(session\)"):
        ToolRunner(Session())  # type: ignore[arg-type]


def test_who_wrote_what_is_remembered_as_long_as_a_call_goes_on_and_not_longer() -> None:
    async def main() -> None:
        session, may_end = Session(), asyncio.Event()

        @tool
        async def waits(session: ReadOnlySession) -> None:
            await may_end.wait()

        reader = asyncio.create_task(waits.run({}, session=session))
        await asyncio.sleep(0)
        await KINDS["_put_async"].run({"item": 1}, session=session)
        assert [*queue_of(session._state).writers] == ["basket"]
        may_end.set()
        await reader
        assert queue_of(session._state).writers == {}

    asyncio.run(main())


def test_a_thread_without_a_loop_runs_calls_with_its_context_variables() -> None:
    asked: ContextVar[str] = ContextVar("asked")

    @tool
    async def who(session: Session) -> str:
        session["asked"] = asked.get()
        return asked.get()

    def work() -> list[Any]:
        asked.set("mira")
        return [
            result.value for result in ToolRunner.of(session).run_all_sync([Call(who, {}), Call(KINDS["_put_sync"], {"item": 1})])
        ]

    session = Session()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == ["mira", 1]
    assert session.to_dict() == {"asked": "mira", "basket": [1]}


def test_ten_threads_without_a_loop_lose_nothing() -> None:
    session = Session()
    start = threading.Barrier(len(TEN))

    def work(index: int) -> None:
        start.wait(10)
        ToolRunner.of(session).run_all_sync([Call(KINDS["_put_async"], {"item": index, "fails": index == 4})])

    with ThreadPoolExecutor(len(TEN)) as pool:
        list(pool.map(work, TEN))
    assert sorted(session["basket"]) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_in_a_sync_tool_it_is_part_of_the_call() -> None:
    @tool
    def outer(session: Session) -> None:
        ToolRunner.of(session).run_all_sync([Call(KINDS["_put_async"], {"item": 1})])
        assert session["basket"] == [1]
        raise LookupError

    session = Session()
    with pytest.raises(LookupError):
        asyncio.run(outer.run({}, session=session))
    assert session.to_dict() == {}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_a_running_loop_it_is_refused_at_once(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"await runner\.run_all\("):
            ToolRunner.of(Session()).run_all_sync([Call(KINDS["_put_async"], {"item": 1})])

    anyio.run(main, backend=backend)


def test_its_loop_keeps_no_process_alive() -> None:
    program = """
import asyncio
from dcaf import Session, tool
from dcaf.tools import Call, ToolRunner
kept = []
@tool
async def leaves(session: Session) -> str:
    kept.append(asyncio.create_task(asyncio.sleep(3600)))
    return "done"
print(ToolRunner.of(Session()).run_all_sync([Call(leaves, {})])[0].text)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "done\n"


@pytest.mark.parametrize(("kind", "expected"), [(kind, "pieces" in kind) for kind in KINDS])
def test_a_tool_says_whether_its_result_comes_in_pieces(kind: str, expected: bool) -> None:
    made = KINDS[kind]
    assert made.is_stream is expected
    assert tool(name="again")(functools.partial(made._function, item=1)).is_stream is expected


def test_a_method_and_an_object_say_it_too() -> None:
    class Shop:
        @tool
        def each(self) -> Iterator[int]:
            yield 1

        def __call__(self) -> Iterator[int]:
            yield 1

    assert Shop.each.is_stream
    assert Shop().each.is_stream
    assert tool(name="shop")(Shop()).is_stream
