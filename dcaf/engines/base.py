"""The contract of an engine: rows on a server that are read, compared and written in one step.

>>> from dcaf.engines.memory import MemoryEngine
>>> SEATS = Table("seats", {"holder": bytes, "until": int})
>>> engine = MemoryEngine(clock=lambda: 1_000.0)
>>> engine.declare([SEATS])
>>> seat = Record(SEATS, b"12A")
>>> take = Transaction([seat], when=AnyOf(Not(Exists(seat)), AtMost(seat, "until", Now())), writes=[
...     Put(seat, {"holder": b"ada", "until": Now(60_000)})])
>>> engine.sync.transact(take).applied, engine.sync.transact(take).applied
(True, False)
>>> engine.sync.transact(Transaction([seat])).rows
({'holder': b'ada', 'until': 1060000},)

An engine knows no rule of a session. It takes a transaction as data: which rows to read, a condition on them, and what to write if
that holds (the compare, then and else of etcd's ``Txn``). So a rule is written once, in Python, over every engine, and each turn
costs one round trip to open and one to commit, also where the rows are in another process.

Three rules hold for every engine:

- A transaction is atomic. What it returns are the rows as they were before its own writes.
- ``now`` is the engine's clock, and not that of the caller: machines differ by seconds.
- A row whose column ``expires`` is not after now does not exist. An engine drops such rows when it likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from dcaf.core.arguments import items_of, kind_of, require, require_bool
from dcaf.core.errors import ConfigurationError, EngineError

Value: TypeAlias = int | bytes | None
"""What stands in a column: an integer of 64 bits, bytes, or nothing."""

Row: TypeAlias = Mapping[str, Value]
"""Column -> value, all columns of its table."""

Durability: TypeAlias = Literal["acknowledged", "relaxed", "none"]
"""What survives of an acknowledged write: a power cut; the end of the process, and perhaps not a power cut; nothing."""

EXPIRES: Final = "expires"
"""The column with the moment from which a row does not exist, in milliseconds since the epoch; None for no end."""

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
MOST_KEY_BYTES: Final = 256
"""The longest key of a row."""

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

    Raises:
        ConfigurationError: A name is none, a column has another type, the indexed column is no column of bytes, or ``large`` is
            neither True nor False.
    """

    name: str
    columns: Mapping[str, type[int | bytes]] = field(hash=False)
    indexed: str | None = None
    large: bool = False

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
        if self.indexed is not None and not (isinstance(self.indexed, str) and columns.get(self.indexed) is bytes):
            raise ConfigurationError(f"indexed= of {self.name} names one of its columns of bytes.")
        require_bool(f"large= of {self.name}", self.large)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table, there or not.

    Attributes:
        table: The table.
        key: The key: 1 to 256 bytes.

    Raises:
        ConfigurationError: The table is none, or the key.
    """

    table: Table
    key: bytes = field(repr=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.table, Table):
            raise ConfigurationError(f"A Record is a row of a Table, not of {kind_of(self.table)}: Record(table, key).")
        if type(self.key) is not bytes or not 0 < len(self.key) <= MOST_KEY_BYTES:
            raise ConfigurationError(f"The key of a row of {self.table.name} is 1 to {MOST_KEY_BYTES} bytes.")
        object.__setattr__(self, "_hash", hash((self.table.name, self.key)))

    def __hash__(self) -> int:
        return self._hash  # each turn looks some eighty times for a row by its record


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


class AtMost(NamedTuple):
    """The row is there, and its column has a number that is not larger."""

    record: Record
    column: str
    value: int | Now


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


class Delete(NamedTuple):
    """Remove a row; nothing happens where there is none."""

    record: Record


Write: TypeAlias = "Put | Delete"
"""What a transaction does to one row."""

_RECORDS: Final[frozenset[type]] = frozenset([Record])
_WRITES: Final[frozenset[type]] = frozenset([Put, Delete])

RESOLVED: Final = (Now, Plus)
"""Values that the engine works out."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Rows to read, a condition on them, and what to write if it holds.

    Attributes:
        reads: The rows; those that the condition and the writes name, too.
        when: The condition; None for none.
        writes: What is written, in this order, if the condition holds. Each row is named once.
        durable: Whether the answer must wait until a power cut loses nothing of it. A claim need not be durable: whoever held it
            has died with the machine.

    Raises:
        ConfigurationError: Something is of another type, the condition or a write names a row that is not read, a row is written
            twice, a column is none, or a value is not of its column's type.
    """

    reads: Sequence[Record]
    when: Condition | None = None
    writes: Sequence[Write] = ()
    durable: bool = True

    def __post_init__(self) -> None:
        _require_all("reads=", self.reads, _RECORDS, "records")
        _require_all("writes=", self.writes, _WRITES, "Put(...) and Delete(...)")
        written = [write.record for write in self.writes]
        leaves = [] if self.when is None else find_leaves(self.when)
        named = [*written, *(leaf.record for leaf in leaves)]
        _require_all("Put, Delete and conditions", named, _RECORDS, "records")
        if not set(named) <= set(self.reads) or len(set(written)) < len(written):
            raise ConfigurationError("A transaction reads each row that its condition and its writes name, and writes each once.")
        for leaf in leaves:
            if not isinstance(leaf, Exists):
                _check_leaf(leaf)
        for write in self.writes:
            if isinstance(write, Put):
                _check_put(write)
        if type(self.durable) is not bool:
            raise ConfigurationError(f"durable= of a Transaction takes True or False, not {kind_of(self.durable)}.")


class Outcome(NamedTuple):
    """What a transaction came to.

    Attributes:
        applied: Whether the condition held, so that everything was written; else nothing was.
        rows: The rows that were read, in the order of ``reads``, as they were before the writes; None for each that was not there.
        now_ms: The engine's clock at that moment, in milliseconds since the epoch.
    """

    applied: bool
    rows: tuple[Row | None, ...]
    now_ms: int


class Health(NamedTuple):
    """What an engine says of itself.

    Attributes:
        durability: What survives of an acknowledged write.
        took_ms: How long a transaction took just now.
        details: Settings that matter, for an operator; no password.
    """

    durability: Durability
    took_ms: float
    details: Mapping[str, str]


class SyncEngine(Protocol):
    """The methods of an engine for code that runs on no event loop. They block."""

    def transact(self, transaction: Transaction) -> Outcome:
        """As of an engine."""

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        """As of an engine."""

    def purge(self, table: Table) -> int:
        """As of an engine."""

    def check(self) -> Health:
        """As of an engine."""

    def close(self) -> None:
        """As ``aclose`` of an engine."""


class Engine(Protocol):
    """Keeps rows. One object serves every event loop and every thread of a process, and a process that was forked.

    Attributes:
        url: Where the rows are, without a password.
        sync: The same methods without ``await``.
    """

    url: str
    sync: SyncEngine

    def declare(self, tables: Iterable[Table]) -> None:
        """Name the tables. They are made when they are first used, by any number of processes at once.

        Raises:
            ConfigurationError: A table of that name has other columns of the same names.
        """

    async def transact(self, transaction: Transaction) -> Outcome:
        """Read rows and, if the condition holds, write.

        A call that is cancelled may have been applied, and may yet be applied shortly after; it leaves nothing half done.

        Raises:
            EngineError: It could not be done, and nothing was written.
            CommitUnknownError: Nobody can tell whether it was written.
        """

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        """Find rows, in the order of their keys.

        Args:
            table: Their table.
            equal: The value of its indexed column; None for any.
            after: Only keys that come after this one: the last key of the page before.
            limit: How many at most.

        Raises:
            EngineError: It could not be done.
            ConfigurationError: The table has no indexed column, or the limit is less than 1.
        """

    async def purge(self, table: Table) -> int:
        """Drop the rows that have expired, and return how many there were.

        Raises:
            EngineError: It could not be done.
        """

    async def check(self) -> Health:
        """Look whether it works.

        Raises:
            EngineError: It does not.
        """

    async def aclose(self) -> None:
        """Finish what was begun, and let go of files and connections. A transaction after it raises EngineError."""


class Tables:
    """The tables that were declared, for engines."""

    def __init__(self) -> None:
        self._known: dict[str, Table] = {}

    def __iter__(self) -> Iterator[Table]:
        return iter(list(self._known.values()))

    def declare(self, tables: Iterable[Table]) -> list[Table]:
        """Take tables in; returns those that are new.

        Raises:
            ConfigurationError: A table of that name has other columns, or these are no tables.
        """
        coming = items_of(tables)
        if coming is None or not all(isinstance(table, Table) for table in coming):
            raise ConfigurationError("declare() takes several tables: engine.declare([Table(...), ...]).")
        for table in coming:
            if self._known.get(table.name, table) != table:
                raise ConfigurationError(f"Two tables are called {table.name}, and have not the same columns.")
        found = [table for table in coming if table.name not in self._known]
        self._known.update((table.name, table) for table in found)
        return found

    def require(self, table: Table) -> None:
        """Require that a table was declared.

        Raises:
            ConfigurationError: It was not, or is no table.
        """
        if not isinstance(table, Table):
            raise ConfigurationError(f"This takes a Table that was declared, not {kind_of(table)}.")
        known = self._known.get(table.name)
        if known is not table and known != table:
            raise ConfigurationError(f"Declare the table {table.name} first: engine.declare([...]).")


def check_transaction(transaction: object) -> None:
    """Refuse what ``transact`` cannot do: all but a Transaction, which was checked when it was made.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(transaction, Transaction):
        raise ConfigurationError(f"transact() takes a Transaction of dcaf.engines, not {kind_of(transaction)}.")


def check_scan(table: Table, equal: bytes | None, limit: int, after: bytes = b"") -> None:
    """Refuse what ``scan`` cannot do.

    Args:
        table, equal, limit, after: As of ``scan``.

    Raises:
        ConfigurationError: The table is none, or has no indexed column, a value is no bytes, or the limit is less than 1.
    """
    require("scan()", table, Table, "a Table")
    if equal is not None and table.indexed is None:
        raise ConfigurationError(f"{table.name} has no indexed column, so scan() takes no equal=.")
    if equal is not None:
        require("equal= of scan()", equal, bytes, "bytes, or None for any")
    require("after= of scan()", after, bytes, "the last key of the page before")
    if not 1 <= require("limit= of scan()", limit, int, "a number of rows, 1 or more") <= LARGEST:
        raise ConfigurationError("limit= of scan() is 1 or more.")


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
        rows: The rows that it reads, without those that have expired.
        now_ms: The engine's clock.

    Returns:
        Each row that is written, as it is afterwards, and None for each that is removed. None where the condition does not hold.

    Raises:
        EngineError: A number would not fit in 64 bits.
        ConfigurationError: It is no transaction, the rows are not those that it reads, or the clock is no int.
    """
    check_transaction(transaction)
    if not isinstance(rows, Mapping) or type(now_ms) is not int:
        raise ConfigurationError("apply() takes the rows of a transaction, record -> row or None, and now_ms, an int.")
    try:
        return _apply(transaction, rows, now_ms)
    except KeyError:
        raise ConfigurationError("The rows of apply() have each record that the transaction reads.") from None


def _apply(transaction: Transaction, rows: Mapping[Record, Row | None], now_ms: int) -> dict[Record, Row | None] | None:
    if transaction.when is not None and not holds(transaction.when, rows, now_ms):
        return None
    return {write.record: _written(write, rows[write.record], now_ms) for write in transaction.writes}


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


def _require_all(where: str, items: object, kinds: frozenset[type], takes: str) -> None:
    """Each item is of these very types: of a list or a tuple, since a transaction is gone through more than once."""
    if not isinstance(items, list | tuple):
        raise ConfigurationError(f"{where} of a Transaction takes a list of {takes}, not {kind_of(items)}.")
    if not kinds.issuperset(map(type, items)):
        raise ConfigurationError(f"{where} of a Transaction takes {takes} alone.")


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
    for column, value in write.values.items():
        kind = table.columns.get(column)
        if kind is None:
            raise ConfigurationError(f"A write names a column that {table.name} has not.")
        if isinstance(value, RESOLVED):
            _check_number(table, column, kind, value[0])
        else:
            _check_value(table, column, kind, value)


def _check_value(table: Table, column: str, kind: type[int | bytes], value: object) -> None:
    if value is None or (type(value) is kind and (kind is bytes or value in _BITS_64)):
        return
    raise ConfigurationError(f"{column} of {table.name} takes {'64 bits of an int' if kind is int else 'bytes'}, or None.")


def _check_number(table: Table, column: str, kind: type[int | bytes], value: object) -> None:
    """Check a number that is compared, or from which the engine works out a value."""
    if kind is not int or value is None:
        raise ConfigurationError(f"{column} of {table.name}: AtMost, Now and Plus take a column of int, and a number.")
    _check_value(table, column, kind, value)


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
