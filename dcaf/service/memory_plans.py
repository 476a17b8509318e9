"""Read and write what a user or a session remembers, and forget all of it.

>>> from dcaf.engines import MemoryEngine
>>> from dcaf.service.plans import run
>>> from dcaf.service.remembered import Fact, MemoryScope
>>> from dcaf.service.tables import MEMORY, Owner
>>> engine = MemoryEngine()
>>> engine.declare([MEMORY])
>>> scope = MemoryScope.of_user(Owner("clinic", "p-123", partitions=1))
>>> run(write_memory(scope, "allergies", Fact(b'["penicillin"]')), engine)
>>> [fact.value for fact in run(list_memory(scope, 10), engine).items]
[['penicillin']]
>>> run(clear_memory(scope), engine), run(list_memory(scope, 10), engine).items
(1, [])
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from dcaf.core.arguments import require
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError
from dcaf.engines import (
    AllOf,
    AtMost,
    Delete,
    Exists,
    Not,
    Page,
    Plus,
    Put,
    Range,
    Record,
    Row,
    Transaction,
)
from dcaf.service.listing import MOST_LIMIT, WRONG_CURSOR, ListPage
from dcaf.service.places import require_there
from dcaf.service.plans import Plan
from dcaf.service.remembered import Fact, MemoryChange, MemoryScope, Remembered, describe, generation_of, join, lay_over
from dcaf.service.tables import MEMORY, MOST_NAME_BYTES, pack_name

PAGE: Final = 200
DROPPED_AT_ONCE: Final = 200
TAG_BYTES: Final = 8


class Recalled(NamedTuple):
    """A fact as it was read.

    Attributes:
        row: Its row; None where there is none.
        generation: Of its scope.
    """

    row: Row | None
    generation: int


def read_memory(scope: MemoryScope, name: str, generation: int = 0) -> Plan[Recalled]:
    """Read a fact.

    Args:
        scope: Whose memory.
        name: Its name.
        generation: The generation as far as known; where it is another one, this asks once more.
    """
    while True:
        outcome = yield Transaction([*scope.guards, scope.head, scope.row(name, generation)])
        head, row = outcome.rows[-2:]
        if (found := generation_of(head)) == generation:
            return Recalled(row if scope.has_session(outcome) else None, generation)
        generation = found


def list_memory(scope: MemoryScope, limit: int, cursor: str | None = None) -> Plan[ListPage[Remembered]]:
    """Read a page of facts.

    Args:
        scope: Whose memory.
        limit: How many at most, up to 1,000; 0 for none.
        cursor: Where the page before ended; None for the first.

    Raises:
        ConfigurationError: The limit is no such number, or the cursor is that of another list.
    """
    if not 0 <= require("limit=", limit, int, "a number of facts") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 0 to {MOST_LIMIT:,}.")
    last = _unpack_cursor(scope, cursor)
    if limit == 0:
        return ListPage([], cursor)
    page, *_ = yield from _read_page(scope, limit + 1, last)
    items = [describe(row) for _, row in page[:limit]]
    return ListPage(items, _pack_cursor(scope, items[-1].key) if len(page) > limit else None)


def read_all(scope: MemoryScope, generation: int = 0) -> Plan[tuple[dict[str, Remembered], int]]:
    """Read all facts; returns name -> fact, and the engine's clock.

    Args:
        scope: Whose memory.
        generation: The generation as far as known.
    """
    found: dict[str, Remembered] = {}
    last = b""
    while True:
        page, current, now_ms = yield from _read_page(scope, PAGE, last, generation)
        if current != generation and last:  # what was read of it is forgotten
            found, last = {}, b""
        else:
            found |= {fact.key: fact for fact in (describe(row) for _, row in page)}
            if len(page) < PAGE:
                return found, now_ms
            last = page[-1][0].removeprefix(scope.begin(current))
        generation = current


def write_memory(scope: MemoryScope, name: str, fact: Fact) -> Plan[None]:
    """Remember a fact. Raises as ``commit_changes``."""
    yield from commit_changes([MemoryChange(scope, {name: fact})])


def commit_changes(changes: Sequence[MemoryChange]) -> Plan[Sequence[MemoryChange]]:
    """Write changes that belong to no turn, all of them or none; returns them, laid over what was there.

    Args:
        changes: Of memories in one partition, of which one at most has a session.

    Raises:
        UnknownSessionError, SessionClosedError: It is the memory of a session that is not there, or was closed.
    """
    scope = next((change.scope for change in changes if change.scope.session), changes[0].scope)
    while True:
        conditions = [*scope.is_open(), *(one for change in changes for one in change.conditions())]
        reads = [*scope.guards, *(record for change in changes for record in change.reads())]
        outcome = yield Transaction(reads, when=join(conditions), writes=[one for change in changes for one in change.writes()])
        if outcome.applied:
            return changes
        if scope.session is not None:
            require_there(outcome, scope.birth)
        changes = lay_over(changes, outcome.rows[len(scope.guards) :])


def delete_memory(scope: MemoryScope, name: str) -> Plan[bool]:
    """Forget a fact; False where there is none.

    Raises:
        UnknownSessionError, SessionClosedError: It is the memory of a session that is not there, or was closed.
    """
    generation = 0
    while True:
        row = scope.row(name, generation)
        when = join([*scope.is_open(), scope.is_at(generation)])
        outcome = yield Transaction([*scope.guards, scope.head, row], when=when, writes=[Delete(row)])
        if outcome.applied:
            return outcome.rows[-1] is not None
        if scope.session is not None:
            require_there(outcome, scope.birth)
        generation = generation_of(outcome.rows[-2])


def clear_memory(scope: MemoryScope) -> Plan[int]:
    """Forget everything; returns how many facts that were.

    All are forgotten with the first step. Their rows follow, in steps.

    Raises:
        UnknownSessionError, SessionClosedError: It is the memory of a session that is not there, or was closed.
    """
    generation = 0
    while True:
        when = join([*scope.is_open(), scope.is_at(generation)])
        writes = [Put(scope.head, {"generation": Plus(1)})]
        outcome = yield Transaction([*scope.guards, scope.head], when=when, writes=writes)
        if outcome.applied:
            return (yield from _drop_older(scope, generation + 1, counted=generation))
        if scope.session is not None:
            require_there(outcome, scope.birth)
        generation = generation_of(outcome.rows[-1])


def drop_cleared(scope: MemoryScope) -> Plan[int]:
    """Drop the rows of facts that were forgotten by a clear, which nobody finds any more; returns how many."""
    outcome = yield Transaction([scope.head])
    return (yield from _drop_older(scope, generation_of(outcome.rows[0]), counted=0))


def drop_hidden(changes: Sequence[MemoryChange]) -> Plan[None]:
    """Drop the rows that the clears of committed changes have hidden. Where this fails, nothing is found that should not be."""
    for change in changes:
        if change.clears:
            yield from drop_cleared(change.scope)


def _drop_older(scope: MemoryScope, generation: int, counted: int) -> Plan[int]:
    """Drop the rows of older generations in steps; returns how many there were of those from ``counted`` on.

    A generation that is over never comes back, so nothing that is remembered meanwhile is touched.
    """
    dropped, head = 0, scope.head
    is_over = AllOf(Exists(head), Not(AtMost(head, "generation", generation - 1)))
    rows = Range(MEMORY, scope.begin(0), scope.begin(generation), DROPPED_AT_ONCE, partition=scope.partition)
    while generation:
        outcome = yield Transaction([head], ranges=[rows])
        keys = [key for key, _ in outcome.pages[0]]
        if not keys:
            break
        writes = [Delete(Record(MEMORY, key, scope.partition)) for key in keys]
        if not (yield Transaction([head], when=is_over, writes=writes)).applied:
            break
        dropped += sum(key >= scope.begin(counted) for key in keys)
    return dropped


def _read_page(scope: MemoryScope, limit: int, last: bytes, generation: int = 0) -> Plan[tuple[Page, int, int]]:
    """Read the rows after a packed name; returns them, the generation, and the engine's clock."""
    while True:
        whole = Range.of_prefix(MEMORY, scope.begin(generation), limit, partition=scope.partition)
        rows = replace(whole, start=whole.start + last + b"\0") if last else whole
        outcome = yield Transaction([*scope.guards, scope.head], ranges=[rows])
        if (found := generation_of(outcome.rows[-1])) == generation:
            return outcome.pages[0] if scope.has_session(outcome) else (), generation, outcome.now_ms
        generation = found


def _tag(scope: MemoryScope) -> bytes:
    return hashlib.sha256(b"memory" + scope.prefix).digest()[:TAG_BYTES]


def _pack_cursor(scope: MemoryScope, name: str) -> str:
    return encode(_tag(scope) + pack_name(name))


def _unpack_cursor(scope: MemoryScope, cursor: str | None) -> bytes:
    """The packed name at which a page ended; none for the first page."""
    if cursor is None:
        return b""
    try:
        found = decode(require("cursor=", cursor, str, "the cursor of a page, or None"))
    except ValueError:
        raise ConfigurationError(WRONG_CURSOR) from None
    if found[:TAG_BYTES] != _tag(scope) or not TAG_BYTES < len(found) <= TAG_BYTES + MOST_NAME_BYTES:
        raise ConfigurationError(WRONG_CURSOR)
    return found[TAG_BYTES:]
