"""Where the service is, which libraries reach it, and one error for all of their ways to fail.

A request that failed may have been served, so it is sent again only where the service can tell what became of it. A client is one
conversation; two conversations are two clients, which may share one ``http``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, TypeVar

from dcaf.client.arguments import check, check_function, check_headers, check_path, check_url, check_wait
from dcaf.client.conversation import RETRIES, Conversation, HistoryMode, OnDead
from dcaf.client.errors import ServiceUnreachable, error_of_answer
from dcaf.client.reply import Approval
from dcaf.client.retries import GATEWAY, Retries
from dcaf.client.turn import Turn
from dcaf.core.importing import extra

with extra("dcaf.client", "dcaf[client]"):
    import httpx2
    import websockets.asyncio.client as async_websockets
    import websockets.sync.client as sync_websockets
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

__all__ = [
    "ConnectionClosed",
    "InvalidStatus",
    "WebSocketException",
    "async_websockets",
    "httpx2",
    "sync_websockets",
    "translate_errors",
]


@contextmanager
def translate_errors(path: str, turn: Turn) -> Iterator[None]:
    """Raise errors of this package for what fails on the way to a service.

    Args:
        path: What is reached, for the message.
        turn: What is read. Nothing is raised where it is due once more; if it has failed, that is why nothing more comes.

    Raises:
        ServiceError: It refused a WebSocket before it was open, or the turn had failed.
        ServiceUnreachable: No connection, a timeout, or it broke off.
    """
    try:
        yield
    except InvalidStatus as refusal:
        status = refusal.response.status_code
        if not (status in GATEWAY and turn.lost()):
            raise error_of_answer(status, refusal.response.headers, None) from refusal
    except (httpx2.RequestError, WebSocketException, OSError) as error:
        if not turn.lost():
            raise turn.failure or ServiceUnreachable(
                f"No complete answer came from {path} ({type(error).__name__}); whether the turn ran is not known. "
                "Its message is not kept: check the address and the service, then send it again."
            ) from error


HTTP = TypeVar("HTTP")
Sleep = TypeVar("Sleep", bound=Callable[[float], Any])
PATIENCE: Final = timedelta(minutes=2)
"""Models think for minutes, where HTTP libraries wait for seconds."""


class BaseClient(ABC, Generic[HTTP, Sleep]):
    """A conversation with an agent service.

    Args:
        base_url: Of the service: ``https://agent.example``.
        headers: Sent with every turn, such as Authorization.
        fields: Further top-level members of every body, such as ``thread_id``.
        session: A session object to go on with, as an answer had it at ``data.session``; None begins without.
        messages: What was said before, oldest first.
        path: Where turns are posted.
        stream_path: Where turns are posted whose answer is streamed.
        socket_path: Where the WebSocket is.
        on_dead: What to do when the service says that the session is of no use: ``"restart"`` says the turn once more in a
            new one, and ``reply.restarted`` says so; ``"raise"`` raises SessionDead.
        timeout: How long nothing may come; None waits forever. A ready-made ``http`` has its own.
        http: A ready-made client of httpx2, which is not closed with this one; None makes one.
        retries: How often a turn is sent again by itself, where the service can tell what became of the first one: where the
            session has the hint ``retry``. ``reply.attempts`` says how often it was sent.
        history: ``"server"`` where the service keeps the conversation (``create_app(history="server")``): a turn has its own
            message alone. ``"client"`` sends all of them.
        sleep: Waits for so many seconds before a turn is sent again; None waits as the clock goes.

    Attributes:
        conversation: What was said, and the session.

    Raises:
        ConfigurationError: An argument cannot be; the message says what it takes.
    """

    _library: ClassVar[type]

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        session: dict[str, Any] | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        path: str = "/api/chat",
        stream_path: str = "/api/chat-stream",
        socket_path: str = "/api/chat-ws",
        on_dead: OnDead = "restart",
        timeout: timedelta | None = PATIENCE,
        http: HTTP | None = None,
        retries: Retries = RETRIES,
        history: HistoryMode = "client",
        sleep: Sleep | None = None,
    ) -> None:
        self._base_url = check_url("base_url", base_url)
        self.conversation: Conversation = Conversation(
            fields=fields, session=session, messages=messages, on_dead=on_dead, retries=retries, history=history
        )
        self._given = httpx2.Headers(check_headers("headers", headers))
        self._headers = httpx2.Headers(self._given)
        self._headers["content-type"] = "application/json"
        self._path = check_path("path", path)
        self._stream_path = check_path("stream_path", stream_path)
        self._socket_url = f"ws{self._base_url.removeprefix('http')}{check_path('socket_path', socket_path)}"
        self._timeout_s = None if timeout is None else check_wait("timeout", timeout)
        if http is not None:
            check("http", http, self._library, f"a ready-made httpx2.{self._library.__name__}, or None")
        self._sleep: Sleep = self._default_sleep() if sleep is None else check_function("sleep", sleep, "a function of seconds")
        self._is_owner = http is None
        self._http: HTTP = self._make_http() if http is None else http

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """What was said, oldest first; the answers without their sessions."""
        return self.conversation.messages

    @property
    def session(self) -> dict[str, Any]:
        """The state as the client can read it: for display, and as much of it as the service shows."""
        return self.conversation.session

    @property
    def envelope(self) -> dict[str, Any] | None:
        """What the next turn will carry, to keep it elsewhere; ``session=`` takes it."""
        return self.conversation.envelope

    @property
    def approvals(self) -> list[Approval]:
        """What waits for a decision, in the order of the answer that asked. It is read from the messages and the session, so a
        client that goes on with ``messages=`` and ``session=`` knows it too.
        """
        return list(self.conversation.waiting.values())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.messages)} messages, session of {len(self.session)} keys>"

    @abstractmethod
    def _make_http(self) -> HTTP:
        """A client of the library."""

    @abstractmethod
    def _default_sleep(self) -> Sleep:
        """Waits for so many seconds."""

    def _url(self, path: str) -> str:
        return self._base_url + path

    def _headers_of(self, turn: Turn) -> httpx2.Headers:
        """The headers of the request that a turn has made last."""
        headers = self._headers.copy()
        headers.update(turn.headers)
        return headers
