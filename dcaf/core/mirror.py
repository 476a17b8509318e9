"""The plain copy of a state that stands beside its token, for display.

>>> Mirror({"id"}).shown({"id": 2**60, "secret": 1})
{'id': '1152921504606846976'}

What a reader gets wrong: a mirror hides nothing when the token is only signed, and decides nothing ever: it is not read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dcaf.core.claims import MAX_INTEGER
from dcaf.core.errors import ConfigurationError
from dcaf.core.values import JSON


class Mirror:
    """Which keys are shown.

    Args:
        keys: True for all, names for some, False for none.

    Raises:
        ConfigurationError: It is something else.
    """

    def __init__(self, keys: Iterable[str] | bool) -> None:
        self._keys: bool | frozenset[str] = keys if isinstance(keys, bool) else _names(keys)

    def chosen(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values whose keys are shown, as they are."""
        if isinstance(self._keys, bool):
            return values if self._keys else {}
        return {key: value for key, value in values.items() if key in self._keys}

    def shown(self, values: dict[str, Any]) -> JSON:
        """The same, with the integers that JavaScript would round, those beyond 2**53 - 1, as strings."""
        return _exact(self.chosen(values))


def _names(keys: Iterable[str]) -> frozenset[str]:
    names = list(keys) if isinstance(keys, Iterable) and not isinstance(keys, str) else [None]
    if not all(isinstance(name, str) for name in names):
        raise ConfigurationError('mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.')
    return frozenset(str(name) for name in names)


def _exact(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if type(value) is int and abs(value) > MAX_INTEGER:
        return str(value)
    return value
