"""Where a part of a turn is made part of the session, or of a larger part; what gave way there is told, as it is of tools.

>>> session = Session.from_dict({"n": 0})
>>> one, other = begin_overlay(session), begin_overlay(session)
>>> one["n"], other["n"] = one["n"] + 1, other["n"] + 1
>>> commit_overlay(one, "the first"), [(clash.key, clash.kind, clash.kept.tool) for clash in commit_overlay(other, "the second")]
([], [('n', 'stale-read', 'the second')])

What a reader gets wrong: nothing here merges. An overlay does, and says what it could not keep; here nobody may throw that away.
"""

from __future__ import annotations

from dcaf.core.overlay import Overlay
from dcaf.core.paths import join
from dcaf.core.session import Session
from dcaf.core.transaction import OUTSIDE, log_clash
from dcaf.tools.conflicts import Caller, Conflict


def begin_overlay(session: Session) -> Session:
    """A session over another one: what is done to it is its own until it is committed."""
    return Session._over(Overlay(session._state))


def commit_overlay(session: Session, who: str) -> list[Conflict]:
    """Make an overlaid session part of the one below; gives, and tells the operator, what changed there and was not kept.

    Args:
        session: As ``begin_overlay`` gave it.
        who: Whose changes these are, for the log.

    Raises:
        SessionAliasError, SessionValueError: What was done to it cannot be written. Nothing was committed.
    """
    state = session._state
    assert isinstance(state, Overlay)
    clashes = [Conflict(clash.key, join(clash.path), clash.kind, Caller(0, who, None), None) for clash in state.commit().clashes]
    for clash in clashes:
        log_clash(who, OUTSIDE, clash.kind)
    return clashes
