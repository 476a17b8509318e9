"""Serve an agent with uvicorn: ``serve(agent, audience=...)`` in a program, and what ``dcaf serve module:agent`` runs.

What a reader gets wrong: with ``reload``, and with several workers, each new process imports the agent anew, so it is named, and
not passed. Each opens the database for itself, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from starlette.types import ASGIApp

from dcaf.agent.agent import Agent
from dcaf.agent.app import create_app
from dcaf.agent.config import require
from dcaf.agent.page import Page
from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import load_target
from dcaf.core.keys import Keyring
from dcaf.core.store import SessionStore

try:
    import uvicorn
except ModuleNotFoundError:  # the extra `agent` answers conversations in any program; only serving them needs a server
    uvicorn = None  # type: ignore[assignment]

LAST_PORT: Final = 65_535
TARGET: Final = "DCAF_SERVE"
AUDIENCE: Final = "DCAF_AUDIENCE"
CONVERSATION: Final = "DCAF_CONVERSATION"
LEDGER: Final = "DCAF_LEDGER"
SESSIONS: Final = "DCAF_SESSIONS"
ENCRYPTED: Final = "DCAF_ENCRYPTED"
PAGE: Final = "DCAF_PAGE"
"""The environment variables in which a process that was started for a reload, or as one of several, finds what to serve."""

MEMORY: Final = "memory://"
"""The url of what is one process's own."""

WORKERS: Final = "WEB_CONCURRENCY"
"""The environment variable in which uvicorn finds how many processes serve."""


def serve(agent: Agent | Callable[..., Any], *, host: str = "127.0.0.1", port: int = 8000, **settings: Any) -> None:
    """Serve an agent until interrupted.

    Args:
        agent: The agent, or an agent function.
        host: Address to listen on.
        port: Port to listen on.
        **settings: Those of ``create_app``: ``audience=``, ``keys=``, ``store=`` and the like.

    Raises:
        ConfigurationError: A setting is wrong, or uvicorn is not installed.
    """
    require("host=", host, str, "an address, as host='127.0.0.1'")
    if type(port) is not int or not 0 <= port <= LAST_PORT:
        raise ConfigurationError(f"port= takes a number from 0 to {LAST_PORT}.")
    app = create_app(agent, **settings)
    _require_uvicorn().run(app, host=host, port=port)


def serve_named(
    target: str,
    *,
    audience: str | None = None,
    conversation: str | None = None,
    ledger: str | None = None,
    sessions: str | None = None,
    encrypted: bool = False,
    page: bool = False,
    host: str,
    port: int,
    workers: int | None = None,
    reload: bool,
) -> None:
    """Serve what a text like ``shop.agents:support`` names.

    Args:
        target: Module and name of an Agent, an agent function, or an ASGI application that is ready.
        audience: The service's name; None takes the target's.
        conversation: Where a body names its conversation, as ``/thread_id``; None binds sessions to none.
        ledger: The url of a ledger, as ``open_engine`` takes it; None keeps none.
        sessions: The url of a session service, which keeps the conversation as well; None keeps no sessions.
        encrypted: Whether what it keeps is encrypted, with the keys in the environment.
        page: Whether a chat page is at ``/``.
        host: Address to listen on.
        port: Port to listen on.
        workers: How many processes serve; None takes ``WEB_CONCURRENCY``, or 1.
        reload: Whether to start anew when a file changes.

    Raises:
        ConfigurationError: There is no such thing, a setting is wrong, or uvicorn is not installed.
    """
    told = {TARGET: target, AUDIENCE: audience, CONVERSATION: conversation, LEDGER: ledger, SESSIONS: sessions}
    told |= {ENCRYPTED: "1" if encrypted else None, PAGE: "1" if page else None}
    os.environ |= {name: value or "" for name, value in told.items()}
    app = named_app()
    number = _count_workers(workers)
    if number > 1 and MEMORY in {ledger, sessions}:
        kept = "A ledger in memory:// is" if ledger == MEMORY else "Sessions in memory:// are"
        raise ConfigurationError(f"{kept} one process's own, and {number} serve: name a file, as sqlite:///dcaf.db.")
    anew = reload or number > 1
    served = f"{__name__}:named_app" if anew else app
    _require_uvicorn().run(
        served,
        factory=anew,
        host=host,
        port=port,
        reload=reload,
        **({} if workers is None else {"workers": workers}),
        app_dir=os.getcwd(),  # noqa: PTH109
    )


def named_app() -> ASGIApp:
    """The application that the environment names.

    Raises:
        ConfigurationError: There is no such thing, or a setting is wrong.
    """
    names = (TARGET, AUDIENCE, CONVERSATION, LEDGER, SESSIONS, ENCRYPTED, PAGE)
    target, audience, conversation, ledger, sessions, encrypted, page = (os.environ[name] for name in names)
    if encrypted and not sessions:
        raise ConfigurationError("--encrypted is for what --sessions keeps: --sessions sqlite:///dcaf.db --encrypted.")
    found = load_target(target)
    if isinstance(found, type) or not (callable(found) or isinstance(found, Agent)):
        raise ConfigurationError(f"{target!r} is neither an Agent, nor an agent function, nor an application. Write module:name.")
    if isinstance(found, Agent) or not _is_app(found):
        name = audience or target
        kept: dict[str, Any] = {"page": bool(page)}
        if sessions:
            kept = _keep_sessions(sessions, name, Keyring.from_environment() if encrypted else None, page=bool(page))
        if ledger and sessions:
            raise ConfigurationError("Sessions that are kept have a ledger of their own, in the same database. Drop --ledger.")
        if ledger:
            kept["store"] = _open_ledger(ledger, name)
        return create_app(found, audience=name, conversation=conversation or None, **kept)
    if audience or conversation or ledger or sessions or page:
        raise ConfigurationError(
            f"{target!r} is an application that is ready: its audience, conversation, ledger, sessions and page are those of its "
            "create_app."
        )
    app: ASGIApp = found
    return app


def _open_ledger(url: str, audience: str) -> SessionStore:
    """A ledger, which is imported only where there is one: this module is part of every program with an agent."""
    ledger: SessionStore = import_module("dcaf.ledger").Ledger(url, audience=audience)
    return ledger


def _keep_sessions(url: str, app: str, ring: Keyring | None, *, page: bool) -> dict[str, Any]:
    """The settings of an application whose sessions, conversations and memories are kept; imported only where they are."""
    service = import_module("dcaf.service")
    store = service.SessionService(url, app=app, encrypt=ring)
    return {"store": store, "history": "server", "page": page and Page(memory=service.Memory)}


def _is_app(found: Any) -> bool:
    """Whether something is an ASGI application rather than an agent function: its last two parameters receive and send."""
    names = getattr(getattr(found, "__call__", found), "__code__", None) or getattr(found, "__code__", None)  # noqa: B004
    return names is not None and names.co_varnames[: names.co_argcount][-2:] == ("receive", "send")


def _count_workers(workers: int | None) -> int:
    """How many processes serve.

    Raises:
        ConfigurationError: It is no number that is 1 or more.
    """
    text = os.environ.get(WORKERS, "").strip() if workers is None else str(workers)
    if not (text or "1").isdecimal() or int(text or "1") < 1:
        raise ConfigurationError(f"--workers, and {WORKERS}, take a number of processes that is 1 or more.")
    return int(text or "1")


def _require_uvicorn() -> Any:
    if uvicorn is None:
        raise ConfigurationError("Serving needs uvicorn: pip install 'dcaf[agent,server]'")
    return uvicorn
