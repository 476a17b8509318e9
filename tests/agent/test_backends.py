"""What is known of models: how they can be asked, alone and behind others, how their answers ended, and why they failed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_ai.exceptions import ContentFilterError, ModelAPIError, ModelHTTPError
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    NativeToolCallPart,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.instrumented import InstrumentedModel
from pydantic_ai.models.test import TestModel as MadeUp
from pydantic_ai.models.wrapper import WrapperModel

from dcaf.agent import Agent, ModelFailedError, RunConfig, StreamingMode
from dcaf.agent.backends import describe_failure, find_innermost, read_stop_reason
from dcaf.agent.model_loop import Question, _AnswerText
from tests.agent.agents import count, gathered, model_of

MODES = list(StreamingMode)


class Whole(Model):
    """Answers in one piece."""

    model_name = system = "whole"

    async def request(self, *_: Any) -> ModelResponse:
        return ModelResponse([TextPart("Hello.")])


class Foreign(Model):
    """A wrapper that somebody else wrote, by no class of pydantic-ai's."""

    model_name = system = "foreign"

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self.inner = inner

    async def request(self, *arguments: Any) -> ModelResponse:
        return await self.inner.request(*arguments)

    @asynccontextmanager
    async def request_stream(self, *arguments: Any) -> AsyncIterator[StreamedResponse]:
        async with self.inner.request_stream(*arguments) as stream:
            yield stream


class Renaming(Foreign):
    """One whose errors are its own."""

    @asynccontextmanager
    async def request_stream(self, *arguments: Any) -> AsyncIterator[StreamedResponse]:
        try:
            async with self.inner.request_stream(*arguments) as stream:
                yield stream
        except Exception as error:
            raise RuntimeError("house-error") from error


class Silent(Foreign):
    """One that passes no streams on."""

    request_stream = Model.request_stream


class Late(Whole):
    """One that finds out when the stream is read: at its beginning, or after some text."""

    def __init__(self, before: list[ModelResponseStreamEvent]) -> None:
        super().__init__()
        self.before = before

    @asynccontextmanager
    async def request_stream(self, *arguments: Any) -> AsyncIterator[StreamedResponse]:
        yield Stream(arguments[2], self.before)


class Stream(StreamedResponse):
    model_name = provider_name = provider_url = "stream"
    timestamp = datetime.now(UTC)

    def __init__(self, parameters: ModelRequestParameters, before: list[ModelResponseStreamEvent]) -> None:
        super().__init__(parameters)
        self.before = before

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        for event in self.before:
            yield event
        raise NotImplementedError("no streams")


def only_whole() -> FunctionModel:
    async def function(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart("Hello.")])

    return FunctionModel(function)


def only_stream() -> FunctionModel:
    async def function(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "Hel"
        yield "lo."

    return FunctionModel(stream_function=function)


INNER: dict[str, Callable[[], Model]] = {
    "a model that cannot stream": Whole,
    "a function that answers whole": only_whole,
    "a function that can only stream": only_stream,
    "a stream that cannot begin": lambda: Late([]),
    "one that can do both": lambda: model_of(lambda _: [TextPart("Hello.")]),
}
AROUND: dict[str, Callable[[Model], Model]] = {
    "alone": lambda model: model,
    "WrapperModel": WrapperModel,
    "InstrumentedModel": InstrumentedModel,
    "ConcurrencyLimitedModel": lambda model: ConcurrencyLimitedModel(model, limiter=2),
    "FallbackModel": lambda model: FallbackModel(model, only_whole()),
    "FallbackModel, for any error": lambda model: FallbackModel(model, model, fallback_on=(Exception,)),
    "FallbackModel, after a failure": lambda model: FallbackModel(failing(), model),
    "a foreign wrapper": Foreign,
    "one whose errors are its own": Renaming,
    "one that passes no streams on": Silent,
}


def failing() -> FunctionModel:
    def reply(_: Any) -> Any:
        raise ModelAPIError("m", "down")

    return model_of(reply)


@pytest.mark.parametrize("mode", [StreamingMode.NONE, StreamingMode.SSE])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("inner", INNER)
def test_a_model_answers_in_the_way_that_it_can_wherever_it_stands(inner: str, around: str, mode: StreamingMode) -> None:
    for outer, wrap in AROUND.items():
        if inner == "a function that can only stream" and "one that passes no streams on" in {around, outer}:
            continue  # nobody can ask it
        agent = Agent(wrap(AROUND[around](INNER[inner]())), config=RunConfig(streaming_mode=mode))
        events = gathered(agent, "hi")
        assert events[-1].text == "".join(event.text for event in events[:-1]) == "Hello.", outer
        assert len(events) == 2 or mode is StreamingMode.SSE


def test_read_off_the_outermost_class_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""

    async def pieces(question: Question) -> Any:
        can = type(question.model).request_stream is not Model.request_stream
        async for piece in question._ask_streaming() if can else question._ask_whole():
            yield piece

    monkeypatch.setattr(Question, "pieces", pieces)
    assert Agent(Whole()).run("hi").text == "Hello."
    with pytest.raises(ModelFailedError, match="NotImplementedError"):
        Agent(WrapperModel(Whole())).run("hi")


def test_a_stream_that_breaks_off_is_no_stream_that_cannot_begin() -> None:
    with pytest.raises(ModelFailedError):
        Agent(Late([PartStartEvent(index=0, part=TextPart("Hel"))])).run("hi")


def test_a_failure_is_not_asked_again() -> None:
    asked: list[str] = []

    class Broken(Whole):
        async def request(self, *_: Any) -> ModelResponse:
            asked.append("whole")
            raise AssertionError

        @asynccontextmanager
        async def request_stream(self, *_: Any) -> AsyncIterator[StreamedResponse]:
            asked.append("stream")
            if asked:
                raise AssertionError("of its own")
            yield Stream(ModelRequestParameters(), [])

    with pytest.raises(ModelFailedError):
        Agent(Broken()).run("hi")
    assert asked == ["stream"]


def test_the_innermost_models_of_all_wrappers_are_found() -> None:
    one, other = Whole(), MadeUp()
    model = InstrumentedModel(FallbackModel(WrapperModel(one), ConcurrencyLimitedModel(other, limiter=1)))
    assert list(find_innermost(model)) == [one, other]


def test_a_model_of_the_house_that_is_made_without_its_base_answers() -> None:
    class Bare(Whole):
        models = "a name that means something else"

        def __init__(self) -> None:
            self.wrapped = self

    assert Agent(Bare(), config=RunConfig(model_settings={"temperature": 0.0})).run("hi").text == "Hello."


# two texts

PARTS: dict[str, Callable[[int], ModelResponsePart]] = {
    "text": lambda number: TextPart(f"T{number}."),
    "empty": lambda number: TextPart(""),
    "thinking": lambda number: ThinkingPart("Hm."),
    "call": lambda number: ToolCallPart("count", {}, f"c{number}"),
    "search": lambda number: NativeToolCallPart("web_search", {}, f"s{number}"),
}


def streamed(parts: Sequence[ModelResponsePart]) -> Iterator[ModelResponseStreamEvent]:
    """The events of parts whose text comes letter by letter."""
    for at, part in enumerate(parts):
        yield PartStartEvent(index=at, part=TextPart("") if isinstance(part, TextPart) else part)
        letters = part.content if isinstance(part, TextPart) else ""
        yield from (PartDeltaEvent(index=at, delta=TextPartDelta(letter)) for letter in letters)


@pytest.mark.parametrize("first", PARTS)
def test_texts_are_apart_where_something_stands_between_them(first: str) -> None:
    """As in pydantic-ai's own joined text; an empty one is none."""
    for kinds in itertools.product([first], PARTS, PARTS, PARTS):
        parts = [PARTS[kind](number) for number, kind in enumerate(kinds)]
        expected = ModelResponse([part for part in parts if part != TextPart("")]).text or ""
        whole, pieces = _AnswerText(), _AnswerText()
        assert "".join(whole.add(PartStartEvent(index=at, part=part)) for at, part in enumerate(parts)) == expected
        assert "".join(map(pieces.add, streamed(parts))) == expected


def test_joined_as_they_come_they_are_not() -> None:
    """The control."""
    parts: list[ModelResponsePart] = [TextPart("First."), ThinkingPart("Hm."), TextPart("Second.")]
    events = [event for event in streamed(parts) if isinstance(event, PartDeltaEvent)]
    assert "".join(map(_AnswerText().add, events)) == "First.Second."


def test_a_text_that_goes_on_after_another_part_has_begun_is_one() -> None:
    texts = _AnswerText()
    events: list[ModelResponseStreamEvent] = [
        PartStartEvent(index=0, part=TextPart("one ")),
        PartStartEvent(index=1, part=ToolCallPart("count", {}, "c1")),
        PartDeltaEvent(index=0, delta=TextPartDelta("word")),
    ]
    assert "".join(map(texts.add, events)) == "one word"


# how it ended

REASONS: list[tuple[str, dict[str, Any]]] = [
    ("end_turn", {}),
    ("end_turn", {"finish_reason": "stop"}),
    ("end_turn", {"finish_reason": "tool_call"}),
    ("end_turn", {"provider_details": {"refusal": ""}}),
    ("end_turn", {"provider_details": {"finish_reason": "STOP"}}),
    ("max_tokens", {"finish_reason": "length"}),
    ("content_filter", {"finish_reason": "content_filter"}),
    ("content_filter", {"finish_reason": "content_filter", "provider_details": {"finish_reason": "SAFETY"}}),
    ("refusal", {"finish_reason": "content_filter", "provider_details": {"refusal": "no"}}),
    ("refusal", {"finish_reason": "content_filter", "provider_details": {"finish_reason": "refusal"}}),
    ("refusal", {"provider_details": {"refusal": "no"}}),
    ("error", {"finish_reason": "error"}),
    ("error", {"state": "incomplete"}),
    ("error", {"state": "interrupted"}),
    ("pause_turn", {"state": "suspended"}),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("reason", "said"), REASONS, ids=repr)
def test_every_end_of_an_answer_has_a_word(reason: str, said: dict[str, Any], mode: StreamingMode) -> None:
    class Ending(Whole):
        async def request(self, *_: Any) -> ModelResponse:
            return ModelResponse([TextPart("Well.")], **said)

    response = Agent(Ending(), config=RunConfig(streaming_mode=mode)).run("hi")
    assert (response.text, response.stop_reason) == ("Well.", reason)
    assert response.meta_data.is_complete is (reason == "end_turn")


@pytest.mark.parametrize(
    "parts", [[], [TextPart("")], [TextPart(" \n")], [ThinkingPart("Hm.")], [ThinkingPart("Hm."), TextPart("")]]
)
def test_an_answer_of_nothing_is_empty(parts: list[Any]) -> None:
    assert read_stop_reason(ModelResponse(parts)) == "empty"
    assert read_stop_reason(ModelResponse(parts, finish_reason="length")) == "max_tokens"


def test_nothing_more_to_say_after_a_call_is_the_end_where_something_was_said() -> None:
    answers = iter([[TextPart("I count."), ToolCallPart("count", {}, "c1")], []])
    response = Agent(Scripted(answers), tools=[count]).run("go")
    assert (response.text, response.stop_reason, response.session) == ("I count.", "end_turn", {"n": 1})


class Scripted(Whole):
    def __init__(self, answers: Any) -> None:
        super().__init__()
        self.answers = answers

    async def request(self, *_: Any) -> ModelResponse:
        return ModelResponse(next(self.answers))


@pytest.mark.parametrize("mode", MODES)
def test_a_filter_that_raises_is_an_end_and_no_failure(mode: StreamingMode) -> None:
    class Filtered(Whole):
        async def request(self, *_: Any) -> ModelResponse:
            raise ContentFilterError("what was filtered: s3cret")

    response = Agent(Filtered(), config=RunConfig(streaming_mode=mode)).run("hi")
    assert (response.text, response.stop_reason) == ("", "content_filter")


def test_of_calls_in_an_answer_that_was_cut_off_those_before_the_last_run() -> None:
    class Cut(Whole):
        asked = 0

        async def request(self, messages: Any, *_: Any) -> ModelResponse:
            self.asked += 1
            if self.asked > 1:
                return ModelResponse([TextPart("Done.")])
            return ModelResponse([ToolCallPart("count", {}, "c1"), ToolCallPart("count", {}, "c2")], finish_reason="length")

    response = Agent(Cut(), tools=[count]).run("go")
    assert response.session == {"n": 1}
    assert [call.output[:30] for call in response.data.executed_tool_calls] == ["1", '{"error":{"code":"tool-error",']


# why it failed


def test_the_log_says_the_types_and_the_status_of_all_that_was_raised() -> None:
    class Response:
        status_code = 503

    class ClientError(Exception):
        response = Response()

    refused = ModelHTTPError(401, "m", {"error": "s3cret"})
    refused.__cause__ = ClientError("s3cret")
    refused.__cause__.__cause__ = ConnectionResetError("s3cret")
    group = ExceptionGroup("s3cret", [refused, ValueError("s3cret")])
    said = describe_failure(refused)
    assert said.splitlines()[0] == "ModelHTTPError (HTTP 401) from ClientError (HTTP 503) from ConnectionResetError"
    assert describe_failure(group) == "ExceptionGroup (ModelHTTPError (HTTP 401), ValueError)"


def test_an_error_whose_parts_cannot_be_read_is_told_by_its_type() -> None:
    class Odd(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("s3cret")

    assert describe_failure(Odd("s3cret")) == "Odd"


def test_causes_in_a_circle_are_told_once_more_and_not_for_ever() -> None:
    error = ValueError("s3cret")
    error.__cause__ = error
    assert describe_failure(error).count("ValueError") == 8
    with pytest.raises(ModelFailedError):
        Agent(model_of(lambda _: (_ for _ in ()).throw(error))).run("hi")


def test_a_failed_model_is_in_the_log_of_a_turn_whose_approved_call_has_run(caplog: Any) -> None:
    from tests.agent.agents import agent_of, asked_of, scripted, wants

    agent = agent_of(scripted([wants("drop", {"volume": "pg"})], ModelHTTPError(429, "m", {"s": "s3cret"})))
    asked = agent.chat("drop pg")
    with caplog.at_level(logging.DEBUG, "dcaf"):
        done = agent.chat(after=asked, decisions={asked_of(asked).id: True})
    assert done.stop_reason == "error"
    assert "ModelHTTPError (HTTP 429)" in caplog.text
    assert "s3cret" not in caplog.text
