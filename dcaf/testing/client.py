"""A client that carries ``data.session`` from turn to turn, as a browser would.

    client = SessionClient(app)
    client.send("hello").session

What a reader gets wrong: the client adopts ``data.session`` from any answer that has one, refusals and streams too. That is
how a client gets rid of a session that has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

try:
    import httpx2
except ModuleNotFoundError:
    raise ModuleNotFoundError("dcaf.testing needs httpx2: pip install 'dcaf[testing]'", name="httpx2") from None
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from dcaf.client.arrival import is_json, session_in
from dcaf.testing.arrival import held

Echo: TypeAlias = Callable[[Mapping[str, Any]], bytes]
"""How a client writes the session that it sends back: the envelope -> its JSON text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        status: HTTP status.
        body: The JSON body; None where it is something else.
        headers: By lower-case name.
        sent_bytes: Length of the request's body.
        content: The bytes of the body.
    """

    status: int
    body: Any
    headers: Mapping[str, str]
    sent_bytes: int
    content: bytes = field(default=b"", repr=False)

    @property
    def envelope(self) -> dict[str, Any] | None:
        """What stands at ``data.session``, in a stream of the last event that has one; None where nothing does."""
        if self.body is None:
            return held(self.headers.get("content-type", ""), self.content, None, whole=True)
        return session_in(self.body)

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
        fields: Further top-level members of every body, such as ``thread_id``.
        echo: How the session is written that is sent back, as ``HARMLESS`` has them; None writes it as it came.

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
        fields: Mapping[str, Any] | None = None,
        echo: Echo | None = None,
    ) -> None:
        sent = dict(headers or {})
        self._http = httpx2.Client(base_url=app, headers=sent) if isinstance(app, str) else TestClient(app, headers=sent)
        self._http.headers.setdefault("content-type", "application/json")
        self._path = path
        self._fields = dict(fields or {})
        self._echo = echo or written
        self.envelope = envelope
        self.messages: list[dict[str, Any]] = []

    def send(self, text: str, **fields: Any) -> Reply:
        """Say something: the message, the history and the session go out, the answer's session is kept.

        Args:
            text: What the user says.
            **fields: Further top-level members of this body.
        """
        return self._say({"role": "user", "content": text}, fields)

    def decide(self, decision: bool | str, text: str = "") -> Reply:
        """Decide about every call that the last answer waits with: send the decisions, as ``send`` does.

        Args:
            decision: True to run them, or the reason why not.
            text: What else the user says.
        """
        said = {"execute": True} if decision is True else {"rejection_reason": decision}
        waiting = (self.messages[-1].get("data") or {}).get("approvals", []) if self.messages else []
        return self._say({"role": "user", "content": text, "data": {"approvals": [item | said for item in waiting]}}, {})

    def post(self, body: Any) -> Reply:
        """Send a body of your own, and keep the session of the answer if it has one.

        Args:
            body: A JSON value, or bytes, which are sent as they are.
        """
        content = body if isinstance(body, bytes) else written(body)
        answer = self._http.post(self._path, content=content)
        value = answer.json() if is_json(answer.headers.get("content-type", "")) else None
        reply = Reply(answer.status_code, value, dict(answer.headers), len(content), answer.content)
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

    def _say(self, message: dict[str, Any], fields: Mapping[str, Any]) -> Reply:
        self.messages.append(message)
        reply = self.post(self._body(fields))
        if reply.code is None and isinstance(reply.body, dict):
            self.messages.append(reply.body)
        return reply

    def _body(self, fields: Mapping[str, Any]) -> bytes:
        session = b"null" if self.envelope is None else self._echo(self.envelope)
        before = {**self._fields, **fields, "messages": self.messages}
        before.pop("data", None)
        return written(before)[:-1] + b',"data":{"session":' + session + b"}}"


def written(value: Any) -> bytes:
    """Compact JSON in the order given, without escapes that are not needed, as most clients write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
