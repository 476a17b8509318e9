"""Read the messages of a session, page by page, from a number or from a moment on.

What a reader gets wrong: a page without ``before``, ``after`` and ``since`` has the newest messages. Its own order is oldest first.

A moment is a place in the log, and is found by halving. The order of the log is the truth: messages may have equal times, or times
that go backward, where an application gave them or a clock was set. The page begins with a message of the moment or later before
which 8 messages stand that are all older. So where no message is older than one that stands 8 places or more before it, the page
begins with the first of all that are of the moment or later. What stands behind comes along, whatever its own time is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Final, cast

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.engines import Outcome, Page, Range, Transaction
from dcaf.service.kept import Kept, is_there
from dcaf.service.messages import Message, unpack
from dcaf.service.places import UNKNOWN, Place
from dcaf.service.plans import Plan
from dcaf.service.tables import MESSAGES, unpack_number

MOST_LIMIT: Final = 1_000

NEAR: Final = 8
"""How many messages stand for a place of the log, where a moment is looked for: one with a wrong time leads nobody astray."""

PLACES_AT_ONCE: Final = 7
"""At how many places of the log is looked in one transaction."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of a history.

    Attributes:
        items: Its messages, oldest first.
        total: How many messages the session has.
    """

    items: list[Message] = field(repr=False)
    total: int


def read_history(
    place: Place, *, limit: int, before: int | None = None, after: int | None = None, since_ms: int | None = None
) -> Plan[HistoryPage]:
    """Read a page.

    Args:
        place: Where the session lies.
        limit: How many messages at most.
        before: Only those before this number, the newest of them; None for any.
        after: Only those after this number, the oldest of them; None for any.
        since_ms: Only those from this moment on, in milliseconds since the epoch, the oldest of them; None for any.

    Raises:
        ConfigurationError: The limit is not 1 to 1,000, a number is none, or several are given.
        UnknownSessionError: There is no such session.
    """
    if not 1 <= require("limit=", limit, int, "a number of messages, 1 or more") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT} messages.")
    if sum(given is not None for given in (before, after, since_ms)) > 1:
        raise ConfigurationError(
            "A page takes one of before=, after= and since=: go on with after= from the last message of a page."
        )
    if since_ms is not None:
        return _read_since(place, limit, since_ms)
    return _read(place, _find_range(place, limit, before, after))


def _read(place: Place, wanted: Range) -> Plan[HistoryPage]:
    outcome = yield Transaction([place.row], ranges=[wanted])
    total, page = _require_total(outcome), outcome.pages[0]
    return HistoryPage(unpack_page(page[::-1] if wanted.backwards else page), total)


def _read_since(place: Place, limit: int, since_ms: int) -> Plan[HistoryPage]:
    """The page that begins at a moment."""
    while True:
        first = yield from _find_since(place, since_ms)
        rows = _find_range(place, limit + NEAR + 1, None, max(0, first - 2))
        outcome = yield Transaction([place.row], ranges=[rows])
        total, page = _require_total(outcome), outcome.pages[0]
        found = list(dropwhile(lambda one: not _is_since([one], since_ms), page))
        is_place = len(found) < len(page) or first == 1  # an older one stands before it
        if is_place and (found or len(page) < rows.limit):
            return HistoryPage(unpack_page(found[:limit]), total)
        # The session was taken back meanwhile, and has gone on.


def _find_since(place: Place, since_ms: int) -> Plan[int]:
    """The number of a message: of 8 from there on one is of a moment or later, and the one before is older, if there is one.

    It is the number behind the last message where the newest are all older.
    """
    outcome = yield Transaction([place.row], ranges=[_find_range(place, NEAR, None, None)])
    total = _require_total(outcome)
    if not _is_since(outcome.pages[0], since_ms):
        return total + 1
    older, newer = 0, max(1, total - NEAR + 1)
    while newer - older > 1:
        step = -(-(newer - older) // (PLACES_AT_ONCE + 1))
        looked = range(older + step, newer, step)
        outcome = yield Transaction([place.row], ranges=[_find_range(place, NEAR, None, number - 1) for number in looked])
        _require_total(outcome)
        at = next((at for at, page in enumerate(outcome.pages) if _is_since(page, since_ms)), len(looked))
        older, newer = (older, *looked)[at], (*looked, newer)[at]
    return newer


def _is_since(page: Page, since_ms: int) -> bool:
    """Whether one of some messages is of a moment or later."""
    return any(cast("int", row["at"]) >= since_ms for _, row in page)


def _require_total(outcome: Outcome) -> int:
    """How many messages the session has whose row is the first of an outcome.

    Raises:
        UnknownSessionError: There is no such session.
    """
    row = outcome.rows[0]
    if row is None or not is_there(row, outcome.now_ms):
        raise UnknownSessionError(UNKNOWN)
    return Kept.of(row).messages


def _find_range(place: Place, limit: int, before: int | None, after: int | None) -> Range:
    """The newest messages before a number, or the oldest after one, or the newest of all."""
    whole = place.owner.rows_of(MESSAGES, place.id, limit, backwards=after is None)
    start, end = whole.start, whole.end
    if after is not None:
        start = place.owner.numbered_row(MESSAGES, place.id, _require_number("after=", after) + 1).key
    if before is not None:
        end = place.owner.numbered_row(MESSAGES, place.id, _require_number("before=", before)).key
    return Range(MESSAGES, start, end, limit, whole.backwards, whole.partition)


def _require_number(argument: str, number: int) -> int:
    if not 0 <= require(argument, number, int, "the number of a message") < 2**53:
        raise ConfigurationError(f"{argument} takes the number of a message, which is 0 or more.")
    return number


def unpack_page(page: Page) -> list[Message]:
    """The messages of rows, in their order."""
    return [unpack(cast("bytes", row["data"]), number=unpack_number(key), at_ms=cast("int", row["at"])) for key, row in page]
