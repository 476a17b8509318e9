"""What a socket's endpoint writes and sends between two turns, while the next frame comes in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from dcaf.asgi import checkpoint
from dcaf.core import Payload
from tests.asgi.sockets import Peer
from tests.asgi.wire import envelope, mounted, scope_of
from tests.stores_for_tests import ToldStore

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
        lease.place, lease.payload = "server", kept[-1]
        return lease

    store.open = open_rubbish  # type: ignore[method-assign]
    with Peer(mounted(app, store=store)) as peer:
        assert peer.ask(at(envelope({"n": 1})))["type"] == "error"
        assert store.steps[-1] == "release"
        kept.append(Payload(b'{"n":5}'))
        assert state(peer.ask(at(envelope({"n": 1})))["data"]["session"]) == {"n": 5}
