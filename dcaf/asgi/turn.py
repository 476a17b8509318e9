"""One turn: from the body that came in to the envelope that goes out.

What a reader gets wrong: the order. The seal is verified before anybody is asked who is calling, and the application is told
nothing before the keeper has admitted the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from starlette.types import Scope

from dcaf.asgi.carriers import Carrier
from dcaf.asgi.events import Events
from dcaf.asgi.holder import Holder
from dcaf.asgi.parcels import Parcel
from dcaf.asgi.request import Body
from dcaf.asgi.terminal import Terminal
from dcaf.asgi.walk import Place
from dcaf.core.claims import Binding, Claims
from dcaf.core.envelope import Sealer
from dcaf.core.errors import SessionError, SessionInvalid, SessionTooLarge, SessionUnavailable, SessionUnsigned
from dcaf.core.keeper import Keeper
from dcaf.core.seal import Pieces
from dcaf.core.session import Session
from dcaf.core.unsigned import Import

DISAGREEMENT: Final = "carriers"
"""Why two sessions in one request are refused."""


class Turn(NamedTuple):
    """One turn.

    Attributes:
        session: Its session.
        binding: Whom it is bound to.
        arrived: Whether a session came in, so that one goes out in any case.
        kid: Id of the key that had sealed it; None for a new one.
        is_open: Whether a body or a frame opened it; a socket has none before its first frame.
        carrier: What it came by beside the body; None where the body brought it, or it is new.
        stale: By what else something came that does not count any more, since the session was begun in its place.
    """

    session: Session
    binding: Binding
    arrived: bool
    kid: str | None = None
    is_open: bool = True
    carrier: Carrier | None = None
    stale: tuple[Carrier, ...] = ()


@dataclass(frozen=True, slots=True)
class Turns:
    """Opens and seals the turns of one service.

    Attributes:
        sealer: Who opens and seals.
        holder: Whom a session is bound to.
        keeper: Who judges freshness.
        events: Whom to tell.
        restarts: Whether a refused session is started empty instead; None leaves it to what the session came by.
        unsigned: What happens to plain sessions.
        is_plain: Whether a route reads and writes the whole state itself.
        passes_streams: Whether a route's streams pass as they are.
        terminal: Which event or frame ends a turn.
        limit_bytes: The longest JSON answer, event or frame that is completed.
        in_body: Whether bodies and frames carry sessions.
        carriers: What else does, by precedence.
    """

    sealer: Sealer
    holder: Holder
    keeper: Keeper
    events: Events
    restarts: bool | None
    unsigned: Import | Literal["reject", "ignore"]
    is_plain: Callable[[Scope], bool]
    passes_streams: Callable[[Scope], bool]
    terminal: Terminal
    limit_bytes: int
    in_body: bool = True
    carriers: tuple[Carrier, ...] = ()

    async def first(self, scope: Scope, beside: Sequence[Parcel] = ()) -> Turn:
        """Begin a session for a socket, before its first frame, or open that of its handshake. Raises SessionError as ``open``."""
        if beside:
            return (await self.open(scope, Body(b""), beside=beside))._replace(is_open=False)
        binding = self.sealer.binding(await self.holder.subject(scope))
        return Turn(self.sealer.start(), binding, arrived=False, is_open=False)

    async def open(self, scope: Scope, body: Body, before: Turn | None = None, beside: Sequence[Parcel] = ()) -> Turn:
        """Find the session of a body, and put the verified state where the application will look for it.

        Args:
            scope: Of the request, or of the socket.
            body: What came in; it is rewritten.
            before: The socket's last turn, whose session a frame without one continues; None for a request.
            beside: What came beside the body.

        Raises:
            SessionError: The session is refused.
            SessionUnavailable: Nobody can tell whether it is current.
        """
        candidate = body.candidate() if body.places and self.in_body else None
        parcel = beside[0] if beside and candidate is None else None
        try:
            turn = await self._opened(scope, body, candidate or parcel, before, beside)
        except SessionError as refusal:
            if not (self._may_restart(refusal, parcel) and (candidate or before or parcel)):
                raise
            self.events.restarted(refusal)
            turn = Turn(self.sealer.start(restarted=refusal.code), await self._binding(scope, body), arrived=True)
        if self.events.watcher is not None:
            self.events.watcher.opened(kid=turn.kid, request_bytes=len(body.data))
        visible = self.sealer.visible(turn.session, whole=self.is_plain(scope)) if candidate else b""
        body.rewrite(candidate, visible)
        return turn if not beside else _delivered(turn, parcel, beside)

    def dead(self, refusal: SessionError | SessionUnavailable, body: Body | None, beside: Sequence[Parcel]) -> list[Carrier]:
        """By which carriers a refused request brought what the client is to drop; none where it may still be good."""
        if refusal.reason == DISAGREEMENT:
            return [parcel.carrier for parcel in beside]
        came_beside = beside and not (body is not None and self.in_body and body.candidate())
        return [beside[0].carrier] if came_beside and _is_dead(refusal, beside[0].carrier) else []

    async def seal(self, turn: Turn) -> Pieces:
        """The envelope of the session as it is now, in pieces.

        Raises:
            SessionConflict: Another turn came first.
            SessionUnavailable: It could not be written.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        sequence = await self.keeper.commit(turn.session)
        envelope = self.sealer.pieces(turn.session, turn.binding, sequence=sequence)
        self._tell(turn, envelope)
        return envelope

    async def token(self, turn: Turn) -> bytes:
        """The token alone of the session as it is now. Raises as ``seal``."""
        sequence = await self.keeper.commit(turn.session)
        token = self.sealer.token(turn.session, turn.binding, sequence=sequence)
        self._tell(turn, (token,))
        return token

    def _tell(self, turn: Turn, sealed: Pieces) -> None:
        if self.events.watcher is not None:
            self.events.watcher.sealed(kid=self.sealer.signing_kid(), answer_bytes=sum(map(len, sealed)))
        if turn.kid is not None and turn.kid != self.sealer.signing_kid() and turn.session.id:
            self.events.resealed(turn.kid, self.sealer.sid_digest(turn.session.id))

    def _may_restart(self, refusal: SessionError, parcel: Parcel | None) -> bool:
        carrier = None if parcel is None else parcel.carrier
        restarts = (carrier is not None and carrier.restarts) if self.restarts is None else self.restarts
        return restarts and _is_dead(refusal, carrier)

    def _check_agreement(self, session: Session, others: Iterable[Parcel]) -> None:
        """Refuse two sessions in one request; what nobody here has sealed is none.

        Raises:
            SessionInvalid: There are two.
        """
        for parcel in others:
            opened = self.sealer.opened(parcel.token.encode("latin-1"))
            if opened is not None and Claims.read(opened.claims).sid != session.id:
                raise SessionInvalid(reason=DISAGREEMENT)

    async def _opened(
        self, scope: Scope, body: Body, candidate: Place | Parcel | None, before: Turn | None, beside: Sequence[Parcel]
    ) -> Turn:
        if candidate is None and before is not None:
            return await self._continued(before, await self._binding(scope, body))
        if candidate is None:
            return Turn(self.sealer.start(), await self._binding(scope, body), arrived=False)
        try:
            opened = body.opened or self.sealer.verify(candidate.value)
        except SessionUnsigned as refusal:
            return Turn(self._taken_in(candidate.value, refusal), await self._binding(scope, body), arrived=True)
        binding = self.sealer.anonymous if self.holder.is_nobody else await self._binding(scope, body)
        session = self.sealer.accept(opened, binding)
        if opened is None:
            return Turn(session, binding, arrived=True)
        if beside:
            self._check_agreement(session, (parcel for parcel in beside if parcel is not candidate))
        await self.keeper.admit(self.sealer.claims_of(session))
        return Turn(session, binding, arrived=True, kid=opened.key.kid)

    async def _continued(self, before: Turn, binding: Binding) -> Turn:
        """Go on with the session of the turn before, as if it had come in again, for the same holder.

        Before the first frame nobody can know the conversation, and an empty session that was never sealed is of none.
        """
        if binding.subject != before.binding.subject:
            raise SessionInvalid(reason="sub")
        session, is_new = before.session, not before.session.sequence
        may_move = not (before.is_open or before.carrier) or (is_new and session.is_empty and not session.is_modified)
        if binding.conversation != before.binding.conversation and not may_move:
            raise SessionInvalid(reason="cid")
        self.sealer.recheck(session)
        if not is_new:
            await self.keeper.admit(self.sealer.claims_of(session))
        return Turn(session, binding, arrived=before.arrived or not is_new)

    def _taken_in(self, plain: dict[str, Any], refusal: SessionUnsigned) -> Session:
        if self.unsigned == "ignore":
            return self.sealer.start()
        if not isinstance(self.unsigned, Import):
            raise refusal
        session = self.sealer.take_in(plain, self.unsigned)
        self.events.imported(self.sealer.sid_digest(self.sealer.claims_of(session).sid))
        return session

    async def _binding(self, scope: Scope, body: Body) -> Binding:
        return self.sealer.binding(*await self.holder.names(scope, body.without_sessions))


def _delivered(turn: Turn, parcel: Parcel | None, beside: Sequence[Parcel]) -> Turn:
    """The turn, with what it came by; where its session was begun now, what came by the others is stale."""
    carrier = None if parcel is None else parcel.carrier
    others = [each.carrier for each in beside if each is not parcel]
    return turn._replace(carrier=carrier, stale=tuple(others) if turn.kid is None else ())


def _is_dead(refusal: SessionError | SessionUnavailable, carrier: Carrier | None) -> bool:
    """Whether a refused session can never be good again; of a carrier that its client does not control, also one too long."""
    return refusal.offers_restart or (carrier is not None and carrier.restarts and isinstance(refusal, SessionTooLarge))
