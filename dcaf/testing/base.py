"""What the sync and the async client share: where the service is, the wire to it, and the conversation.

What a reader gets wrong: nothing is judged here. The client sends what it is told to and keeps what it gets, also where the service
is wrong; asserting is the test's part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from starlette.types import ASGIApp

from dcaf.client.arguments import check, check_function, check_url, check_wait
from dcaf.testing.conversation import Echo, Echoing
from dcaf.testing.frames import Refusal
from dcaf.testing.asgi import Running
from dcaf.testing.reply import Reply
from dcaf.testing.transport import SOCKET, Terminal, Wire, headers_of, is_end, path_of

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
