"""A conversation of the HelpDesk protocol: how a turn is given one, and how a model reads it.

>>> [message.content for message in read_messages("hi")]
['hi']
>>> read_messages(["hi"])
Traceback (most recent call last):
    ...
dcaf.core.errors.MalformedRequest: The body is not a turn. A turn is {"messages": [{"role": "user", "content": "..."}]}.
messages.0: Input should be a valid dictionary or instance of Message

>>> import asyncio
>>> [message] = asyncio.run(build_history(read_messages("hi")))
>>> [type(part).__name__ for part in message.parts]
['UserPromptPart']

What a reader gets wrong: all of it is the client's word, the results of tools too. A user can write anything into the history that
a model reads; what must be true is in the session.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_core import to_json

from dcaf.agent.config import describe_kind, require
from dcaf.agent.helpdesk import Approval, ExecutedToolCall, Message
from dcaf.agent.response import AgentResponse
from dcaf.core.context import current_session
from dcaf.core.errors import ConfigurationError, MalformedRequest
from dcaf.core.session import Session, unwrap_session
from dcaf.core.state import RESERVED
from dcaf.tools.platform_context import PLATFORM

WAITS: Final = (
    "This call waits for the approval of a person, and has not run. Do not make it again: the person decides about this one."
)
MESSAGES: Final = "a text, or a list of messages"

AT_ONCE: Final = 250
"""Messages that are read before other tasks may have the event loop."""

MOST_PROBLEMS: Final = 20
"""Problems of a refused conversation that are named: it may have a hundred thousand."""

LONGEST_PATH: Final = 200
"""Characters of the path of such a problem."""

Messages: TypeAlias = "str | Sequence[Message | Mapping[str, Any]]"
"""What the user says, or the conversation, oldest first."""

_Part: TypeAlias = ModelRequestPart | ModelResponsePart

_PARTS: Final[Mapping[str, Callable[[str], _Part]]] = {"user": UserPromptPart, "assistant": TextPart, "system": SystemPromptPart}
"""Role -> what a model reads of the text."""


class OwnMessages(list[Message]):
    """Messages that were made for one turn, down to their data. Nobody else has them, so that an interceptor may write in them."""


def read_messages(messages: Messages, context: object = None) -> OwnMessages:
    """Read a conversation. What the caller gave is not changed later.

    Args:
        messages: The conversation, oldest first.
        context: READ where a JSON parser has read it.

    Raises:
        ConfigurationError: It is nothing that could be one.
        MalformedRequest: One of them is no message.
    """
    if isinstance(messages, OwnMessages):
        return messages
    if isinstance(messages, str):
        return OwnMessages([Message(role="user", content=messages)])
    items = _check_iterable(messages)
    return OwnMessages(
        item.model_copy(deep=True) if isinstance(item, Message) else _read_message(item, at, context)
        for at, item in enumerate(items)
    )


def list_problems(error: ValidationError, *place: str | int) -> list[tuple[str, str]]:
    """Path and problem of the first misfits, without the values; ``place`` is where the value itself stands."""
    found = error.errors(include_input=False, include_context=False, include_url=False)
    return [(".".join(map(str, (*place, *item["loc"])))[:LONGEST_PATH], item["msg"]) for item in found[:MOST_PROBLEMS]]


def choose_session(session: Session | Mapping[str, Any] | None) -> Session:
    """The session of a run: the one that was given, one made of the given state, or that of the turn that is running.

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


def check_context(context: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the caller gives for one turn; empty for None.

    Raises:
        ConfigurationError: It is no dict, or what the platform says is none.
    """
    if context is None:
        return {}
    require("context=", context, Mapping, "a dict")
    require(f"context={{{PLATFORM!r}: ...}}", context.get(PLATFORM), Mapping | None, "a dict of what the platform says of the user")
    return context


def continue_from(
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


async def build_history(messages: Sequence[Message], waiting: Sequence[Approval] = ()) -> list[ModelMessage]:
    """What a model reads of a conversation.

    Each call stands before the text that came of it, once. The calls that wait for a person stand before the last message, as calls
    whose result is that they wait. Providers want two more things: that the sides take turns, so that neighbours of one side become
    one message; and that no two calls share an id, so that each gets one of its own.
    """
    calls = _CallRegister()
    before: list[_Part] = []
    for start in range(0, len(messages) - 1, AT_ONCE):
        for message in messages[start : min(start + AT_ONCE, len(messages) - 1)]:
            before += _list_parts(message, calls)
        await anyio.lowlevel.checkpoint()
    last = [part for message in messages[-1:] for part in _list_parts(message, calls)]
    waits = [ExecutedToolCall(id=item.id, name=item.name, input=item.input, output=WAITS) for item in waiting]
    return list(_group_by_side([*before, *calls.list_parts(waits), *last]))


class _CallRegister:
    """The calls that stand in a history so far, and the ids that they have there."""

    def __init__(self) -> None:
        self._calls: set[tuple[str, str, str, bytes]] = set()
        self._ids: set[str] = set()

    def list_parts(self, calls: Iterable[ExecutedToolCall]) -> Iterator[_Part]:
        """The calls that do not stand there yet, and then their results."""
        new = [(self._take_id(call.id), call) for call in calls if self._add(call)]
        yield from (ToolCallPart(call.name, dict(call.input), id_) for id_, call in new)
        yield from (ToolReturnPart(call.name, call.output, id_) for id_, call in new)

    def _add(self, call: ExecutedToolCall) -> bool:
        known = (call.id, call.name, call.output, to_json(call.input))
        is_new = known not in self._calls
        self._calls.add(known)
        return is_new

    def _take_id(self, id_: str) -> str:
        free = id_ if id_ not in self._ids else f"{id_}-{len(self._calls)}"
        self._ids.add(free)
        return free


def _list_parts(message: Message, calls: _CallRegister) -> Iterator[_Part]:
    data = message.data
    yield from calls.list_parts([] if data is None else [*data.executed_tool_calls, *data.executed_approvals])
    if message.content:
        yield _PARTS[message.role](message.content)


def _group_by_side(parts: Iterable[_Part]) -> Iterator[ModelMessage]:
    """Messages of parts in a row: a new one wherever the side changes."""
    for is_request, run in groupby(parts, key=lambda part: isinstance(part, SystemPromptPart | UserPromptPart | ToolReturnPart)):
        side: list[Any] = [*run]
        yield ModelRequest(side) if is_request else ModelResponse(side)


def _check_iterable(messages: Any) -> Iterable[Any]:
    """Refuse what is no list of messages. Messages may be made as they are read."""
    if isinstance(messages, AgentResponse):
        raise ConfigurationError(f"messages= takes {MESSAGES}, not an AgentResponse: chat(after=) goes on from one.")
    if isinstance(messages, Message | Mapping):
        raise ConfigurationError(f"messages= takes {MESSAGES}. This is one message: put it into a list.")
    if isinstance(messages, bytes | bytearray | memoryview | set | frozenset | type) or not isinstance(messages, Iterable):
        raise ConfigurationError(f"messages= takes {MESSAGES}, not {describe_kind(messages)}.")
    return messages


def _read_message(item: Any, at: int, context: object) -> Message:
    try:
        return Message.model_validate(item, context=context)
    except ValidationError as error:
        raise MalformedRequest(list_problems(error, "messages", at)) from None
