"""Several processes on one SQLite file, each with some turns at once: how long a turn takes, and whether all are served alike.

    python -m tests.benchmarks.ledger_process PATH FIRST TURNS SECONDS

is one of them: it says that it is ready, waits for a line, goes on for so long, and prints how long each of its turns took.

What a reader gets wrong: with more processes than cores, a turn waits for a core as well as for the file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from dcaf.ledger import Ledger
from tests.benchmarks.harness import ROOT, folder
from tests.benchmarks.ledger_engines import sqlite_engine
from tests.benchmarks.ledger_turns import Conversation
from tests.benchmarks.sealing import AUDIENCE

PROCESSES: Final = 4
TURNS: Final = 8
READY: Final = "ready\n"


def measured(*, seconds: float) -> dict[str, Any]:
    """Milliseconds of a turn over all processes, turns per second, and how many the least and the most served one had."""
    with folder() as place:
        running = [_start(place / "shared.db", number, seconds) for number in range(PROCESSES)]
        for process in running:
            _expect_ready(process)
        for process in running:
            _begin(process)
        found = [_finish(process) for process in running]
    took = sorted(took_ms for each in found for took_ms in each)
    counts = [len(each) for each in found]
    return {
        "per_s": round(len(took) / seconds, 1),
        "median_ms": took[len(took) // 2],
        "p99_ms": took[len(took) * 99 // 100],
        "most_ms": took[-1],
        "least_to_most": round(min(counts) / max(counts), 3),
    }


async def take_turns(ledger: Ledger, first: int, turns: int, seconds: float) -> list[float]:
    """Milliseconds of each turn, of so many at once."""
    took: list[float] = []
    conversations = [Conversation(ledger, first + number) for number in range(turns)]
    for conversation in conversations:
        await conversation.turn()
    sys.stdout.write(READY)
    sys.stdout.flush()
    sys.stdin.readline()
    end_s = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for conversation in conversations:
            group.create_task(_go_on(conversation, end_s, took))
    await ledger.aclose()
    return took


async def _go_on(conversation: Conversation, end_s: float, took: list[float]) -> None:
    while time.perf_counter() < end_s:
        start = time.perf_counter()
        await conversation.turn()
        took.append(round((time.perf_counter() - start) * 1e3, 3))


def _start(path: Path, number: int, seconds: float) -> subprocess.Popen[str]:
    arguments = [str(path), str(number * TURNS + 1), str(TURNS), str(seconds)]
    command = [sys.executable, "-m", "tests.benchmarks.ledger_process", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _expect_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != READY:
        raise RuntimeError("a process of the benchmark failed: its traceback is above")


def _begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("begin\n")
    process.stdin.flush()


def _finish(process: subprocess.Popen[str]) -> list[float]:
    written, _ = process.communicate(timeout=120)
    found: list[float] = json.loads(written)
    return found


def main(path: str, first: str, turns: str, seconds: str) -> None:
    """One of the processes."""
    logging.disable()
    ledger = Ledger(sqlite_engine(Path(path)), audience=AUDIENCE)
    sys.stdout.write(json.dumps(asyncio.run(take_turns(ledger, int(first), int(turns), float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
