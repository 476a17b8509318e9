"""The stores that tests mount: small ones that refuse, fail or wait where they are told to, a ledger and a service in memory.

The two in memory keep the rules of a ledger and of a session service in a dict, and give way to the event loop before and after
each change, so that a turn can be cancelled there. They are no engines: nothing of them outlives the process.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import anyio.lowlevel

from dcaf.core import (
    IdempotencyKeyReused,
    Lease,
    OpenRequest,
    Payload,
    Sealed,
    SessionConflict,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
    StatelessLease,
)

Step = Literal["open", "spend", "give_back", "latest", "commit", "end", "rotate", "release"]
Happening = Callable[[Any], Any] | BaseException | None


def after(times: int, error: BaseException) -> Callable[[Any], None]:
    """A happening that lets a step through so often, and then raises."""
    left = iter(range(times))

    def happen(_: Any) -> None:
        if next(left, None) is None:
            raise error

    return happen


def if_sealed(error: BaseException) -> Callable[[OpenRequest], None]:
    """A happening for ``open`` that refuses the sessions that a token seals, and lets new ones begin."""

    def happen(request: OpenRequest) -> None:
        if request.claims is not None:
            raise error

    return happen


class Told(StatelessLease):
    """A lease of a ``ToldStore``."""

    def __init__(self, store: ToldStore, request: OpenRequest) -> None:
        super().__init__(request)
        self._store = store
        self._spent: set[tuple[str, str]] = set()

    async def spend(self, keys: Sequence[str]) -> bool:
        await self._store.reach("spend", keys)
        used = {(self.request.session_id, key) for key in keys}
        is_new = self._store.use_up(used)
        self._spent |= used if is_new else set()
        return is_new

    async def give_back(self, keys: Sequence[str]) -> None:
        await self._store.reach("give_back", keys)
        self._store.used -= self._spent & {(self.request.session_id, key) for key in keys}

    async def latest(self) -> Payload | None:
        await self._store.reach("latest", None)
        return None

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        await self._store.reach("commit", sealed)
        self._store.committed.append((sealed, ends_turn))
        await super().commit(sealed, ends_turn=ends_turn)

    async def end(self) -> None:
        await self._store.reach("end", None)

    async def rotate(self, request: OpenRequest) -> None:
        await self._store.reach("rotate", request)
        await super().rotate(request)

    async def release(self) -> None:
        await self._store.reach("release", None)


class ToldStore:
    """Keeps nothing but what was used up, and does at each step what it is told to.

    Args:
        wait_s: For how long it waits at each step; 0 gives way to the event loop once, None not at all.
        happening: Step -> what is raised there, or a function of what the step is about (the request, the keys, the sealed), async
            or not. It may be changed as a test goes on.

    Attributes:
        wait_s, happening: As above.
        steps: Every step so far, in order.
        requests: What was opened.
        committed: What was committed, and whether it ended its turn.
        used: What was used up: session id and key.
    """

    level = "told"

    def __init__(self, *, wait_s: float | None = None, **happening: Happening) -> None:
        self.wait_s = wait_s
        self.happening: dict[str, Happening] = happening
        self.steps: list[Step] = []
        self.requests: list[OpenRequest] = []
        self.committed: list[tuple[Sealed, bool]] = []
        self.used: set[tuple[str, str]] = set()

    @property
    def numbers(self) -> list[int | None]:
        """The numbers of what was opened; None for what no token seals."""
        return [None if request.claims is None else request.claims.seq for request in self.requests]

    async def open(self, request: OpenRequest) -> Lease:
        self.requests.append(request)
        await self.reach("open", request)
        return Told(self, request)

    async def reach(self, step: Step, about: Any) -> None:
        """Come to a step."""
        self.steps.append(step)
        if self.wait_s is not None:
            await anyio.sleep(self.wait_s)
        happening = self.happening.get(step)
        if isinstance(happening, BaseException):
            raise happening
        if happening is not None:
            found = happening(about)
            if inspect.isawaitable(found):
                await found

    def use_up(self, keys: set[tuple[str, str]]) -> bool:
        """All or none."""
        if not self.used.isdisjoint(keys):
            return False
        self.used.update(keys)
        return True


@dataclass
class Row:
    """What the ledger in memory knows of a session.

    Attributes:
        number: The number of its newest state.
        top: The largest number that was given to anybody, or reserved.
        base: The number with which the turn that committed last had begun.
        claim: Who holds it; None where nobody does.
        claimed_at: Since when, in seconds since the epoch.
        is_ended: Whether it was revoked.
        was_presented: Whether its newest token has come back.
        used: What was used up in it.
        answer: The last answer's session, for whom it was lost.
    """

    number: int = 0
    top: int = 0
    base: int = 0
    claim: object | None = None
    claimed_at: float = 0
    is_ended: bool = False
    was_presented: bool = True
    used: set[str] = field(default_factory=set)
    answer: Answer | None = None


@dataclass(frozen=True)
class Answer:
    """The last answer of a session.

    Attributes:
        kept: Its token and mirror, encrypted.
        identity: Of the request that it answers; None where that has none.
        key: Its Idempotency-Key; None where there was none.
        at: When it was committed, in seconds since the epoch.
        is_whole: Whether it ended its turn.
    """

    kept: bytes
    identity: bytes | None
    key: str | None
    at: float
    is_whole: bool


class MemoryLedger:
    """Claims, re-issue, single use, epochs, ends, rotation and branches, in memory.

    Args:
        clock: Seconds since the epoch.
        lease_s: After how long a claim that was not given back lapses.
        reissue_s: For how long the last envelope is given to whom its answer was lost.
        branches: Whether several states of a session may go on side by side.

    Attributes:
        rows: Session id -> what is known of it.
        epochs: Audience and subject -> epoch.
        doubles: Numbers of a session that were given to two states; there must never be one.
    """

    level = "L2"

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = 15,
        reissue_s: float = 600,
        branches: bool = False,
    ) -> None:
        self.clock, self.lease_s, self.reissue_s, self.branches = clock, lease_s, reissue_s, branches
        self.rows: dict[str, Row] = {}
        self.epochs: Counter[tuple[str, str]] = Counter()
        self.doubles: list[tuple[str, int]] = []
        self._states: dict[tuple[str, int], bytes] = {}

    async def open(self, request: OpenRequest) -> Lease:
        await self.reach("open")
        row = self._row(request)
        if not request.is_safe:
            self._check_claim(row)
        lease = LedgerLease(self, row, request)
        if not request.is_safe:
            row.claim, row.claimed_at = lease, self.clock()
        return lease

    async def reach(self, step: str) -> None:
        """Come to a step: before the change of each method but ``latest``, and after it (``spent``, ...)."""
        await anyio.lowlevel.checkpoint()

    def epoch_of(self, request: OpenRequest) -> int | None:
        """The epoch of whom a session is bound to; None for nobody."""
        subject = request.binding.subject
        return None if subject is None else self.epochs[request.binding.audience, subject]

    def log_out(self, audience: str, subject: str) -> None:
        """End every session of a subject."""
        self.epochs[audience, subject] += 1

    def revoke(self, session_id: str) -> None:
        """End one session."""
        self.rows[session_id].is_ended = True

    def is_held(self, row: Row) -> bool:
        """Whether somebody holds a session, and has not held it for too long."""
        return row.claim is not None and self.clock() - row.claimed_at < self.lease_s

    def note(self, session_id: str, sealed: Sealed) -> None:
        """Look whether a number has two states."""
        place = (session_id, sealed.claims.seq)
        state = hashlib.sha256(sealed.payload.data).digest()
        if self._states.setdefault(place, state) != state:
            self.doubles.append(place)

    def _row(self, request: OpenRequest) -> Row:
        if request.claims is None:
            return self.rows.setdefault(request.session_id, Row())
        row = self.rows.get(request.session_id)
        if row is None or row.is_ended:
            raise SessionEnded(reason="revoked")
        if request.claims.ep != self.epoch_of(request):
            raise SessionEnded(reason="epoch")
        self._check_number(row, request)
        return row

    def _check_claim(self, row: Row) -> None:
        if self.is_held(row):
            raise SessionConflict(reason="busy")

    def _check_number(self, row: Row, request: OpenRequest) -> None:
        assert request.claims is not None
        number, answer = request.claims.seq, row.answer
        has_key = answer is not None and request.idempotency_key is not None and answer.key == request.idempotency_key
        if answer is not None and has_key and answer.identity != request.identity():
            raise IdempotencyKeyReused(reason="key")
        if self.branches and number <= row.top:
            return
        if number > row.number:
            raise SessionUnavailable(reason="restored")
        if number == row.number:
            row.was_presented = True
            return
        self._check_claim(row)
        is_lost = answer is not None and row.base <= number and not row.was_presented
        if answer is None or not is_lost or self.clock() - answer.at > self.reissue_s:
            raise SessionSuperseded(reason="seq")
        is_same = answer.identity is not None and answer.identity == request.identity()
        if not is_same and request.binding.subject is None:  # whoever copied an older token would get the newer one for it
            raise SessionSuperseded(reason="seq")
        applied: Any = (True if answer.is_whole else "partial") if is_same else False
        raise SessionConflict(reason="lost", kept=answer.kept, applied=applied)


class LedgerLease(StatelessLease):
    """A turn's claim."""

    def __init__(self, ledger: MemoryLedger, row: Row, request: OpenRequest) -> None:
        super().__init__(request)
        self._ledger, self._row, self._number, self._base = ledger, row, self.revision, self.revision
        self._identity, self.epoch = request.identity(), ledger.epoch_of(request)
        self.sequence = self._reserve()
        self.may_retry = True
        self._epoch, self._next = self.epoch, (request, row)
        self._spent: set[str] = set()

    async def spend(self, keys: Sequence[str]) -> bool:
        await self._ledger.reach("spend")
        self._check()
        if not self._row.used.isdisjoint(keys):
            return False
        self._row.used.update(keys)
        self._spent.update(keys)
        await self._ledger.reach("spent")
        return True

    async def give_back(self, keys: Sequence[str]) -> None:
        await self._ledger.reach("give_back")
        self._row.used -= self._spent.intersection(keys)
        await self._ledger.reach("given_back")

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        ledger = self._ledger
        await ledger.reach("commit")
        self._check()
        row = self._go_over()
        ledger.note(self.request.session_id, sealed)
        if sealed.is_changed:
            row.number, row.base, row.was_presented = sealed.claims.seq, self._base, False
            row.top = max(row.top, row.number)
        row.answer = Answer(sealed.keep(), self._identity, self.request.idempotency_key, ledger.clock(), ends_turn)
        self._number = sealed.claims.seq
        if ends_turn and row.claim is self:
            row.claim = None
        self.sequence = self._reserve()
        await ledger.reach("committed")

    async def end(self) -> None:
        await self._ledger.reach("end")
        self._check()
        self._row.is_ended, self._row.answer, self._row.claim = True, None, None
        await self._ledger.reach("ended")

    async def rotate(self, request: OpenRequest) -> None:
        await self._ledger.reach("rotate")
        self._next = request, Row(used=set(self._row.used), claim=self, claimed_at=self._ledger.clock())
        self.revision, self.sequence, self.epoch = 0, 1, self._ledger.epoch_of(request)
        await self._ledger.reach("rotated")

    def _go_over(self) -> Row:
        """Begin the session that this one was rotated to, if it was, and end this one."""
        request, row = self._next
        if row is not self._row:
            self._row.is_ended, self._row.answer, self._row.claim = True, None, None
            self._ledger.rows[request.session_id] = row
            self.request, self._row, self._number, self._base, self._epoch = request, row, 0, 0, self.epoch
        return row

    async def release(self) -> None:
        await self._ledger.reach("release")
        if self._row.claim is self:
            self._row.claim = None
        await self._ledger.reach("released")

    def _reserve(self) -> int:
        if not self._ledger.branches:
            return self._number + 1
        self._row.top += 1
        return self._row.top

    def _check(self) -> None:
        row, ledger = self._row, self._ledger
        if row.is_ended or self._epoch != ledger.epoch_of(self.request):
            raise SessionEnded(reason="revoked")
        is_held_by_another = row.claim is not self and ledger.is_held(row)
        if is_held_by_another or (not ledger.branches and row.number != self._number):
            raise SessionConflict(reason="taken")


@dataclass
class Kept:
    """What the service in memory keeps of a session.

    Attributes:
        payload: Its state.
        version: Of the schema that this is of.
        revision: Its number.
        messages: What its turns have said.
    """

    payload: Payload
    version: int
    revision: int
    messages: list[str] = field(default_factory=list)


class MemoryService:
    """The state on the server, with messages that a turn stages and its commit writes; two turns at once are merged.

    Attributes:
        sessions: Session id -> what is kept.
    """

    level = "L3"

    def __init__(self) -> None:
        self.sessions: dict[str, Kept] = {}

    async def open(self, request: OpenRequest) -> Lease:
        await anyio.lowlevel.checkpoint()
        kept = self.sessions.get(request.session_id)
        if kept is None and request.claims is not None and request.claims.at is not None:
            raise SessionEnded(reason="deleted")
        return ServiceLease(self, kept, request)


class ServiceLease(StatelessLease):
    """A turn's transaction.

    Attributes:
        messages: What the turn says; kept when it commits.
    """

    def __init__(self, service: MemoryService, kept: Kept | None, request: OpenRequest) -> None:
        super().__init__(request)
        self._service = service
        self.place = "server"
        self.messages: list[str] = []
        if kept is not None:
            self._go_on(kept)

    async def latest(self) -> Payload | None:
        await anyio.lowlevel.checkpoint()
        kept = self._service.sessions.get(self.request.session_id)
        if kept is None or kept.revision == self.revision:
            return None
        self._go_on(kept)
        return kept.payload

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self._service.sessions.get(self.request.session_id)
        if kept is not None and kept.revision != self.revision:
            raise SessionConflict(reason="revision")
        if kept is None:
            kept = self._service.sessions[self.request.session_id] = Kept(sealed.payload, 0, 0)
        kept.payload, kept.version, kept.revision = sealed.payload, sealed.claims.sv or 0, sealed.claims.seq
        kept.messages += self.messages
        self.messages = []
        self.revision, self.sequence = sealed.claims.seq, sealed.claims.seq + 1
        await anyio.lowlevel.checkpoint()

    def _go_on(self, kept: Kept) -> None:
        self.payload, self.version = kept.payload, kept.version
        self.revision, self.sequence = kept.revision, kept.revision + 1
