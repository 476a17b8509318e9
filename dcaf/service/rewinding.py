"""Take a session back to what it was when its history had so many messages; or begin another one from there.

What a reader gets wrong: the keys that a session shares with others, ``user:`` and ``app:``, stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError, SessionExistsError
from dcaf.core.json_values import read, write
from dcaf.engines import AllOf, Delete, Exists, Is, Not, Now, Page, Put, Range, Transaction, Write
from dcaf.service.changes import Change, KeyChange
from dcaf.service.commits import describe, log_change, write_state
from dcaf.service.dropping import make_room
from dcaf.service.kept import Kept, is_at, value_of
from dcaf.service.places import APP, USER, Place, require_there
from dcaf.service.plans import Plan
from dcaf.service.tables import CHANGES, MESSAGES, STATE, Columns, unpack_number

AT_ONCE: Final = 500
EXISTS: Final = "There is a session of this id already."


@dataclass(frozen=True, slots=True)
class Past:
    """A session as it is, and its own state as it was.

    Attributes:
        kept: What is known of it.
        now: Own key -> its value as JSON.
        then: The same of the moment that was asked for.
    """

    kept: Kept
    now: dict[str, bytes] = field(repr=False)
    then: dict[str, bytes] = field(repr=False)


def rewind(place: Place, to: int) -> Plan[int]:
    """Take a session back; returns how many messages were dropped.

    Args:
        place: Where it lies.
        to: How many messages it is to have; 0 is its beginning.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: It has not so many messages.
    """
    while True:
        past = yield from _read_past(place, to)
        kept, row = past.kept, place.row
        names = {**past.now, **past.then}
        values = {
            name: KeyChange(past.now.get(name), past.then.get(name)) for name in names if past.now.get(name) != past.then.get(name)
        }
        change = Change(values)
        columns: Columns = {"revision": kept.revision + 1, "messages": to, "changes": kept.changes + 1, "updated": Now()}
        writes: list[Write] = [
            Put(row, columns),
            *write_state(place, change),
            log_change(place, kept.changes + 1, kept.revision + 1, change, to),
            *(Delete(place.owner.numbered_row(MESSAGES, place.id, number)) for number in range(to + 1, kept.messages + 1)),
        ]
        if (yield Transaction([row], when=is_at(row, kept), writes=writes)).applied:
            return kept.messages - to


def fork(place: Place, target: Place, birth: bytes, *, at: int | None, ttl_ms: int | None) -> Plan[Kept]:
    """Begin another session of the same user with the state and the messages of this one.

    Args:
        place: Where this one lies.
        target: Where the other one is to lie.
        birth: Tells it from others.
        at: How many messages it is to have; None for all, and the state of now.
        ttl_ms: For how long it is kept; None for ever.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: It has not so many messages.
        SessionExistsError: There is one of the other's id.
    """
    past = yield from _read_past(place, at)
    count = past.kept.messages if at is None else at
    row, kept = target.row, past.kept
    # Until all is there, the row says that it is dropped: whoever purges after a crash finds it.
    begun = Put(row, {**describe(kept, target.id, birth), "dropped": Now(), "revision": 0})
    while not (outcome := (yield Transaction([row], when=Not(Exists(row)), writes=[begun]))).applied:
        yield from make_room(target, outcome)
    after = 0
    while after < count:
        start = place.owner.numbered_row(MESSAGES, place.id, after + 1).key
        end = place.owner.numbered_row(MESSAGES, place.id, min(after + AT_ONCE, count) + 1).key
        (page,) = (yield Transaction([], ranges=[Range(MESSAGES, start, end, AT_ONCE, partition=place.owner.partition)])).pages
        yield Transaction([row], when=Is(row, "birth", birth), writes=_copy(target, page))
        after += AT_ONCE
    change = Change({name: KeyChange(None, value) for name, value in past.then.items()})
    columns: Columns = {"revision": 1, "messages": count, "changes": 1, "updated": Now(), "listed": kept.listed, "dropped": None}
    columns |= {"ends": None if ttl_ms is None else Now(ttl_ms)}
    writes: list[Write] = [
        Put(row, columns),
        *write_state(target, change),
        log_change(target, 1, 1, change, count),
        Put(target.owner.list_row(kept.listed, target.id), {"session": target.id.encode()}),
    ]
    outcome = yield Transaction([row], when=AllOf(Is(row, "birth", birth), Not(Is(row, "dropped", None))), writes=writes)
    if not outcome.applied:
        raise SessionExistsError(EXISTS)
    return Kept.of(require_there((yield Transaction([row])), birth))


def _copy(target: Place, page: Page) -> list[Write]:
    rows = ((target.owner.numbered_row(MESSAGES, target.id, unpack_number(key)), row) for key, row in page)
    return [Put(record, {**row, "revision": 1}) for record, row in rows]


def _read_past(place: Place, to: int | None) -> Plan[Past]:
    state = place.owner.rows_of(STATE, place.id, 1_000_000)
    outcome = yield Transaction([place.row], ranges=[state])
    kept = Kept.of(require_there(outcome))
    now = {cast("bytes", row["name"]).decode(): cast("bytes", value_of(row)) for _, row in outcome.pages[0]}
    if to is None:
        return Past(kept, now, now)
    if not 0 <= require("to=", to, int, "a number of messages") <= kept.messages:
        raise ConfigurationError("The session has not so many messages.")
    then: dict[str, bytes] = {}
    after = 0
    while after < kept.changes:
        first = place.owner.numbered_row(CHANGES, place.id, after + 1).key
        whole = place.owner.rows_of(CHANGES, place.id, AT_ONCE)
        (page,) = (yield Transaction([], ranges=[Range(CHANGES, first, whole.end, AT_ONCE, partition=whole.partition)])).pages
        _apply(then, [row["data"] for _, row in page if cast("int", row["messages"]) <= to])
        after += AT_ONCE
    return Past(kept, now, then)


def _apply(state: dict[str, bytes], changes: Sequence[object]) -> None:
    """Do changes to a state, but for what it shares with others."""
    for data in changes:
        change = cast("dict[str, Any]", read(cast("bytes", data)))
        state.update({name: write(value) for name, value in change["set"].items() if not name.startswith((USER, APP))})
        for name in change["delete"]:
            state.pop(name, None)
