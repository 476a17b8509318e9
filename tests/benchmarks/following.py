"""A load generator whose connections are clients: each has a session, and sends back what the last answer gave it.

    python -m tests.benchmarks.following PORT CONNECTIONS WARM_UP_S SECONDS < exchange

It prints what it saw as JSON. The exchange is JSON, too: how the first request looks, how later ones do, and a pattern that finds
the session in an answer.

What a reader gets wrong: a session may be in a cookie or in the body. This client does the same for both: it searches the bytes of
the answer, and puts what it found where the mark is.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.benchmarks.client import CHUNK_BYTES, END, OK, POLL_MS, announced

MARK: Final = "{session}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """How a client talks to a service.

    Attributes:
        path: Where it posts to.
        first_body: The body of its first request, which has no session.
        headers: Further headers of each later request, by name; the mark stands for the session.
        body: The body of each later one.
        pattern: Finds the session in an answer, head and body, as its first group.
    """

    path: str
    first_body: str
    headers: dict[str, str]
    body: str
    pattern: str

    def request(self, session: str | None) -> bytes:
        """A request; None for the first."""
        headers = {} if session is None else self.headers
        body = self.first_body if session is None else self.body
        lines = [f"{name}: {value}" for name, value in headers.items()]
        written = body.replace(MARK, session or "").encode("latin-1")
        head = "\r\n".join([f"POST {self.path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *lines])
        length = f"\r\nContent-Length: {len(written)}\r\n\r\n"
        return head.replace(MARK, session or "").encode("latin-1") + length.encode() + written


class Client:
    """One connection, with one request at a time.

    Args:
        opened: Connected.
        exchange: How it talks.

    Attributes:
        answer: What came of the answer so far.
        begun_s: When the request was sent.
    """

    def __init__(self, opened: socket.socket, exchange: Exchange) -> None:
        self._socket = opened
        self._exchange = exchange
        self._pattern = re.compile(exchange.pattern.encode("latin-1"), re.IGNORECASE)
        self._session: str | None = None
        self.answer: bytes = b""
        self.begun_s: float = 0.0

    def ask(self) -> None:
        """Send the next request."""
        request = self._exchange.request(self._session)
        self.answer, self.begun_s = b"", time.perf_counter()
        self._socket.sendall(request)

    def take(self) -> bool:
        """Read what has come; whether the answer is complete.

        Raises:
            ConnectionError: The service closed the connection, or answered with another status than 200, or without a session.
        """
        chunk = self._socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionError("the service closed the connection")
        self.answer += chunk
        head, end, body = self.answer.partition(END)
        if not end or len(body) < announced(head):
            return False
        if not head.startswith(OK):
            raise ConnectionError(f"answered with {head[:80]!r}")
        return True

    def follow(self) -> None:
        """Take the session out of the answer.

        Raises:
            ConnectionError: There is none.
        """
        found = self._pattern.search(self.answer)
        if found is None:
            raise ConnectionError("answered without a session")
        self._session = found[1].decode("latin-1")


def seen(port: int, exchange: Exchange, *, connections: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
    """Requests per second, two times in milliseconds, and how busy this client was itself."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
        clients = {one.fileno(): Client(one, exchange) for one in sockets}
        waiting = select.poll()
        for number, client in clients.items():
            waiting.register(number, select.POLLIN)
            client.ask()
        _answers(clients, waiting, warm_up_s)
        busy_s, start = time.process_time(), time.perf_counter()
        took = sorted(_answers(clients, waiting, seconds))
        elapsed_s = time.perf_counter() - start
    return {
        "per_s": len(took) / elapsed_s,
        "median_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "client_busy": (time.process_time() - busy_s) / elapsed_s,
    }


def _answers(clients: dict[int, Client], waiting: select.poll, seconds: float) -> list[float]:
    """Seconds that each answer took, for so long; each is followed by the next request."""
    took, end_s = [], time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for number, _ in waiting.poll(POLL_MS):
            client = clients[number]
            if client.take():
                took.append(time.perf_counter() - client.begun_s)
                client.follow()
                client.ask()
    return took


def written(exchange: Exchange) -> bytes:
    """An exchange as this program reads it."""
    return json.dumps(asdict(exchange)).encode()


def main(port: str, connections: str, warm_up_s: str, seconds: str) -> None:
    """Drive a service, and print what was seen."""
    exchange = Exchange(**json.load(sys.stdin))
    found = seen(int(port), exchange, connections=int(connections), warm_up_s=float(warm_up_s), seconds=float(seconds))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
