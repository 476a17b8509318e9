"""Floor 3: for the tests of dcaf's users, and for its own."""

from dcaf.testing.client import Reply, SessionClient
from dcaf.testing.envelopes import sealed, tampered

__all__ = ["Reply", "SessionClient", "sealed", "tampered"]
