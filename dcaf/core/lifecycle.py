"""One turn of one session, without a transport: opened, run, prepared, committed, sealed, released.

    accept    the session of a verified token, for its holder        Sealer.accept, Sealer.start
    hold      a lease on it, from the store that keeps sessions      SessionStore.open, Sealer.resume
    run       whoever has the turn
    merge     over a newer state, where the store has one            Lease.latest
    prepare   the state as bytes, and its token                      Sealer.prepare
    commit    both, at the store                                     Lease.commit
    seal      from now on only what comes later is a change          Prepared.arrive
    end       what is written later is an error                      State.end
    release   the lease, however the turn ended                      Lease.release

The middleware's turns are these, with what a request and a socket add (``dcaf.asgi.lifecycle``); ``SessionHost`` has them as they
are. Without a store nothing is awaited: a state is sealed where it stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio

from dcaf.core.claims import Binding, Claims
from dcaf.core.errors import SessionConflict, SessionUnavailable, StateError, describe_raised
from dcaf.core.mapping import state_of
from dcaf.core.sealer import Prepared, Sealer
from dcaf.core.session import Session
from dcaf.core.signing import Pieces
from dcaf.core.store import Lease, OpenRequest, SessionStore, ask, check_kept, check_lease

logger: Final[logging.Logger] = logging.getLogger("dcaf")

MOST_TRIES: Final = 64
"""How often a turn is laid over a newer state, where one comes between that and its commit each time."""


class Turn:
    """What is known of one turn.

    Args:
        sealer: Opens and seals.
        store: Keeps sessions; None keeps none.

    Attributes:
        sealer, store: As above.
        session: The turn's session, once it is open.
        binding: Whom that is bound to.
        lease: The turn's hold on the session; None where no store keeps it.
        arrived: Whether a session came in, so that one goes out in any case.
        kid: Id of the key that had sealed it; None for a new one.
        is_in_doubt: Whether a commit has failed, so that nobody can tell whether what it was to keep is kept.
    """

    __slots__ = ("_is_held", "arrived", "binding", "is_in_doubt", "kid", "lease", "sealer", "session", "store")

    session: Session
    binding: Binding

    def __init__(self, sealer: Sealer, store: SessionStore | None) -> None:
        self.sealer: Sealer = sealer
        self.store: SessionStore | None = store
        self.lease: Lease | None = None
        self.is_in_doubt: bool = False
        self._is_held: bool = False
        self.arrived: bool = False
        self.kid: str | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the session is not what arrived or was last sealed, or can no longer be written."""
        try:
            return state_of(self.session).is_changed()
        except StateError:
            return True

    async def hold(self, claims: Claims | None) -> None:
        """Ask the store for the session, and go on from what it says.

        Args:
            claims: What its token says; None where none seals it.

        Raises:
            SessionError: The store refuses it.
            SessionUnavailable: It cannot tell, or nobody here has what the token says is kept.
        """
        if self.store is not None:
            await self.release()
            self.lease = lease = await ask(self.store.open, self.describe(claims))
            self._is_held = True
            check_lease(lease)
        if claims is not None:
            check_kept(claims, self.lease)
        if self.lease is not None:
            _tell_clashes(self.sealer.resume(self.session, self.lease, is_in_doubt=self.is_in_doubt))
            self.is_in_doubt = False
            state_of(self.session).lease = self.lease

    def describe(self, claims: Claims | None) -> OpenRequest:
        """The session and its turn, as the store is told of them."""
        session_id = self.session.id
        assert session_id is not None
        return OpenRequest(session_id, claims, self.binding)

    async def commit(
        self, lease: Lease, *, ends_turn: bool, has_mirror: bool = True, look: Callable[[bytes], None] = lambda _: None
    ) -> Pieces:
        """Freeze the session and have the store keep it; gives the envelope, or the token alone.

        Args:
            lease: The turn's.
            ends_turn: As of ``Lease.commit``.
            has_mirror: Whether the whole envelope goes out, and not the token alone.
            look: Sees the token before the store does. What it raises ends the commit, and the store has not been asked.

        Raises:
            SessionError: Another turn came first, or the session was revoked.
            SessionUnavailable: It could not be written.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        newer = await ask(lease.latest)
        for _ in range(MOST_TRIES):
            if newer is not None:
                _tell_clashes(self.sealer.rebase(self.session, newer, lease.version, lease.revision))
            check_lease(lease, self.sealer.claims_of(self.session).seq)
            prepared = self.sealer.prepare(self.session, self.binding, sequence=lease.sequence, has_mirror=has_mirror)
            look(prepared.sealed.token)
            try:
                await shielded(partial(self._keep, lease, prepared, ends_turn=ends_turn))
                break
            except SessionConflict:
                newer = await ask(lease.latest)
                if newer is None:
                    raise
        else:
            raise SessionUnavailable(reason="contended")
        return (prepared.sealed.envelope if has_mirror else prepared.sealed.token,)

    async def _keep(self, lease: Lease, prepared: Prepared, *, ends_turn: bool) -> None:
        """Commit what was prepared, and go on from it: one step, since of half of it nobody could tell what is kept."""
        try:
            await ask(lease.commit, prepared.sealed, ends_turn=ends_turn)
        except SessionUnavailable:
            self.is_in_doubt = True
            raise
        prepared.arrive(self.session)

    async def release(self) -> None:
        """Let go of the session, whatever cancels this meanwhile; once, since another turn may hold it by then."""
        if self._is_held:
            self._is_held = False
            await shielded(self._release)

    async def _release(self) -> None:
        assert self.lease is not None
        try:
            await self.lease.release()
        except Exception as error:  # noqa: BLE001 - the turn is over; what a store does not let go of it must end by itself
            # Not its message: those of drivers quote statements, and so state and subjects.
            logger.error("dcaf: the store could not release a session: %s", describe_raised(error))  # noqa: TRY400


def _tell_clashes(keys: list[str]) -> None:
    if keys:
        logger.warning("dcaf: another turn had changed %d values that this turn changed too; this turn's are kept", len(keys))


async def shielded(call: Callable[[], Awaitable[None]]) -> None:
    """Make a call and wait for its end, whatever cancels the caller meanwhile: that is raised when the call has ended.

    A cancel scope of anyio keeps out those of anyio and trio; a task of asyncio can also be cancelled by itself.
    """
    with anyio.CancelScope(shield=True):
        if not _runs_on_asyncio():
            await call()
            return
        task = asyncio.ensure_future(call())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        task.result()


def _runs_on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
