"""Read the messages of a session, page by page.

What a reader gets wrong: a page without ``before`` and ``after`` has the newest messages, and its own order is oldest first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, cast

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError, UnknownSessionError
from dcaf.engines import Page, Range, Transaction
from dcaf.service.kept import Kept, is_there
from dcaf.service.messages import Message, unpack
from dcaf.service.places import UNKNOWN, Place
from dcaf.service.plans import Plan
from dcaf.service.tables import MESSAGES, unpack_number

MOST_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of a history.

    Attributes:
        items: Its messages, oldest first.
        total: How many messages the session has.
    """

    items: list[Message] = field(repr=False)
    total: int


def read_history(place: Place, *, limit: int, before: int | None, after: int | None) -> Plan[HistoryPage]:
    """Read a page.

    Args:
        place: Where the session lies.
        limit: How many messages at most.
        before: Only those before this number, the newest of them; None for any.
        after: Only those after this number, the oldest of them; None for any.

    Raises:
        ConfigurationError: The limit is not 1 to 1,000, a number is none, or both are given.
        UnknownSessionError: There is no such session.
    """
    wanted = _find_range(place, limit, before, after)
    return _read(place, wanted)


def _read(place: Place, wanted: Range) -> Plan[HistoryPage]:
    outcome = yield Transaction([place.row], ranges=[wanted])
    row = outcome.rows[0]
    if row is None or not is_there(row, outcome.now_ms):
        raise UnknownSessionError(UNKNOWN)
    page = list(outcome.pages[0])
    return HistoryPage(unpack_page(page[::-1] if wanted.backwards else page), Kept.of(row).messages)


def _find_range(place: Place, limit: int, before: int | None, after: int | None) -> Range:
    if not 1 <= require("limit=", limit, int, "a number of messages, 1 or more") <= MOST_LIMIT:
        raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT} messages.")
    if before is not None and after is not None:
        raise ConfigurationError("A page takes before= or after=, not both.")
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
