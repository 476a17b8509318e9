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

from typing import Final, Self

from dcaf.core.errors import SessionUnavailable

IN_FLIGHT: Final = "bytes-in-flight"
"""The reason, for the log."""


class Flights:
    """The bodies that one middleware is reading.

    Args:
        limit_bytes: Of all of them together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes: int = limit_bytes
        self.taken_bytes: int = 0

    def begin(self) -> Flight:
        """Begin to read one; at the end of a ``with`` block, what it took is given back."""
        return Flight(self)


class Flight:
    """One body."""

    __slots__ = ("_flights", "taken_bytes")

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self.taken_bytes: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._flights.taken_bytes -= self.taken_bytes

    def take(self, size: int) -> None:
        """Count some bytes of it.

        Raises:
            SessionUnavailable: There are too many, of all bodies together.
        """
        self.taken_bytes += size
        self._flights.taken_bytes += size
        if self._flights.taken_bytes > self._flights.limit_bytes:
            raise SessionUnavailable(reason=IN_FLIGHT)
