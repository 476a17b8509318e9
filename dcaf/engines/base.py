"""The contract of an engine: rows on a server that are read, compared and written in one step.

>>> from dcaf.engines import AnyOf, AtMost, Exists, MemoryEngine, Not, Now, Put, Record, Table, Transaction
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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from dcaf.core.arguments import items_of, kind_of, require
from dcaf.core.errors import ConfigurationError
from dcaf.engines.transactions import LARGEST, Outcome, Row, Table, Transaction

Durability: TypeAlias = Literal["acknowledged", "relaxed", "none"]
"""What survives of an acknowledged write: a power cut; the end of the process, and perhaps not a power cut; nothing."""


DURABILITIES: Final = ("acknowledged", "relaxed")
"""What an engine that keeps rows outside of this process may promise."""


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
        partitions: In how many parts the rows lie, each of which is on one server: 1 where there is one server. A transaction stays
            within one; a scan and a purge go over all.
    """

    url: str
    partitions: int

    @property
    def sync(self) -> SyncEngine:
        """The same methods without ``await``."""

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


def require_promise(durability: object, timeout: timedelta) -> float:
    """Check what an engine that keeps rows outside of this process takes: what it promises, and its time.

    Returns:
        The time in seconds.

    Raises:
        ConfigurationError: One of them is wrong.
    """
    if durability not in DURABILITIES:
        raise ConfigurationError('durability= takes "acknowledged" or "relaxed".')
    if require("timeout=", timeout, timedelta, "a timedelta") <= timedelta():
        raise ConfigurationError("timeout= must be a timedelta that is longer than none, for instance timedelta(seconds=1).")
    return timeout.total_seconds()


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
