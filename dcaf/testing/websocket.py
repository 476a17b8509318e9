"""The WebSocket of a testing client: what every one can do, and the one that goes over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from dcaf.client.transport import ConnectionClosed, InvalidStatus, async_websockets
from dcaf.testing.conversation import BROKEN, Closed, HandshakeRefusal, Received


class WebSocketConnection(Protocol):
    """A WebSocket that a turn can be said on. It belongs to the event loop that has opened it."""

    async def open(self, timeout_s: float) -> HandshakeRefusal | None:
        """Open it; the refusal, where the service will not."""

    async def send(self, frame: str | bytes) -> None:
        """Send a frame; it is lost where the service has closed the WebSocket."""

    async def receive(self, timeout_s: float) -> Received:
        """The next frame.

        Raises:
            TimeoutError: None came.
        """

    async def close(self) -> None:
        """Leave, and raise what an application in this process has raised meanwhile."""


class NetworkWebSocket:
    """A WebSocket of a running service.

    Args:
        url: Of the WebSocket.
        headers: Sent when it is opened.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._connection: async_websockets.ClientConnection | None = None

    async def open(self, timeout_s: float) -> HandshakeRefusal | None:
        try:
            self._connection = await async_websockets.connect(
                self._url, additional_headers=self._headers, open_timeout=timeout_s, max_size=None
            )
        except InvalidStatus as error:
            answer = error.response
            return HandshakeRefusal(answer.status_code, dict(answer.headers.raw_items()), bytes(answer.body or b""))
        return None

    async def send(self, frame: str | bytes) -> None:
        with suppress(ConnectionClosed):  # what receive says next
            await self._opened().send(frame)

    async def receive(self, timeout_s: float) -> Received:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._opened().recv()
        except ConnectionClosed as closed:
            return Closed(BROKEN if closed.rcvd is None else closed.rcvd.code)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _opened(self) -> async_websockets.ClientConnection:
        if self._connection is None:
            raise RuntimeError("the WebSocket was not opened")
        return self._connection
