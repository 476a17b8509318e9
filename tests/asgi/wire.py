"""A server of one request, in a few lines: it gives the messages of a body, then a disconnect, and keeps what is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dcaf.asgi import SessionMiddleware
from dcaf.core import Key, Keyring
from dcaf.testing import sealed

RING = Keyring(Key.generate("k7"))
AUDIENCE = "shop"
DISCONNECT = {"type": "http.disconnect"}
JSON_TYPE = (b"content-type", b"application/json")


@dataclass
class Sent:
    """What the client saw, and how much of the body the application side took."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    taken_bytes: int = 0
    left: list[dict[str, Any]] = field(default_factory=list)

    @property
    def start(self) -> Any:
        return self.messages[0]

    @property
    def status(self) -> Any:
        return self.start["status"]

    @property
    def headers(self) -> Any:
        return [(name.decode(), value.decode()) for name, value in self.start["headers"]]

    def header(self, name: Any) -> Any:
        values = [value for found, value in self.headers if found == name]
        assert len(values) < 2, f"{name} is there twice"
        return values[0] if values else None

    @property
    def body(self) -> Any:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        return self.json.get("code")

    @property
    def envelope(self) -> Any:
        data = self.json.get("data")
        return data.get("session") if isinstance(data, dict) else None


def messages_of(body: bytes | Iterable[bytes]) -> list[dict[str, Any]]:
    chunks = [body] if isinstance(body, bytes) else list(body)
    last = len(chunks) - 1
    return [{"type": "http.request", "body": chunk, "more_body": at < last} for at, chunk in enumerate(chunks)]


@dataclass
class Route:
    """What a framework leaves in the scope: the path that the developer wrote."""

    path: str


def scope_of(method: Any = "POST", path: Any = "/api/chat", headers: Any = (JSON_TYPE,), **members: Any) -> Any:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": list(headers),
        "route": Route(path),
        **members,
    }


async def exchange(app: Any, scope: Any, messages: Any) -> Sent:
    sent, pending = Sent(), list(messages)

    async def receive() -> Any:
        if not pending:
            return dict(DISCONNECT)
        message = pending.pop(0)
        sent.taken_bytes += 0 if sent.messages else len(message.get("body", b""))
        return message

    async def send(message: Any) -> None:
        sent.messages.append(message)

    await app(scope, receive, send)
    sent.left = pending
    return sent


def call(
    app: Any, body: Any = b"", *, method: Any = "POST", path: Any = "/api/chat", headers: Any = (JSON_TYPE,), **members: Any
) -> Sent:
    """One request; a body that is neither bytes nor chunks of bytes is written as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    return asyncio.run(exchange(app, scope_of(method, path, headers, **members), messages_of(body)))


def with_length(body: bytes, *headers: Any) -> Any:
    return (JSON_TYPE, (b"content-length", str(len(body)).encode()), *headers)


def mounted(app: Any, **settings: Any) -> SessionMiddleware:
    return SessionMiddleware(app, **{"keys": RING, "audience": AUDIENCE, **settings})


def envelope(state: Any = None, **options: Any) -> Any:
    return sealed(state or {}, **{"keys": RING, "audience": AUDIENCE, **options})


def opened(found: Any) -> Any:
    """The state that a sealed session holds, by the library's own verification."""
    from dcaf.core.sealer import Sealer

    sealer = Sealer(keys=RING, audience=AUDIENCE)
    return sealer.open(found, sealer.binding()).to_dict()


class Recorder:
    """An application that reads its body to the end, keeps it, and answers."""

    def __init__(self, answer: Any = b'{"ok":true}', *, tool: Any = None, status: Any = 200, headers: Any = (JSON_TYPE,)) -> None:
        self.bodies: list[bytes] = []
        self.scopes: list[dict[str, Any]] = []
        self.states: list[dict[str, Any] | None] = []
        self.after: list[dict[str, Any]] = []
        self.answer, self.tool, self.status, self.answer_headers = answer, tool, status, headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        session = scope.get("dcaf.session")
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request", message
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.states.append(json.loads(session._state.plain()) if session is not None else None)  # which counts as no look
        if self.tool:
            self.tool(session)
        answer = self.answer(body) if callable(self.answer) else self.answer
        chunks = [answer] if isinstance(answer, bytes) else list(answer)
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.answer_headers)})
        for at, chunk in enumerate(chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": at + 1 < len(chunks)})
        self.after.append(await receive())

    @property
    def seen(self) -> Any:
        return json.loads(self.bodies[-1])

    @property
    def reached(self) -> Any:
        return bool(self.scopes)
