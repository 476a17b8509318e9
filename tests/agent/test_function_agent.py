"""Agents written by hand: `(messages, context[, session]) -> AgentResult`."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import pytest

from dcaf import ReadOnlySession, Session, SessionKey, current_session, tool
from dcaf.agent import Agent, AgentResult, ProposedCall
from dcaf.core import ConfigurationError, ToolArgumentError
from tests.agent.agents import TOOLS, count, drop, gathered, user


def plain(messages: Any, context: Any) -> AgentResult:
    return AgentResult(f"{messages[-1].content} {context.get('thread_id')}")


def text_alone(messages: Any) -> str:
    return f"{messages[-1].content} None"


def nothing() -> str:
    return "hi None"


async def with_session(messages: Any, context: Any, session: Session) -> AgentResult:
    assert current_session() is session
    return AgentResult(f"{messages[-1].content} {session.get('x')}")


def keyword_only(messages: Any, context: Any, *, session: Session) -> str:
    return f"{messages[-1].content} {session.get('x')}"


def by_name(messages: Any, context: Any, session: Any = None) -> str:
    return f"{messages[-1].content} None"


def unannotated(messages, context, session):  # type: ignore[no-untyped-def]
    return f"{messages[-1].content} {session.get('x')}"


def session_first(session: Session, messages: Any) -> str:
    return f"{messages[-1].content} {session.get('x')}"


def one_key(messages: Any, x: Annotated[str | None, SessionKey("x")] = None) -> str:
    return f"{messages[-1].content} {x}"


def may_read(messages: Any, context: Any, session: ReadOnlySession) -> str:
    return f"{messages[-1].content} {session.get('x')}"


class Named:
    def __call__(self, messages: Any, context: Any, session: Session) -> str:
        return f"{messages[-1].content} {session.get('x')}"

    def method(self, messages: Any, context: Any, session: Session) -> str:
        return f"{messages[-1].content} {session.get('x')}"


FUNCTIONS = [
    plain,
    text_alone,
    nothing,
    with_session,
    keyword_only,
    unannotated,
    session_first,
    one_key,
    may_read,
    Named(),
    Named().method,
    functools.partial(with_session),
    lambda messages, context: f"{messages[-1].content} None",
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_takes_what_it_asks_for(function: Any) -> None:
    assert Agent(function).run("hi").text == "hi None"
    assert gathered(Agent(function), "hi")[-1].text == "hi None"


def test_a_session_that_is_annotated_as_something_else_is_not_filled_and_says_so() -> None:
    with pytest.raises(ConfigurationError, match="session: Session"):
        Agent(by_name)


def test_a_function_writes_its_session() -> None:
    def my_agent(messages: Any, context: Any, session: Session) -> AgentResult:
        session["cart"] = [*session.get("cart", []), messages[-1].content]
        session.incr("n")
        return AgentResult("ok", data={"url_configs": [{"url": "https://example.com"}], "extra": 1})

    session = Session.from_dict({"cart": ["a"]})
    response = Agent(my_agent).run("b", session=session)
    assert response.session == {"cart": ["a", "b"], "n": 1}
    assert response.data.url_configs == [{"url": "https://example.com"}]
    assert response.to_message()["data"]["extra"] == 1


def test_a_function_may_read_the_conversation_and_the_context() -> None:
    def my_agent(messages: Any, context: Any) -> str:
        return f"{[message.role for message in messages]} {sorted(context)}"

    messages: list[Any] = [user("a"), {"role": "assistant", "content": "b"}, user("c")]
    assert Agent(my_agent).run(messages, context={"x": 1}).text == "['user', 'assistant', 'user'] ['x']"


def test_a_function_that_raises_leaves_the_session_as_it_was() -> None:
    def breaks(messages: Any, context: Any, session: Session) -> str:
        session["half"] = True
        raise ValueError("broken")

    session = Session()
    with pytest.raises(ValueError, match="broken"):
        Agent(breaks).run("hi", session=session)
    assert session.is_empty


@pytest.mark.parametrize("returned", [None, 7, {"text": "x"}, b"x"])
def test_what_is_returned_must_be_a_result_or_a_text(returned: Any) -> None:
    with pytest.raises(ConfigurationError, match="return an AgentResult, or a text"):
        Agent(lambda: returned).run("hi")


@pytest.mark.parametrize(
    "options",
    [
        {"data": {"session": {"admin": True}}},
        {"data": {"approvals": []}},
        {"data": {"tool_calls": []}},
        {"data": {"executed_tool_calls": []}},
        {"data": {"executed_approvals": []}},
        {"data": {"cmds": "no list"}},
        {"data": {"x": object()}},
        {"text": None},
        {"text": b"x"},
    ],
)
def test_a_result_refuses_what_the_protocol_or_the_library_does_not_allow(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        AgentResult(**options)


def proposing(*calls: ProposedCall, tools: Any = TOOLS) -> Agent:
    return Agent(lambda: AgentResult("May I?", approvals=calls), tools=tools)


def test_a_function_proposes_a_call_which_runs_when_it_is_approved() -> None:
    agent = proposing(ProposedCall(drop, {"volume": "pg"}, intent="Space."))
    first = agent.run("go")
    assert (first.text, first.stop_reason, first.session) == ("May I?", "tool_use", {})
    (asked,) = first.approvals
    assert (asked.name, asked.input, asked.intent) == ("drop", {"volume": "pg"}, "Space.")
    second = agent.chat(after=first, decisions={asked.id: True})
    assert second.session == {"dropped": ["pg"]}
    assert [event.type for event in gathered(agent, "go")] == ["approvals", "tool_calls", "text_delta", "done"]


@tool(requires_approval=True)
def other(volume: str) -> str:
    """Do something else."""
    return volume


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([ProposedCall(other, {"volume": "a"})], "none of the agent's tools"),
        ([ProposedCall(count)], "needs no approval"),
        ([ProposedCall(drop, {"volume": "a"}, id="")], "empty, too long or used twice"),
        ([ProposedCall(drop, {"volume": "a"}, id="x" * 257)], "empty, too long or used twice"),
        ([ProposedCall(drop, {"volume": "a"}, id="x")] * 2, "empty, too long or used twice"),
        ([ProposedCall(drop, {"volume": "a"})] * 33, "32 calls wait already"),
    ],
)
def test_a_call_that_could_never_be_approved_is_no_proposal(calls: Any, words: str) -> None:
    session = Session()
    with pytest.raises(ConfigurationError, match=words):
        proposing(*calls).run("go", session=session)
    assert session._state.own() == {}


@pytest.mark.parametrize("arguments", [{}, {"volume": 7}, {"volume": object()}])
def test_the_arguments_of_a_proposal_must_fit_the_tool(arguments: Any) -> None:
    with pytest.raises(ToolArgumentError):
        proposing(ProposedCall(drop, arguments)).run("go")


def test_a_proposal_and_a_result_show_no_values() -> None:
    assert "canary" not in repr(ProposedCall(drop, {"volume": "canary"}))
    assert "canary" not in repr(AgentResult("canary", data={"x": "canary"}))
