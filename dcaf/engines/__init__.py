"""Where a server keeps rows: in memory, in a SQLite file, in Redis, in PostgreSQL, or in an engine of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from dcaf.engines.base import Durability, Engine, Health, SyncEngine, Tables, check_scan
from dcaf.engines.evaluation import apply, exists, find_page
from dcaf.engines.memory import MemoryEngine
from dcaf.engines.opening import open_engine
from dcaf.engines.searching import Search, SearchEngine, SyncSearchEngine, can_search, check_search
from dcaf.engines.sqlite.engine import SqliteEngine
from dcaf.engines.transactions import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Outcome,
    Page,
    Plus,
    Put,
    Range,
    Record,
    Row,
    Table,
    Transaction,
    Value,
    Write,
)

if _TYPE_CHECKING:
    from dcaf.engines.postgres.engine import PostgresEngine
    from dcaf.engines.redis.engine import RedisEngine

del annotations  # no public name of this package

__all__ = [
    "AllOf",
    "AnyOf",
    "AtMost",
    "Condition",
    "Delete",
    "Durability",
    "Engine",
    "Exists",
    "Health",
    "Is",
    "MemoryEngine",
    "Not",
    "Now",
    "Outcome",
    "Page",
    "Plus",
    "PostgresEngine",
    "Put",
    "Range",
    "Record",
    "RedisEngine",
    "Row",
    "Search",
    "SearchEngine",
    "SqliteEngine",
    "SyncEngine",
    "SyncSearchEngine",
    "Table",
    "Tables",
    "Transaction",
    "Value",
    "Write",
    "apply",
    "can_search",
    "check_scan",
    "check_search",
    "exists",
    "find_page",
    "open_engine",
]

_IN_EXTRAS = {"PostgresEngine": "dcaf.engines.postgres.engine", "RedisEngine": "dcaf.engines.redis.engine"}


def __getattr__(name: str) -> _Any:
    """Import an engine where it is asked for: its extra need not be installed."""
    if name not in _IN_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_IN_EXTRAS[name]), name)
