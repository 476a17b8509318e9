"""Encryption at rest: an engine over an engine, whose database has no state, message, fact, name or id that can be read.

>>> from dcaf.core.keys import Keyring
>>> from dcaf.engines import MemoryEngine
>>> from dcaf.service import SessionService
>>> rows = MemoryEngine()
>>> sessions = SessionService(rows, app="clinic", encrypt=Keyring.ephemeral())
>>> made = sessions.sync.create(user="p-123", id="visit-1", state={"allergy": "penicillin"})
>>> sessions.sync.get(user="p-123", id="visit-1").to_dict()
{'allergy': 'penicillin'}
>>> "penicillin" in repr(rows.__dict__["_rows"]._found)
False

What a reader gets wrong: it can still be read when rows were written, how many there are, and how long they are. And a row that is
put back as it was before is opened: rows are secret, and stay in their places, but whoever may write can undo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from dcaf.core.arguments import items_of, require, require_function
from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Keyring
from dcaf.engines import Engine, Health, Outcome, Row, SyncEngine, Table, Transaction
from dcaf.engines.base import check_scan
from dcaf.engines.opening import require_engine
from dcaf.ledger.tables import TABLES as LEDGER_TABLES
from dcaf.service.encryption_layout import LAYOUTS, NAMES, Layout, is_by_name
from dcaf.service.places import require_name
from dcaf.service.plans import Plan, run, run_async

if TYPE_CHECKING:
    from dcaf.service.artifact_contents import Files
    from dcaf.service.artifact_sealing import SealedContents
    from dcaf.service.encryption_names import Names
    from dcaf.service.encryption_rows import Rows

NO_CRYPTO: Final = "encrypt= needs what encrypts: pip install 'dcaf[crypto]'."
NOT_ENCRYPTED: Final = (
    "This service does not encrypt what it keeps, so there is nothing to encrypt anew: SessionService(..., encrypt=ring)."
)
TWICE: Final = "The engine encrypts already. Give SessionService the one below it, or leave out encrypt=."
NOT_DESCRIBED: Final = "The table {} cannot be kept encrypted: encryption_layout.py does not say what of it has to be."
NO_TABLES: Final = "declare() takes several tables: engine.declare([Table(...), ...])."


class EncryptedEngine:
    """Keeps the rows of one application encrypted in another engine. ``SessionService(encrypt=)`` makes it by itself.

    With a ledger of your own, make it first, and give it to both: ``engine = EncryptedEngine(url, app="clinic", keys=ring)``,
    ``SessionService(engine, app="clinic", ledger=Ledger(engine, audience="clinic"))``.

    Args:
        engine: Where the rows are: a url as ``open_engine`` takes it, or an engine.
        app: The application.
        keys: The ring: its signer encrypts, all of its keys decrypt.
        randomness: That many random bytes, for keys of names and nonces.

    Attributes:
        url: Of the engine below.
        partitions: Of the engine below.
        sync: The same methods without ``await``.
        app: The application.
        below: The engine below.
        keys: The ring.

    Raises:
        ConfigurationError: A setting is wrong, the engine encrypts already, or the extra ``crypto`` is not installed.
    """

    def __init__(self, engine: Engine | str, *, app: str, keys: Keyring, randomness: Callable[[int], bytes] = os.urandom) -> None:
        if isinstance(engine, EncryptedEngine):
            raise ConfigurationError(TWICE)
        self.below: Engine = require_engine("EncryptedEngine()", engine)
        self.app: str = require_name("app=", app)
        self.keys: Keyring = require("keys=", keys, Keyring, "the Keyring that encrypts, for instance Keyring.from_environment()")
        self.url: str = self.below.url
        self.partitions: int = self.below.partitions
        self._work = _load_work()
        self._randomness = require_function("randomness=", randomness)
        self._rows: Rows | None = None
        self.below.declare([NAMES])
        self.sync: SyncEngine = _EncryptedRows(self)

    def __repr__(self) -> str:
        return f"<EncryptedEngine {self.app!r} {self.url}>"

    def declare(self, tables: Iterable[Table]) -> None:
        """Name the tables. Those of a service are kept under other names.

        Raises:
            ConfigurationError: One of them cannot be kept encrypted.
        """
        coming = items_of(tables)
        if coming is None:
            raise ConfigurationError(NO_TABLES)
        self.below.declare([stored for table in coming for stored in find_stored(table)])

    async def transact(self, transaction: Transaction) -> Outcome:
        """As of an engine.

        Raises:
            SealedRowError: A row cannot be opened. Nothing was written.
            ConfigurationError: The application has rows that are not encrypted, or the documents of a session or a space are to be
                read in the order of their keys, and there are more than 10,000.
        """
        rows = self._rows or self._take(await run_async(self._open_names(), self.below))
        if _has_order(transaction):
            return await run_async(self._read_by_name(rows, transaction), self.below)
        return rows.open(transaction, await self.below.transact(rows.seal(transaction)))

    async def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        """As of an engine."""
        layout = _find_layout(table, equal, after, limit)
        if layout is None:
            return await self.below.scan(table, equal=equal, after=after, limit=limit)
        rows = self._rows or self._take(await run_async(self._open_names(), self.below))
        return rows.open_found(layout, await self.below.scan(layout.sealed, after=rows.hide_last(layout, after), limit=limit))

    async def purge(self, table: Table) -> int:
        """As of an engine."""
        first, *_ = [await self.below.purge(stored) for stored in find_stored(table)]
        return first

    async def check(self) -> Health:
        """As of an engine."""
        return await self.below.check()

    async def aclose(self) -> None:
        """As of an engine."""
        await self.below.aclose()

    def _seal_contents(self) -> SealedContents:
        """What encrypts the objects of artifacts; of an engine that was asked for a row before."""
        rows = self._rows
        assert rows is not None
        return cast("SealedContents", import_module("dcaf.service.artifact_sealing").SealedContents(rows))

    def _open_names(self) -> Plan[Names]:
        return cast(
            "Plan[Names]", self._work.open_names(self.app, self.keys, self.partitions, self.below.declare, self._randomness)
        )

    def _read_by_name(self, rows: Rows, transaction: Transaction) -> Plan[Outcome]:
        return cast("Plan[Outcome]", import_module("dcaf.service.encryption_order").read_by_name(rows, transaction))

    def _take(self, names: Names) -> Rows:
        self._rows = found = cast("Rows", self._work.Rows(names, self.app, self.keys, self.partitions, self._randomness))
        return found


class _EncryptedRows:
    """The methods without ``await``."""

    def __init__(self, engine: EncryptedEngine) -> None:
        self._engine = engine
        self._below = engine.below.sync

    def transact(self, transaction: Transaction) -> Outcome:
        rows = self._open_rows()
        if _has_order(transaction):
            return run(self._engine._read_by_name(rows, transaction), self._engine.below)
        return rows.open(transaction, self._below.transact(rows.seal(transaction)))

    def scan(
        self, table: Table, *, equal: bytes | None = None, after: bytes = b"", limit: int = 100
    ) -> Sequence[tuple[bytes, Row]]:
        layout = _find_layout(table, equal, after, limit)
        if layout is None:
            return self._below.scan(table, equal=equal, after=after, limit=limit)
        rows = self._open_rows()
        return rows.open_found(layout, self._below.scan(layout.sealed, after=rows.hide_last(layout, after), limit=limit))

    def purge(self, table: Table) -> int:
        first, *_ = [self._below.purge(stored) for stored in find_stored(table)]
        return first

    def check(self) -> Health:
        return self._below.check()

    def close(self) -> None:
        self._below.close()

    def _open_rows(self) -> Rows:
        engine = self._engine
        return engine._rows or engine._take(run(engine._open_names(), engine.below))


class Reencrypted(NamedTuple):
    """What an encryption anew came to.

    Attributes:
        rows: How many rows were encrypted anew.
        current: How many rows and objects were under the key that encrypts now.
        refused: How many cannot be opened, and stay as they are; and of saves that are not at their end yet, how many objects are
            under an older key.
        objects: How many objects of artifacts were encrypted anew.
    """

    rows: int = 0
    current: int = 0
    refused: int = 0
    objects: int = 0

    def plus(self, other: Reencrypted) -> Reencrypted:
        """Both together."""
        return Reencrypted(*map(sum, zip(self, other, strict=True)))


def require_encrypted(engine: Engine) -> EncryptedEngine:
    """The engine of a service that encrypts.

    Raises:
        ConfigurationError: It does not.
    """
    if not isinstance(engine, EncryptedEngine):
        raise ConfigurationError(NOT_ENCRYPTED)
    return engine


def plan_reencryption(engine: EncryptedEngine, files: Files | None) -> Plan[Reencrypted]:
    """What encrypts everything anew that is not under the key that encrypts now; for the engine below.

    Args:
        engine: The engine.
        files: The bytes of artifacts; None where the service has none.

    Raises:
        ConfigurationError: There are artifacts, and the service does not know where their bytes are.
    """
    rows = engine._take((yield from engine._open_names()))
    objects, rotation = import_module("dcaf.service.artifact_rotation"), import_module("dcaf.service.encryption_rotation")
    found: Reencrypted = yield from objects.reencrypt(rows, files, engine.app, engine.partitions)
    return found.plus((yield from rotation.reencrypt(engine.app, engine.keys, rows.cells, engine.partitions)))


def find_sealed(table: Table) -> Table:
    """The table in the database that has the rows of a table.

    Raises:
        ConfigurationError: Nobody has said what of it has to be encrypted.
    """
    return find_stored(table)[0]


def find_stored(table: Table) -> list[Table]:
    """The same, and the table of their names, if there is one.

    Raises:
        ConfigurationError: As of ``find_sealed``.
    """
    layout = LAYOUTS.get(require("declare()", table, Table, "a Table").name)
    if layout is not None and layout.table == table:
        return [stored for stored, _ in layout.stored]
    if table in LEDGER_TABLES:
        return [table]
    raise ConfigurationError(NOT_DESCRIBED.format(table.name))


def _has_order(transaction: Transaction) -> bool:
    """Whether it reads rows in the order of their names. What is no transaction is refused later."""
    return isinstance(transaction, Transaction) and any(map(is_by_name, transaction.ranges))


def _find_layout(table: Table, equal: bytes | None, after: bytes, limit: int) -> Layout | None:
    """How a table is kept; None where it is kept as it is.

    Raises:
        ConfigurationError: It is none, or ``scan`` takes no such argument. No encrypted table has an indexed column.
    """
    check_scan(table, equal, limit, after)
    return LAYOUTS.get(table.name)


def _load_work() -> ModuleType:
    """What encrypts rows, which needs a package that a service without encryption does without.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return import_module("dcaf.service.encryption_rows")
    except ModuleNotFoundError:
        raise ConfigurationError(NO_CRYPTO) from None
