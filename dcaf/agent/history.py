"""A conversation of the HelpDesk protocol: what a turn is given, and how a model reads it.

A conversation of the HelpDesk protocol as a model reads it.

>>> import asyncio
>>> from dcaf.agent.models import Message
>>> [message] = asyncio.run(history([Message(role="user", content="hi")]))
>>> [type(part).__name__ for part in message.parts]
['UserPromptPart']

What a reader gets wrong: all of it is the client's word, the results of tools too. A model may be told anything by its user; what
must be true is in the session.

What a turn is given: the messages, the session, and both of them where it goes on from an answer.

>>> [message.content for message in read(["hi"])]
Traceback (most recent call last):
    ...
dcaf.core.errors.MalformedRequest: The body is not a turn. A turn is {"messages": [{"role": "user", "content": "..."}]}.
messages.0: Input should be a valid dictionary or instance of Message
>>> [message.content for message in read("hi")]
['hi']

What a reader gets wrong: what the caller gave is never changed. The messages of a turn are its own, down to their data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeAlias

import anyio.lowlevel
from pydantic import ValidationError
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

from dcaf.agent.config import kind_of, require
from dcaf.agent.models import Approval, ExecutedToolCall, Message
from dcaf.agent.response import AgentResponse
from dcaf.core.context import current_session
from dcaf.core.errors import ConfigurationError, MalformedRequest
from dcaf.core.session import Session, unwrap_session
from dcaf.core.state import RESERVED
from dcaf.tools.platform_context import PLATFORM

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


MOST_PROBLEMS: Final = 20
LONGEST_PATH: Final = 200
"""Of a refused conversation: whoever sends a hundred thousand misfits is not told of each."""

MESSAGES: Final = "a text, or a list of messages"

Messages: TypeAlias = "str | Sequence[Message | Mapping[str, Any]]"
"""What the user says, or the conversation, oldest first."""


class Fresh(list[Message]):
    """Messages that were made for one turn. Nobody else has them, so that an interceptor may write in them."""


def read(messages: Messages, context: object = None) -> Fresh:
    """A conversation, as messages of its own.

    Args:
        messages: The conversation, oldest first.
        context: READ where a JSON parser has read it.

    Raises:
        ConfigurationError: It is nothing that could be one.
        MalformedRequest: What stands in it is no message.
    """
    if isinstance(messages, Fresh):
        return messages
    if isinstance(messages, str):
        return Fresh([Message(role="user", content=messages)])
    items = _listed(messages)
    return Fresh(
        item.model_copy(deep=True) if isinstance(item, Message) else _read(item, at, context) for at, item in enumerate(items)
    )


def problems_of(error: ValidationError, *place: str | int) -> list[tuple[str, str]]:
    """Path and problem of the first misfits, without the values; ``place`` is where the value itself stands."""
    found = error.errors(include_input=False, include_context=False, include_url=False)
    return [(".".join(map(str, (*place, *item["loc"])))[:LONGEST_PATH], item["msg"]) for item in found[:MOST_PROBLEMS]]


def session_of(session: Session | Mapping[str, Any] | None) -> Session:
    """The session of a run: the one that was given, or made of what was given, or that of the turn that is running.

    Raises:
        ConfigurationError: It is neither a session nor the state of one.
        SessionValueError: It is no state that could be stored.
    """
    session = unwrap_session(session)
    if isinstance(session, Session):
        return session
    if session is None:
        try:
            return current_session()
        except ConfigurationError:
            return Session()
    require("session=", session, Mapping, "a Session, or a dict of its state")
    if RESERVED in session:
        raise ConfigurationError("session= has a sealed session in it. The middleware opens those: pass its state, or a Session.")
    return Session.from_dict(session)


def context_of(context: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the caller gives for one turn.

    Raises:
        ConfigurationError: It is no dict, or what the platform says is none.
    """
    if context is None:
        return {}
    require("context=", context, Mapping, "a dict")
    require(f"context={{{PLATFORM!r}: ...}}", context.get(PLATFORM), Mapping | None, "a dict of what the platform says of the user")
    return context


def go_on(
    text: str,
    after: AgentResponse | None,
    decisions: Mapping[str, bool | str] | None,
    session: Session | Mapping[str, Any] | None,
) -> tuple[Messages, Session | Mapping[str, Any] | None]:
    """The messages that follow an answer, and the session that goes with them.

    Raises:
        ConfigurationError: An argument is of another kind, or there are decisions and no answer that they are about.
    """
    require("text=", text, str, "what the user says, a text; for messages there is run()")
    require("after=", after, AgentResponse | None, "the AgentResponse of the turn before, or None")
    require("decisions=", decisions, Mapping | None, "a dict, id of a call -> True or the reason why not")
    if after is None:
        if decisions:
            raise ConfigurationError("decisions= are about the calls of an answer: pass it as after=.")
        return text, session
    said = after.decided(decisions, text) if decisions else Message(role="user", content=text)
    return [*after.messages, said], copy.copy(after.state) if session is None else session


def _listed(messages: Any) -> Iterable[Any]:
    """Messages in an order, which may be made as they are read."""
    if isinstance(messages, AgentResponse):
        raise ConfigurationError(f"messages= takes {MESSAGES}, not an AgentResponse: chat(after=) goes on from one.")
    if isinstance(messages, Message | Mapping):
        raise ConfigurationError(f"messages= takes {MESSAGES}. This is one message: put it into a list.")
    if isinstance(messages, bytes | bytearray | memoryview | set | frozenset | type) or not isinstance(messages, Iterable):
        raise ConfigurationError(f"messages= takes {MESSAGES}, not {kind_of(messages)}.")
    return messages


def _read(item: Any, at: int, context: object) -> Message:
    try:
        return Message.model_validate(item, context=context)
    except ValidationError as error:
        raise MalformedRequest(problems_of(error, "messages", at)) from None
