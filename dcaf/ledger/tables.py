"""What a ledger keeps: a row for each session, each subject, each thing used up, and for a while the last answer.

>>> row = session_row("A" * 22, 0)
>>> len(row.key), len(use_row(row.key, "charge-42", 0).key), len(epoch_row("shop", "ada", 1).key)
(16, 32, 32)

A row of a session has under 200 bytes. The answer, which may have as many as a token, is in a table of its own: a claim, which
every turn makes, writes the small row alone.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final, TypeAlias

from dcaf.core.base64url import decode, encode
from dcaf.core.store import digest_parts
from dcaf.engines import Now, Plus, Record, Table, Value
from dcaf.engines.partitions import find_partition

Columns: TypeAlias = dict[str, Value | Now | Plus]
"""What a write puts into a row."""

SESSIONS: Final = Table(
    "dcaf_sessions",
    {
        "subject": bytes,
        "root": bytes,
        "epoch": int,
        "sequence": int,
        "base": int,
        "top": int,
        "born": int,
        "ends": int,
        "ended": int,
        "claim": bytes,
        "until": int,
        "is_presented": int,
        "identity": bytes,
        "is_whole": int,
        "committed": int,
        "answer": bytes,
        "expires": int,
    },
    indexed="subject",
)
"""Session id -> what is known of it.

    subject       digest of whom it is bound to; None for nobody
    root          for what was used up: key of the first session of those that it was rotated from, or digest of the Idempotency-Key
                  with which it was begun, and where that lies in another partition, which; None where it is the session's own
    epoch         of that subject, as its tokens have it
    sequence      number of its newest state
    base          number with which the turn that committed last had begun
    top           with branches, the largest number that was given to a turn
    born, ends    when it began, and when its newest token ends, in seconds
    ended         when it was revoked, ended or rotated, in milliseconds; None while it lives
    claim, until  the turn that holds it, and until when, in milliseconds; None where none does
    is_presented  1 once its newest token has come back
    identity      of the request that committed last
    is_whole      1 where that turn came to its end
    committed     when it did, in milliseconds
    answer        key of its answer
    expires       when no token of it can be valid any more, in milliseconds
"""

ANSWERS: Final = Table(
    "dcaf_answers",
    {"session": bytes, "claim": bytes, "identity": bytes, "is_whole": int, "expires": int, "box": bytes},
    large=True,
)
"""Id of a session, or digest of an Idempotency-Key -> the last answer, encrypted.

The box is last, so that nobody reads through it to what stands behind. While the first turn of a key goes on, ``box`` and
``is_whole`` are None; ``box`` is None for good where the answer was too long.
"""

USES: Final = Table("dcaf_uses", {"claim": bytes, "expires": int})
"""Root of a session, or its id where it has none, and digest of a key -> the turn that has used the key up."""

EPOCHS: Final = Table("dcaf_epochs", {"epoch": int})
"""Digest of audience and subject -> the epoch. A row never expires."""

STORE: Final = Table("dcaf_store", {"origin": int, "restored": int, "adopting": int})
"""One row, and a copy of it in each partition.

    origin     when the store was made, or marked as restored, in milliseconds: the epoch of every subject that has no newer one
    restored   tokens that were sealed before this moment have ended, in milliseconds; None for none
    adopting   marks the store into which sessions of before are adopted; None for none
"""

TABLES: Final = (SESSIONS, ANSWERS, USES, EPOCHS, STORE)

DIGEST_BYTES: Final = 16
PARTITION_BYTES: Final = 2


@cache
def store_row(partition: int) -> Record:
    """The row of the store: each partition has a copy, since no transaction reaches two of them."""
    return Record(STORE, b"store", partition)


def session_row(session_id: str, partition: int) -> Record:
    """The row of a session."""
    return Record(SESSIONS, decode(session_id.encode()), partition)


def answer_row(session_id: str, partition: int) -> Record:
    """The row with the last answer of a session, where its request had no Idempotency-Key."""
    return Record(ANSWERS, decode(session_id.encode()), partition)


def keyed_row(scope: str, key: str, partition: int) -> Record:
    """The row with the answer to a request with an Idempotency-Key; the scope is its session, or the subject of a first turn."""
    return Record(ANSWERS, digest_parts(b"key", scope.encode(), key.encode("utf-8", "surrogatepass")), partition)


def use_row(root: bytes, key: str, partition: int) -> Record:
    """The row of what may be used once in a session, and in what it was rotated to.

    Args:
        root: The key of the first of these sessions, or what their rows have as ``root``.
        key: What is used.
        partition: That of the first of these sessions.
    """
    return Record(USES, root + hashlib.sha256(key.encode()).digest()[:DIGEST_BYTES], partition)


def epoch_row(audience: str, subject: str, partitions: int) -> Record:
    """The row of a subject's epoch, which does not depend on any signing key. It lies where the subject's sessions do."""
    return Record(EPOCHS, digest_parts(audience.encode(), subject.encode()), find_partition(subject, "", partitions))


def subject_digest(audience: str, subject: str) -> bytes:
    """What the rows of a subject's sessions have in place of the subject."""
    return epoch_row(audience, subject, 1).key[:DIGEST_BYTES]


def session_id_of(key: bytes) -> str:
    """The session id of a row's key."""
    return encode(key)
