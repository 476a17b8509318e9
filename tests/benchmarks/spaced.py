"""The same turns with a body that ``json.dumps`` wrote, as `requests` does: a space after each comma and colon.

What a reader gets wrong: the answer is what it was. Only what comes in is spelled otherwise.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final

from tests.benchmarks.harness import Effort, interleaved, of_coroutine, written
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.turns import Turn, Way, turn_of

MEASURED: Final = ("untouched", "write")
SPACED: Final = ", with spaces"
LENGTH: Final = b"content-length"


def spaced(turn: Turn) -> Turn:
    """The same turn, its body written with spaces."""
    body = json.dumps(json.loads(turn.body)).encode()
    headers = tuple((name, str(len(body)).encode() if name == LENGTH else value) for name, value in turn.headers)
    return Turn(turn.app, headers, body)


def measured(ways: Iterable[Way], effort: Effort) -> dict[str, Any]:
    """Operation -> size -> row -> what was measured; two rows for each way."""
    with asyncio.Runner() as runner:
        return {operation: {size: _table(runner, list(ways), operation, size, effort) for size in SIZES} for operation in MEASURED}


def _table(runner: asyncio.Runner, ways: list[Way], operation: str, size: str, effort: Effort) -> dict[str, Any]:
    turns = {way.name: turn_of(way, operation, state_of(SIZES[size]), {}) for way in ways}
    turns |= {name + SPACED: spaced(turn) for name, turn in turns.items()}
    return written(interleaved({name: of_coroutine(runner, turn) for name, turn in turns.items()}, effort))
