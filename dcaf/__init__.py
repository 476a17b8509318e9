"""Session state that travels with an agent's conversation: typed, sealed, in the JSON body at ``data.session``.

>>> from dcaf import Session, tool
>>> @tool
... def next_step(session: Session) -> str:
...     return f"Step {session.incr('step')}"
>>> next_step(Session())
'Step 1'

What a reader gets wrong: nothing here is imported lazily, and nothing here needs a driver, an agent framework or the crypto
extra.
"""

from dcaf.asgi import SessionMiddleware
from dcaf.core import (
    ConfigurationError,
    DcafError,
    Key,
    Keyring,
    ReadOnlySession,
    Session,
    SessionHost,
    SessionKey,
    current_session,
    transaction,
)
from dcaf.tools import Tool, tool

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "DcafError",
    "Key",
    "Keyring",
    "ReadOnlySession",
    "Session",
    "SessionHost",
    "SessionKey",
    "SessionMiddleware",
    "Tool",
    "current_session",
    "tool",
    "transaction",
]
