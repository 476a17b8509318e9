"""A part of a turn that is kept as a whole, or not at all.

>>> from dcaf.core.context import current_session
>>> session = Session.from_dict({"step": 1})
>>> with transaction(session) as draft:
...     draft["step"] = 2
...     session["step"], current_session()["step"]
(1, 2)
>>> session["step"]
2

What a reader gets wrong: nobody waits for a transaction. What changed in the session meanwhile, and in the transaction too, is
merged as of two calls of tools that run side by side; where only one change can be kept, it is that of the transaction, and the log
says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import Final, Literal, NoReturn, TypeVar

from dcaf.core.context import _current
from dcaf.core.errors import SessionClosedError
from dcaf.core.overlay import Overlay
from dcaf.core.session import Session, session_behind
from dcaf.core.state import State

logger: Final[logging.Logger] = logging.getLogger("dcaf")

S = TypeVar("S", bound=Session)

OUTSIDE: Final = "a change from outside"
"""What the log calls a change that no call has made."""

_innermost: Final[ContextVar[Transaction | None]] = ContextVar("dcaf_transaction", default=None)


class Transaction:
    """One that is open; a call of a tool is one, too. ``with`` makes it the innermost one, and its session the current one.

    Args:
        below: What it is committed into.
        kind: The class of its session.

    Attributes:
        outer: The one that was the innermost where this one began.
        overlay: What is done in it.
        session: The same, as those who do it see it.
    """

    __slots__ = ("_tokens", "outer", "overlay", "session")

    def __init__(self, below: State, kind: type[Session] = Session) -> None:
        self.outer: Transaction | None = _innermost.get()
        self.overlay: Overlay = Overlay(below)
        self.session: Session = kind._over(self.overlay)
        self._tokens: tuple[Token[Transaction | None], Token[Session]] | None = None

    def __enter__(self) -> None:
        self._tokens = _innermost.set(self), _current.set(self.session)

    def __exit__(self, *raised: object) -> None:
        assert self._tokens is not None
        innermost, current = self._tokens
        _current.reset(current)
        _innermost.reset(innermost)


def innermost(state: State) -> Transaction | None:
    """The innermost transaction that is open here, and is of a state or over it; None where there is none."""
    found = _innermost.get()
    while found is not None:
        if found.overlay._late is None and (found.overlay is state or found.overlay.is_over(state)):
            return found
        found = found.outer
    return None


def transaction(session: S) -> AbstractContextManager[S]:
    """Keep all of what the code inside does to a session when it ends, or nothing of it when it raises.

    Inside, ``current_session()`` is the draft, and the tools that run there are part of it, whichever of the two sessions they are
    given. A transaction inside another one, or inside a call of a tool, is part of that.

    Args:
        session: The session.

    Returns:
        A context manager that gives the draft: a session of the same class, which nobody else sees.

    Raises:
        ConfigurationError: It is no Session.
        SessionAliasError, SessionValueError: At the end, what was done cannot be written, or would be too large together. Then
            nothing is kept.
    """
    return _drafted(session_behind(session, "transaction()"))


@contextmanager
def _drafted(session: Session) -> Iterator[S]:
    around = innermost(session._state)
    below = session._state if around is None else around.overlay
    made = Transaction(below, type(session))
    try:
        with made:
            yield made.session  # type: ignore[misc]
        with made.overlay._lock, below._lock:  # in this order, as of a commit
            done = made.overlay.commit()
            made.overlay._late = refuse_late
    finally:
        made.overlay.pass_reads()
    for clash in done.clashes:
        log_clash("a transaction", OUTSIDE, clash.kind)


def log_clash(kept: str, dropped: str, kind: Literal["stale-read", "write-write"]) -> None:
    """Say that one change was kept over another. Neither key nor value is in it, which may be a user's.

    Args:
        kept: Whose change was kept: the name of a tool, or words.
        dropped: Whose was not; OUTSIDE where it has no name.
        kind: As of a ``dcaf.core.overlay.Clash``.
    """
    logger.warning("dcaf: %s was kept over %s (%s)", kept, dropped, kind)


def refuse_late() -> NoReturn:
    """Refuse a change to a session that was committed already: called at once where it is what an overlay has for ``end``.

    Raises:
        SessionClosedError: Always.
    """
    raise SessionClosedError(
        "The session was changed after the call, or the transaction, that it was of had ended: nobody would have seen the change. "
        "Await what changes it before the end; a task that outlives it takes the session of the turn, and runs a tool of its own."
    )
