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
import time
from collections.abc import Callable, Mapping
from contextvars import Token
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal

import anyio

from dcaf.core.arguments import require, require_clock, require_function, require_text
from dcaf.core.base64url import Payload, encode
from dcaf.core.context import begin, end
from dcaf.core.errors import ConfigurationError, StaleSessionError, UnknownSessionError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.settings import require_choice
from dcaf.engines import Engine, open_engine
from dcaf.service.commits import STALE, UNKNOWN, Place, commit, drop, read_session, read_shared
from dcaf.service.kept import About, Kept
from dcaf.service.plans import Plan, run, run_async
from dcaf.service.session import KeptSession, KeptState, make_session, state_of_kept
from dcaf.service.tables import TABLES, Owner

OnBusy = Literal["reject", "merge"]

ID_BYTES: Final = 16
BIRTH_BYTES: Final = 8
MOST_NAME_CHARACTERS: Final = 256
MOST_TRIES: Final = 64
"""How often a turn is laid over a newer state, where others commit in between each time."""

EMPTY: Final = Payload(b"{}")


class SessionService:
    """Keeps sessions in an engine.

    Args:
        engine: Where: a url as ``open_engine`` takes it, or an engine.
        app: The application. Two of them on one engine share nothing.
        ttl: For how long a session is kept after its last commit; None for ever.
        on_busy: What a turn gets whose session another one has committed meanwhile: ``"reject"`` raises StaleSessionError,
            ``"merge"`` lays it over the newer state.
        clock: Returns seconds since the epoch, for the place of new sessions in lists; all else goes by the engine's clock.
        randomness: That many random bytes, for ids.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.

    Attributes:
        engine: The engine.
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
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.engine: Engine = open_engine(engine) if isinstance(engine, str) else engine
        self._plans = _Plans(self.engine, app, ttl=ttl, on_busy=on_busy, clock=clock, randomness=randomness)
        self.app: str = self._plans.app
        self.sync: SyncSessionService = SyncSessionService(self._plans)

    def __repr__(self) -> str:
        return f"<SessionService {self.app!r} {self.engine.url}>"

    def open(self, *, user: str | None, id: str | None = None) -> ServiceTurn:  # noqa: A002 - the name that its callers know
        """One turn of a session, as ``async with sessions.open(...) as session``.

        Args:
            user: Whose it is; None for an anonymous one.
            id: Its id; None makes a new session.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.

        Raises, when the block begins:
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.

        Raises, when it ends:
            StaleSessionError: Another one has committed the session since the block began.
            UnknownSessionError: It was deleted meanwhile.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        return ServiceTurn(self._plans, user, id)

    async def create(
        self,
        *,
        user: str | None,
        id: str | None = None,  # noqa: A002
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
            labels: Texts by which it can be found.
            metadata: What else is to be known of it; plain JSON.

        Raises:
            SessionExistsError: There is one of this id.
            SessionValueError: A value may not be stored.
            ConfigurationError: An argument is wrong.
            EngineError: The engine failed.
        """
        return await run_async(self._plans.create(user, id, state, About.of(title, labels, metadata)), self.engine)

    async def get(self, *, user: str | None, id: str) -> KeptSession | None:  # noqa: A002
        """A session as it is now; None where there is none, or it is another user's.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed.
        """
        return await run_async(self._plans.get(user, id), self.engine)

    async def save(self, session: KeptSession) -> None:
        """Commit what was done to a session that ``get`` or ``create`` returned.

        Raises:
            StaleSessionError: Another one has committed it since.
            UnknownSessionError: It was deleted meanwhile.
            ConfigurationError: It is no session of this service.
            EngineError: The engine failed.
        """
        with anyio.CancelScope(shield=True):
            await run_async(self._plans.save(session), self.engine)

    async def delete(self, *, user: str | None, id: str) -> bool:  # noqa: A002
        """Delete a session; False where there is none.

        What it shared with others stays: the ``user:`` and ``app:`` keys.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed. The session may be gone, and some of its rows still there; call again.
        """
        return await run_async(self._plans.delete(user, id), self.engine)

    async def aclose(self) -> None:
        """Finish what was begun, and let go of the engine."""
        await self.engine.aclose()


class SyncSessionService:
    """The methods of a service for code that runs on no event loop. They block.

    Args:
        plans: What the service does.
    """

    def __init__(self, plans: _Plans) -> None:
        self._plans = plans

    def open(self, *, user: str | None, id: str | None = None) -> ServiceTurn:  # noqa: A002
        """As of the service, as ``with sessions.sync.open(...) as session``."""
        return ServiceTurn(self._plans, user, id)

    def create(
        self,
        *,
        user: str | None,
        id: str | None = None,  # noqa: A002
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession:
        """As of the service."""
        return run(self._plans.create(user, id, state, About.of(title, labels, metadata)), self._plans.engine)

    def get(self, *, user: str | None, id: str) -> KeptSession | None:  # noqa: A002
        """As of the service."""
        return run(self._plans.get(user, id), self._plans.engine)

    def save(self, session: KeptSession) -> None:
        """As of the service."""
        run(self._plans.save(session), self._plans.engine)

    def delete(self, *, user: str | None, id: str) -> bool:  # noqa: A002
        """As of the service."""
        return run(self._plans.delete(user, id), self._plans.engine)

    def close(self) -> None:
        """As ``aclose`` of the service."""
        self._plans.engine.sync.close()


class ServiceTurn:
    """One turn of a kept session, with ``async with`` or ``with``. Inside the block ``current_session()`` is its session.

    Args:
        plans: What the service does.
        user: Whose session it is.
        session_id: Its id; None for a new one.
    """

    def __init__(self, plans: _Plans, user: str | None, session_id: str | None) -> None:
        self._plans = plans
        self._opening = plans.open(user, session_id)
        self._session: KeptSession | None = None
        self._before: Token[Session] | None = None

    async def __aenter__(self) -> KeptSession:
        return self._begin(await run_async(self._opening, self._plans.engine))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._leave()
        if error is None:
            with anyio.CancelScope(shield=True):
                await run_async(self._plans.save(session), self._plans.engine)
        state_of(session).end(_ignore_late)

    def __enter__(self) -> KeptSession:
        return self._begin(run(self._opening, self._plans.engine))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        session = self._leave()
        if error is None:
            run(self._plans.save(session), self._plans.engine)
        state_of(session).end(_ignore_late)

    def _begin(self, session: KeptSession) -> KeptSession:
        self._session, self._before = session, begin(session)
        return session

    def _leave(self) -> KeptSession:
        assert self._session is not None
        assert self._before is not None
        end(self._before)
        return self._session


class _Plans:
    """What a service does, as plans."""

    def __init__(
        self,
        engine: Engine,
        app: str,
        *,
        ttl: timedelta | None,
        on_busy: OnBusy,
        clock: Callable[[], float],
        randomness: Callable[[int], bytes],
    ) -> None:
        self.engine = engine
        self.app = require_name("app=", app)
        if ttl is not None and require("ttl=", ttl, timedelta, "a timedelta, or None") <= timedelta():
            raise ConfigurationError("ttl= is longer than none, for instance timedelta(days=30); None keeps sessions for ever.")
        self._ttl_ms = None if ttl is None else int(ttl / timedelta(milliseconds=1))
        self._merges = require_choice("on_busy", on_busy, ("reject", "merge")) == "merge"
        self._clock = require_clock("clock=", clock)
        self._randomness = require_function("randomness=", randomness)
        engine.declare(TABLES)

    def create(self, user: str | None, session_id: str | None, state: Mapping[str, Any] | None, about: About) -> Plan[KeptSession]:
        place = self._place(user, session_id)
        session = self._start(place, about, EMPTY)
        session.update({} if state is None else require("state=", state, Mapping, "a dict of plain values"))
        return self._save(place, session)

    def open(self, user: str | None, session_id: str | None) -> Plan[KeptSession]:
        place = self._place(user, session_id)
        return self._begin(place) if session_id is None else self._open(place)

    def get(self, user: str | None, session_id: str) -> Plan[KeptSession | None]:
        return self._get(self._place(user, require_name("id=", session_id)))

    def save(self, session: KeptSession) -> Plan[KeptSession]:
        kept = state_of_kept(session).kept
        return self._save(self._place(kept.user, kept.id), session)

    def delete(self, user: str | None, session_id: str) -> Plan[bool]:
        return drop(self._place(user, require_name("id=", session_id)))

    def _begin(self, place: Place) -> Plan[KeptSession]:
        """A new session, with what it shares with others."""
        read = yield from read_shared(place)
        return self._start(place, About(), read.payload)

    def _open(self, place: Place) -> Plan[KeptSession]:
        session = yield from self._get(place)
        if session is None:
            raise UnknownSessionError(UNKNOWN)
        return session

    def _get(self, place: Place) -> Plan[KeptSession | None]:
        read = yield from read_session(place)
        return None if read is None or read.kept is None else make_session(read.kept, read.payload, read.now_ms)

    def _save(self, place: Place, session: KeptSession) -> Plan[KeptSession]:
        """Commit what was done to a session; where another one came first, lay it over that, if it is to be merged."""
        state = state_of_kept(session)
        for _ in range(MOST_TRIES):
            frozen, change = state.find_change(self._ttl_ms)
            if change.is_empty and state.kept.revision:
                return session
            try:
                state.take_committed((yield from commit(place, state.kept, change, state.now_ms)), frozen, change)
            except StaleSessionError:
                if not self._merges:
                    raise
                yield from self._catch_up(place, state)
            else:
                return session
        raise StaleSessionError(STALE)

    def _catch_up(self, place: Place, state: KeptState) -> Plan[None]:
        read = yield from read_session(place)
        if read is None or read.kept is None:
            raise UnknownSessionError(UNKNOWN)
        state.rebase(read.payload)
        state.kept, state.now_ms = read.kept, read.now_ms

    def _place(self, user: str | None, session_id: str | None) -> Place:
        found = encode(self._randomness(ID_BYTES)) if session_id is None else require_name("id=", session_id)
        name = None if user is None else require_name("user=", user)
        owner = Owner(self.app, name, found, partitions=self.engine.partitions)
        return Place(self.app, owner, found, self.engine.partitions)

    def _start(self, place: Place, about: About, shared: Payload) -> KeptSession:
        """A session that is not kept yet."""
        now_ms = int(self._clock() * 1000)
        return make_session(Kept.new(place.id, place.owner.user, self._randomness(BIRTH_BYTES), about, now_ms), shared, now_ms)


def require_name(argument: str, name: str) -> str:
    """Require the name of an application, a user or a session.

    Raises:
        ConfigurationError: It is empty, too long, or no text that UTF-8 can say.
    """
    found = require_text(argument, name, "and not an empty one")
    if not 0 < len(found) <= MOST_NAME_CHARACTERS:
        raise ConfigurationError(f"{argument} is a text of 1 to {MOST_NAME_CHARACTERS} characters.")
    return found


def _ignore_late() -> None:
    """A late write raises where it is made, and nothing else happens."""
