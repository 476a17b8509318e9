"""The HelpDesk protocol on a WebSocket: each JSON frame is a turn, answered by the frames that a stream would have as lines.

What a reader gets wrong: the middleware lets one turn run at a time, and answers a second frame before the end of the first. What
comes in here while a turn runs is the client's leaving, or its ``stop``.
"""

from __future__ import annotations

import logging
import math
from contextlib import aclosing
from typing import Any, Final

import anyio
import orjson
from anyio.streams.memory import MemoryObjectSendStream
from starlette.websockets import WebSocket

from dcaf.agent.agent import Agent
from dcaf.agent.config import StreamingMode
from dcaf.agent.exchange import Asked, ended, failed
from dcaf.core.current import current_session
from dcaf.core.errors import DcafError
from dcaf.core.keeper import Keeper

logger: Final[logging.Logger] = logging.getLogger("dcaf")

STOP: Final = "stop"
"""The text, no JSON, by which a client ends the turn that is running, where the agent streams both ways."""


class Conversation:
    """One connection.

    Args:
        websocket: The connection.
        agent: Who answers.
        keeper: Who knows which approvals were used.
    """

    def __init__(self, websocket: WebSocket, agent: Agent, keeper: Keeper) -> None:
        self._websocket = websocket
        self._agent = agent
        self._keeper = keeper
        self._running: anyio.CancelScope | None = None
        self._may_stop = agent.config.streaming_mode is StreamingMode.BIDI

    async def run(self) -> None:
        """Talk until the client leaves; then the turn that runs is stopped, and keeps nothing."""
        await self._websocket.accept()
        giving, frames = anyio.create_memory_object_stream[str](math.inf)
        async with anyio.create_task_group() as group, giving, frames:
            group.start_soon(self._listen, giving, group.cancel_scope)
            async for text in frames:
                await self._turn(text)

    async def _listen(self, frames: MemoryObjectSendStream[str], connection: anyio.CancelScope) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                connection.cancel()
                return
            text = message.get("text")
            text = message.get("bytes", b"").decode(errors="replace") if text is None else text
            if text.strip() != STOP or not self._may_stop:
                await frames.send(text)
            elif self._running is not None:
                self._running.cancel()

    async def _turn(self, text: str) -> None:
        reason = "error"
        with anyio.CancelScope() as self._running:
            try:
                await self._answer(Asked.read(text))
            except DcafError as error:
                logger.warning("dcaf: a turn on %s failed: %s", self._websocket.scope["path"], error.code)
                await self._send(failed(error))
            else:
                reason = ""
        stopped = self._running.cancelled_caught
        self._running = None
        if stopped or reason:
            await self._send(ended("stopped" if stopped else reason))

    async def _answer(self, asked: Asked) -> None:
        run = self._agent.run_stream(asked.messages, session=current_session(), context=asked.context, keeper=self._keeper)
        async with aclosing(run) as events:
            async for event in events:
                await self._send(asked.event(event))

    async def _send(self, event: dict[str, Any]) -> None:
        await self._websocket.send_text(orjson.dumps(event).decode())
