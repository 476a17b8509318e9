"""The ways to have a session that are compared, each mounted as its own documentation shows."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any, Final

import orjson
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message
from starsessions import SessionAutoloadMiddleware
from starsessions import SessionMiddleware as StarsessionsMiddleware
from starsessions.stores.cookie import CookieStore

import dcaf
from tests.benchmarks.others import AGE_S, TEXT
from tests.benchmarks.sealing import AUDIENCE, MOST_BYTES, RING, sealed, sealer
from tests.benchmarks.turns import BARE, SAID, Store, Way

Headers = Iterable[tuple[bytes, bytes]]


class Bare:
    """No session at all: what an endpoint reads and writes is a plain dict."""

    name = BARE

    def wrapped(self, app: Starlette) -> ASGIApp:
        return app

    def session(self, request: Request) -> Store:
        return {"step": 3, "messages": []}

    def append(self, session: Store, key: str, value: Any) -> None:
        session[key].append(value)

    def sent(self, state: dict[str, Any]) -> tuple[Headers, bytes]:
        return (), body_with(None)

    def answered(self, messages: list[Message]) -> dict[str, Any] | None:
        return None


class Cookie(Bare):
    """Starlette's SessionMiddleware. It does not notice a nested change, so a list is stored anew."""

    name = "Starlette SessionMiddleware"
    signer = TimestampSigner(TEXT)

    def wrapped(self, app: Starlette) -> ASGIApp:
        return SessionMiddleware(app, secret_key=TEXT)

    def session(self, request: Request) -> Store:
        return request.session

    def append(self, session: Store, key: str, value: Any) -> None:
        session[key] = [*session[key], value]

    def sent(self, state: dict[str, Any]) -> tuple[Headers, bytes]:
        token = self.signer.sign(b64encode(json.dumps(state).encode()))
        return ((b"cookie", b"session=" + token),), body_with(None)

    def answered(self, messages: list[Message]) -> dict[str, Any] | None:
        header = dict(messages[0]["headers"]).get(b"set-cookie")
        if header is None:
            return None
        token = SimpleCookie(header.decode())["session"].value
        state: dict[str, Any] = json.loads(b64decode(self.signer.unsign(token, max_age=AGE_S)))
        return state


class Starsessions(Cookie):
    """starsessions with its CookieStore, loaded by SessionAutoloadMiddleware. It writes the cookie in every answer."""

    name = "starsessions, CookieStore"

    def wrapped(self, app: Starlette) -> ASGIApp:
        return StarsessionsMiddleware(SessionAutoloadMiddleware(app), store=CookieStore(TEXT), lifetime=AGE_S)

    def append(self, session: Store, key: str, value: Any) -> None:
        session[key].append(value)

    def answered(self, messages: list[Message]) -> dict[str, Any] | None:
        state = super().answered(messages)
        return state and {key: value for key, value in state.items() if key != "__metadata__"}


class ByHand(Bare):
    """What a person would write first: BaseHTTPMiddleware, and itsdangerous around the state in the body."""

    name = "BaseHTTPMiddleware + itsdangerous"
    serializer = URLSafeTimedSerializer(TEXT)

    def wrapped(self, app: Starlette) -> ASGIApp:
        return BaseHTTPMiddleware(app, dispatch=self.dispatch)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Open the session, let the endpoint answer, and put the session into its answer."""
        token = (await request.json())["data"]["session"]
        request.state.session = self.serializer.loads(token, max_age=AGE_S)
        answer: Any = await call_next(request)
        body = json.loads(b"".join([chunk async for chunk in answer.body_iterator]))
        return JSONResponse({**body, "data": {"session": self.serializer.dumps(request.state.session)}})

    def session(self, request: Request) -> Store:
        store: Store = request.state.session
        return store

    def sent(self, state: dict[str, Any]) -> tuple[Headers, bytes]:
        return (), body_with(orjson.dumps(self.serializer.dumps(state)))

    def answered(self, messages: list[Message]) -> dict[str, Any] | None:
        state: dict[str, Any] = self.serializer.loads(carried(messages), max_age=AGE_S)
        return state


class Dcaf(Bare):
    """dcaf. The client sends back the whole object that it got: with a mirror, the state twice."""

    def __init__(self, name: str, *, encrypt: bool, mirror: bool) -> None:
        self.name = name
        self._settings: dict[str, Any] = {"encrypt": encrypt, "mirror": mirror}
        self._sealer = sealer(encrypt=encrypt, mirror=mirror)

    def wrapped(self, app: Starlette) -> ASGIApp:
        return dcaf.SessionMiddleware(
            app, keys=RING, audience=AUDIENCE, max_body_bytes=MOST_BYTES, max_token_bytes=MOST_BYTES, **self._settings
        )

    def session(self, request: Request) -> Store:
        return dcaf.current_session()

    def append(self, session: Store, key: str, value: Any) -> None:
        assert isinstance(session, dcaf.Session)
        session.append(key, value)

    def sent(self, state: dict[str, Any]) -> tuple[Headers, bytes]:
        return (), body_with(sealed(self._sealer, state))

    def answered(self, messages: list[Message]) -> dict[str, Any] | None:
        return self._sealer.open(carried(messages), self._sealer.binding()).to_dict()


def body_with(session: bytes | None) -> bytes:
    """A request's body; the session in it is written already."""
    said = b'{"messages":' + orjson.dumps([{"role": SAID["role"], "content": SAID["content"]}])
    return said + (b"}" if session is None else b',"data":{"session":' + session + b"}}")


def carried(messages: list[Message]) -> Any:
    """What an answer has at ``data.session``."""
    return orjson.loads(messages[-1]["body"])["data"]["session"]


SESSION_MIDDLEWARE: Final = Cookie.name
DEFAULT: Final = "dcaf, default"
LEAN: Final = "dcaf, lean"
ENCRYPTED: Final = "dcaf, encrypted"
DCAF: Final = (DEFAULT, LEAN, ENCRYPTED)

WAYS: Final[tuple[Way, ...]] = (
    Bare(),
    Cookie(),
    Starsessions(),
    ByHand(),
    Dcaf(DEFAULT, encrypt=False, mirror=True),
    Dcaf(LEAN, encrypt=False, mirror=False),
    Dcaf(ENCRYPTED, encrypt=True, mirror=False),
)
