"""The same agent under a real server, over JSON, newline-delimited JSON and a WebSocket."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
from websockets.sync.client import connect

from dcaf import Session, tool
from dcaf.agent import Agent, create_app
from dcaf.testing import serving
from tests.agent.agents import TOOLS, agent_of, lines_of, obedient
from tests.asgi.wire import AUDIENCE, RING, envelope, opened

STARTED, ENDED = threading.Event(), threading.Event()


@tool
async def endless(session: Session) -> str:
    """Take for ever."""
    session.set("endless", value=True)
    STARTED.set()
    try:
        await anyio.sleep(60)
    finally:
        ENDED.set()
    return ""


@dataclass
class Answered:
    """A turn's answer, on whatever wire."""

    text: str
    session: Any
    stop_reason: str
    approvals: list[Any]
    errors: list[str]

    @property
    def state(self) -> Any:
        return opened(self.session)


def of_events(events: list[Any]) -> Answered:
    return Answered(
        "".join(event["text"] for event in events if event["type"] == "text_delta"),
        (events[-1].get("data") or {}).get("session"),
        events[-1]["stop_reason"],
        [item for event in events if event["type"] == "approvals" for item in event["approvals"]],
        [event["code"] for event in events if event["type"] == "error"],
    )


def over_json(url: str, body: Any) -> Answered:
    answer = httpx2.post(f"{url}/api/chat", json=body).json()
    if "code" in answer:
        return Answered("", None, "error", [], [answer["code"]])
    data = answer["data"]
    return Answered(answer["content"], data["session"], answer["meta_data"]["stop_reason"], data["approvals"], [])


def over_lines(url: str, body: Any) -> Answered:
    with httpx2.stream("POST", f"{url}/api/chat-stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return of_events(list(lines_of(answer.read())))


def over_socket(url: str, body: Any) -> Answered:
    with connect(f"{url.replace('http', 'ws')}/api/chat-ws") as connection:
        return on_socket(connection, body)


def on_socket(connection: Any, body: Any) -> Answered:
    connection.send(json.dumps(body))
    events = [json.loads(connection.recv(timeout=10))]
    while events[-1]["type"] != "done":
        events.append(json.loads(connection.recv(timeout=10)))
    return of_events(events)


WIRES = [over_json, over_lines, over_socket]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    agent = Agent(obedient(), tools=[*TOOLS, endless])
    with serving(create_app(agent, keys=RING, audience=AUDIENCE)) as found:
        yield found


def body_of(content: str, session: Any = None, **data: Any) -> dict[str, Any]:
    message = {"role": "user", "content": content, **({"data": data} if data else {})}
    return {"thread_id": "t-1", "messages": [message], **({"data": {"session": session}} if session else {})}


@pytest.mark.parametrize(
    "prompt", ["hello", "call count", 'call note {"text": "é\U0001f600"}\ncall count', "call boom", "call slow", "call nothing"]
)
def test_a_turn_says_the_same_and_leaves_the_same_on_every_wire(prompt: str, url: str) -> None:
    answers = [wire(url, body_of(prompt, envelope({"n": 1, "notes": ["é"]}))) for wire in WIRES]
    assert len({answer.text for answer in answers}) == 1
    assert len({json.dumps(answer.state, sort_keys=True) for answer in answers}) == 1
    assert [answer.stop_reason for answer in answers] == ["end_turn"] * 3


def test_a_conversation_goes_from_wire_to_wire() -> None:
    with serving(create_app(agent_of(), keys=RING, audience=AUDIENCE)) as url:
        session = None
        for number, wire in enumerate(WIRES * 2, 1):
            answered = wire(url, body_of("call count", session))
            assert answered.state == {"n": number}
            session = answered.session


@pytest.mark.parametrize("asking", WIRES)
@pytest.mark.parametrize("deciding", WIRES)
def test_an_approval_is_asked_for_on_one_wire_and_given_on_another(asking: Any, deciding: Any, url: str) -> None:
    asked = asking(url, body_of('call drop {"volume": "pg"}'))
    assert asked.stop_reason == "tool_use"
    decided = deciding(url, body_of("", asked.session, approvals=[{**asked.approvals[0], "execute": True}]))
    assert decided.state == {"dropped": ["pg"]}
    assert decided.text == "Done: pg dropped"


@pytest.mark.parametrize("wire", WIRES)
def test_a_model_that_fails_is_an_error_on_every_wire(wire: Any, url: str) -> None:
    answered = wire(url, body_of("fail", envelope({"n": 1})))
    assert answered.errors == ["model-failed"]
    if wire is not over_json:
        assert answered.state == {"n": 1}


def test_the_next_turn_on_a_socket_works_after_an_error(url: str) -> None:
    with connect(f"{url.replace('http', 'ws')}/api/chat-ws") as connection:
        assert on_socket(connection, body_of("call count")).state == {"n": 1}
        assert on_socket(connection, {}).errors == ["malformed-request"]
        assert on_socket(connection, body_of("fail")).errors == ["model-failed"]
        assert on_socket(connection, body_of("call count")).state == {"n": 2}


def test_stop_ends_a_turn_on_a_socket(url: str) -> None:
    with connect(f"{url.replace('http', 'ws')}/api/chat-ws") as connection:
        connection.send(json.dumps(body_of('call wait {"seconds": 60}')))
        assert json.loads(connection.recv(timeout=5))["type"] == "intermittent_update"
        connection.send("stop")
        done = json.loads(connection.recv(timeout=5))
        assert (done["type"], done["stop_reason"]) == ("done", "stopped")


@pytest.mark.parametrize("wire", ["lines", "socket", "socket without a close"])
def test_a_client_that_leaves_in_the_middle_ends_the_turn_and_keeps_its_session(wire: str, url: str, caplog: Any) -> None:
    STARTED.clear()
    ENDED.clear()
    session = envelope({"n": 1})
    body = body_of("call endless", session)
    with caplog.at_level(logging.WARNING):
        if wire == "lines":
            with httpx2.stream("POST", f"{url}/api/chat-stream", json=body) as answer:
                next(answer.iter_lines())
                assert STARTED.wait(5)
        else:
            with connect(f"{url.replace('http', 'ws')}/api/chat-ws") as connection:
                connection.send(json.dumps(body))
                assert STARTED.wait(5)
                if wire == "socket without a close":
                    connection.socket.shutdown(socket.SHUT_RDWR)
        assert ENDED.wait(5)
        time.sleep(0.05)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text
    assert over_json(url, body_of("call count", session)).state == {"n": 2}


def test_a_megabyte_of_history_is_answered_in_a_moment(url: str) -> None:
    call = {"id": "c", "name": "count", "input": {"x": "y" * 50}, "output": "z" * 50}
    old = envelope({"n": 1})
    pair = [
        {"role": "user", "content": "x" * 100},
        {"role": "assistant", "content": "y" * 100, "data": {"executed_tool_calls": [call], "session": old}},
    ]
    body = body_of("call count", envelope({"n": 5}))
    body["messages"] = pair * (1_000_000 // len(json.dumps(pair))) + body["messages"]
    for wire in WIRES[:2]:
        start = time.perf_counter()
        assert wire(url, body).state == {"n": 6}
        assert time.perf_counter() - start < 5
