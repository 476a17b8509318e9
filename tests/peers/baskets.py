"""The same small service on eight systems, each written as its own documentation shows.

A basket: a few acts on a mapping (``begin``, ``append``, ...), and five ways to answer: JSON, JSON that does not mention the
session, a page, a stream, a WebSocket. The request names the act; what is around the acts is the system's own.

What a reader gets wrong: the Starlette application is one and the same for Starlette, starsessions and dcaf. Only the middleware
around it differs, and in dcaf how a typed value is read.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from string import ascii_letters
from typing import Any, ClassVar, Final, Protocol, TypeAlias
from unittest.mock import patch

import flask
import jwt
import starsessions
from django import conf  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from starsessions.stores.base import SessionStore
from starsessions.stores.cookie import CookieStore

import dcaf
from tests.peers.systems import STRONG, configure_django
from tests.peers.visitors import ASGI, WRITTEN, WSGI, Worker

SECRET: Final = STRONG[0]
NOTES: Final = "".join(random.Random("notes").choices(ascii_letters, k=16_384))
"""16 KB that compression does not make small: Flask and Django compress."""
WAIT: Final = '{"type": "text", "text": "one moment"}\n'
DONE: Final = '{"type": "done"}\n'
NDJSON: Final = "application/x-ndjson"


Meanwhile: TypeAlias = Callable[[], None] | None


class Basket(BaseModel):
    """A typed value in the state."""

    items: list[str]


class System(Protocol):
    """One way to keep the state of a conversation.

    Attributes:
        name: Name of its column.
        distribution: What it is installed as; None where nothing needs to be.
        quiet: What the endpoint answers that does not mention the session.
        meanwhile: What happens in the middle of a turn that counts slowly; None for nothing.
    """

    name: ClassVar[str]
    distribution: ClassVar[str | None] = None
    quiet: ClassVar[Any] = {"content": "done"}
    meanwhile: Meanwhile = None

    def worker(self) -> Worker:
        """Start a process of the service; another call starts another one, with the same configuration."""

    def begin(self, session: Any) -> None:
        """Put something into a new state."""
        session["role"] = WRITTEN
        session["cart"] = ["tea"]
        session["basket"] = {"items": ["tea"]}

    def append(self, session: Any) -> None:
        """Change a list inside it."""
        session["cart"].append("milk")

    def store_typed(self, session: Any) -> None:
        """Store a typed object."""
        session["basket"] = Basket(items=["tea", "milk"])

    def change_typed(self, session: Any) -> None:
        """Read a typed object, and change it."""
        basket = Basket.model_validate(session["basket"])
        basket.items.append("milk")

    def fill(self, session: Any) -> None:
        """Store 16 KB."""
        session["notes"] = NOTES

    def count(self, session: Any) -> None:
        """Store a number: a change that every system here notices."""
        session["count"] = session.get("count", 0) + 1

    def count_slowly(self, session: Any) -> None:
        """Read the number, let happen what happens meanwhile, and store the next one."""
        count = session.get("count", 0)
        if self.meanwhile is not None:
            self.meanwhile()
        session["count"] = count + 1

    def clear(self, session: Any) -> None:
        """Log out."""
        session.clear()

    def look(self, session: Any) -> None:
        """Read, and change nothing."""
        session.get("role")

    def do(self, act: str, session: Any) -> dict[str, Any]:
        """One act, and the state after it."""
        getattr(self, act)(session)
        return dict(session)


def paged(state: dict[str, Any]) -> str:
    """A page for people. What the tests read of it is its last line."""
    return f"<!doctype html>\n{json.dumps({'state': state})}"


def column(system: System) -> str:
    """Its name, with the installed version in it."""
    return system.name.format(version(system.distribution) if system.distribution else "")


class StarletteSessions(System):
    """``SessionMiddleware(secret_key=...)``."""

    name = "Starlette {}"
    distribution = "starlette"

    def worker(self) -> Worker:
        return ASGI(self.mounted(self._app()))

    def mounted(self, app: Starlette) -> Any:
        """The application below its middleware."""
        return SessionMiddleware(app, secret_key=SECRET)

    async def end(self, connection: HTTPConnection) -> None:
        """What the program does by hand when a stream or a frame ends: nothing."""

    def _app(self) -> Starlette:
        routes = [
            Route(f"/{answer.__name__}", answer, methods=["POST"]) for answer in (self.turn, self.quietly, self.page, self.stream)
        ]
        return Starlette(routes=[*routes, WebSocketRoute("/socket", self.socket)])

    async def turn(self, request: Request) -> JSONResponse:
        return JSONResponse({"state": self.do(request.query_params["act"], request.session)})

    async def quietly(self, request: Request) -> JSONResponse:
        self.do(request.query_params["act"], request.session)
        return JSONResponse(self.quiet)

    async def page(self, request: Request) -> HTMLResponse:
        return HTMLResponse(paged(self.do(request.query_params["act"], request.session)))

    async def stream(self, request: Request) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            yield WAIT
            self.do(request.query_params["act"], request.session)
            await self.end(request)
            yield DONE

        return StreamingResponse(events(), media_type=NDJSON)

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_json():
            state = self.do(socket.query_params["act"], socket.session)
            await self.end(socket)
            await socket.send_json({"type": "done", "state": state})


class Starsessions(StarletteSessions):
    """``SessionMiddleware(store=CookieStore(secret))``, loaded by ``SessionAutoloadMiddleware``."""

    name = "starsessions {}, CookieStore"
    distribution = "starsessions"

    def mounted(self, app: Starlette) -> Any:
        return starsessions.SessionMiddleware(starsessions.SessionAutoloadMiddleware(app), store=self.store())

    def store(self) -> SessionStore:
        """Where a process keeps its sessions."""
        return CookieStore(SECRET)


class InMemory(Starsessions):
    """The same with an ``InMemoryStore``: the client has an id, and the process has the state."""

    name = "starsessions {}, InMemoryStore"

    def store(self) -> SessionStore:
        return starsessions.InMemoryStore()


class FlaskSessions(System):
    """``flask.session`` of an application with a ``SECRET_KEY``."""

    name = "Flask {}"
    distribution = "flask"
    is_done_first: ClassVar[bool] = False

    def worker(self) -> Worker:
        app = flask.Flask("shop")
        app.config.update(SECRET_KEY=SECRET)
        for answer in (self.turn, self.quietly, self.page, self.stream):
            app.add_url_rule(f"/{answer.__name__}", view_func=answer, methods=["GET", "POST"])
        return WSGI(app)

    def turn(self) -> Any:
        return {"state": self.do(flask.request.args["act"], flask.session)}

    def quietly(self) -> Any:
        self.turn()
        return self.quiet

    def page(self) -> Any:
        return paged(self.turn()["state"])

    def stream(self) -> Any:
        if self.is_done_first:
            self.turn()
            return flask.Response(iter((WAIT, DONE)), mimetype=NDJSON)
        return flask.Response(flask.stream_with_context(self._events()), mimetype=NDJSON)

    def _events(self) -> Iterator[str]:
        yield WAIT
        self.turn()
        yield DONE


class DjangoSessions(System):
    """``django.contrib.sessions`` with the engine ``signed_cookies``; everything else as Django has it."""

    name = "Django {}, signed_cookies"
    distribution = "Django"
    settings: ClassVar[dict[str, Any]] = {}

    def worker(self) -> Worker:
        configure_django()
        urls = tuple(path(answer.__name__, answer) for answer in (self.turn, self.quietly, self.page, self.stream))

        def site() -> Any:
            return patch.multiple(conf.settings, ROOT_URLCONF=urls, **self.settings)

        with site():
            return WSGI(WSGIHandler(), site)

    def turn(self, request: Any) -> Any:
        return JsonResponse({"state": self.do(request.GET["act"], request.session)})

    def quietly(self, request: Any) -> Any:
        self.turn(request)
        return JsonResponse(self.quiet)

    def page(self, request: Any) -> Any:
        return HttpResponse(paged(self.do(request.GET["act"], request.session)))

    def stream(self, request: Any) -> Any:
        def events() -> Iterator[str]:
            yield WAIT
            self.turn(request)
            yield DONE

        return StreamingHttpResponse(events(), content_type=NDJSON)

    def do(self, act: str, session: Any) -> dict[str, Any]:
        getattr(self, act)(session)
        return dict(session.items())


class Unsigned(System):
    """A plain object at ``data.session``, read and answered by hand, as agent protocols have it."""

    name = "by hand, unsigned"
    is_mentioned: ClassVar[bool] = False

    def pack(self, session: dict[str, Any]) -> Any:
        """What the client gets."""
        return session

    def unpack(self, sent: Any) -> dict[str, Any]:
        """The state out of what the client sends."""
        return sent or {}

    def worker(self) -> Worker:
        routes = [
            Route(f"/{answer.__name__}", answer, methods=["POST"]) for answer in (self.turn, self.quietly, self.page, self.stream)
        ]
        return ASGI(Starlette(routes=[*routes, WebSocketRoute("/socket", self.socket)]))

    async def turn(self, request: Request) -> JSONResponse:
        session = await self._sent(request)
        return JSONResponse(self._answer(request, session))

    async def quietly(self, request: Request) -> JSONResponse:
        answer = self._answer(request, await self._sent(request))
        return JSONResponse(answer if self.is_mentioned else self.quiet)

    async def page(self, request: Request) -> HTMLResponse:
        return HTMLResponse(paged(self._answer(request, await self._sent(request))["state"]))

    async def stream(self, request: Request) -> StreamingResponse:
        session = await self._sent(request)

        async def events() -> AsyncIterator[str]:
            yield WAIT
            yield json.dumps({"type": "done", **self._answer(request, session)})

        return StreamingResponse(events(), media_type=NDJSON)

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        async for frame in socket.iter_json():
            await socket.send_json(self._answer(socket, self.unpack(frame["data"]["session"])))

    async def _sent(self, request: Request) -> dict[str, Any]:
        body = await request.body()
        return self.unpack(json.loads(body)["data"]["session"] if body else None)

    def _answer(self, connection: HTTPConnection, session: dict[str, Any]) -> dict[str, Any]:
        state = self.do(connection.query_params["act"], session)
        return {"state": state, "data": {"session": self.pack(session)}}


class PyJWT(Unsigned):
    """The same with a token at ``data.session``: ``jwt.encode`` and ``jwt.decode`` with HS256."""

    name = "by hand, PyJWT {}"
    distribution = "PyJWT"
    options: ClassVar[Any] = None

    def pack(self, session: dict[str, Any]) -> Any:
        return jwt.encode(session, SECRET, algorithm="HS256")

    def unpack(self, sent: Any) -> dict[str, Any]:
        try:
            return jwt.decode(sent, SECRET, algorithms=["HS256"], options=self.options) if sent else {}
        except jwt.InvalidTokenError as error:
            raise HTTPException(401) from error


class Dcaf(StarletteSessions):
    """``SessionMiddleware`` with ``audience=``, as the README mounts it."""

    name = "dcaf {}"
    distribution = "dcaf"
    settings: ClassVar[dict[str, Any]] = {}
    ring: ClassVar[dcaf.Keyring] = dcaf.Keyring(dcaf.Key.from_bytes("k7", random.Random("ring").randbytes(32)))

    def keys(self) -> dcaf.Keyring:
        """The keys of a process: all read the same ``DCAF_KEYS``."""
        return self.ring

    def mounted(self, app: Starlette) -> Any:
        return dcaf.SessionMiddleware(app, keys=self.keys(), audience="shop", **self.settings)

    def change_typed(self, session: Any) -> None:
        basket = session.get("basket", as_type=Basket)
        basket.items.append("milk")

    def do(self, act: str, session: Any) -> dict[str, Any]:
        getattr(self, act)(session)
        state: dict[str, Any] = session.to_dict()
        return state


SYSTEMS: Final[tuple[System, ...]] = (
    StarletteSessions(),
    FlaskSessions(),
    DjangoSessions(),
    Starsessions(),
    InMemory(),
    Unsigned(),
    PyJWT(),
    Dcaf(),
)
