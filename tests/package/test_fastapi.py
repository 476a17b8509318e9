"""The session under FastAPI, by its dependency, by the context and by `request.session`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request

from dcaf import ConfigurationError, Keyring, Session, SessionMiddleware, current_session
from dcaf.integrations.fastapi import SessionDep
from dcaf.testing import SessionClient


def client_of(api: FastAPI, path: str) -> SessionClient:
    return SessionClient(SessionMiddleware(api, keys=Keyring.ephemeral(), audience="shop"), path=path)


def test_the_dependency_gives_the_session_to_async_and_sync_endpoints() -> None:
    api = FastAPI()

    @api.post("/async")
    async def one(session: SessionDep) -> dict[str, int]:
        return {"n": session.incr("n")}

    @api.post("/sync")
    def two(session: SessionDep) -> dict[str, int]:
        return {"n": session.incr("n")}

    for path in ("/async", "/sync"):
        client = client_of(api, path)
        assert [client.send("x").body["n"] for _ in range(3)] == [1, 2, 3]


def test_the_session_is_current_in_endpoints_threads_and_tasks_and_is_request_session() -> None:
    api = FastAPI()

    @api.post("/all")
    async def everywhere(request: Request, session: SessionDep) -> dict[str, Any]:
        async def in_a_task() -> Session:
            return current_session()

        found = [
            request.session,
            current_session(),
            await asyncio.to_thread(current_session),
            await asyncio.create_task(in_a_task()),
        ]
        return {"same": all(item is session for item in found)}

    assert client_of(api, "/all").send("x").body["same"] is True


def test_outside_a_turn_there_is_no_current_session() -> None:
    with pytest.raises(ConfigurationError, match="called outside a turn"):
        current_session()


def test_a_session_as_a_bare_parameter_is_refused_with_what_to_write() -> None:
    api = FastAPI()
    with pytest.raises(ConfigurationError) as caught:

        @api.post("/bare")
        async def bare(session: Session) -> None: ...

    assert "session: SessionDep" in str(caught.value)
    assert "never read from a request body" in str(caught.value)


def test_no_session_is_ever_built_from_a_body() -> None:
    """Control of the refusal above: FastAPI does build a mapping that any other class describes."""
    api = FastAPI()

    @api.post("/mapping")
    async def mapping(session: dict[str, Any]) -> dict[str, Any]:
        return session

    assert client_of(api, "/mapping").post({"approved": True}).body["approved"] is True
