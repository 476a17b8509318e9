"""What a user remembers, outside of a turn: ``sessions.memory(user=...)``.

await sessions.memory(user="p-123").set("allergies", ["penicillin"], ttl=timedelta(days=90))
await sessions.memory(user="p-123").get("allergies", as_type=list[str])
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, overload

from typing_extensions import TypeForm

from dcaf.core.settings import require_positive
from dcaf.engines import Engine
from dcaf.service.listing import ListPage
from dcaf.service.memory import LIMIT_BYTES, check_key, freeze, restore, sort, value_in
from dcaf.service.memory_plans import (
    clear_memory,
    delete_memory,
    list_memory,
    read_all,
    read_memory,
    write_memory,
)
from dcaf.service.memory_search import FoundFact, search_facts
from dcaf.service.plans import Plan, run, run_async, run_to_end
from dcaf.service.remembered import MemoryScope, Remembered

T = TypeVar("T")
D = TypeVar("D")


class UserMemory:
    """What a user remembers, outside of a turn: each call is a commit of its own.

    Args:
        engine: Where it is kept.
        scope: Whose memory.
        limit_bytes: How large a value may be, as JSON.

    Raises:
        ConfigurationError: The limit is no number of bytes.

    Attributes:
        sync: The same methods without ``await``.
    """

    def __init__(self, engine: Engine, scope: MemoryScope, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._engine = engine
        self._plans = _Plans(scope, require_positive("limit_bytes", limit_bytes))
        self.sync: SyncUserMemory = SyncUserMemory(engine, self._plans)

    def __repr__(self) -> str:
        return "<UserMemory>"

    @overload
    async def get(self, key: str, default: D, *, as_type: TypeForm[T]) -> T | D: ...
    @overload
    async def get(self, key: str, *, as_type: TypeForm[T]) -> T | None: ...
    @overload
    async def get(self, key: str, default: Any = None, *, as_type: None = None) -> Any: ...

    async def get(self, key: str, default: Any = None, *, as_type: Any = None) -> Any:
        """Read a value. Arguments and errors are those of ``Memory.get``."""
        return await run_async(self._plans.get(key, default, as_type), self._engine)

    async def all(self) -> list[Remembered]:
        """Everything that is remembered, by the order of the keys.

        Raises:
            EngineError: The engine failed.
        """
        return await run_async(self._plans.all(), self._engine)

    async def page(self, *, limit: int = 100, cursor: str | None = None) -> ListPage[Remembered]:
        """Some of what is remembered, always in the same order.

        Args:
            limit: How many at most, up to 1,000; 0 for none.
            cursor: Where the page before ended (``page.cursor``); None for the first page.

        Raises:
            ConfigurationError: The limit is no such number, or the cursor is that of another list.
            EngineError: The engine failed.
        """
        return await run_async(self._plans.page(limit, cursor), self._engine)

    async def search(self, query: str, *, limit: int = 10) -> list[FoundFact]:
        """What is remembered that has any of some words, the best first. Arguments and errors are those of ``Memory.search``."""
        return await run_async(self._plans.search(query, limit), self._engine)

    async def set(self, key: str, value: object, *, ttl: timedelta | None = None) -> None:
        """Remember a value. Arguments and further errors are those of ``Memory.set``.

        Raises:
            EngineError: The engine failed, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """
        await run_to_end(self._plans.set(key, value, ttl), self._engine)

    async def delete(self, key: str) -> bool:
        """Forget a value; False where there is none.

        Raises:
            SessionValueError: The key is none.
            EngineError: The engine failed.
        """
        return await run_to_end(self._plans.delete(key), self._engine)

    async def clear(self) -> int:
        """Forget everything; returns how many values that were.

        Raises:
            EngineError: The engine failed. All may be forgotten, and some of their rows still there; call again.
        """
        return await run_to_end(self._plans.clear(), self._engine)


class SyncUserMemory:
    """The methods of a user's memory for code that runs on no event loop. They block.

    Args:
        engine: Where it is kept.
        plans: What the memory does.
    """

    def __init__(self, engine: Engine, plans: _Plans) -> None:
        self._engine = engine
        self._plans = plans

    @overload
    def get(self, key: str, default: D, *, as_type: TypeForm[T]) -> T | D: ...
    @overload
    def get(self, key: str, *, as_type: TypeForm[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: Any = None, *, as_type: None = None) -> Any: ...

    def get(self, key: str, default: Any = None, *, as_type: Any = None) -> Any:
        """As of the memory."""
        return run(self._plans.get(key, default, as_type), self._engine)

    def all(self) -> list[Remembered]:
        """As of the memory."""
        return run(self._plans.all(), self._engine)

    def page(self, *, limit: int = 100, cursor: str | None = None) -> ListPage[Remembered]:
        """As of the memory."""
        return run(self._plans.page(limit, cursor), self._engine)

    def search(self, query: str, *, limit: int = 10) -> list[FoundFact]:
        """As of the memory."""
        return run(self._plans.search(query, limit), self._engine)

    def set(self, key: str, value: object, *, ttl: timedelta | None = None) -> None:
        """As of the memory."""
        run(self._plans.set(key, value, ttl), self._engine)

    def delete(self, key: str) -> bool:
        """As of the memory."""
        return run(self._plans.delete(key), self._engine)

    def clear(self) -> int:
        """As of the memory."""
        return run(self._plans.clear(), self._engine)


class _Plans:
    """What a memory does outside of a turn."""

    def __init__(self, scope: MemoryScope, limit_bytes: int) -> None:
        self._scope = scope
        self._limit_bytes = limit_bytes

    def get(self, key: str, default: Any, as_type: Any) -> Plan[Any]:
        recalled = yield from read_memory(self._scope, check_key(key))
        return default if recalled.row is None else restore(value_in(recalled.row), as_type)

    def all(self) -> Plan[list[Remembered]]:
        found, _ = yield from read_all(self._scope)
        return sort(found)

    def page(self, limit: int, cursor: str | None) -> Plan[ListPage[Remembered]]:
        return list_memory(self._scope, limit, cursor)

    def search(self, query: str, limit: int) -> Plan[list[FoundFact]]:
        return search_facts(self.all(), query, limit)

    def set(self, key: str, value: object, ttl: timedelta | None) -> Plan[None]:
        return write_memory(self._scope, check_key(key), freeze(value, ttl, self._limit_bytes))

    def delete(self, key: str) -> Plan[bool]:
        return delete_memory(self._scope, check_key(key))

    def clear(self) -> Plan[int]:
        return clear_memory(self._scope)
