"""Whose artifacts: a session's, or a user's; and where the rows of them lie.

>>> owner = Owner("clinic", "p-123", partitions=1)
>>> own = Scope.of_session(b"app", owner, "visit-1", b"birth123", shared=False)
>>> own.head("scan.png") == Scope.of_user(b"app", owner).head("scan.png")
False

The rows of a session's artifacts have its birth in their keys, so a session that is made anew under an old id has none of the old
one's. One that is not committed yet has artifacts already: what a first turn saves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dcaf.engines import AnyOf, Condition, Exists, Is, Not, Outcome, Range, Record, Row
from dcaf.service.kept import is_alive, is_open, is_there
from dcaf.service.places import require_there
from dcaf.service.remembered import join
from dcaf.service.tables import ARTIFACTS, OF_OWNER, OF_SESSION, Owner, pack_name, pack_number

COUNT: Final = b"c"
DROPPED: Final = b"d"
HEAD: Final = b"h"
VERSION: Final = b"v"
"""What stands between a scope and the rest of a key: the count of names, a generation that is being dropped, a name, a version."""

GENERATION_BYTES: Final = 8
AT_ONCE: Final = 200
NONE_YET: Final = -1
DYING: Final = -1
"""In the row of a name: no version was saved to its end. In that of a version: it is being dropped."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose artifacts: a session's, or a user's.

    Attributes:
        app: The digest of the application.
        prefix: What the keys of its rows begin with.
        partition: Where they lie.
        session: The row of the session with which all of it goes; None for a user's.
        birth: Of that session.
        is_new: Whether that session may be one that was not committed yet.
    """

    app: bytes = field(repr=False)
    prefix: bytes = field(repr=False)
    partition: int
    session: Record | None = field(default=None, repr=False)
    birth: bytes = field(default=b"", repr=False)
    is_new: bool = False

    @classmethod
    def of_user(cls, app: bytes, owner: Owner) -> Scope:
        """What all sessions of a user have."""
        return cls(app, owner.key + OF_OWNER, owner.partition)

    @classmethod
    def of_session(cls, app: bytes, owner: Owner, session_id: str, birth: bytes, *, shared: bool, is_new: bool = False) -> Scope:
        """What one session has; ``shared`` for what it would have as a user, if it is an anonymous one."""
        prefix = owner.session_key(session_id) + birth + (OF_OWNER if shared else OF_SESSION)
        return cls(app, prefix, owner.partition, owner.session_row(session_id), birth, is_new)

    @property
    def guards(self) -> list[Record]:
        """The row of its session, if it has one."""
        return [] if self.session is None else [self.session]

    @property
    def counter(self) -> Record:
        """The row with the number of its names."""
        return Record(ARTIFACTS, self.prefix + COUNT, self.partition)

    def head(self, name: str) -> Record:
        """The row of a name."""
        return Record(ARTIFACTS, self.prefix + HEAD + pack_name(name), self.partition)

    def version(self, generation: bytes, number: int) -> Record:
        """The row of a version."""
        return Record(ARTIFACTS, self.prefix + VERSION + generation + pack_number(number), self.partition)

    def dropped(self, generation: bytes) -> Record:
        """The row that says that a generation is being dropped."""
        return Record(ARTIFACTS, self.prefix + DROPPED + generation, self.partition)

    def versions(self, generation: bytes, limit: int, after: int = -1) -> Range:
        """The rows of the versions of a generation, those behind a number."""
        whole = Range.of_prefix(ARTIFACTS, self.prefix + VERSION + generation, limit, partition=self.partition)
        start = self.version(generation, after + 1).key
        return Range(ARTIFACTS, start, whole.end, limit, partition=self.partition)

    def conditions(self) -> list[Condition]:
        """Its session is there and can be written, or is not committed yet."""
        if self.session is None:
            return []
        is_ours = Is(self.session, "birth", self.birth)
        found = join([is_ours, is_alive(self.session), is_open(self.session)])
        return [AnyOf(Not(is_ours), found) if self.is_new else found]

    def require_open(self, outcome: Outcome) -> None:
        """Say why it cannot be written, if it cannot.

        Raises:
            UnknownSessionError, SessionClosedError: Its session is not there, or was closed or archived.
        """
        if self.session is not None and not self._is_unborn(outcome):
            require_there(outcome, self.birth)

    def can_be_read(self, outcome: Outcome) -> bool:
        """Whether its session is there, of a transaction that has read the guards first."""
        if self.session is None or self._is_unborn(outcome):
            return True
        row = outcome.rows[0]
        return row is not None and row["birth"] == self.birth and is_there(row, outcome.now_ms)

    def _is_unborn(self, outcome: Outcome) -> bool:
        row = outcome.rows[0]
        return self.is_new and (row is None or row["birth"] != self.birth)


def find_shared(app: bytes, owner: Owner, session_id: str, birth: bytes, *, is_new: bool = False) -> Scope:
    """Whose ``user:`` names are: all sessions' of a user, or those of one anonymous session."""
    if owner.user is not None:
        return Scope.of_user(app, owner)
    return Scope.of_session(app, owner, session_id, birth, shared=True, is_new=is_new)


def is_saved(row: Row) -> bool:
    """Whether a version was saved to its end, and is not being dropped."""
    return row["size"] is not None


def is_same(head: Record, named: Row | None) -> list[Condition]:
    """Nobody has written a name since it was read."""
    if named is None:
        return [Not(Exists(head))]
    return [Is(head, column, named[column]) for column in ("generation", "version", "count", "latest")]


def number_of(row: Row | None, column: str) -> int:
    """A number in a row; 0 where there is none."""
    found = None if row is None else row[column]
    return found if isinstance(found, int) else 0
