"""Commit a turn of a session: one transaction, whatever the turn did.

It compares birth and revision, and what other sessions of the user may have changed; and writes what has changed. What is shared
across the application lies elsewhere, and is written in a transaction of its own where the engine has several partitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError, StaleSessionError
from dcaf.core.json_values import write
from dcaf.core.transaction import log_clash
from dcaf.engines import AllOf, AnyOf, Condition, Delete, Exists, Is, Not, Now, Outcome, Put, Record, Transaction, Write
from dcaf.service.changes import Change, pack_change
from dcaf.service.document_rows import DocumentChange
from dcaf.service.dropping import make_room
from dcaf.service.kept import Kept, has_value, is_at
from dcaf.service.links import follow
from dcaf.service.places import Place, require_there
from dcaf.service.plans import Plan
from dcaf.service.quotas import check_messages
from dcaf.service.remembered import MemoryChange, join
from dcaf.service.tables import CHANGES, MESSAGES, MINUTE_MS, Columns

HALF: Final = "The session was written; nobody can tell whether its app: keys were."
STALE: Final = "Another one has committed the session since it was read. Read it again, and do it again."
ANSWERED: Final = "Another one has answered a call of the session that the turn answers, too, or takes its id for a call."


THIS_TURN: Final = "a turn of a kept session"
ANOTHER_TURN: Final = "another turn of it, or of another session of the user"
"""What the log calls those whose changes have clashed."""


class Overtaken(Exception):
    """Another one has changed the state of a session, and no turn of it was committed: the turn is laid over that."""


class Committed(NamedTuple):
    """What a commit came to.

    Attributes:
        kept: What is known of the session now.
        laid: Shared keys that were laid over what others have written -> their values.
        clashes: At how many shared keys the change of another session was given up for this one.
        failed: The error where all but the application's keys, which lie elsewhere, was written; None else.
    """

    kept: Kept
    laid: Mapping[str, bytes | None]
    clashes: int
    failed: CommitUnknownError | None


class Planned(NamedTuple):
    """A commit, before it is asked for.

    Attributes:
        transaction: What it reads, compares and writes.
        open_calls: The calls of tools that are open after it.
    """

    transaction: Transaction
    open_calls: tuple[str, ...]


def commit(place: Place, kept: Kept, change: Change, now_ms: int) -> Plan[Committed]:
    """Commit a turn.

    It is laid over what it shares with other sessions and another one has changed since. What is shared across the application may
    lie elsewhere, and is written when all else stands.

    Args:
        place: Where the session lies.
        kept: What was known of it when it was read; its revision is 0 where it is new.
        change: What the turn did.
        now_ms: The engine's clock when it was read.

    Raises:
        StaleSessionError: Another one has committed the session, or answered a call that the turn answers.
        Overtaken: Its state alone was changed, by ``merge``.
        UnknownSessionError: It was deleted, or has ended.
        SessionClosedError: It was closed, or archived.
        SessionExistsError: It is new, and there is one of its id.
        DocumentConflictError: A document is of another revision than the turn expects.
        QuotaExceededError: It would have more messages than it may have.
    """
    whole, apart = (change if place.is_with_app else change.only(app=False)), Change({})
    failed: CommitUnknownError | None = None
    planned = plan_commit(place, kept, whole, now_ms)
    while not (outcome := (yield planned.transaction)).applied:
        if kept.revision:
            kept = catch_up(kept, outcome)
        elif outcome.rows[0] is not None:
            yield from make_room(place, outcome)
        whole = whole.over(outcome.rows[1:])
        planned = plan_commit(place, kept, whole, now_ms)
    if not place.is_with_app:
        try:
            apart = yield from commit_apart(place, change.only(app=True))
        except EngineError as error:
            failed = CommitUnknownError(HALF)
            failed.__cause__ = error
    laid = {**whole.list_laid(change), **apart.list_laid(change)}
    after = find_after(kept, whole, planned.open_calls, now_ms, outcome.now_ms)
    return Committed(after, laid, whole.count_clashes() + apart.count_clashes(), failed)


def find_after(kept: Kept, change: Change, open_calls: tuple[str, ...], now_ms: int, committed_ms: int) -> Kept:
    """What is known of a session after a commit.

    Args:
        kept, change, now_ms: As of ``commit``.
        open_calls: As of its plan.
        committed_ms: The engine's clock when it was committed.
    """
    is_logged = change.is_logged or not kept.revision
    minute = _find_minute(kept, now_ms)
    after = kept.after(len(change.messages), is_logged, minute, committed_ms, change.ttl_ms, open_calls=open_calls)
    return after if change.version is None else replace(after, version=change.version)


def commit_apart(place: Place, change: Change) -> Plan[Change]:
    """Commit what is shared across the application and lies in another partition; returns it, laid over what others had written."""
    if not change.values:
        return change
    rows = [place.state_row(name) for name in change.values]
    while True:
        transaction = Transaction(rows, when=join(_is_unchanged(place, change)), writes=write_state(place, change))
        outcome = yield transaction
        if outcome.applied:
            return change
        change = change.over(outcome.rows)


def plan_commit(place: Place, kept: Kept, change: Change, now_ms: int) -> Planned:
    """What ``commit`` asks for.

    Raises:
        StaleSessionError: Another one has answered a call that the turn answers, too.
        QuotaExceededError: It would have more messages than it may have.
    """
    row, is_new, open_calls = place.row, kept.revision == 0, find_open_calls(kept, change)
    is_logged, minute, total = change.is_logged or is_new, _find_minute(kept, now_ms), kept.messages + len(change.messages)
    if change.messages:
        check_messages(place.quotas, total)
    columns: Columns = {
        **({**describe(kept, kept.id, kept.birth), "dropped": None} if is_new else {}),
        "revision": kept.revision + 1,
        "messages": total,
        "changes": kept.changes + is_logged,
        "updated": Now(),
        "listed": minute,
        "ends": None if change.ttl_ms is None else Now(change.ttl_ms),
        **write_open_calls(() if is_new else kept.open_calls, open_calls),
        **({} if change.version is None else {"version": change.version}),
    }
    writes: list[Write] = [
        Put(row, columns),
        *write_state(place, change),
        *write_messages(place, kept, kept.revision + 1, change),
        *_move_in_list(place, kept, minute),
        *(one for memory in change.memory for one in memory.writes()),
        *(one for document in change.documents for one in document.writes()),
        *([log_change(place, kept.changes + 1, kept.revision + 1, change, total)] if is_logged else []),
        *write_marks(place, kept, kept.changes + is_logged, change),
    ]
    conditions = [is_unmade(row, kept.birth) if is_new else is_at(row, kept), *_is_unchanged(place, change)]
    beside: list[MemoryChange | DocumentChange] = [*change.memory, *change.documents]
    conditions += [one for changed in beside for one in changed.conditions()]
    reads = [row, *map(place.state_row, change.list_shared()), *(one for changed in beside for one in changed.reads())]
    return Planned(Transaction(reads, when=join(conditions), writes=writes), open_calls)


def find_open_calls(kept: Kept, change: Change) -> tuple[str, ...]:
    """The calls of tools that are open after a turn, whose own messages are in order.

    Raises:
        StaleSessionError: Another one has answered a call of it, or made one, since.
    """
    try:
        return follow([data for data, _ in change.messages], kept.open_calls) if change.messages else kept.open_calls
    except ConfigurationError as error:
        raise StaleSessionError(ANSWERED) from error


def write_open_calls(before: tuple[str, ...], after: tuple[str, ...]) -> Columns:
    """What says which calls are open, where that has changed."""
    if after == before:
        return {}
    return {"open_calls": write(list(after)) if after else None}


def log_clashes(count: int) -> None:
    """Log that at so many keys the change of another turn was given up for that of this one."""
    for _ in range(count):
        log_clash(THIS_TURN, ANOTHER_TURN, "write-write")


def is_unmade(row: Record, birth: bytes) -> Condition:
    """There is no session in a place, or one that was begun there under this birth, and is not made yet."""
    return AnyOf(Not(Exists(row)), AllOf(Is(row, "birth", birth), Is(row, "revision", 0)))


def _find_minute(kept: Kept, now_ms: int) -> int:
    """The minute under which a session stands in lists after a commit."""
    return max(kept.listed, now_ms // MINUTE_MS)


def catch_up(kept: Kept, outcome: Outcome) -> Kept:
    """What is known of a session to which others have only added messages since.

    Raises:
        StaleSessionError, Overtaken, UnknownSessionError, SessionClosedError: More has happened.
    """
    now = Kept.of(require_there(outcome, kept.birth))
    if now.revision != kept.revision:
        raise StaleSessionError(STALE)
    if now.changes != kept.changes:
        raise Overtaken
    return now


def describe(kept: Kept, session_id: str, birth: bytes) -> Columns:
    """What is written once, when a session is made.

    Args:
        kept: What else is known of it.
        session_id: Its id.
        birth: Tells it from others of this id.
    """
    return {
        "id": session_id.encode(),
        "user": None if kept.user is None else kept.user.encode(),
        "birth": birth,
        "created": Now(),
        "title": None if kept.title is None else kept.title.encode(),
        "labels": write(dict(kept.labels)) if kept.labels else None,
        "metadata": write(dict(kept.metadata)) if kept.metadata else None,
    }


def _is_unchanged(place: Place, change: Change) -> list[Condition]:
    """No other session has changed what this one shares with it, and has changed."""
    return [has_value(place.state_row(name), change.values[name].before) for name in change.list_shared()]


def write_state(place: Place, change: Change) -> list[Write]:
    """What writes changed keys."""
    writes: list[Write] = []
    for name, value in change.values.items():
        row = place.state_row(name)
        writes.append(Delete(row) if value.after is None else Put(row, {"name": name.encode(), "value": value.after}))
    return writes


def write_messages(place: Place, kept: Kept, revision: int, change: Change) -> list[Write]:
    """What writes new messages behind those that are there; the revision is the one with which they come."""
    first = kept.messages + 1
    rows = [place.owner.numbered_row(MESSAGES, place.id, first + at) for at in range(len(change.messages))]
    return [
        Put(row, {"revision": revision, "at": Now() if at is None else at, "data": data})
        for row, (data, at) in zip(rows, change.messages, strict=True)
    ]


def write_marks(place: Place, kept: Kept, changes: int, change: Change) -> list[Write]:
    """What writes the checkpoints of a turn; ``changes`` is how many changes there are after it."""
    return [
        Put(
            place.owner.checkpoint_row(place.id, name),
            {
                "name": name.encode(),
                "messages": kept.messages + mark.messages,
                "changes": changes,
                "at": Now(),
                "data": mark.data,
            },
        )
        for name, mark in change.marks.items()
    ]


def _move_in_list(place: Place, kept: Kept, minute: int) -> list[Write]:
    is_new = kept.revision == 0
    if minute == kept.listed and not is_new:
        return []
    after = Put(place.owner.list_row(minute, place.id), {"session": place.id.encode()})
    return [after] if is_new else [Delete(place.owner.list_row(kept.listed, place.id)), after]


def log_change(place: Place, number: int, revision: int, change: Change, total: int) -> Write:
    """What logs a change of the state.

    Args:
        place: Where the session lies.
        number: Its number among the changes.
        revision: The revision with which it comes.
        change: What was done.
        total: How many messages there are then.
    """
    row = place.owner.numbered_row(CHANGES, place.id, number)
    return Put(row, {"revision": revision, "messages": total, "at": Now(), "data": pack_change(change)})
