"""What a session service does, call by call: arguments are checked at once, and the rest is a plan for its engine."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from dcaf.core.arguments import items_of, require, require_bool, require_function, require_random, require_text
from dcaf.core.base64url import encode
from dcaf.core.errors import (
    ConfigurationError,
    EngineError,
    SessionArchivedError,
    SessionExistsError,
    StaleSessionError,
    UnknownSessionError,
)
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.settings import require_choice
from dcaf.core.slots import RESERVED, TEMPORARY
from dcaf.engines import Engine
from dcaf.engines.memory import URL as MEMORY_URL
from dcaf.service.all_users import list_all
from dcaf.service.archiving import archive, archive_idle, restore
from dcaf.service.artifact_contents import Files
from dcaf.service.artifact_store import ArtifactStore
from dcaf.service.artifacts import NO_ARTIFACTS, Artifacts, Whose
from dcaf.service.beside import append, close, merge_into
from dcaf.service.changes import Change
from dcaf.service.checkpoints import Checkpoint, list_checkpoints, set_checkpoint
from dcaf.service.commits import STALE, Overtaken, commit, find_open_calls, log_clashes
from dcaf.service.dropping import NEVER, drop
from dcaf.service.encryption_guard import below_of
from dcaf.service.events import Event, list_events
from dcaf.service.exporting import export_app, export_session, export_user
from dcaf.service.history import HistoryPage, read_history, unpack_page
from dcaf.service.importing import Importer
from dcaf.service.journal import MOST_BYTES, Opened, TurnJournal
from dcaf.service.kept import About, Kept, require_moment
from dcaf.service.listing import ListPage, Wanted, list_sessions
from dcaf.service.memory_plans import clear_memory, drop_hidden
from dcaf.service.messages import Message, pack
from dcaf.service.places import APP, ARCHIVED, UNKNOWN, USER, Place, require_name
from dcaf.service.plans import Plan, Stream
from dcaf.service.purging import Erased, Purged, erase, purge, purge_user
from dcaf.service.quotas import UNLIMITED, Quotas, check_sessions
from dcaf.service.reading import ALL_KEYS, Read, read_session, read_shared
from dcaf.service.recent import Recent
from dcaf.service.remembered import LONGEST_TTL, SHORTEST_TTL, MemoryScope
from dcaf.service.requests import (
    CreateSessionRequest,
    DeleteSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
)
from dcaf.service.rewinding import fork, rewind, rewind_before, rewind_to_checkpoint
from dcaf.service.search import FoundMessage, search_owner, search_session
from dcaf.service.session import KeptSession, KeptState, make_session, state_of_kept
from dcaf.service.shared import pack_keys, read_keys, write_keys
from dcaf.service.tables import TABLES, Owner, app_row, app_rows
from dcaf.service.user_memory import UserMemory

OnBusy: TypeAlias = Literal["reject", "merge"]

MILLISECOND: Final = timedelta(milliseconds=1)

ID_BYTES: Final = 16
BIRTH_BYTES: Final = 8
MOST_LAST: Final = 10_000
MOST_TRIES: Final = 64
"""How often a turn is laid over a newer state, where others commit in between each time."""

NOTHING: Final = About()
MOST_KEYS: Final = 50
"""How many keys of each state a list gives along."""


class Calls:
    """The calls of a service.

    Args:
        engine, app, ttl, on_busy, last, randomness: As of ``SessionService``.
        artifacts: Where the bytes of artifacts are; None where there are none.
        quotas: How much a session and a user may have; None for no limits.

    Raises:
        ConfigurationError: A setting is wrong.

    Attributes:
        engine, app: As above.
        ttl_ms: For how long a session is kept, in milliseconds; None for ever.
        merges: Whether a turn is laid over one that was committed first.
        last: How many of its newest messages a turn behind a middleware reads.
        files: The bytes of the application's artifacts; None where there are none.
        quotas: How much a session and a user may have.
    """

    def __init__(
        self,
        engine: Engine,
        app: str,
        *,
        ttl: timedelta | None,
        on_busy: OnBusy,
        last: int,
        randomness: Callable[[int], bytes],
        artifacts: ArtifactStore | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self.app: str = require_name("app=", app)
        if ttl is not None and not SHORTEST_TTL <= require("ttl=", ttl, timedelta, "a timedelta, or None") <= LONGEST_TTL:
            raise ConfigurationError("ttl= is a millisecond to a hundred years; None keeps sessions for ever.")
        self.ttl_ms: int | None = None if ttl is None else int(ttl / MILLISECOND)
        self.merges: bool = require_choice("on_busy", on_busy, ("reject", "merge")) == "merge"
        self.last: int = require_last(last)
        self._randomness = require_function("randomness=", randomness)
        self._recent = Recent[Kept]()
        self._artifacts = artifacts
        limits = require("quotas=", UNLIMITED if quotas is None else quotas, Quotas, "Quotas(sessions=100), or None")
        self.quotas: Quotas = limits
        self.use(engine)

    def use(self, engine: Engine) -> None:
        """Keep sessions in an engine from now on."""
        engine.declare(TABLES)
        self.engine: Engine = engine
        store = self._artifacts
        self.files: Files | None = None if store is None else Files(store, self.app, engine.partitions, self._random)

    def create(self, request: CreateSessionRequest) -> Plan[KeptSession]:
        """As ``SessionService.create``."""
        about, state = About.of(request.title, request.labels, request.metadata), request.state
        given = Session.from_dict(require("state=", {} if state is None else state, Mapping, "a dict of plain values"))
        return self._create(self._place(request.user, request.id), given, about)

    def open(self, user: str | None, session_id: str | None, last: int) -> Plan[KeptSession]:
        """As ``SessionService.open``."""
        place, last = self._place(user, session_id), require_last(last)
        return self._begin(place) if session_id is None else self._open(place, last)

    def get_or_create(self, user: str | None, session_id: str) -> Plan[KeptSession]:
        """As ``SessionService.get_or_create``."""
        return self._get_or_create(self._place(user, require_name("id=", session_id)))

    def messages(
        self, user: str | None, session_id: str, limit: int, *, before: int | None, after: int | None, since: datetime | None
    ) -> Plan[HistoryPage]:
        """As ``SessionService.messages``."""
        place = self._place(user, require_name("id=", session_id))
        since_ms = None if since is None else require_moment("since=", since)
        return read_history(place, limit=limit, before=before, after=after, since_ms=since_ms)

    def list_events(
        self, user: str | None, session_id: str, limit: int, before: str | None, after: str | None
    ) -> Plan[ListPage[Event]]:
        """As ``SessionService.list_events``."""
        place = self._place(user, require_name("id=", session_id))
        return list_events(place, limit=limit, before=before, after=after)

    def search(self, query: str, user: str | None, session_id: str | None, limit: int) -> Plan[builtins.list[FoundMessage]]:
        """As ``SessionService.search``."""
        if session_id is not None:
            return search_session(self._place(user, require_name("id=", session_id)), self.engine, query, limit)
        if user is None:
            raise ConfigurationError("An anonymous session is searched alone: search(query, user=None, id=...).")
        return search_owner(self.app, self._owner(user), self.engine, query, limit)

    def get(self, request: GetSessionRequest) -> Plan[KeptSession | None]:
        """As ``SessionService.get``."""
        return self._get(self._place(request.user, require_name("id=", request.id)))

    def save(self, session: KeptSession) -> Plan[KeptSession]:
        """As ``SessionService.save``."""
        state = state_of_kept(session)
        opened = state.opened
        if opened.app != self.app or not self._reaches(opened.engine):
            raise ConfigurationError("The session is one of another service, which saves it.")
        return self._save(self._place(opened.kept.user, opened.kept.id), session)

    def delete(self, request: DeleteSessionRequest) -> Plan[bool]:
        """As ``SessionService.delete``."""
        return drop(self._place(request.user, require_name("id=", request.id)))

    def append(self, user: str | None, session_id: str, messages: Iterable[Any]) -> Plan[int]:
        """As ``SessionService.append``."""
        given = items_of(messages)
        if given is None:
            raise ConfigurationError("messages= takes several messages: a list of them.")
        packed = [(pack(message), message.at_ms) for message in (Message.of(one, limit_bytes=MOST_BYTES) for one in given)]
        return append(self._place(user, require_name("id=", session_id)), packed, self._recent)

    def merge(self, user: str | None, session_id: str, state: Mapping[str, Any]) -> Plan[None]:
        """As ``SessionService.merge``."""
        given = Session.from_dict(None)
        given.update(require("state=", state, Mapping, "a dict of plain values"))
        values = {name: after for name, (_, after) in state_of(given).changed_values().items()}
        return merge_into(self._place(user, require_name("id=", session_id)), values)

    def get_user_state(self, user: str) -> Plan[dict[str, Any]]:
        """As ``SessionService.get_user_state``."""
        return read_keys(self._owner(user).shared_rows(ALL_KEYS), USER)

    def get_app_state(self) -> Plan[dict[str, Any]]:
        """As ``SessionService.get_app_state``."""
        return read_keys(app_rows(self.app, ALL_KEYS, partitions=self.engine.partitions), APP)

    def merge_user_state(self, user: str, state: Mapping[str, Any]) -> Plan[None]:
        """As ``SessionService.merge_user_state``."""
        return write_keys(pack_keys(USER, state), self._owner(user).shared_row)

    def merge_app_state(self, state: Mapping[str, Any]) -> Plan[None]:
        """As ``SessionService.merge_app_state``."""
        return write_keys(pack_keys(APP, state), partial(app_row, self.app, partitions=self.engine.partitions))

    def list(self, request: ListSessionsRequest) -> Plan[ListPage[Kept]]:
        """As ``SessionService.list``."""
        require_choice("order", request.order, ("newest", "oldest"))
        wanted, owner = self._wanted(request.state, request.labels, request.archived), self._owner(request.user)
        return list_sessions(owner, wanted, limit=request.limit, order=request.order, cursor=request.cursor)

    def list_all(
        self, limit: int, cursor: str | None, *, state: object, labels: Mapping[str, str] | None, archived: object
    ) -> Plan[ListPage[Kept]]:
        """As ``SessionService.list_all``."""
        return list_all(self._wanted(state, labels, archived), limit=limit, cursor=cursor)

    def rewind(self, user: str | None, session_id: str, to: int | None, checkpoint: str | None, message: int | None) -> Plan[int]:
        """As ``SessionService.rewind``."""
        place = self._place(user, require_name("id=", session_id))
        if sum(given is not None for given in (to, checkpoint, message)) != 1:
            raise ConfigurationError("rewind() takes one of to=, checkpoint= and message=.")
        if checkpoint is not None:
            return rewind_to_checkpoint(place, require_name("checkpoint=", checkpoint))
        if message is not None:
            return rewind_before(place, require("message=", message, int, "the number of a message"))
        return rewind(place, require("to=", to, int, "a number of messages"))

    def checkpoint(self, user: str | None, session_id: str, name: str) -> Plan[int]:
        """As ``SessionService.checkpoint``."""
        return set_checkpoint(self._place(user, require_name("id=", session_id)), require_name("name=", name))

    def checkpoints(self, user: str | None, session_id: str) -> Plan[builtins.list[Checkpoint]]:
        """As ``SessionService.checkpoints``."""
        return list_checkpoints(self._place(user, require_name("id=", session_id)))

    def fork(self, user: str | None, session_id: str, new_id: str | None, at: int | None) -> Plan[Kept]:
        """As ``SessionService.fork``."""
        if user is None:
            raise ConfigurationError("An anonymous session shares nothing with another, and so has no forks: give user=.")
        place, target = self._place(user, require_name("id=", session_id)), self._place(user, new_id)
        return fork(place, target, self._random(BIRTH_BYTES), at=at, ttl_ms=self.ttl_ms)

    def close(self, user: str | None, session_id: str) -> Plan[bool]:
        """As ``SessionService.close``."""
        return close(self._place(user, require_name("id=", session_id)))

    def archive(self, user: str | None, session_id: str) -> Plan[int]:
        """As ``SessionService.archive`` of one session."""
        return archive(self._place(user, require_name("id=", session_id)))

    def archive_idle(self, idle: timedelta) -> Plan[int]:
        """As ``SessionService.archive`` of all that are idle."""
        if not SHORTEST_TTL <= require("idle=", idle, timedelta, "a timedelta") <= LONGEST_TTL:
            raise ConfigurationError("idle= is a millisecond to a hundred years.")
        return archive_idle(self.app, self.engine.partitions, int(idle / MILLISECOND))

    def restore(self, user: str | None, session_id: str) -> Plan[bool]:
        """As ``SessionService.restore``."""
        return restore(self._place(user, require_name("id=", session_id)), self.ttl_ms)

    def purge(self, user: str | None, before: datetime | None) -> Plan[Purged]:
        """As ``SessionService.purge``."""
        before_ms = NEVER if before is None else max(NEVER, require_moment("before=", before))
        if user is None:
            return purge(self.app, self.engine.partitions, before_ms, self.files)
        return purge_user(self.app, self._owner(user), self.engine.partitions, before_ms, self.files)

    def erase(self, user: str) -> Plan[Erased]:
        """As ``SessionService.erase``."""
        return self._erase(self._owner(user))

    def _erase(self, owner: Owner) -> Plan[Erased]:
        count = yield from clear_memory(MemoryScope.of_user(owner))
        erased = yield from erase(self.app, owner, self.engine.partitions, self.files)
        count += yield from clear_memory(MemoryScope.of_user(owner))  # what a turn has written meanwhile
        return erased._replace(facts=erased.facts + count)

    def memory(self, user: str) -> UserMemory:
        """As ``SessionService.memory``."""
        return UserMemory(self.engine, MemoryScope.of_user(self._owner(user)))

    def artifacts(self, user: str | None, session_id: str | None) -> Artifacts:
        """As ``SessionService.artifacts``."""
        if self.files is None:
            raise ConfigurationError(NO_ARTIFACTS)
        if user is None and session_id is None:
            raise ConfigurationError("An anonymous session shares nothing with another: give id=, too.")
        name = None if user is None else require_name("user=", user)
        found = "" if session_id is None else require_name("id=", session_id)
        owner = Owner(self.app, name, found, partitions=self.engine.partitions)
        return Artifacts(self.engine, self.files, Whose(self.files.app, owner, found or None))

    def _reaches(self, engine: Engine) -> bool:
        """Whether an engine keeps the rows that this service's does; each engine in memory has rows of its own."""
        return below_of(engine) is below_of(self.engine) or (engine.url == self.engine.url != MEMORY_URL)

    def _random(self, number: int) -> bytes:
        return require_random(self._randomness, number)

    def _wanted(self, state: object, labels: Mapping[str, str] | None, archived: object) -> Wanted:
        """Which sessions a list is to have, and what of their states."""
        found, is_archived = About.of(None, labels, None).labels, require_bool("archived=", archived)
        return Wanted(self.app, self.engine.partitions, require_keys("state=", state), found, is_archived)

    def _owner(self, user: str) -> Owner:
        return Owner(self.app, require_name("user=", user), partitions=self.engine.partitions)

    def _begin(self, place: Place, about: About = NOTHING) -> Plan[KeptSession]:
        """A new session, with what it shares with others.

        Raises:
            QuotaExceededError: Its user may not have one more.
        """
        read = yield from read_shared(place)
        check_sessions(place.quotas, read.owned)
        return self._start(place, about, read)

    def _create(self, place: Place, given: Session, about: About) -> Plan[KeptSession]:
        session = yield from self._begin(place, about)
        session.update(given)
        return (yield from self._save(place, session))

    def _open(self, place: Place, last: int) -> Plan[KeptSession]:
        session = yield from self._get(place, last)
        if session is None:
            raise UnknownSessionError(UNKNOWN)
        if state_of_kept(session).opened.kept.archived_at is not None:
            raise SessionArchivedError(ARCHIVED)
        return session

    def _get(self, place: Place, last: int = 0) -> Plan[KeptSession | None]:
        read = yield from read_session(place, last=last)
        return None if read is None or read.kept is None else self._make(place, read.kept, read)

    def _get_or_create(self, place: Place) -> Plan[KeptSession]:
        while True:
            found = yield from self._get(place)
            if found is not None:
                return found
            try:
                return (yield from self._save(place, (yield from self._begin(place))))
            except SessionExistsError:  # somebody else has made it meanwhile
                continue

    def _save(self, place: Place, session: KeptSession) -> Plan[KeptSession]:
        """Commit what was done to a session; where another one came first, lay it over that, if it is to be merged."""
        state, clashes = state_of_kept(session), 0
        for _ in range(MOST_TRIES):
            frozen, change = state.find_change(self.ttl_ms)
            if change.is_empty and state.opened.kept.revision:
                return session
            try:
                committed = yield from commit(place, state.opened.kept, change, state.opened.now_ms)
            except StaleSessionError:
                if not self.merges:
                    raise
                clashes += yield from self._catch_up(place, state, change)
            except Overtaken:
                clashes += yield from self._catch_up(place, state, change)
            else:
                log_clashes(clashes + committed.clashes)
                state.take_committed(committed.kept, committed.laid, frozen, change)
                if committed.failed is not None:
                    raise committed.failed
                with suppress(EngineError):  # the turn is committed; whoever clears next drops what is left
                    yield from drop_hidden(change.memory)
                return session
        raise StaleSessionError(STALE)

    def _catch_up(self, place: Place, state: KeptState, change: Change) -> Plan[int]:
        """Lay a turn over the newer state; returns at how many keys another one's change was given up for the turn's."""
        read = yield from read_session(place)
        if read is None or read.kept is None or read.kept.birth != state.opened.kept.birth:
            raise UnknownSessionError(UNKNOWN)
        find_open_calls(read.kept, change)
        clashes = state.rebase(read.payload)
        state.opened.kept, state.opened.now_ms = read.kept, read.now_ms
        return len(clashes)

    def _place(self, user: str | None, session_id: str | None) -> Place:
        found = encode(self._random(ID_BYTES)) if session_id is None else require_name("id=", session_id)
        name = None if user is None else require_name("user=", user)
        return self.place_of(name, found)

    def _start(self, place: Place, about: About, read: Read) -> KeptSession:
        """A session that is not kept yet."""
        return self._make(place, self.make_kept(place, read.now_ms, about), read)

    def place_of(self, user: str | None, session_id: str) -> Place:
        """Where a session lies."""
        owner = Owner(self.app, user, session_id, partitions=self.engine.partitions)
        return Place(self.app, owner, session_id, self.engine.partitions, self.files, self.quotas)

    def make_kept(self, place: Place, now_ms: int, about: About = NOTHING) -> Kept:
        """What is known of a session that is not kept yet."""
        return Kept.new(place.id, place.owner.user, self._random(BIRTH_BYTES), about, now_ms)

    def _make(self, place: Place, kept: Kept, read: Read) -> KeptSession:
        opened = Opened(kept, self.app, self.engine, read.now_ms, unpack_page(read.messages), self.files, self.quotas)
        return make_session(TurnJournal.of(opened, place.owner), read.payload)

    def export(self, user: str | None, session_id: str | None) -> Stream[None]:
        """As ``SessionService.export``."""
        if session_id is not None:
            return export_session(self._place(user, session_id))
        partitions = self.engine.partitions
        return export_app(self.app, partitions) if user is None else export_user(self.app, self._owner(user), partitions)

    def begin_import(self, replace: object) -> Importer:
        """What takes the lines of ``SessionService.import_lines``."""
        replaces = require_bool("replace=", replace)
        return Importer(self.app, self.engine.partitions, self._place, lambda: self._random(BIRTH_BYTES), replaces=replaces)


def require_last(last: object) -> int:
    """Require a number of newest messages to read.

    Raises:
        ConfigurationError: It is not 0 to 10,000.
    """
    if not 0 <= (found := require("last=", last, int, "a number of messages, 0 or more")) <= MOST_LAST:
        raise ConfigurationError(f"last= is 0 to {MOST_LAST} messages.")
    return found


def require_keys(argument: str, keys: object) -> tuple[str, ...]:
    """Require some keys of states, each once, in their order.

    Raises:
        ConfigurationError: It is something else, there are more than 50, or one is never kept.
    """
    found = None if isinstance(keys, str) else items_of(keys)
    if found is None or len(found) > MOST_KEYS:
        raise ConfigurationError(f'{argument} takes keys of the states, at most {MOST_KEYS}: ("step", "user:theme").')
    names = tuple(dict.fromkeys(require_text(f"A key of {argument}", name, "a key of a state") for name in found))
    if any(name.startswith(TEMPORARY) or name == RESERVED for name in names):
        raise ConfigurationError(f"{argument} takes keys that are kept, and no {TEMPORARY} key is.")
    return names
