"""Answers that are left early, and clients that run in process."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from dcaf import SessionMiddleware, current_session
from dcaf.asgi import checkpoint
from dcaf.client import AsyncClient, Client, ClientError, ServiceUnreachable, TurnOvertaken, TurnUnfinished
from dcaf.testing import serving
from tests.client_package.services import AUDIENCE, RING, Service, envelope

pytestmark = pytest.mark.filterwarnings("error")


class Slow:
    """An agent that says a word, stops until it may go on, and is done. ``keep`` has it send the session before it stops."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        routes = [Route("/api/chat-stream", self.stream, methods=["POST"]), WebSocketRoute("/api/chat-ws", self.socket)]
        self.app = SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    async def events(self, body: Any) -> Any:
        said = body["messages"][-1]["content"]
        n = current_session().incr("n")
        yield json.dumps({"type": "text_delta", "text": f"turn {n}"})
        if said == "keep":
            await checkpoint()
        while said != "fast" and not self.goes_on.is_set():  # noqa: ASYNC110  # it is set by another thread
            await asyncio.sleep(0.005)
        if said == "break":
            raise ConnectionError
        yield json.dumps({"type": "done"})
        if said == "after":
            current_session().incr("n")
            await checkpoint()

    async def stream(self, request: Request) -> StreamingResponse:
        body = await request.json()
        return StreamingResponse((f"{event}\n" async for event in self.events(body)), media_type="application/x-ndjson")

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            async for body in socket.iter_json():
                async for event in self.events(body):
                    await socket.send_text(event)
        except (WebSocketDisconnect, ConnectionError):
            await socket.close()


@pytest.fixture
def slow() -> Iterator[Slow]:
    one = Slow()
    yield one
    one.goes_on.set()


@pytest.fixture
def url(slow: Slow) -> Iterator[str]:
    with serving(slow) as base:
        yield base
        slow.goes_on.set()


def kinds(client: Any) -> list[Any]:
    """The two ways to stream."""
    return [client, client.socket()]


@pytest.mark.parametrize("way", [0, 1])
def test_an_answer_that_is_left_half_way_leaves_the_session_and_the_messages_of_before(slow: Slow, url: str, way: int) -> None:
    with Client(url, session=envelope({"n": 5})) as client:
        before = copy.deepcopy(client.envelope)
        speaker = kinds(client)[way]
        with speaker.stream("one") as stream:
            assert next(stream).text == "turn 6"
            with pytest.raises(TurnUnfinished, match="done"):
                _ = stream.reply
        assert list(stream) == []
        assert getattr(speaker, "_connection", None) is None, "the rest of its frames would still come"
        assert (client.envelope, client.messages) == (before, [])
        with closing(speaker), speaker.stream("fast") as stream:
            assert [event.type for event in stream] == ["text_delta", "done"]
        assert (stream.reply.text, stream.reply.session) == ("turn 6", {"n": 6})
        assert [message["content"] for message in client.messages] == ["fast", "turn 6"]


@pytest.mark.parametrize("way", [0, 1])
def test_a_session_that_came_before_the_answer_was_left_counts(slow: Slow, url: str, way: int) -> None:
    with Client(url, session=envelope({"n": 5})) as client:
        speaker = kinds(client)[way]
        with closing(speaker), speaker.stream("keep") as stream:
            assert [next(stream).type, next(stream).type] == ["text_delta", "session"]
        assert (client.session, client.messages) == ({"n": 6}, [])


@pytest.mark.parametrize("way", [0, 1])
def test_a_loop_that_is_left_without_closing_does_not_block_the_next_turn(slow: Slow, url: str, way: int) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            speaker = kinds(client)[way]
            kept = speaker.stream("one")
            async for _ in kept:
                break
            async with speaker.stream("fast") as stream:
                texts = [event.text async for event in stream]
            assert texts == ["turn 1", ""]
            with pytest.raises((TurnOvertaken, ServiceUnreachable)):
                slow.goes_on.set()
                _ = [event async for event in kept]
            assert getattr(speaker, "_connection", True) is not None, "the connection is the next turn's"
            async with speaker.stream("fast") as stream:
                assert [event.text async for event in stream] == ["turn 2", ""]
            await speaker.close()

    asyncio.run(main())


@pytest.mark.parametrize("way", [0, 1])
def test_an_async_answer_that_is_left_leaves_the_session_of_before(url: str, way: int) -> None:
    async def main() -> None:
        async with AsyncClient(url, session=envelope({"n": 5})) as client:
            before = copy.deepcopy(client.envelope)
            speaker = kinds(client)[way]
            async with speaker.stream("one") as stream:
                assert (await anext(stream)).text == "turn 6"
            assert getattr(speaker, "_connection", None) is None
            assert (client.envelope, client.messages) == (before, [])
            async with speaker.stream("fast") as stream:
                assert [event.text async for event in stream] == ["turn 6", ""]
            await speaker.close()

    asyncio.run(main())


@pytest.mark.parametrize("way", [0, 1])
def test_a_connection_that_breaks_is_an_error_that_keeps_the_session_of_before(slow: Slow, url: str, way: int) -> None:
    slow.goes_on.set()
    with Client(url, session=envelope({"n": 5})) as client:
        before = copy.deepcopy(client.envelope)
        speaker = kinds(client)[way]
        with closing(speaker), pytest.raises(ClientError, match="again") as raised, speaker.stream("break") as stream:
            list(stream)
        assert raised.value.code in {"service-unreachable", "internal-error"}
        assert client.messages == []
        assert client.envelope == before or client.session == {"n": 6}, "a server may send the session before it closes"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("way", [0, 1])
def test_nothing_is_waited_for_longer_than_was_said(url: str, kind: Any, way: int) -> None:
    client = kind(url, timeout=timedelta(milliseconds=200))
    speaker = kinds(client)[way]

    async def asynchronous() -> None:
        async with client, speaker.stream("one") as stream:
            _ = [event async for event in stream]

    def synchronous() -> None:
        with client, speaker.stream("one") as stream:
            list(stream)

    with pytest.raises(ServiceUnreachable, match="Timeout"):
        synchronous() if kind is Client else asyncio.run(asynchronous())


def test_a_session_that_came_between_two_turns_on_a_socket_goes_out_with_the_next(slow: Slow, url: str) -> None:
    slow.goes_on.set()
    with Client(url) as client, client.socket() as socket:
        socket.send("after")
        assert client.session == {"n": 1}
        threading.Event().wait(0.2)
        assert socket.send("fast").session == {"n": 3}


def test_a_loop_that_is_left_at_done_has_ended_the_turn(slow: Slow, url: str) -> None:
    slow.goes_on.set()
    with Client(url) as client:
        stream = client.stream("one")
        for event in stream:
            if event.type == "done":
                break
        stream.close()
        assert (stream.reply.text, client.session, len(client.messages)) == ("turn 1", {"n": 1}, 2)


def test_a_socket_that_the_server_closed_opens_again_with_the_session() -> None:
    service = Service()
    with serving(service) as base, Client(base) as client, client.socket() as socket:
        assert socket.send("hang up").text == "turn 1"
        threading.Event().wait(0.2)
        assert socket.send("two").text == "turn 2"
    assert service.opened == 2


def test_turns_of_a_socket_and_of_the_client_share_one_conversation() -> None:
    service = Service()
    with serving(service) as base, Client(base) as client, client.socket() as socket:
        texts = [socket.send("one").text, client.send("two").text, socket.send("three").text]
    assert texts == ["turn 1", "turn 2", "turn 3"]
    assert [len(body["messages"]) for body in service.bodies] == [1, 3, 5]


def test_it_runs_in_process_on_the_test_client_of_starlette() -> None:
    service = Service()
    http = TestClient(service)
    with Client("http://testserver", http=http, session=envelope({}, age=timedelta(days=8))) as client:
        replies = [client.send("one"), client.send("two")]
        with client.stream("three") as stream:
            events = [event.type for event in stream]
    assert [(reply.text, reply.restarted) for reply in replies] == [("turn 1", "session-ended"), ("turn 2", None)]
    assert (events, stream.reply.text) == (["text_delta", "text_delta", "done"], "turn 3")
    assert not http.is_closed, "who made it closes it"


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_it_runs_in_process_on_asyncio_and_on_trio(run: Any) -> None:
    service = Service()
    texts = []

    async def main() -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=service)) as http:
            async with AsyncClient("http://agent.example", http=http) as client:
                texts.append((await client.send("one")).text)
            assert not http.is_closed

    run(main) if run is trio.run else run(main())
    assert texts == ["turn 1"]


def test_two_turns_at_once_are_an_error_and_never_a_lost_update() -> None:
    async def main(base: str) -> tuple[Any, Any]:
        async with AsyncClient(base) as client:
            return await asyncio.gather(client.send("one"), client.send("two"), return_exceptions=True)

    with serving(Service()) as base:
        first, second = asyncio.run(main(base))
    assert isinstance(first, TurnOvertaken)
    assert second.text == "turn 1"
