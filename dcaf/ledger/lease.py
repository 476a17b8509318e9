"""One turn's hold on a session that a ledger knows: what it spends, commits and gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dcaf.core.base64url import Payload
from dcaf.core.errors import SessionConflict, SessionEnded, SessionError
from dcaf.core.journal import Journal
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
    Write,
)
from dcaf.ledger.companion import ALONE, NOTHING, Companion
from dcaf.ledger.kernel import Kernel
from dcaf.ledger.origins import make_store
from dcaf.ledger.rotation import Before, Root, split
from dcaf.ledger.rules import (
    Presented,
    Rows,
    current_epoch,
    explain_commit,
    has_epoch,
    is_after_restore,
    is_before_restore,
    is_held_by_another,
    is_mine,
    number,
)
from dcaf.ledger.tables import ANSWERS, DIGEST_BYTES, Columns, answer_row


class LedgerLease(StatelessLease):
    """A turn of a session.

    Args:
        ledger: Its ledger.
        presented: The session, as the request has it.
        claim: Tells this turn from every other.
        companion: What goes along with it.

    Attributes:
        claim: As above.
        holds: Whether the row of the session has this turn as its holder.
        ledger, companion: As above.
        journal: Of the companion.
        marks: Whether the row of the answer has this turn as the one that will give it: the first turn of a session, and with
            branches each, where it has an Idempotency-Key.
    """

    def __init__(self, ledger: Kernel, presented: Presented, claim: bytes, companion: Companion = ALONE) -> None:
        super().__init__(presented.request)
        self.may_retry: bool = ledger.terms.freshness
        self.claim: bytes = claim
        self.holds: bool = False
        self.marks: bool = False
        self.ledger: Kernel = ledger
        self.companion: Companion = companion
        self.journal: Journal | None = None
        self._session: Presented = presented
        self._marked: Record | None = presented.keyed
        self._is_new: bool = presented.request.claims is None
        self._base: int = self.revision
        self._number: int = self.revision
        self._born: int | None = None if presented.request.claims is None else presented.request.claims.born
        self._before: Before | None = None
        self._last_answer: Record | None = None
        self._root: Root = Root(presented.row.key, presented.row.partition)
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

    async def finish(self) -> None:
        """Show what the companion has found. Raises as ``Companion.finish``."""
        await self.companion.finish()
        self.place: str | None = self.companion.place
        self.payload: Payload | None = self.companion.payload
        self.version: int = self.companion.version
        self.journal = self.companion.journal
        self.shared: tuple[str, ...] = self.companion.shared

    async def latest(self) -> Payload | None:
        """As of the companion."""
        found = await self.companion.latest()
        self.version = self.companion.version
        return found

    def note(self, row: Row | None) -> None:
        """Remember where the last answer is, which goes with its session, and where uses are, which do not."""
        key, root = (None, None) if row is None else (row["answer"], row["root"])
        partition = self._session.row.partition
        self._last_answer = Record(ANSWERS, key, partition) if isinstance(key, bytes) else None
        if isinstance(root, bytes):
            self._root = Root.unpack(root, partition)

    def share_uses(self, keyed: Record) -> None:
        """Have each try of a first turn use things up in one place: what it begins when it is sent again is another session.

        Args:
            keyed: The row of its answer, by subject and Idempotency-Key.
        """
        self._root = Root(digest_parts(b"uses", keyed.key, self._session.digest or b"")[:DIGEST_BYTES], keyed.partition)

    def raise_epoch(self, epoch: int) -> None:
        """Go on in a newer epoch: every other session of the subject was logged out."""
        self.epoch, self._is_due = epoch, True

    async def spend(self, keys: Sequence[str]) -> bool:
        """Use up keys in the transaction that checks claim, tombstone and epoch once more."""
        uses = {key: self._root.use_row(key) for key in keys}
        expires = self.ledger.terms.expires(self._born)
        coming = {*keys} - self._spent
        self._spent |= coming  # from here on: where this is cancelled, it may have been applied all the same
        outcome, rows = await self._transact(
            [*self._session_rows(), *uses.values()],
            [*self._standing(), *(Not(Exists(use)) for use in uses.values())],
            [Put(use, {"claim": self.claim, "expires": expires}) for use in uses.values()],
        )
        if outcome.applied:
            return True
        self._spent -= coming
        if not any(rows.get(use) is not None for use in uses.values()) or self._has_lost(rows, outcome.now_ms):
            raise self._explain(rows, outcome.now_ms)
        return False

    async def give_back(self, keys: Sequence[str]) -> None:
        """Remove the uses of these keys that are this turn's own."""
        for key in self._spent.intersection(keys):
            use = self._root.use_row(key)
            await self._transact([use], [Is(use, "claim", self.claim)], [Delete(use)])
            self._spent.discard(key)

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        """Write number, claim and answer, if no other turn came first. What changed nothing is not written."""
        if not self.ledger.terms.freshness:
            await self._write_end_of_before()
            self._go_on(sealed.claims.seq, sealed.claims.seq + 1)
        elif (
            sealed.is_changed or self._session.keyed is not None or self._spent or self._is_due or (self._is_partial and ends_turn)
        ) or self.companion.is_due:
            await self.companion.prepare()
            while not await self._write(sealed, ends_turn=ends_turn):
                pass  # its companion's rows had changed, and it goes on from those
        elif self.request.claims is not None and sealed.claims.exp > self.request.claims.exp:
            self._ends = sealed.claims.exp  # written when the session is released, and not waited for

    async def _write(self, sealed: Sealed, *, ends_turn: bool) -> bool:
        """Write a commit; False where it is worth another try."""
        answer, box = self._session.answer, sealed.keep()
        kept = box if len(box) <= self.ledger.terms.max_answer_bytes else None
        writes: list[Write] = [
            Put(self._session.row, self._columns(sealed, ends_turn=ends_turn)),
            self._write_answer(answer, kept, ends_turn=ends_turn),
            *([] if self._before is None else self._before.writes(kept=answer)),
            *([] if self.mark in (None, answer) else [self._write_answer(self.mark, None, ends_turn=ends_turn)]),
        ]
        part = self.companion.plan(sealed)
        outcome, rows = await self._transact(
            [*self._session_rows(), *part.reads], [*self._standing(), *part.conditions], [*writes, *part.writes]
        )
        found = Outcome(outcome.applied, tuple(rows.get(record) for record in part.reads), outcome.now_ms)
        if not outcome.applied:
            await self._take_back(rows, answer)
            if not self._has_lost(rows, outcome.now_ms) and await self.companion.take_refused(found):
                return False
            raise self._explain(rows, outcome.now_ms)
        await self.companion.take_committed(found)
        if self._before is not None:
            self.ledger.events.report("rotated", self._before.session_id)
        self._take_committed(sealed, rows[self._session.row], ends_turn=ends_turn)
        return True

    async def end(self) -> None:
        """Write a tombstone. A session that was never committed has no token, and so needs none."""
        if self._before is None and not self._is_new:
            self._before = self._begin_end()
        writes: list[Write] = [] if self._before is None else self._before.writes(kept=self.mark)
        writes += [] if self.mark is None else [self._write_answer(self.mark, None, ends_turn=True)]  # it is not done once more
        for part in [self.companion.plan_end(), NOTHING] if writes else []:
            outcome, rows = await self._transact(
                [*self._session_rows(), *part.reads], [*self._standing(), *part.conditions], [*writes, *part.writes]
            )
            if outcome.applied:
                break
            if part is NOTHING or self._has_lost(rows, outcome.now_ms):
                raise self._explain(rows, outcome.now_ms)
        self._let_go()
        self.ledger.events.report("ended", self.request.session_id)
        await self.companion.end()

    async def rotate(self, request: OpenRequest) -> None:
        """Go on as another session; the next commit ends the one of before, if nobody has taken it."""
        session = Presented.of(request, self.ledger.partitions)
        if session.row.partition == self._session.row.partition:
            # The answer stays where the client asks for it: its request is the same.
            session = replace(session, keyed=self._session.keyed)
        rows = await self._read_epoch(session)
        await self.companion.rotate(request)
        if self._before is None and not self._is_new:
            self._before = self._begin_end()
        self.request: OpenRequest = request
        self._session, self._is_new, self._born = session, True, None
        self.revision = self._base = self._number = 0
        self.sequence: int = 1
        self.epoch = current_epoch(session, rows)

    async def _read_epoch(self, session: Presented) -> Rows:
        """The row of the store and that of the epoch, for a session that this turn goes on as."""
        reads = [session.store, *([] if session.epoch is None else [session.epoch])]
        _, rows = await self._transact(reads, [], [])
        if rows[session.store] is None:
            await make_store(self.ledger, session.store)
            _, rows = await self._transact(reads, [], [])
        return rows

    async def release(self) -> None:
        """Give the claim back, where a commit has not done so."""
        releases = self.releases()
        self._is_released = True
        self._let_go()
        for release in releases:
            await self.ledger.transact(release)

    def releases(self) -> list[Transaction]:
        """What gives back the claims of this turn, and notes that its token has a later end."""
        row = self._held_row()
        later: Columns = {} if self._ends is None else {"ends": self._ends}
        found = [] if row is None else [_write_if_mine(row, self.claim, {"claim": None, "until": None, **later})]
        if row is None and self._ends is not None:
            row = self._session.row
            is_later = AllOf(Is(row, "ended", None), AtMost(row, "ends", self._ends))
            found.append(Transaction([row], when=is_later, writes=[Put(row, later)], durable=False))
        if self.mark is not None:
            found.append(Transaction([self.mark], when=self._is_marked(self.mark), writes=[Delete(self.mark)], durable=False))
        return found

    @property
    def mark(self) -> Record | None:
        """The row of the answer that has this turn as the one that will give it; None where none has.

        A turn that has rotated its session to another subject answers elsewhere, and marks this row as answered without an answer.
        """
        return self._marked if self.marks else None

    def _is_marked(self, keyed: Record) -> Condition:
        """The answer to an Idempotency-Key is still this turn's to give."""
        return AllOf(Is(keyed, "claim", self.claim), AllOf(Is(keyed, "box", None), Is(keyed, "is_whole", None)))

    def renewal(self) -> Transaction | None:
        """What renews the claim, or the mark of a first turn; None where there is neither."""
        lease, row, mark = Now(self.ledger.terms.lease_ms), self._held_row(), self.mark
        if row is not None:
            return _write_if_mine(row, self.claim, {"until": lease})
        if mark is not None:
            return Transaction([mark], when=self._is_marked(mark), writes=[Put(mark, {"expires": lease})], durable=False)
        return None

    def _held_row(self) -> Record | None:
        """The row that has the claim: after a rotation that is not committed yet, the one of before."""
        if not self.holds:
            return None
        return self._session.row if self._before is None else self._before.row

    def _session_rows(self) -> list[Record]:
        """The rows that the conditions of a turn are about."""
        epoch = self._session.epoch
        found = [self._session.store, self._session.row]
        found += [] if epoch is None else [epoch]
        found += [] if self.mark is None else [self.mark]
        return [*found, *(() if self._before is None else self._before.reads)]

    def _begin_end(self) -> Before:
        """What ends the session that the turn has now."""
        session_id = self.request.session_id
        expires = self.ledger.terms.expires(self._born)
        answers = {answer_row(session_id, self._session.row.partition), *([] if self._last_answer is None else [self._last_answer])}
        reads, standing = self._session_rows(), self._standing()
        return Before(self._session.row, session_id, self._session.subject, expires, answers, reads, standing)

    async def _write_end_of_before(self) -> None:
        """End the session that a rotated one was, where the row of the new one says only where its uses are."""
        root_column = self._pack_root()
        if self._is_new and root_column is not None:
            # With a number, so that level L2 can adopt the session.
            root: Columns = {"root": root_column, "sequence": 0, "expires": self.ledger.terms.expires(self._born)}
            writes: list[Write] = [Put(self._session.row, root), *([] if self._before is None else self._before.writes())]
            outcome, rows = await self._transact(self._session_rows(), self._standing(), writes)
            if not outcome.applied:
                await self._take_back(rows)
                raise self._explain(rows, outcome.now_ms)
            if self._before is not None:
                self.ledger.events.report("rotated", self._before.session_id)
        self._is_new, self._before = False, None

    def _pack_root(self) -> bytes | None:
        """What the row of the session has as ``root``."""
        row = self._session.row
        return None if self._root == (row.key, row.partition) else self._root.pack(row.partition)

    async def _take_back(self, rows: Rows, *answers: Record) -> None:
        """Remove a session that was written before the one that it follows, in another partition, could not be ended."""
        row = self._session.row
        if any(record.partition != row.partition for record in rows):
            await self._transact([row], [], [Delete(row), *(Delete(answer) for answer in answers)])
            await self.companion.take_back()

    def _standing(self) -> list[Condition | None]:
        """The conditions under which this turn may still act on its session."""
        row, terms = self._session.row, self.ledger.terms
        opened = self.request.claims
        own: list[Condition | None] = [has_epoch(self._session.epoch, self.epoch)]
        own.append(None if opened is None else is_after_restore(self._session.store, opened))
        if self.mark is not None:
            own.append(AnyOf(Not(Exists(self.mark)), Is(self.mark, "claim", self.claim)))
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
            "root": self._pack_root(),
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
                "session": self._session.row.key,
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
        opened, store = self.request.claims, rows[self._session.store]
        if opened is not None and is_before_restore(store, opened):
            return SessionEnded(reason="restored")
        row = rows[self._session.row] if self._before is None else rows.get(self._before.row)
        marked = None if self.mark is None else rows.get(self.mark)
        found = explain_commit(row, self.claim, now_ms, is_known=not self._is_new or self._before is not None)
        if isinstance(found, SessionConflict) and marked is not None and marked["claim"] != self.claim:
            found = SessionConflict(reason="taken")
        if isinstance(found, SessionConflict):
            self.ledger.events.report("taken", self.request.session_id)
        return found

    async def _transact(
        self, reads: Sequence[Record], conditions: Sequence[Condition | None], writes: Sequence[Write]
    ) -> tuple[Outcome, Rows]:
        """Apply a transaction; where its rows lie in two partitions, one for each, until one does not apply.

        Returns:
            The outcome of the last, and the rows of all that were applied.
        """
        rows: Rows = {}
        for part in split(list(dict.fromkeys(reads)), [one for one in conditions if one is not None], writes):
            outcome = await self.ledger.transact(part)
            rows |= zip(part.reads, outcome.rows, strict=True)
            if not outcome.applied:
                break
        return outcome, rows


def _write_if_mine(row: Record, claim: bytes, columns: Columns) -> Transaction:
    return Transaction([row], when=Is(row, "claim", claim), writes=[Put(row, columns)], durable=False)
