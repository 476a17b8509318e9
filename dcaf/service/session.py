"""The session of a turn of a session service: the same as everywhere, and what the service knows of it.

What a reader gets wrong: ``session["user:theme"]`` is ``session.user["theme"]``, and stands in every session of the user. It is
written with the turn, and read when the turn begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dcaf.core.arguments import kind_of
from dcaf.core.base64url import Payload
from dcaf.core.errors import ConfigurationError
from dcaf.core.mapping import state_of
from dcaf.core.rebasing import RebasableState
from dcaf.core.session import Session
from dcaf.core.state import Frozen
from dcaf.service.commits import Change, Value
from dcaf.service.kept import Kept


class KeptState(RebasableState):
    """The state of a session that a service keeps.

    Args:
        arrived: As it was read.
        kept: What is known of the session.
        now_ms: The engine's clock when it was read.

    Attributes:
        kept, now_ms: As above.
        added: New messages, packed, each with its moment in milliseconds; None for that of the commit.
    """

    __slots__ = ("added", "kept", "now_ms")

    def __init__(self, arrived: Payload, kept: Kept, now_ms: int) -> None:
        super().__init__(arrived)
        self.kept: Kept = kept
        self.now_ms: int = now_ms
        self.added: list[tuple[bytes, int | None]] = []

    def find_change(self, ttl_ms: int | None) -> tuple[Frozen, Change]:
        """The state as it is committed, and what is to be written. Raises as ``freeze``."""
        with self.lock:
            frozen = self.freeze()
            values = {name: Value(*both, self.find_commuting(name)) for name, both in self.changed_values().items()}
            return frozen, Change(values, tuple(self.added), ttl_ms)

    def take_committed(self, kept: Kept, frozen: Frozen, change: Change) -> None:
        """Count only what comes later as a change."""
        with self.lock:
            self.mark_sealed(frozen.payload, None, frozen)
            del self.added[: len(change.messages)]
            self.kept = kept


class KeptSession(Session):
    """A session that a service keeps, as ``SessionService.open`` and ``get`` give it."""

    @property
    def id(self) -> str:
        """Its id."""
        return self._kept.id

    @property
    def user_id(self) -> str | None:
        """Whose it is; None for an anonymous one."""
        return self._kept.user

    @property
    def revision(self) -> int:
        """How often it was committed."""
        return self._kept.revision

    @property
    def created_at(self) -> datetime:
        """When it was made, in UTC."""
        return self._kept.created_at

    @property
    def updated_at(self) -> datetime:
        """When it was committed last, in UTC."""
        return self._kept.updated_at

    @property
    def expires_at(self) -> datetime | None:
        """When it ends unless it is committed again, in UTC; None for never."""
        return self._kept.ends_at

    @property
    def title(self) -> str | None:
        """Its title; None for none."""
        return self._kept.title

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self._kept.labels

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else the application wrote of it."""
        return self._kept.metadata

    @property
    def _kept(self) -> Kept:
        return state_of_kept(self).kept


def make_session(kept: Kept, payload: Payload, now_ms: int) -> KeptSession:
    """A session of what was read."""
    return KeptSession._over(KeptState(payload, kept, now_ms))


def state_of_kept(session: object) -> KeptState:
    """The state of a session that a service keeps.

    Raises:
        ConfigurationError: It is none.
    """
    state = state_of(session) if isinstance(session, Session) else None
    if not isinstance(state, KeptState):
        raise ConfigurationError(f"A session service takes a session that it has opened or made, not {kind_of(session)}.")
    return state
