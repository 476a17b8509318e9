"""The shapes of the HelpDesk protocol: what a client posts, what it gets, and the events between.

>>> Turn.model_validate({"messages": [{"role": "user", "content": "hi"}], "thread_id": "t-1"}).further
{'thread_id': 't-1'}

What a reader gets wrong: members that are not named here are kept. Clients of many versions talk to one service, and the
session rides in a member that most of them have never heard of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    PlainSerializer,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

LONGEST_ID: Final = 256
"""Characters of the id of a call."""

STOP_REASONS: Final = {
    "end_turn": "the agent has said all that it wanted to",
    "tool_use": "calls wait for a person",
    "max_tokens": "the answer was cut off at its length limit",
    "refusal": "the model, or its provider, refused to answer",
    "content_filter": "the provider's filter has cut the answer off, or taken it away",
    "empty": "the model said nothing",
    "pause_turn": "the provider paused in the middle of the answer",
    "blocked": "an interceptor ended the turn",
    "stopped": "the client ended the turn, on a socket",
    "error": "the model failed after approved calls had run, or in the middle of its answer",
}
"""How a turn can end. Others may come later."""

COMPLETE: Final = frozenset({"end_turn", "blocked"})
"""Those after which nothing is missing."""

READ: Final = object()
"""The context of a validation of what a JSON parser has read."""


def _trust_parsed(kind: type) -> WrapValidator:
    """Skip the validation of a value that a JSON parser has read: it is JSON, and to validate each part of it takes long."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        return value if info.context is READ and type(value) is kind else handler(value)

    return WrapValidator(check)


def _keep(value: Any) -> Any:
    return value


JSONObject = Annotated[dict[str, JsonValue], _trust_parsed(dict), PlainSerializer(_keep, return_type=Any)]
JSONList = Annotated[list[JsonValue], _trust_parsed(list), PlainSerializer(_keep, return_type=Any)]

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]


class Shape(BaseModel):
    """The base of all shapes. They keep members that they do not name, and show none of their values in errors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        named = type(self).model_fields
        return ((name, value) for name, value in super().__repr_args__() if name in named)


class ExecutedToolCall(Shape):
    """A call that has run.

    Attributes:
        output: What the model read of its result.
    """

    id: Identifier
    """What the model calls it."""
    name: str
    """The tool."""
    input: JSONObject = Field(default_factory=dict, repr=False)
    """Its arguments."""
    output: str = Field(default="", repr=False)


class ExecutedApproval(ExecutedToolCall):
    """A call that a person decided about: its result, or why it did not run."""

    type: str = "tool_call"
    """``tool_call``, or the kind of command."""


class Approval(Shape):
    """A call that waits for a person, and on its way back the decision.

    Attributes:
        execute: True is a yes.
        rejection_reason: A text is a no. With neither the call goes on waiting.
        description: What the tool does.
        intent: What the model said with the call; None where it said nothing.
    """

    id: Identifier
    """What the model calls it; a decision names it."""
    type: str = "tool_call"
    """``tool_call``, or the kind of command."""
    name: str
    """The tool."""
    input: JSONObject = Field(default_factory=dict, repr=False)
    """Its arguments."""
    execute: StrictBool = False
    rejection_reason: str | None = None
    description: str = ""
    intent: str | None = None


class PendingToolCall(Shape):
    """A call that waits, in the older form, which some clients still decide on."""

    id: Identifier
    """What the model calls it; a decision names it."""
    name: str
    """The tool."""
    input: JSONObject = Field(default_factory=dict, repr=False)
    """Its arguments."""
    execute: StrictBool = False
    """True is a yes."""
    rejection_reason: str | None = None
    """A text is a no. With neither the call goes on waiting."""
    tool_description: str = ""
    """What the tool does."""
    input_description: JSONObject = Field(default_factory=dict, repr=False)
    """The JSON Schema of each argument, by its name."""
    intent: str | None = None
    """What the model said with the call; None where it said nothing."""


class Data(Shape):
    """The members of a message other than its text.

    Attributes:
        session: On the wire the sealed session; behind the middleware the state.
    """

    cmds: JSONList = Field(default_factory=list, repr=False)
    """Commands for the client, which an agent function may fill."""
    executed_cmds: JSONList = Field(default_factory=list, repr=False)
    """The commands that the client has run."""
    tool_calls: Annotated[list[PendingToolCall], FailFast()] = Field(default_factory=list)
    """The calls that wait for a person, in the older form."""
    executed_tool_calls: Annotated[list[ExecutedToolCall], FailFast()] = Field(default_factory=list)
    """The calls that have run, those that were decided about in the older form among them."""
    approvals: Annotated[list[Approval], FailFast()] = Field(default_factory=list)
    """The calls that wait for a person, and in a user's message the decisions."""
    executed_approvals: Annotated[list[ExecutedApproval], FailFast()] = Field(default_factory=list)
    """What became of a person's decisions."""
    url_configs: JSONList = Field(default_factory=list, repr=False)
    """Links for the client, which an agent function may fill."""
    session: JSONObject | None = Field(default=None, repr=False)


class Message(Shape):
    """One message of the conversation.

    Attributes:
        platform_context: What the platform says of the user; never stored, never shown to the model.
    """

    role: Literal["user", "assistant"]
    """Whose message it is."""
    content: str = Field(default="", repr=False)
    """What was said."""
    data: Data | None = Field(default=None, repr=False)
    """The members of the message other than the text."""
    platform_context: JSONObject | None = Field(default=None, repr=False)


class SystemMessage(Message):
    """What the operator has said, in a conversation that the server keeps. No client can send one."""

    role: Literal["system"] = "system"  # type: ignore[assignment] # of a kept conversation alone, and in no body


class Turn(Shape):
    """The body of a request, and a frame that opens a turn on a socket.

    Attributes:
        messages: The conversation, oldest first; the last one is to be answered.
        data: Where a client may put the session; its other members are not read.
    """

    messages: Annotated[list[Message], Field(min_length=1), FailFast()]
    data: Annotated[JSONObject | None, Field(repr=False)] = None
    platform_context: JSONObject | None = Field(default=None, repr=False)
    """What the platform says of the user; never stored, never shown to the model."""

    @property
    def further(self) -> dict[str, JsonValue]:
        """The members that are not named here, such as ``thread_id``."""
        return dict(self.model_extra or {})


class MetaData(Shape):
    """What a client may show of the turn.

    Attributes:
        is_complete: Whether nothing is missing: no call waits, and the answer was not cut off, filtered, refused or empty.
        stop_reason: How the turn ended, one of STOP_REASONS.
        blocked: What an interceptor says of why, for a program: ``reason`` and ``details``; absent where none ended the turn.
        request_context: The request's own further members; absent where they are too long.
    """

    has_pending_approvals: bool = False
    """Whether calls wait for a person."""
    is_complete: bool = True
    stop_reason: str = "end_turn"
    blocked: JSONObject | None = None
    request_context: JSONObject | None = Field(default=None, repr=False)


class Answer(Message):
    """The answer of ``POST /api/chat``."""

    role: Literal["user", "assistant"] = "assistant"
    """Always the assistant's."""
    meta_data: MetaData = Field(default_factory=MetaData)
    """What a client may show of the turn."""


class TextDelta(Shape):
    """Some more of the answer's text."""

    type: Literal["text_delta"] = "text_delta"
    """Which event this is."""
    text: str = Field(repr=False)
    """What comes after the text so far."""


class IntermittentUpdate(Shape):
    """What the agent is doing, to be shown while nothing else comes."""

    type: Literal["intermittent_update"] = "intermittent_update"
    """Which event this is."""
    text: str
    """For the user."""
    content: JSONObject = Field(default_factory=dict, repr=False)
    """For a program."""


class ToolCalls(Shape):
    """The calls that wait for a person, in the older form."""

    type: Literal["tool_calls"] = "tool_calls"
    """Which event this is."""
    tool_calls: list[PendingToolCall]
    """The calls."""


class ExecutedToolCalls(Shape):
    """Calls that have run."""

    type: Literal["executed_tool_calls"] = "executed_tool_calls"
    """Which event this is."""
    executed_tool_calls: list[ExecutedToolCall]
    """The calls, with their results."""


class Approvals(Shape):
    """The calls that wait for a person."""

    type: Literal["approvals"] = "approvals"
    """Which event this is."""
    approvals: list[Approval]
    """The calls."""


class ExecutedApprovals(Shape):
    """What became of a person's decisions."""

    type: Literal["executed_approvals"] = "executed_approvals"
    """Which event this is."""
    executed_approvals: list[ExecutedApproval]
    """The calls that were decided about, each with its result or why it did not run."""


class Done(Shape):
    """The end of a turn. The session rides in its ``data``."""

    type: Literal["done"] = "done"
    """Which event this is."""
    stop_reason: str = "end_turn"
    """How the turn ended, one of STOP_REASONS."""
    meta_data: MetaData = Field(default_factory=MetaData)
    """What a client may show of the turn."""
    data: JSONObject | None = Field(default=None, repr=False)
    """The members of the message other than the text, the session among them."""


class Error(Shape):
    """The end of a turn that could not be finished.

    Attributes:
        error: For a person.
        code: For a program.
    """

    type: Literal["error"] = "error"
    """Which event this is."""
    error: str
    code: str


Event = TextDelta | IntermittentUpdate | ToolCalls | ExecutedToolCalls | Approvals | ExecutedApprovals | Done | Error
"""One line of a stream, one frame of a socket."""
