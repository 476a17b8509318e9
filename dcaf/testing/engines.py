"""What every engine must do, as tests: for those of dcaf, and for one that you write.

    class TestMyEngine(EngineContract):
        def make_engine(self, folder):
            return MyEngine(folder / "rows")

pytest runs each method whose name is a sentence, with asyncio and, where it is installed, with trio. The last one compares the
engine with a dict, by steps that Hypothesis makes up; without Hypothesis it is skipped.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest import SkipTest

import anyio

from dcaf.core.errors import ConfigurationError, DcafError, EngineError
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Engine,
    Exists,
    Is,
    Not,
    Now,
    Outcome,
    Plus,
    Put,
    Range,
    Record,
    Row,
    Table,
    Transaction,
    Value,
    Write,
)

T = TypeVar("T")

ROWS: Final = Table("contract_rows", {"count": int, "holder": bytes, "data": bytes, "expires": int}, indexed="holder")
PLAIN: Final = Table("contract_plain", {"value": bytes}, large=True)
LOG: Final = Table("contract_log", {"count": int, "data": bytes, "expires": int}, ordered=True)
"""The tables of the contract."""

ODD_BYTES: Final = (b"", b"\x00", b"a\x00b", bytes(range(256)), b"\xff" * 300, "\u00e4\ud7ff".encode(), bytes(256 * 1024))
ODD_NUMBERS: Final = (-(2**63), -1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1)
ODD_KEYS: Final = (
    b"\x00",
    b"\x00\x00",
    b"\x00\x01",
    b"a",
    b"a\x00",
    b"a\x00b",
    b"aa",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff" * 256,
    b"'\";--",
)

TASKS: Final = 8
ROUNDS: Final = 25

GONE: Final = Now(-60_000)
LATER: Final = Now(60_000)


class EngineContract:
    """The tests. Inherit from it in a class whose name begins with ``Test``, and say how to make an engine."""

    def make_engine(self, folder: Path) -> Engine:
        """Make an engine that has no rows yet.

        Args:
            folder: An empty folder, which is removed later. An engine with a server takes an empty database there instead.
        """
        raise NotImplementedError

    def test_a_row_that_nobody_has_written_is_not_there(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            for table in (ROWS, PLAIN):
                record = Record(table, b"a")
                assert engine.sync.transact(Transaction([record])).rows == (None,)
                assert not engine.sync.transact(Transaction([record], when=Exists(record))).applied
                assert list(engine.sync.scan(table)) == []
                assert engine.sync.purge(table) == 0

    def test_what_was_written_is_read_and_what_was_not_named_is_none(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            assert engine.sync.transact(Transaction([record], writes=[Put(record, {"count": 3})])).applied
            assert read(engine, record) == {"count": 3, "holder": None, "data": None, "expires": None}

    def test_a_put_keeps_the_columns_that_it_does_not_name(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            put(engine, record, {"count": 3, "holder": b"ada"})
            put(engine, record, {"holder": None, "data": b"x"})
            assert read(engine, record) == {"count": 3, "holder": None, "data": b"x", "expires": None}

    def test_the_rows_of_an_answer_are_those_before_its_own_writes(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            first, second = Record(ROWS, b"a"), Record(PLAIN, b"a")
            put(engine, first, {"count": 3})
            outcome = engine.sync.transact(Transaction([second, first], writes=[Put(second, {"value": b"x"}), Delete(first)]))
            assert [row and dict(row) for row in outcome.rows] == [None, build(count=3)]
            assert (read(engine, first), read(engine, second)) == (None, {"value": b"x"})

    def test_a_row_that_is_not_read_is_written_and_not_returned(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            there, new, counted, plain = Record(ROWS, b"a"), Record(ROWS, b"b"), Record(ROWS, b"c"), Record(PLAIN, b"a")
            put(engine, there, {"count": 3, "holder": b"ada", "expires": LATER})
            put(engine, counted, {"count": 3, "holder": b"ada", "data": b"x"})
            put(engine, plain, {"value": b"x"})
            writes: list[Write] = [
                Put(there, {"count": 4, "holder": None, "data": b"y", "expires": None}),
                Put(new, {"count": 5, "holder": b"ada"}),
                Put(counted, {"count": Plus(4)}),
                Delete(plain),
            ]
            assert engine.sync.transact(Transaction([], writes=writes)).rows == ()
            assert read(engine, there) == build(count=4, data=b"y")
            assert read(engine, new) == build(count=5, holder=b"ada")
            assert read(engine, counted) == build(count=7, holder=b"ada", data=b"x")
            assert read(engine, plain) is None
            assert [key for key, _ in engine.sync.scan(ROWS, equal=b"ada")] == [b"b", b"c"]

    def test_what_had_expired_lends_nothing_to_a_row_that_is_written_unread(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            put(engine, record, {"count": 3, "holder": b"ada", "data": b"x", "expires": Now(1)})
            time.sleep(0.01)
            assert engine.sync.transact(Transaction([], writes=[Put(record, {"count": Plus(1)})])).applied
            assert read(engine, record) == build(count=1)
            assert list(engine.sync.scan(ROWS, equal=b"ada")) == []

    def test_a_row_is_removed_and_may_be_made_again(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            put(engine, record, {"count": 3, "data": b"old"})
            assert engine.sync.transact(Transaction([record], writes=[Delete(record)])).applied
            assert engine.sync.transact(Transaction([record], writes=[Delete(record)])).applied
            put(engine, record, {"count": 4})
            assert read(engine, record) == build(count=4)

    def test_nothing_at_all_is_written_where_the_condition_does_not_hold(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            records = [Record(ROWS, key) for key in (b"a", b"b", b"c")]
            put(engine, records[0], {"count": 1})
            writes: list[Write] = [Delete(records[0]), Put(records[1], {"count": Plus(1)}), Put(records[2], {"count": Now()})]
            outcome = engine.sync.transact(Transaction(records, when=Exists(records[2]), writes=writes))
            assert not outcome.applied
            assert [read(engine, record) for record in records] == [build(count=1), None, None]

    def test_conditions_of_each_kind_hold_where_they_should(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record, other, mark = Record(ROWS, b"a"), Record(ROWS, b"b"), Record(PLAIN, b"mark")
            put(engine, record, {"count": 5, "holder": b"ada"})
            for condition, is_true in list_conditions(record, other):
                reads = [record, other, mark]
                assert engine.sync.transact(Transaction(reads, when=condition)).applied is is_true, condition
                writes = [Put(mark, {"value": b"1"})]
                assert engine.sync.transact(Transaction(reads, when=condition, writes=writes)).applied is is_true, condition
                assert (read(engine, mark) is not None) is is_true, condition
                engine.sync.transact(Transaction([mark], writes=[Delete(mark)]))

    def test_now_is_the_clock_of_the_engine(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            outcome = engine.sync.transact(Transaction([record], writes=[Put(record, {"count": Now(5_000)})]))
            assert require(read(engine, record))["count"] == outcome.now_ms + 5_000
            later = engine.sync.transact(Transaction([record]))
            assert outcome.now_ms <= later.now_ms <= outcome.now_ms + 4_000
            assert not engine.sync.transact(Transaction([record], when=AtMost(record, "count", Now()))).applied
            assert engine.sync.transact(Transaction([record], when=AtMost(record, "count", Now(5_000)))).applied

    def test_a_count_begins_at_nothing(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            for _ in range(3):
                put(engine, record, {"count": Plus(2)})
            put(engine, record, {"count": Plus(-7)})
            assert read(engine, record) == build(count=-1)

    def test_a_number_that_would_not_fit_in_64_bits_is_refused_and_nothing_is_written(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record, other = Record(ROWS, b"the key"), Record(ROWS, b"b")
            put(engine, record, {"count": 2**63 - 1, "data": b"the value"})
            writes = [Put(other, {"count": 1}), Put(record, {"count": Plus(1)})]
            error = catch(EngineError, lambda: engine.sync.transact(Transaction([record, other], writes=writes)))
            assert read(engine, other) is None
            assert read(engine, record) == build(count=2**63 - 1, data=b"the value")
            assert not any(part in str(error) for part in ("the key", "the value", "9223372036854775807"))

    def test_a_row_that_has_expired_does_not_exist(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            old, new = Record(ROWS, b"a"), Record(ROWS, b"b")
            put(engine, old, {"count": 1, "holder": b"ada", "expires": GONE})
            put(engine, new, {"count": 1, "holder": b"ada", "expires": LATER})
            assert read(engine, old) is None
            assert not engine.sync.transact(Transaction([old], when=Exists(old))).applied
            assert [key for key, _ in engine.sync.scan(ROWS)] == [b"b"]
            assert [key for key, _ in engine.sync.scan(ROWS, equal=b"ada")] == [b"b"]
            put(engine, old, {"count": Plus(1)})
            assert read(engine, old) == build(count=1)

    def test_a_row_exists_until_the_clock_of_the_engine_is_at_its_end(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            end = engine.sync.transact(Transaction([record], writes=[Put(record, {"expires": Now(40)})])).now_ms + 40
            for _ in range(5_000):
                outcome = engine.sync.transact(Transaction([record]))
                assert (outcome.rows[0] is not None) is (outcome.now_ms < end)
                if outcome.now_ms > end:
                    break
                time.sleep(0.001)
            else:
                raise AssertionError("The clock of the engine does not move.")

    def test_a_purge_drops_what_has_expired_and_nothing_else(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            records = [Record(ROWS, b"%04d" % number) for number in range(40)]
            writes = [Put(record, {"expires": LATER if at % 4 else None}) for at, record in enumerate(records)]
            engine.sync.transact(Transaction(records, writes=writes))
            over = [record for at, record in enumerate(records) if at % 4 in {1, 2}]
            engine.sync.transact(Transaction(over, writes=[Put(record, {"expires": GONE}) for record in over]))
            assert 0 <= engine.sync.purge(ROWS) <= len(over)  # an engine drops such rows when it likes
            assert engine.sync.purge(ROWS) == 0
            assert engine.sync.purge(PLAIN) == 0
            assert [key for key, _ in engine.sync.scan(ROWS)] == [b"%04d" % at for at in range(40) if at % 4 in {0, 3}]

    def test_a_scan_is_in_the_order_of_the_keys_and_in_pages(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            keys = [*ODD_KEYS, *(b"k%03d" % number for number in range(30))]
            for at, key in enumerate(random.Random(1).sample(keys, len(keys))):  # noqa: S311 - an order, and no secret
                put(engine, Record(ROWS, key), {"count": at, "holder": b"even" if at % 2 == 0 else b"odd"})
            assert [key for key, _ in engine.sync.scan(ROWS)] == sorted(keys)
            assert page_through(engine, None, limit=7) == sorted(keys)
            found = [key for key, row in engine.sync.scan(ROWS) if row["holder"] == b"odd"]
            assert page_through(engine, b"odd", limit=4) == found
            assert len(found) == len(keys) // 2
            assert list(engine.sync.scan(ROWS, after=max(keys))) == []

    def test_a_scan_and_a_purge_go_over_all_partitions(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            records = [Record(ROWS, b"%02d" % at, at * 7 % engine.partitions) for at in range(30)]
            for at, record in enumerate(records):
                put(engine, record, {"count": at, "holder": b"even" if at % 2 == 0 else b"odd"})
            assert [read(engine, record) for record in records[:2]] == [
                build(count=0, holder=b"even"),
                build(count=1, holder=b"odd"),
            ]
            assert page_through(engine, None, limit=7) == [record.key for record in records]
            assert page_through(engine, b"odd", limit=4) == [record.key for record in records[1::2]]
            for record in records[::3]:
                put(engine, record, {"expires": GONE})
            assert engine.sync.purge(ROWS) <= 10  # an engine drops such rows when it likes
            assert page_through(engine, None, limit=7) == [record.key for at, record in enumerate(records) if at % 3]

    def test_a_range_is_in_the_order_of_the_keys_from_either_end(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            keys = sorted({*ODD_KEYS, *(b"k%03d" % number for number in range(30))})
            for at, key in enumerate(random.Random(1).sample(keys, len(keys))):  # noqa: S311 - an order, and no secret
                put(engine, Record(LOG, key), {"count": at})
            assert keys_of(engine, Range(LOG, b"", None, 100)) == keys
            assert keys_of(engine, Range(LOG, b"", None, 100, backwards=True)) == keys[::-1]
            for start, end in ((b"a", b"b"), (b"k010", b"k020"), (b"k0", b"k010\x00"), (b"\xff", None), (b"b", b"a"), (b"a", b"a")):
                found = [key for key in keys if key >= start and (end is None or key < end)]
                assert keys_of(engine, Range(LOG, start, end, 100)) == found
                assert keys_of(engine, Range(LOG, start, end, 3)) == found[:3]
                assert keys_of(engine, Range(LOG, start, end, 3, backwards=True)) == found[::-1][:3]
            for prefix in (b"", b"a", b"a\x00", b"k00", b"\xff", b"\xff\xff", b"none"):
                assert keys_of(engine, Range.of_prefix(LOG, prefix, 100)) == [key for key in keys if key.startswith(prefix)]

    def test_a_range_has_rows_of_before_the_writes_and_of_the_same_moment(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            first, second, third = (Record(LOG, key) for key in (b"a", b"b", b"c"))
            put(engine, first, {"count": 1, "data": b"x"})
            put(engine, second, {"count": 2})
            writes: list[Write] = [Delete(first), Put(second, {"count": Plus(1)}), Put(third, {"count": 3})]
            wanted = [Range(LOG, b"", None, 9), Range(LOG, b"b", None, 1)]
            for when, is_applied in ((Exists(third), False), (Exists(first), True)):
                outcome = engine.sync.transact(Transaction([first, third], when=when, writes=writes, ranges=wanted))
                assert outcome.applied is is_applied
                assert list_page(outcome, 0) == [(b"a", 1, b"x"), (b"b", 2, None)]
                assert list_page(outcome, 1) == [(b"b", 2, None)]
            outcome = engine.sync.transact(Transaction([], ranges=wanted[:1]))
            assert list_page(outcome, 0) == [(b"b", 3, None), (b"c", 3, None)]
            assert outcome.rows == ()

    def test_a_range_leaves_out_what_has_expired_and_counts_what_is_there(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            for at in range(20):
                put(engine, Record(LOG, b"%02d" % at), {"count": at, "expires": GONE if at % 2 else LATER})
            assert keys_of(engine, Range(LOG, b"", None, 4)) == [b"00", b"02", b"04", b"06"]
            assert keys_of(engine, Range(LOG, b"", None, 3, backwards=True)) == [b"18", b"16", b"14"]
            put(engine, Record(LOG, b"01"), {"count": 1, "expires": None})
            assert keys_of(engine, Range(LOG, b"", b"03", 9)) == [b"00", b"01", b"02"]
            engine.sync.purge(LOG)
            assert keys_of(engine, Range(LOG, b"", b"03", 9)) == [b"00", b"01", b"02"]

    def test_a_range_is_of_one_partition(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            for partition in {0, engine.partitions - 1}:
                put(engine, Record(LOG, b"%d" % partition, partition), {"count": partition})
                wanted = Range(LOG, b"", None, 9, partition=partition)
                assert keys_of(engine, wanted) == [b"%d" % partition]

    def test_a_range_may_have_thousands_of_rows(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            records = [Record(LOG, b"%05d" % at) for at in range(3_000)]
            for at in range(0, len(records), 500):
                part = records[at : at + 500]
                engine.sync.transact(Transaction([], writes=[Put(record, {"data": record.key}) for record in part]))
            assert keys_of(engine, Range(LOG, b"", None, 2_500, backwards=True)) == [record.key for record in records[:-2501:-1]]

    def test_a_scan_finds_the_value_of_now(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            for holder in (b"ada", b"", b"a\x00b", None):
                put(engine, record, {"holder": holder})
                found = {name: len(engine.sync.scan(ROWS, equal=name)) for name in (b"ada", b"", b"a\x00b", b"a")}
                assert found == {name: int(name == holder) for name in found}, holder

    def test_keys_and_values_come_back_byte_for_byte(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            for key in ODD_KEYS:
                put(engine, Record(PLAIN, key), {"value": key})
            for key in ODD_KEYS:
                assert read(engine, Record(PLAIN, key)) == {"value": key}
            for at, value in enumerate(ODD_BYTES):
                put(engine, Record(PLAIN, b"%d" % at), {"value": value})
                put(engine, Record(ROWS, b"%d" % at), {"data": value, "holder": value})
                assert read(engine, Record(PLAIN, b"%d" % at)) == {"value": value}
                assert read(engine, Record(ROWS, b"%d" % at)) == build(data=value, holder=value)
                assert engine.sync.transact(Transaction([Record(PLAIN, b"0")], when=Exists(Record(PLAIN, b"0")))).applied

    def test_numbers_come_back_to_the_last_of_64_bits(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            for number in ODD_NUMBERS:
                put(engine, record, {"count": number})
                assert read(engine, record) == build(count=number)
                assert engine.sync.transact(Transaction([record], when=Is(record, "count", number))).applied
                assert engine.sync.transact(Transaction([record], when=AtMost(record, "count", number))).applied
                assert (
                    number == -(2**63)
                    or not engine.sync.transact(Transaction([record], when=AtMost(record, "count", number - 1))).applied
                )

    def test_counts_of_many_threads_lose_nothing(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine, ThreadPoolExecutor(TASKS) as pool:
            record = Record(ROWS, b"a")

            def count() -> list[int]:
                transaction = Transaction([record], writes=[Put(record, {"count": Plus(1)})])
                return [number_of(engine.sync.transact(transaction)) for _ in range(ROUNDS)]

            seen = [number for numbers in pool.map(lambda _: count(), range(TASKS)) for number in numbers]
            assert sorted(seen) == list(range(TASKS * ROUNDS))

    def test_counts_of_many_tasks_lose_nothing(self, tmp_path: Path) -> None:
        async def run(engine: Engine) -> None:
            record, seen = Record(ROWS, b"a"), list[int]()

            async def count() -> None:
                for _ in range(ROUNDS):
                    outcome = await engine.transact(Transaction([record], writes=[Put(record, {"count": Plus(1)})]))
                    seen.append(number_of(outcome))

            await run_together([count] * TASKS)
            assert sorted(seen) == list(range(TASKS * ROUNDS))

        self._run(tmp_path, run)

    def test_one_of_many_takes_what_only_one_can_have(self, tmp_path: Path) -> None:
        async def run(engine: Engine) -> None:
            record, taken = Record(ROWS, b"a"), list[int]()

            async def take(number: int) -> None:
                take = Transaction([record], when=Not(Exists(record)), writes=[Put(record, {"count": number})])
                if (await engine.transact(take)).applied:
                    taken.append(number)

            await run_together([lambda number=number: take(number) for number in range(TASKS)])  # type: ignore[misc]
            assert [number_of(await engine.transact(Transaction([record])))] == taken

        self._run(tmp_path, run)

    def test_nobody_sees_a_part_of_a_transaction(self, tmp_path: Path) -> None:
        async def run(engine: Engine) -> None:
            records = [Record(ROWS, b"a"), Record(ROWS, b"b")]
            await engine.transact(Transaction(records, writes=[Put(record, {"count": 100}) for record in records]))

            async def move() -> None:
                for by in range(ROUNDS):
                    writes = [Put(records[0], {"count": Plus(by)}), Put(records[1], {"count": Plus(-by)})]
                    await engine.transact(Transaction(records, writes=writes))

            async def look() -> None:
                for _ in range(ROUNDS):
                    outcome = await engine.transact(Transaction(records))
                    assert sum(number_of(outcome, at) for at in (0, 1)) == 200

            await run_together([move, look] * (TASKS // 2))

        self._run(tmp_path, run)

    def test_a_cancelled_call_is_done_whole_or_not_at_all(self, tmp_path: Path) -> None:
        async def run(engine: Engine) -> None:
            records = [Record(ROWS, b"a"), Record(ROWS, b"b")]
            add = Transaction(records, writes=[Put(record, {"count": Plus(1)}) for record in records])
            for number in range(4 * ROUNDS):
                with anyio.move_on_after(number % 5 * 0.000_1) as scope:
                    if number % 3 == 0:
                        scope.cancel()
                    await engine.transact(add)
            outcome = await engine.transact(add)  # comes after all of them
            assert outcome.applied
            assert 0 <= number_of(outcome, 0) == number_of(outcome, 1) <= 4 * ROUNDS

        self._run(tmp_path, run)

    def test_an_event_loop_may_end_and_another_one_go_on(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            record = Record(ROWS, b"a")
            for backend in find_backends() * 2:
                anyio.run(engine.transact, Transaction([record], writes=[Put(record, {"count": Plus(1)})]), backend=backend)
            assert read(engine, record) == build(count=2 * len(find_backends()))

    def test_all_methods_are_there_with_await_and_without(self, tmp_path: Path) -> None:
        async def run(engine: Engine) -> None:
            record = Record(ROWS, b"a")
            put(engine, record, {"count": 1, "holder": b"ada"})
            assert (await engine.transact(Transaction([record]))).rows == (build(count=1, holder=b"ada"),)
            assert list(await engine.scan(ROWS, equal=b"ada", limit=1)) == list(engine.sync.scan(ROWS, equal=b"ada", limit=1))
            assert await engine.purge(ROWS) == engine.sync.purge(ROWS) == 0
            assert (await engine.check()).durability == engine.sync.check().durability

        self._run(tmp_path, run)

    def test_it_says_what_survives(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            health = engine.sync.check()
            assert health.durability in {"acknowledged", "relaxed", "none"}
            assert health.took_ms >= 0
            assert all(isinstance(text, str) for item in health.details.items() for text in item)

    def test_a_closed_engine_refuses_and_may_be_closed_again(self, tmp_path: Path) -> None:
        async def run(engine: Engine) -> None:
            record = Record(ROWS, b"a")
            await engine.transact(Transaction([record], writes=[Put(record, {"count": 1})]))
            await engine.aclose()
            await engine.aclose()
            engine.sync.close()
            for call in (
                lambda: engine.transact(Transaction([record])),
                lambda: engine.scan(ROWS),
                lambda: engine.purge(ROWS),
                engine.check,
            ):
                await catch_async(EngineError, call)
            catch(EngineError, lambda: engine.sync.transact(Transaction([record], writes=[Put(record, {"count": 1})])))

        self._run(tmp_path, run)

    def test_tables_may_be_declared_again_but_not_otherwise(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            engine.declare([ROWS])
            engine.declare([Table("contract_rows", dict(ROWS.columns), indexed="holder")])
            catch(ConfigurationError, lambda: engine.declare([Table("contract_rows", {"count": bytes})]))
            put(engine, Record(ROWS, b"a"), {"count": 1})

    def test_wrong_use_is_told(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as engine:
            stranger = Table("contract_stranger", {"value": bytes})
            record = Record(stranger, b"a")
            catch(ConfigurationError, lambda: engine.sync.transact(Transaction([record])))
            catch(ConfigurationError, lambda: engine.sync.transact(Transaction([record], writes=[Put(record, {"value": b""})])))
            catch(ConfigurationError, lambda: engine.sync.scan(stranger))
            catch(ConfigurationError, lambda: engine.sync.purge(stranger))
            catch(ConfigurationError, lambda: engine.sync.scan(ROWS, limit=0))
            catch(ConfigurationError, lambda: engine.sync.scan(PLAIN, equal=b"x"))

    def test_it_does_what_a_dict_does(self, tmp_path: Path) -> None:
        if find_spec("hypothesis") is None:
            raise SkipTest("Hypothesis is not installed.")
        from dcaf.testing.engine_machine import run_machine  # noqa: PLC0415 - Hypothesis need not be there

        run_machine(self.make_engine, tmp_path)

    @contextmanager
    def _opened(self, folder: Path) -> Iterator[Engine]:
        engine = self.make_engine(folder)
        engine.declare([ROWS, PLAIN, LOG])
        try:
            yield engine
        finally:
            engine.sync.close()

    def _run(self, folder: Path, test: Callable[[Engine], Awaitable[None]]) -> None:
        """Run an async test in each kind of event loop, with an engine of its own."""
        for backend in find_backends():
            (folder / backend).mkdir()
            with self._opened(folder / backend) as engine:
                try:
                    anyio.run(test, engine, backend=backend)
                except BaseException as error:
                    error.add_note(f"In an event loop of {backend}.")
                    raise


def find_backends() -> list[str]:
    """The kinds of event loops that are installed."""
    return ["asyncio", *(["trio"] if find_spec("trio") else [])]


def list_conditions(record: Record, other: Record) -> Sequence[tuple[Condition, bool]]:
    """Conditions on a row whose count is 5 and whose holder is ``ada``, and on one that is not there; and whether they hold."""
    true, false = Exists(record), Exists(other)
    return [
        (true, True),
        (false, False),
        (Not(false), True),
        (Not(Not(true)), True),
        (Is(record, "count", 5), True),
        (Is(record, "count", 4), False),
        (Is(record, "holder", b"ada"), True),
        (Is(record, "holder", b"ad"), False),
        (Is(record, "data", None), True),
        (Is(record, "data", b""), False),
        (Is(record, "count", None), False),
        (Is(other, "count", None), False),
        (AtMost(record, "count", 5), True),
        (AtMost(record, "count", 4), False),
        (AtMost(record, "count", Now()), True),
        (AtMost(record, "expires", 2**63 - 1), False),
        (AtMost(other, "count", 2**63 - 1), False),
        (AnyOf(false, true), True),
        (AnyOf(true, false), True),
        (AnyOf(false, false), False),
        (AllOf(true, true), True),
        (AllOf(true, false), False),
        (AllOf(false, true), False),
        (Not(AllOf(true, AnyOf(false, Is(record, "count", 5)))), False),
    ]


def build(**values: Value) -> dict[str, Value]:
    """A row of the contract's first table."""
    return {name: values.get(name) for name in ROWS.columns}


def put(engine: Engine, record: Record, values: Mapping[str, Value | Now | Plus]) -> None:
    """Write columns of a row."""
    assert engine.sync.transact(Transaction([record], writes=[Put(record, values)])).applied


def read(engine: Engine, record: Record) -> dict[str, Value] | None:
    """Read a row."""
    (row,) = engine.sync.transact(Transaction([record])).rows
    return None if row is None else dict(row)


def require(row: Row | None) -> Row:
    """A row that must be there."""
    assert row is not None
    return row


def number_of(outcome: Outcome, at: int = 0) -> int:
    """The count of a row before the transaction; 0 for one that was not there."""
    row = outcome.rows[at]
    found = None if row is None else row["count"]
    assert found is None or isinstance(found, int)
    return found or 0


def keys_of(engine: Engine, wanted: Range) -> list[bytes]:
    """The keys of a range."""
    (page,) = engine.sync.transact(Transaction([], ranges=[wanted])).pages
    return [key for key, _ in page]


def list_page(outcome: Outcome, at: int) -> list[tuple[bytes, Value, Value]]:
    """Key, count and data of the rows of a page."""
    return [(key, row["count"], row["data"]) for key, row in outcome.pages[at]]


def page_through(engine: Engine, equal: bytes | None, *, limit: int) -> list[bytes]:
    """The keys of all pages."""
    keys: list[bytes] = []
    while page := engine.sync.scan(ROWS, equal=equal, after=keys[-1] if keys else b"", limit=limit):
        assert len(page) <= limit
        assert not keys or keys[-1] < page[0][0]
        keys += [key for key, _ in page]
    return keys


async def run_together(calls: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Run async functions at the same time."""
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)


def catch(kind: type[DcafError], call: Callable[[], object]) -> DcafError:
    """The error that a call must raise."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"It did not raise {kind.__name__}.")


async def catch_async(kind: type[DcafError], call: Callable[[], Awaitable[object]]) -> None:
    """Call an async function that must raise an error."""
    try:
        await call()
    except kind:
        return
    raise AssertionError(f"It did not raise {kind.__name__}.")
