"""A state with changes that are pending, by itself: for code that comes from Google's ADK, whose ``State`` it behaves as.

>>> state = State({"step": 1}, {})
>>> state["step"] = 2
>>> state.update({State.TEMP_PREFIX + "note": "hm", "user:theme": "dark"})
>>> state["step"], "user:theme" in state, state.get("name", "nobody"), state.has_delta()
(2, True, 'nobody', True)
>>> state.delta
{'step': 2, 'temp:note': 'hm', 'user:theme': 'dark'}

What a reader gets wrong: it is kept nowhere. The session of a turn is a state that is kept; ``session.update(state.delta)`` hands
over what is pending here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, ClassVar

from dcaf.core.arguments import require


class State:
    """A state, and the changes of it that are pending.

    A list or a dict that was read and is then changed counts as a pending change, too.

    Args:
        value: The state as it is kept.
        delta: Changes that are pending, which lie over it. What is written goes into both dicts.

    Raises:
        ConfigurationError: One of them is no dict.

    Attributes:
        APP_PREFIX: What the keys begin with that a whole application has.
        USER_PREFIX: What those begin with that all sessions of a user have.
        TEMP_PREFIX: What those begin with that are never kept.
    """

    APP_PREFIX: ClassVar[str] = "app:"
    USER_PREFIX: ClassVar[str] = "user:"
    TEMP_PREFIX: ClassVar[str] = "temp:"

    def __init__(self, value: dict[str, Any], delta: dict[str, Any]) -> None:
        self._value: dict[str, Any] = require("value=", value, dict, "a dict")
        self._delta: dict[str, Any] = require("delta=", delta, dict, "a dict")
        self._given: dict[str, Any] = {}
        """Key -> what its value was when it was read, where that can be changed in place."""

    def __repr__(self) -> str:
        return "<State>"

    def __getitem__(self, key: str) -> Any:
        found = self._delta[key] if key in self._delta else self._value[key]
        if isinstance(found, dict | list) and key not in self._given:
            self._given[key] = deepcopy(found)
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        self._value[key] = self._delta[key] = value
        self._given.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._value or key in self._delta

    def __iter__(self) -> Iterator[str]:
        return iter({**self._value, **self._delta})

    def __len__(self) -> int:
        return len({**self._value, **self._delta})

    def get(self, key: str, default: Any = None) -> Any:
        """A value; ``default`` where there is none."""
        return self[key] if key in self else default  # noqa: SIM401 - that is this method

    def setdefault(self, key: str, default: Any = None) -> Any:
        """A value; where there is none, ``default`` becomes it."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, delta: Mapping[str, Any]) -> None:
        """Change several values; all of them are pending then.

        Args:
            delta: Key -> value.

        Raises:
            ConfigurationError: It is no mapping.
        """
        for key, value in dict(require("update()", delta, Mapping, "a dict")).items():
            self[key] = value

    @property
    def delta(self) -> dict[str, Any]:
        """The changes that are pending, in a new dict."""
        for key, before in self._given.items():
            if (now := self._delta.get(key, self._value.get(key))) != before:
                self._delta[key] = now
        self._given = {key: before for key, before in self._given.items() if key not in self._delta}
        return dict(self._delta)

    def has_delta(self) -> bool:
        """Whether a change is pending."""
        return bool(self.delta)

    def to_dict(self) -> dict[str, Any]:
        """The whole state with its pending changes, in a new dict."""
        return {**self._value, **self._delta}
