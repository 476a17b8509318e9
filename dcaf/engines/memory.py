"""Rows in the memory of this process: for tests, and for trying things out. Nothing of them outlives it or leaves it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Final

import anyio.lowlevel

from dcaf.core.arguments import require, require_clock
from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines.base import Health, Tables, check_scan
from dcaf.engines.evaluation import apply, exists, find_page
from dcaf.engines.searching import Search, SyncSearchEngine, check_search, rank
from dcaf.engines.transactions import (
    MOST_PARTITIONS,
    Outcome,
    Page,
    Range,
    Record,
    Row,
    Table,
    Transaction,
    Value,
    check_transaction,
)

URL: Final = "memory://"


class MemoryEngine:
    """An engine without a server.

    Args:
        clock: Returns seconds since the epoch.
        partitions: As of an engine with several servers, for tests.

    Attributes:
        url: ``memory://``.
        sync: The same methods without ``await``.
        partitions: As above.

    Raises:
        ConfigurationError: The clock is none, or there are fewer partitions than 1 or more than 65,536.
    """

    url: str = URL

    def __init__(self, *, clock: Callable[[], float] = time.time, partitions: int = 1) -> None:
        if not 1 <= require("partitions=", partitions, int, "a number of partitions") <= MOST_PARTITIONS:
            raise ConfigurationError(f"partitions= is 1 to {MOST_PARTITIONS}.")
        self.partitions: int = partitions
        self._rows = _MemoryRows(require_clock("clock=", clock), partitions)
        self.sync: SyncSearchEngine = self._rows

    def declare(self, tables: Iterable[Table]) -> None:
        self._rows.tables.declare(tables)

    async def transact(self, transaction: Transaction) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return self._rows.transact(transaction)

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        await anyio.lowlevel.checkpoint()
        return self._rows.scan(table, equal=equal, after=after, limit=limit)

    async def purge(self, table: Table) -> int:
        await anyio.lowlevel.checkpoint()
        return self._rows.purge(table)

    async def check(self) -> Health:
        await anyio.lowlevel.checkpoint()
        return self._rows.check()

    async def search(self, wanted: Search) -> Page:
        await anyio.lowlevel.checkpoint()
        return self._rows.search(wanted)

    async def aclose(self) -> None:
        self._rows.close()


class _MemoryRows:
    """The rows, and the methods without ``await``."""

    def __init__(self, clock: Callable[[], float], partitions: int) -> None:
        self.tables = Tables()
        self._clock = clock
        self._partitions = partitions
        self._lock = Lock()
        self._found: dict[str, dict[tuple[bytes, int], Row]] = {}
        self._ordered: dict[tuple[str, int], list[bytes]] = {}
        self._is_closed = False

    def transact(self, transaction: Transaction) -> Outcome:
        check_transaction(transaction, self._partitions)
        with self._lock:
            now_ms = self._now_ms()
            rows = {record: self._read(record, now_ms) for record in transaction.records}
            pages = tuple(self._find_page(wanted, now_ms) for wanted in transaction.ranges)
            written = apply(transaction, rows, now_ms)
            for record, row in (written or {}).items():
                self._write(record, row)
        return Outcome(written is not None, tuple(rows[record] for record in transaction.reads), now_ms, pages)

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        check_scan(table, equal, limit, after)
        with self._lock:
            now_ms = self._now_ms()
            found = sorted(self._table(table).items())
        column = table.indexed
        return [
            (key, row)
            for (key, _), row in found
            if key > after and exists(row, now_ms) and (equal is None or column is None or row[column] == equal)
        ][:limit]

    def purge(self, table: Table) -> int:
        with self._lock:
            now_ms = self._now_ms()
            rows = self._table(table)
            over = [Record(table, *key) for key, row in rows.items() if not exists(row, now_ms)]
            for record in over:
                self._write(record, None)
        return len(over)

    def check(self) -> Health:
        with self._lock:
            self._now_ms()
        return Health("none", 0.0, {"rows": "in the memory of this process"})

    def search(self, wanted: Search) -> Page:
        """Without an index: it looks at each row."""
        check_search(wanted, self._partitions)
        with self._lock:
            found = dict(self._find_page(wanted.rows, self._now_ms()))
        documents = {key: _split(row[wanted.column]) for key, row in found.items()}
        return [(key, found[key]) for key in rank(documents, wanted.words)[: wanted.limit]]

    def close(self) -> None:
        self._is_closed = True

    def _now_ms(self) -> int:
        if self._is_closed:
            raise EngineError("The engine is closed.")
        return int(self._clock() * 1000)

    def _table(self, table: Table) -> dict[tuple[bytes, int], Row]:
        self.tables.require(table)
        return self._found.setdefault(table.name, {})

    def _read(self, record: Record, now_ms: int) -> Row | None:
        row = self._table(record.table).get((record.key, record.partition))
        return row if exists(row, now_ms) else None

    def _find_page(self, wanted: Range, now_ms: int) -> Page:
        keys = self._keys(wanted.table, wanted.partition)
        return find_page(keys, wanted, lambda key: self._read(Record(wanted.table, key, wanted.partition), now_ms))

    def _keys(self, table: Table, partition: int) -> list[bytes]:
        """The keys of an ordered table, in order."""
        self.tables.require(table)
        return self._ordered.setdefault((table.name, partition), [])

    def _write(self, record: Record, row: Row | None) -> None:
        rows, place = self._table(record.table), (record.key, record.partition)
        if record.table.ordered and (row is None) is (place in rows):
            keys = self._keys(record.table, record.partition)
            at = bisect_left(keys, record.key)
            keys[at : at + (row is None)] = [] if row is None else [record.key]
        if row is None:
            rows.pop(place, None)
        else:
            rows[place] = row


def _split(words: Value) -> list[str]:
    return words.decode().split() if isinstance(words, bytes) else []
