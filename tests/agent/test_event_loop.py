"""Sync runs share one event loop: what a run has opened is there for the next one, in every thread; and nothing waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel

from dcaf import ConfigurationError, Session, current_session, tool
from dcaf.agent import Agent, ModelFailedError, PlatformContext, RunConfig, TurnTimeoutError
from dcaf.core.context import running
from dcaf.tools import event_loop as module
from dcaf.tools.platform_context import current_platform
from tests.agent.agents import agent_of, obedient, scripted, wants

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("tests_variable", default="unset")
SHORT = RunConfig(timeout=timedelta(milliseconds=300))


class Bound(Model):
    """A model whose connection belongs to the loop that opened it, as those of HTTP clients do."""

    model_name = system = "bound"

    def __init__(self) -> None:
        super().__init__()
        self.loop: Any = None

    async def request(self, *_: Any) -> ModelResponse:
        here = asyncio.get_running_loop()
        if self.loop not in {None, here}:
            raise RuntimeError("got a connection of another loop")
        self.loop = here
        await asyncio.sleep(0.001)
        return ModelResponse([TextPart("Hello.")])


def whole(reply: Callable[..., Any]) -> FunctionModel:
    """A model that answers as a coroutine function of the messages says."""

    async def function(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(str(await reply()))])

    return FunctionModel(function)


# one loop


def twenty(run: Callable[[], Any]) -> int:
    """How many of twenty runs from four threads fail."""

    def failed(_: int) -> bool:
        try:
            return bool(run().text != "Hello.")
        except ModelFailedError:
            return True

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(failed, range(20)))


def test_runs_of_all_threads_meet_one_loop() -> None:
    agent = Agent(Bound())
    assert agent.run("hi").text == agent.chat("hi").text == "Hello."
    assert twenty(lambda: agent.run("hi")) == 0
    assert agent.run("hi").text == "Hello."


def test_a_fresh_loop_each_time_fails() -> None:
    """The control."""
    agent = Agent(Bound())
    assert twenty(lambda: anyio.run(functools.partial(agent.run_async, "hi"))) == 19


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_works_for_a_loop_runs_in_that_loop(backend: str) -> None:
    places: list[Any] = []

    async def place() -> str:
        places.append(anyio.get_current_task().id and threading.get_ident())
        return "ok"

    agent = Agent(whole(place))

    async def serve() -> None:
        await agent.run_async("hi")
        assert (await anyio.to_thread.run_sync(agent.run, "hi")).text == "ok"
        assert places == [threading.get_ident()] * 2

    anyio.run(serve, backend=backend)


def test_an_async_and_a_sync_endpoint_share_the_clients_of_a_model() -> None:
    agent = Agent(Bound())

    async def serve() -> None:
        for _ in range(3):
            await agent.run_async("hi")
            await anyio.to_thread.run_sync(agent.run, "hi")

    asyncio.run(serve())


@tool
def ask_inner(session: Session) -> str:
    """Ask an agent inside a sync tool."""
    session.incr("outer")
    return inner.run("call count", session={"n": 40}).text


inner = agent_of()


def test_a_run_inside_a_sync_tool_works_wherever_the_outer_one_runs() -> None:
    outer = Agent(obedient(), tools=[ask_inner])
    assert outer.run("call ask_inner").text == "Done: Done: 41"
    assert asyncio.run(outer.run_async("call ask_inner")).text == "Done: Done: 41"
    assert anyio.run(functools.partial(outer.run_async, "call ask_inner"), backend="trio").text == "Done: Done: 41"


# threads


@tool(parallel=True)
def nested(depth: int) -> str:
    """Ask an agent that asks an agent, all of them with sync tools."""
    if depth == 0:
        time.sleep(0.01)
        return "done"
    return Agent(scripted([wants("nested", {"depth": depth - 1})], "ok"), tools=[nested]).run("go").text


async def crowd(agents: int) -> list[str]:
    """Many runs at once, whose sync tools wait for runs, where the loop has two threads."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    texts: list[str] = []

    async def one() -> None:
        agent = Agent(scripted([wants("nested", {"depth": 2})], "ok"), tools=[nested])
        texts.append((await agent.run_async("go")).text)

    async with anyio.create_task_group() as group:
        for _ in range(agents):
            group.start_soon(one)
    assert anyio.to_thread.current_default_thread_limiter().total_tokens == 2
    return texts


def test_threads_that_wait_for_runs_leave_threads_to_those_runs() -> None:
    assert anyio.run(crowd, 12) == ["ok"] * 12


def test_without_the_threads_that_are_lent_they_would_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(module, "_one_thread_more", nullcontext)

    async def limited() -> None:
        with anyio.fail_after(0.5):
            await crowd(12)

    with pytest.raises(TimeoutError):
        anyio.run(limited)


def test_a_blocked_loop_is_an_error_and_no_deadlock() -> None:
    """An async tool waits, in the loop, for a thread that wants to run there."""

    @tool
    async def blocks() -> str:
        """Block."""
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(Agent(obedient(), config=SHORT).run, "hi").exception())

    text = Agent(obedient(), tools=[blocks]).run("call blocks").text
    assert text.startswith("Done: The turn could not begin in 0.3 seconds (timeout): an async function blocks the loop")
    assert agent_of().run("hi").text == "You said hi"


# what goes along


def test_the_callers_context_goes_along_and_nothing_comes_back() -> None:
    seen: list[Any] = []

    async def look() -> str:
        seen.append((VARIABLE.get(), current_session()["n"], current_platform()["user_id"]))
        VARIABLE.set("changed")
        return "ok"

    VARIABLE.set("mine")
    with running(Session.from_dict({"n": 7})):
        Agent(whole(look)).run("hi", context={"platform_context": {"user_id": "mira"}})
    assert seen == [("mine", 7, "mira")]
    assert VARIABLE.get() == "mine"


def test_the_context_of_one_thread_is_seen_in_its_runs_alone() -> None:
    async def look() -> str:
        await asyncio.sleep(0.002)
        return f"{VARIABLE.get()} {current_session()['who']}"

    def work(who: str) -> bool:
        VARIABLE.set(who)
        with running(Session.from_dict({"who": who})):
            return all(agent.run("hi").text == f"{who} {who}" for _ in range(5))

    agent = Agent(whole(look))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: contextvars.copy_context().run(work, f"user{number}"), range(32)))


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_copied_context_of_a_loop_is_no_loop(name: str) -> None:
    """`asyncio.to_thread` copies the context of a program that runs in a loop, and has no loop."""

    async def program() -> str:
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(context.run, lambda: Agent(obedient()).run("hi").text)
            return await anyio.to_thread.run_sync(work.result)

    assert anyio.run(program, backend=name) == "You said hi"


def test_run_in_a_thread_of_asyncio_works_under_anyio() -> None:
    async def program() -> str:
        return (await asyncio.to_thread(agent_of().run, "hi")).text

    assert anyio.run(program) == "You said hi"


# how it ends


class Odd(BaseException):
    """Of nobody's tree."""


@pytest.mark.parametrize(
    "error", [KeyError("k"), Odd(), SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
def test_what_is_raised_reaches_the_caller_with_the_lines_that_raised_it(error: BaseException) -> None:
    async def raises() -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        module.wait_for(raises)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_what_is_raised_reaches_the_caller_with_the_lines_that_raised_it"
    assert names[-1] == "raises"
    assert agent_of().run("hi").text == "You said hi"


@pytest.mark.parametrize(
    "error", [Odd(), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), StopAsyncIteration()]
)
def test_a_model_that_exits_fails_its_turn_and_ends_nothing_else(error: BaseException) -> None:
    async def exits() -> str:
        raise error

    async def pieces(messages: list[ModelMessage], info: AgentInfo) -> Any:
        yield "Well, "
        raise error

    for model in (whole(exits), FunctionModel(stream_function=pieces)):
        with pytest.raises(ModelFailedError):
            Agent(model).run("hi")
        with pytest.raises(ModelFailedError):
            asyncio.run(Agent(model).run_async("hi"))
    assert agent_of().run("hi").text == "You said hi"


def test_an_exit_in_one_thread_ends_no_run_of_another() -> None:
    began, go = threading.Event(), threading.Event()

    async def waits() -> str:
        began.set()
        await anyio.to_thread.run_sync(go.wait)
        return "still here"

    async def exits() -> str:
        task = asyncio.create_task(leave())  # in a task of its own the exit goes through the loop itself
        return await task

    async def leave() -> str:
        sys.exit(3)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(Agent(whole(waits)).run, "hi")
        assert began.wait(5)
        try:
            with pytest.raises(ModelFailedError, match="SystemExit"):
                Agent(whole(exits)).run("hi")
        finally:
            go.set()
        assert work.result(5).text == "still here"


def test_an_interrupt_ends_the_run_before_it_is_raised() -> None:
    said: list[str] = []
    session = Session.from_dict({"n": 1})

    @tool
    async def forever(session: Session) -> str:
        """Wait."""
        session["n"] = 2
        timer.start()
        try:
            await anyio.sleep(60)
        finally:
            said.append("ended")
        return "never"

    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):
        Agent(scripted([wants("forever")], "ok"), tools=[forever]).run("go", session=session)
    assert said == ["ended"]
    assert session.to_dict() == {"n": 1}
    assert agent_of().run("hi").text == "You said hi"


def test_a_turn_whose_time_is_over_ends_the_runs_that_it_waits_for() -> None:
    ended = threading.Event()

    async def waits() -> str:
        try:
            await anyio.sleep(60)
        finally:
            ended.set()
        return "never"

    @tool
    def asks() -> str:
        """Ask."""
        return Agent(whole(waits)).run("hi").text

    agent = Agent(scripted([wants("asks")], "ok"), tools=[asks], config=SHORT)

    async def program() -> None:
        with pytest.raises(TurnTimeoutError):
            await agent.run_async("go")
        assert await anyio.to_thread.run_sync(ended.wait, 5)

    asyncio.run(program())


def test_the_time_of_a_turn_holds_in_a_sync_run() -> None:
    with pytest.raises(TurnTimeoutError, match=r"longer than 0.3 seconds"):
        Agent(whole(functools.partial(anyio.sleep, 60)), config=SHORT).run("hi")


# processes

PROGRAM = """
import asyncio, sys, threading
from dcaf import tool
from dcaf.agent import Agent
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.messages import ModelResponse, TextPart

@tool
def add(a: int = 1) -> int:
    "Add."
    return a + 1

agent = Agent("test", tools=[add])
assert agent.run("hi").text
threading.Thread(target=agent.run, args=("hi",)).start()
print("said")
"""


def test_a_program_ends_by_itself() -> None:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")
    assert time.perf_counter() - began < 20


def in_child(work: Callable[[], bool]) -> int:
    """The exit code of a forked process: 0 where the work holds there, 7 where it does not end."""
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(7))
        signal.alarm(10)
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_a_loop_of_its_own() -> None:
    agent = agent_of()
    assert agent.run("hi").text == "You said hi"
    assert in_child(lambda: agent.run("call count").session == {"n": 1}) == 0
    assert agent.run("hi").text == "You said hi"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_a_sync_tool_has_forked_has_one_too() -> None:
    codes: list[int] = []

    @tool
    def forks() -> str:
        """Fork."""
        codes.append(in_child(lambda: agent_of().run("hi").text == "You said hi"))
        return "ok"

    agent = Agent(scripted([wants("forks")], "ok", [wants("forks")], "ok"), tools=[forks])
    agent.run("go")
    asyncio.run(agent.run_async("go"))
    assert codes == [0, 0]


# threads of a loop, under load


def test_whoever_waits_when_the_loop_ends_is_told() -> None:
    """The loop of a worker thread goes away while the thread waits for a run in it."""
    waiting: list[BaseException | None] = []

    def work() -> None:
        try:
            Agent(whole(functools.partial(anyio.sleep, 60))).run("hi")
        except BaseException as error:  # noqa: BLE001
            waiting.append(error)

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(anyio.to_thread.run_sync, work, abandon_on_cancel=True))
            await anyio.sleep(0.05)
            group.cancel_scope.cancel()

    asyncio.run(program())
    for _ in range(100):
        if waiting:
            break
        time.sleep(0.01)
    assert isinstance(waiting[0], concurrent.futures.CancelledError | asyncio.CancelledError)


def test_the_refusal_inside_a_loop_stays() -> None:
    async def inside() -> None:
        for wrong in (agent_of().run, agent_of().chat):
            with pytest.raises(ConfigurationError, match="inside a running event loop"):
                wrong("hi")

    asyncio.run(inside())


def test_the_platform_of_the_outer_turn_is_not_that_of_the_inner_one() -> None:
    @tool
    def who(platform_context: PlatformContext) -> str:
        """Say who asks, and who asks an agent inside."""

        async def look() -> str:
            return str(current_platform().get("user_id"))

        return f"{platform_context['user_id']} {Agent(whole(look)).run('hi').text}"

    text = Agent(obedient(), tools=[who]).run("call who", context={"platform_context": {"user_id": "mira"}}).text
    assert text.startswith("Done: mira ")
