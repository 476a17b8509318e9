"""Use something up once in a session: the store of the turn is asked, or, where none keeps the session, the session remembers it.

>>> import asyncio
>>> from dcaf.core.session import Session
>>> session = Session()
>>> asyncio.run(session.once("charge-42")), asyncio.run(session.once("charge-42"))
(True, False)

What the session remembers is in the library's own part of its state, which no tool can change. An effect that was done must not be
forgotten with a transaction that is rolled back, so each state below an overlay remembers it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dcaf.core.arguments import require_text
from dcaf.core.base64url import encode
from dcaf.core.errors import ConfigurationError, SessionClosedError, SessionUnavailable, SessionValueError
from dcaf.core.mapping import state_of
from dcaf.core.store import Lease, ask

if TYPE_CHECKING:
    from dcaf.core.mapping import StateMapping
    from dcaf.core.state import State

USED: Final = "once"
"""The member of the library's own part of the state: digest of each key that was used -> 1."""

MOST_USED: Final = 256
"""The most keys that a session remembers by itself."""

MOST_CHARACTERS: Final = 256
"""The longest key."""


async def spend(session: StateMapping, keys: Sequence[str]) -> bool:
    """Use up keys that may be used once in a session, all or none, before what they allow is done; the turn's store is asked.

    False where one of them was used before. Where no store keeps the session nobody can know that, and all may be used.

    Raises:
        SessionError: The session is revoked by now, or another turn has taken it over.
        SessionUnavailable: Nobody can tell.
        SessionClosedError: The turn is over.
    """
    state = state_of(session)
    if state.has_ended:
        raise SessionClosedError("The turn is over: nothing of its session can be used up any more. Do it in the next turn.")
    lease: Lease | None = state.lease
    if lease is None:
        return True
    state.mark_spent()
    try:
        return await ask(lease.spend, keys)
    except SessionUnavailable as error:
        error.ran = True
        raise


async def use_once(session: StateMapping, key: str) -> bool:
    """Use up one key of the application's own; arguments and errors are those of ``Session.once``."""
    if not require_text("key", key, "that names what may be done once") or len(key) > MOST_CHARACTERS:
        raise ConfigurationError(
            f"session.once() takes a text of 1 to {MOST_CHARACTERS} characters that names what may be done once."
        )
    state_of(session).require_open()
    if state_of(session).lease is not None:
        return await spend(session, [f"{USED}:{key}"])
    return _remember(state_of(session), encode(hashlib.sha256(key.encode()).digest()[:12]))


def _remember(state: State, digest: str) -> bool:
    """Remember a key in a state and in every one below it; False where one of them has it."""
    with state.lock:
        own = state.own()
        used = own.get(USED, {})
        below = getattr(state, "_parent", None)
        if digest in used or (below is not None and not _remember(below, digest)):
            return False
        if len(used) >= MOST_USED:
            raise SessionValueError(
                f"session.once() was used for {MOST_USED} keys, and a session remembers no more by itself. Use a ledger: "
                "store=Ledger(...)"
            )
        state.keep({**own, USED: {**used, digest: 1}})
        return True
