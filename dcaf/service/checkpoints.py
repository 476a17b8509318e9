"""Checkpoints: points of a session that have a name, to which it can be taken back.

Each has the session's own state of that moment, so that going back to it reads no log, and also finds what a turn was in the middle
of. They go with their session; a fork has none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.core.json_values import read, write
from dcaf.engines import Page, Range, Record, Row, Transaction
from dcaf.service.changes import Change, Mark
from dcaf.service.commits import write_marks
from dcaf.service.kept import Kept, is_at, is_there, join_state, moment_of
from dcaf.service.places import UNKNOWN, Place, require_there
from dcaf.service.plans import Plan
from dcaf.service.reading import ALL_KEYS
from dcaf.service.tables import CHECKPOINTS, STATE

AT_ONCE: Final = 50
NO_CHECKPOINT: Final = "The session has no checkpoint of this name. sessions.checkpoints(user=, id=) lists those that it has."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point of a session that has a name.

    Attributes:
        name: Its name.
        messages: How many messages the session had then.
        at: When it was set, in UTC.
    """

    name: str = field(repr=False)
    messages: int
    at: datetime


class Point(NamedTuple):
    """A checkpoint as it is kept.

    Attributes:
        record: Where it is.
        messages, changes: How many messages and changes the session had then.
        state: Own key -> its value as JSON.
    """

    record: Record
    messages: int
    changes: int
    state: dict[str, bytes]

    def __repr__(self) -> str:
        return "Point(...)"

    @classmethod
    def of(cls, record: Record, row: Row) -> Point:
        """What a row says."""
        state = cast("dict[str, Any]", read(cast("bytes", row["data"])))
        return cls(record, _number(row, "messages"), _number(row, "changes"), {name: write(value) for name, value in state.items()})

    def is_after(self, messages: int, changes: int | None) -> bool:
        """Whether it was set after a point with so many messages, and changes, if these are known."""
        return self.messages > messages or (changes is not None and self.messages == messages and self.changes > changes)


def set_checkpoint(place: Place, name: str) -> Plan[int]:
    """Set a checkpoint, in place of an older one of its name; returns how many messages the session has.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it cannot be written.
    """
    while True:
        outcome = yield Transaction([place.row], ranges=[place.owner.rows_of(STATE, place.id, ALL_KEYS)])
        kept = Kept.of(require_there(outcome))
        change = Change({}, marks={name: Mark(join_state(outcome.pages[0]).data, 0)})
        writes = write_marks(place, kept, kept.changes, change)
        if (yield Transaction([place.row], when=is_at(place.row, kept), writes=writes)).applied:
            return kept.messages


def list_checkpoints(place: Place) -> Plan[list[Checkpoint]]:
    """The checkpoints of a session, oldest first.

    Raises:
        UnknownSessionError: There is no such session.
    """
    outcome = yield Transaction([place.row])
    if not is_there(outcome.rows[0], outcome.now_ms):
        raise UnknownSessionError(UNKNOWN)
    found = [_describe(row) for _, row in (yield from _read_all(place))]
    return sorted(found, key=lambda checkpoint: (checkpoint.at, checkpoint.messages))


def find_later(place: Place, messages: int, changes: int | None) -> Plan[Iterable[Record]]:
    """The checkpoints that were set after a point, as of ``Point.is_after``."""
    points = [Point.of(Record(CHECKPOINTS, key, place.owner.partition), row) for key, row in (yield from _read_all(place))]
    return [point.record for point in points if point.is_after(messages, changes)]


def require_point(place: Place, name: str, row: Row | None) -> Point:
    """The checkpoint of a row.

    Raises:
        ConfigurationError: There is none.
    """
    if row is None:
        raise ConfigurationError(NO_CHECKPOINT)
    return Point.of(place.owner.checkpoint_row(place.id, name), row)


def _read_all(place: Place) -> Plan[Page]:
    rows = place.owner.rows_of(CHECKPOINTS, place.id, AT_ONCE)
    found: list[tuple[bytes, Row]] = []
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        found += page
        if len(page) < AT_ONCE:
            return found
        rows = Range(CHECKPOINTS, page[-1][0] + b"\0", rows.end, AT_ONCE, partition=rows.partition)


def _describe(row: Row) -> Checkpoint:
    return Checkpoint(cast("bytes", row["name"]).decode(), _number(row, "messages"), moment_of(_number(row, "at")))


def _number(row: Row, column: str) -> int:
    return cast("int", row[column])
