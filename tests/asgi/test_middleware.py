from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import timedelta
from typing import Any

import pytest
from starlette.middleware.sessions import SessionMiddleware as CookieSessions

from dcaf import ConfigurationError, SessionMiddleware
from dcaf.asgi.problems import build_problem
from dcaf.core import Key, Keyring
from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.errors import (
    IdempotencyKeyReused,
    QuotaExceededError,
    SessionConflict,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
)
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED
from dcaf.testing import SessionClient
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, Recorder, call, envelope, exchange, mounted, opened, scope_of
from tests.stores_for_tests import ToldStore, if_sealed

STEP = {"step": 2}
MAKE_ONE = 'Make one: export DCAF_KEYS="$(dcaf keys new)"'
PATHS = 'takes paths, for instance {0}=("/api/chat",), or a function of the scope.'
TIMEDELTA = "{} must be a timedelta of at least a second, for instance timedelta(days=7)."
NUMBER = "{} must be a number of bytes, from 1 up."
AUDIENCE_DUE = "audience= must name this service, for instance audience='deploy-agent': no other service's session is accepted."
GAP = (
    "migrations has the steps [1], which do not lead to version 2 without a gap: "
    "migrations[n] makes version n out of n - 1, and version is the last n."
)
TWICE = "SessionMiddleware is mounted twice around one application. Remove one of the two."


def count(session: Any) -> None:
    session.incr("step")


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keys": None}, f"There is no key: pass keys=, or set DCAF_KEYS. {MAKE_ONE}"),
        ({"keys": ""}, f"This is not a dcaf key (dcafk1_<kid>_<secret>_<checksum>). {MAKE_ONE}"),
        ({"keys": "hunter2"}, f"This is not a dcaf key (dcafk1_<kid>_<secret>_<checksum>). {MAKE_ONE}"),
        (
            {"keys": b"x"},
            "keys= takes a Keyring, the text of a key, a pathlib.Path, a function that gives a Keyring, "
            "or None for the environment, not bytes.",
        ),
        ({"audience": ""}, AUDIENCE_DUE),
        ({"audience": None}, AUDIENCE_DUE),
        ({"audience": 7}, AUDIENCE_DUE),
        (
            {"idle_timeout": timedelta(days=2), "absolute_timeout": timedelta(days=1)},
            "absolute_timeout is shorter than idle_timeout: a session would end before it could be idle.",
        ),
        ({"idle_timeout": 7}, TIMEDELTA.format("idle_timeout")),
        ({"idle_timeout": timedelta(0)}, TIMEDELTA.format("idle_timeout")),
        ({"absolute_timeout": timedelta(days=-1)}, TIMEDELTA.format("absolute_timeout")),
        ({"absolute_timeout": None}, TIMEDELTA.format("absolute_timeout")),
        ({"plain": "/api/chat"}, "plain= " + PATHS.format("plain")),
        ({"plain": ("api/chat",)}, "plain= " + PATHS.format("plain")),
        ({"plain": (7,)}, "plain= " + PATHS.format("plain")),
        ({"exempt": "/hook"}, "exempt= " + PATHS.format("exempt")),
        ({"exempt": ("",)}, "exempt= " + PATHS.format("exempt")),
        ({"mirror": "step"}, 'mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.'),
        ({"mirror": (7,)}, 'mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.'),
        ({"max_body_bytes": 0}, NUMBER.format("max_body_bytes")),
        ({"max_body_bytes": True}, NUMBER.format("max_body_bytes")),
        ({"max_response_bytes": "1"}, NUMBER.format("max_response_bytes")),
        ({"max_token_bytes": 1.5}, NUMBER.format("max_token_bytes")),
        ({"max_token_bytes": -1}, NUMBER.format("max_token_bytes")),
        ({"subject": "ada.lovelace"}, "subject= takes a function of the scope, not str: it is asked in every turn."),
        ({"conversation": 7}, "conversation= takes a function of (scope, body) or a JSON pointer, not int."),
        (
            {"conversation": "thread_id"},
            'conversation= takes a JSON pointer that begins with "/", for instance "/thread_id", or a function.',
        ),
        (
            {"conversation": ""},
            'conversation= takes a JSON pointer that begins with "/", for instance "/thread_id", or a function.',
        ),
        ({"version": -1}, "version is a number from 0 up: raise it by one with each change of the schema."),
        ({"version": "1"}, "version is a number from 0 up: raise it by one with each change of the schema."),
        (
            {"version": 2, "migrations": {1: dict}},
            GAP,
        ),
    ],
)
def test_a_wrong_setting_is_told_when_the_middleware_is_built(settings: Any, message: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("DCAF_KEYS", raising=False)
    with pytest.raises(ConfigurationError) as told:
        mounted(Recorder(), **settings)
    assert str(told.value) == message


def test_an_absent_audience_is_told_like_an_empty_one() -> None:
    with pytest.raises(ConfigurationError) as told:
        SessionMiddleware(Recorder(), keys=RING)
    assert str(told.value) == AUDIENCE_DUE


def test_a_token_limit_too_small_for_any_state_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"^max_token_bytes=100 leaves no room for a state; the claims alone take \d+\.$"):
        mounted(Recorder(), max_token_bytes=100)


@pytest.mark.parametrize(
    "settings",
    [
        {"plain": 5},
        {"plain": None},
        {"exempt": 5},
        {"exempt": None},
        {"mirror": 5},
        {"mirror": ([],)},
        {"plain": ([],)},
        {"migrations": 5},
    ],
)
def test_a_setting_of_any_wrong_type_is_a_configuration_error(settings: Any) -> None:
    with pytest.raises(ConfigurationError):
        mounted(Recorder(), **settings)


def test_a_pointer_to_an_item_of_an_array_is_followed_or_refused_when_built() -> None:
    """Read over members of objects alone it would find nothing, and the session would silently be bound to no conversation."""
    try:
        service = mounted(Recorder(tool=count), conversation="/threads/0")
    except ConfigurationError:
        return
    first = call(service, {"threads": ["a"]})
    assert call(service, {"threads": ["b"], "data": {"session": first.envelope}}).code == "session-invalid"


def test_the_keys_may_come_from_the_environment_as_text_or_as_a_ring(monkeypatch: Any) -> None:
    text = RING.active.text()
    monkeypatch.setenv("DCAF_KEYS", text)
    for keys in (None, text, RING):
        app = Recorder()
        call(mounted(app, keys=keys), {"data": {"session": envelope(STEP)}})
        assert app.states == [STEP]


@pytest.mark.parametrize("depth", [0, 1])
def test_mounting_twice_is_told(depth: Any) -> None:
    inner = mounted(Recorder())

    async def between(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    with pytest.raises(ConfigurationError) as told:
        call(mounted(between if depth else inner), {})
    assert str(told.value) == TWICE


def test_another_session_middleware_around_it_is_told_with_the_way_out() -> None:
    app = Recorder()
    with pytest.raises(
        ConfigurationError, match=r"scope\['session'\] is taken .*Starlette's SessionMiddleware.* bind_request_session=False"
    ):
        call(CookieSessions(mounted(app), secret_key="x"), {})
    assert not app.reached
    call(CookieSessions(mounted(app, bind_request_session=False), secret_key="x"), {})
    assert app.scopes[0]["session"] is not app.scopes[0]["dcaf.session"]


def test_the_scope_holds_the_session_under_both_names() -> None:
    app = Recorder()
    call(mounted(app), {})
    assert app.scopes[0]["session"] is app.scopes[0]["dcaf.session"]
    call(mounted(app, bind_request_session=False), {})
    assert "session" not in app.scopes[1]


# Refusals


NEWER = mounted(Recorder(tool=count), version=3, migrations=dict.fromkeys((1, 2, 3), dict))


def newer_schema() -> Any:
    return call(NEWER, {}).envelope


def at(session: Any) -> Any:
    return {"data": {"session": session}}


def opening(refusal: BaseException) -> dict[str, Any]:
    """A store that refuses every session that arrives."""
    return {"store": ToldStore(open=if_sealed(refusal))}


ROWS: dict[str, tuple[Any, dict[str, Any], int, str, bool]] = {
    "unsigned": (lambda: at({"step": 2}), {}, 400, "session-unsigned", True),
    "no object": (lambda: at("x"), {}, 400, "session-malformed", True),
    "no token": (lambda: at({"dcaf": {"token": None}}), {}, 400, "session-malformed", True),
    "not ours": (lambda: at({"dcaf": {"token": "x"}}), {}, 400, "session-invalid", True),
    "expired": (lambda: at(envelope(STEP, age=timedelta(days=8))), {}, 409, "session-ended", True),
    "too old": (lambda: at(envelope(STEP)), {"clock": lambda: time.time() + 40 * 86_400}, 409, "session-ended", True),
    "newer schema": (lambda: at(newer_schema()), {}, 409, "session-ended", True),
    "revoked": (lambda: at(envelope(STEP)), opening(SessionEnded(reason="revoked")), 409, "session-ended", True),
    "superseded": (lambda: at(envelope(STEP)), opening(SessionSuperseded()), 409, "session-superseded", False),
    "conflict": (lambda: at(envelope(STEP)), opening(SessionConflict(reason="claim")), 409, "session-conflict", False),
    "the key of another request": (
        lambda: at(envelope(STEP)),
        opening(IdempotencyKeyReused()),
        422,
        "idempotency-key-reused",
        False,
    ),
    "over a quota": (lambda: at(envelope(STEP)), opening(QuotaExceededError()), 409, "quota-exceeded", False),
    "unavailable": (lambda: at(envelope(STEP)), opening(SessionUnavailable()), 503, "session-unavailable", False),
    "broken": (lambda: at(envelope(STEP)), opening(OSError("db:5432 is away")), 503, "session-unavailable", False),
    "body over its limit": (lambda: {"a": "x" * 99}, {"max_body_bytes": 50}, 413, "body-too-large", False),
    "token over its limit": (
        lambda: at({"dcaf": {"token": "x" * 2000}}),
        {"max_token_bytes": 1000},
        413,
        "session-too-large",
        False,
    ),
    "malformed": (lambda: b'{"a":NaN}', {}, 400, "malformed-json", False),
    "repeated": (lambda: b'{"data":{"session":1,"session":2}}', {}, 400, "malformed-json", False),
}
TITLES = {
    400: "Bad Request",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_refusal_table(row: Any) -> None:
    body, settings, status, code, offers = ROWS[row]
    app = Recorder(tool=count)
    sent = call(mounted(app, **settings), body())
    assert (sent.status, sent.json["status"], sent.code, app.reached) == (status, status, code, False)
    assert sent.json["title"] == TITLES[status]
    assert sent.header("content-type") == "application/problem+json"
    assert sent.header("cache-control") == "no-store"
    assert sent.header("content-length") == str(len(sent.body))
    assert sent.header("connection") == ("close" if status == 413 else None)
    assert sent.header("retry-after") == ("1" if code in ("session-conflict", "session-unavailable") else None)
    assert sent.json.get("data") == ({"session": {"dcaf": {"token": "new"}}} if offers else None)
    assert sent.json.get("ran") == (False if code == "session-unavailable" else None)
    assert set(sent.json) <= {"type", "title", "status", "detail", "code", "data", "ran"}


@pytest.mark.parametrize(
    ("refusal", "status"), [(SessionConflict(reason="commit"), 409), (SessionUnavailable(), 503), (OSError("away"), 503)]
)
def test_a_store_that_refuses_the_commit_is_answered_like_one_that_refuses_the_turn(refusal: Any, status: Any) -> None:
    sent = call(mounted(Recorder(tool=count), store=ToldStore(commit=refusal)), at(envelope(STEP)))
    assert (sent.status, sent.header("content-type"), sent.header("cache-control")) == (
        status,
        "application/problem+json",
        "no-store",
    )
    assert "data" not in sent.json


def test_over_http_2_a_refusal_does_not_speak_of_connections() -> None:
    assert call(mounted(Recorder(), max_body_bytes=5), b'{"a":12345}', http_version="2").header("connection") is None


@pytest.mark.parametrize("row", [row for row, values in ROWS.items() if values[4]])
def test_a_client_that_adopts_the_session_of_a_refusal_works_in_its_next_turn(row: Any) -> None:
    body, settings, *_ = ROWS[row]
    app = Recorder(tool=count)
    with_bad = SessionClient(mounted(app, **settings))
    refused = with_bad.post(body())
    assert refused.code
    served = with_bad.send("again")
    assert (served.status, served.session) == (200, {"step": 1})


@pytest.mark.parametrize("row", [row for row, values in ROWS.items() if not values[4] and "data" in str(values[0]())])
def test_where_the_session_may_still_be_good_a_refusal_never_tells_to_drop_it(row: Any) -> None:
    body, settings, *_ = ROWS[row]
    assert b'"new"' not in call(mounted(Recorder(), **settings), body()).body


# One body for every invalid session


def user_of(scope: Any) -> Any:
    name = dict(scope["headers"]).get(b"x-user", b"").decode()
    if name == "raise":
        raise RuntimeError("canary-exception")
    return {"": None, "empty": "", "number": 7, "bytes": b"x", "false": False, "list": ["x"]}.get(name, name)


def signed(claims: object, state: bytes = b"{}", key: Key = RING.active) -> str:
    data = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return SIGNED.seal(key, AUDIENCE, data, Payload(state)).decode()


def claims(**changed: Any) -> Any:
    now = int(time.time())
    found = {"aud": AUDIENCE, "sid": "A" * 22, "seq": 1, "born": now, "iat": now, "exp": now + 100, **changed}
    return {name: value for name, value in found.items() if value is not None}


def ada(**options: Any) -> Any:
    return envelope({"canary-state": 1}, **{"subject": "ada.lovelace", "conversation": "thread.one", **options})["dcaf"]["token"]


def edited(part: Any, change: Any) -> Any:
    parts = ada().split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def flip(text: Any) -> Any:
    return ("f" if text[0] != "f" else "e") + text[1:]


def respelled(mac: Any) -> Any:
    """The same 32 bytes in another spelling: the last character's unused bits differ."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return mac[:-1] + alphabet[alphabet.index(mac[-1]) ^ 1]


CAUSES: dict[str, Any] = {
    "empty": lambda: "",
    "no token at all": lambda: "hello",
    "not ASCII": lambda: ada() + "é",
    "white space": lambda: ada() + "\n",
    "padding": lambda: ada() + "=",
    "another version": lambda: ada().replace("dcaf1s", "dcaf2s"),
    "the other suite": lambda: "dcaf1e.k7." + "A" * 60,
    "kid unknown": lambda: edited(1, lambda kid: "other"),
    "kid malformed": lambda: edited(1, lambda kid: "k" * 17),
    "claims edited": lambda: edited(2, flip),
    "state edited": lambda: edited(3, flip),
    "mac edited": lambda: edited(4, flip),
    "mac respelled": lambda: edited(4, respelled),
    "mac truncated": lambda: ada()[:-1],
    "state of another token": lambda: edited(3, lambda state: encode(b'{"admin":1}')),
    "another key of that id": lambda: ada(keys=Keyring(Key.generate("k7"))),
    "revoked key": lambda: ada(keys=Keyring(Key.from_bytes("k6", bytes(range(100, 132))))),
    "another audience": lambda: ada(audience="other"),
    "audience in the claims": lambda: signed(claims(aud="other")),
    "claims no object": lambda: signed(b"[]"),
    "claims malformed": lambda: signed(b"{"),
    "claim missing": lambda: signed(claims(sid=None)),
    "claim unknown": lambda: signed(claims(admin=1)),
    "claim of another type": lambda: signed(claims(seq=True)),
    "claim beyond 2**53": lambda: signed(claims(exp=2**53)),
    "another subject": lambda: ada(subject="bob.builder"),
    "anonymous": lambda: ada(subject=None),
    "another conversation": lambda: ada(conversation="t2"),
    "no conversation": lambda: ada(conversation=None),
    "from the future": lambda: ada(age=timedelta(hours=-1)),
}
CALLERS = ["empty", "number", "bytes", "false", "list", "bob.builder", ""]
THREADS = ["", 7, ["thread.one"], {}, True, "t2", None]


def strict_service(app: Any, **settings: Any) -> Any:
    revoked = Key.from_bytes("k6", bytes(range(100, 132)), revoked=True)
    return mounted(app, keys=Keyring(RING.active, revoked), subject=user_of, conversation="/thread_id", **settings)


def turn(service: Any, token: Any, *, user: Any = "ada.lovelace", thread: Any = "thread.one") -> Any:
    headers = (JSON_TYPE, (b"x-user", user.encode()))
    return call(service, {"thread_id": thread, "data": {"session": {"dcaf": {"token": token}}}}, headers=headers)


def all_refusals(service: Any) -> Any:
    yield from (turn(service, token()) for token in CAUSES.values())
    yield from (turn(service, ada(), user=user) for user in CALLERS)
    yield from (turn(service, ada(), thread=thread) for thread in THREADS)


def assert_one_answer(answers: Any) -> None:
    found = [json.dumps([a.status, a.headers, a.body.decode()]) for a in answers]
    assert len(found) >= 25
    assert len(set(found)) == 1
    assert answers[0].code == "session-invalid"


def test_the_answer_is_one_body_byte_for_byte_whatever_makes_a_session_invalid() -> None:
    app = Recorder()
    service = strict_service(app)
    assert turn(service, ada()).status == 200
    app.scopes.clear()
    assert_one_answer(list(all_refusals(service)))
    assert not app.reached


def test_control_a_problem_that_tells_the_reason_is_caught(monkeypatch: Any) -> None:
    def telling(refusal: Any, *, http_version: Any = "1.1") -> Any:
        found = build_problem(refusal, http_version=http_version)
        found.headers["x-reason"] = refusal.reason
        return found

    monkeypatch.setattr("dcaf.asgi.problems.build_problem", telling)
    with pytest.raises(AssertionError):
        assert_one_answer(list(all_refusals(strict_service(Recorder()))))


def test_only_the_rightful_holder_learns_that_a_session_ended() -> None:
    service = strict_service(Recorder())
    old = ada(age=timedelta(days=8))
    assert turn(service, old).code == "session-ended"
    assert {turn(service, old, user="bob.builder").code, turn(service, old, thread="t2").code} == {"session-invalid"}
    assert turn(service, edited(3, flip)).code == "session-invalid"


# What the log tells


def logged(caplog: Any, service: Any) -> Any:
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    tokens = [token() for token in CAUSES.values()]
    for token in tokens:
        turn(service, token)
    for user in CALLERS:
        turn(service, ada(), user=user)
    turn(service, ada())
    bodies = [body() for body, *_ in ROWS.values()]
    for body in bodies:
        call(service, body)
    text = "\n".join(f"{record.getMessage()} {record.args!r} {record.exc_info!r} {record.exc_text!r}" for record in caplog.records)
    return tokens, text


def assert_silent(tokens: Any, text: Any) -> None:
    secret = RING.active.secret
    canaries = [
        "canary-state",
        "canary-exception",
        "bob.builder",
        "ada.lovelace",
        "thread.one",
        secret.hex(),
        encode(secret),
        RING.active.text(),
        repr(secret),
    ]
    canaries += [part for token in tokens if token.count(".") == 4 for part in token.split(".")[2:] if len(part) > 8]
    for canary in canaries:
        assert canary not in text, canary


def test_no_log_line_has_a_token_a_key_a_state_or_a_subject(caplog: Any) -> None:
    tokens, text = logged(caplog, strict_service(Recorder()))
    assert text.count("dcaf: refused ") >= len(CAUSES)
    assert_silent(tokens, text)


def test_control_a_log_line_with_the_token_or_the_subject_is_caught(caplog: Any) -> None:
    async def talkative(scope: Any, receive: Any, send: Any) -> Any:
        message = await receive()
        logging.getLogger("dcaf").debug("body %s of %s", message["body"], scope["headers"])

        async def again() -> Any:
            return message

        await inner(scope, again, send)

    inner = strict_service(Recorder())
    tokens, text = logged(caplog, talkative)
    with pytest.raises(AssertionError):
        assert_silent(tokens, text)


def test_a_refusal_is_logged_once_with_its_reason_and_the_kid_and_one_of_another_subject_as_an_error(caplog: Any) -> None:
    service = strict_service(Recorder())
    turn(service, edited(4, flip))
    turn(service, ada(), user="bob.builder")
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found[0] == ("WARNING", "dcaf: refused code='session-invalid' reason='mac' kid='k7'")
    assert len(found) == 2
    assert found[1][0] == "ERROR"
    assert "reason='sub' kid='k7' sid='" in found[1][1]


def test_a_path_cannot_forge_a_line_of_the_log(caplog: Any) -> None:
    call(mounted(Recorder()), b'{"a":NaN}', path="/x\n2026-01-01 CRITICAL dcaf: all keys leaked\r\x1b[2J")
    message = caplog.records[0].getMessage()
    assert not [character for character in message if ord(character) < 32]


# Whom a session is bound to


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, Exception):
        raise value
    return value


def failing(*_: Any) -> None:
    raise RuntimeError("x")


@pytest.mark.parametrize("name", ["subject", "conversation"])
@pytest.mark.parametrize("make", [lambda value: lambda *_: value, lambda value: lambda *_: later(value)], ids=["sync", "async"])
def test_a_session_is_bound_to_what_the_function_names(name: Any, make: Any) -> None:
    app = Recorder(tool=count)
    first = call(mounted(app, **{name: make("ada.lovelace")}), {}).envelope
    assert opened_by(first, **{name: "ada.lovelace"})
    for other in ("bob.builder", None, "Ada", "ada "):
        assert call(mounted(app, **{name: make(other)}), {"data": {"session": first}}).code == "session-invalid"
    again = call(mounted(app, **{name: make("ada.lovelace")}), {"data": {"session": first}})
    assert opened_by(again.envelope, **{name: "ada.lovelace"}) == {"step": 2}


def opened_by(found: Any, **who: Any) -> Any:
    sealer = Sealer(keys=RING, audience=AUDIENCE)
    return sealer.open(found, sealer.binding(**who)).to_dict()


@pytest.mark.parametrize("name", ["subject", "conversation"])
@pytest.mark.parametrize("function", [lambda *_: "", lambda *_: 7, lambda *_: b"x", lambda *_: False])
@pytest.mark.parametrize("body", [{}, b"", b"text", at({"dcaf": {"token": "new"}})])
def test_a_function_that_names_nothing_usable_refuses_the_request(name: Any, function: Any, body: Any) -> None:
    app = Recorder(tool=count)
    sent = call(mounted(app, **{name: function}), body)
    assert (sent.code, app.reached) == ("session-invalid", False)


@pytest.mark.parametrize("name", ["subject", "conversation"])
@pytest.mark.parametrize("function", [failing, lambda *_: later(RuntimeError("x")), lambda: "x"])
@pytest.mark.parametrize("body", [{}, b"", b"text", at({"dcaf": {"token": "new"}})])
@pytest.mark.parametrize("on_refused", ["reject", "restart"])
def test_where_a_function_raises_nobody_can_tell_and_nothing_is_dropped(
    name: Any, function: Any, body: Any, on_refused: Any
) -> None:
    app = Recorder(tool=count)
    sent = call(mounted(app, on_refused=on_refused, **{name: function}), body)
    assert (sent.status, sent.code, app.reached) == (503, "session-unavailable", False)
    assert "data" not in sent.json


@pytest.mark.parametrize("name", ["subject", "conversation"])
def test_a_name_that_is_no_unicode_text_refuses_the_request(name: Any) -> None:
    app = Recorder(tool=count)
    assert call(mounted(app, **{name: lambda *_: "\ud800"}), {}).code == "session-invalid"


def test_control_an_error_taken_for_an_anonymous_caller_is_caught() -> None:
    def forgiving(scope: Any) -> Any:
        try:
            return failing(scope)
        except RuntimeError:
            return None

    app = Recorder()
    with pytest.raises((AssertionError, KeyError)):
        assert (call(mounted(app, subject=forgiving), {}).code, app.reached) == ("session-invalid", False)


def test_none_is_anonymous() -> None:
    app = Recorder(tool=count)
    assert opened(call(mounted(app, subject=lambda scope: None, conversation="/thread_id"), {}).envelope) == {"step": 1}


@pytest.mark.parametrize("name", ["subject", "conversation"])
def test_nobody_is_asked_before_the_seal_has_verified(name: Any) -> None:
    """docs/protocol.md, section 4: both per turn, after the mac."""
    asked = []
    service = mounted(Recorder(), **{name: lambda *_: asked.append(1)})
    call(service, at({"dcaf": {"token": edited(4, flip)}}))
    assert asked == []


@pytest.mark.parametrize(
    ("pointer", "body", "found"),
    [
        ("/thread_id", {"thread_id": "a"}, "a"),
        ("/data/thread", {"data": {"thread": "a"}}, "a"),
        ("/a~1b", {"a/b": "a"}, "a"),
        ("/a~0b", {"a~b": "a"}, "a"),
        ("/a~01", {"a~1": "a"}, "a"),
        ("/", {"": "a"}, "a"),
        ("/thread_id", {}, None),
        ("/thread_id", {"thread_id": None}, None),
        ("/a/b", {"a": "b"}, None),
        ("/é", {"é": "ü"}, "ü"),
    ],
)
def test_a_json_pointer_names_the_conversation(pointer: Any, body: Any, found: Any) -> None:
    sent = call(mounted(Recorder(tool=count), conversation=pointer), body)
    assert opened_by(sent.envelope, conversation=found) == {"step": 1}


def test_a_pointer_never_reads_the_session() -> None:
    for body in ({"data": {"session": {"dcaf": {"token": "new"}, "t": "a"}}}, at(envelope({"t": "a"}))):
        sent = call(mounted(Recorder(tool=count), conversation="/data/session/t"), body)
        assert opened(sent.envelope)["step"] == 1


def test_the_conversations_function_gets_the_body_without_any_session_and_none_where_it_is_not_json() -> None:
    seen = []

    def conversation(scope: Any, body: Any) -> None:
        seen.append(body)

    service = mounted(Recorder(), conversation=conversation)
    call(service, {"k": 1, "data": {"session": envelope(STEP), "x": 1}, "messages": [{"data": {"session": {"p": 1}}}]})
    call(service, b"text")
    assert seen == [{"k": 1, "data": {"x": 1}, "messages": [{"data": {}}]}, None]


def test_a_client_that_leaves_is_answered_nothing() -> None:
    service = mounted(Recorder(), subject=lambda scope: None)
    sent = asyncio.run(exchange(service, scope_of(), [{"type": "http.disconnect"}]))
    assert sent.messages == []


def test_a_session_keeps_its_id_and_counts_its_changes_through_the_turns() -> None:
    app = Recorder(tool=count)
    service = mounted(app)
    first = call(service, {}).envelope
    second = call(service, at(first)).envelope
    app.tool = None
    third = call(service, at(second)).envelope
    read = [json.loads(decode(e["dcaf"]["token"].split(".")[2])) for e in (first, second, third)]
    assert len({each["sid"] for each in read}) == 1
    assert [each["seq"] for each in read] == [1, 2, 2]
