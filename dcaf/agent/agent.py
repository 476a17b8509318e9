"""An agent: a model with tools, or a function, that answers a conversation and keeps a session.

>>> def greeter(messages, context, session: Session) -> str:
...     return f"Hello number {session.incr('greeted')}."
>>> agent = Agent(greeter)
>>> response = agent.run("hi", session={"greeted": 1})
>>> response.text, response.session
('Hello number 2.', {'greeted': 2})

What a reader gets wrong: an agent remembers nothing. What it should know of the conversation is in the messages and the session
that it is given, each time.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias, TypeVar

import anyio
from pydantic import ValidationError

from dcaf.core.extras import extra

with extra("dcaf.agent", "dcaf[agent]"):  # before any other module of this package, each of which needs one of them
    import rfc8785  # noqa: F401 - for approvals
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import Model, infer_model

from dcaf.agent.config import RunConfig
from dcaf.agent.draft import Clock, Mind, Tools
from dcaf.agent.functions import Filled, FunctionMind
from dcaf.agent.helpdesk import Event, Message
from dcaf.agent.interceptors import RequestInterceptor, ResponseInterceptor, listed
from dcaf.agent.response import AgentResponse
from dcaf.agent.run import Run, Service
from dcaf.agent.thinking import ModelMind
from dcaf.core.current import current_session
from dcaf.core.errors import ConfigurationError, MalformedRequest
from dcaf.core.keeper import Keeper, Stateless
from dcaf.core.session import Session
from dcaf.core.state import RESERVED
from dcaf.tools.tool import Tool, tool

One = TypeVar("One")
OneOrMore: TypeAlias = "One | Sequence[One] | None"
MOST_PROBLEMS: Final = 20
LONGEST_PATH: Final = 200
"""Of a refused conversation: whoever sends a hundred thousand misfits is not told of each."""

Messages: TypeAlias = "str | Sequence[Message | Mapping[str, Any]]"
"""What the user says, or the conversation, oldest first."""


class Agent:
    """Answers conversations.

    Args:
        model: A model of pydantic-ai, the name of one (``"anthropic:claude-sonnet-4-5"``), or a function
            ``(messages, context[, session]) -> AgentResult``.
        tools: What the model may call: tools, or functions, which are made tools.
        instructions: What the model is told first: a text, or a function of the session; None for nothing.
        config: Limits, and what streams.
        request_interceptors: Functions of the InterceptedRequest: one, a list, or None.
        response_interceptors: Functions of the InterceptedResponse. While there is one, text leaves only after it has seen it.
        agents: Agents that this one's tools or function ask. What they want a person to approve is asked for in this one's answers.
        name: What the service calls it.
        clock: Seconds since the epoch.

    Raises:
        ConfigurationError: There is no such model, two tools have one name, or a function cannot be called.
    """

    def __init__(
        self,
        model: Model | str | Callable[..., Any],
        *,
        tools: Iterable[Tool[..., Any] | Callable[..., Any]] = (),
        instructions: str | Callable[..., Any] | None = None,
        config: RunConfig | None = None,
        request_interceptors: OneOrMore[RequestInterceptor] = None,
        response_interceptors: OneOrMore[ResponseInterceptor] = None,
        agents: Iterable[Agent] = (),
        name: str = "agent",
        clock: Clock = time.time,
    ) -> None:
        self.name: str = name
        self.config: RunConfig = config or RunConfig()
        self.tools: Tools = _named(tools)
        self._service = Service(
            _mind(model, self.tools, instructions, self.config),
            _decidable(self.tools, agents),
            self.config,
            listed("request_interceptors", request_interceptors),
            listed("response_interceptors", response_interceptors),
            clock,
            name,
        )

    def run(
        self,
        messages: Messages,
        *,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> AgentResponse:
        """As ``run_async``, in a program without an event loop.

        Raises:
            ConfigurationError: An event loop is running here.
        """
        if _is_in_loop():
            raise ConfigurationError(
                "agent.run() was called inside a running event loop. Write `await agent.run_async(...)`, or chat_async."
            )
        return anyio.run(functools.partial(self.run_async, messages, session=session, context=context))

    def chat(
        self,
        text: str = "",
        *,
        after: AgentResponse | None = None,
        decisions: Mapping[str, bool | str] | None = None,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> AgentResponse:
        """Say one thing, and go on from an answer; as ``run``.

        Args:
            text: What the user says.
            after: The answer before, whose messages and session this goes on from; None begins.
            decisions: Id of a call that waits -> True to run it, or the reason why not.
            session: None takes a copy of that of ``after``, from which one may go on in several ways.
            context: As of ``run_async``.

        Raises:
            ConfigurationError: There are decisions, and no answer that they are about.
        """
        messages, going_on = _going_on(text, after, decisions, session)
        return self.run(messages, session=going_on, context=context)

    async def chat_async(
        self,
        text: str = "",
        *,
        after: AgentResponse | None = None,
        decisions: Mapping[str, bool | str] | None = None,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> AgentResponse:
        """As ``chat``, where an event loop is running."""
        messages, going_on = _going_on(text, after, decisions, session)
        return await self.run_async(messages, session=going_on, context=context)

    async def run_async(
        self,
        messages: Messages,
        *,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        keeper: Keeper | None = None,
    ) -> AgentResponse:
        """Answer a conversation.

        Args:
            messages: The conversation, oldest first, or what the user says.
            session: A Session is written when the turn has ended well, and left as it was when it fails. A dict is not changed.
                None takes the session of the turn that is running, below the middleware or in a tool; else an empty one.
            context: Whatever interceptors, an agent function and tools may need: ``platform_context`` goes to the tools that ask
                for it.
            keeper: Who knows which approvals were used; None is nobody.

        Raises:
            MalformedRequest: The messages are no conversation, or there is nothing to answer.
            AgentError: The turn could not be finished. The session is as it was.
        """
        async with aclosing(self._run(messages, session, context, keeper).events()) as events:
            async for event in events:
                if isinstance(event, AgentResponse):
                    return event
        raise AssertionError

    async def run_stream(
        self,
        messages: Messages,
        *,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        keeper: Keeper | None = None,
    ) -> AsyncGenerator[Event | AgentResponse, None]:
        """Answer a conversation, and tell what happens as it happens; the last event is the AgentResponse.

        Whoever stops early closes it, with ``contextlib.aclosing``; the session is then as it was. Arguments and errors are
        those of ``run_async``.
        """
        async with aclosing(self._run(messages, session, context, keeper).events()) as events:
            async for event in events:
                yield event

    def _run(
        self,
        messages: Messages,
        session: Session | Mapping[str, Any] | None,
        context: Mapping[str, Any] | None,
        keeper: Keeper | None,
    ) -> Run:
        if context is not None and not isinstance(context, Mapping):
            raise ConfigurationError(f"context= takes a dict, not {type(context).__name__}.")
        return Run(self._service, read(messages), _own(session), context or {}, keeper or Stateless())

    def __repr__(self) -> str:
        return f"<Agent {self.name}: {len(self.tools)} tools>"


def _own(session: Session | Mapping[str, Any] | None) -> Session:
    """The session of a run: the one that was given, or made of what was given, or that of the turn that is running."""
    if isinstance(session, Session):
        return session
    if session is not None and not isinstance(session, Mapping):
        raise ConfigurationError(f"session= takes a Session or a dict of its state, not {type(session).__name__}.")
    if session is not None and RESERVED in session:
        raise ConfigurationError("session= has a sealed session in it. The middleware opens those: pass its state, or a Session.")
    if session is not None:
        return Session.from_dict(session)
    try:
        return current_session()
    except ConfigurationError:
        return Session()


def _going_on(
    text: str,
    after: AgentResponse | None,
    decisions: Mapping[str, bool | str] | None,
    session: Session | Mapping[str, Any] | None,
) -> tuple[list[Message], Session | Mapping[str, Any] | None]:
    """The messages that follow an answer, and the session that goes with them."""
    if after is None:
        if decisions:
            raise ConfigurationError("decisions= are about the calls of an answer: pass it as after=.")
        return [Message(role="user", content=text)], session
    said = after.decided(decisions, text) if decisions else Message(role="user", content=text)
    return [*after.messages, said], copy.copy(after.state) if session is None else session


def read(messages: Messages) -> list[Message]:
    """A conversation, as messages.

    Raises:
        MalformedRequest: It is none.
    """
    if isinstance(messages, str):
        return [Message(role="user", content=messages)]
    return [item if isinstance(item, Message) else _read(item, at) for at, item in enumerate(messages)]


def problems_of(error: ValidationError, *place: str | int) -> list[tuple[str, str]]:
    """Path and problem of the first misfits, without the values; ``place`` is where the value itself stands."""
    found = error.errors(include_input=False, include_context=False, include_url=False)
    return [(".".join(map(str, (*place, *item["loc"])))[:LONGEST_PATH], item["msg"]) for item in found[:MOST_PROBLEMS]]


def _read(item: Any, at: int) -> Message:
    try:
        return Message.model_validate(item)
    except ValidationError as error:
        raise MalformedRequest(problems_of(error, "messages", at)) from None


def _mind(
    model: Model | str | Callable[..., Any],
    tools: Tools,
    instructions: str | Callable[..., Any] | None,
    config: RunConfig,
) -> Mind:
    if callable(model) and not isinstance(model, Model):
        if instructions is not None:
            raise ConfigurationError("instructions= are for a model. An agent function has its own.")
        return FunctionMind(model, tools)
    if not isinstance(model, Model | str):
        raise ConfigurationError(_no_mind(model))
    try:
        found = infer_model(model)
    except (UserError, ValueError, ImportError) as error:
        raise ConfigurationError(f"The model cannot be used: {error}") from error
    told = Filled(instructions, "instructions=", ()) if callable(instructions) else instructions
    return ModelMind(found, tools, told, config)


def _no_mind(model: object) -> str:
    if isinstance(model, Agent):
        return "This is an Agent already: use it as it is."
    kind = type(model).__name__
    article = "An" if kind[0] in "AEIOaeio" else "A"
    return f"{article} {kind} is neither an Agent, a model, the name of one, nor an agent function."


def _named(tools: Iterable[Tool[..., Any] | Callable[..., Any]]) -> Tools:
    found: dict[str, Tool[..., Any]] = {}
    for item in tools:
        made = item if isinstance(item, Tool) else tool(item)
        if made.name in found:
            raise ConfigurationError(f"Two tools are named {made.name!r}. Give one another name: @tool(name=...).")
        found[made.name] = made
    return found


def _decidable(tools: Tools, agents: Iterable[Agent]) -> Tools:
    """The tools whose calls a person can decide about in the answers of an agent: its own, and those of the agents that it asks."""
    found = {name: item for name, item in tools.items() if item.requires_approval}
    for agent in _agents(agents):
        for name, item in agent._service.tools.items():
            if found.setdefault(name, item) != item:
                raise ConfigurationError(
                    f"Two tools that need approval are named {name!r}, one of {agent.name}. Nobody could tell which of them was "
                    "approved: give one another name, @tool(name=...)."
                )
    return found


def _agents(agents: Any) -> list[Agent]:
    found = list(agents) if isinstance(agents, Iterable) and not isinstance(agents, str | bytes) else [agents]
    if not isinstance(agents, Iterable) or not all(isinstance(item, Agent) for item in found):
        wrong = next((type(item).__name__ for item in found if not isinstance(item, Agent)), "lone Agent")
        raise ConfigurationError(f"agents= takes a list of Agents, not a {wrong}.")
    return found


def _is_in_loop() -> bool:
    """Whether an event loop runs in this thread, of asyncio or of trio."""
    try:
        anyio.get_cancelled_exc_class()
    except (RuntimeError, LookupError):
        return _is_in_asyncio()
    return True


def _is_in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
