"""How many statements SQLite runs for a turn of a ledger: at each of them the threads of the process may change places.

What is counted is the same on every machine. What is not, is on the performance page.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dcaf.engines import Outcome, Transaction
from dcaf.ledger import Ledger
from tests.benchmarks.ledger_engines import Inline
from tests.benchmarks.ledger_turns import Conversation
from tests.benchmarks.sealing import AUDIENCE

CLAIM = 5
"""Wait for the disk no more, begin, read all rows, write one, commit."""

COMMIT = 10
"""Wait for the disk, begin, read all rows, write session and answer in a savepoint, look for expired neighbours of both, commit."""


class Traced(Inline):
    """Notes the statements of each transaction.

    Attributes:
        statements: Of the last commit, which is durable (True), and of the last claim (False).
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.statements: dict[bool, list[str]] = {}
        self._noted: list[str] = []

    async def transact(self, transaction: Transaction) -> Outcome:
        self._noted.clear()
        outcome = await super().transact(transaction)
        self.statements[transaction.durable] = list(self._noted)
        self.writer.database.set_trace_callback(self._noted.append)  # the connection is there after the first
        return outcome


async def statements_of_a_turn(engine: Traced) -> dict[bool, list[str]]:
    """The statements of the third turn of a session: the tables and the rows are there."""
    conversation = Conversation(Ledger(engine, audience=AUDIENCE), 1)
    for _ in range(3):
        await conversation.turn()
    await engine.aclose()
    return engine.statements


def test_a_turn_of_a_ledger_runs_no_more_statements_than_it_did(tmp_path: Path) -> None:
    found = asyncio.run(statements_of_a_turn(Traced(tmp_path / "dcaf.db")))
    assert 0 < len(found[False]) <= CLAIM, found[False]
    assert 0 < len(found[True]) <= COMMIT, found[True]
    print(f"a claim: {len(found[False])} statements, a commit: {len(found[True])}")


class ReadsTwice(Traced):
    """Broken: it reads the rows once more before each transaction."""

    async def transact(self, transaction: Transaction) -> Outcome:
        await super().transact(Transaction(transaction.reads, durable=transaction.durable))
        read = self.statements[transaction.durable]
        outcome = await super().transact(transaction)
        self.statements[transaction.durable] += read
        return outcome


@pytest.mark.parametrize("durable", [False, True])
def test_control_a_second_read_is_counted(durable: bool, tmp_path: Path) -> None:
    engine = ReadsTwice(tmp_path / "dcaf.db")
    found = asyncio.run(statements_of_a_turn(engine))
    assert len(found[durable]) > (COMMIT if durable else CLAIM)
