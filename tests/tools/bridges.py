"""Agents of other frameworks, each with a tool of dcaf's behind a function written by hand, and a model that makes ten calls.

No network is needed: a script stands in for the model. What dcaf itself does not need is imported where it runs: openai-agents and
LangGraph live in an environment of their own, in which this module is a program.

    python -m tests.tools.bridges openai-agents
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import anyio

from dcaf import ConfigurationError, Session, tool
from dcaf.core.context import running
from dcaf.tools import Call, ToolRunner

CALLS: Final = 10
FAILS: Final = 4
"""Which of the calls raises when it has written."""

_both_have_read: Final = threading.Barrier(2)

Bridge = Callable[[dict[str, Any], Session], Awaitable[Any]]
SyncBridge = Callable[[dict[str, Any], Session], Any]


@tool
async def put(item: int, session: Session) -> str:
    """Put an item into the basket."""
    found = session.get("basket", [])
    await anyio.sleep(0.003)
    session["basket"] = [*found, item]
    if item == FAILS:
        raise LookupError(item)
    return f"put {item}"


async def by_run(arguments: dict[str, Any], session: Session) -> Any:
    """What a person writes."""
    return await put.run(arguments, session=session)


async def by_run_in_a_turn(arguments: dict[str, Any], session: Session) -> Any:
    """The same below the middleware."""
    with running(session):
        return await put.run(arguments)


async def by_function(arguments: dict[str, Any], session: Session) -> Any:
    """The control: the function with the session itself, which is what ``run`` did before."""
    return await put(arguments["item"], session)


def by_run_all_sync(arguments: dict[str, Any], session: Session) -> Any:
    """What a person writes where the framework calls in a thread."""
    (result,) = ToolRunner.of(session).run_all_sync([Call(put, arguments)])
    return result.text


def by_loop_of_its_own(arguments: dict[str, Any], session: Session) -> Any:
    """What others write there."""
    return asyncio.run(put.run(arguments, session=session))


def by_function_in_a_thread(arguments: dict[str, Any], session: Session) -> Any:
    """The control there: two of them read before either writes."""
    found = session.get("basket", [])
    with suppress(threading.BrokenBarrierError):
        _both_have_read.wait(5)
    session["basket"] = [*found, arguments["item"]]
    return "put"


BRIDGES: Final[tuple[Bridge, ...]] = (by_run, by_run_in_a_turn, by_function)
SYNC_BRIDGES: Final[tuple[SyncBridge, ...]] = (by_run_all_sync, by_loop_of_its_own, by_function_in_a_thread)


def told(bridge: Bridge, session: Session) -> Callable[..., Awaitable[str]]:
    """The bridge of one session: what raises is told to the model."""

    async def call(**arguments: Any) -> str:
        try:
            return str(await bridge(arguments, session))
        except LookupError as error:
            return f"failed: {error}"

    return call


def told_sync(bridge: SyncBridge, session: Session) -> Callable[..., str]:
    """The same in a thread."""

    def call(**arguments: Any) -> str:
        try:
            return str(bridge(arguments, session))
        except LookupError as error:
            return f"failed: {error}"

    return call


class PydanticAI:
    """pydantic-ai: tasks for async tools, anyio's threads for others."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from pydantic_ai import Agent, Tool
        from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
        from pydantic_ai.models.function import FunctionModel

        def answer(messages: Any, _: Any) -> ModelResponse:
            if len(messages) > 1:
                return ModelResponse(parts=[TextPart("done")])
            return ModelResponse(parts=[ToolCallPart(put.name, {"item": index}) for index in range(CALLS)])

        made = Tool.from_schema(function, put.name, put.description, put.input_schema)
        self.agent: Any = Agent(FunctionModel(answer), tools=[made])

    async def run(self) -> None:
        await self.agent.run("go")

    def run_sync(self) -> None:
        self.agent.run_sync("go")


class OpenAIAgents:
    """openai-agents: a task for each call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from agents import Agent, FunctionTool, set_tracing_disabled
        from agents.testing import ScriptedModel, assistant_message, function_call

        async def invoke(_: Any, text: str) -> Any:
            arguments = json.loads(text)
            if asyncio.iscoroutinefunction(function):
                return await function(**arguments)
            return await asyncio.to_thread(function, **arguments)

        set_tracing_disabled(True)
        calls = [function_call(put.name, {"item": index}, call_id=f"c{index}") for index in range(CALLS)]
        made = FunctionTool(put.name, put.description, put.input_schema, invoke, strict_json_schema=False)
        self.agent = Agent(name="shop", model=ScriptedModel([calls, [assistant_message("done")]]), tools=[made])

    async def run(self) -> None:
        from agents import Runner

        await Runner.run(self.agent, "go")

    def run_sync(self) -> None:
        from agents import Runner

        Runner.run_sync(self.agent, "go")


class LangGraph:
    """LangChain's agent, which is a graph of LangGraph: tasks, or a pool of threads."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from langchain.agents import create_agent
        from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
        from langchain_core.messages import AIMessage

        class Script(GenericFakeChatModel):  # type: ignore[misc]
            def bind_tools(self, tools: Any, **_: Any) -> Any:
                return self

        calls = [{"name": put.name, "args": {"item": index}, "id": f"c{index}"} for index in range(CALLS)]
        model = Script(messages=iter([AIMessage("", tool_calls=calls), AIMessage("done")]))
        self.graph: Any = create_agent(model, [_structured(function)])

    async def run(self) -> None:
        await self.graph.ainvoke({"messages": [("user", "go")]})

    def run_sync(self) -> None:
        self.graph.invoke({"messages": [("user", "go")]})


class LangGraphNode(LangGraph):
    """LangGraph's own node of tools, which runs all calls of a message."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from langchain_core.messages import AIMessage
        from langgraph.graph import START, MessagesState, StateGraph
        from langgraph.prebuilt import ToolNode

        calls = [{"name": put.name, "args": {"item": index}, "id": f"c{index}"} for index in range(CALLS)]
        graph = StateGraph(MessagesState)
        graph.add_node("model", lambda _: {"messages": [AIMessage("", tool_calls=calls)]})
        graph.add_node("tools", ToolNode([_structured(function)]))
        graph.add_edge(START, "model")
        graph.add_edge("model", "tools")
        self.graph = graph.compile()


def _structured(function: Callable[..., Any]) -> Any:
    from langchain_core.tools import StructuredTool

    given = {"coroutine": function} if asyncio.iscoroutinefunction(function) else {"func": function}
    return StructuredTool(name=put.name, description=put.description, args_schema=put.input_schema, **given)


FRAMEWORKS: Final[dict[str, Any]] = {
    "pydantic-ai": PydanticAI,
    "openai-agents": OpenAIAgents,
    "langchain": LangGraph,
    "langgraph": LangGraphNode,
}


def baskets(name: str) -> dict[str, list[int]]:
    """How it was run, and the bridge -> what is in the session afterwards."""
    found: dict[str, list[int]] = {}
    for bridge in BRIDGES:
        session = Session()
        asyncio.run(FRAMEWORKS[name](told(bridge, session)).run())
        found[f"async, {bridge.__name__}"] = session["basket"]
    for sync_bridge in SYNC_BRIDGES:
        session = Session()
        FRAMEWORKS[name](told_sync(sync_bridge, session)).run_sync()
        found[f"sync, {sync_bridge.__name__}"] = session["basket"]
    return found


def refusals(name: str) -> list[str]:
    """What is said where the framework is given the tool as it is, in each of its ways to take one."""
    return [_refusal(way) for way in _ways(name)]


def _ways(name: str) -> list[Callable[[], Any]]:
    if name == "openai-agents":
        from agents import function_tool

        return [lambda: function_tool(put)]
    if name == "pydantic-ai":
        from pydantic_ai import Agent, Tool

        return [lambda: Agent("test", tools=[put]), lambda: Tool(put)]
    from langchain.agents import create_agent
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.tools import StructuredTool, tool
    from langgraph.prebuilt import ToolNode

    model = GenericFakeChatModel(messages=iter([]))
    made: dict[str, list[Callable[[], Any]]] = {
        "langchain": [lambda: tool(put), lambda: StructuredTool.from_function(put), lambda: create_agent(model, [put])],
        "langgraph": [lambda: ToolNode([put])],
    }
    return made[name]


def _refusal(way: Callable[[], Any]) -> str:
    try:
        way()
    except ConfigurationError as error:
        return str(error)
    return "it was taken"


if __name__ == "__main__":
    print(json.dumps({name: [baskets(name), refusals(name)] for name in sys.argv[1:]}))
