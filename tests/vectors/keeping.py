"""The store of a vector: it refuses what the vector says, has one epoch for everybody, or keeps one state."""

from __future__ import annotations

from typing import Any, Final

from dcaf.core import SessionError
from dcaf.core.base64url import Payload
from dcaf.core.errors import IdempotencyKeyReused, SessionConflict, SessionEnded, SessionSuperseded
from dcaf.core.store import OpenRequest, Sealed, StatelessLease

REFUSALS: Final[dict[str, type[SessionError]]] = {
    refusal.code: refusal for refusal in (SessionConflict, SessionEnded, SessionSuperseded, IdempotencyKeyReused)
}


class VectorLease(StatelessLease):
    """What one turn gets of it.

    Args:
        request: The session.
        said: What the vector says of the store.
    """

    def __init__(self, request: OpenRequest, said: dict[str, Any]) -> None:
        super().__init__(request)
        self._refusal: str | None = said.get("refuses_commit")
        self.epoch = said.get("epoch")
        self.place = said.get("place")
        if "state" in said:
            self.payload = Payload(said["state"].encode())
            self.revision, self.sequence = said["revision"], said["revision"] + 1

    async def commit(self, sealed: Sealed, *, ends_turn: bool) -> None:
        """Count, or refuse."""
        if self._refusal is not None:
            raise REFUSALS[self._refusal](reason="vector")
        await super().commit(sealed, ends_turn=ends_turn)


class VectorStore:
    """Keeps what a vector says.

    Args:
        said: Its member ``store``.
    """

    level: str = "vector"

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said

    async def open(self, request: OpenRequest) -> VectorLease:
        """Give a lease, or refuse."""
        said, claims = self._said, request.claims
        if "refuses" in said and claims is not None:
            raise _refusal(said)
        if claims is not None and "epoch" in said and claims.ep != said["epoch"]:
            raise SessionEnded(reason="epoch")
        return VectorLease(request, said)


def _refusal(said: dict[str, Any]) -> SessionError:
    if "envelope" not in said:
        return REFUSALS[said["refuses"]](reason="vector")
    return SessionConflict(reason="vector", envelope=said["envelope"].encode(), applied=said["applied"])
