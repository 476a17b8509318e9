"""Drop what has ended or is old, or all that is known of a user, and say what that was."""

from __future__ import annotations

from typing import Final, NamedTuple

from dcaf.engines import Delete, Range, Record, Row, Transaction
from dcaf.service.artifact_contents import Files
from dcaf.service.artifact_remains import erase_artifacts, require_files, rows_of_owner, sweep
from dcaf.service.dropping import EVER, Dropped, drop_rows, may_drop
from dcaf.service.kept import Kept
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.tables import SESSIONS, STATE, Owner

AT_ONCE: Final = 200
UNFINISHED_MS: Final = 3_600_000
"""For how long a fork may take to be made."""


class Erased(NamedTuple):
    """What was dropped of a user.

    Attributes:
        sessions: How many sessions, archived ones too.
        messages: How many messages of their histories.
        facts: How many facts that the user and the sessions remembered.
        shared: How many ``user:`` keys.
        documents: How many documents of the sessions.
        artifacts: How many versions of artifacts that the user and the sessions had.
    """

    sessions: int
    messages: int
    facts: int
    shared: int
    documents: int = 0
    artifacts: int = 0


class Purged(NamedTuple):
    """What a purge has dropped.

    Attributes:
        sessions: How many sessions, and remains of deleted ones.
        messages: How many messages of their histories.
        facts: How many facts that these sessions alone remembered.
        documents: How many documents of theirs.
        artifacts: How many versions of artifacts that these sessions alone had.
    """

    sessions: int
    messages: int
    facts: int
    documents: int = 0
    artifacts: int = 0


def erase(app: str, owner: Owner, partitions: int, files: Files | None = None) -> Plan[Erased]:
    """Drop all sessions of a user, the keys that they shared, and all artifacts.

    Raises:
        ConfigurationError: There are artifacts, and the service does not know where their bytes are. Nothing was dropped.
    """
    sessions, shared, dropped = 0, 0, Dropped()
    while True:
        rows = Range.of_prefix(SESSIONS, owner.key, AT_ONCE, partition=owner.partition)
        outcome = yield Transaction([], ranges=[rows, owner.shared_rows(AT_ONCE), rows_of_owner(owner, 1)])
        require_files(files, outcome)
        found, ours, _ = outcome.pages
        for _, row in found:
            place = Place(app, owner, Kept.of(row).id, partitions, files)
            dropped = dropped.plus((yield from drop_rows(place, row, before_ms=EVER)) or Dropped())
        if ours:
            yield Transaction([], writes=[Delete(Record(STATE, key, owner.partition)) for key, _ in ours])
        sessions, shared = sessions + len(found), shared + len(ours)
        if not (found or ours):
            artifacts = dropped.artifacts + (yield from erase_artifacts(files, owner))
            return Erased(sessions, dropped.messages, dropped.facts, shared, dropped.documents, artifacts)


def purge(app: str, partitions: int, before_ms: int, files: Files | None = None) -> Plan[Purged]:
    """Drop the sessions of an application that have ended, and what is left of deleted ones.

    Args:
        app: The application.
        partitions: Of the engine.
        before_ms: Those that were committed last before this moment are dropped, too; 0 for none of them.
        files: Where the bytes of artifacts are; None where the service has none.
    """
    purged = Purged(0, 0, 0)
    for partition in range(partitions):
        whole = Range(SESSIONS, b"", None, AT_ONCE, partition=partition)
        purged = _add(purged, (yield from _purge_range(app, partitions, whole, before_ms, files)))
    yield from sweep(files, None)
    return purged


def purge_user(app: str, owner: Owner, partitions: int, before_ms: int, files: Files | None = None) -> Plan[Purged]:
    """The same with the sessions of a user.

    Args:
        app, partitions, before_ms, files: As of ``purge``.
        owner: The user.
    """
    whole = Range.of_prefix(SESSIONS, owner.key, AT_ONCE, partition=owner.partition)
    purged = yield from _purge_range(app, partitions, whole, before_ms, files)
    yield from sweep(files, owner)
    return purged


def find_place(app: str, key: bytes, row: Row, partitions: int, files: Files | None = None) -> Place | None:
    """Where a session lies whose row was found; None where it is another application's."""
    kept = Kept.of(row)
    place = Place(app, Owner(app, kept.user, kept.id, partitions=partitions), kept.id, partitions, files)
    return place if place.row.key == key else None


def _purge_range(app: str, partitions: int, rows: Range, before_ms: int, files: Files | None) -> Plan[Purged]:
    purged = Purged(0, 0, 0)
    while True:
        outcome = yield Transaction([], ranges=[rows])
        (page,) = outcome.pages
        for key, row in page:
            place = find_place(app, key, row, partitions, files)
            if place is not None and may_drop(row, outcome.now_ms, before_ms) and not _is_begun(row, outcome.now_ms):
                dropped = yield from drop_rows(place, row, before_ms=before_ms)
                purged = purged if dropped is None else _add(purged, Purged(1, *dropped))
        if len(page) < rows.limit:
            return purged
        rows = Range(SESSIONS, page[-1][0] + b"\0", rows.end, rows.limit, partition=rows.partition)


def _add(one: Purged, other: Purged) -> Purged:
    return Purged(*map(sum, zip(one, other, strict=True)))


def _is_begun(row: Row, now_ms: int) -> bool:
    """Whether it is being made as a fork, and whoever makes it can be expected to live."""
    dropped = row["dropped"]
    return row["revision"] == 0 and isinstance(dropped, int) and dropped > now_ms - UNFINISHED_MS
