"""The measurements of a ledger do what they say: each way takes its turns, and a client follows its session."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from dcaf.engines import Engine, Outcome, Put, Record, Transaction
from dcaf.ledger import Ledger
from dcaf.ledger.tables import SESSIONS
from dcaf.testing import serving
from tests.benchmarks import (
    harness,
    ledger_load,
    ledger_process,
    ledger_servers,
    ledger_turns,
    server_parts,
    server_rows,
    store_servers,
)
from tests.benchmarks.client import END
from tests.benchmarks.following import MARK, Client, Exchange
from tests.benchmarks.ledger_engines import Counting, Inline, Ungrouped, sqlite_engine
from tests.benchmarks.ledger_servers import POSTGRES
from tests.benchmarks.ledger_servers import REDIS as EVERY_WRITE
from tests.benchmarks.ledger_servers import REDIS_EACH_SECOND as EACH_SECOND
from tests.benchmarks.ledger_turns import Conversation, key_of
from tests.benchmarks.ledger_ways import COOKIE, IN_POSTGRES, IN_REDIS, L1, NONE, REDIS, REDIS_SYNCED, SYNCED, WAYS, Following
from tests.benchmarks.load import Load
from tests.benchmarks.sealing import AUDIENCE
from tests.benchmarks.targets import server_targets

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


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, store_servers.Place]]:
    if not ledger_servers.are_here():
        pytest.skip("there is no redis-server, or no PostgreSQL, on this machine")
    with harness.folder() as at, ledger_servers.servers(at) as found:
        yield found


@pytest.mark.parametrize("name", [POSTGRES, EVERY_WRITE])
def test_on_the_wire_a_later_turn_is_one_round_trip_to_open_and_one_to_commit(
    name: str, places: dict[str, store_servers.Place]
) -> None:
    with harness.folder() as at, asyncio.Runner() as runner:
        found = ledger_servers.trips(runner, at, name, places[name])
    later = {kind: trips for kind, trips in found.items() if kind.startswith("L2") and "later turn" in kind}
    assert len(later) == 2
    assert all(trips == {"open": 1, "commit": 1} for trips in later.values())


@pytest.mark.parametrize("name", [POSTGRES, EVERY_WRITE])
def test_control_on_the_wire_a_second_round_trip_is_counted(name: str, places: dict[str, store_servers.Place]) -> None:
    class OnWireTwice(ledger_servers.OnWire):
        """Broken: it reads before each transaction."""

        async def transact(self, transaction: Transaction) -> Outcome:
            await super().transact(Transaction(transaction.reads))
            return await super().transact(transaction)

    with harness.folder() as at, asyncio.Runner() as runner:
        found = ledger_servers.trips(runner, at, name, places[name], on_wire=OnWireTwice)
    assert found["L2, anonymous, later turn"] == {"open": 2, "commit": 2}


def test_a_redis_row_that_was_written_in_bulk_is_as_the_engine_writes_it(places: dict[str, store_servers.Place]) -> None:
    import redis

    with asyncio.Runner() as runner, redis.Redis.from_url(places[EACH_SECOND].url) as client:
        engine = ledger_servers.open_engine(EACH_SECOND, places[EACH_SECOND])
        ledger = Ledger(engine, audience=AUDIENCE)
        runner.run(Conversation(ledger, 7).turn())
        (own,) = [_fields(client, key) for key in client.scan_iter("dcaf:{*}:dcaf_sessions:*")]
        indexes = {key: client.zrange(key, 0, -1) for key in sorted(client.scan_iter("dcaf:{*}:dcaf_sessions=*"))}
        client.flushall()
        server_rows.fill_redis(places[EACH_SECOND].url, 7, epoch=1)
        rows = {key[-16:]: _fields(client, key) for key in client.scan_iter("dcaf:{*}:dcaf_sessions:*")}
        assert len(rows) == 7
        assert rows[key_of(7)] | {"epoch": own["epoch"]} == own
        assert all(set(members) <= set(client.zrange(key, 0, -1)) for key, members in indexes.items())
        assert len(indexes) == 2
        client.flushall()
        runner.run(engine.aclose())


def _fields(client: Any, key: bytes) -> dict[str, Any]:
    """The fields of a row, but for its times, and whether it expires."""
    found = {name.decode(): value for name, value in client.hgetall(key).items()}
    times = {name: len(found.pop(name)) for name in ("born", "ends", "committed", "expires")}
    return {**found, **times, "has an end": client.pttl(key) > 0}


def test_sessions_that_were_written_in_bulk_to_a_server_take_turns_as_any_other(places: dict[str, store_servers.Place]) -> None:
    with harness.folder() as at, asyncio.Runner() as runner:
        for found in (
            ledger_servers.growth_of_redis(runner, at, ONCE, many=100),
            ledger_servers.growth_of_postgres(runner, places, ONCE, many=100),
        ):
            assert set(found["turns"]) == {"10", "100"}
            assert 100 < found["bytes"]["row"] < found["bytes"]["in all"]


def test_claim_and_commit_stand_beside_the_smallest_question(places: dict[str, store_servers.Place]) -> None:
    with harness.folder() as at, asyncio.Runner() as runner:
        for name, place in places.items():
            found = ledger_servers.beside_floor(runner, name, place, ONCE)
            assert set(found) == {ledger_servers.FLOORS[name], "claim", "commit"}
            assert all(sample["us"] > 0 for sample in found.values())
        rates = ledger_servers.at_once(runner, at, places, ONCE)
    assert {number: len(samples) for number, samples in rates.items()} == {"8": 4, "64": 4}


def test_without_servers_the_page_says_that_nothing_was_measured() -> None:
    assert "Not measured" in server_parts.servers({"servers": None})
    assert server_targets({}) == server_targets({"servers": None}) == []


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
