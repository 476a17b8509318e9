"""Four agent frameworks, each given the shapes of the signature matrix with its own context class in the place of the session.

Registration and call are the framework's own. No network is needed: a model that always calls the tool stands in for a real one.
This module is imported in an environment of its own, by tests/peers/signature_table.py.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar

Function = Callable[..., Any]


class Framework(ABC):
    """One framework.

    Attributes:
        package: What pip calls it.
        home: The module of its context class.
        context: The class.
        given: What an instance of the class may really be called.
        by_name: What its documentation calls the parameter.
        comes_first: Whether its documentation says that the parameter is the first.
    """

    package: ClassVar[str]
    home: ClassVar[str]
    context: ClassVar[str]
    given: ClassVar[tuple[str, ...]]
    by_name: ClassVar[str] = "ctx"
    comes_first: ClassVar[bool] = False

    @abstractmethod
    def registered(self, function: Function, name: str | None) -> Any:
        """The framework's own tool; what it raises is an error at registration."""

    @abstractmethod
    async def seen(self, tool: Any) -> dict[str, Any]:
        """The properties that the model sees."""

    @abstractmethod
    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        """What the model gets back."""


class PydanticAI(Framework):
    package = "pydantic-ai-slim"
    home, context, given = "pydantic_ai", "RunContext", ("RunContext",)
    comes_first = True

    def registered(self, function: Function, name: str | None) -> Any:
        from pydantic_ai import Agent, Tool

        tool = Tool(function, name=name)
        Agent("test", tools=[tool])
        return tool

    async def seen(self, tool: Any) -> dict[str, Any]:
        return dict(tool.function_schema.json_schema.get("properties", {}))

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        from pydantic_ai import Agent
        from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
        from pydantic_ai.models.function import FunctionModel

        found: list[Any] = []

        def answer(messages: Any, _: Any) -> ModelResponse:
            found.extend(part.content for part in messages[-1].parts if isinstance(part, ToolReturnPart))
            if len(messages) > 1:
                return ModelResponse(parts=[TextPart("done")])
            return ModelResponse(parts=[ToolCallPart(tool.name, arguments)])

        await Agent(FunctionModel(answer), tools=[tool], retries=0).run("go")
        return found[0]


class OpenAIAgents(Framework):
    package = "openai-agents"
    home, context, given = "agents", "RunContextWrapper", ("RunContextWrapper", "ToolContext")
    comes_first = True

    def registered(self, function: Function, name: str | None) -> Any:
        from agents import function_tool
        from agents.exceptions import UserError

        try:
            return function_tool(function, name_override=name, failure_error_function=None)
        except UserError:  # what a strict schema cannot say may still be said by one that is not
            return function_tool(function, name_override=name, failure_error_function=None, strict_mode=False)

    async def seen(self, tool: Any) -> dict[str, Any]:
        return dict(tool.params_json_schema.get("properties", {}))

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        from agents.tool_context import ToolContext

        text = json.dumps(arguments)
        return await tool.on_invoke_tool(ToolContext(None, tool_name=tool.name, tool_call_id="c1", tool_arguments=text), text)


class FastMCP(Framework):
    package = "fastmcp"
    home, context, given = "fastmcp", "Context", ("Context",)

    def registered(self, function: Function, name: str | None) -> Any:
        import fastmcp

        server = fastmcp.FastMCP("matrix")
        server.tool(function, name=name)
        return server

    async def seen(self, tool: Any) -> dict[str, Any]:
        import fastmcp

        async with fastmcp.Client(tool) as client:
            (listed,) = await client.list_tools()
            return dict(listed.input_schema["properties"])

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        import fastmcp

        async with fastmcp.Client(tool) as client:
            (listed,) = await client.list_tools()
            found = await client.call_tool(listed.name, arguments)
        if found.data is not None:
            return found.data
        text = found.content[0].text
        return json.loads(text) if text.startswith("[") else text


class GoogleADK(Framework):
    package = "google-adk"
    home, context, given = "google.adk.tools", "ToolContext", ("ToolContext", "Context")
    by_name = "tool_context"

    def registered(self, function: Function, name: str | None) -> Any:
        from google.adk.agents import Agent
        from google.adk.tools import FunctionTool

        tool = FunctionTool(function)
        tool.name = name or tool.name
        tool._get_declaration()  # it is made for each request: what cannot be declared, no agent can use
        Agent(name="matrix", tools=[tool])
        return tool

    async def seen(self, tool: Any) -> dict[str, Any]:
        declared = tool._get_declaration()
        if declared.parameters_json_schema:
            return dict(declared.parameters_json_schema.get("properties", {}))
        return dict(declared.parameters.properties or {}) if declared.parameters else {}

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        from google.adk.agents import Agent
        from google.adk.models import BaseLlm, LlmResponse
        from google.adk.runners import InMemoryRunner
        from google.genai import types

        class Always(BaseLlm):  # type: ignore[misc]
            async def generate_content_async(self, llm_request: Any, *_: Any, **__: Any) -> AsyncGenerator[LlmResponse, None]:
                last = llm_request.contents[-1].parts[0]
                part = types.Part(text="done")
                if last.function_response is None:
                    part = types.Part(function_call=types.FunctionCall(name=tool.name, args=arguments))
                yield LlmResponse(content=types.Content(role="model", parts=[part]))

        agent = Agent(name="matrix", model=Always(model="always"), tools=[tool])
        events = await InMemoryRunner(agent=agent).run_debug("go", quiet=True)
        parts = [part for event in events for part in (event.content.parts if event.content else [])]
        (response,) = [part.function_response.response for part in parts if part.function_response]
        if "error" in response:
            raise RuntimeError(response["error"])
        return response.get("result", response)


class Dcaf(Framework):
    package = "dcaf"
    home, context, given = "dcaf", "Session", ("Session",)
    by_name = "session"

    def registered(self, function: Function, name: str | None) -> Any:
        from dcaf import tool

        return tool(function) if name is None else tool(name=name)(function)

    async def seen(self, tool: Any) -> dict[str, Any]:
        return dict(tool.input_schema["properties"])

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        from dcaf import Session

        return await tool.run(arguments, session=Session())


FRAMEWORKS: tuple[Framework, ...] = (PydanticAI(), OpenAIAgents(), FastMCP(), GoogleADK(), Dcaf())
