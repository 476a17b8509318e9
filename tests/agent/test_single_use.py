"""An approval is used once where a store keeps the session: whoever runs the agent, on every wire, and none is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dcaf import Session, tool
from dcaf.agent import Agent, AgentResult, ProposedCall, create_app
from dcaf.core import SessionStore, SessionUnavailable
from dcaf.tools.decisions import BEFORE, USED
from tests.agent.agents import call, lines_of
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, RING, mounted
from tests.stores_for_tests import MemoryLedger, ToldStore

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    RAN.clear()


@tool(requires_approval=True)
def pay(to: str, session: Session) -> str:
    """Pay."""
    RAN.append(to)
    session.append("paid", to)
    return f"paid {to}"


def asking(*names: str) -> Agent:
    """An agent that wants to pay some people, and then is done."""

    def agent_function(messages: Any, context: Any) -> Any:
        if messages[-1].data and messages[-1].data.executed_approvals:
            return "Done."
        return AgentResult("May I?", approvals=[ProposedCall(pay, {"to": name}, name) for name in names])

    return Agent(agent_function, tools=[pay])


def body_of(message: Any, held: Any = None) -> dict[str, Any]:
    return {"messages": [message], **({"data": {"session": held}} if held else {})}


ASK = {"role": "user", "content": "pay"}


def yes(*names: str) -> dict[str, Any]:
    said = [{"id": name, "name": "pay", "input": {"to": name}, "execute": True} for name in names]
    return {"role": "user", "data": {"approvals": said}}


def outputs(answer: Any) -> list[str]:
    return [item["output"] for item in json.loads(answer.body)["data"]["executed_approvals"]]


# one store, two approvals in a message


def test_two_approvals_of_one_message_are_used_up_together_or_not_at_all() -> None:
    """The store is away at the first question: one question is all there is."""
    store = ToldStore()
    app = create_app(asking("ann", "bob"), keys=RING, audience=AUDIENCE, store=store)
    held = call(app, body_of(ASK)).envelope
    store.happening["spend"] = SessionUnavailable(reason="away")
    first = call(app, body_of(yes("ann", "bob"), held))
    assert (first.status, RAN, store.used) == (503, [], set())
    del store.happening["spend"]
    second = call(app, body_of(yes("ann", "bob"), held))
    assert (second.status, sorted(RAN)) == (200, ["ann", "bob"])
    assert outputs(second) == ["paid ann", "paid bob"]
    assert store.steps.count("spend") == 2
    third = call(app, body_of(yes("ann", "bob"), held))
    assert (third.status, sorted(RAN)) == (200, ["ann", "bob"])
    assert outputs(third) == [USED, USED]


@pytest.mark.parametrize("away_at", [2, 3])
def test_a_store_that_is_away_for_the_second_of_two_loses_neither(away_at: int) -> None:
    """One was used before, so that each is asked for alone: the store takes the first of them, and is away then."""
    questions: list[Any] = []

    def be_away(keys: Any) -> None:
        questions.append(keys)
        if len(questions) == 1 + away_at:
            raise SessionUnavailable(reason="away")

    store = ToldStore(spend=be_away)
    app = create_app(asking("ann", "bob", "cy"), keys=RING, audience=AUDIENCE, store=store)
    held = call(app, body_of(ASK)).envelope
    assert outputs(call(app, body_of(yes("cy"), held))) == ["paid cy"]
    first = call(app, body_of(yes("ann", "cy", "bob"), held))
    assert (first.status, RAN) == (503, ["cy"])
    second = call(app, body_of(yes("ann", "cy", "bob"), held))
    assert (second.status, RAN) == (200, ["cy", "ann", "bob"])
    assert outputs(second) == ["paid ann", USED, "paid bob"]


def test_what_was_approved_beside_a_call_that_cannot_run_is_not_asked_for() -> None:
    """A call whose tool is gone is refused without a use of it."""
    asked: list[Any] = []
    store = ToldStore(spend=asked.append)
    held = call(create_app(asking("ann", "bob"), keys=RING, audience=AUDIENCE, store=store), body_of(ASK)).envelope
    without = create_app(Agent(lambda messages, context: "Done."), keys=RING, audience=AUDIENCE, store=store)
    assert call(without, body_of(yes("ann"), held)).status == 200
    assert (asked, store.used, RAN) == ([], set(), [])


# whoever runs the agent


def whole(agent: Agent) -> Callable[[Request], Any]:
    async def chat(request: Request) -> Response:
        response = await agent.run_async((await request.json())["messages"])
        return JSONResponse({"content": response.text, "data": response.data.model_dump(mode="json", exclude={"session"})})

    return chat


def streamed(agent: Agent) -> Callable[[Request], Any]:
    async def chat(request: Request) -> Response:
        messages = (await request.json())["messages"]

        async def lines() -> Any:
            async with aclosing(agent.run_stream(messages)) as events:
                async for event in events:
                    yield json.dumps({"type": event.type}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return chat


def in_thread(agent: Agent) -> Callable[[Request], Any]:
    def answer(messages: Any) -> str:
        return agent.run(messages).text

    async def chat(request: Request) -> Response:
        import anyio.to_thread

        messages = (await request.json())["messages"]
        return JSONResponse({"content": await anyio.to_thread.run_sync(answer, messages)})

    return chat


def inside_another(agent: Agent) -> Callable[[Request], Any]:
    async def agent_function(messages: Any, context: Any) -> str:
        return (await agent.run_async(messages)).text

    return whole(Agent(agent_function, agents=[agent]))


def below(endpoint: Callable[[Request], Any], store: SessionStore | None) -> Any:
    return mounted(Starlette(routes=[Route("/api/chat", endpoint, methods=["POST"])]), store=store)


def newest(body: bytes) -> Any:
    found = [line["data"]["session"] for line in lines_of(body) if "session" in (line.get("data") or {})]
    return found[-1]


def approving(body: bytes) -> dict[str, Any]:
    """A yes to what an answer asks for; inside another agent a call has an id of its own."""
    asked = next((line["data"]["approvals"] for line in lines_of(body) if "approvals" in (line.get("data") or {})), None)
    return {"role": "user", "data": {"approvals": [{**item, "execute": True} for item in asked]}} if asked else yes("ann")


ENDPOINTS = [whole, streamed, in_thread, inside_another]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_mounted_store_is_asked_by_whoever_runs_the_agent_below_it(endpoint: Any) -> None:
    app = below(endpoint(asking("ann")), MemoryLedger(branches=True))
    asked = call(app, body_of(ASK))
    assert asked.status == 200
    for _ in range(3):
        assert call(app, body_of(approving(asked.body), newest(asked.body))).status == 200
    assert RAN == ["ann"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_control_without_a_store_it_runs_again_with_the_session_of_before(endpoint: Any) -> None:
    app = below(endpoint(asking("ann")), None)
    asked = call(app, body_of(ASK))
    for _ in range(3):
        assert call(app, body_of(approving(asked.body), newest(asked.body))).status == 200
    assert RAN == ["ann"] * 3


def test_a_mounted_store_is_asked_on_a_socket() -> None:
    app = create_app(asking("ann"), keys=RING, audience=AUDIENCE, store=MemoryLedger(branches=True))
    held = call(app, body_of(ASK)).envelope
    told = []
    for _ in range(2):
        with Peer(app, "/api/chat-ws") as peer:
            peer.say(body_of(yes("ann"), held))
            events = [peer.frame()]
            while events[-1]["type"] != "done":
                events.append(peer.frame())
            told += [event["executed_approvals"][0]["output"] for event in events if event["type"] == "executed_approvals"]
    assert (RAN, told) == (["ann"], ["paid ann", USED])


def test_in_one_conversation_that_goes_on_the_session_itself_knows() -> None:
    app = create_app(asking("ann"), keys=RING, audience=AUDIENCE, store=MemoryLedger())
    held = call(app, body_of(ASK)).envelope
    first = call(app, body_of(yes("ann"), held))
    assert outputs(first) == ["paid ann"]
    assert outputs(call(app, body_of(yes("ann"), first.envelope))) == [BEFORE]
    assert call(app, {**body_of(yes("ann"), held), "again": True}).status == 409
    assert RAN == ["ann"]
