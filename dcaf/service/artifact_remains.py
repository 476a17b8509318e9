"""Artifacts of sessions that go, that are forked or moved, and what is left of saves that broke off.

What a reader gets wrong: rows go last. Whatever breaks off in between, the rows that are left know the bytes that are left, and the
same call goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, cast

from dcaf.core.errors import ConfigurationError
from dcaf.engines import AnyOf, Delete, Exists, Is, Not, Now, Outcome, Page, Plus, Put, Range, Record, Row, Transaction, Write
from dcaf.service.artifact_contents import Files, copy_parts
from dcaf.service.artifact_deletion import drop_contents, drop_generation, drop_range
from dcaf.service.artifact_saving import About, Begun, abandon
from dcaf.service.artifact_scopes import (
    AT_ONCE,
    COUNT,
    DROPPED,
    DYING,
    GENERATION_BYTES,
    HEAD,
    NONE_YET,
    VERSION,
    Scope,
    find_shared,
    is_same,
    is_saved,
)
from dcaf.service.places import Place
from dcaf.service.plans import Aside, Plan
from dcaf.service.remembered import join
from dcaf.service.tables import ARTIFACTS, DIGEST_BYTES, OF_OWNER, OF_SESSION, SESSIONS, Owner, unpack_number

UNFINISHED_MS: Final = 24 * 3_600_000
"""For how long a save may take."""

SESSION_BYTES: Final = 2 * DIGEST_BYTES + len(OF_SESSION)
BIRTH_BYTES: Final = 8

NO_STORE: Final = (
    "There are artifacts that go with this, and this service does not know where their bytes are: "
    "give SessionService(artifacts=...) what the other service has, and call again."
)


def rows_of_session(place: Place, birth: bytes, limit: int) -> Range:
    """All rows of the artifacts that go with a session; without a birth, with all that had its id."""
    prefix = place.owner.session_key(place.id) + birth
    return Range.of_prefix(ARTIFACTS, prefix, limit, partition=place.owner.partition)


def rows_of_owner(owner: Owner, limit: int) -> Range:
    """All rows of the artifacts of a user, and of all sessions of the user."""
    return Range.of_prefix(ARTIFACTS, owner.key, limit, partition=owner.partition)


def drop_with_session(place: Place, page: Page) -> Plan[None]:
    """Drop the bytes of artifacts whose rows are going to be dropped.

    Raises:
        ConfigurationError: The service does not know where they are.
    """
    if not page:
        return
    if place.files is None:
        raise ConfigurationError(NO_STORE)
    yield from drop_contents(place.files, (yield from place.files.find_root()), page)


def erase_artifacts(files: Files | None, owner: Owner) -> Plan[int]:
    """Drop all artifacts of a user, whatever session they were of; returns how many versions those were.

    Raises:
        ConfigurationError: There are some, and the service does not know where their bytes are.
    """
    rows = rows_of_owner(owner, AT_ONCE)
    if files is None:
        require_files(None, (yield Transaction([], ranges=[rows])))
        return 0
    root = yield from files.find_root()
    count = yield from drop_range(files, root, rows)
    yield from _sweep_objects(files, files.path_of_owner(root, owner.key), [owner.partition])
    return count


def require_files(files: Files | None, outcome: Outcome) -> None:
    """Refuse to drop what has artifacts, before anything of it is dropped.

    Args:
        files: The bytes; None where the service has none.
        outcome: Of a transaction that has looked for rows of artifacts last.

    Raises:
        ConfigurationError: There are some, and the service does not know where their bytes are.
    """
    if files is None and outcome.pages[-1]:
        raise ConfigurationError(NO_STORE)


def sweep(files: Files | None, owner: Owner | None) -> Plan[None]:
    """Drop what is left of saves that broke off, and of sessions that were never committed, or are gone.

    Args:
        files: The bytes; None where the service has no artifacts, and so does not look for any.
        owner: Of this user alone; None for the whole application.
    """
    if files is None:
        return
    root = yield from files.find_root()
    partitions = range(files.partitions) if owner is None else [owner.partition]
    for partition in partitions:
        yield from _sweep_rows(files, root, b"" if owner is None else owner.key, partition)
    yield from _sweep_objects(files, root if owner is None else files.path_of_owner(root, owner.key), partitions)


def copy_artifacts(place: Place, birth: bytes, target: Place, target_birth: bytes) -> Plan[None]:
    """Give a session that is being made the artifacts of another one, with their numbers.

    What an anonymous session has as a user goes to the user of the other, but for names that are there.
    """
    files = place.files
    if files is None:
        return
    root = yield from files.find_root()
    own = Scope.of_session(files.app, place.owner, place.id, birth, shared=False)
    aim = Scope.of_session(files.app, target.owner, target.id, target_birth, shared=False)
    yield from _copy_scope(files, root, own, aim)
    if place.owner.user is None:
        shared = Scope.of_session(files.app, place.owner, place.id, birth, shared=True)
        yield from _copy_scope(files, root, shared, find_shared(files.app, target.owner, target.id, target_birth))


def _copy_scope(files: Files, root: str, scope: Scope, aim: Scope) -> Plan[None]:
    for row in (yield from _read_heads(scope)):
        name, generation = cast("bytes", row["name"]).decode(), cast("bytes", row["generation"])
        head = aim.head(name)
        begun = Put(head, {**row, "count": 1, "latest": NONE_YET, "at": Now()})  # it counts the copying as one
        count = Put(aim.counter, {"app": aim.app, "count": Plus(1)})
        outcome = yield Transaction([head], when=Not(Exists(head)), writes=[begun, count])
        there = outcome.rows[0]
        if there is None or there["generation"] == generation:
            yield from _copy_versions(files, root, scope, aim, generation)
            yield from _settle_copy(files, root, aim, name, generation)


def _read_heads(scope: Scope) -> Plan[list[Row]]:
    """The rows of all names of which there is a version."""
    found: list[Row] = []
    rows = Range.of_prefix(ARTIFACTS, scope.prefix + HEAD, AT_ONCE, partition=scope.partition)
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        found += [row for _, row in page if row["latest"] != NONE_YET]
        if len(page) < AT_ONCE:
            return found
        rows = Range(ARTIFACTS, page[-1][0] + b"\0", rows.end, AT_ONCE, partition=scope.partition)


def _copy_versions(files: Files, root: str, scope: Scope, aim: Scope, generation: bytes) -> Plan[None]:
    after = -1
    while True:
        (page,) = (yield Transaction([], ranges=[scope.versions(generation, AT_ONCE, after)])).pages
        for key, row in page:
            if is_saved(row):
                record = aim.version(generation, unpack_number(key))
                is_missing = AnyOf(Not(Exists(record)), Is(record, "size", None))
                begun = Put(record, {**row, "size": None, "part_bytes": None, "at": Now()})
                if not (yield Transaction([record], when=is_missing, writes=[begun])).applied:
                    continue  # it was copied before
                yield Aside(partial(copy_parts, files, files.path_of(root, key), row, files.path_of(root, record.key)))
                yield Transaction([record], when=Exists(record), writes=[Put(record, row)])
        if len(page) < AT_ONCE:
            return
        after = unpack_number(page[-1][0])


def _settle_copy(files: Files, root: str, aim: Scope, name: str, generation: bytes) -> Plan[None]:
    """Have a name know which versions there are of it now: of those that were to be copied some may be deleted, and one of a
    user may have got others, or be deleted, meanwhile.
    """
    head = aim.head(name)
    while True:
        named = (yield Transaction([head])).rows[0]
        if named is None or named["generation"] != generation:
            yield from drop_generation(files, root, aim, generation)
            return
        count, latest = yield from _count_versions(aim, generation)
        writes: list[Write] = [Put(head, {"count": count, "latest": latest})]
        if not count:
            writes = [Delete(head), Put(aim.counter, {"count": Plus(-1)})]
        if (yield Transaction([head], when=join(is_same(head, named)), writes=writes)).applied:
            return


def _count_versions(scope: Scope, generation: bytes) -> Plan[tuple[int, int]]:
    """How many versions of a name there are, or are being saved; and the number of the newest that was."""
    count, latest, after = 0, NONE_YET, -1
    while True:
        (page,) = (yield Transaction([], ranges=[scope.versions(generation, AT_ONCE, after)])).pages
        count += len(page)
        latest = max([latest, *(unpack_number(key) for key, row in page if is_saved(row))])
        if len(page) < AT_ONCE:
            return count, latest
        after = unpack_number(page[-1][0])


def _sweep_rows(files: Files, root: str, prefix: bytes, partition: int) -> Plan[None]:
    rows = Range.of_prefix(ARTIFACTS, prefix, AT_ONCE, partition=partition)
    while True:
        outcome = yield Transaction([], ranges=[rows])
        (page,) = outcome.pages
        for key, row in page:
            if row["app"] == files.app:
                is_old = isinstance(row["at"], int) and row["at"] <= outcome.now_ms - UNFINISHED_MS
                yield from _sweep_row(files, root, Record(ARTIFACTS, key, partition), row, is_old=is_old)
        if len(page) < AT_ONCE:
            return
        rows = Range(ARTIFACTS, page[-1][0] + b"\0", rows.end, AT_ONCE, partition=partition)


def _sweep_row(files: Files, root: str, record: Record, row: Row, *, is_old: bool) -> Plan[None]:
    key, partition = record.key, record.partition
    is_of_session = key[DIGEST_BYTES : DIGEST_BYTES + 1] == OF_SESSION
    at = SESSION_BYTES + BIRTH_BYTES + len(OF_SESSION) if is_of_session else DIGEST_BYTES + len(OF_OWNER)
    scope, kind, rest = Scope(files.app, key[:at], partition), key[at : at + 1], key[at + 1 :]
    if is_of_session and kind == HEAD and is_old and (yield from _is_gone(key, partition)):
        prefix = key[: SESSION_BYTES + BIRTH_BYTES]  # the names go last: where it breaks off, they are found again
        whole = Range.of_prefix(ARTIFACTS, prefix, AT_ONCE, backwards=True, partition=partition)
        yield from drop_range(files, root, whole)
    elif kind == COUNT and row["count"] == 0:
        yield Transaction([record], when=Is(record, "count", 0), writes=[Delete(record)])
    elif kind == DROPPED:
        yield from drop_generation(files, root, scope, rest)
    elif kind == VERSION and not is_saved(row) and (is_old or row["part_bytes"] == DYING):
        about = About(cast("bytes", row["name"]).decode(), "", b"")
        yield from abandon(files, root, Begun(scope, about, rest[:GENERATION_BYTES], unpack_number(key)), frees=False)


def _is_gone(key: bytes, partition: int) -> Plan[bool]:
    """Whether there is no session any more, or never was one, of which a row of an artifact is."""
    session = Record(SESSIONS, key[:SESSION_BYTES], partition)
    row = (yield Transaction([session])).rows[0]
    return row is None or row["birth"] != key[SESSION_BYTES : SESSION_BYTES + BIRTH_BYTES]


def _sweep_objects(files: Files, prefix: str, partitions: Sequence[int]) -> Plan[None]:
    """Drop objects that have no row.

    Each version has a row from before its first object is written until after its last one is gone, so this waits for nobody.
    """
    listing = files.objects.list_paths(prefix)
    while True:
        paths: list[str] = []
        yield Aside(partial(_take_some, listing, paths))
        if not paths:
            return
        lost: dict[bytes, list[str]] = {}
        for path in paths:
            with suppress(ValueError):  # nothing of ours
                lost.setdefault(files.key_of(path), []).append(path)
        for partition in partitions:
            if lost:
                rows = (yield Transaction([Record(ARTIFACTS, key, partition) for key in lost])).rows
                lost = {key: found for (key, found), row in zip(lost.items(), rows, strict=True) if row is None}
        if lost:
            yield Aside(partial(files.objects.delete, [path for found in lost.values() for path in found]))


def _take_some(listing: Iterator[list[str]], paths: list[str]) -> None:
    paths += next(listing, [])
