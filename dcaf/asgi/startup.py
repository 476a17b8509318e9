"""A wrong setting that is found while a framework builds its middleware keeps the server from starting.

Starlette and FastAPI make the middleware of ``add_middleware`` and ``Middleware(...)`` when the first message comes in, which
is the server's question whether the application is ready. Servers take an exception there for an application that knows no
lifespan, and serve it: every request would fail. So the question is answered here: it is not ready, and why.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from starlette.types import Receive, Scope, Send

from dcaf.core.errors import ConfigurationError
from dcaf.core.raised import describe_raised

Made = TypeVar("Made")
P = ParamSpec("P")


def fails_at_start(make: Callable[Concatenate[Made, P], None]) -> Callable[Concatenate[Made, P], None]:
    """What raises for a wrong setting; while a server asks whether the application is ready, the error is kept for the answer.

    So is whatever a function raises that was given as a setting, and is called at once.

    Args:
        make: The ``__init__`` of a middleware. What it raised there is its ``_failure`` then, and None if all is well.
    """

    @wraps(make)
    def made(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self._failure = None
        try:
            make(self, *args, **kwargs)
        except Exception as failure:
            if not is_in_lifespan():
                raise
            self._failure = failure

    return made


def is_in_lifespan() -> bool:
    """Whether the caller runs within an application that was asked whether it is ready."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        scope = frame.f_locals.get("scope")
        if isinstance(scope, dict) and scope.get("type") == "lifespan":
            return True
        frame = frame.f_back
    return False


async def refuse_start(failure: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Say that the application cannot start; the server logs the message, and ends. Raises the failure for any other connection."""
    if scope["type"] != "lifespan":
        raise failure
    told = str(failure) if isinstance(failure, ConfigurationError | TypeError) else describe_raised(failure)
    await receive()
    await send({"type": "lifespan.startup.failed", "message": f"dcaf: {told}"})
