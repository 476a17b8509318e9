"""Threads that nobody waits for keep their place until they have ended: however many leave, no more run than there are places."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest

from dcaf import Session, tool
from dcaf.agent import Agent, RunConfig
from dcaf.core import ToolTimeoutError
from dcaf.core.errors import TurnTimeoutError
from dcaf.tools import Call, ToolRunner, threads

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
PLACES = 4
LEAVING = 24


class Meter:
    """How many run at once, and how many have begun."""

    def __init__(self, lasts_s: float) -> None:
        self.lasts_s = lasts_s
        self.lock = threading.Lock()
        self.now = self.most = self.begun = 0

    def __call__(self) -> None:
        with self.lock:
            self.now += 1
            self.begun += 1
            self.most = max(self.most, self.now)
        time.sleep(self.lasts_s)
        with self.lock:
            self.now -= 1


def _tool(meter: Meter) -> Any:
    def work() -> str:
        meter()
        return "ok"

    return functools.partial(ToolRunner.of(Session()).run, tool(work), {})


def _tool_with_a_timeout(meter: Meter) -> Any:
    def work() -> str:
        meter()
        return "ok"

    return functools.partial(ToolRunner.of(Session()).run_all, [Call(tool(timeout=timedelta(seconds=0.02))(work), {})])


def _steps(meter: Meter) -> Any:
    def work() -> Iterator[int]:
        for index in range(100):
            meter()
            yield index

    return functools.partial(ToolRunner.of(Session()).run, tool(work), {})


def _steps_that_are_slow_to_close(meter: Meter) -> Any:
    def work() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(0.001)
        finally:
            meter()

    return functools.partial(ToolRunner.of(Session()).run, tool(work), {})


def _agent_function(meter: Meter) -> Any:
    def work(messages: Any, context: Any) -> str:
        meter()
        return "ok"

    return functools.partial(Agent(work).run_async, "hi", session={})


def _interceptor(meter: Meter) -> Any:
    def work(request: Any) -> None:
        meter()

    return functools.partial(Agent(lambda messages, context: "ok", request_interceptors=work).run_async, "hi", session={})


MADE = [_tool, _tool_with_a_timeout, _steps, _steps_that_are_slow_to_close, _agent_function, _interceptor]


async def _leave(call: Callable[[], Any], at_once_s: float) -> None:
    with anyio.move_on_after(at_once_s):
        await call()


async def _leave_once_begun(call: Callable[[], Any], meter: Meter) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await _until(lambda: meter.begun > 0)
        group.cancel_scope.cancel()


async def _measured(make: Any, lasts_s: float = 0.15) -> Meter:
    """As many calls as there are, all of which leave; what still runs then has ended when this returns."""
    limiter, meter = anyio.to_thread.current_default_thread_limiter(), Meter(lasts_s)
    limiter.total_tokens = PLACES
    async with anyio.create_task_group() as group:
        for _ in range(LEAVING):
            group.start_soon(_leave, make(meter), 0.05)
            await anyio.sleep(0.005)
    await _until(lambda: not meter.now and not limiter.borrowed_tokens)
    return meter


async def _until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - what a thread does sets no event of a loop
            await anyio.sleep(0.01)


@both
@pytest.mark.parametrize("make", MADE)
def test_no_more_run_than_there_are_places(backend: str, make: Any) -> None:
    meter = anyio.run(_measured, make, backend=backend)
    assert 1 <= meter.most <= PLACES, f"{meter.most} of {meter.begun}"


@pytest.mark.parametrize("make", [_tool, _agent_function])
def test_control_where_anyio_gives_the_place_back_more_run(make: Any, monkeypatch: Any) -> None:
    async def given_back(work: Any, *, abandon: bool) -> Any:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon)

    monkeypatch.setattr(threads, "_run", given_back)
    assert anyio.run(_measured, make).most > PLACES


@both
def test_where_all_places_are_taken_a_turn_waits_and_its_time_ends_it(backend: str) -> None:
    meter = Meter(1.0)

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        await _leave_once_begun(_tool(meter), meter)
        assert limiter.borrowed_tokens == 1
        agent = Agent(lambda messages, context: "ok", config=RunConfig(timeout=timedelta(seconds=0.05)))
        before = time.monotonic()
        with pytest.raises(TurnTimeoutError):
            await agent.run_async("hi", session={})
        assert time.monotonic() - before < 0.5
        (result,) = await ToolRunner.of(Session()).run_all([Call(tool(name="x", timeout=timedelta(seconds=0.05))(meter), {})])
        assert isinstance(result.error, ToolTimeoutError)
        assert meter.begun == 1
        patient = Agent(lambda messages, context: "ok")
        assert (await patient.run_async("hi", session={})).text == "ok", "it waits, and then it runs"

    anyio.run(main, backend=backend)


@both
def test_a_stream_that_is_left_while_it_waits_for_a_place_is_closed_when_there_is_one(backend: str) -> None:
    closed, meter = threading.Event(), Meter(0.5)

    @tool
    def steps() -> Iterator[int]:
        try:
            time.sleep(0.1)
            yield 1
            yield 2
        finally:
            closed.set()

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        async with anyio.create_task_group() as group:
            group.start_soon(_leave, functools.partial(ToolRunner.of(Session()).run, steps, {}), 0.3)
            await _until(lambda: limiter.borrowed_tokens == 1)
            group.start_soon(_leave, _tool(meter), 9)
            await anyio.sleep(0.4)
            assert (meter.now, closed.is_set()) == (1, False), "the stream has left, and its place is taken"
        await _until(closed.is_set)

    anyio.run(main, backend=backend)


@both
def test_a_thread_that_outlives_its_loop_spoils_nothing(backend: str) -> None:
    meter = Meter(0.3)
    anyio.run(_leave_once_begun, _tool(meter), meter, backend=backend)
    assert anyio.run(_tool(Meter(0)), backend=backend) == "ok"
    until = time.monotonic() + 5
    while meter.now and time.monotonic() < until:
        time.sleep(0.01)
    assert (meter.begun, meter.now) == (1, 0)
