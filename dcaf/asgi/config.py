"""What is the same for all turns of one service: its checked settings, the routes that they name, and which events end a turn.

>>> parse_routes("exempt", ("/health",))({"path": "/app/health", "root_path": "/app"})
True
>>> is_done(None, {"type": "done"}), is_done("done", None), may_be_done(None, b'{"type":"token"}')
(True, True, False)
>>> name_route({"path": "/users/ada@example.org/chat"})
'an unnamed route'

A route is named to an operator by the path that the developer wrote, and never by the one that was asked for: that could name the
caller in any of its parts. Frameworks leave the route's own path in the scope (Starlette and FastAPI as ``route``, Litestar as
``path_template``), and only after they have routed the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias

from starlette.types import Scope

from dcaf.asgi.body import BytesInFlight
from dcaf.asgi.carriers import Carrier
from dcaf.asgi.identity import Identity
from dcaf.asgi.json_sessions import Verify
from dcaf.asgi.json_walk import may_hold_session
from dcaf.asgi.operator_events import Events, Watcher
from dcaf.core.arguments import texts_of
from dcaf.core.errors import ConfigurationError
from dcaf.core.migrations import Import
from dcaf.core.sealer import Sealer
from dcaf.core.session_dict import SessionDict
from dcaf.core.store import SessionStore

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The longest JSON body that is read, by default."""

Routes: TypeAlias = "Iterable[str] | Callable[[Scope], bool]"
"""Whole paths, or a function of the scope that is true for the routes that are meant."""

Terminal: TypeAlias = Callable[[str | None, Any], bool]
"""Whether an event ends a turn: a function of its name, None where it has none, and its value, None where it is not JSON."""

DONE: Final = "done"
UNNAMED: Final = "an unnamed route"
FIELD: Final = re.compile(r"(\{[^{}]*\})")
"""A part of a route's path that stands for many: ``{name}``, or ``{rest:path}``."""

ANY: Final = "[^/]+"
REST: Final = ".+"


@dataclass(frozen=True, slots=True)
class Config:
    """The checked settings of one service.

    Attributes:
        sealer: Opens and seals sessions.
        identity: Asks the application who is calling.
        store: Keeps sessions; None where none does.
        events: Reports to the operator.
        restarts: Whether a refused session is started empty instead; None leaves that to its carrier.
        unsigned: What happens to plain sessions.
        is_plain, passes_streams: Whether a route reads and writes the whole state itself, and whether its streams pass as they are;
            None where no route does.
        terminal: Which event or frame ends a turn.
        verify: Opens the token that stands first in a body; opens none where bodies carry no session.
        bytes_in_flight: Counts the bytes of bodies that are being read.
        max_body_bytes, max_response_bytes: The longest body or frame that is read, and the longest answer, event or frame that is
            completed.
        in_body: Whether bodies and frames carry sessions.
        carriers: The other carriers, by precedence.
        binds_request_session: Whether ``request.session`` is the session too.
        shown_as: The class of ``request.session``; None is the Session itself.
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


def parse_routes(name: str, value: Routes) -> Callable[[Scope], bool] | None:
    """A function that says whether a scope is one of these routes; None where none is named.

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
    """The path of a request as the application's routes have it: without the path where the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    below: str = path[len(root) :] if root and path.startswith(root) else path
    return below if below.startswith("/") else "/" if below == "" else path


def is_done(name: str | None, value: Any) -> bool:
    """Whether an event ends a turn, by default: a JSON object with the type ``done``, or a server-sent event of that name."""
    return (isinstance(name, str) and name == DONE) or (isinstance(value, dict) and value.get("type") == DONE)


def may_be_done(name: str | None, data: bytes) -> bool:
    """Whether ``is_done`` could be true of an event that is not parsed yet; an escaped text could say anything."""
    return name == DONE or data.find(b'"done"') >= 0 or data.find(b"\\u") >= 0


def cannot_end_turn(chunk: bytes) -> bool:
    """Whether no event in a chunk can be one that ``is_done`` looks for, or ``[DONE]``, or have a session in it."""
    return chunk.find(b"done") < 0 and chunk.find(b"DONE") < 0 and chunk.find(b"\\u") < 0 and not may_hold_session(chunk)


def name_route(scope: Scope) -> str:
    """The route's own path where the scope has it, for an operator."""
    return _path(scope) or UNNAMED


def name_request(scope: Scope) -> str:
    """Method and route, as the beginning of a sentence."""
    path = _path(scope)
    return f"An unnamed route ({scope['method']})" if path is None else f"{scope['method']} {path}"


def advise_plain(scope: Scope, path: str) -> str:
    """What to write so that ``plain=`` names this route.

    Args:
        scope: As the application left it.
        path: What the middleware compares.
    """
    own = _path(scope)
    if own == path:
        return f"name the route: SessionMiddleware(..., plain=({own!r},))"
    pattern = "" if own is None else "".join(_pattern(part) for part in FIELD.split(own))
    if re.fullmatch(pattern, path):
        return f'name the route: SessionMiddleware(..., plain=lambda scope: bool(re.fullmatch({pattern!r}, scope["path"])))'
    return "name the route: SessionMiddleware(..., plain=...) takes whole paths, or a function of the scope that is true for it"


def load_telemetry(level: str) -> Watcher | None:
    """What tells OpenTelemetry of every turn; None where its API is not installed."""
    try:
        # By name, so that a service without telemetry loads nothing of it.
        watcher: Watcher = import_module("dcaf.asgi.telemetry").Telemetry(level)
    except ModuleNotFoundError:
        return None
    return watcher


def _path(scope: Scope) -> str | None:
    found = getattr(scope.get("route"), "path", None) or scope.get("path_template")
    return found if isinstance(found, str) else None


def _pattern(part: str) -> str:
    if not FIELD.fullmatch(part):
        return re.escape(part)
    return REST if part.endswith(":path}") else ANY
