"""The client for asynchronous tests, under asyncio: the application runs in the event loop of the test.

    async with AsyncSessionClient(app) as client:
        (await client.send("hello")).session

What a reader gets wrong: asynchronous is not concurrent. A client is one conversation, and a conversation has one turn at a time;
two clients may speak at once.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from dcaf.client.reach import httpx2
from dcaf.testing.async_sockets import AsyncNetworkSocket, AsyncSocket
from dcaf.testing.base import BaseSessionClient, refused
from dcaf.testing.conversation import content_of, user
from dcaf.testing.frames import Closed, Frames, frame_of, is_missed, value_of
from dcaf.testing.asgi import BASE_URL, InsideSocket
from dcaf.testing.reply import SWITCHED, Reply


class AsyncSessionClient(BaseSessionClient):
    """Sends the turns of one conversation; the arguments are those of BaseSessionClient."""

    _http: httpx2.AsyncClient
    _socket: AsyncSocket | None = None

    async def send(self, text: str, **fields: Any) -> Reply:
        """Say something: the message, the history and the session go out, the answer's session is kept.

        Args:
            text: What the user says.
            **fields: Further top-level members of this body.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        return self.kept(await self.post(self.asked(user(text), fields)))

    async def decide(self, decision: bool | str, text: str = "") -> Reply:
        """Decide about every call that waits (``approvals``): send the decisions, as ``send`` does.

        Args:
            decision: True to run them, or the reason why not.
            text: What else the user says.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ApprovalUnknown: None waits, or the decision is neither True nor a reason.
            ConfigurationError: The text is none.
        """
        return self.kept(await self.post(self.decided(decision, text)))

    async def post(self, body: Any) -> Reply:
        """Send a body of your own, and keep the session of the answer if it has one.

        Args:
            body: A JSON value, or bytes, which are sent as they are.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ConfigurationError: The body is neither.
        """
        content = content_of(body)
        if self._is_socket:
            reply = await self._converse(content)
            return self.adopted(reply) if reply.status == SWITCHED else reply  # a refused handshake carries no session
        answer = await self._http.post(self._path, content=content)
        return self.adopted(Reply.of_answer(answer.status_code, answer.headers, answer.content, sent_bytes=len(content)))

    async def close(self) -> None:
        """Close the connections, and stop the application if ``async with`` has started it. Raises what it raised meanwhile."""
        try:
            await self._leave()
        finally:
            await self._http.aclose()
            if self._running is not None:
                await self._running.stop()

    async def __aenter__(self) -> Self:
        if self._running is not None:
            await self._running.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _converse(self, content: bytes) -> Reply:
        before, socket = self._socket, await self._ready()
        if isinstance(socket, Reply):
            return socket
        reply = await self._turn(socket, content)
        return await self._converse(content) if socket is before and is_missed(reply) else reply

    async def _turn(self, socket: AsyncSocket, content: bytes) -> Reply:
        turn = Frames(self._terminal)
        await socket.send(frame_of(content))
        try:
            while not turn.take(await socket.receive(turn.patience(self._timeout_s))):
                pass
        except TimeoutError:
            await self._leave()
            if not turn.has_failed:
                raise turn.too_late(self._timeout_s) from None
        reply = turn.reply(sent_bytes=len(content))
        if reply.code is not None or reply.close_code is not None:
            await self._leave()
        return reply

    async def _ready(self) -> AsyncSocket | Reply:
        """A socket on which nothing waits to be read: the one there is, if it is open, else a new one; or why there is none."""
        if self._socket is not None and await self._is_drained(self._socket):
            return self._socket
        await self._leave()
        self._socket = self._new_socket()
        refusal = await self._socket.open(self._timeout_s)
        if refusal is None:
            return self._socket
        await self._leave()
        return refused(refusal)

    async def _is_drained(self, socket: AsyncSocket) -> bool:
        """Whether a socket is open, after the frames were read that came between two turns, for the sessions in them."""
        try:
            while not isinstance(heard := await socket.receive(0), Closed):
                self.overheard(value_of(heard))
        except TimeoutError:
            return True
        return False

    def _reach(self) -> None:
        if self._running is None:
            self._http = httpx2.AsyncClient(base_url=self._url, headers=self._headers, timeout=self._timeout_s)
        else:
            inside = httpx2.ASGITransport(self._running, raise_app_exceptions=self._raises)
            self._http = httpx2.AsyncClient(base_url=BASE_URL, headers=self._headers, transport=inside)

    def _new_socket(self) -> AsyncSocket:
        if self._running is None:
            return AsyncNetworkSocket(self._socket_url, self._headers)
        return InsideSocket(self._running, self._path, self._headers, raises=self._raises)

    async def _leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
