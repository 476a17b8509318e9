"""A language model that calls tools until it answers; each question to it, and its text as it comes.

One question to a model: its text as it comes, and then what it has said.

What a reader gets wrong: whether a model can stream is known when it was asked to. One that cannot, wherever it stands behind
others, is asked for its whole answer; and one that can only stream is asked for a stream.

A language model that calls tools until it answers.

What a reader gets wrong: pydantic-ai asks the models, and does not call the tools. All calls of one message run through one turn
of ``dcaf.tools``, which gives them their session.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import ContentFilterError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_core import to_jsonable_python

from dcaf.agent.backends import cannot, describe, refusal_of, renew_client, settings_for, stop_reason
from dcaf.agent.config import RunConfig, StreamingMode
from dcaf.agent.function_agent import Filled
from dcaf.agent.history import history
from dcaf.agent.models import LONGEST_ID, Event, ExecutedToolCall, ExecutedToolCalls, IntermittentUpdate, TextDelta
from dcaf.agent.run_state import Draft, Tools
from dcaf.core.errors import (
    ExitError,
    MalformedRequest,
    ModelFailedError,
    ModelLimitError,
    StateError,
    ToolArgumentError,
    ToolError,
)
from dcaf.core.session import Session
from dcaf.tools.proposals import MOST_PENDING, is_waiting
from dcaf.tools.results import Call, format_error
from dcaf.tools.runner import ToolRunner
from dcaf.tools.threads import contained
from dcaf.tools.tool import Tool

BETWEEN: Final = "\n\n"
"""Stands between two texts of an answer that something stood between: a call of a tool, thinking, a search of the provider's."""

Pieces: TypeAlias = AsyncGenerator[Any, None]
"""Text as it comes; the last one is the whole, a ModelResponse."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        model: The model.
        talk: The conversation so far.
        settings: Temperature and the like.
        parameters: The tools.
        streams: Whether the text comes as the model writes it; else in one piece.
    """

    model: Model
    talk: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters
    streams: bool

    async def pieces(self) -> Pieces:
        """Ask. That an answer was filtered is an answer too.

        Raises:
            ExitError: The model ended with something that is no Exception.
            Exception: Whatever else it raises.
        """
        try:
            async with aclosing(self._either()) as pieces:
                async for piece in pieces:
                    yield piece
        except ContentFilterError:
            yield ModelResponse([], finish_reason="content_filter")

    async def _either(self) -> Pieces:
        """Ask in one way, and in the other where the model cannot answer in this one."""
        first, second = (self._streamed, self._whole) if self.streams else (self._whole, self._joined)
        has_begun = False
        try:
            async with aclosing(first()) as pieces:
                async for piece in pieces:
                    has_begun = True
                    yield piece
        except Exception as error:
            if has_begun or not cannot(error):
                raise
        else:
            return
        async with aclosing(second()) as pieces:
            async for piece in pieces:
                yield piece

    async def _whole(self) -> Pieces:
        with contained():
            said = await model_request(
                self.model, self.talk, model_settings=self.settings, model_request_parameters=self.parameters
            )
        texts = _Texts()
        text = "".join(texts.more(PartStartEvent(index=at, part=part)) for at, part in enumerate(said.parts))
        for piece in (text, texts.refusal(said)):
            if piece:
                yield piece
        yield said

    async def _streamed(self) -> Pieces:
        texts = _Texts()
        asking = model_request_stream(self.model, self.talk, model_settings=self.settings, model_request_parameters=self.parameters)
        with contained():
            async with asking as events:
                async for event in events:
                    piece = texts.more(event)
                    if piece:
                        yield piece
            said = events.get()
        refusal = texts.refusal(said)
        if refusal:
            yield refusal
        yield said

    async def _joined(self) -> Pieces:
        """As ``_streamed``, with the text in one piece."""
        texts: list[str] = []
        async with aclosing(self._streamed()) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    texts.append(piece)
                else:
                    if texts:
                        yield "".join(texts)
                    yield piece


@dataclass(slots=True)
class _Texts:
    """The text of one answer while its parts come in."""

    last: int | None = None
    is_apart: bool = False

    def more(self, event: ModelResponseStreamEvent) -> str:
        """What an event adds to the text."""
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                return self._added(event.index, text) if text else ""
            case PartStartEvent():
                self.is_apart = self.last is not None
        return ""

    def refusal(self, said: ModelResponse) -> str:
        """What a model says that has refused and said nothing else."""
        return refusal_of(said) or "" if self.last is None else ""

    def _added(self, index: int, text: str) -> str:
        before = BETWEEN if self.is_apart and index != self.last else ""
        self.last, self.is_apart = index, False
        return before + text


logger: Final[logging.Logger] = logging.getLogger("dcaf")

CUT_OFF: Final = (
    "Your answer reached its length limit before this call was whole, so that it was not run. Call again with shorter arguments, "
    "or in several calls."
)
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

    async def answer(self, draft: Draft) -> AsyncGenerator[Event, None]:
        """As of a mind."""
        talk = await history(draft.messages, draft.waiting())
        if not _asks(talk):
            raise MalformedRequest([("messages", NOTHING_ASKED)])
        renew_client(self._model)
        runner = draft.runner()
        for _ in range(self._config.max_model_calls):
            async with aclosing(self._asked(talk, draft)) as deltas:
                async for delta in deltas:
                    yield delta
            said = talk[-1]
            if not isinstance(said, ModelResponse) or not _goes_on(said, draft):
                return
            async with aclosing(self._worked(said, runner, draft)) as events:
                async for event in events:
                    yield event
            if draft.pending:
                return
            talk.append(ModelRequest(_returned(draft.executed[-len(said.tool_calls) :])))
        raise ModelLimitError(f"The model was called {self._config.max_model_calls} times without an answer (max_model_calls).")

    async def _asked(self, talk: list[ModelMessage], draft: Draft) -> AsyncGenerator[TextDelta, None]:
        """Ask the model to go on, give its text as it comes, and add what it said to the talk."""
        before = BETWEEN if draft.text else ""
        question = self._question([*talk[:-1], await self._instructed(talk[-1], draft)])
        told: list[str] = []
        try:
            async with aclosing(question.pieces()) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ModelResponse):
                        talk.append(_with_own_ids(piece, talk, draft.session))
                        draft.usage += piece.usage
                    else:
                        told.append(piece if told else before + piece)
                        yield TextDelta(text=told[-1])
        except Exception as error:
            logger.warning("dcaf: the model failed: %s", describe(error))
            kind = error.kind if isinstance(error, ExitError) else type(error).__name__
            raise ModelFailedError(f"The model failed with {kind}.") from error
        finally:
            draft.text += "".join(told)  # once: a long answer comes in many thousand pieces
        draft.usage.requests += 1

    def _question(self, talk: list[ModelMessage]) -> Question:
        parameters = ModelRequestParameters(function_tools=[_definition(tool) for tool in self._tools.values()])
        settings = settings_for(self._model, self._config.model_settings, talk)
        streams = self._config.streaming_mode is not StreamingMode.NONE
        return Question(self._model, talk, settings, parameters, streams)

    async def _instructed(self, message: ModelMessage, draft: Draft) -> ModelMessage:
        found = self._instructions
        text = await found(draft.session) if isinstance(found, Filled) else found
        return replace(message, instructions=text) if isinstance(message, ModelRequest) and text else message

    async def _worked(self, said: ModelResponse, runner: ToolRunner, draft: Draft) -> AsyncGenerator[Event, None]:
        """Run the calls of a message, together; those that need a person wait."""
        asked = [self._taken(part, said, draft) for part in said.tool_calls]
        calls = [found for found in asked if isinstance(found, Call)]
        for call in calls:
            yield IntermittentUpdate(text=f"Calling tool: {call.tool.name}", content={"id": call.id, "name": call.tool.name})
        results = iter(await runner.run_all(calls))
        draft.usage.tool_calls += len(calls)
        outputs = [next(results).text if isinstance(found, Call) else found for found in asked]
        ran = [_executed(part, output) for part, output in zip(said.tool_calls, outputs, strict=True) if output is not None]
        draft.executed += ran
        if ran:
            yield ExecutedToolCalls(executed_tool_calls=ran)
        for event in draft.tell_waiting():
            yield event

    def _taken(self, part: ToolCallPart, said: ModelResponse, draft: Draft) -> Call | str | None:
        """The call that a model asks for; a text where it cannot be made, and None where it now waits for a person."""
        try:
            if _is_cut_off(part, said):
                raise ToolError(CUT_OFF)
            tool, arguments = self._read(part)
            if not tool.requires_approval:
                return Call(tool, arguments, id=part.tool_call_id)
            if len(draft.pending) >= MOST_PENDING:
                raise ToolError(f"{MOST_PENDING} calls wait for approval already. Ask for fewer at once.")
            draft.propose(tool, part.tool_call_id, tool.complete(arguments), said.text or None)
        except StateError as error:
            return format_error(part.tool_name, error)
        return None

    def _read(self, part: ToolCallPart) -> tuple[Tool[..., Any], dict[str, Any]]:
        tool = self._tools.get(part.tool_name)
        if tool is None:
            raise ToolError(f"There is no tool named {part.tool_name!r}. The tools are: {', '.join(self._tools)}.")
        try:
            return tool, part.args_as_dict(raise_if_invalid=True)
        except (ValueError, AssertionError):
            raise ToolArgumentError("arguments: not an object", [("arguments", "Input should be a JSON object")]) from None


def _asks(talk: list[ModelMessage]) -> bool:
    """Whether it is the model's turn to speak."""
    return bool(talk) and isinstance(talk[-1], ModelRequest)


def _goes_on(said: ModelResponse, draft: Draft) -> bool:
    """Whether calls of tools are to be made; where not, the draft is told how the answer ended.

    An answer that was cut off at its length has whole calls before the last one. Of one that was filtered, refused or broken off
    nothing is done.
    """
    reason = stop_reason(said)
    if said.tool_calls and reason in {"end_turn", "max_tokens"}:
        return True
    draft.stop_reason = "end_turn" if reason == "empty" and draft.text.strip() else reason
    if draft.stop_reason != "end_turn":
        logger.warning("dcaf: the model's answer ended early: %s", draft.stop_reason)
    return False


def _is_cut_off(part: ToolCallPart, said: ModelResponse) -> bool:
    """Whether an answer ended within a call: its arguments may be half of what was meant, and be read without an error."""
    return part is said.parts[-1] and stop_reason(said) == "max_tokens"


def _with_own_ids(said: ModelResponse, talk: list[ModelMessage], session: Session) -> ModelResponse:
    """A message in which no call has the id of another one, nor one that cannot be sent: some models number anew each time."""
    taken = {part.tool_call_id for message in talk for part in message.parts if isinstance(part, ToolCallPart)}
    parts = list(said.parts)
    for at, part in enumerate(parts):
        if isinstance(part, ToolCallPart):
            id_ = part.tool_call_id
            is_free = 0 < len(id_) <= LONGEST_ID and id_ not in taken and not is_waiting(session, id_)
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
