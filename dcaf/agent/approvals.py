"""Approvals as the HelpDesk protocol has them: what a conversation tells of the calls that wait, and what a message decides.

>>> [said.rejection_reason for said in decisions_of(Data(approvals=[Approval(id="c1", name="drop", rejection_reason="no")]))]
['no']

What a reader gets wrong: which calls wait, and what a decision comes to, is not said here: ``dcaf.tools.approvals`` reads that from
the session. Here is what the client says, in two forms, and none of it is proven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

from dcaf.agent.models import Approval, Data, Message, PendingToolCall
from dcaf.core.session import Session
from dcaf.tools.proposals import Proposal, is_digest_of, pending_in, tag_of
from dcaf.tools.tool import Tool
from dcaf.tools.verdicts import DecidedCall

MOST_TRIES: Final = 4
"""Times that the arguments of one waiting call are looked for: a client could send thousands of its id."""


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
        if is_digest_of(proposal.digest, item.id, item.name, item.input):
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


def decisions_of(data: Data | None) -> list[Approval]:
    """What a message says of calls: the older form counts too, where the newer one does not say the same of that call."""
    if data is None:
        return []
    said = {(item.id, item.execute, item.rejection_reason) for item in data.approvals}
    return [
        *data.approvals,
        *(_newer(item) for item in data.tool_calls if (item.id, item.execute, item.rejection_reason) not in said),
    ]


def decided_call(item: Approval) -> DecidedCall:
    """What a client says of a call, in the words of every transport."""
    return DecidedCall(item.id, item.name, item.input, item.execute, item.rejection_reason)


def decided_in_older_form(data: Data | None) -> set[str]:
    """The ids of the calls that a message decides about in the older form."""
    return {item.id for item in (data.tool_calls if data else ()) if item.execute or item.rejection_reason is not None}


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
