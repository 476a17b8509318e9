"""What a user, or a session, remembers across turns: ``session.memory``.

    async with sessions.open(user="p-123") as session:
        session.memory.set("allergies", ["penicillin"], ttl=timedelta(days=90))
        await session.memory.get("allergies", as_type=list[str])
        session.memory.here.set("asked", True)       # what this session alone remembers

What a reader gets wrong: in a turn, ``set``, ``delete`` and ``clear`` have no ``await``. They are written with the turn, all of
them or nothing; ``get`` and ``all`` of the same turn find them already. And a value is a copy: to change it, set it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast, overload

from typing_extensions import TypeForm

from dcaf.core.arguments import kind_of, require
from dcaf.core.errors import ConfigurationError, SessionClosedError, SessionValueError
from dcaf.core.journal import Injected
from dcaf.core.json_values import from_json, read, to_json, write
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.core.settings import require_positive
from dcaf.core.state import State
from dcaf.engines import Engine, Row, Transaction
from dcaf.service.conversation import is_kept, journal_of
from dcaf.service.drafts import MemoryDraft
from dcaf.service.kept import moment_of, value_of
from dcaf.service.memory_plans import read_all, read_memory
from dcaf.service.memory_search import FoundFact, search_facts
from dcaf.service.plans import Plan, run, run_async
from dcaf.service.remembered import LONGEST_TTL, SHORTEST_TTL, Fact, MemoryChange, MemoryScope, Remembered

if TYPE_CHECKING:
    from dcaf.tools import Tool

T = TypeVar("T")
D = TypeVar("D")

LIMIT_BYTES: Final = 256 * 1024
"""How large a value may be, as JSON, where an application says nothing else."""

MOST_KEY_CHARACTERS: Final = 256


class Memory(Injected):
    """What a turn remembers. A tool gets it by a parameter: ``memory: Memory``.

    Args:
        engine: Where it is kept.
        scope: Whose memory.
        here: The memory of the session alone; None for such a one itself.
        limit_bytes: How large a value may be, as JSON.

    Raises:
        ConfigurationError: The limit is no number of bytes.
    """

    def __init__(self, engine: Engine, scope: MemoryScope, *, here: Memory | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self._engine = engine
        draft = MemoryDraft(scope)
        self._find_draft: Callable[[], MemoryDraft] = lambda: draft
        self._here = here
        self._limit_bytes = require_positive("limit_bytes", limit_bytes)
        self._is_over = False
        self._require_turn: Callable[[], None] = _ignore

    @classmethod
    def is_for(cls, session: Session) -> bool:
        """Whether a session service keeps the session."""
        return is_kept(session)

    @classmethod
    def of(cls, session: Session) -> Self:
        """What the user of a session remembers. What a tool changes of it is dropped where the tool fails.

        Raises:
            ConfigurationError: No session service keeps the session.
        """
        state = state_of(require_session(session, "of()"))
        shared = cls._over(state, lambda: journal_of(state).user)
        shared._here = cls._over(state, lambda: journal_of(state).here)
        return shared

    @classmethod
    def _over(cls, state: State, find_draft: Callable[[], MemoryDraft]) -> Self:
        """A memory of the turn that goes on now: on a socket each frame has a draft of its own."""
        found = cls(journal_of(state).opened.engine, find_draft().scope)
        found._find_draft, found._require_turn = find_draft, state.require_open
        return found

    @property
    def _draft(self) -> MemoryDraft:
        return self._find_draft()

    def __repr__(self) -> str:
        return "<Memory of a session>" if self._here is None else "<Memory of a user>"

    @staticmethod
    def tools() -> list[Tool[..., Any]]:
        """Tools for a model, which keep what it wants to remember of the user: ``remember``, ``recall`` and ``forget``.

        They work on the memory of the session that they are called in: ``Agent(..., tools=[*Memory.tools(), ...])``.
        """
        from dcaf.service.memory_tools import MEMORY_TOOLS  # noqa: PLC0415 - these tools have a parameter of this class

        return [*MEMORY_TOOLS]

    @property
    def here(self) -> Memory:
        """What this session alone remembers; it goes with the session."""
        return self if self._here is None else self._here

    @property
    def sync(self) -> SyncMemory:
        """The same methods without ``await``."""
        return SyncMemory(self)

    def set(self, key: str, value: object, *, ttl: timedelta | None = None) -> None:
        """Remember a copy of a value from now on.

        Args:
            key: Its name: 1 to 256 characters.
            value: Anything that a session may have.
            ttl: For how long, from the commit of the turn on; None for ever.

        Raises:
            SessionValueError: It may not be stored, or is too large, or the key is none. Nothing was changed.
            ConfigurationError: The ttl is no timedelta of 1 millisecond to 100 years.
            SessionClosedError: The turn is over.
        """
        self._change(check_key(key), freeze(value, ttl, self._limit_bytes))

    def delete(self, key: str) -> None:
        """Forget a value; nothing happens where there is none.

        Raises:
            SessionValueError: The key is none.
            SessionClosedError: The turn is over.
        """
        self._change(check_key(key), None)

    def clear(self) -> None:
        """Forget everything; of a user, what each of the user's sessions remembers alone stays.

        Raises:
            SessionClosedError: The turn is over.
        """
        self._require_open()
        self._draft.clear()

    @overload
    async def get(self, key: str, default: D, *, as_type: TypeForm[T]) -> T | D: ...
    @overload
    async def get(self, key: str, *, as_type: TypeForm[T]) -> T | None: ...
    @overload
    async def get(self, key: str, default: Any = None, *, as_type: None = None) -> Any: ...

    async def get(self, key: str, default: Any = None, *, as_type: Any = None) -> Any:
        """Read a value, as this turn has set it, or else as it is kept now.

        Args:
            key: Its name.
            default: What to return where there is none.
            as_type: Any type that pydantic understands; None returns the JSON value.

        Raises:
            SessionTypeError: The value does not fit ``as_type``; the message has the path, and never the value.
            SessionValueError: The key is none.
            EngineError: The engine failed.
        """
        return await run_async(self._get(key, default, as_type), self._engine)

    async def all(self) -> list[Remembered]:
        """Everything that is remembered, by the order of the keys. What this turn has set counts as committed now.

        Raises:
            EngineError: The engine failed.
        """
        return await run_async(self._all(), self._engine)

    async def search(self, query: str, *, limit: int = 10) -> list[FoundFact]:
        """What is remembered that has any of some words, in its key or in its value, the best first. Each engine can do it.

        What this turn has set is found, and nothing that it has forgotten.

        Args:
            query: The words. As of ``SessionService.search``.
            limit: How many at most, up to 100.

        Raises:
            ConfigurationError: An argument is wrong.
            EngineError: The engine failed.
        """
        return await run_async(search_facts(self._all(), query, limit), self._engine)

    def _change(self, name: str, fact: Fact | None) -> None:
        self._require_open()
        self._draft.put(name, fact)

    def _require_open(self) -> None:
        self._require_turn()
        if self._is_over:
            raise SessionClosedError("The turn is over: nothing that is remembered now would be kept. Do it in the next turn.")

    def _get(self, key: str, default: Any, as_type: Any) -> Plan[Any]:
        name = check_key(key)
        pending = self._draft.find(name)
        if pending is not None:
            return default if pending.fact is None else restore(pending.fact.value, as_type)
        recalled = yield from read_memory(self._draft.scope, name, self._draft.generation)
        self._draft.note(name, recalled)
        return default if recalled.row is None else restore(value_in(recalled.row), as_type)

    def _all(self) -> Plan[list[Remembered]]:
        facts, is_cleared = self._draft.find_all()
        if is_cleared:
            found, now_ms = dict[str, Remembered](), (yield Transaction([self._draft.scope.head])).now_ms
        else:
            found, now_ms = yield from read_all(self._draft.scope, self._draft.generation)
        for name, fact in facts.items():
            before = found.pop(name, None)
            if fact is not None:
                found[name] = _foresee(name, fact, before, now_ms)
        return sort(found)


class SyncMemory:
    """The methods of a turn's memory for code that runs on no event loop. They block.

    Args:
        memory: The memory.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    @property
    def here(self) -> SyncMemory:
        """As of the memory."""
        return self._memory.here.sync

    def set(self, key: str, value: object, *, ttl: timedelta | None = None) -> None:
        """As of the memory."""
        self._memory.set(key, value, ttl=ttl)

    def delete(self, key: str) -> None:
        """As of the memory."""
        self._memory.delete(key)

    def clear(self) -> None:
        """As of the memory."""
        self._memory.clear()

    @overload
    def get(self, key: str, default: D, *, as_type: TypeForm[T]) -> T | D: ...
    @overload
    def get(self, key: str, *, as_type: TypeForm[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: Any = None, *, as_type: None = None) -> Any: ...

    def get(self, key: str, default: Any = None, *, as_type: Any = None) -> Any:
        """As of the memory."""
        return run(self._memory._get(key, default, as_type), self._memory._engine)

    def all(self) -> list[Remembered]:
        """As of the memory."""
        return run(self._memory._all(), self._memory._engine)

    def search(self, query: str, *, limit: int = 10) -> list[FoundFact]:
        """As of the memory."""
        return run(search_facts(self._memory._all(), query, limit), self._memory._engine)


def find_changes(memory: Memory) -> list[MemoryChange]:
    """What is to be committed of a turn's memory, and of that of its session alone."""
    changes = memory._draft.find_changes()
    return changes if memory._here is None else [*changes, *find_changes(memory._here)]


def take_committed(memory: Memory, changes: Sequence[MemoryChange]) -> None:
    """Count only what came after ``find_changes`` as a change of a turn."""
    for change in changes:
        if change.scope == memory._draft.scope:
            memory._draft.take_committed(change)
    if memory._here is not None:
        take_committed(memory._here, changes)


def end_memory(memory: Memory) -> None:
    """Let a turn's memory take no change from now on."""
    memory._is_over = True
    if memory._here is not None:
        end_memory(memory._here)


def check_key(key: object) -> str:
    """Refuse what is no key of a memory.

    Raises:
        SessionValueError: It is no text of 1 to 256 characters that UTF-8 can say.
    """
    if not isinstance(key, str):
        raise SessionValueError(f"The key of a memory is a text, not {kind_of(key)}.")
    if not 0 < len(key) <= MOST_KEY_CHARACTERS:
        raise SessionValueError(f"The key of a memory has 1 to {MOST_KEY_CHARACTERS} characters, not {len(key):,}.")
    return cast("str", to_json(str.__str__(key), path="the key of a memory"))


def freeze(value: object, ttl: timedelta | None, limit_bytes: int) -> Fact:
    """What is written of a value.

    Raises:
        SessionValueError: It may not be stored, or is too large.
        ConfigurationError: The ttl is no timedelta of 1 millisecond to 100 years.
    """
    data = write(to_json(value, path="memory"))
    if len(data) > limit_bytes:
        raise SessionValueError(
            f"memory: the value has {len(data):,} bytes as JSON, and may have {limit_bytes:,}. "
            "Remember less of it, or where it lies."
        )
    if ttl is None:
        return Fact(data)
    if not SHORTEST_TTL <= require("ttl=", ttl, timedelta, "a timedelta, or None") <= LONGEST_TTL:
        raise ConfigurationError("ttl= is 1 millisecond to 100 years, for instance timedelta(days=90); None remembers for ever.")
    return Fact(data, int(ttl / timedelta(milliseconds=1)))


def restore(data: bytes, as_type: Any) -> Any:
    """The value that was written. Raises as ``Memory.get``."""
    return read(data) if as_type is None else from_json(data, as_type, path="memory")


def value_in(row: Row) -> bytes:
    """The value of a row, as JSON."""
    return cast("bytes", value_of(row))


def _foresee(name: str, fact: Fact, before: Remembered | None, now_ms: int) -> Remembered:
    """A fact as it would be if it was committed now."""
    now = moment_of(now_ms)
    ends = None if fact.ttl_ms is None else moment_of(now_ms + fact.ttl_ms)
    found = Remembered(name, read(fact.value), now, now, ends)
    return found if before is None else found._replace(created_at=before.created_at)


def sort(found: Mapping[str, Remembered]) -> list[Remembered]:
    """Facts by the order of their keys."""
    return [found[name] for name in sorted(found)]


def _ignore() -> None:
    """Nothing tells whether the turn is over."""
