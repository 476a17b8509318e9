"""A session service as the store of a middleware: the token says where the state is, and a turn is one commit of all it did.

What a ledger knows of a session and what the service keeps of it are read in one transaction when a turn begins, and written in one
when it is committed. So there is no moment at which one of them is there alone.

    claim ``at``    ``"server"``: the token has no state of its own
    id              of the kept session: that of the token. A session that is rotated takes its history along
    user            the subject; an anonymous session shares nothing
    no longer kept  a session that was deleted or closed, or has ended: it is refused as ended

What a reader gets wrong: a session whose state is in its token is taken in with its first turn here. Nothing has to be imported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.store import Lease, OpenRequest
from dcaf.engines import Engine
from dcaf.ledger import Ledger
from dcaf.ledger.lease import LedgerLease
from dcaf.service.calls import Calls
from dcaf.service.companion import KeptCompanion
from dcaf.service.encryption_guard import PlainEngine

LEVEL: Final = "L3"


class ServiceStore:
    """A ``SessionStore`` of a session service.

    Args:
        calls: Of the service.
        make_ledger: Makes the ledger, for an engine: which token is the newest, who holds a session, what was used up.
        reopen: Closes the engine, where the service has opened it; a later call opens it again.
        most_carried: States of up to so many bytes go back into their tokens, with the next change; None keeps all on the server.

    Attributes:
        level: ``"L3"``.
        ledger: The ledger.
    """

    level: str = LEVEL

    def __init__(
        self,
        calls: Calls,
        make_ledger: Callable[[Engine], Ledger],
        reopen: Callable[[], Awaitable[None]],
        *,
        most_carried: int | None = None,
    ) -> None:
        self._calls = calls
        self._make_ledger = make_ledger
        self._reopen = reopen
        self._most_carried = most_carried
        self.ledger: Ledger = make_ledger(calls.engine)

    def __repr__(self) -> str:
        return f"<ServiceStore {self._calls.app!r} {self._calls.engine.url}>"

    async def open(self, request: OpenRequest) -> Lease:
        """Open a session, and read its state and its newest messages.

        Raises:
            SessionEnded: It is not kept any more; or as the rules of the ledger say.
            SessionConflict, SessionSuperseded, IdempotencyKeyReused: As the rules of the ledger say.
            EngineError: The engine failed.
            ConfigurationError: It is no OpenRequest.
        """
        engine = self._calls.engine
        companion = KeptCompanion(self._calls, request, self._most_carried)
        if isinstance(engine, PlainEngine) and self.ledger.engine is engine.below:
            await engine.look(companion.ranges[0].partition)  # the transactions of that ledger do not go through this engine
        return await self.ledger.open_with(companion, request)

    async def aclose(self) -> None:
        """Close what the service has opened; a later call opens it again, as after a second start of one application."""
        await self._reopen()
        self.ledger = self._make_ledger(self._calls.engine)


def find_lease(session: Session, calls: Calls) -> LedgerLease:
    """The lease of a session of a turn behind a middleware, or a host, with this service.

    Raises:
        ConfigurationError: It is of no such turn.
    """
    lease = state_of(session).lease
    if isinstance(lease, LedgerLease) and isinstance(lease.companion, KeptCompanion) and lease.companion.is_of(calls):
        return lease
    raise ConfigurationError(
        "resume() is for a turn of a middleware with store=SessionService(...), this service. Elsewhere sessions.open(user=, id=) "
        "goes on with a session."
    )
