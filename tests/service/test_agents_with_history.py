"""An agent whose conversation a session service keeps, end to end: under uvicorn, with the real store, on the engines' places."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from starlette.testclient import TestClient

from dcaf import tool
from dcaf.agent import Agent, Message, Page, create_app
from dcaf.client import Client
from dcaf.engines import MemoryEngine
from dcaf.service import Memory, SessionService
from dcaf.testing import serving
from tests.agent.agents import TOOLS, agent_of, model_of, obeys, scripted, wants
from tests.agent.kept_histories import HistoryStore
from tests.asgi.wire import AUDIENCE, RING

TURN = ["user", "assistant"]


@tool
def remember(name: str, memory: Memory) -> str:
    """Remember who it is."""
    memory.set("name", name)
    return "remembered"


def clinic(sessions: Any, agent: Any = None, **more: Any) -> Any:
    found = Agent(model_of(obeys), tools=[*TOOLS, remember]) if agent is None else agent
    return create_app(found, keys=RING, audience=AUDIENCE, store=sessions, history="server", **more)


def kept(sessions: SessionService, user: str | None = None, id_: str = "") -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in sessions.sync.messages(user=user, id=id_).items]


def open_service(place: str, tmp_path: Any) -> SessionService:
    return SessionService(MemoryEngine() if place == "memory" else f"sqlite:///{tmp_path}/kept.db", app="clinic")


@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_a_conversation_is_kept_under_a_real_server_on_every_wire(place: str, tmp_path: Any) -> None:
    sessions = open_service(place, tmp_path)
    with serving(clinic(sessions, page=Page(memory=Memory))) as url:
        with Client(url, history="server") as client:
            assert client.send("call count").text == "Done: 1"
            with client.stream('call drop {"volume": "pg"}') as stream:
                for _ in stream:
                    pass
            (asked,) = client.approvals
            with client.socket() as socket:
                assert socket.send("what is it?").text == "You said what is it?"
                with socket.stream(decisions={asked.id: True}) as stream:
                    for _ in stream:
                        pass
            assert client.send('call remember {"name": "Ada"}').text == "Done: remembered"
            envelope = client.envelope
            assert len(client.messages) == 10
        told = httpx2.post(f"{url}/api/history", json={"data": {"session": envelope}}).json()
        nobody = httpx2.post(f"{url}/api/history", json={}).json()
    assert [(item["role"], item["content"]) for item in told["messages"]] == [
        ("user", "call count"),
        ("assistant", "Done: 1"),
        ("user", 'call drop {"volume": "pg"}'),
        ("user", "what is it?"),
        ("assistant", "You said what is it?"),
        ("assistant", "Done: pg dropped"),
        ("user", 'call remember {"name": "Ada"}'),
        ("assistant", "Done: remembered"),
    ]
    assert told["memory"] == {"name": "Ada"}
    assert (nobody["messages"], nobody["memory"]) == ([], {})


def chat(client: TestClient, content: str, session: Any, **headers: str) -> Any:
    body = {"messages": [{"role": "user", "content": content}], "data": {"session": session}}
    return client.post("/api/chat", json=body, headers=headers)


def test_a_turn_that_is_sent_again_because_its_answer_was_lost_is_kept_once() -> None:
    sessions = SessionService("memory://", app="clinic")
    statuses, first = send_twice(sessions)
    assert statuses == [200, 409]
    assert [role for role, _ in kept(sessions, id_=sid_of(first))] == [*TURN, *TURN]


def test_control_a_store_that_does_not_know_a_turn_again_keeps_it_twice() -> None:
    store = HistoryStore()
    statuses, _ = send_twice(store)
    assert statuses == [200, 200]
    assert [role for role, *_ in store.said] == [*TURN, *TURN, *TURN]


def send_twice(store: Any) -> tuple[list[int], Any]:
    """A turn, and then one whose answer is lost, so that it is sent again."""
    with TestClient(clinic(store)) as client:
        first = chat(client, "hello", None).json()["data"]["session"]
        return [chat(client, "again", first, **{"Idempotency-Key": '"k1"'}).status_code for _ in range(2)], first


def sid_of(envelope: Any) -> str:
    claims = envelope["dcaf"]["token"].split(".")[2]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sid"])


def test_of_two_turns_at_once_one_is_kept() -> None:
    sessions = SessionService("memory://", app="clinic")
    with TestClient(clinic(sessions)) as client:
        first = chat(client, "hello", None).json()["data"]["session"]
        found: list[int] = []

        def turn(text: str) -> None:
            found.append(chat(client, text, first).status_code)

        texts = ('call wait {"seconds": 0.3}', 'call wait {"seconds": 0.2}')
        threads = [threading.Thread(target=turn, args=[text]) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200, 409]
    assert [role for role, _ in kept(sessions, id_=sid_of(first))] == [*TURN, "user", "assistant", "tool", "assistant"]


def test_a_client_that_leaves_in_the_middle_adds_nothing() -> None:
    began, ended = threading.Event(), threading.Event()

    @tool
    async def endless() -> str:
        """Take for ever."""
        began.set()
        try:
            await anyio.sleep(60)
        finally:
            ended.set()
        return ""

    sessions = SessionService("memory://", app="clinic")
    agent = Agent(model_of(obeys), tools=[endless])
    with serving(clinic(sessions, agent)) as url, Client(url, history="server") as client:
        client.send("hello")
        with client.stream("call endless") as stream:
            for _ in stream:
                break
        assert ended.wait(10)
        id_ = sid_of(client.envelope)
    assert kept(sessions, id_=id_) == [("user", "hello"), ("assistant", "You said hello")]


def test_an_agent_reads_the_newest_messages_and_no_result_without_its_call() -> None:
    read: list[list[Message]] = []

    def listens(messages: list[Message]) -> str:
        read.append(messages)
        return "ok"

    sessions = SessionService("memory://", app="clinic")
    with TestClient(clinic(sessions, listens)) as client:
        first = chat(client, "hello", None).json()["data"]["session"]
        call_ = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        said = [{"role": "assistant", "tool_calls": [call_]}, {"role": "tool", "tool_call_id": "c1", "content": "At 2."}]
        more = [{"role": "user", "content": f"{number}"} for number in range(49)]
        sessions.sync.append(user=None, id=sid_of(first), messages=[*said, *more])
        assert chat(client, "and now?", first).status_code == 200
    assert [message.content for message in read[-1]] == [*(f"{number}" for number in range(49)), "and now?"]
    assert all(message.data is None for message in read[-1][:-1])


def test_whoever_has_no_session_makes_none_by_asking_for_one() -> None:
    sessions = SessionService("memory://", app="clinic")
    with TestClient(clinic(sessions, subject=lambda _: "ada")) as client:
        assert client.post("/api/history", json={}).json()["messages"] == []
        assert sessions.sync.list(user="ada").items == []


def recall(client: TestClient, session: Any) -> Any:
    return client.post("/api/history", json={"data": {"session": session}})


def test_who_asks_with_an_older_session_gets_the_newer_one_and_asks_again() -> None:
    sessions = SessionService("memory://", app="clinic")
    with TestClient(clinic(sessions, subject=lambda _: "ada")) as client:
        first = chat(client, "hello", None).json()["data"]["session"]
        chat(client, "and?", first)  # the answer is lost
        told = recall(client, first)
        assert (told.status_code, told.json()["code"], told.json()["applied"]) == (409, "session-conflict", False)
        assert "messages" not in told.json()
        newer = told.json()["data"]["session"]
        assert [message["content"] for message in recall(client, newer).json()["messages"]][::2] == ["hello", "and?"]
        assert recall(client, first).json()["code"] == "session-superseded"  # the newer one has come back


def test_who_copied_an_older_session_of_nobody_gets_no_newer_one() -> None:
    sessions = SessionService("memory://", app="clinic")
    with TestClient(clinic(sessions)) as client:
        first = chat(client, "hello", None).json()["data"]["session"]
        chat(client, "my secret", first)
        told = recall(client, first)
        assert (told.status_code, told.json()["code"]) == (409, "session-superseded")
        assert "secret" not in told.text


def test_nobody_reads_the_conversation_of_another_user() -> None:
    sessions = SessionService("memory://", app="clinic")
    app = clinic(sessions, subject=lambda scope: dict(scope["headers"])[b"x-user"].decode())
    with TestClient(app) as client:
        ada = chat(client, "my secret", None, **{"X-User": "ada"}).json()["data"]["session"]
        bob = client.post("/api/history", json={"data": {"session": ada}}, headers={"X-User": "bob"})
        own = client.post("/api/history", json={"data": {"session": ada}}, headers={"X-User": "ada"})
    assert "secret" in own.text
    assert bob.status_code in {400, 403, 409}
    assert "secret" not in bob.text


def decide_late(between: Any, first: str = "server") -> list[tuple[str, Any]]:
    """A call waits, something happens, and the call is approved; what is kept then."""
    sessions = SessionService("memory://", app="clinic")
    agent = agent_of()

    async def main() -> str:
        async with sessions.open(user="ada") as session:
            asked = await agent.run_async('call drop {"volume": "pg"}', session=session, history=first)  # type: ignore[arg-type]
        await between(sessions, session.id)
        async with sessions.open(user="ada", id=session.id) as session:
            await agent.run_async([asked.decided({asked.approvals[0].id: True})], session=session, history="server")
            assert session["dropped"] == ["pg"]
        return session.id

    return kept(sessions, "ada", anyio.run(main))


def test_a_result_is_linked_to_a_call_that_was_said_too_long_ago_to_be_read() -> None:
    async def talk(sessions: SessionService, id_: str) -> None:
        await sessions.append(user="ada", id=id_, messages=[{"role": "user", "content": str(number)} for number in range(60)])

    found = decide_late(talk)
    assert [role for role, _ in found[-3:]] == ["user", "tool", "assistant"]
    assert found[-2] == ("tool", "pg dropped")


def test_a_call_that_was_proposed_while_the_client_kept_the_conversation_is_kept_with_its_result() -> None:
    async def wait(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    assert decide_late(wait, first="client") == [
        ("assistant", None),
        ("tool", "pg dropped"),
        ("assistant", "Done: pg dropped"),
    ]


def test_an_id_of_a_call_that_nobody_can_decide_about_any_more_can_be_given_again() -> None:
    sessions = SessionService("memory://", app="clinic")
    stale = {"id": "c1", "type": "function", "function": {"name": "drop", "arguments": "{}"}}
    with sessions.sync.open(user="ada") as session:
        session.messages.add("assistant", tool_calls=[stale])
    with sessions.sync.open(user="ada", id=session.id) as session:
        agent_of(scripted([wants("count", id_="c1")], "One.")).run("count", session=session, history="server")
    assert kept(sessions, "ada", session.id) == [
        ("assistant", None),
        ("user", "count"),
        ("tool", "This call has not run."),
        ("assistant", None),
        ("tool", "1"),
        ("assistant", "One."),
    ]
