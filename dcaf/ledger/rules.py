"""The rules of a ledger, as conditions on its rows, and why a turn was refused that did not fulfil them.

Each rule stands twice side by side, because an engine says only whether all conditions held: once for the engine, which compares
atomically, and once for the reason.

    epoch      a token has the epoch of its subject: the row's, or the store's origin where that is newer or there is no row
    restored   a token was sealed after the store was restored, if it ever was
    ended      its session is not revoked, ended or rotated
    number     it is the newest of its session; with branches, no newer than the newest number that was given out
    claim      no other turn holds the session
    key        the Idempotency-Key of the request was not used for another one
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Final, Literal, NamedTuple, TypeAlias

from dcaf.core.claims import Claims
from dcaf.core.errors import IdempotencyKeyReused, SessionConflict, SessionEnded, SessionError, SessionSuperseded
from dcaf.core.store import OpenRequest
from dcaf.engines import AllOf, AnyOf, AtMost, Condition, Exists, Is, Not, Now, Record, Row
from dcaf.engines.partitions import find_partition
from dcaf.ledger.tables import (
    ANSWERS,
    DIGEST_BYTES,
    answer_row,
    epoch_row,
    keyed_row,
    session_row,
    store_row,
    subject_digest,
)

Rows = dict[Record, Row | None]
"""The rows that a transaction has read."""

Applied: TypeAlias = bool | Literal["partial"] | None

IDENTITY_BYTES: Final = DIGEST_BYTES


class Lost(NamedTuple):
    """An answer that its client may not have got.

    Attributes:
        answer: The row with it.
        applied: Whether it answers this very request, as in ``SessionConflict``; None where nobody can tell.
    """

    answer: Record
    applied: Applied


@dataclass(frozen=True, slots=True)
class Presented:
    """A session of a turn, as its request presents it, and the rows that tell whether it may go on.

    Attributes:
        request: The request.
        row: The row of the session.
        store: The row of the store.
        epoch: The row of the subject's epoch; None for an anonymous session.
        keyed: The row of the answer to a request with this Idempotency-Key; None where it has none, or promises to change nothing.
    """

    request: OpenRequest = field(repr=False)
    row: Record
    store: Record
    epoch: Record | None
    keyed: Record | None

    @classmethod
    def of(cls, request: OpenRequest, partitions: int) -> Presented:
        """The rows of a request. The first turn of an anonymous session has no scope for its key.

        All of them lie in one partition: that of the subject, or where there is none, of the session.
        """
        audience, subject, _ = request.binding
        epoch = None if subject is None else epoch_row(audience, subject, partitions)
        partition = find_partition(subject, request.session_id, partitions)
        scope = request.session_id if request.claims is not None else subject and f"{audience}\n{subject}"
        key = None if request.is_safe or not request.idempotency_key else request.idempotency_key
        return cls(
            request,
            session_row(request.session_id, partition),
            store_row(partition),
            epoch,
            None if key is None or scope is None else keyed_row(scope, key, partition),
        )

    @property
    def subject(self) -> bytes | None:
        """What the session's row has in place of the subject."""
        audience, subject, _ = self.request.binding
        return None if subject is None else subject_digest(audience, subject)

    @property
    def answer(self) -> Record:
        """The row for the answer of this turn."""
        return self.keyed or answer_row(self.request.session_id, self.row.partition)

    @property
    def digest(self) -> bytes | None:
        """What tells the request from others; None where nothing does."""
        found = self.request.identity()
        return None if found is None else found[:IDENTITY_BYTES]

    @property
    def identity(self) -> bytes | None:
        """The same for a request without an Idempotency-Key, and the digest of that key for one with it."""
        return self.digest if self.keyed is None else self.keyed.key[:IDENTITY_BYTES]

    def reads(self) -> list[Record]:
        """The rows that are read when the session is opened."""
        return [self.store, *(record for record in (self.row, self.epoch, self.keyed) if record is not None)]


def all_of(*conditions: Condition | None) -> Condition | None:
    """All of these hold, without those that are None; None for none."""
    found = [condition for condition in conditions if condition is not None]
    return reduce(AllOf, found) if found else None


def is_free(row: Record) -> Condition:
    """No turn holds a session, or the lease of the one that did is over."""
    return AnyOf(Is(row, "claim", None), AtMost(row, "until", Now()))


def is_mine(row: Record, claim: bytes) -> Condition:
    """No other turn holds a session. A lease that is over counts for a turn until another one takes the session."""
    return AnyOf(Is(row, "claim", claim), is_free(row))


def has_epoch(epoch: Record | None, value: int | None) -> Condition | None:
    """The epoch of the subject, as ``current_epoch`` says it, has a value; None for an anonymous session, which has no epoch."""
    if epoch is None or value is None:
        return None
    store = store_row(epoch.partition)
    is_row = AllOf(Is(epoch, "epoch", value), AtMost(store, "origin", value))
    is_origin = AllOf(Is(store, "origin", value), AnyOf(Not(Exists(epoch)), AtMost(epoch, "epoch", value)))
    return AnyOf(is_row, is_origin)


def is_after_restore(store: Record, claims: Claims) -> Condition:
    """A token was sealed after the store was restored. Its clock has whole seconds, and the benefit of the doubt."""
    return AnyOf(Is(store, "restored", None), AtMost(store, "restored", claims.iat * 1000 + 999))


def current_epoch(presented: Presented, rows: Rows) -> int | None:
    """The epoch of the subject; None for an anonymous session, or where the store has no origin."""
    if presented.epoch is None:
        return None
    return max(number(rows[presented.epoch], "epoch"), number(rows[presented.store], "origin")) or None


def number(row: Row | None, column: str) -> int:
    """A number of a row; 0 where there is none."""
    found = None if row is None else row[column]
    return found if isinstance(found, int) else 0


def is_held_by_another(row: Row, claim: bytes | None, now_ms: int) -> bool:
    """Whether another turn holds a session, and its lease is not over."""
    return row["claim"] not in (None, claim) and number(row, "until") > now_ms


def is_before_restore(store: Row | None, claims: Claims) -> bool:
    """Whether a token was sealed before the store was restored: by its own clock, or, where it has an epoch, by the store's."""
    restored_ms = number(store, "restored")
    is_older = claims.ep is not None and claims.ep < number(store, "origin")
    return bool(restored_ms) and (is_older or claims.iat * 1000 + 999 < restored_ms)


def find_end(presented: Presented, rows: Rows, claims: Claims) -> SessionEnded | None:
    """Why a session has ended, as far as its tombstone, its epoch and the store tell; None where it has not."""
    row = rows[presented.row]
    if is_before_restore(rows[presented.store], claims):
        return SessionEnded(reason="restored")
    if row is not None and row["ended"] is not None:
        return SessionEnded(reason="revoked")
    if presented.epoch is not None and claims.ep is not None and claims.ep != current_epoch(presented, rows):
        return SessionEnded(reason="epoch")
    return None


def is_ahead(presented: Presented, rows: Rows, claims: Claims, *, freshness: bool, branches: bool) -> bool:
    """Whether a token knows more than the store: the store is older than what it handed out, and has lost something.

    Args:
        presented, rows, claims: The session, the rows that were read, and the claims of its token.
        freshness: Whether each session has a row.
        branches: Whether numbers are given out before they are committed.
    """
    row, epoch = rows[presented.row], current_epoch(presented, rows)
    if claims.ep is not None and (epoch is None or claims.ep > epoch):
        return True
    if not freshness or (row is not None and row["ended"] is not None):
        return False
    if row is None:
        return claims.ep is not None
    return claims.seq > number(row, "top" if branches else "sequence")


def find_lost(presented: Presented, rows: Rows, claims: Claims, *, now_ms: int, reissue_ms: int, branches: bool) -> Lost | None:
    """The answer that the client of a refused number may have lost; None where it has no claim to one.

    Raises:
        IdempotencyKeyReused: The Idempotency-Key was used for another request.
        SessionSuperseded: It was used for this one, and the session has gone on since; or nobody can tell for which one, and the
            session is bound to nobody.
    """
    row = rows[presented.row]
    assert row is not None
    keyed = None if presented.keyed is None else rows[presented.keyed]
    is_next = number(row, "base") <= claims.seq < number(row, "sequence") and not row["is_presented"]
    if presented.keyed is not None and keyed is not None:
        check_key(keyed, presented)
        if keyed["identity"] is None and presented.request.binding.subject is None:
            raise SessionSuperseded(reason="seq")  # its body was not read whole: whoever knows the key may ask for something else
        is_newest = row["answer"] == presented.keyed.key and (is_next or claims.seq == number(row, "sequence"))
        if not (branches or is_newest):
            raise SessionSuperseded(reason="seq")
        return Lost(presented.keyed, True if keyed["is_whole"] else "partial")
    is_recent = now_ms - number(row, "committed") <= reissue_ms
    if branches or not (is_recent and is_next and isinstance(row["answer"], bytes)):
        return None
    applied = _compare_identity(row, presented.identity)
    if not applied and presented.request.binding.subject is None:
        return None  # whoever copied an older token would get the newer one for it
    return Lost(Record(ANSWERS, row["answer"], presented.row.partition), applied)


def _compare_identity(row: Row, identity: bytes | None) -> Applied:
    """Whether the turn that committed last was of this request; a frame of a WebSocket, for one, has no identity to tell."""
    if row["identity"] is None or identity is None:
        return None
    if row["identity"] != identity:
        return False
    return True if row["is_whole"] else "partial"


def is_in_progress(keyed: Row) -> bool:
    """Whether the turn that will answer an Idempotency-Key goes on. One that is over may have an answer that was not kept."""
    return keyed["box"] is None and keyed["is_whole"] is None


def check_key(keyed: Row, presented: Presented) -> None:
    """Refuse an Idempotency-Key that was used for another request.

    Raises:
        IdempotencyKeyReused: It was.
    """
    if keyed["identity"] != presented.digest:
        raise IdempotencyKeyReused(reason="key")


def explain_commit(row: Row | None, claim: bytes, now_ms: int, *, is_known: bool) -> SessionError:
    """Why a commit was refused, whose epoch was right.

    Args:
        row: The row of the session; None where there is none.
        claim: The turn that commits.
        now_ms: The engine's clock.
        is_known: Whether the session had a row when the turn began.
    """
    if row is not None and row["ended"] is not None:
        return SessionEnded(reason="revoked")
    if row is None and is_known:
        return SessionEnded(reason="gone")
    if row is not None and is_held_by_another(row, claim, now_ms):
        return SessionConflict(reason="taken")
    return SessionConflict(reason="moved")
