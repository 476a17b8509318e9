"""Generators as tools: what they yield comes one by one, and what they wrote is in the session."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dcaf import Session, Tool, current_session, tool
from dcaf.core import ToolArgumentError
from dcaf.core.context import in_a_call, running

BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])
CALLER: ContextVar[int] = ContextVar("caller", default=0)


@tool
def lines(number: int, session: Session) -> Iterator[str]:
    """Say lines."""
    try:
        for index in range(number):
            session.append("said", index)
            yield f"line {index}"
    finally:
        session["closed"] = True


@tool
async def words(number: int, session: Session) -> AsyncIterator[str]:
    """Say words."""
    try:
        for index in range(number):
            session.append("said", index)
            yield f"line {index}"
            await anyio.lowlevel.checkpoint()
    finally:
        await anyio.lowlevel.checkpoint()
        session["closed"] = True


KINDS = pytest.mark.parametrize("made", [lines, words], ids=["sync", "async"])


@BOTH
@KINDS
def test_what_a_generator_yields_is_collected_by_run_and_streamed_by_stream(made: Tool[..., Any], backend: str) -> None:
    async def turn() -> None:
        session = Session()
        assert await made.run({"number": 3}, session=session) == ["line 0", "line 1", "line 2"]
        assert session.to_dict() == {"said": [0, 1, 2], "closed": True}
        assert [item async for item in made.stream({"number": 2}, session=Session())] == ["line 0", "line 1"]

    anyio.run(turn, backend=backend)


@BOTH
@KINDS
def test_what_a_stream_writes_is_in_the_session_when_it_has_ended(made: Tool[..., Any], backend: str) -> None:
    async def turn() -> list[int]:
        session = Session()
        seen = [len(session) async for _ in made.stream({"number": 3}, session=session)]
        return [*seen, *session["said"]]

    assert anyio.run(turn, backend=backend) == [0, 0, 0, 0, 1, 2]


CLOSED: list[int] = []


@tool
def lines_told(session: Session) -> Iterator[int]:
    """Yield, and tell when it is closed."""
    try:
        session["said"] = 1
        yield 1
        yield 2
    finally:
        CLOSED.append(session["said"])


@tool
async def words_told(session: Session) -> AsyncIterator[int]:
    """Yield, and tell when it is closed."""
    try:
        session["said"] = 1
        yield 1
        yield 2
    finally:
        await anyio.lowlevel.checkpoint()
        CLOSED.append(session["said"])


@BOTH
@pytest.mark.parametrize("made", [lines_told, words_told], ids=["sync", "async"])
@pytest.mark.parametrize("end", ["left", "cancelled"])
def test_a_stream_that_does_not_end_by_itself_closes_its_generator_and_leaves_nothing(
    made: Tool[..., Any], backend: str, end: str
) -> None:
    async def turn() -> Session:
        session = Session()
        with anyio.CancelScope() as scope:
            async with aclosing(made.stream({}, session=session)) as found:
                async for _ in found:
                    if end == "left":
                        break
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
        return session

    CLOSED.clear()
    assert anyio.run(turn, backend=backend).to_dict() == {}
    assert CLOSED == [1]


def test_a_sync_generator_runs_in_threads_in_one_context_and_an_async_one_on_the_loop() -> None:
    main = threading.get_ident()

    @tool
    def sync() -> Iterator[object]:
        CALLER.set(CALLER.get() + 1)
        yield (CALLER.get(), threading.get_ident() == main, in_a_call())
        yield (CALLER.get(), threading.get_ident() == main, current_session()["n"])

    @tool
    async def later() -> AsyncIterator[object]:
        yield (threading.get_ident() == main, in_a_call())

    async def turn() -> None:
        CALLER.set(7)
        with running(Session.from_dict({"n": 5})):
            assert await sync.run({}) == [(8, False, True), (8, False, 5)]
            assert await later.run({}) == [(True, True)]
            assert (CALLER.get(), in_a_call()) == (7, False)

    anyio.run(turn)


def test_the_reader_of_a_stream_is_not_inside_the_call() -> None:
    async def turn() -> list[bool]:
        return [in_a_call() async for _ in words.stream({"number": 2}, session=Session())]

    assert anyio.run(turn) == [False, False]


def test_a_tool_that_is_no_generator_streams_its_one_result() -> None:
    @tool
    async def one(session: Session) -> int:
        return session.incr("n")

    async def turn() -> list[int]:
        return [item async for item in one.stream({}, session=Session())]

    assert anyio.run(turn) == [1]


def test_arguments_that_do_not_fit_are_refused_before_anything_is_yielded() -> None:
    async def turn() -> None:
        async for _ in lines.stream({"number": "many"}, session=Session()):
            raise AssertionError

    with pytest.raises(ToolArgumentError):
        anyio.run(turn)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_generator_raises_comes_out_after_what_it_has_yielded(kind: str) -> None:
    def sync() -> Iterator[int]:
        yield 1
        raise LookupError

    async def later() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    async def turn() -> None:
        stream = tool(sync if kind == "sync" else later).stream({})
        assert await anext(stream) == 1
        with pytest.raises(LookupError):
            await anext(stream)

    anyio.run(turn)
