"""The session of the turn that is running, from anywhere below the middleware.

>>> from dcaf.core.session import Session
>>> with running(Session()):
...     current_session().set("step", 1)
...     current_session()["step"]
1

What a reader gets wrong: it is a context variable. Threads started by anyio, asyncio and Starlette see it; a thread that you start
yourself sees it only in a copied context.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Final, Generic, TypeVar, overload

from dcaf.core.arguments import kind_of
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.core.typed import SessionType

S = TypeVar("S", bound=Session)
T = TypeVar("T")

_current: Final[ContextVar[Session]] = ContextVar("dcaf_current_session")
_call: Final[ContextVar[bool | None]] = ContextVar("dcaf_call", default=None)


@overload
def current_session() -> Session: ...
@overload
def current_session(as_type: type[S]) -> S: ...


def current_session(as_type: type[Session] = Session) -> Session:
    """The session of the turn that is running, as a plain or a typed one.

    Raises:
        ConfigurationError: No turn is running here, or ``as_type`` is no class of sessions.
    """
    if not (isinstance(as_type, SessionType) and hasattr(as_type, "of")):
        raise ConfigurationError(
            f"current_session() takes a subclass of Session, as in current_session(Deploy), and not {kind_of(as_type)}. "
            "For one key write current_session().get(key, as_type=...)."
        )
    try:
        session = _current.get()
    except LookupError:
        raise ConfigurationError(
            "current_session() was called outside a turn. Mount SessionMiddleware around the application, and call it while a "
            "request is handled, or pass the session along. Exempt routes have no session."
        ) from None
    return session if type(session) is as_type else as_type.of(session)


def find_session() -> Session | None:
    """The session of the turn that is running; None where none is."""
    return _current.get(None)


def in_a_call() -> bool:
    """Whether a tool is running here, whose writes are not committed yet."""
    return _call.get() is not None


def is_call_approved() -> bool | None:
    """Whether a person has approved the call of the tool that runs here; None where none runs."""
    return _call.get()


class Within(Generic[T]):
    """Sets a context variable for the code inside, in a third of the time that ``contextmanager`` takes."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token: Token[T] = self._variable.set(self._value)

    def __exit__(self, *raised: object) -> None:
        self._variable.reset(self._token)


def calling(*, is_approved: bool = False) -> Within[bool | None]:
    """Mark the code inside as a tool's, with or without a person's approval of its call."""
    return Within(_call, is_approved)


def running(session: Session) -> Within[Session]:
    """Make a session the current one for the code inside."""
    return Within(_current, session)


def begin(session: Session) -> Token[Session]:
    """Make a session the current one until ``end``: ``running`` for a caller that has a ``finally`` of its own."""
    return _current.set(session)


def end(token: Token[Session]) -> None:
    """Make what was current before ``begin`` current again."""
    _current.reset(token)
