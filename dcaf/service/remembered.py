"""Facts that a user or a session remembers, as rows: what reads them, what a turn writes of them, and how all are forgotten.

>>> from dcaf.engines import MemoryEngine
>>> from dcaf.service.plans import run
>>> from dcaf.service.tables import MEMORY, Owner
>>> engine = MemoryEngine()
>>> engine.declare([MEMORY])
>>> scope = MemoryScope.of_user(Owner("clinic", "p-123", partitions=1))
>>> run(write_memory(scope, "allergies", Fact(b'["penicillin"]')), engine)
>>> [fact.value for fact in run(list_memory(scope, 10), engine).items]
[['penicillin']]
>>> run(clear_memory(scope), engine), run(list_memory(scope, 10), engine).items
(1, [])

To forget everything is one write, so that it is part of one commit with whatever a turn remembers afterwards: one row, the head,
has a number, the generation, and the keys of facts begin with the generation in which they were written. Facts of an older one
are found by nobody, and are dropped afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from dcaf.core.arguments import require
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError
from dcaf.core.json_values import read
from dcaf.engines import (
    AllOf,
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
    Transaction,
    Write,
)
from dcaf.service.kept import is_alive, is_there, moment_of
from dcaf.service.listing import MOST_LIMIT, WRONG_CURSOR, ListPage
from dcaf.service.places import require_there
from dcaf.service.plans import Plan
from dcaf.service.tables import MEMORY, MOST_NAME_BYTES, Owner, pack_name, pack_number

FACT: Final = b"g"
HEAD: Final = b"h"
"""What stands between a scope and the rest of a key. The head comes last: whoever drops all rows in order drops it last."""

PAGE: Final = 200
DROPPED_AT_ONCE: Final = 200
TAG_BYTES: Final = 8


class Remembered(NamedTuple):
    """A fact.

    Attributes:
        key: Its name.
        value: Its value, as JSON has it.
        created_at: When it was first remembered, in UTC.
        updated_at: When it was last, in UTC.
        expires_at: When it is forgotten, in UTC; None for never.
    """

    key: str
    value: Any
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"<Remembered since {self.created_at:%Y-%m-%d}>"


@dataclass(frozen=True, slots=True)
class Fact:
    """What is to be remembered.

    Attributes:
        value: Its value, as JSON.
        ttl_ms: For how long, in milliseconds; None for ever.
    """

    value: bytes = field(repr=False)
    ttl_ms: int | None = None


class Recalled(NamedTuple):
    """A fact as it was read.

    Attributes:
        row: Its row; None where there is none.
        generation: Of its scope.
    """

    row: Row | None
    generation: int


@dataclass(frozen=True, slots=True)
class MemoryScope:
    """Who remembers: a user, or a session.

    Attributes:
        prefix: What the keys of its rows begin with.
        partition: Where they lie.
        session: The row of the session with which all of it goes; None for a user's.
        birth: Of that session; None for whichever has its id.
    """

    prefix: bytes = field(repr=False)
    partition: int
    session: Record | None = field(default=None, repr=False)
    birth: bytes | None = field(default=None, repr=False)

    @classmethod
    def of_user(cls, owner: Owner, session_id: str = "", birth: bytes | None = None) -> MemoryScope:
        """What all sessions of a user remember. The last two are needed for an anonymous session alone, which is its own user."""
        session = owner.session_row(session_id) if owner.user is None else None
        return cls(owner.shared_memory_key(session_id), owner.partition, session, birth)

    @classmethod
    def of_session(cls, owner: Owner, session_id: str, birth: bytes | None = None) -> MemoryScope:
        """What one session remembers."""
        return cls(owner.memory_key(session_id), owner.partition, owner.session_row(session_id), birth)

    @property
    def head(self) -> Record:
        """The row with its generation."""
        return Record(MEMORY, self.prefix + HEAD, self.partition)

    @property
    def guards(self) -> list[Record]:
        """The row of its session, if it has one."""
        return [] if self.session is None else [self.session]

    def begin(self, generation: int) -> bytes:
        """What the keys of the facts of a generation begin with."""
        return self.prefix + FACT + pack_number(generation)

    def row(self, name: str, generation: int) -> Record:
        """The row of a fact."""
        return Record(MEMORY, self.begin(generation) + pack_name(name), self.partition)

    def is_at(self, generation: int) -> Condition:
        """Nobody has cleared it since."""
        return Is(self.head, "generation", generation) if generation else Not(Exists(self.head))

    def is_open(self) -> list[Condition]:
        """Its session is there and open, if it has one."""
        if self.session is None:
            return []
        is_open = [is_alive(self.session), Is(self.session, "closed", None)]
        return [*is_open, *([Is(self.session, "birth", self.birth)] if self.birth is not None else [])]

    def has_session(self, outcome: Outcome) -> bool:
        """The same, of a transaction that has read its guards first."""
        if self.session is None:
            return True
        row = outcome.rows[0]
        return is_there(row, outcome.now_ms) and (self.birth is None or (row is not None and row["birth"] == self.birth))


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """What is written to a memory: part of a transaction, which may have to be laid over what it read.

    Attributes:
        scope: Whose memory.
        facts: Name -> what is remembered from now on; None for what is forgotten.
        clears: How often everything else was forgotten; 0 for never.
        generation: The generation as far as known.
        created: Name -> when its fact was first remembered, as far as known; absent where there is none.
    """

    scope: MemoryScope
    facts: Mapping[str, Fact | None] = field(default_factory=dict, repr=False)
    clears: int = 0
    generation: int = 0
    created: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.facts or self.clears)

    @property
    def after(self) -> int:
        """The generation afterwards."""
        return self.generation + (1 if self.clears else 0)

    def reads(self) -> list[Record]:
        """The rows that are read and compared: the head first."""
        return [] if self.is_empty else [self.scope.head, *(self.scope.row(name, self.generation) for name in self._kept())]

    def conditions(self) -> list[Condition]:
        """The memory is as far as known; one condition, or none."""
        if self.is_empty:
            return []
        return [join([self.scope.is_at(self.generation), *map(self._has_known, self._kept())])]

    def writes(self) -> list[Write]:
        """What is written."""
        if not self.clears:
            return [self._write(name, fact) for name, fact in self.facts.items()]
        head = Put(self.scope.head, {"generation": self.after})
        return [head, *(self._write(name, fact) for name, fact in self.facts.items() if fact is not None)]

    def over(self, rows: Sequence[Row | None]) -> MemoryChange:
        """The same, laid over the memory as it is.

        Args:
            rows: Those of ``reads``, in its order.
        """
        if self.is_empty:
            return self
        found = zip(self._kept(), rows[1:], strict=True)
        created = {name: created for name, row in found if row is not None and isinstance(created := row["created"], int)}
        generation = generation_of(rows[0])
        return replace(self, generation=generation, created=created if generation == self.generation else {})

    def _kept(self) -> list[str]:
        """The names whose facts may have been there, so that it matters when they were first remembered."""
        return [] if self.clears else [name for name, fact in self.facts.items() if fact is not None]

    def _has_known(self, name: str) -> Condition:
        row, created = self.scope.row(name, self.generation), self.created.get(name)
        return Not(Exists(row)) if created is None else Is(row, "created", created)

    def _write(self, name: str, fact: Fact | None) -> Write:
        row = self.scope.row(name, self.after)
        if fact is None:
            return Delete(row)
        created = None if self.clears else self.created.get(name)
        ends = None if fact.ttl_ms is None else Now(fact.ttl_ms)
        moments = {"created": Now() if created is None else created, "updated": Now(), "expires": ends}
        return Put(row, {"name": name.encode(), "value": fact.value, **moments})


def read_memory(scope: MemoryScope, name: str, generation: int = 0) -> Plan[Recalled]:
    """Read a fact.

    Args:
        scope: Whose memory.
        name: Its name.
        generation: The generation as far as known; where it is another one, this asks once more.
    """
    while True:
        outcome = yield Transaction([*scope.guards, scope.head, scope.row(name, generation)])
        head, row = outcome.rows[-2:]
        if (found := generation_of(head)) == generation:
            return Recalled(row if scope.has_session(outcome) else None, generation)
        generation = found


def list_memory(scope: MemoryScope, limit: int, cursor: str | None = None) -> Plan[ListPage[Remembered]]:
    """Read a page of facts.

    Args:
        scope: Whose memory.
        limit: How many at most, up to 1,000; 0 for none.
        cursor: Where the page before ended; None for the first.

    Raises:
        ConfigurationError: The limit is no such number, or the cursor is that of another list.
    """
    if not 0 <= require("limit=", limit, int, "a number of facts") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 0 to {MOST_LIMIT:,}.")
    last = _unpack_cursor(scope, cursor)
    if limit == 0:
        return ListPage([], cursor)
    page, *_ = yield from _read_page(scope, limit + 1, last)
    items = [_describe(row) for _, row in page[:limit]]
    return ListPage(items, _pack_cursor(scope, items[-1].key) if len(page) > limit else None)


def read_all(scope: MemoryScope, generation: int = 0) -> Plan[tuple[dict[str, Remembered], int]]:
    """Read all facts; returns name -> fact, and the engine's clock.

    Args:
        scope: Whose memory.
        generation: The generation as far as known.
    """
    found: dict[str, Remembered] = {}
    last = b""
    while True:
        page, current, now_ms = yield from _read_page(scope, PAGE, last, generation)
        if current != generation and last:  # what was read of it is forgotten
            found, last = {}, b""
        else:
            found |= {fact.key: fact for fact in (_describe(row) for _, row in page)}
            if len(page) < PAGE:
                return found, now_ms
            last = page[-1][0].removeprefix(scope.begin(current))
        generation = current


def write_memory(scope: MemoryScope, name: str, fact: Fact) -> Plan[None]:
    """Remember a fact. Raises as ``commit_changes``."""
    yield from commit_changes([MemoryChange(scope, {name: fact})])


def commit_changes(changes: Sequence[MemoryChange]) -> Plan[Sequence[MemoryChange]]:
    """Write changes that belong to no turn, all of them or none; returns them, laid over what was there.

    Args:
        changes: Of memories in one partition, of which one at most has a session.

    Raises:
        UnknownSessionError, SessionClosedError: It is the memory of a session that is not there, or was closed.
    """
    scope = next((change.scope for change in changes if change.scope.session), changes[0].scope)
    while True:
        conditions = [*scope.is_open(), *(one for change in changes for one in change.conditions())]
        reads = [*scope.guards, *(record for change in changes for record in change.reads())]
        outcome = yield Transaction(reads, when=join(conditions), writes=[one for change in changes for one in change.writes()])
        if outcome.applied:
            return changes
        if scope.session is not None:
            require_there(outcome, scope.birth)
        changes = lay_over(changes, outcome.rows[len(scope.guards) :])


def lay_over(changes: Sequence[MemoryChange], rows: Sequence[Row | None]) -> list[MemoryChange]:
    """Lay changes over what was there: the rows that they read, one change after the other."""
    left = iter(rows)
    return [change.over(list(islice(left, len(change.reads())))) for change in changes]


def delete_memory(scope: MemoryScope, name: str) -> Plan[bool]:
    """Forget a fact; False where there is none.

    Raises:
        UnknownSessionError, SessionClosedError: It is the memory of a session that is not there, or was closed.
    """
    generation = 0
    while True:
        row = scope.row(name, generation)
        when = join([*scope.is_open(), scope.is_at(generation)])
        outcome = yield Transaction([*scope.guards, scope.head, row], when=when, writes=[Delete(row)])
        if outcome.applied:
            return outcome.rows[-1] is not None
        if scope.session is not None:
            require_there(outcome, scope.birth)
        generation = generation_of(outcome.rows[-2])


def clear_memory(scope: MemoryScope) -> Plan[int]:
    """Forget everything; returns how many facts that were.

    All are forgotten with the first step. Their rows follow, in steps.

    Raises:
        UnknownSessionError, SessionClosedError: It is the memory of a session that is not there, or was closed.
    """
    generation = 0
    while True:
        when = join([*scope.is_open(), scope.is_at(generation)])
        writes = [Put(scope.head, {"generation": Plus(1)})]
        outcome = yield Transaction([*scope.guards, scope.head], when=when, writes=writes)
        if outcome.applied:
            return (yield from _drop_older(scope, generation + 1, counted=generation))
        if scope.session is not None:
            require_there(outcome, scope.birth)
        generation = generation_of(outcome.rows[-1])


def drop_cleared(scope: MemoryScope) -> Plan[int]:
    """Drop the rows of facts that were forgotten by a clear, which nobody finds any more; returns how many."""
    outcome = yield Transaction([scope.head])
    return (yield from _drop_older(scope, generation_of(outcome.rows[0]), counted=0))


def generation_of(head: Row | None) -> int:
    """How often everything was forgotten."""
    found = None if head is None else head["generation"]
    return found if isinstance(found, int) else 0


def join(conditions: Sequence[Condition]) -> Condition:
    """One condition of several, which must all hold; nested as flat as can be, since there may be hundreds."""
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return AllOf(join(conditions[:middle]), join(conditions[middle:]))


def _drop_older(scope: MemoryScope, generation: int, counted: int) -> Plan[int]:
    """Drop the rows of older generations in steps; returns how many there were of those from ``counted`` on.

    A generation that is over never comes back, so nothing that is remembered meanwhile is touched.
    """
    dropped, head = 0, scope.head
    is_over = AllOf(Exists(head), Not(AtMost(head, "generation", generation - 1)))
    rows = Range(MEMORY, scope.begin(0), scope.begin(generation), DROPPED_AT_ONCE, partition=scope.partition)
    while generation:
        outcome = yield Transaction([head], ranges=[rows])
        keys = [key for key, _ in outcome.pages[0]]
        if not keys:
            break
        writes = [Delete(Record(MEMORY, key, scope.partition)) for key in keys]
        if not (yield Transaction([head], when=is_over, writes=writes)).applied:
            break
        dropped += sum(key >= scope.begin(counted) for key in keys)
    return dropped


def _read_page(scope: MemoryScope, limit: int, last: bytes, generation: int = 0) -> Plan[tuple[Page, int, int]]:
    """Read the rows after a packed name; returns them, the generation, and the engine's clock."""
    while True:
        whole = Range.of_prefix(MEMORY, scope.begin(generation), limit, partition=scope.partition)
        rows = replace(whole, start=whole.start + last + b"\0") if last else whole
        outcome = yield Transaction([*scope.guards, scope.head], ranges=[rows])
        if (found := generation_of(outcome.rows[-1])) == generation:
            return outcome.pages[0] if scope.has_session(outcome) else (), generation, outcome.now_ms
        generation = found


def _describe(row: Row) -> Remembered:
    moment = partial(_moment, row)
    name, value = cast("bytes", row["name"]).decode(), read(cast("bytes", row["value"]))
    return Remembered(name, value, moment("created"), moment("updated"), moment("expires") if row["expires"] is not None else None)


def _moment(row: Row, column: str) -> datetime:
    return moment_of(cast("int", row[column]))


def _tag(scope: MemoryScope) -> bytes:
    return hashlib.sha256(b"memory" + scope.prefix).digest()[:TAG_BYTES]


def _pack_cursor(scope: MemoryScope, name: str) -> str:
    return encode(_tag(scope) + pack_name(name))


def _unpack_cursor(scope: MemoryScope, cursor: str | None) -> bytes:
    """The packed name at which a page ended; none for the first page."""
    if cursor is None:
        return b""
    try:
        found = decode(require("cursor=", cursor, str, "the cursor of a page, or None"))
    except ValueError:
        raise ConfigurationError(WRONG_CURSOR) from None
    if found[:TAG_BYTES] != _tag(scope) or not TAG_BYTES < len(found) <= TAG_BYTES + MOST_NAME_BYTES:
        raise ConfigurationError(WRONG_CURSOR)
    return found[TAG_BYTES:]
