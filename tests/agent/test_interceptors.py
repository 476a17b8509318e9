"""Interceptors: what they see, what they change, and what is left of them where they fail."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dcaf import ConfigurationError, Session, current_session
from dcaf.agent import InterceptedRequest, InterceptedResponse, InterceptorError, Message, StreamingMode
from dcaf.agent.config import RunConfig
from tests.agent.agents import agent_of, asked_of, gathered, scripted, user, wants

WAYS = ["run", "stream"]


def answered(agent: Any, way: str, messages: Any = "hi", **options: Any) -> Any:
    return agent.run(messages, **options) if way == "run" else gathered(agent, messages, **options)[-1]


def sync_request(request: InterceptedRequest) -> None:
    request.session.append("seen", "sync request")


async def async_request(request: InterceptedRequest) -> InterceptedRequest:
    request.session.append("seen", "async request")
    return request


def sync_response(response: InterceptedResponse) -> InterceptedResponse:
    response.session.append("seen", "sync response")
    return response


async def async_response(response: InterceptedResponse) -> None:
    response.session.append("seen", "async response")


class Callable:
    def __call__(self, request: InterceptedRequest) -> None:
        request.session.append("seen", "object")


@pytest.mark.parametrize("way", WAYS)
def test_they_run_in_order_before_and_after_sync_and_async(way: str) -> None:
    agent = agent_of(
        request_interceptors=[sync_request, async_request, Callable()], response_interceptors=(async_response, sync_response)
    )
    response = answered(agent, way)
    assert response.session["seen"] == ["sync request", "async request", "object", "async response", "sync response"]


@pytest.mark.parametrize("given", [None, [], (), sync_request, [sync_request]])
def test_one_a_list_or_none_may_be_given(given: Any) -> None:
    response = agent_of(request_interceptors=given).run("hi")
    assert len(response.session.get("seen", [])) == (1 if given else 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_request_may_be_changed_in_place_or_replaced(way: str) -> None:
    def in_place(request: InterceptedRequest) -> None:
        request.messages[-1].content += " there"

    def replaced(request: InterceptedRequest) -> InterceptedRequest:
        request.session["kept"] = True
        return InterceptedRequest([user(request.messages[-1].content + "!")], Session(), {})

    response = answered(agent_of(request_interceptors=[in_place, replaced]), way)
    assert response.text == "You said hi there!"
    assert response.session == {"kept": True}


@pytest.mark.parametrize("way", WAYS)
def test_a_response_may_be_changed(way: str) -> None:
    def shout(response: InterceptedResponse) -> InterceptedResponse:
        return InterceptedResponse(response.text.upper(), response.data, response.session, response.context)

    response = answered(agent_of(response_interceptors=shout), way)
    assert response.text == "YOU SAID HI"
    assert response.messages[-1].content == "YOU SAID HI"


@pytest.mark.parametrize("way", WAYS)
def test_a_request_interceptor_that_blocks_is_the_answer_and_its_writes_are_gone(way: str) -> None:
    def blocks(request: InterceptedRequest) -> None:
        request.session["half"] = True
        raise InterceptorError("Not for you.", reason="policy", details={"rule": 7})

    agent = agent_of(scripted(), request_interceptors=[sync_request, blocks, sync_request], response_interceptors=async_response)
    response = answered(agent, way)
    assert response.text == "Not for you."
    assert response.stop_reason == "blocked"
    assert response.session["seen"] == ["sync request", "async response"]
    assert "half" not in response.session
    assert response.meta_data.blocked == {"reason": "policy", "details": {"rule": 7}}


@pytest.mark.parametrize("way", WAYS)
def test_a_response_interceptor_that_blocks_hides_the_text_and_keeps_what_tools_did(way: str) -> None:
    def blocks(response: InterceptedResponse) -> None:
        response.session["half"] = True
        raise InterceptorError("Not for you.")

    response = answered(agent_of(response_interceptors=[blocks, sync_response]), way, "call count")
    assert (response.text, response.stop_reason) == ("Not for you.", "blocked")
    assert response.session == {"n": 1}


def test_details_that_are_no_json_are_told_as_their_text() -> None:
    def blocks(_: InterceptedRequest) -> None:
        raise InterceptorError("No.", details={"at": {1, 2}, "what": object})

    blocked = agent_of(request_interceptors=blocks).run("hi").meta_data.blocked
    assert blocked is not None
    assert blocked["details"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["request_interceptors", "response_interceptors"])
def test_any_other_error_fails_the_turn_and_leaves_the_session_as_it_was(where: str, way: str) -> None:
    def breaks(shown: Any) -> None:
        shown.session["half"] = True
        raise ValueError("broken")

    session = Session.from_dict({"n": 1})
    with pytest.raises(ValueError, match="broken"):
        answered(agent_of(**{where: [lambda shown: shown.session.incr("n") and None, breaks]}), way, session=session)
    assert session.to_dict() == {"n": 1}
    assert not session.is_modified


def test_the_session_is_the_current_one_and_the_same_below() -> None:
    async def sees(request: InterceptedRequest) -> None:
        assert current_session() is request.session
        request.session["x"] = 1

    assert agent_of(request_interceptors=[sees, sees]).run("hi").session == {"x": 1}


@pytest.mark.parametrize("returned", [7, "text", {}, Message(role="user", content="x")])
def test_what_is_returned_must_be_of_the_kind(returned: Any) -> None:
    with pytest.raises(ConfigurationError, match="return the InterceptedRequest, or nothing"):
        agent_of(request_interceptors=lambda _: returned).run("hi")
    with pytest.raises(ConfigurationError, match="return the InterceptedResponse, or nothing"):
        agent_of(response_interceptors=lambda _: returned).run("hi")


def test_a_text_that_is_none_is_an_error_that_names_who_left_it() -> None:
    def erase(response: InterceptedResponse) -> None:
        response.text = None  # type: ignore[assignment]

    session = Session.from_dict({"n": 1})
    with pytest.raises(ConfigurationError, match="The text of the response, after erase, takes a text, not None"):
        agent_of(response_interceptors=erase).run("call count", session=session)
    assert session.to_dict() == {"n": 1}


def test_what_they_write_is_seen_by_instructions_and_tools() -> None:
    def starts(request: InterceptedRequest) -> None:
        request.session["n"] = 41

    assert agent_of(request_interceptors=starts).run("call count").text == "Done: 42"


@pytest.mark.parametrize("mode", [StreamingMode.NONE, StreamingMode.SSE, StreamingMode.BIDI])
def test_while_there_is_a_response_interceptor_no_text_leaves_before_it_has_seen_it(mode: StreamingMode) -> None:
    model = scripted([*_text("the secret is 7"), wants("count")], "and the secret is 8")
    agent = agent_of(model, config=RunConfig(streaming_mode=mode), response_interceptors=_redacts)
    events = gathered(agent, "go")
    texts = [event.text for event in events if event.type == "text_delta"]
    assert texts == ["the *** is 7\n\nand the *** is 8"]
    assert "secret" not in "".join(map(_written, events))
    assert [event.type for event in events][:2] == ["intermittent_update", "executed_tool_calls"]


def test_what_the_model_said_beside_a_call_that_waits_does_not_go_round_the_interceptor() -> None:
    model = scripted([*_text("the secret is 7"), wants("drop", {"volume": "pg"})])
    events = gathered(agent_of(model, response_interceptors=_redacts), "go")
    assert "secret" not in "".join(map(_written, events))
    assert asked_of(events[-1]).intent is None
    open_ = agent_of(scripted([*_text("I will."), wants("drop", {"volume": "pg"})])).run("go")
    assert asked_of(open_).intent == "I will."


@pytest.mark.parametrize("way", WAYS)
def test_they_run_on_approval_turns(way: str) -> None:
    agent = agent_of(request_interceptors=sync_request, response_interceptors=sync_response)
    first = answered(agent, way, 'call drop {"volume": "pg"}')
    assert first.session["seen"] == ["sync request", "sync response"]
    second = answered(agent, way, [first.decided({asked_of(first).id: True})], session=first.state)
    assert second.session == {"seen": ["sync request", "sync response"] * 2, "dropped": ["pg"]}


@pytest.mark.parametrize("way", WAYS)
def test_a_blocked_approval_turn_runs_nothing_and_leaves_the_call_waiting(way: str) -> None:
    def blocks(_: InterceptedRequest) -> None:
        raise InterceptorError("Not now.")

    first = agent_of().run('call drop {"volume": "pg"}')
    decided = first.decided({asked_of(first).id: True})
    second = answered(agent_of(request_interceptors=blocks), way, [decided], session=first.state)
    assert (second.text, second.session) == ("Not now.", {})
    assert agent_of().run([decided], session=second.state).session == {"dropped": ["pg"]}


def test_an_interceptor_may_take_a_decision_back() -> None:
    def forgets(request: InterceptedRequest) -> None:
        request.messages[-1] = user("hello")

    first = agent_of().run('call drop {"volume": "pg"}')
    second = agent_of(request_interceptors=forgets).run([first.decided({asked_of(first).id: True})], session=first.state)
    assert (second.text, second.session) == ("You said hello", {})


def test_the_context_is_shown_and_hidden_from_reprs(caplog: Any) -> None:
    seen: list[Any] = []
    context = {"platform_context": {"duplo_token": "canary"}, "thread_id": "t-1"}
    with caplog.at_level(logging.DEBUG):
        agent_of(request_interceptors=seen.append, response_interceptors=seen.append).run("call whoami", context=context)
    assert [dict(shown.context) for shown in seen] == [context] * 2
    assert "canary" not in repr(seen)
    assert "canary" not in caplog.text


def _text(text: str) -> Any:
    from pydantic_ai.messages import TextPart

    return [TextPart(text)]


def _redacts(response: InterceptedResponse) -> None:
    response.text = response.text.replace("secret", "***")


def _written(event: Any) -> str:
    return str(event.model_dump_json()) if hasattr(event, "model_dump_json") else f"{event.text}{event.data.model_dump_json()}"
