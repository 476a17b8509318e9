"""The WebSockets of the testing clients: to an application in this process, and over the network.

The WebSocket of the async client over the network; in this process it is ``InsideSocket``.

What a reader gets wrong: it belongs to the event loop that opened it, as asyncio's connections do.

The WebSockets of the sync client: to an application in this process, and over the network.

What a reader gets wrong: in this process the application runs in an event loop of its own, in another thread. What is given to it
must not belong to the loop of an asynchronous test; ``AsyncSessionClient`` stays in that loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Protocol

from anyio.from_thread import BlockingPortal

from dcaf.client.transport import ConnectionClosed, InvalidStatus, async_websockets, sync_websockets
from dcaf.testing.asgi import InsideSocket
from dcaf.testing.conversation import BROKEN, Closed, Heard, Refusal


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


class Socket(Protocol):
    """A WebSocket that a turn can be said on."""

    def open(self, timeout_s: float) -> Refusal | None:
        """Open it; the refusal, where the service will not."""

    def send(self, frame: str | bytes) -> None:
        """Send a frame; it is lost where the service has closed the socket."""

    def receive(self, timeout_s: float) -> Heard:
        """The next frame.

        Raises:
            TimeoutError: None came.
        """

    def close(self) -> None:
        """Leave."""


class PortalSocket:
    """A WebSocket in this process.

    Args:
        portal: Into the event loop that the application runs in.
        inside: The WebSocket there.
    """

    def __init__(self, portal: BlockingPortal, inside: InsideSocket) -> None:
        self._portal = portal
        self._inside = inside

    def open(self, timeout_s: float) -> Refusal | None:
        """Open it; the refusal, where the application will not."""
        return self._portal.call(self._inside.open, timeout_s)

    def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        self._portal.call(self._inside.send, frame)

    def receive(self, timeout_s: float) -> Heard:
        """The next frame. Raises as Socket, and what the application raised."""
        return self._portal.call(self._inside.receive, timeout_s)

    def close(self) -> None:
        """Leave, and see the application end. Raises what it raised."""
        self._portal.call(self._inside.close)


class NetworkSocket:
    """A WebSocket of a running service.

    Args:
        url: Of the WebSocket.
        headers: Sent when it is opened.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._connection: sync_websockets.ClientConnection | None = None
        self._closing = ExitStack()

    def open(self, timeout_s: float) -> Refusal | None:
        """Open it; the refusal, where the service will not."""
        try:
            connecting = sync_websockets.connect(self._url, additional_headers=self._headers, open_timeout=timeout_s, max_size=None)
            self._connection = self._closing.enter_context(connecting)
        except InvalidStatus as refusal:
            return refusal_of(refusal)
        return None

    def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        with suppress(ConnectionClosed):  # what receive says next
            self._open().send(frame)

    def receive(self, timeout_s: float) -> Heard:
        """The next frame. Raises as Socket."""
        try:
            return self._open().recv(timeout_s)
        except ConnectionClosed as closed:
            return closed_of(closed)

    def close(self) -> None:
        """Leave."""
        self._closing.close()

    def _open(self) -> sync_websockets.ClientConnection:
        if self._connection is None:
            raise RuntimeError("the WebSocket was not opened")
        return self._connection


def refusal_of(error: InvalidStatus) -> Refusal:
    """The HTTP answer that came instead of a WebSocket."""
    answer = error.response
    return Refusal(answer.status_code, dict(answer.headers.raw_items()), bytes(answer.body or b""))


def closed_of(error: ConnectionClosed) -> Closed:
    """How a connection ended."""
    return Closed(BROKEN if error.rcvd is None else error.rcvd.code)
