"""Find the sessions of all users of an application, and the anonymous ones, page by page.

>>> from dcaf.service import SessionService
>>> sessions = SessionService("memory://", app="clinic")
>>> for user in ("p-123", "p-124", None):
...     session = sessions.sync.create(user=user)
>>> sorted(str(kept.user) for kept in sessions.sync.list_all().items)
['None', 'p-123', 'p-124']

What a reader gets wrong: these are no lists of users, and so in no order of time. The order is that of the rows' keys, which never
change. So whoever goes through all pages finds each session once that was there all the time, whatever was committed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import Any, Final, NamedTuple

from dcaf.core.errors import ConfigurationError
from dcaf.core.store import digest_parts
from dcaf.engines import Range, Record, Row, Transaction
from dcaf.service.kept import Kept, is_there
from dcaf.service.listing import (
    MOST_LOOKED,
    READ_AT_ONCE,
    WRONG_CURSOR,
    ListPage,
    Wanted,
    read_app_state,
    read_cursor,
    read_values,
    require_limit,
    write_cursor,
)
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.purging import find_place
from dcaf.service.tables import SESSIONS

AT_ONCE: Final = 200
"""How many rows of a partition are read in one transaction."""

PARTITIONS_AT_ONCE: Final = 8
"""How many partitions are asked at the same time."""

TAG_BYTES: Final = 8
PARTITION_BYTES: Final = 2
MOST_KEY_BYTES: Final = 255


class Spot(NamedTuple):
    """A place between two rows.

    Attributes:
        partition: Where the next row lies, or a later one.
        after: The key of the row before; empty at the beginning of the partition.
    """

    partition: int
    after: bytes = b""


class Found(NamedTuple):
    """A session that was found.

    Attributes:
        kept: What is known of it.
        place: Where it lies.
        spot: The place behind its row.
    """

    kept: Kept
    place: Place
    spot: Spot


def list_all(wanted: Wanted, *, limit: int, cursor: str | None) -> Plan[ListPage[Kept]]:
    """A page of the sessions of all users.

    A page looks at some 2,000 rows at most, those of other applications among them. So it may be short, or empty, and have a cursor
    all the same.

    Args:
        wanted: Which sessions, and what of their states.
        limit: How many at most.
        cursor: Where the page before ended; None for the first page.

    Raises:
        ConfigurationError: The limit is not 1 to 1,000, or the cursor is another list's.
    """
    require_limit(limit)
    spot = Spot(0) if cursor is None else _read_cursor(wanted, cursor)
    return _list(wanted, limit, spot)


def _list(wanted: Wanted, limit: int, first: Spot) -> Plan[ListPage[Kept]]:
    found: list[Found] = []
    spot: Spot | None = first
    looked = 0
    while spot is not None and len(found) <= limit and looked < MOST_LOOKED:
        all_were_wanted = looked == len(found)
        count = min(AT_ONCE, limit + 1 - len(found)) if all_were_wanted else AT_ONCE
        rows, spot = yield from _look(wanted, spot, count, found)
        looked += rows
    if len(found) > limit:
        found, spot = found[:limit], found[limit - 1].spot
    items = (yield from _read_states(wanted, found)) if wanted.keys else [one.kept for one in found]
    return ListPage(items, None if spot is None else _write_cursor(wanted, spot))


def _look(wanted: Wanted, spot: Spot, count: int, found: list[Found]) -> Plan[tuple[int, Spot | None]]:
    """Look at so many rows behind a place, and add the wanted ones; returns how many there were, and the place behind them."""
    parts = range(spot.partition, min(spot.partition + PARTITIONS_AT_ONCE, wanted.partitions))
    starts = [spot.after + b"\0" if spot.after else b"", *[b""] * len(parts)]
    ranges = [Range(SESSIONS, start, None, count, partition=part) for part, start in zip(parts, starts, strict=False)]
    outcome = yield tuple(Transaction([], ranges=[one]) for one in ranges)
    rows = [(Spot(part, key), row) for part, page in zip(parts, outcome.pages, strict=True) for key, row in page][:count]
    for behind, row in rows:
        place = find_place(wanted.app, behind.after, row, wanted.partitions)
        if place is not None and is_there(row, outcome.now_ms) and wanted.has(kept := Kept.of(row)):
            found.append(Found(kept, place, behind))
    if len(rows) == count:
        return len(rows), rows[-1][0]
    return len(rows), Spot(parts.stop) if parts.stop < wanted.partitions else None


def _read_states(wanted: Wanted, found: Sequence[Found]) -> Plan[list[Kept]]:
    """The sessions as they are now, with what was asked for of their states; one that has gone since is left out."""
    app = (yield from read_app_state(wanted)) if wanted.app_keys else {}
    at_once = max(1, READ_AT_ONCE // (1 + len(wanted.keys)))
    items: list[Kept] = []
    for part in (found[first : first + at_once] for first in range(0, len(found), at_once)):
        apart = [_list_rows(wanted, list(some)) for _, some in groupby(part, lambda one: one.place.owner.partition)]
        outcome = yield tuple(Transaction(records) for records in apart)
        rows = dict(zip(chain.from_iterable(apart), outcome.rows, strict=True))
        items += [kept for one in part if (kept := _take_state(wanted, one.place, rows, outcome.now_ms, app)) is not None]
    return items


def _list_rows(wanted: Wanted, found: Sequence[Found]) -> list[Record]:
    """The rows of sessions in one partition and those of their keys, each once: sessions of a user share some."""
    keys = [*wanted.own_keys, *wanted.user_keys]
    return list(dict.fromkeys(row for one in found for row in (one.place.row, *map(one.place.state_row, keys))))


def _take_state(
    wanted: Wanted, place: Place, rows: Mapping[Record, Row | None], now_ms: int, app: Mapping[str, Any]
) -> Kept | None:
    row, keys = rows[place.row], [*wanted.own_keys, *wanted.user_keys]
    if row is None or not is_there(row, now_ms) or not wanted.has(kept := Kept.of(row)):
        return None
    return replace(kept, state={**app, **read_values(keys, [rows[place.state_row(name)] for name in keys])})


def _find_tag(wanted: Wanted) -> bytes:
    """What tells the cursors of this list from those of others."""
    return digest_parts(wanted.app.encode(), b"archived" if wanted.archived else b"all")[:TAG_BYTES]


def _write_cursor(wanted: Wanted, spot: Spot) -> str:
    return write_cursor(_find_tag(wanted) + spot.partition.to_bytes(PARTITION_BYTES, "big") + spot.after)


def _read_cursor(wanted: Wanted, cursor: str) -> Spot:
    """The place of a cursor.

    Raises:
        ConfigurationError: It is none, or another list's.
    """
    found = read_cursor(cursor, _find_tag(wanted))[TAG_BYTES:]
    partition, after = int.from_bytes(found[:PARTITION_BYTES], "big"), found[PARTITION_BYTES:]
    if len(found) < PARTITION_BYTES or len(after) > MOST_KEY_BYTES or partition >= wanted.partitions:
        raise ConfigurationError(WRONG_CURSOR)
    return Spot(partition, after)
