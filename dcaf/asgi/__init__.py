"""Floor 1: the session on the wire."""

from dcaf.asgi.carriers import CookieCarrier, HeaderCarrier
from dcaf.asgi.checkpoint import checkpoint
from dcaf.asgi.middleware import SessionMiddleware

__all__ = ["CookieCarrier", "HeaderCarrier", "SessionMiddleware", "checkpoint"]
