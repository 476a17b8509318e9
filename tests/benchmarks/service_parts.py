"""The parts of the page about the session service, made of what one run measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.benchmarks import plots
from tests.benchmarks.service_beside import LONG, READ, TOGETHER
from tests.benchmarks.service_search import ASKED
from tests.benchmarks.service_targets import service_targets
from tests.benchmarks.service_ways import DCAF
from tests.benchmarks.tables import microseconds, table, times, words
from tests.benchmarks.targets import Run

MICROSECONDS: Final = 1_000_000
ABSENT: Final = "Not measured: the other libraries, a Redis or a PostgreSQL were not on the machine."
NOT_YET: Final = "Not measured."
EVENTS: Final = "performance-service-events.svg"
SESSIONS: Final = "performance-service-sessions.svg"
FILLED: Final = "To write them all took {filled_s:.0f} s, and a session in the largest file has {bytes:,.0f} bytes, with its index."


def goals(run: Run) -> str:
    """Every goal."""
    rows = [[target.wanted, target.reached, "yes" if target.is_met else "**no**"] for target in service_targets(run)]
    return words(["goal", "reached", "met"], rows) if rows else NOT_YET


def beside(run: Run) -> str:
    """Beside the other libraries."""
    found = _find(run, "beside")
    if not found:
        return ABSENT
    turns = [_turns(place, samples) for place, samples in found["turns"].items()]
    parts = (*turns, _spread(found["turns"]), _at_once(found["at_once"]), _long(found["long"]), _durable(found["durable"]))
    return "\n\n".join([*parts, f"{', '.join(f'{name} {version}' for name, version in found['versions'].items())}."])


def events(run: Run) -> str:
    """A turn over the events of its session."""
    found = _find(run, "beside")
    if not found:
        return ABSENT
    rows = [
        [name, *(microseconds(sample) for sample in samples.values()), _grown(samples)] for name, samples in found["events"].items()
    ]
    head = [f"µs for a turn that reads {READ}, over events of its session", *found["events"][DCAF], "times"]
    return f"![A turn over the events of its session]({EVENTS})\n\n{table(head, rows)}\n\n{_spread(found['events'])}"


def sessions(run: Run) -> str:
    """A turn over the sessions of the service."""
    found = _find(run, "sessions")
    if not found:
        return NOT_YET
    turns = found["turns"]
    row = [DCAF, *(microseconds(sample) for sample in turns.values()), _grown(turns)]
    measured = table(["µs for a turn, over sessions in the file", *turns, "times"], [row])
    picture = f"![A turn over the sessions of the service]({SESSIONS})"
    return f"{picture}\n\n{measured}\n\n{_spread({DCAF: turns})}\n\n{FILLED.format(**found)}"


def trips(run: Run) -> str:
    """Round trips on the wire."""
    found = _find(run, "trips")
    if not found:
        return ABSENT
    kinds = next(iter(found.values()))
    rows = [[kind, *(", ".join(str(number) for number in one[kind].values()) for one in found.values())] for kind in kinds]
    return table(["round trips on the wire: open, commit", *found], rows)


def search(run: Run) -> str:
    """A search among the messages of a user."""
    found = _find(run, "search")
    if not found:
        return NOT_YET
    columns = {f"{number}: {way}": samples for number, ways in found["times"].items() for way, samples in ways.items()}
    head = ["µs for a search, over messages of the user", *columns]
    rows = [[asked, *(microseconds(samples[asked]) for samples in columns.values())] for asked in ASKED]
    first = "; ".join(f"{one['first_s']:.1f} s for {number}" for number, one in found["index"].items())
    largest = list(found["index"].values())[-1]
    share = largest["bytes"] / largest["messages_bytes"]
    told = f"The first search, which indexes all: {first}. The index makes the largest file larger by {share:.0%}."
    return f"{table(head, rows)}\n\n{_spread(columns)}\n\n{told}"


def pictures(run: Run) -> dict[str, str]:
    """Name -> plot, of what was measured."""
    found = {}
    if beside := _find(run, "beside"):
        found[EVENTS] = _plot("A turn of a session service, over the events of its session", "events", beside["events"])
    if sessions := _find(run, "sessions"):
        found[SESSIONS] = _plot("A turn of a session service, over all sessions of the file", "sessions", {DCAF: sessions["turns"]})
    return found


def _find(run: Run, part: str) -> Any:
    return (run.get("service") or {}).get(part)


def _plot(title: str, what: str, measured: Mapping[str, Mapping[str, Any]]) -> str:
    series = {name: {number: sample["us"] for number, sample in samples.items()} for name, samples in measured.items()}
    numbers = {number: int(number.replace(",", "")) for number in next(iter(series.values()))}
    return plots.lines(title, f"microseconds, over the number of {what}", series, numbers)


def _turns(place: str, samples: Mapping[str, Any]) -> str:
    rows = [[name, microseconds(sample), _times(samples, name)] for name, sample in samples.items()]
    return table([f"a turn on {place}", "µs", f"times {DCAF}"], rows)


def _at_once(samples: Mapping[str, Any]) -> str:
    rows = [[name, f"{MICROSECONDS / sample['us']:,.0f}", _times(samples, name)] for name, sample in samples.items()]
    measured = table([f"{TOGETHER} turns at once on SQLite", "turns a second", f"times {DCAF}'s time"], rows)
    return f"{measured}\n\n{_spread({'at once': samples})}"


def _long(found: Mapping[str, Mapping[str, Any]]) -> str:
    appending, reading = found["append"], found["read"]
    head = [f"a session of {LONG:,} on SQLite", "one more, µs", f"times {DCAF}", "the newest 50, µs", f"times {DCAF}"]
    rows = [
        [name, *(cell for samples in (appending, reading) for cell in (microseconds(samples[name]), _times(samples, name)))]
        for name in appending
    ]
    return f"{table(head, rows)}\n\n{_spread(found)}"


def _durable(found: Mapping[str, Mapping[str, str]]) -> str:
    rows = [[place, name, told] for place, libraries in found.items() for name, told in libraries.items()]
    return words(["on", "library", "what its own connection says"], rows)


def _times(samples: Mapping[str, Any], name: str) -> str:
    return times(samples[name]["us"] / samples[DCAF]["us"])


def _grown(samples: Mapping[str, Any]) -> str:
    first, *_, last = samples.values()
    return times(last["us"] / first["us"])


def _spread(tables: Mapping[str, Mapping[str, Any]]) -> str:
    return f"IQR/median: {max(sample['spread'] for samples in tables.values() for sample in samples.values()):.0%} at worst."
