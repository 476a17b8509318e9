"""A wrong setting that is found while a framework builds its middleware keeps the server from starting.

Starlette and FastAPI make the middleware of ``add_middleware`` and ``Middleware(...)`` when the first message comes in, which
is the server's question whether the application is ready. Servers take an exception there for an application that knows no
lifespan, and serve it: every request would fail. So the question is answered here: it is not ready, and why.
"""

from __future__ import annotations

import sys

from starlette.types import Receive, Send

from dcaf.core.errors import ConfigurationError


def is_in_lifespan() -> bool:
    """Whether the caller runs within an application that was asked whether it is ready."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        scope = frame.f_locals.get("scope")
        if isinstance(scope, dict) and scope.get("type") == "lifespan":
            return True
        frame = frame.f_back
    return False


async def refuse_start(failure: ConfigurationError, receive: Receive, send: Send) -> None:
    """Say that the application cannot start; the server logs the message, and ends."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": f"dcaf: {failure}"})
