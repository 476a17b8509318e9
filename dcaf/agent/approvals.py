"""Which calls a person may decide about: those that this very session proposed, as they were proposed, and not too long ago.

>>> from dcaf.core.session import Session
>>> from dcaf.agent.pending import propose
>>> session = Session()
>>> _ = propose(session, "c1", "drop", {"volume": "pg"}, now=0)
>>> yes = Approval(id="c1", name="drop", input={"volume": "pg-main"}, execute=True)
>>> [verdict.is_approved for verdict in judge(session, [yes], now=60)]  # another volume than was proposed
[False]

What a reader gets wrong: the arguments come back from the client, and only their digest is sealed. What runs is what the
client sent, because it is proven to be what was proposed.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio.to_thread
from pydantic_core import PydanticSerializationError, to_json

from dcaf.agent.helpdesk import Approval, Data, Message, PendingToolCall
from dcaf.agent.pending import Proposal, decided_in, digest_of, pending_in, proposed_in, tag_of
from dcaf.asgi.body import _parsers
from dcaf.core.errors import ToolArgumentError
from dcaf.core.session import Session
from dcaf.tools.tool import Tool

T = TypeVar("T")

UNKNOWN: Final = "Refused: no matching pending approval"
BEFORE: Final = "Refused: it was decided before"
LATE: Final = "Refused: the five minutes to approve it are over"
TWICE: Final = "Refused: decided more than once"
BOTH: Final = "Refused: approved and rejected at once"
REJECTED: Final = "Rejected: "

INLINE_BYTES: Final = 16 * 1024
"""Arguments of so many bytes in all are digested on the event loop: it takes a few milliseconds."""

MOST_TRIES: Final = 4
"""Times that the arguments of one waiting call are looked for: a client could send thousands of its id."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision comes to.

    Attributes:
        id: What the model called the call.
        type: As the client sent it.
        name: Name of the tool.
        input: Its arguments.
        said: Why it does not run; None where a person has approved it.
        is_known: Whether this session had proposed the call: the model hears of it.
        use: What a keeper knows the use of this very proposal by; empty where there is none.
    """

    id: str
    type: str
    name: str
    input: dict[str, Any] = field(repr=False)
    said: str | None
    is_known: bool = True
    use: str = field(default="", repr=False)

    @property
    def is_approved(self) -> bool:
        """Whether the call is to run."""
        return self.said is None


def judge(session: Session, decisions: Sequence[Approval], *, now: float) -> list[Verdict]:
    """Judge what a client says about calls. Nothing is changed by it: ``settle`` and ``take`` of ``dcaf.agent.pending`` do that.

    Args:
        session: Whose calls they are.
        decisions: As they came; those that say neither yes nor no are left out.
        now: Seconds since the epoch.

    Returns:
        One for each decision, in order.
    """
    said = [item for item in decisions if item.execute or item.rejection_reason is not None]
    times = Counter(item.id for item in said)
    proposed, decided = proposed_in(session._state), decided_in(session._state, now)
    return [_verdict(item, proposed.get(item.id), times[item.id], now, was_decided=item.id in decided) for item in said]


def waiting_calls(
    session: Session, told: Sequence[Approval], tools: Mapping[str, Tool[..., Any]], *, now: float
) -> dict[str, Approval]:
    """The calls that wait, as far as the conversation tells their arguments: what is not as it was proposed is not among them.

    Args:
        session: Whose calls they are: it alone says which calls wait.
        told: As ``told_in`` found them; anybody may have written them.
        tools: Those whose calls can be decided, which describe them.
        now: Seconds since the epoch.

    Returns:
        Digest of the proposal -> the call, as a person is shown it.
    """
    pending, tries = pending_in(session, now), Counter[str]()
    found: dict[str, Approval] = {}
    for item in told if pending else ():
        proposal, tool = pending.get(item.id), tools.get(item.name)
        if proposal is None or tool is None or proposal.digest in found or tries[item.id] == MOST_TRIES:
            continue
        tries[item.id] += 1
        if _is_as_proposed(item, proposal):
            found[proposal.digest] = _restored(item, tool, proposal)
    return found


def told_in(messages: Sequence[Message], ids: Container[str]) -> list[Approval]:
    """What a conversation says of the calls with some ids, in either form, newest first."""
    found: list[Approval] = []
    for message in reversed(messages):
        if message.data is not None:
            found += (item for item in message.data.approvals if item.id in ids)
            found += (_newer(item) for item in message.data.tool_calls if item.id in ids)
    return found


async def digesting(call: Callable[[], T], items: Iterable[Approval]) -> T:
    """Make a call that digests arguments: here if they are short, and in a thread if they are not."""
    if sum(map(_size, items)) <= INLINE_BYTES:
        return call()
    return await anyio.to_thread.run_sync(call, limiter=_parsers())


def decisions_of(data: Data | None) -> list[Approval]:
    """The decisions in a message: those in the older form count too, where the newer one does not say the same of that call."""
    if data is None:
        return []
    said = {(item.id, item.execute, item.rejection_reason) for item in data.approvals}
    return [
        *data.approvals,
        *(_newer(item) for item in data.tool_calls if (item.id, item.execute, item.rejection_reason) not in said),
    ]


def decided_in_older_form(data: Data | None) -> set[str]:
    """The ids of the calls that a message decides about in the older form."""
    return {item.id for item in (data.tool_calls if data else ()) if item.execute or item.rejection_reason is not None}


def _verdict(item: Approval, proposal: Proposal | None, times: int, now: float, *, was_decided: bool) -> Verdict:
    said, is_known = (BEFORE, False) if proposal is None and was_decided else _said(item, proposal, times, now)
    return Verdict(item.id, item.type, item.name, item.input, said, is_known, use="" if proposal is None else proposal.use)


def _said(item: Approval, proposal: Proposal | None, times: int, now: float) -> tuple[str | None, bool]:
    if proposal is None:
        return UNKNOWN, False
    if times > 1:
        return TWICE, False
    if not _is_as_proposed(item, proposal):
        return UNKNOWN, False
    if now > proposal.until:
        return LATE, False
    if item.execute and item.rejection_reason is not None:
        return BOTH, False
    return (None, True) if item.execute else (f"{REJECTED}{item.rejection_reason}", True)


def _is_as_proposed(item: Approval, proposal: Proposal) -> bool:
    try:
        found = digest_of(item.id, item.name, item.input)
    except ToolArgumentError:
        return False
    return hmac.compare_digest(found, proposal.digest)


def _size(item: Approval) -> int:
    try:
        return len(to_json(item.input))
    except (PydanticSerializationError, ValueError, RecursionError):
        return INLINE_BYTES + 1


def _restored(item: Approval, tool: Tool[..., Any], proposal: Proposal) -> Approval:
    """A call as it was first told, of what is proven alone: the client may have written anything else into it."""
    intent = item.intent if tag_of(item.intent) == proposal.intent else None
    return Approval(id=item.id, name=item.name, input=item.input, description=tool.description or tool.name, intent=intent)


def _newer(item: PendingToolCall) -> Approval:
    """A call of the older form, in the newer one."""
    return Approval(
        id=item.id,
        name=item.name,
        input=item.input,
        execute=item.execute,
        rejection_reason=item.rejection_reason,
        intent=item.intent,
    )
