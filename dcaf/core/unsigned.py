"""Plain sessions of before: refused, ignored, or taken in until a date.

>>> from datetime import UTC, datetime
>>> keep_step = Import(until=datetime(2027, 1, 1, tzinfo=UTC), accept=lambda plain: {"step": plain["step"]})
>>> keep_step.values({"step": 2, "approved": True}, now=1_780_000_000)
{'step': 2}

What a reader gets wrong: whoever can send a plain object to an ``Import`` can write what ``accept`` lets through. It is a
door for the days of a migration, so it has a date, and what it lets in ends with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dcaf.core.arguments import require, require_plain_function
from dcaf.core.errors import ConfigurationError, SessionUnsigned
from dcaf.core.raised import describe_raised

logger: Final[logging.Logger] = logging.getLogger("dcaf")


@dataclass(frozen=True, slots=True)
class Import:
    """How plain sessions are taken in.

    Attributes:
        until: After this moment they are refused; sessions made of them end no later. With a time zone.
        accept: Validates and narrows: gets the plain object, returns the values to keep. None, or an exception, refuses it.

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
        """What is kept of a plain object at a moment, in seconds since the epoch.

        Raises:
            SessionUnsigned: The date has passed, or ``accept`` would not have it. What it raised is in the log.
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
            self._tell_misfit(found)
            raise SessionUnsigned(reason="accept")
        return found

    def _tell_misfit(self, found: object) -> None:
        """Tell the operator of what is no mapping; None is the way to refuse an object."""
        if found is None:
            return
        instead = ", for instance its model_dump()" if hasattr(type(found), "model_dump") else ""
        logger.error(
            "dcaf: Import(accept=) gave a value of type %s. Return a mapping of the values to keep%s, or None to refuse.",
            type(found).__name__,
            instead,
        )
