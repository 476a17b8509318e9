"""When a turn is sent again by itself, how often, and after how long. No I/O.

>>> Retries().pauses
(datetime.timedelta(microseconds=200000), datetime.timedelta(microseconds=500000), datetime.timedelta(seconds=1))
>>> can_repeat({"step": 1, "dcaf": {"token": "t", "retry": True}}), can_repeat({"step": 1, "dcaf": {"token": "t"}})
(True, False)
>>> make_key(lambda size: bytes(size))
'"00000000000000000000000000000000"'

A service that knows which turns were done says so with the hint ``retry`` in its sessions. It answers a request that comes once
more with what became of the first one. Without the hint nobody can tell whether a turn whose answer was lost has run, so it is
never sent again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from dcaf.client.arguments import check, check_many
from dcaf.client.envelopes import find_session, is_dead, is_sealed, value_at
from dcaf.core.errors import ConfigurationError

HINT: Final = "retry"
CONFLICT: Final = "session-conflict"
UNAVAILABLE: Final = "session-unavailable"
GATEWAY: Final = (502, 504)
"""Statuses by which a proxy says that it got no answer, or none in time: the request may have arrived."""

KEY_BYTES: Final = 16
LONGEST: Final = timedelta(hours=1)
SHORTEST: Final = timedelta(seconds=0.1)
MOST_REFUSALS: Final = 2
UNSAID: Final = timedelta(seconds=1)
"""How long to wait where a refusal does not say it: an error event has no headers."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a client sends a turn again by itself, where the service can tell what became of the first one.

    Attributes:
        pauses: How long it waits before each further try after a lost answer; an empty one sends nothing again.
        patience: How long it waits in all while another turn of the session is in progress, which may be its own lost one.

    Raises:
        ConfigurationError: They are no timedeltas, negative, or longer than an hour.
    """

    pauses: tuple[timedelta, ...] = (timedelta(seconds=0.2), timedelta(seconds=0.5), timedelta(seconds=1))
    patience: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        pauses = tuple(check_many("pauses", self.pauses, "timedeltas, one for each further try"))
        for name, wait in (*(("pauses", pause) for pause in pauses), ("patience", self.patience)):
            if not timedelta(0) <= check(name, wait, timedelta, "a timedelta") <= LONGEST:
                raise ConfigurationError(f"{name}= takes waits from nothing to an hour, for instance timedelta(seconds=1).")
        object.__setattr__(self, "pauses", pauses)


class Attempts:
    """The sendings of one turn, and whether there is to be another one.

    Args:
        retries: How often it may be sent again.

    Attributes:
        count: How often the request was sent.
        wait: How long to wait before it is sent.
        key: The value of its Idempotency-Key; None where there is none.
        is_same: Whether the next request is the last one once more, byte for byte.
        is_lost: Whether an answer was lost: then a newer session may be that of this very turn.
    """

    def __init__(self, retries: Retries) -> None:
        self._pauses: list[timedelta] = list(retries.pauses)
        self._patience: timedelta = retries.patience
        self._refused: int = 0
        self.count: int = 0
        self.wait: timedelta = timedelta(0)
        self.key: str | None = None
        self.is_same: bool = False
        self.is_lost: bool = False

    def begin(self, envelope: Mapping[str, Any] | None) -> None:
        """Note that a request is sent which no request of this turn was before.

        Args:
            envelope: The session in it.
        """
        self.key = make_key() if can_repeat(envelope) else None

    def start_over(self) -> None:
        """Note that the next request begins a new session, at once."""
        self.is_same, self.wait = False, timedelta(0)

    def allow_after_loss(self) -> bool:
        """Whether to send the same once more, where no whole answer came."""
        self.is_same = self.key is not None and self._take_pause(None)
        self.is_lost |= self.is_same
        return self.is_same

    def allow_after_refusal(self, value: Any, *, status: int | None, wait: timedelta | None) -> bool:
        """Whether to send once more after a refusal, the same or the same words with another session.

        Args:
            value: The JSON value of the answer, or the error event.
            status: Of the answer; None for an event.
            wait: How long the service asks to wait; None where it does not say.
        """
        code = value_at(value, "code")
        if code == CONFLICT and has_current_session(value):
            self.is_same = False
            return has_done_nothing(value, is_frame=status is None) and not self.is_lost and self._take_pause(None)
        if code == CONFLICT and (status is None or wait is not None):
            self.is_same = self.key is not None and self._wait_for_other(wait)
            return self.is_same
        if code == UNAVAILABLE:
            self.is_same = self._is_harmless(value) and self._take_refusal(wait)
            return self.is_same
        return False

    def _is_harmless(self, value: Any) -> bool:
        """Whether sending once more does nothing twice, after a refusal of a service that cannot tell."""
        if value_at(value, "ran") is False:
            return True
        self.is_lost = True
        return self.key is not None

    def _take_refusal(self, wait: timedelta | None) -> bool:
        self._refused += 1
        return self._refused <= MOST_REFUSALS and self._take_pause(UNSAID if wait is None else wait)

    def _take_pause(self, wait: timedelta | None) -> bool:
        """Whether there is another try. Who is asked to wait for longer than the patience gives up."""
        if not self._pauses or (wait is not None and wait > self._patience):
            return False
        pause = self._pauses.pop(0)
        self.wait = pause if wait is None else wait
        return True

    def _wait_for_other(self, wait: timedelta | None) -> bool:
        """Whether to wait for another turn of the session to end."""
        self.wait = max(UNSAID if wait is None else wait, SHORTEST)
        self._patience -= self.wait
        return bool(self._pauses) and self._patience >= timedelta(0)


def can_repeat(envelope: Mapping[str, Any] | None) -> bool:
    """Whether a service that gave a session knows a turn with it again, so that sending it twice does it once."""
    return is_sealed(envelope) and value_at(value_at(envelope, "dcaf"), HINT) is True


def has_current_session(value: Any) -> bool:
    """Whether a refusal carries the session that is current."""
    found = find_session(value)
    return is_sealed(found) and not is_dead(found)


def has_done_nothing(value: Any, *, is_frame: bool) -> bool:
    """Whether a re-issue says that what was asked for was not done, and may be sent again with its session.

    Args:
        value: The JSON value of the answer, or the error event.
        is_frame: Whether a frame was asked. A service does not know frames again, so it may say nothing of one; the client knows
            whether it has sent it before.
    """
    applied = value_at(value, "applied")
    return (applied is False or (is_frame and applied is None)) and can_repeat(find_session(value))


def make_key(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A new value for the header ``Idempotency-Key``: 128 random bits, in quotes, since the header is a string of structured
    fields (draft-ietf-httpapi-idempotency-key-header, section 2.1; RFC 9651, section 3.3.3).

    Args:
        random: Makes so many random bytes.
    """
    return f'"{random(KEY_BYTES).hex()}"'
