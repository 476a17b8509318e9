"""A wrong setting keeps the server from starting, however the middleware was mounted, and the message says what to write."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dcaf import ConfigurationError, SessionMiddleware
from dcaf.asgi import middleware
from dcaf.integrations.starlette import SessionMiddleware as DropIn
from tests.asgi.wire import AUDIENCE, RING, call


async def hello(_: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


ROUTES: list[Any] = [Route("/api/chat", hello, methods=["POST"])]
STARTED: list[str] = []


@asynccontextmanager
async def lifespan(_: Any) -> Any:
    STARTED.append("the application's own lifespan")
    yield


def by_add_middleware(kind: Any, settings: dict[str, Any]) -> Any:
    app = Starlette(routes=ROUTES, lifespan=lifespan)
    app.add_middleware(kind, **settings)
    return app


def by_middleware(kind: Any, settings: dict[str, Any]) -> Any:
    return Starlette(routes=ROUTES, lifespan=lifespan, middleware=[Middleware(kind, **settings)])


def by_fastapi(kind: Any, settings: dict[str, Any]) -> Any:
    app = FastAPI(routes=ROUTES, lifespan=lifespan)
    app.add_middleware(kind, **settings)
    return app


def by_middleware_of_fastapi(kind: Any, settings: dict[str, Any]) -> Any:
    return FastAPI(routes=ROUTES, lifespan=lifespan, middleware=[Middleware(kind, **settings)])


class Passing(BaseHTTPMiddleware):
    """One of the application's own."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


def between_others(kind: Any, settings: dict[str, Any]) -> Any:
    middleware = [Middleware(Passing), Middleware(kind, **settings), Middleware(Passing)]
    return Starlette(routes=ROUTES, lifespan=lifespan, middleware=middleware)


def in_a_wrapper(kind: Any, settings: dict[str, Any]) -> Any:
    inner = by_middleware(kind, settings)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return outer


MOUNTED: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "add_middleware": by_add_middleware,
    "Middleware(...)": by_middleware,
    "add_middleware of FastAPI": by_fastapi,
    "Middleware(...) of FastAPI": by_middleware_of_fastapi,
    "between others": between_others,
    "in a wrapper": in_a_wrapper,
}
KINDS = {"the middleware": SessionMiddleware, "the drop-in": DropIn}


def away() -> Any:
    raise ConnectionError("the vault of ada@example.org")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"keys": None}, "DCAF_KEYS"),
    "an empty key": ({"keys": ""}, "dcaf keys new"),
    "no dcaf key": ({"keys": "hunter2"}, "dcaf keys new"),
    "keys of a wrong type": ({"keys": 7}, "keys= takes"),
    "a key file that is not there": ({"keys": Path("/nowhere/keys")}, "cannot be read"),
    "a key file that is a folder": ({"keys": Path("/")}, "cannot be read"),
    "a function that gives no ring": ({"keys": lambda: None}, "must give a Keyring"),
    "a function that cannot give one": ({"keys": away}, "raised ConnectionError in away"),
    "no audience": ({"audience": ""}, "audience= must"),
    "an audience of a wrong type": ({"audience": 7}, "audience= must"),
    "a subject that is no function": ({"subject": "ada"}, "subject= takes"),
    "a conversation that is no pointer": ({"conversation": "thread"}, "conversation= takes"),
    "encrypt": ({"encrypt": "yes"}, "encrypt="),
    "accept_both": ({"accept_both": 1}, "accept_both="),
    "mirror": ({"mirror": "step"}, "mirror= takes"),
    "plain": ({"plain": "/old"}, "plain= takes"),
    "plain and encrypt": ({"plain": ("/old",), "encrypt": True}, "plain_secret=True"),
    "plain_secret": ({"plain_secret": "no", "plain": ("/old",), "encrypt": True}, "plain_secret="),
    "absolute_timeout": ({"absolute_timeout": timedelta(0)}, "absolute_timeout"),
    "on_refused": ({"on_refused": "forgive"}, "on_refused="),
    "unsigned": ({"unsigned": True}, "unsigned="),
    "max_body_bytes": ({"max_body_bytes": 0}, "max_body_bytes"),
    "max_bytes_in_flight": ({"max_bytes_in_flight": "1"}, "max_bytes_in_flight"),
    "max_response_bytes": ({"max_response_bytes": 1.5}, "max_response_bytes"),
    "max_token_bytes": ({"max_token_bytes": 100}, "max_token_bytes"),
    "terminal": ({"terminal": "done"}, "terminal="),
    "pass_streams": ({"pass_streams": "/stream"}, "pass_streams= takes"),
    "exempt": ({"exempt": ("hook",)}, "exempt= takes"),
    "bind_request_session": ({"bind_request_session": 0}, "bind_request_session="),
    "version": ({"version": -1}, "version is"),
    "migrations": ({"version": 2, "migrations": {1: dict}}, "without a gap"),
    "on_event": ({"on_event": "print"}, "on_event="),
    "clock": ({"clock": 7}, "clock="),
    "randomness": ({"randomness": 7}, "randomness="),
    "store": ({"store": 7}, "store="),
    "a setting that there is not": ({"audiance": "shop"}, "audiance"),
}
OF_THE_MIDDLEWARE: dict[str, tuple[dict[str, Any], str]] = {
    "idle_timeout": ({"idle_timeout": 7}, "idle_timeout"),
    "timeouts": ({"idle_timeout": timedelta(days=2), "absolute_timeout": timedelta(days=1)}, "shorter than"),
    "carriers": ({"carriers": ("smoke",)}, "carriers= knows"),
    "no carrier": ({"carriers": ()}, "carriers= takes"),
}
OF_THE_DROP_IN: dict[str, tuple[dict[str, Any], str]] = {
    "Starlette's own secret": ({"secret_key": "hunter2"}, "secret_key="),
    "a carrier": ({"carriers": ("body",)}, "carriers="),
    "a timeout": ({"idle_timeout": timedelta(days=1)}, "max_age="),
    "max_age": ({"max_age": "1"}, "max_age="),
    "same_site": ({"same_site": "loose"}, "same_site"),
    "a cookie's name": ({"session_cookie": "a;b"}, "name"),
    "https_only": ({"same_site": "none"}, "ecure"),
}
CASES = [
    *[(kind, name, *case) for kind in KINDS for name, case in WRONG.items()],
    *[("the middleware", name, *case) for name, case in OF_THE_MIDDLEWARE.items()],
    *[("the drop-in", name, *case) for name, case in OF_THE_DROP_IN.items()],
]
EVERY_WRONG = pytest.mark.parametrize(
    ("kind", "settings", "said"), [(case[0], *case[2:]) for case in CASES], ids=[f"{c[0]}, {c[1]}" for c in CASES]
)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: Any) -> None:
    for name in [name for name in os.environ if name.startswith("DCAF_KEYS")]:
        monkeypatch.delenv(name)


def started(app: Any) -> list[Any]:
    """What an application answers to a server's question whether it is ready, and then that it is to end."""
    STARTED.clear()
    answers: list[Any] = []

    async def ask() -> None:
        questions = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> Any:
            return questions.pop(0)

        async def send(message: Any) -> None:
            answers.append(message)

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    asyncio.run(ask())
    return answers


def assert_does_not_start(app: Any, said: str) -> None:
    """The law: the answer to the server's question is no, and why; the application itself has not begun."""
    [answer] = started(app)
    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"].startswith("dcaf: ")
    assert said in answer["message"]
    assert STARTED == []


@EVERY_WRONG
def test_a_wrong_setting_is_told_at_the_start_however_it_is_mounted(kind: str, settings: Any, said: str) -> None:
    for make in MOUNTED.values():
        app = make(KINDS[kind], {"keys": RING, "audience": AUDIENCE, **settings})
        assert_does_not_start(app, said)
        with pytest.raises((ConfigurationError, TypeError)):  # a server that asked nothing, or went on in spite of it
            call(app, {})


@EVERY_WRONG
def test_it_is_told_where_it_is_written_when_no_framework_is_between(kind: str, settings: Any, said: str) -> None:
    with pytest.raises((ConfigurationError, TypeError)) as raised:
        KINDS[kind](hello, **{"keys": RING, "audience": AUDIENCE, **settings})
    assert said in str(raised.value)


@pytest.mark.parametrize("mounted", MOUNTED)
@pytest.mark.parametrize("kind", KINDS)
def test_with_right_settings_the_application_starts_ends_and_serves(kind: str, mounted: str) -> None:
    app = MOUNTED[mounted](KINDS[kind], {"keys": RING, "audience": AUDIENCE})
    assert [answer["type"] for answer in started(app)] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(STARTED) == 1
    assert call(app, {}).body == b"hello"


@pytest.mark.parametrize("mounted", MOUNTED)
@pytest.mark.parametrize("kind", KINDS)
def test_without_the_servers_question_the_first_request_raises_it(kind: str, mounted: str) -> None:
    app = MOUNTED[mounted](KINDS[kind], {"keys": None, "audience": AUDIENCE})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="DCAF_KEYS"):
            call(app, {})


def test_every_setting_of_the_middleware_is_tried() -> None:
    own = {*inspect.signature(SessionMiddleware.__init__).parameters} - {"self", "app"}
    tried = {name for _, _, settings, _ in CASES for name in settings}
    assert own <= tried, own - tried


@pytest.mark.parametrize("mounted", MOUNTED)
@pytest.mark.parametrize("kind", KINDS)
def test_control_a_middleware_that_raises_there_is_caught(kind: str, mounted: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(middleware, "is_in_lifespan", lambda: False)
    app = MOUNTED[mounted](KINDS[kind], {"keys": None, "audience": AUDIENCE})
    with pytest.raises(ConfigurationError):  # which a server takes for an application that knows no lifespan
        assert_does_not_start(app, "DCAF_KEYS")


# A server for real

SERVICE = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from {module} import SessionMiddleware

print("imported", flush=True)
app = Starlette(middleware=[Middleware(SessionMiddleware, {settings})])
"""
REAL: dict[str, tuple[str, str, str]] = {
    "no key": ("dcaf", "audience='shop'", "DCAF_KEYS"),
    "a setting that there is not, in the drop-in": ("dcaf.integrations.starlette", "audience='shop', max_ages=7", "max_ages"),
}


@pytest.mark.parametrize("name", REAL)
def test_uvicorn_does_not_start(name: str, tmp_path: Path) -> None:
    module, settings, said = REAL[name]
    (tmp_path / "wrongly_set.py").write_text(SERVICE.format(module=module, settings=settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "wrongly_set:app", "--app-dir", str(tmp_path), "--port", str(port)]
    bare = {key: value for key, value in os.environ.items() if not key.startswith("DCAF_KEYS")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=bare, check=False)
    assert done.stdout == "imported\n"
    assert done.returncode != 0
    assert said in done.stderr
    assert "Application startup complete" not in done.stderr
    assert "Traceback" not in done.stderr
