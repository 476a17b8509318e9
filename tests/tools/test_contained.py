"""Whatever a tool ends with ends its call, and nothing more; who cancels it, or sends the program a signal, still ends it."""

from __future__ import annotations

import asyncio
import functools
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import pytest
import trio
from pydantic import BaseModel, BeforeValidator, Field, model_serializer

from dcaf import Session, Tool, tool
from dcaf.core import DcafError, ExitError
from dcaf.tools import Call, ToolRunner, threads
from dcaf.tools.threads import call_and_wait

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Odd(BaseException):
    """Somebody's own."""


def cancelled() -> BaseException:
    """A cancellation of its own making; trio has no constructor, so one that was caught before."""
    try:
        anyio.get_cancelled_exc_class()
    except RuntimeError:
        return asyncio.CancelledError()  # in a thread
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.CancelledError()
    return trio.Cancelled._create(source="explicit")


ENDS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(2),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "BaseException": BaseException,
    "Odd": Odd,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "Cancelled": cancelled,
    "asyncio's": asyncio.CancelledError,
    "group": lambda: BaseExceptionGroup("", [SystemExit(2), ValueError()]),
    "group of groups": lambda: BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()])]),
    "group of cancellations": lambda: BaseExceptionGroup("", [cancelled()]),
}


async def _ends_async(make: Any, session: Session) -> None:
    session["dirty"] = 1
    await anyio.lowlevel.checkpoint()
    raise make()


def _ends_sync(make: Any, session: Session) -> None:
    session["dirty"] = 1
    raise make()


async def _ends_async_later(make: Any, session: Session) -> Any:
    session["dirty"] = 1
    yield 1
    raise make()


def _ends_sync_later(make: Any, session: Session) -> Any:
    session["dirty"] = 1
    yield 1
    raise make()


async def _ends_async_at_its_end(make: Any, session: Session) -> Any:
    session["dirty"] = 1
    try:
        yield 1
        raise ValueError
    finally:
        raise make()


def _ends_sync_at_its_end(make: Any, session: Session) -> Any:
    session["dirty"] = 1
    try:
        yield 1
        raise ValueError
    finally:
        raise make()


class _Awaited:
    def __init__(self, make: Any) -> None:
        self.make = make

    def __await__(self) -> Any:
        raise self.make()


def _gives_what_is_awaited(make: Any, session: Session) -> Any:
    session["dirty"] = 1
    return _Awaited(make)


KINDS = [
    _ends_async,
    _ends_sync,
    _ends_async_later,
    _ends_sync_later,
    _ends_async_at_its_end,
    _ends_sync_at_its_end,
    _gives_what_is_awaited,
]


def made(kind: Any, make: Callable[[], BaseException]) -> Tool[..., Any]:
    return tool(name="ends")(functools.partial(kind, make))


@tool
async def good(session: Session) -> str:
    session["good"] = 1
    return "good"


async def _run_all(ends: Tool[..., Any], session: Session) -> BaseException | None:
    result, after = await ToolRunner.of(session).run_all([Call(ends, {}), Call(good, {})])
    assert after.value == "good"
    return result.error


async def _run(ends: Tool[..., Any], session: Session) -> BaseException | None:
    with pytest.raises(Exception) as caught:
        await ToolRunner.of(session).run(ends, {})
    return caught.value


async def _stream(ends: Tool[..., Any], session: Session) -> BaseException | None:
    with pytest.raises(Exception) as caught:
        async for _ in ToolRunner.of(session).stream(ends, {}):
            pass
    return caught.value


async def _alone(ends: Tool[..., Any], session: Session) -> BaseException | None:
    with pytest.raises(Exception) as caught:
        await ends.run({}, session=Session())
    return caught.value


async def _alone_stream(ends: Tool[..., Any], session: Session) -> BaseException | None:
    with pytest.raises(Exception) as caught:
        async for _ in ends.stream({}, session=Session()):
            pass
    return caught.value


WAYS = [_run_all, _run, _stream, _alone, _alone_stream]


@both
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", ENDS.values(), ids=ENDS)
def test_what_a_tool_ends_with_ends_its_call(backend: str, way: Any, kind: Any, make: Any) -> None:
    session, is_over = Session(), []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
            error = await way(made(kind, make), session)
            assert isinstance(error, Exception)
            if type(error) is not RuntimeError:  # Python's own words for a StopIteration out of a generator
                assert isinstance(error, ExitError | BaseExceptionGroup)
            await anyio.lowlevel.checkpoint()
        is_over.append(1)

    anyio.run(main, backend=backend)
    assert is_over
    assert "dirty" not in session


@pytest.mark.parametrize("kind", [_ends_async, _ends_sync, _gives_what_is_awaited])
def test_control_where_it_is_not_contained_it_ends_more(kind: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(threads.contained, "__exit__", lambda *_: None)
    with pytest.raises((SystemExit, BaseExceptionGroup)):
        test_what_a_tool_ends_with_ends_its_call("trio", _run_all, kind, lambda: SystemExit(2))


def test_the_model_reads_its_type_and_the_log_has_type_and_place(caplog: Any) -> None:
    (result,) = asyncio.run(ToolRunner.of(Session()).run_all([Call(made(_ends_sync, lambda: SystemExit("secret words")), {})]))
    assert result.text == (
        '{"error":{"code":"tool-failed","message":"ends failed with SystemExit. Nothing that it did to the session is left."}}'
    )
    assert "SystemExit" in caplog.text
    assert "_ends_sync" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in str(result.error)
    assert isinstance(result.error, DcafError)
    assert isinstance(result.error.__cause__, SystemExit)


def _exits(_: Any = None) -> Any:
    sys.exit(2)


class Exiting(BaseModel):
    @model_serializer
    def write(self) -> Any:
        sys.exit(2)


def in_a_validator(n: Annotated[int, BeforeValidator(_exits)]) -> None: ...
def in_a_default(n: int = Field(default_factory=_exits)) -> None: ...
def in_a_result() -> Any:
    return Exiting()


def in_a_write(session: Session) -> None:
    session.set("n", Exiting())


@pytest.mark.parametrize("function", [in_a_validator, in_a_default, in_a_result, in_a_write])
def test_code_of_the_application_around_a_call_is_contained_too(function: Any) -> None:
    arguments = {"n": 1} if function is in_a_validator else {}
    result, after = asyncio.run(ToolRunner.of(Session()).run_all([Call(tool(function), arguments), Call(good, {})]))
    assert isinstance(result.error, ExitError | TypeError | DcafError)  # of what is written: that it cannot be
    assert after.value == "good"


def test_a_tool_that_cancels_its_own_task_fails_alone() -> None:
    @tool
    async def cancels(session: Session) -> None:
        session["dirty"] = 1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    session = Session()
    result, after = asyncio.run(ToolRunner.of(session).run_all([Call(cancels, {}), Call(good, {})]))
    assert isinstance(result.error, ExitError)
    assert "cancels failed with CancelledError" in result.text
    assert after.value == "good"
    assert session.to_dict() == {"good": 1}


def test_what_an_executor_ends_with_ends_the_call() -> None:
    @tool
    async def waits() -> None:
        await asyncio.to_thread(sys.exit, 2)

    (result,) = asyncio.run(ToolRunner.of(Session()).run_all([Call(waits, {})]))
    assert isinstance(result.error, ExitError)


@both
def test_what_a_thread_of_its_own_ends_with_is_nobody_elses(backend: str) -> None:
    @tool
    def starts() -> str:
        threading.excepthook, before = (lambda _: None), threading.excepthook
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()
        threading.excepthook = before
        return "ok"

    assert anyio.run(functools.partial(starts.run, {}), backend=backend) == "ok"


@both
def test_an_exception_stays_what_it_is(backend: str) -> None:
    for error in (ValueError("x"), anyio.EndOfStream(), ExceptionGroup("", [ValueError()])):
        assert anyio.run(_run, made(_ends_sync, [error].pop), Session(), backend=backend) is error


# From outside


BEGUN: list[int] = []


async def _waits(session: Session) -> None:
    session["begun"] = 1
    await anyio.sleep(60)


def _waits_in_a_thread(session: Session) -> None:
    time.sleep(0.3)


async def _swallows(session: Session) -> None:
    BEGUN.append(1)
    try:
        await anyio.sleep(60)
    except BaseException:  # noqa: BLE001 - what is tested
        sys.exit(2)


@both
@pytest.mark.parametrize("function", [_waits, _waits_in_a_thread])
@pytest.mark.parametrize("way", ["run", "run_all"])
def test_who_cancels_a_call_ends_it(backend: str, function: Any, way: str) -> None:
    async def main() -> bool:
        turn, is_after = ToolRunner.of(Session()), False
        with anyio.move_on_after(0.05) as scope:
            waiting = tool(function)
            await (turn.run(waiting, {}) if way == "run" else turn.run_all([Call(waiting, {})]))
            is_after = True
        return scope.cancelled_caught and not is_after

    assert anyio.run(main, backend=backend)


def test_a_task_that_is_cancelled_by_asyncio_ends() -> None:
    async def main() -> None:
        for call in (ToolRunner.of(Session()).run(tool(_waits), {}), tool(_waits).run({}, session=Session())):
            task = asyncio.create_task(call)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ToolRunner.of(Session()).run_all([Call(tool(_waits), {})])

    asyncio.run(main())


@both
def test_a_tool_that_exits_when_its_time_is_over_ends_its_call_alone(backend: str) -> None:
    swallows = tool(timeout=timedelta(seconds=0.05))(_swallows)
    assert isinstance(anyio.run(_run, swallows, Session(), backend=backend), ExitError)


@both
def test_a_cancelled_tool_that_exits_does_not_end_the_program(backend: str) -> None:
    BEGUN.clear()
    ended: list[BaseException | None] = []

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            ended.append(await _run(tool(_swallows), Session()))

    async def main() -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(call, scope)
            while not BEGUN:
                await anyio.lowlevel.checkpoint()
            scope.cancel()

    anyio.run(main, backend=backend)
    assert [type(error) for error in ended] == [ExitError]


def test_a_call_that_is_closed_unfinished_is_closed() -> None:
    closed = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(1)

    async def main() -> None:
        coroutine = call_and_wait(waits, on_loop=True)
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert closed == [1]


PROGRAM = """
import anyio, os, signal, sys, threading, time
from dcaf import Session, tool
from dcaf.tools import Call, ToolRunner, threads

threads._is_of_signal = $seen

@tool
async def spins(session: Session) -> str:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.$signal)).start()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        sum(range(100))
    return "the signal is lost"

@tool
async def waits(session: Session) -> str:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.$signal)).start()
    await anyio.sleep(5)
    return "the signal is lost"

@tool
async def makes_its_own(session: Session) -> str:
    raise KeyboardInterrupt

@tool
def makes_its_own_in_a_thread(session: Session) -> str:
    raise KeyboardInterrupt

def leave(*_):
    sys.exit(7)

if $handled:
    signal.signal(signal.$signal, leave)

async def main():
    for item in (makes_its_own, makes_its_own_in_a_thread):
        (result,) = await ToolRunner.of(Session()).run_all([Call(item, {})])
        assert "KeyboardInterrupt" in result.text
    print("contained", flush=True)
    print("over:", (await ToolRunner.of(Session()).run_all([Call($tool, {})]))[0].text, flush=True)

anyio.run(main, backend="$backend")
"""


def _ended(folder: Path, **values: Any) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(Template(textwrap.dedent(PROGRAM)).substitute(values))
    command = [sys.executable, str(folder / "program.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("name", "handled", "tool"), [("SIGINT", 0, "spins"), ("SIGINT", 0, "waits"), ("SIGTERM", 1, "spins")])
def test_a_signal_to_the_program_still_ends_it(tmp_path: Path, backend: str, name: str, handled: int, tool: str) -> None:
    done = _ended(tmp_path, backend=backend, signal=name, handled=handled, tool=tool, seen="threads._is_of_signal")
    assert "contained" in done.stdout, done.stderr
    assert "over" not in done.stdout
    assert done.returncode in (7, 1, -signal.SIGINT), done.stderr  # 1: out of a nursery of trio, inside a group


def test_control_where_signals_are_not_told_apart_the_program_goes_on(tmp_path: Path) -> None:
    done = _ended(tmp_path, backend="trio", signal="SIGTERM", handled=1, tool="spins", seen="lambda _: False")
    assert "over: {" in done.stdout
    assert done.returncode == 0
