"""What a message says to write works when it is written, for each message; and none is without a test."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import dcaf
from dcaf import DcafError, SessionMiddleware, current_session
from dcaf.asgi import checkpoint
from tests.asgi.advice import ADVICE, Advice
from tests.asgi.sockets import Peer
from tests.asgi.wire import AUDIENCE, RING, mounted

ROOT = Path(dcaf.__file__).parent
FILES = [
    *(ROOT / "asgi").glob("*.py"),
    *(
        ROOT / "core" / f"{name}.py"
        for name in (
            "arguments",
            "envelope",
            "host",
            "keys",
            "lifecycle",
            "merging",
            "migrations",
            "sealer",
            "settings",
            "store",
        )
    ),
]
TOLD = ("ConfigurationError", "StateError", "NotCarriedError", "SessionValueError", "TypeError")
"""Errors of the developer, whose messages say what to write. What a client is told is static text, in the protocol."""

NEEDS_THE_EXTRA = "Encryption needs "


def messages(path: Path) -> list[str]:
    """The fixed part of each message that a file raises; where there is none, how it is made."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in TOLD:
            made = node.exc.args[0]
            parts = [one.value for one in ast.walk(made) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            is_text = isinstance(made, ast.Constant | ast.JoinedStr)
            found.append("".join(parts) if is_text else ast.unparse(made))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_message_has_its_advice_tested(path: Path) -> None:
    tested = [one.said for one in ADVICE] + [NEEDS_THE_EXTRA, "_too_long("]
    assert [message for message in messages(path) if not any(said in message for said in tested)] == []


@pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: advice.said)
def test_what_a_message_says_to_write_works(advice: Advice) -> None:
    with pytest.raises((DcafError, TypeError)) as raised:
        advice.meets()
    if re.match(r"[\w.]+(\(|$)", advice.said) is None:
        assert advice.said in str(raised.value)
    advice.follows()


# What the log says to write


async def own(_: Any) -> JSONResponse:
    return JSONResponse({"data": {"session": {"own": 1}}})


ROUTES: dict[str, tuple[Any, str]] = {
    "a path": ([Route("/api/chat", own, methods=["POST"])], "/api/chat"),
    "a part that stands for many": ([Route("/users/{name}/chat", own, methods=["POST"])], "/users/ada/chat"),
    "a number": ([Route("/chats/{id:int}", own, methods=["POST"])], "/chats/7"),
    "the rest of a path": ([Route("/files/{rest:path}", own, methods=["POST"])], "/files/a/b.txt"),
    "signs that mean something": ([Route("/a.b+c/{x}", own, methods=["POST"])], "/a.b+c/1"),
    "a mount": ([Mount("/api", routes=[Route("/chat", own, methods=["POST"])])], "/api/chat"),
    "a mount of a user": ([Mount("/users/{name}", routes=[Route("/chat", own, methods=["POST"])])], "/users/ada/chat"),
}


def advised(lines: list[str]) -> Any:
    """What the line says to give plain=; None where it can only say that a function is taken."""
    (line,) = [line for line in lines if "overwritten" in line]
    found = re.search(r"plain=(\(.*?,\)|lambda scope: bool\(.*\))\)\.", line)
    if found is None:
        assert "takes whole paths, or a function of the scope" in line
        return None
    return eval(found[1], {"re": re})


@pytest.mark.parametrize("kind", ROUTES)
def test_the_route_that_the_log_names_is_adopted_and_no_other(kind: str, caplog: Any) -> None:
    routes, path = ROUTES[kind]
    caplog.set_level(logging.WARNING, logger="dcaf")
    assert TestClient(mounted(Starlette(routes=routes))).post(path, json={}).json()["data"]["session"] is None
    plain = advised(caplog.messages)
    plain = (lambda scope: scope["path"] == path) if plain is None else plain
    client = TestClient(SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE, plain=plain))
    answer = client.post(path, json={}).json()["data"]["session"]
    assert (answer["own"], "dcaf" in answer) == (1, True)
    assert not callable(plain) or not plain({"path": "/other"})


def late(place: str) -> Any:
    """An application that changes its session too late, or, for a place that begins with ``in time``, as the log says."""

    async def change() -> None:
        current_session()["n"] = 1

    async def text() -> Any:
        yield "a"
        await change()
        yield "b"

    async def lines() -> Any:
        yield '{"type":"x"}\n'
        await change()
        yield '{"type":"done"}\n'

    async def root(_: Any) -> Any:
        if place.startswith("in time, before"):
            await change()
        if place == "in a text":
            return StreamingResponse(text(), media_type="text/plain")
        if place in ("in time, in a stream", "in a stream that passes"):
            return StreamingResponse(lines(), media_type="application/x-ndjson")
        return JSONResponse({}, background=BackgroundTask(change) if place == "in a background task" else None)

    return Starlette(routes=[Route("/", root, methods=["POST"])])


LATE: list[tuple[str, dict[str, Any]]] = [
    ("in a background task", {}),
    ("in a text", {}),
    ("in a stream that passes", {"pass_streams": ("/",)}),
    ("in a text", {"carriers": ("header",)}),
]
IN_TIME: list[tuple[str, dict[str, Any]]] = [
    ("in time, before the answer", {}),
    ("in time, in a stream", {}),
    ("in time, before the answer", {"carriers": ("header",)}),
]


def lost(place: str, settings: dict[str, Any], caplog: Any) -> list[str]:
    caplog.clear()
    TestClient(mounted(late(place), **settings)).post("/", json={})
    return [line for line in caplog.messages if "lost" in line]


@pytest.mark.parametrize(("place", "settings"), LATE)
def test_a_change_that_is_lost_is_told_with_what_to_do(place: str, settings: Any, caplog: Any) -> None:
    (line,) = lost(place, settings, caplog)
    assert "Change the session before " in line


@pytest.mark.parametrize(("place", "settings"), IN_TIME)
def test_what_is_done_so_is_not_lost(place: str, settings: Any, caplog: Any) -> None:
    assert lost(place, settings, caplog) == []


def test_frames_carry_the_session_with_the_carriers_that_the_log_names(caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        current_session()["n"] = 1
        await send({"type": "websocket.send", "text": '{"type":"done"}'})

    def told(carriers: Any) -> list[str]:
        caplog.clear()
        with Peer(mounted(app, carriers=carriers)) as peer:
            peer.say({})
            peer.settle()
        return [line for line in caplog.messages if "lost" in line]

    (line,) = told(("cookie",))
    found = re.search(r"carriers=(\(.*?\))\)", line)
    assert found is not None
    assert told(ast.literal_eval(found[1])) == []


def test_checkpoint_is_where_the_messages_say_it_is() -> None:
    assert checkpoint.__module__.startswith("dcaf.asgi")
