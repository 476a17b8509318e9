"""What a ledger tells its operator: an event in the log and for a function of the application, without a subject or a token."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from dcaf.core.base64url import encode

LedgerEventName: TypeAlias = Literal[
    "adopted",
    "busy",
    "ended",
    "logged-out",
    "marked-restored",
    "purged",
    "reissued",
    "restored",
    "revoked",
    "rotated",
    "superseded",
    "taken",
    "unlocked",
]
"""What happens in a ledger; see ``LedgerEvent``."""

logger: Final[logging.Logger] = logging.getLogger("dcaf")

LEVELS: Final[dict[str, int]] = {
    "restored": logging.ERROR,
    "taken": logging.WARNING,
    "superseded": logging.INFO,
    "busy": logging.INFO,
}
"""Of events that are not INFO."""

MEANINGS: Final[dict[LedgerEventName, str]] = {
    "adopted": "a session of before the ledger was adopted",
    "busy": "another turn of the session is in progress",
    "ended": "the application ended the session",
    "logged-out": "every session of a subject was ended",
    "marked-restored": "every token that was sealed so far was ended",
    "purged": "what has expired was removed",
    "reissued": "a client whose answer was lost gets the newest session once more",
    "restored": "the store is older than what it handed out, so log-outs and uses are lost: run `dcaf ledger restored`",
    "revoked": "a session was revoked",
    "rotated": "a session goes on under another id",
    "superseded": "a token that is not the newest was refused",
    "taken": "another turn took the session over, so what this one did was refused",
    "unlocked": "a session was taken from the turn that held it",
}


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """Something that happened in a ledger.

    Attributes:
        name: ``adopted``: a session of before the ledger was taken in. ``busy``: another turn of the session is in progress.
            ``ended``: the application ended it. ``logged-out``: every session of a subject was ended. ``marked-restored``: every
            token that was sealed so far was ended. ``purged``: what has expired
            was removed. ``reissued``: a client whose answer was lost got the newest session once more. ``restored``: the store is
            older than what it handed out. ``revoked``: a session was revoked. ``rotated``: one goes on under another id.
            ``superseded``: a token that is not the newest was refused. ``taken``: another turn took a session over. ``unlocked``: a
            session was taken from the turn that held it.
        session: Digest of the session id; None where the event is about none, or about several.
    """

    name: LedgerEventName
    session: str | None = None


class LedgerEvents:
    """Reports events; what the application's function raises is logged, and changes nothing.

    Args:
        on_event: The application's function; None for none.
    """

    def __init__(self, on_event: Callable[[LedgerEvent], None] | None) -> None:
        self._on_event = on_event

    def report(self, name: LedgerEventName, session_id: str | None = None) -> None:
        """Report an event."""
        digest = None if session_id is None else digest_session(session_id)
        logger.log(LEVELS.get(name, logging.INFO), "dcaf: ledger %s (session %s): %s", name, digest or "-", MEANINGS[name])
        if self._on_event is None:
            return
        try:
            self._on_event(LedgerEvent(name, digest))
        except Exception as error:  # noqa: BLE001 - an operator's counter must not end a turn
            logger.error("dcaf: on_event raised %s", type(error).__name__)  # noqa: TRY400


def digest_session(session_id: str) -> str:
    """What the log has in place of a session id, which has 128 random bits: the beginning of its SHA-256."""
    return encode(hashlib.sha256(session_id.encode()).digest()[:9])
