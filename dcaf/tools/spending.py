"""The approvals of one message at the store of their session: used up together before the first call begins, all or none.

>>> from dcaf.core.session import Session
>>> yes = Verdict("c1", "drop", {"volume": "pg"}, None, use="x")
>>> spending = Spending(Session(), [yes])
>>> anyio.run(spending.spend)
>>> [verdict.is_approved for verdict in spending.verdicts]  # nobody keeps the session, and so nobody knows of another use
[True]

What a reader gets wrong: what is used up and then does not begin is given back. A turn that is stopped, whose client leaves or
whose store is away for one of its calls costs no approval.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import anyio
import anyio.lowlevel

from dcaf.core.errors import SessionClosedError, SessionError, SessionUnavailable
from dcaf.core.lifecycle import shielded
from dcaf.core.session import Session
from dcaf.core.store import Lease, ask, spend
from dcaf.tools.decisions import USED, Verdict

logger: Final[logging.Logger] = logging.getLogger("dcaf")

LEFT: Final = "dcaf: approvals of calls that did not run stay used up, because the store of the session did not answer"


class Spending:
    """The approvals of one message.

    Args:
        session: Whose store is asked.
        verdicts: What was decided.

    Attributes:
        session: As above.
        verdicts: As above; after ``spend`` what was used before is refused.
    """

    def __init__(self, session: Session, verdicts: Sequence[Verdict]) -> None:
        self.session: Session = session
        self.verdicts: list[Verdict] = list(verdicts)
        self._asked: set[str] = set()
        self._lease: Lease | None = session._state.lease  # the session has another one when its turn is over

    async def spend(self) -> None:
        """Use up what is approved. Whoever is cancelled meanwhile, or is refused, has used up nothing.

        Raises:
            SessionError: The session is revoked by now, or another turn has taken it over.
            SessionClosedError: The turn is over.
            SessionUnavailable: Nobody can tell.
        """
        uses = [verdict.use for verdict in self.verdicts if verdict.is_approved]
        if not uses or self._lease is None:
            return
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
            refused = await self._spend_whole(uses)
            await anyio.lowlevel.checkpoint_if_cancelled()  # a scope that was cancelled meanwhile says so only here
        except BaseException:
            await self.end(())
            raise
        self.verdicts = [replace(item, reason=USED) if item.use in refused else item for item in self.verdicts]

    async def end(self, begun: Iterable[Verdict]) -> None:
        """Have the store forget what it was asked to use up, but for the calls that have begun: no other will."""
        keys = [_key(use) for use in self._asked.difference(verdict.use for verdict in begun)]
        self._asked.clear()
        if not keys:
            return
        await shielded(functools.partial(self._give_back, keys))

    async def _give_back(self, keys: Sequence[str]) -> None:
        assert self._lease is not None
        try:
            await ask(self._lease.give_back, keys)
        except (SessionError, SessionClosedError, SessionUnavailable):
            logger.warning(LEFT)

    async def _spend_whole(self, uses: Sequence[str]) -> set[str]:
        """Ask to the end, or to the end of the caller's time: of half an answer nobody could tell what was used up."""
        refused: set[str] = set()
        deadline, was_asked = anyio.current_effective_deadline(), False

        async def ask_all() -> None:
            nonlocal was_asked
            with anyio.CancelScope(deadline=deadline):
                refused.update(await self._spend_all(uses))
                was_asked = True

        await shielded(ask_all)
        if not was_asked:
            raise SessionUnavailable(reason="slow")
        return refused

    async def _spend_all(self, uses: Sequence[str]) -> set[str]:
        """Use up all at once; where one of them was used before, each of them alone. Gives those that were."""
        if await self._spend(uses):
            return set()
        return set(uses) if len(uses) == 1 else {use for use in uses if not await self._spend([use])}

    async def _spend(self, uses: Sequence[str]) -> bool:
        self._asked.update(uses)  # before the answer, which may be lost on its way
        is_new = await spend(self.session, [_key(use) for use in uses])
        if not is_new:
            self._asked.difference_update(uses)
        return is_new


def _key(use: str) -> str:
    return f"approval:{use}"
