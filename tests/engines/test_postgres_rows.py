"""What the PostgreSQL engine does to rows: locks, large transactions, updates in place, functions, round trips."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest

from dcaf.core.errors import EngineError
from dcaf.engines import AtMost, Delete, Exists, Not, Now, Plus, Put, Record, Table, Transaction, Write
from dcaf.engines.postgres import engine as postgres_engine
from dcaf.engines.postgres import functions as postgres_functions
from dcaf.engines.postgres import large
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.engines.postgres.functions import Names, Shape
from dcaf.testing.engines import ODD_BYTES, ODD_NUMBERS
from tests.engines.postgres_processes import COUNTS, add, count, count_up, open_counts, run_together
from tests.engines.postgres_servers import Server, bouncing, execute, get_server, wait_until
from tests.engines.postgres_wire import WireProxy

DEADLOCK: Final = "40P01"
MAKING: Final = 2
"""How often a table is gone through whole when it is made: once for each index."""


@pytest.fixture
def server() -> Server:
    return get_server()


@pytest.fixture
def url(server: Server) -> str:
    return server.make_database()


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    found = open_counts(url)
    yield found
    found.sync.close()


# Locks


def count_in_two_processes(url: str, times: int) -> int:
    assert run_together(lambda: count_up(url, times), 2) == [0, 0]
    engine = open_counts(url)
    with closing(engine.sync):
        return count(engine)


def test_two_processes_lose_no_update(url: str, scale: float) -> None:
    times = max(50, round(2_000 * scale))
    assert count_in_two_processes(url, times) == 2 * times


def test_control_without_locks_two_processes_lose_updates(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shape, "_take_locks", lambda shape: "")
    assert count_in_two_processes(url, 150) < 300


async def write_in_any_order(engine: PostgresEngine, tasks: int, rounds: int) -> list[BaseException]:
    """Write the same eight rows, each time in another order; returns what failed."""
    keys = [b"%d" % number for number in range(8)]

    async def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds):
            await engine.transact(add(*chance.sample(keys, len(keys)), durable=False))

    found = await asyncio.gather(*(write(seed) for seed in range(tasks)), return_exceptions=True)
    return [error for error in found if error is not None]


def test_transactions_over_the_same_rows_in_any_order_never_wait_for_each_other_for_ever(
    engine: PostgresEngine, scale: float
) -> None:
    rounds = max(20, round(500 * scale))
    assert asyncio.run(write_in_any_order(engine, 8, rounds)) == []
    assert [count(engine, b"%d" % number) for number in range(8)] == [8 * rounds] * 8


def test_control_locks_in_the_order_given_end_in_a_deadlock(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(url, f"ALTER DATABASE {url.split('/')[3].partition('?')[0]} SET deadlock_timeout = '20ms'")
    monkeypatch.setattr(
        postgres_functions, "order_locks", lambda transaction, names: [(names.lock(record), True) for record in transaction.reads]
    )
    engine = open_counts(url)
    with closing(engine.sync):
        errors = asyncio.run(write_in_any_order(engine, 8, 40))
    assert errors
    assert all(DEADLOCK in str(error) for error in errors)


def test_a_row_that_is_only_read_is_shared_and_cannot_change_until_the_commit(url: str) -> None:
    """Two transactions, each of which writes one row if the other one is not there: one of them is too late."""
    engine = open_counts(url)

    async def write_unless(mine: bytes, other: bytes) -> bool:
        records = [Record(COUNTS, mine), Record(COUNTS, other)]
        writes = [Put(records[0], {"count": 1})]
        return (await engine.transact(Transaction(records, when=Not(Exists(records[1])), writes=writes))).applied

    async def run() -> None:
        for number in range(60):
            left, right = b"left %d" % number, b"right %d" % number
            assert sorted(await asyncio.gather(write_unless(left, right), write_unless(right, left))) == [False, True]

    asyncio.run(run())
    engine.sync.close()


# Many rows


def test_a_transaction_of_8001_rows_is_whole(engine: PostgresEngine) -> None:
    records = [Record(COUNTS, b"%05d" % number) for number in range(8_001)]
    writes = [Put(record, {"count": Plus(at), "holder": b"ada", "expires": Now(60_000)}) for at, record in enumerate(records)]
    assert engine.sync.transact(Transaction(records, when=Not(Exists(records[-1])), writes=writes)).rows == (None,) * 8_001
    outcome = engine.sync.transact(Transaction(records))
    assert [row and row["count"] for row in outcome.rows] == list(range(8_001))
    assert not engine.sync.transact(Transaction(records, when=Not(Exists(records[-1])), writes=writes)).applied
    full = [*writes[:-1], Put(records[-1], {"count": Plus(2**63 - 1)})]
    with pytest.raises(EngineError, match="64 bits"):
        engine.sync.transact(Transaction(records, writes=full))
    assert count(engine, records[1].key) == 1
    assert engine.sync.transact(Transaction(records, writes=[Delete(record) for record in records])).applied
    assert list(engine.sync.scan(COUNTS)) == []


@pytest.mark.parametrize("rows", [17, 1_200])
def test_transactions_of_many_rows_and_of_few_lose_nothing_to_each_other(
    rows: int, engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [b"%05d" % number for number in range(rows)]
    few, many = 40, 6

    async def repeat(transaction: Transaction, times: int) -> None:
        for _ in range(times):
            await engine.transact(transaction)

    async def run() -> None:
        await engine.transact(add(keys[3], keys[1]))
        await asyncio.gather(*(repeat(add(keys[3], keys[1]), few) for _ in range(3)), *(repeat(add(*keys), many) for _ in range(2)))

    asyncio.run(run())
    assert [count(engine, keys[at]) for at in (1, 2, 3)] == [1 + 3 * few + 2 * many, 2 * many, 1 + 3 * few + 2 * many]


def test_control_without_the_gate_they_lose_updates(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(large, "_lock", nothing)
    with pytest.raises((AssertionError, EngineError)):
        test_transactions_of_many_rows_and_of_few_lose_nothing_to_each_other(1_200, engine, monkeypatch)


def test_odd_values_go_both_ways_through_functions_and_in_steps(engine: PostgresEngine) -> None:
    values: list[dict[str, Any]] = [
        *({"data": value, "holder": value} for value in ODD_BYTES),
        *({"count": number} for number in ODD_NUMBERS),
    ]
    records = [Record(COUNTS, b"\x00%d\xff" % number) for number in range(40)]
    rows = {record: values[at % len(values)] for at, record in enumerate(records)}
    for part in (records[:30], records[30:35], records[35:]):
        writes: list[Write] = [Put(record, rows[record]) for record in part]
        assert engine.sync.transact(Transaction(part, writes=writes)).applied
    for part in (records, records[:5], records[30:]):
        found = engine.sync.transact(Transaction(part)).rows
        assert [row and {name: row[name] for name in rows[record]} for row, record in zip(found, part, strict=True)] == [
            rows[record] for record in part
        ]


def test_a_moment_of_more_than_64_bits_is_compared_and_not_written(engine: PostgresEngine) -> None:
    record = Record(COUNTS, b"a")
    engine.sync.transact(Transaction([record], writes=[Put(record, {"count": 2**63 - 1})]))
    assert engine.sync.transact(Transaction([record], when=AtMost(record, "count", Now(2**63 - 1)))).applied
    with pytest.raises(EngineError, match="64 bits"):
        engine.sync.transact(Transaction([record], writes=[Put(record, {"count": Now(2**63 - 1)})]))
    assert count(engine) == 2**63 - 1


def test_two_rows_whose_locks_have_one_number_are_no_trouble(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Names, "lock", lambda names, record: 7)
    assert asyncio.run(write_in_any_order(engine, 4, 10)) == []
    first, second = Record(COUNTS, b"x"), Record(COUNTS, b"y")
    assert engine.sync.transact(Transaction([first, second], writes=[Put(second, {"count": 1})])).applied


# Updates in place


def measure_updates(url: str, *, index: str = "") -> tuple[int, int]:
    """How many rows were updated, and how many of those in place, when turns moved what each turn moves."""
    engine = open_counts(url)
    record = Record(COUNTS, b"a")
    others = [Record(COUNTS, b"%03d" % number) for number in range(100)]
    engine.sync.transact(Transaction(others, writes=[Put(other, {"count": 1, "holder": b"ada"}) for other in others]))
    if index:
        execute(url, index)
    for at in range(400):
        other = others[at % len(others)]
        writes = [Put(one, {"count": Plus(1), "expires": Now(60_000 + at)}) for one in (record, other)]
        engine.sync.transact(Transaction([record, other], writes=writes, durable=False))
    engine.sync.close()  # a session that ends tells its figures
    for _ in range(100):
        ((updated, in_place),) = execute(url, "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'counts'")
        if updated >= 799:
            return updated, in_place
        execute(url, "SELECT pg_sleep(0.05)")
    raise AssertionError(f"The server tells of {updated} updates.")


def test_a_row_of_a_ledger_is_small(engine: PostgresEngine, url: str) -> None:
    """An id and a subject's digest, eight numbers and a claim, by the thousand."""
    numbers = ("number", "base", "born", "began", "until", "dies", "seen", "expires")
    table = Table("ledger", {**dict.fromkeys(numbers, int), "claim": bytes, "subject": bytes}, indexed="subject")
    engine.declare([table])
    records = [Record(table, b"%016d" % number) for number in range(2_000)]
    values: dict[str, Any] = dict.fromkeys(numbers, 2**42) | {"claim": bytes(16), "subject": bytes(32)}
    engine.sync.transact(Transaction(records, writes=[Put(record, values) for record in records]))
    ((row_bytes,),) = execute(url, "SELECT pg_relation_size('dcaf.ledger') / 2000.0")
    print(f"A row takes {row_bytes:.0f} bytes.")
    assert row_bytes < 200


def test_updates_are_made_in_place(url: str) -> None:
    updated, in_place = measure_updates(url)
    print(f"{in_place} of {updated} updates in place")
    assert in_place >= 0.97 * updated


def test_control_with_an_index_on_what_changes_none_is(url: str) -> None:
    updated, in_place = measure_updates(url, index="CREATE INDEX ON dcaf.counts (expires)")
    assert in_place < 0.1 * updated


def count_whole_reads(url: str) -> int:
    """How often a table was gone through whole, after its plans were made for one of ten rows and it had grown to 20,000."""
    engine = open_counts(url)
    for number in range(10):
        engine.sync.transact(add(b"%d" % number))
    execute(url, "VACUUM ANALYZE dcaf.counts")
    for _ in range(8):
        engine.sync.transact(add(b"5"))
        assert count(engine, b"5") > 0
    execute(url, "INSERT INTO dcaf.counts (key, count) SELECT convert_to(i::text, 'UTF8'), i FROM generate_series(100, 20000) AS i")
    engine.sync.transact(add(b"5"))
    assert count(engine, b"700") == 700
    engine.sync.close()
    time.sleep(0.2)
    return int(execute(url, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'counts'")[0][0])


def test_a_plan_that_was_made_for_a_small_table_is_right_for_a_large_one(url: str) -> None:
    assert count_whole_reads(url) == MAKING


def test_control_without_that_setting_a_large_table_is_gone_through_whole(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_functions, "PLANNING", "")
    assert count_whole_reads(url) > MAKING


# Purges


def fill_with_expired(engine: PostgresEngine, number: int) -> None:
    records = [Record(COUNTS, b"%05d" % at) for at in range(number)]
    writes: list[Write] = [Put(record, {"count": 1, "expires": 1 if at % 2 else None}) for at, record in enumerate(records)]
    engine.sync.transact(Transaction(records, writes=writes))


def test_a_purge_goes_through_a_table_in_steps(engine: PostgresEngine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_engine, "PURGED_AT_ONCE", 100)
    fill_with_expired(engine, 1_050)
    assert engine.sync.purge(COUNTS) == 525
    assert execute(url, "SELECT count(*), count(expires) FROM dcaf.counts") == [(525, 0)]


def test_a_purge_leaves_rows_that_others_write_and_does_not_wait_for_them(engine: PostgresEngine, url: str) -> None:
    fill_with_expired(engine, 10)
    with psycopg.connect(url) as other:
        other.execute("UPDATE dcaf.counts SET expires = NULL WHERE key = '00001'")
        assert engine.sync.purge(COUNTS) == 4
    assert count(engine, b"00001") == 1
    assert engine.sync.purge(COUNTS) == 0


def prolong_while_it_is_purged(engine: PostgresEngine, url: str, *, is_read: bool = True) -> bool:
    """Prolong a row, which ends and is purged after it was read and before it is updated; returns whether it is there."""
    record = Record(COUNTS, b"a")
    writes = [Put(record, {"expires": Now(60_000)})]
    keep = Transaction([record], when=Exists(record), writes=writes) if is_read else Transaction([], writes=writes)
    engine.sync.transact(Transaction([record], writes=[Put(record, {"count": 7, "expires": Now(1_000)})]))
    execute(url, "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.3); RETURN NULL; END'")
    execute(url, "CREATE TRIGGER late BEFORE UPDATE ON dcaf.counts FOR EACH STATEMENT EXECUTE FUNCTION late()")
    with ThreadPoolExecutor(1) as pool:
        keeping = pool.submit(engine.sync.transact, keep)
        wait_until(lambda: engine.sync.purge(COUNTS) == 1, "Nothing is purged")
        assert keeping.result().applied
    return count(engine) == 7


@pytest.mark.parametrize("is_read", [True, False])
def test_what_is_purged_between_its_reading_and_its_writing_is_made_again(is_read: bool, engine: PostgresEngine, url: str) -> None:
    assert prolong_while_it_is_purged(engine, url, is_read=is_read)


@pytest.mark.parametrize("is_read", [True, False])
def test_control_where_it_is_only_updated_it_is_lost(
    is_read: bool, engine: PostgresEngine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Shape._write
    monkeypatch.setattr(Shape, "_write", lambda shape, write: [line.replace(" OR NOT FOUND", "") for line in whole(shape, write)])
    assert not prolong_while_it_is_purged(engine, url, is_read=is_read)


# Functions, and round trips


def test_the_number_of_functions_does_not_grow_with_what_comes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_engine, "MOST_SHAPES", 12)
    engine = open_counts(url)
    tables = [Table(f"shape_{number}", {"count": int}) for number in range(30)]
    engine.declare(tables)
    for _ in range(2):
        for table in tables:
            engine.sync.transact(add(table=table))
    assert [count(engine, table=table) for table in tables] == [2] * 30
    for number in range(100):  # other keys and other values are no other shapes
        engine.sync.transact(
            Transaction([Record(tables[0], b"%d" % number)], writes=[Put(Record(tables[0], b"%d" % number), {"count": number})])
        )
    engine.sync.close()
    ((functions,),) = execute(url, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'dcaf'::regnamespace")
    assert functions == 12


def test_functions_and_tables_that_are_gone_are_made_again(engine: PostgresEngine, url: str) -> None:
    engine.sync.transact(add())
    assert count(engine) == 1
    execute(url, "DROP SCHEMA dcaf CASCADE")
    engine.sync.transact(add())
    assert count(engine) == 1
    execute(url, "DROP TABLE dcaf.counts")
    assert count(engine) == 0
    engine.sync.transact(add())
    assert [row["count"] for _, row in engine.sync.scan(COUNTS)] == [1]


@pytest.fixture
def proxy(server: Server) -> Iterator[WireProxy]:
    found = WireProxy(server.folder)
    yield found
    found.close()


def count_round_trips(proxy: WireProxy, engine: PostgresEngine, transaction: Transaction) -> int:
    """How many round trips a transaction takes, once the connection knows it."""
    for _ in range(2):
        engine.sync.transact(transaction)
    before = proxy.round_trips
    for _ in range(10):
        engine.sync.transact(transaction)
    found = proxy.round_trips - before
    assert found % 10 == 0
    return found // 10


@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_transaction_is_one_round_trip(is_prepared: bool, proxy: WireProxy, server: Server, url: str) -> None:
    engine = open_counts(url.replace(str(server.folder), str(proxy.folder)), prepared=is_prepared)
    rows = [Record(COUNTS, key) for key in (b"store", b"epoch", b"session")]
    turn = Transaction(rows, when=Not(Exists(rows[1])), writes=[Put(rows[2], {"count": Plus(1)}), Delete(rows[1])])
    assert count_round_trips(proxy, engine, turn) == 1
    assert count_round_trips(proxy, engine, Transaction(rows)) == 1
    assert count_round_trips(proxy, engine, add(*(b"%d" % number for number in range(20)))) > 1  # the proxy counts
    engine.sync.close()


def test_a_statement_that_was_prepared_is_lost_behind_an_old_pgbouncer_and_the_message_says_what_to_do(server: Server) -> None:
    with bouncing(server, "default_pool_size = 2") as route:
        engine = open_counts(route(server.make_database()), pool_size=8, timeout=timedelta(seconds=5))
        ((version,),) = server.execute("SELECT 1")
        assert version == 1

        async def run() -> list[Any]:
            return await asyncio.gather(
                *(engine.transact(add(b"%d" % (number % 9))) for number in range(60)), return_exceptions=True
            )

        errors = [error for error in asyncio.run(run()) if isinstance(error, BaseException)]
        engine.sync.close()
    assert all(isinstance(error, EngineError) and "prepared=False" in str(error) for error in errors), errors
