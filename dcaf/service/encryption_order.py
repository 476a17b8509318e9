"""Read documents in the order of their names, which the database does not have: it reads all names, sorts them, and then the rows.

    names         of the session, or of the space: encrypted, without the documents, some thousand at once
    rows          those that the range would have, by their keys; with what else the transaction reads, of one moment

What a reader gets wrong: a document that another one deletes between the two is not a hole. The next one takes its place, so that a
page is short only where there is no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.engines import Outcome, Page, Range, Record, Row, Transaction
from dcaf.service.encryption_layout import is_by_name
from dcaf.service.encryption_rows import Rows
from dcaf.service.plans import Plan

AT_ONCE: Final = 1_000
"""How many names are read in one transaction."""

MOST_NAMES: Final = 10_000
"""How many a session or a space may have to be read in their order: each page reads all of them."""

TOO_MANY: Final = (
    "A session or a space has more than {:,} documents, which are not read in the order of their keys where they are encrypted: "
    "each page would read all keys. Put them into several spaces. get() finds each, and clear() without a prefix deletes them all."
)
WITH_WRITES: Final = "What is encrypted is read in the order of its names by a transaction that writes nothing."


def read_by_name(rows: Rows, transaction: Transaction) -> Plan[Outcome]:
    """Do a transaction that has ranges in the order of names; for the engine below.

    Args:
        rows: What hides and opens.
        transaction: It writes nothing.

    Raises:
        ConfigurationError: It writes, or there are too many names.
        SealedRowError: A row cannot be opened.
    """
    if transaction.writes:
        raise ConfigurationError(WITH_WRITES)
    named = [wanted for wanted in transaction.ranges if is_by_name(wanted)]
    others = [wanted for wanted in transaction.ranges if not is_by_name(wanted)]
    found: list[list[bytes]] = []
    for wanted in named:
        keys = yield from _find_keys(rows, wanted)
        found.append(keys)
    while True:
        picked = [keys[: wanted.limit] for wanted, keys in zip(named, found, strict=True)]
        records = [Record(wanted.table, key, wanted.partition) for wanted, keys in zip(named, picked, strict=True) for key in keys]
        asked = Transaction([*transaction.reads, *records], when=transaction.when, ranges=others)
        outcome = rows.open(asked, (yield rows.seal(asked)))
        there = {record.key: row for record, row in zip(records, outcome.rows[len(transaction.reads) :], strict=True)}
        if None not in there.values():
            return _answer(transaction, outcome, [_page_of(keys, there) for keys in picked])
        found = [[key for key in keys if there.get(key, key) is not None] for keys in found]


def _find_keys(rows: Rows, wanted: Range) -> Plan[list[bytes]]:
    """The keys that a range would have, in its order, without its limit."""
    names, keys = rows.hide_names(wanted, AT_ONCE), list[bytes]()
    while True:
        (page,) = (yield Transaction([], ranges=[names])).pages
        keys += rows.open_names(wanted, page)
        if len(keys) > MOST_NAMES:
            raise ConfigurationError(TOO_MANY.format(MOST_NAMES))
        if len(page) < AT_ONCE:
            break
        names = Range(names.table, page[-1][0] + b"\0", names.end, AT_ONCE, partition=names.partition)
    end = wanted.end or b""
    return sorted((key for key in keys if wanted.start <= key < end), reverse=wanted.backwards)


def _answer(transaction: Transaction, outcome: Outcome, named: Sequence[Page]) -> Outcome:
    """What the transaction itself came to, with its pages in its order."""
    by_name, others = iter(named), iter(outcome.pages)
    pages = tuple([next(by_name if is_by_name(wanted) else others) for wanted in transaction.ranges])
    return Outcome(outcome.applied, outcome.rows[: len(transaction.reads)], outcome.now_ms, pages)


def _page_of(keys: Sequence[bytes], there: dict[bytes, Row | None]) -> Page:
    return [(key, row) for key in keys if (row := there[key]) is not None]
