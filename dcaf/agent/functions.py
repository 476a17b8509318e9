"""A user's function that an agent calls: instructions that depend on the session, or a whole agent written by hand.

>>> import asyncio
>>> filled = Filled(lambda session: f"step {session['step']}", "instructions=", ())
>>> asyncio.run(filled(Session.from_dict({"step": 2})))
'step 2'

What a reader gets wrong: the session is found as in a tool, by its annotation or its name. Where it stands among the parameters
does not matter, and a function that does not ask for it does not get it.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcaf.agent.approvals import propose
from dcaf.agent.draft import Clock, Draft, Tools
from dcaf.agent.helpdesk import Event, TextDelta
from dcaf.core.current import running
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.callables import label, outcome, starts_on_loop
from dcaf.tools.injection import Plan
from dcaf.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A call that an agent written by hand wants a person to approve.

    Attributes:
        tool: The tool, one of those that the agent was given.
        arguments: Name -> value.
        id: Its id in this conversation; None makes one.
        intent: What to tell the person; None for nothing more than the tool's description.
    """

    tool: Tool[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    id: str | None = None
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class AgentResult:
    """What an agent written by hand answers.

    Attributes:
        text: What the user reads.
        data: Further members of the answer's ``data``; ``session`` is not among them.
        approvals: The calls that a person should approve.
    """

    text: str = field(default="", repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    approvals: Sequence[ProposedCall] = ()

    def __post_init__(self) -> None:
        if "session" in self.data:
            raise ConfigurationError("An AgentResult has no session in its data: declare `session: Session`, and write to that.")


class Filled:
    """A function, called with some values and with its session.

    Args:
        function: Sync or async; a sync one runs in a thread.
        what: What it is given as, for messages.
        values: What the values are that it may take, in their order.

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
        with running(session):
            return await outcome(functools.partial(self._plan.call, self._function, named, session), on_loop=self._on_loop)


class FunctionMind:
    """An agent written by hand: ``(messages, context[, session]) -> AgentResult``, or the text alone.

    Args:
        function: The function.
        tools: Those whose calls it may propose.
        clock: When a proposal is made.

    Raises:
        ConfigurationError: The function has parameters that nobody fills.
    """

    def __init__(self, function: Callable[..., Any], tools: Tools, clock: Clock) -> None:
        self._function = Filled(function, "The agent function", ("messages", "context"))
        self._tools = tools
        self._clock = clock

    async def answer(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """As of a mind."""
        result = await self._function(draft.session, draft.messages, draft.context)
        result = AgentResult(result) if isinstance(result, str) else result
        if not isinstance(result, AgentResult):
            raise ConfigurationError(f"The agent function returned a {type(result).__name__}: return an AgentResult, or a text.")
        for proposed in result.approvals:
            if self._tools.get(proposed.tool.name) is not proposed.tool:
                raise ConfigurationError(f"{proposed.tool.name} was proposed, and is none of the agent's tools: add it to tools=.")
            id_, arguments = proposed.id or uuid.uuid4().hex, dict(proposed.arguments)
            propose(draft.session, id_, proposed.tool.name, arguments, now=self._clock())
            draft.wait_for(proposed.tool, id_, arguments, proposed.intent)
        for event in draft.waiting(self._tools):
            yield event
        draft.further.update(result.data)
        if result.text:
            draft.text += result.text
            yield TextDelta(text=result.text)
