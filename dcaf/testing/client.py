"""A client that carries ``data.session`` from turn to turn, as a browser would.

    client = SessionClient(app)
    client.send("hello").session

What a reader gets wrong: the client adopts ``data.session`` from refusals and streams, too. That is how a client gets rid of a
session that has ended.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, cast

from anyio.from_thread import BlockingPortal
from starlette.testclient import TestClient

from dcaf.client.reach import httpx2
from dcaf.testing.base import BaseSessionClient, refused
from dcaf.testing.conversation import content_of, user
from dcaf.testing.frames import Closed, Frames, frame_of, is_missed, value_of
from dcaf.testing.asgi import InsideSocket
from dcaf.testing.portal import ApplicationLoop
from dcaf.testing.reply import SWITCHED, Reply
from dcaf.testing.websocket import NetworkSocket, PortalSocket, Socket


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
