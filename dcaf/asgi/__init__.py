"""Floor 1: the session on the wire."""

from dcaf.asgi.checkpoint import checkpoint
from dcaf.asgi.middleware import SessionMiddleware

__all__ = ["SessionMiddleware", "checkpoint"]
