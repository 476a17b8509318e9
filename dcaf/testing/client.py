"""Clients that carry `data.session` from turn to turn as a browser would, for sync and async tests.

What the sync and the async client share: where the service is, the wire to it, and the conversation.

What a reader gets wrong: nothing is judged here. The client sends what it is told to and keeps what it gets, also where the service
is wrong; asserting is the test's part.

The client for asynchronous tests, under asyncio: the application runs in the event loop of the test.

    async with AsyncSessionClient(app) as client:
        (await client.send("hello")).session

What a reader gets wrong: asynchronous is not concurrent. A client is one conversation, and a conversation has one turn at a time;
two clients may speak at once.

A client that carries ``data.session`` from turn to turn, as a browser would.

    client = SessionClient(app)
    client.send("hello").session

What a reader gets wrong: the client adopts ``data.session`` from refusals and streams, too. That is how a client gets rid of a
session that has ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, cast

from anyio.from_thread import BlockingPortal
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from dcaf.client.arguments import check, check_function, check_url, check_wait
from dcaf.client.transport import httpx2
from dcaf.testing.asgi import BASE_URL, ApplicationLoop, InsideSocket, Running
from dcaf.testing.conversation import Closed, Echo, Echoing, Frames, Refusal, content_of, frame_of, is_missed, user, value_of
from dcaf.testing.reply import SWITCHED, Reply
from dcaf.testing.transport import SOCKET, Terminal, Wire, headers_of, is_end, path_of
from dcaf.testing.websocket import AsyncNetworkSocket, AsyncSocket, NetworkSocket, PortalSocket, Socket

PATIENCE: Final = timedelta(seconds=10)


class BaseSessionClient(Echoing, ABC):
    """Sends the turns of one conversation.

    As a context manager it also starts the application and stops it, as its lifespan says, and closes the connections.

    Args:
        app: An ASGI application, called in process, or the base URL of a running one.
        wire: How its turns travel: ``"json"``, answered in one piece; ``"ndjson"`` and ``"sse"``, streamed; or ``"websocket"``.
        path: Where the turns go; None takes that of the wire: ``/api/chat``, ``/api/chat-stream``, ``/api/chat-events`` or
            ``/api/chat-ws``.
        envelope: A session to begin with, as ``sealed`` makes one; None begins without.
        messages: What was said before, oldest first.
        headers: Sent with every turn; on a WebSocket when it is opened.
        fields: Further top-level members of every body, such as ``thread_id``.
        echo: How the session is written that is sent back, as ``HARMLESS`` has them; None writes it as it came.
        terminal: Which frame ends a turn on a WebSocket, as the middleware has it; by default ``done``, and ``error``.
        timeout: How long nothing may come, on a WebSocket and over the network.
        raise_server_exceptions: Whether what the application raises is raised here. If not, it is answered with 500, or the
            WebSocket breaks off, as in a server. In process only.

    Attributes:
        envelope: The session that the next turn will carry.
        messages: The conversation so far; each answer keeps the session that it carried.

    Raises:
        ConfigurationError: An argument cannot be; the message says what it takes.
    """

    def __init__(
        self,
        app: ASGIApp | str,
        *,
        wire: Wire = "json",
        path: str | None = None,
        envelope: dict[str, Any] | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        echo: Echo | None = None,
        terminal: Terminal = is_end,
        timeout: timedelta = PATIENCE,
        raise_server_exceptions: bool = True,
    ) -> None:
        super().__init__(envelope=envelope, messages=messages, fields=fields, echo=echo)
        self._path = path_of(wire, path)
        self._is_socket = wire == SOCKET
        self._headers = headers_of(wire, headers)
        self._terminal = check_function("terminal", terminal, "a function of None and the JSON value of a frame")
        self._timeout_s = check_wait("timeout", timeout)
        self._raises = check("raise_server_exceptions", raise_server_exceptions, bool, "True or False")
        self._url = check_url("app", app) if isinstance(app, str) else ""
        self._running = None if isinstance(app, str) else Running(check_function("app", app, "an ASGI application, or a base URL"))
        self._reach()

    @property
    def _socket_url(self) -> str:
        """Of a running service."""
        return f"ws{self._url.removeprefix('http')}{self._path}"

    @abstractmethod
    def _reach(self) -> None:
        """Make what reaches the service."""


def refused(refusal: Refusal) -> Reply:
    """The reply that it is when a WebSocket is not opened."""
    return Reply.of_answer(refusal.status, refusal.headers, refusal.content, sent_bytes=0)


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


class SessionClient(BaseSessionClient):
    """Sends the turns of one conversation; the arguments are those of BaseSessionClient."""

    _http: httpx2.Client
    _socket: Socket | None = None

    def send(self, text: str, **fields: Any) -> Reply:
        """Say something: the message, the history and the session go out, the answer's session is kept.

        Args:
            text: What the user says.
            **fields: Further top-level members of this body.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        return self.kept(self.post(self.asked(user(text), fields)))

    def decide(self, decision: bool | str, text: str = "") -> Reply:
        """Decide about every call that waits (``approvals``): send the decisions, as ``send`` does.

        Args:
            decision: True to run them, or the reason why not.
            text: What else the user says.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ApprovalUnknown: None waits, or the decision is neither True nor a reason.
            ConfigurationError: The text is none.
        """
        return self.kept(self.post(self.decided(decision, text)))

    def post(self, body: Any) -> Reply:
        """Send a body of your own, and keep the session of the answer if it has one.

        Args:
            body: A JSON value, or bytes, which are sent as they are.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ConfigurationError: The body is neither.
        """
        content = content_of(body)
        if self._is_socket:
            reply = self._converse(content)
            return self.adopted(reply) if reply.status == SWITCHED else reply  # a refused handshake carries no session
        answer = self._http.post(self._path, content=content)
        return self.adopted(Reply.of_answer(answer.status_code, answer.headers, answer.content, sent_bytes=len(content)))

    def close(self) -> None:
        """Close the connections, and stop the application if ``with`` has started it. Raises what it raised meanwhile."""
        with self._closing:
            self._leave()
            self._http.close()

    def __enter__(self) -> Self:
        if self._running is not None:
            try:
                self._portal().call(self._running.start)
            except BaseException:
                self.close()
                raise
            self._closing.callback(self._portal().call, self._running.stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _converse(self, content: bytes) -> Reply:
        before, socket = self._socket, self._ready()
        if isinstance(socket, Reply):
            return socket
        reply = self._turn(socket, content)
        return self._converse(content) if socket is before and is_missed(reply) else reply

    def _turn(self, socket: Socket, content: bytes) -> Reply:
        turn = Frames(self._terminal)
        socket.send(frame_of(content))
        try:
            while not turn.take(socket.receive(turn.patience(self._timeout_s))):
                pass
        except TimeoutError:
            self._leave()
            if not turn.has_failed:
                raise turn.too_late(self._timeout_s) from None
        reply = turn.reply(sent_bytes=len(content))
        if reply.code is not None or reply.close_code is not None:
            self._leave()
        return reply

    def _ready(self) -> Socket | Reply:
        """A socket on which nothing waits to be read: the one there is, if it is open, else a new one; or why there is none."""
        if self._socket is not None and self._is_drained(self._socket):
            return self._socket
        self._leave()
        self._socket = self._new_socket()
        refusal = self._socket.open(self._timeout_s)
        if refusal is None:
            return self._socket
        self._leave()
        return refused(refusal)

    def _is_drained(self, socket: Socket) -> bool:
        """Whether a socket is open, after the frames were read that came between two turns, for the sessions in them."""
        try:
            while not isinstance(heard := socket.receive(0), Closed):
                self.overheard(value_of(heard))
        except TimeoutError:
            return True
        return False

    def _reach(self) -> None:
        if self._running is None:
            self._http = httpx2.Client(base_url=self._url, headers=self._headers, timeout=self._timeout_s)
        else:
            self._http = TestClient(self._running, headers=self._headers, raise_server_exceptions=self._raises)
        self._closing = ExitStack()

    def _new_socket(self) -> Socket:
        if self._running is None:
            return NetworkSocket(self._socket_url, self._headers)
        return PortalSocket(self._portal(), InsideSocket(self._running, self._path, self._headers, raises=self._raises))

    def _portal(self) -> BlockingPortal:
        """The way into the event loop that the application in this process lives in from now on."""
        inside = cast("TestClient", self._http)
        if inside.portal is None:
            loop = ApplicationLoop(self)
            self._closing.callback(loop.close)
            self._closing.callback(setattr, inside, "portal", None)
            inside.portal = loop.portal
        return inside.portal

    def _leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()
