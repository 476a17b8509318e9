"""Time that stands still until a test moves it.

>>> clock = FrozenClock()
>>> clock.now.isoformat(), clock()
('2026-01-01T00:00:00+00:00', 1767225600.0)
>>> clock.tick(timedelta(days=8))
>>> clock.now.isoformat()
'2026-01-09T00:00:00+00:00'

What a reader gets wrong: everything in one test needs the same clock: the middleware, ``sealed`` and ``expired``. A session that
was sealed by the real one comes from the future, and is refused as ``session-invalid``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FrozenClock:
    """Seconds since the epoch, when it is called; ``SessionMiddleware(clock=)`` takes it.

    Args:
        now: Where it stands; with a time zone.

    Attributes:
        now: Where it stands, in UTC.

    Raises:
        ValueError: The time has no zone.
    """

    def __init__(self, now: datetime = BEGINNING) -> None:
        if now.tzinfo is None:
            raise ValueError("a clock needs a time with a zone: datetime(2026, 1, 1, tzinfo=UTC)")
        self.now: datetime = now.astimezone(UTC)

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now.timestamp()

    def tick(self, by: timedelta = timedelta(seconds=1)) -> None:
        """Let time pass; a negative one steps back, as clocks of servers do."""
        self.now += by

    def __repr__(self) -> str:
        return f"FrozenClock({self.now.isoformat()})"
