"""The engines keep the contract; and what breaks it, is caught by it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from dcaf.engines import Delete, Engine, MemoryEngine, Outcome, Plus, Put, Record, Row, SqliteEngine, Table, Transaction, Write
from dcaf.testing import EngineContract, SearchEngineContract
from dcaf.testing.engine_machine import run_machine

EXAMPLES: Final = max(10, round(500 * float(os.environ.get("DCAF_SCALE", "0.02"))))
"""How often the machine begins anew on SQLite, where each time is a file."""


class TestMemory(SearchEngineContract):
    def make_engine(self, folder: Path) -> MemoryEngine:
        return MemoryEngine()


class TestSqlite(SearchEngineContract):
    def make_engine(self, folder: Path) -> SqliteEngine:
        return SqliteEngine(folder / "dcaf.db")

    def test_it_does_what_a_dict_does(self, tmp_path: Path) -> None:
        run_machine(self.make_engine, tmp_path, examples=EXAMPLES)


class TestRelaxedSqlite(TestSqlite):
    def make_engine(self, folder: Path) -> SqliteEngine:
        return SqliteEngine(folder / "dcaf.db", durability="relaxed")


class _Broken(MemoryEngine):
    """An engine with a fault: what ``transact`` and ``scan`` of its rows do is changed."""

    def __init__(self) -> None:
        super().__init__()
        rows, self._whole, self._scan = self._rows, self._rows.transact, self._rows.scan
        rows.transact = self.broken  # type: ignore[method-assign]
        rows.scan = self.broken_scan  # type: ignore[method-assign]

    def broken(self, transaction: Transaction) -> Outcome:
        return self._whole(transaction)

    def broken_scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        return self._scan(table, equal=equal, after=after, limit=limit)


class AnswersWithTheRowsAfterwards(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        outcome = self._whole(transaction)
        return outcome._replace(rows=self._whole(Transaction(transaction.reads)).rows)


class WritesOneRowAtATime(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        first = self._whole(replace(transaction, writes=transaction.writes[:1]))
        time.sleep(0)
        if first.applied:
            for write in transaction.writes[1:]:
                self._whole(Transaction([write.record], writes=[write]))
                time.sleep(0.001)
        return first


class ComparesAndWritesApart(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        read = self._whole(replace(transaction, writes=()))
        time.sleep(0.0005)
        written = self._whole(replace(transaction, when=None)) if read.applied else read
        return written._replace(rows=read.rows)


class WritesWhatItShouldNot(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        return self._whole(replace(transaction, when=None))._replace(applied=self._whole(replace(transaction, writes=())).applied)


class ForgetsTheOtherColumns(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        outcome = self._whole(transaction)
        puts = [write for write in transaction.writes if isinstance(write, Put) and outcome.applied]
        for put in puts:
            rest = dict.fromkeys(set(put.record.table.columns) - set(put.values))
            self._whole(Transaction([put.record], writes=[Put(put.record, rest)]))
        return outcome


class CutsAtANul(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        return self._whole(replace(transaction, writes=[self._cut(write) for write in transaction.writes]))

    def _cut(self, write: Write) -> Write:
        if isinstance(write, Delete):
            return write
        cut = {name: value.split(b"\x00")[0] if isinstance(value, bytes) else value for name, value in write.values.items()}
        return Put(write.record, cut)


class CountsInFloats(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        outcome = self._whole(transaction)
        rows = [
            row and {name: int(float(value)) if type(value) is int else value for name, value in row.items()}
            for row in outcome.rows
        ]
        return outcome._replace(rows=tuple(rows))


class TakesTheClockOfTheCaller(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        outcome = self._whole(transaction)
        return outcome._replace(now_ms=outcome.now_ms + 45_000)


class KeepsWhatHasExpired(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        writes = [
            Put(write.record, {name: value for name, value in write.values.items() if name != "expires"})
            if isinstance(write, Put)
            else write
            for write in transaction.writes
        ]
        return self._whole(replace(transaction, writes=writes))


class WritesOnlyWhatItReads(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        writes = [write for write in transaction.writes if write.record in transaction.reads]
        return self._whole(replace(transaction, writes=writes))


class TakesWhatItHasNotReadForNew(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        unread = [write.record for write in transaction.writes if write.record not in transaction.reads]
        if self._whole(replace(transaction, writes=())).applied:
            self._whole(Transaction([], writes=[Delete(record) for record in unread]))
        return self._whole(transaction)


class EndsARangeTooLate(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        return self._whole(replace(transaction, ranges=[replace(one, end=None) for one in transaction.ranges]))


class ReadsARangeFromItsBeginning(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        return self._whole(replace(transaction, ranges=[replace(one, backwards=False) for one in transaction.ranges]))


class ReadsARangeAfterTheWrites(_Broken):
    def broken(self, transaction: Transaction) -> Outcome:
        outcome = self._whole(transaction)
        return outcome._replace(pages=self._whole(Transaction([], ranges=transaction.ranges)).pages)


class PagesByNumber(_Broken):
    def broken_scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        return self._scan(table, equal=equal, after=after[:1], limit=limit)


class FindsOldValues(_Broken):
    def broken_scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        return self._scan(table, equal=equal or None, after=after, limit=limit)


class StaysOpen(_Broken):
    async def aclose(self) -> None:
        return None

    def __init__(self) -> None:
        super().__init__()
        self._rows.close = lambda: None  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (AnswersWithTheRowsAfterwards, "test_the_rows_of_an_answer_are_those_before_its_own_writes"),
        (WritesOneRowAtATime, "test_a_number_that_would_not_fit_in_64_bits_is_refused_and_nothing_is_written"),
        (ComparesAndWritesApart, "test_counts_of_many_threads_lose_nothing"),
        (WritesWhatItShouldNot, "test_nothing_at_all_is_written_where_the_condition_does_not_hold"),
        (ForgetsTheOtherColumns, "test_a_put_keeps_the_columns_that_it_does_not_name"),
        (CutsAtANul, "test_keys_and_values_come_back_byte_for_byte"),
        (CountsInFloats, "test_numbers_come_back_to_the_last_of_64_bits"),
        (TakesTheClockOfTheCaller, "test_now_is_the_clock_of_the_engine"),
        (KeepsWhatHasExpired, "test_a_row_that_has_expired_does_not_exist"),
        (WritesOnlyWhatItReads, "test_a_row_that_is_not_read_is_written_and_not_returned"),
        (TakesWhatItHasNotReadForNew, "test_a_row_that_is_not_read_is_written_and_not_returned"),
        (EndsARangeTooLate, "test_a_range_is_in_the_order_of_the_keys_from_either_end"),
        (ReadsARangeFromItsBeginning, "test_a_range_is_in_the_order_of_the_keys_from_either_end"),
        (ReadsARangeAfterTheWrites, "test_a_range_has_rows_of_before_the_writes_and_of_the_same_moment"),
        (PagesByNumber, "test_a_scan_is_in_the_order_of_the_keys_and_in_pages"),
        (FindsOldValues, "test_a_scan_finds_the_value_of_now"),
        (StaysOpen, "test_a_closed_engine_refuses_and_may_be_closed_again"),
    ],
)
def test_control_a_fault_is_caught(fault: type[_Broken], caught_by: str, tmp_path: Path) -> None:
    class Contract(EngineContract):
        def make_engine(self, folder: Path) -> Engine:
            return fault()

    with pytest.raises((AssertionError, ExceptionGroup)):
        getattr(Contract(), caught_by)(tmp_path)


@pytest.mark.parametrize(
    "fault",
    [
        AnswersWithTheRowsAfterwards,
        WritesWhatItShouldNot,
        ForgetsTheOtherColumns,
        CutsAtANul,
        KeepsWhatHasExpired,
        WritesOnlyWhatItReads,
        TakesWhatItHasNotReadForNew,
        EndsARangeTooLate,
        ReadsARangeFromItsBeginning,
        ReadsARangeAfterTheWrites,
    ],
)
def test_control_the_machine_finds_a_fault(fault: type[_Broken], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_machine(lambda _: fault(), tmp_path, examples=500, shrink=False)


@pytest.mark.parametrize("make", [lambda _: MemoryEngine(), lambda folder: SqliteEngine(folder / "dcaf.db")])
def test_a_row_that_is_written_whole_is_still_counted_on_and_returned(make: Callable[[Path], Engine], tmp_path: Path) -> None:
    engine, record = make(tmp_path), Record(Table("whole", {"n": int}), b"a")
    engine.declare([record.table])
    for value in (40, Plus(2)):
        engine.sync.transact(Transaction([], writes=[Put(record, {"n": value})]))
    assert engine.sync.transact(Transaction([record], writes=[Put(record, {"n": 7})])).rows == ({"n": 42},)
    assert engine.sync.transact(Transaction([record])).rows == ({"n": 7},)
    engine.sync.close()
