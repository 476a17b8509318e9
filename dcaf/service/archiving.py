"""Put a session into the archive: it can be read, and stands in another list, until it is restored.

All of its rows stay as they are, but for the words that a search has indexed. It ends no more by itself, whatever ``ttl=`` is; from
its restoration on it has its time anew.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from dcaf.core.errors import EngineError, UnknownSessionError
from dcaf.engines import AllOf, AtMost, Condition, Delete, Is, Not, Now, Put, Range, Row, Transaction, Write
from dcaf.service.kept import Kept, is_alive, is_there
from dcaf.service.places import UNKNOWN, Place
from dcaf.service.plans import Plan
from dcaf.service.purging import find_place
from dcaf.service.search_index import drop_words
from dcaf.service.tables import SESSIONS

AT_ONCE: Final = 200


def archive(place: Place) -> Plan[int]:
    """Archive a session; returns 1, or 0 where that was done before.

    Raises:
        UnknownSessionError: There is no such session.
    """
    while True:
        outcome = yield Transaction([place.row])
        row = outcome.rows[0]
        if row is None or not is_there(row, outcome.now_ms):
            raise UnknownSessionError(UNKNOWN)
        if row["archived"] is not None:
            return 0
        if (yield _move(place, Kept.of(row), into_archive=True)).applied:
            yield from _leave_index(place)
            return 1


def restore(place: Place, ttl_ms: int | None) -> Plan[bool]:
    """Take a session out of the archive; False where it is not in it.

    Args:
        place: Where it lies.
        ttl_ms: For how long it is kept from now on; None for ever.

    Raises:
        UnknownSessionError: There is no such session.
    """
    while True:
        outcome = yield Transaction([place.row])
        row = outcome.rows[0]
        if row is None or not is_there(row, outcome.now_ms):
            raise UnknownSessionError(UNKNOWN)
        if row["archived"] is None:
            return False
        if (yield _move(place, Kept.of(row), into_archive=False, ttl_ms=ttl_ms)).applied:
            return True


def archive_idle(app: str, partitions: int, idle_ms: int) -> Plan[int]:
    """Archive the sessions of an application that were not committed for so long; returns how many there were.

    Args:
        app: The application.
        partitions: Of the engine.
        idle_ms: For how long, in milliseconds.
    """
    count = 0
    for partition in range(partitions):
        count += yield from _archive_partition(app, partition, partitions, idle_ms)
    return count


def _archive_partition(app: str, partition: int, partitions: int, idle_ms: int) -> Plan[int]:
    count, after = 0, b""
    while True:
        outcome = yield Transaction([], ranges=[Range(SESSIONS, after, None, AT_ONCE, partition=partition)])
        (page,) = outcome.pages
        for key, row in page:
            place = find_place(app, key, row, partitions)
            if place is not None and _is_idle(row, outcome.now_ms, idle_ms):
                is_idle = AtMost(place.row, "updated", Now(-idle_ms))
                if (yield _move(place, Kept.of(row), into_archive=True, when=is_idle)).applied:
                    yield from _leave_index(place)
                    count += 1
        if len(page) < AT_ONCE:
            return count
        after = page[-1][0] + b"\0"


def _leave_index(place: Place) -> Plan[None]:
    """Drop the words of an archived session. Where this fails, no search finds them, and the next one drops them."""
    with suppress(EngineError):
        yield from drop_words(place)


def _is_idle(row: Row, now_ms: int, idle_ms: int) -> bool:
    updated = row["updated"]
    return is_there(row, now_ms) and row["archived"] is None and isinstance(updated, int) and updated <= now_ms - idle_ms


def _move(place: Place, kept: Kept, *, into_archive: bool, ttl_ms: int | None = None, when: Condition | None = None) -> Transaction:
    """Move a session from one list into the other, unless somebody has done so since it was read, or has committed it."""
    row = place.row
    is_here: Condition = Is(row, "archived", None) if into_archive else Not(Is(row, "archived", None))
    is_same = AllOf(AllOf(Is(row, "birth", kept.birth), Is(row, "listed", kept.listed)), AllOf(is_alive(row), is_here))
    ends = None if into_archive or ttl_ms is None else Now(ttl_ms)
    writes: list[Write] = [
        Put(row, {"archived": Now() if into_archive else None, "ends": ends}),
        Delete(place.owner.list_row(kept.listed, place.id, archived=not into_archive)),
        Put(place.owner.list_row(kept.listed, place.id, archived=into_archive), {"session": place.id.encode()}),
    ]
    return Transaction([row], when=is_same if when is None else AllOf(is_same, when), writes=writes)
