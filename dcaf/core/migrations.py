"""Accept older sessions: upgrade states of older schema versions step by step, and import plain sessions until a date.

>>> from dcaf.core.base64url import Payload
>>> def rename_step(values):
...     return {"wizard_step": values.pop("step", 1), **values}
>>> state = State(Payload(b'{"step":3}'))
>>> Migrations(1, {1: rename_step}).upgrade(state, 0)
>>> state.plain()
b'{"wizard_step":3}'

>>> from datetime import UTC, datetime
>>> keep_step = Import(until=datetime(2027, 1, 1, tzinfo=UTC), accept=lambda plain: {"step": plain["step"]})
>>> keep_step.values({"step": 2, "approved": True}, now=1_780_000_000)
{'step': 2}

What a reader gets wrong: whoever can send a plain object to an ``Import`` can write what ``accept`` lets through. So it has a date,
and the sessions that it begins end no later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from dcaf.core.arguments import require, require_plain_function
from dcaf.core.errors import ConfigurationError, SessionEnded, SessionUnsigned, describe_raised
from dcaf.core.json_values import read
from dcaf.core.state import State

MAX_VERSION: Final = 2**53 - 1
"""The largest integer of a claim (docs/protocol.md, section 4)."""

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the values of one version from those of the version before."""

logger: Final[logging.Logger] = logging.getLogger("dcaf")


class Migrations:
    """The version of the application's schema, and the way to it from older ones.

    A step gets and returns plain JSON values, not typed ones.

    Args:
        version: The current version; 0 where the application has never changed its schema.
        steps: ``{n: function}``, each making the values of version n from those of n - 1. They lead to ``version`` without a gap; a
            session older than the first of them has ended.

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
        """Refuse a state for which there is no way to the current version.

        Raises:
            SessionEnded: It is newer than the current version, or older than the first step.
        """
        if version > self.version or any(step not in self._steps for step in self._steps_from(version)):
            raise SessionEnded(reason="version")

    def upgrade(self, state: State, version: int, shared: tuple[str, ...] = ()) -> None:
        """Upgrade a state from a checked version to the current one. What a step raises is not caught.

        Args:
            state: The state.
            version: The version that it has.
            shared: What the keys begin with that other sessions have, too: no step sees these, because each would change them once
                for each session.

        Raises:
            SessionValueError: A step made a value that may not be stored. Nothing was changed.
        """
        if version == self.version:
            return
        values: Any = read(state.plain())
        apart = {key: values.pop(key) for key in [*values] if key.startswith(shared)}
        for step in self._steps_from(version):
            values = self._steps[step](values)
        state.replace({**values, **apart})

    def _steps_from(self, version: int) -> range:
        return range(version + 1, self.version + 1)


@dataclass(frozen=True, slots=True)
class Import:
    """How plain sessions are imported until a date.

    Attributes:
        until: After this moment they are refused; sessions made of them end no later. With a time zone.
        accept: Gets the plain object and returns the values to keep. None, or an exception, refuses it.

    Raises:
        ConfigurationError: ``until`` has no time zone, or ``accept`` is no function, or an async one.
    """

    until: datetime
    accept: Callable[[dict[str, Any]], Mapping[str, Any] | None]

    def __post_init__(self) -> None:
        if not isinstance(self.until, datetime) or self.until.tzinfo is None:
            raise ConfigurationError("Import(until=) takes a datetime with a time zone: datetime(2027, 1, 1, tzinfo=UTC).")
        require_plain_function("Import(accept=)", self.accept, "a function of the plain object that returns the values to keep")

    @property
    def until_s(self) -> int:
        """The last moment, in seconds since the epoch."""
        return int(self.until.timestamp())

    def values(self, plain: dict[str, Any], *, now: float) -> Mapping[str, Any]:
        """The values to keep of a plain object; ``now`` in seconds since the epoch.

        Raises:
            SessionUnsigned: The date has passed, or ``accept`` refused the object. What it raised is in the log.
        """
        require("Import.values(now=)", now, (int, float), "a number of seconds since the epoch")
        if now > self.until_s:
            raise SessionUnsigned(reason="until")
        try:
            found = self.accept(plain)
        except Exception as error:  # noqa: BLE001 - whatever a validator raises, the object is refused
            logger.error("dcaf: Import(accept=) raised %s", describe_raised(error))  # noqa: TRY400 - its message may quote the object
            raise SessionUnsigned(reason="accept") from None
        if not isinstance(found, Mapping):
            self._log_misfit(found)
            raise SessionUnsigned(reason="accept")
        return found

    def _log_misfit(self, found: object) -> None:
        """Log a value that is no mapping; None is the regular way to refuse an object."""
        if found is None:
            return
        instead = ", for instance its model_dump()" if hasattr(type(found), "model_dump") else ""
        logger.error(
            "dcaf: Import(accept=) gave a value of type %s. Return a mapping of the values to keep%s, or None to refuse.",
            type(found).__name__,
            instead,
        )
