"""When a client drops its session: only where an answer of the service says that it is dead, and never where nobody can tell.

One table over statuses, bodies and media types for the rule, and answers of proxies, portals and broken connections on real wires.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from starlette.websockets import WebSocket
from websockets.exceptions import WebSocketException

from dcaf.client import ClientError, Conversation, Turn, envelopes
from dcaf.testing import AsyncSessionClient, Reply, SessionClient, held, serving
from dcaf.testing.conversation import EchoConversation
from tests.client_package.services import WIRES, Service, Talk, talking

NEW = {"dcaf": {"token": "new"}}
OLD = {"n": 1, "dcaf": {"token": "dcaf1s.k7.old"}}
NEXT = {"n": 2, "dcaf": {"token": "dcaf1s.k7.next"}}
DEAD = ("session-unsigned", "session-malformed", "session-invalid", "session-ended")
GOOD = (
    "session-conflict",
    "session-superseded",
    "session-unavailable",
    "session-too-large",
    "body-too-large",
    "malformed-json",
    "malformed-request",
    "unsupported-content-encoding",
    "idempotency-key-reused",
    "internal-error",
    "session-ended ",
    "",
    None,
    ["session-ended"],
)
STATUSES = (200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 407, 408, 409, 410, 413, 415, 422, 425, 429, 451)
BROKEN = (500, 501, 502, 503, 504, 511, 520)
TYPES = ("application/problem+json", "application/json", "Application/JSON; charset=utf-8", "text/html", "text/plain", "")


def body_of(session: Any, code: Any = None, **members: Any) -> bytes:
    data = {} if session is Ellipsis else {"data": {"session": session}}
    return json.dumps(
        {"role": "assistant", "content": "", **({"code": code} if code is not None else {}), **data, **members}
    ).encode()


BODIES: dict[str, bytes] = {
    **{f"{code} and new": body_of(NEW, code) for code in (*DEAD, *GOOD)},
    **{f"{code} and nothing": body_of(..., code) for code in (*DEAD, *GOOD)},
    **{f"{code} and a newer one": body_of(NEXT, code) for code in ("session-conflict", "session-ended", None)},
    "new beside a mirror": body_of({"n": 9, **NEW}, "session-ended"),
    "null": body_of(None, "session-ended"),
    "an empty object": body_of({}, "session-ended"),
    "a plain object": body_of({"user": "portal"}, "session-ended"),
    "a token that is no text": body_of({"dcaf": {"token": None}}, "session-ended"),
    "a list": body_of([NEW], "session-ended"),
    "a text": body_of("new", "session-ended"),
    "new at another place": json.dumps({"code": "session-ended", "session": NEW, "content": ""}).encode(),
    "cut": body_of(NEW, "session-ended")[:-1],
    "cut at half": body_of(NEW, "session-ended")[:40],
    "twice": body_of(NEW, "session-ended") * 2,
    "html": b"<html><body>Sign in to continue</body></html>",
    "html around it": b"<html>" + body_of(NEW, "session-ended"),
    "nothing": b"",
    "json null": b"null",
    "json new": b'"new"',
    "an array": b"[" + body_of(NEW, "session-ended") + b"]",
    "no utf-8": b"\xff\xfe" + body_of(NEW, "session-ended"),
    "deep": b'{"data":' * 100_000,
}
CONFIRMED = {f"{code} and new" for code in DEAD} | {"new beside a mirror"}
NEWER = {f"{code} and a newer one" for code in ("session-conflict", "session-ended", None)}
ENDED_BY_THE_APPLICATION = {name for name in BODIES if name.endswith("and new")} | {"new beside a mirror"}


def expected(status: int, kind: str, name: str) -> tuple[dict[str, Any], bool]:
    """The token that a client holds after an answer, and whether it says the turn once more, by the protocol's sections 3 and 6."""
    is_json = "json" in kind.lower()
    if not is_json or status >= 500 or 300 <= status < 400:
        return OLD, False
    if name in NEWER:
        return NEXT, False
    if status in (400, 409) and name in CONFIRMED:
        return NEW, True
    return (NEW, False) if status < 300 and name in ENDED_BY_THE_APPLICATION else (OLD, False)


def token_of(envelope: Any) -> Any:
    return (envelope.get("dcaf") or {}).get("token")


def judged(status: int, kind: str, name: str) -> tuple[Any, bool, Any]:
    """What the client does with an answer: its token, whether it says the turn again; and the token of the testing kit's client."""
    conversation, kit = Conversation(session=copy.deepcopy(OLD)), EchoConversation(envelope=copy.deepcopy(OLD))
    turn = Turn(conversation, "hi")
    turn.request()
    headers = {"content-type": kind} if kind else {}
    with suppress(ClientError):
        turn.answered(status, headers, BODIES[name])
    kit.adopted(Reply.of_answer(status, headers, BODIES[name], sent_bytes=0))
    return token_of(conversation.envelope), turn.is_due, token_of(kit.envelope)


def wrong() -> Iterator[Any]:
    """The cells of the table in which a client does something else than it must."""
    for status, kind, name in itertools.product((*STATUSES, *BROKEN), TYPES, BODIES):
        envelope, again = expected(status, kind, name)
        if judged(status, kind, name) != (token_of(envelope), again, token_of(envelope)):
            yield status, kind, name


def test_a_session_ends_only_where_status_code_and_session_say_so() -> None:
    assert list(wrong()) == []


@pytest.mark.parametrize(
    "rule",
    [
        lambda held, value, status=None: envelopes.find_session(value) or held,  # whatever it says, whoever says it
        lambda held, value, status=None: NEW if envelopes.value_at(value, "code") in DEAD else held,  # the code alone
        lambda held, value, status=None: NEW if status in range(400, 500) else held,  # the status alone
        lambda held, value, status=None: held,  # never: a dead session is sent for ever
    ],
)
def test_control_a_looser_rule_fails_the_table(rule: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.client.conversation.choose_session", rule)
    assert any(wrong())


EVENTS = {
    **{f"error {code} and new": {"type": "error", "code": code, "data": {"session": NEW}} for code in (*DEAD, *GOOD)},
    "a refusal in words": {"type": "error", "code": "session-ended", "error": "It has ended.", "data": {"session": NEW}},
    "a conflict with the current one": {"type": "error", "code": "session-conflict", "data": {"session": NEXT}},
    "the application has ended it": {"type": "done", "data": {"session": NEW}},
    "a plain object": {"type": "done", "data": {"session": {"user": "portal"}}},
    "an empty object": {"type": "session", "data": {"session": {}}},
    "no type": {"data": {"session": NEW}},
    "a checkpoint": {"type": "session", "data": {"session": NEXT}},
}


def expected_after(name: str) -> Any:
    if name in {"a conflict with the current one", "a checkpoint"}:
        return NEXT
    is_dead = name in {f"error {code} and new" for code in DEAD}
    return NEW if is_dead or name in {"a refusal in words", "the application has ended it"} else OLD


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("wire", ["ndjson", "websocket", "between two turns", "kit", "kit sse", "kit between two turns"])
def test_an_event_ends_a_session_only_where_it_says_so(wire: str, name: str) -> None:
    text = json.dumps(EVENTS[name])
    conversation, kit = Conversation(session=copy.deepcopy(OLD)), EchoConversation(envelope=copy.deepcopy(OLD))
    turn = Turn(conversation, "hi")
    turn.request()
    with suppress(ClientError):
        if wire == "ndjson":
            list(itertools.chain(turn.feed(f"{text}\n".encode()), turn.ended()))
        elif wire == "websocket":
            turn.frame(text)
        elif wire == "between two turns":
            turn.overheard(text)
    if wire.startswith("kit"):
        kind = "text/event-stream" if "sse" in wire else "application/x-ndjson"
        whole = f"data: {text}\n\n" if "sse" in wire else f"{text}\n"
        envelope: Any = held(kind, whole.encode(), copy.deepcopy(OLD))
        if "between" in wire:
            kit.overheard(EVENTS[name])
            envelope = kit.envelope
        # a client of the kit keeps an event that has no type too
        assert envelope == (NEW if name == "no type" else expected_after(name))
    else:
        kept = NEW if (name, wire) == ("no type", "between two turns") else expected_after(name)
        assert conversation.envelope == kept
    starts_over = wire == "websocket" and name in {f"error {code} and new" for code in DEAD}
    assert turn.is_due == starts_over, "an agent that has words, or has begun a stream, has run the turn: it is not said again"


def test_a_plain_session_is_kept_by_a_client_that_holds_no_sealed_one() -> None:
    for envelope in (None, {"n": 0}):
        conversation = Conversation(session=envelope)
        Turn(conversation, "hi").answered(200, {"content-type": "application/json"}, body_of({"n": 5}))
        assert conversation.session == {"n": 5}


def test_a_new_session_is_told_by_the_reply_of_a_later_turn_where_the_first_fails() -> None:
    conversation = Conversation(session=copy.deepcopy(OLD))
    turn = Turn(conversation, "hi")
    turn.request()
    turn.answered(409, {"content-type": "application/problem+json"}, BODIES["session-ended and new"])
    turn.request()
    with pytest.raises(ClientError):
        turn.answered(503, {}, b"")
    again = Turn(conversation, "hi")
    assert json.loads(again.request())["data"] == {"session": NEW}
    again.answered(200, {"content-type": "application/json"}, body_of(NEXT))
    third = Turn(conversation, "and?")
    third.answered(200, {"content-type": "application/json"}, body_of(NEXT))
    assert again.reply
    assert third.reply
    assert (again.reply.restarted, third.reply.restarted) == ("session-ended", None)


# On real wires

JSON_HEAD = b"Content-Type: application/json\r\n"
LINES_HEAD = b"Content-Type: application/x-ndjson\r\n"
DELTA = b'{"type":"text_delta","text":"Hi"}\n'
DONE_NEW = b'{"type":"done","data":{"session":{"dcaf":{"token":"new"}}}}\n'


def http(status: str, head: bytes, body: bytes, *, length: int | None = None) -> bytes:
    size = b"" if length == -1 else b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + head + size + b"Connection: close\r\n\r\n" + body


WIRED: dict[str, bytes | None] = {
    "a page of a proxy": http("502 Bad Gateway", b"Content-Type: text/html\r\n", BODIES["html"]),
    "a problem of a gateway": http("503 Unavailable", JSON_HEAD, BODIES["session-ended and new"]),
    "a store that is down": http("503 Unavailable", JSON_HEAD, body_of(..., "session-unavailable")),
    "a body that is too large": http("413 Too Large", JSON_HEAD, BODIES["body-too-large and new"]),
    "a body that is malformed": http("400 Bad Request", JSON_HEAD, BODIES["malformed-json and new"]),
    "a page of a portal": http("200 OK", b"Content-Type: text/html\r\n", BODIES["html"]),
    "words of a portal": http("200 OK", b"Content-Type: text/plain\r\n", b"new"),
    "a session of a portal": http("200 OK", JSON_HEAD, b'{"data":{"session":{"user":"guest"}}}'),
    "lines of another type": http("200 OK", b"Content-Type: text/html\r\n", DONE_NEW),
    "a redirect": http("302 Found", b"Location: /login\r\n" + JSON_HEAD, BODIES["session-ended and new"]),
    "a body that is cut": http("409 Conflict", JSON_HEAD, BODIES["session-ended and new"][:-9], length=200),
    "a body that is cut without a length": http("409 Conflict", JSON_HEAD, BODIES["session-ended and new"][:-9], length=-1),
    "a stream that is cut": http("200 OK", LINES_HEAD, DELTA + DONE_NEW[:-9], length=-1),
    "a stream of events that are none": http("200 OK", LINES_HEAD, b'{"data":{"session":{"dcaf":{"token":"new"}}}}\n'),
    "half a head": b"HTTP/1.1 409 Confl",
    "no http": b"new\r\n\r\n" + BODIES["session-ended and new"],
    "nothing": b"",
    "a reset": None,
}


class Impostor:
    """A listener that answers every request with the same bytes, or resets the connection."""

    def __init__(self) -> None:
        self.answer: bytes | None = b""
        self.is_silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        with one:
            one.recv(65_536)
            if self.is_silent:
                threading.Event().wait(2)
            elif self.answer is None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                one.sendall(self.answer)
                one.shutdown(socket.SHUT_WR)
                one.recv(65_536)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def impostor() -> Iterator[Impostor]:
    one = Impostor()
    yield one
    one.close()


@pytest.mark.parametrize("name", WIRED)
@pytest.mark.parametrize("wire", WIRES)
def test_a_client_keeps_its_session_through_whatever_answers_in_place_of_the_service(
    impostor: Impostor, wire: str, name: str
) -> None:
    impostor.answer = WIRED[name]
    with talking(wire, impostor.url, session=copy.deepcopy(OLD), timeout=timedelta(seconds=5)) as talk:
        with pytest.raises(ClientError):
            talk.say("hi")
        assert (talk.client.envelope, talk.client.messages) == (OLD, [])


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_keeps_its_session_where_nothing_comes(impostor: Impostor, wire: str) -> None:
    impostor.is_silent = True
    try:
        with talking(wire, impostor.url, session=copy.deepcopy(OLD), timeout=timedelta(seconds=0.2)) as talk:
            with pytest.raises(ClientError, match="Timeout"):
                talk.say("hi")
            assert talk.client.envelope == OLD
    finally:
        impostor.is_silent = False


@pytest.mark.parametrize("name", WIRED)
@pytest.mark.parametrize("wire", ["json", "ndjson", "sse", "websocket"])
def test_a_client_of_the_kit_keeps_it_too(impostor: Impostor, wire: Any, name: str) -> None:
    impostor.answer = WIRED[name]
    with SessionClient(impostor.url, wire=wire, envelope=copy.deepcopy(OLD)) as client:
        with suppress(httpx2.HTTPError, WebSocketException, OSError):
            client.send("hi")
        # the kit takes an event as it comes, also one without a type
        assert client.envelope == (NEW if name == "a stream of events that are none" and wire != "websocket" else OLD)


FRAMES: dict[str, list[Any]] = {
    "no json": ["new"],
    "a page": ["<html>"],
    "no event": ['{"data":{"session":{"dcaf":{"token":"new"}}}}'],
    "another code": ['{"type":"error","code":"internal-error","data":{"session":{"dcaf":{"token":"new"}}}}'],
    "a code alone": ['{"type":"error","code":"session-ended"}'],
    "a plain session": ['{"type":"session","data":{"session":{"user":"guest"}}}', "x"],
    "no text": [b"\xff\xfe"],
    "nothing": [],
}


@contextmanager
def sending(frames: list[Any]) -> Iterator[str]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.receive_text()
        for frame in frames:
            await (websocket.send_bytes(frame) if isinstance(frame, bytes) else websocket.send_text(frame))
        await websocket.close()

    with serving(app) as url:
        yield url


@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_cannot_tell_keep_the_session(name: str) -> None:
    with sending(FRAMES[name]) as url:
        for wire in ("socket", "async socket"):
            with talking(wire, url, session=copy.deepcopy(OLD)) as talk:
                with pytest.raises(ClientError):
                    talk.say("hi")
                assert (talk.client.envelope, talk.client.messages) == (OLD, [])


def test_after_all_of_them_the_conversation_goes_on(impostor: Impostor) -> None:
    service = Service()
    with serving(service) as url:
        talk = Talk("send", url)
        good = talk.client._base_url
        talk.say("one")
        for answer in WIRED.values():
            impostor.answer = answer
            talk.client._base_url = impostor.url
            with pytest.raises(ClientError):
                talk.say("lost")
        talk.client._base_url = good
        reply = talk.say("two")
        talk.close()
    assert (reply.restarted, reply.session) == (None, {"said": ["one", "two"], "n": 2})


def test_the_kit_over_asyncio_keeps_it_through_a_service_that_fails() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body_of({"planted": True})})

    async def test() -> Any:
        async with AsyncSessionClient(app, envelope=copy.deepcopy(OLD)) as client:
            await client.send("hi")
            return client.envelope

    assert asyncio.run(test()) == OLD
