"""One turn's answer while it is being made: what was said, what has run, what waits.

What a reader gets wrong: nothing of it counts until the run has ended. The session in it is the run's own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from pydantic_ai.usage import RunUsage

from dcaf.agent.helpdesk import (
    Approval,
    Approvals,
    Data,
    Event,
    ExecutedApproval,
    ExecutedToolCall,
    Message,
    PendingToolCall,
    ToolCalls,
)
from dcaf.core.session import Session
from dcaf.tools.tool import Tool

BETWEEN: Final = "\n\n"
"""Stands between what the model says before and after it called tools."""


Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch."""

Tools: TypeAlias = Mapping[str, Tool[..., Any]]
"""Name -> tool."""


@dataclass(slots=True)
class Draft:
    """One answer in the making.

    Attributes:
        session: The run's own.
        messages: The conversation, the last message with what became of its decisions.
        context: What the caller gave for this turn.
        text: What was said so far.
        executed: The calls that have run.
        decided: What became of a person's decisions.
        pending: The calls that wait for a person.
        further: Members of the answer's ``data`` that the agent adds.
        usage: What the model has used.
        stop_reason: ``end_turn``, ``tool_use`` where calls wait, ``blocked`` by an interceptor, or ``error``.
        has_run: Whether calls that a person approved have run: then the turn is kept, whatever comes after.
        tells_intent: Whether a person who decides is told what the model said beside a call.
    """

    session: Session
    messages: list[Message]
    context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)
    executed: list[ExecutedToolCall] = field(default_factory=list)
    decided: list[ExecutedApproval] = field(default_factory=list)
    pending: list[Approval] = field(default_factory=list)
    further: dict[str, Any] = field(default_factory=dict, repr=False)
    usage: RunUsage = field(default_factory=RunUsage)
    stop_reason: str = "end_turn"
    has_run: bool = False
    tells_intent: bool = True

    def wait_for(self, tool: Tool[..., Any], id_: str, arguments: dict[str, Any], intent: str | None) -> None:
        """Note a call that waits for a person."""
        told = intent if self.tells_intent else None
        self.pending.append(
            Approval(id=id_, name=tool.name, input=arguments, description=tool.description or tool.name, intent=told)
        )
        self.stop_reason = "tool_use"

    def waiting(self, tools: Tools) -> Iterator[Event]:
        """The events that tell of the calls that wait: the newer form, then the older one."""
        if self.pending:
            yield Approvals(approvals=list(self.pending))
            yield ToolCalls(tool_calls=self._older(tools))

    def data(self, tools: Tools) -> Data:
        """What stands beside the text of the answer."""
        return Data(
            **self.further,
            tool_calls=self._older(tools),
            executed_tool_calls=list(self.executed),
            approvals=list(self.pending),
            executed_approvals=list(self.decided),
        )

    def _older(self, tools: Tools) -> list[PendingToolCall]:
        return [
            PendingToolCall(
                id=item.id,
                name=item.name,
                input=item.input,
                tool_description=item.description,
                input_description=tools[item.name].input_schema.get("properties", {}),
                intent=item.intent,
            )
            for item in self.pending
        ]


class Mind(Protocol):
    """What answers a conversation: a model, or a function that somebody wrote."""

    def answer(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """Go on from the messages of a draft, note in it what happens, and tell of it as it happens.

        Raises:
            AgentError: It could not be finished.
        """
