"""Rows that lie apart, on an engine of several servers: which partition has them, and a transaction over two partitions.

>>> Root.unpack(Root(b"k" * 16, 7).pack(300), 300)
Root(key=b'kkkkkkkkkkkkkkkk', partition=7)

All rows of a subject lie in one partition, and so do those of an anonymous session. So a turn needs one, but where its session is
rotated to another subject: what ends then lies elsewhere than what begins, and so does what was used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcaf.engines import Condition, Record, Transaction, Write
from dcaf.engines.transactions import find_leaves
from dcaf.ledger.rules import all_of
from dcaf.ledger.tables import DIGEST_BYTES, PARTITION_BYTES, use_row


class Root(NamedTuple):
    """Where a session, and what it is rotated to, has what was used up.

    Attributes:
        key: Key of the first of these sessions, or digest of the Idempotency-Key with which it was begun.
        partition: Where the rows lie. A session that was rotated to another subject lies elsewhere than what it has used.
    """

    key: bytes
    partition: int

    def use_row(self, key: str) -> Record:
        """The row of what these sessions may use once."""
        return use_row(self.key, key, self.partition)

    def pack(self, partition: int) -> bytes:
        """What a row in this partition has as ``root``: the key, and where the uses lie elsewhere, two bytes that say where."""
        return self.key if self.partition == partition else self.key + self.partition.to_bytes(PARTITION_BYTES, "big")

    @classmethod
    def unpack(cls, packed: bytes, partition: int) -> Root:
        """What a row in this partition has packed."""
        own, elsewhere = packed[:DIGEST_BYTES], packed[DIGEST_BYTES:]
        return cls(own, int.from_bytes(elsewhere, "big") if elsewhere else partition)


def split(reads: Sequence[Record], conditions: Sequence[Condition], writes: Sequence[Write]) -> list[Transaction]:
    """A transaction for each partition: first what only compares, then the session that the turn has, then the one of before."""
    partitions = list(dict.fromkeys(record.partition for record in reads))
    if len(partitions) == 1:
        return [Transaction(reads, when=all_of(*conditions), writes=writes)]
    parts = [
        Transaction(
            [record for record in reads if record.partition == partition],
            when=all_of(*(one for one in conditions if find_leaves(one)[0].record.partition == partition)),
            writes=[write for write in writes if write.record.partition == partition],
        )
        for partition in partitions
    ]
    return sorted(parts, key=lambda part: bool(part.writes))
