"""One turn's hold on a session that a ledger knows: what it spends, commits and gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dcaf.core.claims import SKEW_S
from dcaf.core.errors import SessionConflict, SessionEnded, SessionError
from dcaf.core.store import OpenRequest, Sealed, StatelessLease
from dcaf.engines import (
    AllOf,
    AnyOf,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Outcome,
    Plus,
    Put,
    Record,
    Row,
    Transaction,
    Value,
    Write,
)
from dcaf.ledger.rules import (
    Presented,
    Rows,
    all_of,
    current_epoch,
    explain_commit,
    has_epoch,
    is_mine,
    number,
)
from dcaf.ledger.tables import STORE_ROW, answer_row, session_row, use_row

if TYPE_CHECKING:
    from dcaf.ledger.events import LedgerEvents
    from dcaf.ledger.renewals import Renewals

Columns = dict[str, Value | Now | Plus]


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings of a ledger that its leases need.

    Attributes:
        freshness: Whether each session has a row: level L2.
        branches: Whether several states of a session may go on side by side.
        lease_ms: How long a claim lasts without being renewed.
        reissue_ms: For how long an answer is kept.
        max_answer_bytes: The longest answer that is kept.
        lifetime_s: After so many seconds since its birth no token of a session is valid.
    """

    freshness: bool
    branches: bool
    lease_ms: int
    reissue_ms: int
    max_answer_bytes: int
    lifetime_s: int

    def expires(self, born: int | None) -> int | Now:
        """When no token of a session can be valid any more; ``born`` is None for one that begins now."""
        rest_ms = (self.lifetime_s + SKEW_S) * 1000
        return Now(rest_ms) if born is None else born * 1000 + rest_ms


class Kernel(Protocol):
    """What a lease needs of its ledger."""

    terms: Terms
    events: LedgerEvents
    renewals: Renewals

    async def transact(self, transaction: Transaction) -> Outcome:
        """Have the engine apply a transaction."""


class LedgerLease(StatelessLease):
    """A turn of a session.

    Args:
        ledger: Its ledger.
        presented: The session, as the request has it.
        claim: Tells this turn from every other.
        epoch: The epoch of what is sealed.

    Attributes:
        claim: As above.
        holds: Whether the row of the session has this turn as its holder.
        ledger: As above.
        marks: Whether the row of the answer has this turn as the one that will give it: the first turn of a session, with an
            Idempotency-Key.
    """

    def __init__(self, ledger: Kernel, presented: Presented, claim: bytes, epoch: int | None) -> None:
        super().__init__(presented.request)
        self.epoch: int | None = epoch
        self.may_retry: bool = ledger.terms.freshness
        self.claim: bytes = claim
        self.holds: bool = False
        self.marks: bool = False
        self.ledger = ledger
        self._session = presented
        self._is_new = presented.request.claims is None
        self._base = self._number = self.revision
        self._born = None if presented.request.claims is None else presented.request.claims.born
        self._before: _Before | None = None
        self._spent: set[str] = set()
        self._is_due = False

    def take(self, *, holds: bool = False, marks: bool = False) -> None:
        """Take note that the engine has this turn's claim, or its mark, and have it renewed."""
        self.holds, self.marks = holds, marks
        self.ledger.renewals.add(self)

    def raise_epoch(self, epoch: int) -> None:
        """Go on in a newer epoch: every other session of the subject was logged out."""
        self.epoch, self._is_due = epoch, True

    async def spend(self, keys: Sequence[str]) -> bool:
        """Use up keys in the transaction that checks claim, tombstone and epoch once more."""
        session_id = self.request.session_id
        uses = {key: use_row(session_id, key) for key in keys}
        expires = self.ledger.terms.expires(self._born)
        outcome, rows = await self._transact(
            [*self._session_rows(), *uses.values()],
            all_of(*self._standing(), *(Not(Exists(use)) for use in uses.values())),
            [Put(use, {"claim": self.claim, "expires": expires}) for use in uses.values()],
        )
        if outcome.applied:
            self._spent.update(keys)
            return True
        if not any(rows[use] is not None for use in uses.values()) or self._has_lost(rows, outcome.now_ms):
            raise self._explain(rows, outcome.now_ms)
        return False

    async def give_back(self, keys: Sequence[str]) -> None:
        """Remove the uses of these keys that are this turn's own."""
        own = self._spent.intersection(keys)
        uses = [use_row(self.request.session_id, key) for key in own]
        if uses:
            await self._transact(uses, all_of(*(Is(use, "claim", self.claim) for use in uses)), [Delete(use) for use in uses])
            self._spent -= own

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        """Write number, claim and answer, if no other turn came first. What changed nothing is not written."""
        terms = self.ledger.terms
        if not terms.freshness:
            await self._write_end_of_before()
            self._go_on(sealed.claims.seq, sealed.claims.seq + 1)
            return
        if not (sealed.is_changed or self._is_due or self._session.keyed is not None):
            return
        answer, box = self._session.answer, sealed.keep()
        is_kept = len(box) <= terms.max_answer_bytes
        writes: list[Write] = [Put(self._session.row, self._columns(sealed, answer if is_kept else None, ends_turn=ends_turn))]
        writes += [self._write_answer(answer, box, ends_turn=ends_turn)] if is_kept else []
        writes += [] if self._before is None else self._before.writes()
        outcome, rows = await self._transact([*self._session_rows(), answer], all_of(*self._standing()), writes)
        if not outcome.applied:
            raise self._explain(rows, outcome.now_ms)
        self._take_committed(sealed, rows[self._session.row], ends_turn=ends_turn)

    async def end(self) -> None:
        """Write a tombstone. A session that was never committed has no token, and so needs none."""
        before = self._before
        if before is None and not self._is_new:
            before = self._begin_end()
        if before is not None:
            outcome, rows = await self._transact(
                [*self._session_rows(), *before.reads], all_of(*self._standing(), *before.standing), before.writes()
            )
            if not outcome.applied:
                raise self._explain(rows, outcome.now_ms)
        self._let_go()
        self.ledger.events.report("ended", self.request.session_id)

    async def rotate(self, request: OpenRequest) -> None:
        """Go on as another session; the next commit ends the one of before, if nobody has taken it."""
        session = Presented.of(request)
        reads = [STORE_ROW] if session.epoch is None else [STORE_ROW, session.epoch]
        _, rows = await self._transact(reads, None, [])
        if self._before is None and not self._is_new:
            self._before = self._begin_end()
        self.ledger.events.report("rotated", self.request.session_id)
        self.request, self._session, self._is_new, self._born = request, session, True, None
        self.revision = self._base = self._number = 0
        self.sequence: int = 1
        self.epoch = current_epoch(session, rows)

    async def release(self) -> None:
        """Give the claim back, where a commit has not done so."""
        releases = self.releases()
        self._let_go()
        for release in releases:
            await self.ledger.transact(release)

    def releases(self) -> list[Transaction]:
        """What gives back the claims of this turn."""
        row, keyed = self._held_row(), self._session.keyed
        found = [] if row is None else [_write_if_mine(row, self.claim, {"claim": None, "until": None})]
        if self.marks and keyed is not None:
            is_open = AllOf(Is(keyed, "claim", self.claim), Is(keyed, "box", None))
            found.append(Transaction([keyed], when=is_open, writes=[Delete(keyed)], durable=False))
        return found

    def renewal(self) -> Transaction | None:
        """What renews the claim, or the mark of a first turn; None where there is neither."""
        lease, row, keyed = Now(self.ledger.terms.lease_ms), self._held_row(), self._session.keyed
        if row is not None:
            return _write_if_mine(row, self.claim, {"until": lease})
        if self.marks and keyed is not None:
            is_open = AllOf(Is(keyed, "claim", self.claim), Is(keyed, "box", None))
            return Transaction([keyed], when=is_open, writes=[Put(keyed, {"expires": lease})], durable=False)
        return None

    def _held_row(self) -> Record | None:
        """The row that has the claim: after a rotation that is not committed yet, the one of before."""
        if not self.holds:
            return None
        return self._session.row if self._before is None else self._before.row

    def _session_rows(self) -> list[Record]:
        """The rows that the conditions of a turn are about."""
        epoch, keyed = self._session.epoch, self._session.keyed
        found = [STORE_ROW, self._session.row]
        found += [] if epoch is None else [epoch]
        found += [keyed] if keyed is not None and self.marks else []
        return [*found, *(() if self._before is None else self._before.reads)]

    def _begin_end(self) -> _Before:
        """What ends the session that the turn has now."""
        session_id = self.request.session_id
        expires = self.ledger.terms.expires(self._born)
        reads = [*self._session_rows(), answer_row(session_id)]
        return _Before(self._session.row, session_id, self._session.subject, expires, reads, self._standing())

    async def _write_end_of_before(self) -> None:
        """End the session that a rotated one was, where no row of the new one is written in the same transaction."""
        if self._before is not None:
            outcome, rows = await self._transact(self._session_rows(), all_of(*self._standing()), self._before.writes())
            if not outcome.applied:
                raise self._explain(rows, outcome.now_ms)
        self._is_new, self._before = False, None

    def _standing(self) -> list[Condition | None]:
        """The conditions under which this turn may still act on its session."""
        row, terms, keyed = self._session.row, self.ledger.terms, self._session.keyed
        own: list[Condition | None] = [has_epoch(self._session.epoch, self.epoch)]
        if self.marks and keyed is not None:
            own.append(AnyOf(Not(Exists(keyed)), Is(keyed, "claim", self.claim)))
        if not terms.freshness:
            own.append(AnyOf(Not(Exists(row)), Is(row, "ended", None)))
        elif self._is_new:
            own.append(Not(Exists(row)))
        else:
            own += [Is(row, "ended", None), None if terms.branches else Is(row, "sequence", self._number)]
            own += [None if terms.branches else is_mine(row, self.claim)]
        return own if self._before is None else [*own, *self._before.standing]

    def _columns(self, sealed: Sealed, answer: Record | None, *, ends_turn: bool) -> Columns:
        """What a commit writes into the row of the session."""
        terms, claims = self.ledger.terms, sealed.claims
        found: Columns = {
            "subject": self._session.subject,
            "epoch": self.epoch,
            "sequence": claims.seq,
            "born": claims.born,
            "ends": claims.exp,
            "identity": self._session.identity,
            "is_whole": int(ends_turn),
            "committed": Now(),
            "answer": None if answer is None else answer.key,
            "expires": terms.expires(claims.born),
        }
        if sealed.is_changed:
            found |= {"base": self._base, "is_presented": 0}
        if terms.branches:
            return found | {"top": claims.seq + 1 if self._is_new else Plus(1)}
        keeps = not ends_turn and self._keeps_claim()
        return found | {"claim": self.claim if keeps else None, "until": Now(terms.lease_ms) if keeps else None}

    def _keeps_claim(self) -> bool:
        """Whether the turn goes on to hold its session after a checkpoint: not one that promised to change nothing, or is over."""
        return self.holds or (self._is_new and not self.request.is_safe)

    def _write_answer(self, answer: Record, box: bytes, *, ends_turn: bool) -> Put:
        return Put(
            answer,
            {
                "session": session_row(self.request.session_id).key,
                "claim": self.claim,
                "identity": self._session.digest,
                "is_whole": int(ends_turn),
                "box": box,
                "expires": Now(self.ledger.terms.reissue_ms),
            },
        )

    def _take_committed(self, sealed: Sealed, row: Row | None, *, ends_turn: bool) -> None:
        """Go on from what was committed."""
        terms, was_new = self.ledger.terms, self._is_new
        keeps = not ends_turn and not terms.branches and self._keeps_claim()
        self._is_new, self._before, self._is_due, self._born = False, None, False, sealed.claims.born
        top = sealed.claims.seq + 1 if was_new else number(row, "top") + 1
        self._go_on(sealed.claims.seq, top if terms.branches else sealed.claims.seq + 1)
        if keeps and not self.holds:
            self.take(holds=True, marks=self.marks)
        elif not keeps:
            self._let_go()

    def _go_on(self, committed: int, following: int) -> None:
        self._number, self.sequence = committed, following

    def _let_go(self) -> None:
        if self.holds or self.marks:
            self.holds = self.marks = False
            self.ledger.renewals.remove(self)

    def _has_lost(self, rows: Rows, now_ms: int) -> bool:
        """Whether the turn may not act on its session any more, whatever else was asked."""
        row, epoch = rows[self._session.row], current_epoch(self._session, rows)
        if self._session.epoch is not None and epoch != self.epoch:
            return True
        if row is None or not self.ledger.terms.freshness:
            return row is not None and row["ended"] is not None
        is_taken = row["claim"] not in (None, self.claim) and number(row, "until") > now_ms
        has_moved = number(row, "sequence") != self._number or is_taken
        return row["ended"] is not None or self._is_new or (has_moved and not self.ledger.terms.branches)

    def _explain(self, rows: Rows, now_ms: int) -> SessionError:
        """Why a transaction was refused."""
        if self._session.epoch is not None and current_epoch(self._session, rows) != self.epoch:
            return SessionEnded(reason="epoch")
        keyed = self._session.keyed
        if self._is_new and self.marks and keyed is not None and rows.get(keyed):
            return SessionConflict(reason="taken")
        row = rows[self._session.row] if self._before is None else rows[self._before.row]
        found = explain_commit(row, self.claim, now_ms, revision=None if self._is_new and self._before is None else self._number)
        if isinstance(found, SessionConflict):
            self.ledger.events.report("taken", self.request.session_id)
        return found

    async def _transact(self, reads: Sequence[Record], when: Condition | None, writes: Sequence[Write]) -> tuple[Outcome, Rows]:
        distinct = list(dict.fromkeys(reads))
        outcome = await self.ledger.transact(Transaction(distinct, when=when, writes=writes))
        return outcome, dict(zip(distinct, outcome.rows, strict=True))


@dataclass(frozen=True, slots=True)
class _Before:
    """The session that a rotated one was, which ends with the next commit.

    Attributes:
        row: Its row.
        session_id: Its id.
        subject: What its row has in place of the subject.
        expires: When no token of it can be valid any more.
        reads: The rows that its conditions and its end need.
        standing: The conditions under which the turn may act on it.
    """

    row: Record
    session_id: str = field(repr=False)
    subject: bytes | None = field(repr=False)
    expires: int | Now
    reads: list[Record]
    standing: list[Condition | None]

    def writes(self) -> list[Write]:
        """Its tombstone."""
        tombstone: Columns = {
            "subject": self.subject,
            "ended": Now(),
            "claim": None,
            "until": None,
            "identity": None,
            "answer": None,
            "expires": self.expires,
        }
        return [Put(self.row, tombstone), Delete(answer_row(self.session_id))]


def _write_if_mine(row: Record, claim: bytes, columns: Columns) -> Transaction:
    return Transaction([row], when=Is(row, "claim", claim), writes=[Put(row, columns)], durable=False)
