"""How many bytes of bodies are being read at once: bounded for the whole process, however many clients send slowly.

>>> flights = Flights(10)
>>> with flights.begin() as one:
...     one.take(8)
...     flights.taken_bytes
8
>>> flights.taken_bytes
0

What a reader gets wrong: it is not the size of one body, which has a limit of its own. Many that are each allowed can be more
than the process has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dcaf.core.errors import SessionUnavailable

IN_FLIGHT: Final = "bytes-in-flight"
"""The reason, for the log."""


class Flights:
    """The bodies that one middleware is reading.

    Args:
        limit_bytes: Of all of them together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.taken_bytes: int = 0

    @contextmanager
    def begin(self) -> Iterator[Flight]:
        """Begin to read one; at the end, what it took is given back."""
        flight = Flight(self)
        try:
            yield flight
        finally:
            self.taken_bytes -= flight.taken_bytes

    def take(self, size: int) -> None:
        """Count some bytes.

        Raises:
            SessionUnavailable: There are too many.
        """
        self.taken_bytes += size
        if self.taken_bytes > self._limit_bytes:
            raise SessionUnavailable(reason=IN_FLIGHT)


class Flight:
    """One body."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self.taken_bytes: int = 0

    def take(self, size: int) -> None:
        """Count some bytes of it. Raises as ``Flights.take``."""
        self.taken_bytes += size
        self._flights.take(size)
