"""Find the sessions of a user, page by page; and drop what has ended, or all that is known of a user.

>>> read_cursor(write_cursor(b"owner" + b"key"), b"owner")
b'ownerkey'
>>> read_cursor(write_cursor(b"other" + b"key"), b"owner")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: cursor= is that of a page of the same list, or None for the first page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from dcaf.core.arguments import require
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError
from dcaf.engines import Delete, Range, Record, Row, Transaction
from dcaf.service.dropping import drop_rows
from dcaf.service.kept import Kept, is_there
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.tables import LISTS, SESSIONS, STATE, Owner

T = TypeVar("T")

Order: TypeAlias = Literal["newest", "oldest"]

MOST_LIMIT: Final = 1_000
ERASED_AT_ONCE: Final = 200
UNFINISHED_MS: Final = 3_600_000
"""For how long a fork may take to be made."""

WRONG_CURSOR: Final = "cursor= is that of a page of the same list, or None for the first page."


@dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """A page of a list.

    Attributes:
        items: What is on it, in the list's order.
        cursor: What to give as ``cursor=`` for the next page; None where there is none.
    """

    items: list[T] = field(repr=False)
    cursor: str | None


class Erased(NamedTuple):
    """What was dropped of a user.

    Attributes:
        sessions: How many sessions, with their states, histories and memories.
        shared: How many rows that its sessions shared.
    """

    sessions: int
    shared: int


def list_sessions(owner: Owner, *, limit: int, order: Order, cursor: str | None) -> Plan[ListPage[Kept]]:
    """A page of the sessions of a user, ordered by the minute in which their last committed turn began.

    Args:
        owner: The user.
        limit: How many at most.
        order: Which come first.
        cursor: Where the page before ended; None for the first page.

    Raises:
        ConfigurationError: The limit is not 1 to 1,000, or the cursor is another list's.
    """
    if not 1 <= require("limit=", limit, int, "a number of sessions, 1 or more") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT}.")
    backwards, at = order == "newest", None if cursor is None else read_cursor(cursor, owner.key)
    items: list[Kept] = []
    while True:
        wanted = _rest_of(owner, at, limit - len(items) + 1, backwards=backwards)
        (page,) = (yield Transaction([], ranges=[wanted])).pages
        keys = page[: limit - len(items)]
        items += yield from _read_listed(owner, [row for _, row in keys])
        at = keys[-1][0] if keys else at
        if len(page) <= len(keys):
            return ListPage(items, None)
        if len(items) == limit:
            return ListPage(items, write_cursor(keys[-1][0]))


def _read_listed(owner: Owner, rows: list[Row]) -> Plan[list[Kept]]:
    """The sessions that are there, of rows of a list."""
    ids = [row["session"] for row in rows]
    records = [owner.session_row(found.decode()) for found in ids if isinstance(found, bytes)]
    if not records:
        return []
    outcome = yield Transaction(records)
    return [Kept.of(row) for row in outcome.rows if row is not None and is_there(row, outcome.now_ms)]


def _rest_of(owner: Owner, at: bytes | None, limit: int, *, backwards: bool) -> Range:
    """What comes after a key in the list of a user."""
    whole = Range.of_prefix(LISTS, owner.key, limit, backwards=backwards, partition=owner.partition)
    if at is None:
        return whole
    start, end = (whole.start, at) if backwards else (at + b"\0", whole.end)
    return Range(LISTS, start, end, limit, backwards, owner.partition)


def erase(app: str, owner: Owner, partitions: int) -> Plan[Erased]:
    """Drop all sessions of a user, and what they shared."""
    sessions = shared = 0
    while True:
        rows = Range.of_prefix(SESSIONS, owner.key, ERASED_AT_ONCE, partition=owner.partition)
        outcome = yield Transaction([], ranges=[rows, owner.shared_rows(ERASED_AT_ONCE)])
        found, ours = outcome.pages
        for _, row in found:
            yield from drop_rows(Place(app, owner, Kept.of(row).id, partitions), row, is_living=True)
        if ours:
            yield Transaction([], writes=[Delete(Record(STATE, key, owner.partition)) for key, _ in ours])
        sessions, shared = sessions + len(found), shared + len(ours)
        if not (found or ours):
            return Erased(sessions, shared)


def purge(app: str, partitions: int) -> Plan[int]:
    """Drop what has ended, and what is left of deleted sessions; returns how many sessions that were."""
    count = 0
    for partition in range(partitions):
        count += yield from _purge_partition(app, partition, partitions)
    return count


def _purge_partition(app: str, partition: int, partitions: int) -> Plan[int]:
    count, after = 0, b""
    while True:
        outcome = yield Transaction([], ranges=[Range(SESSIONS, after, None, ERASED_AT_ONCE, partition=partition)])
        (page,) = outcome.pages
        for key, row in page:
            place = _find_place(app, row, partitions)
            if place.row.key == key and _is_over(row, outcome.now_ms):  # else it is another application's
                yield from drop_rows(place, row, is_living=False)
                count += 1
        if len(page) < ERASED_AT_ONCE:
            return count
        after = page[-1][0] + b"\0"


def _is_over(row: Row, now_ms: int) -> bool:
    """Whether a session may be dropped: not one that is being made as a fork, unless whoever made it has died."""
    dropped = row["dropped"]
    is_begun = row["revision"] == 0 and isinstance(dropped, int) and dropped > now_ms - UNFINISHED_MS
    return not (is_there(row, now_ms) or is_begun)


def _find_place(app: str, row: Row, partitions: int) -> Place:
    kept = Kept.of(row)
    return Place(app, Owner(app, kept.user, kept.id, partitions=partitions), kept.id, partitions)


def write_cursor(key: bytes) -> str:
    """A key as a text."""
    return encode(key)


def read_cursor(cursor: str, prefix: bytes) -> bytes:
    """The key of a cursor.

    Raises:
        ConfigurationError: It is none, or of another list than the one whose keys begin so.
    """
    try:
        key = decode(require("cursor=", cursor, str, "the cursor of a page, or None").encode())
    except ValueError:
        raise ConfigurationError(WRONG_CURSOR) from None
    if not key.startswith(prefix):
        raise ConfigurationError(WRONG_CURSOR)
    return key
