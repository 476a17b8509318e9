"""One turn: from the body that came in to the envelope that goes out.

What a reader gets wrong: the order. The seal is verified before anybody is asked who is calling, and the application is told
nothing before the keeper has admitted the session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from starlette.types import Scope

from dcaf.asgi.events import Events
from dcaf.asgi.holder import Holder
from dcaf.asgi.request import Body
from dcaf.asgi.terminal import Terminal
from dcaf.asgi.walk import Place
from dcaf.core.claims import Binding
from dcaf.core.envelope import Sealer
from dcaf.core.errors import SessionError, SessionInvalid, SessionUnsigned
from dcaf.core.keeper import Keeper
from dcaf.core.seal import Pieces
from dcaf.core.session import Session
from dcaf.core.unsigned import Import


class Turn(NamedTuple):
    """One turn.

    Attributes:
        session: Its session.
        binding: Whom it is bound to.
        arrived: Whether a session came in, so that one goes out in any case.
        kid: Id of the key that had sealed it; None for a new one.
        is_open: Whether a body or a frame opened it; a socket has none before its first frame.
    """

    session: Session
    binding: Binding
    arrived: bool
    kid: str | None = None
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class Turns:
    """Opens and seals the turns of one service.

    Attributes:
        sealer: Who opens and seals.
        holder: Whom a session is bound to.
        keeper: Who judges freshness.
        events: Whom to tell.
        restarts: Whether a refused session is started empty instead.
        unsigned: What happens to plain sessions.
        is_plain: Whether a route reads and writes the whole state itself.
        passes_streams: Whether a route's streams pass as they are.
        terminal: Which event or frame ends a turn.
        limit_bytes: The longest JSON answer, event or frame that is completed.
    """

    sealer: Sealer
    holder: Holder
    keeper: Keeper
    events: Events
    restarts: bool
    unsigned: Import | Literal["reject", "ignore"]
    is_plain: Callable[[Scope], bool]
    passes_streams: Callable[[Scope], bool]
    terminal: Terminal
    limit_bytes: int

    async def first(self, scope: Scope) -> Turn:
        """Begin a session for a socket, before its first frame. Raises SessionError as ``open``."""
        binding = self.sealer.binding(await self.holder.subject(scope))
        return Turn(self.sealer.start(), binding, arrived=False, is_open=False)

    async def open(self, scope: Scope, body: Body, before: Turn | None = None) -> Turn:
        """Find the session of a body, and put the verified state where the application will look for it.

        Args:
            scope: Of the request, or of the socket.
            body: What came in; it is rewritten.
            before: The socket's last turn, whose session a frame without one continues; None for a request.

        Raises:
            SessionError: The session is refused.
            SessionUnavailable: Nobody can tell whether it is current.
        """
        candidate = body.candidate() if body.places else None
        try:
            turn = await self._opened(scope, body, candidate, before)
        except SessionError as refusal:
            if not (self.restarts and refusal.offers_restart and (candidate or before)):
                raise
            self.events.restarted(refusal)
            turn = Turn(self.sealer.start(restarted=refusal.code), await self._binding(scope, body), arrived=True)
        visible = self.sealer.visible(turn.session, whole=self.is_plain(scope)) if body.places else b""
        body.rewrite(candidate, visible)
        return turn

    async def seal(self, turn: Turn) -> Pieces:
        """The envelope of the session as it is now, in pieces.

        Raises:
            SessionConflict: Another turn came first.
            SessionUnavailable: It could not be written.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        sequence = await self.keeper.commit(turn.session)
        envelope = self.sealer.pieces(turn.session, turn.binding, sequence=sequence)
        if turn.kid is not None and turn.kid != self.sealer.signing_kid() and turn.session.id:
            self.events.resealed(turn.kid, self.sealer.sid_digest(turn.session.id))
        return envelope

    async def _opened(self, scope: Scope, body: Body, candidate: Place | None, before: Turn | None) -> Turn:
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
        await self.keeper.admit(self.sealer.claims_of(session))
        return Turn(session, binding, arrived=True, kid=opened.key.kid)

    async def _continued(self, before: Turn, binding: Binding) -> Turn:
        """Go on with the session of the turn before, as if it had come in again, for the same holder.

        Before the first frame nobody can know the conversation, and an empty session that was never sealed is of none.
        """
        if binding.subject != before.binding.subject:
            raise SessionInvalid(reason="sub")
        session, is_new = before.session, not before.session.sequence
        may_move = not before.is_open or (is_new and session.is_empty and not session.is_modified)
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
