"""Times several things side by side: in rounds, in a new order each round, so that a change of the clock touches all.

>>> found = interleaved({"a": of_function(int), "b": of_function(list)}, Effort(rounds=2, least_rounds=2, batch_s=1e-4, table_s=1))
>>> sorted(found), all(sample.median_s > 0 for sample in found.values())
(['a', 'b'], True)

What a reader gets wrong: a figure can be compared with one of the same table only. The tables are made one after the other.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

Batch: TypeAlias = Callable[[int], float]
"""Does a thing that many times, and returns the seconds that all of them took."""

WARM_UP: Final = 3
ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "build"
"""A disk, which the folder for temporary files is not everywhere."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: How often each subject of a table is timed at most.
        least_rounds: At least that often, however long it takes.
        batch_s: How long a subject is repeated in one round, so that the clock's own grain does not count.
        table_s: How long a table may take.
    """

    rounds: int
    least_rounds: int
    batch_s: float
    table_s: float


FULL: Final = Effort(rounds=61, least_rounds=15, batch_s=0.004, table_s=9.0)
QUICK: Final = Effort(rounds=9, least_rounds=3, batch_s=0.001, table_s=0.5)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured of one subject.

    Attributes:
        median_s: Seconds for one call, the median of the rounds.
        spread: The middle half of the rounds (IQR) as a part of the median.
    """

    median_s: float
    spread: float

    def written(self) -> dict[str, float]:
        """As JSON, in microseconds."""
        return {"us": round(self.median_s * 1e6, 3), "spread": round(self.spread, 3)}


def of_function(call: Callable[[], object]) -> Batch:
    """Time a function."""

    def batch(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - start

    return batch


def of_coroutine(runner: asyncio.Runner, call: Callable[[], Awaitable[object]]) -> Batch:
    """Time a coroutine function; starting and stopping the loop does not count."""

    async def several(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            await call()
        return time.perf_counter() - start

    return lambda times: runner.run(several(times))


def time_together(runner: asyncio.Runner, calls: Sequence[Callable[[], Awaitable[object]]]) -> Batch:
    """Time calls that go on at once, so many times each; what one of them adds."""

    async def several(times: int) -> float:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(repeat(call, times))
        return (time.perf_counter() - start) / len(calls)

    return lambda times: runner.run(several(times))


def take_turns(runner: asyncio.Runner, calls: Iterator[Callable[[], Awaitable[object]]]) -> Batch:
    """Time calls, one after the other."""

    async def several(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            await next(calls)()
        return time.perf_counter() - start

    return lambda times: runner.run(several(times))


async def repeat(call: Callable[[], Awaitable[object]], times: int) -> None:
    """Call a coroutine function so many times."""
    for _ in range(times):
        await call()


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder on a disk."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as place:
        yield Path(place)


def interleaved(subjects: Mapping[str, Batch], effort: Effort) -> dict[str, Sample]:
    """Time all subjects of one table."""
    gc.collect()
    gc.freeze()  # what is loaded is not looked at again each time
    try:
        once = {name: _once(batch) for name, batch in subjects.items()}
        times = {name: max(1, round(effort.batch_s / once_s)) for name, once_s in once.items()}
        round_s = sum(once[name] * times[name] for name in subjects)
        rounds = min(effort.rounds, max(effort.least_rounds, round(effort.table_s / round_s)))
        return {name: _sample(found) for name, found in _rounds(subjects, times, rounds).items()}
    finally:
        gc.unfreeze()


def slope(points: Mapping[float, float]) -> float:
    """How much y grows with x, by least squares.

    >>> slope({1: 3, 2: 5, 3: 7})
    2.0
    """
    return statistics.linear_regression(list(points), list(points.values())).slope


def _once(batch: Batch) -> float:
    return min(batch(1) for _ in range(WARM_UP))


def _rounds(subjects: Mapping[str, Batch], times: Mapping[str, int], rounds: int) -> dict[str, list[float]]:
    drawn, order = random.Random(0), list(subjects)
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        drawn.shuffle(order)
        for name in order:
            gc.collect()
            found[name].append(subjects[name](times[name]) / times[name])
    return found


def _sample(seconds: list[float]) -> Sample:
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Sample(median, (high - low) / median)


def written(samples: Mapping[str, Sample | None]) -> dict[str, Any]:
    """A table as JSON; None is a subject that refuses."""
    return {name: None if sample is None else sample.written() for name, sample in samples.items()}
