"""Clients that nobody closes: the program ends by itself, and says nothing of tasks, contexts or threads that were left."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dcaf.testing import SessionClient, serving
from dcaf.testing.asgi import OPEN_CONNECTIONS
from tests.testing.counting import Counter

APP = """
import asyncio, gc, os, sys, threading, time
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.routing import WebSocketRoute, Route
from starlette.responses import JSONResponse
from dcaf import SessionMiddleware, current_session
from dcaf.testing import AsyncSessionClient, SessionClient, fixed_keys
from dcaf.client import AsyncClient, Client

async def talk(socket):
    await socket.accept()
    async for _ in socket.iter_json():
        current_session().incr("n")
        await run_in_threadpool(time.sleep, 0)
        await socket.send_json({"type": "done"})

def chat(request):
    return JSONResponse({"role": "assistant", "content": "", "n": current_session().incr("n")})

@asynccontextmanager
async def lifespan(_):
    yield
    print("stopped", flush=True)

routes = [WebSocketRoute("/api/chat-ws", talk), Route("/api/chat", chat, methods=["POST"])]
app = SessionMiddleware(Starlette(routes=routes, lifespan=lifespan), keys=fixed_keys(), audience="counter")
kept = []
"""
MADE = {
    "inside socket": "kept.append(client := SessionClient(app, wire='websocket')); client.send('x')",
    "inside json": "kept.append(client := SessionClient(app)); client.send('x')",
    "inside started": "kept.append(client := SessionClient(app, wire='websocket').__enter__()); client.send('x')",
    "two at once": "kept.extend(SessionClient(app, wire='websocket') for _ in range(2)); [one.send('x') for one in kept]",
    "network socket": "kept.append(client := SessionClient(URL, wire='websocket')); client.send('x')",
    "client socket": "kept.append(client := Client(URL).socket()); client.send('x')",
    "client stream": "kept.append(client := Client(URL).stream('x')); next(client)",
    "async inside socket": """
async def main():
    kept.append(client := AsyncSessionClient(app, wire='websocket'))
    await client.send('x')
asyncio.run(main())""",
    "async inside started": """
async def main():
    kept.append(client := await AsyncSessionClient(app, wire='websocket').__aenter__())
    await client.send('x')
asyncio.run(main())""",
    "async client socket": """
async def main():
    kept.append(client := AsyncClient(URL).socket())
    await client.send('x')
asyncio.run(main())""",
}
OURS = ("inside socket", "inside json", "inside started", "network socket")
"""Those with a thread of this library: each is ended in every way."""

ENDS = {
    "at its end": ("", 0, ""),
    "by an exception": ("raise ValueError('its own')", 1, "ValueError: its own"),
    "by sys.exit": ("sys.exit(3)", 3, ""),
    "by an interrupt": ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
    "after it was collected": ("client = None; kept.clear(); gc.collect(); time.sleep(0.4); gc.collect()", 0, ""),
}
NOISE = ("destroyed", "different Context", "Exception ignored", "never awaited", "Fatal Python error")


def ended(code: str, *, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=timeout_s)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Counter()) as base:
        yield base


@pytest.mark.parametrize(
    ("made", "end"),
    [(made, end) for made in MADE for end in ENDS if made in OURS or end in {"at its end", "after it was collected"}],
)
def test_a_program_with_an_open_client_ends_by_itself(made: str, end: str, url: str) -> None:
    code, status, words = ENDS[end]
    done = ended(f"{APP}\nURL = {url!r}\n{MADE[made]}\n{code}")
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert not [word for word in NOISE if word in done.stderr], done.stderr


def test_it_ends_where_the_client_was_made_in_another_thread() -> None:
    code = f"{APP}\ndef work():\n    {MADE['inside socket']}\none = threading.Thread(target=work)\none.start()\none.join()"
    done = ended(code)
    assert (done.returncode, done.stderr) == (0, "")


WORKING = """
made = []
def work():
    made.append(SessionClient(app, wire="websocket"))
    for _ in range(6):
        time.sleep(0.1)
        print([one.send("x").session["n"] for one in made], flush=True)
made.append(SessionClient(app, wire="websocket"))
threading.Thread(target=work).start()
"""


def test_a_thread_that_goes_on_after_the_end_of_the_main_one_goes_on_talking() -> None:
    done = ended(f"{APP}\n{WORKING}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"[{turn}, {turn}]" for turn in range(1, 7)]


WAITING = """
import anyio
from concurrent.futures import Future
from anyio.from_thread import BlockingPortal
import dcaf.testing.client as kit

class Waiting:
    def __init__(self, owner):
        begun = Future()
        threading.Thread(target=anyio.run, args=(self.live, begun)).start()
        self.portal = begun.result()

    async def live(self, begun):
        async with BlockingPortal() as portal:
            begun.set_result(portal)
            await portal.sleep_until_stopped()

    def close(self):
        pass

kit.ApplicationLoop = Waiting
"""


def test_control_a_loop_that_waits_for_its_client_keeps_the_program_alive() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        ended(f"{APP}\n{WAITING}\n{MADE['inside socket']}", timeout_s=4)


def test_a_client_that_was_collected_leaves_no_thread_and_no_task() -> None:
    def one(wire: Any) -> None:
        assert SessionClient(Counter(), wire=wire).send("one").session == {"n": 1}

    before, opened = set(threading.enumerate()), set(OPEN_CONNECTIONS)
    for wire in ("websocket", "json", "ndjson", "websocket"):
        one(wire)
    gc.collect()
    until = time.monotonic() + 5
    while (set(threading.enumerate()) - before or OPEN_CONNECTIONS - opened) and time.monotonic() < until:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()
    assert OPEN_CONNECTIONS - opened == set()


def test_an_application_whose_client_was_collected_is_told_that_it_has_left() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            told.append(message["type"])
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": '{"type":"done"}'})

    SessionClient(app, wire="websocket").send("one")
    until = time.monotonic() + 20
    while len(told) < 2 and time.monotonic() < until:
        gc.collect()  # again, as the thread of the application may hold it a moment longer
        time.sleep(0.01)
    assert told == ["websocket.receive", "websocket.disconnect"]


TESTS = """
import gc
import pytest
from dcaf.testing import AsyncSessionClient, SessionClient

@pytest.fixture
def anyio_backend():
    return "asyncio"

{app}
def test_open():
    SessionClient(app, wire="websocket").send("x")
    gc.collect()

def test_kept_by_a_global():
    global client
    client = SessionClient(app, wire="websocket")
    client.send("x")

def test_entered():
    SessionClient(app, wire="websocket").__enter__().send("x")

@pytest.mark.anyio
async def test_async():
    await AsyncSessionClient(app, wire="websocket").send("x")
    gc.collect()

@pytest.mark.anyio
async def test_async_entered():
    client = await AsyncSessionClient(app, wire="websocket").__aenter__()
    await client.send("x")

def test_that_comes_after():
    gc.collect()
"""


def test_a_client_that_a_test_leaves_open_warns_of_nothing(tmp_path: Any) -> None:
    (tmp_path / "test_open.py").write_text(TESTS.format(app=APP))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-Werror",
        "-pno:cacheprovider",
        "-c",
        "/dev/null",
        str(tmp_path / "test_open.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    assert not [word for word in NOISE if word in done.stdout + done.stderr], done.stdout + done.stderr
