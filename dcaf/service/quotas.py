"""How much one session, and one user, may have: ``SessionService(..., quotas=Quotas(sessions=100, messages=10_000))``.

>>> from dcaf.service import SessionService
>>> sessions = SessionService("memory://", app="clinic", quotas=Quotas(messages=2))
>>> session = sessions.sync.create(user="p-123", id="visit-1")
>>> sessions.sync.append(user="p-123", id="visit-1", messages=[("user", "Hello!"), ("assistant", "Hi!")])
2
>>> sessions.sync.append(user="p-123", id="visit-1", messages=[("user", "Bye!")])
Traceback (most recent call last):
    ...
dcaf.core.errors.QuotaExceededError: The session would have 3 messages, and may have 2. ...

What a reader gets wrong: the number of messages is exact, whoever else writes, because it stands in the row that each commit
compares. The number of sessions is read before one is made: of some that are made in the same moment, more than one may pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError, QuotaExceededError
from dcaf.engines import Page, Range
from dcaf.engines.transactions import LARGEST
from dcaf.service.tables import LISTS, Owner

MOST_SESSIONS: Final = 10_000
"""The largest quota of sessions: each new session of a user reads so many rows of lists."""

MESSAGES_REMEDY: Final = "Go on in another session, or take this one back."
SESSIONS_REMEDY: Final = "Delete one. Archived ones count, and those that have ended, until a purge."


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much there may be. What there is already when a quota comes stays; only more of it is refused.

    Args:
        sessions, messages: As the attributes.

    Attributes:
        sessions: How many sessions a user may have, 1 to 10,000: archived ones count, and those that have ended, until a purge.
            None for no limit. An anonymous session has no user, and is not counted.
        messages: How many messages a session may have; None for no limit.

    Raises:
        ConfigurationError: One of them is no such number.
    """

    sessions: int | None = None
    messages: int | None = None

    def __post_init__(self) -> None:
        _require("sessions=", self.sessions, MOST_SESSIONS)
        _require("messages=", self.messages, LARGEST)


def check_messages(quotas: Quotas, total: int, before: str = "") -> None:
    """Refuse a session of so many messages.

    Args:
        quotas: The limits.
        total: How many it would have.
        before: What the error's text begins with.

    Raises:
        QuotaExceededError: It may not have so many.
    """
    limit = quotas.messages
    if limit is not None and total > limit:
        text = f"{before}The session would have {total:,} messages, and may have {limit:,}. {MESSAGES_REMEDY}"
        raise QuotaExceededError(text, quota="messages", limit=limit, size=total)


def find_lists(quotas: Quotas, owner: Owner) -> list[Range]:
    """What is read before a session of a user is made: the lists, as far as they matter; nothing where nothing limits it."""
    if quotas.sessions is None or owner.user is None:
        return []
    keys = [owner.list_key(archived=archived) for archived in (False, True)]
    return [Range.of_prefix(LISTS, key, quotas.sessions, partition=owner.partition) for key in keys]


def check_sessions(quotas: Quotas, count: int, before: str = "") -> None:
    """Refuse one more session of a user who has so many, or more.

    Args:
        quotas: The limits.
        count: How many rows ``find_lists`` has found.
        before: What the error's text begins with.

    Raises:
        QuotaExceededError: The user may not have more.
    """
    limit = quotas.sessions
    if limit is not None and count >= limit:
        text = f"{before}The user has at least {count:,} sessions, and may have {limit:,}. {SESSIONS_REMEDY}"
        raise QuotaExceededError(text, quota="sessions", limit=limit, size=count)


def count_rows(pages: Sequence[Page]) -> int:
    """How many rows there are on pages."""
    return sum(map(len, pages))


def _require(argument: str, value: object, most: int) -> None:
    if value is not None and not 1 <= require(argument, value, int, "a number from 1 up, or None for no limit") <= most:
        raise ConfigurationError(f"{argument} is 1 to {most:,}; None for no limit.")


UNLIMITED: Final = Quotas()
