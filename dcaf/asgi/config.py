"""What is the same for all turns of one service: which routes a setting names, and which events end a turn.

What a route is called where an operator reads it: by the path that the developer wrote, and never by the one that was asked for.

>>> name_route({"path": "/users/ada@example.org/chat"})
'an unnamed route'

A framework that routes by paths leaves the route's own in the scope: Starlette and FastAPI as ``route``, Litestar as
``path_template``. Where none does, the path that came in could name the caller in any of its parts, so the route has no name.

What a reader gets wrong: only after the application has routed a request is there a name, in the scope that it was given.

Which event of a stream, and which frame of a WebSocket, ends a turn.

>>> is_done(None, {"type": "done"}), is_done("done", None), may_be_done(None, b'{"type":"token"}')
(True, True, False)

What a reader gets wrong: the quick looks at the bytes only ever say no. What may be the end is parsed, and then asked.

What is the same for all turns of one service, and which routes a setting names.

>>> parse_routes("exempt", ("/health",))({"path": "/app/health", "root_path": "/app"})
True
>>> parse_routes("exempt", "health")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: exempt= takes paths, for instance exempt=("/api/chat",), or a function of the scope.

A wrong setting fails when the middleware is constructed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias, TypeVar

from starlette.types import Scope

from dcaf.asgi.body import BytesInFlight
from dcaf.asgi.carriers import Carrier
from dcaf.asgi.events import Events, Watcher
from dcaf.asgi.identity import Identity
from dcaf.asgi.json_sessions import Verify
from dcaf.asgi.json_walk import may_hold_session
from dcaf.core.arguments import texts_of
from dcaf.core.errors import ConfigurationError
from dcaf.core.migrations import Import
from dcaf.core.sealer import Sealer
from dcaf.core.session_dict import SessionDict
from dcaf.core.store import SessionStore

UNNAMED: Final = "an unnamed route"
FIELD: Final = re.compile(r"(\{[^{}]*\})")
"""A part of a route's path that stands for many: ``{name}``, or ``{rest:path}``."""

ANY: Final = "[^/]+"
REST: Final = ".+"


def name_route(scope: Scope) -> str:
    """The route's own path where the framework tells it."""
    return _path(scope) or UNNAMED


def name_request(scope: Scope) -> str:
    """Method and route, to begin a sentence with."""
    path = _path(scope)
    return f"An unnamed route ({scope['method']})" if path is None else f"{scope['method']} {path}"


def advise_plain(scope: Scope, path: str) -> str:
    """What to give ``plain=`` so that it names this route.

    Args:
        scope: As the application left it.
        path: Which the middleware compares.
    """
    own = _path(scope)
    if own == path:
        return f"name the route: SessionMiddleware(..., plain=({own!r},))"
    pattern = "" if own is None else "".join(_pattern(part) for part in FIELD.split(own))
    if re.fullmatch(pattern, path):
        return f'name the route: SessionMiddleware(..., plain=lambda scope: bool(re.fullmatch({pattern!r}, scope["path"])))'
    return "name the route: SessionMiddleware(..., plain=...) takes whole paths, or a function of the scope that is true for it"


def _path(scope: Scope) -> str | None:
    found = getattr(scope.get("route"), "path", None) or scope.get("path_template")
    return found if isinstance(found, str) else None


def _pattern(part: str) -> str:
    if not FIELD.fullmatch(part):
        return re.escape(part)
    return REST if part.endswith(":path}") else ANY


Terminal: TypeAlias = Callable[[str | None, Any], bool]
"""Whether an event ends a turn: a function of its name, None where it has none, and its value, None where it is not JSON."""

DONE: Final = "done"


def is_done(name: str | None, value: Any) -> bool:
    """The event that ends a turn, by default: a JSON object with the type ``done``, or a server-sent event of that name."""
    return (isinstance(name, str) and name == DONE) or (isinstance(value, dict) and value.get("type") == DONE)


def may_be_done(name: str | None, data: bytes) -> bool:
    """Whether it is worth while to parse an event to ask ``is_done``; an escaped text could say anything."""
    return name == DONE or data.find(b'"done"') >= 0 or data.find(b"\\u") >= 0


def cannot_end_turn(chunk: bytes) -> bool:
    """Whether no event in some bytes of a stream can be the one that ``is_done`` looks for, nor ``[DONE]``, nor have a session."""
    return chunk.find(b"done") < 0 and chunk.find(b"DONE") < 0 and chunk.find(b"\\u") < 0 and not may_hold_session(chunk)


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
        bytes_in_flight: How many bytes of bodies are being read.
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
    bytes_in_flight: BytesInFlight = field(repr=False)
    max_body_bytes: int
    max_response_bytes: int
    in_body: bool
    carriers: tuple[Carrier, ...]
    binds_request_session: bool
    shown_as: type[SessionDict] | None


def load_telemetry(level: str) -> Watcher | None:
    """Who tells OpenTelemetry of every turn; None where its API is not installed."""
    try:
        # By name, so that a service without telemetry loads nothing of it.
        found: Watcher = import_module("dcaf.asgi.telemetry").Telemetry(level)
    except ModuleNotFoundError:
        return None
    return found


def parse_routes(name: str, value: Routes) -> Callable[[Scope], bool] | None:
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
