"""Open a session at the beginning of a turn: one transaction that checks every rule and claims it, else why not.

begin    no token seals it: the epoch of its subject, and whether its request was answered before
go on    a token seals it: newest, not ended, of this epoch, and free
refuse   why not: ended, restored, busy, lost, superseded
adopt    a session of before the ledger is taken in, while it is rolled out
reissue  the newest envelope once more, for a client whose answer was lost
"""

from __future__ import annotations

from typing import Final

import anyio

from dcaf.core.claims import Claims
from dcaf.core.errors import SessionConflict, SessionEnded, SessionSuperseded
from dcaf.engines import AllOf, AnyOf, AtMost, Condition, Exists, Is, Not, Now, Outcome, Plus, Put, Record, Row, Transaction, Write
from dcaf.engines.together import transact_together
from dcaf.ledger.companion import ALONE
from dcaf.ledger.kernel import Kernel
from dcaf.ledger.lease import LedgerLease
from dcaf.ledger.origins import make_store
from dcaf.ledger.rules import (
    Lost,
    Presented,
    Rows,
    all_of,
    check_key,
    current_epoch,
    find_end,
    find_lost,
    has_epoch,
    is_after_restore,
    is_ahead,
    is_free,
    is_held_by_another,
    is_in_progress,
    number,
)
from dcaf.ledger.tables import SESSIONS, Columns, session_id_of

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.25
"""How long a turn that waits for another one pauses between two looks."""


class Opening:
    """Opens the session of one turn.

    Args:
        ledger: The ledger.
        presented: The session, as the request has it.
        lease: The lease, which is filled.
    """

    def __init__(self, ledger: Kernel, presented: Presented, lease: LedgerLease) -> None:
        self._ledger = ledger
        self._terms = ledger.terms
        self._presented = presented
        self._lease = lease

    async def run(self) -> None:
        """Open it.

        Raises:
            SessionEnded, SessionConflict, SessionSuperseded, IdempotencyKeyReused: As the rules of the ledger say.
            EngineError: The engine failed.
        """
        session_id = self._presented.request.session_id
        try:
            await self._open()
        except SessionConflict as conflict:
            self._ledger.events.report("busy" if conflict.kept is None else "reissued", session_id)
            raise
        except SessionSuperseded:
            self._ledger.events.report("superseded", session_id)
            raise

    async def _open(self) -> None:
        claims = self._presented.request.claims
        if claims is None:
            await self._begin()
            return
        deadline = anyio.current_time() + self._terms.waits_s
        pause_s = FIRST_PAUSE_S
        while not await self._try(claims, may_wait=anyio.current_time() < deadline):
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _try(self, claims: Claims, *, may_wait: bool) -> bool:
        """Open a session that a token seals; False where another turn holds it, for which this one may wait."""
        try:
            await self._go_on(claims)
        except SessionConflict as conflict:
            if conflict.reason == "busy" and may_wait:
                return False
            raise
        return True

    async def _begin(self) -> None:
        """Open a session that no token seals: its subject's epoch, and whether its request was answered before."""
        presented, lease = self._presented, self._lease
        keyed = presented.keyed if self._terms.freshness else None
        companion = lease.companion
        if presented.epoch is None and keyed is None and companion is ALONE:
            return
        reads = [presented.store, *(record for record in (presented.epoch, keyed) if record is not None)]
        writes = [] if keyed is None else [self._mark(keyed)]
        when = None if keyed is None else AllOf(Exists(presented.store), Not(Exists(keyed)))
        opening = Transaction([*reads, *companion.reads], when=when, writes=writes, durable=False, ranges=companion.ranges)
        _, rows = await self._transact(opening)
        if rows[presented.store] is None:
            await make_store(self._ledger, presented.store)
            await self._begin()
            return
        lease.epoch = current_epoch(presented, rows)
        row = None if keyed is None else rows[keyed]
        if keyed is not None and row is not None:
            await self._answer_again(keyed, row)
        elif keyed is not None:
            lease.take(marks=True)
            lease.share_uses(keyed)

    async def _answer_again(self, keyed: Record, row: Row) -> None:
        """Answer a request whose Idempotency-Key was used before by the session that it began.

        Raises:
            IdempotencyKeyReused: The key was used for another request.
            SessionConflict: The turn goes on, or with the answer that its client has lost.
            SessionEnded, SessionSuperseded: The session has ended, or has gone on.
        """
        check_key(row, self._presented)
        if is_in_progress(row):
            raise SessionConflict(reason="busy")
        if isinstance(row["session"], bytes):
            await self._reissue(
                Lost(keyed, True if row["is_whole"] else "partial"), Record(SESSIONS, row["session"], keyed.partition), None
            )
        raise SessionSuperseded(reason="seq")

    def _mark(self, keyed: Record) -> Put:
        """Have this turn be the one that answers the requests with its Idempotency-Key."""
        return Put(
            keyed,
            {
                "session": self._presented.row.key,
                "claim": self._lease.claim,
                "identity": self._presented.digest,
                "expires": Now(self._terms.lease_ms),
            },
        )

    async def _go_on(self, claims: Claims) -> None:
        """Open a session that a token seals."""
        outcome, rows = await self._transact(self._plan(claims))
        if rows[self._presented.store] is None:
            await make_store(self._ledger, self._presented.store)
            outcome, rows = await self._transact(self._plan(claims))
        if not (outcome.applied and self._is_complete(claims, rows)):
            await self._refuse_or_adopt(claims, rows, outcome.now_ms)
            return
        self._lease.epoch = claims.ep
        self._lease.note(rows[self._presented.row])
        if not self._terms.freshness:
            return
        if self._terms.branches:
            self._lease.sequence = number(rows[self._presented.row], "top") + 1
        if not self._presented.request.is_safe:
            self._lease.take(holds=not self._terms.branches, marks=self._terms.branches and self._presented.keyed is not None)

    def _plan(self, claims: Claims) -> Transaction:
        """The transaction that opens a session: everything is checked and claimed in one step."""
        presented, row, terms = self._presented, self._presented.row, self._terms
        companion = self._lease.companion
        if not terms.freshness:
            return Transaction(presented.reads()[: 2 if presented.epoch is None else 3])
        if presented.epoch is not None and claims.ep is None:
            return Transaction(presented.reads())
        reads = [*presented.reads(), *companion.reads]
        is_safe, keyed = presented.request.is_safe, presented.keyed
        is_current: Condition = Not(AtMost(row, "top", claims.seq - 1)) if terms.branches else Is(row, "sequence", claims.seq)
        when = all_of(
            Is(row, "ended", None),
            is_current,
            is_after_restore(presented.store, claims),
            has_epoch(presented.epoch, claims.ep),
            None if is_safe or terms.branches else is_free(row),
            None if keyed is None else Not(Exists(keyed)),
        )
        claimed: Columns = {"is_presented": 1}
        if terms.branches:
            claimed |= {"top": Plus(1)}
        elif not is_safe:
            claimed |= {"claim": self._lease.claim, "until": Now(terms.lease_ms)}
        writes: list[Write] = [Put(row, claimed)]
        writes += [self._mark(keyed)] if terms.branches and keyed is not None else []
        return Transaction(reads, when=when, writes=writes, durable=False, ranges=companion.ranges)

    def _is_complete(self, claims: Claims, rows: Rows) -> bool:
        """Whether a transaction that was applied allows the turn: at level L1, and for a token without an epoch, it only reads."""
        if self._presented.epoch is not None and claims.ep is None:
            return False
        if self._terms.freshness:
            return True
        return find_end(self._presented, rows, claims) is None and not self._is_behind(claims, rows)

    def _is_behind(self, claims: Claims, rows: Rows) -> bool:
        """Whether the store knows less than the token."""
        return is_ahead(self._presented, rows, claims, freshness=self._terms.freshness, branches=self._terms.branches)

    async def _refuse_or_adopt(self, claims: Claims, rows: Rows, now_ms: int) -> None:
        """Raise why a session was not opened, or adopt it.

        Raises:
            SessionError: Why.
        """
        presented, row = self._presented, rows[self._presented.row]
        is_behind = self._is_behind(claims, rows)
        is_unknown = (row is None and self._terms.freshness) or (presented.epoch is not None and claims.ep is None)
        if (is_behind or is_unknown) and self._may_adopt(now_ms):
            if await self._adopt(claims, rows):
                return
            if row is not None and row["ended"] is None and row["epoch"] == current_epoch(presented, rows):
                is_behind = is_behind and not is_held_by_another(row, self._lease.claim, now_ms)
                is_unknown = False  # another turn has adopted it
        end = find_end(presented, rows, claims)
        if is_behind:
            self._ledger.events.report("restored", presented.request.session_id)
        if end is not None or is_behind or is_unknown or row is None:
            raise end or SessionEnded(reason="restored" if is_behind else "unknown")
        await self._refuse_number(claims, rows, row, now_ms)

    async def _refuse_number(self, claims: Claims, rows: Rows, row: Row, now_ms: int) -> None:
        """Raise why a session that has not ended was not opened."""
        presented, terms = self._presented, self._terms
        keyed = None if presented.keyed is None else rows[presented.keyed]
        if keyed is not None:
            check_key(keyed, presented)
        is_busy = keyed is not None and is_in_progress(keyed)
        if is_busy or (not terms.branches and is_held_by_another(row, self._lease.claim, now_ms)):
            raise SessionConflict(reason="busy")
        lost = find_lost(presented, rows, claims, now_ms=now_ms, reissue_ms=terms.reissue_ms, branches=terms.branches)
        if lost is not None:
            await self._reissue(lost, presented.row, row)
        if claims.seq == number(row, "sequence"):
            raise SessionConflict(reason="busy")  # the claim lapsed between the comparison and now
        raise SessionSuperseded(reason="seq")

    def _may_adopt(self, now_ms: int) -> bool:
        """Whether the ledger is still being rolled out, into a store that this process knows."""
        until_ms = self._terms.adopt_until_ms
        return until_ms is not None and now_ms <= until_ms and self._ledger.marker is not None

    async def _adopt(self, claims: Claims, rows: Rows) -> bool:
        """Take in a session of before the ledger, if this is still the store into which that is done."""
        presented, row, terms = self._presented, self._presented.row, self._terms
        epoch = current_epoch(presented, rows)
        if presented.epoch is not None and (epoch is None or claims.ep not in (None, epoch)):
            return False
        is_older = AllOf(AllOf(Is(row, "ended", None), AtMost(row, "sequence", claims.seq)), is_free(row))
        when = all_of(
            Is(presented.store, "adopting", self._ledger.marker),
            is_after_restore(presented.store, claims),
            has_epoch(presented.epoch, epoch),
            _is_born_after_log_out(presented.epoch, claims),
            AnyOf(Not(Exists(row)), is_older if terms.freshness else Is(row, "ended", None)),
        )
        holds = terms.freshness and not (presented.request.is_safe or terms.branches)
        columns: Columns = {
            "subject": presented.subject,
            "epoch": epoch,
            "sequence": claims.seq,
            "base": claims.seq,
            "top": claims.seq + 1 if terms.branches else None,
            "born": claims.born,
            "ends": claims.exp,
            "is_presented": 1,
            "claim": self._lease.claim if holds else None,
            "until": Now(terms.lease_ms) if holds else None,
            "expires": terms.expires(claims.born),
        }
        companion, writes = self._lease.companion, [Put(row, columns)] if terms.freshness else []
        outcome, _ = await self._transact(
            Transaction([*presented.reads(), *companion.reads], when=when, writes=writes, ranges=companion.ranges)
        )
        if not outcome.applied:
            return False
        self._lease.epoch = epoch
        self._lease.note(rows[row])
        if holds:
            self._lease.take(holds=True)
        self._ledger.events.report("adopted", presented.request.session_id)
        return True

    async def _reissue(self, lost: Lost, record: Record, before: Row | None) -> None:
        """Give the newest envelope to a client whose answer was lost, if the session is still as it was when that was decided.

        Args:
            lost: The answer.
            record: The row of the session.
            before: That row as it was; None where it was not read: then it must have this answer, and nobody has it yet.

        Raises:
            SessionConflict: With it; or the session has gone on meanwhile, and the client may ask again.
            SessionEnded: The session has ended.
            SessionSuperseded: The answer is not kept any more, or the session of a first turn has gone on.
        """
        epoch = self._presented.epoch
        reads = [self._presented.store, record, lost.answer, *([] if epoch is None else [epoch])]
        _, rows = await self._transact(Transaction(reads))
        row, answer = rows[record], rows[lost.answer]
        if row is None or answer is None or not isinstance(answer["box"], bytes):
            raise SessionSuperseded(reason="seq")
        if before is not None and row != before:
            raise SessionConflict(reason="busy")
        if row["ended"] is not None or row["epoch"] != current_epoch(self._presented, rows):
            raise SessionEnded(reason="revoked" if row["ended"] is not None else "epoch")
        is_fresh = row["answer"] == lost.answer.key and not row["is_presented"]
        if before is None and not (is_fresh or self._terms.branches):
            raise SessionSuperseded(reason="seq")
        raise SessionConflict(reason="lost", kept=answer["box"], session_id=session_id_of(record.key), applied=lost.applied)

    async def _transact(self, transaction: Transaction) -> tuple[Outcome, Rows]:
        companion, transact = self._lease.companion, self._ledger.transact
        if transaction.ranges and companion.elsewhere:
            outcome = await transact_together(transact, [transaction, Transaction([], ranges=companion.elsewhere)])
        else:
            outcome = await transact(transaction)
        rows = dict(zip(transaction.reads, outcome.rows, strict=True))
        if transaction.ranges:
            companion.see(rows, outcome.pages, outcome.now_ms)
        return outcome, rows


def _is_born_after_log_out(epoch: Record | None, claims: Claims) -> Condition | None:
    """A token without an epoch was born after the last log-out of its subject. Its clock has the benefit of the doubt."""
    if epoch is None or claims.ep is not None:
        return None
    return AnyOf(Not(Exists(epoch)), AtMost(epoch, "epoch", claims.born * 1000 + 999))
