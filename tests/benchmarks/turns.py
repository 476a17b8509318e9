"""Whole requests in process: one Starlette endpoint, without a session and with each of the ways to have one.

An application is called as a server calls it, without a server. What is compared is what each adds to the endpoint alone.

What a reader gets wrong: the session travels differently. Starlette and starsessions have it in a cookie, the others in the
JSON body, where the client sends back what it got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope, Send

from tests.benchmarks.harness import Effort, interleaved, of_coroutine, written
from tests.benchmarks.states import SIZES, state_of

PATH: Final = "/api/chat"
ANSWER: Final = {"content": "Three are in stock. Which one shall it be?"}
SAID: Final = {"role": "user", "id": "m-99999", "content": "The second one, please.", "tokens": 6}
HEADERS: Final = ((b"host", b"127.0.0.1"), (b"accept", b"*/*"), (b"content-type", b"application/json"))
BARE: Final = "no session"

Store: TypeAlias = MutableMapping[str, Any]
Work: TypeAlias = Callable[[Request], Awaitable[dict[str, Any]]]
"""What an endpoint does; it returns what the endpoint answers."""

OPERATIONS: Final = {
    "untouched": "the session is left alone",
    "read": "one key is read",
    "write": "one small key is written",
    "append": "a message is appended",
    "replace": "every key is written",
    "parsed": "one small key is written, and the endpoint parses its body",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One request, to be repeated: an application, its headers and its body."""

    app: ASGIApp
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    async def __call__(self) -> list[Message]:
        """Ask; the messages of the answer."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await self.ask(send)
        return sent

    async def ask(self, send: Send) -> None:
        """Ask, and give each message of the answer to a function."""
        pending: list[Message] = [{"type": "http.request", "body": self.body, "more_body": False}]

        async def receive() -> Message:
            return pending.pop() if pending else {"type": "http.disconnect"}

        await self.app(self._scope(), receive, send)

    def _scope(self) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": list(self.headers),
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
        }


class Way(Protocol):
    """One way to have a session.

    Attributes:
        name: Name of its row.
    """

    name: str

    def wrapped(self, app: Starlette) -> ASGIApp:
        """The application with its middleware."""

    def session(self, request: Request) -> Store:
        """What an endpoint reads and writes."""

    def append(self, session: Store, key: str, value: Any) -> None:
        """Append to a list, as its documentation says."""

    def sent(self, state: dict[str, Any]) -> tuple[Iterable[tuple[bytes, bytes]], bytes]:
        """Further headers and the body of a request whose session is that state."""

    def answered(self, messages: list[Message]) -> dict[str, Any] | None:
        """The state in an answer, opened and verified; None where it carries none."""


def turn_of(way: Way, operation: str, state: dict[str, Any], replacement: dict[str, Any]) -> Turn:
    """One request of one way, that does one thing to a session that is that state."""
    work = works(way, replacement)[operation]

    async def chat(request: Request) -> JSONResponse:
        return JSONResponse(ANSWER | await work(request))

    return asked(way, chat, state)


def asked(way: Way, endpoint: Callable[[Request], Awaitable[Response]], state: dict[str, Any]) -> Turn:
    """One request to an endpoint, of a client whose session is that state."""
    headers, body = way.sent(state)
    length = (b"content-length", str(len(body)).encode())
    app = Starlette(routes=[Route(PATH, endpoint, methods=["POST"])])
    return Turn(way.wrapped(app), (*HEADERS, length, *headers), body)


def works(way: Way, replacement: dict[str, Any]) -> dict[str, Work]:
    """What an endpoint does for each operation."""

    async def untouched(request: Request) -> dict[str, Any]:
        return {}

    async def read(request: Request) -> dict[str, Any]:
        return {"step": way.session(request)["step"]}

    async def write(request: Request) -> dict[str, Any]:
        way.session(request)["step"] += 1
        return {}

    async def append(request: Request) -> dict[str, Any]:
        way.append(way.session(request), "messages", SAID)
        return {}

    async def replace(request: Request) -> dict[str, Any]:
        way.session(request).update(replacement)
        return {}

    async def parsed(request: Request) -> dict[str, Any]:
        body = await request.json()
        way.session(request)["step"] += 1
        return {"heard": body["messages"][-1]["content"]}

    return {"untouched": untouched, "read": read, "write": write, "append": append, "replace": replace, "parsed": parsed}


def measured(ways: Iterable[Way], effort: Effort) -> dict[str, Any]:
    """Operation -> size -> row -> what was measured."""
    with asyncio.Runner() as runner:
        return {
            operation: {size: _table(runner, list(ways), operation, size, effort) for size in SIZES} for operation in OPERATIONS
        }


def _table(runner: asyncio.Runner, ways: list[Way], operation: str, size: str, effort: Effort) -> dict[str, Any]:
    state, replacement = state_of(SIZES[size]), state_of(SIZES[size], seed=1)
    turns = {way.name: turn_of(way, operation, state, replacement) for way in ways}
    return written(interleaved({name: of_coroutine(runner, turn) for name, turn in turns.items()}, effort))
