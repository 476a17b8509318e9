"""The demo's service: an agent with seven tools on a scripted model, over the HelpDesk protocol.

Only the model is a stand-in. The agent, its tools, the approval and the service are those of a real one; `dcaf serve` runs the same
with a real model.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from dcaf.agent import Agent, Page, create_app
from dcaf.agent.config import require
from dcaf.asgi import SessionMiddleware
from dcaf.core.context import current_session
from dcaf.core.keys import Keyring
from dcaf.demo.model import make_model
from dcaf.demo.tools import TOOLS

AUDIENCE: Final = "deploy-agent"
LOG_OUT: Final = "/api/log-out"
SUGGESTIONS: Final = ("start", "service api", "3 replicas", "execute", "add 2 widget", "one more widget")


def create_agent(*, pace: timedelta = timedelta(0)) -> Agent:
    """The demo's agent.

    Args:
        pace: How long its model waits before each word, for somebody to see them come.

    Raises:
        ConfigurationError: It is no timedelta.
    """
    require("pace=", pace, timedelta, "a timedelta, for instance timedelta(milliseconds=40)")
    return Agent(make_model(pace), tools=TOOLS, name=AUDIENCE)


def create_demo(keys: Keyring, *, pace: timedelta = timedelta(0), **settings: Any) -> ASGIApp:
    """The demo's application and its page, with the session mounted around them.

    Args:
        keys: The ring whose active key seals.
        pace: As for ``create_agent``.
        **settings: Any other of ``create_app``. With ``store=``, there is an endpoint ``POST /api/log-out`` too, which ends the
            session of its request, and the page has a button for it.

    Raises:
        ConfigurationError: An argument is of a wrong type, or a setting that ``create_app`` refuses.
    """
    has_store = settings.get("store") is not None
    page = Page("Deployment wizard", SUGGESTIONS, log_out=LOG_OUT if has_store else "")
    app = create_app(create_agent(pace=pace), keys=keys, audience=AUDIENCE, page=page, **settings)
    if not has_store:
        return app
    inner = Starlette(routes=[Route(LOG_OUT, log_out, methods=["POST"])])
    own = SessionMiddleware(inner, keys=keys, audience=AUDIENCE, **settings)
    return Starlette(routes=[Route(LOG_OUT, own), Mount("/", app)])


async def log_out(_: Request) -> JSONResponse:
    """End the session of this request. The answer tells the client to begin a new one."""
    current_session().end()
    return JSONResponse({"ended": True})
