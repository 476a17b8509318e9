"""How long turns take, and who has how many, where several processes have turns at once on one file.

>>> Served([[0.002, 0.001], [0.003]]).fairness
0.5
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from dcaf.engines import SqliteEngine
from dcaf.service import SessionService
from tests.service.kept_places import KeptPlace

PROCESSES: Final = 4
TURNS: Final = 8
"""At once, in each process."""
START_S: Final = 60.0
PATIENCE: Final = timedelta(seconds=30)
"""Also beside other tests."""


@dataclass(frozen=True)
class Served:
    """What came of it.

    Attributes:
        took_s: Of each process, how long each of its turns took.
    """

    took_s: list[list[float]]

    @property
    def fairness(self) -> float:
        """Turns of the process that had fewest, for each of the one that had most."""
        counts = [len(took) for took in self.took_s]
        return min(counts) / max(counts)

    @property
    def p99_ms(self) -> float:
        """How long 99 in 100 turns took at most."""
        ordered = sorted(each for took in self.took_s for each in took)
        return 1_000 * ordered[len(ordered) * 99 // 100]

    def __str__(self) -> str:
        total = sum(map(len, self.took_s))
        return f"{total:,} turns, least/most served {self.fairness:.2f}, 99 in 100 within {self.p99_ms:.1f} ms"


def count_kept(place: KeptPlace) -> list[int]:
    """How many turns of each process are there."""
    service, found = place.open_service(), []
    for number in range(PROCESSES):
        kept = [service.sync.get(user=f"{number}-{at}", id="v") for at in range(TURNS)]
        found.append(sum(session.get("n", 0) for session in kept if session is not None))
    return found


def serve(place: KeptPlace, seconds: float) -> Served:
    """Have turns in all processes at once for so long."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(PROCESSES), context.SimpleQueue()
    arguments = (place.without_engines(), seconds, barrier, answers)
    processes = [context.Process(target=_serve, args=(number, *arguments)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [took_s for _, took_s in sorted(answers.get() for _ in processes)]
    for process in processes:
        process.join()
    return Served(found)


def _serve(number: int, place: KeptPlace, seconds: float, barrier: Any, answers: Any) -> None:
    service = SessionService(SqliteEngine(place.where, timeout=PATIENCE), app="clinic")
    took_s: list[float] = []

    async def converse(at: int) -> None:
        await service.create(user=f"{number}-{at}", id="v")
        await asyncio.to_thread(barrier.wait, START_S) if at == 0 else await began.wait()
        began.set()
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            await take_turn(service, f"{number}-{at}")
            took_s.append(time.monotonic() - start)

    async def main() -> None:
        await asyncio.gather(*(converse(at) for at in range(TURNS)))
        await service.engine.aclose()

    began = asyncio.Event()
    try:
        asyncio.run(main())
    finally:
        answers.put((number, took_s))


async def take_turn(service: SessionService, user: str) -> None:
    async with service.open(user=user, id="v") as session:
        session["n"] = session.get("n", 0) + 1
        session["said"] = f"{session['n']}"
        for role in ("user", "assistant"):
            session.messages.add(role, "Hello!")
