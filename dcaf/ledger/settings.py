"""The settings of a ledger, checked: a wrong one is an error at construction that says what to write."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module

from dcaf.core.arguments import kind_of, require, require_text
from dcaf.core.claims import CHARACTERS_22, SKEW_S
from dcaf.core.errors import ConfigurationError
from dcaf.engines import Now


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that the turns of a ledger need.

    Attributes:
        freshness: Whether each session has a row: level L2.
        branches: Whether several states of a session may go on side by side.
        lease_ms: How long a claim lasts without being renewed.
        reissue_ms: For how long an answer is kept.
        max_answer_bytes: The longest answer that is kept.
        lifetime_s: After so many seconds since its birth no token of a session is valid.
        waits_s: How long a turn waits whose session another one holds; 0 where it is refused at once.
        adopt_until_ms: Until when sessions of before the ledger are taken in; None where none are.
    """

    freshness: bool
    branches: bool
    lease_ms: int
    reissue_ms: int
    max_answer_bytes: int
    lifetime_s: int
    waits_s: float
    adopt_until_ms: int | None

    def expires(self, born: int | None) -> int | Now:
        """When no token of a session can be valid any more; ``born`` is None for one that begins now."""
        rest_ms = (self.lifetime_s + SKEW_S) * 1000
        return Now(rest_ms) if born is None else born * 1000 + rest_ms


def require_audience(audience: str) -> str:
    """The audience of the middleware."""
    if not require_text("audience=", audience, "the audience of the middleware"):
        raise ConfigurationError("audience= of a Ledger is that of the middleware, for instance audience='deploy-agent'.")
    return audience


def require_subject(subject: str) -> str:
    """Whom ``subject=`` of the middleware names."""
    if not require_text("subject", subject, "as subject= of the middleware names a caller"):
        raise ConfigurationError("The subject is a text that is not empty, as subject= of the middleware names a caller.")
    return subject


def require_session_id(session_id: str) -> str:
    """The id of a session."""
    text = require_text("session_id", session_id, "as session.id gives it")
    if not CHARACTERS_22.fullmatch(text):
        raise ConfigurationError("A session id is the text of 22 characters that session.id gives.")
    return text


def require_span(name: str, span: timedelta) -> timedelta:
    """A time span of a millisecond or more."""
    if require(name, span, timedelta, "a timedelta") < timedelta(milliseconds=1):
        raise ConfigurationError(f"{name} takes a timedelta of a millisecond or more.")
    return span


def require_bytes(name: str, number: int) -> int:
    """A number of bytes; 0 for none."""
    if type(number) is not int or number < 0:
        raise ConfigurationError(f"{name} takes a number of bytes, 0 or more, not {kind_of(number)}.")
    return number


def require_moment(moment: datetime | None) -> int | None:
    """A moment in milliseconds since the epoch; None for none."""
    if moment is None:
        return None
    if require("adopt_until=", moment, datetime, "a datetime with a time zone, or None").tzinfo is None:
        raise ConfigurationError("adopt_until= takes a datetime with a time zone: datetime(2026, 12, 1, tzinfo=UTC).")
    return int(moment.timestamp() * 1000)


def require_encryption(
    whose: str = "A Ledger", else_write: str = ", or write freshness=False for level L1, which keeps none"
) -> None:
    """Require what encrypts the answers that are kept.

    Args:
        whose: Who keeps them.
        else_write: What can be done without.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import_module("dcaf.core.kept")
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"{whose} keeps answers for clients that never got them, encrypted: pip install 'dcaf[crypto]'{else_write}."
        ) from None


def milliseconds(span: timedelta) -> int:
    """A time span in whole milliseconds."""
    return span // timedelta(milliseconds=1)
