"""Hostile clients: what they may do changes nothing, and what they may not is noticed at the level that promises it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dcaf import SessionMiddleware, current_session
from dcaf.asgi import checkpoint
from dcaf.core.errors import ConfigurationError
from dcaf.testing import HARMLESS, MISUSES, Echo, SessionClient, aborted, held, sealed, tampered
from tests.asgi.wire import AUDIENCE, RING, Recorder, exchange, messages_of, mounted, scope_of
from tests.promises.generate import states
from tests.stores_for_tests import MemoryLedger

RICH = {
    "price": 1.0,
    "zero": -0.0,
    "big": 2**53 + 1,
    "user_name": "Zoë 😀 </b>",
    "note": None,
    "10": "ten",
    "nested": {"b": [1.0, None, -(2**60)], "a_b": 1e21},
}


def envelope(state: dict[str, Any], **options: Any) -> dict[str, Any]:
    return sealed(state, keys=RING, audience=AUDIENCE, **options)


def at_the_top(text: bytes) -> bytes:
    return b'{"messages":[],"data":{"session":' + text + b"}}"


def in_a_message(text: bytes) -> bytes:
    return b'{"messages":[{"role":"assistant","data":{"session":' + text + b'}},{"role":"user"}],"data":{"session":{}}}'


# What they may do


def turns(state: dict[str, Any], *, encrypt: bool = False) -> list[tuple[str, Any, Any]]:
    """Each client's next turn with a state: its name, and the session and the body that the application saw."""

    async def each() -> list[tuple[str, Any, Any]]:
        found = []
        for (name, echo), place in product(HARMLESS.items(), (at_the_top, in_a_message)):
            await exchange(served, scope_of(), messages_of(place(echo(sent))))
            assert app.reached, name
            found.append((name, app.states.pop(), app.bodies.pop()))
            app.scopes.clear()
        return found

    app, sent = Recorder(), envelope(state, encrypt=encrypt)
    # a plain route shows the whole state in the body, when encrypting too
    served = mounted(app, encrypt=encrypt, plain=("/api/chat",), plain_secret=encrypt)
    return asyncio.run(each())


def session_of(body: Any) -> Any:
    value = orjson.loads(body)
    found = [value, *value["messages"]]
    return next(part["data"]["session"] for part in found if part.get("data", {}).get("session"))


def check(state: dict[str, Any], *, encrypt: bool = False) -> None:
    # repr tells 1 from 1.0 and 0.0 from -0.0, which equality does not
    for name, seen, body in turns(state, encrypt=encrypt):
        assert repr(seen) == repr(state), name
        assert not state or repr(session_of(body)) == repr(state), name


@pytest.mark.parametrize("encrypt", [False, True])
def test_the_next_turn_sees_the_same_state_whatever_a_client_does_to_the_envelope(scale: float, *, encrypt: bool) -> None:
    for state in (RICH, *states(16, int(3_000 * scale))):
        check(state, encrypt=encrypt)


NAMES = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "dcaf" and not name.startswith("temp:"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**22), 10**22).map(str)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(state=st.dictionaries(NAMES, VALUES, max_size=4))
@settings(deadline=None, max_examples=40)
def test_any_state_survives_every_harmless_client(state: dict[str, Any]) -> None:
    check(state)


def test_each_harmless_client_really_sends_another_text() -> None:
    sent = envelope(RICH)
    as_it_came, escaped = orjson.dumps(sent), HARMLESS["escape unicode"](sent)
    for name, echo in HARMLESS.items():
        assert echo(sent) != (escaped if name == "unescape unicode" else as_it_came), name
    texts = [echo(sent) for echo in HARMLESS.values()]
    assert len(set(texts)) == len(texts) == 12


def test_escaping_changes_the_text_alone_and_the_token_never_changes() -> None:
    sent = envelope(RICH)
    for name, echo in HARMLESS.items():
        assert orjson.loads(echo(sent))["dcaf"]["token"] == sent["dcaf"]["token"], name
    escaped = HARMLESS["escape unicode"](sent)
    assert escaped.isascii()
    assert orjson.loads(escaped) == sent == orjson.loads(HARMLESS["unescape unicode"](sent))


SHOWN = [
    ("reorder keys", {"a": {"b": 1, "c": 2}, "d": 3}, '{"dcaf":{"expires_at":9,"token":"t"},"d":3,"a":{"c":2,"b":1}}'),
    ("sort keys", {"z": {"b": 1, "a": 2}, "a": 3}, '{"a":3,"dcaf":{"expires_at":9,"token":"t"},"z":{"a":2,"b":1}}'),
    ("1.0 becomes 1", {"a": [1.0, 1.5, -0.0, 1e21]}, '{"a":[1,1.5,0,1e+21],"dcaf":{"token":"t","expires_at":9}}'),
    ("1 becomes 1.0", {"a": [1, True]}, '{"a":[1.0,true],"dcaf":{"token":"t","expires_at":9.0}}'),
    (
        "round integers to doubles",
        {"a": "9007199254740993", "b": -(2**53) - 1, "c": "123", "d": True},
        '{"a":9007199254740992,"b":-9007199254740992,"c":"123","d":true,"dcaf":{"token":"t","expires_at":9}}',
    ),
    ("escape unicode", {"é": "</'&>"}, r'{"\u00e9":"\u003c\u002f\u0027\u0026\u003e","\u0064caf":{"token":"t","expires_at":9}}'),
    ("unescape unicode", {"é": "\u2028"}, '{"é":"\u2028","dcaf":{"token":"t","expires_at":9}}'),
    ("strip nulls", {"a": None, "b": [None, {"c": None}]}, '{"b":[null,{}],"dcaf":{"token":"t","expires_at":9}}'),
    (
        "camelCase keys",
        {"user_name": {"a_b_c": "x_y"}, "_a": 1, "b__c": 2},
        '{"userName":{"aBC":"x_y"},"_a":1,"b__c":2,"dcaf":{"token":"t","expiresAt":9}}',
    ),
    ("drop unknown siblings", {"a": 1}, '{"dcaf":{"token":"t","expires_at":9}}'),
    (
        "edit the mirror",
        {"a": "x", "b": [0, 1.5, None, True], "c": {}},
        '{"a":"x!","b":[true,false,true,false],"c":{},"is_admin":true,"dcaf":{"token":"t","expires_at":9999999999}}',
    ),
    ("drop the mirror", {"a": 1}, '{"dcaf":{"token":"t"}}'),
]


@pytest.mark.parametrize(("name", "mirror", "text"), SHOWN)
def test_a_harmless_client_touches_what_its_name_says(name: str, mirror: dict[str, Any], text: str) -> None:
    given_ = {**mirror, "dcaf": {"token": "t", "expires_at": 9}}
    before = repr(given_)
    assert HARMLESS[name](given_).decode() == text
    assert repr(given_) == before


def test_every_harmless_client_is_shown_by_an_example() -> None:
    assert [name for name, *_ in SHOWN] == list(HARMLESS)


def test_the_unknown_siblings_of_the_token_are_dropped_too() -> None:
    assert HARMLESS["drop unknown siblings"]({"dcaf": {"x": 1, "token": "t"}}) == b'{"dcaf":{"token":"t"}}'


class Readable:
    """The control: a service that signs the object that the client can read, and reads it back."""

    def __init__(self, signed: Callable[[dict[str, Any]], bytes]) -> None:
        self.signed = signed

    def seal(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "dcaf": {"token": hmac.new(b"secret", self.signed(state), hashlib.sha256).hexdigest()}}

    def opens(self, text: bytes, state: dict[str, Any]) -> bool:
        found = json.loads(text)
        shown = {key: value for key, value in found.items() if key != "dcaf"}
        return found["dcaf"]["token"] == self.seal(shown)["dcaf"]["token"] and repr(shown) == repr(state)


def compact(state: dict[str, Any]) -> bytes:
    return json.dumps(state).encode()


def test_a_service_that_signs_the_readable_object_breaks_under_all_but_its_other_spelling() -> None:
    service = Readable(compact)
    assert service.opens(json.dumps(service.seal(RICH)).encode(), RICH)
    survived = {name for name, echo in HARMLESS.items() if service.opens(echo(service.seal(RICH)), RICH)}
    assert survived == {"escape unicode", "unescape unicode"}


def test_a_service_that_signs_sorted_keys_breaks_under_all_that_changes_a_value() -> None:
    service = Readable(lambda state: json.dumps(state, sort_keys=True).encode())
    survived = {name for name, echo in HARMLESS.items() if service.opens(echo(service.seal(RICH)), dict(sorted(RICH.items())))}
    assert survived <= {"escape unicode", "unescape unicode", "reorder keys", "sort keys"}


@pytest.mark.parametrize("spelling", ["escape unicode", "unescape unicode"])
def test_a_service_that_signs_the_text_breaks_under_every_client_but_the_one_that_spells_as_it_does(spelling: str) -> None:
    sent = envelope(RICH)
    mac = hashlib.sha256(HARMLESS[spelling](sent)).digest()
    assert {name for name, echo in HARMLESS.items() if hashlib.sha256(echo(sent)).digest() == mac} == {spelling}


# Services to be hostile to


async def count(request: Request) -> Response:
    """Count, and keep who was there."""
    body = await request.json()
    session = current_session()
    session.append("users", f"{request.headers.get('x-user')} {body.get('thread_id')}")
    return JSONResponse({"content": "ok", "n": session.incr("n")})


async def stream(request: Request) -> Response:
    """Count twice, with a checkpoint between, in one of two kinds of streams."""
    before, after = ("data: ", "\n\n") if request.url.path.endswith("events") else ("", "\n")

    async def events() -> Any:
        current_session().incr("n")
        yield f'{before}{{"type":"text_delta","text":"é"}}{after}'
        await checkpoint()
        current_session().incr("n")
        yield f'{before}{{"type":"done"}}{after}'

    kind = "text/event-stream" if after == "\n\n" else "application/x-ndjson"
    return StreamingResponse(events(), media_type=kind)


SETTINGS: dict[str, Any] = {
    "subject": lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None,
    "conversation": "/thread_id",
}
CHOICES = [(), ("subject",), ("conversation",), ("subject", "conversation")]


def service(names: tuple[str, ...] = (), **more: Any) -> SessionMiddleware:
    routes = [Route("/api/chat", count, methods=["POST"]), Route("/{kind}", stream, methods=["POST"])]
    chosen = {name: SETTINGS[name] for name in names}
    return SessionMiddleware(Starlette(routes=routes), keys=RING, audience=AUDIENCE, **chosen, **more)


def client(app: Any, user: str = "ada", thread: str = "t-1", **options: Any) -> SessionClient:
    return SessionClient(app, headers={"x-user": user}, fields={"thread_id": thread}, **options)


def pair(app: Any, name: str) -> tuple[SessionClient, SessionClient]:
    other = client(app, thread="t-2") if name == "swap conversations" else client(app, user="eve")
    return client(app), other


# What they may do, in a conversation


@pytest.mark.parametrize("echo", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("encrypt", [False, True])
def test_a_conversation_with_a_harmless_client_goes_as_with_any_other(echo: Echo, *, encrypt: bool) -> None:
    app = service(("subject", "conversation"), encrypt=encrypt, mirror=True)
    odd, plain = client(app, echo=echo), client(app)
    for _ in range(3):
        ours, theirs = odd.send("x"), plain.send("x")
        assert (ours.status, ours.body["n"], ours.session) == (theirs.status, theirs.body["n"], theirs.session)


# What they may not


@pytest.mark.parametrize(("name", "names"), list(product(MISUSES, CHOICES)))
def test_a_misuse_is_answered_at_level_zero_as_promised(name: str, names: tuple[str, ...]) -> None:
    misuse = MISUSES[name]
    expected = misuse.expected(names)
    reply = misuse.play(*pair(service(names), name), "x")
    assert (reply.status, reply.code) == ((misuse.status, expected) if expected else (200, None))


@pytest.mark.parametrize(("name", "names"), list(product(MISUSES, CHOICES)))
def test_a_misuse_is_answered_by_a_service_that_remembers_as_promised(name: str, names: tuple[str, ...]) -> None:
    misuse = MISUSES[name]
    expected = misuse.expected(names, level="L2")
    reply = misuse.play(*pair(service(names, store=MemoryLedger()), name), "x")
    assert (reply.status, reply.code) == ((misuse.status, expected) if expected else (200, None))


def test_what_each_level_detects_is_said_in_data() -> None:
    both = ("subject", "conversation")
    at = {level: {name for name in MISUSES if MISUSES[name].expected(both, level=level)} for level in ("L0", "L1", "L2")}
    assert at["L0"] == at["L1"] == {"swap users", "swap conversations", "truncate the token", "truncate the body"}
    assert at["L2"] == set(MISUSES)
    assert {name for name in MISUSES if MISUSES[name].expected(level="L2")} == at["L2"] - {"swap users", "swap conversations"}


def test_a_swapped_session_is_served_with_the_other_users_state_where_nothing_is_bound() -> None:
    reply = MISUSES["swap users"].play(*pair(service(), "swap users"), "x")
    assert reply.session == {"users": ["eve t-1", "ada t-1"], "n": 2}


@pytest.mark.parametrize(("name", "n"), [("echo an older turn", 2), ("double-send", 2), ("abort mid-stream", 2)])
def test_what_level_zero_serves_goes_on_from_the_session_that_was_sent(name: str, n: int) -> None:
    assert MISUSES[name].play(*pair(service(), name), "x").body["n"] == n


def test_a_double_send_is_the_same_bytes_twice() -> None:
    app = Recorder(b'{"content":"ok"}', tool=lambda session: session.incr("n"))
    MISUSES["double-send"].play(*pair(mounted(app), "double-send"), "x")
    first, second = app.bodies[1:]
    assert first == second
    assert app.states == [{}, {"n": 1}, {"n": 1}]


def test_after_a_truncated_token_the_client_starts_over_and_after_a_truncated_body_it_goes_on() -> None:
    for name, n in (("truncate the token", 1), ("truncate the body", 2)):
        ada, eve = pair(service(), name)
        MISUSES[name].play(ada, eve, "x")
        assert ada.send("x").body["n"] == n


def test_a_token_cut_anywhere_is_refused() -> None:
    sent = envelope({"n": 1})
    token = sent["dcaf"]["token"]
    for at in range(len(token)):
        reply = client(service(), envelope={"dcaf": {"token": token[:at]}}).send("x")
        assert (reply.status, reply.code) == (400, "session-invalid"), at


def test_a_body_cut_anywhere_never_shows_the_application_a_session() -> None:
    body = at_the_top(orjson.dumps(envelope({"n": 1})))

    async def each() -> None:
        for at in range(1, len(body)):
            sent = await exchange(mounted(app), scope_of(), messages_of(body[:at]))
            assert (sent.status, sent.code) == (400, "malformed-json"), at

    app = Recorder()
    asyncio.run(each())
    assert not app.reached


@pytest.mark.parametrize("name", [name for name in MISUSES if not name.startswith("swap")])
def test_a_misuse_of_no_session_is_an_error_and_no_pass(name: str) -> None:
    with pytest.raises(ValueError, match="no session: nothing to misuse"):
        MISUSES[name].play(*pair(mounted(Recorder()), name), "x")


def test_a_misuse_after_a_refusal_is_an_error_and_no_pass() -> None:
    ada = client(service(), envelope=tampered(envelope({"n": 1})))
    with pytest.raises(ValueError, match="400 and session-invalid"):
        MISUSES["double-send"].play(ada, ada, "x")


def test_a_service_that_takes_any_token_is_caught() -> None:
    async def lax(scope: Any, receive: Any, send: Any) -> None:
        body = await Request(scope, receive).json()
        n = (body["data"]["session"] or {"n": 0})["n"] + 1
        session = {"n": n, "dcaf": {"token": str(n) * 9}}
        await JSONResponse({"data": {"session": session}})(scope, receive, send)

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        try:
            await lax(scope, receive, send)
        except json.JSONDecodeError:
            await JSONResponse({"code": "malformed-json"}, 400)(scope, receive, send)

    both = ("subject", "conversation")
    codes = {name: MISUSES[name].play(*pair(answered, name), "x").code for name in MISUSES}
    missed = {name for name, code in codes.items() if code != MISUSES[name].expected(both)}
    assert missed == {"swap users", "swap conversations", "truncate the token"}


# Answers that break off


@pytest.mark.parametrize(("path", "steps"), [("/api/chat", [1, 2]), ("/lines", [2, 3, 4]), ("/events", [2, 3, 4])])
def test_wherever_an_answer_breaks_off_the_client_holds_one_session_that_is_valid(path: str, steps: list[int]) -> None:
    app = service()
    ada = client(app, path=path)
    old = ada.send("x").envelope
    assert old is not None
    whole = ada.send("x")
    kind = whole.headers["content-type"]
    found = [held(kind, whole.content[:at], old) for at in range(len(whole.content) + 1)]
    numbers = [session["n"] for session in found if session]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == steps
    for session in {session["dcaf"]["token"]: session for session in found if session}.values():
        assert client(app, envelope=session).send("x").body["n"] == session["n"] + 1


@pytest.mark.parametrize("path", ["/api/chat", "/lines", "/events"])
def test_a_client_that_aborts_goes_on_from_what_it_holds(path: str) -> None:
    ada = client(service(), path=path)
    before = ada.send("x").envelope
    said = list(ada.messages)
    lost = aborted(ada, "y")
    assert (ada.envelope, ada.messages) == (before, said)
    assert aborted(ada, "y", at=len(lost.content) // 2).status == 200
    assert ada.messages == said
    whole = aborted(ada, "y", at=len(lost.content))
    assert ada.envelope == whole.envelope


def test_an_abort_of_the_first_turn_leaves_no_session() -> None:
    ada = client(service())
    assert aborted(ada, "x").body["n"] == 1
    assert (ada.envelope, ada.messages) == (None, [])
    assert ada.send("x").body["n"] == 1


def test_an_answer_that_is_shorter_than_the_cut_is_an_error_and_no_pass() -> None:
    with pytest.raises(ConfigurationError, match="cannot be cut at 1000000"):
        aborted(client(service()), "x", at=1_000_000)


@pytest.mark.parametrize("name", MISUSES)
@pytest.mark.parametrize("path", ["/lines", "/events"])
def test_a_service_that_streams_is_misused_alike(path: str, name: str) -> None:
    both = ("subject", "conversation")
    app = service(both)
    reply = MISUSES[name].play(client(app, path=path), client(app, user="eve", thread="t-2", path=path), "x")
    assert reply.code == MISUSES[name].expected(both)
