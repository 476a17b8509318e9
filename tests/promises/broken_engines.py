"""Engines that are broken on purpose, over one that works: for controls that show what a test sees on each engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from dcaf.engines import Delete, Engine, Outcome, Put, Record, Row, Transaction, Write, apply

SHORTEST_S: Final = 0.004
LATE_S: Final = 0.1


class ReadsThenWrites:
    """Broken: the condition is looked at in this process, and what follows from it is written in a second step.

    Args:
        engine: One that works.
        pause: How long it waits at most between the two, in times of what the first took.
    """

    def __init__(self, engine: Engine, *, pause: float = 5.0) -> None:
        self.engine, self.pause = engine, pause
        self.random = Random(os.getpid()).random

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def transact(self, transaction: Transaction) -> Outcome:
        began = time.monotonic()
        rows, now_ms = await self.read(transaction)
        took_s = time.monotonic() - began
        written = apply(transaction, rows, now_ms)
        if written:
            await asyncio.sleep(self.random() * self.pause * max(took_s, SHORTEST_S))
            await self.write(written)
        return Outcome(written is not None, tuple(rows[record] for record in transaction.reads), now_ms)

    async def read(self, transaction: Transaction) -> tuple[dict[Record, Row | None], int]:
        """The rows that a transaction names, and the clock."""
        found = await self.engine.transact(Transaction(transaction.records))
        return dict(zip(transaction.records, found.rows, strict=True)), found.now_ms

    async def write(self, rows: Mapping[Record, Row | None]) -> None:
        """Write whole rows, whatever is there now."""
        writes: list[Write] = [Delete(record) if row is None else Put(record, dict(row)) for record, row in rows.items()]
        await self.engine.transact(Transaction(list(rows), writes=writes))


class AnswersFirst(ReadsThenWrites):
    """Broken: a write is acknowledged at once, and done a little later. This process sees it at once, others and a crash do not.

    Args:
        engine: One that works.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, pause=0.0)
        self.coming: dict[Record, Row | None] = {}
        self.task: asyncio.Task[None] | None = None

    async def read(self, transaction: Transaction) -> tuple[dict[Record, Row | None], int]:
        rows, now_ms = await super().read(transaction)
        return {record: self.coming.get(record, row) for record, row in rows.items()}, now_ms

    async def write(self, rows: Mapping[Record, Row | None]) -> None:
        self.coming |= rows
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._write_later())

    async def _write_later(self) -> None:
        await asyncio.sleep(LATE_S)
        late, self.coming = self.coming, {}
        for record, row in late.items():
            await super().write({record: row})
