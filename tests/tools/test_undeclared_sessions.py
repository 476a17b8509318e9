"""A tool that declares no session and writes it all the same: nothing of two calls is lost without a word."""

from __future__ import annotations

import asyncio
import functools
import importlib
import threading
import time
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

import dcaf
from dcaf import ConfigurationError, ReadOnlySession, Session, current_session, tool
from dcaf.core import context
from dcaf.core.errors import ToolConflictError
from dcaf.core.transaction import IGNORE
from dcaf.tools import Call, Result, ToolRunner, calls

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Account(Session):
    spent: int = 0
    bought: list[int] = []


async def pause() -> None:
    await anyio.sleep(0.01)


async def charge(amount: int) -> None:
    session = current_session()
    spent = session.get("spent", 0)
    await pause()
    session["spent"] = spent + amount


def charge_sync(amount: int) -> None:
    session = current_session()
    spent = session.get("spent", 0)
    time.sleep(0.01)
    session["spent"] = spent + amount


async def charge_typed(amount: int) -> None:
    account = current_session(Account)
    spent = account.spent
    await pause()
    account.spent = spent + amount


async def charge_nested(amount: int) -> None:
    """What is changed here is only seen when the call has ended."""
    whole = current_session().get("account", {"spent": 0})
    spent = whole["spent"]
    await pause()
    if "account" in current_session():
        current_session()["account"]["spent"] = spent + amount
    else:
        current_session()["account"] = {"spent": spent + amount}


class Desk:
    async def charge(self, amount: int) -> None:
        await charge(amount)

    @property
    def account(self) -> Session:
        return current_session()


DESK = Desk()
CHARGES: dict[str, Any] = {
    "unseen": charge,
    "typed": charge_typed,
    "nested": charge_nested,
    "method": DESK.charge,
}


async def by_helper(amount: int) -> str:
    await charge(amount)
    return "bought"


def by_helper_sync(amount: int) -> str:
    charge_sync(amount)
    return "bought"


async def by_typed(amount: int) -> str:
    await charge_typed(amount)
    return "bought"


async def by_nested(amount: int) -> str:
    await charge_nested(amount)
    return "bought"


async def by_object(amount: int) -> str:
    await DESK.charge(amount)
    return "bought"


async def by_property(amount: int) -> str:
    spent = DESK.account.get("spent", 0)
    await pause()
    DESK.account["spent"] = spent + amount
    return "bought"


async def by_class(amount: int) -> str:
    await Desk().charge(amount)
    return "bought"


async def by_module(amount: int) -> str:
    spent = dcaf.current_session().get("spent", 0)
    await pause()
    dcaf.current_session()["spent"] = spent + amount
    return "bought"


async def by_an_import_of_its_own(amount: int) -> str:
    from dcaf.core.context import current_session as found

    spent = found().get("spent", 0)
    await pause()
    found()["spent"] = spent + amount
    return "bought"


async def by_inner_function(amount: int) -> str:
    async def inner() -> None:
        await charge(amount)

    await inner()
    return "bought"


async def by_steps(amount: int) -> Any:
    spent = current_session().get("spent", 0)
    await pause()
    yield "half"
    current_session()["spent"] = spent + amount


def by_steps_sync(amount: int) -> Any:
    spent = current_session().get("spent", 0)
    time.sleep(0.01)
    yield "half"
    current_session()["spent"] = spent + amount


@tool
async def inner_tool(amount: int, session: Session) -> None:
    spent = session.get("spent", 0)
    await pause()
    session["spent"] = spent + amount


async def by_a_tool(amount: int) -> str:
    await ToolRunner.of(context.current_session()).run(inner_tool, {"amount": amount})
    return "bought"


SEEN: list[Any] = [
    by_helper,
    by_helper_sync,
    by_typed,
    by_nested,
    by_object,
    by_property,
    by_class,
    by_module,
    by_an_import_of_its_own,
    by_inner_function,
    by_steps,
    by_steps_sync,
    by_a_tool,
]


async def by_look_up(name: str, amount: int) -> str:
    await CHARGES[name](amount)
    return "bought"


def by_look_up_sync(name: str, amount: int) -> str:
    globals()["charge_sync"](amount)
    return "bought"


async def by_import(name: str, amount: int) -> str:
    found = importlib.import_module("dcaf")
    spent = vars(found)["current_session"]().get("spent", 0)
    await pause()
    vars(found)["current_session"]()["spent"] = spent + amount
    return "bought"


async def while_reading(session: ReadOnlySession, name: str, amount: int) -> str:
    await CHARGES[name](amount)
    return "bought"


UNSEEN: dict[str, Any] = {
    f"{function.__name__} {name}": functools.partial(function, name=name)
    for function in (by_look_up, while_reading)
    for name in ("unseen", "typed", "nested", "method")
} | {"sync": functools.partial(by_look_up_sync, name=""), "import": functools.partial(by_import, name="")}


def ran(backend: str, session: Session, *calls: Call) -> tuple[ToolRunner, list[Result]]:
    async def run() -> tuple[ToolRunner, list[Result]]:
        turn = ToolRunner.of(session)
        return turn, await turn.run_all(calls)

    return anyio.run(run, backend=backend)


def spent_of(session: Session) -> Any:
    return session["account"]["spent"] if "account" in session else session.get("spent", 0)


AMOUNTS = (10, 20, 40)


@both
@pytest.mark.parametrize("function", SEEN)
@pytest.mark.parametrize("before", [{}, {"spent": 0, "account": {"spent": 0}}], ids=["new", "old"])
def test_what_its_code_shows_waits_as_any_writer_does(backend: str, function: Any, before: dict[str, Any]) -> None:
    session, made = Session.from_dict(before if function is by_nested else {}), tool(function)
    turn, results = ran(backend, session, *(Call(made, {"amount": amount}) for amount in AMOUNTS))
    assert [result.error for result in results] == [None] * 3
    assert spent_of(session) == sum(AMOUNTS)
    assert turn.conflicts == []
    assert made.writes_session
    assert "current_session()" in str(made.explain())


@both
@pytest.mark.parametrize("function", UNSEEN.values(), ids=UNSEEN)
def test_what_it_does_not_show_is_kept_or_an_error_that_the_model_reads(backend: str, function: Any, caplog: Any) -> None:
    session = Session.from_dict({"spent": 0, "account": {"spent": 0}})
    made = tool(name="buy")(function)
    assert not made.writes_session
    turn, results = ran(backend, session, *(Call(made, {"amount": amount}) for amount in AMOUNTS))
    told = sum(amount for amount, result in zip(AMOUNTS, results, strict=True) if not result.is_error)
    assert told == max(session["spent"], session["account"]["spent"])
    assert turn.conflicts == []
    errors = [result for result in results if result.is_error]
    assert errors
    for result in errors:
        assert isinstance(result.error, ToolConflictError)
        assert result.text == (
            '{"error":{"code":"tool-conflict","message":"Another call changed what this one had read. Nothing that it did to the '
            'session is left."}}'
        )
    assert "buy wrote the session, and another call had changed what it read. Declare `session: Session`" in caplog.text


@pytest.mark.parametrize("function", [UNSEEN["by_look_up unseen"], UNSEEN["by_look_up nested"]])
def test_control_where_a_lost_change_is_no_error_it_is_lost(function: Any, monkeypatch: Any, caplog: Any) -> None:
    async def commits(self: Any) -> Any:
        return IGNORE

    monkeypatch.setattr(calls.OpenCall, "_line_up_late", commits)
    with pytest.raises(AssertionError):
        test_what_it_does_not_show_is_kept_or_an_error_that_the_model_reads("asyncio", function, caplog)


@both
@pytest.mark.parametrize("item", [*SEEN, *UNSEEN.values()])
def test_alone_it_writes(backend: str, item: Any) -> None:
    function = tool(name="buy")(item)
    session = Session.from_dict({"account": {"spent": 0}})
    for way in ("run", "run_all"):
        before = max(session.get("spent", 0), session["account"]["spent"])

        async def go(way: str = way) -> Any:
            turn = ToolRunner.of(session)
            if way == "run":
                return await turn.run(function, {"amount": 10})
            return (await turn.run_all([Call(function, {"amount": 10})]))[0].error

        assert anyio.run(go, backend=backend) != "an error"
        assert max(session.get("spent", 0), session["account"]["spent"]) == before + 10


def test_below_no_turn_it_writes_the_session_that_runs() -> None:
    session = Session()
    with context.running(session):
        for function in (tool(by_helper), tool(name="buy")(UNSEEN["by_look_up unseen"])):
            asyncio.run(function.run({"amount": 10}))
    assert session.to_dict() == {"spent": 20}


@both
def test_it_commits_after_the_writers_that_run_and_undoes_none_of_them(backend: str) -> None:
    begun = threading.Event()

    @tool
    async def writer(session: Session) -> None:
        found = session.get("spent", 0)
        begun.set()
        await anyio.sleep(0.05)
        session["spent"] = found + 1

    @tool
    async def blind() -> None:
        while not begun.is_set():  # noqa: ASYNC110 - of threads too
            await anyio.sleep(0.001)
        CHARGES["set"]()

    CHARGES["set"] = lambda: current_session().set("seen", 1)
    session = Session()
    turn, results = ran(backend, session, Call(writer, {}), Call(blind, {}), Call(writer, {}))
    assert [result.error for result in results] == [None] * 3
    assert session.to_dict() == {"spent": 2, "seen": 1}
    assert turn.conflicts == []


@both
def test_of_two_that_write_blindly_the_later_one_counts_as_in_their_order(backend: str) -> None:
    @tool
    async def put(value: int, pause_s: float) -> None:
        await anyio.sleep(pause_s)
        CHARGES["put"](value)

    CHARGES["put"] = lambda value: current_session().set("last", value)
    session = Session()
    _, results = ran(backend, session, Call(put, {"value": 1, "pause_s": 0.03}), Call(put, {"value": 2, "pause_s": 0.0}))
    assert [result.error for result in results] == [None, None]
    assert session["last"] == 2


@both
def test_counting_and_appending_never_fail(backend: str) -> None:
    @tool
    async def log(item: int) -> None:
        CHARGES["log"](item)
        await pause()

    def write(item: int) -> None:
        current_session().incr("n")
        current_session().append("log", item)

    CHARGES["log"] = write
    session = Session()
    _, results = ran(backend, session, *(Call(log, {"item": item}) for item in range(5)))
    assert [result.error for result in results] == [None] * 5
    assert (session["n"], sorted(session["log"])) == (5, [0, 1, 2, 3, 4])


@both
def test_a_call_inside_a_call_is_ordered_where_it_is_made(backend: str) -> None:
    buy = tool(name="buy")(UNSEEN["by_look_up unseen"])

    @tool
    async def both_at_once(session: Session) -> list[bool]:
        results = await ToolRunner.of(session).run_all([Call(buy, {"amount": 10}), Call(buy, {"amount": 20})])
        return [result.is_error for result in results]

    session = Session.from_dict({"spent": 0})
    _, results = ran(backend, session, Call(both_at_once, {}), Call(both_at_once, {}))
    assert [sorted(result.value) for result in results] == [[False, True]] * 2
    assert session["spent"] in (20, 30, 40)
    told = sum(amount for result in results for amount, failed in zip((10, 20), result.value, strict=True) if not failed)
    assert session["spent"] == told


@both
def test_by_choice_side_by_side_a_conflict_is_logged_as_before(backend: str) -> None:
    buy = tool(name="buy", parallel=True)(UNSEEN["by_look_up unseen"])
    session = Session.from_dict({"spent": 0})
    turn, results = ran(backend, session, Call(buy, {"amount": 10}), Call(buy, {"amount": 20}))
    assert [result.error for result in results] == [None, None]
    assert [conflict.kind for conflict in turn.conflicts] == ["stale-read"]


@both
def test_those_that_have_nothing_to_do_with_a_session_do_not_wait(backend: str) -> None:
    met = []

    async def main() -> None:
        barrier = anyio.Event()

        @tool
        async def meets(number: int) -> None:
            met.append(number)
            if len(met) == 3:
                barrier.set()
            await barrier.wait()

        with anyio.fail_after(5):
            results = await ToolRunner.of(Session()).run_all([Call(meets, {"number": number}) for number in range(3)])
        assert not any(result.is_error for result in results)
        assert not meets.writes_session

    anyio.run(main, backend=backend)


@both
def test_who_reads_a_writers_stream_is_told_that_the_commit_would_wait_for_it(backend: str) -> None:
    @tool
    async def steps(session: Session) -> Any:
        yield 1
        session["a"] = 1

    async def main() -> None:
        turn = ToolRunner.of(Session())
        async with aclosing(turn.stream(steps, {})) as items:
            async for _ in items:
                with pytest.raises(ConfigurationError, match="would wait for the stream that this task is reading"):
                    await turn.run(tool(name="buy")(UNSEEN["by_look_up unseen"]), {"amount": 1})
        assert turn.session.to_dict() == {"a": 1}

    anyio.run(main, backend=backend)


@both
def test_one_that_is_cancelled_while_it_waits_to_commit_leaves_nothing_and_holds_up_nobody(backend: str) -> None:
    @tool
    async def slow(session: Session) -> None:
        await anyio.sleep(0.1)
        session["slow"] = 1

    async def main() -> Session:
        session = Session()
        turn = ToolRunner.of(session)
        async with anyio.create_task_group() as group:
            group.start_soon(turn.run, slow, {})
            await anyio.sleep(0.01)
            with anyio.move_on_after(0.03) as scope:
                await turn.run(tool(name="buy")(UNSEEN["by_look_up unseen"]), {"amount": 1})
            assert scope.cancelled_caught
        await turn.run(slow, {})
        return session

    assert anyio.run(main, backend=backend).to_dict() == {"slow": 1}


def test_a_module_beside_that_of_the_tool_is_looked_at_and_one_elsewhere_is_not(tmp_path: Path, monkeypatch: Any) -> None:
    helper = "from dcaf import current_session\ndef charge():\n    current_session().incr('n')\n"
    using = "import {0}\ndef buy():\n    {0}.charge()\n"
    for path, text in {
        "flat_billing.py": helper,
        "flat_tools.py": using.format("flat_billing"),
        "far/far_billing.py": helper,
        "far_tools.py": using.format("far_billing"),
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "far")
    made = {name: tool(importlib.import_module(name).buy) for name in ("flat_tools", "far_tools")}
    assert {name: item.writes_session for name, item in made.items()} == {"flat_tools": True, "far_tools": False}
    session = Session()
    for item in made.values():
        ran("asyncio", session, Call(item, {}), Call(item, {}))
    assert session["n"] == 4


def test_tools_that_name_each_other_are_looked_at_once() -> None:
    assert not ping.writes_session
    assert not pong.writes_session
    assert not tool(by_look_up).writes_session


@tool
def ping(n: int) -> Any:
    return pong(n)


@tool(timeout=timedelta(seconds=9))
def pong(n: int) -> Any:
    return ping(n)


def test_a_worker_thread_of_a_tool_is_in_its_call() -> None:
    def write() -> None:
        current_session().incr("n")

    @tool
    def works() -> None:
        anyio.from_thread.run_sync(write)

    session = Session()
    _, results = ran("asyncio", session, Call(works, {}), Call(works, {}))
    assert [result.error for result in results] == [None, None]
    assert session["n"] == 2
