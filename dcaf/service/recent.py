"""What was known last of sessions to which messages were added, so that the next one is added in one trip to the engine.

>>> recent = Recent(most=2)
>>> for key in (b"a", b"b", b"c"):
...     recent.note(key, kept=key)
>>> recent.find(b"a"), recent.find(b"c")
(None, b'c')

What a reader gets wrong: it may be old. Whoever uses it has the engine compare it, and learns from the answer what is true.
"""

from __future__ import annotations

from threading import Lock
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST: Final = 1_000
"""Of how many sessions a service remembers it."""


class Recent(Generic[T]):
    """The newest of what was noted.

    Args:
        most: Of how many at most.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = Lock()
        self._found: dict[bytes, T] = {}

    def find(self, key: bytes) -> T | None:
        """What was noted last of a session; None where that is not known any more."""
        return self._found.get(key)

    def note(self, key: bytes, kept: T) -> None:
        """Note what is known of a session now."""
        with self._lock:
            self._found.pop(key, None)  # so that it counts as the newest
            self._found[key] = kept
            if len(self._found) > self._most:
                del self._found[next(iter(self._found))]
