"""Evaluate a transaction in Python, for engines whose rows are in this process: those of memory and of SQLite, and your own.

>>> from dcaf.engines.transactions import Plus, Put, Table, Transaction
>>> hits = Record(Table("hits", {"n": int}), b"home")
>>> apply(Transaction([hits], writes=[Put(hits, {"n": Plus(2)})]), {hits: {"n": 40}}, now_ms=0)[hits]
{'n': 42}
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from dcaf.core.arguments import require_plain_function
from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines.transactions import (
    EXPIRES,
    LARGEST,
    MOST_PARTITIONS,
    RESOLVED,
    SMALLEST,
    AllOf,
    AnyOf,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Page,
    Plus,
    Range,
    Record,
    Row,
    Transaction,
    Value,
    Write,
    check_transaction,
)


def holds(condition: Condition, rows: Mapping[Record, Row | None], now_ms: int) -> bool:
    """Whether a condition holds of rows, for engines that compare in Python."""
    if isinstance(condition, AllOf):
        return holds(condition.first, rows, now_ms) and holds(condition.second, rows, now_ms)
    if isinstance(condition, AnyOf):
        return holds(condition.first, rows, now_ms) or holds(condition.second, rows, now_ms)
    if isinstance(condition, Not):
        return not holds(condition.condition, rows, now_ms)
    row = rows[condition.record]
    if row is None or isinstance(condition, Exists):
        return row is not None
    found = row[condition.column]
    if isinstance(condition, Is):
        return found == condition.value
    most = now_ms + condition.value.plus_ms if isinstance(condition.value, Now) else condition.value
    return isinstance(found, int) and found <= most


def apply(transaction: Transaction, rows: Mapping[Record, Row | None], now_ms: int) -> dict[Record, Row | None] | None:
    """What a transaction makes of rows, for engines that compare in Python.

    Args:
        transaction: The transaction.
        rows: The rows that it names (``records``), without those that have expired.
        now_ms: The engine's clock.

    Returns:
        Each row that is written, as it is afterwards, and None for each that is removed. None where the condition does not hold.

    Raises:
        EngineError: A number would not fit in 64 bits.
        ConfigurationError: It is no transaction, the rows are not those that it names, or the clock is no int.
    """
    check_transaction(transaction, MOST_PARTITIONS)
    if not isinstance(rows, Mapping) or type(now_ms) is not int:
        raise ConfigurationError("apply() takes the rows of a transaction, record -> row or None, and now_ms, an int.")
    try:
        return _apply(transaction, rows, now_ms)
    except KeyError:
        raise ConfigurationError("The rows of apply() have each record that the transaction names.") from None


def _apply(transaction: Transaction, rows: Mapping[Record, Row | None], now_ms: int) -> dict[Record, Row | None] | None:
    if transaction.when is not None and not holds(transaction.when, rows, now_ms):
        return None
    return {write.record: _written(write, rows[write.record], now_ms) for write in transaction.writes}


def find_page(keys: Sequence[bytes], wanted: Range, read: Callable[[bytes], Row | None]) -> Page:
    """The page of a range, for engines whose keys are in order in this process.

    Args:
        keys: All keys of its table and partition, in order.
        wanted: The range.
        read: Reads the row of a key; None where it has expired.

    Raises:
        ConfigurationError: The keys are no list of bytes, this is no range, or no function reads.
    """
    if not isinstance(keys, list | tuple) or not isinstance(wanted, Range):
        raise ConfigurationError("find_page() takes the keys of a table in order, a list of bytes, and a Range.")
    if isinstance(require_plain_function("read=", read), type):
        raise ConfigurationError("read= of find_page() takes a function that returns the row of a key, or None.")
    try:
        first, last = bisect_left(keys, wanted.start), len(keys) if wanted.end is None else bisect_left(keys, wanted.end)
    except TypeError:
        raise ConfigurationError("The keys of find_page() are bytes.") from None
    places = range(last - 1, first - 1, -1) if wanted.backwards else range(first, last)
    found = ((keys[at], row) for at in places if (row := read(keys[at])) is not None)
    return list(islice(found, wanted.limit))


def exists(row: Row | None, now_ms: int) -> bool:
    """Whether a row is there, and has not expired.

    Raises:
        ConfigurationError: It is no row, or the clock is no int.
    """
    if row is None:
        return False
    if (type(row) is not dict and not isinstance(row, Mapping)) or type(now_ms) is not int:
        raise ConfigurationError("exists() takes a row, column -> value, or None; and now_ms, an int.")
    end = row.get(EXPIRES)
    return end is None or (isinstance(end, int) and end > now_ms)


def _written(write: Write, before: Row | None, now_ms: int) -> Row | None:
    if isinstance(write, Delete):
        return None
    row = dict.fromkeys(write.record.table.columns, None) if before is None else dict(before)
    for column, value in write.values.items():
        row[column] = _resolve(value, row[column], now_ms)
    return row


def _resolve(value: Value | Now | Plus, before: Value, now_ms: int) -> Value:
    if not isinstance(value, RESOLVED):
        return value
    found = now_ms + value.plus_ms if isinstance(value, Now) else (before if isinstance(before, int) else 0) + value.by
    if not SMALLEST <= found <= LARGEST:
        raise EngineError("A number would not fit in 64 bits. Nothing was written.")
    return found
