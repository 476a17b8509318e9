"""Delete a session. It is gone with the first step; its rows follow, in steps with which anybody may go on.

What a reader gets wrong: a session that is made anew under an old id never finds a row of the old one, because its own row comes
only when all of those are gone.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from dcaf.core.errors import SessionExistsError
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Is,
    Not,
    Now,
    Outcome,
    Page,
    Plus,
    Put,
    Record,
    Row,
    Table,
    Transaction,
    Write,
)
from dcaf.engines.transactions import LARGEST
from dcaf.service.artifact_deletion import count_saved
from dcaf.service.artifact_remains import drop_with_session, require_files, rows_of_session
from dcaf.service.kept import is_alive, is_there
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.tables import ARTIFACTS, DERIVED, DOCUMENTS, MEMORY, MESSAGES, OF_SESSIONS

DROPPED_AT_ONCE: Final = 200
FEWER_AT_ONCE: Final = {DOCUMENTS: 50}
"""Of which rows fewer are read at once, because they are large."""

EXISTS: Final = "There is a session of this id already."

NEVER: Final = 0
EVER: Final = LARGEST
"""Moments in milliseconds: before the first no session was committed, and before the second each of them."""


class Dropped(NamedTuple):
    """What was dropped with sessions.

    Attributes:
        messages: How many messages.
        facts: How many facts that the sessions remembered.
        documents: How many documents.
        artifacts: How many versions of artifacts.
    """

    messages: int = 0
    facts: int = 0
    documents: int = 0
    artifacts: int = 0

    def plus(self, other: Dropped) -> Dropped:
        """Both together."""
        return Dropped(*map(sum, zip(self, other, strict=True)))


def drop(place: Place) -> Plan[bool]:
    """Delete a session with all of its rows; False where there is none.

    It is gone with the first step. Its rows follow, in steps that everybody may go on with who comes upon what is left of it.

    Raises:
        ConfigurationError: It has artifacts, and the service does not know where. Nothing was dropped.
    """
    outcome = yield Transaction([place.row], ranges=[rows_of_session(place, b"", 1)])
    row = outcome.rows[0]
    if row is None:
        return False
    require_files(place.files, outcome)
    was_there = is_there(row, outcome.now_ms)
    yield from drop_rows(place, row, before_ms=EVER)
    return was_there


def make_room(place: Place, outcome: Outcome) -> Plan[None]:
    """Drop what is left of an older session of a new one's id.

    Raises:
        SessionExistsError: There is one.
    """
    row = outcome.rows[0]
    if row is None:  # somebody else has dropped it
        return
    if is_there(row, outcome.now_ms):
        raise SessionExistsError(EXISTS)
    yield from drop_rows(place, row, before_ms=NEVER)


def drop_rows(place: Place, row: Row, *, before_ms: int) -> Plan[Dropped | None]:
    """Drop a session with all of its rows; returns how many of them this has dropped, and None where it is to stay.

    Raises:
        ConfigurationError: It has artifacts, and the service does not know where.

    Args:
        place: Where it lies.
        row: Its row.
        before_ms: It is dropped where it is alive, too, if it was committed last before this moment. A fork that was not finished
            when the row was read may be alive by now.
    """
    birth = row["birth"]
    if NEVER < before_ms < EVER and place.files is None:
        require_files(None, (yield Transaction([], ranges=[rows_of_session(place, cast("bytes", birth), 1)])))
    while not (outcome := (yield _mark_dropped(place, row, before_ms))).applied:
        now = outcome.rows[0]
        if now is None or now["birth"] != birth or not may_drop(now, outcome.now_ms, before_ms):
            return None
        row = now
    is_dropped = AllOf(Is(place.row, "birth", birth), Not(Is(place.row, "dropped", None)))
    tables = (*OF_SESSIONS, *DERIVED)
    ranges = [place.owner.rows_of(table, place.id, FEWER_AT_ONCE.get(table, DROPPED_AT_ONCE)) for table in tables]
    ranges.append(rows_of_session(place, cast("bytes", birth), DROPPED_AT_ONCE))
    if place.owner.user is None:  # no other session shares them
        ranges.append(place.owner.shared_rows(DROPPED_AT_ONCE))
    dropped = Dropped()
    while (outcome := (yield Transaction([place.row], when=is_dropped, ranges=ranges))).applied:
        pages = [(wanted, page) for wanted, page in zip(ranges, outcome.pages, strict=True) if page]
        for wanted, page in pages:
            if wanted.table is ARTIFACTS:
                yield from drop_with_session(place, page)
        records = [Record(wanted.table, key, wanted.partition) for wanted, page in pages for key, _ in page]
        yield Transaction([place.row], when=is_dropped, writes=[Delete(record) for record in records or [place.row]])
        for wanted, page in pages:
            dropped = dropped.plus(_count(wanted.table, page))
    return dropped


def mark_dropped(place: Place, listed: int | None, *, archived: bool) -> list[Write]:
    """What writes that a session is gone; its rows follow.

    Args:
        place: Where it lies.
        listed: The minute under which it stands in a list; None where it stands in none.
        archived: Whether that is the list of archived ones.
    """
    gone = Put(place.row, {"dropped": Now(), "revision": Plus(1)})
    return [gone, *([] if listed is None else [Delete(place.owner.list_row(listed, place.id, archived=archived))])]


def may_drop(row: Row, now_ms: int, before_ms: int) -> bool:
    """Whether a session may be dropped: it is not there, or was committed last before a moment."""
    updated = row["updated"]
    return not is_there(row, now_ms) or (isinstance(updated, int) and updated < before_ms)


def _count(table: Table, page: Page) -> Dropped:
    """What was dropped with a page. A row without a value says how often a memory was cleared, and is no fact."""
    if table is MEMORY:
        return Dropped(facts=sum(row["value"] is not None for _, row in page))
    if table is ARTIFACTS:
        return Dropped(artifacts=count_saved(page))
    return Dropped(messages=len(page) * (table is MESSAGES), documents=len(page) * (table is DOCUMENTS))


def _mark_dropped(place: Place, row: Row, before_ms: int) -> Transaction:
    listed, archived = row["listed"], row["archived"]
    is_same: Condition = AllOf(Is(place.row, "birth", row["birth"]), Is(place.row, "listed", listed))
    is_same = AllOf(is_same, Is(place.row, "archived", archived))
    if before_ms < EVER:
        is_same = AllOf(is_same, AnyOf(Not(is_alive(place.row)), AtMost(place.row, "updated", before_ms - 1)))
    writes = mark_dropped(place, listed if isinstance(listed, int) else None, archived=archived is not None)
    return Transaction([place.row], when=is_same, writes=writes)
