"""Memory of a turn, as Python counts it: the most that is held at once, and what is still held after many.

What came in, body and cookie, is there before and does not count; what goes out does.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tracemalloc
from collections.abc import Iterable
from typing import Any, Final

import orjson
from starlette.types import Message

from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.turns import Turn, Way, turn_of

PEAK_SIZE: Final = "1 MB"
GROWTH_SIZE: Final = "16 KB"
WARM_UP: Final = 600
"""Turns after which caches with an end are full."""


def measured(ways: Iterable[Way], *, peaks: int, turns: int) -> dict[str, Any]:
    """Row -> peak of a 1 MB turn as a multiple of its state, and growth in bytes over many turns of 16 KB."""
    with asyncio.Runner() as runner:
        return {way.name: _of(runner, way, peaks, turns) for way in ways}


def _of(runner: asyncio.Runner, way: Way, peaks: int, turns: int) -> dict[str, Any]:
    large, small = state_of(SIZES[PEAK_SIZE]), state_of(SIZES[GROWTH_SIZE])
    peak_bytes = _peak(runner, turn_of(way, "write", large, {}), peaks)
    grown_bytes = _growth(runner, turn_of(way, "write", small, {}), turns)
    return {"peak": round(peak_bytes / len(orjson.dumps(large)), 3), "grown_bytes": grown_bytes, "turns": turns}


def _peak(runner: asyncio.Runner, turn: Turn, times: int) -> float:
    """The most bytes held at once during a turn, over what was held before it: the median of some turns."""
    runner.run(_several(turn, 2))
    tracemalloc.start()
    try:
        return statistics.median(_peak_of_one(runner, turn) for _ in range(times))
    finally:
        tracemalloc.stop()


def _peak_of_one(runner: asyncio.Runner, turn: Turn) -> int:
    gc.collect()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    runner.run(_several(turn, 1))
    return tracemalloc.get_traced_memory()[1] - before


def _growth(runner: asyncio.Runner, turn: Turn, turns: int) -> int:
    """How many bytes more are held after so many turns."""
    tracemalloc.start()
    try:
        before = _held_after(runner, turn, WARM_UP)
        return _held_after(runner, turn, turns) - before
    finally:
        tracemalloc.stop()


def _held_after(runner: asyncio.Runner, turn: Turn, times: int) -> int:
    runner.run(_several(turn, times))
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _several(turn: Turn, times: int) -> None:
    for _ in range(times):
        await turn.ask(_drop)


async def _drop(message: Message) -> None:
    """Keep nothing of the answer."""
