"""One turn of one session, without a transport: opened, run, prepared, committed, sealed, released.

    accept    the session of a verified token, for its holder        Sealer.accept, Sealer.start
    hold      a lease on it, from the store that keeps sessions      SessionStore.open, Sealer.resume
    run       the application
    merge     over a newer state, where the store has one            Lease.latest
    prepare   the state as bytes, and its token                      Sealer.prepare
    commit    both, at the store                                     Lease.commit
    seal      from now on only what comes later is a change          Prepared.mark_sealed
    end       what is written later is an error                      State.end
    release   the lease, however the turn ended                      Lease.release

The middleware adds what a request and a socket need (``dcaf.asgi.lifecycle``); ``SessionHost`` uses these steps as they are.
Without a store nothing is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio

from dcaf.core.claims import Binding, Claims
from dcaf.core.envelope import NEW, RESTART
from dcaf.core.errors import SessionConflict, SessionError, SessionUnavailable, StateError, describe_raised
from dcaf.core.mapping import state_of
from dcaf.core.sealer import Prepared, Sealer
from dcaf.core.session import Session
from dcaf.core.signing import Pieces
from dcaf.core.slots import Closing, Resumed
from dcaf.core.store import Lease, OpenRequest, SessionStore, ask, check_kept, check_lease, shared_of

logger: Final[logging.Logger] = logging.getLogger("dcaf")

MOST_TRIES: Final = 64
"""How often a turn is laid over a newer state and committed again, where other turns commit in between each time."""


class SessionTurn:
    """One turn of one session.

    Args:
        sealer: Opens and seals.
        store: Keeps sessions; None where none does.

    Attributes:
        sealer, store: As above.
        session: The turn's session, once it is open.
        binding: The binding of the session.
        lease: The turn's lease on the session; None where no store keeps it.
        arrived: Whether a session came in, so that one goes out in any case.
        kid: The id of the key that had sealed it; None for a new session.
        is_in_doubt: Whether a commit has failed, so that nobody can tell whether its state is kept.
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
        """Whether the session differs from what arrived or was last sealed, or can no longer be written."""
        try:
            return state_of(self.session).is_changed()
        except StateError:
            return True

    async def hold(self, claims: Claims | None) -> None:
        """Ask the store for a lease on the session, and apply it.

        Args:
            claims: The claims of its token; None where no token seals it.

        Raises:
            SessionError: The store refuses the session.
            SessionUnavailable: The store failed, or nobody here has the state that the token says is kept.
        """
        if self.store is not None:
            await self.release()
            await self._take_lease(self.store, self.describe(claims))
        try:
            self._apply_lease(claims)
        except BaseException:
            await self.release()  # before the refusal goes out: its client may ask another worker at once
            raise

    def _apply_lease(self, claims: Claims | None) -> None:
        if claims is not None:
            check_kept(claims, self.lease)
        if self.lease is not None:
            _log_clashes(self.sealer.resume(self.session, self.lease, is_in_doubt=self.is_in_doubt))
            self.is_in_doubt = False
            state_of(self.session).take_lease(self.lease)

    async def _take_lease(self, store: SessionStore, request: OpenRequest) -> None:
        """Ask the store; a newer envelope that it has kept, for a client whose answer was lost, is sealed once more."""
        try:
            self.lease = await ask(store.open, request)
            self._is_held = True
            check_lease(self.lease)
        except SessionConflict as conflict:
            if conflict.kept is not None:
                kept_for = conflict.session_id or request.session_id
                conflict.token, conflict.envelope = self.sealer.reissue(conflict.kept, self.binding, kept_for)
            raise
        except SessionUnavailable as error:
            error.ran = False
            raise

    def describe(self, claims: Claims | None) -> OpenRequest:
        """The request for the store: the session and its turn."""
        session_id = self.session.id
        assert session_id is not None
        return OpenRequest(session_id, claims, self.binding)

    async def seal(self, *, ends_turn: bool, has_mirror: bool = True, look: Callable[[bytes], None] = lambda _: None) -> Pieces:
        """Seal the session, and commit it where a store keeps it; returns the envelope, or the token alone.

        A session that the application has ended is ended, and the envelope is the wish for a new one. One that it rotates goes on
        as another session, and is sealed as that. One that it gives up for another stays as it was, and that other one is sealed.

        Args:
            ends_turn: As in ``Lease.commit``.
            has_mirror: Whether the whole envelope goes out, and not the token alone.
            look: Is called with the token before the store is asked. What it raises ends the commit.

        Raises as ``commit``. Then the session has neither ended nor become another one, as far as anybody knows.
        """
        state = state_of(self.session)
        if state.closing is None and self.lease is None and has_mirror:
            return self.sealer.pieces(self.session, self.binding)
        call = partial(self._seal_open, ends_turn=ends_turn, has_mirror=has_mirror, look=look)
        try:
            if state.closing is not None and state.closing.resumed is not None:
                return self._seal_resumed(state.closing, state.closing.resumed, has_mirror=has_mirror, look=look)
            if state.is_ending:
                await run_shielded(self._end)
                return (RESTART if has_mirror else NEW.encode(),)
            return await (call() if state.closing is None else self._rotate(state.closing, call))
        except SessionUnavailable as error:
            error.ran = True
            raise

    async def _seal_open(self, *, ends_turn: bool, has_mirror: bool, look: Callable[[bytes], None]) -> Pieces:
        """Seal the session under its id. Arguments and errors are those of ``seal``."""
        if self.lease is not None:
            return await self.commit(self.lease, ends_turn=ends_turn, has_mirror=has_mirror, look=look)
        if has_mirror:
            return self.sealer.pieces(self.session, self.binding)
        token = self.sealer.token(self.session, self.binding)
        look(token)
        return (token,)

    def _seal_resumed(self, closing: Closing, resumed: Resumed, *, has_mirror: bool, look: Callable[[bytes], None]) -> Pieces:
        """Seal another session with the number that it has: the store knows it already, and learns nothing new."""
        session, may_retry = self.sealer.restore(resumed), self.lease is not None and self.lease.may_retry
        prepared = self.sealer.prepare(
            session,
            self.binding._replace(subject=closing.subject or self.binding.subject),
            sequence=resumed.claims.seq,
            has_mirror=has_mirror,
            may_retry=may_retry,
        )
        look(prepared.sealed.token)
        state_of(self.session).mark_closed()
        return (prepared.sealed.envelope if has_mirror else prepared.sealed.token,)

    async def _end(self) -> None:
        """End the session at the store, in one step with the note of it; where the store does not, it can be written again."""
        state = state_of(self.session)
        try:
            if self.lease is not None and not state.is_closed:
                await ask(self.lease.end)
        except BaseException:
            state.reopen()
            raise
        state.mark_closed()

    async def _rotate(self, closing: Closing, seal: Callable[[], Awaitable[Pieces]]) -> Pieces:
        """Seal the session as another one, bound to the subject that the application has named, or leave it as it was.

        A turn that is refused has not rotated it. Where its answer cannot carry it, the next answer of the turn rotates it.
        """
        state, binding = state_of(self.session), self.binding
        standing, state.closing = state.standing, None
        try:
            if closing.subject is not None:
                self.binding = binding._replace(subject=closing.subject)
            self.sealer.rotate(self.session)
            if self.lease is not None:
                await ask(self.lease.rotate, self.describe(None))
                check_lease(self.lease)
                self.sealer.number(self.session, self.lease)
            return await seal()
        except BaseException as error:
            if not self.sealer.has_token(self.session):  # else it was committed, and only the wait for that was cancelled
                state.standing, self.binding = standing, binding
                is_refused = isinstance(error, SessionError | SessionUnavailable)
                state.closing = state.closing or (None if is_refused else closing)
            raise

    async def commit(
        self, lease: Lease, *, ends_turn: bool, has_mirror: bool = True, look: Callable[[bytes], None] = lambda _: None
    ) -> Pieces:
        """Freeze the session and commit it at the store; returns the envelope, or the token alone.

        Args:
            lease: The turn's lease.
            ends_turn: As in ``Lease.commit``.
            has_mirror: Whether the whole envelope goes out, and not the token alone.
            look: Is called with the token before the store is asked. What it raises ends the commit.

        Raises:
            SessionError: Another turn came first, or the session was revoked.
            SessionUnavailable: The session could not be written.
            SessionAliasError, SessionValueError: A change cannot be written.
        """
        newer = await ask(lease.latest)
        for _ in range(MOST_TRIES):
            if newer is not None:
                shared = shared_of(lease)
                _log_clashes(self.sealer.rebase(self.session, newer, lease.version, lease.revision, shared=shared))
            check_lease(lease, self.sealer.claims_of(self.session).seq)
            prepared = self.sealer.prepare(
                self.session, self.binding, sequence=lease.sequence, has_mirror=has_mirror, may_retry=lease.may_retry
            )
            look(prepared.sealed.token)
            try:
                await run_shielded(partial(self._keep, lease, prepared, ends_turn=ends_turn))
                break
            except SessionConflict:
                newer = await ask(lease.latest)
                if newer is None:
                    raise
        else:
            raise SessionUnavailable(reason="contended")
        return (prepared.sealed.envelope if has_mirror else prepared.sealed.token,)

    async def _keep(self, lease: Lease, prepared: Prepared, *, ends_turn: bool) -> None:
        """Commit what was prepared and mark it as sealed, in one step, so that a cancellation cannot come between."""
        try:
            await ask(lease.commit, prepared.sealed, ends_turn=ends_turn)
        except SessionUnavailable:
            self.is_in_doubt = True
            raise
        prepared.mark_sealed(self.session)

    async def release(self) -> None:
        """Release the lease, whatever cancels this meanwhile; only once, since another turn may hold the session by then."""
        if self._is_held:
            self._is_held = False
            await run_shielded(self._release)

    async def _release(self) -> None:
        assert self.lease is not None
        try:
            await self.lease.release()
        except Exception as error:  # noqa: BLE001 - the turn is over; a store must end by itself what it cannot release
            # Not the message: drivers quote statements in it, and so state and subjects.
            logger.error("dcaf: the store could not release a session: %s", describe_raised(error))  # noqa: TRY400


def _log_clashes(keys: list[str]) -> None:
    if keys:
        logger.warning("dcaf: another turn had changed %d values that this turn changed too; this turn's are kept", len(keys))


async def run_shielded(call: Callable[[], Awaitable[None]]) -> None:
    """Make a call and wait for its end; a cancellation of the caller is raised when the call has ended.

    A cancel scope of anyio shields from those of anyio and trio; a task of asyncio can also be cancelled by itself.
    """
    with anyio.CancelScope(shield=True):
        if not _runs_on_asyncio():
            await call()
            return
        task = asyncio.ensure_future(call())
        cancelled: asyncio.CancelledError | None = None
        try:
            while not task.done():
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError as error:
                    cancelled = error
            if cancelled is not None:
                raise cancelled
            task.result()
        finally:
            del task, cancelled  # what is raised has this frame, which is not to have it again


def _runs_on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
