"""Which calls wait for a person is read from what a client has kept: in another process, after failures, stops and new sessions."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dcaf import SessionMiddleware, current_session, tool
from dcaf.agent import Agent, create_app
from dcaf.client import ApprovalUnknown, AsyncClient, Client, Conversation, ServiceFailed, Turn, reply
from dcaf.testing import SessionClient, serving
from tests.client_package.services import AUDIENCE, RING, WIRES, Talk, talking
from tests.testing.counting import HOW
from tests.testing.counting import WIRES as KIT_WIRES
from tests.testing.counting import talking as kit_talking

JSON = {"content-type": "application/json"}
NEW = {"dcaf": {"token": "new"}}


def item(id_: str) -> dict[str, Any]:
    return {"id": id_, "type": "tool_call", "name": "wipe", "input": {"disk": id_}, "execute": False, "rejection_reason": None}


class Keeper:
    """An agent that keeps in its session what waits, and says all of it in every answer that it finishes."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        routes = [
            Route("/api/chat", self.chat, methods=["POST"]),
            Route("/api/chat-stream", self.stream, methods=["POST"]),
            Route("/api/chat-events", self.events, methods=["POST"]),
            WebSocketRoute("/api/chat-ws", self.socket),
        ]
        self.app = SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def answer(self, body: Any) -> list[dict[str, Any]]:
        session, last = current_session(), body["messages"][-1]
        words, data = last["content"].split(), last.get("data") or {}
        if words[:1] == ["fail"]:
            return [{"type": "error", "code": "model-failed", "error": "It failed."}, {"type": "done", "stop_reason": "error"}]
        if words[:1] == ["stop"]:
            return [{"type": "text_delta", "text": "I was go"}, {"type": "done", "stop_reason": "stopped", "meta_data": {}}]
        executed = [one for one in data.get("approvals", []) if one["id"] in session.get("waiting", [])]
        self.ran += [one["id"] for one in executed if one["execute"]]
        asked = words[1:] if words[:1] == ["wipe"] else []
        waiting = [id_ for id_ in session.get("waiting", []) if id_ not in [one["id"] for one in executed]] + asked
        session["waiting"] = waiting
        events: list[dict[str, Any]] = []
        if executed:
            events.append({"type": "executed_approvals", "executed_approvals": [{"id": one["id"]} for one in executed]})
        if waiting:
            events.append({"type": "approvals", "approvals": [item(id_) for id_ in waiting]})
        return [
            *events,
            {"type": "text_delta", "text": "Yes."},
            {"type": "done", "meta_data": {"has_pending_approvals": bool(waiting)}},
        ]

    async def chat(self, request: Request) -> JSONResponse:
        events = self.answer(await request.json())
        if events[0]["type"] == "error":
            return JSONResponse({"code": "model-failed"}, 502)
        data = {one["type"]: one[one["type"]] for one in events if isinstance(one.get(one["type"]), list)}
        text = "".join(one.get("text", "") for one in events)
        is_stopped = events[-1].get("stop_reason") == "stopped"
        return JSONResponse({"role": "assistant", "content": text, "data": data if is_stopped else {"approvals": [], **data}})

    async def stream(self, request: Request) -> StreamingResponse:
        events = self.answer(await request.json())
        return StreamingResponse((json.dumps(one) + "\n" for one in events), media_type="application/x-ndjson")

    async def events(self, request: Request) -> StreamingResponse:
        events = self.answer(await request.json())
        return StreamingResponse((f"data: {json.dumps(one)}\n\n" for one in events), media_type="text/event-stream")

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async for body in websocket.iter_json():
            for one in self.answer(body):
                await websocket.send_json(one)


class Board:
    """One server for many agents, one after the other."""

    def __init__(self) -> None:
        self.app: Any = Keeper()
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    one = Board()
    with serving(one) as one.url:
        yield one


@pytest.fixture
def agent(board: Board) -> Keeper:
    board.app = Keeper()
    app: Keeper = board.app
    return app


@pytest.fixture(params=WIRES)
def talk(request: Any, board: Board, agent: Keeper) -> Iterator[Talk]:
    with talking(request.param, board.url) as one:
        yield one


def kept(client: Any) -> Any:
    """What a program writes to disk, and reads when it is started again."""
    return json.loads(json.dumps({"session": client.envelope, "messages": client.messages}))


def ids(client: Any) -> list[str]:
    return [one["id"] if isinstance(one, dict) else one.id for one in client.approvals]


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_was_restored_decides_on_any_wire(talk: Talk, board: Board, agent: Keeper, wire: str) -> None:
    asked = talk.say("wipe a b")
    assert ids(talk.client) == [one.id for one in asked.approvals] == ["a", "b"]
    with talking(wire, board.url, **kept(talk.client)) as other:
        assert ids(other.client) == ["a", "b"]
        assert other.client.approvals[0].input == {"disk": "a"}
        other.say(decisions={"b": True})
        assert (agent.ran, ids(other.client)) == (["b"], ["a"])
        other.say(decisions={"a": "not today"})
        assert (agent.ran, ids(other.client)) == (["b"], [])


def test_a_call_waits_for_as_many_turns_as_it_is_not_decided(talk: Talk, board: Board, agent: Keeper) -> None:
    talk.say("wipe a")
    for turn in range(3):
        talk.say(f"what is {turn}?")
        assert ids(talk.client) == ["a"]
        with talking(talk.wire, board.url, **kept(talk.client)) as other:
            assert ids(other.client) == ["a"]
    talk.say("wipe b")
    assert ids(talk.client) == ["a", "b"]
    talk.say(decisions={"a": True, "b": True})
    assert (sorted(agent.ran), ids(talk.client)) == (["a", "b"], [])


def test_a_call_waits_after_a_turn_that_failed_and_after_one_that_was_stopped(talk: Talk, board: Board, agent: Keeper) -> None:
    talk.say("wipe a")
    with pytest.raises(ServiceFailed):
        talk.say("fail")
    assert ids(talk.client) == ["a"]
    assert talk.say("stop").text == "I was go"
    assert ids(talk.client) == ["a"]
    with talking(talk.wire, board.url, **kept(talk.client)) as other:
        other.say(decisions={"a": True})
        assert (agent.ran, ids(other.client)) == (["a"], [])


def test_a_decision_that_failed_can_be_given_by_the_client_that_was_restored(talk: Talk, board: Board, agent: Keeper) -> None:
    talk.say("wipe a")
    with pytest.raises(ServiceFailed):
        talk.say("fail", decisions={"a": True})
    with talking(talk.wire, board.url, **kept(talk.client)) as other:
        assert ids(other.client) == ["a"]
        other.say(decisions={"a": True})
    assert agent.ran == ["a"]


def test_nothing_waits_once_an_answer_says_so_in_any_of_its_ways(talk: Talk, board: Board) -> None:
    talk.say("wipe a")
    talk.say(decisions={"a": "no"})
    talk.say("and now?")
    assert ids(talk.client) == []
    with talking(talk.wire, board.url, **kept(talk.client)) as other, pytest.raises(ApprovalUnknown, match="Waiting: none"):
        other.say(decisions={"a": True})


def test_what_waited_in_a_session_that_is_dead_waits_no_longer(talk: Talk, board: Board, agent: Keeper) -> None:
    talk.say("wipe a")
    talk.client.conversation.envelope = {"dcaf": {"token": "dcaf1s.k7.e30.e30.e30"}}
    reply = talk.say("stop")  # an answer that says nothing of what waits
    assert (reply.restarted, ids(talk.client)) == ("session-invalid", [])
    with talking(talk.wire, board.url, **kept(talk.client)) as other:
        assert ids(other.client) == []
    assert agent.ran == []


@pytest.mark.parametrize("id_", ["b", "", "A"])
def test_a_decision_about_something_else_is_an_error_that_says_what_waits(talk: Talk, board: Board, id_: str) -> None:
    talk.say("wipe a")
    with talking(talk.wire, board.url, **kept(talk.client)) as other:
        with pytest.raises(ApprovalUnknown, match=rf"No approval '{id_}' waits for a decision\. Waiting: a\. .*client\.approvals"):
            other.say(decisions={id_: True})
        with pytest.raises(ApprovalUnknown, match="messages= and session="):
            other.say(decisions={"a": True, id_: True})
        assert ids(other.client) == ["a"]


# What is read, without any wire

ASKED = {"role": "assistant", "content": "?", "data": {"approvals": [item("a"), item("b")]}}
NO_WORD: list[Any] = [
    {"role": "user", "content": "hm", "data": {"approvals": [item("z")]}},
    {"role": "user", "content": "hm", "data": {"approvals": []}},
    {"role": "user", "content": "hm", "data": {"executed_approvals": [item("a")]}},
    {"role": "system", "content": "", "data": {"approvals": [item("z")]}},
    {"content": "", "data": {"approvals": [item("z")]}},
    {"role": "assistant", "content": "hm"},
    {"role": "assistant", "content": "hm", "data": None},
    {"role": "assistant", "content": "hm", "data": {"approvals": None}},
    {"role": "assistant", "content": "hm", "data": {"approvals": {"a": item("z")}}},
    {"role": "assistant", "content": "hm", "data": [item("z")]},
    {"role": "assistant", "content": "hm", "data": {"executed_approvals": [None, {"id": 5}, "a"]}},
    {"role": ["assistant"], "content": "hm", "data": {"approvals": [item("z")]}},
]


@pytest.mark.parametrize("message", NO_WORD)
def test_only_an_answer_says_what_waits(message: Any) -> None:
    assert list(Conversation(messages=[ASKED, message]).waiting) == ["a", "b"]
    assert list(Conversation(messages=[message, ASKED]).waiting) == ["a", "b"]
    assert Conversation(messages=[message]).waiting == {}


def test_control_a_reader_that_believes_every_message_lets_a_user_make_calls_wait(monkeypatch: Any) -> None:
    def naive(messages: Any) -> Any:
        found = [one.get("data") for one in messages if isinstance(one.get("data"), dict)]
        return {one.id: one for data in found for one in reply.read_approvals(data.get("approvals"))}

    monkeypatch.setattr("dcaf.client.conversation.find_waiting", naive)
    assert any(list(Conversation(messages=[ASKED, message]).waiting) != ["a", "b"] for message in NO_WORD)


@pytest.mark.parametrize(
    ("last", "left"),
    [
        ({"approvals": [item("b"), item("c")]}, ["b", "c"]),
        ({"approvals": []}, []),
        ({"executed_approvals": [{"id": "a"}]}, ["b"]),
        ({"executed_approvals": [{"id": "a"}], "approvals": [item("a")]}, ["a"]),
        ({"approvals": [item("a"), {**item("a"), "input": {"disk": "newer"}}]}, ["a"]),
    ],
)
def test_the_newest_answer_that_says_so_counts(last: Any, left: list[str]) -> None:
    conversation = Conversation(messages=[ASKED, {"role": "assistant", "content": "", "data": last}])
    assert list(conversation.waiting) == left
    assert Conversation(messages=conversation.messages, session=NEW).waiting == {}


def test_what_the_program_removes_from_its_messages_waits_no_longer() -> None:
    conversation = Conversation(messages=[ASKED])
    conversation.messages.clear()
    with pytest.raises(ApprovalUnknown, match="Waiting: none"):
        Turn(conversation, decisions={"a": True})


def test_an_answer_is_kept_as_it_came_where_nothing_waited() -> None:
    conversation = Conversation()
    list(Turn(conversation, "one").feed(b'{"type":"done","meta_data":{"has_pending_approvals":false}}\n'))
    assert conversation.messages[-1] == {"role": "assistant", "content": ""}


def test_a_reply_tells_what_its_answer_has_and_a_client_tells_what_waits(board: Board, agent: Keeper) -> None:
    with Client(board.url) as client:
        client.send("wipe a")
        with client.stream("stop") as stream:
            list(stream)
        assert (stream.reply.approvals, ids(client)) == ([], ["a"])


# The testing kit


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("wire", KIT_WIRES)
def test_a_client_of_the_kit_knows_it_too(board: Board, agent: Keeper, how: str, wire: str) -> None:
    with kit_talking(how, agent, wire=wire) as one:
        one.send("wipe a b")
        assert one.send("fail").code == "model-failed"
        one.send("stop")
        one.send("hm")
        one.send("stop")
        assert ids(one.client) == ["a", "b"]
        disk = json.loads(json.dumps({"envelope": one.client.envelope, "messages": one.client.messages}))
    with kit_talking(how, board.url, wire=wire, **disk) as other:
        assert ids(other.client) == ["a", "b"]
        other.decide(decision=True)
        assert (agent.ran, ids(other.client)) == (["a", "b"], [])
        for decision in (True, "no"):
            with pytest.raises(ApprovalUnknown, match="Nothing waits"):
                other.decide(decision)


@pytest.mark.parametrize("decision", [False, "", None, 1, ["no"]])
def test_a_client_of_the_kit_says_what_a_decision_is(agent: Keeper, decision: Any) -> None:
    client = SessionClient(agent)
    client.send("wipe a")
    with pytest.raises(ApprovalUnknown, match="True to run"):
        client.decide(decision)
    assert (agent.ran, len(client.messages)) == ([], 2)


def test_in_a_new_session_nothing_waits_for_a_client_of_the_kit(agent: Keeper) -> None:
    client = SessionClient(agent, wire="ndjson")
    client.send("wipe a")
    client.envelope = copy.deepcopy(NEW)
    assert client.approvals == []
    client.send("stop")
    assert client.approvals == []


# An agent of this library, and another process

RAN: list[str] = []


@tool(requires_approval=True)
def wipe(disk: str) -> str:
    """Wipe a disk."""
    RAN.append(disk)
    return f"wiped {disk}"


async def model(messages: list[ModelMessage], info: AgentInfo) -> Any:
    told = repr(messages)
    if "clean" in told and "wiped" not in told:
        yield {0: DeltaToolCall("wipe", '{"disk": "a"}', tool_call_id="w1")}
    else:
        yield "Done."


PROGRAM = """
import asyncio, json, sys
from dcaf.client import AsyncClient, Client
url, path, how = sys.argv[1:]
kept = json.load(open(path))

async def main():
    async with AsyncClient(url, **kept) as client:
        async with client.socket() as socket:
            decisions = {one.id: True for one in client.approvals}
            print([one.id for one in client.approvals], (await socket.send(decisions=decisions)).text)

if how == "async":
    asyncio.run(main())
else:
    with Client(url, **kept) as client:
        decisions = {one.id: True for one in client.approvals}
        print([one.id for one in client.approvals], client.send(decisions=decisions).text)
"""


@pytest.mark.parametrize("how", ["sync", "async"])
def test_another_process_decides_about_a_call_of_an_agent(board: Board, tmp_path: Any, how: str) -> None:
    RAN.clear()
    board.app = create_app(Agent(FunctionModel(stream_function=model), tools=[wipe]), keys=RING, audience=AUDIENCE)
    with Client(board.url) as client:
        client.send("clean a")
        (tmp_path / "kept.json").write_text(json.dumps({"session": client.envelope, "messages": client.messages}))
    command = [sys.executable, "-c", PROGRAM, board.url, str(tmp_path / "kept.json"), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, RAN) == ("['w1'] Done.\n", ["a"]), done.stderr


def test_two_clients_of_one_conversation_share_what_waits(board: Board, agent: Keeper) -> None:
    async def main() -> None:
        async with AsyncClient(board.url) as client, client.socket() as socket:
            await socket.send("wipe a")
            assert ids(client) == ["a"]
            await client.send(decisions={"a": True})
            assert (agent.ran, ids(client)) == (["a"], [])

    asyncio.run(main())
