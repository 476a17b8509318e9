"""A conversation of the HelpDesk protocol as a model reads it.

>>> import asyncio
>>> from dcaf.agent.models import Message
>>> [message] = asyncio.run(history([Message(role="user", content="hi")]))
>>> [type(part).__name__ for part in message.parts]
['UserPromptPart']

What a reader gets wrong: all of it is the client's word, the results of tools too. A model may be told anything by its user; what
must be true is in the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import anyio.lowlevel
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_core import to_json

from dcaf.agent.models import Approval, ExecutedToolCall, Message

WAITS: Final = (
    "This call waits for the approval of a person, and has not run. Do not make it again: the person decides about this one."
)

AT_ONCE: Final = 250
"""Messages that are read before others may have the loop."""


async def history(messages: Sequence[Message], waiting: Sequence[Approval] = ()) -> list[ModelMessage]:
    """The messages, with the calls that have run before the text that came of them; calls that are told twice count once.

    The calls that wait for a person stand before the last message, as calls whose result is that they wait. Neighbours of one
    side are one message, because providers want the sides to take turns. Of calls that share an id each gets one of its own,
    because providers want that too.
    """
    told = _Told()
    calls = [ExecutedToolCall(id=item.id, name=item.name, input=item.input, output=WAITS) for item in waiting]
    before: list[ModelRequestPart | ModelResponsePart] = []
    for start in range(0, len(messages) - 1, AT_ONCE):
        before += (part for message in messages[start : min(start + AT_ONCE, len(messages) - 1)] for part in _parts(message, told))
        await anyio.lowlevel.checkpoint()
    last = [part for message in messages[-1:] for part in _parts(message, told)]
    return list(joined([*before, *_of_calls(told.new(calls)), *last]))


def joined(parts: Iterable[ModelRequestPart | ModelResponsePart]) -> Iterator[ModelMessage]:
    """Messages of parts in a row: a new one wherever the side changes."""
    for is_asked, run in groupby(parts, key=lambda part: isinstance(part, UserPromptPart | ToolReturnPart)):
        side: list[Any] = [*run]
        yield ModelRequest(side) if is_asked else ModelResponse(side)


@dataclass(slots=True)
class _Told:
    """The calls that were told so far, and the ids that they were told by."""

    calls: set[tuple[str, str, str, bytes]] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def new(self, calls: Iterable[ExecutedToolCall]) -> Iterator[tuple[str, ExecutedToolCall]]:
        """Those that were not told yet, each with an id of its own."""
        for call in calls:
            known = (call.id, call.name, call.output, to_json(call.input))
            if known not in self.calls:
                self.calls.add(known)
                yield self._free(call.id), call

    def _free(self, id_: str) -> str:
        found = id_ if id_ not in self.ids else f"{id_}-{len(self.calls)}"
        self.ids.add(found)
        return found


def _parts(message: Message, told: _Told) -> Iterator[ModelRequestPart | ModelResponsePart]:
    data = message.data
    yield from _of_calls(told.new([] if data is None else [*data.executed_tool_calls, *data.executed_approvals]))
    if message.content:
        yield UserPromptPart(message.content) if message.role == "user" else TextPart(message.content)


def _of_calls(calls: Iterable[tuple[str, ExecutedToolCall]]) -> Iterator[ModelRequestPart | ModelResponsePart]:
    found = list(calls)
    yield from (ToolCallPart(call.name, dict(call.input), id_) for id_, call in found)
    yield from (ToolReturnPart(call.name, call.output, id_) for id_, call in found)
