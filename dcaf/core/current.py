"""The session of the turn that is running, from anywhere below the middleware.

>>> from dcaf.core.session import Session
>>> with running(Session()):
...     current_session().set("step", 1)
...     current_session()["step"]
1

What a reader gets wrong: this is a context variable. Threads started by anyio, asyncio and Starlette see it; a thread
that you start yourself sees it only in a copied context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar, overload

from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session

S = TypeVar("S", bound=Session)

_current: Final[ContextVar[Session]] = ContextVar("dcaf_current_session")
_in_a_call: Final[ContextVar[bool]] = ContextVar("dcaf_in_a_call", default=False)


@overload
def current_session() -> Session: ...
@overload
def current_session(as_type: type[S]) -> S: ...


def current_session(as_type: type[Session] = Session) -> Session:
    """The session of the turn that is running, as a plain or a typed one.

    Raises:
        ConfigurationError: No turn is running here.
    """
    try:
        session = _current.get()
    except LookupError:
        raise ConfigurationError(
            "current_session() was called outside a turn. Mount SessionMiddleware around the application, and call it while a "
            "request is handled, or pass the session along. Exempt routes have no session."
        ) from None
    return session if type(session) is as_type else as_type.of(session)


def in_a_call() -> bool:
    """Whether a tool is being called here, whose writes are not committed yet."""
    return _in_a_call.get()


@contextmanager
def calling() -> Iterator[None]:
    """Say that the code inside is a tool's."""
    token = _in_a_call.set(True)
    try:
        yield
    finally:
        _in_a_call.reset(token)


@contextmanager
def running(session: Session) -> Iterator[None]:
    """Make a session the current one for the code inside."""
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)
