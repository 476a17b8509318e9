"""The calls that wait for a person, as a session knows them: in the library's own part of its state, by their digests.

>>> from dcaf.core.session import Session
>>> session = Session()
>>> digest = add_proposal(session, "c1", "drop", {"volume": "pg"}, now=0)
>>> digest == digest_of("c1", "drop", {"volume": "pg"}), list(pending_in(session, now=60)), list(pending_in(session, now=301))
(True, ['c1'], [])

What a reader gets wrong: what was used must not come back with a turn that is rolled back. ``take`` uses a call up in every state
below an overlay, too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import rfc8785
from pydantic_core import PydanticSerializationError, to_json

from dcaf.core.base64url import encode
from dcaf.core.errors import ToolArgumentError
from dcaf.core.json_values import read
from dcaf.core.keys import length_prefixed
from dcaf.core.mapping import state_of
from dcaf.core.payload import lacks
from dcaf.core.session import Session
from dcaf.core.state import QUOTED, State
from dcaf.core.transaction import Overlay

PENDING: Final = "approvals"
"""The member of the library's own part of the state: id of a call -> its Proposal."""

DECIDED: Final = "decided"
"""The member that remembers for a while what was decided: id of a call -> until when."""

VALID_S: Final = 5 * 60
MOST_PENDING: Final = 32
"""Calls that wait at once, and that are remembered as decided; the oldest give way, so that nobody can fill the session."""

MOST_BYTES: Final = 64 * 1024
"""Of the arguments of one call: nobody reads more before saying yes, and a client could have the server digest megabytes."""


class Proposal(NamedTuple):
    """What is sealed of a call that waits.

    Attributes:
        digest: Of its id, its name and its arguments.
        until: When its time is over, in seconds since the epoch.
        use: What a store knows the use of this very proposal by: models give one id to several calls.
        intent: Tag of what the model said beside it; empty where it said nothing.
    """

    digest: str
    until: int
    use: str
    intent: str = ""


def add_proposal(
    session: Session, id_: str, name: str, arguments: Mapping[str, Any], *, now: float, intent: str | None = None
) -> str:
    """Have a call wait for a person; gives its digest.

    Args:
        session: Whose call it is.
        id_: What the model calls it.
        name: Name of the tool.
        arguments: Name -> value.
        now: Seconds since the epoch.
        intent: What the person is told beside it.

    Raises:
        ToolArgumentError: The arguments are not the same in every JSON parser, so nobody could say what was approved.
        SessionValueError: The session is full.
    """
    digest = digest_of(id_, name, arguments)
    proposal = Proposal(digest, int(now) + VALID_S, secrets.token_urlsafe(12), tag_of(intent))
    with state_of(session).lock:
        pending, decided = pending_in(session, now), decided_in(state_of(session), now)
        pending.pop(id_, None)
        decided.pop(id_, None)
        _keep(state_of(session), {**pending, id_: proposal}, decided)
    return digest


def settle(session: Session, ids: Iterable[str], *, now: float) -> None:
    """Take calls that were decided out of those that wait, and remember that they were."""
    done = dict.fromkeys(ids, int(now) + VALID_S)
    with state_of(session).lock:
        pending = {id_: proposal for id_, proposal in pending_in(session, now).items() if id_ not in done}
        _keep(state_of(session), pending, {**decided_in(state_of(session), now), **done})


def remove_proposals(session: Session, ids: Iterable[str], *, now: float) -> None:
    """Have calls wait no more, of which nobody has decided."""
    gone = set(ids)
    with state_of(session).lock:
        pending = {id_: proposal for id_, proposal in pending_in(session, now).items() if id_ not in gone}
        _keep(state_of(session), pending, decided_in(state_of(session), now))


def take(state: State, id_: str, use: str, *, now: float) -> list[tuple[State, Proposal]]:
    """Use up a call that waits: in this state and in every one below, down to the one that is sealed.

    What an effect has used must not come back with an overlay that is rolled back; so no overlay holds it alone.

    Returns:
        Where it was used, for ``give_back``; nothing where it does not wait any more.
    """
    with state.lock:
        proposal = proposed_in(state).get(id_)
        if proposal is None or proposal.use != use:
            return []
        below: list[tuple[State, Proposal]] = []
        if isinstance(state, Overlay) and _came_from_below(state, id_, use):
            below = take(state._parent, id_, use, now=now)
            if not below:
                return []
        pending = {other: found for other, found in _pending(state, now).items() if other != id_}
        _keep(state, pending, {**decided_in(state, now), id_: int(now) + VALID_S})
        return [(state, proposal), *below]


def give_back(used: Iterable[tuple[State, Proposal]], id_: str, *, now: float) -> None:
    """Have a call wait again, because it has not run after all."""
    for state, proposal in used:
        with state.lock:
            decided = {other: until for other, until in decided_in(state, now).items() if other != id_}
            _keep(state, {id_: proposal, **_pending(state, now)}, decided)


def waits(session: Session, id_: str) -> bool:
    """Whether a call of that id waits for a person, or did until its time was over."""
    return id_ in proposed_in(state_of(session))


def pending_in(session: Session, now: float) -> dict[str, Proposal]:
    """The calls of a session that wait now: id -> what is sealed of it, oldest first."""
    return _pending(state_of(session), now)


def is_sealed_as_waiting(state: State, id_: str) -> bool:
    """Whether a call waits in what was last sealed of a state, whatever has become of it since."""
    return id_ in (_object(state._own_arrived).get(PENDING) or {})


def is_digest_of(digest: str, id_: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a digest is that of a call; arguments that have none are those of no call that waits."""
    try:
        found = digest_of(id_, name, arguments)
    except ToolArgumentError:
        return False
    return hmac.compare_digest(found, digest)


def digest_of(id_: str, name: str, arguments: Mapping[str, Any]) -> str:
    """SHA-256 over id, name and canonical arguments (RFC 8785), each with its length before it.

    Raises:
        ToolArgumentError: The arguments have no canonical form, or are too long.
    """
    try:
        plain = dict(arguments)
        is_long = len(to_json(plain)) > MOST_BYTES
        parts = [] if is_long else [length_prefixed(part) for part in (id_, name, rfc8785.dumps(plain).decode())]
    except (rfc8785.CanonicalizationError, PydanticSerializationError, RecursionError, UnicodeEncodeError, ValueError):
        raise ToolArgumentError(
            "arguments: not the same in every JSON parser",
            [("arguments", "use integers up to 2**53-1, finite numbers and valid text: a person must approve what you mean")],
        ) from None
    if is_long:
        raise ToolArgumentError("arguments: too long", [("arguments", f"use at most {MOST_BYTES} bytes for what needs approval")])
    return encode(hashlib.sha256(b"".join(parts)).digest())


def tag_of(intent: str | None) -> str:
    """What tells a text that a person was shown from another one."""
    return encode(hashlib.sha256(intent.encode(errors="surrogatepass")).digest()[:12]) if intent else ""


def root_of(state: State) -> State:
    """The state below all overlays: the one that is sealed."""
    while isinstance(state, Overlay):
        state = state._parent
    return state


def proposed_in(state: State) -> dict[str, Proposal]:
    """The calls that wait, and those that did until their time was over: the next decision or proposal takes them out."""
    return {id_: Proposal(*sealed[:4]) for id_, sealed in _own(state).get(PENDING, {}).items()}


def _pending(state: State, now: float) -> dict[str, Proposal]:
    return {id_: proposal for id_, proposal in proposed_in(state).items() if now <= proposal.until}


def decided_in(state: State, now: float) -> dict[str, int]:
    """The calls that were decided a short while ago: id -> until when that is remembered, oldest first."""
    return {id_: until for id_, until in _own(state).get(DECIDED, {}).items() if now <= until}


def _came_from_below(state: State, id_: str, use: str) -> bool:
    """Whether a call waited already when an overlay was first touched, or where it was not touched yet."""
    if not state.is_touched:
        return True
    sealed = _object(state._own_arrived).get(PENDING, {}).get(id_)
    return sealed is not None and sealed[2] == use


def _own(state: State) -> dict[str, Any]:
    """The library's own member; a state that nobody has touched stays untouched, where it is plain to see that it has none."""
    while isinstance(state, Overlay) and not state.is_touched:
        state = state._parent
    return {} if not state.is_touched and lacks(state.arrived, QUOTED) else state.own()


def _keep(state: State, pending: Mapping[str, Proposal], decided: Mapping[str, int]) -> None:
    """Make these the calls that wait and those that are remembered; nothing is written where they are that already."""
    waiting = {id_: list(proposal if proposal.intent else proposal[:3]) for id_, proposal in list(pending.items())[-MOST_PENDING:]}
    members = {PENDING: waiting, DECIDED: dict(list(decided.items())[-MOST_PENDING:])}
    before = _own(state)
    others = {name: value for name, value in before.items() if name not in members}
    after = {**others, **{name: value for name, value in members.items() if value}}
    if after != before:
        state.keep(after)


def _object(data: bytes | None) -> dict[str, Any]:
    found = {} if data is None else read(data)
    return found if isinstance(found, dict) else {}
