"""A ledger: a few bytes for each session on a server, which turn a bearer token into a session that has one present.

>>> import asyncio
>>> from dcaf.core import Keyring, SessionEnded, SessionHost
>>> ledger = Ledger("memory://", audience="jobs")
>>> host = SessionHost(keys=Keyring.ephemeral(), audience="jobs", store=ledger)
>>> async def count(envelope):
...     async with host.turn(envelope, subject="ada") as turn:
...         turn.session.incr("n")
...     return turn.envelope
>>> first = asyncio.run(count(None))
>>> second = asyncio.run(count(first))
>>> asyncio.run(ledger.log_out("ada"))
>>> try:
...     asyncio.run(count(second))
... except SessionEnded as error:
...     print(error.reason)
epoch

What a reader gets wrong: the state is not here. It travels with the client as ever; the ledger knows which of the tokens is the
newest, who holds the session, what was used up, and what has ended.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

import anyio

from dcaf.core.arguments import has_methods, kind_of, require, require_bool, require_function, require_text
from dcaf.core.claims import CHARACTERS_22, SKEW_S
from dcaf.core.errors import ConfigurationError, SessionConflict, SessionEnded, SessionError, SessionSuperseded
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.core.settings import ABSOLUTE_TIMEOUT, require_choice
from dcaf.core.store import Lease, OpenRequest
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Engine,
    Exists,
    Health,
    Is,
    Not,
    Now,
    Outcome,
    Plus,
    Put,
    Record,
    Transaction,
    Write,
    open_engine,
)
from dcaf.ledger.events import LedgerEvent, LedgerEvents
from dcaf.ledger.lease import Columns, LedgerLease, Terms
from dcaf.ledger.renewals import Renewals
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
    number,
)
from dcaf.ledger.tables import (
    ANSWERS,
    SESSIONS,
    STORE_ROW,
    TABLES,
    USES,
    answer_row,
    epoch_row,
    session_id_of,
    session_row,
    subject_digest,
)

logger: Final[logging.Logger] = logging.getLogger("dcaf")

CLAIM_BYTES: Final = 8
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.25
PAGE: Final = 200


class LiveSession(NamedTuple):
    """A session that is not over.

    Attributes:
        id: Its id, as ``session.id``.
        sequence: The number of its newest state.
        created_at: When it began, in UTC.
        expires_at: When it ends unless another turn comes, in UTC.
        is_busy: Whether a turn of it is in progress.
    """

    id: str
    sequence: int
    created_at: datetime
    expires_at: datetime
    is_busy: bool


class Purged(NamedTuple):
    """How many rows were removed, because they had expired.

    Attributes:
        sessions: Sessions and tombstones.
        answers: Answers that nobody has asked for again.
        uses: What was used up in sessions that are over.
    """

    sessions: int
    answers: int
    uses: int


class Ledger:
    """A store for ``SessionMiddleware(store=...)``: which token of a session is the newest, who holds it, what was used up.

    Args:
        engine: Where it keeps its rows: a url as ``open_engine`` takes it, or an engine.
        audience: The audience of the middleware.
        absolute_timeout: The longest ``absolute_timeout`` of any service of this audience: what has ended is remembered so long.
        freshness: Whether each session has a row: only its newest token is accepted, and one turn holds it at a time (level L2).
            False keeps an epoch for each subject alone (level L1): log-out and revocation work, an older token stays good.
        branches: Whether several states of one session may go on side by side. Freshness is not promised then.
        on_busy: What a turn gets whose session another turn holds: ``"reject"`` refuses it, ``"serialize"`` has it wait.
        busy_timeout: For how long it waits.
        lease: How long a claim lasts that is not renewed, because its process died.
        max_turn: How long a turn may hold its session.
        reissue: For how long an answer is kept for a client that never got it.
        max_answer_bytes: The longest answer that is kept.
        adopt_until: Until when sessions of before the ledger are taken in: the end of its roll-out, with a time zone; None takes
            none.
        on_event: Is called with each LedgerEvent; must not block.
        randomness: That many random bytes, for claims.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.

    Attributes:
        level: ``"L2"``, or ``"L1"`` without freshness.
        engine: The engine.
    """

    def __init__(
        self,
        engine: Engine | str,
        *,
        audience: str,
        absolute_timeout: timedelta = ABSOLUTE_TIMEOUT,
        freshness: bool = True,
        branches: bool = False,
        on_busy: Literal["reject", "serialize"] = "reject",
        busy_timeout: timedelta = timedelta(seconds=10),
        lease: timedelta = timedelta(seconds=15),
        max_turn: timedelta = timedelta(hours=1),
        reissue: timedelta = timedelta(minutes=10),
        max_answer_bytes: int = 512 * 1024,
        adopt_until: datetime | None = None,
        on_event: Callable[[LedgerEvent], None] | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.engine: Engine = _require_engine(engine)
        self.engine.declare(TABLES)
        self.audience: str = _require_audience(audience)
        self.absolute_timeout: timedelta = _require_span("absolute_timeout=", absolute_timeout)
        freshness, branches = require_bool("freshness=", freshness), require_bool("branches=", branches)
        if branches and not freshness:
            raise ConfigurationError("branches=True is about the rows of sessions, which freshness=False does not keep. Drop one.")
        self.level: str = "L2" if freshness else "L1"
        self.terms: Terms = Terms(
            freshness=freshness,
            branches=branches,
            lease_ms=_milliseconds(_require_span("lease=", lease)),
            reissue_ms=_milliseconds(_require_span("reissue=", reissue)),
            max_answer_bytes=max_answer_bytes,
            lifetime_s=int(absolute_timeout.total_seconds()),
        )
        self.events: LedgerEvents = LedgerEvents(None if on_event is None else require_function("on_event=", on_event))
        max_turn_s = _require_span("max_turn=", max_turn).total_seconds()
        self.renewals: Renewals = Renewals(self.engine.sync, lease_s=lease.total_seconds(), max_turn_s=max_turn_s)
        self._waits_s = _require_span("busy_timeout=", busy_timeout).total_seconds() * (
            require_choice("on_busy", on_busy, ("reject", "serialize")) == "serialize"
        )
        self._adopt_until_ms = _require_moment(adopt_until)
        self._randomness = require_function("randomness=", randomness)
        self._prepared_by: int | None = None
        self._marker: int | None = None

    def __repr__(self) -> str:
        return f"<Ledger {self.level} {self.engine.url}>"

    async def open(self, request: OpenRequest) -> Lease:
        """Open a session: its newest token alone, if no other turn holds it.

        Raises:
            SessionEnded, SessionConflict, SessionSuperseded, IdempotencyKeyReused: As the rules of the ledger say.
            EngineError: The engine failed.
        """
        await self._prepare()
        presented = Presented.of(request)
        lease = LedgerLease(self, presented, self._randomness(CLAIM_BYTES), None)
        try:
            if request.claims is None:
                await self._begin(presented, lease)
            else:
                await self._go_on(presented, lease)
        except BaseException:
            # A call that was cancelled may have been applied, and holds nothing all the same.
            lease.holds = lease.marks = True
            for release in lease.releases():
                self.renewals.give_back(release)
            raise
        return lease

    async def log_out(self, subject: str, *, keep: Session | None = None) -> None:
        """End every session of a subject.

        Args:
            subject: The subject, as ``subject=`` of the middleware names it.
            keep: The session of this very turn, which goes on; None ends it too.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: The subject is empty, or the session to keep is not one of this ledger.
        """
        record = epoch_row(self.audience, _require_subject(subject))
        lease = None if keep is None else _lease_of(keep, self)
        await self._prepare()
        while True:
            outcome = await self.transact(Transaction([STORE_ROW, record]))
            store, row = outcome.rows
            before = number(row, "epoch") or number(store, "origin")
            epoch = max(before + 1, outcome.now_ms)
            unchanged: Condition = Not(Exists(record)) if row is None else Is(record, "epoch", row["epoch"])
            if (await self.transact(Transaction([record], when=unchanged, writes=[Put(record, {"epoch": epoch})]))).applied:
                break
        if lease is not None and keep is not None:
            lease.raise_epoch(epoch)
            state = state_of(keep)
            assert state.standing is not None
            state.standing = state.standing._replace(claims=state.standing.claims._replace(ep=epoch), kid=None)
        self.events.report("logged-out")

    async def revoke(self, session_id: str) -> None:
        """End one session, whatever is done with it now. After this returns nothing brings it back.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: It is no session id.
        """
        row = _require_session_id(session_id)
        await self._prepare()
        lost: Columns = {"ended": Now(), "claim": None, "until": None, "answer": None, "identity": None}
        unknown = lost | {"expires": self.terms.expires(None)}
        for when, columns in ((Exists(row), lost), (Not(Exists(row)), unknown), (Exists(row), lost)):
            writes: list[Write] = [Put(row, columns), Delete(answer_row(session_id))]
            if (await self.transact(Transaction([row, answer_row(session_id)], when=when, writes=writes))).applied:
                break
        self.events.report("revoked", session_id)

    async def unlock(self, session_id: str) -> bool:
        """Take a session from the turn that holds it, which hangs perhaps; False where none does.

        What that turn commits afterwards counts only where no other turn came first.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: It is no session id.
        """
        row = _require_session_id(session_id)
        await self._prepare()
        held = AllOf(Exists(row), Not(is_free(row)))
        writes = [Put(row, {"claim": None, "until": None})]
        is_unlocked = (await self.transact(Transaction([row], when=held, writes=writes))).applied
        if is_unlocked:
            self.events.report("unlocked", session_id)
        return is_unlocked

    async def sessions(self, subject: str) -> list[LiveSession]:
        """The live sessions of a subject, in no particular order; none at level L1, which keeps no rows.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: The subject is empty.
        """
        record = epoch_row(self.audience, _require_subject(subject))
        await self._prepare()
        outcome = await self.transact(Transaction([STORE_ROW, record]))
        store, row = outcome.rows
        epoch, restored_ms = number(row, "epoch") or number(store, "origin"), number(store, "restored")
        found = self._scan(subject_digest(self.audience, subject), outcome.now_ms, restored_ms)
        return [live async for epoch_of, live in found if epoch_of == epoch]

    async def all_sessions(self) -> AsyncIterator[LiveSession]:
        """Every session that has not ended by itself, for an operator, in the order of the ids. Log-outs are not looked up.

        Raises:
            EngineError: The engine failed.
        """
        await self._prepare()
        outcome = await self.transact(Transaction([STORE_ROW]))
        async for _, live in self._scan(None, outcome.now_ms, number(outcome.rows[0], "restored")):
            yield live

    async def purge(self) -> Purged:
        """Remove what has expired; the engine does so by itself now and then. Tombstones stay as long as a token could be valid.

        Raises:
            EngineError: The engine failed.
        """
        await self._prepare()
        found = Purged(*[await self.engine.purge(table) for table in (SESSIONS, ANSWERS, USES)])
        self.events.report("purged")
        return found

    async def mark_restored(self) -> None:
        """End every token that was sealed so far: the store was restored from a copy, and log-outs since that copy are lost.

        Raises:
            EngineError: The engine failed.
        """
        await self._prepare()
        await self.transact(Transaction([STORE_ROW], writes=[Put(STORE_ROW, {"restored": Now()})]))
        self.events.report("marked-restored")

    async def check(self) -> Health:
        """Look whether the engine works, and what it promises.

        Raises:
            EngineError: It does not work.
        """
        await self._prepare()
        return await self.engine.check()

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    async def transact(self, transaction: Transaction) -> Outcome:
        """Have the engine apply a transaction. Raises as the engine does."""
        return await self.engine.transact(transaction)

    async def _prepare(self) -> None:
        """Note when the store was made, once for each store, and read the mark of a roll-out."""
        if self._prepared_by == os.getpid():
            return
        await self.transact(Transaction([STORE_ROW], when=Not(Exists(STORE_ROW)), writes=[Put(STORE_ROW, {"origin": Now()})]))
        if self._adopt_until_ms is not None:
            unmarked = AllOf(Is(STORE_ROW, "adopting", None), Not(AtMost(STORE_ROW, "origin", 0)))
            await self.transact(Transaction([STORE_ROW], when=unmarked, writes=[Put(STORE_ROW, {"adopting": Now()})]))
            (row,) = (await self.transact(Transaction([STORE_ROW]))).rows
            self._marker = number(row, "adopting")
        self._prepared_by = os.getpid()

    async def _begin(self, presented: Presented, lease: LedgerLease) -> None:
        """Open a session that no token seals: its subject's epoch, and whether its request was answered before."""
        keyed = presented.keyed if self.terms.freshness else None
        if presented.epoch is None and keyed is None:
            return
        reads = [STORE_ROW, *(record for record in (presented.epoch, keyed) if record is not None)]
        writes = [] if keyed is None else [self._mark(keyed, lease, presented)]
        when = None if keyed is None else Not(Exists(keyed))
        outcome, rows = await self._read(Transaction(reads, when=when, writes=writes, durable=False))
        if rows[STORE_ROW] is None:
            self._prepared_by = None  # the store was emptied while this process ran
            await self._prepare()
            await self._begin(presented, lease)
            return
        lease.epoch = current_epoch(presented, rows)
        row = None if keyed is None else rows[keyed]
        if keyed is None or outcome.applied:
            if keyed is not None:
                lease.take(marks=True)
            return
        assert row is not None
        check_key(row, presented)
        if row["box"] is None:
            raise self._refuse_busy(presented)
        session_id = session_id_of(row["session"]) if isinstance(row["session"], bytes) else None
        await self._reissue(Lost(keyed, True if row["is_whole"] else "partial"), session_id)

    def _mark(self, keyed: Record, lease: LedgerLease, presented: Presented) -> Put:
        """Have a first turn be the one that answers the requests with its Idempotency-Key."""
        return Put(
            keyed,
            {
                "session": session_row(presented.request.session_id).key,
                "claim": lease.claim,
                "identity": presented.digest,
                "expires": Now(self.terms.lease_ms),
            },
        )

    async def _go_on(self, presented: Presented, lease: LedgerLease) -> None:
        """Open a session that a token seals."""
        deadline = anyio.current_time() + self._waits_s
        pause_s = FIRST_PAUSE_S
        while True:
            outcome, rows = await self._read(self._opening(presented, lease))
            if outcome.applied and self._is_complete(presented, rows):
                self._take(presented, lease, rows)
                return
            try:
                await self._refuse(presented, lease, rows, outcome.now_ms)
            except SessionConflict as conflict:
                if conflict.reason != "busy" or anyio.current_time() >= deadline:
                    raise
            else:
                return  # it was adopted
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _opening(self, presented: Presented, lease: LedgerLease) -> Transaction:
        """The transaction that opens a session: everything is checked and claimed in one step."""
        request, row, terms = presented.request, presented.row, self.terms
        claims = request.claims
        assert claims is not None
        if not terms.freshness:
            return Transaction(presented.reads()[: 2 if presented.epoch is None else 3])
        if presented.epoch is not None and claims.ep is None:
            return Transaction(presented.reads())
        is_current: Condition = Is(row, "sequence", claims.seq)
        if terms.branches:
            is_current = Not(AtMost(row, "top", claims.seq - 1))
        claimed: Columns = {"is_presented": 1}
        if terms.branches:
            claimed |= {"top": Plus(1)}
        elif not request.is_safe:
            claimed |= {"claim": lease.claim, "until": Now(terms.lease_ms)}
        when = all_of(
            Is(row, "ended", None),
            is_current,
            is_after_restore(claims),
            has_epoch(presented.epoch, claims.ep),
            None if request.is_safe or terms.branches else is_free(row),
            None if presented.keyed is None else Not(Exists(presented.keyed)),
        )
        return Transaction(presented.reads(), when=when, writes=[Put(row, claimed)], durable=False)

    def _is_complete(self, presented: Presented, rows: Rows) -> bool:
        """Whether a transaction that was applied allows the turn: at level L1, and for a token without an epoch, it only reads."""
        claims = presented.request.claims
        assert claims is not None
        if presented.epoch is not None and claims.ep is None:
            return False
        if self.terms.freshness:
            return True
        return find_end(presented, rows, claims) is None and not is_ahead(presented, rows, claims, freshness=False)

    def _take(self, presented: Presented, lease: LedgerLease, rows: Rows) -> None:
        """Have a lease be what the transaction has made it."""
        claims = presented.request.claims
        assert claims is not None
        lease.epoch = claims.ep
        if self.terms.branches:
            lease.sequence = number(rows[presented.row], "top") + 1
        elif self.terms.freshness and not presented.request.is_safe:
            lease.take(holds=True)

    async def _refuse(self, presented: Presented, lease: LedgerLease, rows: Rows, now_ms: int) -> None:
        """Raise why a session was not opened, or adopt it.

        Raises:
            SessionError: Why.
        """
        claims, row = presented.request.claims, rows[presented.row]
        assert claims is not None
        is_behind = is_ahead(presented, rows, claims, freshness=self.terms.freshness)
        is_unknown = (row is None and self.terms.freshness) or (presented.epoch is not None and claims.ep is None)
        if (is_behind or is_unknown) and await self._adopt(presented, lease, rows, now_ms):
            return
        end = find_end(presented, rows, claims)
        if is_behind:
            self.events.report("restored", presented.request.session_id)
        if end is not None or is_behind or is_unknown or row is None:
            raise end or SessionEnded(reason="restored" if is_behind else "unknown")
        keyed = None if presented.keyed is None else rows[presented.keyed]
        if keyed is not None:
            check_key(keyed, presented)
        if not self.terms.branches and is_held_by_another(row, lease.claim, now_ms):
            raise self._refuse_busy(presented)
        lost = find_lost(presented, rows, claims, now_ms=now_ms, reissue_ms=self.terms.reissue_ms, branches=self.terms.branches)
        if lost is not None:
            await self._reissue(lost, presented.request.session_id)
        if claims.seq == number(row, "sequence"):
            raise self._refuse_busy(presented)  # the claim was given back between the comparison and now
        raise self._refuse_superseded(presented.request.session_id)

    async def _adopt(self, presented: Presented, lease: LedgerLease, rows: Rows, now_ms: int) -> bool:
        """Take in a session of before the ledger, if the roll-out goes on and this is the store into which it does."""
        claims, row, is_safe = presented.request.claims, presented.row, presented.request.is_safe
        assert claims is not None
        if self._adopt_until_ms is None or now_ms > self._adopt_until_ms or not self._marker:
            return False
        epoch = current_epoch(presented, rows)
        if presented.epoch is not None and (epoch is None or claims.ep not in (None, epoch)):
            return False
        is_older = AllOf(AllOf(Is(row, "ended", None), AtMost(row, "sequence", claims.seq)), is_free(row))
        when = all_of(
            Is(STORE_ROW, "adopting", self._marker),
            is_after_restore(claims),
            has_epoch(presented.epoch, epoch),
            AnyOf(Not(Exists(row)), is_older) if self.terms.freshness else AnyOf(Not(Exists(row)), Is(row, "ended", None)),
        )
        holds = self.terms.freshness and not (is_safe or self.terms.branches)
        columns: Columns = {
            "subject": presented.subject,
            "epoch": epoch,
            "sequence": claims.seq,
            "base": claims.seq,
            "top": claims.seq + 1,
            "born": claims.born,
            "ends": claims.exp,
            "is_presented": 1,
            "claim": lease.claim if holds else None,
            "until": Now(self.terms.lease_ms) if holds else None,
            "expires": self.terms.expires(claims.born),
        }
        outcome = await self.transact(
            Transaction(presented.reads(), when=when, writes=[Put(row, columns)] if self.terms.freshness else [])
        )
        if not outcome.applied:
            return False
        lease.epoch = epoch
        if holds:
            lease.take(holds=True)
        self.events.report("adopted", presented.request.session_id)
        return True

    async def _reissue(self, lost: Lost, session_id: str | None) -> None:
        """Give the newest envelope to a client whose answer was lost.

        Raises:
            SessionConflict: With it.
            SessionSuperseded: It is not kept any more.
        """
        (row,) = (await self.transact(Transaction([lost.answer]))).rows
        box = None if row is None else row["box"]
        if not isinstance(box, bytes):
            raise self._refuse_superseded(session_id)
        self.events.report("reissued", session_id)
        raise SessionConflict(reason="lost", kept=box, session_id=session_id, applied=lost.applied)

    def _refuse_busy(self, presented: Presented) -> SessionError:
        self.events.report("busy", presented.request.session_id)
        return SessionConflict(reason="busy")

    def _refuse_superseded(self, session_id: str | None) -> SessionError:
        self.events.report("superseded", session_id)
        return SessionSuperseded(reason="seq")

    async def _read(self, transaction: Transaction) -> tuple[Outcome, Rows]:
        outcome = await self.transact(transaction)
        return outcome, dict(zip(transaction.reads, outcome.rows, strict=True))

    async def _scan(self, subject: bytes | None, now_ms: int, restored_ms: int) -> AsyncIterator[tuple[int, LiveSession]]:
        """Epoch and description of each session that has not ended by itself, in the order of the ids."""
        after = b""
        while True:
            page = await self.engine.scan(SESSIONS, equal=subject, after=after, limit=PAGE)
            for key, row in page:
                ends_s = number(row, "ends")
                if row["ended"] is None and (ends_s + SKEW_S) * 1000 > now_ms and number(row, "committed") >= restored_ms:
                    yield (
                        number(row, "epoch"),
                        LiveSession(
                            session_id_of(key),
                            number(row, "sequence"),
                            datetime.fromtimestamp(number(row, "born"), UTC),
                            datetime.fromtimestamp(ends_s, UTC),
                            row["claim"] is not None and number(row, "until") > now_ms,
                        ),
                    )
            if len(page) < PAGE:
                return
            after = page[-1][0]


def _require_engine(engine: Engine | str) -> Engine:
    if isinstance(engine, str):
        return open_engine(engine)
    if not has_methods(engine, "transact", "scan", "purge", "declare"):
        raise ConfigurationError(
            f'Ledger() takes a url or an engine, for instance Ledger("sqlite:///dcaf.db", audience=...), not {kind_of(engine)}.'
        )
    return engine


def _require_audience(audience: str) -> str:
    if not require_text("audience=", audience, "the audience of the middleware"):
        raise ConfigurationError("audience= of a Ledger is that of the middleware, for instance audience='deploy-agent'.")
    return audience


def _require_subject(subject: str) -> str:
    if not require_text("subject", subject, "as subject= of the middleware names a caller"):
        raise ConfigurationError("The subject is a text that is not empty, as subject= of the middleware names a caller.")
    return subject


def _require_session_id(session_id: str) -> Record:
    text = require_text("session_id", session_id, "as session.id gives it")
    if not CHARACTERS_22.fullmatch(text):
        raise ConfigurationError("A session id is the text of 22 characters that session.id gives.")
    return session_row(text)


def _require_span(name: str, span: timedelta) -> timedelta:
    if require(name, span, timedelta, "a timedelta") <= timedelta(0):
        raise ConfigurationError(f"{name} takes a timedelta that is longer than nothing.")
    return span


def _require_moment(moment: datetime | None) -> int | None:
    """A moment in milliseconds since the epoch; None for none."""
    if moment is None:
        return None
    if require("adopt_until=", moment, datetime, "a datetime with a time zone, or None").tzinfo is None:
        raise ConfigurationError("adopt_until= takes a datetime with a time zone: datetime(2026, 12, 1, tzinfo=UTC).")
    return int(moment.timestamp() * 1000)


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _lease_of(session: Session, ledger: Ledger) -> LedgerLease:
    lease = state_of(require_session(session, "keep=")).lease
    if not isinstance(lease, LedgerLease) or lease.ledger is not ledger:
        raise ConfigurationError("keep= takes the session of a turn that this ledger keeps: current_session().")
    return lease
