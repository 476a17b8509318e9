"""uvicorn under load: one worker and one way to have a session at a time, in rounds, over loopback.

The servers have httptools and uvloop where they are installed in `.venv/bench`, as `pip install 'uvicorn[standard]'` has them.
The other tests do without: they run what `dcaf[server]` installs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.server import SAME_BYTES, request_of, turn_for
from tests.benchmarks.ways import DCAF, DEFAULT, LEAN, SESSION_MIDDLEWARE, Starsessions

ROOT: Final = Path(__file__).parents[2]
EXTRAS: Final = ROOT / ".venv" / "bench"
SUBJECTS: Final = (SAME_BYTES + LEAN, SAME_BYTES + DEFAULT, SESSION_MIDDLEWARE, Starsessions.name, *DCAF)
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True, slots=True)
class Load:
    """How hard, and for how long.

    Attributes:
        rounds: How often each server is started.
        connections: With one request at a time each.
        warm_up_s: Before it counts.
        seconds: That count.
    """

    rounds: int
    connections: int
    warm_up_s: float
    seconds: float


FULL: Final = Load(rounds=5, connections=8, warm_up_s=0.5, seconds=3.0)
QUICK: Final = Load(rounds=1, connections=8, warm_up_s=0.2, seconds=0.8)


def measured(load: Load) -> dict[str, Any]:
    """Row -> the median of the rounds, for each figure."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SUBJECTS}
    drawn, order = random.Random(0), list(SUBJECTS)
    for _ in range(load.rounds):
        drawn.shuffle(order)
        for name in order:
            found[name].append(once(name, load))
    return {name: together(rounds) for name, rounds in found.items()}


def once(name: str, load: Load) -> dict[str, Any]:
    """Start one server, drive it, and stop it."""
    with served(name) as server:
        arguments = [server["port"], load.connections, load.warm_up_s, load.seconds]
        done = subprocess.run(
            [*on(CLIENT_CORE), sys.executable, "-m", "tests.benchmarks.client", *map(str, arguments)],
            input=request_of(turn_for(name)),
            capture_output=True,
            cwd=ROOT,
            check=True,
            timeout=60,
        )
    return {**json.loads(done.stdout), "http": server["http"], "loop": server["loop"]}


@contextmanager
def served(name: str) -> Iterator[dict[str, Any]]:
    """A server while the block runs: its port, its HTTP parser and its loop."""
    environment = {**os.environ, "PYTHONPATH": str(EXTRAS)}
    command = [*on(SERVER_CORE), sys.executable, "-m", "tests.benchmarks.server", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def on(core: int) -> list[str]:
    """What stands before a command to hold it on a core of its own, where the machine has two and the system a way."""
    taskset = shutil.which("taskset")
    return [taskset, "--cpu-list", str(core)] if taskset and (os.cpu_count() or 1) > 1 else []


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the rounds, and how much their rates differ."""
    figures = {
        key: round(statistics.median(one[key] for one in rounds), 3) for key, value in rounds[0].items() if isinstance(value, float)
    }
    rates = [one["per_s"] for one in rounds]
    return {**figures, "spread": round((max(rates) - min(rates)) / figures["per_s"], 3), **_parts(rounds[0])}


def _parts(one: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in one.items() if isinstance(value, str)}
