"""A request's body and its answer: what is taken out, what is echoed, and what is written."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from dcaf.agent import AgentResponse, MalformedRequest
from dcaf.agent.codec import CONTEXT_BYTES, ChatRequest, build_error_event, build_problem, encode_json, report_failure
from dcaf.core.errors import AgentError, ConfigurationError, ModelFailedError, SessionUnavailable
from tests.agent.agents import agent_of


def read(**members: Any) -> ChatRequest:
    return ChatRequest.read(json.dumps({"messages": [{"role": "user", "content": "hi"}], **members}))


def answered(asked: ChatRequest) -> Any:
    return asked.build_answer(agent_of().run(asked.messages, context=asked.context))


def test_a_text_that_no_client_can_have_sent_is_the_developers_mistake() -> None:
    with pytest.raises(ConfigurationError, match="half of a surrogate pair"):
        ChatRequest.read('{"messages":[{"role":"user","content":"\ud800"}]}')


def test_further_members_are_context_and_are_echoed() -> None:
    asked = read(thread_id="t-1", source="slack", nested={"a": [1]}, big=2**70)
    assert asked.request_context == {"thread_id": "t-1", "source": "slack", "nested": {"a": [1]}, "big": 2**70}
    assert asked.context == {**asked.request_context, "platform_context": {}}
    assert answered(asked)["meta_data"]["request_context"] == asked.request_context


def test_messages_data_and_the_platforms_context_are_not_echoed() -> None:
    asked = read(data={"session": {"a": 1}, "x": 1}, platform_context={"duplo_token": "canary"})
    assert asked.request_context is None
    assert asked.context == {"platform_context": {"duplo_token": "canary"}}
    assert "request_context" not in answered(asked)["meta_data"]


def test_the_platforms_context_is_that_of_the_newest_message_and_leaves_all_of_them() -> None:
    messages = [
        {"role": "user", "content": "a", "platform_context": {"user_id": "old"}},
        {"role": "assistant", "content": "b", "platform_context": {"user_id": "mira"}},
        {"role": "user", "content": "c"},
    ]
    asked = ChatRequest.read(json.dumps({"messages": messages, "platform_context": {"user_id": "top"}}))
    assert asked.context["platform_context"] == {"user_id": "mira"}
    assert all(message.platform_context is None for message in asked.messages)
    assert "mira" not in repr(asked)


@pytest.mark.parametrize("value", ["x", {"a": 1}, [1], "é", 2**70])
def test_the_echo_is_at_most_16_kib_long(value: Any) -> None:
    text = "x" * (CONTEXT_BYTES - len(b'{"a":"","b":}') - len(encode_json(value)))
    assert CONTEXT_BYTES == 16 * 1024
    assert read(a=text, b=value).request_context is not None
    longer = read(a=text + "x", b=value)
    assert longer.request_context is None
    assert longer.context["a"] == text + "x"


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "null",
        "7",
        '"messages"',
        "",
        "{",
        "not json",
        '{"messages": null}',
        '{"messages": {}}',
        '{"messages": []}',
        '{"messages": ["hi"]}',
        '{"messages": [{}]}',
        '{"messages": [{"role": "user", "content": "hi"}], "data": []}',
        '{"messages": [{"role": "user", "content": "hi"}], "platform_context": "x"}',
        '{"messages": [{"role": "user", "content": "hi", "platform_context": "canary"}]}',
        '{"messages": [{"role": "user", "content": "hi", "data": "canary"}]}',
        '{"messages": [{"role": "user", "content": "hi", "data": {"session": []}}]}',
        '{"messages": [{"role": "user", "content": "hi", "data": {"approvals": [{"id": "c"}]}}]}',
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        '{"messages": [{"role": "user", "content": "hi"}], "n": ' + "1" * 10_000 + "}",
    ],
)
def test_a_body_that_is_no_turn_is_refused_without_its_values(body: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        ChatRequest.read(body)
    told = build_problem(caught.value)
    assert told["status"] == 400
    assert told["code"] == "malformed-request"
    assert told["problems"]
    assert "canary" not in json.dumps(told)


def test_the_problems_of_a_huge_malformed_body_are_few() -> None:
    many = ",".join(["1"] * 190_000)
    data = '{"messages": [{"role": "user", "content": "x", "data": {"approvals": [' + many + "]}}]}"
    for body in ('{"messages": [' + many + "]}", data):
        start = time.perf_counter()
        with pytest.raises(MalformedRequest) as caught:
            ChatRequest.read(body)
        assert len(encode_json(build_problem(caught.value))) < 4000
        assert time.perf_counter() - start < 0.5


def test_a_long_name_in_a_body_is_not_sent_back_whole() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x", "data": {"session": {}, "approvals": {"x" * 9000: 1}}}]})
    with pytest.raises(MalformedRequest) as caught:
        ChatRequest.read(body)
    assert len(encode_json(build_problem(caught.value))) < 4000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"n": 2**80}, b'{"n":1208925819614629174706176}'),
        ({"n": math.nan}, b'{"n":null}'),
        ({"n": math.inf}, b'{"n":null}'),
        ({"n": "\ud800"}, b'{"n":"?"}'),
        ({"n": ["\ud800", math.nan]}, b'{"n":["?",null]}'),
        ({"n": "é"}, '{"n":"é"}'.encode()),
    ],
)
def test_whatever_a_model_or_a_tool_says_can_be_written(value: Any, expected: bytes) -> None:
    assert encode_json(value) == expected
    json.loads(encode_json(value))


def test_the_end_of_a_stream_has_what_the_agent_adds_to_the_data_and_no_session() -> None:
    from dcaf.agent import Agent, AgentResult

    asked = read(thread_id="t-1")
    response = Agent(lambda: AgentResult("x", {"url_configs": [1], "extra": 2})).run("hi", session={"a": 1})
    assert asked.build_event(response) == {
        "type": "done",
        "stop_reason": "end_turn",
        "meta_data": {
            "has_pending_approvals": False,
            "is_complete": True,
            "stop_reason": "end_turn",
            "request_context": {"thread_id": "t-1"},
        },
        "data": {"url_configs": [1], "extra": 2},
    }
    assert "data" not in asked.build_event(agent_of().run("hi"))


def test_an_answer_has_no_session_of_its_own() -> None:
    response: AgentResponse = agent_of().run("call count")
    assert "session" not in read().build_answer(response)["data"]


@pytest.mark.parametrize("error", [ValueError("canary"), AgentError("canary"), ModelFailedError("canary"), SessionUnavailable()])
def test_an_error_is_told_by_a_static_text(error: Exception, caplog: Any) -> None:
    told = report_failure(error)
    assert "canary" not in json.dumps([build_error_event(told), build_problem(told)])
    assert "canary" not in caplog.text
    assert caplog.records
    assert build_problem(told)["status"] == told.http_status


def test_the_log_says_what_is_wrong_with_a_body_and_not_what_is_in_it(caplog: Any) -> None:
    with pytest.raises(MalformedRequest) as told:
        ChatRequest.read(b'{"messages":[{"role":"canary","content":7}]}')
    report_failure(told.value)
    assert [record.getMessage() for record in caplog.records] == [
        "dcaf: a turn failed: malformed-request (messages.0.role: Input should be 'user' or 'assistant'; "
        "messages.0.content: Input should be a valid string)"
    ]


def test_a_path_cannot_begin_a_line_of_the_log(caplog: Any) -> None:
    report_failure(MalformedRequest([("a\nERROR dcaf: b", "Field required")]))
    assert caplog.records[0].getMessage() == r"dcaf: a turn failed: malformed-request (a\nERROR dcaf: b: Field required)"


def test_what_a_turn_is_stands_in_the_problem_as_json() -> None:
    said = build_problem(MalformedRequest())["detail"]
    assert said == 'The body is not a turn. A turn is {"messages": [{"role": "user", "content": "..."}]}.'
    assert ChatRequest.read(said.removeprefix("The body is not a turn. A turn is ").removesuffix(".")).messages[0].content == "..."


def test_the_log_says_where_an_unforeseen_error_was(caplog: Any) -> None:
    def breaks_here() -> None:
        raise ValueError("canary")

    try:
        breaks_here()
    except ValueError as error:
        report_failure(error)
    assert "ValueError" in caplog.text
    assert "breaks_here" in caplog.text
