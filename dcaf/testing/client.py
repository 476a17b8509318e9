"""Clients that carry `data.session` from turn to turn as a browser would, for synchronous and for asynchronous tests.

    client = SessionClient(app)
    client.send("hello").session

    async with AsyncSessionClient(app) as client:
        (await client.send("hello")).session

A client judges nothing. It sends what the test gives it and keeps what it gets, also the session of a refusal or of a stream;
asserting is the test's part. A client is one conversation, which has one turn at a time; two clients may speak at once.

What a reader gets wrong: the application of a synchronous client runs in an event loop of its own, in another thread. What it uses
must not belong to the loop of an asynchronous test; ``AsyncSessionClient`` stays in that loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

from starlette.types import ASGIApp

from dcaf.client.conversation import HistoryMode
from dcaf.testing.asgi import ApplicationLoop
from dcaf.testing.conversation import Echo, EchoConversation, Terminal, encode_body, is_end, user_message
from dcaf.testing.reply import SWITCHED, Reply
from dcaf.testing.transport import WEBSOCKET, ServiceConnection, Wire

PATIENCE: Final = timedelta(seconds=10)

T = TypeVar("T")


class BaseSessionClient(EchoConversation):
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
        history: ``"server"`` where the service keeps the conversation: a turn has its own message alone. ``"client"`` sends all.
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

    _follows_redirects: ClassVar[bool]

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
        history: HistoryMode = "client",
        terminal: Terminal = is_end,
        timeout: timedelta = PATIENCE,
        raise_server_exceptions: bool = True,
    ) -> None:
        super().__init__(envelope=envelope, messages=messages, fields=fields, echo=echo, history=history)
        self._connection = ServiceConnection(
            app,
            wire=wire,
            path=path,
            headers=headers,
            terminal=terminal,
            timeout=timeout,
            raise_server_exceptions=raise_server_exceptions,
            follow_redirects=self._follows_redirects,
        )
        self._is_websocket = wire == WEBSOCKET
        self._loop: ApplicationLoop | None = None

    def _keep_session(self, reply: Reply) -> Reply:
        """Keep the session of an answer; one that refuses a WebSocket has none."""
        return reply if self._is_websocket and reply.status != SWITCHED else self.adopted(reply)


class AsyncSessionClient(BaseSessionClient):
    """Sends the turns of one conversation; the arguments are those of BaseSessionClient."""

    _follows_redirects = False

    async def send(self, text: str, **fields: Any) -> Reply:
        """Say something: the message, the history and the session go out, the answer's session is kept.

        Args:
            text: What the user says.
            **fields: Further top-level members of this body.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        return self.kept(await self.post(self.asked(user_message(text), fields)))

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
        return self._keep_session(await self._connection.post(encode_body(body), self.overheard))

    async def close(self) -> None:
        """Close the connections, and stop the application if ``async with`` has started it. Raises what it raised meanwhile."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        await self._connection.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class SessionClient(BaseSessionClient):
    """Sends the turns of one conversation; the arguments are those of BaseSessionClient."""

    _follows_redirects = True  # as Starlette's own test client does

    def send(self, text: str, **fields: Any) -> Reply:
        """Say something: the message, the history and the session go out, the answer's session is kept.

        Args:
            text: What the user says.
            **fields: Further top-level members of this body.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
            ConfigurationError: An argument is of a wrong type, or no JSON.
        """
        return self.kept(self.post(self.asked(user_message(text), fields)))

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
        return self._keep_session(self._run(self._connection.post, encode_body(body), self.overheard))

    def close(self) -> None:
        """Close the connections, and stop the application if ``with`` has started it. Raises what it raised meanwhile."""
        if self._loop is None:
            return
        try:
            self._run(self._connection.close)
        finally:
            loop, self._loop = self._loop, None
            loop.close()

    def __enter__(self) -> Self:
        try:
            self._run(self._connection.start)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run something in the event loop of this client, which is begun when it is first needed."""
        if self._loop is None:
            self._loop = ApplicationLoop(self)
        return self._loop.portal.call(function, *arguments)
