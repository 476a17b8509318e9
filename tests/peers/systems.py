"""The systems that are compared, each as a service of one endpoint, driven the way its own documentation shows.

Every service does the same: it presents a token, reads the value in the state, and stores another where one is given. A
cookie is sent as a header of its own, without a cookie jar, so that what refuses is the server and not the client.
"""

from __future__ import annotations

import json
import random
import time
from base64 import b64encode
from collections.abc import Coroutine, Mapping
from hashlib import sha256
from http.cookies import SimpleCookie
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple, Protocol
from unittest.mock import patch
from urllib.parse import quote

import flask
import itsdangerous
import jwt
import starsessions
from django import conf  # type: ignore[import-untyped]
from django.core import signing  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
from django.http import JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions.stores.cookie import CookieStore
from werkzeug.test import Client

import dcaf
from tests.asgi.wire import scope_of

STRONG = (random.Random("old").randbytes(32).hex(), random.Random("new").randbytes(32).hex())
"""Two good secrets for whatever takes text: an old one and a new one."""


class Answer(NamedTuple):
    """What a request was answered.

    Attributes:
        value: The value that stood in the state; None where the token was refused, or the state was empty.
        token: The token that the answer carries; None where it carries none.
    """

    value: str | None
    token: str | None

    @property
    def sealed(self) -> str:
        """The token of an answer that must have one."""
        assert self.token, "the answer carries no token"
        return self.token


class Turn(Protocol):
    """One request to a service."""

    def __call__(self, token: str | None, value: str | None = None, user: str = "ann") -> Answer:
        """Present a token, and store a value where one is given. The user is authenticated by a header."""


class System(Protocol):
    """One way to keep state with the client.

    Attributes:
        name: Name of its column.
        distribution: What it is installed as.
        secrets: Two good secrets, an old one and a new one, as it takes them.
        one_secret: Why it cannot keep an old secret beside the new one; None where it can.
    """

    name: str
    distribution: str
    secrets: tuple[str, str] = STRONG
    one_secret: str | None = None

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        """Start a service of that name; ``old`` is kept for verifying, where there is a way."""

    def other_use(self, secret: str) -> str:
        """A token with the content ``{"value": "1"}`` that the same secret made for something that is no session."""


def column(system: System) -> str:
    """Its name and the installed version."""
    return f"{system.name} {version(system.distribution)}"


class Itsdangerous(System):
    """``URLSafeTimedSerializer(secret)``, ``dumps`` and ``loads``. Default: the library's salt, and no ``max_age``."""

    name = "itsdangerous"
    distribution = "itsdangerous"
    max_age_s: ClassVar[int | None] = None

    def salt(self, name: str) -> dict[str, Any]:
        """Further arguments of the serializer."""
        return {}

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        keys = [secret] if old is None else [old, secret]  # documented: oldest first
        serializer = itsdangerous.URLSafeTimedSerializer(keys, **self.salt(name))

        def turn(token: str | None, value: str | None = None, user: str = "ann") -> Answer:
            try:
                state = serializer.loads(token, max_age=self.max_age_s) if token else {}
            except itsdangerous.BadSignature:
                state = {}
            return Answer(state.get("value"), None if value is None else str(serializer.dumps({"value": value})))

        return turn

    def other_use(self, secret: str) -> str:
        return str(itsdangerous.URLSafeTimedSerializer(secret).dumps({"value": "1"}))


class PyJWT(System):
    """``jwt.encode`` and ``jwt.decode`` with HS256, as on the library's first page. Default: no claim is required."""

    name = "PyJWT"
    distribution = "PyJWT"
    one_secret = "`decode` takes one key"
    options: ClassVar[dict[str, Any]] = {}

    def claims(self, name: str, user: str) -> dict[str, Any]:
        """Claims beside the state."""
        return {}

    def checks(self, name: str, user: str) -> dict[str, Any]:
        """Further arguments of ``decode``."""
        return {}

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        library = jwt.PyJWT(options=self.options)  # type: ignore[arg-type]

        def turn(token: str | None, value: str | None = None, user: str = "ann") -> Answer:
            try:
                state = library.decode(token, secret, algorithms=["HS256"], **self.checks(name, user)) if token else {}
            except jwt.InvalidTokenError:
                state = {}
            new = None if value is None else library.encode({"value": value, **self.claims(name, user)}, secret, algorithm="HS256")
            return Answer(state.get("value"), new)

        return turn

    def other_use(self, secret: str) -> str:
        return jwt.encode({"value": "1"}, secret, algorithm="HS256")


class StarletteSessions(System):
    """``SessionMiddleware(secret_key=...)`` around an application. Default: 14 days since the last change."""

    name = "Starlette"
    distribution = "starlette"
    one_secret = "`secret_key` is one text"

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        return asgi_cookie(Starlette(routes=[ROUTE], middleware=[Middleware(SessionMiddleware, secret_key=secret)]))

    def other_use(self, secret: str) -> str:
        return timestamp_signed(secret)


class Starsessions(System):
    """``SessionMiddleware(store=CookieStore(secret))``. Default: ``lifetime=0``, a cookie until the browser closes."""

    name = "starsessions"
    distribution = "starsessions"
    one_secret = "`CookieStore` takes one secret"
    lifetime_s: ClassVar[int] = 0

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        sessions = Middleware(starsessions.SessionMiddleware, store=CookieStore(secret), lifetime=self.lifetime_s)
        loading = Middleware(starsessions.SessionAutoloadMiddleware)
        return asgi_cookie(Starlette(routes=[ROUTE], middleware=[sessions, loading]))

    def other_use(self, secret: str) -> str:
        return timestamp_signed(secret)


def timestamp_signed(secret: str) -> str:
    """What a program signs with itsdangerous beside its sessions: some JSON, in base64, at the library's defaults."""
    return itsdangerous.TimestampSigner(secret).sign(b64encode(b'{"value": "1"}')).decode()


async def _endpoint(request: Request) -> JSONResponse:
    before, wanted = request.session.get("value"), request.query_params.get("value")
    if wanted is not None:
        request.session["value"] = wanted
    return JSONResponse({"user": request.headers["x-user"], "value": before})


ROUTE = Route("/", _endpoint)


class FlaskSessions(System):
    """``flask.session`` of an application with a ``SECRET_KEY``. Default: a session that is not permanent."""

    name = "Flask"
    distribution = "flask"

    def prepare(self, app: flask.Flask) -> None:
        """Settings of the application."""

    def store(self, value: str) -> None:
        """Change the session of this request."""
        flask.session["value"] = value

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        app = flask.Flask(name)
        app.config.update(SECRET_KEY=secret, SECRET_KEY_FALLBACKS=None if old is None else [old])
        self.prepare(app)

        @app.get("/")
        def endpoint() -> dict[str, Any]:
            before, wanted = flask.session.get("value"), flask.request.args.get("value")
            if wanted is not None:
                self.store(wanted)
            return {"user": flask.request.headers["x-user"], "value": before}

        return wsgi_cookie(Client(app, use_cookies=False), "session")

    def other_use(self, secret: str) -> str:
        return str(itsdangerous.URLSafeTimedSerializer(secret).dumps({"value": "1"}))


class DjangoSessions(System):
    """``django.contrib.sessions`` with the engine ``signed_cookies``; everything else as Django has it."""

    name = "Django"
    distribution = "Django"
    further: ClassVar[dict[str, Any]] = {}

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        configure_django()
        site = patch.multiple(conf.settings, SECRET_KEY=secret, SECRET_KEY_FALLBACKS=[old] if old else [], **self.further)
        with site:
            ask = wsgi_cookie(Client(WSGIHandler(), use_cookies=False), "sessionid")

        def turn(token: str | None, value: str | None = None, user: str = "ann") -> Answer:
            with site:
                return ask(token, value, user)

        return turn

    def other_use(self, secret: str) -> str:
        configure_django()
        with patch.multiple(conf.settings, SECRET_KEY=secret):
            return str(signing.dumps({"value": "1"}))


def configure_django() -> None:
    """Settings of the one site that a process can have; a service changes them for as long as it answers."""
    if not conf.settings.configured:
        conf.settings.configure(
            SECRET_KEY=STRONG[0],
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
            ROOT_URLCONF=(path("", _view),),
            LOGGING_CONFIG=None,
        )


def _view(request: Any) -> Any:
    before, wanted = request.session.get("value"), request.GET.get("value")
    if wanted is not None:
        request.session["value"] = wanted
    return JsonResponse({"user": request.headers["x-user"], "value": before})


class Dcaf(System):
    """``SessionMiddleware`` with ``audience=``, which it requires, and ``subject=``, which its documents recommend."""

    name = "dcaf"
    distribution = "dcaf"
    secrets = (
        dcaf.Key.from_bytes("old", random.Random("old").randbytes(32)).text(),
        dcaf.Key.from_bytes("new", random.Random("new").randbytes(32)).text(),
    )

    def keyring(self, secret: str, old: str | None) -> dcaf.Keyring:
        """The ring of a service, from the texts that stand in DCAF_KEYS and DCAF_KEYS_VERIFY."""
        return dcaf.Keyring.parse(secret, old or "")

    def settings(self, name: str) -> dict[str, Any]:
        """How the middleware is mounted."""
        return {"audience": name, "subject": _user_of}

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        app = Starlette(routes=[Route("/", _tool, methods=["POST"])])
        mounted = dcaf.SessionMiddleware(app, keys=self.keyring(secret, old), clock=_now, **self.settings(name))

        def turn(token: str | None, value: str | None = None, user: str = "ann") -> Answer:
            envelope = None if token is None else {"dcaf": {"token": token}}
            body = json.dumps({"wanted": value, "data": {"session": envelope}}).encode()
            headers = {"content-type": "application/json", "x-user": user}
            status, _, answer = asgi(mounted, "POST", "", headers, body)
            found = json.loads(answer)
            return Answer(found["value"], found["data"]["session"]["dcaf"]["token"]) if status == 200 else Answer(None, None)

        return turn

    def other_use(self, secret: str) -> str:
        body, _, _ = self.service(secret)(None, "1").sealed.rpartition(".")
        signer = itsdangerous.Signer(dcaf.Key.parse(secret).secret, digest_method=sha256)  # so its mac is as long as ours
        return signer.sign(body).decode()


async def _tool(request: Request) -> JSONResponse:
    session, wanted = dcaf.current_session(), (await request.json())["wanted"]
    before = session.get("value")
    if wanted is not None:
        session["value"] = wanted
    return JSONResponse({"user": request.headers["x-user"], "value": before})


def _user_of(scope: Mapping[str, Any]) -> str:
    return str(dict(scope["headers"])[b"x-user"].decode())


def _now() -> float:
    return time.time()


SYSTEMS: tuple[System, ...] = (
    Itsdangerous(),
    StarletteSessions(),
    FlaskSessions(),
    DjangoSessions(),
    Starsessions(),
    PyJWT(),
    Dcaf(),
)


def asgi_cookie(app: Any) -> Turn:
    """A service whose token is the cookie ``session``."""

    def turn(token: str | None, value: str | None = None, user: str = "ann") -> Answer:
        query = "" if value is None else f"value={quote(value)}"
        _, answered, body = asgi(app, "GET", query, _headers(user, "session", token))
        return Answer(json.loads(body)["value"], _cookie(answered.get("set-cookie"), "session"))

    return turn


def wsgi_cookie(client: Client, name: str) -> Turn:
    """A service whose token is a cookie of that name."""

    def turn(token: str | None, value: str | None = None, user: str = "ann") -> Answer:
        query = {} if value is None else {"value": value}
        answer = client.get("/", query_string=query, headers=_headers(user, name, token))
        assert answer.status_code == 200, answer.text
        return Answer(json.loads(answer.data)["value"], _cookie(answer.headers.get("set-cookie"), name))

    return turn


def _headers(user: str, cookie: str, token: str | None) -> dict[str, str]:
    return {"x-user": user} if token is None else {"x-user": user, "cookie": f"{cookie}={token}"}


def _cookie(header: str | None, name: str) -> str | None:
    return SimpleCookie(header)[name].value or None if header else None


def asgi(app: Any, method: str, query: str, headers: Mapping[str, str], body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Ask an application; status, headers and body of its answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = scope_of(method, "/", lines, query_string=query.encode())
    _finished(app(scope, receive, send))
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


def _finished(running: Coroutine[Any, Any, None]) -> None:
    # By hand, as nothing here waits for anything: an event loop would take most of the time of 100,000 requests.
    try:
        running.send(None)
    except StopIteration:
        return
    raise AssertionError("the application waits for something")
