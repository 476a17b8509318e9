"""Delete artifacts: an artifact is gone with the first step; its bytes follow, and then its rows, in steps.

What a reader gets wrong: a row goes after the bytes that it knows of. So whatever breaks off in between, somebody can go on with
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from dcaf.engines import AllOf, AtMost, Delete, Exists, Is, Not, Page, Plus, Put, Range, Record, Row, Transaction, Value, Write
from dcaf.engines.transactions import LARGEST
from dcaf.service.artifact_contents import Files, drop_parts
from dcaf.service.artifact_saving import forget
from dcaf.service.artifact_scopes import AT_ONCE, DROPPED, DYING, NONE_YET, Scope, is_same, is_saved, number_of
from dcaf.service.plans import Aside, Plan
from dcaf.service.remembered import join
from dcaf.service.tables import ARTIFACTS, unpack_number


def delete(files: Files, root: str, scope: Scope, name: str) -> Plan[int]:
    """Delete an artifact; returns how many versions that were.

    It is gone with the first step. Its bytes follow, and its rows, in steps that everybody may go on with.

    Raises:
        UnknownSessionError, SessionClosedError: The session is not there, or was closed or archived.
    """
    head, counter = scope.head(name), scope.counter
    yield from drop_deleted(files, root, scope)
    while True:
        outcome = yield Transaction([*scope.guards, head, counter])
        scope.require_open(outcome)
        named = outcome.rows[-2]
        if named is None:
            return 0
        generation = cast("bytes", named["generation"])
        dropped = Put(scope.dropped(generation), {"app": scope.app})
        writes: list[Write] = [Delete(head), Put(counter, {"count": Plus(-1)}), dropped]
        conditions = [*scope.conditions(), *is_same(head, named)]
        if (yield Transaction([*scope.guards, head, counter], when=join(conditions), writes=writes)).applied:
            return (yield from drop_generation(files, root, scope, generation))


def delete_version(files: Files, root: str, scope: Scope, name: str, number: int) -> Plan[int]:
    """Delete one version; returns how many that were, 1 or 0. Its number is never used again as long as there are others.

    Raises as ``delete``.
    """
    head = scope.head(name)
    while True:
        outcome = yield Transaction([*scope.guards, head])
        scope.require_open(outcome)
        named = outcome.rows[-1]
        if named is None:
            return 0
        if number >= number_of(named, "version"):
            return 0
        generation = cast("bytes", named["generation"])
        row = scope.version(generation, number)
        latest = yield from _find_latest(scope, generation, named, number)
        reads, dying = [*scope.guards, head, row], Put(row, {"part_bytes": DYING, "size": None})
        when = join([*scope.conditions(), *is_same(head, named), Exists(row), Not(Is(row, "size", None))])
        outcome = yield Transaction(reads, when=when, writes=[dying, Put(head, {"latest": latest})])
        version = outcome.rows[-1]
        if outcome.applied:
            yield from _raise_latest(scope, generation, head)
            yield Aside(partial(drop_parts, files, files.path_of(root, row.key), version))
            yield from forget(scope, name, generation, number)
            return 1
        if version is None or not is_saved(version):
            return 0


def drop_deleted(files: Files, root: str, scope: Scope) -> Plan[None]:
    """Drop what is left of artifacts that were deleted, where somebody did not come to the end of it."""
    begins = scope.prefix + DROPPED
    rows = Range.of_prefix(ARTIFACTS, begins, AT_ONCE, partition=scope.partition)
    for key, _ in (yield Transaction([], ranges=[rows])).pages[0]:
        yield from drop_generation(files, root, scope, key[len(begins) :])


def drop_generation(files: Files, root: str, scope: Scope, generation: bytes) -> Plan[int]:
    """Drop the bytes and the rows of all versions of a name that was deleted; returns how many had been saved."""
    begins = scope.versions(generation, AT_ONCE)
    count = yield from drop_range(files, root, begins)
    yield Transaction([], writes=[Delete(scope.dropped(generation))])
    return count


def drop_range(files: Files, root: str, rows: Range) -> Plan[int]:
    """Drop rows of artifacts, the bytes of each version before its row; returns how many versions had been saved.

    Where it breaks off, the rows that are left know the bytes that are left.
    """
    count = 0
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        if not page:
            return count
        yield from drop_contents(files, root, page)
        yield Transaction([], writes=[Delete(Record(ARTIFACTS, key, rows.partition)) for key, _ in page])
        count += count_saved(page)


def drop_contents(files: Files, root: str, page: Page) -> Plan[None]:
    """Drop the bytes of all versions among rows."""
    versions = [(key, row) for key, row in page if row["mime"] is not None]
    if versions:
        yield Aside(partial(_drop_all, files, root, versions))


def count_saved(page: Page) -> int:
    """How many of these rows are versions that were saved to their end."""
    return sum(is_saved(row) for _, row in page)


def _drop_all(files: Files, root: str, versions: list[tuple[bytes, Row]]) -> None:
    for key, row in versions:
        drop_parts(files, files.path_of(root, key), row if is_saved(row) else None)


def _find_latest(scope: Scope, generation: bytes, named: Mapping[str, Value], without: int) -> Plan[int]:
    """The newest version but for one."""
    if named["latest"] not in {None, without}:
        return number_of(named, "latest")
    start, end = scope.version(generation, 0).key, scope.version(generation, without).key
    while True:
        rows = Range(ARTIFACTS, start, end, AT_ONCE, backwards=True, partition=scope.partition)
        (page,) = (yield Transaction([], ranges=[rows])).pages
        saved = next((unpack_number(key) for key, row in page if is_saved(row)), None)
        if saved is not None or len(page) < AT_ONCE:
            return NONE_YET if saved is None else saved
        end = page[-1][0]


def _raise_latest(scope: Scope, generation: bytes, head: Record) -> Plan[None]:
    """Have a name know the newest version, where one was finished while that was looked for."""
    latest = yield from _find_latest(scope, generation, {"latest": None}, LARGEST)
    is_older = AllOf(Is(head, "generation", generation), AtMost(head, "latest", latest - 1))
    yield Transaction([head], when=is_older, writes=[Put(head, {"latest": latest})])
