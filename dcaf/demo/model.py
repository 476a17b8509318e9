"""A stand-in for a language model: a few rules that choose a tool for what the user says, and repeat what the tool answers.

>>> choose("service api")
('set_service', {'name': 'api'})
>>> choose("hello") is None
True

It is a model of pydantic-ai like any other, and really calls the tools. A real one chooses them by itself; nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import anyio

from dcaf.core.importing import extra

with extra("The demo", "dcaf[demo]"):
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
    from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

RULES: Final = (
    (r"start", "start_deploy"),
    (r"service (?P<name>\S+)", "set_service"),
    (r"(?P<count>\d+) replicas?", "set_replicas"),
    (r"execute", "execute_deploy"),
    (r"add (?P<quantity>\d+) (?P<name>\w+)", "add_item"),
    (r"one more (?P<name>\w+)", "one_more"),
    (r"forget me", "forget_me"),
)
"""What the user says -> the tool; the named groups are its arguments."""

HELP: Final = "Say: start, service NAME, N replicas, execute, add N THING, one more THING, forget me."
SURE: Final = "This deploys. Are you sure?"


def make_model(pace: timedelta = timedelta(0)) -> FunctionModel:
    """The model; it waits ``pace`` before each word of a stream."""

    async def in_pieces(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        async for piece in answer_in_pieces(messages, info):
            await anyio.sleep(pace.total_seconds())
            yield piece

    return FunctionModel(answer, stream_function=in_pieces, model_name="scripted")


def choose(text: str) -> tuple[str, dict[str, Any]] | None:
    """The tool for a message, with its arguments as text; None where no rule fits."""
    for pattern, tool in RULES:
        found = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
        if found:
            return tool, found.groupdict()
    return None


def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """What the model says next: it calls a tool, or repeats what the last one answered."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse([TextPart(str(last.content))])
    chosen = choose(str(last.content)) if isinstance(last, UserPromptPart) else None
    if chosen is None:
        return ModelResponse([TextPart(HELP)])
    said = [TextPart(SURE)] if chosen[0] == "execute_deploy" else []
    return ModelResponse([*said, ToolCallPart(*chosen)])


async def answer_in_pieces(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """The same, word by word."""
    for index, part in enumerate(answer(messages, info).parts):
        if isinstance(part, TextPart):
            for word in re.findall(r"\S+\s*", part.content):
                yield word
        elif isinstance(part, ToolCallPart):
            yield {index: DeltaToolCall(part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id)}
