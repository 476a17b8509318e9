"""The demo's service: one route that plans, calls a tool and answers. It knows nothing of tokens.

What a reader gets wrong: the endpoint does not touch the session. The tools do, and the middleware carries it.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dcaf.asgi import SessionMiddleware
from dcaf.core.current import current_session
from dcaf.core.keys import Keyring
from dcaf.demo.planner import plan
from dcaf.tools import Turn

AUDIENCE: Final = "deploy-agent"
HELP: Final = "Say: start, service NAME, N replicas, execute, add N THING, one more THING."


async def chat(request: Request) -> JSONResponse:
    """Answer the last message of the conversation."""
    text = _last_message(await request.json())
    if text is None:
        return JSONResponse({"detail": "Send {'messages': [{'role': 'user', 'content': '...'}]}."}, 400)
    call = plan(text)
    content = await Turn(current_session()).run(call.tool, call.arguments) if call else HELP
    return JSONResponse({"role": "assistant", "content": content})


async def health(_: Request) -> JSONResponse:
    """Say that the service runs."""
    return JSONResponse({"status": "ok"})


def create_demo(keys: Keyring) -> SessionMiddleware:
    """The demo's application, with the session mounted around it."""
    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"]), Route("/health", health)])
    return SessionMiddleware(app, keys=keys, audience=AUDIENCE)


def _last_message(body: Any) -> str | None:
    messages = body.get("messages") if isinstance(body, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    text = last.get("content") if isinstance(last, dict) else None
    return text if isinstance(text, str) else None
