"""What a client's decisions about calls come to, and their use at the store of the session: of one message all together or none.

>>> from dcaf.core.session import Session
>>> from dcaf.tools.proposals import add_proposal
>>> session = Session()
>>> _ = add_proposal(session, "c1", "drop", {"volume": "pg"}, now=0)
>>> yes = DecidedCall("c1", "drop", {"volume": "pg-main"}, execute=True)
>>> [verdict.is_approved for verdict in judge(session, [yes], now=60)]  # another volume than was proposed
[False]
>>> spending = Spending(session, [Verdict("c1", "drop", {"volume": "pg"}, None, use="x")])
>>> anyio.run(spending.spend)
>>> [verdict.is_approved for verdict in spending.verdicts]  # no store keeps this session, and so nobody knows of another use
[True]

An approval that is used up, and whose call then does not begin, is given back. A turn that is stopped, whose client leaves or whose
store is away for one of its calls costs no approval.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.lowlevel import RunVar
from pydantic_core import PydanticSerializationError, to_json

from dcaf.core.arguments import require, require_bool
from dcaf.core.errors import SessionClosedError, SessionError, SessionUnavailable
from dcaf.core.lifecycle import run_shielded
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.core.single_use import spend
from dcaf.core.store import Lease, ask
from dcaf.tools.proposals import Proposal, decided_in, is_digest_of, proposed_in

T = TypeVar("T")

logger: Final[logging.Logger] = logging.getLogger("dcaf")

UNKNOWN: Final = "Refused: no matching pending approval"
BEFORE: Final = "Refused: it was decided before"
LATE: Final = "Refused: the five minutes to approve it are over"
TWICE: Final = "Refused: decided more than once"
BOTH: Final = "Refused: approved and rejected at once"
USED: Final = "Refused: this approval was used before"
REJECTED: Final = "Rejected: "

INLINE_BYTES: Final = 16 * 1024
"""Arguments of so many bytes in all are digested on the event loop: it takes a few milliseconds."""

LEFT: Final = "dcaf: approvals of calls that did not run stay used up, because the store of the session did not answer"

_limiter: Final[RunVar[anyio.CapacityLimiter | None]] = RunVar("dcaf_digesters")


@dataclass(frozen=True, slots=True)
class DecidedCall:
    """What a client says of a call. It is not trusted: only a call that waits, and is as it was proposed, can be decided.

    Attributes:
        id: What the model calls the call.
        name: Name of the tool.
        arguments: Name -> value.
        execute: True is a yes.
        rejection_reason: A text is a no. With neither the call goes on waiting.

    Raises:
        ConfigurationError: One of them is of another type.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    execute: bool = False
    rejection_reason: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require("id=", self.id, str, "a text, what the model calls the call")
        require("name=", self.name, str, "a text, the name of the tool")
        require("arguments=", self.arguments, Mapping, "a dict of the call's arguments")
        require_bool("execute=", self.execute)
        if self.rejection_reason is not None:
            require("rejection_reason=", self.rejection_reason, str, "a text, or None where it is no rejection")

    @property
    def is_decided(self) -> bool:
        """Whether it says yes or no."""
        return self.execute or self.rejection_reason is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision comes to.

    Attributes:
        id: What the model calls the call.
        name: Name of the tool.
        arguments: Name -> value; those of an approved call are what was proposed.
        reason: Why it does not run, for the model and for the person; None where it was approved.
        is_known: Whether this session had proposed the call: then the model reads the decision.
        use: What a store knows the use of this very proposal by; empty where there is none.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    reason: str | None = field(repr=False)
    is_known: bool = True
    use: str = field(default="", repr=False)

    @property
    def is_approved(self) -> bool:
        """Whether the call is to run."""
        return self.reason is None


def judge(session: Session, decisions: Sequence[DecidedCall], *, now: float) -> list[Verdict]:
    """Judge what a client says about calls. Nothing is changed: that is for ``mark_decided`` and ``use_up`` of the proposals.

    Args:
        session: Whose calls they are.
        decisions: As they came; those that say neither yes nor no are left out.
        now: Seconds since the epoch.

    Returns:
        One for each decision, in order.
    """
    decided_calls = [item for item in decisions if item.is_decided]
    times = Counter(item.id for item in decided_calls)
    proposed, decided = proposed_in(state_of(session)), decided_in(state_of(session), now)
    return [_judge_one(item, proposed.get(item.id), times[item.id], now, was_decided=item.id in decided) for item in decided_calls]


async def judge_message(session: Session, decisions: Sequence[DecidedCall], *, now: float) -> list[Verdict]:
    """As ``judge``: here, or in a thread where the arguments of the calls that wait are long."""
    proposed = proposed_in(state_of(session))
    digested = [item.arguments for item in decisions if item.is_decided and item.id in proposed]
    return await run_digest(functools.partial(judge, session, decisions, now=now), digested)


async def run_digest(call: Callable[[], T], arguments: Iterable[Mapping[str, Any]]) -> T:
    """Make a call that digests arguments: here if they are short, and in a thread if they are not."""
    if sum(map(_size, arguments)) <= INLINE_BYTES:
        return call()
    return await anyio.to_thread.run_sync(call, limiter=_digesters())


class Spending:
    """The approvals of one message.

    Args:
        session: Whose store is asked.
        verdicts: What was decided.

    Attributes:
        session: The same.
        verdicts: The same; after ``spend`` what was used before is refused.
    """

    def __init__(self, session: Session, verdicts: Sequence[Verdict]) -> None:
        self.session: Session = session
        self.verdicts: list[Verdict] = list(verdicts)
        self._asked: set[str] = set()
        self._lease: Lease | None = state_of(session).lease  # the session has another one when its turn is over

    async def spend(self) -> None:
        """Use up what is approved. A caller that is cancelled meanwhile, or refused, has used up nothing.

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
        await run_shielded(functools.partial(self._give_back, keys))

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

        await run_shielded(ask_all)
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


def _judge_one(item: DecidedCall, proposal: Proposal | None, times: int, now: float, *, was_decided: bool) -> Verdict:
    reason, is_known = (BEFORE, False) if proposal is None and was_decided else _find_reason(item, proposal, times, now)
    return Verdict(item.id, item.name, item.arguments, reason, is_known, use="" if proposal is None else proposal.use)


def _find_reason(item: DecidedCall, proposal: Proposal | None, times: int, now: float) -> tuple[str | None, bool]:
    if proposal is None:
        return UNKNOWN, False
    if times > 1:
        return TWICE, False
    if not is_digest_of(proposal.digest, item.id, item.name, item.arguments):
        return UNKNOWN, False
    if now > proposal.until:
        return LATE, False
    if item.execute and item.rejection_reason is not None:
        return BOTH, False
    return (None, True) if item.execute else (f"{REJECTED}{item.rejection_reason}", True)


def _size(arguments: Mapping[str, Any]) -> int:
    try:
        return len(to_json(arguments))
    except (PydanticSerializationError, ValueError, RecursionError):
        return INLINE_BYTES + 1


def _digesters() -> anyio.CapacityLimiter:
    """Threads of their own, so that a decision never waits behind the application's; an event loop has its own."""
    found = _limiter.get(None)
    if found is None:
        found = anyio.CapacityLimiter(2)
        _limiter.set(found)
    return found


def _key(use: str) -> str:
    return f"approval:{use}"
