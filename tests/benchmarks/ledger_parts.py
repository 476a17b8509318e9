"""The parts of the page about the ledger, made of what one run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.benchmarks.ledger_process import PROCESSES, TURNS
from tests.benchmarks.ledger_turns import AT_ONCE, GROUPED, IN_A_ROW, INLINE, LEAST, THREAD, UNGROUPED
from tests.benchmarks.ledger_ways import COOKIE, IN_POSTGRES, IN_REDIS, L1, NONE, REDIS, SYNCED, WAYS
from tests.benchmarks.tables import figure, microseconds, table, times, words
from tests.benchmarks.targets import Run, ledger_targets, server_targets

MICROSECONDS: Final = 1_000_000
ROWS: Final = """\
A session's row has {free:.0f} bytes, and {held:.0f} while a turn holds it. In the file of {most} sessions each takes
{file_bytes:.0f} bytes, with the index over subjects and the room that SQLite leaves in its pages."""


def goals(run: Run) -> str:
    """Every goal."""
    rows = [
        [target.wanted, target.reached, "yes" if target.is_met else "**no**"]
        for target in [*ledger_targets(run), *server_targets(run)]
    ]
    return words(["goal", "reached", "met"], rows)


def engine(run: Run) -> str:
    """Thread and queue beside the same statements inline, and many at once."""
    found, disk_us = run["ledger"], figure(run["ledger"]["disk_us"])
    hows = (INLINE, LEAST, THREAD)
    inline = table(
        ["µs in the engine", *hows, "times"],
        [[what, *_compare(found["thread"], [f"{what}, {how}" for how in hows])] for what in (IN_A_ROW, "commit", "claim")],
    )
    rows = [
        [f"{what}, {AT_ONCE} at once", *_rates(found["grouped"], f"{what}, {UNGROUPED}", f"{what}, {GROUPED}")]
        for what in ("commits", "turns")
    ]
    grouped = table(["a second", UNGROUPED, GROUPED, "times"], rows)
    disk = f"The disk took {disk_us} µs to have 4 KB safe. {_spread(found['thread'])}"
    return f"{inline}\n\n{disk}\n\n{grouped}\n\n{_spread(found['grouped'])}"


def shared(run: Run) -> str:
    """Several processes on one file."""
    found = run["ledger"]["processes"]
    head = [
        f"{PROCESSES} processes, {TURNS} turns at once each",
        "turns/s",
        "median, ms",
        "p99, ms",
        "longest, ms",
        "least to most served",
    ]
    figures = [
        f"{found['per_s']:,.0f}",
        *(figure(found[key]) for key in ("median_ms", "p99_ms", "most_ms")),
        times(found["least_to_most"]),
    ]
    return table(head, [["one SQLite file", *figures]])


def growth(run: Run) -> str:
    """A turn among few sessions and among many; the rows."""
    found, row = run["ledger"]["growth"], run["ledger"]["row"]
    turns = table(["sessions", "µs for a turn"], [[number, microseconds(sample)] for number, sample in found["turns"].items()])
    rows = ROWS.format(**row, most=list(found["turns"])[-1], file_bytes=found["file_bytes"])
    return f"{turns}\n\n{_spread(found['turns'])}\n\n{rows}"


def trips(run: Run) -> str:
    """Round trips of a turn."""
    rows = [[name, str(found["open"]), str(found["commit"])] for name, found in run["ledger"]["trips"].items()]
    return table(["transactions of a turn", "to open", "to commit"], rows)


def turns(run: Run) -> str:
    """Whole turns in process."""
    found = run["ledger"]["in_process"]
    bare = found["turns"][NONE]["us"]
    rows = [[name, microseconds(sample), figure(sample["us"] - bare)] for name, sample in found["turns"].items()]
    profiles = [
        [name, ", ".join(f"`{place}` {share:.0%}" for place, share in places.items())] for name, places in found["profiles"].items()
    ]
    measured = table(["2 KB, one small key written", "µs for a turn", "more than without"], rows)
    return f"{measured}\n\n{_spread(found['turns'])}\n\n{words(['turn', 'own time in the thread of the event loop'], profiles)}"


def remembered(run: Run) -> str:
    """uvicorn under load, with something to remember."""
    measured = run["remembered"]
    head = ["2 KB, one small key written", "requests/s", "median, ms", "p99, ms", f"times {COOKIE}", "client busy", "range/median"]
    rows = [[name, *_load_cells(found, measured[COOKIE]["per_s"])] for name, found in measured.items()]
    of = measured[SYNCED]
    return table(head, rows) + f"\n\nHTTP by {of['http']}, the event loop is {of['loop']}'s."


def short(run: Run) -> str:
    """The table of the guide to levels."""
    found, load = run["ledger"], run["remembered"]
    turns, growth = found["in_process"]["turns"], found["growth"]
    added = {level: figure(turns[name]["us"] - turns[NONE]["us"]) for level, name in (("L1", L1), ("L2", SYNCED))}
    alone = MICROSECONDS / next(iter(growth["turns"].values()))["us"]
    at_once = MICROSECONDS / found["grouped"][f"turns, {GROUPED}"]["us"]
    rates = {name: f"{one['per_s']:,.0f}" if (one := load.get(name)) else "not measured" for name in WAYS}
    rows = [
        ["what a turn of 2 KB takes beyond the same turn without a ledger", f"L1 {added['L1']} µs, L2 {added['L2']} µs"],
        [f"turns in a second of one process, one at a time and {AT_ONCE} at once", f"{alone:,.0f} and {at_once:,.0f}"],
        ["requests in a second of one uvicorn worker: L0, L1, L2", f"{rates[NONE]}, {rates[L1]}, {rates[SYNCED]}"],
        ["the same at L2 with the ledger in Redis, and in PostgreSQL", f"{rates[IN_REDIS]}, {rates[IN_POSTGRES]}"],
        ["the same with Starlette's cookie, and with starsessions and Redis", f"{rates[COOKIE]}, {rates[REDIS]}"],
        ["the bytes of one more session in the file", f"{growth['file_bytes']:.0f}"],
    ]
    return words(["what", "figure"], rows)


def _load_cells(found: Mapping[str, Any] | None, other_per_s: float) -> list[str]:
    if found is None:
        return ["not here", "", "", "", "", ""]
    figures = [f"{found['per_s']:,.0f}", figure(found["median_ms"]), figure(found["p99_ms"]), times(found["per_s"] / other_per_s)]
    return [*figures, f"{found['client_busy']:.0%}", f"{found['spread']:.0%}"]


def _compare(samples: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Each of these, and how many times the first the last takes."""
    return [*(microseconds(samples[name]) for name in names), times(samples[names[-1]]["us"] / samples[names[0]]["us"])]


def _rates(samples: Mapping[str, Any], first: str, second: str) -> list[str]:
    rates = [f"{MICROSECONDS / samples[name]['us']:,.0f}" for name in (first, second)]
    return [*rates, times(samples[first]["us"] / samples[second]["us"])]


def _spread(samples: Mapping[str, Any]) -> str:
    return f"IQR/median: {max(sample['spread'] for sample in samples.values()):.0%} at worst."
