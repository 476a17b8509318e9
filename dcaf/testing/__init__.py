"""Floor 3: for the tests of dcaf's users, and for its own."""

from dcaf.testing.arrival import cut, held
from dcaf.testing.client import Reply, SessionClient
from dcaf.testing.envelopes import sealed, tampered
from dcaf.testing.hostile import HARMLESS, MISUSES, Misuse, aborted

__all__ = [
    "HARMLESS",
    "MISUSES",
    "Misuse",
    "Reply",
    "SessionClient",
    "aborted",
    "cut",
    "held",
    "sealed",
    "tampered",
]
