"""Close the store when the application's lifespan ends: after the application, and before the server learns that all is over.

A store has something to close where it has ``async def aclose(self)``. It closes what it has opened itself, and nothing that was
given to it; a second call does nothing, because two middlewares may have one store.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dcaf.core.arguments import has_methods
from dcaf.core.errors import describe_raised
from dcaf.core.store import SessionStore

logger: Final[logging.Logger] = logging.getLogger("dcaf")

ENDS: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed")
"""What an application says last."""


def find_closer(store: SessionStore | None) -> Callable[[], Awaitable[None]] | None:
    """What closes a store; None where there is nothing to close."""
    found: Any = store
    return found.aclose if store is not None and has_methods(store, "aclose") else None


class ClosingLifespan:
    """The lifespan of an application whose store is closed at its end.

    Args:
        close: Closes the store.
        receive, send: Those of the server.
    """

    def __init__(self, close: Callable[[], Awaitable[None]], receive: Receive, send: Send) -> None:
        self._close: Callable[[], Awaitable[None]] = close
        self._receive = receive
        self._send = send
        self._has_asked = False
        self._has_answered = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have the application serve it; for one that knows no lifespan it is served here."""
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:
            if self._has_answered:
                await self._close_store()
            if self._has_asked or self._has_answered:
                raise  # where nothing was answered, servers go on without a lifespan, and the store is needed
            logger.info("dcaf: the application serves no lifespan: %s", describe_raised(error))
        if not self._has_answered:
            await self._serve_alone()

    async def receive(self) -> Message:
        """The next question of the server."""
        self._has_asked = True
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Take the next answer of the application."""
        self._has_answered = True
        if message["type"] in ENDS:
            await self._close_store()
        await self._send(message)

    async def _serve_alone(self) -> None:
        """Answer in place of an application that has not looked at the lifespan, so that the server asks again at the end."""
        if not self._has_asked:
            await self._receive()
        await self.send({"type": "lifespan.startup.complete"})
        await self._receive()
        await self.send({"type": "lifespan.shutdown.complete"})

    async def _close_store(self) -> None:
        try:
            await self._close()
        except Exception as error:  # noqa: BLE001 - the service ends in any case; drivers quote what they were asked in messages
            logger.error("dcaf: the store could not be closed: %s", describe_raised(error))  # noqa: TRY400
