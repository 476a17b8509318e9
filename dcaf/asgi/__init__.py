"""The session on the wire: one middleware, and what its settings take or give.

>>> from dcaf import Keyring
>>> async def app(scope, receive, send): ...
>>> service = SessionMiddleware(app, keys=Keyring.ephemeral(), audience="shop", carriers=("body", HeaderCarrier()))
"""

from dcaf.asgi.carriers import Carriers, CookieCarrier, HeaderCarrier
from dcaf.asgi.config import Routes, Terminal, is_done
from dcaf.asgi.identity import Conversation, Subject
from dcaf.asgi.middleware import SessionMiddleware
from dcaf.asgi.operator_events import Event
from dcaf.asgi.streams import checkpoint
from dcaf.core.claims import Claims
from dcaf.core.migrations import Import, Migration
from dcaf.core.settings import Keys
from dcaf.core.store import SessionStore

__all__ = [
    "Carriers",
    "Claims",
    "Conversation",
    "CookieCarrier",
    "Event",
    "HeaderCarrier",
    "Import",
    "Keys",
    "Migration",
    "Routes",
    "SessionMiddleware",
    "SessionStore",
    "Subject",
    "Terminal",
    "checkpoint",
    "is_done",
]
