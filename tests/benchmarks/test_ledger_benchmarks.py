"""The measurements of a ledger do what they say: each way takes its turns, and a client follows its session."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from dcaf.engines import Engine, Outcome, Put, Record, Transaction
from dcaf.ledger import Ledger
from dcaf.ledger.tables import SESSIONS
from dcaf.testing import serving
from tests.benchmarks import harness, ledger_load, ledger_process, ledger_turns
from tests.benchmarks.client import END
from tests.benchmarks.following import MARK, Client, Exchange
from tests.benchmarks.ledger_engines import Counting, Inline, Ungrouped, sqlite_engine
from tests.benchmarks.ledger_turns import Conversation, key_of
from tests.benchmarks.ledger_ways import COOKIE, IN_POSTGRES, IN_REDIS, L1, NONE, REDIS, REDIS_SYNCED, SYNCED, WAYS, Following
from tests.benchmarks.load import Load
from tests.benchmarks.sealing import AUDIENCE

ONCE = harness.Effort(rounds=2, least_rounds=2, batch_s=0, table_s=0)


@pytest.mark.parametrize("build", [Inline, sqlite_engine, Ungrouped])
def test_each_way_to_run_the_engines_statements_takes_a_turn(build: Callable[[Path], Engine], tmp_path: Path) -> None:
    path = tmp_path / "dcaf.db"
    assert asyncio.run(turns_of(build(path), 3)) == 3
    assert asyncio.run(turns_of(sqlite_engine(path), 0)) == 3


async def turns_of(engine: Engine, number: int) -> Any:
    """Take so many turns of a session; the number of the state that its row has then."""
    ledger = Ledger(engine, audience=AUDIENCE)
    conversation = Conversation(ledger, 1)
    for _ in range(number):
        await conversation.turn()
    row = Record(SESSIONS, key_of(1))
    (found,) = (await ledger.transact(Transaction([row], writes=[Put(row, {})]))).rows
    await ledger.aclose()
    assert found is not None
    return found["sequence"]


def test_a_later_turn_is_one_round_trip_to_open_and_one_to_commit() -> None:
    found = asyncio.run(ledger_turns.trips())
    later = {name: trips for name, trips in found.items() if name.startswith("L2") and "later turn" in name}
    assert len(later) == 2
    assert all(trips == {"open": 1, "commit": 1} for trips in later.values())
    assert all(trips["commit"] == 0 for name, trips in found.items() if name.startswith("L1"))


class AsksTwice(Counting):
    """Broken: it reads before each transaction."""

    async def transact(self, transaction: Transaction) -> Outcome:
        await super().transact(Transaction(transaction.reads))
        return await super().transact(transaction)


def test_control_a_second_round_trip_is_counted() -> None:
    found = asyncio.run(ledger_turns.trips(AsksTwice))
    assert found["L2, anonymous, later turn"] == {"open": 2, "commit": 2}


def test_the_row_of_a_session_has_less_than_200_bytes(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        found = ledger_turns.row_bytes(runner, tmp_path)
    assert 60 < found["free"] < found["held"] < 200


def test_a_session_that_was_written_in_bulk_takes_turns_as_any_other(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        found = ledger_turns.growth(runner, tmp_path, ONCE, many=100)
    assert set(found["turns"]) == {"10", "100"}


def test_several_processes_share_one_file() -> None:
    found = ledger_process.measured(seconds=0.2)
    assert found["per_s"] > 0
    assert 0 < found["median_ms"] <= found["p99_ms"] <= found["most_ms"]
    assert 0 < found["least_to_most"] <= 1


def steps(url: str, exchange: Exchange, number: int) -> list[int]:
    """What a client is answered that follows its session for so many turns."""
    found = []
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as opened:
        client = Client(opened, exchange)
        for _ in range(number):
            client.ask()
            while not client.take():
                pass
            found.append(json.loads(client.answer.partition(END)[2])["step"])
            client.follow()
    return found


@pytest.mark.parametrize("name", [COOKIE, NONE, L1, SYNCED])
def test_a_client_goes_on_with_the_session_that_it_was_given(name: str, tmp_path: Path) -> None:
    build, exchange = WAYS[name]
    with serving(build(tmp_path)) as url:
        assert steps(url, exchange, 4) == [4, 5, 6, 7]


def require_servers(*names: str) -> None:
    """Skip what needs a server that is not on this machine."""
    if not all(map(ledger_load.is_here, names)):
        pytest.skip("there is no redis-server, or no PostgreSQL, on this machine")


@pytest.mark.parametrize("name", [REDIS, REDIS_SYNCED, IN_REDIS, IN_POSTGRES])
def test_a_client_goes_on_with_what_a_server_has(name: str, tmp_path: Path) -> None:
    require_servers(name)
    load = Load(rounds=1, connections=2, warm_up_s=0.05, seconds=0.2)
    found = ledger_load.once(name, load)
    assert found["per_s"] > 1


def test_control_a_client_that_sends_its_first_session_again_is_refused(tmp_path: Path) -> None:
    build, exchange = WAYS[SYNCED]
    with serving(build(tmp_path)) as url, pytest.raises(ConnectionError, match="409"):
        steps(url, stuck(exchange, url), 2)


def stuck(exchange: Exchange, url: str) -> Exchange:
    """Broken: each later request has a session that was followed already."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as opened:
        client = Client(opened, exchange)
        old = ""
        for _ in range(2):
            client.ask()
            while not client.take():
                pass
            found = re.search(exchange.pattern.encode(), client.answer)
            assert found is not None
            old = old or found[1].decode()
            client.follow()
        client.ask()
        while not client.take():
            pass
    return replace(exchange, body=exchange.body.replace(MARK, old))


def test_a_way_in_process_follows_too(tmp_path: Path) -> None:
    following = Following(WAYS[SYNCED][0](tmp_path))
    assert asyncio.run(answered(following, 3)) == [4, 5, 6]


async def answered(following: Following, number: int) -> list[int]:
    """The steps that so many turns are answered with."""
    found: list[int] = []

    async def send(message: Message) -> None:
        if message.get("body"):
            found.append(json.loads(message["body"])["step"])

    for _ in range(number):
        await following.ask(send)
    return found
