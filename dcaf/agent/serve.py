"""An agent under uvicorn: ``serve(agent, audience=...)`` in a program, and what ``dcaf serve module:agent`` runs.

What a reader gets wrong: with ``reload`` each new process imports the agent anew, so it is named, and not passed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp

from dcaf.agent.agent import Agent
from dcaf.agent.app import create_app
from dcaf.agent.config import require
from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import load_target

try:
    import uvicorn
except ModuleNotFoundError:  # the extra `agent` answers conversations in any program; only serving them needs a server
    uvicorn = None  # type: ignore[assignment]

LAST_PORT: Final = 65_535
TARGET: Final = "DCAF_SERVE"
AUDIENCE: Final = "DCAF_AUDIENCE"
CONVERSATION: Final = "DCAF_CONVERSATION"
PAGE: Final = "DCAF_PAGE"
"""Where a process that was started for a reload finds what to serve."""


def serve(agent: Agent | Callable[..., Any], *, host: str = "127.0.0.1", port: int = 8000, **settings: Any) -> None:
    """Serve an agent until interrupted.

    Args:
        agent: The agent, or an agent function.
        host: Address to listen on.
        port: Port to listen on.
        **settings: As of ``create_app``: ``audience=``, ``keys=`` and the like.

    Raises:
        ConfigurationError: A setting is wrong, or uvicorn is not installed.
    """
    require("host=", host, str, "an address, as host='127.0.0.1'")
    if type(port) is not int or not 0 <= port <= LAST_PORT:
        raise ConfigurationError(f"port= takes a number from 0 to {LAST_PORT}.")
    app = create_app(agent, **settings)
    _server().run(app, host=host, port=port)


def serve_named(
    target: str,
    *,
    audience: str | None = None,
    conversation: str | None = None,
    page: bool = False,
    host: str,
    port: int,
    reload: bool,
) -> None:
    """Serve what a text like ``shop.agents:support`` names.

    Args:
        target: Module and name of an Agent, an agent function, or an ASGI application that is ready.
        audience: The service's name; None takes the target's.
        conversation: Where a body names its conversation, as ``/thread_id``; None binds sessions to none.
        page: Whether a chat page is at ``/``.
        host: Address to listen on.
        port: Port to listen on.
        reload: Whether to start anew when a file changes.

    Raises:
        ConfigurationError: There is no such thing, a setting is wrong, or uvicorn is not installed.
    """
    os.environ |= {TARGET: target, AUDIENCE: audience or "", CONVERSATION: conversation or "", PAGE: "1" if page else ""}
    app = named_app()
    named = f"{__name__}:named_app" if reload else app
    _server().run(named, factory=reload, host=host, port=port, reload=reload, app_dir=os.getcwd())  # noqa: PTH109


def named_app() -> ASGIApp:
    """The application that the environment names. Raises as ``serve_named``."""
    target, audience, conversation, page = (os.environ[name] for name in (TARGET, AUDIENCE, CONVERSATION, PAGE))
    found = load_target(target)
    if isinstance(found, type) or not (callable(found) or isinstance(found, Agent)):
        raise ConfigurationError(f"{target!r} is neither an Agent, nor an agent function, nor an application. Write module:name.")
    if isinstance(found, Agent) or not _is_app(found):
        return create_app(found, audience=audience or target, conversation=conversation or None, page=bool(page))
    if audience or conversation or page:
        raise ConfigurationError(
            f"{target!r} is an application that is ready: its audience, conversation and page are those of its create_app."
        )
    app: ASGIApp = found
    return app


def _is_app(found: Any) -> bool:
    """Whether something is an ASGI application rather than an agent function: its last two parameters receive and send."""
    names = getattr(getattr(found, "__call__", found), "__code__", None) or getattr(found, "__code__", None)  # noqa: B004
    return names is not None and names.co_varnames[: names.co_argcount][-2:] == ("receive", "send")


def _server() -> Any:
    if uvicorn is None:
        raise ConfigurationError("Serving needs uvicorn: pip install 'dcaf[agent,server]'")
    return uvicorn
