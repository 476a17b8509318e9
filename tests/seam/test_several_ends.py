"""A turn that ends several times, as far as its client can see: it is committed once, and again where something changed since."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dcaf import Session
from dcaf.asgi import checkpoint
from tests.asgi.sockets import Peer
from tests.asgi.wire import JSON_TYPE, Recorder, Sent, call, envelope, exchange, messages_of, mounted, scope_of
from tests.stores_for_tests import MemoryLedger, ToldStore

LINES = (b"content-type", b"application/x-ndjson")
DONE = b'{"type":"done"}\n'

Say = Callable[[bytes], Awaitable[None]]


def at(session: Any) -> Any:
    return {"data": {"session": session}}


async def answer(send: Any, run: Callable[[Say], Awaitable[None]]) -> None:
    """A stream of what is said."""
    await send({"type": "http.response.start", "status": 200, "headers": [LINES]})

    async def say(line: bytes) -> None:
        await send({"type": "http.response.body", "body": line, "more_body": True})

    await run(say)
    await send({"type": "http.response.body", "body": b""})


async def twice(say: Say, session: Session) -> None:
    await say(DONE)
    await say(DONE)


async def after_a_checkpoint(say: Say, session: Session) -> None:
    await checkpoint()
    await say(DONE)
    await say(DONE)


async def changed_between(say: Say, session: Session) -> None:
    await say(DONE)
    session.incr("n")
    await say(DONE)


@pytest.mark.parametrize(
    ("run", "commits"),
    [(twice, [(2, True)]), (after_a_checkpoint, [(2, False), (2, True)]), (changed_between, [(2, True), (3, True)])],
)
def test_what_did_not_change_is_committed_once(run: Any, commits: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        session.incr("n")
        await answer(send, lambda say: run(say, session))

    store = ToldStore()
    sent = call(mounted(app, store=store), at(envelope({"n": 1})))
    told = [json.loads(line)["data"]["session"] for line in sent.body.splitlines() if b"done" in line]
    assert [(sealed.claims.seq, ends_turn) for sealed, ends_turn in store.committed] == commits
    assert [session["n"] for session in told] == [2, commits[-1][0]]


def test_a_second_end_is_no_conflict_with_the_turn_that_began_after_the_first() -> None:
    ledger, sent, holds, ends = MemoryLedger(), Sent(), asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["dcaf.session"].incr("n")
        if scope["path"] == "/next":
            holds.set()
            await ends.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        await answer(send, go_on)

    async def go_on(say: Say) -> None:
        await say(DONE)
        session = json.loads(sent.messages[-1]["body"])["data"]["session"]
        following.append(
            asyncio.create_task(exchange(service, scope_of(path="/next"), messages_of(json.dumps(at(session)).encode())))
        )
        await holds.wait()
        await say(DONE)

    async def main() -> Any:
        async def send(message: Any) -> None:
            sent.messages.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        await service(scope_of(), receive, send)
        ends.set()
        return await following[0]

    service, following = mounted(app, store=ledger), []  # type: ignore[var-annotated]
    assert asyncio.run(main()).envelope["n"] == 2
    assert [json.loads(line)["type"] for line in sent.body.splitlines()] == ["done", "done"]


def test_a_socket_commits_a_frame_that_ends_its_turn_again_once() -> None:
    store = ToldStore()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        for _ in range(2):
            await send({"type": "websocket.send", "text": DONE.decode()})
        await receive()

    with Peer(mounted(app, store=store)) as peer:
        peer.ask(at(envelope({"n": 1})))
    assert len(store.committed) == 1


@pytest.mark.parametrize(
    "last", [b"event: done\ndata: bye\n\n", b"data: [DONE]\n\n", b'event: done\ndata: {"data":1}\n\n', b"data: bye\n\n"]
)
@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/x-ndjson"])
def test_a_turn_whose_session_went_out_before_its_end_is_ended_all_the_same(last: bytes, kind: bytes) -> None:
    """Or a ledger holds it until the background tasks are done, and takes it for one that was cut."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["dcaf.session"].incr("n")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await checkpoint()
        await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    store = ToldStore()
    call(mounted(app, store=store), {})
    assert [(sealed.claims.seq, ends_turn) for sealed, ends_turn in store.committed] == [(1, False), (1, True)]
    store.committed.clear()
    call(mounted(Recorder(), store=store), {})
    assert store.committed == []


def test_a_frame_that_has_no_room_for_the_session_ends_its_turn_after_a_checkpoint() -> None:
    store = ToldStore()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        scope["dcaf.session"].incr("n")
        await checkpoint()
        await send({"type": "websocket.send", "text": '{"type":"done","data":1}'})
        await receive()

    with Peer(mounted(app, store=store)) as peer:
        peer.ask({})
    assert [ends_turn for _, ends_turn in store.committed] == [False, True]
