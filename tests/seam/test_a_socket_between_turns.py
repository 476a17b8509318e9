"""What a socket's endpoint writes and sends between two turns, while the next frame comes in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dcaf.asgi import checkpoint
from dcaf.core import Payload, SessionEnded
from tests.asgi.sockets import Peer
from tests.asgi.wire import Recorder, call, envelope, exchange, mounted, scope_of
from tests.stores_for_tests import MemoryService, ToldStore, if_sealed

DONE = {"type": "websocket.send", "text": '{"type":"done"}'}


def at(session: Any) -> Any:
    return {"data": {"session": session}}


def state(envelope: Any) -> Any:
    return {key: value for key, value in envelope.items() if key != "dcaf"}


async def pushed(frame: Any) -> tuple[list[Any], list[int | None]]:
    """Two turns of a socket; what was done between them is being committed when the frame of the second comes in."""
    gate, waits, commits, sent = asyncio.Event(), asyncio.Event(), 0, []

    async def commit(_: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            waits.set()
            await gate.wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send(DONE)

        async def push() -> None:
            session["pushed"] = True
            await checkpoint()

        pushing = asyncio.create_task(push())
        await receive()
        await pushing
        session["second"] = True
        await send(DONE)

    coming: asyncio.Queue[Any] = asyncio.Queue()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            sent.append(json.loads(message["text"])["data"]["session"])

    store = ToldStore(commit=commit)
    scope = {**scope_of(path="/ws"), "type": "websocket", "subprotocols": []}
    serving = asyncio.create_task(mounted(app, store=store)(scope, coming.get, send))
    first = {"type": "websocket.receive", "text": json.dumps(at(envelope({"who": "one"})))}
    for message in ({"type": "websocket.connect"}, first):
        coming.put_nowait(message)
    await waits.wait()
    coming.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
    for _ in range(20):
        await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(serving, 5)
    return [state(session) for session in sent], store.numbers


def test_a_frame_of_another_session_is_not_mixed_with_what_is_being_committed() -> None:
    sent, _ = asyncio.run(pushed(at(envelope({"who": "other"}))))
    assert sent == [{"who": "one"}, {"who": "one", "pushed": True}, {"who": "other", "second": True}]


def test_a_frame_is_opened_when_what_is_being_committed_is() -> None:
    sent, numbers = asyncio.run(pushed({}))
    assert sent[1:] == [{"who": "one", "pushed": True}, {"who": "one", "pushed": True, "second": True}]
    assert numbers == [None, 1, 2]


def test_a_frame_whose_state_cannot_be_read_leaves_no_lease_and_no_turn() -> None:
    store, kept = ToldStore(), [Payload(b"[]")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send(DONE)

    opening = store.open

    async def open_rubbish(request: Any) -> Any:
        lease = await opening(request)
        if request.claims is not None:
            lease.place, lease.payload = "server", kept[-1]
        return lease

    store.open = open_rubbish  # type: ignore[method-assign]
    with Peer(mounted(app, store=store)) as peer:
        assert peer.ask(at(envelope({"n": 1})))["code"] == "session-unavailable"
        assert store.steps[-1] == "release"
        kept.append(Payload(b'{"n":5}'))
        assert state(peer.ask(at(envelope({"n": 1})))["data"]["session"]) == {"n": 5}


def test_what_was_written_between_turns_is_laid_over_what_others_have_committed() -> None:
    store = MemoryService()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send(DONE)
            session["between"] = True
            session.incr("n")

    with Peer(mounted(app, store=store)) as peer:
        first = peer.ask(at(envelope({"n": 0})))["data"]["session"]
        call(mounted(Recorder(tool=lambda session: session.incr("n", 10)), store=store), at(first))
        second = peer.ask({})["data"]["session"]
    assert state(second) == {"n": 11, "between": True}


def test_a_state_that_moves_to_the_server_with_the_first_frame_merges() -> None:
    """A store that keeps nothing of what has not begun."""
    service = MemoryService()

    class Late(ToldStore):
        async def open(self, request: Any) -> Any:
            return await (super().open(request) if request.is_safe else service.open(request))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        session.incr("n")
        call_beside()
        await send(DONE)

    def call_beside() -> None:
        kept = next(iter(service.sessions.values()))
        kept.payload, kept.revision = Payload(b'{"n":10}'), kept.revision + 1

    first = call(mounted(Recorder(tool=lambda session: session.incr("n")), store=service)).envelope
    with Peer(mounted(app, store=Late())) as peer:
        assert state(peer.ask(at(first))["data"]["session"]) == {"n": 11}


def test_a_connection_that_cannot_begin_releases_the_lease_of_its_handshake() -> None:
    def fail(_: Any) -> bool:
        raise RuntimeError("a bug")

    store = ToldStore()
    scope = {**scope_of(path="/ws"), "type": "websocket", "subprotocols": []}
    with pytest.raises(RuntimeError):
        asyncio.run(exchange(mounted(Recorder(), store=store, plain=fail), scope, []))
    assert store.steps == ["open", "release"]


def test_each_lease_is_released_once() -> None:
    """A second release might be that of another turn, by a store that does not know them apart."""
    released: list[Any] = []

    class Counting(ToldStore):
        async def open(self, request: Any) -> Any:
            lease = await super().open(request)
            lease.release = release_of(lease)  # type: ignore[method-assign]
            return lease

    def release_of(lease: Any) -> Any:
        async def release() -> None:
            released.append(lease)

        return release

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await Recorder()(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send(DONE)

    store = Counting()
    service = mounted(app, store=store, on_refused="restart")
    with Peer(service) as peer:
        for session in (None, envelope({"n": 1}), None, {"dcaf": {"token": "dcaf1s.x.y.z.w"}}):
            peer.ask(at(session))
    call(service, at(envelope({"n": 1})))
    store.happening["open"] = if_sealed(SessionEnded(reason="revoked"))
    call(service, at(envelope({"n": 1})))
    assert len(released) == len(set(map(id, released))) == store.steps.count("open") - 1
