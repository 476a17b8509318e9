"""The store is closed when the lifespan ends: after the application, before the server goes on, and whatever the application is."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from dcaf.agent import create_app
from dcaf.asgi import SessionMiddleware, lifespan
from dcaf.core import StatelessStore
from dcaf.integrations.starlette import SessionMiddleware as CookieMiddleware
from tests.asgi.wire import AUDIENCE, RING

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


class Closing(StatelessStore):
    """Notes when it is closed, among what else happens."""

    def __init__(self, log: list[str], error: Exception | None = None) -> None:
        self.log, self.error = log, error

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.log.append("closed")
        if self.error is not None:
            raise self.error


def asked(app: Any, log: list[str]) -> list[Any]:
    """What the server is answered, which goes into the log too."""
    questions, answers = [STARTUP, SHUTDOWN], []

    async def receive() -> Any:
        return questions.pop(0)

    async def send(message: Any) -> None:
        log.append(message["type"].removeprefix("lifespan."))
        answers.append(message)

    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    return answers


def of_starlette(log: list[str], *kinds: Any, error: Exception | None = None) -> Any:
    @asynccontextmanager
    async def whole(_: Any) -> Any:
        log.append("began")
        yield
        log.append("ended")

    store = Closing(log, error)
    middleware = [Middleware(kind, keys=RING, audience=AUDIENCE, store=store) for kind in kinds or (SessionMiddleware,)]
    return Starlette(lifespan=whole, middleware=middleware)


IN_ORDER = ["began", "startup.complete", "ended", "closed", "shutdown.complete"]


@pytest.mark.parametrize("kind", [SessionMiddleware, CookieMiddleware])
def test_it_is_closed_after_the_application_and_before_the_server_goes_on(kind: Any) -> None:
    log: list[str] = []
    asked(of_starlette(log, kind), log)
    assert log == IN_ORDER


def test_so_it_is_behind_a_client_of_starlette() -> None:
    log: list[str] = []
    with TestClient(of_starlette(log)):
        assert log == ["began"]
    assert log == ["began", "ended", "closed"]


def test_a_service_of_an_agent_closes_its_store() -> None:
    log: list[str] = []
    asked(create_app(lambda messages, context: "Hello.", keys=RING, audience=AUDIENCE, store=Closing(log)), log)
    assert log == ["startup.complete", "closed", "shutdown.complete"]


def test_one_store_of_two_middlewares_may_be_closed_twice() -> None:
    log: list[str] = []
    store = Closing(log)
    inner = create_app(lambda messages, context: "Hello.", keys=RING, audience=AUDIENCE, store=store)

    async def between(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    asked(SessionMiddleware(between, keys=RING, audience=AUDIENCE, store=store), log)
    assert log == ["startup.complete", "closed", "closed", "shutdown.complete"]


async def _assert_http(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def _return(scope: Any, receive: Any, send: Any) -> None:
    """Serve requests alone."""


async def _ask_and_return(scope: Any, receive: Any, send: Any) -> None:
    await receive()


@pytest.mark.parametrize("app", [_assert_http, _return, _ask_and_return])
def test_an_application_that_serves_no_lifespan_has_its_store_closed(app: Any) -> None:
    log: list[str] = []
    asked(SessionMiddleware(app, keys=RING, audience=AUDIENCE, store=Closing(log)), log)
    assert log == ["startup.complete", "closed", "shutdown.complete"]


def test_one_that_does_not_start_has_it_closed_and_the_server_learns_why() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def fails(_: Any) -> Any:
        if log == []:
            raise LookupError("a bug")
        yield

    app = SessionMiddleware(Starlette(lifespan=fails), keys=RING, audience=AUDIENCE, store=Closing(log))
    with pytest.raises(LookupError):
        asked(app, log)
    assert log[:2] == ["closed", "startup.failed"]


def test_one_that_raises_meanwhile_has_it_closed() -> None:
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        asked(SessionMiddleware(app, keys=RING, audience=AUDIENCE, store=Closing(log)), log)
    assert log == ["startup.complete", "closed"]


def test_a_store_that_cannot_be_closed_does_not_keep_the_server(caplog: Any) -> None:
    log: list[str] = []
    asked(of_starlette(log, error=OSError("password=hunter2")), log)
    assert log == IN_ORDER
    assert "the store could not be closed: OSError" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("store", [None, StatelessStore()], ids=["none", "without aclose"])
def test_without_anything_to_close_the_lifespan_passes_as_it_is(store: Any) -> None:
    with pytest.raises(AssertionError):
        asked(SessionMiddleware(_assert_http, keys=RING, audience=AUDIENCE, store=store), [])


def test_control_a_store_that_stays_open_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.middleware.find_closer", lambda _: None)
    with pytest.raises(AssertionError):
        test_it_is_closed_after_the_application_and_before_the_server_goes_on(SessionMiddleware)


async def _forward_first(self: Any, message: Any) -> None:
    self._has_answered = True
    await self._send(message)
    if message["type"] in lifespan.ENDS:
        await self._close_store()


def test_control_a_server_that_goes_on_before_it_is_closed_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(lifespan.ClosingLifespan, "send", _forward_first)
    with pytest.raises(AssertionError):
        test_it_is_closed_after_the_application_and_before_the_server_goes_on(SessionMiddleware)
