"""The events of one turn as they come, and its reply at the end; sync, and under asyncio or trio.

A stream that is closed before its end has said nothing: the conversation is as it was before, but for a session that has come in an
event of its own. ``with`` closes it, and so does reading to the end.

What a reader gets wrong: leaving an ``async for`` alone closes an asynchronous stream some time later; ``async with`` closes it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Self

from dcaf.client.arguments import check
from dcaf.client.errors import TurnUnfinished
from dcaf.client.reply import Event, Reply
from dcaf.client.turn import Turn


class BaseStream:
    """What a synchronous and an asynchronous stream share: the turn, and its reply.

    Args:
        turn: Whose events they are.

    Raises:
        ConfigurationError: It is no turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = check("turn", turn, Turn, "a Turn")

    @property
    def reply(self) -> Reply:
        """What the events amount to, after the ``done`` event.

        Raises:
            TurnUnfinished: It has not come so far.
        """
        return require_reply(self._turn)


class Stream(BaseStream):
    """An iterator over events, made by ``Client.stream`` and ``Socket.stream``.

    Args:
        turn: Whose events they are.
        events: Where they come from.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """

    def __init__(self, turn: Turn, events: Generator[Event]) -> None:
        super().__init__(turn)
        self._events = check("events", events, Generator, "a generator of events")

    def close(self) -> None:
        """Stop reading, wherever the answer is."""
        self._events.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event: Event = next(self._events)
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncStream(BaseStream):
    """An asynchronous iterator over events, made by ``AsyncClient.stream`` and ``AsyncSocket.stream``.

    Args:
        turn: Whose events they are.
        events: Where they come from.

    Raises:
        ConfigurationError: An argument is of a wrong type.
    """

    def __init__(self, turn: Turn, events: AsyncGenerator[Event]) -> None:
        super().__init__(turn)
        self._events = check("events", events, AsyncGenerator, "a generator of events")

    async def close(self) -> None:
        """Stop reading, wherever the answer is."""
        await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


def require_reply(turn: Turn) -> Reply:
    """The reply of a turn that has ended.

    Raises:
        TurnUnfinished: It has not.
    """
    if turn.reply is None:
        raise TurnUnfinished("The reply is not complete before the done event. Read the events to the last one first.")
    return turn.reply
