"""The turn of a request or a frame, from the body that comes in to the envelope that goes out.

    receive   the body, under its limits                       RequestSession, SessionWebSocket
    find      its sessions, and the one that counts            body.find_sessions
    verify    the seal of that one                             Sealer.opened while it is found, else Sealer.verify
    bind      who is calling, in which conversation            Identity.find, where anybody is to be asked
    open      the session for that identity, or a new one      Sealer.accept, Sealer.start, Sealer.import_plain
    hold      a lease on it, where a store keeps sessions      SessionStore.open, Sealer.resume
    run       the application, which reads the plain protocol  RequestSession, SessionWebSocket
    prepare   the state as bytes, and its token                Sealer.pieces; with a store Sealer.prepare
    commit    both, at the store                               Lease.commit
    send      the answer with it                               BodySender, HeaderSender, SessionStream, SessionWebSocket
    end       the session: what is written later is an error   State.end
    release   the lease, however the turn ended                Lease.release

The order is the promise. The seal is verified before the application is asked who is calling, and the application runs only after
the store has opened the session, which is prepared, then committed, then sent. Every check stands once, for a request and for a
frame of a WebSocket; only a token that ``opened`` did not take goes through ``verify``, which says why. The steps that need no
transport are in ``dcaf.core.lifecycle``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.types import Scope

from dcaf.asgi.body import off_the_loop
from dcaf.asgi.carriers import Carrier, PresentedToken
from dcaf.asgi.config import Config, advise_plain, is_done, may_be_done, name_route, route_path
from dcaf.asgi.headers import Raw
from dcaf.asgi.json_sessions import BodySessions, JSONText, find_session, read_text
from dcaf.asgi.json_walk import Place, may_hold_session, remove_sessions
from dcaf.asgi.operator_events import Events, Watcher
from dcaf.core.claims import Binding, Claims
from dcaf.core.errors import (
    MalformedJSON,
    SessionConflict,
    SessionError,
    SessionInvalid,
    SessionTooLarge,
    SessionUnavailable,
    SessionUnsigned,
    SessionValueError,
)
from dcaf.core.lifecycle import SessionTurn
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.signing import Opened, Pieces
from dcaf.core.state import RESERVED
from dcaf.core.store import OpenRequest

DISAGREEMENT: Final = "carriers"
"""Why two sessions in one request are refused."""

BODY_ADVICE: Final = (
    "Change the session before the endpoint gives its answer, and not in a background task; in a stream or on a WebSocket before "
    "the event that ends the turn, and not on a route that pass_streams= names"
)


class ASGITurn(SessionTurn):
    """The turn of a request, or of one frame of a socket.

    Attributes:
        session, binding, lease, arrived, kid: As for the turn without a transport.
        outer: The scope of the request or the socket as it came in; the router leaves the route in the copy of the application.
        advice: Advice for an application that changed the session too late.
        found: The sessions of the body or frame that opened the turn; None where that is not JSON.
        place: The one of these that counts; None where none does.
        presented: The tokens in the header and the cookie, by precedence.
        is_begun: Whether a body or a frame opened the turn; a socket has a turn before its first frame.
        is_unnamed: Whether the token of a header or cookie came with a request that names no conversation, so that nobody can tell
            whether it belongs to this one. It is left alone, and the turn has an empty session that nothing carries.
        carrier: The carrier of the session; None where the body carried it, or it is new.
        stale: The other carriers with a session; the client is to drop those, since the turn began a new one, or ends the session
            or makes it another one.
        is_keyed: Whether the request has an Idempotency-Key, and may change something.
        adopts: Whether the application's own plain ``data.session`` is the new state, where nothing else changed it.
    """

    __slots__ = (
        *("_adopted", "_envelope", "_has_ended", "_was_changed", "_watcher", "adopts", "carrier", "config", "found"),
        *("advice", "is_begun", "is_keyed", "is_unnamed", "outer", "place", "presented", "scope", "stale"),
    )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__(config.sealer, config.store)
        self.config: Config = config
        self.scope: Scope = scope
        self.outer: Scope = scope
        self.advice: str = BODY_ADVICE
        self.found: BodySessions | None = None
        self.place: Place | None = None
        self.presented: Sequence[PresentedToken] = ()
        self.is_begun: bool = True
        self.is_unnamed: bool = False
        self.is_keyed: bool = False
        self.carrier: Carrier | None = None
        self.stale: tuple[Carrier, ...] = ()
        self.adopts: bool = False
        self._envelope: Pieces | None = None
        self._has_ended = False
        self._adopted = False
        self._was_changed = False
        self._watcher: Watcher | None = None

    async def open(self, before: ASGITurn | None = None) -> None:
        """Open the session that counts, or begin one.

        Args:
            before: The last turn of the socket, whose session a frame without one continues; None for a request.

        Raises:
            SessionError: The session is refused.
            SessionUnavailable: Nobody can tell whose it is, or whether it is current.
        """
        if self.found is not None and self.config.in_body:
            self.place = self.found.find_candidate()
        place = self.place
        presented = self.presented[0] if self.presented and place is None else None
        try:
            if place is not None:
                # A token that was opened while the sessions were found is that of the session that counts.
                await self._open_sealed(place.value, self.found and self.found.opened)
            elif presented is not None:
                await self._open_sealed(presented.value, None)
            else:
                await self._bind()
                await self._start_or_go_on(before)
        except SessionError as refusal:  # not SessionUnavailable, after which nothing restarts
            if not await self._begin_instead(refusal, presented, had_session=bool(place or presented or before)):
                raise
        if self.presented:
            self.carrier = None if presented is None else presented.carrier
            self.stale = () if self.kid is not None or self.is_unnamed else self._list_others()

    def _list_others(self) -> tuple[Carrier, ...]:
        """The carriers of the request beside the one that counts."""
        return tuple(each.carrier for each in self.presented if each.carrier is not self.carrier)

    def drop_others(self) -> None:
        """Have the client drop the session in every other carrier too, where the session is to end or to become another one."""
        if state_of(self.session).closing is not None:
            self.stale = self._list_others()

    async def _open_sealed(self, member: Any, opened: Opened | None) -> None:
        """Verify a session that came in, ask who is calling, and open it for that identity."""
        sealer, self.arrived = self.config.sealer, True
        try:
            opened = opened or sealer.verify(member)
        except SessionUnsigned as refusal:
            self.session = self._take_plain(member, refusal)
            await self._bind()
            await self.hold(None)
            return
        if self.config.identity.is_anonymous:
            self.binding = sealer.anonymous
        else:
            await self._bind()
        self.session = sealer.accept(opened, self.binding)
        if opened is not None:
            if self.presented:
                self._check_agreement(self.presented if self.place is not None else self.presented[1:])
            self.kid = opened.key.kid
        standing = state_of(self.session).standing
        assert standing is not None
        if self.store is not None or standing.claims.ep is not None or standing.claims.at is not None:
            await self.hold(None if opened is None else standing.claims)

    async def _bind(self) -> None:
        body = (lambda: None) if self.found is None else self.found.strip_sessions
        self.binding: Binding = self.config.sealer.binding(*await self.config.identity.find(self.scope, body))

    async def _start_or_go_on(self, before: ASGITurn | None) -> None:
        """Begin a session, or go on with that of the turn before, as if it had come in again for the same identity.

        The conversation may change where the session belongs to none yet: it was begun before the first frame, when nobody could
        know the conversation, or it is new and empty.
        """
        if before is None or state_of(before.session).is_closed:
            self.session = self.config.sealer.start()
            if self.store is not None:
                await self.hold(None)
            return
        if self.binding.subject != before.binding.subject:
            raise SessionInvalid(reason="sub")
        self.session, is_new = before.session, not before.session.sequence
        may_move = not (before.is_begun or before.carrier) or (is_new and self.session.is_empty and not self.session.is_modified)
        if self.binding.conversation != before.binding.conversation and not may_move:
            raise SessionInvalid(reason="cid")
        self.config.sealer.recheck(self.session)
        self.is_in_doubt: bool = before.is_in_doubt
        await self.hold(None if is_new else self.config.sealer.claims_of(self.session))
        self.arrived = before.arrived or not is_new

    async def _begin_instead(self, refusal: SessionError, presented: PresentedToken | None, *, had_session: bool) -> bool:
        """Begin an empty session in place of a refused one; False where the refusal stands.

        Raises:
            SessionError, SessionUnavailable: The application, or the store, refuses the new one.
        """
        if presented is not None and self._cannot_name(refusal):
            self.session, self.arrived, self.is_unnamed = self.config.sealer.start(), False, True
            return True
        if not had_session or not self._may_restart(refusal, presented):
            return False
        self.config.events.report_restart(refusal)
        self.session: Session = self.config.sealer.start(restarted=refusal.code)
        self.arrived: bool = True
        self.kid: str | None = None
        await self._bind()
        await self.hold(None)
        return True

    def _take_plain(self, plain: dict[str, Any], refusal: SessionUnsigned) -> Session:
        sealer, unsigned = self.config.sealer, self.config.unsigned
        if unsigned == "ignore":
            return sealer.start()
        if unsigned == "reject":
            raise refusal
        session = sealer.import_plain(plain, unsigned)
        self.config.events.report_import(sealer.sid_digest(sealer.claims_of(session).sid))
        return session

    def _check_agreement(self, others: Iterable[PresentedToken]) -> None:
        """Refuse two different sessions in one request; tokens that are not ours are ignored.

        Raises:
            SessionInvalid: There are two.
        """
        for presented in others:
            opened = self.config.sealer.opened(presented.token.encode("latin-1"))
            if opened is not None and Claims.read(opened.claims).sid != self.session.id:
                raise SessionInvalid(reason=DISAGREEMENT)

    def _cannot_name(self, refusal: SessionError) -> bool:
        """Whether a session was refused only because a request without a JSON body names no conversation."""
        return refusal.reason == "cid" and self.found is None and self.binding.conversation is None

    def _may_restart(self, refusal: SessionError, presented: PresentedToken | None) -> bool:
        carrier = None if presented is None else presented.carrier
        restarts = (carrier is not None and carrier.restarts) if self.config.restarts is None else self.config.restarts
        return restarts and is_unrecoverable(refusal, carrier)

    @property
    def is_plain(self) -> bool:
        """Whether the route reads and writes the whole state itself."""
        is_plain = self.config.is_plain
        return is_plain is not None and is_plain(self.outer)

    @property
    def is_due(self) -> bool:
        """Whether an answer must carry the session: one came in, or something was stored, or used up at the store."""
        return self.arrived or self._envelope is not None or self.is_changed or state_of(self.session).has_spent

    @property
    def owes_commit(self) -> bool:
        """Whether the store must learn of the turn, even where nothing changed and no answer carries the session.

        It used something up, or its request has an Idempotency-Key, and must not be done again when it comes again.
        """
        return self.arrived and self.lease is not None and (self.is_keyed or state_of(self.session).has_spent)

    @property
    def is_sent(self) -> bool:
        """Whether the client has the session as it is now, or none is due."""
        return not self.is_due or (self._envelope is not None and not self.is_changed)

    @property
    def is_kept(self) -> bool:
        """Whether a store has kept a state of this turn already."""
        return self.lease is not None and self._envelope is not None

    @property
    def is_over(self) -> bool:
        """Whether the client has the session as it is now, and the store, if any, knows that the turn is over."""
        return self.is_sent and (self.lease is None or self._envelope is None or self._has_ended)

    @property
    def is_private(self) -> bool:
        """Whether the answer was computed from a session; of one in a cookie, only if the application has looked at it."""
        is_kept = self.carrier is not None and self.carrier.keeps
        return (self.arrived and not is_kept) or state_of(self.session).is_touched

    def describe(self, claims: Claims | None) -> OpenRequest:
        """What the store is asked; before the first frame of a socket the request is safe, since it asks for nothing."""
        return replace(super().describe(claims), is_safe=not self.is_begun)

    async def seal_envelope(self, *, ends_turn: bool) -> Pieces:
        """The envelope of the session as it is now, in pieces; the same as before where nothing changed since.

        Raises:
            SessionError: Another turn came first, or the session was revoked.
            SessionUnavailable: It could not be written.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        self.drop_others()
        if self._envelope is None or self.is_changed or (ends_turn and self.lease is not None and not self._has_ended):
            if self.adopts:
                self._was_changed = self._was_changed or (self.is_changed and not self._adopted)
            self._envelope = await self.seal(ends_turn=ends_turn)
            self._has_ended = self._has_ended or ends_turn
            self._adopted = False
            self._report_sealed(self._envelope)
        return self._envelope

    async def seal_token(self, look: Callable[[bytes], None]) -> bytes:
        """The token alone of the session as it is now; ``look`` sees it before it is committed. Raises as ``seal_envelope``."""
        self.drop_others()
        token = await self.seal(ends_turn=True, has_mirror=False, look=look)
        self._report_sealed(token)
        return bytes(token[0])

    async def complete(self, text: JSONText) -> bytes | None:
        """A text with the session at its ``data.session``; None where no session is due, or the text has no room for it.

        Raises as ``seal_envelope``.
        """
        if type(text.value) is dict and "data" in text.value and find_session(text.value) is not None:
            self._adopt(text)
        frame = text.split_at_session() if self.arrived or self.is_due else None
        if frame is None:
            return None
        before, after = frame
        return b"".join((before, *await self.seal_envelope(ends_turn=True), after))

    async def remove_sessions(self, data: bytes, remove: Callable[[bytes], bytes] = remove_sessions) -> bytes:
        """A text without the sessions that the application put into it; they count only on a route that ``plain=`` names.

        Args:
            data: A text without a session of ours.
            remove: Takes the sessions out.

        Raises:
            MalformedJSON: A client could read a session in it that cannot be taken out.
        """
        if not may_hold_session(data) or self.is_plain:
            return data
        cleared = await off_the_loop(remove, data)
        if cleared != data:
            self._report_overwritten()
        return cleared

    async def seal_event(self, *, ends_turn: bool) -> bytes:
        """The text of an event with the session alone. Arguments and errors are those of ``seal_envelope``."""
        return b"".join((b'{"type":"session","data":{"session":', *await self.seal_envelope(ends_turn=ends_turn), b"}}"))

    async def ends_turn(self, name: str | None, data: bytes) -> tuple[bool, JSONText | None]:
        """Whether an event ends the turn, and its parsed text; None where it was not parsed, or is not JSON."""
        if self.config.terminal is is_done and not may_be_done(name, data):
            return False, None
        text = await off_the_loop(parse, data)
        return self.config.terminal(name, None if text is None else text.value), text

    def report_opened(self, size: int) -> None:
        """Tell telemetry that the session is open, and how many bytes the body or frame has."""
        watcher = self.config.events.watcher
        if watcher is not None and watcher.is_heard:
            self._watcher = watcher
            watcher.record_opened(kid=self.kid, request_bytes=size)

    def report_lost(self) -> None:
        """Report that a change was not sealed, or was sealed and did not arrive."""
        _report_lost(self.config.events, self.scope, self.advice)

    def end(self) -> None:
        """End the turn: a write to its session from now on raises an error, and is reported."""
        # Only the parts of the scope that name the route: a session that held its turn would be left to the garbage collector.
        scope = self.scope
        named = {"route": scope.get("route"), "path_template": scope.get("path_template")}
        state_of(self.session).end(partial(_report_lost, self.config.events, named, self.advice))

    def _adopt(self, text: JSONText) -> None:
        """Take the application's own object for the new state on a route that ``plain=`` names; report it on any other."""
        if not self.adopts:
            self._report_overwritten()
        elif not (self._was_changed or self.session.is_modified):
            found = find_session(_read_exactly(text.data))
            if isinstance(found, dict) and RESERVED not in found:
                state_of(self.session).replace(found)
                self._adopted = True

    def _report_overwritten(self) -> None:
        self.config.events.report_overwrite(name_route(self.scope), advise_plain(self.scope, route_path(self.outer)))

    def _report_sealed(self, sealed: Pieces) -> None:
        standing = state_of(self.session).standing
        if standing is None or standing.kid is None or state_of(self.session).is_closed:
            return
        if self._watcher is not None:
            self._watcher.record_sealed(kid=standing.kid, answer_bytes=sum(map(len, sealed)))
        if self.kid is not None and self.kid != standing.kid:
            self.config.events.report_reseal(self.kid, self.config.sealer.sid_digest(standing.claims.sid))


def find_carriers_to_clear(refusal: SessionError | SessionUnavailable, presented: Sequence[PresentedToken]) -> list[Carrier]:
    """The carriers whose session the client of a refused request is to drop, where its body has none."""
    if refusal.reason == DISAGREEMENT:
        return [each.carrier for each in presented]
    return [presented[0].carrier] if presented and is_unrecoverable(refusal, presented[0].carrier) else []


def prepare_refusal(
    config: Config, refusal: SessionError | SessionUnavailable, scope: Scope, presented: Sequence[PresentedToken]
) -> Callable[[Raw], Raw]:
    """Prepare a refusal before the application runs; returns what adds to its headers.

    They tell the client to drop its session, or bring the newer one that a lost answer had. That goes out by what the refused one
    came by and not in the body, because scripts can read a body and no cookie.

    Args:
        config: Of the middleware.
        refusal: Why.
        scope: Of the request or the handshake.
        presented: The tokens in the header and the cookie, by precedence; empty where the body has a session.
    """
    changes = [partial(carrier.clear, scope) for carrier in find_carriers_to_clear(refusal, presented)]
    if isinstance(refusal, SessionConflict) and refusal.token is not None and presented:
        refusal.envelope, life_s = None, config.sealer.rest_of_token_s(refusal.token)
        changes.append(partial(_write_token, presented[0].carrier, scope, refusal.token, life_s))
    return partial(_apply, changes)


def _apply(changes: Iterable[Callable[[Raw], Raw]], headers: Raw) -> Raw:
    for change in changes:
        headers = change(headers)
    return headers


def _write_token(carrier: Carrier, scope: Scope, token: bytes, life_s: int, headers: Raw) -> Raw:
    written = carrier.write(scope, headers, token, life_s=life_s)
    return headers if written is None else written


def is_unrecoverable(refusal: SessionError | SessionUnavailable, carrier: Carrier | None) -> bool:
    """Whether a refused session can never be good again; in a cookie, which its client does not control, also one too long."""
    return refusal.offers_restart or (carrier is not None and carrier.restarts and isinstance(refusal, SessionTooLarge))


def parse(data: bytes) -> JSONText | None:
    """Parse a text; None where a strict parser refuses it."""
    try:
        return read_text(data)
    except MalformedJSON:
        return None


def _report_lost(events: Events, scope: Scope, advice: str) -> None:
    events.report_lost_change(name_route(scope), advice)


def _read_exactly(data: bytes) -> Any:
    """Parse a text with integers of any size, so that too large ones are refused and not rounded.

    Raises:
        SessionValueError: The text is nested too deep for a session, or has a number with too many digits.
    """
    try:
        return json.loads(data)
    except (RecursionError, ValueError):
        raise SessionValueError("data.session of the answer is nested too deep, or has too long a number, to be stored") from None
