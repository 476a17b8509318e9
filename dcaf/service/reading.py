"""Read a session: its row, its whole state and its newest messages, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dcaf.core.base64url import Payload
from dcaf.core.payload import members_of
from dcaf.engines import Outcome, Page, Range, Row, Transaction
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


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of a session.

    Attributes:
        row: Its row; None where there is none.
        now_ms: The engine's clock.
        own: Its own keys.
        shared: Those that it shares, of its user and of the application.
        messages: Number and row of its newest messages, oldest first.
    """

    row: Row | None
    now_ms: int
    own: Page = field(repr=False)
    shared: Sequence[Page] = field(repr=False)
    messages: Page = field(repr=False)

    @property
    def is_kept(self) -> bool:
        """Whether there is such a session."""
        return is_there(self.row, self.now_ms)


def read_session(place: Place, *, last: int = 0) -> Plan[Read | None]:
    """Read a session; None where there is none.

    Args:
        place: Where it lies.
        last: How many of its newest messages are read, too.
    """
    outcome = yield Transaction([place.row], ranges=list_ranges(place, last))
    if not is_there(outcome.rows[0], outcome.now_ms):
        return None
    found = yield from gather(place, last, outcome)
    if found.row is None or not found.is_kept:
        return None
    return Read(Kept.of(found.row), join_state(found.own, *found.shared), found.messages, found.now_ms)


def list_ranges(place: Place, last: int, most: int = MOST_KEYS) -> list[Range]:
    """What is read of a session beside its row.

    Args:
        place: Where it lies.
        last: How many of its newest messages.
        most: How many keys at most, of each kind.
    """
    ranges = [place.owner.rows_of(STATE, place.id, most), place.owner.shared_rows(most)]
    ranges += [app_rows(place.app, most, partitions=place.partitions)] if place.is_with_app else []
    return ranges + ([place.owner.rows_of(MESSAGES, place.id, last, backwards=True)] if last else [])


def gather(place: Place, last: int, outcome: Outcome) -> Plan[Found]:
    """All of a session, after a transaction has read its row and ``list_ranges``: with more keys, and with what lies elsewhere.

    Args:
        place, last: As of ``list_ranges``.
        outcome: What the transaction came to; the row of the session is the first.
    """
    pages = outcome.pages[:-1] if last else outcome.pages
    if any(len(page) >= MOST_KEYS for page in pages):
        outcome = yield Transaction([place.row], ranges=list_ranges(place, last, ALL_KEYS))
        pages = outcome.pages[:-1] if last else outcome.pages
    own, *shared = pages
    shared += [] if place.is_with_app else (yield from _read_app(place))
    return Found(outcome.rows[0], outcome.now_ms, own, shared, outcome.pages[-1][::-1] if last else ())


def values_in(payload: Payload) -> dict[str, bytes]:
    """Key -> value as JSON, of a whole state."""
    members = members_of(payload)
    return {key: members.written(key) for key in members}


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
