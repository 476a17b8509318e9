"""What a session service does, call by call: arguments are checked at once, and the rest is a plan for its engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from dcaf.core.arguments import items_of, require, require_function, require_random, require_text
from dcaf.core.base64url import encode
from dcaf.core.errors import ConfigurationError, EngineError, SessionExistsError, StaleSessionError, UnknownSessionError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.settings import require_choice
from dcaf.engines import Engine
from dcaf.engines.memory import URL as MEMORY_URL
from dcaf.service.beside import append, close, merge_into
from dcaf.service.commits import STALE, Overtaken, commit
from dcaf.service.dropping import drop
from dcaf.service.history import HistoryPage, read_history, unpack_page
from dcaf.service.journal import MOST_BYTES, Opened, TurnJournal
from dcaf.service.kept import About, Kept
from dcaf.service.listing import Erased, ListPage, Order, erase, list_sessions, purge
from dcaf.service.memory import LONGEST_TTL, SHORTEST_TTL
from dcaf.service.memory_plans import clear_memory, drop_hidden
from dcaf.service.messages import Message, pack
from dcaf.service.places import UNKNOWN, Place
from dcaf.service.plans import Plan
from dcaf.service.reading import Read, read_session, read_shared
from dcaf.service.remembered import MemoryScope
from dcaf.service.rewinding import fork, rewind
from dcaf.service.session import KeptSession, KeptState, make_session, state_of_kept
from dcaf.service.tables import TABLES, Owner
from dcaf.service.user_memory import UserMemory

OnBusy: TypeAlias = Literal["reject", "merge"]

ID_BYTES: Final = 16
BIRTH_BYTES: Final = 8
MOST_NAME_CHARACTERS: Final = 256
MOST_LAST: Final = 10_000
MOST_TRIES: Final = 64
"""How often a turn is laid over a newer state, where others commit in between each time."""

NOTHING: Final = About()


class Calls:
    """The calls of a service.

    Args:
        engine, app, ttl, on_busy, randomness: As of ``SessionService``.

    Raises:
        ConfigurationError: A setting is wrong.

    Attributes:
        engine, app: As above.
        ttl_ms: For how long a session is kept, in milliseconds; None for ever.
        merges: Whether a turn is laid over one that was committed first.
    """

    def __init__(
        self,
        engine: Engine,
        app: str,
        *,
        ttl: timedelta | None,
        on_busy: OnBusy,
        randomness: Callable[[int], bytes],
    ) -> None:
        self.app: str = require_name("app=", app)
        if ttl is not None and not SHORTEST_TTL <= require("ttl=", ttl, timedelta, "a timedelta, or None") <= LONGEST_TTL:
            raise ConfigurationError("ttl= is a millisecond to a hundred years; None keeps sessions for ever.")
        self.ttl_ms: int | None = None if ttl is None else int(ttl / timedelta(milliseconds=1))
        self.merges: bool = require_choice("on_busy", on_busy, ("reject", "merge")) == "merge"
        self._randomness = require_function("randomness=", randomness)
        self.use(engine)

    def use(self, engine: Engine) -> None:
        """Keep sessions in an engine from now on."""
        engine.declare(TABLES)
        self.engine: Engine = engine

    def create(self, user: str | None, session_id: str | None, state: Mapping[str, Any] | None, about: About) -> Plan[KeptSession]:
        """As ``SessionService.create``."""
        given = Session.from_dict(require("state=", {} if state is None else state, Mapping, "a dict of plain values"))
        return self._create(self._place(user, session_id), given, about)

    def open(self, user: str | None, session_id: str | None, last: int) -> Plan[KeptSession]:
        """As ``SessionService.open``."""
        place = self._place(user, session_id)
        if not 0 <= require("last=", last, int, "a number of messages, 0 or more") <= MOST_LAST:
            raise ConfigurationError(f"last= is 0 to {MOST_LAST} messages.")
        return self._begin(place) if session_id is None else self._open(place, last)

    def get_or_create(self, user: str | None, session_id: str) -> Plan[KeptSession]:
        """As ``SessionService.get_or_create``."""
        return self._get_or_create(self._place(user, require_name("id=", session_id)))

    def messages(self, user: str | None, session_id: str, limit: int, before: int | None, after: int | None) -> Plan[HistoryPage]:
        """As ``SessionService.messages``."""
        place = self._place(user, require_name("id=", session_id))
        return read_history(place, limit=limit, before=before, after=after)

    def get(self, user: str | None, session_id: str) -> Plan[KeptSession | None]:
        """As ``SessionService.get``."""
        return self._get(self._place(user, require_name("id=", session_id)))

    def save(self, session: KeptSession) -> Plan[KeptSession]:
        """As ``SessionService.save``."""
        state = state_of_kept(session)
        opened = state.opened
        if opened.app != self.app or not self._reaches(opened.engine):
            raise ConfigurationError("The session is one of another service, which saves it.")
        return self._save(self._place(opened.kept.user, opened.kept.id), session)

    def delete(self, user: str | None, session_id: str) -> Plan[bool]:
        """As ``SessionService.delete``."""
        return drop(self._place(user, require_name("id=", session_id)))

    def append(self, user: str | None, session_id: str, messages: Iterable[Any]) -> Plan[int]:
        """As ``SessionService.append``."""
        given = items_of(messages)
        if given is None:
            raise ConfigurationError("messages= takes several messages: a list of them.")
        packed = [(pack(message), message.at_ms) for message in (Message.of(one, limit_bytes=MOST_BYTES) for one in given)]
        return append(self._place(user, require_name("id=", session_id)), packed)

    def merge(self, user: str | None, session_id: str, state: Mapping[str, Any]) -> Plan[None]:
        """As ``SessionService.merge``."""
        given = Session.from_dict(None)
        given.update(require("state=", state, Mapping, "a dict of plain values"))
        values = {name: after for name, (_, after) in state_of(given).changed_values().items()}
        return merge_into(self._place(user, require_name("id=", session_id)), values)

    def list(self, user: str, limit: int, order: Order, cursor: str | None) -> Plan[ListPage[Kept]]:
        """As ``SessionService.list``."""
        require_choice("order", order, ("newest", "oldest"))
        return list_sessions(self._owner(user), limit=limit, order=order, cursor=cursor)

    def rewind(self, user: str | None, session_id: str, to: int) -> Plan[int]:
        """As ``SessionService.rewind``."""
        require("to=", to, int, "a number of messages")
        return rewind(self._place(user, require_name("id=", session_id)), to)

    def fork(self, user: str | None, session_id: str, new_id: str | None, at: int | None) -> Plan[Kept]:
        """As ``SessionService.fork``."""
        if user is None:
            raise ConfigurationError("An anonymous session shares nothing with another, and so has no forks: give user=.")
        place, target = self._place(user, require_name("id=", session_id)), self._place(user, new_id)
        return fork(place, target, self._random(BIRTH_BYTES), at=at, ttl_ms=self.ttl_ms)

    def close(self, user: str | None, session_id: str) -> Plan[bool]:
        """As ``SessionService.close``."""
        return close(self._place(user, require_name("id=", session_id)))

    def purge(self) -> Plan[int]:
        """As ``SessionService.purge``."""
        return purge(self.app, self.engine.partitions)

    def erase(self, user: str) -> Plan[Erased]:
        """As ``SessionService.erase``."""
        return self._erase(self._owner(user))

    def _erase(self, owner: Owner) -> Plan[Erased]:
        count = yield from clear_memory(MemoryScope.of_user(owner))
        erased = yield from erase(self.app, owner, self.engine.partitions)
        count += yield from clear_memory(MemoryScope.of_user(owner))  # what a turn has written meanwhile
        return erased._replace(shared=erased.shared + count)

    def memory(self, user: str) -> UserMemory:
        """As ``SessionService.memory``."""
        return UserMemory(self.engine, MemoryScope.of_user(self._owner(user)))

    def _reaches(self, engine: Engine) -> bool:
        """Whether an engine keeps the rows that this service's does; each engine in memory has rows of its own."""
        return engine is self.engine or (engine.url == self.engine.url != MEMORY_URL)

    def _random(self, number: int) -> bytes:
        return require_random(self._randomness, number)

    def _owner(self, user: str) -> Owner:
        return Owner(self.app, require_name("user=", user), partitions=self.engine.partitions)

    def _begin(self, place: Place, about: About = NOTHING) -> Plan[KeptSession]:
        """A new session, with what it shares with others."""
        return self._start(place, about, (yield from read_shared(place)))

    def _create(self, place: Place, given: Session, about: About) -> Plan[KeptSession]:
        session = yield from self._begin(place, about)
        session.update(given)
        return (yield from self._save(place, session))

    def _open(self, place: Place, last: int) -> Plan[KeptSession]:
        session = yield from self._get(place, last)
        if session is None:
            raise UnknownSessionError(UNKNOWN)
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
        state = state_of_kept(session)
        for _ in range(MOST_TRIES):
            frozen, change = state.find_change(self.ttl_ms)
            if change.is_empty and state.opened.kept.revision:
                return session
            try:
                committed = yield from commit(place, state.opened.kept, change, state.opened.now_ms)
            except StaleSessionError:
                if not self.merges:
                    raise
                yield from self._catch_up(place, state)
            except Overtaken:
                yield from self._catch_up(place, state)
            else:
                state.take_committed(committed.kept, committed.laid, frozen, change)
                if committed.failed is not None:
                    raise committed.failed
                with suppress(EngineError):  # the turn is committed; whoever clears next drops what is left
                    yield from drop_hidden(change.memory)
                return session
        raise StaleSessionError(STALE)

    def _catch_up(self, place: Place, state: KeptState) -> Plan[None]:
        read = yield from read_session(place)
        if read is None or read.kept is None or read.kept.birth != state.opened.kept.birth:
            raise UnknownSessionError(UNKNOWN)
        state.rebase(read.payload)
        state.opened.kept, state.opened.now_ms = read.kept, read.now_ms

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
        return Place(self.app, owner, session_id, self.engine.partitions)

    def make_kept(self, place: Place, now_ms: int, about: About = NOTHING) -> Kept:
        """What is known of a session that is not kept yet."""
        return Kept.new(place.id, place.owner.user, self._random(BIRTH_BYTES), about, now_ms)

    def _make(self, place: Place, kept: Kept, read: Read) -> KeptSession:
        opened = Opened(kept, self.app, self.engine, read.now_ms, unpack_page(read.messages))
        return make_session(TurnJournal.of(opened, place.owner), read.payload)


def require_name(argument: str, name: str) -> str:
    """Require the name of an application, a user or a session.

    Raises:
        ConfigurationError: It is empty, too long, or no text that UTF-8 can say.
    """
    found = require_text(argument, name, "and not an empty one")
    if not 0 < len(found) <= MOST_NAME_CHARACTERS:
        raise ConfigurationError(f"{argument} is a text of 1 to {MOST_NAME_CHARACTERS} characters.")
    return found
