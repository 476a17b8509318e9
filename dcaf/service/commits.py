"""Read a session and commit a turn of it: one transaction each, whatever the turn did.

    open      the row, the whole state, the newest messages
    commit    compares revision and birth, and what other sessions of the user may have changed; writes what has changed

What is shared across the application lies elsewhere, and is read and written in a transaction of its own where the engine has
several partitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Final, NamedTuple

from dcaf.core.base64url import Payload
from dcaf.core.errors import SessionExistsError, StaleSessionError, UnknownSessionError
from dcaf.core.json_values import write
from dcaf.core.merging import CommutingChange, merge, read_value, reapply
from dcaf.core.parts import ABSENT
from dcaf.engines import AllOf, Condition, Delete, Exists, Is, Not, Now, Outcome, Page, Plus, Put, Record, Row, Transaction, Write
from dcaf.service.kept import Kept, has_value, is_at, is_there, join_state, value_of
from dcaf.service.plans import Plan
from dcaf.service.tables import (
    CHANGES,
    MESSAGES,
    MINUTE_MS,
    STATE,
    Owner,
    app_row,
    app_rows,
)

USER: Final = "user:"
APP: Final = "app:"
"""What the keys of a state begin with that all sessions of the user have, or all of the application."""

MOST_KEYS: Final = 1_000
"""How many keys of a state are read at first. A state of more is read once more, with room for all of them."""

ALL_KEYS: Final = 1_000_000

DROPPED_AT_ONCE: Final = 200

UNKNOWN: Final = "There is no such session."
EXISTS: Final = "There is a session of this id already."
STALE: Final = "Another one has committed the session since it was read. Read it again, and do it again."


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a session lie.

    Attributes:
        app: The application.
        owner: Whose it is.
        id: Its id.
        partitions: Of the engine.
    """

    app: str
    owner: Owner = field(repr=False)
    id: str
    partitions: int

    @property
    def row(self) -> Record:
        """Its row."""
        return self.owner.session_row(self.id)

    @property
    def is_with_app(self) -> bool:
        """Whether what is shared across the application lies in the same partition."""
        return app_row(self.app, "", partitions=self.partitions).partition == self.owner.partition

    def state_row(self, name: str) -> Record:
        """The row of a key of its state, wherever that is shared."""
        if name.startswith(APP):
            return app_row(self.app, name, partitions=self.partitions)
        return self.owner.shared_row(name) if name.startswith(USER) else self.owner.state_row(self.id, name)


@dataclass(frozen=True, slots=True)
class Read:
    """A session as it was read.

    Attributes:
        kept: What is known of it; None for a new one.
        payload: Its state.
        messages: Number and row of its newest messages, oldest first.
        now_ms: The engine's clock.
    """

    kept: Kept | None
    payload: Payload = field(repr=False)
    messages: Page = field(repr=False)
    now_ms: int


def read_shared(place: Place) -> Plan[Read]:
    """What a new session shares with others, and nothing else of it."""
    ranges = [place.owner.shared_rows(ALL_KEYS)]
    ranges += [app_rows(place.app, ALL_KEYS, partitions=place.partitions)] if place.is_with_app else []
    outcome = yield Transaction([], ranges=ranges)
    pages = [*outcome.pages, *((yield from _read_app(place)) if not place.is_with_app else [])]
    return Read(None, join_state(*pages), (), outcome.now_ms)


def _read_app(place: Place) -> Plan[Sequence[Page]]:
    outcome = yield Transaction([], ranges=[app_rows(place.app, ALL_KEYS, partitions=place.partitions)])
    return outcome.pages


def read_session(place: Place, *, last: int = 0) -> Plan[Read | None]:
    """Read a session; None where there is none.

    Args:
        place: Where it lies.
        last: How many of its newest messages are read, too.
    """
    most = MOST_KEYS
    while True:
        ranges = [place.owner.rows_of(STATE, place.id, most), place.owner.shared_rows(most)]
        ranges += [app_rows(place.app, most, partitions=place.partitions)] if place.is_with_app else []
        ranges += [place.owner.rows_of(MESSAGES, place.id, last, backwards=True)] if last else []
        outcome = yield Transaction([place.row], ranges=ranges)
        row, pages = outcome.rows[0], list(outcome.pages)
        if row is None or not is_there(row, outcome.now_ms):
            return None
        messages = pages.pop()[::-1] if last else []
        if all(len(page) < most for page in pages):
            break
        most = ALL_KEYS
    pages += [] if place.is_with_app else (yield from _read_app(place))
    return Read(Kept.of(row), join_state(*pages), messages, outcome.now_ms)


class Value(NamedTuple):
    """What a turn did to a key of its state.

    Attributes:
        before: Its value as JSON when it arrived; None for absent.
        after: Its value now.
        change: The increments or appends that led to it; None where it was changed in another way.
    """

    before: bytes | None
    after: bytes | None
    change: CommutingChange | None = None

    def over(self, key: str, theirs: bytes | None) -> Value:
        """The same, laid over a value that another session has written meanwhile. Where both wrote one value, this one stays."""
        counted = None if self.change is None else reapply(theirs, key, self.change)
        if counted is not None:
            return Value(theirs, counted, self.change)
        merged, _ = merge(*map(read_value, (self.before, theirs, self.after)))
        return Value(theirs, None if merged is ABSENT else write(merged), self.change)


@dataclass(frozen=True, slots=True)
class Change:
    """What a turn did to its session.

    Attributes:
        values: Changed key -> what was done to it.
        messages: New messages, packed, each with its moment in milliseconds; None for that of the commit.
        ttl_ms: For how long the session is kept from now on; None for ever.
    """

    values: Mapping[str, Value] = field(repr=False)
    messages: Sequence[tuple[bytes, int | None]] = field(default=(), repr=False)
    ttl_ms: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.values or self.messages)

    def only(self, *, app: bool) -> Change:
        """What is shared across the application of it, or the rest."""
        return replace(self, values={name: value for name, value in self.values.items() if name.startswith(APP) is app})

    def list_shared(self) -> list[str]:
        """The changed keys that other sessions have, too."""
        return [name for name in self.values if name.startswith((USER, APP))]

    def over(self, rows: Sequence[Row | None]) -> Change:
        """The same, laid over the shared keys as they are now, in the order of ``list_shared``."""
        found = zip(self.list_shared(), rows, strict=True)
        return replace(self, values={**self.values, **{name: self.values[name].over(name, value_of(row)) for name, row in found}})


def commit(place: Place, kept: Kept, change: Change, now_ms: int) -> Plan[Kept]:
    """Commit a turn; returns what is known of its session then.

    It is laid over what it shares with other sessions and another one has changed since. What is shared across the application may
    lie elsewhere, and is written when all else stands.

    Args:
        place: Where the session lies.
        kept: What was known of it when it was read; its revision is 0 where it is new.
        change: What the turn did.
        now_ms: The engine's clock when it was read.

    Raises:
        StaleSessionError: Another one has committed the session.
        UnknownSessionError: It was deleted, or has ended.
        SessionExistsError: It is new, and there is one of its id.
    """
    whole = change if place.is_with_app else change.only(app=False)
    while not (outcome := (yield plan_commit(place, kept, whole, now_ms))).applied:
        if kept.revision:
            _require_at(outcome, kept)
        elif outcome.rows[0] is not None:
            yield from _make_room(place, outcome)
        whole = whole.over(outcome.rows[1:])
    if whole is not change and not place.is_with_app:
        yield from _commit_apart(place, change.only(app=True))
    return kept.after(len(change.messages), _find_minute(kept, now_ms), outcome.now_ms, change.ttl_ms)


def _commit_apart(place: Place, change: Change) -> Plan[None]:
    """Commit what is shared across the application and lies in another partition."""
    if not change.values:
        return
    rows = [place.state_row(name) for name in change.values]
    while True:
        transaction = Transaction(rows, when=_all(_is_unchanged(place, change)), writes=_write_state(place, change))
        outcome = yield transaction
        if outcome.applied:
            return
        change = change.over(outcome.rows)


def plan_commit(place: Place, kept: Kept, change: Change, now_ms: int) -> Transaction:
    """The transaction of ``commit``."""
    row, revision, is_new = place.row, kept.revision + 1, kept.revision == 0
    minute, total = _find_minute(kept, now_ms), kept.messages + len(change.messages)
    columns: dict[str, Any] = {
        **(_describe(kept) if is_new else {}),
        "revision": revision,
        "messages": total,
        "updated": Now(),
        "listed": minute,
        "ends": None if change.ttl_ms is None else Now(change.ttl_ms),
    }
    writes: list[Write] = [
        Put(row, columns),
        *_write_state(place, change),
        *_write_messages(place, kept, change),
        *_move_in_list(place, kept, minute),
        *([_log(place, revision, change, total)] if change.values or is_new else []),
    ]
    conditions = [Not(Exists(row)) if is_new else is_at(row, kept), *_is_unchanged(place, change)]
    reads = [row, *map(place.state_row, change.list_shared())]
    return Transaction(reads, when=_all(conditions), writes=writes)


def _find_minute(kept: Kept, now_ms: int) -> int:
    """The minute under which a session stands in lists after a commit."""
    return max(kept.listed, now_ms // MINUTE_MS)


def drop(place: Place) -> Plan[bool]:
    """Delete a session with all of its rows; False where there is none.

    It is gone with the first step. Its rows follow, in steps that everybody may go on with who comes upon what is left of it.
    """
    outcome = yield Transaction([place.row])
    row = outcome.rows[0]
    if row is None:
        return False
    was_there = is_there(row, outcome.now_ms)
    yield from _drop_rows(place, row)
    return was_there


def _make_room(place: Place, outcome: Outcome) -> Plan[None]:
    """Drop what is left of an older session of a new one's id.

    Raises:
        SessionExistsError: There is one.
    """
    row = outcome.rows[0]
    if row is None:  # somebody else has dropped it
        return
    if is_there(row, outcome.now_ms):
        raise SessionExistsError(EXISTS)
    yield from _drop_rows(place, row)


def _drop_rows(place: Place, row: Row) -> Plan[None]:
    birth, listed = row["birth"], row["listed"]
    is_same = Is(place.row, "birth", birth)
    gone: list[Write] = [Put(place.row, {"dropped": Now(), "revision": Plus(1)})]
    if isinstance(listed, int):
        gone.append(Delete(place.owner.list_row(listed, place.id)))
    yield Transaction([place.row], when=AllOf(is_same, Is(place.row, "listed", listed)), writes=gone)
    dropped = AllOf(is_same, Not(Is(place.row, "dropped", None)))
    ranges = [place.owner.rows_of(table, place.id, DROPPED_AT_ONCE) for table in (STATE, MESSAGES, CHANGES)]
    while True:
        outcome = yield Transaction([place.row], when=dropped, ranges=ranges)
        keys = [Record(one.table, key, one.partition) for one, page in zip(ranges, outcome.pages, strict=True) for key, _ in page]
        if not outcome.applied:
            return
        if not keys:
            yield Transaction([place.row], when=dropped, writes=[Delete(place.row)])
            return
        yield Transaction([place.row], when=dropped, writes=[Delete(record) for record in keys])


def _require_at(outcome: Outcome, kept: Kept) -> None:
    row = outcome.rows[0]
    if not is_there(row, outcome.now_ms) or row is None or row["birth"] != kept.birth:
        raise UnknownSessionError(UNKNOWN)
    if row["revision"] != kept.revision:
        raise StaleSessionError(STALE)


def _describe(kept: Kept) -> dict[str, Any]:
    """What is written once, when a session is made."""
    return {
        "id": kept.id.encode(),
        "user": None if kept.user is None else kept.user.encode(),
        "birth": kept.birth,
        "created": Now(),
        "title": None if kept.title is None else kept.title.encode(),
        "labels": write(dict(kept.labels)) if kept.labels else None,
        "metadata": write(dict(kept.metadata)) if kept.metadata else None,
    }


def _is_unchanged(place: Place, change: Change) -> list[Condition]:
    """No other session has changed what this one shares with it, and has changed."""
    return [has_value(place.state_row(name), change.values[name].before) for name in change.list_shared()]


def _write_state(place: Place, change: Change) -> list[Write]:
    writes: list[Write] = []
    for name, value in change.values.items():
        row = place.state_row(name)
        writes.append(Delete(row) if value.after is None else Put(row, {"name": name.encode(), "value": value.after}))
    return writes


def _write_messages(place: Place, kept: Kept, change: Change) -> list[Write]:
    first = kept.messages + 1
    rows = [place.owner.numbered_row(MESSAGES, place.id, first + at) for at in range(len(change.messages))]
    return [
        Put(row, {"revision": kept.revision + 1, "at": Now() if at is None else at, "data": data})
        for row, (data, at) in zip(rows, change.messages, strict=True)
    ]


def _move_in_list(place: Place, kept: Kept, minute: int) -> list[Write]:
    is_new = kept.revision == 0
    if minute == kept.listed and not is_new:
        return []
    after = Put(place.owner.list_row(minute, place.id), {"session": place.id.encode()})
    return [after] if is_new else [Delete(place.owner.list_row(kept.listed, place.id)), after]


def _log(place: Place, revision: int, change: Change, total: int) -> Write:
    row = place.owner.numbered_row(CHANGES, place.id, revision)
    return Put(row, {"messages": total, "at": Now(), "data": pack_change(change)})


def pack_change(change: Change) -> bytes:
    """What was changed, as JSON: the member ``set`` has keys and values, ``delete`` the keys that were removed."""
    after = {name: value.after for name, value in change.values.items()}
    values = b",".join(write(name) + b":" + value for name, value in after.items() if value is not None)
    return b'{"set":{%b},"delete":%b}' % (values, write([name for name, value in after.items() if value is None]))


def _all(conditions: Sequence[Condition]) -> Condition:
    return reduce(AllOf, conditions)
