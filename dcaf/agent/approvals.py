"""Which calls a person may decide about: those that this very session proposed, as they were proposed, and not too long ago.

>>> from dcaf.core.session import Session
>>> session = Session()
>>> propose(session, "c1", "drop", {"volume": "pg"}, now=0)
>>> yes = Approval(id="c1", name="drop", input={"volume": "pg-main"}, execute=True)
>>> [verdict.is_approved for verdict in decide(session, [yes], now=60)]  # another volume than was proposed
[False]

What a reader gets wrong: the arguments come back from the client, and only their digest is sealed. What runs is what the
client sent, because it is proven to be what was proposed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785
from pydantic_core import PydanticSerializationError, to_json

from dcaf.agent.helpdesk import Approval, Data, PendingToolCall
from dcaf.core.base64url import encode
from dcaf.core.errors import ToolArgumentError
from dcaf.core.keys import length_prefixed
from dcaf.core.session import Session

PENDING: Final = "approvals"
"""The member of the library's own part of the state: id of a call -> its digest, when it ends, and what its use is known by."""

VALID_S: Final = 5 * 60
MOST_PENDING: Final = 32
"""Calls that wait at once; the oldest give way, so that a model cannot fill the session with them."""

MOST_BYTES: Final = 64 * 1024
"""Of the arguments of one call: nobody reads more before saying yes, and a client could have the server digest megabytes."""

UNKNOWN: Final = "Refused: no matching pending approval"
LATE: Final = "Refused: the five minutes to approve it are over"
TWICE: Final = "Refused: decided more than once"
BOTH: Final = "Refused: approved and rejected at once"
REJECTED: Final = "Rejected: "


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
        use: What a keeper knows the use of this very proposal by: models give one id to several calls.
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


def propose(session: Session, id_: str, name: str, arguments: dict[str, Any], *, now: float) -> None:
    """Have a call wait for a person.

    Args:
        session: Whose call it is.
        id_: What the model calls it.
        name: Name of the tool.
        arguments: Name -> value.
        now: Seconds since the epoch.

    Raises:
        ToolArgumentError: The arguments are not the same in every JSON parser, so nobody could say what was approved.
        SessionValueError: The session is full.
    """
    waiting = _waiting(session, now)
    waiting.pop(id_, None)
    waiting[id_] = [_digest(id_, name, arguments), int(now) + VALID_S, secrets.token_urlsafe(12)]
    _keep(session, dict(list(waiting.items())[-MOST_PENDING:]))


def decide(session: Session, decisions: Sequence[Approval], *, now: float) -> list[Verdict]:
    """Judge what a client says about calls. A call that was decided waits no longer.

    Args:
        session: Whose calls they are.
        decisions: As they came; those that say neither yes nor no are left out.
        now: Seconds since the epoch.

    Returns:
        One for each decision, in order.
    """
    decided = [item for item in decisions if item.execute or item.rejection_reason is not None]
    times = Counter(item.id for item in decided)
    proposed, waiting = _proposed(session), _waiting(session, now)
    verdicts = [_verdict(item, proposed.get(item.id), times[item.id], now) for item in decided]
    for verdict in verdicts:
        if verdict.is_known:
            waiting.pop(verdict.id, None)
    if decided:
        _keep(session, waiting)
    return verdicts


def decisions_of(data: Data | None) -> list[Approval]:
    """The decisions in a message: those in the older form count too, where the newer one does not say the same of that call."""
    if data is None:
        return []
    said = {(item.id, item.execute, item.rejection_reason) for item in data.approvals}
    return [
        *data.approvals,
        *(_newer(item) for item in data.tool_calls if (item.id, item.execute, item.rejection_reason) not in said),
    ]


def waits(session: Session, id_: str) -> bool:
    """Whether a call of that id waits for a person, or did until its time was over."""
    return id_ in _proposed(session)


def _newer(item: PendingToolCall) -> Approval:
    return Approval(id=item.id, name=item.name, input=item.input, execute=item.execute, rejection_reason=item.rejection_reason)


def _verdict(item: Approval, proposed: Any, times: int, now: float) -> Verdict:
    said, is_known = _said(item, proposed, times, now)
    return Verdict(item.id, item.type, item.name, item.input, said, is_known, use="" if proposed is None else proposed[2])


def _said(item: Approval, proposed: Any, times: int, now: float) -> tuple[str | None, bool]:
    if proposed is not None and times > 1:
        return TWICE, False
    if not _is_proposed(item, proposed):
        return UNKNOWN, False
    if now > proposed[1]:
        return LATE, False
    if item.execute and item.rejection_reason is not None:
        return BOTH, False
    return (None, True) if item.execute else (f"{REJECTED}{item.rejection_reason}", True)


def _is_proposed(item: Approval, proposed: Any) -> bool:
    if proposed is None:
        return False
    try:
        found = _digest(item.id, item.name, item.input)
    except ToolArgumentError:
        return False
    return hmac.compare_digest(found, proposed[0])


def _digest(id_: str, name: str, arguments: dict[str, Any]) -> str:
    """SHA-256 over id, name and canonical arguments (RFC 8785), each with its length before it."""
    try:
        is_long = len(to_json(arguments)) > MOST_BYTES
        parts = [] if is_long else [length_prefixed(part) for part in (id_, name, rfc8785.dumps(arguments).decode())]
    except (rfc8785.CanonicalizationError, PydanticSerializationError, RecursionError, UnicodeEncodeError, ValueError):
        raise ToolArgumentError(
            "arguments: not the same in every JSON parser",
            [("arguments", "use integers up to 2**53-1, finite numbers and valid text: a person must approve what you mean")],
        ) from None
    if is_long:
        raise ToolArgumentError("arguments: too long", [("arguments", f"use at most {MOST_BYTES} bytes for what needs approval")])
    return encode(hashlib.sha256(b"".join(parts)).digest())


def _proposed(session: Session) -> dict[str, Any]:
    """The calls that wait, and those that did until their time was over: the next decision or proposal takes them out."""
    found: dict[str, Any] = session._state.own().get(PENDING) or {}
    return found


def _waiting(session: Session, now: float) -> dict[str, Any]:
    return {id_: proposed for id_, proposed in _proposed(session).items() if now <= proposed[1]}


def _keep(session: Session, waiting: dict[str, Any]) -> None:
    own = session._state.own()
    own.pop(PENDING, None)
    session._state.keep({**own, PENDING: waiting} if waiting else own)
