"""Write sessions as lines: one, all of a user, or all of an application, each session as it was at one moment.

>>> from dcaf.service import SessionService
>>> sessions = SessionService("memory://", app="clinic")
>>> session = sessions.sync.create(user="p-123", id="v1", state={"step": 2})
>>> [line.split(b",")[0] for line in sessions.sync.export(user="p-123")]
[b'{"dcaf":"sessions"', b'{"kind":"session"', b'{"kind":"state"', b'{"kind":"change"', b'{"kind":"end"', b'{"kind":"done"']

What a reader gets wrong: the file as a whole is not of one moment. A session that is committed while another one is being written
is in it as it is when its turn comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Any, Final, cast

from dcaf.core.errors import EngineError, StaleSessionError, UnknownSessionError
from dcaf.core.json_values import read
from dcaf.engines import Engine, Page, Range, Record, Row, Table, Transaction
from dcaf.service.document_lines import write_documents, write_spaces
from dcaf.service.document_rows import DocumentScope
from dcaf.service.kept import is_there, value_of
from dcaf.service.lines import COLUMNS, check_line, write_header, write_line
from dcaf.service.places import UNKNOWN, Place
from dcaf.service.plans import Stream, read_once
from dcaf.service.reading import ALL_KEYS
from dcaf.service.remembered import MemoryScope, generation_of
from dcaf.service.tables import CHANGES, CHECKPOINTS, DOCUMENTS, MEMORY, MESSAGES, SESSIONS, STATE, Owner, app_rows, unpack_number

AT_ONCE: Final = 500
PLACES_AT_ONCE: Final = 50
MOST_TRIES: Final = 16
"""How often a session is read that is rewound, or made anew, each time meanwhile."""

RESTLESS: Final = "A session was taken back each time while it was read. Export again."


def stream(plan: Stream[None], engine: Engine) -> Iterator[bytes]:
    """The lines of an export, without an event loop. Raises what the plan and the engine raise."""
    try:
        found = next(plan)
        while True:
            if isinstance(found, bytes):
                yield found
                found = next(plan)
                continue
            try:
                outcome = engine.sync.transact(found)
            except EngineError as error:
                found = plan.throw(error)
            else:
                found = plan.send(outcome)
    except StopIteration:
        return


async def stream_async(plan: Stream[None], engine: Engine) -> AsyncIterator[bytes]:
    """The same in an event loop."""
    try:
        found = next(plan)
        while True:
            if isinstance(found, bytes):
                yield found
                found = next(plan)
                continue
            try:
                outcome = await engine.transact(found)
            except EngineError as error:
                found = plan.throw(error)
            else:
                found = plan.send(outcome)
    except StopIteration:
        return


def export_session(place: Place) -> Stream[None]:
    """Write one session, without what it shares with others.

    Raises:
        UnknownSessionError: There is no such session.
    """
    outcome = yield from read_once(Transaction([place.row]))
    if not is_there(outcome.rows[0], outcome.now_ms):
        raise UnknownSessionError(UNKNOWN)
    yield write_header(place.app)
    yield write_line("done", {"sessions": (yield from _write_session(place))})


def export_user(app: str, owner: Owner, partitions: int) -> Stream[None]:
    """Write what the sessions of a user share, and all of them."""
    yield write_header(app)
    yield from _write_user(owner)
    count, after = 0, owner.key
    whole = Range.of_prefix(SESSIONS, owner.key, PLACES_AT_ONCE, partition=owner.partition)
    while True:
        rest = Range(SESSIONS, after, whole.end, PLACES_AT_ONCE, partition=owner.partition)
        (page,) = (yield from read_once(Transaction([], ranges=[rest]))).pages
        for _, row in page:
            count += yield from _write_session(_place_of(app, row, partitions))
        if len(page) < PLACES_AT_ONCE:
            break
        after = page[-1][0] + b"\0"
    yield write_line("done", {"sessions": count})


def export_app(app: str, partitions: int) -> Stream[None]:
    """Write what all sessions of an application share, its documents, and all sessions, with what those of each user share.

    The order is that of the keys of rows, so it is the same in every engine.
    """
    yield write_header(app)
    keys = (yield from read_once(Transaction([], ranges=[app_rows(app, ALL_KEYS, partitions=partitions)]))).pages
    yield from _write_block(write_line("app"), _Held(keys))
    yield from write_spaces(app, partitions)
    places, count, last = _Places(app, partitions), 0, b""
    while (place := (yield from places.take())) is not None:
        if place.owner.key != last and place.owner.user is not None:
            yield from _write_user(place.owner)
        last = place.owner.key
        count += yield from _write_session(place)
    yield write_line("done", {"sessions": count})


class _Places:
    """The sessions of an application in all partitions, in the order of their keys, of which a few are held of each."""

    def __init__(self, app: str, partitions: int) -> None:
        self._app = app
        self._found: list[deque[tuple[bytes, Place]]] = [deque() for _ in range(partitions)]
        self._after: list[bytes | None] = [b""] * partitions
        self._heads: list[tuple[bytes, int]] | None = None

    def take(self) -> Stream[Place | None]:
        """The next one; None behind the last."""
        if self._heads is None:
            self._heads = []
            for partition in range(len(self._found)):
                yield from self._push(partition, self._heads)
            heapify(self._heads)
        if not self._heads:
            return None
        _, partition = heappop(self._heads)
        _, place = self._found[partition].popleft()
        yield from self._push(partition, self._heads)
        return place

    def _push(self, partition: int, heads: list[tuple[bytes, int]]) -> Stream[None]:
        found = self._found[partition]
        while not found and self._after[partition] is not None:
            yield from self._read(partition)
        if found:
            heappush(heads, (found[0][0], partition))

    def _read(self, partition: int) -> Stream[None]:
        after = self._after[partition] or b""
        wanted = Range(SESSIONS, after, None, PLACES_AT_ONCE, partition=partition)
        (page,) = (yield from read_once(Transaction([], ranges=[wanted]))).pages
        places = [(key, _place_of(self._app, row, len(self._found))) for key, row in page]
        self._found[partition].extend((key, place) for key, place in places if place.row.key == key)  # else another application's
        self._after[partition] = page[-1][0] + b"\0" if len(page) == PLACES_AT_ONCE else None


@dataclass(frozen=True, slots=True)
class _Held:
    """What is read of a block at one moment.

    Attributes:
        state: Pages of keys.
        facts: Pages of facts, each with whether other sessions share them.
        points: Pages of checkpoints.
        has_documents: Whether it has documents, which are read later.
        row: That of the session; None for other blocks.
    """

    state: Sequence[Page] = field(repr=False)
    facts: Sequence[tuple[bool, Page]] = field(default=(), repr=False)
    row: Row | None = field(default=None, repr=False)
    points: Sequence[Page] = field(default=(), repr=False)
    has_documents: bool = False

    def lines(self) -> Iterator[bytes]:
        """A line for each."""
        for page in self.state:
            for _, row in page:
                yield check_line(write_line("state", {"key": _text(row, "name")}, value=value_of(row) or b"null"))
        for is_shared, page in self.facts:
            for _, row in page:
                moments = {name: row[name] for name in ("created", "updated", "expires")}
                members = {"key": _text(row, "name"), "shared": is_shared, **moments}
                yield check_line(write_line("memory", members, value=value_of(row) or b"null"))
        for page in self.points:
            for _, row in page:
                counts = {name: row[name] for name in ("messages", "changes", "at")}
                yield check_line(write_line("checkpoint", {"name": _text(row, "name"), **counts}, state=cast("bytes", row["data"])))


def _write_user(owner: Owner) -> Stream[None]:
    held = yield from _read_held(None, [owner.shared_rows(ALL_KEYS)], [(True, MemoryScope.of_user(owner))])
    yield from _write_block(write_line("user", {"user": owner.user}), held)


def _write_block(first: bytes, held: _Held) -> Stream[None]:
    """Write a block of what is shared, unless there is nothing."""
    count = 0
    for count, line in enumerate(held.lines(), 1):
        if count == 1:
            yield first
        yield line
    if count:
        yield write_line("end", {"lines": count})


def _write_session(place: Place) -> Stream[int]:
    """Write a session; returns 1, or 0 where it is not there.

    Raises:
        StaleSessionError: It was changed each time, so that what was read is not of one moment.
    """
    for _ in range(MOST_TRIES):
        held = yield from _read_session(place)
        if held.row is None:
            return 0
        yield _describe(held.row)
        count = 0
        for line in held.lines():
            yield line
            count += 1
        for table in (MESSAGES, CHANGES):
            count += yield from _write_numbered(place, table, _count(held.row, "messages" if table is MESSAGES else "changes"))
        if held.has_documents:
            count += yield from write_documents(DocumentScope.of_session(place.owner, place.id))
        if (yield from _is_as_read(place, held.row, has_documents=held.has_documents)):
            yield write_line("end", {"lines": count})
            return 1
        yield write_line("void")
    raise StaleSessionError(RESTLESS)


def _read_session(place: Place) -> Stream[_Held]:
    owner = place.owner
    state = [owner.rows_of(STATE, place.id, ALL_KEYS)]
    scopes = [(False, MemoryScope.of_session(owner, place.id))]
    if owner.user is None:  # no other session shares them, and they go with it
        state.append(owner.shared_rows(ALL_KEYS))
        scopes.append((True, MemoryScope.of_user(owner, place.id)))
    points, documents = owner.rows_of(CHECKPOINTS, place.id, ALL_KEYS), owner.rows_of(DOCUMENTS, place.id, 1)
    held = yield from _read_held(place.row, state, scopes, [points, documents])
    return replace(held, points=held.points[:1], has_documents=bool(held.points[1]))


def _read_held(
    row: Record | None, state: list[Range], scopes: Sequence[tuple[bool, MemoryScope]], points: Sequence[Range] = ()
) -> Stream[_Held]:
    generations = [0] * len(scopes)
    while True:
        facts = [_find_facts(scope, generation) for (_, scope), generation in zip(scopes, generations, strict=True)]
        reads = [*(scope.head for _, scope in scopes), *([] if row is None else [row])]
        outcome = yield from read_once(Transaction(reads, ranges=[*state, *facts, *points]))
        found = [generation_of(head) for head in outcome.rows[: len(scopes)]]
        if found == generations:
            break
        generations = found
    kept = None if row is None or not is_there(outcome.rows[-1], outcome.now_ms) else outcome.rows[-1]
    pages, at = outcome.pages, len(state) + len(scopes)
    shared = zip([is_shared for is_shared, _ in scopes], pages[len(state) : at], strict=True)
    return _Held(pages[: len(state)], list(shared), kept, pages[at:])


def _find_facts(scope: MemoryScope, generation: int) -> Range:
    return Range.of_prefix(MEMORY, scope.begin(generation), ALL_KEYS, partition=scope.partition)


def _write_numbered(place: Place, table: Table, total: int) -> Stream[int]:
    """Write so many messages, or changes; returns how many were there."""
    owner, count = place.owner, 0
    end = owner.numbered_row(table, place.id, total + 1).key
    while count < total:
        start = owner.numbered_row(table, place.id, count + 1).key
        (page,) = (
            yield from read_once(Transaction([], ranges=[Range(table, start, end, AT_ONCE, partition=owner.partition)]))
        ).pages
        if not page:  # the session was dropped meanwhile
            break
        for key, row in page:
            yield check_line(_write_row(table, unpack_number(key), row))
        count += len(page)
    return count


def _write_row(table: Table, number: int, row: Row) -> bytes:
    data, members = cast("bytes", row["data"]), {"number": number, "revision": row["revision"]}
    if table is MESSAGES:
        return write_line("message", {**members, "at": row["at"]}, message=data)
    return write_line("change", {**members, "messages": row["messages"], "at": row["at"]}, change=data)


def _is_as_read(place: Place, row: Row, *, has_documents: bool) -> Stream[bool]:
    """Whether nothing of what was read may be of two moments.

    Messages and changes are only added, but for a rewind; documents are not, and so no turn may have been committed.
    """
    messages, changes = _count(row, "messages"), _count(row, "changes")
    whole = place.owner.rows_of(CHANGES, place.id, AT_ONCE)
    start = place.owner.numbered_row(CHANGES, place.id, changes + 1).key
    later = Range(CHANGES, start, whole.end, AT_ONCE, partition=whole.partition)
    outcome = yield from read_once(Transaction([place.row], ranges=[later]))
    now = outcome.rows[0]
    if now is None or not is_there(now, outcome.now_ms) or now["birth"] != row["birth"]:
        return False
    if has_documents and now["revision"] != row["revision"]:
        return False
    if now["changes"] == changes:
        return True
    (page,) = outcome.pages
    return len(page) < AT_ONCE and all(cast("int", one["messages"]) >= messages for _, one in page)


def _describe(row: Row) -> bytes:
    """The line of a session."""
    return write_line("session", {name: _plain(name, row[name]) for name in COLUMNS})


def _plain(column: str, value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    return read(value) if column in {"labels", "metadata", "open_calls"} else value.decode()


def _text(row: Row, column: str) -> str:
    return cast("bytes", row[column]).decode()


def _count(row: Row, column: str) -> int:
    return cast("int", row[column])


def _place_of(app: str, row: Row, partitions: int) -> Place:
    session_id, user = _text(row, "id"), None if row["user"] is None else _text(row, "user")
    return Place(app, Owner(app, user, session_id, partitions=partitions), session_id, partitions)
