"""A ledger whose file was emptied while it ran, and one that cannot tell whether a frame is the one that it has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from dcaf import Keyring, SessionMiddleware, current_session
from dcaf.ledger import Ledger, rules
from dcaf.testing import SessionClient


async def chat(request: Request) -> JSONResponse:
    return JSONResponse({"n": current_session().incr("n")})


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async for _ in socket.iter_json():
        await socket.send_json({"type": "done", "n": current_session().incr("n")})


def serve(ledger: Ledger) -> SessionMiddleware:
    """A service that counts turns, for a caller with a name."""
    routes = [Route("/api/chat", chat, methods=["POST"]), WebSocketRoute("/ws", talk)]
    return SessionMiddleware(
        Starlette(routes=routes), keys=Keyring.ephemeral(), audience="shop", subject=lambda scope: "ada", store=ledger
    )


def serve_visitors(ledger: Ledger) -> SessionMiddleware:
    """The same, for whoever comes."""
    routes = [Route("/api/chat", chat, methods=["POST"])]
    return SessionMiddleware(Starlette(routes=routes), keys=Keyring.ephemeral(), audience="shop", store=ledger)


def count_after_emptying(folder: Path) -> list[int]:
    """The statuses of a visitor's turns who comes when the file was removed under a running service, and was noticed."""
    app = serve_visitors(Ledger(f"sqlite:///{folder / 'dcaf.db'}", audience="shop"))
    assert [SessionClient(app).send("hello").status for _ in range(2)] == [200, 200]
    for path in folder.glob("dcaf.db*"):
        path.unlink()
    SessionClient(app).send("the engine notices that its file is gone, and refuses once")
    visitor = SessionClient(app)
    return [visitor.send("hello").status for _ in range(3)]


def test_visitors_are_served_again_after_the_file_was_emptied(tmp_path: Path) -> None:
    assert count_after_emptying(tmp_path) == [200, 200, 200]


def test_control_a_ledger_that_does_not_look_whether_its_store_is_there_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(*_: object) -> None: ...

    monkeypatch.setattr("dcaf.ledger.opening.make_store", leave)
    assert count_after_emptying(tmp_path) == [200, 409, 409]


def lose_a_frame() -> dict[str, Any]:
    """The frame for a client that sends a message once more whose answer it has lost with the socket."""
    web = TestClient(serve(Ledger("memory://", audience="shop")))
    with web.websocket_connect("/ws") as socket:
        socket.send_json({"text": "hello"})
        first = socket.receive_json()["data"]["session"]
    body = {"text": "buy", "data": {"session": first}}
    frames = []
    for _ in range(2):
        with web.websocket_connect("/ws") as socket:
            socket.send_json(body)
            frames.append(socket.receive_json())
    assert frames[0]["n"] == 2
    return dict(frames[1])


def test_nobody_is_told_that_a_frame_was_not_applied_which_nobody_knows_again() -> None:
    frame = lose_a_frame()
    assert (frame["code"], frame["data"]["session"]["n"]) == ("session-conflict", 2)
    assert "applied" not in frame


def test_control_a_ledger_that_takes_it_for_another_request_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_compare_identity", lambda row, identity: row["identity"] is not None)
    assert lose_a_frame()["applied"] is False


def test_another_request_of_the_same_user_is_told_that_it_was_not_applied() -> None:
    app = serve(Ledger("memory://", audience="shop"))
    client = SessionClient(app)
    client.send("hello")
    before = client.envelope
    client.send("buy")
    reply = SessionClient(app, envelope=before).send("sell")
    assert (reply.code, reply.body["applied"]) == ("session-conflict", False)
