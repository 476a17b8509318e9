"""Bring the words of messages to where a search finds them: by the search itself, so that a turn pays nothing for it.

The words of a session's messages are rows of their own, from the first message on and without a gap: so the last of them says what
lies behind. A session whose row is as it was when all of its messages were there is not looked at.

What a reader gets wrong: between what is read and what is written a session may be rewound, deleted, archived, or indexed by
somebody else. So each step is written only if the session is there, its last message of the step is still the same one (a number
never comes back with the same revision), and the words before it are there.
"""

from __future__ import annotations

from functools import reduce
from typing import Final, cast

from dcaf.core.errors import SessionTypeError
from dcaf.engines import AllOf, AnyOf, Condition, Delete, Exists, Is, Not, Outcome, Put, Range, Record, Row, Transaction, Write
from dcaf.service.kept import is_alive, is_there
from dcaf.service.messages import Message, unpack
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.search_words import pack_words
from dcaf.service.tables import INDEXED, MESSAGES, SESSIONS, WORDS, Columns, Owner, unpack_number

AT_ONCE: Final = 40
"""How many messages are one step. PostgreSQL locks up to 50 rows one by one; for more, all who write wait."""

SESSIONS_AT_ONCE: Final = 200


def catch_up_owner(app: str, owner: Owner, partitions: int) -> Plan[None]:
    """Index what lies behind of all sessions of a user."""
    rows = Range.of_prefix(SESSIONS, owner.key, SESSIONS_AT_ONCE, partition=owner.partition)
    while True:
        marks = Range(INDEXED, rows.start, rows.end, rows.limit, partition=rows.partition)
        outcome = yield Transaction([], ranges=[rows, marks])
        page, found = outcome.pages[0], dict(outcome.pages[1])
        for key, row in page:
            place = Place(app, owner, cast("bytes", row["id"]).decode(), partitions)
            yield from catch_up(place, row, found.get(key), outcome.now_ms)
        if len(page) < rows.limit:
            return
        rows = Range(SESSIONS, page[-1][0] + b"\0", rows.end, rows.limit, partition=rows.partition)


def catch_up(place: Place, row: Row, mark: Row | None, now_ms: int) -> Plan[None]:
    """Index what lies behind of a session; of one that is not searched, drop what is indexed.

    Args:
        place: Where it lies.
        row: Its row.
        mark: The row that says how far it is indexed; None for not at all.
        now_ms: The engine's clock when they were read.
    """
    if not is_searched(row, now_ms):
        if mark is not None:
            yield from drop_words(place)
    elif not _is_current(row, mark):
        yield from _index(place, _number(mark, "messages") if mark is not None and mark["birth"] == row["birth"] else 0)


def is_searched(row: Row | None, now_ms: int) -> bool:
    """Whether a search finds messages of a session: it is there, and not in the archive."""
    return row is not None and is_there(row, now_ms) and row["archived"] is None


def drop_words(place: Place) -> Plan[None]:
    """Drop the words of a session that is not searched, the last first: so there is never a gap."""
    row, mark = place.row, place.owner.indexed_row(place.id)
    is_over = AllOf(Exists(row), AnyOf(Not(is_alive(row)), Not(Is(row, "archived", None))))
    while True:
        words = place.owner.rows_of(WORDS, place.id, AT_ONCE, backwards=True)
        outcome = yield Transaction([row, mark], ranges=[words])
        keys = [key for key, _ in outcome.pages[0]]
        if not keys and outcome.rows[1] is None:
            return
        writes: list[Write] = [Delete(Record(WORDS, key, words.partition)) for key in keys]
        writes.append(Put(mark, {"revision": None, "messages": 0}) if keys else Delete(mark))
        if not (yield Transaction([row], when=is_over, writes=writes)).applied:
            return


def text_of(message: Message) -> str:
    """What a message says: its content, or the texts of its parts; nothing where the bytes are no message of this version."""
    try:
        content = message.content
    except SessionTypeError:
        return ""
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content or ()]
    return "\n".join(text for text in texts if isinstance(text, str))


def _index(place: Place, done: int) -> Plan[None]:
    """Index a session.

    Args:
        place: Where it lies.
        done: How many of its messages are thought to be there.
    """
    while True:
        outcome = yield _read(place, done)
        row, (last, messages) = outcome.rows[0], outcome.pages
        if not is_searched(row, outcome.now_ms):
            return
        assert row is not None
        found = unpack_number(last[0][0]) if last else 0
        if found != done:
            done = found
            continue
        wrote = yield _write(place, row, done, outcome)
        done += len(messages) * wrote.applied
        if wrote.applied and done >= _number(row, "messages"):
            return


def _read(place: Place, done: int) -> Transaction:
    """Read the last words that are there, and the next messages."""
    last = place.owner.rows_of(WORDS, place.id, 1, backwards=True)
    whole = place.owner.rows_of(MESSAGES, place.id, AT_ONCE)
    first = place.owner.numbered_row(MESSAGES, place.id, done + 1).key
    return Transaction([place.row], ranges=[last, Range(MESSAGES, first, whole.end, AT_ONCE, partition=whole.partition)])


def _write(place: Place, row: Row, done: int, outcome: Outcome) -> Transaction:
    """Write the words of the messages that were read."""
    messages, owner = outcome.pages[1], place.owner
    writes: list[Write] = []
    conditions: list[Condition] = [is_alive(place.row), Is(place.row, "archived", None), Is(place.row, "birth", row["birth"])]
    reads = [place.row]
    if done:
        reads.append(owner.numbered_row(WORDS, place.id, done))
        conditions.append(Exists(reads[-1]))
    if messages:
        key, newest = messages[-1]
        reads.append(Record(MESSAGES, key, owner.partition))
        conditions.append(Is(reads[-1], "revision", newest["revision"]))
    for key, message in messages:
        said = unpack(cast("bytes", message["data"]), number=0, at_ms=0)
        columns: Columns = {"birth": row["birth"], "revision": message["revision"], "words": pack_words(text_of(said))}
        writes.append(Put(Record(WORDS, key, owner.partition), columns))
    is_all = done + len(messages) == row["messages"]
    mark = {"birth": row["birth"], "revision": row["revision"] if is_all else None, "messages": done + len(messages)}
    writes.append(Put(owner.indexed_row(place.id), mark))
    return Transaction(reads, when=reduce(AllOf, conditions), writes=writes, durable=False)


def _is_current(row: Row, mark: Row | None) -> bool:
    """Whether all messages of a session are indexed."""
    if mark is None:
        return not row["messages"]
    return all(mark[name] == row[name] for name in ("birth", "revision", "messages"))


def _number(row: Row, column: str) -> int:
    found = row[column]
    return found if isinstance(found, int) else 0
