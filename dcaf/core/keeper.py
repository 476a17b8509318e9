"""The seam between open and seal: who decides whether a session is still current, and what its next number is.

>>> import asyncio
>>> from dcaf.core.session import Session
>>> asyncio.run(Stateless().commit(Session()))
1

What a reader gets wrong: a keeper never sees a token. It judges claims that were verified, and numbers a state that will
be sealed.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from dcaf.core.arguments import has_methods, kind_of
from dcaf.core.claims import Claims
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session


class Keeper(Protocol):
    """What stands between opening and sealing; a ledger and a session service are others."""

    async def admit(self, claims: Claims) -> None:
        """Judge a verified session when its turn begins.

        Raises:
            SessionEnded: It was revoked, or is of an older epoch.
            SessionConflict: It is not the newest, or another turn of it is in progress.
            SessionUnavailable: Nobody can tell.
        """

    async def spend(self, session: Session, key: str) -> bool:
        """Use something up that may be used once in a session, before what it allows is done; False where it was used before.

        Raises:
            SessionUnavailable: Nobody can tell.
        """

    async def commit(self, session: Session) -> int:
        """Number the state that a turn leaves behind, before it is sealed.

        Raises:
            SessionConflict: Another turn came first.
            SessionUnavailable: It could not be written.
        """


class Stateless:
    """Level L0: keeps nothing, admits every verified session, and counts changes.

    Attributes:
        level: What operators are shown; another keeper may say its own.
    """

    level: ClassVar[str] = "L0"

    async def admit(self, claims: Claims) -> None:
        """Admit it: without a server's memory there is no older and no newer."""

    async def spend(self, session: Session, key: str) -> bool:  # noqa: ARG002
        """Let it be used: a second use cannot be told from the first."""
        return True

    async def commit(self, session: Session) -> int:
        """One more than the number that arrived where no token seals the state as it is, else the same."""
        return session.sequence + (not session._state.is_sealed)


def require_keeper(keeper: Keeper | None) -> None:
    """Refuse what is no keeper.

    Raises:
        ConfigurationError: It has not the methods of one, or is a class.
    """
    if keeper is not None and not has_methods(keeper, "admit", "spend", "commit"):
        raise ConfigurationError(f"keeper= takes a Keeper, with admit, spend and commit, or None, not {kind_of(keeper)}.")


def level_of(keeper: Keeper | None) -> str:
    """The level that a keeper says it is, for operators and for the chat page: ``custom`` where it says none; None is L0."""
    found: str = getattr(keeper, "level", "custom") if keeper is not None else Stateless.level
    return found
