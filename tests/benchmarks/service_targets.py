"""What the session service is to reach, and whether a run reached it; what was not measured has no target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.benchmarks.service_beside import LONG, TOGETHER
from tests.benchmarks.service_trips import LATER
from tests.benchmarks.service_ways import (
    ADK_DATABASE,
    ADK_SQLITE,
    AGENTS_REDIS,
    AGENTS_SQLALCHEMY,
    AGENTS_SQLITE,
    DCAF,
    POSTGRES,
    REDIS,
    SQLITE,
)
from tests.benchmarks.targets import Run, Target, at_least, at_most

TURN: Final = {
    SQLITE: {AGENTS_SQLITE: 1.8, ADK_SQLITE: 12.0, ADK_DATABASE: 25.0},
    POSTGRES: {AGENTS_SQLALCHEMY: 3.0, ADK_DATABASE: 9.0},
    REDIS: {AGENTS_REDIS: 1.8},
}
"""Where sessions are kept -> how many times faster than another library a turn is to be."""

AT_ONCE: Final = {AGENTS_SQLITE: 5.0, ADK_SQLITE: 60.0}
APPEND: Final = {AGENTS_SQLITE: 1.15, ADK_SQLITE: 5.0}
READ: Final = {AGENTS_SQLITE: 1.5}
MORE_EVENTS: Final = 1.1
MORE_SESSIONS: Final = 1.4


def service_targets(run: Run) -> list[Target]:
    """What the session service is to reach; nothing of what was not measured."""
    found = run.get("service") or {}
    beside, sessions, trips = (found.get(part) for part in ("beside", "sessions", "trips"))
    return [
        *(_beside_others(beside) if beside else []),
        *([_flat(f"{' to '.join(_ends(sessions['turns']))} sessions", sessions["turns"], MORE_SESSIONS)] if sessions else []),
        *([_trips_of_service(trips)] if trips else []),
    ]


def _beside_others(found: Run) -> list[Target]:
    turns, long = found["turns"], found["long"]
    events = found["events"][DCAF]
    return [
        *(one for place, limits in TURN.items() for one in _faster(f"a turn on {place}", turns[place], limits)),
        *_faster(f"{TOGETHER} turns at once on {SQLITE}", found["at_once"], AT_ONCE),
        *_faster(f"one message more in a session of {LONG:,}", long["append"], APPEND),
        *_faster(f"the newest 50 of a session of {LONG:,}", long["read"], READ),
        _flat(f"a session of {' to '.join(_ends(events))} events", events, MORE_EVENTS),
    ]


def _faster(what: str, samples: Mapping[str, Any], limits: Mapping[str, float]) -> list[Target]:
    """Of each of the others, how many times longer it takes."""
    return [
        at_least(f"{what}: {limit:g} times faster than {other}", {"times": samples[other]["us"] / samples[DCAF]["us"]}, limit)
        for other, limit in limits.items()
    ]


def _flat(what: str, samples: Mapping[str, Any], limit: float) -> Target:
    few, many = (samples[number]["us"] for number in _ends(samples))
    return at_most(f"{what}: at most {limit:g} times the time", {"a turn": many / few}, limit)


def _ends(samples: Mapping[str, Any]) -> tuple[str, str]:
    numbers = list(samples)
    return numbers[0], numbers[-1]


def _trips_of_service(trips: Mapping[str, Any]) -> Target:
    found = {f"{name}, {what}": kinds[LATER][what] for name, kinds in trips.items() for what in ("open", "commit")}
    return at_most("round trips of a later turn, counted on the wire: one to open, one to commit", found, 1, lambda n: f"{n:.0f}")
