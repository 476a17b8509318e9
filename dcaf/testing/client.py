"""A client that carries ``data.session`` from turn to turn, as a browser would.

    client = SessionClient(app)
    client.send("hello").session

What a reader gets wrong: the client adopts ``data.session`` from any answer that has one, refusals too. That is how a
client gets rid of a session that has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

try:
    import httpx2
except ModuleNotFoundError:
    raise ModuleNotFoundError("dcaf.testing needs httpx2: pip install 'dcaf[testing]'", name="httpx2") from None
from starlette.testclient import TestClient
from starlette.types import ASGIApp


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        status: HTTP status.
        body: The JSON body; None where it is something else.
        headers: By lower-case name.
        sent_bytes: Length of the request's body.
    """

    status: int
    body: Any
    headers: Mapping[str, str]
    sent_bytes: int

    @property
    def envelope(self) -> dict[str, Any] | None:
        """What stands at ``data.session``; None where nothing does."""
        data = self.body.get("data") if isinstance(self.body, dict) else None
        found = data.get("session") if isinstance(data, dict) else None
        return found if isinstance(found, dict) else None

    @property
    def session(self) -> dict[str, Any]:
        """The state as the client can read it: the mirror."""
        return {key: value for key, value in (self.envelope or {}).items() if key != "dcaf"}

    @property
    def text(self) -> str | None:
        """What the assistant said, at ``content``."""
        return self.body.get("content") if isinstance(self.body, dict) else None

    @property
    def code(self) -> str | None:
        """Code of the problem; None where the request was served."""
        return self.body.get("code") if isinstance(self.body, dict) else None


class SessionClient:
    """Sends the turns of one conversation.

    Args:
        app: An ASGI application, called in process, or the base URL of a running one.
        path: Where the turns are posted.
        envelope: A session to begin with, as ``sealed`` makes one; None begins without.
        headers: Sent with every turn.

    Attributes:
        envelope: The session that the next turn will carry.
        messages: The conversation so far; each answer keeps the session that it carried.
    """

    def __init__(
        self,
        app: ASGIApp | str,
        *,
        path: str = "/api/chat",
        envelope: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        sent = dict(headers or {})
        self._http = httpx2.Client(base_url=app, headers=sent) if isinstance(app, str) else TestClient(app, headers=sent)
        self._path = path
        self.envelope = envelope
        self.messages: list[dict[str, Any]] = []

    def send(self, text: str, **fields: Any) -> Reply:
        """Say something: the message, the history and the session go out, the answer's session is kept.

        Args:
            text: What the user says.
            **fields: Further top-level members of the body, such as ``thread_id``.
        """
        self.messages.append({"role": "user", "content": text})
        body = {**fields, "messages": self.messages, "data": {"session": self.envelope}}
        reply = self.post(body)
        if reply.code is None and isinstance(reply.body, dict):
            self.messages.append(reply.body)
        return reply

    def post(self, body: Any) -> Reply:
        """Send a body of your own, and keep the session of the answer if it has one."""
        answer = self._http.post(self._path, json=body)
        is_json = "json" in answer.headers.get("content-type", "")
        reply = Reply(answer.status_code, answer.json() if is_json else None, dict(answer.headers), len(answer.request.content))
        if reply.envelope is not None:
            self.envelope = reply.envelope
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
