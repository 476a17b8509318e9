"""An agent inside another one: what it wants a person to approve, what it has used, and what clashed, reach the outer answer."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from dcaf import ConfigurationError, Session, tool
from dcaf.agent import Agent, AgentResponse, AgentResult, Message, ProposedCall, create_app
from dcaf.ledger import Ledger
from tests.agent.agents import exchange, gathered, lines_of, scripted, wants
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, messages_of, scope_of

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    RAN.clear()


@tool(requires_approval=True)
def drop(volume: str, session: Session) -> str:
    """Drop a volume."""
    RAN.append(volume)
    session.append("dropped", volume)
    return f"dropped {volume}"


@tool
def look(session: Session) -> str:
    """Look."""
    session.incr("looked")
    return "seen"


def storage(*volumes: str, name: str = "storage", **settings: Any) -> Agent:
    """An agent that wants to drop volumes."""
    calls = [wants("drop", {"volume": volume}, f"c{at}") for at, volume in enumerate(volumes or ("pg",))]
    return Agent(scripted(calls, *["It is done."] * 9), tools=[drop, look], name=name, **settings)


# how an inner agent may be asked


def awaited(inner: Agent) -> Any:
    @tool
    async def ask(question: str) -> str:
        return (await inner.run_async(question)).text or "(nothing)"

    return ask


def with_session(inner: Agent) -> Any:
    @tool
    async def ask(question: str, session: Session) -> str:
        return (await inner.run_async(question, session=session)).text or "(nothing)"

    return ask


def with_a_view(inner: Agent) -> Any:
    class Disk(Session):
        size: int = 1

    @tool
    async def ask(question: str, disk: Disk) -> str:
        return (await inner.run_async(question, session=disk)).text or "(nothing)"

    return ask


def streamed(inner: Agent) -> Any:
    @tool
    async def ask(question: str, session: Session) -> str:
        async with aclosing(inner.run_stream(question)) as events:
            return " ".join([event.text async for event in events if isinstance(event, AgentResponse)]) or "(nothing)"

    return ask


def in_a_thread(inner: Agent) -> Any:
    @tool
    def ask(question: str, session: Session) -> str:
        return inner.run(question).text or "(nothing)"

    return ask


def twice(inner: Agent) -> Any:
    middle = Agent(
        scripted([wants("ask", {"question": "?"}, "m1")], "ChatRequest."), tools=[awaited(inner)], agents=[inner], name="middle"
    )
    return awaited(middle)


def by_chat(inner: Agent) -> Any:
    @tool
    async def ask(question: str, session: Session) -> str:
        return (await inner.chat_async(question, session=session)).text or "(nothing)"

    return ask


WAYS: list[Callable[[Agent], Any]] = [awaited, with_session, with_a_view, streamed, in_a_thread, twice, by_chat]


def outer_of(ask: Any, *agents: Agent, text: str = "I have asked.", **settings: Any) -> Agent:
    calls = [wants("ask", {"question": "drop it"}, "o1")]
    return Agent(scripted(calls, *[text] * 9), tools=[ask], agents=agents, name="outer", **settings)


@pytest.mark.parametrize("way", WAYS)
def test_what_an_inner_agent_wants_approved_is_asked_in_the_outer_answer_and_runs_there(way: Any) -> None:
    inner = storage()
    outer = outer_of(way(inner), inner)
    asked = outer.run("drop the volume", session={"n": 1})
    assert [(item.name, item.input, item.description) for item in asked.approvals] == [("drop", {"volume": "pg"}, "Drop a volume.")]
    assert (asked.text, asked.stop_reason, asked.session) == ("I have asked.", "tool_use", {"n": 1})
    done = outer.chat(after=asked, decisions={asked.approvals[0].id: True})
    assert (RAN, done.session, done.approvals) == (["pg"], {"n": 1, "dropped": ["pg"]}, [])
    assert done.data.executed_approvals[0].output == "dropped pg"


@pytest.mark.parametrize("way", WAYS)
def test_it_waits_on_from_turn_to_turn_and_in_another_process(way: Any) -> None:
    """What is kept is the session and the messages; the agents of another worker are made of the same code."""
    inner = storage()
    asked = outer_of(way(inner), inner).run("drop the volume")
    other = Agent(scripted("Sunny.", "Done."), tools=[look], agents=[storage()], name="outer")
    second = other.run([*asked.messages, Message(role="user", content="weather?")], session=asked.state)
    assert second.approvals == asked.approvals
    other.chat(after=second, decisions={second.approvals[0].id: True})
    assert RAN == ["pg"]


@pytest.mark.parametrize("way", [way for way in WAYS if way is not twice])
def test_where_it_could_not_be_decided_the_model_and_the_operator_are_told_and_nothing_is_sealed(way: Any, caplog: Any) -> None:
    session = Session()
    response = outer_of(way(storage())).run("drop the volume", session=session)
    assert response.approvals == []
    assert session._state.own() == {}
    assert "storage wanted the approval of drop, inside a turn of outer" in caplog.text
    assert "agents=[...]" in caplog.text


def test_the_model_of_the_inner_agent_reads_that_nobody_can_be_asked() -> None:
    inner = Agent(scripted([wants("drop", {"volume": "pg"})], "I cannot."), tools=[drop], name="storage")
    told: list[Any] = []

    @tool
    async def ask(question: str, session: Session) -> str:
        response = await inner.run_async(question)
        told.extend(call.output for call in response.data.executed_tool_calls)
        return response.text

    outer = outer_of(ask)
    assert outer.run("go").data.executed_tool_calls[0].output == "I cannot."
    assert json.loads(told[0])["error"]["code"] == "tool-approval"
    assert "nobody can be asked" in told[0]


def test_the_agent_in_the_middle_is_not_enough_where_the_outermost_does_not_know_the_tool(caplog: Any) -> None:
    response = outer_of(twice(storage())).run("go")
    assert response.approvals == []
    assert "inside a turn of outer" in caplog.text


def test_the_outer_agent_may_have_the_tool_itself() -> None:
    inner = storage()
    outer = Agent(scripted([wants("ask", {"question": "?"})], "ChatRequest.", "Done."), tools=[awaited(inner), drop], name="outer")
    asked = outer.run("go")
    outer.chat(after=asked, decisions={asked.approvals[0].id: True})
    assert RAN == ["pg"]


def test_several_inner_agents_that_give_the_same_ids_lose_none() -> None:
    one, other = storage("a", "b", name="one"), storage("c", name="other")

    @tool(parallel=True)
    async def ask_one(session: Session) -> str:
        return (await one.run_async("go")).text

    @tool(parallel=True)
    async def ask_other(session: Session) -> str:
        return (await other.run_async("go")).text

    calls = [wants("ask_one", {}, "o1"), wants("ask_other", {}, "o2"), wants("drop", {"volume": "d"}, "c0")]
    outer = Agent(scripted(calls, "Done."), tools=[ask_one, ask_other, drop], agents=[one, other])
    asked = outer.run("go")
    assert sorted(str(item.input["volume"]) for item in asked.approvals) == ["a", "b", "c", "d"]
    assert len({item.id for item in asked.approvals}) == 4
    outer.chat(after=asked, decisions={item.id: True for item in asked.approvals})
    assert sorted(RAN) == ["a", "b", "c", "d"]


def test_several_runs_inside_one_tool_lose_none() -> None:
    inners = [storage(volume) for volume in "abc"]

    @tool
    async def ask(question: str, session: Session) -> str:
        return str(len(await asyncio.gather(*(inner.run_async("go", session=session) for inner in inners))))

    asked = outer_of(ask, *inners).run("go")
    assert sorted(str(item.input["volume"]) for item in asked.approvals) == ["a", "b", "c"]


def test_a_tool_that_fails_afterwards_leaves_nothing_waiting_and_nothing_shown() -> None:
    inner = storage()

    @tool
    async def ask(question: str, session: Session) -> str:
        await inner.run_async(question)
        raise RuntimeError

    session = Session()
    response = outer_of(ask, inner).run("go", session=session)
    assert (response.approvals, session._state.own()) == ([], {})


def test_a_tool_that_decides_itself_leaves_nothing_for_the_person() -> None:
    inner = storage()

    @tool
    async def ask(question: str, session: Session) -> str:
        asked = await inner.run_async(question, session=session)
        done = await inner.chat_async(after=asked, decisions={asked.approvals[0].id: True}, session=session)
        return done.text

    response = outer_of(ask, inner).run("go")
    assert (response.approvals, RAN, response.session) == ([], ["pg"], {"dropped": ["pg"]})


@pytest.mark.parametrize("own", [{}, {"x": 1}, Session(), None])
def test_a_session_of_its_own_is_told_where_nobody_outside_can_decide(own: Any, caplog: Any) -> None:
    inner = storage()

    @tool
    async def ask(question: str, session: Session) -> str:
        return (await inner.run_async(question, session=session.to_dict() if own is None else own)).text

    response = outer_of(ask, inner).run("go")
    assert response.approvals == []
    assert "waits for the approval of drop in a session of its own, inside a turn of outer" in caplog.text


def test_an_agent_function_that_hands_the_conversation_on_is_such_a_turn_too() -> None:
    inner = storage()

    async def router(messages: Any, context: Any, session: Session) -> str:
        if messages[-1].data and messages[-1].data.executed_approvals:
            return str(messages[-1].data.executed_approvals[0].output)
        return (await inner.run_async(messages, session=session)).text or "May I?"

    outer = Agent(router, agents=[inner])
    asked = outer.run("drop it")
    assert asked.needs_approval
    done = outer.chat(after=asked, decisions={asked.approvals[0].id: True})
    assert (done.text, RAN) == ("dropped pg", ["pg"])


def test_an_inner_agent_s_function_may_propose_too() -> None:
    inner = Agent(lambda: AgentResult("?", approvals=[ProposedCall(drop, {"volume": "pg"}, "f1")]), tools=[drop])
    asked = outer_of(awaited(inner), inner).run("go")
    assert [item.input for item in asked.approvals] == [{"volume": "pg"}]
    assert outer_of(awaited(inner)).run("go").approvals == []


def test_an_interceptor_that_asks_an_agent_is_inside_the_turn_too() -> None:
    inner = storage()

    async def before(request: Any) -> None:
        await inner.run_async("go")

    response = Agent(scripted("Hello."), agents=[inner], request_interceptors=before).run("hi")
    assert (response.text, len(response.approvals), response.stop_reason) == ("Hello.", 1, "tool_use")


def test_a_turn_that_runs_on_after_the_one_that_began_it_stands_alone(caplog: Any) -> None:
    """Its task has the context of the turn that is over."""
    inner, tasks, later = storage(), [], []

    @tool
    async def ask(question: str) -> str:
        async def run() -> None:
            await asyncio.sleep(0.01)
            later.append(await inner.run_async(question, session=own))

        tasks.append(asyncio.create_task(run()))
        return "later"

    async def turns() -> AgentResponse:
        response = await outer_of(ask, inner).run_async("go")
        await asyncio.gather(*tasks)
        return response

    own = Session()
    assert asyncio.run(turns()).approvals == []
    assert len(later[0].approvals) == 1


# the wires


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat-stream"])
def test_it_is_asked_and_decided_over_the_wire(path: str) -> None:
    inner = storage()
    app = create_app(outer_of(awaited(inner), inner), keys=RING, audience=AUDIENCE)

    def say(message: Any, held: Any) -> list[Any]:
        body = json.dumps({"messages": [message], "data": {"session": held}}).encode()
        return list(lines_of(asyncio.run(exchange(app, scope_of("POST", path, [JSON_TYPE]), messages_of(body))).body))

    lines = say({"role": "user", "content": "go"}, None)
    data = lines[-1]["data"] if path == "/api/chat" else next(line for line in lines if line["type"] == "approvals")
    yes = {"role": "user", "data": {"approvals": [{**data["approvals"][0], "execute": True}]}}
    say(yes, lines[-1]["data"]["session"])
    assert RAN == ["pg"]


def test_a_service_whose_inner_agents_need_approval_warns_too(caplog: Any) -> None:
    from dcaf.agent.app import _warn_once

    _warn_once.cache_clear()
    create_app(Agent(scripted("x"), agents=[storage()]), keys=RING, audience=AUDIENCE)
    assert "no ledger" in caplog.text


def test_the_warning_says_what_to_write_and_whoever_writes_it_is_not_warned(caplog: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from dcaf.agent.app import _warn_once

    def make(**settings: Any) -> list[str]:
        _warn_once.cache_clear()
        caplog.clear()
        create_app(Agent(scripted("x"), tools=[drop]), keys=RING, audience=AUDIENCE, **settings)
        return [text for text in caplog.messages if "ledger" in text]

    monkeypatch.chdir(tmp_path)
    (told,) = make()
    advice = re.search(r"Pass store=(Ledger\(.+\)) to create_app\.$", told)
    assert advice, told
    store = eval(advice[1].replace("...", repr(AUDIENCE)), {"Ledger": Ledger})
    assert make(store=store) == []


# settings


def test_two_tools_of_one_name_could_not_be_told_apart() -> None:
    @tool(name="drop", requires_approval=True)
    def other(volume: str) -> str:
        return ""

    for tools, agents in (([other], [storage()]), ([], [storage(), Agent(scripted("x"), tools=[other])])):
        with pytest.raises(ConfigurationError, match="Two tools that need approval are named 'drop'"):
            Agent(scripted("x"), tools=tools, agents=agents)
    Agent(scripted("x"), tools=[drop], agents=[storage(), storage()])


@pytest.mark.parametrize("wrong", [None, 7, "storage", storage(), [None], ["storage"], [Agent], {"a": 1}, [drop]])
def test_agents_takes_agents(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="agents= takes a list of Agents, not a"):
        Agent(scripted("x"), agents=wrong)


# what was used, and what clashed


def test_usage_counts_the_calls_of_tools_and_the_agents_inside() -> None:
    inner = Agent(scripted([wants("look"), wants("look", id_="c2")], "Seen."), tools=[look])
    outer = outer_of(awaited(inner), inner)
    usage = outer.run("go").usage
    alone = Agent(scripted([wants("look"), wants("look", id_="c2")], "Seen."), tools=[look]).run("drop it").usage
    assert (alone.requests, alone.tool_calls) == (2, 2)
    assert (usage.requests, usage.tool_calls) == (4, 3)
    assert usage.output_tokens > alone.output_tokens > 0


def test_usage_counts_what_an_inner_agent_used_before_it_failed() -> None:
    inner = Agent(scripted([wants("look")], ConnectionError("x")), tools=[look])
    usage = outer_of(awaited(inner)).run("go").usage
    assert (usage.requests, usage.tool_calls) == (3, 2)


def test_usage_counts_what_was_approved_and_two_levels() -> None:
    inner = storage()
    outer = outer_of(twice(inner), inner)
    asked = outer.run("go")
    assert (asked.usage.requests, asked.usage.tool_calls) == (5, 2)
    done = outer.chat(after=asked, decisions={asked.approvals[0].id: True})
    assert (done.usage.requests, done.usage.tool_calls) == (1, 1)


def test_a_function_s_own_agents_are_counted() -> None:
    inner = Agent(scripted([wants("look")], "Seen."), tools=[look])

    async def asks(messages: Any) -> str:
        return (await inner.run_async("go")).text

    assert Agent(asks).run("go").usage.requests == 2


async def counts(messages: Any, context: Any, session: Session) -> str:
    number = session.get("n", 0)
    await asyncio.sleep(0.005)
    session["n"] = number + 1
    return "counted"


@tool
async def count_slowly(session: Session) -> str:
    """Count."""
    number = session.get("n", 0)
    await asyncio.sleep(0.005)
    session["n"] = number + 1
    return "counted"


async def count_before(seen: Any) -> None:
    number = seen.session.get("n", 0)
    await asyncio.sleep(0.005)
    seen.session["n"] = number + 1


COUNTING: list[Callable[[], Agent]] = [
    lambda: Agent(counts, name="counter"),
    lambda: Agent(scripted([wants("count_slowly")], "x"), tools=[count_slowly], name="counter"),
    lambda: Agent(scripted("x"), request_interceptors=count_before, name="counter"),
    lambda: Agent(scripted("x"), response_interceptors=count_before, name="counter"),
]


@pytest.mark.parametrize("make", COUNTING, ids=["function", "tool", "request interceptor", "response interceptor"])
@pytest.mark.parametrize("streams", [False, True])
def test_runs_on_one_session_tell_of_each_change_that_was_lost(make: Any, streams: bool, caplog: Any) -> None:
    async def one(session: Session) -> AgentResponse:
        if not streams:
            response: AgentResponse = await make().run_async("go", session=session)
            return response
        async with aclosing(make().run_stream("go", session=session)) as events:
            found = [event async for event in events][-1]
            assert isinstance(found, AgentResponse)
            return found

    async def five(session: Session) -> list[AgentResponse]:
        return await asyncio.gather(*(one(session) for _ in range(5)))

    session = Session.from_dict({"n": 0})
    with caplog.at_level(logging.WARNING):
        responses = asyncio.run(five(session))
    lost = 5 - session["n"]
    conflicts = [conflict for response in responses for conflict in response.conflicts]
    assert lost == len(conflicts) == caplog.text.count("counter was kept over a change from outside (stale-read)") > 0
    assert {(conflict.key, conflict.kept.tool) for conflict in conflicts} == {("n", "counter")}


def test_runs_that_do_not_meet_tell_of_nothing(caplog: Any) -> None:
    session = Session.from_dict({"n": 0})
    for _ in range(3):
        assert Agent(counts).run("go", session=session).conflicts == []
    assert (session["n"], caplog.text) == (3, "")


def test_runs_that_only_count_lose_nothing_and_tell_of_nothing(caplog: Any) -> None:
    async def adds(messages: Any, context: Any, session: Session) -> str:
        await asyncio.sleep(0.001)
        return str(session.incr("n"))

    async def five(session: Session) -> None:
        await asyncio.gather(*(Agent(adds).run_async("go", session=session) for _ in range(5)))

    session = Session()
    asyncio.run(five(session))
    assert (session["n"], caplog.text) == (5, "")


def test_calls_of_one_turn_that_clash_stand_in_the_answer() -> None:
    @tool(parallel=True)
    async def beside(session: Session) -> str:
        number = session.get("n", 0)
        await asyncio.sleep(0.005)
        session["n"] = number + 1
        return ""

    response = Agent(scripted([wants("beside", id_="a"), wants("beside", id_="b")], "x"), tools=[beside]).run("go")
    assert [(conflict.key, conflict.kept.tool, conflict.kept.id) for conflict in response.conflicts] == [("n", "beside", "b")]


def test_what_clashed_inside_an_inner_agent_stands_in_the_outer_answer() -> None:
    @tool
    async def ask(question: str, session: Session) -> str:
        await asyncio.gather(*(Agent(counts, name="inner").run_async("go", session=session) for _ in range(2)))
        return "asked"

    response = outer_of(ask).run("go")
    assert [(conflict.key, conflict.kept.tool) for conflict in response.conflicts] == [("n", "inner")]


def test_an_approved_call_that_clashes_with_another_turn_is_told(caplog: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @tool(requires_approval=True)
    def slowly(session: Session) -> str:
        number = session.get("n", 0)
        begun.set()
        go_on.wait(5)
        session["n"] = number + 1
        return ""

    agent, session = Agent(scripted([wants("slowly")], "x"), tools=[slowly]), Session()
    asked = agent.run("go", session=session)
    thread = threading.Thread(target=agent.run, args=([asked.decided({"c1": True})],), kwargs={"session": session})
    thread.start()
    assert begun.wait(5)
    session["n"] = 7
    go_on.set()
    thread.join()
    assert session["n"] == 1
    assert "slowly was kept over a change from outside" in caplog.text


def test_two_turns_of_one_session_that_give_a_call_the_same_id_are_told(caplog: Any) -> None:
    """Some models number their calls anew in each turn, and these two know nothing of one another."""

    async def both(session: Session) -> list[AgentResponse]:
        return await asyncio.gather(*(storage(volume).run_async("go", session=session) for volume in "ab"))

    session = Session()
    asyncio.run(both(session))
    assert len(session._state.own()["approvals"]) == 1
    assert "gave way to another turn's call of the same id" in caplog.text


def test_events_of_a_stream_tell_of_inner_calls_at_its_end() -> None:
    inner = storage()
    kinds = [event.type for event in gathered(outer_of(awaited(inner), inner), "go") if event.type != "text_delta"]
    assert kinds == ["intermittent_update", "executed_tool_calls", "approvals", "tool_calls", "done"]
