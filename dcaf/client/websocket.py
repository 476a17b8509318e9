"""Many turns over one WebSocket: sync, and under asyncio.

    with client.socket() as socket:
        socket.send("deploy the shop")
        for event in socket.stream("and now?"):
            print(event.text, end="")

The session does not belong to the WebSocket. Every frame carries it, so a turn after a lost connection opens a new one and goes on,
and turns of ``client.send`` may come between. A turn that is left early closes the connection, because the rest of its frames would
still come; the next turn opens another one, and goes on with the last session that has come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from dcaf.client.arguments import check, check_function, check_headers, check_seconds
from dcaf.client.conversation import Conversation
from dcaf.client.reply import Decision, Event, Reply
from dcaf.client.stream import AsyncStream, Stream, require_reply
from dcaf.client.transport import ConnectionClosed, Sleep, WebSocketException, async_websockets, sync_websockets, translate_errors
from dcaf.client.turn import Turn

Connection = TypeVar("Connection")
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""The longest frame that is read: the results of tools and a session in one event."""


class BaseSocket(Generic[Connection, Sleep]):
    """What a synchronous and an asynchronous socket share: the conversation, and where its WebSocket is.

    Args:
        conversation: What the turns belong to.
        url: Of the WebSocket.
        headers: Sent when it is opened.
        timeout_s: How long nothing may come; None waits forever.
        sleep: Waits for so many seconds before a turn is sent again.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """

    def __init__(
        self, conversation: Conversation, url: str, headers: Mapping[str, str], timeout_s: float | None, sleep: Sleep
    ) -> None:
        self._conversation = check("conversation", conversation, Conversation, "a Conversation")
        self._url = check("url", url, str, "the URL of a WebSocket")
        self._headers = check_headers("headers", headers)
        self._timeout_s = check_seconds("timeout_s", timeout_s)
        self._sleep: Sleep = check_function("sleep", sleep, "a function of seconds")
        self._connection: Connection | None = None
        self._turn: Turn | None = None

    def _is_overtaking(self, turn: Turn) -> bool:
        """Whether another turn of this socket has not ended."""
        return self._turn is not None and self._turn is not turn and self._turn.reply is None


class Socket(BaseSocket[sync_websockets.ClientConnection, Callable[[float], None]]):
    """Turns of one conversation over a WebSocket; made by ``Client.socket``. The arguments are those of BaseSocket."""

    def __init__(
        self,
        conversation: Conversation,
        url: str,
        headers: Mapping[str, str],
        timeout_s: float | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(conversation, url, headers, timeout_s, sleep)
        self._closing = ExitStack()  # websockets wants a ``with`` block around a synchronous connection

    def send(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> Reply:
        """Say something, and read its events to the end. Arguments and errors as for ``Client.send``."""
        turn = Turn(self._conversation, said, decisions=decisions, fields=fields)
        for _ in self._events(turn):
            pass
        return require_reply(turn)

    def stream(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> Stream:
        """Say something, and read its events. Arguments and errors as for ``Client.stream``.

        A turn that fails or is left early closes the connection, because the rest of its frames would still come.
        """
        turn = Turn(self._conversation, said, decisions=decisions, fields=fields)
        return Stream(turn, self._events(turn))

    def close(self) -> None:
        """Close the connection, after the frames were read that have come. A further turn opens another one."""
        if self._turn is not None:
            self._leave(self._turn)
        self._connection = None
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _events(self, turn: Turn) -> Generator[Event]:
        try:
            while turn.reply is None:
                if turn.wait:
                    self._sleep(turn.wait.total_seconds())
                yield from turn.announce()
                is_broken = True
                with translate_errors("the WebSocket", turn):
                    connection = self._ready(turn)
                    connection.send(turn.request().decode())
                    while turn.reply is None and not turn.is_due:
                        event = turn.frame(connection.recv(turn.patience(self._timeout_s)))
                        if event is not None:
                            yield event
                    is_broken = False
                if is_broken:
                    self.close()
        finally:
            if turn.reply is None and self._turn is turn:
                self.close()

    def _ready(self, turn: Turn) -> sync_websockets.ClientConnection:
        """A connection on which nothing waits to be read: the one there is, if it is open, else a new one."""
        if self._is_overtaking(turn):
            self._leave(turn)  # by the new turn: the old one is overtaken, and its checkpoints count all the same
            self.close()
        self._turn = turn
        if self._connection is None or not self._is_drained(self._connection, turn):
            self.close()
            connecting = sync_websockets.connect(
                self._url, additional_headers=self._headers, open_timeout=self._timeout_s, max_size=MAX_FRAME_BYTES
            )
            self._connection = self._closing.enter_context(connecting)
        return self._connection

    def _leave(self, turn: Turn) -> None:
        """Leave a turn, with what has come of it: a session in it may say what was done."""
        turn.leave(() if self._connection is None else _read_arrived(self._connection))

    def _is_drained(self, connection: sync_websockets.ClientConnection, turn: Turn) -> bool:
        """Whether a connection is open, after the frames were read that came between two turns, for the sessions in them."""
        try:
            while True:
                turn.overheard(connection.recv(timeout=0))
        except TimeoutError:
            return True
        except ConnectionClosed:
            return False


class AsyncSocket(BaseSocket[async_websockets.ClientConnection, Callable[[float], Awaitable[None]]]):
    """Turns of one conversation over a WebSocket; made by ``AsyncClient.socket``. The arguments are those of BaseSocket."""

    def __init__(
        self,
        conversation: Conversation,
        url: str,
        headers: Mapping[str, str],
        timeout_s: float | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(conversation, url, headers, timeout_s, sleep)

    async def send(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> Reply:
        """Say something, and read its events to the end. Arguments and errors as for ``AsyncClient.send``."""
        turn = Turn(self._conversation, said, decisions=decisions, fields=fields)
        async for _ in self._events(turn):
            pass
        return require_reply(turn)

    def stream(
        self, said: str | Mapping[str, Any] = "", /, *, decisions: Mapping[str, Decision] | None = None, **fields: Any
    ) -> AsyncStream:
        """Say something, and read its events. Arguments and errors as for ``AsyncClient.stream``.

        A turn that fails or is left early closes the connection, because the rest of its frames would still come.
        """
        turn = Turn(self._conversation, said, decisions=decisions, fields=fields)
        return AsyncStream(turn, self._events(turn))

    async def close(self) -> None:
        """Close the connection, after the frames were read that have come. A further turn opens another one."""
        if self._turn is not None and self._turn.reply is None:
            await self._leave(self._turn)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _events(self, turn: Turn) -> AsyncGenerator[Event]:
        try:
            while turn.reply is None:
                if turn.wait:
                    await self._sleep(turn.wait.total_seconds())
                for event in turn.announce():
                    yield event
                is_broken = True
                with translate_errors("the WebSocket", turn):
                    connection = await self._ready(turn)
                    await connection.send(turn.request().decode())
                    while turn.reply is None and not turn.is_due:
                        async with asyncio.timeout(turn.patience(self._timeout_s)):
                            frame = await connection.recv()
                        told = turn.frame(frame)
                        if told is not None:
                            yield told
                    is_broken = False
                if is_broken:
                    await self.close()
        finally:
            if turn.reply is None and self._turn is turn:
                await self.close()

    async def _ready(self, turn: Turn) -> async_websockets.ClientConnection:
        """A connection on which nothing waits to be read: the one there is, if it is open, else a new one."""
        if self._is_overtaking(turn):
            await self._leave(turn)  # by the new turn: the old one is overtaken, and its checkpoints count all the same
            await self.close()
        self._turn = turn
        if self._connection is None or not await self._is_drained(self._connection, turn):
            await self.close()
            self._connection = await async_websockets.connect(
                self._url, additional_headers=self._headers, open_timeout=self._timeout_s, max_size=MAX_FRAME_BYTES
            )
        return self._connection

    async def _leave(self, turn: Turn) -> None:
        """Leave a turn, with what has come of it: a session in it may say what was done."""
        turn.leave(() if self._connection is None else await _read_arrived_async(self._connection))

    async def _is_drained(self, connection: async_websockets.ClientConnection, turn: Turn) -> bool:
        """Whether a connection is open, after the frames were read that came between two turns, for the sessions in them."""
        try:
            async with asyncio.timeout(0):
                while True:
                    turn.overheard(await connection.recv())
        except TimeoutError:
            return True
        except ConnectionClosed:
            return False


def _read_arrived(connection: sync_websockets.ClientConnection) -> Iterator[str | bytes]:
    """The frames that have come, until there is none."""
    with suppress(TimeoutError, WebSocketException):  # also of who reads in another thread
        while True:
            yield connection.recv(timeout=0)


async def _read_arrived_async(connection: async_websockets.ClientConnection) -> list[bytes | str]:
    """The frames that have come."""
    found: list[bytes | str] = []
    with suppress(TimeoutError, WebSocketException):  # also of who reads in another task
        async with asyncio.timeout(0):
            while True:
                found.append(await connection.recv())
    return found
