"""Read everything that has happened to a session, page by page: each change of its state, and each message.

The log is in one order. The first entry is the state with which the session was made. The others come by their revision, so that
those of a turn stand together: first its messages, then what it has changed. What was added beside a turn has the revision of the
turn before it, and stands between the messages and the changes that were there at that moment.

What a reader gets wrong: a rewind is an entry, and so is what it takes back of the state; the messages that it drops are gone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from dcaf.core.arguments import require
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.core.json_values import read
from dcaf.core.slots import RESERVED
from dcaf.engines import Page, Range, Row, Table, Transaction
from dcaf.service.kept import is_there, moment_of
from dcaf.service.listing import WRONG_CURSOR, ListPage
from dcaf.service.messages import Message, unpack
from dcaf.service.places import APP, UNKNOWN, Place
from dcaf.service.plans import Plan
from dcaf.service.tables import CHANGES, MESSAGES, unpack_number

MOST_LIMIT: Final = 1_000
PACKED: Final = struct.Struct(">8s?QQQ")
TAG_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """A message came.

    Attributes:
        number: Of the message, from 1 on.
        revision: Of the session, with which it came.
        at: When it was said, in UTC.
        message: The message.
        cursor: Its place in the log, to be given as ``before=`` or ``after=``.
        kind: ``"message"``.
    """

    number: int
    revision: int
    at: datetime
    message: Message
    cursor: str = field(repr=False)
    kind: Literal["message"] = "message"


@dataclass(frozen=True, slots=True)
class StateEvent:
    """The state was changed.

    Attributes:
        number: Of the change, from 0 on. That of number 0 is the state with which the session was made.
        revision: Of the session, with which it came.
        at: When it came, in UTC.
        messages: How many messages the session had then.
        set: Key -> its new value. Keys of the application are not told: they lie elsewhere.
        deleted: The keys that were removed.
        cursor: Its place in the log, to be given as ``before=`` or ``after=``.
        kind: ``"state"``; ``"rewind"`` where the session was taken back by it, to so many messages.
    """

    number: int
    revision: int
    at: datetime
    messages: int
    set: dict[str, Any] = field(repr=False)
    deleted: tuple[str, ...] = field(repr=False)
    cursor: str = field(repr=False)
    kind: Literal["state", "rewind"] = "state"


Event: TypeAlias = MessageEvent | StateEvent
"""An entry of the log of a session; its ``kind`` tells which."""


class Spot(NamedTuple):
    """The place of an entry in a log, by which the log is ordered.

    Attributes:
        revision: Of the session; -1 for the state with which it was made.
        messages: How many messages come before it, itself included.
        is_change: Whether it is a change; a message comes first.
        changes: How many changes come before it, itself included.
    """

    revision: int
    messages: int
    is_change: bool
    changes: int


class _Entry(NamedTuple):
    """A row of the log."""

    spot: Spot
    row: Row


def list_events(place: Place, *, limit: int, before: str | None, after: str | None) -> Plan[ListPage[Event]]:
    """A page of the log of a session, in its order.

    Args:
        place: Where the session lies.
        limit: How many entries at most.
        before: Only those before this place, the newest of them; None with ``after`` None for the newest of all.
        after: Only those after this place, the oldest of them.

    Raises:
        ConfigurationError: The limit is not 1 to 1,000, a cursor is of another log or none, or both are given.
        UnknownSessionError: There is no such session.
    """
    if not 1 <= require("limit=", limit, int, "a number of entries, 1 or more") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT} entries.")
    if before is not None and after is not None:
        raise ConfigurationError("A page takes before= or after=, not both.")
    if after is not None:
        return _list_after(place, limit, _read_cursor(place, "after=", after))
    return _list_before(place, limit, None if before is None else _read_cursor(place, "before=", before))


def _list_after(place: Place, limit: int, spot: Spot) -> Plan[ListPage[Event]]:
    messages = spot.messages
    while True:
        ranges = [_rows_after(place, MESSAGES, messages, limit + 1), _rows_after(place, CHANGES, spot.changes, limit + 1)]
        found, changed = yield from _read(place, ranges)
        changes = [_read_change(key, row) for key, row in changed]
        least = min([messages, *(change.spot.messages for change in changes)])
        if least == messages:
            break
        messages = least  # it was taken back since, and its messages are others from there on
    log = _join(found, changes, spot.changes)
    events = [_describe(place, entry) for entry in log[:limit]]
    return ListPage(events, events[-1].cursor if len(log) > limit else None)


def _list_before(place: Place, limit: int, spot: Spot | None) -> Plan[ListPage[Event]]:
    messages = changes = None
    if spot is not None:
        messages, changes = spot.messages - (not spot.is_change), spot.changes - spot.is_change
    kept: list[tuple[bytes, Row]] = []
    while True:
        ranges = [_rows_before(place, MESSAGES, messages, limit + 1), _rows_before(place, CHANGES, changes, limit + 1)]
        found, changed = yield from _read(place, ranges)
        kept += [(key, row) for key, row in found if spot is None or _number(row, "revision") <= spot.revision]
        if len(found) <= limit or len(kept) > limit:
            break
        messages = unpack_number(found[-1][0]) - 1  # it was taken back since, and the newer ones came later than the place
    log = _join(kept[::-1], [_read_change(key, row) for key, row in changed[::-1]], 0)
    events = [_describe(place, entry) for entry in log[-limit:]]
    return ListPage(events, events[0].cursor if len(log) > limit else None)


def _read(place: Place, ranges: Sequence[Range]) -> Plan[tuple[Page, ...]]:
    """Read some of the log.

    Raises:
        UnknownSessionError: There is no such session.
    """
    outcome = yield Transaction([place.row], ranges=ranges)
    if not is_there(outcome.rows[0], outcome.now_ms):
        raise UnknownSessionError(UNKNOWN)
    return outcome.pages


def _rows_after(place: Place, table: Table, number: int, limit: int) -> Range:
    whole = place.owner.rows_of(table, place.id, limit)
    start = place.owner.numbered_row(table, place.id, number + 1).key
    return Range(table, start, whole.end, limit, partition=whole.partition)


def _rows_before(place: Place, table: Table, number: int | None, limit: int) -> Range:
    """Rows up to a number, that one included; None for all."""
    whole = place.owner.rows_of(table, place.id, limit, backwards=True)
    end = whole.end if number is None else place.owner.numbered_row(table, place.id, number + 1).key
    return Range(table, whole.start, end, limit, backwards=True, partition=whole.partition)


def _read_change(key: bytes, row: Row) -> _Entry:
    number = unpack_number(key)
    if number == 1:  # whatever the first turn has added
        return _Entry(Spot(-1, 0, True, 1), row)
    return _Entry(Spot(_number(row, "revision"), _number(row, "messages"), True, number), row)


def _join(messages: Page, changes: Sequence[_Entry], changes_before: int) -> list[_Entry]:
    """One log of both, in its order.

    Args:
        messages: The messages, oldest first.
        changes: The changes, oldest first.
        changes_before: How many changes come before all of these.
    """
    first = changes[0].spot.changes - 1 if changes else changes_before
    entries = [_Entry(Spot(_number(row, "revision"), unpack_number(key), False, 0), row) for key, row in messages]
    return list(_count_changes(sorted([*entries, *changes], key=lambda entry: entry.spot), first))


def _count_changes(log: Iterable[_Entry], count: int) -> Iterator[_Entry]:
    """Say of each message how many changes come before it."""
    for entry in log:
        count = entry.spot.changes if entry.spot.is_change else count
        yield entry._replace(spot=entry.spot._replace(changes=count))


def _describe(place: Place, entry: _Entry) -> Event:
    spot, row = entry
    revision, at_ms, data = _number(row, "revision"), _number(row, "at"), cast("bytes", row["data"])
    cursor = _write_cursor(place, spot)
    if not spot.is_change:
        message = unpack(data, number=spot.messages, at_ms=at_ms)
        return MessageEvent(spot.messages, revision, moment_of(at_ms), message, cursor)
    change = cast("dict[str, Any]", read(data))
    values = {name: value for name, value in change["set"].items() if _is_told(name)}
    deleted = tuple(name for name in change["delete"] if _is_told(name))
    kind: Literal["state", "rewind"] = "rewind" if "rewind" in change else "state"
    return StateEvent(spot.changes - 1, revision, moment_of(at_ms), _number(row, "messages"), values, deleted, cursor, kind)


def _is_told(name: str) -> bool:
    return name != RESERVED and not name.startswith(APP)


def _write_cursor(place: Place, spot: Spot) -> str:
    return encode(PACKED.pack(_find_tag(place), spot.is_change, max(0, spot.revision), spot.messages, spot.changes))


def _read_cursor(place: Place, argument: str, cursor: str) -> Spot:
    """The place of a cursor.

    Raises:
        ConfigurationError: It is none, or of another session.
    """
    try:
        data = decode(require(argument, cursor, str, "the cursor of an event, or None"))
    except ValueError:
        data = b""
    if len(data) != PACKED.size or not data.startswith(_find_tag(place)):
        raise ConfigurationError(WRONG_CURSOR.replace("cursor=", argument))
    _, is_change, revision, messages, changes = PACKED.unpack(data)
    if max(revision, messages, changes) >= 2**53:
        raise ConfigurationError(WRONG_CURSOR.replace("cursor=", argument))
    return Spot(revision, messages, is_change, changes)


def _find_tag(place: Place) -> bytes:
    """What tells the cursors of a session from those of others."""
    return hashlib.sha256(b"events" + place.row.key).digest()[:TAG_BYTES]


def _number(row: Row, column: str) -> int:
    return cast("int", row[column])
