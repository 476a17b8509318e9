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

import builtins
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from dcaf.core.arguments import require
from dcaf.core.context import current_session
from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Keyring
from dcaf.core.store import StoreSettings
from dcaf.engines import Engine, MemoryEngine
from dcaf.engines.opening import require_engine
from dcaf.ledger import Ledger
from dcaf.ledger.settings import require_encryption
from dcaf.service.app_documents import AppDocuments
from dcaf.service.artifact_store import ArtifactStore
from dcaf.service.artifacts import Artifacts
from dcaf.service.blocks import Imported
from dcaf.service.calls import Calls, OnBusy
from dcaf.service.checkpoints import Checkpoint
from dcaf.service.encryption import EncryptedEngine, Reencrypted, plan_reencryption, require_encrypted
from dcaf.service.encryption_guard import PlainEngine, below_of, guard
from dcaf.service.encryption_layout import NO_FILES
from dcaf.service.events import Event
from dcaf.service.exporting import stream_async
from dcaf.service.history import HistoryPage
from dcaf.service.importing import import_lines_async, require_lines
from dcaf.service.kept import Kept
from dcaf.service.listing import ListPage, Order
from dcaf.service.plans import Plan, run_async, run_to_end
from dcaf.service.purging import Erased, Purged
from dcaf.service.quotas import Quotas
from dcaf.service.requests import (
    MISSING,
    CreateSessionRequest,
    DeleteSessionRequest,
    GetSessionRequest,
    Given,
    ListSessionsRequest,
    take,
)
from dcaf.service.resuming import give_way, plan_resume
from dcaf.service.search import FoundMessage
from dcaf.service.session import KeptSession
from dcaf.service.store import LEVEL, ServiceStore
from dcaf.service.sync_service import SyncSessionService, plan_archive
from dcaf.service.tables import DOCUMENTS, MEMORY
from dcaf.service.turns import ServiceTurn
from dcaf.service.user_memory import UserMemory

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

RING: Final = "the Keyring that encrypts, for instance Keyring.from_environment(), or None"
ANOTHERS: Final = "The engine encrypts what another application keeps. Give app= its name, or make an EncryptedEngine for this one."

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
        last: How many of its newest messages a turn behind a middleware reads, 0 to 10,000: what a tool finds in ``Messages``, and
            an agent with ``history="server"`` reads. ``open`` has an argument of its own.
        ledger: For a service behind a middleware, which token of a session is the newest, who holds it, and what was used up: a
            Ledger on the same engine, with settings of its own; None for one with the defaults.
        encrypt: The ring under whose keys everything is encrypted that is kept; None keeps it as it is. Both cannot be changed for
            sessions that are there.
        randomness: That many random bytes, for ids.
        artifacts: Where the bytes of the sessions' files are: a url such as ``file:///var/lib/clinic/files``, ``s3://bucket/prefix``
            or ``memory://``, a store of obstore, or an ArtifactStore; None for a service without files.
        quotas: How many messages a session may have, and how many sessions a user; None for no limits. Give each process of an
            application the same.

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
        last: int = 50,
        ledger: Ledger | None = None,
        encrypt: Keyring | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        artifacts: ArtifactStore | ObjectStore | str | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self._encrypt = encrypt
        self._url = engine if isinstance(engine, str) else None
        found = self._open_engine(engine, app)
        store = None if artifacts is None else ArtifactStore.of(artifacts)
        if store is not None and isinstance(found, EncryptedEngine):
            raise ConfigurationError(NO_FILES)
        self._calls = Calls(
            guard(found, app), app, ttl=ttl, on_busy=on_busy, last=last, randomness=randomness, artifacts=store, quotas=quotas
        )
        self._ledger = _check_ledger(ledger, found)
        self.level: str = LEVEL
        self.app: str = self._calls.app
        self.sync: SyncSessionService = SyncSessionService(self._calls)

    def __repr__(self) -> str:
        return f"<SessionService {self.app!r} {self.engine.url}>"

    @property
    def engine(self) -> Engine:
        """The engine; with ``encrypt=`` one over it that encrypts, which another service of this application can be given."""
        found = self._calls.engine
        return found.below if isinstance(found, PlainEngine) else found

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
        engine = self._calls.engine
        if self._url is None or isinstance(below_of(engine), MemoryEngine):
            return
        self._calls.use(guard(self._open_engine(self._url, self.app), self.app))
        await engine.aclose()

    def _open_engine(self, engine: Engine | str, app: str) -> Engine:
        """The engine that was given; one over it that encrypts, where there is a ring.

        Raises:
            ConfigurationError: It is none, or encrypts what another application keeps.
        """
        found = require_engine("SessionService()", engine)
        if self._encrypt is not None:
            return EncryptedEngine(found, app=app, keys=require("encrypt=", self._encrypt, Keyring, RING))
        if isinstance(found, EncryptedEngine) and found.app != app:
            raise ConfigurationError(ANOTHERS)
        return found

    async def resume(self, *, subject: str, id: str) -> None:
        """Have the answer of this turn carry the newest token of another session: one that its user began on another device.

        For a handler behind a middleware, or a host, with ``store=`` this service, which has found out who is calling. The session
        that the request came with stays as it was, and nothing more can be written to it; its client has the other one from then
        on. Nothing is written to that. Whoever had its token goes on with it, too, until one of the two has done a turn.

        Args:
            subject: Who is calling, as ``subject=`` of the middleware names the caller in the next turn.
            id: Of a kept session of that subject, which has had a turn behind the middleware.

        Raises:
            UnknownSessionError: The subject has no such session, or it cannot go on: it was closed, archived, revoked or logged
                out.
            StaleSessionError: A turn of it is in progress; call again.
            ConfigurationError: This is no such turn, it is another subject's, it has changed its session, or an argument is wrong.
            SessionClosedError: The turn is over, or its session was ended.
            EngineError: The engine failed.
        """
        session = current_session()
        plan = plan_resume(self._calls, session, subject, id)
        if plan is not None:
            give_way(session, subject, await run_async(plan, self._calls.engine))

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
            QuotaExceededError: The session is new, and its user may not have one more.
            SessionArchivedError: It was archived.
            EngineError: The engine failed.

        Raises, when it ends:
            StaleSessionError: Another one has committed the session since the block began, or answered a call that it answers.
            UnknownSessionError: It was deleted meanwhile.
            SessionClosedError: It was closed, or archived.
            SessionAliasError, SessionValueError: What was done to it cannot be written.
            QuotaExceededError: It would have more messages than it may have. Nothing was written.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        return ServiceTurn(self._calls, self._calls.open(user, id, last))

    @overload
    async def create(self, request: CreateSessionRequest) -> KeptSession: ...
    @overload
    async def create(
        self,
        *,
        user: str | None,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession: ...

    async def create(
        self,
        request: CreateSessionRequest | None = None,
        *,
        user: str | Given | None = MISSING,
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KeptSession:
        """Make a session.

        Args:
            request: What else would be given by name, as one object.
            user: Whose it is; None for an anonymous one.
            id: Its id; None for one that is made up.
            state: Its state; the ``user:`` and ``app:`` keys of it are shared as ever.
            title: Its title.
            labels: Texts that stand in lists.
            metadata: What else is to be known of it; plain JSON.

        Raises:
            SessionExistsError: There is one of this id.
            QuotaExceededError: The user may not have one more.
            SessionValueError: A value may not be stored.
            ConfigurationError: An argument is wrong.
            EngineError: The engine failed.
        """
        arguments = {"user": user, "id": id, "state": state, "title": title, "labels": labels, "metadata": metadata}
        wanted = take(CreateSessionRequest, request, arguments)
        return await run_to_end(self._calls.create(wanted), self._calls.engine)

    @overload
    async def get(self, request: GetSessionRequest) -> KeptSession | None: ...
    @overload
    async def get(self, *, user: str | None, id: str) -> KeptSession | None: ...

    async def get(
        self, request: GetSessionRequest | None = None, *, user: str | Given | None = MISSING, id: str | Given = MISSING
    ) -> KeptSession | None:
        """A session as it is now; None where there is none, or it is another user's. An archived one is there.

        Args:
            request: What else would be given by name, as one object.
            user: Whose it is; None for an anonymous one.
            id: Its id.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed.
        """
        wanted = take(GetSessionRequest, request, {"user": user, "id": id})
        return await run_async(self._calls.get(wanted), self._calls.engine)

    async def save(self, session: KeptSession) -> None:
        """Commit what was done to a session that ``get`` or ``create`` returned.

        Raises:
            StaleSessionError: Another one has committed it since.
            UnknownSessionError: It was deleted meanwhile.
            QuotaExceededError: It would have more messages than it may have.
            ConfigurationError: It is no session of this service.
            EngineError: The engine failed.
        """
        await run_to_end(self._calls.save(session), self._calls.engine)

    @overload
    async def delete(self, request: DeleteSessionRequest) -> bool: ...
    @overload
    async def delete(self, *, user: str | None, id: str) -> bool: ...

    async def delete(
        self, request: DeleteSessionRequest | None = None, *, user: str | Given | None = MISSING, id: str | Given = MISSING
    ) -> bool:
        """Delete a session; False where there is none.

        What it shared with others stays: the ``user:`` and ``app:`` keys, and the ``user:`` artifacts. Its own artifacts
        go with it.

        Args:
            request: What else would be given by name, as one object.
            user: Whose it is; None for an anonymous one.
            id: Its id.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed, or the store of artifacts. The session may be gone, and some of what it had still there;
                call again, or let a purge go on with it.
        """
        wanted = take(DeleteSessionRequest, request, {"user": user, "id": id})
        return await run_to_end(self._calls.delete(wanted), self._calls.engine)

    async def get_or_create(self, *, user: str | None, id: str) -> KeptSession:
        """A session as it is now; one that is made where there is none.

        Raises:
            QuotaExceededError: There is none, and the user may not have one more.
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.get_or_create(user, id), self._calls.engine)

    async def messages(
        self,
        *,
        user: str | None,
        id: str,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
        since: datetime | None = None,
    ) -> HistoryPage:
        """A page of the history of a session, oldest first.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            limit: How many messages at most, up to 1,000.
            before: Only messages before this number, the newest of them; with none of the three, the newest of all.
            after: Only messages after this number, the oldest of them.
            since: Only messages from this moment on, the oldest of them; give the last one's number as ``after`` for the next page.
                The order of the history stands: the page begins with a message of the moment or later before which older ones
                stand, and what comes behind it comes along, whatever its own time is.

        Raises:
            UnknownSessionError: There is no such session.
            ConfigurationError: An argument is wrong, ``since`` has no time zone, or several of the three are given.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.messages(user, id, limit, before=before, after=after, since=since), self._calls.engine)

    async def list_events(
        self, *, user: str | None, id: str, limit: int = 50, before: str | None = None, after: str | None = None
    ) -> ListPage[Event]:
        """A page of all that has happened to a session, oldest first: its messages, and each change of its state.

        The first entry of all is the state with which it was made. The entries of a turn stand together: its messages, then what it
        has changed. ``page.cursor`` goes on: with ``after=`` to what came later, else with ``before=`` to what came earlier; None
        where there is no more. Each entry has a cursor, too.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            limit: How many entries at most, up to 1,000.
            before: Only entries before this cursor, the newest of them; None with ``after`` None for the newest of all.
            after: Only entries after this cursor, the oldest of them.

        Raises:
            UnknownSessionError: There is no such session.
            ConfigurationError: An argument is wrong, both ``before`` and ``after`` are given, or a cursor is another session's.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.list_events(user, id, limit, before, after), self._calls.engine)

    async def search(self, query: str, *, user: str | None, id: str | None = None, limit: int = 10) -> builtins.list[FoundMessage]:
        """Messages that have any of some words, the best first: of all sessions of a user, or of one session.

        A message counts more the more of the words it has, the rarer they are, and the shorter it is. A word of three characters or
        more finds longer ones, too, that begin with it. What is committed when this begins is found. Archived sessions are not
        searched. The first search after many messages takes longer, because it indexes them.

        Args:
            query: The words, in a text of at most 1,000 characters. Whatever is no letter and no digit only stands between words; a
                text without words finds nothing.
            user: Whose sessions; None for an anonymous one, whose id is given.
            id: Of one session; None for all of the user's.
            limit: How many messages at most, up to 100.

        Raises:
            UnknownSessionError: There is no session of this id.
            SessionArchivedError: The session of this id was archived.
            ConfigurationError: An argument is wrong, or the engine cannot search: Redis cannot.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.search(query, user, id, limit), self._calls.engine)

    async def append(self, *, user: str | None, id: str, messages: Iterable[Any]) -> int:
        """Add messages to a session beside whatever turn is in progress; returns how many it has then.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            messages: The messages, each as ``Message.of`` takes it.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed, or archived.
            ConfigurationError, SessionValueError: One of them is no message, or the result of a tool that answers no open call.
            QuotaExceededError: It would have more than it may have. None was added.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.append(user, id, messages), self._calls.engine)

    async def merge(self, *, user: str | None, id: str, state: Mapping[str, Any]) -> None:
        """Write keys of a session's state beside whatever turn is in progress, which is laid over them.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            state: Key -> value; None is a value, too.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed, or archived.
            SessionValueError: A value may not be stored.
            EngineError: The engine failed.
        """
        await run_to_end(self._calls.merge(user, id, state), self._calls.engine)

    async def get_user_state(self, *, user: str) -> dict[str, Any]:
        """The ``user:`` keys that the sessions of a user share, without ``user:``; empty for a user of whom nothing is known.

        Raises:
            ConfigurationError: The user is empty, or no text that UTF-8 can say.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.get_user_state(user), self._calls.engine)

    async def get_app_state(self) -> dict[str, Any]:
        """The ``app:`` keys that all sessions of the application share, without ``app:``.

        Raises:
            EngineError: The engine failed.
        """
        return await run_async(self._calls.get_app_state(), self._calls.engine)

    async def merge_user_state(self, *, user: str, state: Mapping[str, Any]) -> None:
        """Write ``user:`` keys beside whatever turns of the user are in progress, which are laid over them.

        The user need not have a session. All of the keys are written, or none.

        Args:
            user: The user.
            state: Key without ``user:`` -> value; None is a value, too.

        Raises:
            ConfigurationError: The user is empty, or a key has a prefix such as ``user:``.
            SessionTypeError, SessionValueError: A key or a value may not be stored.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        await run_to_end(self._calls.merge_user_state(user, state), self._calls.engine)

    async def merge_app_state(self, *, state: Mapping[str, Any]) -> None:
        """Write ``app:`` keys beside whatever turns are in progress, which are laid over them. All are written, or none.

        Args:
            state: Key without ``app:`` -> value; None is a value, too.

        Raises:
            ConfigurationError: A key has a prefix such as ``app:``.
            SessionTypeError, SessionValueError: A key or a value may not be stored.
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        await run_to_end(self._calls.merge_app_state(state), self._calls.engine)

    @overload
    async def list(self, request: ListSessionsRequest) -> ListPage[Kept]: ...
    @overload
    async def list(
        self,
        *,
        user: str,
        limit: int = 50,
        order: Order = "newest",
        cursor: str | None = None,
        state: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> ListPage[Kept]: ...

    async def list(
        self,
        request: ListSessionsRequest | None = None,
        *,
        user: str | Given = MISSING,
        limit: int = 50,
        order: Order = "newest",
        cursor: str | None = None,
        state: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> ListPage[Kept]:
        """A page of the sessions of a user, by the minute in which their last committed turn began.

        Args:
            request: What else would be given by name, as one object.
            user: The user.
            limit: How many at most, up to 1,000.
            order: ``"newest"`` or ``"oldest"`` first.
            cursor: Where the page before ended (``page.cursor``); None for the first page.
            state: Keys whose values each item has in its ``state``, as far as they are there; at most 50. The ``user:`` and
                ``app:`` keys are given, too.
            labels: Only sessions that have all of these labels. A page looks at 2,000 sessions at most, so it may then be short, or
                even empty, and have a cursor all the same.
            archived: The archived sessions alone; else those that are not.

        Raises:
            ConfigurationError: An argument is wrong, or the cursor is another list's.
            EngineError: The engine failed.
        """
        arguments = {"user": user, "limit": limit, "order": order, "cursor": cursor, "state": state, "labels": labels}
        wanted = take(ListSessionsRequest, request, {**arguments, "archived": archived})
        return await run_async(self._calls.list(wanted), self._calls.engine)

    async def list_all(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        state: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> ListPage[Kept]:
        """A page of the sessions of all users, and of the anonymous ones, whose ``user`` is None.

        They are in no order of time, but always in the same one: whoever goes through all pages finds each session once that was
        there all the time. A page looks at some 2,000 sessions at most, those of other applications on the engine among them, so it
        may be short, or even empty, and have a cursor all the same.

        Args:
            limit: How many at most, up to 1,000.
            cursor: Where the page before ended (``page.cursor``); None for the first page.
            state, labels, archived: As of ``list``.

        Raises:
            ConfigurationError: An argument is wrong, or the cursor is another list's.
            EngineError: The engine failed.
        """
        plan = self._calls.list_all(limit, cursor, state=state, labels=labels, archived=archived)
        return await run_async(plan, self._calls.engine)

    @overload
    async def rewind(self, *, user: str | None, id: str, to: int) -> int: ...
    @overload
    async def rewind(self, *, user: str | None, id: str, checkpoint: str) -> int: ...
    @overload
    async def rewind(self, *, user: str | None, id: str, message: int) -> int: ...

    async def rewind(
        self, *, user: str | None, id: str, to: int | None = None, checkpoint: str | None = None, message: int | None = None
    ) -> int:
        """Take a session back; returns how many messages were dropped.

        What it shares with other sessions, its ``user:`` and ``app:`` keys, stays as it is; so do artifacts and what was
        remembered. Later checkpoints are dropped. More than 500 messages are dropped in several commits, each of which takes the
        session back a part of the way.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            to: To what it was when it reached so many messages. With 0 it has the state with which it was made.
            checkpoint: To what it was at the checkpoint of this name.
            message: To what it was before the message of this number came.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed, or archived.
            ConfigurationError: It has no such point, or not just one is given.
            EngineError: The engine failed. Where more than 500 messages are dropped, it may be taken back a part of the way; call
                again.
        """
        return await run_to_end(self._calls.rewind(user, id, to, checkpoint, message), self._calls.engine)

    async def checkpoint(self, *, user: str | None, id: str, name: str) -> int:
        """Give a session as it is a name, to which ``rewind(checkpoint=name)`` takes it back; returns how many messages it has.

        It takes the place of an older one of its name. ``session.checkpoint(name)`` does it within a turn.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            name: The name.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed, or archived.
            ConfigurationError: The name is no text of 1 to 256 characters.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.checkpoint(user, id, name), self._calls.engine)

    async def checkpoints(self, *, user: str | None, id: str) -> builtins.list[Checkpoint]:
        """The checkpoints of a session, oldest first.

        Raises:
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.
        """
        return await run_async(self._calls.checkpoints(user, id), self._calls.engine)

    async def fork(self, *, user: str, id: str, new_id: str | None = None, at: int | None = None) -> Kept:
        """Begin another session of the same user with the state, the messages and copies of the artifacts of this one, which stays.

        Args:
            user: Whose session it is.
            id: Its id.
            new_id: The id of the other; None for one that is made up.
            at: As ``to`` of ``rewind``, for the other; None for all.

        Raises:
            UnknownSessionError: There is no such session.
            SessionClosedError: It was closed, or archived.
            SessionExistsError: There is one of the new id.
            QuotaExceededError: The user may not have one more.
            StaleSessionError: A turn of the session was committed meanwhile; call again.
            ConfigurationError: It has not so many messages, or there is no user.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.fork(user, id, new_id, at), self._calls.engine)

    async def close(self, *, user: str | None, id: str) -> bool:
        """Close a session for writing; False where that was done before. It can still be read.

        Raises:
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.close(user, id), self._calls.engine)

    @overload
    async def archive(self, *, user: str | None, id: str) -> int: ...
    @overload
    async def archive(self, *, idle: timedelta) -> int: ...

    async def archive(
        self, *, user: str | Given | None = MISSING, id: str | Given = MISSING, idle: timedelta | Given = MISSING
    ) -> int:
        """Archive a session, or all that are idle; returns how many sessions that were.

        An archived session keeps everything, and can be read; but it cannot be written until it is restored, and stands in no list
        but that of ``list(archived=True)``. It does not end by itself, whatever ``ttl=`` says.

        Args:
            user: Whose session it is; None for an anonymous one.
            id: Its id.
            idle: All sessions of the application that were not committed for so long.

        Raises:
            UnknownSessionError: There is no such session.
            ConfigurationError: An argument is wrong, or it is not clear which sessions are meant.
            EngineError: The engine failed; with ``idle``, some may be archived.
        """
        return await run_to_end(plan_archive(self._calls, user, id, idle), self._calls.engine)

    async def restore(self, *, user: str | None, id: str) -> bool:
        """Take a session out of the archive; False where it is not in it. Its time to live begins anew.

        Raises:
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.
        """
        return await run_to_end(self._calls.restore(user, id), self._calls.engine)

    async def purge(self, *, user: str | None = None, before: datetime | None = None) -> Purged:
        """Drop sessions that have ended, and what is left of deleted ones; returns what that was.

        Where the service has artifacts, it also drops what is left of saves that broke off more than a day ago. For that the purge
        of the whole application reads the list of all objects of their store.

        Args:
            user: Those of this user alone; None for those of the whole application.
            before: Also drop those that were committed last before this moment, archived or not; None for none of them.

        Raises:
            ConfigurationError: The user is empty, or the moment has no time zone, or there are artifacts to drop and the service
                does not know where.
            EngineError: The engine failed; call again.
        """
        return await self._drop(self._calls.purge(user, before))

    async def erase(self, *, user: str) -> Erased:
        """Drop all sessions of a user, archived ones too, what they shared, what was remembered, and all artifacts.

        Returns what that was.

        Raises:
            ConfigurationError: The user is empty, or no text that UTF-8 can say, or there are artifacts and the service does not
                know where.
            EngineError: The engine failed; call again.
        """
        return await self._drop(self._calls.erase(user))

    async def reencrypt(self) -> Reencrypted:
        """Encrypt everything anew that is not under the key that encrypts now; returns how much that was.

        Turns may go on meanwhile. When it has come to its end, with ``refused`` 0, the older keys can be taken out of the ring, as
        soon as no process encrypts with one of them any more.

        Raises:
            ConfigurationError: The service does not encrypt.
            SealedRowError: The application's key of names cannot be opened.
            EngineError: The engine failed. A part may be done; call again.
        """
        engine = require_encrypted(self._calls.engine)
        return await run_async(plan_reencryption(engine), engine.below)

    def memory(self, *, user: str) -> UserMemory:
        """What a user remembers, outside of a turn.

        Raises:
            ConfigurationError: The user is empty, or no text that UTF-8 can say.
        """
        return self._calls.memory(user)

    @property
    def documents(self) -> AppDocuments:
        """Documents of the application, which belong to no session and no user."""
        return AppDocuments(self._calls.engine, self.app)

    def artifacts(self, *, user: str | None, id: str | None = None) -> Artifacts:
        """The files of a session outside of a turn, or those that all sessions of a user share.

        Args:
            user: Whose; None for an anonymous session.
            id: Of the session; None for the names alone that begin with ``user:``.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say, or the service keeps no artifacts.
        """
        return self._calls.artifacts(user, id)

    async def aclose(self) -> None:
        """Finish what was begun, and close the engine, also one that others use."""
        await self.engine.aclose()

    async def _drop(self, plan: Plan[T]) -> T:
        """Do what drops rows, and drop facts and documents that have ended, which no plan reads any more."""
        found = await run_async(plan, self._calls.engine)
        for table in (MEMORY, DOCUMENTS):
            await self._calls.engine.purge(table)
        return found

    def export(self, *, user: str | None = None, id: str | None = None) -> AsyncIterator[bytes]:
        """Write sessions as lines, as ``async for line in sessions.export()``: JSON, in UTF-8, each with its end.

        One session comes alone; with all of a user's comes what they share, and with all of the application what all share. A user
        who has no session is not found by an export of all: ask for that user.

        Args:
            user: Whose; None for everybody's, and with an id for an anonymous session.
            id: Of one session; None for all.

        Raises:
            ConfigurationError: User or id is empty, or no text that UTF-8 can say.

        Raises, while it is read:
            UnknownSessionError: There is no such session.
            StaleSessionError: A session was rewound again and again while it was read.
            ConfigurationError: A row is longer than a line may be.
            EngineError: The engine failed.
        """
        return stream_async(self._calls.export(user, id), self._calls.engine)

    async def import_lines(self, lines: Iterable[bytes | str] | AsyncIterable[bytes | str], *, replace: bool = False) -> Imported:
        """Make the sessions of an export.

        An error ends it. The sessions of the lines before stay, and of the one that it is about there is nothing.

        Args:
            lines: Those of ``export``, one after the other, each with its end or without: an open file, for instance.
            replace: Whether a session, a shared key or a fact takes the place of one that is there. Else a session of the same id
                ends the import, and shared keys and facts that are there stay as they are.

        Raises:
            SessionExistsError: There is a session of the same id.
            StaleSessionError: Somebody else made or dropped a session of the same id meanwhile; import again.
            QuotaExceededError: A session has more messages than it may have, or a user more sessions. Whoever brings a whole
                application back does it with a service without quotas.
            SessionValueError: A value may not be stored; the message has the number of the line.
            ConfigurationError: These are not the lines of an export of this application, and of this version of its format, or
                one is too long; the message has the number of the line.
            EngineError: The engine failed. What was half made is gone with the next purge.
        """
        given = require_lines(lines, is_async=True)
        return await import_lines_async(self._calls.begin_import(replace), given, self._calls.engine)


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
    require_encryption("A session service behind a middleware", "")
    return Ledger(engine, audience=settings.audience, absolute_timeout=settings.absolute_timeout)


def _check_ledger(ledger: Ledger | None, engine: Engine) -> Ledger | None:
    if isinstance(engine, EncryptedEngine) and isinstance(ledger, Ledger) and ledger.engine is engine.below:
        raise ConfigurationError(
            "With encrypt= the ledger needs the engine that encrypts, too: engine = EncryptedEngine(url, app=..., keys=ring), "
            "SessionService(engine, app=..., ledger=Ledger(engine, ...)), without encrypt=."
        )
    if ledger is not None and require("ledger=", ledger, Ledger, "a Ledger, or None").engine is not engine:
        raise ConfigurationError(
            "ledger= is a Ledger on the same engine: make that first, and give it to both: "
            "SessionService(engine, ledger=Ledger(engine, ...))."
        )
    if ledger is not None and (ledger.terms.branches or not ledger.terms.freshness):
        raise ConfigurationError(
            "ledger= is one that knows the newest token of each session, and has one turn at a time: leave out freshness=False and "
            "branches=True."
        )
    return ledger
