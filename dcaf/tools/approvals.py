"""Approvals, with an agent and without one: calls that wait in a session for a person, and what a person's decisions come to.

>>> import asyncio
>>> from dcaf.core.session import Session
>>> from dcaf.tools.tool import tool
>>> @tool(requires_approval=True)
... def drop(volume: str, force: bool = False) -> str:
...     return f"{volume} dropped"
>>> session = Session()
>>> call = propose(session, Call(drop, {"volume": "pg"}, id="c1"))
>>> call.arguments, [waiting.id for waiting in pending(session)]
({'volume': 'pg', 'force': False}, ['c1'])
>>> other = DecidedCall("c1", "drop", {"volume": "pg", "force": True}, execute=True)
>>> yes = DecidedCall("c1", "drop", {"volume": "pg", "force": False}, execute=True)
>>> [asyncio.run(decide(session, [said]))[0].reason for said in (other, yes, yes)]
['Refused: no matching pending approval', None, 'Refused: it was decided before']

What a reader gets wrong: the arguments come back from the client, and only their digest is sealed. What runs is what the
client sent, because it is proven to be what was proposed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from dcaf.core.arguments import Clock, items_of, kind_of, require, require_clock, texts_of
from dcaf.core.errors import ConfigurationError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.tools.decisions import BEFORE, DecidedCall, Spending, Verdict, judge_message
from dcaf.tools.proposals import add_proposal, is_digest_of, pending_in, remove_proposals, settle, take
from dcaf.tools.results import Call


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that waits for a person, as far as a session knows it: what it is called with is known by a digest alone.

    Attributes:
        id: What the model calls the call.
        expires_at: Until when it may be approved, in UTC.
    """

    id: str
    expires_at: datetime
    _digest: str = field(repr=False)

    def matches(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether it is a call of this tool with these arguments: a history that a client holds may tell something else.

        Raises:
            ConfigurationError: An argument is of another type.
        """
        require("name=", name, str, "a text, the name of the tool")
        require("arguments=", arguments, Mapping, "a dict of the call's arguments")
        return is_digest_of(self._digest, self.id, name, arguments)


def propose(session: Session, call: Call, *, clock: Clock = time.time) -> Call:
    """Have a call wait for a person, for five minutes. Where 32 wait already, the oldest gives way.

    Args:
        session: What knows it as waiting from now on, and travels with the conversation.
        call: The call. One of the same id that waits already gives way to it.
        clock: Seconds since the epoch.

    Returns:
        The call that waits, for a person to see and for the client to send back: with an id, and with the defaults filled in.

    Raises:
        ToolArgumentError: The arguments do not fit, are too long for a person, or are not the same in every JSON parser.
        SessionValueError: The session is full.
        ConfigurationError: An argument is of another type.
    """
    found = require_session(session, "propose()")
    require("propose()", call, Call, "a Call, as Call(tool, arguments, id=...)")
    now = require_clock("clock=", clock)()
    waiting = replace(call, id=call.id or uuid.uuid4().hex, arguments=call.tool.complete(call.arguments))
    add_proposal(found, waiting.id or "", waiting.tool.name, waiting.arguments, now=now)
    return waiting


def pending(session: Session, *, clock: Clock = time.time) -> list[PendingCall]:
    """The calls that wait in a session, oldest first.

    Args:
        session: The session.
        clock: Seconds since the epoch.

    Raises:
        ConfigurationError: An argument is of another type.
    """
    found = pending_in(require_session(session, "pending()"), require_clock("clock=", clock)())
    return [PendingCall(id_, datetime.fromtimestamp(proposal.until, UTC), proposal.digest) for id_, proposal in found.items()]


def withdraw(session: Session, ids: Iterable[str], *, clock: Clock = time.time) -> None:
    """Have calls wait no more: nobody can approve them from now on. Ids that do not wait are passed over.

    Args:
        session: The session.
        ids: What the model calls them.
        clock: Seconds since the epoch.

    Raises:
        ConfigurationError: An argument is of another type.
    """
    found, gone = require_session(session, "withdraw()"), texts_of(ids)
    if gone is None:
        raise ConfigurationError(f"withdraw() takes the ids of calls, a list of texts, not {kind_of(ids)}.")
    remove_proposals(found, gone, now=require_clock("clock=", clock)())


async def decide(session: Session, decisions: Sequence[DecidedCall], *, clock: Clock = time.time) -> list[Verdict]:
    """Decide about the calls of a session as a person said, and use up what was decided, before any of it runs.

    The store of the session's turn is asked for all that are approved at once. Whoever is cancelled while it answers has used up
    nothing. After this returns the caller runs what is approved, each once: ``Call(tool, verdict.arguments, is_approved=True)``.

    Args:
        session: Whose calls they are.
        decisions: All of one message, as the client sent them; those that say neither yes nor no are left out.
        clock: Seconds since the epoch.

    Returns:
        One for each decision that says yes or no, in order.

    Raises:
        SessionError: The session is revoked by now, or another turn has taken it over.
        SessionClosedError: The turn is over.
        SessionUnavailable: Its store cannot tell whether one was used before. All wait on.
        ConfigurationError: An argument is of another type.
    """
    found, now = require_session(session, "decide()"), require_clock("clock=", clock)()
    said = items_of(decisions)
    if said is None or not all(isinstance(item, DecidedCall) for item in said):
        raise ConfigurationError("decide() takes a list of DecidedCall, as DecidedCall(id, name, arguments, execute=True).")
    spending = Spending(found, await judge_message(found, said, now=now))
    await spending.spend()
    verdicts: list[Verdict] = []
    try:
        verdicts = [_used_up(found, verdict, now) for verdict in spending.verdicts]
        settle(found, [verdict.id for verdict in verdicts if verdict.is_known], now=now)
    finally:
        await spending.end([verdict for verdict in verdicts if verdict.is_approved])
    return verdicts


def _used_up(session: Session, verdict: Verdict, now: float) -> Verdict:
    """A verdict, and its call is used up in the session where it is to run: down to the state that is sealed."""
    if verdict.is_approved and not take(state_of(session), verdict.id, verdict.use, now=now):
        return replace(verdict, reason=BEFORE, is_known=False)
    return verdict
