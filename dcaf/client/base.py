"""What the sync and the async client share: where the service is, and the conversation with it.

What a reader gets wrong: a client is one conversation. Two conversations are two clients; they may share one ``http``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from dcaf.client.conversation import Conversation, OnDead
from dcaf.client.reach import httpx2
from dcaf.core.errors import ConfigurationError

HTTP = TypeVar("HTTP")
PATIENCE: Final = timedelta(minutes=2)
"""Models think for minutes, where HTTP libraries wait for seconds."""


class BaseClient(ABC, Generic[HTTP]):
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

    Attributes:
        conversation: What was said, and the session.

    Raises:
        ConfigurationError: ``base_url`` or ``on_dead`` cannot be.
    """

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
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigurationError("base_url must begin with http:// or https://, for the WebSocket too.")
        self.conversation: Conversation = Conversation(fields=fields, session=session, messages=messages, on_dead=on_dead)
        self._base_url = base_url.rstrip("/")
        self._given = httpx2.Headers(headers)
        self._headers = httpx2.Headers(headers)
        self._headers["content-type"] = "application/json"
        self._path = path
        self._stream_path = stream_path
        self._socket_url = f"ws{self._base_url.removeprefix('http')}{socket_path}"
        self._timeout_s = None if timeout is None else timeout.total_seconds()
        self._is_owner = http is None
        self._http: HTTP = self._made() if http is None else http

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

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.messages)} messages, session of {len(self.session)} keys>"

    @abstractmethod
    def _made(self) -> HTTP:
        """A client of the library."""

    def _url(self, path: str) -> str:
        return self._base_url + path
