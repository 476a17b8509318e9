"""A load generator in a process of its own: a fixed number of connections, each with one request at a time, over loopback.

    python -m tests.benchmarks.client PORT CONNECTIONS WARM_UP_S SECONDS < request

It prints what it saw as JSON. What a reader gets wrong: it does not pace. A slow service is asked less often, so the times are
those of a service that is as busy as it can be.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

END: Final = b"\r\n\r\n"
OK: Final = b"HTTP/1.1 200 "
LENGTH: Final = b"content-length:"
CHUNK_BYTES: Final = 256 * 1024
POLL_MS: Final = 1_000


@dataclass(slots=True)
class Connection:
    """One connection: the request that is under way, and how much of its answer is missing.

    Attributes:
        socket: Connected.
        begun_s: When the request was sent.
        missing: Bytes of the answer that are to come; None while its head is not complete.
        head: What came of the head so far.
    """

    socket: socket.socket
    begun_s: float = 0.0
    missing: int | None = None
    head: bytes = field(default=b"", repr=False)

    def ask(self, request: bytes) -> None:
        """Send the next request."""
        self.missing, self.head, self.begun_s = None, b"", time.perf_counter()
        self.socket.sendall(request)

    def take(self) -> bool:
        """Read what has come; whether the answer is complete.

        Raises:
            ConnectionError: The service closed the connection, or answered with another status than 200.
        """
        chunk = self.socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionError("the service closed the connection")
        if self.missing is None:
            self._take_head(chunk)
        else:
            self.missing -= len(chunk)
        return self.missing == 0

    def _take_head(self, chunk: bytes) -> None:
        self.head += chunk
        head, end, body = self.head.partition(END)
        if end:
            if not head.startswith(OK):
                raise ConnectionError(f"answered with {head[:80]!r}")
            self.missing = announced(head) - len(body)


def announced(head: bytes) -> int:
    r"""The Content-Length in the head of an answer.

    >>> announced(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nServer: a")
    12
    """
    at = head.lower().index(LENGTH) + len(LENGTH)
    return int(head[at:].partition(b"\r")[0])


def drive(port: int, request: bytes, *, connections: int, seconds: float) -> list[float]:
    """Ask for so long on so many connections; the seconds that each answer took."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
        by_number = {one.fileno(): Connection(one) for one in sockets}
        waiting = select.poll()
        for number, connection in by_number.items():
            waiting.register(number, select.POLLIN)
            connection.ask(request)
        return _answers(by_number, waiting, request, time.perf_counter() + seconds)


def _answers(by_number: dict[int, Connection], waiting: select.poll, request: bytes, end_s: float) -> list[float]:
    took = []
    while time.perf_counter() < end_s:
        for number, _ in waiting.poll(POLL_MS):
            connection = by_number[number]
            if connection.take():
                took.append(time.perf_counter() - connection.begun_s)
                connection.ask(request)
    return took


def seen(port: int, request: bytes, *, connections: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
    """Requests per second, two times in milliseconds, and how busy this client was itself."""
    drive(port, request, connections=connections, seconds=warm_up_s)
    busy_s, start = time.process_time(), time.perf_counter()
    took = sorted(drive(port, request, connections=connections, seconds=seconds))
    elapsed_s = time.perf_counter() - start
    return {
        "per_s": len(took) / elapsed_s,
        "median_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "client_busy": (time.process_time() - busy_s) / elapsed_s,
    }


if __name__ == "__main__":
    port, connections, warm_up_s, seconds = sys.argv[1:]
    found = seen(
        int(port), sys.stdin.buffer.read(), connections=int(connections), warm_up_s=float(warm_up_s), seconds=float(seconds)
    )
    sys.stdout.write(json.dumps(found))
