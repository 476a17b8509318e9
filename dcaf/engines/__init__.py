"""Where a server keeps rows: in memory, in a SQLite file, or in an engine of your own."""

from __future__ import annotations

from dcaf.engines.base import Durability, Engine, Health, SyncEngine, Tables, check_scan
from dcaf.engines.evaluation import apply, exists
from dcaf.engines.memory import MemoryEngine
from dcaf.engines.opening import open_engine
from dcaf.engines.sqlite import SqliteEngine
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
    Plus,
    Put,
    Record,
    Row,
    Table,
    Transaction,
    Value,
    Write,
)

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
    "Plus",
    "Put",
    "Record",
    "Row",
    "SqliteEngine",
    "SyncEngine",
    "Table",
    "Tables",
    "Transaction",
    "Value",
    "Write",
    "apply",
    "check_scan",
    "exists",
    "open_engine",
]
