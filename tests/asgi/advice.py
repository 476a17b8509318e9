"""What every message says to write, done as it says: the mistake that brings the message, and the same with the advice followed."""

from __future__ import annotations

import asyncio
import pickle
import re
import string
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesOwn
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dcaf import Key, Keyring, Session, SessionMiddleware, current_session, tool
from dcaf.asgi import CookieCarrier, HeaderCarrier, Import, checkpoint
from dcaf.core import HostTurn, SessionHost
from dcaf.core.arguments import require_bool, require_function, require_plain_function, require_text
from dcaf.core.base64url import decode
from dcaf.core.claims import Binding
from dcaf.core.keys import LiveKeyring, _checksum
from dcaf.core.sealer import Sealer
from dcaf.core.store import OpenRequest, StatelessLease, StatelessStore
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, Recorder, call, envelope, mounted, opened

Act = Callable[[], Any]
HOST = SessionHost(keys=RING, audience=AUDIENCE)
UNTIL = datetime(2999, 1, 1, tzinfo=UTC)
KEY = Key.generate("k1")
HUGE = "x" * 9_000
WRONG: Any = "Lax"
ALPHABET = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True)
class Advice:
    """One message.

    Attributes:
        said: A part of it, as it stands in the source.
        meets: The mistake; raises the message.
        follows: The same without the mistake, as the message says; raises nothing.
    """

    said: str
    meets: Act
    follows: Act


def count(session: Session) -> None:
    session.incr("step")


def carried(settings: dict[str, Any] | None = None, **answer: Any) -> Act:
    """A turn that changes its session, on an answer that may carry it or not; the change is with the client at the end."""
    options = {"answer": b"{}", "tool": count, **answer}
    method = options.pop("method", "POST")

    def act() -> Any:
        sent = call(mounted(Recorder(**options), **(settings or {})), {"x": 1}, method=method)
        token = sent.header("dcaf-session") or (sent.envelope or {}).get("dcaf", {}).get("token", "")
        assert opened({"dcaf": {"token": token}}) == {"step": 1}
        return sent

    return act


def cannot(said: str, follows: Act, settings: dict[str, Any] | None = None, **answer: Any) -> Advice:
    return Advice(said, carried(settings, **answer), follows)


BY_HEADER = {"carriers": ("header",)}
TEXT = ((b"content-type", b"text/plain"),)


def unnamed(body: bytes) -> Any:
    """A turn that changes its session, which came by a header, with a body that may name its conversation."""
    sealer = Sealer(keys=RING, audience=AUDIENCE)
    token = sealer.token(sealer.start(), sealer.binding(None, "a"), sequence=1)
    service = mounted(Recorder(b"{}", tool=count), conversation="/thread", carriers=("body", "header"))
    sent = call(service, body, headers=((b"dcaf-session", token),))
    assert sent.header("dcaf-session")


def replaced(value: bytes) -> Any:
    """A route that replaces the state by its own, which may be one that nothing can store."""
    return call(mounted(Recorder(b'{"data":{"session":{"deep":%b}}}' % value), plain=("/api/chat",)), {})


def away() -> Keyring:
    raise ConnectionError("the vault is away")


def written(text: str, act: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "keys")
        path.write_text(text, encoding="latin-1")
        return act(path)


def of_file(path: Path) -> Any:
    return mounted(Recorder(), keys=path)


def unspelled() -> str:
    """A key whose secret is spelled in another way than the canonical one, with the right checksum."""
    text = KEY.text()[: -len("_123456")]  # a checksum may have a line in it, too
    other = next(found for found in (text[:-1] + character for character in ALPHABET) if found != text and _same(found, text))
    return f"{other}_{_checksum(other)}"


def _same(found: str, text: str) -> bool:
    with suppress(ValueError):
        return re.fullmatch(r"[\w-]+", found) is not None and decode(found[-43:]) == decode(text[-43:])
    return False


def damaged() -> str:
    text = KEY.text()
    return text[:-1] + ("A" if text[-1] != "A" else "B")


def ephemeral(workers: str) -> Keyring:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEB_CONCURRENCY", workers)
        return Keyring.ephemeral()


def starlette(*middleware: Any, read: Callable[[Any], Any]) -> Any:
    """A Starlette application with these around it, asked once."""

    async def root(request: Any) -> JSONResponse:
        read(request)["n"] = 1
        return JSONResponse({})

    app = Starlette(routes=[Route("/", root, methods=["POST"])], middleware=list(middleware))
    return TestClient(app).post("/", json={})


OURS = Middleware(SessionMiddleware, keys=RING, audience=AUDIENCE)
UNBOUND = Middleware(SessionMiddleware, keys=RING, audience=AUDIENCE, bind_request_session=False)
THEIRS = Middleware(StarlettesOwn, secret_key="s")


@tool
async def saves(session: Session) -> str:
    """Save."""
    count(session)
    await checkpoint()
    return "ok"


@tool
async def stores(session: Session) -> str:
    """Store."""
    count(session)
    return "ok"


def streamed(*steps: Any, kind: str = "application/x-ndjson") -> Any:
    """A stream of Starlette's with these steps between its events."""

    async def events() -> Any:
        yield '{"type":"x"}\n'
        for step in steps:
            await step()
        yield '{"type":"done"}\n'

    async def root(_: Any) -> Any:
        return StreamingResponse(events(), media_type=kind)

    app = mounted(Starlette(routes=[Route("/", root, methods=["POST"])]))
    return TestClient(app).post("/", json={})


def under(limit: int, *, clear: bool = False) -> Act:
    """A session that was begun under a larger limit, sealed under this one."""

    def act() -> Any:
        session = Sealer(keys=RING, audience=AUDIENCE).start()
        session["large"] = HUGE
        if clear:
            session.clear()
        sealer = Sealer(keys=RING, audience=AUDIENCE, max_token_bytes=limit)
        return sealer.seal(session, sealer.binding(), sequence=1)

    return act


def grown(settings: dict[str, Any]) -> Act:
    """A session that came by the header, and grows."""

    def act() -> Any:
        token = envelope({"a": 1})["dcaf"]["token"].encode()
        large = Recorder(b"hello", headers=TEXT, tool=lambda session: session.set("large", HUGE if settings else "x"))
        options = {"carriers": ("body", "header"), **settings}
        return call(
            mounted(large, **{key: item for key, item in options.items() if key != "grow"}), headers=((b"dcaf-session", token),)
        )

    return act


def without_a_request(turn: HostTurn, *, times: int = 1, reads_inside: bool = False) -> Any:
    """Enter a turn so often, and read its envelope."""

    async def act() -> Any:
        for _ in range(times):
            async with turn:
                if reads_inside:
                    return turn.envelope
        return turn.envelope

    return asyncio.run(act())


def session_inside(turn: HostTurn) -> Any:
    """Enter a turn, and read its session."""

    async def act() -> Any:
        async with turn:
            return turn.session

    return asyncio.run(act())


def refused_sealing() -> Any:
    sealer = Sealer(keys=RING, audience=AUDIENCE)
    return sealer.seal(Session.from_dict({"a": 1}), sealer.binding(), sequence=1)


def right_sealing() -> Any:
    sealer = Sealer(keys=RING, audience=AUDIENCE)
    return sealer.seal(sealer.start(), sealer.binding(), sequence=1)


ADVICE: list[Advice] = [
    # core
    Advice(" takes ", lambda: require_function("f=", 1), lambda: require_function("f=", print)),
    Advice(" takes a text, ", lambda: require_text("t=", "\ud800", "a word"), lambda: require_text("t=", "x", "a word")),
    Advice(", not an async one.", lambda: require_plain_function("f=", checkpoint), lambda: require_plain_function("f=", print)),
    Advice(" takes ", lambda: require_bool("b=", "false"), lambda: require_bool("b=", False)),
    Advice("Only a session that the middleware began or opened", refused_sealing, right_sealing),
    Advice(
        "leaves no room for a state",
        lambda: mounted(Recorder(), max_token_bytes=100),
        lambda: mounted(Recorder(), max_token_bytes=4_000),
    ),
    Advice(
        "randomness= takes a function",
        lambda: call(mounted(Recorder(), randomness=lambda n: b"x"), {}),
        lambda: call(mounted(Recorder(), randomness=bytes), {}),
    ),
    Advice(
        "audience= must name this service",
        lambda: mounted(Recorder(), audience=""),
        lambda: mounted(Recorder(), audience="deploy-agent"),
    ),
    Advice("Clear it, or raise the limit", under(2_000), lambda: [under(20_000)(), under(2_000, clear=True)()]),
    Advice(
        "turn.envelope is there when the block of `async with host.turn(...) as turn` has ended",
        lambda: without_a_request(HOST.turn(), reads_inside=True),
        lambda: without_a_request(HOST.turn()),
    ),
    Advice(
        "turn.session is there inside the block of `async with host.turn(...) as turn`",
        lambda: HOST.turn().session,
        lambda: session_inside(HOST.turn()),
    ),
    Advice(
        "A turn is used once. Call host.turn(...) for each.",
        lambda: without_a_request(HOST.turn(), times=2),
        lambda: [without_a_request(HOST.turn()) for _ in range(2)],
    ),
    Advice(
        "is a text that is not empty, or None", lambda: HOST.turn(subject=""), lambda: HOST.turn(subject="ada", conversation=None)
    ),
    Advice(
        "StatelessLease takes the OpenRequest",
        lambda: StatelessLease(cast("Any", "A" * 22)),
        lambda: StatelessLease(OpenRequest("A" * 22, None, Binding(AUDIENCE))),
    ),
    Advice(
        "another SessionStore",
        lambda: mounted(Recorder(), store=StatelessStore),
        lambda: mounted(Recorder(), store=StatelessStore()),
    ),
    Advice("a Key is not pickled", lambda: pickle.dumps(KEY), lambda: pickle.dumps(KEY.kid)),
    Advice(
        "No key of the ring may sign yet",
        lambda: Keyring(Key("k1", KEY.secret, not_before=2**40)).signer(1.0),
        lambda: Keyring(Key("k1", KEY.secret, not_before=2**40), Key.generate("k2")).signer(1.0),
    ),
    Advice("a Keyring is not pickled", lambda: pickle.dumps(RING), lambda: Keyring.from_environment({"DCAF_KEYS": KEY.text()})),
    Advice("is not spelled canonically", lambda: Key.parse(unspelled()), lambda: Key.parse(KEY.text())),
    Advice("A key id is 1 to 16 letters and digits.", lambda: Key.generate("my key"), lambda: Key.generate("mykey7")),
    Advice("the secret must be ", lambda: Key.from_bytes("k", b"x"), lambda: Key.from_bytes("k", KEY.secret)),
    Advice("the secret's bytes repeat", lambda: Key.from_bytes("k", bytes(32)), lambda: Key.from_bytes("k", KEY.secret)),
    Advice(
        "the secret is text",
        lambda: Key.from_bytes("k", b"abcdefghijklmnopqrstuvwxyz123456"),
        lambda: Key.from_bytes("k", KEY.secret),
    ),
    Advice(
        "Put the others into DCAF_KEYS_VERIFY",
        lambda: Keyring.from_environment({"DCAF_KEYS": f"{KEY.text()},{Key.generate().text()}"}),
        lambda: Keyring.from_environment(
            {"DCAF_KEYS": KEY.text(), "DCAF_KEYS_VERIFY": f"{Key.generate().text()},{Key.generate().text()}"}
        ),
    ),
    Advice(" is not a dcaf key", lambda: Key.parse("secret"), lambda: Key.parse(KEY.text())),
    Advice(
        "is damaged: its checksum does not match",
        lambda: Key.parse(damaged()),
        lambda: Key.parse(KEY.text()),
    ),
    Advice(
        "is revoked, so it cannot sign. Name another one first.",
        lambda: Keyring(Key("k1", KEY.secret, revoked=True)),
        lambda: Keyring(Key.generate("k2"), Key("k1", KEY.secret, revoked=True)),
    ),
    Advice(
        "Keyring.parse(sources=) takes two texts",
        lambda: Keyring.parse(KEY.text(), sources=WRONG),
        lambda: Keyring.parse(KEY.text(), sources=("x", "y")),
    ),
    Advice(
        "There is no key: pass keys=, or set DCAF_KEYS.",
        lambda: Keyring.from_environment({}),
        lambda: Keyring.from_environment({"DCAF_KEYS": KEY.text()}),
    ),
    Advice("An ephemeral key serves one process", lambda: ephemeral("2"), lambda: Keyring(Key.generate())),
    Advice("read text with Keyring.parse()", lambda: Keyring(KEY.text()), lambda: Keyring.parse(KEY.text())),  # type: ignore[arg-type]
    Advice(
        "stands for two different secrets",
        lambda: Keyring(Key.generate("k"), Key.generate("k")),
        lambda: Keyring(Key.generate("k"), Key.generate("k2")),
    ),
    Advice(
        "migrations= takes {version: function}.",
        lambda: mounted(Recorder(), migrations=[print]),
        lambda: mounted(Recorder(), version=1, migrations={1: dict}),
    ),
    Advice("version is a number from 0 up", lambda: mounted(Recorder(), version=-1), lambda: mounted(Recorder(), version=1)),
    Advice(
        "which do not lead to version ",
        lambda: mounted(Recorder(), version=3, migrations={1: dict, 3: dict}),
        lambda: mounted(Recorder(), version=3, migrations={2: dict, 3: dict}),
    ),
    Advice(
        "mirror= takes True, False, or the keys",
        lambda: mounted(Recorder(), mirror="step"),
        lambda: mounted(Recorder(), mirror={"wizard_step"}),
    ),
    Advice(
        "The function that reads the keys must give a Keyring",
        lambda: LiveKeyring(cast("Any", KEY.text)),
        lambda: LiveKeyring(lambda: Keyring.parse(KEY.text())),
    ),
    Advice(
        "Import(until=) takes a datetime with a time zone",
        lambda: Import(UNTIL.replace(tzinfo=None), dict),
        lambda: Import(UNTIL, dict),
    ),
    # carriers
    Advice("changed the session, and its token of ", grown({"grow": True}), grown({})),
    Advice(
        "carriers= knows 'body', 'header' and 'cookie'",
        lambda: mounted(Recorder(), carriers=("query",)),
        lambda: mounted(Recorder(), carriers=("header", CookieCarrier())),
    ),
    Advice(
        "one of each kind at most, and one at least",
        lambda: mounted(Recorder(), carriers=()),
        lambda: mounted(Recorder(), carriers=("body", "cookie")),
    ),
    Advice("HeaderCarrier(limit_bytes=) takes", lambda: HeaderCarrier(10**6), lambda: HeaderCarrier(3_800)),
    Advice(
        "cannot be the name of a cookie",
        lambda: CookieCarrier("my cookie", secure=False),
        lambda: CookieCarrier("my-cookie_7", secure=False),
    ),
    Advice(
        "same_site= is one of",
        lambda: CookieCarrier(same_site=WRONG),
        lambda: [CookieCarrier(same_site=one) for one in ("lax", "strict", "none")],
    ),
    Advice(
        "path= begins with a slash",
        lambda: CookieCarrier("c", path="app"),
        lambda: CookieCarrier("c", path="/app", domain="shop.test"),
    ),
    Advice(
        "A cookie named __Host-...",
        lambda: CookieCarrier(secure=False),
        lambda: [CookieCarrier(secure=True, path="/"), CookieCarrier("c", secure=False)],
    ),
    Advice(
        "and one named __Secure-... need secure=True",
        lambda: CookieCarrier("__Secure-c", secure=False),
        lambda: CookieCarrier("__Secure-c", secure=True),
    ),
    # checkpoints and holders
    Advice(
        "checkpoint() was called inside a tool",
        lambda: streamed(lambda: saves.run({})),
        lambda: streamed(lambda: stores.run({}), checkpoint),
    ),
    Advice(
        "checkpoint() was called where no stream",
        lambda: streamed(checkpoint, kind="text/plain"),
        lambda: [streamed(checkpoint), streamed(checkpoint, kind="text/event-stream")],
    ),
    Advice(
        "conversation= takes a JSON pointer that begins",
        lambda: mounted(Recorder(), conversation="thread_id"),
        lambda: mounted(Recorder(), conversation="/thread_id"),
    ),
    Advice(
        "subject= takes a function of the scope",
        lambda: mounted(Recorder(), subject="ada"),
        lambda: call(mounted(Recorder(), subject=lambda scope: "ada"), {}),
    ),
    Advice(
        "conversation= takes a function of (scope, body)",
        lambda: mounted(Recorder(), conversation=7),
        lambda: call(mounted(Recorder(), conversation=lambda scope, body: "t"), {}),
    ),
    # the middleware
    Advice("app._twice", lambda: mounted(mounted(Recorder())), lambda: mounted(Recorder())),
    Advice(
        "self._twice",
        lambda: call(GZipMiddleware(mounted(GZipMiddleware(mounted(Recorder())))), {}),
        lambda: call(GZipMiddleware(mounted(GZipMiddleware(Recorder()))), {}),
    ),
    Advice(
        "PLAIN_AND_ENCRYPTED",
        lambda: mounted(Recorder(), plain=("/a",), encrypt=True),
        lambda: [
            mounted(Recorder(), plain=("/a",)),
            mounted(Recorder(), encrypt=True),
            mounted(Recorder(), plain=("/a",), encrypt=True, plain_secret=True),
        ],
    ),
    Advice("takes the ASGI application first", lambda: mounted(Starlette), lambda: mounted(Starlette())),
    Advice(
        "is taken by another session middleware",
        lambda: starlette(THEIRS, OURS, read=lambda request: request.session),
        lambda: [
            starlette(OURS, read=lambda request: request.session),
            starlette(THEIRS, UNBOUND, read=lambda _: current_session()),
        ],
    ),
    # settings
    Advice(
        "keys= takes a Keyring, the text of a key",
        lambda: mounted(Recorder(), keys=KEY.secret),
        lambda: [mounted(Recorder(), keys=found) for found in (RING, KEY.text(), lambda: RING)],
    ),
    Advice(
        " It must give one when the service starts.",
        lambda: mounted(Recorder(), keys=away),
        lambda: mounted(Recorder(), keys=lambda: RING),
    ),
    Advice("has no key. Write one with", lambda: written("# none\n", of_file), lambda: written(f"{KEY.text()}\n", of_file)),
    Advice(
        "cannot be read: ", lambda: mounted(Recorder(), keys=Path("/nowhere/keys")), lambda: written(f"{KEY.text()}\n", of_file)
    ),
    Advice(
        "is no text. It has one key a line",
        lambda: written("\xff\xfe", of_file),
        lambda: written(f"{KEY.text()}\n{Key.generate().text()}\n", of_file),
    ),
    Advice(
        "absolute_timeout is shorter than idle_timeout",
        lambda: mounted(Recorder(), absolute_timeout=timedelta(days=1)),
        lambda: mounted(Recorder(), absolute_timeout=timedelta(days=1), idle_timeout=timedelta(hours=1)),
    ),
    Advice(
        " must be a number of bytes, from 1 up.",
        lambda: mounted(Recorder(), max_body_bytes=0),
        lambda: mounted(Recorder(), max_body_bytes=1),
    ),
    Advice(
        "= is one of ",
        lambda: mounted(Recorder(), unsigned="import"),
        lambda: [mounted(Recorder(), unsigned=one) for one in ("reject", "ignore", Import(UNTIL, dict))],
    ),
    Advice(
        "= takes paths, for instance ",
        lambda: mounted(Recorder(), plain="/api/chat"),
        lambda: [mounted(Recorder(), plain=one) for one in (("/api/chat",), lambda scope: True)],
    ),
    Advice(
        " must be a timedelta of at least a second",
        lambda: mounted(Recorder(), idle_timeout=3600),
        lambda: mounted(Recorder(), idle_timeout=timedelta(days=7)),
    ),
    # answers that cannot carry a change: each way that the message names
    cannot("uncarried(", carried(), answer=b"hello", headers=TEXT),
    cannot("uncarried(", carried(answer=b'{"data":null}'), answer=b"[1]"),
    cannot("uncarried(", carried(answer=b'{"data":{}}'), answer=b'{"data":[]}'),
    cannot("uncarried(", carried(BY_HEADER, answer=b"hello", headers=TEXT), answer=b"hello", headers=TEXT),
    cannot("uncarried(", carried(BY_HEADER, answer=b"", status=204), answer=b"", status=204),
    cannot(
        "uncarried(", carried(BY_HEADER, answer=b"", status=303, headers=((b"location", b"/"),)), answer=b"", status=303, headers=()
    ),
    cannot("uncarried(", carried(), headers=(JSON_TYPE, (b"content-encoding", b"gzip"))),
    Advice("_unnamed(", lambda: unnamed(b""), lambda: unnamed(b'{"thread":"a"}')),
    Advice("nested ", lambda: replaced(b"[" * 1_010 + b"]" * 1_010), lambda: replaced(b"[]")),
]
"""Every message of the middleware, of keys and of sealing."""
