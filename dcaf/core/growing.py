"""A state that remembers of each key what was counted and appended, so that it can be done once more over another value.

>>> state = Growing()
>>> state.add("visits", 1), state.add("visits", 2)
(1, 3)
>>> state._grown
{'visits': Added(by=3)}
"""

from __future__ import annotations

from dcaf.core.base64url import Payload
from dcaf.core.claims import Standing
from dcaf.core.growth import Added, Appended, Growth
from dcaf.core.state import State


class Growing(State):
    """What the call of a tool, and a turn whose state a server keeps, have in common. Arguments are those of a state."""

    __slots__ = ("_grown",)

    def __init__(self, arrived: Payload | None = None, standing: Standing | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(arrived, standing, limit_bytes=limit_bytes)
        self._grown: dict[str, Growth] = {}

    def add(self, key: str, by: int) -> int:
        """As of a state; the change itself is remembered, so that it never clashes with another of its kind."""
        with self._lock:
            found = super().add(key, by)
            self._remember(key, Added(by))
            return found

    def append(self, key: str, value: object) -> None:
        """As ``add``."""
        with self._lock:
            super().append(key, value)
            self._remember(key, Appended([self._tails[key].items[-1]]))

    def _remember(self, key: str, change: Growth) -> None:
        before = self._grown.get(key)
        self._grown[key] = change if before is None else before.then(change)
