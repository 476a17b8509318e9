"""One example at a time in this process, on a real port, with whatever settings of the middleware a test needs."""

from __future__ import annotations

from typing import Any

from dcaf import Key, Keyring, SessionMiddleware
from tests.frameworks.programs import AUDIENCE, bare

RING = Keyring(Key.from_bytes("k7", bytes(range(32))))


class Service:
    """An application whose middleware can be mounted anew; it keeps what was sent."""

    def __init__(self, framework: str) -> None:
        self._bare = bare(framework)
        self.app: Any = None
        self.sent: list[bytes] = []

    def mount(self, **settings: Any) -> None:
        self.app = SessionMiddleware(self._bare, keys=RING, audience=AUDIENCE, **settings)
        self.sent.clear()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def heard(message: Any) -> None:
            text = message.get("text")
            self.sent.append(message.get("body", b"") if text is None else text.encode())
            await send(message)

        await self.app(scope, receive, heard)
