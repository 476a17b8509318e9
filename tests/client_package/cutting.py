"""A proxy between a client and a real service that cuts connections where it is told to, and a service that knows a turn again."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from dcaf import SessionMiddleware
from dcaf.ledger import Ledger
from dcaf.testing import serving
from tests.client_package.services import AUDIENCE, RING, chat, chat_stream, chat_ws

CUTS: Final = ("before the request", "after the request", "after the head", "in the middle")
ANSWER_S: Final = 10.0
FIRST_BYTES: Final = 20
"""So much of a body comes before it is cut in the middle."""

LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
EXTENSIONS: Final = re.compile(rb"sec-websocket-extensions:[^\r]*\r\n", re.IGNORECASE)
"""A proxy that reads frames has none that are compressed."""

TEXT_FRAME: Final = 0x81


class Remembering:
    """A service whose ledger knows a turn again, and that says so in each envelope; or one that keeps nothing.

    Attributes:
        keys: The ``Idempotency-Key`` of each request; None for none.
        effects: What the application was asked to do, each time.
        ledger: What it keeps; None for nothing.
        gate: Where it is not set, the application waits for it.
    """

    def __init__(self, ledger: Ledger | None, **settings: Any) -> None:
        routes = [
            Route("/api/chat", chat, methods=["POST"]),
            Route("/api/chat-stream", chat_stream, methods=["POST"]),
            WebSocketRoute("/api/chat-ws", chat_ws),
        ]
        self.keys: list[str | None] = []
        self.effects: list[str] = []
        self.ledger = ledger
        self.gate = threading.Event()
        self.gate.set()
        self._application = Starlette(routes=routes)
        known: dict[str, Any] = {"keys": RING, "audience": AUDIENCE, "subject": lambda _: "ada", "store": ledger}
        self._app = SessionMiddleware(self._count, **(known | settings))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http":
            key = headers.get(b"idempotency-key")
            self.keys.append(key and key.decode())
        await self._app(scope, receive, send)

    async def _count(self, scope: Any, receive: Any, send: Any) -> None:
        """The application, and a note of each turn that reaches it."""

        async def heard() -> Any:
            message = await receive()
            said = message.get("text") or message.get("body") or b""
            if len(said) > 0:
                self.effects.append(said if isinstance(said, str) else said.decode())
                await anyio.to_thread.run_sync(self.gate.wait, ANSWER_S)
            return message

        await self._application(scope, heard, send)


@dataclass
class Proxy:
    """What is between a client and its service.

    Attributes:
        url: Where the client finds it.
        cuts: Where the connections of the next requests, or frames, are cut; None lets one through. An empty list lets all through.
        answer: What answers in place of a cut; an empty one breaks the connection.
        sent: How many requests and frames came.
    """

    url: str = ""
    cuts: list[str | None] = field(default_factory=list)
    answer: bytes = b""
    sent: int = 0

    def next_cut(self) -> str | None:
        self.sent += 1
        return self.cuts.pop(0) if self.cuts else None


@contextmanager
def proxied(app: Any) -> Iterator[Proxy]:
    """A service behind a proxy."""
    proxy = Proxy()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), self.request, socket.create_connection((there.hostname, there.port)) as service:
                exchange(proxy, self.request, service)

    with serving(app) as url, socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        there = urlsplit(url)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield proxy
        server.shutdown()


def exchange(proxy: Proxy, client: socket.socket, service: socket.socket) -> None:
    """One request and its answer, or one WebSocket: the client's connection ends with it."""
    service.settimeout(ANSWER_S)
    request = read_request(client)
    if not request:
        return
    if b"upgrade: websocket" in request.lower():
        service.sendall(EXTENSIONS.sub(b"", request))
        relay_frames(proxy, client, service)
        return
    cut = proxy.next_cut() if request.startswith(b"POST") else None
    if cut != "before the request":
        if cut == "while it runs":
            client.close()
        service.sendall(re.sub(rb"(?i)connection: [\w-]+", b"Connection: close", request, count=1))
        keep = keeping(cut)
        pass_on(service, client, keep)
    if cut and cut != "while it runs":
        client.sendall(proxy.answer)


def keeping(cut: str | None) -> Callable[[bytes], int]:
    """How much of what has come of an answer goes to the client."""
    return {
        None: len,
        "after the request": lambda _: 0,
        "while it runs": lambda _: 0,
        "after the head": lambda answer: max(answer.find(b"\r\n\r\n") + 4, 0) if b"\r\n\r\n" in answer else 0,
        "in the middle": lambda answer: min(answer.find(b"\r\n\r\n") + 4 + FIRST_BYTES, len(answer) - FIRST_BYTES),
    }[cut]


def pass_on(service: socket.socket, client: socket.socket, keep: Callable[[bytes], int]) -> None:
    """Read a whole answer, so that its turn has ended when the connection is cut, and pass on what is to be kept of it."""
    answer = b""
    while part := service.recv(65536):
        answer += part
        if keep is len:
            client.sendall(part)
    if keep is not len and keep(answer):
        client.sendall(answer[: keep(answer)])


def read_request(client: socket.socket) -> bytes:
    """A request with its body; an empty one where the client has left."""
    request = b""
    while b"\r\n\r\n" not in request:
        part = client.recv(65536)
        if not part:
            return b""
        request += part
    head, _, body = request.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    while length and len(body) < int(length[1]):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def relay_frames(proxy: Proxy, client: socket.socket, service: socket.socket) -> None:
    """Both directions of a WebSocket. A cut is about the client's next frame."""
    state: dict[str, str | None] = {"cut": None}

    def to_client() -> None:
        handshake = service.recv(65536)
        client.sendall(handshake)
        with suppress(OSError):
            while part := service.recv(65536):
                if state["cut"] == "in the middle":
                    client.sendall(part[: len(part) // 2])
                if state["cut"] is None:
                    client.sendall(part)
                elif b'"done"' in part:
                    break
        for end in (client, service):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=to_client, daemon=True).start()
    while part := client.recv(65536):
        cut = proxy.next_cut() if part[0] == TEXT_FRAME else None
        if cut == "before the request":
            return
        state["cut"] = cut
        service.sendall(part)


@contextmanager
def remembering(level: str = "L2", **settings: Any) -> Iterator[tuple[Remembering, Proxy]]:
    """A service of a level behind a proxy."""
    service = Remembering(Ledger("memory://", audience=AUDIENCE) if level == "L2" else None, **settings)
    with proxied(service) as proxy:
        yield service, proxy
