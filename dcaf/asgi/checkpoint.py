"""Send the session in the middle of a stream, so that a client which leaves early has what was done so far.

    async def events():
        await build()
        await checkpoint()
        yield '{"type": "done"}'

What a reader gets wrong: it sends what tools have finished. Inside a tool call the writes are not committed yet, so it is
refused there.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident
from typing import Final, Protocol

from dcaf.core.current import in_a_call
from dcaf.core.errors import ConfigurationError


class Send(Protocol):
    """Sends the session as it is now; False where no answer that carries it is on its way."""

    async def __call__(self, *, may_wait: bool = False) -> bool:
        """Send it; where ``may_wait`` is true, as soon as the stream has begun, if none has yet."""


sending: Final[ContextVar[tuple[int, Send]]] = ContextVar("dcaf_checkpoint")
"""The thread that an answer is sent from, and what ``checkpoint`` sends by; it tells whether it could."""


async def checkpoint() -> None:
    """Send the session as it is now, as an event of its own, where it changed since it was last sent.

    Raises:
        ConfigurationError: No stream that carries a session is being sent here, or a tool is being called.
        SessionAliasError, SessionValueError: What tools did to the session cannot be written.
    """
    if in_a_call():
        raise ConfigurationError(
            "checkpoint() was called inside a tool, whose writes are not committed before it returns. Call it between tools."
        )
    thread, send = sending.get((0, None))
    # An event loop of another thread has this one's variables, and none of its connections.
    if send is None or thread != get_ident() or not await send(may_wait=True):
        raise ConfigurationError(
            "checkpoint() was called where no stream is being sent. Call it while an NDJSON answer, server-sent events or a "
            "WebSocket turn are on their way."
        )
