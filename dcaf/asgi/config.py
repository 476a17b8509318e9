"""What is the same for all turns of one service, and which routes a setting names.

>>> routes("exempt", ("/health",))({"path": "/app/health", "root_path": "/app"})
True
>>> routes("exempt", "health")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: exempt= takes paths, for instance exempt=("/api/chat",), or a function of the scope.

A wrong setting fails when the middleware is constructed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final, Literal, TypeAlias, TypeVar

from starlette.types import Scope

from dcaf.asgi.body import Flights
from dcaf.asgi.carriers import Carrier
from dcaf.asgi.events import Events, Watcher
from dcaf.asgi.identity import Identity
from dcaf.asgi.json_sessions import Verify
from dcaf.asgi.terminal import Terminal
from dcaf.core.arguments import texts_of
from dcaf.core.envelope import Sealer
from dcaf.core.errors import ConfigurationError
from dcaf.core.session_dict import SessionDict
from dcaf.core.store import SessionStore
from dcaf.core.unsigned import Import

T = TypeVar("T")

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The longest JSON body that is read where an application says nothing else."""

Routes: TypeAlias = "Iterable[str] | Callable[[Scope], bool]"
"""Whole paths, or a function of the scope that is true for the routes that are meant."""


@dataclass(frozen=True, slots=True)
class Config:
    """What is the same for all turns of one service.

    Attributes:
        sealer: Who opens and seals.
        identity: Whom a session is bound to.
        store: Keeps sessions; None keeps none.
        events: Whom to tell.
        restarts: Whether a refused session is started empty instead; None leaves it to what the session came by.
        unsigned: What happens to plain sessions.
        is_plain: Whether a route reads and writes the whole state itself; None where none does.
        passes_streams: Whether a route's streams pass as they are; None where none does.
        terminal: Which event or frame ends a turn.
        verify: Opens the token that stands first in a body; nothing where bodies carry no session.
        flights: How many bytes of bodies are being read.
        max_body_bytes: The longest JSON body or frame that is read.
        max_response_bytes: The longest JSON answer, event or frame that is completed.
        in_body: Whether bodies and frames carry sessions.
        carriers: What else does, by precedence.
        binds_request_session: Whether ``request.session`` is the session too.
        shown_as: The class of what that is; None is the Session itself.
    """

    sealer: Sealer
    identity: Identity
    store: SessionStore | None
    events: Events
    restarts: bool | None
    unsigned: Import | Literal["reject", "ignore"]
    is_plain: Callable[[Scope], bool] | None
    passes_streams: Callable[[Scope], bool] | None
    terminal: Terminal
    verify: Verify
    flights: Flights = field(repr=False)
    max_body_bytes: int
    max_response_bytes: int
    in_body: bool
    carriers: tuple[Carrier, ...]
    binds_request_session: bool
    shown_as: type[SessionDict] | None


def watcher(level: str) -> Watcher | None:
    """Who tells OpenTelemetry of every turn; None where its API is not installed."""
    try:
        # By name, so that a service without telemetry loads nothing of it.
        found: Watcher = import_module("dcaf.asgi.telemetry").Telemetry(level)
    except ModuleNotFoundError:
        return None
    return found


def routes(name: str, value: Routes) -> Callable[[Scope], bool] | None:
    """Whether a scope is one of these routes: whole paths, or a function of the scope. None where none is named.

    Raises:
        ConfigurationError: It is a bare string, or a path does not begin with a slash.
    """
    if callable(value) and not isinstance(value, type):
        return value
    paths = texts_of(value)
    if paths is None or not all(path.startswith("/") for path in paths):
        raise ConfigurationError(f'{name}= takes paths, for instance {name}=("/api/chat",), or a function of the scope.')
    named = frozenset(paths)
    return (lambda scope: route_path(scope) in named) if named else None


def route_path(scope: Scope) -> str:
    """The path of a request as the application's routes have it: without that of the place where the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    below: str = path[len(root) :] if root and path.startswith(root) else path
    return below if below.startswith("/") else "/" if below == "" else path
