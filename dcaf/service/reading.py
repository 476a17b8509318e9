"""Read a session: its row, its whole state and its newest messages, in one trip to the engine.

What all sessions of the application share may lie in another partition, and is then read at the same time, in a transaction of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dcaf.core.base64url import Payload
from dcaf.core.payload import members_of
from dcaf.engines import Outcome, Page, Range, Row, Transaction
from dcaf.service.kept import Kept, is_there, join_state
from dcaf.service.places import Place
from dcaf.service.plans import Asked, Plan
from dcaf.service.quotas import count_rows, find_lists
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
        owned: Of a new one with a user for whom there is a quota: how many sessions that user has, as far as the quota matters.
    """

    kept: Kept | None
    payload: Payload = field(repr=False)
    messages: Page = field(repr=False)
    now_ms: int
    owned: int = 0


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
    outcome = yield _ask_for_all(place, last)
    if not is_there(outcome.rows[0], outcome.now_ms):
        return None
    found = yield from gather(place, last, outcome)
    if found.row is None or not found.is_kept:
        return None
    return Read(Kept.of(found.row), join_state(found.own, *found.shared), found.messages, found.now_ms)


def list_ranges(place: Place, last: int, most: int = MOST_KEYS) -> list[Range]:
    """What is read of a session beside its row, in its own partition: messages, keys, keys of the user, keys of the application.

    Args:
        place: Where it lies.
        last: How many of its newest messages; 0 for no range of them.
        most: How many keys at most, of each kind.
    """
    messages = [place.owner.rows_of(MESSAGES, place.id, last, backwards=True)] if last else []
    keys = [place.owner.rows_of(STATE, place.id, most), place.owner.shared_rows(most)]
    return [*messages, *keys, *([_app_rows(place, most)] if place.is_with_app else [])]


def list_ranges_elsewhere(place: Place, most: int = MOST_KEYS) -> list[Range]:
    """What is read besides in another partition: the keys of the application, unless ``list_ranges`` has them."""
    return [] if place.is_with_app else [_app_rows(place, most)]


def gather(place: Place, last: int, outcome: Outcome) -> Plan[Found]:
    """All of a session, after its row, ``list_ranges`` and ``list_ranges_elsewhere`` were read: once more where it has more keys.

    Args:
        place, last: As of ``list_ranges``.
        outcome: What was read; the row of the session is the first.
    """
    first = 1 if last else 0
    if any(len(page) >= MOST_KEYS for page in outcome.pages[first:]):
        outcome = yield _ask_for_all(place, last, ALL_KEYS)
    messages = outcome.pages[0][::-1] if last else ()
    own, *shared = outcome.pages[first:]
    return Found(outcome.rows[0], outcome.now_ms, own, shared, messages)


def values_in(payload: Payload) -> dict[str, bytes]:
    """Key -> value as JSON, of a whole state."""
    members = members_of(payload)
    return {key: members.written(key) for key in members}


def read_shared(place: Place) -> Plan[Read]:
    """What a new session shares with others, and nothing else of it."""
    # What is left of an older anonymous session of this id is none of the new one's.
    lists = find_lists(place.quotas, place.owner)
    ranges = lists + ([] if place.owner.user is None else [place.owner.shared_rows(ALL_KEYS)])
    ranges += [_app_rows(place, ALL_KEYS)] if place.is_with_app else []
    outcome = yield _beside(Transaction([], ranges=ranges), list_ranges_elsewhere(place, ALL_KEYS))
    listed, shared = outcome.pages[: len(lists)], outcome.pages[len(lists) :]
    return Read(None, join_state(*shared), (), outcome.now_ms, count_rows(listed))


def _ask_for_all(place: Place, last: int, most: int = MOST_KEYS) -> Asked:
    return _beside(Transaction([place.row], ranges=list_ranges(place, last, most)), list_ranges_elsewhere(place, most))


def _beside(own: Transaction, elsewhere: list[Range]) -> Asked:
    return (own, Transaction([], ranges=elsewhere)) if elsewhere else own


def _app_rows(place: Place, most: int) -> Range:
    return app_rows(place.app, most, partitions=place.partitions)
