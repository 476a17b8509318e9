"""Where the time of a turn goes: the modules and functions of C that take most of it themselves, as cProfile sees them.

What a reader gets wrong: the profiler makes every call of a Python function dearer, and no call of C. The shares say where to
look, not how long it takes.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from starlette.types import Send

import dcaf
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.turns import Way, turn_of

PACKAGE: Final = Path(dcaf.__file__).parent
MOST: Final = 7
"""So many are named."""


class Asking(Protocol):
    """A request that can be repeated."""

    async def ask(self, send: Send) -> None:
        """Ask, and give each message of the answer to a function."""


def measured(turns: Mapping[str, tuple[Way, str]], *, seconds: float) -> dict[str, Any]:
    """Row -> what takes most of a turn that writes one small key, with its share of the time."""
    with asyncio.Runner() as runner:
        return {
            name: profile(runner, turn_of(way, "write", state_of(SIZES[size]), {}), seconds) for name, (way, size) in turns.items()
        }


def profile(runner: asyncio.Runner, turn: Asking, seconds: float) -> dict[str, float]:
    """What takes most of a turn, in the thread of the event loop, with its share of the time."""
    runner.run(_repeated(turn, seconds / 10))
    found = cProfile.Profile()
    runner.run(_profiled(turn, found, seconds))
    return _shares(pstats.Stats(found))


async def _profiled(turn: Asking, found: cProfile.Profile, seconds: float) -> None:
    found.enable()
    await _repeated(turn, seconds)
    found.disable()


async def _repeated(turn: Asking, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await turn.ask(_drop)


async def _drop(message: Any) -> None:
    """Keep nothing of the answer."""


def _shares(stats: Any) -> dict[str, float]:
    own: Counter[str] = Counter()
    for (file, _, function), (_, _, seconds, _, _) in stats.stats.items():
        own[_place(file, function)] += seconds
    return {place: round(seconds / stats.total_tt, 3) for place, seconds in own.most_common(MOST)}


def _place(file: str, function: str) -> str:
    """A module of dcaf, another package, or a function of C.

    >>> _place(dcaf.__file__, "open"), _place("/a/site-packages/starlette/routing.py", "app")
    ('dcaf/__init__.py', 'starlette')
    >>> _place("~", "<built-in method orjson.loads>"), _place("/a/lib/python3.11/contextlib.py", "__enter__")
    ('orjson.loads', 'contextlib')
    """
    path = Path(file)
    if file == "~":
        return function.strip("<>").removeprefix("built-in method ").removeprefix("method ").replace("'", "")
    if path.is_relative_to(PACKAGE):
        return str(path.relative_to(PACKAGE.parent))
    return path.parts[path.parts.index("site-packages") + 1] if "site-packages" in path.parts else path.stem
