"""Agents with the clients of OpenAI and Anthropic, against services that answer as theirs do, over connections that are kept."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import anyio
import httpx2
import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel

from dcaf import Keyring, Session, tool
from dcaf.agent import Agent, ModelFailedError, RunConfig, StreamingMode, TurnTimeoutError, create_app
from dcaf.agent.backends import choose_settings
from dcaf.testing import SessionClient
from tests.agent.agents import asked_of
from tests.agent.providers import Body, Provider, Said, provider

NAMES = ["openai-chat", "openai-responses", "anthropic"]
MODES = [StreamingMode.NONE, StreamingMode.SSE]
BUDGET: Any = {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}


@tool
def count(session: Session) -> int:
    """Count."""
    return session.incr("n")


@tool
def write(path: str, text: str = "") -> str:
    """Write a file."""
    return f"{path} has {len(text)} characters"


@tool(requires_approval=True)
def drop(volume: str, session: Session) -> str:
    """Delete a volume."""
    session.append("dropped", volume)
    return f"{volume} dropped"


def has_results(body: Body) -> bool:
    """Whether a request ends with what a tool has returned."""
    last = json.dumps((body.get("messages") or body["input"])[-1])
    return any(mark in last for mark in ('"tool_result"', '"role": "tool"', '"function_call_output"'))


def counting(body: Body) -> Said:
    return Said("It is counted.") if has_results(body) else Said("I will count.", ("count", "{}"))


@pytest.fixture
def service() -> Iterator[Provider]:
    with provider(counting) as found:
        yield found


def agent_on(model: Model, mode: StreamingMode = StreamingMode.SSE, **settings: Any) -> Agent:
    return Agent(model, tools=[count, write, drop], config=RunConfig(streaming_mode=mode, **settings))


# connections that are kept


def many(run: Callable[[], Any], times: int = 20) -> list[str]:
    """What comes of many runs from four threads, but for those that are as they should be."""

    def one(_: int) -> str:
        try:
            response = run()
        except (ModelFailedError, TurnTimeoutError) as error:
            return repr(error.__cause__ or error)
        return "" if (response.text, response.session) == ("I will count.\n\nIt is counted.", {"n": 1}) else repr(response.text)

    with ThreadPoolExecutor(4) as pool:
        return [text for text in pool.map(one, range(times)) if text]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("owns", [True, False], ids=["own client", "a client that was passed"])
def test_many_runs_from_four_threads_over_kept_connections(
    service: Provider, name: str, mode: StreamingMode, owns: bool, scale: float
) -> None:
    client = {} if owns else {"http_client": httpx2.AsyncClient()}
    agent = agent_on(service.models()[name](**client), mode)
    times = max(8, round(20 * scale))
    assert many(lambda: agent.run("count"), times) == []
    assert service.calls == 2 * times
    assert len(service.connections) <= 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_with_a_fresh_loop_for_each_run_they_fail(service: Provider, name: str) -> None:
    """The control. One that waits for a connection of another loop would wait as long as a turn may take."""
    agent = agent_on(service.models()[name](http_client=httpx2.AsyncClient()), timeout=timedelta(seconds=2))
    assert many(lambda: anyio.run(functools.partial(agent.run_async, "count"))) != []
    gc.collect()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_agent_in_two_loops_one_after_the_other(service: Provider, name: str) -> None:
    agent = agent_on(service.models()[name]())
    for _ in range(3):
        assert asyncio.run(agent.run_async("count")).session == {"n": 1}
    assert agent.run("count").session == {"n": 1}
    gc.collect()  # what the loops that are gone have left open


@pytest.mark.parametrize("name", NAMES)
def test_the_service_answers_over_one_connection(service: Provider, name: str) -> None:
    app = create_app(agent_on(service.models()[name]()), keys=Keyring.ephemeral(), audience="shop")
    with SessionClient(app, path="/api/chat") as client:
        for number in range(1, 6):
            assert client.send("count").session == {"n": number}
    assert len(service.connections) == 1


# how an answer ended

LONG = "To undo this, first remove the"
ENDS: dict[str, tuple[Said, str, str]] = {
    "whole": (Said("Done."), "end_turn", "Done."),
    "cut off": (Said(LONG, finish="length"), "max_tokens", LONG),
    "filtered": (Said("Well,", finish="content_filter"), "content_filter", "Well,"),
    "filtered at once": (Said(finish="content_filter"), "content_filter", ""),
    "nothing": (Said(), "empty", ""),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ENDS)
def test_how_an_answer_ended_is_said(name: str, mode: StreamingMode, end: str) -> None:
    said, reason, text = ENDS[end]
    if name == "anthropic" and reason == "content_filter":
        reason = "refusal"  # as Anthropic calls it
    with provider(lambda body: said) as service:
        response = agent_on(service.models()[name](), mode).run("how do I undo it?")
    assert (response.stop_reason, response.text) == (reason, text)
    assert response.meta_data.is_complete is (end == "whole")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["openai-chat", "openai-responses"])
def test_a_refusal_is_said_and_its_words_are_the_text(name: str, mode: StreamingMode) -> None:
    with provider(lambda body: Said(refusal="I cannot help with that.", finish="refusal")) as service:
        response = agent_on(service.models()[name](), mode).run("how?")
    assert (response.stop_reason, response.text) == ("refusal", "I cannot help with that.")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", ['{"path": "a", "te', '{"path": "a"}', '{"path": "a", "text": "half'])
def test_a_call_that_was_cut_off_is_told_to_the_model_and_does_not_run(name: str, mode: StreamingMode, arguments: str) -> None:
    """Whole or not: what is left of the arguments may be read without an error, and be half of what was meant."""

    def reply(body: Body) -> Said:
        return Said("I see.") if has_results(body) else Said("I write.", ("write", arguments), finish="length")

    with provider(reply) as service:
        response = agent_on(service.models()[name](), mode).run("write")
        told = json.dumps(service.bodies[-1])
    assert "reached its length limit before this call was whole" in told
    assert "has 0 characters" not in told
    assert response.text == "I write.\n\nI see."
    assert response.stop_reason == "end_turn"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_was_cut_off_is_not_proposed(name: str, mode: StreamingMode) -> None:
    def reply(body: Body) -> Said:
        return Said("I see.") if has_results(body) else Said("", ("drop", '{"volume": "pg"}'), finish="length")

    with provider(reply) as service:
        response = agent_on(service.models()[name](), mode).run("drop pg")
    assert not response.needs_approval
    assert response.text == "I see."


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_of_an_answer_that_was_filtered_no_call_runs(name: str, mode: StreamingMode) -> None:
    with provider(lambda body: Said("I count.", ("count", "{}"), finish="content_filter")) as service:
        response = agent_on(service.models()[name](), mode).run("count", session={"n": 1})
    assert response.stop_reason in {"content_filter", "refusal"}
    assert response.session == {"n": 1}
    assert response.data.executed_tool_calls == []


# thinking


def approving(body: Body) -> Said:
    """A model that drops what it was asked to, then counts, and then is done."""
    results = json.dumps(body).count('"tool_result"')
    if results == 0:
        return Said("I would drop it.", ("drop", '{"volume": "pg"}'))
    return Said("", ("count", "{}")) if results == 1 else Said("Done.")


def claudes(service: Provider) -> dict[str, Callable[[], tuple[Model, Any]]]:
    """Models that think with a budget, and the settings by which they do."""

    def own() -> Model:
        model = service.claude()
        model._settings = BUDGET
        return model

    return {
        "settings of the request": lambda: (service.claude(), BUDGET),
        "settings of the model": lambda: (own(), None),
        "pydantic-ai's own word": lambda: (service.claude(), {"thinking": "high"}),
        "in a wrapper": lambda: (WrapperModel(WrapperModel(own())), None),
        "in a fallback": lambda: (FallbackModel(own(), own()), None),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kind", ["settings of the request", "settings of the model", "pydantic-ai's own word", "in a wrapper", "in a fallback"]
)
def test_an_approved_call_goes_back_to_a_model_that_thinks(kind: str, mode: StreamingMode) -> None:
    with provider(approving) as service:
        model, settings = claudes(service)[kind]()
        agent = agent_on(model, mode, model_settings=settings)
        asked = agent.chat("drop pg")
        assert service.bodies[-1]["thinking"]["type"] == "enabled"
        done = agent.chat("Yes.", after=asked, decisions={asked_of(asked).id: True})
        again = agent.chat("and now?", after=done)
    assert (done.text, done.session) == ("Done.", {"dropped": ["pg"], "n": 1})
    assert done.stop_reason == again.stop_reason == "end_turn"
    assert service.refused == []
    assert [(body.get("thinking") or {}).get("type") == "enabled" for body in service.bodies] == [True, False, False, True]


def test_without_that_rule_the_service_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr("dcaf.agent.model_loop.choose_settings", lambda model, settings, talk: settings)
    with provider(approving) as service:
        agent = agent_on(service.claude(), model_settings=BUDGET)
        asked = agent.chat("drop pg")
        done = agent.chat(after=asked, decisions={asked_of(asked).id: True})
    assert done.stop_reason == "error"
    assert "found `tool_use`" in service.refused[0] or "found `text`" in service.refused[0]


@pytest.mark.parametrize("mode", MODES)
def test_within_a_turn_thinking_goes_back_as_it_came(mode: StreamingMode) -> None:
    with provider(counting) as service:
        response = agent_on(service.claude(), mode, model_settings=BUDGET).run("count")
        blocks = service.bodies[-1]["messages"][1]["content"]
    assert response.text == "I will count.\n\nIt is counted."
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert service.bodies[-1]["thinking"]["type"] == "enabled"
    assert service.refused == []


def test_adaptive_thinking_and_other_providers_are_left_as_they_are() -> None:
    bare: list[ModelMessage] = [ModelResponse([ToolCallPart("drop", {}, "c1")]), ModelRequest([ToolReturnPart("drop", "ok", "c1")])]
    with provider(counting) as service:
        adaptive: Any = {"anthropic_thinking": {"type": "adaptive"}}
        assert choose_settings(service.claude(), adaptive, bare) is adaptive
        assert choose_settings(service.chat(), {"thinking": "high"}, bare) == {"thinking": "high"}
        assert choose_settings(service.claude(), None, bare) is None
        assert choose_settings(service.claude(), BUDGET, bare) != BUDGET
        assert choose_settings(service.claude(), BUDGET, [*bare, ModelResponse([]), ModelRequest([])]) is BUDGET


@pytest.mark.parametrize("mode", MODES)
def test_texts_that_thinking_stands_between_stay_apart(mode: StreamingMode) -> None:
    with provider(lambda body: Said("First.", more="Second.")) as service:
        response = agent_on(service.claude(), mode, model_settings=BUDGET).run("hi")
    assert response.text == "First.\n\nSecond."


# failures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_failed_model_says_why_in_the_log(name: str, mode: StreamingMode, status: int, caplog: Any) -> None:
    with provider(lambda body: status) as service, caplog.at_level(logging.DEBUG, "dcaf"):
        model = service.models()[name]()
        model.client.max_retries = 0  # type: ignore[attr-defined]
        with pytest.raises(ModelFailedError):
            agent_on(model, mode).run("hi")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("dcaf: the model failed: Model")
    assert f"(HTTP {status})" in line
    assert 'File "' in line
    assert "s3cret" not in line
    assert "mira" not in line
