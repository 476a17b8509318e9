"""Refuse to keep sessions as they are where their application is kept encrypted: none would be found, and new ones could be read.

>>> from dcaf.core.keys import Keyring
>>> from dcaf.engines import MemoryEngine
>>> from dcaf.service import SessionService
>>> rows = MemoryEngine()
>>> made = SessionService(rows, app="clinic", encrypt=Keyring.ephemeral()).sync.create(user="p-123")
>>> SessionService(rows, app="clinic").sync.list(user="p-123")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: The sessions of the application 'clinic' are encrypted here. Give its key ring: encrypt=...

The first transaction in each partition reads one row more, and is refused together with what it would write. After that nothing of
this is left in the way of a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.engines import AllOf, Engine, Exists, Health, Not, Outcome, Page, Row, Search, SyncEngine, Table, Transaction, can_search
from dcaf.service.encryption import EncryptedEngine
from dcaf.service.encryption_layout import NAMES, name_row

ENCRYPTED: Final = (
    "The sessions of the application {!r} are encrypted here. Give its key ring: encrypt=..., or on the command line --encrypted."
)


class PlainEngine:
    """The engine of a service that does not encrypt.

    Args:
        engine: The engine.
        app: The application.

    Attributes:
        url, sync, partitions: As of an engine.
        below: The engine.
    """

    def __init__(self, engine: Engine, app: str) -> None:
        self.below: Engine = engine
        self.url: str = engine.url
        self.partitions: int = engine.partitions
        self._app = app
        self._first = _FirstLook(app, engine.partitions)
        self.sync: SyncEngine = _PlainRows(engine, self._first)
        if can_search(engine):
            self.search: Callable[[Search], Awaitable[Page]] = engine.search
        engine.declare([NAMES])

    def declare(self, tables: Iterable[Table]) -> None:
        """As of an engine."""
        self.below.declare(tables)

    async def transact(self, transaction: Transaction) -> Outcome:
        """As of an engine.

        Raises:
            ConfigurationError: The application is kept encrypted; nothing was written.
        """
        first = self._first
        if not first.is_unknown(transaction):
            return await self.below.transact(transaction)
        return first.check_first(transaction, await self.below.transact(first.look_first(transaction)))

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        """As of an engine."""
        return await self.below.scan(table, equal=equal, after=after, limit=limit)

    async def purge(self, table: Table) -> int:
        """As of an engine."""
        return await self.below.purge(table)

    async def check(self) -> Health:
        """As of an engine."""
        return await self.below.check()

    async def aclose(self) -> None:
        """As of an engine."""
        await self.below.aclose()

    async def look(self, partition: int) -> None:
        """Look how the application is kept in a partition, for whoever asks the engine below.

        Raises:
            ConfigurationError: It is kept encrypted.
        """
        if self._first.is_due(partition):
            await self.transact(Transaction([name_row(self._app, partition)]))


def guard(engine: Engine, app: str) -> Engine:
    """An engine through which an application is kept as it is, or encrypted, and never both."""
    return engine if isinstance(engine, EncryptedEngine) else PlainEngine(engine, app)


def below_of(engine: Engine) -> Engine:
    """The engine that has the rows."""
    return engine.below if isinstance(engine, PlainEngine | EncryptedEngine) else engine


class _FirstLook:
    """Looks how an application is kept, once in each partition.

    Args:
        app: The application.
        partitions: Of the engine.
    """

    def __init__(self, app: str, partitions: int) -> None:
        self._app = app
        self._unknown = set(range(partitions))

    def is_due(self, partition: int) -> bool:
        """Whether nobody has looked yet in a partition."""
        return partition in self._unknown

    def is_unknown(self, transaction: object) -> bool:
        """Whether nobody has looked yet how the application is kept where a transaction lies."""
        return isinstance(transaction, Transaction) and transaction.partition in self._unknown

    def look_first(self, transaction: Transaction) -> Transaction:
        """The same transaction, which does nothing where the application is kept encrypted."""
        row = name_row(self._app, transaction.partition)
        is_plain, when = Not(Exists(row)), transaction.when
        return Transaction(
            [*transaction.reads, row],
            when=is_plain if when is None else AllOf(is_plain, when),
            writes=transaction.writes,
            durable=transaction.durable,
            ranges=transaction.ranges,
        )

    def check_first(self, transaction: Transaction, outcome: Outcome) -> Outcome:
        """What the transaction itself came to.

        Raises:
            ConfigurationError: The application is kept encrypted.
        """
        *rows, found = outcome.rows
        if found is not None:
            raise ConfigurationError(ENCRYPTED.format(self._app))
        self._unknown.discard(transaction.partition)
        return outcome._replace(rows=tuple(rows))


class _PlainRows:
    """The methods without ``await``."""

    def __init__(self, engine: Engine, first: _FirstLook) -> None:
        self._first = first
        self._below = engine.sync
        if can_search(engine):
            self.search: Callable[[Search], Page] = engine.sync.search

    def transact(self, transaction: Transaction) -> Outcome:
        if not self._first.is_unknown(transaction):
            return self._below.transact(transaction)
        return self._first.check_first(transaction, self._below.transact(self._first.look_first(transaction)))

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        return self._below.scan(table, equal=equal, after=after, limit=limit)

    def purge(self, table: Table) -> int:
        return self._below.purge(table)

    def check(self) -> Health:
        return self._below.check()

    def close(self) -> None:
        self._below.close()
