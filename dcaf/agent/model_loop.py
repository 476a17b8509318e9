"""A language model that calls tools until it answers.

``ModelBackend`` is the loop; a ``Question`` is one call of the model, and gives its text as it comes and then what it has said.

What a reader gets wrong: pydantic-ai asks the models, and does not call the tools. All calls of one message run through one
``ToolRunner``, which gives them their session. And whether a model can stream is known only when it was asked to: one that cannot
is asked for its whole answer, and one that can only stream is asked for a stream.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

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

from dcaf.agent.backends import choose_settings, describe_failure, is_unsupported, read_refusal, read_stop_reason, renew_client
from dcaf.agent.config import RunConfig, StreamingMode
from dcaf.agent.function_agent import InjectedFunction
from dcaf.agent.helpdesk import LONGEST_ID, Event, ExecutedToolCall, ExecutedToolCalls, IntermittentUpdate, TextDelta
from dcaf.agent.history import build_history
from dcaf.agent.run_state import BETWEEN, RunState, Tools
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

logger: Final[logging.Logger] = logging.getLogger("dcaf")

CUT_OFF: Final = (
    "Your answer reached its length limit before this call was whole, so that it was not run. Call again with shorter arguments, "
    "or in several calls."
)
NOTHING_ASKED: Final = "there is nothing in them that a model could answer"


class ModelBackend:
    """A language model with tools.

    Args:
        model: The model.
        tools: What it may call.
        instructions: What each question to it begins with; None for nothing.
        config: Limits, and whether it streams.
    """

    def __init__(self, model: Model, tools: Tools, instructions: InjectedFunction | str | None, config: RunConfig) -> None:
        self._model = model
        self._tools = tools
        self._instructions = instructions
        self._config = config

    async def answer(self, state: RunState) -> AsyncGenerator[Event, None]:
        talk = await build_history(state.messages, state.find_waiting())
        _check_asks(talk)
        renew_client(self._model)
        runner = state.make_runner()
        for _ in range(self._config.max_model_calls):
            question = self._build_question([*talk[:-1], await self._add_instructions(talk[-1], state)])
            async with aclosing(_ask(question, state)) as deltas:
                async for delta in deltas:
                    yield delta
            said = _with_own_ids(question.said, talk, state.session)
            if not _goes_on(said, state):
                return
            async with aclosing(self._run_tools(said, runner, state)) as events:
                async for event in events:
                    yield event
            if state.pending:
                return
            talk += [said, ModelRequest(_build_returns(state.executed[-len(said.tool_calls) :]))]
        raise ModelLimitError(f"The model was called {self._config.max_model_calls} times without an answer (max_model_calls).")

    def _build_question(self, talk: list[ModelMessage]) -> Question:
        parameters = ModelRequestParameters(function_tools=[_build_definition(tool) for tool in self._tools.values()])
        settings = choose_settings(self._model, self._config.model_settings, talk)
        streams = self._config.streaming_mode is not StreamingMode.NONE
        return Question(self._model, talk, settings, parameters, streams)

    async def _add_instructions(self, message: ModelMessage, state: RunState) -> ModelMessage:
        found = self._instructions
        text = await found(state.session) if isinstance(found, InjectedFunction) else found
        return replace(message, instructions=text) if isinstance(message, ModelRequest) and text else message

    async def _run_tools(self, said: ModelResponse, runner: ToolRunner, state: RunState) -> AsyncGenerator[Event, None]:
        """Run the calls of a message, together; those that need a person wait."""
        taken = [self._take(part, said, state) for part in said.tool_calls]
        calls = [item for item in taken if isinstance(item, Call)]
        for call in calls:
            yield IntermittentUpdate(text=f"Calling tool: {call.tool.name}", content={"id": call.id, "name": call.tool.name})
        results = iter(await runner.run_all(calls))
        outputs = [next(results).text if isinstance(item, Call) else item for item in taken]
        executed = [_build_executed(part, text) for part, text in zip(said.tool_calls, outputs, strict=True) if text is not None]
        state.add_executed(executed, count=len(calls))
        if executed:
            yield ExecutedToolCalls(executed_tool_calls=executed)
        for event in state.announce_waiting():
            yield event

    def _take(self, part: ToolCallPart, said: ModelResponse, state: RunState) -> Call | str | None:
        """The call that a model asks for; a text where it cannot be made, and None where it now waits for a person."""
        try:
            if _is_cut_off(part, said):
                raise ToolError(CUT_OFF)
            tool, arguments = self._read(part)
            if not tool.requires_approval:
                return Call(tool, arguments, id=part.tool_call_id)
            if len(state.pending) >= MOST_PENDING:
                raise ToolError(f"{MOST_PENDING} calls wait for approval already. Ask for fewer at once.")
            state.propose(tool, part.tool_call_id, tool.complete(arguments), said.text or None)
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


@dataclass(slots=True)
class Question:
    """One call of a model.

    Attributes:
        model: The model.
        talk: The conversation so far.
        settings: Temperature and the like.
        parameters: The tools.
        streams: Whether the text comes as the model writes it; else in one piece.
        said: The whole answer, once all pieces have come.
    """

    model: Model
    talk: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters
    streams: bool
    said: ModelResponse = field(init=False)

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Ask, and yield the text as it comes. An answer that was filtered is an answer too.

        Raises:
            ExitError: The model ended with something that is no Exception.
            Exception: Whatever else it raises.
        """
        try:
            async with aclosing(self._ask_either_way()) as pieces:
                async for piece in pieces:
                    yield piece
        except ContentFilterError:
            self.said = ModelResponse([], finish_reason="content_filter")

    async def _ask_either_way(self) -> AsyncGenerator[str, None]:
        """Ask in one way, and in the other where the model cannot answer in this one."""
        first, second = (self._ask_streaming, self._ask_whole) if self.streams else (self._ask_whole, self._ask_joining)
        has_begun = False
        try:
            async with aclosing(first()) as pieces:
                async for piece in pieces:
                    has_begun = True
                    yield piece
        except Exception as error:
            if has_begun or not is_unsupported(error):
                raise
        else:
            return
        async with aclosing(second()) as pieces:
            async for piece in pieces:
                yield piece

    async def _ask_whole(self) -> AsyncGenerator[str, None]:
        with contained():
            said = await model_request(
                self.model, self.talk, model_settings=self.settings, model_request_parameters=self.parameters
            )
        texts = _AnswerText()
        text = "".join(texts.add(PartStartEvent(index=at, part=part)) for at, part in enumerate(said.parts))
        self.said = said
        for piece in (text, texts.find_refusal(said)):
            if piece:
                yield piece

    async def _ask_streaming(self) -> AsyncGenerator[str, None]:
        texts = _AnswerText()
        asking = model_request_stream(self.model, self.talk, model_settings=self.settings, model_request_parameters=self.parameters)
        with contained():
            async with asking as events:
                async for piece in _Pieces(events, texts):
                    yield piece
            self.said = events.get()
        refusal = texts.find_refusal(self.said)
        if refusal:
            yield refusal

    async def _ask_joining(self) -> AsyncGenerator[str, None]:
        """As ``_ask_streaming``, with the text in one piece."""
        async with aclosing(self._ask_streaming()) as pieces:
            text = "".join([piece async for piece in pieces])
        if text:
            yield text


class _AnswerText:
    """The text of one answer while its parts come in."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._is_apart = False

    def add(self, event: ModelResponseStreamEvent) -> str:
        """What an event adds to the text."""
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                return self._separate(event.index, text) if text else ""
            case PartStartEvent():
                self._is_apart = self._last is not None
        return ""

    def find_refusal(self, said: ModelResponse) -> str:
        """What a model says that has refused and said nothing else."""
        return read_refusal(said) or "" if self._last is None else ""

    def _separate(self, index: int, text: str) -> str:
        before = BETWEEN if self._is_apart and index != self._last else ""
        self._last, self._is_apart = index, False
        return before + text


class _Pieces:
    """The text in a stream of events, without those that add nothing to it. There is nothing to close, unlike in a generator."""

    def __init__(self, events: AsyncIterable[ModelResponseStreamEvent], texts: _AnswerText) -> None:
        self._events = aiter(events)
        self._texts = texts

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> str:
        piece = ""
        while not piece:
            piece = self._texts.add(await anext(self._events))
        return piece


async def _ask(question: Question, state: RunState) -> AsyncGenerator[TextDelta, None]:
    """Ask a model, yield its text as it comes, and note it in the run."""
    before = BETWEEN if state.text else ""
    texts: list[str] = []
    try:
        async with aclosing(question.pieces()) as pieces:
            async for piece in pieces:
                texts.append(piece if texts else before + piece)
                yield TextDelta(text=texts[-1])
    except Exception as error:
        raise _log_failure(error) from error
    finally:
        state.add_text("".join(texts))  # once: a long answer comes in many thousand pieces
    state.count_model_call(question.said.usage)


def _check_asks(talk: list[ModelMessage]) -> None:
    """Refuse a conversation in which it is not the model's turn to speak."""
    if not talk or not isinstance(talk[-1], ModelRequest):
        raise MalformedRequest([("messages", NOTHING_ASKED)])


def _goes_on(said: ModelResponse, state: RunState) -> bool:
    """Whether calls of tools are to be made; where not, the run notes how the answer ended.

    An answer that was cut off at its length has whole calls before the last one. Of one that was filtered, refused or broken off
    nothing is done.
    """
    reason = read_stop_reason(said)
    if said.tool_calls and reason in {"end_turn", "max_tokens"}:
        return True
    state.end_as("end_turn" if reason == "empty" and state.text.strip() else reason)
    if state.stop_reason != "end_turn":
        logger.warning("dcaf: the model's answer ended early: %s", state.stop_reason)
    return False


def _is_cut_off(part: ToolCallPart, said: ModelResponse) -> bool:
    """Whether an answer ended within a call: its arguments may be half of what was meant, and be read without an error."""
    return part is said.parts[-1] and read_stop_reason(said) == "max_tokens"


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


def _log_failure(error: Exception) -> ModelFailedError:
    logger.warning("dcaf: the model failed: %s", describe_failure(error))
    kind = error.kind if isinstance(error, ExitError) else type(error).__name__
    return ModelFailedError(f"The model failed with {kind}.")


def _build_definition(tool: Tool[..., Any]) -> ToolDefinition:
    return ToolDefinition(name=tool.name, description=tool.description or None, parameters_json_schema=tool.input_schema)


def _build_executed(part: ToolCallPart, output: str) -> ExecutedToolCall:
    shown = to_jsonable_python(part.args_as_dict(), serialize_unknown=True)
    return ExecutedToolCall(id=part.tool_call_id, name=part.tool_name, input=shown, output=output)


def _build_returns(executed: list[ExecutedToolCall]) -> list[ToolReturnPart]:
    return [ToolReturnPart(call.name, call.output, call.id) for call in executed]
