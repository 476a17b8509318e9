"""How the turns of a testing client travel: the four wires, and the connection that carries them.

>>> path_of("websocket", None), path_of("sse", "/ask")
('/api/chat-ws', '/ask')

A wire is what the client asks for. How an answer is read is decided by the answer, so a stream that is refused with a JSON problem
is read as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

from starlette.types import ASGIApp

from dcaf.client.arguments import check, check_function, check_headers, check_path, check_url, check_wait
from dcaf.client.envelopes import parse_json
from dcaf.client.transport import httpx2
from dcaf.core.errors import ConfigurationError
from dcaf.testing.asgi import BASE_URL, CLIENT, InProcessWebSocket, ManagedApplication
from dcaf.testing.conversation import Closed, Terminal, TurnFrames, frame_of, is_missed
from dcaf.testing.reply import Reply
from dcaf.testing.websocket import NetworkWebSocket, WebSocketConnection

Wire: TypeAlias = Literal["json", "ndjson", "sse", "websocket"]
"""How a turn travels: answered in one piece, as a stream of lines or of server-sent events, or frame by frame."""

WEBSOCKET: Final[Wire] = "websocket"
PATHS: Final[Mapping[Wire, str]] = MappingProxyType(
    {"json": "/api/chat", "ndjson": "/api/chat-stream", "sse": "/api/chat-events", WEBSOCKET: "/api/chat-ws"}
)
ACCEPTED: Final[Mapping[Wire, str]] = MappingProxyType(
    {"json": "*/*", "ndjson": "application/x-ndjson", "sse": "text/event-stream", WEBSOCKET: "*/*"}
)


class ServiceConnection:
    """Carries turns to an application in this process, or to a running service. It belongs to the event loop that it is used in.

    Args:
        app: An ASGI application, or the base URL of a running one.
        wire: How the turns travel.
        path: Where they go; None takes the path of the wire.
        headers: Sent with every turn; on a WebSocket when it is opened.
        terminal: Which frame ends a turn on a WebSocket.
        timeout: How long nothing may come, on a WebSocket and over the network.
        raise_server_exceptions: Whether what an application in this process raises is raised here.
        follow_redirects: Whether a redirect of an application in this process is followed.

    Raises:
        ConfigurationError: An argument cannot be; the message says what it takes.
    """

    def __init__(
        self,
        app: ASGIApp | str,
        *,
        wire: Wire,
        path: str | None,
        headers: Mapping[str, str] | None,
        terminal: Terminal,
        timeout: timedelta,
        raise_server_exceptions: bool,
        follow_redirects: bool,
    ) -> None:
        self._path = path_of(wire, path)
        self._is_websocket = wire == WEBSOCKET
        self._headers = headers_of(wire, headers)
        self._terminal = check_function("terminal", terminal, "a function of None and the JSON value of a frame")
        self._timeout_s = check_wait("timeout", timeout)
        self._raises = check("raise_server_exceptions", raise_server_exceptions, bool, "True or False")
        self._url = check_url("app", app) if isinstance(app, str) else BASE_URL
        self._application: ManagedApplication | None = None
        if not isinstance(app, str):
            self._application = ManagedApplication(check_function("app", app, "an ASGI application, or a base URL"))
        self._http = self._make_http(follow_redirects=follow_redirects)
        self._websocket: WebSocketConnection | None = None

    async def start(self) -> None:
        """Start an application in this process, as its lifespan says. Raises what that raises."""
        if self._application is not None:
            await self._application.start()

    async def post(self, content: bytes, overhear: Callable[[Any], None]) -> Reply:
        """Send the body of a turn, and read its answer.

        Args:
            content: The body.
            overhear: Gets the JSON value of each frame that came between two turns.

        Raises:
            TimeoutError: On a WebSocket, no frame came that ends the turn.
        """
        if self._is_websocket:
            return await self._converse(content, overhear)
        answer = await self._http.post(self._path, content=content)
        return Reply.of_answer(answer.status_code, answer.headers, answer.content, sent_bytes=len(content))

    async def close(self) -> None:
        """Close what is open, and stop the application if it was started. Raises what it raised meanwhile."""
        try:
            await self._leave()
        finally:
            await self._http.aclose()
            if self._application is not None:
                await self._application.stop()

    async def _converse(self, content: bytes, overhear: Callable[[Any], None]) -> Reply:
        before, websocket = self._websocket, await self._open(overhear)
        if isinstance(websocket, Reply):
            return websocket
        reply = await self._take_turn(websocket, content)
        return await self._converse(content, overhear) if websocket is before and is_missed(reply) else reply

    async def _take_turn(self, websocket: WebSocketConnection, content: bytes) -> Reply:
        frames = TurnFrames(self._terminal)
        await websocket.send(frame_of(content))
        try:
            while not frames.take(await websocket.receive(frames.patience(self._timeout_s))):
                pass
        except TimeoutError:
            await self._leave()
            if not frames.has_failed:
                raise frames.too_late(self._timeout_s) from None
        reply = frames.reply(sent_bytes=len(content))
        if reply.code is not None or reply.close_code is not None:
            await self._leave()
        return reply

    async def _open(self, overhear: Callable[[Any], None]) -> WebSocketConnection | Reply:
        """A WebSocket on which nothing waits to be read: the one there is, if it is open, else a new one; or why there is none."""
        if self._websocket is not None and await _drain(self._websocket, overhear):
            return self._websocket
        await self._leave()
        self._websocket = self._make_websocket()
        refusal = await self._websocket.open(self._timeout_s)
        if refusal is None:
            return self._websocket
        await self._leave()
        return Reply.of_answer(refusal.status, refusal.headers, refusal.content, sent_bytes=0)

    async def _leave(self) -> None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            await websocket.close()

    def _make_http(self, *, follow_redirects: bool) -> httpx2.AsyncClient:
        if self._application is None:
            return httpx2.AsyncClient(base_url=self._url, headers=self._headers, timeout=self._timeout_s)
        transport = httpx2.ASGITransport(self._application, raise_app_exceptions=self._raises, client=CLIENT)
        return httpx2.AsyncClient(base_url=self._url, headers=self._headers, transport=transport, follow_redirects=follow_redirects)

    def _make_websocket(self) -> WebSocketConnection:
        if self._application is None:
            return NetworkWebSocket(f"ws{self._url.removeprefix('http')}{self._path}", self._headers)
        return InProcessWebSocket(self._application, self._path, self._headers, raises=self._raises)


def path_of(wire: Wire, path: str | None) -> str:
    """Where the turns of a wire go; None takes the path that agent services of this library have.

    Raises:
        ConfigurationError: There is no such wire, or the path is none.
    """
    known = ", ".join(map(repr, get_args(Wire)))
    if check("wire", wire, str, f"one of {known}") not in PATHS:
        raise ConfigurationError(f"wire={wire!r} is unknown: write one of {known}.")
    return PATHS[wire] if path is None else check_path("path", path)


def headers_of(wire: Wire, headers: Mapping[str, str] | None) -> dict[str, str]:
    """What is sent with every turn: the headers given, which win, and what the wire says of itself.

    Raises:
        ConfigurationError: The headers are none.
    """
    given = check_headers("headers", headers)
    own = {"accept": ACCEPTED[wire]} if wire == WEBSOCKET else {"accept": ACCEPTED[wire], "content-type": "application/json"}
    names = {name.lower() for name in given}
    return given | {name: value for name, value in own.items() if name not in names}


async def _drain(websocket: WebSocketConnection, overhear: Callable[[Any], None]) -> bool:
    """Whether a WebSocket is open, after the frames were read that came between two turns, for the sessions in them."""
    try:
        while not isinstance(received := await websocket.receive(0), Closed):
            overhear(parse_json(received))
    except TimeoutError:
        return True
    return False
