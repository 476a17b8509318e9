"""An ASGI application in this process: its start and its end, its WebSockets, and the event loop that it has under sync code.

What the application raises is raised where the client waits for it. An application that ends without a word has broken off its
connection. Nobody has to close an ``ApplicationLoop``: it ends with the client that it belongs to, and with the program.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import anyio
from anyio.from_thread import BlockingPortal
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from dcaf.client.transport import httpx2
from dcaf.testing.conversation import Closed, HandshakeRefusal, Received

ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
BASE_URL: Final = "http://testserver"
CLIENT: Final = ("testclient", 50000)
"""Who the application sees at the other end, as with Starlette's own test client."""

FORBIDDEN: Final = 403
FAILED: Final = 500
GONE: Final = 1000
LEAVING_S: Final = 5.0
"""How long an application may go on after the client has left; then it is cancelled."""

ENDING_S: Final = LEAVING_S + 1
"""How long a program that ends waits for the applications of its open clients."""

OPEN_CONNECTIONS: Final[set[ApplicationConnection]] = set()
"""Connections whose applications still run; nothing else holds those whose clients are gone."""

OPEN_LOOPS: Final[set[LoopThread]] = set()
"""Loops that run: a program that ends stops them."""


class ManagedApplication:
    """An application whose lifespan can be run; it can be called without that, too.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._lifespan: ApplicationConnection | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, with the state that its lifespan has made."""
        scope["state"] = {**scope.get("state", {}), **self._state}
        if scope["type"] == "http":
            await _call_to_end(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def start(self) -> None:
        """Run the first half of the lifespan, if there is one. Raises what that raises."""
        scope = {"type": "lifespan", "asgi": ASGI, "state": self._state}
        lifespan = ApplicationConnection(self._app, scope, owner=self, last={"type": "lifespan.shutdown"})
        lifespan.deliver({"type": "lifespan.startup"})
        try:
            message = await lifespan.receive()
        except Exception:  # noqa: BLE001 - how an application says that it has no lifespan (ASGI, "Lifespan Protocol")
            return
        if message is not None:
            await _raise_failure(lifespan, message)
            self._lifespan = lifespan

    async def stop(self) -> None:
        """Run the second half of the lifespan. Raises what that raises."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.leave()
            await _raise_failure(lifespan, lifespan.receive_nowait())


class InProcessWebSocket:
    """A WebSocket of an application in this process.

    Args:
        app: The application.
        path: Where it is, with its query.
        headers: Sent when it is opened.
        raises: Whether the application's errors are raised here.
    """

    def __init__(self, app: ASGIApp, path: str, headers: Mapping[str, str], *, raises: bool) -> None:
        self._app = app
        self._scope = _build_scope(httpx2.URL(BASE_URL).join(path), headers)
        self._raises = raises
        self._connection: ApplicationConnection | None = None

    async def open(self, timeout_s: float) -> HandshakeRefusal | None:
        leaving = {"type": "websocket.disconnect", "code": GONE, "reason": ""}
        self._connection = ApplicationConnection(self._app, self._scope, owner=self, last=leaving)
        self._connection.deliver({"type": "websocket.connect"})
        async with asyncio.timeout(timeout_s):
            message = await self._receive()
            if message is not None and message["type"] == "websocket.http.response.start":
                return await self._read_refusal(message)
        if message is None:
            return HandshakeRefusal(FAILED, {})
        return None if message["type"] == "websocket.accept" else HandshakeRefusal(FORBIDDEN, {})

    async def send(self, frame: str | bytes) -> None:
        if self._connection is not None:
            self._connection.deliver({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})

    async def receive(self, timeout_s: float) -> Received:
        async with asyncio.timeout(timeout_s):
            message = await self._receive()
        if message is None:
            return Closed()
        if message["type"] == "websocket.close":
            return Closed(message.get("code") or GONE)
        text: str | bytes | None = message.get("text")
        return message["bytes"] if text is None else text

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.leave()
        except (WebSocketDisconnect, OSError):  # how an application notices that the client has left
            return
        except Exception:
            if self._raises:
                raise

    async def _receive(self) -> Message | None:
        if self._connection is None:
            return None
        try:
            return await self._connection.receive()
        except Exception:
            self._connection = None  # it has ended, and what it raised is raised once
            if self._raises:
                raise
            return None

    async def _read_refusal(self, start: Message) -> HandshakeRefusal:
        parts, more = list[bytes](), True
        while more and (message := await self._receive()) is not None:
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start.get("headers", ())}
        return HandshakeRefusal(start["status"], headers, b"".join(parts))


class ApplicationLoop:
    """An event loop in a thread of its own.

    Args:
        owner: Whom it belongs to. When nothing holds the owner any more, the loop stops, and with it what runs there.

    Attributes:
        portal: The way into it.
    """

    def __init__(self, owner: object) -> None:
        started: Future[LoopThread] = Future()
        # a context of its own: what was current where the client was made is not current in the application
        threading.Thread(target=contextvars.Context().run, args=(_run_loop, started), name="dcaf-testing", daemon=True).start()
        self._thread = started.result()
        weakref.finalize(owner, self._thread.stop).atexit = False
        self.portal: BlockingPortal = self._thread.portal

    def close(self) -> None:
        """Stop it, and wait until it has ended."""
        self._thread.stop()
        self._thread.thread.join()


@atexit.register
def end_open_loops() -> None:
    """Stop the loops of clients that nobody has closed, and give their applications the time to end."""
    found = list(OPEN_LOOPS)
    for one in found:
        one.stop()
    for one in found:
        one.thread.join(ENDING_S)


class ApplicationConnection:
    """The task that an application runs in for one connection, and the messages in both directions.

    Args:
        app: The application.
        scope: Of the connection.
        owner: Who talks to it. When nothing holds the owner any more, the application gets the last message.
        last: The message that says that the client has left.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, owner: object, last: Message) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(app, scope))
        self._is_left = False
        self._last = last
        self._loop = asyncio.get_running_loop()
        OPEN_CONNECTIONS.add(self)
        self._task.add_done_callback(self._note_end)
        weakref.finalize(owner, _forget_from_any_thread, self, self._loop)

    def deliver(self, message: Message) -> None:
        """Give the application something to receive."""
        self._to_app.put_nowait(message)

    async def receive(self) -> Message | None:
        """The next message of the application; None when it has ended. Raises what it raised."""
        message = await self._from_app.get()
        if message is None:
            self._from_app.put_nowait(None)
            await self._task
        return message

    def receive_nowait(self) -> Message | None:
        """The next message, if it has come."""
        return None if self._from_app.empty() else self._from_app.get_nowait()

    async def leave(self) -> None:
        """Deliver the last message, and wait for the application to end. Raises what it raised."""
        self._is_left = True
        self.deliver(self._last)
        await asyncio.wait({self._task}, timeout=LEAVING_S)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    def forget(self) -> None:
        """Deliver the last message, and let the application end when it will."""
        if not (self._is_left or self._task.done()):
            self._is_left = True
            self.deliver(self._last)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        OPEN_CONNECTIONS.discard(self)
        if not task.cancelled():
            task.exception()  # which is raised where the client waits for it, and by nobody where the client is gone

    @staticmethod
    async def forget_all() -> None:
        """Leave all applications of this loop, which is about to end, and give them the time to end."""
        found = [one for one in tuple(OPEN_CONNECTIONS) if one._loop is asyncio.get_running_loop()]
        for one in found:
            one.forget()
        if found:
            await asyncio.wait({one._task for one in found}, timeout=LEAVING_S)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._to_app.get, self._send)
        finally:
            self._from_app.put_nowait(None)

    async def _send(self, message: Message) -> None:
        if self._is_left and message["type"].startswith("websocket."):
            raise OSError("the client has left")
        self._from_app.put_nowait(message)


@dataclass(frozen=True, slots=True, eq=False)
class LoopThread:
    """An event loop that runs in a thread.

    Attributes:
        portal: The way into it.
        loop: Itself.
        stopping: Set to have it end.
        thread: What it runs in.
    """

    portal: BlockingPortal
    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event
    thread: threading.Thread

    def stop(self) -> None:
        """Have it end, from any thread, without waiting for it: the garbage collector calls this wherever it runs."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.stopping.set)


def _run_loop(started: Future[LoopThread]) -> None:
    try:
        anyio.run(_stay_open, started)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _stay_open(started: Future[LoopThread]) -> None:
    stopping = asyncio.Event()
    async with BlockingPortal() as portal:
        own = LoopThread(portal, asyncio.get_running_loop(), stopping, threading.current_thread())
        OPEN_LOOPS.add(own)
        started.set_result(own)
        try:
            await stopping.wait()
            await ApplicationConnection.forget_all()
            await portal.stop(cancel_remaining=True)
        finally:
            OPEN_LOOPS.discard(own)


def _forget_from_any_thread(connection: ApplicationConnection, loop: asyncio.AbstractEventLoop) -> None:
    """Nothing holds the client any more: whichever thread the garbage collector runs in, the application is in its loop."""
    with suppress(RuntimeError):  # which has ended, and the application with it
        loop.call_soon_threadsafe(connection.forget)


async def _call_to_end(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Call an application, and end its answer where it does not: a server breaks off there, and httpx2 would fail without a word.

    Raises:
        AssertionError: It sent no answer.
    """
    last: Message = {"type": ""}

    async def note(message: Message) -> None:
        nonlocal last
        last = message
        await send(message)

    await app(scope, receive, note)
    if not last["type"]:
        raise AssertionError("The application sent no answer.")
    if last["type"] == "http.response.start" or last.get("more_body"):
        await send({"type": "http.response.body", "body": b""})


async def _raise_failure(lifespan: ApplicationConnection, message: Message | None) -> None:
    """Raise what a half of a lifespan failed with."""
    if message is not None and message["type"].endswith(".failed"):
        await lifespan.receive()
        raise RuntimeError(f"{message['type']}: {message.get('message', '')}")


def _build_scope(url: httpx2.URL, headers: Mapping[str, str]) -> Scope:
    named = {"host": url.netloc.decode(), **{name.lower(): value for name, value in headers.items()}}
    return {
        "type": "websocket",
        "asgi": ASGI,
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(url.path),
        "raw_path": url.raw_path.partition(b"?")[0],
        "root_path": "",
        "query_string": url.query,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()],
        "client": CLIENT,
        "server": (url.host, 80),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
