"""Services that answer what a test has written: events, refusals, and bytes that no real one sends."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from dcaf import Keyring, Session, tool
from dcaf.agent import Agent, create_app
from dcaf.testing import serving

KEYS: Final = Keyring.ephemeral()
WAIT_S: Final = 20.0
"""How long a server waits for what must happen."""

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
CLOSES: Final = b"Connection: close\r\n"
"""Older releases of Node.js take the end of a connection that was to close for the end of its answer, wherever that is cut."""

LAST: Final = b"0\r\n\r\n"


@contextmanager
def scripted(*answers: list[dict[str, Any]] | dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """A service that gives some streams, or refusals, in turn; and what it was sent."""
    sent: list[Any] = []

    async def next_one(request: Any) -> Any:
        sent.append(await request.json())
        answer = answers[len(sent) - 1]
        if isinstance(answer, dict):
            return JSONResponse(answer, answer.get("status", 409), media_type="application/problem+json")
        return StreamingResponse(iter([json.dumps(event) + "\n" for event in answer]), media_type="application/x-ndjson")

    with serving(Starlette(routes=[Route("/api/chat-stream", next_one, methods=["POST"])])) as url:
        yield url, sent


def chunked(*parts: bytes) -> bytes:
    """Parts of a body, each as a chunk of its own."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)


def streamed(*parts: bytes, is_whole: bool = True) -> bytes:
    """An answer whose body comes in parts; where it is not whole, the connection breaks."""
    return HEAD + (CLOSES if is_whole else b"") + b"\r\n" + chunked(*parts) + (LAST if is_whole else b"")


def refused(status: int, body: bytes, kind: str = "application/problem+json", *, length: int | None = None) -> bytes:
    """A refusal; with another length than its own it is cut."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d Refused\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status,
        kind.encode(),
        size,
        body,
    )


@dataclass
class Bytes:
    """A server that sends what it was given, byte for byte.

    Attributes:
        url: Its address.
        asked: The bodies that came.
        left: Set when a client closed its connection while the server kept it open.
    """

    url: str
    asked: list[Any] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)


@contextmanager
def answering(*answers: bytes, keeps_open: bool = False, pause_s: float = 0) -> Iterator[Bytes]:
    """A server with one answer for each request, the last one for all further.

    Args:
        answers: From the status line on; an empty one is none.
        keeps_open: Whether it waits, after what it has sent, for the client to close the connection.
        pause_s: How long it waits after each byte; 0 sends everything at once.
    """
    served = Bytes("")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # a client may leave at any time
                self.answer()

        def answer(self) -> None:
            served.asked.append(json.loads(_body(self.rfile)))
            answer = answers[min(len(served.asked), len(answers)) - 1]
            for part in [answer[at : at + 1] for at in range(len(answer))] if pause_s else [answer]:
                self.wfile.write(part)
                time.sleep(pause_s)
            if keeps_open and _closes(self.connection):
                served.left.set()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield served
        server.shutdown()


def _closes(connection: socket.socket) -> bool:
    """Whether the other side closes a connection before the server is tired of waiting."""
    connection.settimeout(WAIT_S)
    try:
        return not connection.recv(1)
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def _body(request: Any) -> bytes:
    length = 0
    while line := request.readline().strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    found: bytes = request.read(length)
    return found


@contextmanager
def wiping(**settings: Any) -> Iterator[tuple[str, list[str]]]:
    """An agent that wipes a disk when that is approved, and is not done before it is stopped; and the disks that it has wiped."""
    wiped: list[str] = []

    @tool(requires_approval=True)
    async def wipe(disk: str, session: Session) -> str:
        """Wipe a disk."""
        wiped.append(disk)
        session["wiping"] = disk
        await anyio.sleep(WAIT_S)
        return "It took too long."

    async def words(messages: Any, _info: Any) -> Any:
        said = getattr(messages[-1].parts[-1], "content", "")
        yield {0: DeltaToolCall("wipe", json.dumps({"disk": "a"}), tool_call_id="w1")} if said == "wipe" else "Done."

    agent = Agent(FunctionModel(stream_function=words), tools=[wipe], name="wiping")
    with serving(create_app(agent, keys=Keyring.ephemeral(), audience="wiping", **settings)) as url:
        yield url, wiped


def line(**event: Any) -> bytes:
    """A line of a stream."""
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def session(number: int) -> dict[str, Any]:
    """A session object, as any service would give it."""
    return {"n": number, "dcaf": {"token": f"token-{number}"}}
