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
from datetime import datetime, timedelta
from typing import Final, Literal

from dcaf.core.arguments import require, require_bool, require_function
from dcaf.core.errors import ConfigurationError, SessionError, SessionUnavailable
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.core.settings import ABSOLUTE_TIMEOUT, require_choice
from dcaf.core.state import State
from dcaf.core.store import Lease, OpenRequest, StoreSettings
from dcaf.engines import (
    AllOf,
    Condition,
    Delete,
    Engine,
    Exists,
    Health,
    Is,
    MemoryEngine,
    Not,
    Now,
    Outcome,
    Put,
    Record,
    Transaction,
    Write,
)
from dcaf.engines.opening import require_engine
from dcaf.ledger.companion import ALONE, Companion
from dcaf.ledger.events import LedgerEvent, LedgerEvents
from dcaf.ledger.lease import LedgerLease
from dcaf.ledger.listing import LiveSession, Purged, scan_live
from dcaf.ledger.opening import Opening
from dcaf.ledger.origins import make_store, mark_restored, mark_roll_out
from dcaf.ledger.renewals import Renewals
from dcaf.ledger.rules import Presented, is_free, number
from dcaf.ledger.settings import (
    Terms,
    milliseconds,
    require_audience,
    require_bytes,
    require_encryption,
    require_moment,
    require_session_id,
    require_span,
    require_subject,
)
from dcaf.ledger.tables import (
    ANSWERS,
    SESSIONS,
    TABLES,
    USES,
    Columns,
    answer_row,
    epoch_row,
    session_row,
    store_row,
    subject_digest,
)

logger: Final[logging.Logger] = logging.getLogger("dcaf")

CLAIM_BYTES: Final = 8


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
        audience: The audience.
        absolute_timeout: For how long what has ended is remembered.
        terms: The settings that its turns need.
        events: What reports its events.
        renewals: What renews the claims of its turns.
        marker: When its roll-out began, in milliseconds since the epoch; None where no sessions of before it are taken in, and
            until ``prepare`` has read it.
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
        self.engine: Engine = self._build_engine(engine)
        self._url = engine if isinstance(engine, str) else None
        self.audience: str = require_audience(audience)
        self.absolute_timeout: timedelta = require_span("absolute_timeout=", absolute_timeout)
        freshness, branches = require_bool("freshness=", freshness), require_bool("branches=", branches)
        if branches and not freshness:
            raise ConfigurationError("branches=True is about the rows of sessions, which freshness=False does not keep. Drop one.")
        if freshness:
            require_encryption()
        waits = require_choice("on_busy", on_busy, ("reject", "serialize")) == "serialize"
        self.level: str = "L2" if freshness else "L1"
        self.terms: Terms = Terms(
            freshness=freshness,
            branches=branches,
            lease_ms=milliseconds(require_span("lease=", lease)),
            reissue_ms=milliseconds(require_span("reissue=", reissue)),
            max_answer_bytes=require_bytes("max_answer_bytes=", max_answer_bytes),
            lifetime_s=int(absolute_timeout.total_seconds()),
            waits_s=require_span("busy_timeout=", busy_timeout).total_seconds() * waits,
            adopt_until_ms=require_moment(adopt_until),
        )
        self.events: LedgerEvents = LedgerEvents(None if on_event is None else require_function("on_event=", on_event))
        self._max_turn_s = require_span("max_turn=", max_turn).total_seconds()
        self.renewals: Renewals = self._build_renewals()
        self.marker: int | None = None
        self._randomness = require_function("randomness=", randomness)
        self._prepared_by: int | None = None

    def __repr__(self) -> str:
        return f"<Ledger {self.level} {self.engine.url}>"

    def check_settings(self, settings: StoreSettings) -> None:
        """Refuse a middleware whose sessions this ledger could not keep.

        Raises:
            ConfigurationError: Its audience is another one, its sessions live longer than tombstones are kept, or it names no
                subject to a ledger of level L1, which keeps nothing but the epochs of subjects.
        """
        require("check_settings()", settings, StoreSettings, "the StoreSettings of a middleware")
        if settings.audience != self.audience:
            raise ConfigurationError(
                "audience= of the Ledger is not that of the middleware: log-outs would not reach its sessions."
            )
        if settings.absolute_timeout > self.absolute_timeout:
            raise ConfigurationError(
                "absolute_timeout= of the middleware is longer than that of its Ledger, which would forget what has ended while a "
                "token is still valid. Give the Ledger the same: Ledger(..., absolute_timeout=...)."
            )
        if not (self.terms.freshness or settings.has_subject):
            raise ConfigurationError(
                "A Ledger with freshness=False keeps the epochs of subjects alone: give the middleware subject=, or drop it."
            )

    async def open(self, request: OpenRequest) -> Lease:
        """Open a session: its newest token alone, if no other turn holds it.

        Raises:
            SessionEnded, SessionConflict, SessionSuperseded, IdempotencyKeyReused: As the rules of the ledger say.
            EngineError: The engine failed.
            ConfigurationError: It is no OpenRequest.
        """
        return await self.open_with(ALONE, request)

    async def open_with(self, companion: Companion, request: OpenRequest) -> Lease:
        """Open a session for a store that keeps more of it, in the transactions of this ledger.

        Args:
            companion: What goes along with the turn.
            request: As of ``open``.

        Raises as ``open``, and as the companion.
        """
        self._check_audience(request)
        await self.prepare()
        presented = Presented.of(request, self.partitions)
        lease = LedgerLease(self, presented, self._draw_claim(), companion)
        try:
            await Opening(self, presented, lease).run()
        except SessionError:
            raise  # whoever is refused holds nothing
        except BaseException:
            self._give_back(lease)
            raise
        try:
            await lease.finish()
        except BaseException:
            self._give_back(lease)
            raise
        return lease

    def _give_back(self, lease: LedgerLease) -> None:
        """Give up a claim; a call that was cancelled, or that has failed, may have been applied, and holds nothing all the same."""
        lease.holds = lease.marks = True
        for release in lease.releases():
            self.renewals.give_back(release)

    async def log_out(self, subject: str, *, keep: Session | None = None) -> None:
        """End every session of a subject.

        Args:
            subject: The subject, as ``subject=`` of the middleware names it.
            keep: The session of this very turn, which goes on; None ends it too.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: The subject is empty, or the session to keep is not one of this ledger.
        """
        record = epoch_row(self.audience, require_subject(subject), self.partitions)
        lease = None if keep is None else _lease_of(keep, self, subject)
        await self.prepare()
        is_raised = False
        while not is_raised:
            outcome, before = await self._read_epoch(record)
            epoch, row = max(before + 1, outcome.now_ms), outcome.rows[1]
            unchanged: Condition = Not(Exists(record)) if row is None else Is(record, "epoch", row["epoch"])
            is_raised = (await self.transact(Transaction([record], when=unchanged, writes=[Put(record, {"epoch": epoch})]))).applied
        if lease is not None and keep is not None:
            lease.raise_epoch(epoch)
            _stamp(keep, epoch)
        self.events.report("logged-out")

    async def revoke(self, session_id: str) -> None:
        """End one session, whatever is done with it now. After this returns nothing brings it back.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: It is no session id.
        """
        for row in await self.find_rows(session_id):
            await self._end(row, answer_row(session_id, row.partition))
        self.events.report("revoked", session_id)

    async def unlock(self, session_id: str) -> bool:
        """Take a session from the turn that holds it, which hangs perhaps; False where none does.

        What that turn commits afterwards counts only where no other turn came first.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: It is no session id.
        """
        is_unlocked = False
        for row in await self.find_rows(session_id):
            held = AllOf(Exists(row), Not(is_free(row)))
            writes = [Put(row, {"claim": None, "until": None})]
            is_unlocked |= (await self.transact(Transaction([row], when=held, writes=writes))).applied
        if is_unlocked:
            self.events.report("unlocked", session_id)
        return is_unlocked

    async def sessions(self, subject: str) -> list[LiveSession]:
        """The live sessions of a subject, in no particular order; none at level L1, which keeps no rows.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: The subject is empty.
        """
        record = epoch_row(self.audience, require_subject(subject), self.partitions)
        await self.prepare()
        outcome, epoch = await self._read_epoch(record)
        restored_ms = number(outcome.rows[0], "restored")
        digest = subject_digest(self.audience, subject)
        found = scan_live(self.engine, digest, now_ms=outcome.now_ms, restored_ms=restored_ms)
        return [live async for epoch_of, live in found if epoch_of == epoch]

    async def all_sessions(self) -> AsyncIterator[LiveSession]:
        """Every session that has not ended by itself, for an operator, in the order of the ids. Log-outs are not looked up.

        Raises:
            EngineError: The engine failed.
        """
        await self.prepare()
        outcome = await self.transact(Transaction([store_row(0)]))
        restored_ms = number(outcome.rows[0], "restored")
        async for _, live in scan_live(self.engine, None, now_ms=outcome.now_ms, restored_ms=restored_ms):
            yield live

    async def purge(self) -> Purged:
        """Remove what has expired; some engines do so by themselves at times. Tombstones stay as long as a token could be valid.

        Raises:
            EngineError: The engine failed.
        """
        await self.prepare()
        found = Purged(*[await self.engine.purge(table) for table in (SESSIONS, ANSWERS, USES)])
        self.events.report("purged")
        return found

    async def mark_restored(self) -> None:
        """End every token that was sealed so far: the store was restored from a copy, and log-outs since that copy are lost.

        Raises:
            EngineError: The engine failed.
        """
        await self.prepare()
        for partition in range(self.partitions):
            await mark_restored(self, store_row(partition))
        self.events.report("marked-restored")

    async def check(self) -> Health:
        """Look whether the engine works, and what it promises.

        Raises:
            EngineError: It does not work.
        """
        await self.prepare()
        return await self.engine.check()

    async def aclose(self) -> None:
        """Close what this ledger has opened; a later call opens it again, as after a second start of one application.

        An engine that was given is closed by whoever has made it, and one in memory would be lost with its rows.
        """
        if self._url is None or isinstance(self.engine, MemoryEngine):
            return
        engine, self.engine = self.engine, self._build_engine(self._url)
        self.renewals = self._build_renewals()
        await engine.aclose()

    def _build_renewals(self) -> Renewals:
        return Renewals(self.engine.sync, lease_s=self.terms.lease_ms / 1000, max_turn_s=self._max_turn_s)

    def _build_engine(self, engine: Engine | str) -> Engine:
        built = require_engine("Ledger()", engine)
        built.declare(TABLES)
        return built

    @property
    def partitions(self) -> int:
        """In how many partitions the engine keeps the rows."""
        return self.engine.partitions

    async def transact(self, transaction: Transaction) -> Outcome:
        """Have the engine apply a transaction on the ledger's rows: for its own turns, and for programs that mend a store.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: It is no Transaction.
        """
        require("transact()", transaction, Transaction, "a Transaction of dcaf.engines")
        return await self.engine.transact(transaction)

    async def find_rows(self, session_id: str) -> list[Record]:
        """The row of a session; where there is none, and there are several partitions, one in each: a token may lead to any.

        Raises:
            EngineError: The engine failed.
            ConfigurationError: It is no session id.
        """
        text = require_session_id(session_id)
        await self.prepare()
        rows = [session_row(text, partition) for partition in range(self.partitions)]
        return [row for row in rows if (await self.transact(Transaction([row]))).rows[0] is not None] or rows

    async def prepare(self) -> None:
        """Note when the store was made, once for each store, and read the mark of a roll-out; for the turns of this ledger.

        Raises:
            EngineError: The engine failed.
        """
        if self._prepared_by == os.getpid():
            return
        await make_store(self, store_row(0))
        if self.terms.adopt_until_ms is not None:
            self.marker = await mark_roll_out(self)
        self._prepared_by = os.getpid()

    async def _end(self, row: Record, answer: Record) -> None:
        """Write the tombstone of a session."""
        is_ended = False
        while not is_ended:
            (found,) = (await self.transact(Transaction([row]))).rows
            last = None if found is None else found["answer"]
            unchanged: Condition = Not(Exists(row)) if found is None else Is(row, "answer", last)
            answers = {answer, *([Record(ANSWERS, last, row.partition)] if isinstance(last, bytes) else [])}
            tombstone: Columns = {"ended": Now(), "claim": None, "until": None, "answer": None, "identity": None}
            tombstone |= {"expires": self.terms.expires(None)} if found is None else {}
            writes: list[Write] = [Put(row, tombstone), *(Delete(other) for other in answers)]
            is_ended = (await self.transact(Transaction([row], when=unchanged, writes=writes))).applied

    def _check_audience(self, request: OpenRequest) -> None:
        """Refuse a middleware of another audience: log-outs would not reach its sessions."""
        require("open()", request, OpenRequest, "the OpenRequest of a turn")
        if request.binding.audience != self.audience:
            logger.error("dcaf: the audience= of the Ledger is not that of the middleware: log-outs would not reach its sessions")
            raise SessionUnavailable(reason="audience")

    def _draw_claim(self) -> bytes:
        claim = self._randomness(CLAIM_BYTES)
        if type(claim) is not bytes or len(claim) != CLAIM_BYTES:
            raise ConfigurationError("randomness= takes a function that gives as many random bytes as it is asked for: os.urandom.")
        return claim

    async def _read_epoch(self, record: Record) -> tuple[Outcome, int]:
        """The epoch of a subject, and what was read: the row of the store, and that of the epoch."""
        outcome = await self.transact(Transaction([store_row(record.partition), record]))
        store, row = outcome.rows
        return outcome, max(number(row, "epoch"), number(store, "origin"))


def _lease_of(session: Session, ledger: Ledger, subject: str) -> LedgerLease:
    lease = state_of(require_session(session, "keep=")).lease
    if not isinstance(lease, LedgerLease) or lease.ledger is not ledger or lease.request.binding.subject != subject:
        raise ConfigurationError("keep= takes the session of a turn of this subject that this ledger keeps: current_session().")
    return lease


def _stamp(session: Session, epoch: int) -> None:
    """Have the next token of a session be of an epoch; in a call of a tool also that of the session below it."""
    state: State | None = state_of(session)
    while state is not None:
        if state.standing is not None:
            state.standing = state.standing._replace(claims=state.standing.claims._replace(ep=epoch), kid=None)
        state = getattr(state, "_parent", None)
