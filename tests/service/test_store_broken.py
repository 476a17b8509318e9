"""What a session service behind a middleware got wrong, each as the smallest turn that shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from dcaf.asgi import SessionMiddleware
from dcaf.core import ConfigurationError, Session, SessionHost, current_session, transaction
from dcaf.engines import MemoryEngine
from dcaf.ledger import Ledger
from dcaf.service import KeptSession, Memory, Messages, SessionService
from tests.service.test_service_as_store import AUDIENCE, RING, Clinic, claims_of, put, say


def test_what_is_added_between_two_frames_is_kept_once() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        with pytest.raises(WebSocketDisconnect):
            while True:
                text = (await socket.receive_json())["text"]
                await socket.send_json({"type": "done"})
                current_session(KeptSession).messages.add("user", text)

    assert exchange(talk, "a", "b", "c") == (["a", "b"], None)


def test_a_history_and_a_memory_that_are_held_go_on_with_each_frame() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        session = current_session(KeptSession)
        messages, memory = session.messages, session.memory
        with pytest.raises(WebSocketDisconnect):
            while True:
                text = (await socket.receive_json())["text"]
                messages.add("user", text)
                memory.set("last", text)
                await socket.send_json({"type": "done"})

    assert exchange(talk, "a", "b", "c") == (["a", "b", "c"], "c")


def test_a_call_that_ends_in_a_later_frame_keeps_what_it_added() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        session = current_session(KeptSession)
        with transaction(session) as draft:
            for _ in range(2):
                text = (await socket.receive_json())["text"]
                draft.messages.add("user", text)
                draft.memory.set("last", text)
                await socket.send_json({"type": "done"})
            await socket.receive_json()
        await socket.send_json({"type": "done"})

    assert exchange(talk, "a", "b", "c") == (["a", "b"], "b")


def exchange(talk: Any, *texts: str) -> tuple[list[Any], Any]:
    """Frames without a session over one socket; returns the history, and what is remembered as ``last``."""
    sessions = SessionService("memory://", app=AUDIENCE)
    app = Starlette(routes=[WebSocketRoute("/", talk)])
    served = SessionMiddleware(app, keys=RING, audience=AUDIENCE, store=sessions, subject=lambda _: "ada")
    with TestClient(served).websocket_connect("/") as socket:
        for text in texts:
            socket.send_json({"text": text})
            assert socket.receive_json()["type"] == "done"
    [kept] = sessions.sync.list(user="ada").items
    page = sessions.sync.messages(user="ada", id=kept.id)
    return [message.content for message in page.items], sessions.sync.memory(user="ada").get("last")
