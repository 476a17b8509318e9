"""Which session a run takes, and what it says to what is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dcaf import ConfigurationError, Keyring, Session, SessionMiddleware, tool
from dcaf.agent import Agent, AgentResult, MalformedRequest, ProposedCall
from dcaf.agent.history import Messages
from dcaf.core.session_dict import SessionDict
from dcaf.testing import SessionClient
from tests.agent.agents import scripted, wants


def counting(messages: Any, context: Any, session: Session) -> str:
    return f"turn {session.incr('n')}"


AGENT = Agent(counting)


async def over_async(request: Request) -> JSONResponse:
    return JSONResponse({"content": (await AGENT.run_async("go")).text})


def over_sync(request: Request) -> JSONResponse:
    return JSONResponse({"content": AGENT.run("go").text})


@pytest.mark.parametrize("endpoint", [over_async, over_sync])
def test_below_the_middleware_a_run_takes_the_session_of_the_request(endpoint: Any) -> None:
    app = Starlette(routes=[Route("/api/chat", endpoint, methods=["POST"])])
    with SessionClient(SessionMiddleware(app, keys=Keyring.ephemeral(), audience="x")) as client:
        assert [client.send("go").text for _ in range(2)] == ["turn 1", "turn 2"]


def test_a_run_takes_the_dict_that_shows_a_session_for_the_session() -> None:
    shown = SessionDict({"n": 4})
    assert AGENT.run("go", session=shown).text == "turn 5"
    assert shown == {"n": 5}


def test_an_agent_in_a_tool_works_on_the_session_of_its_call_and_shares_its_fate() -> None:
    @tool
    async def asks(fails: bool, session: Session) -> str:
        answer = (await AGENT.run_async("go")).text
        if fails:
            raise ValueError
        return answer

    from dcaf.tools import Call, ToolRunner

    session = Session()
    asyncio.run(ToolRunner.of(session).run_all([Call(asks, {"fails": False}), Call(asks, {"fails": True})]))
    assert session.to_dict() == {"n": 1}


def test_elsewhere_a_run_begins_with_an_empty_session() -> None:
    assert [AGENT.run("go").session for _ in range(2)] == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize(
    ("session", "told"),
    [
        ([1], "not a list"),
        ("x", "not a str"),
        ([], "not a list"),
        ({"dcaf": {"token": "dcaf1s.k.e30.e30.x"}}, "The middleware opens those"),
    ],
)
def test_what_is_no_session_is_said_at_once(session: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        AGENT.run("go", session=session)


def test_a_context_is_a_dict() -> None:
    with pytest.raises(ConfigurationError, match="context= takes a dict, not a str"):
        AGENT.run("go", context="a")  # type: ignore[arg-type]


def test_decisions_are_about_an_answer() -> None:
    with pytest.raises(ConfigurationError, match="pass it as after="):
        AGENT.chat(decisions={"c1": True})


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "messages: the last message must be the user's"),
        ("", "messages: the last message must be the user's"),
        ([{"role": "user"}, {"content": "hi"}], "messages.1.role: Field required"),
    ],
)
def test_what_is_wrong_with_the_messages_stands_in_the_error(messages: Messages, told: str) -> None:
    with pytest.raises(MalformedRequest, match=told):
        AGENT.run(messages)


def test_chat_goes_on_in_a_loop_too() -> None:
    async def talk() -> dict[str, Any]:
        first = await AGENT.chat_async("one")
        again = [await AGENT.chat_async("two", after=first) for _ in range(2)]
        assert [response.text for response in again] == ["turn 2", "turn 2"], "each from a copy"
        return first.session

    assert asyncio.run(talk()) == {"n": 1}


@tool(requires_approval=True)
def drop(volume: str, session: Session) -> str:
    """Drop a volume."""
    session.append("dropped", volume)
    return f"dropped {volume}"


def proposing(volume: str) -> Agent:
    return Agent(scripted([wants("drop", {"volume": volume}, volume)]), tools=[drop])


def approve(response: Any, session: Session) -> Any:
    yes = [{**item.model_dump(), "execute": True} for item in response.data.approvals]
    message = {"role": "user", "data": {"approvals": yes}}
    return Agent(scripted("done"), tools=[drop]).run_async([message], session=session)


async def at_once(*turns: Any) -> list[Any]:
    return await asyncio.gather(*turns)


def test_turns_of_one_session_at_once_keep_the_approvals_of_both() -> None:
    session = Session()
    asked = asyncio.run(at_once(*(proposing(volume).run_async("go", session=session) for volume in "ab")))
    for response in asked:
        asyncio.run(approve(response, session))
    assert session["dropped"] == ["a", "b"]


def test_a_turn_beside_the_one_that_uses_an_approval_does_not_bring_it_back() -> None:
    async def slow(messages: Any, context: Any, session: Session) -> AgentResult:
        assert session.is_empty
        await asyncio.sleep(0)  # the other turn goes on
        await used.wait()
        return AgentResult("?", approvals=[ProposedCall(drop, {"volume": "b"})])

    async def uses() -> None:
        await approve(response, session)
        used.set()

    session, used = Session(), asyncio.Event()
    response = proposing("a").run("go", session=session)
    asyncio.run(at_once(Agent(slow, tools=[drop]).run_async("go", session=session), uses()))
    asyncio.run(approve(response, session))
    assert session["dropped"] == ["a"], "it was used once; the slow turn knew it as waiting"
