"""Read a session: its row, its whole state and its newest messages, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dcaf.core.base64url import Payload
from dcaf.engines import Page, Transaction
from dcaf.service.kept import Kept, is_there, join_state
from dcaf.service.places import Place
from dcaf.service.plans import Plan
from dcaf.service.tables import MESSAGES, STATE, app_rows

MOST_KEYS: Final = 1_000
"""How many keys of a state are read at first. A state of more is read once more, with room for all of them."""

ALL_KEYS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Read:
    """A session as it was read.

    Attributes:
        kept: What is known of it; None for a new one.
        payload: Its state.
        messages: Number and row of its newest messages, oldest first.
        now_ms: The engine's clock.
    """

    kept: Kept | None
    payload: Payload = field(repr=False)
    messages: Page = field(repr=False)
    now_ms: int


def read_session(place: Place, *, last: int = 0) -> Plan[Read | None]:
    """Read a session; None where there is none.

    Args:
        place: Where it lies.
        last: How many of its newest messages are read, too.
    """
    most = MOST_KEYS
    while True:
        ranges = [place.owner.rows_of(STATE, place.id, most), place.owner.shared_rows(most)]
        ranges += [app_rows(place.app, most, partitions=place.partitions)] if place.is_with_app else []
        ranges += [place.owner.rows_of(MESSAGES, place.id, last, backwards=True)] if last else []
        outcome = yield Transaction([place.row], ranges=ranges)
        row, pages = outcome.rows[0], list(outcome.pages)
        if row is None or not is_there(row, outcome.now_ms):
            return None
        messages = pages.pop()[::-1] if last else []
        if all(len(page) < most for page in pages):
            break
        most = ALL_KEYS
    pages += [] if place.is_with_app else (yield from _read_app(place))
    return Read(Kept.of(row), join_state(*pages), messages, outcome.now_ms)


def read_shared(place: Place) -> Plan[Read]:
    """What a new session shares with others, and nothing else of it."""
    # What is left of an older anonymous session of this id is none of the new one's.
    ranges = [] if place.owner.user is None else [place.owner.shared_rows(ALL_KEYS)]
    ranges += [app_rows(place.app, ALL_KEYS, partitions=place.partitions)] if place.is_with_app else []
    outcome = yield Transaction([], ranges=ranges)
    pages = [*outcome.pages, *((yield from _read_app(place)) if not place.is_with_app else [])]
    return Read(None, join_state(*pages), (), outcome.now_ms)


def _read_app(place: Place) -> Plan[Sequence[Page]]:
    outcome = yield Transaction([], ranges=[app_rows(place.app, ALL_KEYS, partitions=place.partitions)])
    return outcome.pages
