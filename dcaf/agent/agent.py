"""An agent: a model with tools, or a function, that answers a conversation and keeps a session.

>>> def greeter(messages, context, session: Session) -> str:
...     return f"Hello number {session.incr('greeted')}."
>>> response = Agent(greeter).run("hi", session={"greeted": 1})
>>> response.text, response.session
('Hello number 2.', {'greeted': 2})

What a reader gets wrong: an agent remembers nothing. What it should know of the conversation is in the messages and the session
that it is given, each time. And an Agent of another framework is no model: its model is one, or a function may call that agent.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias, TypeVar

from dcaf.core.importing import extra

with extra("dcaf.agent", "dcaf[agent]"):  # before any other module of this package, each of which needs one of them
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import Model, infer_model

from dcaf.agent.config import RunConfig, describe_kind, require
from dcaf.agent.function_agent import FunctionBackend, InjectedFunction
from dcaf.agent.helpdesk import Event
from dcaf.agent.history import Messages, check_context, choose_session, continue_from, read_messages
from dcaf.agent.interceptors import RequestInterceptor, ResponseInterceptor, list_interceptors
from dcaf.agent.kept_conversation import SERVER, HistoryMode, require_history
from dcaf.agent.model_loop import ModelBackend
from dcaf.agent.response import AgentResponse
from dcaf.agent.run_state import AgentBackend, Clock, Tools
from dcaf.agent.runner import AgentSetup, Run
from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.event_loop import wait_for
from dcaf.tools.tool import Tool, tool

TOOLS: Final = "a list of tools or functions"
INSTRUCTIONS: Final = "a text, a function of the session, or None"
IN_LOOP: Final = "agent.run() was called inside a running event loop. Write `await agent.run_async(...)`, or chat_async."

One = TypeVar("One")
OneOrMore: TypeAlias = "One | Sequence[One] | None"


class Agent:
    """Answers conversations.

    Args:
        model: A model of pydantic-ai, the name of one (``"anthropic:claude-sonnet-5-5"``), or a function
            ``(messages, context[, session]) -> AgentResult``.
        tools: What the model may call: tools, or functions, which are made tools.
        instructions: What each question to the model begins with: a text, or a function of the session; None for nothing.
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
        require("name=", name, str, "a text")
        require("config=", config, RunConfig | None, "a RunConfig, as RunConfig(max_model_calls=8)")
        require("clock=", clock, Callable, "a function that gives seconds since the epoch")
        self.name: str = name
        self.config: RunConfig = config or RunConfig()
        self.tools: Tools = collect_tools(tools)
        self._setup = AgentSetup(
            _build_backend(model, self.tools, instructions, self.config),
            _collect_decidable(self.tools, agents),
            self.config,
            list_interceptors("request_interceptors", request_interceptors),
            list_interceptors("response_interceptors", response_interceptors),
            clock,
            name,
        )

    def run(
        self,
        messages: Messages,
        *,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        history: HistoryMode = "client",
    ) -> AgentResponse:
        """Answer as ``run_async`` does, in a program without an event loop.

        Raises:
            ConfigurationError: An event loop is running here.
            DcafError: Whatever ``run_async`` raises.
        """
        run = functools.partial(self.run_async, messages, session=session, context=context, history=history)
        return wait_for(run, limit_s=self.config.timeout_s, in_loop=IN_LOOP)

    def chat(
        self,
        text: str = "",
        *,
        after: AgentResponse | None = None,
        decisions: Mapping[str, bool | str] | None = None,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> AgentResponse:
        """Say one thing, and go on from an answer, in a program without an event loop.

        Args:
            text: What the user says.
            after: The answer before, whose messages and session this goes on from; None begins.
            decisions: Id of a call that waits -> True to run it, or the reason why not.
            session: None takes a copy of that of ``after``, from which one may go on in several ways.
            context: The same as in ``run_async``.

        Raises:
            ConfigurationError: There are decisions, and no answer that they are about.
            DcafError: Whatever ``run_async`` raises.
        """
        messages, going_on = continue_from(text, after, decisions, session)
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
        """Say one thing as ``chat`` does, where an event loop is running."""
        messages, going_on = continue_from(text, after, decisions, session)
        return await self.run_async(messages, session=going_on, context=context)

    async def run_async(
        self,
        messages: Messages,
        *,
        session: Session | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        history: HistoryMode = "client",
    ) -> AgentResponse:
        """Answer a conversation.

        Args:
            messages: The conversation, oldest first, or what the user says.
            session: A Session is written when the turn has ended well, and left as it was when it fails. A dict is not changed.
                None takes the session of the turn that is running, below the middleware or in a tool; else an empty one.
            context: Whatever interceptors, an agent function and tools may need: ``platform_context`` goes to the tools that ask
                for it.
            history: ``"server"`` where a store keeps the conversation of the session: the messages are what the user says now, and
                what is said in the turn is added to it when the turn has ended well. ``"client"`` adds nothing.

        Raises:
            MalformedRequest: The messages are no conversation, or there is nothing to answer. With ``history="server"``: one is not
                the user's, or has results of tools.
            ConfigurationError: ``history="server"``, and no store keeps the conversation of the session.
            AgentError: The turn could not be finished. The session is as it was.
        """
        async with aclosing(self._run(messages, session, context, history).events()) as events:
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
        history: HistoryMode = "client",
    ) -> AsyncGenerator[Event | AgentResponse, None]:
        """Answer a conversation, and yield what happens as it happens; the last event is the AgentResponse.

        To stop early, close it with ``contextlib.aclosing``; the session is then as it was. Arguments and errors are those of
        ``run_async``.
        """
        async with aclosing(self._run(messages, session, context, history).events()) as events:
            async for event in events:
                yield event

    def _run(
        self,
        messages: Messages,
        session: Session | Mapping[str, Any] | None,
        context: Mapping[str, Any] | None,
        history: HistoryMode,
    ) -> Run:
        is_kept = require_history(history) == SERVER
        return Run(self._setup, read_messages(messages), choose_session(session), check_context(context), is_kept)

    def __repr__(self) -> str:
        return f"<Agent {self.name}: {len(self.tools)} tools>"


def resolve_model(model: Any) -> Model | Callable[..., Any]:
    """The model that was meant, or the agent function.

    Raises:
        ConfigurationError: It is neither, or the model cannot be used.
    """
    if isinstance(model, str):
        return _infer_model(model)
    if isinstance(model, Model):
        return model
    if isinstance(model, type | Tool) or not callable(model) or _is_foreign_agent(model):
        raise ConfigurationError(_explain_no_model(model))
    function: Callable[..., Any] = model
    return function


def check_instructions(instructions: Any) -> Any:
    """The instructions that were given.

    Raises:
        ConfigurationError: It is no text, no function and not None.
    """
    if isinstance(instructions, type) or not (instructions is None or isinstance(instructions, str) or callable(instructions)):
        raise ConfigurationError(f"instructions= takes {INSTRUCTIONS}, not {describe_kind(instructions)}.")
    return instructions


def collect_tools(tools: Any) -> Tools:
    """Name -> tool; functions are made tools.

    >>> collect_tools([lambda: "now"])
    Traceback (most recent call last):
        ...
    dcaf.core.errors.ConfigurationError: A lambda has no name of its own: write tool(name=...).

    Raises:
        ConfigurationError: It is no list, two tools have one name, or something in it cannot be called.
    """
    found: dict[str, Tool[..., Any]] = {}
    for item in _check_tool_list(tools):
        made = _make_tool(item)
        if made.name in found:
            raise ConfigurationError(f"Two tools are named {made.name!r}. Give one another name: @tool(name=...).")
        found[made.name] = made
    return found


def _build_backend(
    model: Model | str | Callable[..., Any],
    tools: Tools,
    instructions: str | Callable[..., Any] | None,
    config: RunConfig,
) -> AgentBackend:
    answers, first = resolve_model(model), check_instructions(instructions)
    if isinstance(answers, Model):
        return ModelBackend(answers, tools, InjectedFunction(first, "instructions=", ()) if callable(first) else first, config)
    if first is not None:
        raise ConfigurationError("instructions= are for a model. An agent function has its own.")
    return FunctionBackend(answers, tools)


def _collect_decidable(tools: Tools, agents: Iterable[Agent]) -> Tools:
    """The tools whose calls a person can decide about in the answers of an agent: its own, and those of the agents that it asks."""
    found = {name: item for name, item in tools.items() if item.requires_approval}
    inner = ((agent, name, item) for agent in _list_agents(agents) for name, item in agent._setup.tools.items())
    for agent, name, item in inner:
        if found.setdefault(name, item) != item:
            raise ConfigurationError(
                f"Two tools that need approval are named {name!r}, one of {agent.name}. Nobody could tell which of them was "
                "approved: give one another name, @tool(name=...)."
            )
    return found


def _list_agents(agents: Any) -> list[Agent]:
    found = list(agents) if isinstance(agents, Iterable) and not isinstance(agents, str | bytes) else [agents]
    if not isinstance(agents, Iterable) or not all(isinstance(item, Agent) for item in found):
        wrong = next((type(item).__name__ for item in found if not isinstance(item, Agent)), "lone Agent")
        raise ConfigurationError(f"agents= takes a list of Agents, not a {wrong}.")
    return found


def _infer_model(name: str) -> Model:
    try:
        return infer_model(name)
    except (UserError, ValueError, ImportError) as error:
        raise ConfigurationError(f"The model cannot be used: {error}") from error


def _is_foreign_agent(model: Any) -> bool:
    """Whether something that can be called is an agent of another framework: those take a text, and no messages."""
    kind = type(model)
    if kind.__name__ != "Agent":
        return False
    try:
        return "messages" not in inspect.signature(model).parameters
    except (TypeError, ValueError):
        return True


def _explain_no_model(model: Any) -> str:
    """Why something is no model and no agent function, and what to write."""
    kind = type(model)
    package = kind.__module__.partition(".")[0]
    if package == "dcaf" and kind.__name__ == "Agent":
        return "This is an Agent already: use it as it is."
    if isinstance(model, Tool):
        return f"{model.name} is a tool. A model comes first: Agent(model, tools=[{model.name}])."
    if kind.__name__.endswith("Agent"):
        return (
            f"This {kind.__name__} is one of {package}, and none of dcaf. Pass the model that it asks, Agent(model, tools=[...]), "
            "or call it in an agent function: def answer(messages, context): ..."
        )
    advice = f" Make one: {model.__name__}(...)." if isinstance(model, type) and issubclass(model, Model) else ""
    described = describe_kind(model)
    return f"{described[0].upper()}{described[1:]} is neither an Agent, a model, the name of one, nor an agent function.{advice}"


def _check_tool_list(tools: Any) -> Iterable[Any]:
    if isinstance(tools, Tool) or inspect.isroutine(tools):
        name = getattr(tools, "name", getattr(tools, "__name__", "it"))
        raise ConfigurationError(f"tools= takes {TOOLS}. This is one: write tools=[{name}].")
    if isinstance(tools, str | bytes | Mapping | type) or not isinstance(tools, Iterable):
        raise ConfigurationError(f"tools= takes {TOOLS}, not {describe_kind(tools)}.")
    return tools


def _make_tool(item: Any) -> Tool[..., Any]:
    if not isinstance(item, Tool) and not callable(item):
        raise ConfigurationError(f"tools= takes {TOOLS}, and there is {describe_kind(item)} among them.")
    made = item if isinstance(item, Tool) else tool(item)
    if made._target.waits:
        name = getattr(made._target.function, "__qualname__", made.name)
        raise ConfigurationError(
            f"{name} is a method, and there is no object to call it on: pass that of one, as tools=[thing.{made.name}]."
        )
    return made
