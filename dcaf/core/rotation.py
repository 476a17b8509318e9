"""A key ring that is read again while the service runs, so that rotating a key needs no restart.

>>> from dcaf.core.keys import Key
>>> old, new = Key.generate("old"), Key.generate("new")
>>> rings = [Keyring(old), Keyring(new, old)]
>>> times = iter([0.0, 10.0, 61.0])
>>> live = LiveKeyring(lambda: rings.pop(0), clock=lambda: next(times))
>>> live.active.kid, live.active.kid
('old', 'new')

What a reader gets wrong: a ring that cannot be read keeps the one before, and so does one that lacks a key, until the next reading
lacks it too: a file that is being written is not a smaller ring. Both are in the log. ``Key.from_bytes(revoked=True)`` drops one at
once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Key, Keyring
from dcaf.core.raised import describe_raised

EVERY_S: Final = 60.0

logger: Final[logging.Logger] = logging.getLogger("dcaf")


class LiveKeyring(Keyring):
    """A ring behind a function that gives the present one.

    Args:
        load: Gives the ring as it is now, from a file or a key management service. It is called while a request waits.
        every_s: How long what it gave is used, in seconds.
        clock: Seconds that only go forward.

    Raises:
        ConfigurationError: The first ring cannot be had.
    """

    __slots__ = ("_clock", "_every_s", "_load", "_missed", "_read_at", "_ring")

    def __init__(
        self, load: Callable[[], Keyring], *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._every_s = every_s
        self._clock = clock
        self._read_at = clock()
        try:
            self._ring = _checked(load())
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a loader raises, there is no ring
            raise ConfigurationError(
                f"The function that gives the key ring raised {describe_raised(error)}. It must give one when the service starts."
            ) from None  # the message of another program's error may quote what it read
        self._missed: frozenset[str] = frozenset()

    @property
    def active(self) -> Key:
        """The key that signs, once its time has come."""
        return self._now().active

    def signer(self, now: float) -> Key:
        """The key that signs at a time. Raises as the ring itself."""
        return self._now().signer(now)

    def find(self, kid: str) -> Key | None:
        """The key of an id, if the present ring may verify with it."""
        return self._now().find(kid)

    def __repr__(self) -> str:
        return f"Live{self._ring!r}"

    def _now(self) -> Keyring:
        now = self._clock()
        if now - self._read_at >= self._every_s:
            self._read_at = now
            try:
                self._take(_checked(self._load()))
            except Exception as error:  # noqa: BLE001 - whatever a loader raises, the service keeps its keys
                # Only the type: the message of another program's error may quote what it read.
                logger.error("dcaf: the key ring could not be read again (%s); the one before stays", type(error).__name__)  # noqa: TRY400
        return self._ring

    def _take(self, ring: Keyring) -> None:
        """Use it from now on; one that lacks keys, when it lacks them a second time."""
        missed = frozenset(self._ring._keys.keys() - ring._keys.keys())
        if missed <= self._missed:
            self._ring, self._missed = ring, frozenset()
            return
        self._missed = missed
        logger.warning("dcaf: the key ring that was read lacks keys; the one before stays until the next reading lacks them too")


def _checked(ring: Keyring) -> Keyring:
    if isinstance(ring, LiveKeyring):
        return ring._now()
    if not isinstance(ring, Keyring):
        raise ConfigurationError(f"The function that reads the keys must give a Keyring, not a {type(ring).__name__}.")
    return ring
