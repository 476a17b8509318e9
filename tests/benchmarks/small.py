"""The small costs: importing dcaf, filling a session into a tool's call, reading a value as a type."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from pydantic import BaseModel, TypeAdapter

from dcaf import Session, tool
from dcaf.tools.injection_plan import Plan
from tests.benchmarks.harness import Batch, Effort, interleaved, of_coroutine, of_function, written
from tests.benchmarks.states import state_of

IMPORTS: Final = """
import json, time
start = time.perf_counter()
import starlette.applications, starlette.requests, starlette.responses, starlette.routing
from pydantic import BaseModel, TypeAdapter
before = time.perf_counter()
import dcaf
print(json.dumps([before - start, time.perf_counter() - before]))
"""
ARGUMENTS: Final[dict[str, Any]] = {"name": "api", "replicas": 3}


class Line(BaseModel):
    """One line of a cart."""

    sku: str
    quantity: int = 1
    price: float = 0.0


class Typed(Session):
    """A typed view."""

    step: int = 1


LINES: Final = TypeAdapter(list[Line])
STATE: Final = {"step": 3, "lines": state_of(2_048)["cart"]["items"]}


def measured(effort: Effort, *, imports: int) -> dict[str, Any]:
    """All of them; ``imports`` is the number of fresh interpreters."""
    return {"imports": import_times(imports), "calls": calls(effort), "reads": reads(effort)}


def import_times(times: int) -> dict[str, float]:
    """Seconds to import Starlette and pydantic, and then dcaf: medians of fresh interpreters."""
    found = [_imported() for _ in range(times + 1)][1:]  # the first one fills the disk's cache
    before, own = zip(*found, strict=True)
    return {"starlette and pydantic": round(statistics.median(before), 4), "dcaf": round(statistics.median(own), 4)}


def calls(effort: Effort) -> dict[str, Any]:
    """A tool's function called with validated arguments: by hand, with the session filled in, and all of ``run``."""
    plain, typed, session = Plan.of(set_service), Plan.of(set_service_typed), Session()
    whole = tool(set_service_async)
    with asyncio.Runner() as runner:
        subjects = {
            "by hand": of_function(lambda: set_service(**dict(ARGUMENTS), session=session)),
            "session filled in": of_function(lambda: plain.call(set_service, dict(ARGUMENTS), session)),
            "typed session filled in": of_function(lambda: typed.call(set_service_typed, dict(ARGUMENTS), session)),
            "all of Tool.run, validation too": of_coroutine(runner, lambda: whole.run(ARGUMENTS, session=session)),
        }
        return written(interleaved(subjects, effort))


def reads(effort: Effort) -> dict[str, Any]:
    """A value read as ``list[Line]``, beside the pydantic call that it stands for."""
    data, session = orjson.dumps(STATE["lines"]), Session.from_dict(STATE)
    subjects = {
        "pydantic's validate_json alone": of_function(lambda: LINES.validate_json(data)),
        "first get in a session": first_of_many(lambda found: found.get("lines", as_type=list[Line])),
        "the same get again": of_function(lambda: session.get("lines", as_type=list[Line])),
        "first plain get in a session": first_of_many(lambda found: found.get("lines")),
    }
    return written(interleaved(subjects, effort))


def first_of_many(read: Callable[[Session], object]) -> Batch:
    """Time a read in as many sessions, each of which has arrived and was not looked at; making them does not count."""

    def batch(times: int) -> float:
        sessions = [Session.from_dict(STATE) for _ in range(times)]
        start = time.perf_counter()
        for session in sessions:
            read(session)
        return time.perf_counter() - start

    return batch


def set_service(name: str, replicas: int, session: Session) -> str:
    """A tool's function."""
    return name


def set_service_typed(name: str, replicas: int, session: Typed) -> str:
    """The same, with a typed view."""
    return name


async def set_service_async(name: str, replicas: int, session: Session) -> str:
    """The same, as a coroutine function: no thread is needed for it."""
    return name


def _imported() -> list[float]:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found
