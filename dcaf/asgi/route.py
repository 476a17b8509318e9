"""What a route is called where an operator reads it: by the path that the developer wrote, and never by the one that was asked for.

>>> name_route({"path": "/users/ada@example.org/chat"})
'an unnamed route'

A framework that routes by paths leaves the route's own in the scope: Starlette and FastAPI as ``route``, Litestar as
``path_template``. Where none does, the path that came in could name the caller in any of its parts, so the route has no name.

What a reader gets wrong: only after the application has routed a request is there a name, in the scope that it was given.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import Scope

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
