"""A chat page that shows the session at work: what the tools see, what travels, and what happens to whoever cheats.

>>> Page(suggestions=("start",)).suggestions
('start',)
>>> [route.path for route in build_page_routes(Page(), title="greeter", store=None, settings={})]
['/', '/page/settings', '/page/{name}']

What a reader gets wrong: the page is a client like any other. It has no key and no route of its own to the session, and shows only
what it has read in the answers of the agent's service.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from dcaf.core.errors import ConfigurationError
from dcaf.core.journal import Facts
from dcaf.core.sealer import MAX_TOKEN_BYTES
from dcaf.core.store import SessionStore, StoreSource, level_of

STATIC: Final = Path(__file__).parent / "static"
THREAD: Final = "/thread_id"
PATH: Final = re.compile(r"(?:/(?!/)[^\s?#\\]*)?")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Nothing is loaded from elsewhere, nothing inline runs, and no text becomes markup (CSP level 3, Trusted Types)."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the page says of the service.

    Attributes:
        title: Its heading; empty takes the agent's name.
        suggestions: What a visitor could say; each is a button.
        log_out: The path below the page's own at which the application ends the session of a POST, for instance "/api/log-out": the
            page has a button for it. Empty for none.
        memory: What shows the memory of the user beside the session, where the server keeps the conversation:
            ``dcaf.service.Memory``, or a class with the same ``of`` and ``all``. Whoever has a session of the user reads it there.
            None for nothing.

    Raises:
        ConfigurationError: The title or a suggestion is no text, ``log_out`` no path, or ``memory`` no such class.
    """

    title: str = ""
    suggestions: Sequence[str] = ()
    log_out: str = ""
    memory: type[Facts] | None = None

    def __post_init__(self) -> None:
        given: object = self.suggestions
        if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in (self.title, *given)):
            raise ConfigurationError('Page takes texts, for instance Page("Shop", suggestions=("start", "help")).')
        path: object = self.log_out
        if not isinstance(path, str) or not path.isprintable() or not PATH.fullmatch(path):
            raise ConfigurationError(
                'Page takes log_out= as a path, for instance log_out="/api/log-out"; empty for no such button.'
            )
        memory: object = self.memory
        if memory is not None and not (isinstance(memory, type) and _has_facts(memory)):
            raise ConfigurationError("Page takes memory=Memory, the class of dcaf.service, or None for no such table.")


def build_page_routes(
    page: Page, *, title: str, store: SessionStore | StoreSource | None, settings: Mapping[str, Any], history: str = "client"
) -> list[BaseRoute]:
    """The routes of the page, all of them GET.

    Args:
        page: What it says.
        title: Its heading where the page has none.
        store: Whose level it shows; None is L0.
        settings: Those of the SessionMiddleware around it.
        history: Who keeps the conversation: ``"client"``, or ``"server"``.

    Raises:
        ConfigurationError: The session does not travel in the body, where the page reads it.
    """
    if "body" not in settings.get("carriers", ("body",)):
        raise ConfigurationError('page= reads the session in the body: add "body" to carriers=, or leave the page out.')
    facts = _describe_service(page, title, store, settings) | {"history": history, "memory": page.memory is not None}
    files = _Files(directory=STATIC)

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    async def file(request: Request) -> Response:
        return await files.get_response(request.path_params["name"], request.scope)

    async def service(_: Request) -> Response:
        return JSONResponse(facts, headers=HEADERS)

    return [Route("/", index), Route("/page/settings", service), Route("/page/{name}", file)]


def _has_facts(memory: type) -> bool:
    return all(callable(getattr(memory, name, None)) for name in ("of", "all"))


def _describe_service(
    page: Page, title: str, store: SessionStore | StoreSource | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page knows of the service, apart from its answers."""
    conversation = settings.get("conversation")
    return {
        "title": page.title or title,
        "suggestions": list(page.suggestions),
        "level": level_of(store),
        "restarts": settings.get("on_refused") == "restart",
        "max_token_bytes": settings.get("max_token_bytes", MAX_TOKEN_BYTES),
        "conversation": conversation if isinstance(conversation, str) else THREAD,
        "log_out": page.log_out and f".{page.log_out}",
    }


class _Files(StaticFiles):
    """The page's files, each with the page's headers."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """A file, or the answer that it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response
