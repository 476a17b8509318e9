"""What goes along with a ledger's transactions for a session that a service keeps: it is read, committed, moved and dropped."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn, cast

from dcaf.core.base64url import Payload
from dcaf.core.errors import (
    DocumentConflictError,
    EngineError,
    SessionClosedError,
    SessionConflict,
    SessionEnded,
    SessionExistsError,
    StaleSessionError,
    UnknownSessionError,
)
from dcaf.core.journal import Journal
from dcaf.core.merging import CommutingChange
from dcaf.core.payload import members_of
from dcaf.core.store import OpenRequest, Sealed
from dcaf.engines import Engine, Is, Outcome, Page, Range, Record, Row, Transaction
from dcaf.ledger.companion import NOTHING, Companion, Part
from dcaf.service.calls import Calls
from dcaf.service.changes import Change, KeyChange
from dcaf.service.commits import Overtaken, Planned, catch_up, commit_apart, find_after, log_clashes, plan_commit
from dcaf.service.dropping import drop, make_room, mark_dropped
from dcaf.service.history import unpack_page
from dcaf.service.journal import Opened, TurnJournal
from dcaf.service.kept import Kept, is_at, join_state, values_of
from dcaf.service.memory_plans import drop_hidden
from dcaf.service.moving import Move
from dcaf.service.places import APP, USER, Place
from dcaf.service.plans import run_async
from dcaf.service.quotas import count_rows, find_lists
from dcaf.service.reading import gather, list_ranges, list_ranges_elsewhere, read_session, values_in

SERVER: Final = "server"
"""The claim ``at`` of a token whose state is kept here."""

logger: Final[logging.Logger] = logging.getLogger("dcaf")


class KeptCompanion(Companion):
    """Reads a kept session with the transaction that opens it, and writes what a turn did with the one that commits it.

    Args:
        calls: Of the service.
        request: The session.
        most_carried: States of up to so many bytes go back into their tokens; None for none.
    """

    _planned: Planned

    def __init__(self, calls: Calls, request: OpenRequest, most_carried: int | None) -> None:
        self._calls = calls
        self._request = request
        self.shared: tuple[str, ...] = (USER, APP)
        self._most_carried = most_carried
        self._place: Place = calls.place_of(request.binding.subject, request.session_id)
        self.reads: Sequence[Record] = [self._place.row]
        self._lists = find_lists(calls.quotas, self._place.owner) if may_be_new(request) else []
        self.ranges: Sequence[Range] = [*self._lists, *list_ranges(self._place, calls.last)]
        self._owned = 0
        self.elsewhere: Sequence[Range] = list_ranges_elsewhere(self._place)
        self._opening = Outcome(applied=True, rows=(None,), now_ms=0)
        self._base: dict[str, bytes] = {}
        self._newer: Payload | None = None
        self._stays_carried = False
        self._move: Move | None = None
        self._pending: tuple[Sealed, Change, Change] | None = None

    def is_of(self, calls: Calls) -> bool:
        """Whether it goes along with a turn of this service."""
        return self._calls is calls

    @property
    def _turn(self) -> TurnJournal:
        return cast("TurnJournal", self.journal)

    @property
    def _engine(self) -> Engine:
        return self._calls.engine

    @property
    def is_due(self) -> bool:
        """Whether something was added beside the state, or the session is not kept yet."""
        return not self._turn.opened.kept.revision or not self._turn.is_empty

    def see(self, rows: Mapping[Record, Row | None], pages: Sequence[Page], now_ms: int) -> None:
        """As of a companion."""
        count = len(self._lists)
        self._owned = count_rows(pages[:count])
        self._opening = Outcome(applied=True, rows=(rows[self._place.row],), now_ms=now_ms, pages=tuple(pages[count:]))

    async def finish(self) -> None:
        """Take what was read for the session.

        Raises:
            SessionEnded: There is no such session, or it was closed, or archived.
        """
        found, claims = await run_async(gather(self._place, self._calls.last, self._opening), self._engine), self._request.claims
        kept = Kept.of(found.row) if found.row is not None and found.is_kept else None
        if kept is None and claims is not None and claims.at is not None:
            raise SessionEnded(reason="gone")
        if kept is not None and not kept.is_open and not self._request.is_safe:
            raise SessionEnded(reason="closed")
        own = [] if kept is None else [found.own]
        # A token that carries its state is newer than what was kept of it once.
        carries = claims is not None and claims.at is None
        self._base = values_of(*own, *found.shared)
        self._stays_carried = carries and self._most_carried is not None
        payload = join_state(*([] if carries else own), *found.shared)
        self.payload: Payload | None = None if self._stays_carried else payload
        self.version: int = 0 if kept is None else kept.version
        self.place: str | None = SERVER if not self._stays_carried and self._stays(payload) else None
        known = kept or self._calls.make_kept(self._place, found.now_ms)
        opened = Opened(known, self._place.app, self._engine, found.now_ms, [] if kept is None else unpack_page(found.messages))
        opened.files, opened.quotas = self._calls.files, self._calls.quotas
        opened.owned = self._owned if kept is None else 0
        self.journal: Journal | None = TurnJournal.of(opened, self._place.owner)

    def _stays(self, payload: Payload) -> bool:
        """Whether a state stays on the server."""
        if self._most_carried is None:
            return True
        is_large = len(payload.data) > self._most_carried
        if is_large:
            logger.warning("dcaf: a state of %d bytes stays on the server: it is too large for a token", len(payload.data))
        return is_large

    async def prepare(self) -> None:
        """Have what a rotated session takes along lie where it is going to be.

        Raises:
            QuotaExceededError: The session may not have so many messages, or its user not one session more.
        """
        self._pending = None
        self._turn.opened.require_room(len(self._turn.frozen.messages))
        if self._move is not None:
            await run_async(self._move.copy(), self._engine)

    def plan(self, sealed: Sealed) -> Part:
        """What a commit compares and writes.

        Raises:
            QuotaExceededError: The session would have more messages than it may have, which others have added meanwhile.
            SessionConflict: Another one has answered a call that the turn answers, too.
        """
        if self._pending is None:
            change = self._find_change(sealed)
            self._pending = sealed, change, change
        opened = self._turn.opened
        try:
            self._planned = plan_commit(self._place, opened.kept, self._own_part(self._pending[2]), opened.now_ms)
        except StaleSessionError:  # another one has answered a call that the turn answers
            raise SessionConflict(reason="moved") from None
        found = self._planned.transaction
        conditions = [] if found.when is None else [found.when]
        if self._move is None or not self._move.kept.revision:
            return Part(found.reads, conditions, found.writes)
        before, kept = self._move.before, self._move.kept
        ended = mark_dropped(before, kept.listed, archived=kept.archived_at is not None)
        return Part([*found.reads, before.row], [*conditions, is_at(before.row, kept)], [*found.writes, *ended])

    def _find_change(self, sealed: Sealed) -> Change:
        """What the turn did: the state that was sealed beside the one that is kept, and what was added."""
        members, added = members_of(sealed.payload), self._turn.frozen
        before = self._base if self._move is None else self._move.arrived
        after: dict[str, bytes | None] = {**dict.fromkeys(before), **{key: members.written(key) for key in members}}
        found = {key: self._find_key_change(key, data, sealed.find_commuting(key)) for key, data in after.items()}
        values = {key: value for key, value in found.items() if value.after != value.before and self._keeps(key)}
        version = sealed.claims.sv or 0
        changed = None if version == self._turn.opened.kept.version else version
        return Change(
            values, added.pack_messages(), self._calls.ttl_ms, added.memory, changed, added.marks, documents=added.documents
        )

    def _keeps(self, key: str) -> bool:
        """Whether a key is kept here. What it shares is the session's own as long as it is in its token."""
        return not (self._stays_carried and key.startswith((USER, APP)))

    def _find_key_change(self, key: str, data: bytes | None, change: CommutingChange | None) -> KeyChange:
        return KeyChange(self._base.get(key), data, change) if self._move is None else self._move.lay(key, data, change)

    def _own_part(self, change: Change) -> Change:
        return change if self._place.is_with_app else change.only(app=False)

    async def take_refused(self, outcome: Outcome) -> bool:
        """Whether the kept session, or what it shares, had changed; then the next try is laid over that.

        Raises:
            SessionConflict: Another one has committed the session, or has written a document that the turn expects to be as it was.
            SessionEnded: It was deleted or closed.
        """
        assert self._pending is not None
        sealed, first, change = self._pending
        opened = self._turn.opened
        kept, has_room = opened.kept, False
        if opened.kept.revision:
            kept = await self._catch_up(opened.kept, outcome)
        elif self._move is None:
            has_room = await self._make_room(opened.kept, outcome)
        elif self._move.kept.revision:
            kept = await self._follow(self._move, outcome)
        own = self._own_part(change)  # of which the rows are: what all share may lie elsewhere
        try:
            laid = own.over(outcome.rows[1:])
        except DocumentConflictError:
            raise SessionConflict(reason="moved") from None
        has_moved = kept != opened.kept or laid != own or has_room
        opened.kept, self._pending = kept, (sealed, first, laid)
        return has_moved

    async def _follow(self, move: Move, outcome: Outcome) -> Kept:
        """What is known of what a session is going to be, after others have added messages where it lies.

        Raises:
            SessionConflict, SessionEnded: As ``take_refused``.
        """
        there = Outcome(applied=False, rows=outcome.rows[-1:], now_ms=outcome.now_ms)
        if move.is_apart:
            there = await self._engine.transact(Transaction([move.before.row]))
        kept = await self._catch_up(move.kept, there)
        if kept != move.kept:
            if move.is_apart:
                await self._refuse_newer()
            move.go_on(kept)
            await run_async(move.copy(), self._engine)
        return move.after

    async def take_back(self) -> None:
        """As of a companion."""
        if self._move is not None:
            await run_async(drop(self._place), self._engine)
            self._move.go_on(self._move.kept)

    async def _make_room(self, kept: Kept, outcome: Outcome) -> bool:
        """Drop what is left of an older session that is to be kept anew; False where there is nothing.

        Raises:
            SessionConflict: Another turn has kept it by now.
        """
        row = outcome.rows[0]
        if row is None or row["birth"] == kept.birth:
            return False
        try:
            await run_async(make_room(self._place, outcome), self._engine)
        except SessionExistsError:
            raise SessionConflict(reason="moved") from None
        return True

    async def _catch_up(self, kept: Kept, outcome: Outcome) -> Kept:
        try:
            return catch_up(kept, outcome)
        except Overtaken:
            await self._refuse_newer()
        except StaleSessionError:
            if self._calls.merges:
                await self._refuse_newer()
            raise SessionConflict(reason="moved") from None
        except UnknownSessionError:
            raise SessionEnded(reason="gone") from None
        except SessionClosedError:
            raise SessionEnded(reason="closed") from None

    async def _refuse_newer(self) -> NoReturn:
        """Have the turn laid over the newer state, which ``latest`` gives.

        Raises:
            SessionConflict: Always, for the caller to ask for that.
            SessionEnded: There is no session any more.
        """
        if self._move is not None and self._move.is_apart:  # what it shares from now on is written, and would be once more
            raise SessionConflict(reason="moved")
        place, before = (self._place, self._turn.opened.kept) if self._move is None else (self._move.before, self._move.kept)
        read = await run_async(read_session(place), self._engine)
        if read is None or read.kept is None or read.kept.birth != before.birth:
            raise SessionEnded(reason="gone")
        self._newer, self.version, self._turn.opened.now_ms = read.payload, read.kept.version, read.now_ms
        if self._move is None:
            self._turn.opened.kept, self._base = read.kept, values_in(read.payload)
        else:
            self._move.go_on(read.kept)
            self._turn.opened.kept, self._move.arrived = self._move.after, values_in(read.payload)
        raise SessionConflict(reason="moved")

    async def latest(self) -> Payload | None:
        """A newer state than the turn has; None where there is none."""
        newer, self._newer = self._newer, None
        return newer

    async def take_committed(self, outcome: Outcome) -> None:
        """Go on from what was committed.

        Raises:
            EngineError: All was written but for the keys of the application, which lie elsewhere.
        """
        assert self._pending is not None
        (sealed, first, change), self._pending = self._pending, None
        opened, move, self._move = self._turn.opened, self._move, None
        kept = find_after(opened.kept, self._own_part(change), self._planned.open_calls, opened.now_ms, outcome.now_ms)
        self._turn.take_committed(kept, change.memory)
        self.version = sealed.claims.sv or 0
        whole = self._own_part(change)
        laid, clashes = whole.list_laid(first), whole.count_clashes()
        if not self._place.is_with_app:
            apart = await run_async(commit_apart(self._place, first.only(app=True)), self._engine)
            laid, clashes = laid | apart.list_laid(first), clashes + apart.count_clashes()
        log_clashes(clashes)
        members = members_of(sealed.payload)
        written = {} if move is None else {**dict.fromkeys(move.arrived), **self._base, **_list_after(first)}
        after = members.updated({**written, **laid})
        self._base = {key: after.written(key) for key in after}
        self._newer = after.payload() if laid or written else None
        with suppress(EngineError):  # the turn is committed; whoever clears or purges next drops what is left
            await run_async(drop_hidden(change.memory), self._engine)
            if move is not None:
                await run_async(drop(move.before), self._engine)

    def plan_end(self) -> Part:
        """That the session is gone."""
        place, kept = (self._place, self._turn.opened.kept) if self._move is None else (self._move.before, self._move.kept)
        if not kept.revision:
            return NOTHING
        return Part(
            [place.row],
            [Is(place.row, "birth", kept.birth)],
            mark_dropped(place, kept.listed, archived=kept.archived_at is not None),
        )

    async def end(self) -> None:
        """Drop the rows of the session: no token of it is accepted any more."""
        await run_async(drop(self._place if self._move is None else self._move.before), self._engine)

    async def rotate(self, request: OpenRequest) -> None:
        """Go on as another session, which takes along what this one has."""
        opened, place = self._turn.opened, self._calls.place_of(request.binding.subject, request.session_id)
        birth = self._calls.make_kept(place, opened.now_ms).birth
        before, kept = (self._place, opened.kept) if self._move is None else (self._move.before, self._move.kept)
        arrived = self._base if self._move is None else self._move.arrived
        is_carried = self._request.claims is not None and self._request.claims.at is None
        move = Move(before, kept, place, birth, arrived=arrived, is_carried=is_carried)
        self._base = await run_async(move.begin(self._turn), self._engine)
        self._place, opened.kept, self._move = place, move.after, move


def may_be_new(request: OpenRequest) -> bool:
    """Whether a session may not be kept yet: no token of it says that it is."""
    return request.claims is None or request.claims.at is None


def _list_after(change: Change) -> dict[str, bytes | None]:
    return {key: value.after for key, value in change.values.items()}
