"""One turn: from the body that came in to the envelope that goes out.

What a reader gets wrong: the order. The seal is verified before anybody is asked who is calling, and the application is told
nothing before the keeper has admitted the session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.types import Receive, Scope

from dcaf.asgi.events import Events
from dcaf.asgi.holder import Holder
from dcaf.asgi.locate import Place
from dcaf.asgi.request import Body, read_body
from dcaf.core.claims import Binding
from dcaf.core.envelope import Sealer
from dcaf.core.errors import SessionError, SessionUnsigned
from dcaf.core.keeper import Keeper
from dcaf.core.session import Session
from dcaf.core.unsigned import Import


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        session: Its session.
        binding: Whom it is bound to.
        body: The body that it came in.
        arrived: Whether a session came in, so that one goes out in any case.
        kid: Id of the key that had sealed it; None for a new one.
    """

    session: Session
    binding: Binding
    body: Body
    arrived: bool
    kid: str | None = None


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
        max_body_bytes: The longest JSON body that is read.
        is_plain: Whether a route reads and writes the whole state itself.
    """

    sealer: Sealer
    holder: Holder
    keeper: Keeper
    events: Events
    restarts: bool
    unsigned: Import | Literal["reject", "ignore"]
    max_body_bytes: int
    is_plain: Callable[[Scope], bool]

    async def open(self, scope: Scope, receive: Receive) -> Turn | None:
        """Read the body and find its session; None where the client left before the body was complete.

        Raises:
            SessionError: The body or the session is refused.
            SessionUnavailable: Nobody can tell whether it is current.
        """
        body = await read_body(scope, receive, self.max_body_bytes)
        if body.disconnected:
            return None
        candidate = body.candidate()
        try:
            turn = await self._opened(scope, body, candidate)
        except SessionError as refusal:
            if not (self.restarts and refusal.offers_restart and candidate):
                raise
            self.events.restarted(refusal)
            turn = Turn(self.sealer.start(restarted=refusal.code), await self._binding(scope, body), body, arrived=True)
        body.rewrite(candidate, self.sealer.visible(turn.session, whole=self.is_plain(scope)))
        return turn

    async def seal(self, turn: Turn) -> bytes:
        """The envelope of the session as it is now.

        Raises:
            SessionConflict: Another turn came first.
            SessionUnavailable: It could not be written.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        sequence = await self.keeper.commit(turn.session)
        envelope = self.sealer.seal(turn.session, turn.binding, sequence=sequence)
        if turn.kid is not None and turn.kid != self.sealer.signing_kid() and turn.session.id:
            self.events.resealed(turn.kid, self.sealer.sid_digest(turn.session.id))
        return envelope

    async def _opened(self, scope: Scope, body: Body, candidate: Place | None) -> Turn:
        if candidate is None:
            return Turn(self.sealer.start(), await self._binding(scope, body), body, arrived=False)
        member = body.member(candidate)
        try:
            opened = self.sealer.verify(member)
        except SessionUnsigned as refusal:
            return Turn(self._taken_in(member, refusal), await self._binding(scope, body), body, arrived=True)
        binding = await self._binding(scope, body)
        session = self.sealer.accept(opened, binding)
        if opened is None:
            return Turn(session, binding, body, arrived=True)
        await self.keeper.admit(self.sealer.claims_of(session))
        return Turn(session, binding, body, arrived=True, kid=opened.key.kid)

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
