"""Take a session back to what it was when a message of its history was written; or begin another one from there.

>>> log = [Entry(0, b"made"), Entry(2, b"hello"), Entry(4, b"wrong"), Entry(2, b"taken back"), Entry(4, b"right")]
>>> [change.data for change in find_timeline(log, 4)], [change.data for change in find_timeline(log, 0)]
([b'made', b'hello', b'taken back', b'right'], [b'made'])

What a reader gets wrong: the keys that a session shares with others, ``user:`` and ``app:``, stay as they are; so do its documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError, SessionExistsError, StaleSessionError, UnknownSessionError
from dcaf.core.json_values import read, write
from dcaf.core.slots import RESERVED
from dcaf.engines import AllOf, Condition, Delete, Exists, Is, Not, Now, Page, Put, Range, Record, Transaction, Write
from dcaf.engines.transactions import LARGEST
from dcaf.service.artifact_remains import copy_artifacts
from dcaf.service.changes import Change, KeyChange
from dcaf.service.checkpoints import find_later, require_point
from dcaf.service.commits import STALE, describe, log_change, write_open_calls, write_state
from dcaf.service.document_plans import copy_documents
from dcaf.service.dropping import EXISTS, NEVER, drop_rows, make_room
from dcaf.service.kept import Kept, is_at, value_of
from dcaf.service.links import replay, unfollow
from dcaf.service.places import APP, UNKNOWN, USER, Place, require_there
from dcaf.service.plans import Plan
from dcaf.service.quotas import check_messages, check_sessions, count_rows, find_lists
from dcaf.service.reading import ALL_KEYS
from dcaf.service.tables import CHANGES, MESSAGES, MINUTE_MS, STATE, WORDS, Columns, unpack_number
from dcaf.tools.proposals import PENDING

AT_ONCE: Final = 500


class Entry(NamedTuple):
    """An entry of the log of changes.

    Attributes:
        messages: How many messages there were afterwards.
        data: What was changed, as JSON.
    """

    messages: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Past:
    """A session as it is, and its own state as it was.

    Attributes:
        kept: What is known of it.
        now_ms: The engine's clock.
        messages: How many messages it had at the moment that was asked for.
        now: Own key -> its value as JSON.
        version: Of the application's schema at that moment.
        then: As ``now``, of that moment.
    """

    kept: Kept
    now_ms: int
    messages: int
    version: int
    now: dict[str, bytes] = field(repr=False)
    then: dict[str, bytes] = field(repr=False)


def rewind(place: Place, to: int) -> Plan[int]:
    """Take a session back; returns how many messages were dropped.

    Where these are many, it is taken back several times, each time as far as one transaction goes. So whoever dies in between has
    taken it back a part of the way.

    Args:
        place: Where it lies.
        to: How many messages it is to have; 0 is its beginning.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: It has not so many messages.
    """
    dropped = 0
    while True:
        past = yield from _read_past(place, to, "to=", most_dropped=AT_ONCE)
        is_done = yield from _take_back(place, past, None)
        dropped += (past.kept.messages - past.messages) * is_done
        if is_done and past.messages == to:
            return dropped


def rewind_before(place: Place, number: int) -> Plan[int]:
    """Take a session back to what it was before a message; returns how many messages were dropped, as ``rewind``.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: It has no message of this number.
    """
    kept = Kept.of(require_there((yield Transaction([place.row]))))
    if not 1 <= number <= kept.messages:
        raise ConfigurationError(f"message= is the number of a message, and the session has {kept.messages} of them.")
    return (yield from rewind(place, number - 1))


def rewind_to_checkpoint(place: Place, name: str) -> Plan[int]:
    """Take a session back to a checkpoint; returns how many messages were dropped. Many are dropped as by ``rewind``.

    Raises:
        UnknownSessionError, SessionClosedError: There is no such session, or it was closed.
        ConfigurationError: It has no checkpoint of this name.
    """
    dropped = 0
    while True:
        rows = [place.row, place.owner.checkpoint_row(place.id, name)]
        outcome = yield Transaction(rows, ranges=[place.owner.rows_of(STATE, place.id, ALL_KEYS)])
        kept, point = Kept.of(require_there(outcome)), require_point(place, name, outcome.rows[1])
        if kept.messages - point.messages > AT_ONCE:
            dropped += yield from rewind(place, point.messages + AT_ONCE)
            continue
        now = _read_state(outcome.pages[0])
        version = kept.version and _replay((yield from _read_log(place, point.changes)))[1]
        past = Past(kept, outcome.now_ms, point.messages, version, now, _keep_own(point.state, now))
        if (yield from _take_back(place, past, point.changes)):
            return dropped + kept.messages - point.messages


def _take_back(place: Place, past: Past, changes: int | None) -> Plan[bool]:
    """Take a session back in one transaction; False where somebody has written it since it was read.

    Args:
        place: Where it lies.
        past: The session, and what it is to become.
        changes: How many changes there were then; None where that is not known.
    """
    kept, to, row = past.kept, past.messages, place.row
    gone = yield from _read_data(place, to, kept.messages)
    later = yield from find_later(place, to, changes)
    names = {**past.now, **past.then}
    values = {
        name: KeyChange(past.now.get(name), past.then.get(name)) for name in names if past.now.get(name) != past.then.get(name)
    }
    version = None if past.version == kept.version else past.version
    change = Change(values, is_rewind=True, version=version)
    columns: Columns = {
        "revision": kept.revision + 1,
        "messages": to,
        "changes": kept.changes + 1,
        "updated": Now(),
        **({} if version is None else {"version": version}),
        **write_open_calls(kept.open_calls, unfollow(gone[::-1], kept.open_calls)),
    }
    writes: list[Write] = [
        Put(row, columns),
        *write_state(place, change),
        log_change(place, kept.changes + 1, kept.revision + 1, change, to),
        *(
            Delete(place.owner.numbered_row(table, place.id, at))
            for table in (MESSAGES, WORDS)
            for at in range(to + 1, kept.messages + 1)
        ),
        *map(Delete, later),
    ]
    return (yield Transaction([row], when=is_at(row, kept), writes=writes)).applied


def _keep_own(then: Mapping[str, bytes], now: Mapping[str, bytes]) -> dict[str, bytes]:
    """A state of before with the library's own key as it is now: what was used once stays used."""
    own = {RESERVED: now[RESERVED]} if RESERVED in now else {}
    return {**{name: data for name, data in then.items() if name != RESERVED}, **own}


def _read_data(place: Place, after: int, to: int) -> Plan[list[bytes]]:
    """The messages behind a number, up to another one, packed."""
    if after == to:
        return []
    (page,) = (yield Transaction([], ranges=[_range_of(place, after, to)])).pages
    return [cast("bytes", row["data"]) for _, row in page]


def _range_of(place: Place, after: int, to: int) -> Range:
    start = place.owner.numbered_row(MESSAGES, place.id, after + 1).key
    end = place.owner.numbered_row(MESSAGES, place.id, to + 1).key
    return Range(MESSAGES, start, end, to - after, partition=place.owner.partition)


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
        StaleSessionError: A turn of this one was committed meanwhile.
        QuotaExceededError: The user may not have one more, or it may not have so many messages.
    """
    past = yield from _read_past(place, at, "at=")
    yield from _require_room(target, past.messages)
    row, kept, count = target.row, past.kept, past.messages
    is_begun, calls = yield from begin_copy(place, target, kept, birth, count)
    yield from copy_artifacts(place, kept.birth, target, birth)
    yield from _require_unchanged(place, kept, target, row)
    then = _drop_proposals(past.then)
    change = Change({name: KeyChange(None, value) for name, value in then.items()}, version=past.version or None)
    minute = past.now_ms // MINUTE_MS
    columns: Columns = {"revision": 1, "messages": count, "changes": 1, "updated": Now(), "listed": minute, "dropped": None}
    columns |= {"ends": None if ttl_ms is None else Now(ttl_ms), "open_calls": write(list(calls)) if calls else None}
    columns |= {"version": past.version or None}
    writes: list[Write] = [
        Put(row, columns),
        *write_state(target, change),
        log_change(target, 1, 1, change, count),
        Put(target.owner.list_row(minute, target.id), {"session": target.id.encode()}),
    ]
    outcome = yield Transaction([row], when=is_begun, writes=writes)
    if not outcome.applied:
        raise SessionExistsError(EXISTS)
    return Kept.of(require_there((yield Transaction([row])), birth))


def _drop_proposals(state: Mapping[str, bytes]) -> dict[str, bytes]:
    """A state without the calls that wait for a person: one decision would have one of them run twice, once in each session."""
    own = {} if RESERVED not in state else cast("dict[str, Any]", read(state[RESERVED]))
    if PENDING not in own:
        return dict(state)
    rest = {name: value for name, value in own.items() if name != PENDING}
    return {**{name: data for name, data in state.items() if name != RESERVED}, **({RESERVED: write(rest)} if rest else {})}


def begin_copy(place: Place, target: Place, kept: Kept, birth: bytes, count: int) -> Plan[tuple[Condition, tuple[str, ...]]]:
    """Copy the messages and the documents of a session to where another one is going to be made.

    Until it is, its row says that it is dropped: whoever purges after a crash finds it. Returns what holds as long as it is not
    made, and the calls of tools that are open in what was copied.

    Args:
        place, target: Where the two lie.
        kept: What is known of the first, and is going to be of the other.
        birth: Of the other.
        count: How many messages.

    Raises:
        SessionExistsError: There is one of the other's id.
    """
    row = target.row
    is_begun = AllOf(Is(row, "birth", birth), Is(row, "revision", 0))
    begun = Put(row, {**describe(kept, target.id, birth), "dropped": Now(), "revision": 0})
    while not (outcome := (yield Transaction([row], when=Not(Exists(row)), writes=[begun]))).applied:
        yield from make_room(target, outcome)
    calls: tuple[str, ...] = ()
    for after in range(0, count, AT_ONCE):
        (page,) = (yield Transaction([], ranges=[_range_of(place, after, min(after + AT_ONCE, count))])).pages
        calls = replay([cast("bytes", message["data"]) for _, message in page], calls)
        yield Transaction([row], when=is_begun, writes=_copy(target, page))
    yield from copy_documents(place, target, is_begun)
    return is_begun, calls


def _require_room(target: Place, messages: int) -> Plan[None]:
    """Refuse a session of so many messages that a quota does not allow.

    Raises:
        QuotaExceededError: It does not.
    """
    check_messages(target.quotas, messages)
    if lists := find_lists(target.quotas, target.owner):
        check_sessions(target.quotas, count_rows((yield Transaction([], ranges=lists)).pages))


def _require_unchanged(place: Place, kept: Kept, target: Place, record: Record) -> Plan[None]:
    """Drop a fork that is half made, where its source is not what it was: what was read of it may be of two moments.

    Raises:
        StaleSessionError: It is not.
    """
    (row, begun) = (yield Transaction([place.row, record])).rows
    same = row is not None and (row["birth"], row["revision"], row["changes"]) == (kept.birth, kept.revision, kept.changes)
    if not same and begun is not None:
        yield from drop_rows(target, begun, before_ms=NEVER)
    if not same:
        raise StaleSessionError(STALE)


def _copy(target: Place, page: Page) -> list[Write]:
    rows = ((target.owner.numbered_row(MESSAGES, target.id, unpack_number(key)), row) for key, row in page)
    return [Put(record, {**row, "revision": 1}) for record, row in rows]


def _read_past(place: Place, to: int | None, argument: str, most_dropped: int = LARGEST) -> Plan[Past]:
    """Read a session, and what it was when it had so many messages, or as many as it has without the newest ``most_dropped``."""
    state = place.owner.rows_of(STATE, place.id, ALL_KEYS)
    outcome = yield Transaction([place.row], ranges=[state])
    kept, now = Kept.of(require_there(outcome)), _read_state(outcome.pages[0])
    if to is None:
        return Past(kept, outcome.now_ms, kept.messages, kept.version, now, now)
    if not 0 <= require(argument, to, int, "a number of messages") <= kept.messages:
        raise ConfigurationError(f"{argument} is 0 to {kept.messages}, as many messages as the session has.")
    to = max(to, kept.messages - most_dropped)
    then, version = _replay(find_timeline((yield from _read_log(place, kept.changes)), to))
    return Past(kept, outcome.now_ms, to, version, now, _keep_own(then, now))


def _read_log(place: Place, count: int) -> Plan[list[Entry]]:
    """The oldest changes, so many.

    Raises:
        UnknownSessionError: The session was dropped meanwhile.
    """
    log: list[Entry] = []
    whole = place.owner.rows_of(CHANGES, place.id, AT_ONCE)
    while len(log) < count:
        first = place.owner.numbered_row(CHANGES, place.id, len(log) + 1).key
        (page,) = (yield Transaction([], ranges=[Range(CHANGES, first, whole.end, AT_ONCE, partition=whole.partition)])).pages
        if not page:
            raise UnknownSessionError(UNKNOWN)
        log += [Entry(cast("int", row["messages"]), cast("bytes", row["data"])) for _, row in page]
    return log[:count]


def _read_state(page: Page) -> dict[str, bytes]:
    return {cast("bytes", row["name"]).decode(): cast("bytes", value_of(row)) for _, row in page}


def find_timeline(log: Sequence[Entry], to: int) -> list[Entry]:
    """The changes that led to the state that a session had when its history reached so many messages.

    The first is the state with which it was made, and always one of them. A change with fewer messages than one before it has taken
    that back.

    Args:
        log: All changes, oldest first; one at least.
        to: How many messages.
    """
    found = list(log[:1])
    for change in log[1:]:
        while len(found) > 1 and found[-1].messages > change.messages:
            found.pop()
        found.append(change)
    reached = next((at for at, change in enumerate(found) if change.messages >= to), len(found))
    is_reached = reached < len(found) and found[reached].messages == to
    return found[: max(1, reached + is_reached)]


def _replay(timeline: Sequence[Entry]) -> tuple[dict[str, bytes], int]:
    """The state after changes, one after the other, without what a session shares with others; and the version of its schema."""
    state: dict[str, bytes] = {}
    version = 0
    for _, data in timeline:
        change = cast("dict[str, Any]", read(data))
        state.update({name: write(value) for name, value in change["set"].items() if not name.startswith((USER, APP))})
        for name in change["delete"]:
            state.pop(name, None)
        version = change.get("version", version)
    return state, version
