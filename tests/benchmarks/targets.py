"""The targets of the work on speed, and whether a run reached them: a target is met where every figure of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tests.benchmarks.ledger_process import PROCESSES, TURNS
from tests.benchmarks.ledger_servers import FLOORS, POSTGRES, REDIS, REDIS_EACH_SECOND
from tests.benchmarks.ledger_turns import AT_ONCE, FEW, GROUPED, IN_A_ROW, INLINE, THREAD, UNGROUPED
from tests.benchmarks.others import FLASK, ITSDANGEROUS, STARLETTE
from tests.benchmarks.sealing import DCAF as SUITES
from tests.benchmarks.sealing import TOUCH, WHOLE
from tests.benchmarks.server import SAME_BYTES
from tests.benchmarks.spaced import MEASURED, SPACED
from tests.benchmarks.states import LARGE, SIZES
from tests.benchmarks.streams import FIRST
from tests.benchmarks.tables import difference, event_costs, figure, over, ratio, times
from tests.benchmarks.turns import BARE, OPERATIONS
from tests.benchmarks.ways import DCAF, DEFAULT, ENCRYPTED, LEAN, SESSION_MIDDLEWARE

Run: TypeAlias = Mapping[str, Any]

WANTED: Final = {
    (LEAN, "write"): (1.0, 1.5, 3.0, 5.5, 7.0),
    (DEFAULT, "write"): (0.95, 1.35, 2.5, 4.0, 5.0),
    (ENCRYPTED, "write"): (0.75, 1.2, 3.2, 7.0, 10.0),
    (LEAN, "untouched"): (0.85, 1.4, 2.8, 5.0, 6.0),
}
"""How many times less overhead than SessionMiddleware a turn is to have, for each size."""

WITHIN: Final = 0.95
"""A figure that comes so near counts as reached."""

FLAT: Final = 1.5
"""How much more an event of the longest stream may cost than one of a shorter, where the cost is called flat."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target, and what a run came to.

    Attributes:
        wanted: What was to be reached.
        reached: What was measured, written out.
        is_met: Whether all of it is as wanted.
    """

    wanted: str
    reached: str
    is_met: bool


def targets(run: Run) -> list[Target]:
    """Every target, for one run."""
    parts: tuple[Callable[[Run], list[Target]], ...] = (_overheads, _spaced, _floors, _others, _load, _streams, _memory, _small)
    return [target for part in parts for target in part(run)]


def ledger_targets(run: Run) -> list[Target]:
    """What a ledger over SQLite is to reach."""
    found = run["ledger"]
    processes, trips = found["processes"], found["trips"]
    later = {name: one["open"] + one["commit"] for name, one in trips.items() if name.startswith("L2") and "later" in name}
    together = f"{PROCESSES} processes, {TURNS} turns at once each, one file"
    return [
        at_most(f"{THREAD}: at most 1.4 times {INLINE}", {IN_A_ROW: _beside_inline(found["thread"])}, 1.4),
        at_least(f"{GROUPED}: 4 times {UNGROUPED}, {AT_ONCE} at once", {"commits": _grouped(found["grouped"])}, 4),
        at_most(f"{together}: 99 of 100 turns within 15 ms", {"p99": processes["p99_ms"]}, 15, lambda ms: f"{figure(ms)} ms"),
        at_least(f"{together}: the least served at least 0.8 of the most", {"least to most": processes["least_to_most"]}, 0.8),
        at_most(f"{_growth(found)}: at most 1.15 times the time", {"a turn": _grown(found["growth"]["turns"])}, 1.15),
        at_most("row of a session: less than 200 bytes", found["row"], 199, lambda size: f"{size:.0f}"),
        at_most("round trips of a later turn: one to open, one to commit", later, 2, lambda number: f"{number:.0f}"),
    ]


def server_targets(run: Run) -> list[Target]:
    """What a ledger over Redis and over PostgreSQL is to reach; nothing where the servers were not there."""
    found = run.get("servers")
    if not found:
        return []
    later = {
        f"{name}, {kind}": one["open"] + one["commit"]
        for name, trips in found["trips"].items()
        for kind, one in trips.items()
        if kind.startswith("L2") and "later" in kind
    }
    grown = {name: _grown(one["turns"]) for name, one in found["growth"].items()}
    many = list(found["growth"][REDIS]["turns"])[-1]
    return [
        at_most("round trips of a later turn, counted on the wire: one to open, one to commit", later, 2, lambda n: f"{n:.0f}"),
        *(
            at_most(f"{name}: claim and commit at most {limit} times a {FLOORS[name]}", beside_floor(found, name), limit)
            for name, limit in ((REDIS_EACH_SECOND, 2.3), (POSTGRES, 4))
        ),
        at_most(f"{REDIS}, and {POSTGRES}, {FEW} to {many} sessions: at most 1.15 times the time", grown, 1.15),
    ]


def beside_floor(found: Run, name: str) -> dict[str, float]:
    """How many times longer claim and commit take than the smallest question to the same server."""
    samples = found["floors"][name]
    return {what: samples[what]["us"] / samples[FLOORS[name]]["us"] for what in ("claim", "commit")}


def _grown(turns: Mapping[str, Any]) -> float:
    few_us, many_us = (sample["us"] for sample in turns.values())
    return float(many_us / few_us)


def _growth(found: Run) -> str:
    return f"{' to '.join(found['growth']['turns'])} sessions"


def _beside_inline(samples: Mapping[str, Any]) -> float:
    """Of commits in a row: between those of turns, a processor has forgotten what a hand-over needs, and each thread must wake."""
    return float(samples[f"{IN_A_ROW}, {THREAD}"]["us"] / samples[f"{IN_A_ROW}, {INLINE}"]["us"])


def _grouped(samples: Mapping[str, Any]) -> float:
    """Of commits: a turn is mostly the Python of a ledger, which no engine can group."""
    return float(samples[f"commits, {UNGROUPED}"]["us"] / samples[f"commits, {GROUPED}"]["us"])


def times_less(run: Run, operation: str, name: str, sizes: Iterable[str]) -> dict[str, float]:
    """Size -> the overhead of Starlette's SessionMiddleware, as a multiple of that of one of ours."""
    found = over(run["turns"][operation], BARE)
    return {size: found[SESSION_MIDDLEWARE][size] / found[name][size] for size in sizes}


def at_least(wanted: str, found: Mapping[str, float], limit: float) -> Target:
    """A target that each figure reaches which is so large."""
    return Target(wanted, _listed(found, times), all(value >= limit for value in found.values()))


def at_most(wanted: str, found: Mapping[str, float], limit: float, write: Callable[[float], str] = times) -> Target:
    """A target that each figure reaches which is so small."""
    return Target(wanted, _listed(found, write), all(value <= limit for value in found.values()))


def _listed(found: Mapping[str, float], write: Callable[[float], str]) -> str:
    return ", ".join(f"{name}: {write(value)}" for name, value in found.items())


def _overheads(run: Run) -> list[Target]:
    text = "{}, {}: times less overhead than SessionMiddleware, at least {}"
    found = {row: times_less(run, row[1], row[0], SIZES) for row in WANTED}
    return [
        Target(
            text.format(name, OPERATIONS[operation], _listed(dict(zip(SIZES, wanted, strict=True)), times)),
            _listed(found[name, operation], times),
            all(reached >= limit * WITHIN for reached, limit in zip(found[name, operation].values(), wanted, strict=True)),
        )
        for (name, operation), wanted in WANTED.items()
    ]


def _spaced(run: Run) -> list[Target]:
    text = "{}, a body written with spaces: at most 1.3 times the time of the compact one, {}"
    return [
        at_most(text.format(name, OPERATIONS[operation]), spaced_ratio(run, operation, name), 1.3)
        for name in DCAF
        for operation in MEASURED
    ]


def spaced_ratio(run: Run, operation: str, name: str) -> dict[str, float]:
    """Size -> how many times longer a turn takes whose body was written with spaces."""
    found = ratio(run["spaced"][operation], name + SPACED, name)
    return {size: value for size, value in found.items() if value is not None}


def _floors(run: Run) -> list[Target]:
    one, every = run["sealing"]["one"], run["sealing"]["every"]
    text = "{}, core, {}: at most 1.5 times the floor from 16 KB"
    return [
        at_most(text.format(suite, what), _large(ratio(table, suite, floor[suite])), 1.5)
        for suite in SUITES
        for table, floor, what in ((one, TOUCH, "one small key"), (every, WHOLE, "every key read"))
    ]


def _others(run: Run) -> list[Target]:
    text = "{}, core, one small key: {} times faster than {} from 16 KB"
    return [
        at_least(text.format(suite, limit, other), _large(ratio(run["sealing"]["one"], other, suite)), limit)
        for suite in SUITES
        for other, limit in ((ITSDANGEROUS, 10), (FLASK, 10), (STARLETTE, 4))
    ]


def _large(found: Mapping[str, float | None]) -> dict[str, float]:
    return {size: value for size, value in found.items() if size in LARGE and value is not None}


def _load(run: Run) -> list[Target]:
    rates = {name: found["per_s"] for name, found in run["load"].items()}
    bare = {name: rates[SAME_BYTES + (name if name == DEFAULT else LEAN)] for name in DCAF}
    return [
        at_least(
            "uvicorn, 16 KB, write: 5 times SessionMiddleware's requests per second",
            {name: rates[name] / rates[SESSION_MIDDLEWARE] for name in DCAF},
            5,
        ),
        at_least(
            "uvicorn, 16 KB, write: half the rate of the same bytes without a session",
            {name: rates[name] / bare[name] for name in DCAF},
            0.5,
        ),
    ]


def _streams(run: Run) -> list[Target]:
    delays = {kind: difference(found[FIRST], DEFAULT, BARE) for kind, found in run["streams"].items()}
    costs = {kind: event_costs(found, DEFAULT, BARE) for kind, found in run["streams"].items()}
    growth = {kind: found[-1] / found[-2] for kind, found in costs.items()}
    return [
        at_most("stream: first byte delayed by less than 1 ms", delays, 1_000, _us),
        at_most("stream: an event costs less than 3 µs", {kind: found[-1] for kind, found in costs.items()}, 3, _us),
        at_most(f"stream: the cost is flat (the last 9,000 events cost at most {FLAT} times those before)", growth, FLAT),
    ]


def _memory(run: Run) -> list[Target]:
    peaks = {name: run["memory"][name]["peak"] for name in DCAF}
    return [at_most("memory of a 1 MB turn: at most 6 times the state", peaks, 6)]


def _small(run: Run) -> list[Target]:
    own = {"dcaf": run["small"]["imports"]["dcaf"] * 1e3}
    calls = run["small"]["calls"]
    added = {name: difference(calls, name, "by hand") for name in calls if name.endswith("filled in")}
    return [
        at_most("`import dcaf`: less than 250 ms more than Starlette and pydantic", own, 250, lambda ms: f"{figure(ms)} ms"),
        at_most("a tool's call: the session filled in within 2 µs", added, 2, _us),
    ]


def _us(value: float) -> str:
    return f"{figure(value)} µs"
