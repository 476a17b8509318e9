"""What the PostgreSQL engine spares: rows that are only written are not read, large ones are not divided, statements are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest

from dcaf.engines import Delete, Plus, Put, Record, Table, Transaction, Write
from dcaf.engines.postgres import tables
from dcaf.engines.postgres.connections import Connection
from dcaf.engines.postgres.engine import PostgresEngine
from dcaf.engines.postgres.functions import Shape
from dcaf.engines.postgres.homes import Call
from dcaf.engines.postgres.limits import Watch
from tests.engines.postgres_processes import COUNTS, add, count, open_counts
from tests.engines.postgres_servers import execute, get_server

BOXES: Final = Table("boxes", {"box": bytes, "number": int, "expires": int}, large=True)
BOX: Final = bytes(range(256)) * 12
TIMES: Final = 60


@pytest.fixture
def url() -> str:
    return get_server().make_database()


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    found = open_counts(url)
    yield found
    found.sync.close()


# Rows that are only written


def count_looks(url: str, writes: list[Write]) -> float:
    """How often the rows of a table were looked for, for each transaction that writes one and reads none."""
    engine = open_counts(url)
    with closing(engine.sync):
        for _ in range(TIMES):
            assert engine.sync.transact(Transaction([], writes=writes)).applied
    for _ in range(100):  # a session that ends tells its figures
        ((looks, changed),) = execute(
            url, "SELECT idx_scan, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'counts'"
        )
        if changed or (looks or 0) >= TIMES:
            return int(looks) / TIMES
        time.sleep(0.05)
    raise AssertionError("The server tells of no change.")


WHOLE: Final[dict[str, Any]] = {"count": 1, "holder": b"ada", "data": b"x", "expires": None}


@pytest.mark.parametrize("write", [Put(Record(COUNTS, b"a"), WHOLE), Delete(Record(COUNTS, b"a"))], ids=["put", "delete"])
def test_a_row_of_which_nothing_is_needed_is_looked_for_once(write: Write, url: str) -> None:
    assert count_looks(url, [write]) < 1.2


def test_control_a_row_of_which_something_stays_is_looked_for_twice(url: str) -> None:
    assert count_looks(url, [Put(Record(COUNTS, b"a"), {"count": Plus(1)})]) > 1.8


def test_control_where_all_are_read_that_row_is_looked_for_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shape, "_replaces", lambda shape, write: False)
    assert count_looks(url, [Put(Record(COUNTS, b"a"), WHOLE)]) > 1.8


# Large rows


def find_bytes_out_of_line(url: str, box: bytes) -> int:
    """Write a large row several times; returns how much of its table lies elsewhere."""
    engine = PostgresEngine(url)
    engine.declare([BOXES])
    record = Record(BOXES, b"a")
    with closing(engine.sync):
        for number in range(5):
            engine.sync.transact(Transaction([], writes=[Put(record, {"box": box, "number": number, "expires": None})]))
            assert engine.sync.transact(Transaction([record])).rows == ({"box": box, "number": number, "expires": None},)
    return int(execute(url, "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'dcaf.boxes'::regclass")[0][0])


def test_a_large_row_lies_in_its_table(url: str) -> None:
    assert find_bytes_out_of_line(url, BOX) == 0


def test_one_that_is_larger_than_a_page_does_not(url: str) -> None:
    assert find_bytes_out_of_line(url, BOX * 30) > 0


def test_control_without_that_setting_it_lies_elsewhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGE", "")
    assert find_bytes_out_of_line(url, BOX) > 0


# Statements that are kept


def list_prepared(engine: PostgresEngine) -> list[str]:
    """The statements that a connection of an engine has prepared."""

    async def look(connection: Connection, _end: float) -> list[str]:
        return [name for (name,) in await connection.ask("SELECT name FROM pg_prepared_statements ORDER BY name")]

    found: list[str] = engine._calls.wait(Call(look, [COUNTS]))
    return found


def test_each_shape_is_prepared_once_under_its_own_name(engine: PostgresEngine) -> None:
    for number in range(5):
        engine.sync.transact(add(b"%d" % number))
        assert count(engine, b"%d" % number) == 1
    names = {shape.name for shape in engine._calls._shapes.values() if shape is not None}
    assert len(names) == 2
    assert set(list_prepared(engine)) == names


def test_nothing_is_prepared_where_nothing_may_be(url: str) -> None:
    engine = open_counts(url, prepared=False)
    with closing(engine.sync):
        engine.sync.transact(add())
        assert count(engine) == 1
        assert list_prepared(engine) == []


# The timer of a connection


class Told:
    """What a connection was told, and when, in parts of a second since it was made."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float]] = []
        self._began = time.monotonic()

    def give_up(self) -> None:
        self.found.append(("give up", time.monotonic() - self._began))

    def cut(self) -> None:
        self.found.append(("cut", time.monotonic() - self._began))


async def watch_calls(*calls: tuple[float, float, float]) -> list[tuple[str, float]]:
    """Watch calls one after the other: when each begins, how long it may take, and how long it takes."""
    told = Told()
    watch = Watch(told)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for begins, timeout_s, takes in calls:
        await asyncio.sleep(began + begins - loop.time())
        watch.begin(loop.time() + timeout_s, timeout_s)
        await asyncio.sleep(takes)
        watch.finish()
    await asyncio.sleep(0.2)
    return told.found


def test_a_call_that_takes_too_long_is_given_up_and_then_cut_off() -> None:
    (first, gave_up_at), (second, cut_at) = asyncio.run(watch_calls((0, 0.4, 0.6)))
    assert (first, second) == ("give up", "cut")
    assert 0.3 <= gave_up_at < cut_at
    assert cut_at >= 0.36


def test_a_call_has_its_own_time_and_not_that_of_the_call_before() -> None:
    assert asyncio.run(watch_calls((0, 0.4, 0.01), (0.2, 1.2, 0.5))) == []


def test_a_short_call_after_a_long_one_has_no_more_than_its_own_time() -> None:
    found = asyncio.run(watch_calls((0, 60, 0.01), (0.02, 0.4, 0.5)))
    assert [what for what, _ in found] == ["give up", "cut"]


def test_control_where_the_timer_does_not_look_the_next_call_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def ring(watch: Watch) -> None:
        connection = watch._connection()
        if connection is not None:
            connection.give_up()

    monkeypatch.setattr(Watch, "_ring", ring)
    assert asyncio.run(watch_calls((0, 0.4, 0.01), (0.2, 1.2, 0.5))) != []


def test_control_where_the_timer_is_not_moved_the_short_call_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(watch: Watch, end: float, timeout_s: float) -> None:
        watch._due = [end - 0.1 * timeout_s, end - 0.25 * timeout_s]
        if watch._timer is None:
            watch._set(watch._due[-1])

    monkeypatch.setattr(Watch, "begin", begin)
    assert asyncio.run(watch_calls((0, 60, 0.01), (0.02, 0.4, 0.5))) == []
