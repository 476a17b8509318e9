"""The parts of the page that a run fills: each is some tables, made of what one part of the run measured."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

from tests.benchmarks import ledger_parts, server_parts, service_parts
from tests.benchmarks.harness import slope
from tests.benchmarks.sealing import DCAF as SUITES
from tests.benchmarks.spaced import MEASURED
from tests.benchmarks.states import LARGE, SIZES
from tests.benchmarks.streams import FIRST, NUMBERS
from tests.benchmarks.tables import (
    by_size,
    difference,
    event_costs,
    faster,
    figure,
    microseconds,
    over,
    overhead_ratios,
    overheads,
    spread_of,
    table,
    times,
    words,
)
from tests.benchmarks.targets import Run, spaced_ratio, targets
from tests.benchmarks.turns import BARE, OPERATIONS
from tests.benchmarks.ways import DCAF, DEFAULT, SESSION_MIDDLEWARE

KIB: Final = 1_024
WIDTH: Final = 120
README_WIDTH: Final = 130
IN_README: Final = ("200 B", "16 KB")
SHORT: Final = (
    "- [What a turn costs](docs/evidence/performance.md): one small key written adds {2} µs to a turn at a state of {0}, and "
    "{3} µs at {1}. Starlette's cookie session adds {4} and {5} µs. These times are one machine's; their ratios hold."
)


def short(run: Run) -> str:
    """The line of the README: what a small and a large state cost where one key is written, here and in a cookie."""
    added = over(run["turns"]["write"], BARE)
    ours, theirs = ([figure(added[name][size]) for size in IN_README] for name in (DEFAULT, SESSION_MIDDLEWARE))
    line = SHORT.format(*IN_README, *ours, *theirs)
    return textwrap.fill(line, README_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def machine(run: Run) -> str:
    """Where and when, and with what."""
    of = run["run"]
    versions = ", ".join(f"{name} {version}" for name, version in of["versions"].items())
    rough = "**A quick run: rough figures.** " if of["quick"] else ""
    where = f"{of['cores']} cores of {of['cpu']}, {of['system']}, Python {of['python']}"
    return f"{rough}{of['date']}, {of['minutes']} minutes on {where}.\n\n{_folded(versions)}."


def reached(run: Run) -> str:
    """Every target."""
    rows = [[target.wanted, target.reached, "yes" if target.is_met else "**no**"] for target in targets(run)]
    met = sum(target.is_met for target in targets(run))
    return words(["target", "reached", "met"], rows) + f"\n\n{met} of {len(rows)} are met."


def turns(run: Run) -> str:
    """Whole requests: for each operation what each way adds, and how many times less than SessionMiddleware ours add."""
    return "\n\n".join(_operation(run["turns"][key], text) for key, text in OPERATIONS.items())


def _operation(measured: Any, text: str) -> str:
    alone = ", ".join(microseconds(measured[size][BARE]) for size in SIZES)
    added = overheads(measured, BARE)
    less = overhead_ratios(measured, BARE, SESSION_MIDDLEWARE, DCAF)
    return f"### {text[0].upper()}{text[1:]}\n\n{added}\n\n{less}\n\nWithout a session: {alone} µs. {spread_of(measured)}"


def spaced(run: Run) -> str:
    """How much longer a turn takes whose body was written with spaces."""
    rows = [
        [f"{name}, {OPERATIONS[operation]}", *(times(value) for value in spaced_ratio(run, operation, name).values())]
        for name in DCAF
        for operation in MEASURED
    ]
    return table(["times as long with spaces", *SIZES], rows)


def slopes(run: Run) -> str:
    """How much each KB of state costs a whole request."""
    measured = run["turns"]["write"]
    names = next(iter(measured.values()))
    rows = [
        [
            name,
            figure(slope({SIZES[size] / KIB: measured[size][name]["us"] for size in LARGE})),
            microseconds(measured["200 B"][name]),
        ]
        for name in names
    ]
    return table(["one small key written", "µs per KB", "µs at 200 B"], rows)


def core(run: Run) -> str:
    """The sealing core: both operations, and ratios."""
    one, every = run["sealing"]["one"], run["sealing"]["every"]
    others = [name for name in one["16 KB"] if not name.startswith(("dcaf", "floor"))]
    parts = ["### One small key is written", by_size(one), *(faster(one, suite, others) for suite in SUITES)]
    parts += ["### Every key is read, one is written", by_size(every), *(faster(every, suite, others) for suite in SUITES)]
    return "\n\n".join(parts)


def streams(run: Run) -> str:
    """First byte and cost of an event."""
    head = ["µs that the session adds", "first byte", *(f"an event, {few:,} to {more:,}" for few, more in pairwise(NUMBERS))]
    rows = [
        [f"`{kind}`", figure(difference(found[FIRST], DEFAULT, BARE)), *map(figure, event_costs(found, DEFAULT, BARE))]
        for kind, found in run["streams"].items()
    ]
    return table(head, rows)


def load(run: Run) -> str:
    """uvicorn under load."""
    measured = run["load"]
    head = ["16 KB, one small key written", "requests/s", "p99, ms", "times SessionMiddleware", "client busy", "range/median"]
    one = next(iter(measured.values()))
    rows = [[name, *_load_cells(found, measured[SESSION_MIDDLEWARE]["per_s"])] for name, found in measured.items()]
    return table(head, rows) + f"\n\nHTTP by {one['http']}, the event loop is {one['loop']}'s."


def _load_cells(found: Mapping[str, Any], other_per_s: float) -> list[str]:
    figures = [f"{found['per_s']:,.0f}", figure(found["p99_ms"]), times(found["per_s"] / other_per_s)]
    return [*figures, f"{found['client_busy']:.0%}", f"{found['spread']:.0%}"]


def memory(run: Run) -> str:
    """Memory of a turn."""
    head = ["", "peak of a 1 MB turn, times the state", "bytes more after {:,} turns of 16 KB"]
    measured = run["memory"]
    head[2] = head[2].format(next(iter(measured.values()))["turns"])
    return table(head, [[name, times(found["peak"]), f"{found['grown_bytes']:,}"] for name, found in measured.items()])


def small(run: Run) -> str:
    """Import, injection, typed reading."""
    found = run["small"]
    imports = table(["a fresh interpreter imports", "ms"], [[name, figure(s * 1e3)] for name, s in found["imports"].items()])
    calls = table(["a tool's function is called", "µs"], _rows(found["calls"]))
    reads = table(["a list of four models is read", "µs"], _rows(found["reads"]))
    return f"{imports}\n\n{calls}\n\n{reads}"


def profiles(run: Run) -> str:
    """What takes most of a turn."""
    rows = [
        [name, ", ".join(f"`{place}` {share:.0%}" for place, share in found.items())] for name, found in run["profiles"].items()
    ]
    return words(["turn", "own time"], rows)


def _rows(samples: Mapping[str, Any]) -> list[list[str]]:
    return [[name, microseconds(sample)] for name, sample in samples.items()]


def _folded(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH))


PARTS: Final[dict[str, Callable[[Run], str]]] = {
    "machine": machine,
    "reached": reached,
    "turns": turns,
    "spaced": spaced,
    "slopes": slopes,
    "sealing": core,
    "streams": streams,
    "load": load,
    "memory": memory,
    "small": small,
    "profiles": profiles,
    "ledger": ledger_parts.goals,
    "ledger_engine": ledger_parts.engine,
    "ledger_shared": ledger_parts.shared,
    "ledger_growth": ledger_parts.growth,
    "ledger_trips": ledger_parts.trips,
    "ledger_turns": ledger_parts.turns,
    "servers": server_parts.servers,
    "remembered": ledger_parts.remembered,
    "service": service_parts.goals,
    "service_beside": service_parts.beside,
    "service_events": service_parts.events,
    "service_sessions": service_parts.sessions,
    "service_trips": service_parts.trips,
    "service_search": service_parts.search,
}
"""Name of a place in the template -> what stands there."""
