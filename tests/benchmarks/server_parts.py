"""The part of the page about a ledger over Redis and PostgreSQL, made of what one run measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.benchmarks.ledger_servers import FLOORS
from tests.benchmarks.tables import figure, microseconds, table, times
from tests.benchmarks.targets import Run, beside_floor

MICROSECONDS: Final = 1_000_000
ABSENT: Final = "Not measured: a Redis and a PostgreSQL were not on the machine."


def servers(run: Run) -> str:
    """Every table about them."""
    found = run.get("servers")
    if not found:
        return ABSENT
    disk = f"The disk took {figure(found['disk_us'])} µs to have 4 KB safe."
    parts = (_floors(found), disk, _trips(found["trips"]), _rates(found["at_once"]), _growth(found["growth"]))
    return "\n\n".join(parts)


def _floors(found: Run) -> str:
    head = ["µs in the engine", "smallest question", "µs", "claim", "times", "commit", "times"]
    rows = [
        [
            name,
            f"`{FLOORS[name]}`",
            microseconds(samples[FLOORS[name]]),
            *_cells(samples["claim"], beside_floor(found, name)["claim"]),
            *_cells(samples["commit"], beside_floor(found, name)["commit"]),
        ]
        for name, samples in found["floors"].items()
    ]
    return f"{table(head, rows)}\n\n{_spread(found['floors'])}"


def _cells(sample: Mapping[str, float], ratio: float) -> list[str]:
    return [microseconds(sample), times(ratio)]


def _trips(found: Mapping[str, Any]) -> str:
    names = list(found)
    head = ["round trips on the wire: open, commit", *names]
    rows = [[kind, *(f"{found[name][kind]['open']}, {found[name][kind]['commit']}" for name in names)] for kind in found[names[0]]]
    return table(head, rows)


def _rates(found: Mapping[str, Any]) -> str:
    names = list(next(iter(found.values())))
    rows = [[name, *(f"{MICROSECONDS / samples[name]['us']:,.0f}" for samples in found.values())] for name in names]
    return f"{table(['turns a second', *(f'{number} at once' for number in found)], rows)}\n\n{_spread(found)}"


def _growth(found: Mapping[str, Any]) -> str:
    turns = {name: one["turns"] for name, one in found.items()}
    numbers = list(next(iter(turns.values())))
    head = ["µs for a turn", *(f"among {number}" for number in numbers), "times", "bytes of a row", "bytes of a session in all"]
    rows = [
        [
            name,
            *(microseconds(sample) for sample in turns[name].values()),
            times(turns[name][numbers[-1]]["us"] / turns[name][numbers[0]]["us"]),
            *(f"{one['bytes'][what]:.0f}" for what in ("row", "in all")),
        ]
        for name, one in found.items()
    ]
    return f"{table(head, rows)}\n\n{_spread(turns)}"


def _spread(tables: Mapping[str, Mapping[str, Any]]) -> str:
    return f"IQR/median: {max(sample['spread'] for samples in tables.values() for sample in samples.values()):.0%} at worst."
