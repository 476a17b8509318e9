"""A user's function that an agent calls: instructions that depend on the session, or a whole agent written by hand.

>>> import asyncio
>>> instructions = InjectedFunction(lambda session: f"step {session['step']}", "instructions=", ())
>>> asyncio.run(instructions(Session.from_dict({"step": 2})))
'step 2'

What a reader gets wrong: the session is found as in a tool, by its annotation or its name. Where it stands among the parameters
does not matter, and a function that does not ask for it does not get it.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from dcaf.agent.config import describe_kind, require
from dcaf.agent.helpdesk import LONGEST_ID, Data, Event, TextDelta
from dcaf.agent.run_state import RunState, Tools, begin_overlay, commit_overlay
from dcaf.core.context import running
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.callables import label, starts_on_loop
from dcaf.tools.injection_plan import Plan
from dcaf.tools.proposals import MOST_PENDING
from dcaf.tools.threads import call_and_wait, contained
from dcaf.tools.tool import Tool

LIBRARY_MEMBERS: Final = frozenset({"session", "tool_calls", "executed_tool_calls", "approvals", "executed_approvals"})
"""The members of an answer's ``data`` that the library fills."""


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A call that an agent written by hand wants a person to approve.

    Attributes:
        tool: The tool, one of those that the agent was given.
        arguments: Name -> value.
        id: Its id in this conversation; None makes one.
        intent: What to tell the person; None for nothing more than the tool's description.

    Raises:
        ConfigurationError: One of them is of another kind.
    """

    tool: Tool[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    id: str | None = None
    intent: str | None = None

    def __post_init__(self) -> None:
        require("tool= of a ProposedCall", self.tool, Tool, "a tool: write @tool(requires_approval=True) above the function")
        require("arguments= of a ProposedCall", self.arguments, Mapping, "a dict of the tool's arguments")
        require("id= of a ProposedCall", self.id, str | None, "a text, or None")
        require("intent= of a ProposedCall", self.intent, str | None, "a text, or None")


@dataclass(frozen=True, slots=True)
class AgentResult:
    """What an agent written by hand answers.

    Attributes:
        text: What the user reads.
        data: Further members of the answer's ``data``; those that the library fills are not among them.
        approvals: The calls that a person should approve.

    Raises:
        ConfigurationError: The text is none, an approval is no ProposedCall, or the data is no JSON or is the library's to fill.
    """

    text: str = field(default="", repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    approvals: Sequence[ProposedCall] = ()

    def __post_init__(self) -> None:
        require("text= of an AgentResult", self.text, str, "a text")
        require("data= of an AgentResult", self.data, Mapping, "a dict")
        require("approvals= of an AgentResult", self.approvals, list | tuple, "a list of ProposedCalls")
        for item in self.approvals:
            require("approvals= of an AgentResult", item, ProposedCall, "a list of ProposedCalls")
        if "session" in self.data:
            raise ConfigurationError("An AgentResult has no session in its data: declare `session: Session`, and write to that.")
        if not LIBRARY_MEMBERS.isdisjoint(self.data):
            raise ConfigurationError(f"An AgentResult has none of these in its data: {', '.join(sorted(LIBRARY_MEMBERS))}.")
        _check_data(self.data)


class FunctionBackend:
    """An agent written by hand: ``(messages, context[, session]) -> AgentResult``, or the text alone.

    Args:
        function: The function.
        tools: Those whose calls it may propose.

    Raises:
        ConfigurationError: The function has parameters that nobody fills.
    """

    def __init__(self, function: Callable[..., Any], tools: Tools) -> None:
        self._function = InjectedFunction(function, "The agent function", ("messages", "context"))
        self._tools = tools

    async def answer(self, state: RunState) -> AsyncGenerator[Event, None]:
        result = await self._call(state)
        for proposed in result.approvals:
            self._propose(proposed, state)
        for event in state.announce_waiting():
            yield event
        state.add_data(result.data)
        if result.text:
            state.add_text(result.text)
            yield TextDelta(text=result.text)

    async def _call(self, state: RunState) -> AgentResult:
        """Call the function. What it did to the session is kept when it has returned, and dropped where it was stopped."""
        session = begin_overlay(state.session)
        result = await self._function(session, state.messages, state.context)
        result = AgentResult(result) if isinstance(result, str) else result
        if not isinstance(result, AgentResult):
            raise ConfigurationError(f"The agent function returned {describe_kind(result)}: return an AgentResult, or a text.")
        state.add_conflicts(commit_overlay(session, state.agent))
        return result

    def _propose(self, proposed: ProposedCall, state: RunState) -> None:
        name, id_ = proposed.tool.name, uuid.uuid4().hex if proposed.id is None else str.__str__(proposed.id)
        if self._tools.get(name) is not proposed.tool:
            raise ConfigurationError(f"{name} was proposed, and is none of the agent's tools: add it to tools=.")
        if not proposed.tool.requires_approval:
            raise ConfigurationError(f"{name} was proposed, and needs no approval: write @tool(requires_approval=True).")
        if not 0 < len(id_) <= LONGEST_ID or any(item.id == id_ for item in state.pending):
            raise ConfigurationError(f"{name} was proposed with an id that is empty, too long or used twice: leave it out.")
        if len(state.pending) >= MOST_PENDING:
            raise ConfigurationError(f"{name} was proposed, and {MOST_PENDING} calls wait already.")
        state.propose(proposed.tool, id_, _complete_arguments(proposed), proposed.intent)


class InjectedFunction:
    """A function that takes some values by position, and its session by injection.

    Args:
        function: Sync or async; a sync one runs in a thread.
        what: What the function is, for messages.
        values: The names of the values that it may take, in their order.

    Raises:
        ConfigurationError: It has more parameters than there are values for.
    """

    def __init__(self, function: Callable[..., Any], what: str, values: tuple[str, ...]) -> None:
        self._plan = Plan.of(function)
        self._function = function
        self._on_loop = starts_on_loop(function)
        if len(self._plan.open) > len(values):
            taken = ", ".join((*values, "session: Session"))
            raise ConfigurationError(f"{what} {label(function)} has a parameter that nobody fills. It may take: {taken}.")

    async def __call__(self, session: Session, *values: Any) -> Any:
        """Call it, with that session as the current one."""
        named = {parameter.name: value for parameter, value in zip(self._plan.open, values, strict=False)}
        with running(session), contained():
            call = functools.partial(self._plan.call, self._function, named, session)
            return await call_and_wait(call, on_loop=self._on_loop, abandon=True)


def _complete_arguments(proposed: ProposedCall) -> dict[str, Any]:
    try:
        return proposed.tool.complete(proposed.arguments)
    except (RecursionError, TypeError) as error:
        raise ConfigurationError(f"The arguments of a ProposedCall of {proposed.tool.name} are no JSON.") from error


def _check_data(data: Mapping[str, Any]) -> None:
    try:
        to_json(Data(**data).model_dump(mode="json"))
    except (ValidationError, PydanticSerializationError, RecursionError, TypeError, ValueError):
        raise ConfigurationError("The data of an AgentResult is not what the protocol says, or no JSON.") from None
