"""What a turn leaves when it is over: nothing that the garbage collector would have to find."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest

from dcaf.asgi.lifecycle import ASGITurn
from dcaf.core.errors import SessionConflict
from dcaf.core.store import StatelessStore
from tests.asgi.sockets import scope_of
from tests.asgi.wire import JSON_TYPE, call, envelope, mounted
from tests.stores_for_tests import ToldStore

NDJSON = ((b"content-type", b"application/x-ndjson"),)


def answering(body: bytes, *, headers: Any = (JSON_TYPE,), is_changing: bool = True) -> Any:
    """An application that keeps nothing of a request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if is_changing:
            scope["session"].incr("step")
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app


async def talk(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        scope["session"].incr("step")
        await send({"type": "websocket.send", "text": '{"type":"done"}'})


def asking(app: Any, body: Any, headers: Any = (JSON_TYPE,), **settings: Any) -> Callable[[], Any]:
    service = mounted(app, **settings)
    return lambda: call(service, body, headers=headers)


def talking(**settings: Any) -> Callable[[], Any]:
    service, frame = mounted(talk, **settings), json.dumps({"data": {"session": envelope({"step": 1})}})

    async def drop(message: Any) -> None: ...

    async def connect() -> None:
        coming = [{"type": "websocket.disconnect"}, {"type": "websocket.receive", "text": frame}, {"type": "websocket.connect"}]

        async def receive() -> Any:
            return coming.pop()

        await service(scope_of(), receive, drop)

    return lambda: asyncio.run(connect())


BODY = {"data": {"session": envelope({"step": 1})}}
TOKEN = (b"dcaf-session", BODY["data"]["session"]["dcaf"]["token"].encode())
TURNS = {
    "a body": asking(answering(b"{}"), BODY),
    "an untouched one": asking(answering(b"{}", is_changing=False), BODY),
    "a stream": asking(answering(b'{"type":"done"}\n', headers=NDJSON), BODY),
    "a header": asking(answering(b"hello", headers=()), b"", (TOKEN,), carriers=("header",)),
    "a refusal": asking(answering(b"{}"), {"data": {"session": {"dcaf": {"token": "dcaf1s.x"}}}}),
    "a socket": talking(),
    "a store": asking(answering(b"{}"), BODY, store=StatelessStore()),
    "a stream with a store": asking(answering(b'{"type":"done"}\n', headers=NDJSON), BODY, store=StatelessStore()),
    "a header with a store": asking(answering(b"hello", headers=()), b"", (TOKEN,), carriers=("header",), store=StatelessStore()),
    "a store that refuses": asking(answering(b"{}"), BODY, store=ToldStore(open=SessionConflict(reason="busy"))),
    "a socket with a store": talking(store=StatelessStore()),
}


def left_by(turn: Callable[[], Any]) -> list[str]:
    """The types of dcaf whose objects only the garbage collector finds after a turn."""
    turn()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        turn()
        gc.collect()
        return [type(found).__name__ for found in gc.garbage if type(found).__module__.startswith("dcaf")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_leaves_nothing_for_the_garbage_collector(name: str) -> None:
    assert left_by(TURNS[name]) == []


def test_control_a_session_that_holds_its_turn_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(ASGITurn, "end", lambda self: self.session._state.end(self.report_lost))
    assert "State" in left_by(TURNS["a body"])
