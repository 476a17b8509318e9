"""Sessions kept on the server: state, history, and what is shared between the sessions of a user.

>>> import asyncio
>>> sessions = SessionService("memory://", app="clinic")
>>> async def visit():
...     async with sessions.open(user="p-123") as session:
...         session["step"] = 2
...         session.user["theme"] = "dark"
...     return await sessions.get(user="p-123", id=session.id)
>>> session = asyncio.run(visit())
>>> session.to_dict(), session.revision
({'step': 2, 'user:theme': 'dark'}, 1)

What a reader gets wrong: a turn is one commit. What the block did is written when it ends, all of it or nothing; a block that
raises writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError
from dcaf.core.store import StoreSettings
from dcaf.engines import Engine, MemoryEngine
from dcaf.engines.opening import require_engine
from dcaf.ledger import Ledger
from dcaf.service.calls import Calls, OnBusy
from dcaf.service.history import HistoryPage
from dcaf.service.kept import About, Kept
from dcaf.service.listing import Erased, ListPage, Order
from dcaf.service.plans import Plan, run, run_async, run_to_end
from dcaf.service.session import KeptSession
from dcaf.service.store import LEVEL, ServiceStore
from dcaf.service.tables import MEMORY
from dcaf.service.turns import ServiceTurn
from dcaf.service.user_memory import SyncUserMemory, UserMemory

T = TypeVar("T")

MOST_CARRIED: Final = 128 * 1024
"""How large a state may be that goes back into a token, where nobody says how much fits."""


class SessionService:
    """Keeps sessions in an engine.

    Args:
        engine: Where: a url as ``open_engine`` takes it, or an engine.
        app: The application. Two of them on one engine share nothing.
        ttl: For how long a session is kept after its last commit; None for ever.
        on_busy: What a turn gets whose session another one has committed meanwhile: ``"reject"`` raises StaleSessionError,
            ``"merge"`` lays it over the newer state.
        ledger: For a service behind a middleware, which token of a session is the newest, who holds it, and what was used up: a
            Ledger on the same engine, with settings of its own; None for one with the defaults.
        randomness: That many random bytes, for ids.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.

    Attributes:
        level: ``"L3"``.
        app: The application.
        sync: The same methods without ``await``.
    """

    def __init__(
        self,
        engine: Engine | str,
        *,
        app: str,
        ttl: timedelta | None = None,
        on_busy: OnBusy = "reject",
        ledger: Ledger | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        found = require_engine("SessionService()", engine)
        self._url = engine if isinstance(engine, str) else None
        self._calls = Calls(found, app, ttl=ttl, on_busy=on_busy, randomness=randomness)
        self._ledger = _check_ledger(ledger, found)
        self.level: str = LEVEL
        self.app: str = self._calls.app
        self.sync: SyncSessionService = SyncSessionService(self._calls)

    def __repr__(self) -> str:
        return f"<SessionService {self.app!r} {self.engine.url}>"

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self._calls.engine

    def as_store(self, settings: StoreSettings) -> ServiceStore:
        """The store for a middleware or a ``SessionHost``, which call this: give them ``store=SessionService(...)``.

        Args:
            settings: Of the middleware.

        Raises:
            ConfigurationError: The ledger does not fit the middleware.
        """
        return self._make_store(settings, most_carried=None)

    def draining(self) -> Draining:
        """A store that gives states back to their tokens, each with its next turn: the way to a service without a server's memory.

        What is too large for a token stays, and the log says so.
        """
        return Draining(self)

    def _make_store(self, settings: StoreSettings, most_carried: int | None) -> ServiceStore:
        require("as_store()", settings, StoreSettings, "the StoreSettings of a middleware")
        if self._ledger is not None:
            self._ledger.check_settings(settings)
        make = partial(_make_ledger, self._ledger, settings)
        return ServiceStore(self._calls, make, self._reopen, most_carried=most_carried)

    async def _reopen(self) -> None:
        """Close the engine, if this service has opened it; a later call opens it again. One in memory would be lost."""
        if self._url is None or isinstance(self.engine, MemoryEngine):
            return
        engine = self.engine
        self._calls.use(require_engine("SessionService()", self._url))
        await engine.aclose()

    def open(self, *, user: str | None, id: str | None = None, last: int = 50) -> ServiceTurn:
        """One turn of a session, as ``async with sessions.open(...) as session``.

        Args:
            user: Whose it is; None for an anonymous one.
            id: Its id; None makes a new session.
            last: How many of its newest messages are read, too.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.

        Raises, when the block begins:
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.

        Raises, when it ends:
            StaleSessionError: Another one has committed the session since the block began.
            UnknownSessionError: It was deleted meanwhile.
            SessionClosedError: It was closed.
            SessionAliasError, SessionValueError: What was done to it cannot be written.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        return ServiceTurn(self._calls, self._calls.open(user, id, last))

    async def create(
        self,
        *,
        user: str | None,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession:
        """Make a session.

        Args:
            user: Whose it is; None for an anonymous one.
            id: Its id; None for one that is made up.
            state: Its state; the ``user:`` and ``app:`` keys of it are shared as ever.
            title: Its title.
            labels: Texts that stand in lists.
            metadata: What else is to be known of it; plain JSON.

        Raises:
            SessionExistsError: There is one of this id.
            SessionValueError: A value may not be stored.
            ConfigurationError: An argument is wrong.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.create(user, id, state, About.of(title, labels, metadata)), self.engine)

    async def get(self, *, user: str | None, id: str) -> KeptSession | None:
        """A session as it is now; None where there is none, or it is another user's.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.get(user, id), self.engine)

    async def save(self, session: KeptSession) -> None:
        """Commit what was done to a session that ``get`` or ``create`` returned.

        Raises:
            StaleSessionError: Another one has committed it since.
            UnknownSessionError: It was deleted meanwhile.
            ConfigurationError: It is no session of this service.
            EngineError: The engine failed.
        """
        await run_to_end(self._calls.save(session), self.engine)

    async def delete(self, *, user: str | None, id: str) -> bool:
        """Delete a session; False where there is none.

        What it shared with others stays: the ``user:`` and ``app:`` keys.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed. The session may be gone, and some of its rows still there; call again.
        """
        return await run_to_end(self._calls.delete(user, id), self.engine)

    async def get_or_create(self, *, user: str | None, id: str) -> KeptSession:
        """A session as it is now; one that is made where there is none.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.get_or_create(user, id), self.engine)

    async def messages(
        self,
        *,
        user: str | None,
        id: str,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
    ) -> HistoryPage:
        """A page of the history of a session, oldest first.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            limit: How many messages at most, up to 1,000.
            before: Only messages before this number, the newest of them; None with ``after`` None for the newest of all.
            after: Only messages after this number, the oldest of them.

        Raises:
            UnknownSessionError: There is no such session.
            ConfigurationError: An argument is wrong, or both ``before`` and ``after`` are given.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.messages(user, id, limit, before, after), self.engine)

    async def append(self, *, user: str | None, id: str, messages: Iterable[Any]) -> int:
        """Add messages to a session beside whatever turn is in progress; returns how many it has then.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            messages: The messages, each as ``Message.of`` takes it.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed.
            ConfigurationError, SessionValueError: One of them is no message.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.append(user, id, messages), self.engine)

    async def merge(self, *, user: str | None, id: str, state: Mapping[str, Any]) -> None:
        """Write keys of a session's state beside whatever turn is in progress, which is laid over them.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            state: Key -> value; None is a value, too.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed.
            SessionValueError: A value may not be stored.
            EngineError: The engine failed.
        """
        await run_to_end(self._calls.merge(user, id, state), self.engine)

    async def list(self, *, user: str, limit: int = 50, order: Order = "newest", cursor: str | None = None) -> ListPage[Kept]:
        """A page of the sessions of a user, by the minute in which their last committed turn began.

        Args:
            user: The user.
            limit: How many at most, up to 1,000.
            order: ``"newest"`` or ``"oldest"`` first.
            cursor: Where the page before ended (``page.cursor``); None for the first page.

        Raises:
            ConfigurationError: An argument is wrong, or the cursor is another list's.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.list(user, limit, order, cursor), self.engine)

    async def rewind(self, *, user: str | None, id: str, to: int) -> int:
        """Take a session back to what it was when it reached so many messages; returns how many were dropped.

        What it shares with other sessions, its ``user:`` and ``app:`` keys, stays as it is.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            to: How many messages it is to have. With 0 it has the state with which it was made.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed.
            ConfigurationError: It has not so many messages.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.rewind(user, id, to), self.engine)

    async def fork(self, *, user: str, id: str, new_id: str | None = None, at: int | None = None) -> Kept:
        """Begin another session of the same user with the state and the messages of this one, which stays as it is.

        Args:
            user: Whose session it is.
            id: Its id.
            new_id: The id of the other; None for one that is made up.
            at: As ``to`` of ``rewind``, for the other; None for all.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed.
            SessionExistsError: There is one of the new id.
            StaleSessionError: A turn of the session was committed meanwhile; call again.
            ConfigurationError: It has not so many messages, or there is no user.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.fork(user, id, new_id, at), self.engine)

    async def close(self, *, user: str | None, id: str) -> bool:
        """Close a session for writing; False where that was done before. It can still be read.

        Raises:
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.close(user, id), self.engine)

    async def purge(self) -> int:
        """Drop sessions that have ended, and what is left of deleted ones; returns how many there were.

        Raises:
            EngineError: The engine failed; call again.
        """
        return await self._drop(self._calls.purge())

    async def erase(self, *, user: str) -> Erased:
        """Drop all sessions of a user, and what they shared.

        Raises:
            EngineError: The engine failed; call again.
        """
        return await self._drop(self._calls.erase(user))

    def memory(self, *, user: str) -> UserMemory:
        """What a user remembers, outside of a turn.

        Raises:
            ConfigurationError: The user is empty, or no text that UTF-8 can say.
        """
        return self._calls.memory(user)

    async def aclose(self) -> None:
        """Finish what was begun, and close the engine, also one that others use."""
        await self.engine.aclose()

    async def _drop(self, plan: Plan[T]) -> T:
        """Do what drops rows, and drop what was remembered and has ended, which no plan reads any more."""
        found = await run_async(plan, self.engine)
        await self.engine.purge(MEMORY)
        return found


class Draining:
    """A session service that gives back what it keeps. See ``SessionService.draining``.

    Args:
        service: The service.

    Attributes:
        level: ``"L3"``.
    """

    level: str = LEVEL

    def __init__(self, service: SessionService) -> None:
        self._service = service

    def as_store(self, settings: StoreSettings) -> ServiceStore:
        """As of the service."""
        require("as_store()", settings, StoreSettings, "the StoreSettings of a middleware")
        # Half, so that a turn may still add something.
        return self._service._make_store(settings, most_carried=(settings.max_state_bytes or MOST_CARRIED) // 2)


def _make_ledger(given: Ledger | None, settings: StoreSettings, engine: Engine) -> Ledger:
    if given is not None:
        return given
    return Ledger(engine, audience=settings.audience, absolute_timeout=settings.absolute_timeout)


def _check_ledger(ledger: Ledger | None, engine: Engine) -> Ledger | None:
    if ledger is not None and require("ledger=", ledger, Ledger, "a Ledger, or None").engine is not engine:
        raise ConfigurationError(
            "ledger= is a Ledger on the same engine: make that first, and give it to both: "
            "SessionService(engine, ledger=Ledger(engine, ...))."
        )
    return ledger


class SyncSessionService:
    """The methods of a service for code that runs on no event loop. They block.

    Args:
        calls: Of the service.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def open(self, *, user: str | None, id: str | None = None, last: int = 50) -> ServiceTurn:
        """As of the service, as ``with sessions.sync.open(...) as session``."""
        return ServiceTurn(self._calls, self._calls.open(user, id, last))

    def create(
        self,
        *,
        user: str | None,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession:
        """As of the service."""
        return run(self._calls.create(user, id, state, About.of(title, labels, metadata)), self._calls.engine)

    def get(self, *, user: str | None, id: str) -> KeptSession | None:
        """As of the service."""
        return run(self._calls.get(user, id), self._calls.engine)

    def save(self, session: KeptSession) -> None:
        """As of the service."""
        run(self._calls.save(session), self._calls.engine)

    def delete(self, *, user: str | None, id: str) -> bool:
        """As of the service."""
        return run(self._calls.delete(user, id), self._calls.engine)

    def get_or_create(self, *, user: str | None, id: str) -> KeptSession:
        """As of the service."""
        return run(self._calls.get_or_create(user, id), self._calls.engine)

    def messages(
        self,
        *,
        user: str | None,
        id: str,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
    ) -> HistoryPage:
        """As of the service."""
        return run(self._calls.messages(user, id, limit, before, after), self._calls.engine)

    def append(self, *, user: str | None, id: str, messages: Iterable[Any]) -> int:
        """As of the service."""
        return run(self._calls.append(user, id, messages), self._calls.engine)

    def merge(self, *, user: str | None, id: str, state: Mapping[str, Any]) -> None:
        """As of the service."""
        run(self._calls.merge(user, id, state), self._calls.engine)

    def list(self, *, user: str, limit: int = 50, order: Order = "newest", cursor: str | None = None) -> ListPage[Kept]:
        """As of the service."""
        return run(self._calls.list(user, limit, order, cursor), self._calls.engine)

    def rewind(self, *, user: str | None, id: str, to: int) -> int:
        """As of the service."""
        return run(self._calls.rewind(user, id, to), self._calls.engine)

    def fork(self, *, user: str, id: str, new_id: str | None = None, at: int | None = None) -> Kept:
        """As of the service."""
        return run(self._calls.fork(user, id, new_id, at), self._calls.engine)

    def memory(self, *, user: str) -> SyncUserMemory:
        """As of the service."""
        return self._calls.memory(user).sync

    def close(self, *, user: str | None, id: str) -> bool:
        """As of the service."""
        return run(self._calls.close(user, id), self._calls.engine)

    def purge(self) -> int:
        """As of the service."""
        count = run(self._calls.purge(), self._calls.engine)
        self._calls.engine.sync.purge(MEMORY)
        return count

    def erase(self, *, user: str) -> Erased:
        """As of the service."""
        erased = run(self._calls.erase(user), self._calls.engine)
        self._calls.engine.sync.purge(MEMORY)
        return erased
