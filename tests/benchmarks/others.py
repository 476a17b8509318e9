"""Nine libraries that seal a state into a text, each as its own documentation shows; an age is checked where it can be."""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import flask
import joserfc.jwt
import jwt
import orjson
import pyseto
from cryptography.fernet import Fernet
from django.core import signing  # type: ignore[import-untyped]
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from joserfc.jwk import OctKey
from litestar.middleware.session.client_side import ClientSideSessionBackend, CookieBackendConfig

SECRET: Final = random.Random("benchmark").randbytes(32)
TEXT: Final = SECRET.hex()
AGE_S: Final = 7 * 86_400
ITSDANGEROUS: Final = "itsdangerous URLSafeTimedSerializer"
STARLETTE: Final = "Starlette's way"
FLASK: Final = "Flask SecureCookieSessionInterface"
Turn: TypeAlias = Callable[[str], str | bytes]


@dataclass(frozen=True, slots=True)
class Sealing:
    """One way to seal a state into a text.

    Attributes:
        name: Name of its row.
        seal: State -> token.
        opened: What a turn returns -> state, for the check that something was done.
        one: A turn that reads and writes one small key: token -> the next one.
        every: A turn that reads every key, and writes one. None, as ``one``, where it is not measured.
    """

    name: str
    seal: Callable[[dict[str, Any]], str]
    opened: Callable[[Any], dict[str, Any]]
    one: Turn | None = None
    every: Turn | None = None


def codec(name: str, write: Callable[[dict[str, Any]], str], read: Callable[[str], Any]) -> Sealing:
    """A library that reads and writes the whole state: a turn that reads every key costs it no more."""

    def turn(token: str) -> str:
        state = read(token)
        state["step"] += 1
        return write(state)

    return Sealing(name, write, read, turn, turn)


def itsdangerous_urlsafe() -> Sealing:
    """``URLSafeTimedSerializer`` at its defaults."""
    serializer = URLSafeTimedSerializer(TEXT)
    return codec(
        ITSDANGEROUS,
        lambda state: str(serializer.dumps(state)),
        lambda token: serializer.loads(token, max_age=AGE_S),
    )


def starlette_way() -> Sealing:
    """What Starlette's SessionMiddleware does with a cookie."""
    signer = TimestampSigner(TEXT)
    return codec(
        STARLETTE,
        lambda state: signer.sign(b64encode(json.dumps(state).encode("utf-8"))).decode("utf-8"),
        lambda token: json.loads(b64decode(signer.unsign(token.encode("utf-8"), max_age=AGE_S))),
    )


def flask_session() -> Sealing:
    """What Flask's session interface does with a cookie: a serializer of its own for reading and for writing."""
    app, interface = flask.Flask("benchmark"), SecureCookieSessionInterface()
    app.secret_key = TEXT

    def serializer() -> Any:
        return interface.get_signing_serializer(app)

    return codec(
        FLASK,
        lambda state: str(serializer().dumps(dict(state))),
        lambda token: interface.session_class(serializer().loads(token, max_age=AGE_S)),
    )


def django_signing() -> Sealing:
    """``django.core.signing`` with its own JSON serializer, without compression, which is its default."""
    signer = signing.TimestampSigner(key=TEXT, fallback_keys=[], salt="benchmark")
    return codec(
        "Django signing",
        lambda state: str(signer.sign_object(state)),
        lambda token: signer.unsign_object(token, max_age=AGE_S),
    )


def pyjwt() -> Sealing:
    """PyJWT with HS256; the state is one claim."""
    return codec(
        "PyJWT HS256",
        lambda state: jwt.encode({"exp": 9_999_999_999, "state": state}, SECRET, "HS256"),
        lambda token: jwt.decode(token, SECRET, ["HS256"])["state"],
    )


def joserfc_() -> Sealing:
    """joserfc with HS256; the state is one claim."""
    key = OctKey.import_key(SECRET)
    return codec(
        "joserfc HS256",
        lambda state: joserfc.jwt.encode({"alg": "HS256"}, {"exp": 9_999_999_999, "state": state}, key),
        lambda token: joserfc.jwt.decode(token, key).claims["state"],
    )


def fernet() -> Sealing:
    """Fernet, with orjson for the JSON that it does not do itself."""
    box = Fernet(b64encode(SECRET))
    return codec(
        "Fernet, with orjson",
        lambda state: box.encrypt(orjson.dumps(state)).decode(),
        lambda token: orjson.loads(box.decrypt(token, ttl=AGE_S)),
    )


def pyseto_() -> Sealing:
    """PASETO v4.local, with orjson for the JSON."""
    key = pyseto.Key.new(version=4, purpose="local", key=SECRET)

    def read(token: str) -> Any:
        payload = pyseto.decode(key, token).payload
        assert isinstance(payload, bytes)
        return orjson.loads(payload)

    return codec("pyseto v4.local, with orjson", lambda state: pyseto.encode(key, orjson.dumps(state)).decode(), read)


def litestar_session() -> Sealing:
    """Litestar's client-side session: AES-GCM and msgspec, in pieces that fit into cookies."""
    backend = ClientSideSessionBackend(CookieBackendConfig(secret=SECRET))
    return codec(
        "Litestar ClientSideSession",
        lambda state: b" ".join(backend.dump_data(state)).decode(),
        lambda token: backend.load_data(token.encode().split()),
    )


OTHERS: Final = (
    itsdangerous_urlsafe,
    starlette_way,
    flask_session,
    django_signing,
    pyjwt,
    joserfc_,
    fernet,
    pyseto_,
    litestar_session,
)
