"""A client of one WebSocket, in a few lines: it says frames, hears what comes back, and leaves."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any, Self

from tests.asgi.wire import Route

WAIT_S = 2.0
CONNECT = {"type": "websocket.connect"}
DONE = b'{"type":"done"}'


def scope_of(path: Any = "/ws", **members: Any) -> Any:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "route": Route(path),
        **members,
    }


class Peer:
    """One connection, driven from synchronous code: the application runs while the peer hears or settles."""

    def __init__(self, service: Any, path: Any = "/ws", **members: Any) -> None:
        self.service, self.scope = service, scope_of(path, **members)
        self.sent: list[Any] = []
        self.gone = False
        self._pending: deque[Any] = deque()

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._runner.run(self._start())
        self.opening = self.hear()
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._end())
        self._runner.close()

    def say(self, *frames: Any) -> None:
        """Send frames: bytes as binary, a text as text, anything else written as JSON."""
        for frame in frames:
            text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
            self._inbound.put_nowait({"type": "websocket.receive", "bytes" if isinstance(text, bytes) else "text": text})

    def hear(self) -> Any:
        """The next message of the service; what the application raised, where nothing comes any more."""
        if not self._pending:
            self._runner.run(self._wait())
        return self._pending.popleft()

    def hear_text(self) -> Any:
        """The next frame's text or bytes."""
        message = self.hear()
        assert message["type"] == "websocket.send", message
        return message["bytes"] if message.get("text") is None else message["text"]

    def frame(self) -> Any:
        """The next frame's value."""
        return json.loads(self.hear_text())

    def ask(self, frame: Any) -> Any:
        """Say a frame, and hear the next one."""
        self.say(frame)
        return self.frame()

    def settle(self) -> list[Any]:
        """Let the application run until it waits; everything that was not heard yet."""
        self._runner.run(self._idle())
        heard = list(self._pending)
        self._pending.clear()
        return heard

    def leave(self, code: Any = 1000) -> None:
        """Disconnect, and see the application end; raises what it raised."""
        self._inbound.put_nowait({"type": "websocket.disconnect", "code": code})
        self.join()

    def join(self) -> None:
        """See the application end by itself; raises what it raised."""
        self._runner.run(self._join())

    async def _start(self) -> None:
        self._inbound: asyncio.Queue[Any] = asyncio.Queue()
        self._arrival = asyncio.Event()
        self._inbound.put_nowait(dict(CONNECT))
        self._task = asyncio.create_task(self.service(self.scope, self._inbound.get, self._send))

    async def _send(self, message: Any) -> None:
        if self.gone:
            raise OSError
        self.sent.append(message)
        self._pending.append(message)
        self._arrival.set()

    async def _wait(self) -> None:
        if self._pending:
            return
        self._arrival.clear()
        arrival = asyncio.create_task(self._arrival.wait())
        await asyncio.wait({arrival, self._task}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        arrival.cancel()
        if self._task.done() and not self._pending:
            self._task.result()
        assert self._pending, "nothing came"

    async def _idle(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)

    async def _join(self) -> None:
        await asyncio.wait_for(self._task, WAIT_S)

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()


class Agent:
    """An application that hands each frame to a tool, and answers; it keeps what it saw."""

    def __init__(self, tool: Any = None, *answers: Any, before: Any = None) -> None:
        self.tool, self.answers, self.before = tool, answers or (DONE.decode(),), before
        self.session: Any = None
        self.messages: list[Any] = []
        self.states: list[Any] = []
        self.ends: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        session = self.session = scope.get("dcaf.session")
        await send({"type": "websocket.accept"})
        if self.before:
            self.before(session)
        while (message := await receive())["type"] == "websocket.receive":
            self.messages.append(message)
            self.states.append(None if session is None else session.to_dict())
            if self.tool:
                self.tool(session)
            for answer in self.answers:
                text = answer(message) if callable(answer) else answer
                await send({"type": "websocket.send", "bytes" if isinstance(text, bytes) else "text": text})
        self.ends.append(message)

    @property
    def texts(self) -> Any:
        return [message["bytes"] if message.get("text") is None else message["text"] for message in self.messages]

    @property
    def seen(self) -> Any:
        return json.loads(self.texts[-1])
