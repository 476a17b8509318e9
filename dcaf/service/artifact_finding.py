"""Find artifacts: one version, all versions of one, the newest of all. What was not saved to its end is not found."""

from __future__ import annotations

from typing import NamedTuple, cast

from dcaf.engines import Page, Range, Record, Row, Transaction
from dcaf.service.artifact_contents import Files
from dcaf.service.artifact_scopes import AT_ONCE, HEAD, NONE_YET, Scope, is_saved, number_of
from dcaf.service.artifact_values import ArtifactVersion, describe_version
from dcaf.service.plans import Plan
from dcaf.service.tables import ARTIFACTS, unpack_number


class Found(NamedTuple):
    """A version that was found.

    Attributes:
        version: What is known of it.
        record, row: Its row.
    """

    version: ArtifactVersion
    record: Record
    row: Row

    def __repr__(self) -> str:
        return "Found(...)"


def find(scope: Scope, name: str, number: int | None) -> Plan[Found | None]:
    """A version of an artifact; the newest for None. None where there is none."""
    head, looked = scope.head(name), None
    while True:
        outcome = yield Transaction([*scope.guards, head])
        named = outcome.rows[-1]
        if named is None or named["latest"] == NONE_YET or not scope.can_be_read(outcome):
            return None
        wanted = number_of(named, "latest") if number is None else number
        if wanted >= number_of(named, "version"):
            return None
        record = scope.version(cast("bytes", named["generation"]), wanted)
        row = (yield Transaction([record])).rows[0]
        if row is not None and is_saved(row):
            return Found(describe_version(name, wanted, row), record, row)
        if number is not None or looked == record:
            return None
        looked = record


def list_versions(scope: Scope, name: str) -> Plan[list[ArtifactVersion]]:
    """The versions of an artifact, oldest first."""
    found: list[ArtifactVersion] = []
    outcome = yield Transaction([*scope.guards, scope.head(name)])
    named = outcome.rows[-1]
    if named is None or not scope.can_be_read(outcome):
        return found
    generation, after = cast("bytes", named["generation"]), -1
    while True:
        (page,) = (yield Transaction([], ranges=[scope.versions(generation, AT_ONCE, after)])).pages
        found += [describe_version(name, unpack_number(key), row) for key, row in page if is_saved(row)]
        if len(page) < AT_ONCE:
            return found
        after = unpack_number(page[-1][0])


def list_names(
    files: Files, scope: Scope, limit: int, last: bytes
) -> Plan[tuple[list[tuple[bytes, ArtifactVersion]], bytes | None]]:
    """The newest version of each artifact, by the order of the names.

    Args:
        files: The bytes, which say whether pages are in the order of the names.
        scope: Whose.
        limit: How many names are looked at.
        last: The packed name after which to begin; none for the first.

    Returns them with their packed names, and the packed name at which to go on; None where there are no more.
    """
    page = yield from (_read_all_names if files.hides_names else _read_names)(scope, limit, last)
    stem, names = len(scope.prefix + HEAD), [(key, row) for key, row in page if row["latest"] != NONE_YET]
    records = [scope.version(cast("bytes", row["generation"]), number_of(row, "latest")) for _, row in names]
    versions = (yield Transaction(records)).rows if records else ()
    found = [
        (key[stem:], describe_version(cast("bytes", named["name"]).decode(), number_of(named, "latest"), version))
        for (key, named), version in zip(names, versions, strict=True)
        if version is not None and is_saved(version)
    ]
    return found, page[-1][0][stem:] if len(page) == limit else None


def _read_names(scope: Scope, limit: int, last: bytes) -> Plan[Page]:
    """The rows of some names, in their order."""
    whole = Range.of_prefix(ARTIFACTS, scope.prefix + HEAD, limit, partition=scope.partition)
    start = whole.start + last + b"\0" if last else whole.start
    rows = Range(ARTIFACTS, start, whole.end, limit, partition=scope.partition)
    outcome = yield Transaction(scope.guards, ranges=[rows])
    return outcome.pages[0] if scope.can_be_read(outcome) else ()


def _read_all_names(scope: Scope, limit: int, last: bytes) -> Plan[Page]:
    """The same where names are hidden, and so in no order: all of them are read, of which there are not many."""
    found: list[tuple[bytes, Row]] = []
    rows = Range.of_prefix(ARTIFACTS, scope.prefix + HEAD, AT_ONCE, partition=scope.partition)
    after = rows.start + last
    while True:
        outcome = yield Transaction(scope.guards, ranges=[rows])
        if not scope.can_be_read(outcome):
            return ()
        (page,) = outcome.pages
        found += [(key, row) for key, row in page if key > after]
        if len(page) < AT_ONCE:
            return sorted(found, key=_key_of)[:limit]
        rows = Range(ARTIFACTS, page[-1][0] + b"\0", rows.end, AT_ONCE, partition=scope.partition)


def _key_of(found: tuple[bytes, Row]) -> bytes:
    return found[0]
