"""Streams: what the session adds before the first byte, and to each event, of NDJSON and of server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message

from tests.benchmarks.harness import Batch, Effort, interleaved, of_coroutine, written
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.turns import Turn, Way, asked

NUMBERS: Final = (10, 100, 1_000, 10_000)
SIZE: Final = "16 KB"
DELTA: Final = b'{"type":"delta","text":"a few words of an answer"}'
DONE: Final = b'{"type":"done"}'
KINDS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "application/x-ndjson": lambda event: event + b"\n",
    "text/event-stream": lambda event: b"data: " + event + b"\n\n",
}
FIRST: Final = "first byte"


def stream_of(way: Way, kind: str, number: int) -> Turn:
    """A request that is answered with so many events; one small key is written, and the last event ends the turn."""
    delta, done = KINDS[kind](DELTA), KINDS[kind](DONE)

    async def events() -> AsyncIterator[bytes]:
        for _ in range(number - 1):
            yield delta
        yield done

    async def chat(request: Request) -> StreamingResponse:
        way.session(request)["step"] += 1
        return StreamingResponse(events(), media_type=kind)

    return asked(way, chat, state_of(SIZES[SIZE]))


def measured(without: Way, with_session: Way, effort: Effort) -> dict[str, Any]:
    """Kind -> number of events, and the first byte -> row -> what was measured."""
    ways = (without, with_session)
    with asyncio.Runner() as runner:
        return {kind: {FIRST: _first(runner, ways, kind, effort), **_whole(runner, ways, kind, effort)} for kind in KINDS}


def first_byte(runner: asyncio.Runner, turn: Turn) -> Batch:
    """Time from the request to the first byte of an event."""

    async def once() -> float:
        left: list[float] = []

        async def send(message: Message) -> None:
            if message.get("body"):
                left.append(time.perf_counter())

        start = time.perf_counter()
        await turn.ask(send)
        return left[0] - start

    async def several(times: int) -> float:
        return sum([await once() for _ in range(times)])

    return lambda times: runner.run(several(times))


def _first(runner: asyncio.Runner, ways: tuple[Way, ...], kind: str, effort: Effort) -> dict[str, Any]:
    turns = {way.name: stream_of(way, kind, NUMBERS[0]) for way in ways}
    return written(interleaved({name: first_byte(runner, turn) for name, turn in turns.items()}, effort))


def _whole(runner: asyncio.Runner, ways: tuple[Way, ...], kind: str, effort: Effort) -> dict[str, Any]:
    turns = {f"{number} {way.name}": stream_of(way, kind, number) for number in NUMBERS for way in ways}
    found = written(interleaved({name: of_coroutine(runner, turn) for name, turn in turns.items()}, effort))
    return {str(number): {way.name: found[f"{number} {way.name}"] for way in ways} for number in NUMBERS}
