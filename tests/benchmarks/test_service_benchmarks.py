"""The measurements of the session service do what they say: each library writes its turn, copies are what the service writes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dcaf.engines import MemoryEngine, Outcome, Transaction
from dcaf.service import SessionService
from tests.benchmarks import harness, service_beside, service_growth, service_parts, service_search, service_trips, store_servers
from tests.benchmarks.ledger_engines import sqlite_engine
from tests.benchmarks.ledger_servers import OnWire
from tests.benchmarks.service_beside import PYTHON, ask_all
from tests.benchmarks.service_targets import APPEND, AT_ONCE, READ, TURN, service_targets
from tests.benchmarks.service_ways import (
    APP,
    DCAF,
    MESSAGES,
    POSTGRES,
    REDIS,
    SQLITE,
    Dcaf,
    DcafConversation,
    name_session,
    name_user,
    state_of,
)

ONCE = harness.Effort(rounds=2, least_rounds=2, batch_s=0, table_s=0)
FULL = service_beside.DURABLE[SQLITE]

IN_THE_OTHER = """
import asyncio, json, sys, warnings
from pathlib import Path
from tests.benchmarks.service_beside import DURABLE, ask_all, close_all, on_sqlite
from tests.benchmarks.service_ways import SQLITE
warnings.simplefilter("ignore")

async def try_out(library):
    session = await library.begin(1, 4, 100)
    await session.turn()
    await session.append()
    return [str(one) for one in await session.read()]

async def main(at):
    libraries = on_sqlite(at)
    found = {name: await try_out(library) for name, library in libraries.items()}
    told = await ask_all(libraries, DURABLE[SQLITE])
    await close_all(libraries.values())
    return {"messages": found, "told": told}

print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
"""


def test_a_turn_of_dcaf_writes_four_messages_and_two_keys() -> None:
    assert asyncio.run(taken()) == (
        ["user", "assistant", "tool", "assistant"] * 2 + ["user"],
        [*MESSAGES, *MESSAGES, MESSAGES[0]],
        state_of(1),
    )


async def taken() -> tuple[list[str], list[Any], dict[str, Any]]:
    """What a session of four messages has after a turn and one message more."""
    library = Dcaf(MemoryEngine())
    session = await library.begin(1, len(MESSAGES))
    await session.turn()
    await session.append()
    found = await session.read()
    kept = await library.service.get(user=name_user(1), id=name_session(1))
    assert kept is not None
    return [message["role"] for message in found], found, kept.to_dict()


def test_the_connection_that_writes_says_that_it_waits_for_the_disk(tmp_path: Path) -> None:
    assert asyncio.run(asked(tmp_path, durable=True)) == {DCAF: "journal wal, synchronous FULL"}


def test_control_a_library_that_does_not_wait_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="synchronous NORMAL"):
        asyncio.run(asked(tmp_path, durable=False))


async def asked(path: Path, *, durable: bool) -> dict[str, str]:
    library = Dcaf(sqlite_engine(path / "dcaf.db", durable=durable))
    await library.begin(1, 0)
    try:
        return await ask_all({DCAF: library}, FULL)
    finally:
        await library.aclose()


def test_the_other_libraries_write_as_many_messages_and_are_as_durable(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("google-adk and openai-agents are not installed: run `make bench` once")
    done = subprocess.run([PYTHON, "-c", IN_THE_OTHER, tmp_path], cwd=harness.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: len(messages) for name, messages in found["messages"].items()} == dict.fromkeys(found["messages"], 9)
    assert all("Which of the three suits you?" in messages[-2] for messages in found["messages"].values())
    assert found["told"].keys() == found["messages"].keys()


def test_a_copied_session_has_the_rows_that_the_service_writes() -> None:
    model, other = asyncio.run(service_growth.build_model()), asyncio.run(rows_of(7))
    for table, rows in other.items():
        columns = tuple(table.columns)
        copied = list(service_growth.list_rows(model, table, [service_growth.find_keys(7)]))
        assert [key for key, *_ in copied] == [key for key, _ in rows]
        for (_, *values), (_, row) in zip(copied, rows, strict=True):
            assert {name: value for name, value in zip(columns, values, strict=True) if name not in DIFFER} == {
                name: value for name, value in row.items() if name not in DIFFER
            }


DIFFER = {"at", "birth", "created", "listed", "updated"}


async def rows_of(number: int) -> dict[Any, Any]:
    """Those of a session after a turn."""
    library = Dcaf(MemoryEngine())
    await (await library.begin(number, 0)).turn()
    return (await service_growth.read_rows(library, number)).rows


def test_copied_sessions_take_turns_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_growth, "SAMPLED", 3)
    assert list(service_growth.sample(12)) == [0, 4, 8]
    with asyncio.Runner() as runner:
        library = service_growth.fill(runner, tmp_path / "filled.db", 12)
        service = library.service
        assert runner.run(service.get(user=name_user(7), id=name_session(7))) is not None
        assert runner.run(service.messages(user=name_user(4), id=name_session(4))).total == 50
        runner.run(DcafConversation(service, 7).turn())
        page = runner.run(service.messages(user=name_user(7), id=name_session(7)))
        assert [message.to_dict() for message in page.items] == [*MESSAGES, *MESSAGES]
        listed = runner.run(service.list(user=name_user(7)))
        assert [kept.id for kept in listed.items] == [name_session(7)]
        assert sum(runner.run(service.erase(user=name_user(one))).sessions for one in range(12)) == 12
        runner.run(library.aclose())


def test_turns_among_few_sessions_and_many_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_growth, "QUICK_SIZES", (4, 12))
    found = service_growth.measured(ONCE, quick=True)
    assert found["turns"].keys() == {"4", "12"}
    assert found["bytes"] > 1_000


def test_a_search_is_measured_beside_a_look_at_each_message_and_both_find_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service_search, "QUICK_SIZES", (60,))
    found = service_search.measured(ONCE, quick=True)
    assert found["times"]["60"].keys() == {service_search.SEARCH, service_search.LIKE}
    assert found["index"]["60"]["bytes"] > 1_000
    assert "a word that one message has" in service_parts.search({"service": {"search": found}})
    with asyncio.Runner() as runner, closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
        service = SessionService(sqlite_engine(tmp_path / "rows.db"), app=APP)
        runner.run(service_search.fill(service, 60))
        for words, most in ((service_search.RARE, 1), (service_search.VOCABULARY[0], 10)):
            hits = runner.run(service.search(words, user=service_search.USER))
            assert len(hits) == len(service_search.look(connection, words)) == most
        runner.run(service.aclose())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, store_servers.Place]]:
    if not (store_servers.find_redis() and store_servers.find_postgres()):
        pytest.skip("there is no redis-server, or no PostgreSQL, on this machine")
    with (
        harness.folder() as at,
        store_servers.redis(at / "redis", store_servers.EACH_SECOND) as redis,
        store_servers.postgres(at / "pg") as postgres,
    ):
        yield {REDIS: redis, POSTGRES: postgres}


class AsksTwice(OnWire):
    """Broken: it reads before each transaction."""

    async def transact(self, transaction: Transaction) -> Outcome:
        await super().transact(Transaction(transaction.reads, ranges=transaction.ranges))
        return await super().transact(transaction)


@pytest.mark.parametrize("name", [REDIS, POSTGRES])
def test_round_trips_of_a_turn_are_counted_on_the_wire(name: str, places: dict[str, store_servers.Place]) -> None:
    with harness.folder() as at:
        found = asyncio.run(service_trips.count_all(at, places[name]))
    with harness.folder() as at:
        twice = asyncio.run(service_trips.count_all(at, places[name], AsksTwice))
    assert found[service_trips.LATER]["commit"] == 1
    assert twice[service_trips.LATER]["commit"] == 2
    assert twice[service_trips.LATER]["open"] == 2 * found[service_trips.LATER]["open"]


def sampled(ours: float, others: dict[str, float]) -> dict[str, Any]:
    """A table in which each other takes so many times what dcaf does."""
    return {DCAF: {"us": ours, "spread": 0.1}, **{name: {"us": ours * times, "spread": 0.2} for name, times in others.items()}}


def run_of(factor: float, *, opened: int = 1) -> dict[str, Any]:
    """A run in which dcaf is so many times better than it has to be."""

    def scaled(limits: dict[str, float]) -> dict[str, float]:
        return {name: limit * factor for name, limit in limits.items()}

    grown = sampled(100, {})[DCAF]
    more = {"10": grown, "1,000": {"us": 100 * 1.1 / factor, "spread": 0.1}}
    beside = {
        "turns": {place: sampled(100, scaled(limits)) for place, limits in TURN.items()},
        "at_once": sampled(100, scaled(AT_ONCE)),
        "long": {"append": sampled(100, scaled(APPEND)), "read": sampled(100, {**scaled(APPEND), **scaled(READ)})},
        "events": {DCAF: more},
        "durable": {SQLITE: {DCAF: "synchronous FULL"}},
        "versions": {"google-adk": "2.13.0"},
    }
    trips = {place: {service_trips.LATER: {"open": opened, "commit": 1}} for place in (REDIS, POSTGRES)}
    return {"service": {"beside": beside, "sessions": {"turns": more, "filled_s": 1.0, "bytes": 2_000.0}, "trips": trips}}


def test_a_goal_is_met_where_it_is_reached_and_missed_where_it_is_not() -> None:
    assert {target.is_met for target in service_targets(run_of(1.01))} == {True}
    missed = [target for target in service_targets(run_of(0.7)) if not target.is_met]
    assert len(missed) == len(service_targets(run_of(0.7))) - 1  # round trips do not shrink
    assert [target.is_met for target in service_targets(run_of(1.01, opened=2))].count(False) == 1
    assert "**no**" in service_parts.goals(run_of(0.7))


def test_the_page_has_each_table_and_each_plot() -> None:
    run = run_of(1.01)
    assert "| google-adk SqliteSessionService | 1,210 | 12 |" in service_parts.beside(run)
    assert f"]({service_parts.EVENTS})" in service_parts.events(run)
    assert "2,000 bytes" in service_parts.sessions(run)
    assert f"| {service_trips.LATER} | 1, 1 | 1, 1 |" in service_parts.trips(run)
    found = service_parts.pictures(run)
    assert found.keys() == {service_parts.EVENTS, service_parts.SESSIONS}
    assert all(">1,000</text>" in picture for picture in found.values())


def test_without_the_others_the_page_says_that_nothing_was_measured() -> None:
    for run in ({}, {"service": None}, {"service": {"beside": None, "sessions": None, "trips": None}}):
        parts = [getattr(service_parts, name)(run) for name in ("goals", "beside", "events", "sessions", "trips")]
        assert all(part.startswith("Not measured") for part in parts)
        assert service_targets(run) == []
        assert service_parts.pictures(run) == {}
