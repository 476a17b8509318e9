"""Nobody can tell whose a session is, or of which conversation: it is neither served nor dropped, on any carrier and any wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from dcaf.asgi import identity
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.core.errors import SessionEnded, SessionError, SessionInvalid, SessionUnavailable
from tests.asgi.sockets import Agent, Peer, scope_of
from tests.asgi.wire import JSON_TYPE, Recorder, call, envelope, mounted
from tests.stores_for_tests import ToldStore

STATE = {"points": 10}
ADA = envelope(STATE, subject="ada", conversation="t1")
TOKEN = ADA["dcaf"]["token"].encode()
COOKIE = (b"cookie", b"__Host-dcaf=" + TOKEN)
HEADER = (b"dcaf-session", TOKEN)


async def _slowly(error: Exception) -> Any:
    await asyncio.sleep(0)
    raise error


class Service:
    """A service whose settings are asked by functions that may be out of order.

    Args:
        broken: What is out of order.
        error: What it raises.
    """

    def __init__(self, broken: str, error: Exception | None, **settings: Any) -> None:
        self.broken, self.error = broken, error
        self.app = Recorder(tool=lambda session: session.incr("points"))
        self.settings: dict[str, Any] = {
            "subject": lambda scope: self._answer("subject", "ada"),
            "conversation": lambda scope, body: self._answer("conversation", "t1"),
            "on_refused": "restart",
            **settings,
        }
        if broken == "store":
            self.settings["store"] = ToldStore(open=self._open)
        self.middleware = mounted(self.app, **self.settings)

    def _answer(self, name: str, found: str) -> Any:
        if self.broken == f"{name}, later":
            return _slowly(self.error) if self.error else found
        if self.broken == name and self.error is not None:
            raise self.error
        return found

    def _open(self, _: Any) -> None:
        if self.error is not None:
            # A refusal is a store's word, and no failure.
            raise SessionUnavailable(reason="store") if isinstance(self.error, SessionError) else self.error


ERRORS: dict[str, Exception] = {
    "a connection": ConnectionError("the database is away"),
    "a timeout": TimeoutError(),
    "a bug": KeyError("user"),
    "one's own": SessionUnavailable(reason="auth"),
    "a refusal of ours": SessionInvalid(reason="sub"),
    "an end of ours": SessionEnded(reason="exp"),
}
BROKEN = ("subject", "subject, later", "conversation", "conversation, later", "store")


def in_body(service: Service) -> Any:
    return call(service.middleware, {"data": {"session": ADA}})


def in_a_message(service: Service) -> Any:
    return call(service.middleware, {"messages": [{"data": {"session": ADA}}]})


def in_header(service: Service) -> Any:
    return call(service.middleware, {}, headers=(JSON_TYPE, HEADER))


def in_cookie(service: Service) -> Any:
    return call(service.middleware, {}, headers=(JSON_TYPE, COOKIE))


CARRIED: dict[str, tuple[Callable[[Service], Any], dict[str, Any]]] = {
    "the body": (in_body, {}),
    "a message": (in_a_message, {}),
    "the header": (in_header, {"carriers": ("header",)}),
    "the cookie": (in_cookie, {"carriers": ("cookie",)}),
    "the body beside a cookie": (in_body, {"carriers": ("body", "cookie")}),
    "the cookie beside the body": (in_cookie, {"carriers": ("body", "cookie")}),
}


def assert_nothing_is_dropped(service: Service, sent: Any) -> None:
    """The law: 503, and no word on any carrier that a client would drop its session for. Afterwards the session is good."""
    assert (sent.status, sent.code) == (503, "session-unavailable")
    assert "data" not in sent.json
    assert (sent.header("set-cookie"), sent.header("dcaf-session"), sent.header("retry-after")) == (None, None, "1")
    assert not service.app.reached


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("carried", CARRIED)
def test_what_cannot_be_asked_drops_no_session(carried: str, broken: str, error: str) -> None:
    ask, settings = CARRIED[carried]
    service = Service(broken, ERRORS[error], **settings)
    assert_nothing_is_dropped(service, ask(service))
    service.error = None
    assert ask(service).status == 200
    assert service.app.states == [STATE]


@pytest.mark.parametrize("carried", CARRIED)
def test_control_who_cannot_be_asked_taken_for_nobody_is_caught(carried: str, monkeypatch: Any) -> None:
    asks = identity._ask

    async def nobody(name: str, function: Any, *arguments: Any) -> Any:
        try:
            return await asks(name, function, *arguments)
        except SessionUnavailable:
            raise SessionInvalid(reason=name) from None

    monkeypatch.setattr(identity, "_ask", nobody)
    ask, settings = CARRIED[carried]
    service = Service("subject", ERRORS["a connection"], **settings)
    with pytest.raises(AssertionError):
        assert_nothing_is_dropped(service, ask(service))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_frame_that_nobody_can_judge_is_an_error_and_the_socket_goes_on(broken: str, error: str) -> None:
    service = Service(broken, None)
    agent = Agent(lambda session: session.incr("points"))
    with Peer(mounted(agent, **service.settings)) as peer:
        assert opened_for_ada(peer.ask({"data": {"session": ADA}})) == {"points": 11}
        service.error = ERRORS[error]
        assert peer.ask({"messages": []}) == {"type": "error", "code": "session-unavailable", "ran": False}
        assert peer.ask({"data": {"session": ADA}}) == {"type": "error", "code": "session-unavailable", "ran": False}
        service.error = None
        assert opened_for_ada(peer.ask({"messages": []})) == {"points": 12}
        assert len(agent.messages) == 2


def opened_for_ada(frame: Any) -> Any:
    return {name: value for name, value in frame["data"]["session"].items() if name != "dcaf"}


@pytest.mark.parametrize("broken", ["subject", "subject, later", "store"])
@pytest.mark.parametrize("header", [COOKIE, (b"dcaf-session", TOKEN)], ids=["cookie", "header"])
def test_a_handshake_that_nobody_can_judge_is_refused_and_drops_nothing(broken: str, header: Any) -> None:
    service = Service(broken, ConnectionError(), carriers=("header", "cookie"), conversation=lambda scope, body: "t1")
    answer: list[Any] = []

    async def send(message: Any) -> None:
        answer.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = scope_of(headers=[header], extensions={"websocket.http.response": {}})
    asyncio.run(service.middleware(scope, receive, send))
    assert answer[0]["status"] == 503
    assert {name for name, _ in answer[0]["headers"]}.isdisjoint({b"set-cookie", b"dcaf-session"})
    assert "data" not in json.loads(answer[1]["body"])


# A request that cannot name its conversation

BODILESS: dict[str, dict[str, Any]] = {
    "a GET": {"method": "GET"},
    "a HEAD": {"method": "HEAD"},
    "a POST without a body": {"method": "POST"},
    "a DELETE": {"method": "DELETE"},
    "white space": {"body": b" \r\n"},
    "a form": {"body": b"name=ada", "headers": ((b"content-type", b"application/x-www-form-urlencoded"),)},
    "an upload": {"body": b"--x\r\n\r\nhi\r\n--x--", "headers": ((b"content-type", b"multipart/form-data; boundary=x"),)},
    "an array": {"body": b"[1]"},
    "an image": {"body": b"\x89PNG\r\n", "headers": ((b"content-type", b"image/png"),)},
}
NAMES: dict[str, Any] = {
    "a pointer": "/thread",
    "a function": lambda scope, body: body and body.get("thread"),
    "an async function": None,
}


async def _named(scope: Any, body: Any) -> Any:
    return body and body.get("thread")


NAMES["an async function"] = _named
ANSWERS = {"text": (b"icon", ((b"content-type", b"text/plain"),)), "json": (b"{}", (JSON_TYPE,)), "nothing": (b"", ())}


def asked_without(bodiless: str, carrier: str, name: str, answer: str, **settings: Any) -> Any:
    token = envelope(STATE, conversation="t1")["dcaf"]["token"].encode()
    own = (b"cookie", b"__Host-dcaf=" + token) if carrier == "cookie" else (b"dcaf-session", token)
    text, headers = ANSWERS[answer]
    app = Recorder(text, headers=headers)
    service = mounted(app, carriers=("body", carrier), conversation=NAMES[name], **settings)
    how = dict(BODILESS[bodiless])
    sent = call(service, how.pop("body", b""), headers=(*how.pop("headers", ()), own), **how)
    after = call(
        mounted(Recorder(), carriers=("body", carrier), conversation="/thread"), {"thread": "t1"}, headers=(JSON_TYPE, own)
    )
    assert after.status == 200
    return sent, app


def assert_left_alone(sent: Any, app: Recorder) -> None:
    """The law: the application has answered, from an empty session, and what the client has stays as it is."""
    assert sent.status == 200
    assert app.states == [{}]
    assert (sent.header("set-cookie"), sent.header("dcaf-session")) == (None, None)
    assert b"session" not in sent.body


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("carrier", ["cookie", "header"])
@pytest.mark.parametrize("bodiless", BODILESS)
def test_a_request_that_cannot_name_its_conversation_leaves_the_session_alone(bodiless: str, carrier: str, name: str) -> None:
    for answer in ANSWERS:
        for settings in ({}, {"on_refused": "reject"}, {"on_refused": "restart"}):
            assert_left_alone(*asked_without(bodiless, carrier, name, answer, **settings))


@pytest.mark.parametrize("bodiless", BODILESS)
def test_control_a_conversation_that_is_not_named_taken_for_another_is_caught(bodiless: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(ASGITurn, "_cannot_name", lambda *_: False)
    with pytest.raises(AssertionError):
        assert_left_alone(*asked_without(bodiless, "cookie", "a pointer", "text"))


def test_a_body_that_names_another_conversation_is_not_left_alone() -> None:
    app = Recorder()
    sent = call(
        mounted(app, carriers=("cookie",), conversation="/thread", on_refused="reject"),
        {"thread": "t2"},
        headers=(JSON_TYPE, COOKIE),
    )
    assert (sent.code, app.reached) == ("session-invalid", False)
