"""Delete a session. It is gone with the first step; its rows follow, in steps with which anybody may go on.

What a reader gets wrong: a session that is made anew under an old id never finds a row of the old one, because its own row comes
only when all of those are gone.
"""

from __future__ import annotations

from typing import Final

from dcaf.core.errors import SessionExistsError
from dcaf.engines import AllOf, Condition, Delete, Is, Not, Now, Outcome, Plus, Put, Record, Row, Transaction, Write
from dcaf.service.kept import is_alive, is_there
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.tables import OF_SESSIONS

DROPPED_AT_ONCE: Final = 200

EXISTS: Final = "There is a session of this id already."


def drop(place: Place) -> Plan[bool]:
    """Delete a session with all of its rows; False where there is none.

    It is gone with the first step. Its rows follow, in steps that everybody may go on with who comes upon what is left of it.
    """
    outcome = yield Transaction([place.row])
    row = outcome.rows[0]
    if row is None:
        return False
    was_there = is_there(row, outcome.now_ms)
    yield from drop_rows(place, row, is_living=True)
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
    yield from drop_rows(place, row, is_living=False)


def drop_rows(place: Place, row: Row, *, is_living: bool) -> Plan[None]:
    """Drop a session with all of its rows.

    Args:
        place: Where it lies.
        row: Its row.
        is_living: Whether it is dropped where it is alive, too. A fork that was not finished when the row was read may be by now.
    """
    birth = row["birth"]
    while not (outcome := (yield _mark_dropped(place, row, is_living=is_living))).applied:
        now = outcome.rows[0]
        if now is None or now["birth"] != birth or not (is_living or not is_there(now, outcome.now_ms)):
            return
        row = now
    is_dropped = AllOf(Is(place.row, "birth", birth), Not(Is(place.row, "dropped", None)))
    ranges = [place.owner.rows_of(table, place.id, DROPPED_AT_ONCE) for table in OF_SESSIONS]
    if place.owner.user is None:  # no other session shares them
        ranges.append(place.owner.shared_rows(DROPPED_AT_ONCE))
    while (outcome := (yield Transaction([place.row], when=is_dropped, ranges=ranges))).applied:
        pages = zip(ranges, outcome.pages, strict=True)
        records = [Record(wanted.table, key, wanted.partition) for wanted, page in pages for key, _ in page]
        yield Transaction([place.row], when=is_dropped, writes=[Delete(record) for record in records or [place.row]])


def _mark_dropped(place: Place, row: Row, *, is_living: bool) -> Transaction:
    listed = row["listed"]
    is_same: Condition = AllOf(Is(place.row, "birth", row["birth"]), Is(place.row, "listed", listed))
    if not is_living:
        is_same = AllOf(is_same, Not(is_alive(place.row)))
    writes: list[Write] = [Put(place.row, {"dropped": Now(), "revision": Plus(1)})]
    writes += [Delete(place.owner.list_row(listed, place.id))] if isinstance(listed, int) else []
    return Transaction([place.row], when=is_same, writes=writes)
