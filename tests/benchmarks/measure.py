"""Measures everything and writes the documents: `make bench` ends with ``python -m tests.benchmarks.measure``.

    --quick         in two minutes, roughly
    --only PART     one part of it: turns, spaced, sealing, streams, load, memory, profiles, small, ledger,
                    servers, remembered or service

Either of the two prints, and leaves the documents alone, but for --quick --write. BENCH_QUICK=1 is --quick.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from tests.benchmarks import (
    harness,
    ledger_load,
    ledger_process,
    ledger_servers,
    ledger_turns,
    ledger_ways,
    load,
    memory,
    profiles,
    sealing,
    service_beside,
    service_growth,
    service_search,
    service_trips,
    small,
    spaced,
    store_servers,
    streams,
    turns,
)
from tests.benchmarks.pages import MEASURED, write_documents
from tests.benchmarks.parts import PARTS, reached
from tests.benchmarks.ways import DCAF, DEFAULT, ENCRYPTED, LEAN, SESSION_MIDDLEWARE, WAYS

LIBRARIES: Final = (
    *("cryptography", "Django", "Flask", "httptools", "itsdangerous", "joserfc", "litestar", "orjson", "pybase64", "pydantic"),
    *("psycopg", "PyJWT", "pyseto", "redis", "starlette", "starsessions", "uvicorn", "uvloop"),
)
CPU_INFO: Final = Path("/proc/cpuinfo")
BY_NAME: Final = {way.name: way for way in WAYS}
PROFILED: Final = {
    f"{name}, {size}": (BY_NAME[name], size)
    for name, size in ((LEAN, "200 B"), (LEAN, "2 KB"), (LEAN, "16 KB"), (LEAN, "1 MB"), (ENCRYPTED, "16 KB"), (DEFAULT, "16 KB"))
}
IN_MEMORY: Final = [BY_NAME[name] for name in (SESSION_MIDDLEWARE, *DCAF)]


def parts(*, quick: bool) -> dict[str, Callable[[], Any]]:
    """Name of a part -> what measures it."""
    effort, many = (harness.QUICK, 200) if quick else (harness.FULL, 1_000)
    return {
        "turns": lambda: turns.measured(WAYS, effort),
        "spaced": lambda: spaced.measured([BY_NAME[name] for name in DCAF], effort),
        "sealing": lambda: sealing.measured(effort),
        "streams": lambda: streams.measured(WAYS[0], BY_NAME[DEFAULT], effort),
        "load": lambda: load.measured(load.QUICK if quick else load.FULL),
        "memory": lambda: memory.measured(IN_MEMORY, peaks=5, turns=many),
        "profiles": lambda: profiles.measured(PROFILED, seconds=0.5 if quick else 3),
        "small": lambda: small.measured(effort, imports=5 if quick else 21),
        "ledger": lambda: ledger(quick=quick),
        "servers": lambda: ledger_servers.measured(effort, many=100_000 if quick else ledger_turns.MANY),
        "remembered": lambda: ledger_load.measured(ledger_load.QUICK if quick else ledger_load.FULL),
        "service": lambda: service(quick=quick),
    }


def ledger(*, quick: bool) -> dict[str, Any]:
    """The ledger, in process and in several."""
    effort = harness.QUICK if quick else harness.FULL
    return {
        **ledger_turns.measured(effort, many=100_000 if quick else ledger_turns.MANY),
        "processes": ledger_process.measured(seconds=1 if quick else 6),
        "in_process": ledger_ways.measured(effort, profiled_s=0.5 if quick else 3),
    }


def service(*, quick: bool) -> dict[str, Any]:
    """The session service, beside others and by itself."""
    return {
        "beside": service_beside.measured(quick=quick),
        "sessions": service_growth.measured(harness.QUICK if quick else harness.FULL, quick=quick),
        "trips": service_trips.measured(),
        "search": service_search.measured(harness.QUICK if quick else harness.FULL, quick=quick),
    }


def describe(*, quick: bool, minutes: float) -> dict[str, Any]:
    """Which run this is."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "quick": quick,
        "minutes": round(minutes),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))} | _versions_of_stores(),
    }


def main() -> None:
    """Measure, print, and write."""
    arguments = _arguments()
    logging.disable()
    start, run = time.monotonic(), {}
    for name, measure in parts(quick=arguments.quick).items():
        if arguments.only in (None, name):
            run[name] = measure()
            _say(f"## {name}\n\n{PARTS[name](run)}\n")
    if arguments.only is None:
        run["run"] = describe(quick=arguments.quick, minutes=(time.monotonic() - start) / 60)
        _say(reached(run))
    if arguments.only is None and (arguments.write or not arguments.quick):
        MEASURED.write_text(json.dumps(run, indent=1) + "\n")
        write_documents(run)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.measure", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", default=os.environ.get("BENCH_QUICK") == "1", help="roughly")
    parser.add_argument("--only", choices=tuple(parts(quick=True)), help="one part")
    parser.add_argument("--write", action="store_true", help="write the documents of a quick run too")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _processor() -> str:
    """The model as Linux has it, else what Python knows."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _version(name: str) -> str | None:
    """The installed version, also of what only the servers have."""
    found = next(iter(distributions(name=name, path=[*sys.path, str(load.EXTRAS)])), None)
    return None if found is None else found.version


def _versions_of_stores() -> dict[str, str]:
    """SQLite's, and those of the servers that are here."""
    return {"SQLite": sqlite3.sqlite_version, **store_servers.versions()}


if __name__ == "__main__":
    main()
