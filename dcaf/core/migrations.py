"""Older state, newer application: bring a state to the present version of the application's schema, step by step.

>>> from dcaf.core.base64url import Payload
>>> def rename_step(values):
...     return {"wizard_step": values.pop("step", 1), **values}
>>> state = State(Payload(b'{"step":3}'))
>>> Migrations(1, {1: rename_step}).upgrade(state, 0)
>>> state.plain()
b'{"wizard_step":3}'

What a reader gets wrong: ``migrations[2]`` makes version 2 out of version 1. It gets plain JSON values, not typed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from dcaf.core.errors import ConfigurationError, SessionEnded
from dcaf.core.state import State
from dcaf.core.json_values import read

MAX_VERSION: Final = 2**53 - 1
"""The largest integer of a claim (docs/protocol.md, section 4)."""

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the values of one version out of those of the version before."""


class Migrations:
    """The version of the application's schema, and the way to it from older ones.

    Args:
        version: The present version; 0 where the application has never changed its schema.
        steps: ``{n: function}``, each making the values of version n out of those of n - 1. They end at ``version``
            without a gap; a session older than the first of them has ended.

    Raises:
        ConfigurationError: The version is negative, or the steps do not lead to it.
    """

    def __init__(self, version: int = 0, steps: Mapping[int, Migration] | None = None) -> None:
        if steps is not None and not (isinstance(steps, Mapping) and all(map(callable, steps.values()))):
            raise ConfigurationError("migrations= takes {version: function}.")
        self.version = version
        self._steps = dict(steps or {})
        if type(version) is not int or not 0 <= version <= MAX_VERSION:
            raise ConfigurationError("version is a number from 0 up: raise it by one with each change of the schema.")
        due = list(range(version - len(self._steps) + 1, version + 1))
        if sorted(self._steps) != due or (due and due[0] < 1):
            raise ConfigurationError(
                f"migrations has the steps {sorted(self._steps)}, which do not lead to version {version} without a gap: "
                "migrations[n] makes version n out of n - 1, and version is the last n."
            )

    def check(self, version: int) -> None:
        """Refuse a state for which there is no way to the present version.

        Raises:
            SessionEnded: It is newer than the present one, or older than the first step.
        """
        if version == self.version:
            return
        if version > self.version or any(step not in self._steps for step in self._due(version)):
            raise SessionEnded(reason="version")

    def upgrade(self, state: State, version: int) -> None:
        """Bring a state from a checked version to the present one. What a step raises is not caught.

        Raises:
            SessionValueError: A step made a value that may not be stored. Nothing was changed.
        """
        if version == self.version:
            return
        values = cast("dict[str, Any]", read(state.plain()))
        for step in self._due(version):
            values = self._steps[step](values)
        state.replace(values)

    def _due(self, version: int) -> range:
        return range(version + 1, self.version + 1)
