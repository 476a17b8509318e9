"""Read documents, by their keys and by what these begin with, and write them.

>>> from dcaf.engines import MemoryEngine
>>> from dcaf.service.document_rows import freeze
>>> from dcaf.service.plans import run
>>> from dcaf.service.tables import DOCUMENTS
>>> engine = MemoryEngine()
>>> engine.declare([DOCUMENTS])
>>> scope = DocumentScope.of_space("clinic", "threads", 1)
>>> change = DocumentChange(scope, {key: Written(freeze(key, None), 7, None) for key in ("a/1", "a/2", "b/1")})
>>> run(commit_documents([change]), engine)
>>> page = run(scan_documents(scope, {}, Scan.of("a/", limit=1, cursor=None, order="descending")), engine)
>>> [document.key for document in page.items], page.cursor
(['a/2'], 'a/2')
>>> run(clear_documents(scope, "a/"), engine)
2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError
from dcaf.core.settings import require_choice
from dcaf.engines import Condition, Delete, Page, Put, Range, Record, Row, Transaction
from dcaf.service.document_rows import (
    Document,
    DocumentChange,
    DocumentScope,
    Written,
    check_prefix,
    describe,
    foresee,
)
from dcaf.service.listing import MOST_LIMIT, WRONG_CURSOR, ListPage
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.remembered import join
from dcaf.service.tables import DOCUMENTS

KeyOrder: TypeAlias = Literal["ascending", "descending"]

AT_ONCE: Final = 50
"""How many documents are copied, or dropped, in one transaction."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Which documents are wanted, in the order of their keys.

    Attributes:
        prefix: What their keys begin with.
        limit: How many at most.
        cursor: The key behind which they come; None for the first.
        is_descending: Whether the last key comes first.
    """

    prefix: str = field(repr=False)
    limit: int
    cursor: str | None = field(default=None, repr=False)
    is_descending: bool = False

    @classmethod
    def of(cls, prefix: object, *, limit: object, cursor: object, order: object) -> Scan:
        """Check what was given.

        Raises:
            ConfigurationError: The prefix is none, the limit is not 1 to 1,000, the cursor is that of another scan, or the order is
                neither of the two.
        """
        found = check_prefix(prefix)
        if not 1 <= (number := require("limit=", limit, int, "a number of documents, 1 or more")) <= MOST_LIMIT:
            raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT:,}.")
        after = None if cursor is None else require("cursor=", cursor, str, "the cursor of a page, a key, or None")
        if after is not None and not (after.startswith(found) and check_prefix(after)):
            raise ConfigurationError(WRONG_CURSOR)
        return cls(found, number, after, require_choice("order", order, ("ascending", "descending")) == "descending")

    def has(self, key: str) -> bool:
        """Whether a key is one of those that are wanted."""
        return key.startswith(self.prefix) and self._is_behind(key, self.cursor)

    def is_within(self, key: str, last: str | None) -> bool:
        """Whether a key does not come behind another one; None for none."""
        return last is None or not self._is_behind(key, last)

    def range(self, scope: DocumentScope, limit: int) -> Range:
        """The rows of a scope that are wanted, so many at most."""
        stem, partition = scope.prefix + self.prefix.encode(), scope.partition
        whole = Range.of_prefix(DOCUMENTS, stem, limit, backwards=self.is_descending, partition=partition)
        if self.cursor is None:
            return whole
        at = scope.prefix + self.cursor.encode()
        start, end = (whole.start, at) if self.is_descending else (at + b"\0", whole.end)
        return Range(DOCUMENTS, start, end, limit, self.is_descending, partition)

    def _is_behind(self, key: str, other: str | None) -> bool:
        return other is None or (key < other if self.is_descending else key > other)


def read_document(scope: DocumentScope, key: str) -> Plan[Row | None]:
    """Read the row of a document; None where there is none."""
    outcome = yield Transaction([*scope.guards, scope.row(key)])
    return outcome.rows[-1] if scope.has_session(outcome) else None


def scan_documents(scope: DocumentScope, pending: Mapping[str, Written], wanted: Scan) -> Plan[ListPage[Document]]:
    """Read a page of documents.

    Args:
        scope: Where they lie.
        pending: Key -> what is going to be there, which counts as if it was.
        wanted: Which of them.
    """
    within = {key: written for key, written in pending.items() if wanted.has(key)}
    limit = wanted.limit + 1 + len(within)
    outcome = yield Transaction(scope.guards, ranges=[wanted.range(scope, limit)])
    page = outcome.pages[0] if scope.has_session(outcome) else ()
    rows = {key[len(scope.prefix) :].decode(): row for key, row in page}
    last = [*rows][-1] if len(page) == limit else None  # what comes behind it is on a later page
    found: dict[str, Row | Document] = {key: row for key, row in rows.items() if key not in within}
    for key, written in within.items():
        if wanted.is_within(key, last) and (foreseen := foresee(key, written, outcome.now_ms)) is not None:
            found[key] = foreseen
    keys = sorted(found, reverse=wanted.is_descending)
    items = [one if isinstance(one := found[key], Document) else describe(one) for key in keys[: wanted.limit]]
    return ListPage(items, items[-1].key if len(keys) > wanted.limit else None)


def find_keys(scope: DocumentScope, prefix: str) -> Plan[list[str]]:
    """The keys of a scope that begin so."""
    stem, keys, rows = len(scope.prefix), list[str](), scope.rows(prefix, AT_ONCE)
    while True:
        outcome = yield Transaction(scope.guards, ranges=[rows])
        page = outcome.pages[0] if scope.has_session(outcome) else ()
        keys += [key[stem:].decode() for key, _ in page]
        if len(page) < AT_ONCE:
            return keys
        rows = _rest_of(rows, page)


def commit_documents(changes: Sequence[DocumentChange]) -> Plan[None]:
    """Write changes of one scope that belong to no turn, all of them or none.

    Raises:
        DocumentConflictError: A document is of another revision than is expected.
    """
    for change in changes:
        conditions, reads = change.conditions(), change.reads()
        when = join(conditions) if conditions else None
        while not (outcome := (yield Transaction(reads, when=when, writes=change.writes()))).applied:
            change.check(outcome.rows)


def delete_document(scope: DocumentScope, key: str, expect: int | None) -> Plan[bool]:
    """Delete a document of a space; False where there is none.

    Raises:
        DocumentConflictError: It is of another revision than is expected.
    """
    change = DocumentChange(scope, {key: Written(None, 0, expect)})
    conditions, row = change.conditions(), scope.row(key)
    when = join(conditions) if conditions else None
    while not (outcome := (yield Transaction([row], when=when, writes=[Delete(row)]))).applied:
        change.check(outcome.rows)
    return outcome.rows[0] is not None


def clear_documents(scope: DocumentScope, prefix: str) -> Plan[int]:
    """Delete the documents of a space whose keys begin so, in steps; returns how many there were."""
    count, rows = 0, scope.rows(prefix, AT_ONCE)
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        if page:
            yield Transaction([], writes=[Delete(Record(DOCUMENTS, key, scope.partition)) for key, _ in page])
        count += len(page)
        if len(page) < AT_ONCE:
            return count
        rows = _rest_of(rows, page)


def has_documents(place: Place) -> Plan[bool]:
    """Whether a session has any."""
    (page,) = (yield Transaction([], ranges=[place.owner.rows_of(DOCUMENTS, place.id, 1)])).pages
    return bool(page)


def copy_documents(place: Place, target: Place, when: Condition) -> Plan[None]:
    """Copy the documents of a session to where another one is being made, as long as a condition holds there."""
    stem, aim = len(place.row.key), target.owner.session_key(target.id)
    rows = place.owner.rows_of(DOCUMENTS, place.id, AT_ONCE)
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        if page:
            puts = [Put(Record(DOCUMENTS, aim + key[stem:], target.owner.partition), row) for key, row in page]
            yield Transaction([target.row], when=when, writes=puts)
        if len(page) < AT_ONCE:
            return
        rows = _rest_of(rows, page)


def _rest_of(rows: Range, page: Page) -> Range:
    return Range(rows.table, page[-1][0] + b"\0", rows.end, rows.limit, partition=rows.partition)
