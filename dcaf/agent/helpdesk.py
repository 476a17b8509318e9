"""The shapes of the HelpDesk protocol: what a client posts, what it gets, and the events between.

>>> Turn.model_validate({"messages": [{"role": "user", "content": "hi"}], "thread_id": "t-1"}).further
{'thread_id': 't-1'}

What a reader gets wrong: members that are not named here are kept. Clients of many versions talk to one service, and the
session rides in a member that most of them have never heard of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue, StrictBool, StringConstraints

LONGEST_ID: Final = 256
"""Characters of the id of a call."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]


class Shape(BaseModel):
    """What all shapes share: they keep members that they do not name, and show none of their values in errors."""

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
    name: str
    input: dict[str, JsonValue] = Field(default_factory=dict, repr=False)
    output: str = Field(default="", repr=False)


class ExecutedApproval(ExecutedToolCall):
    """A call that a person decided about: its result, or why it did not run."""

    type: str = "tool_call"


class Approval(Shape):
    """A call that waits for a person, and on its way back the decision.

    Attributes:
        execute: True is a yes.
        rejection_reason: A text is a no. With neither the call goes on waiting.
        description: What the tool does.
        intent: What the model said beside the call; None where it said nothing.
    """

    id: Identifier
    type: str = "tool_call"
    name: str
    input: dict[str, JsonValue] = Field(default_factory=dict, repr=False)
    execute: StrictBool = False
    rejection_reason: str | None = None
    description: str = ""
    intent: str | None = None


class PendingToolCall(Shape):
    """The same in the older form, which some clients still decide on."""

    id: Identifier
    name: str
    input: dict[str, JsonValue] = Field(default_factory=dict, repr=False)
    execute: StrictBool = False
    rejection_reason: str | None = None
    tool_description: str = ""
    input_description: dict[str, JsonValue] = Field(default_factory=dict, repr=False)
    intent: str | None = None


class Data(Shape):
    """What stands beside the text of a message.

    Attributes:
        session: On the wire the sealed session; behind the middleware the state.
    """

    cmds: list[JsonValue] = Field(default_factory=list, repr=False)
    executed_cmds: list[JsonValue] = Field(default_factory=list, repr=False)
    tool_calls: Annotated[list[PendingToolCall], FailFast()] = []
    executed_tool_calls: Annotated[list[ExecutedToolCall], FailFast()] = []
    approvals: Annotated[list[Approval], FailFast()] = []
    executed_approvals: Annotated[list[ExecutedApproval], FailFast()] = []
    url_configs: list[JsonValue] = Field(default_factory=list, repr=False)
    session: dict[str, JsonValue] | None = Field(default=None, repr=False)


class Message(Shape):
    """One message of the conversation.

    Attributes:
        platform_context: What the platform says of the user; never stored, never shown to the model.
    """

    role: Literal["user", "assistant"]
    content: str = Field(default="", repr=False)
    data: Data | None = Field(default=None, repr=False)
    platform_context: dict[str, JsonValue] | None = Field(default=None, repr=False)


class Turn(Shape):
    """The body of a request, and a frame that opens a turn on a socket.

    Attributes:
        messages: The conversation, oldest first; the last one is what is to be answered.
        data: Where a client may put the session; anything else in it is passed over.
    """

    messages: Annotated[list[Message], Field(min_length=1), FailFast()]
    data: Annotated[dict[str, JsonValue] | None, Field(repr=False)] = None
    platform_context: dict[str, JsonValue] | None = Field(default=None, repr=False)

    @property
    def further(self) -> dict[str, JsonValue]:
        """The members that are not named here, such as ``thread_id``."""
        return dict(self.model_extra or {})


class MetaData(Shape):
    """What a client may show of the turn.

    Attributes:
        stop_reason: ``end_turn``, ``tool_use`` where calls wait, ``blocked`` by an interceptor, or ``error``.
        blocked: What an interceptor says of why, for a program: ``reason`` and ``details``; absent where none ended the turn.
        request_context: The request's own further members; absent where they are too long.
    """

    has_pending_approvals: bool = False
    is_complete: bool = True
    stop_reason: str = "end_turn"
    blocked: dict[str, JsonValue] | None = None
    request_context: dict[str, JsonValue] | None = Field(default=None, repr=False)


class Answer(Message):
    """The answer of ``POST /api/chat``."""

    role: Literal["user", "assistant"] = "assistant"
    meta_data: MetaData = Field(default_factory=MetaData)


class TextDelta(Shape):
    """Some more of the answer's text."""

    type: Literal["text_delta"] = "text_delta"
    text: str = Field(repr=False)


class IntermittentUpdate(Shape):
    """What the agent is doing, to be shown while nothing else comes."""

    type: Literal["intermittent_update"] = "intermittent_update"
    text: str
    content: dict[str, JsonValue] = Field(default_factory=dict, repr=False)


class ToolCalls(Shape):
    """The calls that wait for a person, in the older form."""

    type: Literal["tool_calls"] = "tool_calls"
    tool_calls: list[PendingToolCall]


class ExecutedToolCalls(Shape):
    """Calls that have run."""

    type: Literal["executed_tool_calls"] = "executed_tool_calls"
    executed_tool_calls: list[ExecutedToolCall]


class Approvals(Shape):
    """The calls that wait for a person."""

    type: Literal["approvals"] = "approvals"
    approvals: list[Approval]


class ExecutedApprovals(Shape):
    """What became of a person's decisions."""

    type: Literal["executed_approvals"] = "executed_approvals"
    executed_approvals: list[ExecutedApproval]


class Done(Shape):
    """The end of a turn. The session rides in its ``data``."""

    type: Literal["done"] = "done"
    stop_reason: str = "end_turn"
    meta_data: MetaData = Field(default_factory=MetaData)
    data: dict[str, JsonValue] | None = Field(default=None, repr=False)


class Error(Shape):
    """The end of a turn that could not be finished.

    Attributes:
        error: For a person.
        code: For a program.
    """

    type: Literal["error"] = "error"
    error: str
    code: str


Event = TextDelta | IntermittentUpdate | ToolCalls | ExecutedToolCalls | Approvals | ExecutedApprovals | Done | Error
"""One line of a stream, one frame of a socket."""
