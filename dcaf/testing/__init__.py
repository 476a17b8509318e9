"""For the tests of dcaf's users, and for its own."""

from __future__ import annotations

from dcaf.core.importing import missing_names as _missing_names

try:
    from dcaf.testing.client import AsyncSessionClient, SessionClient
    from dcaf.testing.clock import FrozenClock
    from dcaf.testing.conversation import Echo
    from dcaf.testing.engines import EngineContract
    from dcaf.testing.envelopes import expired, fixed_keys, sealed, tampered
    from dcaf.testing.hostile import HARMLESS, MISUSES, Misuse, aborted
    from dcaf.testing.reply import Reply, cut, held
    from dcaf.testing.search_engines import SearchEngineContract
    from dcaf.testing.server import serving
    from dcaf.testing.transport import Wire
except ModuleNotFoundError as _missing:
    globals()["__getattr__"] = _missing_names("dcaf.testing", "dcaf[testing]", _missing)

del annotations  # no public name of this package

__all__ = [  # noqa: RUF022 - capitals by their letters, as in every package of dcaf
    "AsyncSessionClient",
    "Echo",
    "EngineContract",
    "FrozenClock",
    "HARMLESS",
    "MISUSES",
    "Misuse",
    "Reply",
    "SearchEngineContract",
    "SessionClient",
    "Wire",
    "aborted",
    "cut",
    "expired",
    "fixed_keys",
    "held",
    "sealed",
    "serving",
    "tampered",
]
