"""A transaction as data: rows of tables to read, a condition on them, and what to write if it holds.

>>> SEATS = Table("seats", {"holder": bytes})
>>> seat = Record(SEATS, b"12A")
>>> Transaction([seat], when=Not(Exists(seat)), writes=[Put(seat, {"holder": "ada"})])
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: holder of seats takes bytes, or None.

It is checked when it is made, so that no engine meets a column that its table has not, or a value that would not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from dcaf.core.arguments import kind_of, require, require_bool
from dcaf.core.errors import ConfigurationError
from dcaf.engines.words import are_words

Page: TypeAlias = "Sequence[tuple[bytes, Row]]"
"""Keys and their rows."""

Value: TypeAlias = int | bytes | None
"""What stands in a column: an integer of 64 bits, bytes, or nothing."""

Row: TypeAlias = Mapping[str, Value]
"""Column -> value, all columns of its table."""

EXPIRES: Final = "expires"
"""The column with the moment from which a row does not exist, in milliseconds since the epoch; None for no end."""

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
MOST_KEY_BYTES: Final = 256
"""The longest key of a row."""

MOST_PARTITIONS: Final = 2**16
"""How many partitions an engine has at most."""

SMALLEST: Final = -(2**63)
LARGEST: Final = 2**63 - 1
"""The integers that a column takes."""

_BITS_64: Final = range(SMALLEST, LARGEST + 1)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one shape, found by a key of at most 256 bytes.

    Attributes:
        name: Its name: small letters, digits and underscores.
        columns: Name -> ``int`` or ``bytes``. A later release may add columns; in older rows these are None.
        indexed: The column by which ``scan`` finds rows; None for none.
        large: Whether its rows have kilobytes, so that an engine keeps them where they are in nobody's way.
        ordered: Whether a transaction reads its rows by ranges of keys.
        searchable: The column whose words a ``Search`` finds; None for none. It has words in UTF-8 with a space between them, of
            ASCII small letters and digits alone. An engine that can search changes its index with the rows, in one step; one that
            cannot keeps the rows all the same.

    Raises:
        ConfigurationError: A name is none, a column has another type, ``expires`` is no column of integers, the indexed or the
            searchable column is no column of bytes, a searchable table has no order or rows that expire, or ``large`` or
            ``ordered`` is neither True nor False.
    """

    name: str
    columns: Mapping[str, type[int | bytes]] = field(hash=False)
    indexed: str | None = None
    large: bool = False
    ordered: bool = False
    searchable: str | None = None

    def __post_init__(self) -> None:
        columns = require("columns= of a Table", self.columns, Mapping, "a dict: name -> int or bytes")
        names = (self.name, *columns)
        if (
            not all(isinstance(name, str) and NAME.fullmatch(name) for name in names)
            or "key" in columns
            or self.name[:7] == "sqlite_"
        ):
            raise ConfigurationError("A table and its columns have names of small letters, digits and underscores; `key` is taken.")
        if not all(kind is int or kind is bytes for kind in columns.values()):
            raise ConfigurationError(f"The columns of {self.name} are int or bytes.")
        if columns.get(EXPIRES, int) is not int:
            raise ConfigurationError(f"The column {EXPIRES} of {self.name} is int: a moment in milliseconds since the epoch.")
        if self.indexed is not None and not (isinstance(self.indexed, str) and columns.get(self.indexed) is bytes):
            raise ConfigurationError(f"indexed= of {self.name} names one of its columns of bytes.")
        require_bool(f"large= of {self.name}", self.large)
        require_bool(f"ordered= of {self.name}", self.ordered)
        self._check_searchable()

    def _check_searchable(self) -> None:
        if self.searchable is None:
            return
        if not (isinstance(self.searchable, str) and self.columns.get(self.searchable) is bytes):
            raise ConfigurationError(f"searchable= of {self.name} names one of its columns of bytes.")
        if not self.ordered or EXPIRES in self.columns:
            raise ConfigurationError(f"{self.name} is searchable, so it has ordered=True and no column {EXPIRES}.")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table, there or not.

    Attributes:
        table: The table.
        key: The key: 1 to 256 bytes. A table has each key once, but for rows of which every partition has its copy.
        partition: Where it lies, for an engine whose rows are on several servers; less than its ``partitions``.

    Raises:
        ConfigurationError: The table is none, or the key, or the partition.
    """

    table: Table
    key: bytes = field(repr=False)
    partition: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.table, Table):
            raise ConfigurationError(f"A Record is a row of a Table, not of {kind_of(self.table)}: Record(table, key).")
        if type(self.key) is not bytes or not 0 < len(self.key) <= MOST_KEY_BYTES:
            raise ConfigurationError(f"The key of a row of {self.table.name} is 1 to {MOST_KEY_BYTES} bytes.")
        if type(self.partition) is not int or self.partition:
            _check_partition(self.table, self.partition)
        object.__setattr__(self, "_hash", hash((self.table.name, self.key)))

    def __hash__(self) -> int:
        return self._hash  # each turn looks some eighty times for a row by its record


@dataclass(frozen=True, slots=True)
class Range:
    """Rows of a table whose keys lie between two, in the order of their keys, as bytes are ordered.

    Attributes:
        table: The table, which is ``ordered``.
        start: The first key that may be in it.
        end: The first key that is behind it; None for no end.
        limit: How many rows at most.
        backwards: Whether it begins at its end, and goes down.
        partition: Where its rows lie.

    Raises:
        ConfigurationError: The table is none or has no order, a bound is no bytes, or the limit or the partition is no such number.
    """

    table: Table
    start: bytes = field(repr=False)
    end: bytes | None = field(repr=False)
    limit: int
    backwards: bool = False
    partition: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.table, Table) or not self.table.ordered:
            raise ConfigurationError("A Range is one of a Table(..., ordered=True).")
        require("start= of a Range", self.start, bytes, "bytes")
        if self.end is not None:
            require("end= of a Range", self.end, bytes, "bytes, or None")
        if not 1 <= require("limit= of a Range", self.limit, int, "a number of rows, 1 or more") <= LARGEST:
            raise ConfigurationError("limit= of a Range is 1 or more.")
        require_bool("backwards= of a Range", self.backwards)
        _check_partition(self.table, self.partition)

    @classmethod
    def of_prefix(cls, table: Table, prefix: bytes, limit: int, *, backwards: bool = False, partition: int = 0) -> Range:
        """The rows whose keys begin with these bytes.

        Args:
            table, limit, backwards, partition: As of a range.
            prefix: The bytes.
        """
        stem = require("prefix= of a Range", prefix, bytes, "bytes").rstrip(b"\xff")
        end = stem[:-1] + bytes([stem[-1] + 1]) if stem else None
        return cls(table, prefix, end, limit, backwards, partition)


class Now(NamedTuple):
    """The engine's clock, in milliseconds since the epoch, and so many more."""

    plus_ms: int = 0


class Plus(NamedTuple):
    """What stands in the column, and so many more; an empty column counts as 0."""

    by: int


class Exists(NamedTuple):
    """The row is there."""

    record: Record


class Is(NamedTuple):
    """The row is there, and its column has this value; None for an empty column."""

    record: Record
    column: str
    value: Value

    def __repr__(self) -> str:
        return f"Is({self.record!r}, {self.column!r}, ...)"


class AtMost(NamedTuple):
    """The row is there, and its column has a number that is not larger."""

    record: Record
    column: str
    value: int | Now

    def __repr__(self) -> str:
        return f"AtMost({self.record!r}, {self.column!r}, ...)"


class Not(NamedTuple):
    """The condition does not hold."""

    condition: Condition


class AnyOf(NamedTuple):
    """One of two or more conditions holds: ``AnyOf(first, second)``, and ``AnyOf(first, AnyOf(second, third))``."""

    first: Condition
    second: Condition


class AllOf(NamedTuple):
    """Both conditions hold."""

    first: Condition
    second: Condition


Condition: TypeAlias = "Exists | Is | AtMost | Not | AnyOf | AllOf"
"""What must hold of the rows that were read."""

PAIRS: Final = (AnyOf, AllOf)
LEAVES: Final = (Exists, Is, AtMost)


class Put(NamedTuple):
    """Write columns of a row, and make the row where there is none. Columns that are not named stay, and are None in a new row."""

    record: Record
    values: Mapping[str, Value | Now | Plus]

    def __repr__(self) -> str:
        return f"Put({self.record!r}, {list(self.values)})"


class Delete(NamedTuple):
    """Remove a row; nothing happens where there is none."""

    record: Record


Write: TypeAlias = "Put | Delete"
"""What a transaction does to one row."""

_RECORDS: Final[frozenset[type]] = frozenset([Record])
_RANGES: Final[frozenset[type]] = frozenset([Range])
_WRITES: Final[frozenset[type]] = frozenset([Put, Delete])

RESOLVED: Final = (Now, Plus)
"""Values that the engine works out."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Rows to read, a condition on them, and what to write if it holds.

    Attributes:
        reads: The rows that are returned; those that the condition names, too.
        when: The condition; None for none.
        writes: What is written, in this order, if the condition holds. Each row is named once, and need not be read: what was
            there is then not returned.
        durable: Whether the answer must wait until a power cut loses nothing of it. A claim need not be durable: whoever held it
            has died with the machine.
        ranges: What is read besides, as it was before the writes; of the same moment as the rows.
        records: All rows that it names, each once: those of ``reads``, and then those that it only writes.

    Raises:
        ConfigurationError: Something is of another type, the rows are of several partitions, the condition names a row that is
            not read, a row is written twice, a column is none, or a value is not of its column's type.
    """

    reads: Sequence[Record]
    when: Condition | None = None
    writes: Sequence[Write] = ()
    durable: bool = True
    ranges: Sequence[Range] = ()
    records: Sequence[Record] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require_all("reads=", self.reads, _RECORDS, "records")
        _require_all("writes=", self.writes, _WRITES, "Put(...) and Delete(...)")
        _require_all("ranges=", self.ranges, _RANGES, "ranges")
        written = [write.record for write in self.writes]
        leaves = [] if self.when is None else find_leaves(self.when)
        compared = [leaf.record for leaf in leaves]
        _require_all("Put, Delete and conditions", [*written, *compared], _RECORDS, "records")
        if not set(compared) <= set(self.reads) or len(set(written)) < len(written):
            raise ConfigurationError("A transaction reads each row that its condition names, and writes each row once.")
        object.__setattr__(self, "records", tuple(dict.fromkeys([*self.reads, *written])))
        if len({one.partition for one in self.records} | {one.partition for one in self.ranges}) > 1:
            raise ConfigurationError(
                "The rows of a transaction are all of one partition: no engine reaches two of them in one step."
            )
        for leaf in leaves:
            if not isinstance(leaf, Exists):
                _check_leaf(leaf)
        for write in self.writes:
            if isinstance(write, Put):
                _check_put(write)
        if type(self.durable) is not bool:
            raise ConfigurationError(f"durable= of a Transaction takes True or False, not {kind_of(self.durable)}.")

    @property
    def partition(self) -> int:
        """Where its rows lie; 0 where it has none."""
        first = self.records or self.ranges
        return first[0].partition if first else 0

    @property
    def named(self) -> Iterator[Record | Range]:
        """Its rows and ranges, one after the other."""
        return chain(self.records, self.ranges)


class Outcome(NamedTuple):
    """What a transaction came to.

    Attributes:
        applied: Whether the condition held, so that everything was written; else nothing was.
        rows: The rows that were read, in the order of ``reads``, as they were before the writes; None for each that was not there.
        now_ms: The engine's clock at that moment, in milliseconds since the epoch.
        pages: For each of ``ranges`` its keys and rows, as they were before the writes, in its order.
    """

    applied: bool
    rows: tuple[Row | None, ...]
    now_ms: int
    pages: tuple[Page, ...] = ()

    def __repr__(self) -> str:
        return f"Outcome(applied={self.applied}, {len(self.rows)} rows, {len(self.pages)} pages)"


def find_leaves(condition: Condition) -> list[Exists | Is | AtMost]:
    """The conditions of single rows in a condition.

    Raises:
        ConfigurationError: Something in it is no condition.
    """
    found: list[Exists | Is | AtMost] = []
    left = [condition]
    while left:
        one = left.pop()
        if isinstance(one, PAIRS):
            left += one
        elif isinstance(one, Not):
            left.append(one.condition)
        elif isinstance(one, LEAVES):
            found.append(one)
        else:
            raise ConfigurationError(f"A condition is Exists, Is, AtMost, Not, AnyOf or AllOf, not {kind_of(one)}.")
    return found


def check_transaction(transaction: object, partitions: int = 1) -> None:
    """Refuse what ``transact`` cannot do: all but a Transaction, which was checked when it was made.

    Args:
        transaction: What ``transact`` was given.
        partitions: How many partitions the engine has.

    Raises:
        ConfigurationError: It is none, or of a partition that the engine has not.
    """
    if not isinstance(transaction, Transaction):
        raise ConfigurationError(f"transact() takes a Transaction of dcaf.engines, not {kind_of(transaction)}.")
    if transaction.partition >= partitions:
        raise ConfigurationError(f"The partition of a transaction is less than {partitions}, as many as this engine has.")


def _require_all(where: str, items: object, kinds: frozenset[type], takes: str) -> None:
    """Each item is of these very types: of a list or a tuple, since a transaction is gone through more than once."""
    if not isinstance(items, list | tuple):
        raise ConfigurationError(f"{where} of a Transaction takes a list of {takes}, not {kind_of(items)}.")
    if not kinds.issuperset(map(type, items)):
        raise ConfigurationError(f"{where} of a Transaction takes {takes} alone.")


def _check_partition(table: Table, partition: object) -> None:
    if type(partition) is not int or not 0 <= partition < MOST_PARTITIONS:
        raise ConfigurationError(f"The partition of a row of {table.name} is a number from 0 on, less than {MOST_PARTITIONS}.")


def _check_leaf(leaf: Is | AtMost) -> None:
    table = leaf.record.table
    kind = table.columns.get(leaf.column) if isinstance(leaf.column, str) else None
    if kind is None:
        raise ConfigurationError(f"A condition names a column that {table.name} has not.")
    if isinstance(leaf, Is):
        _check_value(table, leaf.column, kind, leaf.value)
    else:
        _check_number(table, leaf.column, kind, leaf.value.plus_ms if isinstance(leaf.value, Now) else leaf.value)


def _check_put(write: Put) -> None:
    table = write.record.table
    if type(write.values) is not dict and not isinstance(write.values, Mapping):
        raise ConfigurationError(f"Put takes a dict: a column of {table.name} -> its value.")
    kinds = table.columns
    for column, value in write.values.items():
        kind = kinds.get(column)
        if kind is None:
            raise ConfigurationError(f"A write names a column that {table.name} has not.")
        if value is None or (kind is bytes and type(value) is bytes):
            continue  # most columns; a turn writes some forty
        if isinstance(value, RESOLVED):
            _check_number(table, column, kind, value[0])
        else:
            _check_value(table, column, kind, value)
    words = None if table.searchable is None else write.values.get(table.searchable)
    if isinstance(words, bytes) and not are_words(words):
        raise ConfigurationError(
            f"{table.searchable} of {table.name} takes words of small letters and digits with a space between them."
        )


def _check_value(table: Table, column: str, kind: type[int | bytes], value: object) -> None:
    if value is None or (type(value) is kind and (kind is bytes or value in _BITS_64)):
        return
    raise ConfigurationError(f"{column} of {table.name} takes {'64 bits of an int' if kind is int else 'bytes'}, or None.")


def _check_number(table: Table, column: str, kind: type[int | bytes], value: object) -> None:
    """Check a number that is compared, or from which the engine works out a value."""
    if kind is not int or value is None:
        raise ConfigurationError(f"{column} of {table.name}: AtMost, Now and Plus take a column of int, and a number.")
    _check_value(table, column, kind, value)
