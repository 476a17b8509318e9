"""A session that comes in the middle of an answer counts at once, and stays whatever becomes of the answer after it."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.websockets import WebSocket

from dcaf.client import AnswerUnreadable, AsyncClient, Client, ClientError, Conversation, ServiceFailed, Turn
from dcaf.testing import SessionClient, serving
from tests.client_package.services import WIRES, envelope, talking

STREAMED = [wire for wire in WIRES if not wire.endswith("send")]
OLD = {"n": 0, "dcaf": {"token": "old"}}
DELTA = {"type": "text_delta", "text": "x"}
EXECUTED = {"type": "executed_approvals", "executed_approvals": [{"id": "a"}]}
ERROR = {"type": "error", "code": "model-failed", "error": "It failed."}
GARBAGE = "garbage"


def carrying(n: int, kind: str = "session") -> dict[str, Any]:
    return {"type": kind, "data": {"session": {"n": n, "dcaf": {"token": f"t{n}"}}}}


class Scripted:
    """A service that sends these events, all in one piece or one by one, and then ends, waits, or breaks off."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.in_one_piece = True
        self.end = "break"
        self.over = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._frames(WebSocket(scope, receive, send))
            return
        head = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        lines = [(json.dumps(event) if isinstance(event, dict) else event).encode() + b"\n" for event in self.events]
        for piece in [b"".join(lines)] if self.in_one_piece else lines:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await self._end()
        await send({"type": "http.response.body"})

    async def _frames(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        for event in self.events:
            await websocket.send_text(json.dumps(event) if isinstance(event, dict) else event)
        await self._end()
        await websocket.close()

    async def _end(self) -> None:
        while self.end == "wait" and not self.over.is_set():  # noqa: ASYNC110  # it is set by another thread
            await asyncio.sleep(0.005)
        if self.end == "break":
            raise ConnectionError


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Scripted]]:
    service = Scripted()
    with serving(service) as url:
        yield url, service


@pytest.fixture(autouse=True)
def _ready(server: Any) -> Iterator[None]:
    server[1].__init__()
    yield
    server[1].over.set()


@pytest.mark.parametrize("in_one_piece", [True, False])
@pytest.mark.parametrize("wire", STREAMED)
@pytest.mark.parametrize("rest", [[], [DELTA], [EXECUTED, DELTA], [GARBAGE], [ERROR], [DELTA, ERROR, carrying(9, "done")]])
def test_it_stays_where_the_answer_breaks_off_after_it(server: Any, wire: str, rest: Any, in_one_piece: bool) -> None:
    url, service = server
    service.events, service.in_one_piece = [DELTA, carrying(1), *rest], in_one_piece
    with talking(wire, url, session=copy.deepcopy(OLD)) as talk:
        with pytest.raises(ClientError) as raised:
            talk.say("go")
        is_done = rest[-1:] == [carrying(9, "done")]
        assert (talk.client.session, talk.client.messages) == ({"n": 9 if is_done else 1}, [])
        assert isinstance(raised.value, ServiceFailed) == (ERROR in rest), "the error that came is told, not the end after it"


@pytest.mark.parametrize("wire", STREAMED)
@pytest.mark.parametrize("read", [1, 2, 3])
def test_it_stays_where_the_answer_is_left_even_before_it_was_read(server: Any, wire: str, read: int) -> None:
    """All of it has come in one piece, and the caller leaves after the first of its events."""
    url, service = server
    service.events, service.end = [DELTA, carrying(1), EXECUTED, carrying(2), carrying(3, "done")], "wait"

    def synchronous() -> Any:
        with Client(url, session=copy.deepcopy(OLD)) as client:
            speaker: Any = client.socket() if "socket" in wire else client
            with speaker.stream("go") as stream:
                seen = list(itertools.islice(stream, read))
                threading.Event().wait(0.1)
            return len(seen), client.session, client.messages

    async def asynchronous() -> Any:
        async with AsyncClient(url, session=copy.deepcopy(OLD)) as client:
            speaker: Any = client.socket() if "socket" in wire else client
            async with speaker.stream("go") as stream:
                for _ in range(read):
                    await anext(stream)
                await asyncio.sleep(0.1)
            return read, client.session, client.messages

    found = asyncio.run(asynchronous()) if wire.startswith("async") else synchronous()
    assert found == (read, {"n": 2}, []), "the last checkpoint that has come, and nothing of the end that nobody read"


@pytest.mark.parametrize("wire", STREAMED)
def test_it_stays_where_the_reader_raises_or_is_cancelled(server: Any, wire: str) -> None:
    url, service = server
    service.events, service.end = [DELTA, carrying(1)], "wait"

    async def main() -> Any:
        async with AsyncClient(url, session=copy.deepcopy(OLD)) as client:
            speaker: Any = client.socket() if "socket" in wire else client
            sending = asyncio.create_task(speaker.send("go") if "socket" in wire else _read(speaker.stream("go")))
            await asyncio.sleep(0.2)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            return client.session

    if wire.startswith("async"):
        assert asyncio.run(main()) == {"n": 1}
        return
    with Client(url, session=copy.deepcopy(OLD)) as client:
        speaker: Any = client.socket() if "socket" in wire else client
        with pytest.raises(KeyError), speaker.stream("go") as stream:
            next(stream)
            threading.Event().wait(0.1)
            raise KeyError
        assert client.session == {"n": 1}


@pytest.mark.parametrize("wire", ["socket", "async socket"])
def test_it_stays_where_the_socket_is_closed_before_the_stream(server: Any, wire: str) -> None:
    url, service = server
    service.events, service.end = [DELTA, carrying(1)], "wait"

    async def main() -> Any:
        async with AsyncClient(url, session=copy.deepcopy(OLD)) as client:
            socket = client.socket()
            stream = socket.stream("go")
            await anext(stream)
            await asyncio.sleep(0.1)
            await socket.close()
            return client.session

    if wire == "async socket":
        assert asyncio.run(main()) == {"n": 1}
        return
    with Client(url, session=copy.deepcopy(OLD)) as client:
        with client.socket() as speaker:
            stream = speaker.stream("go")
            assert next(stream).type == "text_delta"
            threading.Event().wait(0.1)
        assert client.session == {"n": 1}


def test_a_socket_can_be_closed_by_another_thread_than_the_one_that_reads(server: Any) -> None:
    url, service = server
    service.events, service.end = [DELTA], "wait"
    found: list[ClientError] = []
    with Client(url, session=copy.deepcopy(OLD)) as client:
        socket = client.socket()

        def talk() -> None:
            try:
                socket.send("go")
            except ClientError as error:
                found.append(error)

        thread = threading.Thread(target=talk)
        thread.start()
        threading.Event().wait(0.2)
        socket.close()
        thread.join(5)
    assert [error.code for error in found] == ["service-unreachable"]


async def _read(stream: Any) -> None:
    async with stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("wire", ["stream", "socket"])
def test_a_turn_that_begins_while_another_is_open_goes_on_from_the_checkpoint_that_has_come(server: Any, wire: str) -> None:
    url, service = server
    service.events, service.end = [DELTA, carrying(1)], "wait"

    async def main() -> Any:
        async with AsyncClient(url, session=copy.deepcopy(OLD)) as client:
            speaker: Any = client.socket() if "socket" in wire else client
            left = speaker.stream("go")
            await anext(left)
            await asyncio.sleep(0.1)
            service.events, service.end = [carrying(5, "done")], "now"
            await _read(speaker.stream("and now"))
            await left.close()
            await (speaker.close() if "socket" in wire else asyncio.sleep(0))
            return client.session, len(client.messages)

    assert asyncio.run(main()) == ({"n": 5}, 2)


ASKED = {"role": "assistant", "content": "?", "data": {"approvals": [{"id": "a"}, {"id": "b"}]}}


@pytest.mark.parametrize("wire", STREAMED)
@pytest.mark.parametrize("rest", [[], [DELTA], [GARBAGE], [ERROR, carrying(9, "done")]])
def test_what_has_run_is_not_offered_again_where_its_answer_breaks_off(server: Any, wire: str, rest: Any) -> None:
    url, service = server
    service.events = [DELTA, carrying(1), EXECUTED, *rest]
    with talking(wire, url, session=copy.deepcopy(OLD), messages=[ASKED]) as talk:
        with pytest.raises(ClientError):
            talk.say(decisions={"a": True})
        assert [one.id for one in talk.client.approvals] == ["b"]
        kept = json.loads(json.dumps({"session": talk.client.envelope, "messages": talk.client.messages}))
    assert list(Conversation(**kept).waiting) == ["b"]
    assert ASKED["data"] == {"approvals": [{"id": "a"}, {"id": "b"}]}, "what the caller gave is not changed"


@pytest.mark.parametrize("wire", ["stream", "socket"])
def test_nor_where_the_answer_is_left_before_it_was_read(server: Any, wire: str) -> None:
    url, service = server
    service.events, service.end = [DELTA, carrying(1), EXECUTED], "wait"
    with Client(url, session=copy.deepcopy(OLD), messages=[ASKED]) as client:
        speaker: Any = client.socket() if wire == "socket" else client
        with speaker.stream(decisions={"a": True}) as stream:
            assert next(stream).type == "text_delta"
            threading.Event().wait(0.1)
        assert [one.id for one in client.approvals] == ["b"]


def test_an_answer_that_is_whole_leaves_the_one_that_asked_as_it_came(server: Any) -> None:
    url, service = server
    service.events, service.end = [EXECUTED, {"type": "approvals", "approvals": [{"id": "b"}]}, carrying(1, "done")], "now"
    with Client(url, session=copy.deepcopy(OLD), messages=[ASKED]) as client:
        with client.stream(decisions={"a": True}) as stream:
            list(stream)
        assert client.messages[0] == ASKED
        assert [one.id for one in client.approvals] == ["b"]


def test_control_a_client_that_forgets_it_offers_it_again(server: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Conversation, "settle", lambda self, items: None)
    url, service = server
    service.events = [carrying(1), EXECUTED]
    with Client(url, session=copy.deepcopy(OLD), messages=[ASKED]) as client:
        with pytest.raises(ClientError), client.stream(decisions={"a": True}) as stream:
            list(stream)
        assert [one.id for one in client.approvals] == ["a", "b"]


@pytest.mark.parametrize("wire", ["ndjson", "websocket"])
def test_a_client_of_the_kit_does_not_offer_it_either(server: Any, wire: Any) -> None:
    url, service = server
    service.events, service.end = [carrying(1), EXECUTED, ERROR, carrying(9, "done")], "now"
    with SessionClient(url, wire=wire, envelope=copy.deepcopy(OLD), messages=[ASKED]) as client:
        assert client.decide(decision=True).code == "model-failed"
        assert [one["id"] for one in client.approvals] == ["b"]


@pytest.mark.parametrize("wire", ["ndjson", "websocket"])
@pytest.mark.parametrize("rest", [[], [DELTA], [ERROR, carrying(9, "done")]])
def test_a_client_of_the_kit_keeps_it_too(server: Any, wire: Any, rest: Any) -> None:
    url, service = server
    service.events = [DELTA, carrying(1), *rest]
    service.end = "now"
    with SessionClient(url, wire=wire, envelope=copy.deepcopy(OLD)) as client:
        reply = client.send("go")
        assert (client.envelope or {})["n"] == (9 if rest[-1:] == [carrying(9, "done")] else 1)
        assert reply.code == ("model-failed" if ERROR in rest else None)


# Every order and every cut, without a wire

KINDS = {
    "delta": DELTA,
    "executed": EXECUTED,
    "error": ERROR,
    "plain": {"type": "other", "data": {"session": None}},
    "done": {"type": "done"},
}


def last_checkpoint(events: list[Any]) -> Any:
    """The session of the last checkpoint before the end of the turn."""
    ends = next((at for at, event in enumerate(events) if event["type"] in {"done", "error"}), len(events))
    found = [event["data"]["session"] for event in events[:ends] if event["type"] == "session"]
    return found[-1] if found else OLD


@given(st.lists(st.sampled_from(["delta", "executed", "plain", "session"]), max_size=8), st.data())
def test_whatever_is_read_of_what_has_come_the_last_checkpoint_counts(kinds: list[str], data: Any) -> None:
    events = [KINDS.get(kind) or carrying(at + 1) for at, kind in enumerate(kinds)]
    text = b"".join(json.dumps(event).encode() + b"\n" for event in [*events, carrying(99, "done")])
    cut = data.draw(st.integers(0, len(text)))
    size = data.draw(st.sampled_from([1, 7, 10_000]))
    read = data.draw(st.integers(0, 10))
    conversation = Conversation(session=copy.deepcopy(OLD))
    turn = Turn(conversation, "go")
    came = text[:cut]
    for at in range(0, len(came), size):
        list(itertools.islice(turn.feed(came[at : at + size]), read))
    whole = [json.loads(line) for line in came.split(b"\n")[:-1]]
    if turn.reply is None:
        assert conversation.envelope == last_checkpoint(whole)
    else:
        assert conversation.session == {"n": 99}


def test_a_checkpoint_that_was_read_late_does_not_take_the_place_of_a_newer_one() -> None:
    conversation = Conversation(session=copy.deepcopy(OLD))
    turn = Turn(conversation, "go")
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in (carrying(1), carrying(2), carrying(3, "done"), carrying(4)))
    events = turn.feed(lines)
    assert conversation.session == {"n": 2}
    seen = [(next(events).type, conversation.session["n"]) for _ in range(4)]
    assert seen == [("session", 2), ("session", 2), ("done", 3), ("session", 4)]


def test_what_stands_behind_a_line_that_is_no_event_does_not_count() -> None:
    conversation = Conversation(session=copy.deepcopy(OLD))
    turn = Turn(conversation, "go")
    with pytest.raises(AnswerUnreadable):
        list(turn.feed(json.dumps(DELTA).encode() + b"\nnonsense\n" + json.dumps(carrying(1)).encode() + b"\n"))
    assert conversation.envelope == OLD


def test_control_a_client_that_keeps_sessions_when_they_are_read_loses_a_checkpoint(server: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Turn, "_adopt_first", lambda self, values: 0)
    url, service = server
    service.events, service.end = [DELTA, carrying(1)], "wait"
    with Client(url, session=copy.deepcopy(OLD)) as client, client.stream("go") as stream:
        next(stream)
        stream.close()
        assert client.session == {"n": 0}


# A server that is killed

SERVER = """
import asyncio, json, os, signal, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from dcaf import Keyring, SessionMiddleware, current_session
from dcaf.asgi import checkpoint

async def events():
    current_session().incr("n")
    yield json.dumps({"type": "text_delta", "text": "x"})
    await checkpoint()
    await asyncio.sleep(0.2)  # what was written has left
    print("killed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    yield "{}"

async def stream(request):
    return StreamingResponse((event + "\\n" async for event in events()), media_type="application/x-ndjson")

async def socket(websocket):
    await websocket.accept()
    await websocket.receive_text()
    async for event in events():
        await websocket.send_text(event)

app = Starlette(routes=[Route("/api/chat-stream", stream, methods=["POST"]), WebSocketRoute("/api/chat-ws", socket)])
app = SessionMiddleware(app, keys=Keyring.parse(sys.argv[1]), audience="shop")
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Server(uvicorn.Config(app, port=0, log_level="critical")).run()
"""


@pytest.mark.parametrize("wire", STREAMED)
def test_it_stays_where_the_server_is_killed_after_it(wire: str) -> None:
    from tests.client_package.services import RING

    command = [sys.executable, "-c", SERVER, RING.active.text()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        try:
            with talking(wire, f"http://127.0.0.1:{port}", session=envelope({"n": 5})) as talk:
                with pytest.raises(ClientError, match="not known"):
                    talk.say("go")
                assert process.stdout.readline() == "killed\n"
                assert (talk.client.session, talk.client.messages) == ({"n": 6}, [])
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
