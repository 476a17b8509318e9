"""Time that stands still until a test moves it.

>>> clock = FrozenClock()
>>> clock.now.isoformat(), clock()
('2026-01-01T00:00:00+00:00', 1767225600.0)
>>> clock.tick(timedelta(days=8))
>>> clock.now.isoformat()
'2026-01-09T00:00:00+00:00'

What a reader gets wrong: everything in one test needs the same clock: the middleware, ``sealed`` and ``expired``. A session that
was sealed by the real clock comes from the future, and is refused as ``session-invalid``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from dcaf.client.arguments import check
from dcaf.core.errors import ConfigurationError

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FrozenClock:
    """Seconds since the epoch, when it is called; ``SessionMiddleware(clock=)`` takes it.

    Args:
        now: Where it stands; with a time zone.

    Attributes:
        now: Where it stands, in UTC.

    Raises:
        ConfigurationError: It is no time, or one without a zone.
    """

    def __init__(self, now: datetime = BEGINNING) -> None:
        if check("now", now, datetime, "a datetime with a zone: datetime(2026, 1, 1, tzinfo=UTC)").tzinfo is None:
            raise ConfigurationError("a clock needs a time with a zone: datetime(2026, 1, 1, tzinfo=UTC)")
        try:
            self.now: datetime = now.astimezone(UTC)
        except OverflowError:
            raise ConfigurationError("now= is out of the calendar: a clock stands between the years 1 and 9999, in UTC.") from None

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now.timestamp()

    def tick(self, by: timedelta = timedelta(seconds=1)) -> None:
        """Let time pass; a negative one steps back, as clocks of servers do.

        Raises:
            ConfigurationError: It is no timedelta, or leads out of the calendar.
        """
        check("by", by, timedelta, "a timedelta, for instance timedelta(days=8)")
        try:
            self.now += by
        except OverflowError:
            raise ConfigurationError("by= leads out of the calendar: a clock stands between the years 1 and 9999.") from None

    def __repr__(self) -> str:
        return f"FrozenClock({self.now.isoformat()})"
