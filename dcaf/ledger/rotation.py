"""What a rotation leaves behind: the session of before, which ends with the next commit, and what it has used up.

>>> Root.unpack(Root(b"k" * 16, 7).pack(300), 300)
Root(key=b'kkkkkkkkkkkkkkkk', partition=7)

All rows of a subject lie in one partition, and so do those of an anonymous session. So a turn needs one, but where its session is
rotated to another subject: what ends then lies elsewhere than what begins, and so does what was used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dcaf.engines import Condition, Delete, Now, Put, Record, Transaction, Write
from dcaf.engines.transactions import find_leaves
from dcaf.ledger.rules import all_of
from dcaf.ledger.tables import DIGEST_BYTES, PARTITION_BYTES, Columns, use_row


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


@dataclass(frozen=True, slots=True)
class Before:
    """The session that a rotated one was, which ends with the next commit.

    Attributes:
        row: Its row.
        session_id: Its id.
        subject: What its row has in place of the subject.
        expires: When no token of it can be valid any more.
        answers: The rows of its answers.
        reads: The rows that its conditions and its end need.
        standing: The conditions under which the turn may act on it.
    """

    row: Record
    session_id: str = field(repr=False)
    subject: bytes | None = field(repr=False)
    expires: int | Now
    answers: set[Record]
    reads: list[Record]
    standing: list[Condition | None]

    def writes(self, *, kept: Record | None = None) -> list[Write]:
        """Its tombstone, and the end of its answers, but for one that is written anew."""
        tombstone: Columns = {
            "subject": self.subject,
            "ended": Now(),
            "claim": None,
            "until": None,
            "identity": None,
            "answer": None,
            "expires": self.expires,
        }
        return [Put(self.row, tombstone), *(Delete(answer) for answer in self.answers - {kept})]


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
