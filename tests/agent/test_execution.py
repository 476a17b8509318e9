"""Approved calls: used in the step in which they begin, told to the client before, and kept whatever comes after."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import anyio
import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from dcaf import Session, tool
from dcaf.agent import Agent, AgentResult, ProposedCall, RunConfig, TurnTimeoutError, create_app
from dcaf.agent.approvals import NOT_BEGUN, STOPPED
from dcaf.agent.runner import DECIDED_BEFORE, UNANSWERED
from dcaf.core import SessionUnavailable
from dcaf.tools.decisions import BEFORE
from dcaf.tools.proposals import PENDING
from tests.agent.agents import exchange, gathered, lines_of
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, messages_of, mounted, opened, scope_of
from tests.stores_for_tests import ToldStore

RAN: list[str] = []
SHORT = timedelta(milliseconds=80)


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    RAN.clear()


@tool(requires_approval=True)
def pay(to: str, session: Session) -> str:
    """Pay."""
    RAN.append(to)
    session.append("paid", to)
    return f"paid {to}"


@tool(requires_approval=True)
async def pay_slowly(to: str, session: Session) -> str:
    """Pay, and wait."""
    RAN.append(to)
    session.append("paid", to)
    await anyio.sleep(30)
    return f"paid {to}"


@tool(requires_approval=True, parallel=True)
async def pay_beside(to: str) -> str:
    """Pay beside others."""
    RAN.append(to)
    await anyio.sleep(0.05)
    return f"paid {to}"


def asking(*calls: tuple[Any, str], answer: Any = "Done.", **settings: Any) -> Agent:
    """An agent that wants these calls approved, and then answers: with a text, or what a function returns or raises."""

    async def agent_function(messages: Any, context: Any, session: Session) -> Any:
        if messages[-1].content == "pay":
            return AgentResult("?", approvals=[ProposedCall(one, {"to": to}, to) for one, to in calls])
        return await answer(session) if callable(answer) else answer

    return Agent(agent_function, tools=[pay, pay_slowly, pay_beside], **settings)


def yes(*calls: tuple[Any, str]) -> dict[str, Any]:
    return {
        "role": "user",
        "data": {"approvals": [{"id": to, "name": one.name, "input": {"to": to}, "execute": True} for one, to in calls]},
    }


def stopping(stop: Any) -> Any:
    """An agent function that is stopped while it thinks."""

    async def agent_function(session: Session) -> str:
        session["talked"] = True
        stop()
        await anyio.sleep(30)
        return ""

    return agent_function


def waiting_in(session: Session) -> list[str]:
    return list(session._state.own().get(PENDING, {}))


# in a program


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_run_keeps_what_was_approved_and_nothing_of_the_rest(backend: str) -> None:
    async def run() -> Session:
        session, scope = Session(), anyio.CancelScope()
        agent = asking((pay, "ann"), answer=stopping(scope.cancel))
        await agent.run_async("pay", session=session)
        with scope:
            await agent.run_async([yes((pay, "ann"))], session=session)
        return session

    session = anyio.run(run, backend=backend)
    assert (RAN, session.to_dict(), waiting_in(session)) == (["ann"], {"paid": ["ann"]}, [])
    assert asking((pay, "ann")).run([yes((pay, "ann"))], session=session).text == DECIDED_BEFORE
    assert RAN == ["ann"]


def test_a_task_that_is_cancelled_without_a_scope_keeps_it_too() -> None:
    async def run() -> Session:
        session = Session()
        tasks: list[asyncio.Task[Any]] = []
        agent = asking((pay, "ann"), answer=stopping(lambda: tasks[0].cancel()))  # noqa: PLW0108 - it is made later
        await agent.run_async("pay", session=session)
        tasks.append(asyncio.create_task(agent.run_async([yes((pay, "ann"))], session=session)))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        return session

    session = asyncio.run(run())
    assert (RAN, session.to_dict(), waiting_in(session)) == (["ann"], {"paid": ["ann"]}, [])


@pytest.mark.parametrize("stop_at", [0, 1, 2, 3])
def test_whoever_closes_a_stream_of_events_early_keeps_it(stop_at: int) -> None:
    async def run() -> Session:
        session, agent = Session(), asking((pay, "ann"))
        await agent.run_async("pay", session=session)
        async with aclosing(agent.run_stream([yes((pay, "ann"))], session=session)) as events:
            for _ in range(stop_at):
                await anext(events)
        return session

    session = anyio.run(run)
    assert (waiting_in(session), RAN) == ((["ann"], []) if stop_at == 0 else ([], ["ann"]))


def test_a_call_that_is_cancelled_while_it_runs_is_used_and_leaves_nothing_of_its_own() -> None:
    async def run() -> Session:
        session, agent = Session(), asking((pay_slowly, "ann"))
        await agent.run_async("pay", session=session)
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(agent.run_async, [yes((pay_slowly, "ann"))], session=session))
            while not RAN:  # noqa: ASYNC110 - the tool has no event of its own
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        return session

    session = anyio.run(run)
    assert (RAN, session.to_dict(), waiting_in(session)) == (["ann"], {}, [])


def test_each_call_says_what_came_of_it_where_the_time_is_over() -> None:
    """The first has ended, the second runs, and the third has not begun: it waits on."""
    calls = [(pay, "ann"), (pay_slowly, "bob"), (pay, "cid")]
    session, agent = Session(), asking(*calls)
    agent.run("pay", session=session)
    late = asking(*calls, answer=stopping(int), config=RunConfig(timeout=SHORT))
    response = late.run([yes(*calls)], session=session)
    assert [item.output for item in response.data.executed_approvals] == ["paid ann", STOPPED, NOT_BEGUN]
    assert (response.stop_reason, response.text) == ("error", UNANSWERED)
    assert (RAN, waiting_in(session), response.session) == (["ann", "bob"], ["cid"], {"paid": ["ann"]})
    assert [item.id for item in response.approvals] == ["cid"]
    again = agent.run([yes(*calls)], session=session)
    assert [item.output for item in again.data.executed_approvals] == [BEFORE, BEFORE, "paid cid"]
    assert RAN == ["ann", "bob", "cid"]


def test_calls_that_need_not_wait_for_one_another_run_side_by_side() -> None:
    calls = [(pay_beside, name) for name in "abcdefgh"]
    session, agent = Session(), asking(*calls)
    agent.run("pay", session=session)
    start = time.monotonic()
    response = agent.run([yes(*calls)], session=session)
    assert time.monotonic() - start < 0.3
    assert len(response.data.executed_approvals) == len(RAN) == 8
    assert response.usage.tool_calls == 8


def test_a_call_that_two_turns_approve_at_once_runs_once() -> None:
    async def run() -> list[Any]:
        session, agent = Session(), asking((pay, "ann"))
        await agent.run_async("pay", session=session)
        return await asyncio.gather(*(agent.run_async([yes((pay, "ann"))], session=session) for _ in range(8)))

    responses = anyio.run(run)
    outputs = sorted(item.output for response in responses for item in response.data.executed_approvals)
    assert outputs == [BEFORE] * 7 + ["paid ann"]
    assert RAN == ["ann"]


def test_a_call_that_threads_approve_at_once_runs_once() -> None:
    session, agent = Session(), asking((pay, "ann"))
    agent.run("pay", session=session)
    threads = [threading.Thread(target=agent.run, args=([yes((pay, "ann"))],), kwargs={"session": session}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (RAN, session["paid"]) == (["ann"], ["ann"])


def test_what_a_turn_cannot_keep_at_its_end_does_not_take_back_what_was_approved() -> None:
    """The two changes of one value are an error when the turn is committed."""

    async def both(session: Session) -> str:
        one, other = session.get("x", as_type=list[int]), session["x"]
        assert one is not None
        one.append(1)
        other.append(2)
        return "Done."

    session, agent = Session.from_dict({"x": [0]}), asking((pay, "ann"), answer=both)
    agent.run("pay", session=session)
    response = agent.run([yes((pay, "ann"))], session=session)
    assert (response.stop_reason, waiting_in(session), RAN) == ("error", [], ["ann"])
    assert response.session == {"x": [0], "paid": ["ann"]}


def test_what_a_request_interceptor_did_is_seen_by_an_approved_call_and_kept_with_it() -> None:
    @tool(requires_approval=True)
    def pay_as(to: str, session: Session) -> str:
        return f"{session['who']} paid {to}"

    async def fails(messages: Any, context: Any) -> str:
        raise ValueError

    def who(request: Any) -> None:
        request.session["who"] = "mira"

    session = Session()
    Agent(lambda: AgentResult("?", approvals=[ProposedCall(pay_as, {"to": "ann"}, "c1")]), tools=[pay_as]).run(
        "pay", session=session
    )
    call = {"id": "c1", "name": "pay_as", "input": {"to": "ann"}, "execute": True}
    response = Agent(fails, tools=[pay_as], request_interceptors=who).run(
        [{"role": "user", "data": {"approvals": [call]}}], session=session
    )
    assert response.data.executed_approvals[0].output == "mira paid ann"
    assert response.session == {"who": "mira"}


def test_a_rejection_of_a_turn_that_fails_waits_on_so_that_the_turn_can_be_sent_again() -> None:
    async def fails(session: Session) -> str:
        raise ValueError

    session = Session()
    asking((pay, "ann")).run("pay", session=session)
    no = {"role": "user", "data": {"approvals": [{"id": "ann", "name": "pay", "input": {"to": "ann"}, "rejection_reason": "no"}]}}
    with pytest.raises(ValueError):
        asking((pay, "ann"), answer=fails).run([no], session=session)
    assert waiting_in(session) == ["ann"]


def test_an_approval_that_is_used_inside_a_tool_stays_used_where_the_tool_fails() -> None:
    """The effect was done, whatever becomes of the call around it; what it wrote shares the fate of that call."""
    inner, said = asking((pay, "ann")), [yes((pay, "ann"))]

    @tool
    async def asks(session: Session) -> str:
        await inner.run_async(said, session=session)
        raise RuntimeError

    from dcaf.tools import Call, ToolRunner

    session = Session()
    inner.run("pay", session=session)
    asyncio.run(ToolRunner.of(session).run_all([Call(asks, {})]))
    assert (RAN, session.to_dict(), waiting_in(session)) == (["ann"], {}, [])


def test_an_approval_that_a_tool_proposed_and_used_leaves_no_trace_where_the_tool_fails() -> None:
    inner, said = asking((pay, "ann")), [yes((pay, "ann"))]

    @tool
    async def asks(session: Session) -> str:
        await inner.run_async("pay", session=session)
        await inner.run_async(said, session=session)
        raise RuntimeError

    from dcaf.tools import Call, ToolRunner

    session = Session()
    asyncio.run(ToolRunner.of(session).run_all([Call(asks, {})]))
    assert (session.to_dict(), session._state.own()) == ({}, {})


def test_a_thread_that_gets_its_place_after_the_turn_does_not_begin() -> None:
    """All places among the threads are taken until the turn's time is over."""

    async def run() -> Session:
        session, agent = Session(), asking((pay, "ann"), config=RunConfig(timeout=SHORT))
        await agent.run_async("pay", session=session)
        limiter, release = anyio.to_thread.current_default_thread_limiter(), threading.Event()
        async with anyio.create_task_group() as group:
            for _ in range(int(limiter.total_tokens)):
                group.start_soon(functools.partial(anyio.to_thread.run_sync, release.wait))
            await anyio.sleep(0.02)
            try:
                with pytest.raises(TurnTimeoutError):
                    await agent.run_async([yes((pay, "ann"))], session=session)
            finally:
                release.set()
        await anyio.sleep(0.05)
        return session

    session = anyio.run(run)
    assert (RAN, waiting_in(session)) == ([], ["ann"])


def test_an_approved_call_runs_under_trio() -> None:
    session, agent = Session(), asking((pay, "ann"))
    agent.run("pay", session=session)
    response = trio.run(functools.partial(agent.run_async, [yes((pay, "ann"))], session=session))
    assert response.data.executed_approvals[0].output == "paid ann"


# on the wire


def events_of(
    agent: Agent, message: Any, held: Any, *, send: Any = None, path: str = "/api/chat-stream", **settings: Any
) -> list[Any]:
    app = create_app(agent, keys=RING, audience=AUDIENCE, **settings)
    body = json.dumps({"messages": [message], "data": {"session": held}}).encode()
    sent = asyncio.run(exchange(app, scope_of("POST", path, [JSON_TYPE]), messages_of(body)))
    return list(lines_of(sent.body))


def asked_on(agent: Agent) -> Any:
    return events_of(agent, {"role": "user", "content": "pay"}, None)[-1]["data"]["session"]


def test_the_client_is_sent_the_session_before_a_call_begins_and_when_it_has_ended() -> None:
    agent = asking((pay, "ann"))
    held = asked_on(agent)
    lines = events_of(agent, yes((pay, "ann")), held)
    assert [line["type"] for line in lines] == ["session", "session", "executed_approvals", "text_delta", "done"]
    states = [opened(line["data"]["session"]) for line in lines if "data" in line]
    assert states == [{}, {"paid": ["ann"]}, {"paid": ["ann"]}]
    for line in lines[:2]:
        again = events_of(agent, yes((pay, "ann")), line["data"]["session"])
        assert again[0]["executed_approvals"][0]["output"] == BEFORE
    assert RAN == ["ann"]


def test_a_client_that_cannot_be_reached_before_the_call_has_nothing_run() -> None:
    agent, sent = asking((pay, "ann")), []
    app = create_app(agent, keys=RING, audience=AUDIENCE)
    held = asked_on(agent)
    body = json.dumps({"messages": [yes((pay, "ann"))], "data": {"session": held}}).encode()
    coming = messages_of(body)

    async def receive() -> Any:
        return coming.pop() if coming else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError
        sent.append(message)

    anyio.run(app, scope_of("POST", "/api/chat-stream", [JSON_TYPE]), receive, send)
    assert RAN == []
    assert events_of(agent, yes((pay, "ann")), held)[-1]["data"]["session"]["paid"] == ["ann"]


def test_a_client_that_reads_nothing_has_nothing_run_when_the_time_is_over() -> None:
    agent = asking((pay, "ann"), config=RunConfig(timeout=SHORT))
    app = create_app(agent, keys=RING, audience=AUDIENCE)
    body = json.dumps({"messages": [yes((pay, "ann"))], "data": {"session": asked_on(agent)}}).encode()
    coming = messages_of(body)

    async def receive() -> Any:
        return coming.pop() if coming else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        if b'"session"' in message.get("body", b""):
            await asyncio.sleep(1)

    anyio.run(app, scope_of("POST", "/api/chat-stream", [JSON_TYPE]), receive, send)
    assert RAN == []


def test_a_store_that_refuses_the_session_in_between_has_nothing_run_and_nothing_used_up() -> None:
    def refuse(_: Any) -> None:
        if len(store.committed) == 1:
            raise SessionUnavailable(reason="down")

    agent, store = asking((pay, "ann")), ToldStore(commit=refuse)
    held = events_of(agent, {"role": "user", "content": "pay"}, None, store=store)[-1]["data"]["session"]
    lines = events_of(agent, yes((pay, "ann")), held, store=store)
    assert [line.get("code") for line in lines] == ["session-unavailable"]
    assert (RAN, store.used, store.steps.count("spend")) == ([], set(), 1)


@pytest.mark.parametrize("media_type", ["application/x-ndjson", "text/event-stream"])
def test_a_stream_of_ones_own_below_the_middleware_is_told_too(media_type: str) -> None:
    agent = asking((pay, "ann"))

    async def chat(request: Any) -> StreamingResponse:
        messages = (await request.json())["messages"]

        async def lines() -> Any:
            async with aclosing(agent.run_stream(messages)) as events:
                async for event in events:
                    line = json.dumps({"type": event.type})
                    yield f"data: {line}\n\n" if media_type == "text/event-stream" else f"{line}\n"

        return StreamingResponse(lines(), media_type=media_type)

    app = mounted(Starlette(routes=[Route("/", chat, methods=["POST"])]))
    held = None
    for message in ({"role": "user", "content": "pay"}, yes((pay, "ann"))):
        body = json.dumps({"messages": [message], "data": {"session": held}}).encode()
        sent = asyncio.run(exchange(app, scope_of("POST", "/", [JSON_TYPE]), messages_of(body)))
        lines = [json.loads(line.removeprefix(b"data: ")) for line in sent.body.splitlines() if b"{" in line]
        held = next(line["data"]["session"] for line in reversed(lines) if "data" in line)
    assert [line["type"] for line in lines] == ["session", "session", "executed_approvals", "text_delta", "done"]
    assert opened(held) == {"paid": ["ann"]}


def test_a_json_answer_of_ones_own_carries_it_at_its_end() -> None:
    agent = asking((pay, "ann"))

    async def chat(request: Any) -> Any:
        from starlette.responses import JSONResponse

        response = await agent.run_async((await request.json())["messages"])
        return JSONResponse({"role": "assistant", "content": response.text})

    app, held = mounted(Starlette(routes=[Route("/", chat, methods=["POST"])])), None
    for message in ({"role": "user", "content": "pay"}, yes((pay, "ann"))):
        body = json.dumps({"messages": [message], "data": {"session": held}}).encode()
        held = asyncio.run(exchange(app, scope_of("POST", "/", [JSON_TYPE]), messages_of(body))).envelope
    assert opened(held) == {"paid": ["ann"]}


def test_a_run_on_another_session_than_the_request_s_sends_nothing_of_it() -> None:
    agent, own = asking((pay, "ann")), Session()
    agent.run("pay", session=own)

    async def chat(request: Any) -> StreamingResponse:
        async def lines() -> Any:
            request.scope["dcaf.session"]["half"] = True
            await agent.run_async([yes((pay, "ann"))], session=own)
            del request.scope["dcaf.session"]["half"]
            yield '{"type": "done"}\n'

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    app = mounted(Starlette(routes=[Route("/", chat, methods=["POST"])]))
    sent = asyncio.run(exchange(app, scope_of("POST", "/", [JSON_TYPE]), messages_of(b'{"messages": []}')))
    assert [json.loads(line)["type"] for line in sent.body.splitlines()] == ["done"]
    assert RAN == ["ann"]


def test_a_stream_from_a_thread_s_own_loop_is_not_written_from_there() -> None:
    """A sync run in a thread of the application's own has another event loop than the stream."""
    agent = asking((pay, "ann"))

    async def chat(request: Any) -> StreamingResponse:
        messages = (await request.json())["messages"]

        async def lines() -> Any:
            await asyncio.to_thread(lambda: asyncio.run(agent.run_async(messages)))
            yield '{"type": "done"}\n'

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    app = mounted(Starlette(routes=[Route("/", chat, methods=["POST"])]))
    held = None
    for message in ({"role": "user", "content": "pay"}, yes((pay, "ann"))):
        body = json.dumps({"messages": [message], "data": {"session": held}}).encode()
        sent = asyncio.run(exchange(app, scope_of("POST", "/", [JSON_TYPE]), messages_of(body)))
        lines = [json.loads(line) for line in sent.body.splitlines()]
        held = lines[-1]["data"]["session"]
    assert [line["type"] for line in lines] == ["done"]
    assert opened(held) == {"paid": ["ann"]}


def test_the_stages_of_a_stream_are_the_same_in_a_program() -> None:
    agent, session = asking((pay, "ann")), Session()
    agent.run("pay", session=session)
    assert [event.type for event in gathered(agent, [yes((pay, "ann"))], session=session)] == [
        "executed_approvals",
        "text_delta",
        "done",
    ]
