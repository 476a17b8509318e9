"""Facts that a user or a session remembers: whose they are, what a row says, and what a turn writes.

>>> from dcaf.service.tables import Owner
>>> user, other = (MemoryScope.of_user(Owner("clinic", name, partitions=1)) for name in ("p-123", "p-124"))
>>> user.row("allergies", 0) == other.row("allergies", 0), user.row("allergies", 0) == user.row("allergies", 1)
(False, False)

To forget everything is one write, so that it is part of one commit with whatever a turn remembers afterwards: one row, the head,
has a number, the generation, and the keys of facts begin with the generation in which they were written. Facts of an older one
are found by nobody, and are dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from dcaf.core.json_values import read
from dcaf.engines import (
    AllOf,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Outcome,
    Put,
    Record,
    Row,
    Write,
)
from dcaf.service.kept import is_alive, is_open, is_there, moment_of
from dcaf.service.tables import MEMORY, Owner, pack_name, pack_number

SHORTEST_TTL: Final = timedelta(milliseconds=1)
LONGEST_TTL: Final = timedelta(days=36_525)
"""For how long something that ends by itself may be kept."""

FACT: Final = b"g"
HEAD: Final = b"h"
"""What stands between a scope and the rest of a key. The head comes last: whoever drops all rows in order drops it last."""


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
        return [
            is_alive(self.session),
            is_open(self.session),
            *([Is(self.session, "birth", self.birth)] if self.birth is not None else []),
        ]

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


def lay_over(changes: Sequence[MemoryChange], rows: Sequence[Row | None]) -> list[MemoryChange]:
    """Lay changes over what was there: the rows that they read, one change after the other."""
    left = iter(rows)
    return [change.over(list(islice(left, len(change.reads())))) for change in changes]


def describe(row: Row) -> Remembered:
    """The fact of a row."""
    moment = partial(_moment, row)
    name, value = cast("bytes", row["name"]).decode(), read(cast("bytes", row["value"]))
    return Remembered(name, value, moment("created"), moment("updated"), moment("expires") if row["expires"] is not None else None)


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


def _moment(row: Row, column: str) -> datetime:
    return moment_of(cast("int", row[column]))
