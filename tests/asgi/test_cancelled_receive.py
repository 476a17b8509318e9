"""A frame whose receive was cancelled is given by the next one: whatever was waited for, and in whichever way it was cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from dcaf.asgi.websocket import PassingWebSocket, SessionWebSocket
from tests.asgi.sockets import scope_of
from tests.asgi.wire import envelope, mounted, opened
from tests.stores_for_tests import ToldStore

TICKS = 6


async def slowly(value: Any) -> Any:
    for _ in range(TICKS):
        await asyncio.sleep(0)
    return value


SLOW: dict[str, dict[str, Any]] = {
    "who it is": {"subject": lambda scope: slowly("ada")},
    "which conversation": {"conversation": lambda scope, body: slowly("t1")},
    "both": {"subject": lambda scope: slowly("ada"), "conversation": lambda scope, body: slowly("t1")},
    "the store": {"store": ToldStore(open=slowly)},
    "all": {
        "subject": lambda scope: slowly("ada"),
        "conversation": lambda scope, body: slowly("t1"),
        "store": ToldStore(open=slowly),
    },
    "nothing": {},
}

Receive = Callable[[], Awaitable[Any]]
Wait = Callable[[Receive, int], Awaitable[Any]]


async def by_task(receive: Receive, ticks: int) -> Any:
    task = asyncio.ensure_future(receive())
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    return await _of(task)


async def by_task_twice(receive: Receive, ticks: int) -> Any:
    task = asyncio.ensure_future(receive())
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    return await _of(task)


async def beside_another(receive: Receive, ticks: int) -> Any:
    """As who waits for a frame or for something else, and gives up the frame."""
    task, other = asyncio.ensure_future(receive()), asyncio.ensure_future(slowly_for(ticks))
    await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    return await _of(task)


async def slowly_for(ticks: int) -> None:
    for _ in range(ticks):
        await asyncio.sleep(0)


async def _of(task: Any) -> Any:
    try:
        return await task
    except asyncio.CancelledError:
        return None


WAYS: dict[str, Wait] = {"a task": by_task, "twice": by_task_twice, "beside another": beside_another}


class Endpoint:
    """An endpoint that gives up its waiting again and again, later each time, and answers what it was given.

    Args:
        wait: How it waits.
        number: How many frames it waits for.
        most: How often it gives up at most.
    """

    def __init__(self, wait: Wait, number: int, most: int = 100_000) -> None:
        self.wait, self.number, self.most = wait, number, most
        self.seen: list[Any] = []
        self.given_up = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ticks = 0
        while len(self.seen) < self.number:
            message = await self.wait(receive, ticks)
            ticks = (ticks + 1) % (6 * TICKS)
            if message is None:
                self.given_up += 1
                assert self.given_up < self.most
                continue
            self.seen.append(json.loads(message["text"])["n"])
            scope["dcaf.session"].incr("frames")
            await send({"type": "websocket.send", "text": json.dumps({"type": "done", "n": self.seen[-1]})})


async def _talk(service: Any, frames: list[Any], answers: int) -> list[Any]:
    """A client that says its next frame when the one before was answered."""
    coming: asyncio.Queue[Any] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.ensure_future(service(scope_of(), coming.get, heard.put))
    coming.put_nowait({"type": "websocket.connect"})
    await heard.get()
    found = []
    for frame in frames:
        coming.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
        if answers:
            found.append(json.loads((await asyncio.wait_for(heard.get(), 10))["text"]))
    await asyncio.wait_for(task, 10)
    return found


def assert_all_arrive(wait: Wait, session: bool, **settings: Any) -> Endpoint:
    """The law: every frame is given, once, in order, with its turn; nobody else answers."""
    endpoint = Endpoint(wait, 12)
    own = {"data": {"session": envelope({}, subject="ada", conversation="t1")}} if session else {}
    heard = asyncio.run(_talk(mounted(endpoint, **settings), [{"n": number, **own} for number in range(12)], 1))
    assert endpoint.seen == [*range(12)]
    assert [(frame["type"], frame["n"]) for frame in heard] == [("done", number) for number in range(12)]
    return endpoint


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slow", SLOW)
def test_every_frame_arrives_once_and_in_order(slow: str, way: str) -> None:
    endpoint = assert_all_arrive(WAYS[way], False, **SLOW[slow])
    assert endpoint.given_up >= 4 or slow == "nothing"


@pytest.mark.parametrize("way", WAYS)
def test_also_one_that_brings_a_session(way: str) -> None:
    assert_all_arrive(WAYS[way], True, **SLOW["all"])


@pytest.mark.parametrize("way", WAYS)
def test_the_session_of_the_connection_is_that_of_all_its_frames(way: str) -> None:
    endpoint = Endpoint(WAYS[way], 5)
    heard = asyncio.run(_talk(mounted(endpoint, store=ToldStore(open=slowly)), [{"n": number} for number in range(5)], 1))
    assert [opened(frame["data"]["session"])["frames"] for frame in heard] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [SessionWebSocket, PassingWebSocket])
def test_a_large_frame_that_is_parsed_beside_the_loop_is_kept(kind: Any, way: str) -> None:
    carriers = ("body",) if kind is SessionWebSocket else ("cookie",)
    endpoint = Endpoint(WAYS[way], 3)
    large = [{"n": number, "x": ["y"] * 6_000} for number in range(3)]
    asyncio.run(_talk(mounted(endpoint, carriers=carriers), large, 1))
    assert endpoint.seen == [0, 1, 2]


@pytest.mark.parametrize("way", WAYS)
def test_an_end_that_comes_in_is_not_lost_either(way: str) -> None:
    ends: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ticks = 0
        while (message := await WAYS[way](receive, ticks)) is None or message["type"] != "websocket.disconnect":
            ticks += 1
        ends.append(message["code"])

    async def run() -> None:
        coming: asyncio.Queue[Any] = asyncio.Queue()
        heard: asyncio.Queue[Any] = asyncio.Queue()
        coming.put_nowait({"type": "websocket.connect"})
        task = asyncio.ensure_future(mounted(app, **SLOW["all"])(scope_of(), coming.get, heard.put))
        await heard.get()
        coming.put_nowait({"type": "websocket.receive", "text": "{}"})
        coming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(task, 10)

    asyncio.run(run())
    assert ends == [1001]


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_frame_is_answered_and_the_next_one_is_given(way: str) -> None:
    endpoint = Endpoint(WAYS[way], 1)

    async def run() -> list[Any]:
        coming: asyncio.Queue[Any] = asyncio.Queue()
        heard: asyncio.Queue[Any] = asyncio.Queue()
        coming.put_nowait({"type": "websocket.connect"})
        task = asyncio.ensure_future(mounted(endpoint, **SLOW["all"])(scope_of(), coming.get, heard.put))
        await heard.get()
        coming.put_nowait({"type": "websocket.receive", "text": '{"data":{"session":{"n":1}}}'})
        coming.put_nowait({"type": "websocket.receive", "text": '{"n":7}'})
        await asyncio.wait_for(task, 10)
        return [json.loads(heard.get_nowait()["text"]) for _ in range(heard.qsize())]

    heard = asyncio.run(run())
    assert endpoint.seen == [7]
    assert [frame.get("code") for frame in heard] == ["session-unsigned", None]


@pytest.mark.parametrize("carriers", [("body",), ("header",)])
def test_a_frame_is_refused_once_whoever_is_cancelled_while_that_is_told(carriers: Any) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = None
        while message is None or message["type"] != "websocket.disconnect":
            with suppress(TimeoutError):
                message = await asyncio.wait_for(receive(), 0.01)

    async def connect() -> None:
        coming: asyncio.Queue[Any] = asyncio.Queue()
        for message in ({"type": "websocket.connect"}, {"type": "websocket.receive", "text": '{"data":{"session":{"x":1}'}):
            coming.put_nowait(message)

        async def send(message: Any) -> None:  # as a server's: the message is taken at once, then it waits for its client
            sent.append(message)
            await asyncio.sleep(0.05)

        task = asyncio.ensure_future(mounted(app, carriers=carriers)(scope_of(), coming.get, send))
        await asyncio.sleep(0.3)
        coming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task

    asyncio.run(connect())
    assert [json.loads(message["text"])["code"] for message in sent if "text" in message] == ["malformed-json"]
