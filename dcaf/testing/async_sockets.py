"""The WebSocket of the async client over the network; in this process it is ``InsideSocket``.

What a reader gets wrong: it belongs to the event loop that opened it, as asyncio's connections do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Protocol

from dcaf.client.reach import ConnectionClosed, InvalidStatus, async_websockets
from dcaf.testing.frames import Heard, Refusal
from dcaf.testing.websocket import closed_of, refusal_of


class AsyncSocket(Protocol):
    """A WebSocket that a turn can be said on; its methods are those of Socket, awaited."""

    async def open(self, timeout_s: float) -> Refusal | None:
        """Open it; the refusal, where the service will not."""

    async def send(self, frame: str | bytes) -> None:
        """Send a frame; it is lost where the service has closed the socket."""

    async def receive(self, timeout_s: float) -> Heard:
        """The next frame.

        Raises:
            TimeoutError: None came.
        """

    async def close(self) -> None:
        """Leave."""


class AsyncNetworkSocket:
    """A WebSocket of a running service.

    Args:
        url: Of the WebSocket.
        headers: Sent when it is opened.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._connection: async_websockets.ClientConnection | None = None
        self._closing = AsyncExitStack()

    async def open(self, timeout_s: float) -> Refusal | None:
        """Open it; the refusal, where the service will not."""
        try:
            connecting = async_websockets.connect(
                self._url, additional_headers=self._headers, open_timeout=timeout_s, max_size=None
            )
            self._connection = await self._closing.enter_async_context(connecting)
        except InvalidStatus as refusal:
            return refusal_of(refusal)
        return None

    async def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        with suppress(ConnectionClosed):  # what receive says next
            await self._open().send(frame)

    async def receive(self, timeout_s: float) -> Heard:
        """The next frame. Raises as AsyncSocket."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._open().recv()
        except ConnectionClosed as closed:
            return closed_of(closed)

    async def close(self) -> None:
        """Leave."""
        await self._closing.aclose()

    def _open(self) -> async_websockets.ClientConnection:
        if self._connection is None:
            raise RuntimeError("the WebSocket was not opened")
        return self._connection
