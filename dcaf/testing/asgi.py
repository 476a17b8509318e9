"""An ASGI application in this process: its lifespan, its WebSockets, and the event loop that it has under sync code.

An ASGI application in this event loop: its start and its end, and the WebSockets that are opened to it.

What a reader gets wrong: what the application raises is raised where the client waits for it. An application that ends without a
word has broken off its connection.

The event loop, in a thread of its own, that an application lives in while synchronous code talks to it.

    loop = ApplicationLoop(client)
    loop.portal.call(function, argument)
    loop.close()

What a reader gets wrong: nobody has to close it. It ends with the client that it belongs to, and with the program: a thread that
waited for a client that was forgotten would keep the interpreter alive for ever.
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
from dcaf.testing.conversation import Closed, Heard, Refusal

ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
BASE_URL: Final = "http://testserver"
FORBIDDEN: Final = 403
FAILED: Final = 500
GONE: Final = 1000
LEAVING_S: Final = 5.0
"""How long an application may go on after the client has left; then it is cancelled."""

OPEN: Final[set[Line]] = set()
"""Connections whose applications still run: nothing else holds those whose clients are gone."""


class Line:
    """What is said to an application and what it says, and the task that it runs in.

    Args:
        app: The application.
        scope: Of the connection.
        owner: Who talks to it. When nothing holds the owner any more, the application is told that it has left.
        last: What the application is told then.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, owner: object, last: Message) -> None:
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._heard: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(app, scope))
        self._is_left = False
        self._last = last
        self._loop = asyncio.get_running_loop()
        OPEN.add(self)
        self._task.add_done_callback(self._ended)
        weakref.finalize(owner, _forget, self, self._loop)

    def say(self, message: Message) -> None:
        """Give the application something to receive."""
        self._said.put_nowait(message)

    async def hear(self) -> Message | None:
        """The next message of the application; None when it has ended. Raises what it raised."""
        message = await self._heard.get()
        if message is None:
            self._heard.put_nowait(None)
            await self._task
        return message

    def heard(self) -> Message | None:
        """The next message, if it has come."""
        return None if self._heard.empty() else self._heard.get_nowait()

    async def leave(self) -> None:
        """Say the last message, and see the application end. Raises what it raised."""
        self._is_left = True
        self.say(self._last)
        await asyncio.wait({self._task}, timeout=LEAVING_S)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    def forget(self) -> None:
        """Say the last message, and let the application end when it will."""
        if not (self._is_left or self._task.done()):
            self._is_left = True
            self.say(self._last)

    def _ended(self, task: asyncio.Task[None]) -> None:
        OPEN.discard(self)
        if not task.cancelled():
            task.exception()  # which is raised where the client waits for it, and by nobody where the client is gone

    @staticmethod
    async def forget_all() -> None:
        """Say their last messages on all lines of this loop, which is about to end, and give the applications the time to end."""
        found = [line for line in tuple(OPEN) if line._loop is asyncio.get_running_loop()]
        for line in found:
            line.forget()
        if found:
            await asyncio.wait({line._task for line in found}, timeout=LEAVING_S)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._said.get, self._send)
        finally:
            self._heard.put_nowait(None)

    async def _send(self, message: Message) -> None:
        if self._is_left and message["type"].startswith("websocket."):
            raise OSError("the client has left")
        self._heard.put_nowait(message)


class Running:
    """An application, whose start and end can be awaited; without them it is what it was.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._life: Line | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, with what the lifespan has left for it."""
        if self._state:
            scope["state"] = {**scope.get("state", {}), **self._state}
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Start it: run the first half of its lifespan, if it has one. Raises what that raises."""
        scope = {"type": "lifespan", "asgi": ASGI, "state": self._state}
        life = Line(self._app, scope, owner=self, last={"type": "lifespan.shutdown"})
        life.say({"type": "lifespan.startup"})
        try:
            message = await life.hear()
        except Exception:  # noqa: BLE001 - how an application says that it has no lifespan (ASGI, "Lifespan Protocol")
            return
        if message is not None:
            await _succeeded(life, message)
            self._life = life

    async def stop(self) -> None:
        """Stop it: run the second half of its lifespan. Raises what that raises."""
        life, self._life = self._life, None
        if life is not None:
            await life.leave()
            await _succeeded(life, life.heard())


class InsideSocket:
    """One WebSocket.

    Args:
        app: The application.
        path: Where it is, with its query.
        headers: Sent when it is opened.
        raises: Whether the application's errors are raised here.
    """

    def __init__(self, app: ASGIApp, path: str, headers: Mapping[str, str], *, raises: bool) -> None:
        self._app = app
        self._scope = _scope_of(httpx2.URL(BASE_URL).join(path), headers)
        self._raises = raises
        self._line: Line | None = None

    async def open(self, timeout_s: float) -> Refusal | None:
        """Open it; the refusal, where the application will not."""
        leaving = {"type": "websocket.disconnect", "code": GONE, "reason": ""}
        self._line = Line(self._app, self._scope, owner=self, last=leaving)
        self._line.say({"type": "websocket.connect"})
        async with asyncio.timeout(timeout_s):
            message = await self._hear()
            if message is not None and message["type"] == "websocket.http.response.start":
                return await self._denied(message)
        if message is None:
            return Refusal(FAILED, {})
        return None if message["type"] == "websocket.accept" else Refusal(FORBIDDEN, {})

    async def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        if self._line is not None:
            self._line.say({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})

    async def receive(self, timeout_s: float) -> Heard:
        """The next frame.

        Raises:
            TimeoutError: None came.
        """
        async with asyncio.timeout(timeout_s):
            message = await self._hear()
        if message is None:
            return Closed()
        if message["type"] == "websocket.close":
            return Closed(message.get("code") or GONE)
        text: str | bytes | None = message.get("text")
        return message["bytes"] if text is None else text

    async def close(self) -> None:
        """Leave, and see the application end. Raises what it raised, but for its telling that the client has left."""
        line, self._line = self._line, None
        if line is None:
            return
        try:
            await line.leave()
        except (WebSocketDisconnect, OSError):
            return
        except Exception:
            if self._raises:
                raise

    async def _hear(self) -> Message | None:
        if self._line is None:
            return None
        try:
            return await self._line.hear()
        except Exception:
            self._line = None  # it has ended, and what it raised is raised once
            if self._raises:
                raise
            return None

    async def _denied(self, start: Message) -> Refusal:
        parts, more = list[bytes](), True
        while more and (message := await self._hear()) is not None:
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start.get("headers", ())}
        return Refusal(start["status"], headers, b"".join(parts))


def _forget(line: Line, loop: asyncio.AbstractEventLoop) -> None:
    """Nothing holds the client any more: whichever thread the garbage collector runs in, the application is in its loop."""
    with suppress(RuntimeError):  # which has ended, and the application with it
        loop.call_soon_threadsafe(line.forget)


async def _succeeded(life: Line, message: Message | None) -> None:
    """Raise what a half of a lifespan failed with."""
    if message is not None and message["type"].endswith(".failed"):
        await life.hear()
        raise RuntimeError(f"{message['type']}: {message.get('message', '')}")


def _scope_of(url: httpx2.URL, headers: Mapping[str, str]) -> Scope:
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
        "client": ("testclient", 50000),
        "server": (url.host, 80),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


ENDING_S: Final = LEAVING_S + 1
"""How long a program that has come to its end waits for an application to end, too."""


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A loop that runs.

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


_OPEN: Final[set[_Running]] = set()


class ApplicationLoop:
    """An event loop in a thread of its own.

    Args:
        owner: Whom it belongs to. When nothing holds the owner any more, the loop stops, and with it what runs there.

    Attributes:
        portal: The way into it.
    """

    def __init__(self, owner: object) -> None:
        begun: Future[_Running] = Future()
        # a context of its own: what was current where the client was made is not current in the application
        threading.Thread(target=contextvars.Context().run, args=(_run, begun), name="dcaf-testing", daemon=True).start()
        self._running = begun.result()
        weakref.finalize(owner, self._running.stop).atexit = False
        self.portal: BlockingPortal = self._running.portal

    def close(self) -> None:
        """Stop it, and wait until it has ended."""
        self._running.stop()
        self._running.thread.join()


@atexit.register
def end_open_loops() -> None:
    """Stop the loops of clients that nobody has closed, and give their applications the time to end."""
    found = list(_OPEN)
    for running in found:
        running.stop()
    for running in found:
        running.thread.join(ENDING_S)


def _run(begun: Future[_Running]) -> None:
    try:
        anyio.run(_live, begun)
    except BaseException as error:
        if begun.done():
            raise
        begun.set_exception(error)


async def _live(begun: Future[_Running]) -> None:
    stopping = asyncio.Event()
    async with BlockingPortal() as portal:
        running = _Running(portal, asyncio.get_running_loop(), stopping, threading.current_thread())
        _OPEN.add(running)
        begun.set_result(running)
        await stopping.wait()
        await Line.forget_all()
        await portal.stop(cancel_remaining=True)
    _OPEN.discard(running)
