"""What is asked on a connection comes to an end in time: first the server is told to give up, then nobody listens any more.

What a reader gets wrong: most calls take a thousandth of their time. So a connection has one timer, which looks when it rings
whether a call is still too early for it; a timer of each call would cost more than the rest of the way to the server.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import ref

UNTIL_FOUND: Final = 0.5
UNTIL_CANCELLED: Final = 0.75
UNTIL_CUT: Final = 0.9
"""Parts of a call's time: until it has a connection, until the server is told to give up, and until nobody listens any more."""


class Stoppable(Protocol):
    """A connection."""

    def give_up(self) -> None:
        """Tell the server to give up what it does."""

    def cut(self) -> None:
        """Stop to listen."""


class Watch:
    """The timer of one connection.

    Args:
        connection: The connection, which it does not keep.
    """

    def __init__(self, connection: Stoppable) -> None:
        self._connection = ref(connection)
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._due: list[float] = []

    def begin(self, end: float, timeout_s: float) -> None:
        """Watch a call.

        Args:
            end: When it must have ended, by the clock of the event loop.
            timeout_s: How long it may take.
        """
        self._due = [end - (1 - UNTIL_CUT) * timeout_s, end - (1 - UNTIL_CANCELLED) * timeout_s]
        if self._timer is None or self._rings_at > self._due[-1]:
            self._set(self._due[-1])

    def finish(self) -> None:
        """Tell that the call has ended."""
        self._due = []

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        connection = self._connection()
        if not self._due or connection is None:
            return
        if asyncio.get_running_loop().time() < self._due[-1]:  # that of a later call
            self._set(self._due[-1])
            return
        self._due.pop()
        if self._due:
            self._set(self._due[-1])
            connection.give_up()
        else:
            connection.cut()
