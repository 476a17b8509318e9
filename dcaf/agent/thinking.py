"""A language model that calls tools until it answers.

What a reader gets wrong: pydantic-ai asks the models, and does not call the tools. All calls of one message run through one turn
of ``dcaf.tools``, which gives them their session.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.tools import ToolDefinition
from pydantic_core import to_jsonable_python

from dcaf.agent.config import RunConfig, StreamingMode
from dcaf.agent.draft import BETWEEN, Draft, Tools
from dcaf.agent.functions import Filled
from dcaf.agent.helpdesk import LONGEST_ID, Event, ExecutedToolCall, ExecutedToolCalls, IntermittentUpdate, TextDelta
from dcaf.agent.history import history
from dcaf.agent.pending import MOST_PENDING, waits
from dcaf.core.errors import MalformedRequest, ModelFailedError, ModelLimitError, StateError, ToolArgumentError, ToolError
from dcaf.core.session import Session
from dcaf.tools.results import Call, told_of
from dcaf.tools.tool import Tool
from dcaf.tools.turn import Turn

NOTHING_ASKED: Final = "there is nothing in them that a model could answer"


class ModelMind:
    """A language model with tools.

    Args:
        model: The model.
        tools: What it may call.
        instructions: What it is told first, anew at each call of it; None for nothing.
        config: Limits, and whether it streams.
    """

    def __init__(self, model: Model, tools: Tools, instructions: Filled | str | None, config: RunConfig) -> None:
        self._model = model
        self._tools = tools
        self._instructions = instructions
        self._config = config
        self._streams = config.streaming_mode is not StreamingMode.NONE and _can_stream(model)

    async def answer(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """As of a mind."""
        talk = history(draft.messages, draft.waiting())
        if not _asks(talk):
            raise MalformedRequest([("messages", NOTHING_ASKED)])
        turn = draft.turn()
        for _ in range(self._config.max_model_calls):
            async with aclosing(self._asked(talk, draft)) as deltas:
                async for delta in deltas:
                    yield delta
            said = talk[-1]
            if not isinstance(said, ModelResponse) or not said.tool_calls:
                return
            async with aclosing(self._worked(said, turn, draft)) as events:
                async for event in events:
                    yield event
            if draft.pending:
                return
            talk.append(ModelRequest(_returned(draft.executed[-len(said.tool_calls) :])))
        raise ModelLimitError(f"The model was called {self._config.max_model_calls} times without an answer (max_model_calls).")

    async def _asked(self, talk: list[ModelMessage], draft: Draft) -> AsyncGenerator[TextDelta, None]:
        """Ask the model to go on, give its text as it comes, and add what it said to the talk."""
        before = BETWEEN if draft.text else ""
        instructed = [*talk[:-1], await self._instructed(talk[-1], draft)]
        told: list[str] = []
        try:
            async with aclosing(self._pieces(instructed, talk)) as pieces:
                async for piece in pieces:
                    told.append(piece if told else before + piece)
                    yield TextDelta(text=told[-1])
        except Exception as error:
            raise ModelFailedError(f"The model failed with {type(error).__name__}.") from error
        finally:
            draft.text += "".join(told)  # once: a long answer comes in many thousand pieces
        said = talk[-1]
        assert isinstance(said, ModelResponse)
        talk[-1] = _with_own_ids(said, talk[:-1], draft.session)
        draft.usage += said.usage
        draft.usage.requests += 1

    async def _pieces(self, talk: list[ModelMessage], into: list[ModelMessage]) -> AsyncGenerator[str, None]:
        parameters = ModelRequestParameters(function_tools=[_definition(tool) for tool in self._tools.values()])
        settings = self._config.model_settings
        if not self._streams:
            said = await model_request(self._model, talk, model_settings=settings, model_request_parameters=parameters)
            for part in said.parts:
                if isinstance(part, TextPart) and part.content:
                    yield part.content
        else:
            asking = model_request_stream(self._model, talk, model_settings=settings, model_request_parameters=parameters)
            async with asking as events:
                async for text in _texts(events):
                    yield text
            said = events.get()
        into.append(said)

    async def _instructed(self, message: ModelMessage, draft: Draft) -> ModelMessage:
        found = self._instructions
        text = await found(draft.session) if isinstance(found, Filled) else found
        return replace(message, instructions=text) if isinstance(message, ModelRequest) and text else message

    async def _worked(self, said: ModelResponse, turn: Turn, draft: Draft) -> AsyncGenerator[Event, None]:
        """Run the calls of a message, together; those that need a person wait."""
        asked = [self._taken(part, draft, said.text) for part in said.tool_calls]
        calls = [found for found in asked if isinstance(found, Call)]
        for call in calls:
            yield IntermittentUpdate(text=f"Calling tool: {call.tool.name}", content={"id": call.id, "name": call.tool.name})
        results = iter(await turn.run_all(calls))
        draft.usage.tool_calls += len(calls)
        outputs = [next(results).text if isinstance(found, Call) else found for found in asked]
        ran = [_executed(part, output) for part, output in zip(said.tool_calls, outputs, strict=True) if output is not None]
        draft.executed += ran
        if ran:
            yield ExecutedToolCalls(executed_tool_calls=ran)
        for event in draft.tell_waiting():
            yield event

    def _taken(self, part: ToolCallPart, draft: Draft, intent: str | None) -> Call | str | None:
        """The call that a model asks for; a text where it cannot be made, and None where it now waits for a person."""
        try:
            tool, arguments = self._read(part)
            if not tool.requires_approval:
                return Call(tool, arguments, id=part.tool_call_id)
            if len(draft.pending) >= MOST_PENDING:
                raise ToolError(f"{MOST_PENDING} calls wait for approval already. Ask for fewer at once.")
            draft.propose(tool, part.tool_call_id, tool.complete(arguments), intent or None)
        except StateError as error:
            return told_of(part.tool_name, error)
        return None

    def _read(self, part: ToolCallPart) -> tuple[Tool[..., Any], dict[str, Any]]:
        tool = self._tools.get(part.tool_name)
        if tool is None:
            raise ToolError(f"There is no tool named {part.tool_name!r}. The tools are: {', '.join(self._tools)}.")
        try:
            return tool, part.args_as_dict(raise_if_invalid=True)
        except (ValueError, AssertionError):
            raise ToolArgumentError("arguments: not an object", [("arguments", "Input should be a JSON object")]) from None


async def _texts(events: AsyncIterable[Any]) -> AsyncGenerator[str, None]:
    async for event in events:
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart) and event.part.content:
            yield event.part.content
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta) and event.delta.content_delta:
            yield event.delta.content_delta


def _asks(talk: list[ModelMessage]) -> bool:
    """Whether it is the model's turn to speak."""
    return bool(talk) and isinstance(talk[-1], ModelRequest)


def _can_stream(model: Model) -> bool:
    """Whether a model can be asked for its answer piece by piece."""
    if isinstance(model, FunctionModel):
        return model.stream_function is not None
    return type(model).request_stream is not Model.request_stream


def _with_own_ids(said: ModelResponse, talk: list[ModelMessage], session: Session) -> ModelResponse:
    """A message in which no call has the id of another one, nor one that cannot be sent: some models number anew each time."""
    taken = {part.tool_call_id for message in talk for part in message.parts if isinstance(part, ToolCallPart)}
    parts = list(said.parts)
    for at, part in enumerate(parts):
        if isinstance(part, ToolCallPart):
            id_ = part.tool_call_id
            is_free = 0 < len(id_) <= LONGEST_ID and id_ not in taken and not waits(session, id_)
            parts[at] = part if is_free else replace(part, tool_call_id=uuid.uuid4().hex)
            taken.add(id_)
    return replace(said, parts=parts)


def _definition(tool: Tool[..., Any]) -> ToolDefinition:
    return ToolDefinition(name=tool.name, description=tool.description or None, parameters_json_schema=tool.input_schema)


def _executed(part: ToolCallPart, output: str) -> ExecutedToolCall:
    shown = to_jsonable_python(part.args_as_dict(), serialize_unknown=True)
    return ExecutedToolCall(id=part.tool_call_id, name=part.tool_name, input=shown, output=output)


def _returned(ran: list[ExecutedToolCall]) -> list[ToolReturnPart]:
    return [ToolReturnPart(call.name, call.output, call.id) for call in ran]
