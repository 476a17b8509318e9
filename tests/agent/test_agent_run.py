"""`agent.run` in a program: what goes in, what comes out, and the session of before where anything fails."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import threading
import time
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import anyio
import pytest
import trio
from pydantic_ai.messages import ModelMessage, TextPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel

from dcaf import Session, current_session
from dcaf.agent import (
    Agent,
    AgentResponse,
    AgentResult,
    Approval,
    MalformedRequest,
    Message,
    ModelFailedError,
    ModelLimitError,
    RunConfig,
    StreamingMode,
    TurnTimeoutError,
)
from dcaf.agent.approvals import STOPPED
from dcaf.agent.runner import DECIDED_BEFORE, NO_TOOL, NOT_WAITING, UNANSWERED
from dcaf.core import ConfigurationError, SessionError, SessionStore, SessionUnavailable
from dcaf.tools.decisions import USED
from tests.agent.agents import (
    TOOLS,
    Clock,
    agent_of,
    asked_of,
    count,
    drop,
    gathered,
    held,
    model_of,
    note,
    scripted,
    user,
    wants,
)
from tests.stores_for_tests import ToldStore

MODES = list(StreamingMode)
SHORT = timedelta(milliseconds=80)


# what goes in


@pytest.mark.parametrize("messages", ["hi", [{"role": "user", "content": "hi"}], [Message(role="user", content="hi")]])
def test_a_text_dicts_and_messages_are_a_conversation(messages: Any) -> None:
    assert agent_of().run(messages).text == "You said hi"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "",
        [{"role": "assistant", "content": "hi"}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": "", "data": {"session": {"a": 1}}}],
        [{"role": "user", "content": "", "data": {"approvals": [{"id": "c1", "name": "drop"}]}}],
        [{"role": "user", "content": "", "data": {"cmds": ["ls"]}}],
        [{"role": "system", "content": "hi"}],
        [{"content": "hi"}],
        [{"role": "user", "content": 7}],
        ["hi"],
        [None],
        [{"role": "user", "content": "hi", "data": {"approvals": [{"id": "", "name": "x"}]}}],
        [{"role": "user", "content": "hi", "data": {"approvals": [{"id": "x" * 257, "name": "x"}]}}],
    ],
)
def test_what_is_no_conversation_is_refused_with_a_path(messages: Any) -> None:
    session = Session.from_dict({"n": 1})
    with pytest.raises(MalformedRequest) as caught:
        agent_of().run(messages, session=session)
    assert caught.value.problems
    assert session.to_dict() == {"n": 1}


def test_the_problems_of_a_conversation_name_no_values_and_are_few() -> None:
    item = {name: ["canary"] for name in Approval.model_fields}
    data = {name: [item] for name in ("approvals", "tool_calls", "executed_approvals", "executed_tool_calls")}
    with pytest.raises(MalformedRequest) as caught:
        agent_of().run([user("hi"), {"role": "user", "data": data}])
    assert "canary" not in str(caught.value.problems)
    assert caught.value.problems[0][0] == "messages.1.data.tool_calls.0.id"
    assert len(caught.value.problems) == 20


def test_a_session_may_be_a_dict_which_is_never_changed() -> None:
    given = {"n": 1, "notes": [{"a": []}]}
    before = copy.deepcopy(given)
    response = agent_of().run('call count\ncall note {"text": "x"}', session=given)
    assert response.session == {"n": 2, "notes": [{"a": []}, "x"]}
    assert given == before
    response.session["notes"].append("y")
    assert response.session["notes"] == [{"a": []}, "x"]


def test_a_session_may_be_a_session_which_is_updated() -> None:
    session = Session.from_dict({"n": 1})
    response = agent_of().run("call count", session=session)
    assert response.state is session
    assert session["n"] == 2
    session["n"] = 7
    assert response.session == {"n": 2}
    assert session.is_modified


def test_no_session_is_an_empty_one() -> None:
    assert agent_of().run("call count").session == {"n": 1}
    assert agent_of().run("hello").session == {}


def test_messages_are_not_changed() -> None:
    messages = [user("call count"), user("call count", session={"n": 1})]
    before = [message.model_dump() for message in messages]
    given = list(messages)
    agent_of(request_interceptors=[_shout]).run(given)
    assert given == messages
    assert [message.model_dump() for message in messages] == before


def _shout(request: Any) -> None:
    for message in request.messages:
        message.content = "changed"
    request.messages.append(user("more"))


# what comes out


def test_the_result_is_fed_to_the_next_turn() -> None:
    agent = agent_of()
    first = agent.run("call count")
    second = agent.run([*first.messages, user("call count")], session=first.session)
    assert second.session == {"n": 2}
    third = agent.chat("call count", after=second)
    assert third.session == {"n": 3}
    assert [message.content for message in third.messages] == [
        "call count",
        "Done: 1",
        "call count",
        "Done: 2",
        "call count",
        "Done: 3",
    ]


def test_the_message_of_the_protocol_has_the_session() -> None:
    message = agent_of().run("call count").to_message()
    assert message["role"] == "assistant"
    assert message["content"] == "Done: 1"
    assert message["data"]["session"] == {"n": 1}
    assert message["data"]["executed_tool_calls"][0]["output"] == "1"


def test_usage_is_summed_over_the_calls_of_the_model() -> None:
    response = agent_of().run("call count")
    assert response.usage.requests == 2
    assert response.usage.output_tokens > 0


@pytest.mark.parametrize("mode", MODES)
def test_the_events_of_a_stream_end_with_the_response(mode: StreamingMode) -> None:
    events = gathered(agent_of(config=RunConfig(streaming_mode=mode)), "call count", session={"n": 1})
    kinds = [event.type for event in events]
    assert kinds[:2] == ["intermittent_update", "executed_tool_calls"]
    assert kinds[-1] == "done"
    assert isinstance(events[-1], AgentResponse)
    texts = [event.text for event in events if event.type == "text_delta"]
    assert "".join(texts) == events[-1].text == "Done: 2"
    assert len(texts) == (1 if mode is StreamingMode.NONE else 2)


def test_words_before_and_after_a_call_are_apart() -> None:
    agent = agent_of(scripted([TextPart("Let me see."), wants("count")], "It is one."))
    events = gathered(agent, "go")
    assert events[-1].text == "Let me see.\n\nIt is one."
    assert "".join(event.text for event in events if event.type == "text_delta") == events[-1].text


def test_one_answer_can_be_gone_on_from_in_several_ways() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "pg"}')
    decided = {asked_of(first).id: True}
    assert [agent.chat(after=first, decisions=decided).session for _ in range(2)] == [{"dropped": ["pg"]}] * 2
    assert first.session == first.state.to_dict() == {}


def test_chat_without_anything_before_begins() -> None:
    assert agent_of().chat("hi").text == "You said hi"


# a running loop


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_inside_a_loop_raises_at_once_and_names_run_async(backend: str) -> None:
    async def inside() -> None:
        with pytest.raises(ConfigurationError, match=r"await agent\.run_async"):
            agent_of().run("hi")

    anyio.run(inside, backend=backend)


def test_run_inside_a_callback_of_a_loop_raises_too() -> None:
    raised: list[Exception] = []

    def callback(done: asyncio.Event) -> None:
        try:
            agent_of().run("hi")
        except ConfigurationError as error:
            raised.append(error)
        done.set()

    async def inside() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(callback, done)
        await done.wait()

    asyncio.run(inside())
    assert len(raised) == 1


def test_run_works_in_a_thread_below_a_loop() -> None:
    async def inside() -> str:
        return await anyio.to_thread.run_sync(lambda: agent_of().run("hi").text)

    assert anyio.run(inside) == "You said hi"


def test_runs_in_many_threads_do_not_meet() -> None:
    agent, found = agent_of(), []

    def work(number: int) -> None:
        found.append((number, agent.run(f'call note {{"text": "{number}"}}').session["notes"]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(number, [str(number)]) for number in range(8)]


@pytest.mark.parametrize("mode", MODES)
def test_it_runs_under_trio(mode: StreamingMode) -> None:
    agent = agent_of(config=RunConfig(streaming_mode=mode, timeout=timedelta(seconds=5)))
    assert trio.run(functools.partial(agent.run_async, "call count", session={"n": 1})).session == {"n": 2}
    assert gathered(agent, 'call wait {"seconds": 0.01}', backend="trio")[-1].text == "Done: waited"


# failures


def failing(agent: Agent, raises: Any, messages: Any = "call count", **options: Any) -> None:
    """Each way to run fails in the same way, and leaves a session as it was."""
    for stream in (False, True):
        session = Session.from_dict({"n": 1, "cart": {"items": []}})
        held = session["cart"]
        with pytest.raises(raises):
            gathered(agent, messages, session=session, **options) if stream else agent.run(messages, session=session, **options)
        assert session.to_dict() == {"n": 1, "cart": {"items": []}}
        assert not session.is_modified
        assert session._state.own() == {}
        held["items"].append("x")
        assert session.changes["set"] == {"cart": {"items": ["x"]}}


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_raises_leaves_the_session_as_it_was(mode: StreamingMode) -> None:
    reply = iter([[wants("count")], None] * 2)

    def broken(_: list[ModelMessage]) -> Any:
        found = next(reply)
        if found is None:
            raise ConnectionError("canary")
        return found

    failing(agent_of(model_of(broken), config=RunConfig(streaming_mode=mode)), ModelFailedError)


def test_what_a_failed_model_said_is_not_in_the_message() -> None:
    with pytest.raises(ModelFailedError) as caught:
        agent_of().run("fail")
    assert str(caught.value) == "The model failed with ConnectionError."
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_loops_is_ended_by_the_limit(mode: StreamingMode) -> None:
    calls: list[int] = []

    def loops(_: list[ModelMessage]) -> Any:
        calls.append(1)
        return [wants("count", id_=f"c{len(calls)}")]

    failing(agent_of(model_of(loops), config=RunConfig(max_model_calls=3, streaming_mode=mode)), ModelLimitError)
    assert len(calls) == 6


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_takes_too_long_is_ended_by_the_time_limit(mode: StreamingMode) -> None:
    async def whole(*_: Any) -> Any:
        await anyio.sleep(60)

    async def pieces(*_: Any) -> Any:
        yield "so"
        await anyio.sleep(60)

    model = FunctionModel(whole, stream_function=pieces)
    start = time.monotonic()
    failing(agent_of(model, config=RunConfig(timeout=SHORT, streaming_mode=mode)), TurnTimeoutError)
    assert time.monotonic() - start < 2


def test_a_tool_without_a_limit_of_its_own_is_ended_by_that_of_the_turn() -> None:
    failing(agent_of(config=RunConfig(timeout=SHORT)), TurnTimeoutError, 'call count\ncall wait {"seconds": 60}')


def test_an_agent_function_that_blocks_its_thread_is_ended_by_the_time_limit() -> None:
    def blocks(messages: Any, context: Any, session: Session) -> str:
        session["n"] = 7
        time.sleep(1.0)
        return "late"

    start = time.monotonic()
    failing(Agent(blocks, config=RunConfig(timeout=SHORT)), TurnTimeoutError)
    assert time.monotonic() - start < 0.9


def test_an_interceptor_that_blocks_its_thread_is_ended_by_the_time_limit() -> None:
    start = time.monotonic()
    failing(agent_of(config=RunConfig(timeout=SHORT), request_interceptors=lambda _: time.sleep(1.0)), TurnTimeoutError)
    assert time.monotonic() - start < 0.9


def test_the_time_of_whoever_reads_a_stream_slowly_counts_too_and_cancels_only_the_turn() -> None:
    async def run() -> None:
        agent = agent_of(scripted("one two three"), config=RunConfig(timeout=SHORT))
        async with aclosing(agent.run_stream("go")) as events:
            assert (await anext(events)).type == "text_delta"
            await anyio.sleep(0.2)
            with pytest.raises(TurnTimeoutError):
                async for _ in events:
                    pass

    anyio.run(run)


def test_instructions_that_raise_leave_the_session_as_it_was() -> None:
    def instructions(session: Session) -> str:
        raise KeyError("step")

    failing(agent_of(instructions=instructions), KeyError)


def test_a_stream_that_is_left_early_leaves_the_session_as_it_was() -> None:
    async def run(stop_at: int) -> Session:
        session = Session.from_dict({"n": 1})
        async with aclosing(agent_of().run_stream("call count", session=session)) as events:
            for _ in range(stop_at):
                await anext(events)
        return session

    total = len(gathered(agent_of(), "call count"))
    for stop_at in range(total):
        assert anyio.run(run, stop_at).to_dict() == {"n": 1}
    assert anyio.run(run, total).to_dict() == {"n": 2}


def test_a_run_that_is_cancelled_leaves_the_session_as_it_was() -> None:
    session = Session.from_dict({"n": 1})

    async def run() -> None:
        with anyio.move_on_after(0.05):
            await agent_of().run_async('call count\ncall wait {"seconds": 60}', session=session)

    anyio.run(run)
    assert session.to_dict() == {"n": 1}


def test_no_context_variable_is_left_by_a_stream() -> None:
    from contextvars import copy_context

    from dcaf.tools.platform_context import current_platform

    async def run() -> None:
        before = dict(copy_context().items())
        context = {"platform_context": {"user_id": "mira"}}
        async with aclosing(agent_of().run_stream("call whoami", context=context)) as events:
            async for _ in events:
                assert not current_platform()
                with pytest.raises(ConfigurationError):
                    current_session()
        left = {key.name for key, value in copy_context().items() if before.get(key) is not value}
        assert not {name for name in left if name.startswith("dcaf")}

    anyio.run(run)


# what models do


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("call", "code"),
    [
        (wants("nothing"), "tool-error"),
        (wants("note", "{broken"), "tool-argument"),
        (wants("note", "[1]"), "tool-argument"),
        (wants("note", '"x"'), "tool-argument"),
        (wants("note", {"text": 7}), "tool-argument"),
        (wants("note", {}), "tool-argument"),
        (wants("drop", {"volume": 7}), "tool-argument"),
        (wants("boom"), "tool-failed"),
        (wants("slow"), "tool-timeout"),
    ],
    ids=["unknown", "broken", "list", "text", "type", "missing", "to approve", "raises", "times out"],
)
def test_a_call_that_cannot_be_made_or_fails_is_told_to_the_model_and_leaves_nothing(
    call: Any, code: str, mode: StreamingMode
) -> None:
    agent = agent_of(scripted([call], "I see."), config=RunConfig(streaming_mode=mode))
    response = agent.run("go", session={"n": 1})
    (ran,) = response.data.executed_tool_calls
    assert code in ran.output
    assert "canary" not in ran.output
    assert (response.text, response.session, response.needs_approval) == ("I see.", {"n": 1}, False)


@pytest.mark.parametrize("mode", MODES)
def test_calls_with_one_id_are_two_calls(mode: StreamingMode) -> None:
    seen: list[list[ModelMessage]] = []
    answers = iter(
        [[wants("count", id_="same"), wants("note", {"text": "a"}, id_="same")], [wants("count", id_="same")], [TextPart("x")]]
    )

    def reply(messages: list[ModelMessage]) -> Any:
        seen.append(list(messages))
        return next(answers)

    response = agent_of(model_of(reply), config=RunConfig(streaming_mode=mode)).run("go")
    ids = [call.id for call in response.data.executed_tool_calls]
    assert len(set(ids)) == 3
    assert response.session == {"n": 2, "notes": ["a"]}
    told = [part.tool_call_id for message in seen[-1] for part in message.parts if part.part_kind == "tool-return"]
    assert told == ids


@pytest.mark.parametrize("id_", ["", "x" * 300, "x" * 100_000])
def test_an_id_that_no_client_could_send_is_replaced(id_: str) -> None:
    response = agent_of(scripted([wants("count", id_=id_), wants("drop", {"volume": "pg"}, id_=id_)], "x")).run("go")
    assert 0 < len(response.data.executed_tool_calls[0].id) <= 256
    assert agent_of(scripted("x")).chat(after=response, decisions={asked_of(response).id: True}).session["dropped"] == ["pg"]


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_answer_is_an_empty_text(mode: StreamingMode) -> None:
    session = Session.from_dict({"n": 1})
    agent = agent_of(scripted([wants("count")], ""), config=RunConfig(streaming_mode=mode))
    response = agent.run("go", session=session)
    assert (response.text, response.stop_reason, response.session) == ("", "empty", {"n": 2})


def test_a_model_that_says_nothing_at_all_is_an_empty_text_or_has_failed() -> None:
    assert agent_of(scripted([]), config=RunConfig(streaming_mode=StreamingMode.NONE)).run("go").text == ""
    with pytest.raises(ModelFailedError):  # pydantic-ai takes no stream without an event
        agent_of(scripted([])).run("go")


def test_a_huge_number_of_calls_in_one_message_all_run() -> None:
    response = agent_of(scripted([wants("count", id_=f"c{at}") for at in range(200)], "x")).run("go")
    assert response.session == {"n": 200}
    assert len(response.data.executed_tool_calls) == 200


def test_a_model_that_cannot_stream_answers_whole() -> None:
    async def whole(messages: list[ModelMessage], info: AgentInfo) -> Any:
        from pydantic_ai.messages import ModelResponse

        return ModelResponse([TextPart("all of it")])

    class Whole(FunctionModel):
        request_stream = Model.request_stream

    for model in (FunctionModel(whole), Whole(whole)):
        assert gathered(agent_of(model), "go")[-1].text == "all of it"


# instructions


def test_instructions_are_a_function_of_the_session_asked_anew_at_each_call_of_the_model() -> None:
    told: list[Any] = []

    async def whole(messages: list[ModelMessage], info: AgentInfo) -> Any:
        from pydantic_ai.messages import ModelResponse

        told.append(info.instructions)
        return ModelResponse([wants("count", id_=f"c{len(told)}")] if len(told) < 3 else [TextPart("x")])

    async def instructions(session: Session) -> str:
        assert current_session() is session
        return f"n is {session.get('n', 0)}"

    agent_of(FunctionModel(whole), instructions=instructions).run("go", session={"n": 5})
    assert told == ["n is 5", "n is 6", "n is 7"]


@pytest.mark.parametrize(
    ("instructions", "expected"), [("Be brief.", "Be brief."), (None, None), (lambda: "None needed.", "None needed.")]
)
def test_instructions_may_be_a_text_nothing_or_a_function_without_a_session(instructions: Any, expected: Any) -> None:
    told: list[Any] = []

    async def whole(messages: list[ModelMessage], info: AgentInfo) -> Any:
        from pydantic_ai.messages import ModelResponse

        told.append(info.instructions)
        return ModelResponse([TextPart("x")])

    agent_of(FunctionModel(whole), instructions=instructions).run("go")
    assert told == [expected]


# approvals


def test_a_call_that_needs_approval_waits_and_runs_in_the_next_turn() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "pg"}')
    assert first.needs_approval
    assert first.stop_reason == "tool_use"
    assert first.session == {}
    assert first.data.tool_calls[0].input == {"volume": "pg"}
    second = agent.chat(after=first, decisions={asked_of(first).id: True})
    assert second.session == {"dropped": ["pg"]}
    assert second.text == "Done: pg dropped"
    assert second.data.executed_approvals[0].output == "pg dropped"


def test_the_session_alone_carries_what_waits() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "pg"}')
    decided = first.decided({asked_of(first).id: True})
    assert agent.run([decided], session=first.state).session == {"dropped": ["pg"]}
    without = agent.run([decided], session=first.session)
    assert without.session == {}
    assert without.text == NOT_WAITING


def test_turns_in_between_leave_a_call_waiting() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "pg"}')
    between = agent.run("call count", session=first.state)
    last = agent.run([first.decided({asked_of(first).id: True})], session=between.state)
    assert last.session == {"n": 1, "dropped": ["pg"]}


def test_a_rejection_reaches_the_model_with_its_reason() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "pg"}')
    second = agent.chat(after=first, decisions={asked_of(first).id: "not today"})
    assert second.text == "Done: Rejected: not today"
    assert second.session == {}
    assert not second.needs_approval


def test_a_decision_and_a_text_go_to_the_model_together() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "pg"}')
    second = agent.chat("call count", after=first, decisions={asked_of(first).id: True})
    assert second.session == {"dropped": ["pg"], "n": 1}


def test_one_yes_and_one_no() -> None:
    agent = agent_of()
    first = agent.run('call drop {"volume": "a"}\ncall drop {"volume": "b"}\ncall count')
    one, other = first.approvals
    assert first.session == {"n": 1}
    second = agent.chat(after=first, decisions={one.id: True, other.id: "no"})
    assert second.session == {"n": 1, "dropped": ["a"]}
    assert [item.output for item in second.data.executed_approvals] == ["a dropped", "Rejected: no"]


@pytest.mark.parametrize("decisions", [{"zz": True}, {"c1": False}])
def test_decided_refuses_what_is_no_decision(decisions: Any) -> None:
    first = agent_of(scripted([wants("drop", {"volume": "pg"})])).run("go")
    with pytest.raises(ConfigurationError, match=r"waits|a no is its reason"):
        first.decided(decisions)


def test_a_model_that_numbers_anew_does_not_overwrite_what_waits() -> None:
    model = scripted([wants("drop", {"volume": "a"}, "call_0")], [wants("drop", {"volume": "b"}, "call_0")], "x", "x")
    agent = agent_of(model)
    first = agent.run("go")
    second = agent.run("go on", session=first.state)
    assert asked_of(first).id != asked_of(second).id
    for response in (first, second):
        agent.run([response.decided({asked_of(response).id: True})], session=first.state)
    assert first.state["dropped"] == ["a", "b"]


def test_calls_over_32_are_refused_to_the_model_and_none_that_is_shown_is_lost() -> None:
    calls = [wants("drop", {"volume": str(at)}, f"c{at}") for at in range(40)]
    agent = agent_of(scripted(calls, "x"))
    first = agent.run("go")
    assert len(first.approvals) == 32
    assert [call.output for call in first.data.executed_tool_calls if "wait for approval" in call.output]
    second = agent.chat(after=first, decisions={item.id: True for item in first.approvals})
    assert second.session["dropped"] == [str(at) for at in range(32)]


def test_an_approval_for_a_tool_that_is_gone_or_needs_none_is_not_run() -> None:
    first = agent_of().run('call drop {"volume": "pg"}')
    message = first.decided({asked_of(first).id: True})
    response = Agent(scripted("x"), tools=[count]).run([message], session=first.state)
    assert response.data.executed_approvals[0].output == NO_TOOL


def test_an_approval_runs_even_where_the_text_of_the_turn_fails_and_stays_used() -> None:
    first = agent_of().run('call drop {"volume": "pg"}')
    decided = first.decided({asked_of(first).id: True}, "fail")
    second = agent_of().run([decided], session=first.state)
    assert second.stop_reason == "error"
    assert second.text == UNANSWERED
    assert second.session == {"dropped": ["pg"]}
    again = agent_of().run([first.decided({asked_of(first).id: True})], session=second.state)
    assert again.text == DECIDED_BEFORE
    assert again.session == {"dropped": ["pg"]}


SAID = "canary"


def _raises(_: Any) -> None:
    raise ValueError(SAID)


@pytest.mark.parametrize(
    "agent",
    [
        Agent(scripted(ValueError("x")), tools=TOOLS),
        Agent(_raises, tools=TOOLS),
        Agent(scripted("x"), tools=TOOLS, instructions=lambda session: session["no"]),
        Agent(scripted("secret"), tools=TOOLS, response_interceptors=_raises),
        Agent(scripted([wants("count")]), tools=TOOLS, config=RunConfig(max_model_calls=1)),
        Agent(lambda _: time.sleep(0.5), tools=TOOLS, config=RunConfig(timeout=SHORT)),
        Agent(lambda _: time.sleep(0.5), tools=TOOLS, config=RunConfig(timeout=SHORT), response_interceptors=lambda _: None),
    ],
    ids=["model", "function", "instructions", "interceptor", "limit", "time", "time and interceptor"],
)
def test_whatever_fails_after_an_approved_call_has_run_the_approval_stays_used(agent: Agent, caplog: Any) -> None:
    first = agent_of().run('call drop {"volume": "pg"}')
    message = first.decided({asked_of(first).id: True})
    with caplog.at_level(logging.DEBUG):
        events = gathered(agent, [message], session=first.state)
    second = events[-1]
    assert second.stop_reason == "error"
    assert second.text == UNANSWERED
    assert "".join(event.text for event in events if event.type == "text_delta") == UNANSWERED
    assert second.session["dropped"] == ["pg"]
    assert "canary" not in caplog.text
    assert agent_of().run([message], session=second.state).text == DECIDED_BEFORE


def test_a_function_that_fails_after_an_approved_call_leaves_nothing_of_its_own_and_says_where_it_was(caplog: Any) -> None:
    def half(messages: Any, context: Any, session: Session) -> str:
        session["half"] = True
        raise ValueError("canary")

    first = agent_of().run('call drop {"volume": "pg"}')
    second = Agent(half, tools=TOOLS).run([first.decided({asked_of(first).id: True})], session=first.state)
    assert second.session == {"dropped": ["pg"]}
    assert "a turn failed after approved calls had run: ValueError\n" in caplog.text
    assert ", in half\n" in caplog.text


def test_an_approved_call_that_outlasts_the_turn_is_used_and_the_others_are_kept() -> None:
    first = agent_of().run('call drop {"volume": "pg"}\ncall hang')
    agent = agent_of(config=RunConfig(timeout=SHORT))
    second = agent.chat(after=first, decisions={item.id: True for item in first.approvals})
    assert second.stop_reason == "error"
    assert second.session == {"dropped": ["pg"]}
    assert [item.output for item in second.data.executed_approvals] == ["pg dropped", STOPPED]
    assert agent.run([first.decided({first.approvals[1].id: True})], session=second.state).text == DECIDED_BEFORE


async def run_on(store: SessionStore, session: Session, message: Message, agent: Agent | None = None) -> AgentResponse:
    """A turn on a session that a store keeps."""
    return await (agent or agent_of()).run_async([message], session=await held(session, store))


def test_an_approved_call_that_raises_has_used_the_approval_before_it_ran() -> None:
    first = agent_of().run("call explode")
    decided = first.decided({asked_of(first).id: True})
    store = ToldStore()
    replayed = copy.copy(first.state)
    second = anyio.run(run_on, store, first.state, decided)
    assert "tool-failed" in second.data.executed_approvals[0].output
    assert second.session == {}
    assert len(store.used) == 1
    third = anyio.run(run_on, store, replayed, decided)
    assert third.data.executed_approvals[0].output == USED
    assert agent_of().run([decided], session=second.state).text == DECIDED_BEFORE


def test_a_store_that_cannot_tell_is_asked_before_anything_runs() -> None:
    first = agent_of().run('call drop {"volume": "pg"}')
    before = first.state._state.own()
    store = ToldStore(spend=SessionUnavailable(reason="down"))
    with pytest.raises(SessionUnavailable):
        anyio.run(run_on, store, first.state, first.decided({asked_of(first).id: True}))
    assert first.session == {}
    assert first.state._state.own() == before


def test_an_approval_that_has_expired_is_not_run() -> None:
    clock = Clock()
    agent = agent_of(clock=clock)
    first = agent.run('call drop {"volume": "pg"}')
    clock.now += 301
    second = agent.chat(after=first, decisions={asked_of(first).id: True})
    assert second.session == {}
    assert second.text == "Refused: the five minutes to approve it are over."


def test_arguments_that_cannot_be_approved_are_told_to_the_model() -> None:
    from dcaf import tool

    @tool(requires_approval=True)
    def scale(replicas: int) -> str:
        return f"{replicas}"

    agent = Agent(scripted([wants("scale", {"replicas": 2**60})], "I see."), tools=[scale])
    response = agent.run("go")
    assert not response.needs_approval
    assert "tool-argument" in response.data.executed_tool_calls[0].output


# what an agent is made of


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Agent("no-such-provider:model"), "model cannot be used"),
        (lambda: Agent(scripted("x"), tools=[count, count]), "Two tools are named"),
        (lambda: Agent(lambda a, b, c: "x"), "parameter that nobody fills"),
        (lambda: Agent(lambda a: "x", instructions="y"), "are for a model"),
        (lambda: Agent(scripted("x"), instructions=lambda a: "y"), "parameter that nobody fills"),
        (lambda: agent_of(request_interceptors=["no"]), "takes a function or a list"),
        (lambda: agent_of(response_interceptors=7), "takes a function or a list"),
        (lambda: RunConfig(max_model_calls=0), "max_model_calls"),
        (lambda: RunConfig(max_model_calls=True), "max_model_calls"),
        (lambda: RunConfig(timeout=5), "timedelta"),  # type: ignore[arg-type]
        (lambda: RunConfig(timeout=timedelta()), "timedelta"),
        (lambda: RunConfig(streaming_mode=1), "StreamingMode"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_when_the_agent_is_made(make: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_functions_are_made_tools_and_the_agent_says_how_many() -> None:
    def plain(text: str) -> str:
        """Say it."""
        return text

    agent = Agent(scripted("x"), tools=[plain, note, drop], name="shop")
    assert list(agent.tools) == ["plain", "note", "drop"]
    assert repr(agent) == "<Agent shop: 3 tools>"
    assert RunConfig(timeout=None).timeout_s is None


def test_a_session_that_is_neither_is_refused() -> None:
    with pytest.raises((ConfigurationError, SessionError, TypeError, AttributeError)):
        agent_of().run("hi", session=[1])  # type: ignore[arg-type]


def test_two_turns_at_once_on_one_session_keep_both_changes() -> None:
    session = Session.from_dict({"n": 0})

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(functools.partial(agent_of().run_async, "call count", session=session))

    anyio.run(run)
    assert session["n"] == 5


def test_what_an_agent_answers_shows_nothing_of_it_in_its_repr() -> None:
    response = agent_of().run("canary", session={"x": "canary"}, context={"platform_context": {"x": "canary"}})
    assert "canary" not in repr(response)
    assert "canary" not in repr(Message.model_validate({"role": "user", "content": "x", "user": {"name": "canary"}}))
    assert "canary" not in repr(AgentResult("canary", {"url_configs": ["canary"]}))
