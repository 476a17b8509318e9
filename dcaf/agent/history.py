"""A conversation of the HelpDesk protocol as a model reads it.

>>> from dcaf.agent.helpdesk import Message
>>> [type(part).__name__ for message in history([Message(role="user", content="hi")]) for part in message.parts]
['UserPromptPart']

What a reader gets wrong: all of it is the client's word, the results of tools too. A model may be told anything by its user; what
must be true is in the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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

from dcaf.agent.helpdesk import ExecutedToolCall, Message


def history(messages: Sequence[Message]) -> list[ModelMessage]:
    """The messages, with the calls that have run before the text that came of them; calls that are told twice count once.

    Neighbours of one side are one message, because providers want the sides to take turns.
    """
    told: set[str] = set()
    parts = [part for message in messages for part in _parts(message, told)]
    return list(joined(parts))


def ran(calls: Iterable[ExecutedToolCall]) -> list[ModelMessage]:
    """Calls that have run, as a message of the model and the answer to it; nothing where there are none."""
    return list(joined(_of_calls(calls)))


def joined(parts: Iterable[ModelRequestPart | ModelResponsePart]) -> Iterator[ModelMessage]:
    """Messages of parts in a row: a new one wherever the side changes."""
    asked: list[ModelRequestPart] = []
    said: list[ModelResponsePart] = []
    for part in parts:
        if isinstance(part, UserPromptPart | ToolReturnPart):
            if said:
                yield ModelResponse(said)
                said = []
            asked.append(part)
        elif isinstance(part, TextPart | ToolCallPart):
            if asked:
                yield ModelRequest(asked)
                asked = []
            said.append(part)
    if asked:
        yield ModelRequest(asked)
    if said:
        yield ModelResponse(said)


def _parts(message: Message, told: set[str]) -> Iterator[ModelRequestPart | ModelResponsePart]:
    data = message.data
    calls = [] if data is None else [*data.executed_tool_calls, *data.executed_approvals]
    new = {call.id: call for call in calls if call.id not in told}
    told |= new.keys()
    yield from _of_calls(new.values())
    if message.content:
        yield UserPromptPart(message.content) if message.role == "user" else TextPart(message.content)


def _of_calls(calls: Iterable[ExecutedToolCall]) -> Iterator[ModelRequestPart | ModelResponsePart]:
    found = list(calls)
    yield from (ToolCallPart(call.name, dict(call.input), call.id) for call in found)
    yield from (ToolReturnPart(call.name, call.output, call.id) for call in found)
