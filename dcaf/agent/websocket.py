"""The HelpDesk protocol on a WebSocket: each JSON frame is a turn, answered by the frames that a stream would have as lines.

What a reader gets wrong: the middleware lets one turn run at a time, and answers a second frame before the end of the first. What
comes in here while a turn runs is the client's leaving, or its ``stop``.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from starlette.websockets import WebSocket, WebSocketDisconnect

from dcaf.agent.agent import Agent
from dcaf.agent.codec import ChatRequest, build_done_event, build_error_event, encode_json, report_failure
from dcaf.agent.config import StreamingMode
from dcaf.agent.kept_conversation import HistoryMode
from dcaf.agent.response import AgentResponse
from dcaf.asgi.body import off_the_loop
from dcaf.core.context import current_session
from dcaf.core.errors import SessionConflict

STOP: Final = "stop"
"""The text, no JSON, by which a client ends the turn that is running, where the agent streams both ways."""

MOST_WAITING: Final = 4
"""Frames that wait for their turn. The middleware lets one turn in at a time, so that these are frames that are no turn."""


@dataclass(slots=True, eq=False)
class _Frame:
    """A frame that came in.

    Attributes:
        text: What it says.
        scope: The turn that it opens runs inside.
        is_over: Whether it is answered, so that it cannot be stopped any more.
    """

    text: str = field(repr=False)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_over: bool = False


class ChatSocket:
    """One connection.

    Args:
        websocket: The connection.
        agent: Who answers.
        history: Who keeps the conversation.
    """

    def __init__(self, websocket: WebSocket, agent: Agent, history: HistoryMode = "client") -> None:
        self._websocket = websocket
        self._agent = agent
        self._history = history
        self._last: _Frame | None = None
        self._may_stop = agent.config.streaming_mode is StreamingMode.BIDI

    async def run(self) -> None:
        """Answer frames until the client leaves; then the turn that runs is stopped, and keeps nothing."""
        await self._websocket.accept()
        sender, frames = anyio.create_memory_object_stream[_Frame](MOST_WAITING)
        async with anyio.create_task_group() as group, sender, frames:
            group.start_soon(self._listen, sender, group.cancel_scope)
            with suppress(WebSocketDisconnect):
                async for frame in frames:
                    await self._run_turn(frame)
            group.cancel_scope.cancel()

    async def _listen(self, frames: MemoryObjectSendStream[_Frame], connection: anyio.CancelScope) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                connection.cancel()
                return
            text = message.get("text")
            await self._accept_frame((message.get("bytes") or b"").decode(errors="replace") if text is None else text, frames)

    async def _accept_frame(self, text: str, frames: MemoryObjectSendStream[_Frame]) -> None:
        """Have a frame wait for its turn. What is no turn does not wait behind one: it could fill the memory."""
        running = None if self._last is None or self._last.is_over else self._last
        if self._may_stop and text.strip() == STOP:
            if running is not None:
                running.scope.cancel()
        elif running is not None and not text.lstrip().startswith("{"):
            with suppress(WebSocketDisconnect):
                await self._send(build_error_event(SessionConflict(reason="busy")))
        else:
            self._last = _Frame(text)
            await frames.send(self._last)

    async def _run_turn(self, frame: _Frame) -> None:
        reason = None
        with frame.scope:
            try:
                await self._answer(frame)
            except WebSocketDisconnect:
                raise
            except Exception as error:  # noqa: BLE001 - a client gets an answer, whatever it was
                frame.is_over = True
                await self._send(build_error_event(report_failure(error)))
                reason = "error"
        frame.is_over = True
        reason = "stopped" if frame.scope.cancelled_caught else reason
        if reason is not None:
            await self._send(build_done_event(reason))

    async def _answer(self, frame: _Frame) -> None:
        request = await off_the_loop(ChatRequest.read, frame.text.encode(errors="replace"))
        run = self._agent.run_stream(request.messages, session=current_session(), context=request.context, history=self._history)
        async with aclosing(run) as events:
            async for event in events:
                frame.is_over = isinstance(event, AgentResponse)
                await self._send(request.build_event(event))

    async def _send(self, event: dict[str, Any]) -> None:
        await self._websocket.send_text(encode_json(event).decode())
