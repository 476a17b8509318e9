"""One turn's hold on a session that a ledger knows: what it spends, commits and gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from dcaf.core.errors import SessionConflict, SessionEnded, SessionError
from dcaf.core.store import OpenRequest, Sealed, StatelessLease, digest_parts
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
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
    is_after_restore,
    is_before_restore,
    is_held_by_another,
    is_mine,
    number,
)
from dcaf.ledger.tables import ANSWERS, DIGEST_BYTES, STORE_ROW, answer_row, session_row, use_row

if TYPE_CHECKING:
    from dcaf.ledger.events import LedgerEvents
    from dcaf.ledger.renewals import Renewals
    from dcaf.ledger.settings import Terms

Columns = dict[str, Value | Now | Plus]


class Kernel(Protocol):
    """What a turn needs of its ledger.

    Attributes:
        terms, events, renewals: Of the ledger.
        marker: What the row of the store has as ``adopting``; None where nothing is adopted.
    """

    terms: Terms
    events: LedgerEvents
    renewals: Renewals
    marker: int | None

    async def prepare(self, *, is_emptied: bool = False) -> None:
        """Make the row of the store, if it is not there."""

    async def transact(self, transaction: Transaction) -> Outcome:
        """Have the engine apply a transaction."""


class LedgerLease(StatelessLease):
    """A turn of a session.

    Args:
        ledger: Its ledger.
        presented: The session, as the request has it.
        claim: Tells this turn from every other.

    Attributes:
        claim: As above.
        holds: Whether the row of the session has this turn as its holder.
        ledger: As above.
        marks: Whether the row of the answer has this turn as the one that will give it: the first turn of a session, and with
            branches each, where it has an Idempotency-Key.
    """

    def __init__(self, ledger: Kernel, presented: Presented, claim: bytes) -> None:
        super().__init__(presented.request)
        self.may_retry: bool = ledger.terms.freshness
        self.claim: bytes = claim
        self.holds: bool = False
        self.marks: bool = False
        self.ledger: Kernel = ledger
        self._session: Presented = presented
        self._is_new: bool = presented.request.claims is None
        self._base: int = self.revision
        self._number: int = self.revision
        self._born: int | None = None if presented.request.claims is None else presented.request.claims.born
        self._before: _Before | None = None
        self._last_answer: Record | None = None
        self._root: bytes | None = None
        self._spent: set[str] = set()
        self._is_due: bool = False
        self._is_partial: bool = False
        self._is_released: bool = False
        self._ends: int | None = None

    def take(self, *, holds: bool = False, marks: bool = False) -> None:
        """Take note that the engine has this turn's claim, or its mark, and have it renewed."""
        self.holds, self.marks = holds, marks
        if holds or marks:
            self.ledger.renewals.add(self)

    def note(self, row: Row | None) -> None:
        """Remember where the last answer is, which goes with its session, and where uses are, which do not."""
        key, root = (None, None) if row is None else (row["answer"], row["root"])
        self._last_answer = Record(ANSWERS, key) if isinstance(key, bytes) else None
        self._root = root if isinstance(root, bytes) else None

    def share_uses(self, keyed: Record) -> None:
        """Have each try of a first turn use things up in one place: what it begins when it is sent again is another session.

        Args:
            keyed: The row of its answer, by subject and Idempotency-Key.
        """
        self._root = digest_parts(b"uses", keyed.key, self._session.digest or b"")[:DIGEST_BYTES]

    def raise_epoch(self, epoch: int) -> None:
        """Go on in a newer epoch: every other session of the subject was logged out."""
        self.epoch, self._is_due = epoch, True

    async def spend(self, keys: Sequence[str]) -> bool:
        """Use up keys in the transaction that checks claim, tombstone and epoch once more."""
        uses = {key: self._use_row(key) for key in keys}
        expires = self.ledger.terms.expires(self._born)
        coming = {*keys} - self._spent
        self._spent |= coming  # from here on: where this is cancelled, it may have been applied all the same
        outcome, rows = await self._transact(
            [*self._session_rows(), *uses.values()],
            all_of(*self._standing(), *(Not(Exists(use)) for use in uses.values())),
            [Put(use, {"claim": self.claim, "expires": expires}) for use in uses.values()],
        )
        if outcome.applied:
            return True
        self._spent -= coming
        if not any(rows[use] is not None for use in uses.values()) or self._has_lost(rows, outcome.now_ms):
            raise self._explain(rows, outcome.now_ms)
        return False

    async def give_back(self, keys: Sequence[str]) -> None:
        """Remove the uses of these keys that are this turn's own."""
        for key in self._spent.intersection(keys):
            use = self._use_row(key)
            await self._transact([use], Is(use, "claim", self.claim), [Delete(use)])
            self._spent.discard(key)

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        """Write number, claim and answer, if no other turn came first. What changed nothing is not written."""
        if not self.ledger.terms.freshness:
            await self._write_end_of_before()
            self._go_on(sealed.claims.seq, sealed.claims.seq + 1)
        elif (
            sealed.is_changed or self._session.keyed is not None or self._spent or self._is_due or (self._is_partial and ends_turn)
        ):
            await self._write(sealed, ends_turn=ends_turn)
        elif self.request.claims is not None and sealed.claims.exp > self.request.claims.exp:
            self._ends = sealed.claims.exp  # written when the session is released, and not waited for

    async def _write(self, sealed: Sealed, *, ends_turn: bool) -> None:
        answer, box = self._session.answer, sealed.keep()
        kept = box if len(box) <= self.ledger.terms.max_answer_bytes else None
        writes: list[Write] = [
            Put(self._session.row, self._columns(sealed, ends_turn=ends_turn)),
            self._write_answer(answer, kept, ends_turn=ends_turn),
            *([] if self._before is None else self._before.writes(kept=answer)),
        ]
        outcome, rows = await self._transact([*self._session_rows(), answer], all_of(*self._standing()), writes)
        if not outcome.applied:
            raise self._explain(rows, outcome.now_ms)
        if self._before is not None:
            self.ledger.events.report("rotated", self._before.session_id)
        self._take_committed(sealed, rows[self._session.row], ends_turn=ends_turn)

    async def end(self) -> None:
        """Write a tombstone. A session that was never committed has no token, and so needs none."""
        if self._before is None and not self._is_new:
            self._before = self._begin_end()
        keyed = self._session.keyed if self.marks else None
        writes: list[Write] = [] if self._before is None else self._before.writes(kept=keyed)
        writes += [] if keyed is None else [self._write_answer(keyed, None, ends_turn=True)]  # it is not done once more
        if writes:
            outcome, rows = await self._transact(self._session_rows(), all_of(*self._standing()), writes)
            if not outcome.applied:
                raise self._explain(rows, outcome.now_ms)
        self._let_go()
        self.ledger.events.report("ended", self.request.session_id)

    async def rotate(self, request: OpenRequest) -> None:
        """Go on as another session; the next commit ends the one of before, if nobody has taken it."""
        # The answer stays where the client asks for it: its request is the same.
        session = replace(Presented.of(request), keyed=self._session.keyed)
        _, rows = await self._transact([STORE_ROW, *([] if session.epoch is None else [session.epoch])], None, [])
        if self._before is None and not self._is_new:
            self._before = self._begin_end()
        self._root = self._root or self._session.row.key
        self.request: OpenRequest = request
        self._session, self._is_new, self._born = session, True, None
        self.revision = self._base = self._number = 0
        self.sequence: int = 1
        self.epoch = current_epoch(session, rows)

    async def release(self) -> None:
        """Give the claim back, where a commit has not done so."""
        releases = self.releases()
        self._is_released = True
        self._let_go()
        for release in releases:
            await self.ledger.transact(release)

    def releases(self) -> list[Transaction]:
        """What gives back the claims of this turn, and notes that its token has a later end."""
        row, keyed = self._held_row(), self._session.keyed
        later: Columns = {} if self._ends is None else {"ends": self._ends}
        found = [] if row is None else [_write_if_mine(row, self.claim, {"claim": None, "until": None, **later})]
        if row is None and self._ends is not None:
            row = self._session.row
            is_later = AllOf(Is(row, "ended", None), AtMost(row, "ends", self._ends))
            found.append(Transaction([row], when=is_later, writes=[Put(row, later)], durable=False))
        if self.marks and keyed is not None:
            found.append(Transaction([keyed], when=self._is_marked(keyed), writes=[Delete(keyed)], durable=False))
        return found

    def _is_marked(self, keyed: Record) -> Condition:
        """The answer to an Idempotency-Key is still this turn's to give."""
        return AllOf(Is(keyed, "claim", self.claim), AllOf(Is(keyed, "box", None), Is(keyed, "is_whole", None)))

    def renewal(self) -> Transaction | None:
        """What renews the claim, or the mark of a first turn; None where there is neither."""
        lease, row, keyed = Now(self.ledger.terms.lease_ms), self._held_row(), self._session.keyed
        if row is not None:
            return _write_if_mine(row, self.claim, {"until": lease})
        if self.marks and keyed is not None:
            return Transaction([keyed], when=self._is_marked(keyed), writes=[Put(keyed, {"expires": lease})], durable=False)
        return None

    def _use_row(self, key: str) -> Record:
        """The row of what may be used once, the same before and after a rotation, and in each try of a first turn."""
        return use_row(self._root or self._session.row.key, key)

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
        answers = {answer_row(session_id), *([] if self._last_answer is None else [self._last_answer])}
        reads = [*self._session_rows(), *answers]
        standing = self._standing()
        return _Before(self._session.row, session_id, self._session.subject, expires, answers, reads, standing)

    async def _write_end_of_before(self) -> None:
        """End the session that a rotated one was, where the row of the new one says only where its uses are."""
        if self._is_new and self._root is not None:
            # With a number, so that level L2 can adopt the session.
            root: Columns = {"root": self._root, "sequence": 0, "expires": self.ledger.terms.expires(self._born)}
            writes: list[Write] = [Put(self._session.row, root), *([] if self._before is None else self._before.writes())]
            outcome, rows = await self._transact(self._session_rows(), all_of(*self._standing()), writes)
            if not outcome.applied:
                raise self._explain(rows, outcome.now_ms)
            if self._before is not None:
                self.ledger.events.report("rotated", self._before.session_id)
        self._is_new, self._before = False, None

    def _standing(self) -> list[Condition | None]:
        """The conditions under which this turn may still act on its session."""
        row, terms, keyed = self._session.row, self.ledger.terms, self._session.keyed
        opened = self.request.claims
        own: list[Condition | None] = [has_epoch(self._session.epoch, self.epoch)]
        own.append(None if opened is None else is_after_restore(opened))
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

    def _columns(self, sealed: Sealed, *, ends_turn: bool) -> Columns:
        """What a commit writes into the row of the session."""
        terms, claims = self.ledger.terms, sealed.claims
        found: Columns = {
            "subject": self._session.subject,
            "root": self._root,
            "epoch": self.epoch,
            "sequence": claims.seq,
            "born": claims.born,
            "ends": claims.exp,
            "identity": self._session.identity,
            "is_whole": int(ends_turn),
            "committed": Now(),
            "answer": self._session.answer.key,
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
        return self.holds or (self._is_new and not (self.request.is_safe or self._is_released))

    def _write_answer(self, answer: Record, box: bytes | None, *, ends_turn: bool) -> Put:
        """What a commit writes as its answer; a box of None is an answer that is not kept."""
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
        self._last_answer, self._is_partial = self._session.answer, not ends_turn
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
        has_moved = number(row, "sequence") != self._number or is_held_by_another(row, self.claim, now_ms)
        return row["ended"] is not None or self._is_new or (has_moved and not self.ledger.terms.branches)

    def _explain(self, rows: Rows, now_ms: int) -> SessionError:
        """Why a transaction was refused."""
        if self._session.epoch is not None and current_epoch(self._session, rows) != self.epoch:
            return SessionEnded(reason="epoch")
        opened, store, keyed = self.request.claims, rows[STORE_ROW], self._session.keyed
        if opened is not None and is_before_restore(store, opened):
            return SessionEnded(reason="restored")
        row = rows[self._session.row] if self._before is None else rows[self._before.row]
        marked = rows.get(keyed) if self.marks and keyed is not None else None
        found = explain_commit(row, self.claim, now_ms, is_known=not self._is_new or self._before is not None)
        if isinstance(found, SessionConflict) and marked is not None and marked["claim"] != self.claim:
            found = SessionConflict(reason="taken")
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


def _write_if_mine(row: Record, claim: bytes, columns: Columns) -> Transaction:
    return Transaction([row], when=Is(row, "claim", claim), writes=[Put(row, columns)], durable=False)
