"""The session beside the body: which carrier counts, and that it returns by what it came by."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse

from dcaf import ConfigurationError, Key, Keyring
from dcaf.asgi import checkpoint
from dcaf.asgi.carriers import CookieCarrier, HeaderCarrier, find_presented_tokens, parse_carriers
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.websocket import open_handshake
from dcaf.core.envelope import Mirror
from dcaf.core.errors import NotCarriedError, SessionConflict
from dcaf.core.sealer import Sealer
from dcaf.testing import tampered
from tests.asgi.sockets import Agent, Peer
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, Recorder, call, envelope, mounted, opened
from tests.stores_for_tests import ToldStore

TEXT = ((b"content-type", b"text/plain"),)
NDJSON = ((b"content-type", b"application/x-ndjson"),)
NEW = {"dcaf": {"token": "new"}}
HEADER = ("body", "header")
ALL = ("body", "header", "cookie")


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


def count(session: Any) -> None:
    session.incr("n")


def token(state: Any = None, **options: Any) -> bytes:
    found: str = envelope(state, **options)["dcaf"]["token"]
    return found.encode()


def by_header(value: bytes) -> Any:
    return (b"dcaf-session", value)


def by_cookie(value: bytes, name: bytes = b"__Host-dcaf") -> Any:
    return (b"cookie", name + b"=" + value)


def carrying(session: Any) -> Any:
    return {"data": {"session": session}}


def state_of(value: Any) -> Any:
    return opened({"dcaf": {"token": value}})


def cookie_in(sent: Any) -> Any:
    """The value of the one cookie that an answer sets; None where it sets none."""
    found = [value for name, value in sent.headers if name == "set-cookie"]
    assert len(found) < 2, found
    return found[0].partition(";")[0].partition("=")[2] if found else None


def asked(body: Any = b"", *headers: Any, carriers: Any = ALL, answer: Any = None, settings: Any = None, **request: Any) -> Any:
    """One request, and the application that it reached."""
    app = answer or Recorder(b"text", headers=TEXT, tool=count)
    return call(mounted(app, carriers=carriers, **(settings or {})), body, headers=[JSON_TYPE, *headers], **request), app


# Which one counts


STATES = {"body": {"n": 1}, "header": {"n": 10}, "cookie": {"n": 100}}


def same_session(**states: Any) -> dict[str, bytes]:
    """Tokens of one session, in several states: its sealer has one id for all."""
    sealer = Sealer(keys=RING, audience=AUDIENCE, randomness=lambda size: b"s" * size)
    found = {}
    for name, state in states.items():
        session = sealer.start()
        session.update(state)
        found[name] = sealer.token(session, sealer.binding(), sequence=1)
    return found


@pytest.mark.parametrize(
    ("brought", "counts"),
    [
        (("body", "header", "cookie"), "body"),
        (("body", "cookie"), "body"),
        (("header", "cookie"), "header"),
        (("header",), "header"),
        (("cookie",), "cookie"),
    ],
)
def test_body_header_cookie_is_the_order(brought: Any, counts: str) -> None:
    tokens = same_session(**{name: STATES[name] for name in brought})
    body = carrying({"dcaf": {"token": tokens["body"].decode()}}) if "body" in brought else {"x": 1}
    headers = [by_header(tokens["header"])] if "header" in brought else []
    headers += [by_cookie(tokens["cookie"])] if "cookie" in brought else []
    for carriers in (ALL, ALL[::-1]):
        sent, app = asked(body, *headers, carriers=carriers, answer=Recorder())
        assert (sent.status, app.states) == (200, [STATES[counts]])


OTHERS = [(by_header, ("body", "header")), (by_cookie, ("body", "cookie"))]


@pytest.mark.parametrize(("by", "carriers"), OTHERS)
def test_two_sessions_in_one_request_are_refused(by: Any, carriers: Any) -> None:
    assert_two_are_refused(by, carriers)


def assert_two_are_refused(by: Any, carriers: Any = ALL) -> None:
    seen: list[Any] = []
    body = carrying(envelope({"n": 1}))
    sent, app = asked(body, by(token({"n": 9})), carriers=carriers, answer=Recorder(), settings={"on_event": seen.append})
    assert (sent.status, sent.code, app.reached) == (400, "session-invalid", False)
    assert [(event.name, event.reason) for event in seen] == [("refused", "carriers")]


def test_control_two_sessions_that_are_not_compared_are_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(ASGITurn, "_check_agreement", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_two_are_refused(by_header)


def test_header_and_cookie_with_two_sessions_are_refused_and_both_dropped() -> None:
    sent, app = asked({}, by_header(token()), by_cookie(token()))
    assert (sent.code, app.reached) == ("session-invalid", False)
    assert sent.header("dcaf-session") == "new"
    assert cookie_in(sent) == "null"


def test_after_that_refusal_a_client_that_starts_over_can_go_on() -> None:
    sent, _ = asked(carrying(NEW), by_cookie(token({"n": 9})), answer=Recorder(tool=count))
    assert (sent.status, cookie_in(sent)) == (200, "null")
    assert opened(sent.envelope) == {"n": 1}


@pytest.mark.parametrize("wrong", [b"x", b"new", token()[:-1] + b"_", token() + token()])
@pytest.mark.parametrize(("by", "carriers"), OTHERS)
def test_another_carriers_token_that_does_not_verify_is_passed_over(by: Any, carriers: Any, wrong: bytes) -> None:
    sent, app = asked(carrying(envelope({"n": 1})), by(wrong), carriers=carriers, answer=Recorder())
    assert (sent.status, app.states) == (200, [{"n": 1}])


def test_what_cannot_be_read_beside_a_body_with_a_session_is_passed_over() -> None:
    headers = [by_cookie(b"a"), by_cookie(b"b"), by_header(b"x" * 9000)]
    sent, app = asked(carrying(envelope({"n": 1})), *headers, answer=Recorder())
    assert (sent.status, app.states) == (200, [{"n": 1}])


def test_if_the_one_that_counts_is_refused_no_other_is_tried() -> None:
    sent, app = asked(carrying(tampered(envelope())), by_header(token()), by_cookie(token()))
    assert (sent.code, app.reached) == ("session-invalid", False)
    assert (sent.header("dcaf-session"), cookie_in(sent)) == (None, None)


def test_a_carrier_that_was_not_named_is_not_read() -> None:
    sent, app = asked({"x": 1}, by_header(token({"n": 1})), by_cookie(token({"n": 1})), carriers=("body",), answer=Recorder())
    assert app.states == [{}]
    assert (sent.header("dcaf-session"), cookie_in(sent), sent.header("vary")) == (None, None, None)


@pytest.mark.parametrize("body", [carrying(envelope({"n": 1})), carrying({"n": 1}), carrying("x"), carrying(NEW)])
@pytest.mark.parametrize("carriers", [("header",), ("cookie",), ("header", "cookie")])
def test_where_the_body_is_no_carrier_no_session_of_it_reaches_the_application(carriers: Any, body: Any) -> None:
    sent, app = asked(body | {"messages": [carrying({"n": 2})]}, by_header(token({"n": 5})), carriers=carriers, answer=Recorder())
    assert sent.status == 200
    assert app.seen == {"data": {}, "messages": [{"data": {}}]}
    assert app.states == [{"n": 5} if "header" in carriers else {}]


def test_a_session_beside_the_body_takes_every_other_out_of_it() -> None:
    _, app = asked({"messages": [carrying({})]} | carrying(None), by_header(token({"n": 5})), answer=Recorder())
    assert app.seen == {"data": {}, "messages": [{"data": {}}]}


@pytest.mark.parametrize("value", [(), ("body", "paper"), ("header", "header"), ("cookie", CookieCarrier()), (None,)])
def test_carriers_that_cannot_be_are_told(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="carriers="):
        mounted(Recorder(), carriers=value)


def test_a_carrier_with_settings_of_its_own_stands_in_its_place() -> None:
    header, cookie = HeaderCarrier(limit_bytes=100), CookieCarrier("mine")
    assert parse_carriers((cookie, "body", header)) == (True, (header, cookie))
    assert parse_carriers("header") == (False, (HeaderCarrier(),))


def test_a_parcel_does_not_show_its_token() -> None:
    found = find_presented_tokens((HeaderCarrier(),), {"type": "http", "method": "GET", "headers": [by_header(b"secret")]})
    assert "secret" not in repr(found)


# By which it returns


def test_a_new_session_goes_into_the_body_where_the_answer_can_carry_it() -> None:
    sent, _ = asked({"x": 1}, answer=Recorder(tool=count))
    assert opened(sent.envelope) == {"n": 1}
    assert (sent.header("dcaf-session"), cookie_in(sent)) == (None, None)


ELSEWHERE: dict[str, dict[str, Any]] = {
    "text": {"answer": b"text", "headers": TEXT},
    "an array": {"answer": b"[1]"},
    "a redirect": {"answer": b"", "status": 303, "headers": [(b"location", b"/")]},
    "too long": {"answer": [b'{"a":"' + b"x" * 60, b'"}']},
    "204": {"answer": b"", "status": 204, "headers": ()},
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_new_session_goes_into_the_header_where_the_body_cannot_carry_it(case: str) -> None:
    made = ELSEWHERE[case]
    whole = made["answer"] if isinstance(made["answer"], bytes) else b"".join(made["answer"])
    sent, _ = asked(b"", answer=Recorder(tool=count, **made), settings={"max_response_bytes": 50})
    assert sent.body == whole
    assert state_of(sent.header("dcaf-session")) == {"n": 1}
    assert (sent.header("cache-control"), sent.header("access-control-expose-headers")) == ("no-store", "DCAF-Session")
    assert cookie_in(sent) is None


def test_a_session_that_came_by_the_body_is_not_sent_by_another_carrier() -> None:
    with pytest.raises(NotCarriedError, match="POST /api/chat changed the session"):
        asked(carrying(envelope({"n": 1})))


def test_a_get_route_keeps_a_session_by_the_header() -> None:
    async def add(request: Any) -> Any:
        return PlainTextResponse(str(request.session.incr("n")))

    client = TestClient(mounted(Starlette(routes=[Route("/add", add)]), carriers=HEADER))
    held = "new"
    for n in (1, 2, 3):
        answer = client.get("/add", headers={"DCAF-Session": held})
        assert answer.text == str(n)
        held = answer.headers["dcaf-session"]


@pytest.mark.parametrize("answer", [Recorder(b"text", headers=TEXT), Recorder(), Recorder(b'{"type":"done"}\n', headers=NDJSON)])
def test_what_came_by_the_header_returns_by_it_on_every_answer_and_the_body_passes(answer: Any) -> None:
    sent, _ = asked({"x": 1}, by_header(token({"n": 5})), answer=answer)
    assert sent.body == answer.answer
    assert state_of(sent.header("dcaf-session")) == {"n": 5}
    assert sent.header("cache-control") == "no-store"


def test_a_plain_route_does_not_adopt_what_an_answer_says_where_the_header_carries() -> None:
    answer = Recorder(json.dumps(carrying({"n": 9})).encode())
    sent, _ = asked({"x": 1}, by_header(token({"n": 5})), answer=answer, settings={"plain": ("/api/chat",)})
    assert state_of(sent.header("dcaf-session")) == {"n": 5}


def test_a_server_error_carries_no_session() -> None:
    for value in (token(), b"new"):
        sent, _ = asked({}, by_header(value), answer=Recorder(tool=count, status=500))
        assert sent.header("dcaf-session") is None
    sent, _ = asked({}, answer=Recorder(tool=count, status=503, headers=TEXT))
    assert (sent.header("dcaf-session"), sent.header("cache-control")) == (None, "no-store")


def test_the_header_is_added_to_what_the_application_exposes_already() -> None:
    for before, after in ((b"X-A", "X-A, DCAF-Session"), (b"x-a,dcaf-session", "x-a,dcaf-session"), (b"", "DCAF-Session")):
        headers = [*TEXT, (b"access-control-expose-headers", before), (b"dcaf-session", b"stale")]
        sent, _ = asked({}, by_header(b"new"), answer=Recorder(b"x", headers=headers))
        assert sent.header("access-control-expose-headers") == after
        assert state_of(sent.header("dcaf-session")) == {}


def test_new_in_the_header_starts_afresh() -> None:
    sent, app = asked({}, by_header(b"new"), answer=Recorder(tool=count))
    assert (app.states, state_of(sent.header("dcaf-session"))) == ([{}], {"n": 1})


@pytest.mark.parametrize(
    ("value", "code"),
    [(b"x", "session-invalid"), (token(age=timedelta(days=8)), "session-ended"), (b"\xff", "session-invalid")],
)
def test_a_dead_session_of_the_header_is_dropped_by_the_problem(value: bytes, code: str) -> None:
    sent, app = asked({}, by_header(value))
    assert (sent.code, app.reached) == (code, False)
    assert (sent.header("dcaf-session"), sent.header("access-control-expose-headers")) == ("new", "DCAF-Session")


def test_a_refusal_of_what_may_still_be_good_drops_nothing() -> None:
    settings = {"store": ToldStore(open=SessionConflict(reason="busy"))}
    for by in (by_header, by_cookie):
        sent, _ = asked({}, by(token()), settings=settings)
        assert (sent.code, sent.header("dcaf-session"), cookie_in(sent)) == ("session-conflict", None, None)
    sent, _ = asked(b'{"a":NaN}', by_header(token()))
    assert (sent.code, sent.header("dcaf-session")) == ("malformed-json", None)


def test_a_refused_header_is_started_anew_where_the_application_chose_so() -> None:
    sent, app = asked({}, by_header(b"x"), by_cookie(token()), settings={"on_refused": "restart"}, answer=Recorder())
    assert (app.states, app.scopes[0]["session"].restarted) == ([{}], "session-invalid")
    assert state_of(sent.header("dcaf-session")) == {}
    assert cookie_in(sent) == "null"


def test_two_headers_are_refused() -> None:
    sent, _ = asked({}, by_header(token()), by_header(token()), answer=Recorder())
    assert sent.code == "session-invalid"


def test_a_header_over_its_limit_is_refused_before_it_is_verified() -> None:
    sent, _ = asked({}, by_header(token({"a": "x" * 8000})), answer=Recorder())
    assert (sent.status, sent.code, sent.header("dcaf-session")) == (413, "session-too-large", None)


def grow(session: Any) -> None:
    session["small"] = "x"
    session["large"] = "x" * 9000
    session["middle"] = "x" * 500


def test_a_session_too_large_for_the_header_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(NotCarriedError) as told:
        asked({}, by_header(b"new"), answer=Recorder(b"x", headers=TEXT, tool=grow), path="/cart")
    said = str(told.value)
    assert said.startswith("POST /cart changed the session, and its token of 12,")
    assert "longer than the 3,800 that a header carries. The largest keys are 'large' (9,002 bytes), 'middle'" in said
    assert "raise HeaderCarrier(limit_bytes=) and the header buffers of the proxy in front (nginx: proxy_buffer_size)" in said
    assert said.endswith("keep the state on the server, or let the client send its session in JSON bodies.")


def test_an_unchanged_session_that_the_header_cannot_carry_any_more_stays_with_the_client() -> None:
    kept = token({"n": 5})
    for kid, returns in (("k8", True), ("muchlongerkid", False)):
        app = mounted(Recorder(), carriers=("body", HeaderCarrier(len(kept))), keys=Keyring(Key.generate(kid), RING.active))
        sent = call(app, headers=[by_header(kept)])
        assert (sent.status, sent.header("dcaf-session") is not None) == (200, returns)


def test_where_the_header_alone_carries_set_refuses_what_it_could_not() -> None:
    with pytest.raises(Exception, match="the largest keys are 'large'"):
        asked({}, carriers=("header",), answer=Recorder(tool=grow))


def test_a_session_whose_turn_is_over_when_it_is_sealed_is_answered_with_the_problem_alone() -> None:
    settings = {"store": ToldStore(commit=SessionConflict(reason="claim"))}
    cases = (by_header(token()), Recorder(b"text", headers=TEXT)), ((b"x", b"y"), Recorder(b"a", headers=TEXT, tool=count))
    for header, answer in cases:
        sent, _ = asked({}, header, settings=settings, answer=answer)
        assert (sent.status, sent.code, len(sent.messages)) == (409, "session-conflict", 2)


class Client:
    """It keeps the header of the last answer that had one, and sends it with the next request."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.held, self.service = b"new", mounted(app, carriers=("header",), **settings)

    def ask(self, body: Any = b"", **request: Any) -> Any:
        sent = call(self.service, body, headers=[by_header(self.held)], **request)
        found = sent.header("dcaf-session")
        self.held = self.held if found is None else found.encode()
        return sent


def test_a_client_keeps_its_session_over_errors_that_leave_it_good_and_starts_over_after_those_that_do_not() -> None:
    now, failing = [1_789_000_000], [0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        n = scope["session"].incr("n")
        await send({"type": "http.response.start", "status": failing[0] or 200})
        await send({"type": "http.response.body", "body": str(n).encode()})

    client = Client(app, clock=lambda: now[0], max_body_bytes=50)
    assert [client.ask().body for _ in range(2)] == [b"1", b"2"]
    failing[0] = 503
    assert client.ask().status == 503
    failing[0] = 0
    assert client.ask({"a": "x" * 60}).code == "body-too-large"
    assert client.ask(b'{"a":NaN}').code == "malformed-json"
    assert client.ask().body == b"3"
    now[0] += 8 * 86_400
    assert client.ask().code == "session-ended"
    assert client.ask().body == b"1"
    client.held = client.held[:-1] + b"!"
    assert client.ask().code == "session-invalid"
    assert client.ask().body == b"1"


@pytest.mark.parametrize("encrypt", [False, True])
def test_an_encrypted_session_travels_in_the_header_alike(encrypt: bool) -> None:
    app = Recorder(b"x", headers=TEXT, tool=count)
    client = Client(app, encrypt=encrypt)
    for _ in range(3):
        client.ask()
    assert client.held.startswith(b"dcaf1e." if encrypt else b"dcaf1s.")
    assert app.states[-1] == {"n": 2}


def test_two_sessions_are_refused_before_the_store_opens_one() -> None:
    store = ToldStore()
    settings = {"store": store}
    assert asked({}, by_header(token()), by_cookie(token()), settings=settings)[0].code == "session-invalid"
    assert store.requests == []
    asked({}, by_header(token()), settings=settings, answer=Recorder())
    assert store.numbers == [1]


def test_a_token_beside_the_body_is_verified_once(monkeypatch: Any) -> None:
    verified: list[bytes] = []
    original = Sealer._verify

    def counting(self: Any, found: bytes) -> Any:
        verified.append(found)
        return original(self, found)

    monkeypatch.setattr(Sealer, "_verify", counting)
    asked({}, by_header(token()), answer=Recorder())
    assert len(verified) == 1


# Too late


async def late(_scope: Any, receive: Any, send: Any) -> None:
    session = _scope["session"]
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": list(NDJSON)})
    await send({"type": "http.response.body", "body": b'{"type":"done"}\n', "more_body": True})
    session.incr("n")
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.mark.parametrize("headers", [by_header(token()), by_cookie(token())])
def test_a_change_after_the_start_is_told(headers: Any) -> None:
    seen: list[Any] = []
    sent, _ = asked({}, headers, answer=late, settings={"on_event": seen.append})
    assert sent.body == b'{"type":"done"}\n'
    assert [(event.name, event.route) for event in seen] == [("lost", "/api/chat")]


def test_a_stream_starts_before_its_end_is_known() -> None:
    sent, _ = asked({}, by_header(token({"n": 1})), answer=Recorder([b"1\n", b"2\n"], tool=count, headers=NDJSON))
    assert state_of(sent.header("dcaf-session")) == {"n": 2}
    assert [message.get("body") for message in sent.messages[1:]] == [b"1\n", b"2\n"]


def test_a_checkpoint_of_a_stream_that_carries_no_session_is_an_error() -> None:
    async def events() -> Any:
        yield b"1\n"
        await checkpoint()

    async def stream(_: Any) -> Any:
        return StreamingResponse(events(), media_type="application/x-ndjson")

    app = mounted(Starlette(routes=[Route("/", stream)]), carriers=HEADER)
    with pytest.raises(ConfigurationError, match="no stream"):
        TestClient(app).get("/", headers={"DCAF-Session": "new"})


def test_an_application_that_fails_sends_no_session_and_loses_none() -> None:
    seen: list[Any] = []

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].incr("n")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asked({}, by_header(token()), answer=failing, settings={"on_event": seen.append})
    assert seen == []


# What binds it


def test_what_comes_beside_the_body_is_bound_to_subject_and_conversation_too() -> None:
    settings = {"subject": lambda scope: "ada", "conversation": "/thread"}
    good = token({"n": 1}, subject="ada", conversation="a")
    for body, code in (({"thread": "a"}, None), ({"thread": "b"}, "session-invalid"), ({}, "session-invalid")):
        sent, _ = asked(body, by_header(good), settings=settings, answer=Recorder())
        assert sent.code == code
    sent, _ = asked({"thread": "a"}, by_header(token(subject="eve", conversation="a")), settings=settings)
    assert sent.code == "session-invalid"


@pytest.mark.parametrize("by", [by_header, by_cookie])
def test_a_request_that_can_name_no_conversation_leaves_the_session_alone(by: Any) -> None:
    settings = {"subject": lambda scope: "ada", "conversation": "/thread"}
    good = token({"n": 1}, subject="ada", conversation="a")
    for body in (b"", b"name=ada"):
        sent, app = asked(body, by(good), settings=settings, answer=Recorder())
        assert (sent.status, sent.header("dcaf-session"), sent.header("set-cookie"), app.states) == (200, None, None, [{}])
    with pytest.raises(NotCarriedError, match="names no conversation"):
        asked(b"", by(good), settings=settings, answer=Recorder(tool=count))
    sent, _ = asked(b"", by(token(subject="eve", conversation="a")), settings=settings | {"on_refused": "reject"})
    assert sent.code == "session-invalid"


def test_a_key_that_was_rotated_is_replaced_by_the_header() -> None:
    seen: list[Any] = []
    ring = Keyring(Key.generate("k8"), RING.active)
    sent, _ = asked({}, by_header(token({"n": 1})), settings={"keys": ring, "on_event": seen.append}, answer=Recorder())
    assert sent.header("dcaf-session").startswith("dcaf1s.k8.")
    assert [(event.name, event.kid) for event in seen] == [("resealed", "k7")]


def test_the_token_alone_is_that_of_the_envelope_and_makes_no_mirror(monkeypatch: Any) -> None:
    sealer = Sealer(keys=RING, audience=AUDIENCE, clock=lambda: 1_789_000_000, randomness=lambda size: b"s" * size)
    alone, whole = sealer.start(), sealer.start()
    alone["n"] = whole["n"] = 1
    envelope_of = json.loads(sealer.seal(whole, sealer.binding(), sequence=1))
    monkeypatch.setattr(Mirror, "render", None)
    assert sealer.token(alone, sealer.binding(), sequence=1).decode() == envelope_of["dcaf"]["token"]
    assert not alone.is_modified


def test_body_alone_asks_no_carrier(monkeypatch: Any) -> None:
    for name in (
        "dcaf.asgi.request.find_presented_tokens",
        "dcaf.asgi.responses.send_with_headers",
        "dcaf.asgi.lifecycle.ASGITurn.seal_token",
    ):
        monkeypatch.setattr(name, None)
    sent = call(mounted(Recorder(tool=count)), carrying(envelope({"n": 1})))
    assert opened(sent.envelope) == {"n": 2}


# WebSockets


def connected(app: Any, *headers: Any, carriers: Any = ALL, **settings: Any) -> Peer:
    return Peer(mounted(app, carriers=carriers, **settings), headers=list(headers))


@pytest.mark.parametrize("by", [by_header, by_cookie])
def test_a_handshake_opens_the_session_and_frames_carry_it_on(by: Any) -> None:
    with connected(Agent(count), by(token({"n": 4}))) as peer:
        frame = peer.ask({})
        assert opened(frame["data"]["session"]) == {"n": 5}
        assert opened(peer.ask({})["data"]["session"]) == {"n": 6}


def test_a_refused_handshake_is_no_connection() -> None:
    app = Agent(count)
    client = TestClient(mounted(app, carriers=ALL))
    with pytest.raises(WebSocketDenialResponse) as told, client.websocket_connect("/", headers={"DCAF-Session": "x"}):
        pass
    assert (told.value.status_code, told.value.headers["dcaf-session"]) == (400, "new")
    with connected(app, by_header(b"x")) as peer:
        assert peer.opening == {"type": "websocket.close", "code": 1008, "reason": "session-invalid"}


def test_a_handshake_is_bound_to_the_subject() -> None:
    with connected(Agent(count), by_header(token(subject="eve")), subject=lambda scope: "ada") as peer:
        assert peer.opening["type"] == "websocket.close"


def assert_handshake_cannot_move() -> None:
    """A session of no conversation does not become one of a conversation because it came by a handshake."""
    with connected(Agent(count), by_header(token({"n": 4})), conversation="/thread") as peer:
        assert peer.ask({"thread": "a"})["code"] == "session-invalid"


def test_a_session_of_a_handshake_is_not_taken_into_a_conversation() -> None:
    assert_handshake_cannot_move()


def test_control_a_handshake_that_is_forgotten_would_move(monkeypatch: Any) -> None:
    opened_first = open_handshake

    async def forgetting(*arguments: Any) -> Any:
        turn = await opened_first(*arguments)
        turn.carrier = None
        return turn

    monkeypatch.setattr("dcaf.asgi.middleware.open_handshake", forgetting)
    with pytest.raises((AssertionError, KeyError)):
        assert_handshake_cannot_move()


def test_a_cookie_that_another_sites_page_sends_opens_no_socket() -> None:
    for headers in ([(b"origin", b"https://evil.example")], [(b"sec-fetch-site", b"cross-site")]):
        with connected(Agent(count), by_cookie(token({"n": 4})), (b"host", b"shop.example"), *headers) as peer:
            assert opened(peer.ask({})["data"]["session"]) == {"n": 1}


def test_where_frames_carry_nothing_they_pass_and_a_change_is_told() -> None:
    seen: list[Any] = []
    app = Agent(count, '{"type":"done","data":{"x":1}}')
    with connected(app, by_header(token({"n": 4})), carriers=("header",), on_event=seen.append) as peer:
        assert peer.ask({"data": {"session": {"n": 9}, "y": 1}}) == {"type": "done", "data": {"x": 1}}
        assert json.loads(app.messages[0]["text"]) == {"data": {"y": 1}}
        assert app.states == [{"n": 4}] or app.session["n"] == 5
        peer.leave()
    assert [event.name for event in seen] == ["lost"]


def test_where_frames_carry_nothing_what_is_no_json_passes_and_broken_json_does_not() -> None:
    seen: list[Any] = []
    with connected(Agent(None), carriers=("header",), max_body_bytes=50, on_event=seen.append) as peer:
        assert peer.ask('{"a":NaN}') == {"type": "error", "code": "malformed-json"}
        assert peer.ask('{"a":"' + "x" * 60 + '"}') == {"type": "error", "code": "body-too-large"}
        assert peer.hear()["code"] == 1009
    assert [event.code for event in seen] == ["malformed-json", "body-too-large"]
