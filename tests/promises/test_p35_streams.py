"""P35: nothing of the user's is sealed in a stream or a frame of a route that ``plain=`` does not name, whatever it imitates."""

from __future__ import annotations

import asyncio
import json
import os
import random
from contextlib import suppress
from typing import Any

import pytest

from dcaf.asgi import SessionMiddleware
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.core import current_session
from dcaf.core.errors import SessionError, SessionTypeError
from dcaf.core.sealer import Sealer
from dcaf.core.settings import choose_suites
from dcaf.testing import sealed
from tests.asgi import sockets
from tests.promises.test_p35_no_oracle import CANARY, RING, STATE, TOKEN

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
REQUESTS = max(300, int(12_000 * SCALE))
SECRET = "secret-of-the-state"
KEPT = {**STATE, "secret": SECRET}
SEALERS = {
    encrypt: Sealer(keys=RING, audience="shop", suite=choose_suites(encrypt=encrypt, accept_both=False)[0])
    for encrypt in (False, True)
}
BOUNDARY = b"--b\r\ncontent-disposition: form-data; name=doc\r\n\r\n"
KINDS = ["ndjson", "sse", "websocket"]
TYPES = {"ndjson": b"application/x-ndjson", "sse": b"text/event-stream"}


# What an application makes of a request: the events of its answer, each a text with its name


def wrap(body: Any) -> Any:
    """``{"data": <the body>}`` in the terminal event: a member ``session`` of the body lands at ``data.session``."""
    return [("delta", '{"type":"delta"}'), ("done", json.dumps({"type": "done", "data": parsed(body)}))]


def wrap_everywhere(body: Any) -> Any:
    """The same in every event, and in two that end the turn."""
    data = parsed(body)
    texts = [json.dumps({"type": kind, "data": data}) for kind in ("delta", "done", "error", "done")]
    return list(zip(["delta", "done", "error", "done"], texts, strict=True))


def document(body: Any) -> Any:
    """An uploaded document, a line of it an event."""
    lines = body.removeprefix(BOUNDARY).decode(errors="replace").splitlines() or [""]
    return [*(("text", line) for line in lines), ("done", '{"type":"done"}')]


def said(body: Any) -> Any:
    """The model's text as it came, as an event of its own: what it imitates is an event of the stream."""
    return [("delta", '{"type":"delta"}'), (None, words(body)), ("done", '{"type":"done","data":null}')]


def said_last(body: Any) -> Any:
    """The model's text is the last event, and the only one that could end the turn."""
    return [("delta", '{"type":"delta"}'), (None, words(body))]


def quoted(body: Any) -> Any:
    """The model's text inside a string, as it should be."""
    return [
        ("delta", json.dumps({"type": "delta", "text": words(body)})),
        ("done", json.dumps({"type": "done", "text": words(body)})),
    ]


def named(body: Any) -> Any:
    """An event whose type is the user's."""
    value = parsed(body)
    kind = value.get("kind", "delta") if isinstance(value, dict) else "delta"
    return [(kind, json.dumps({"type": kind, "data": value})), ("done", '{"type":"done","data":[]}')]


def parsed(body: Any) -> Any:
    with suppress(ValueError):
        return json.loads(body)
    return None


def words(body: Any) -> Any:
    value = parsed(body)
    return value.get("text", "") if isinstance(value, dict) else ""


ENDPOINTS = {f"/{made.__name__}": made for made in (wrap, wrap_everywhere, document, said, said_last, quoted, named)}


def written(kind: Any, name: Any, text: Any) -> Any:
    """An event as a careless application writes it: what the text has of line ends is not looked at."""
    if kind == "sse":
        return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
    return text + "\n" if kind == "ndjson" else text


async def stream(scope: Any, receive: Any, send: Any) -> None:
    kind = scope["query_string"].decode()
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    count(body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TYPES[kind])]})
    for name, text in ENDPOINTS[scope["path"]](body):
        data = written(kind, name, text).encode(errors="replace")
        for chunk in (data[: len(data) // 2], data[len(data) // 2 :]):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def socket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        body = message["bytes"] if message.get("text") is None else message["text"].encode()
        count(body)
        for _, text in ENDPOINTS[scope["path"]](body):
            await send({"type": "websocket.send", "text": text})


async def application(scope: Any, receive: Any, send: Any) -> None:
    await (socket if scope["type"] == "websocket" else stream)(scope, receive, send)


def count(body: Any) -> None:
    """What the service itself stores in some of the turns."""
    if b'"count"' in body:
        with suppress(SessionTypeError):  # a word of the user's stands there, where everything is adopted
            current_session().incr("step")


class Requests:
    """A seeded source of requests whose every value is the user's, but for the token."""

    def __init__(self, seed: Any, *, encrypt: Any = False) -> None:
        self.random = random.Random(seed)
        self.envelope = sealed(KEPT, keys=RING, audience="shop", encrypt=encrypt)

    def one(self) -> Any:
        pick = self.random.choice
        wish = self.wish()
        body = {"session": wish, "text": self.imitation(wish), "kind": pick(["done", "delta", "session"])}
        if self.random.random() < 0.3:
            body["count"] = 1
        came_in = self.random.random() < 0.6
        if came_in:
            body["data"] = {"session": self.envelope, "note": CANARY}
        raw = json.dumps(body).encode()
        if self.random.random() < 0.15:
            raw, came_in = BOUNDARY + self.imitation(wish).encode(), False
        return pick(list(ENDPOINTS)), raw, came_in

    def wish(self) -> Any:
        """What a user would like to have sealed."""
        plain = {"admin": True, CANARY: CANARY}
        own = {"dcaf": {"token": self.envelope["dcaf"]["token"]}}
        return self.random.choice(
            [plain, plain, {**plain, "dcaf": {"token": "x"}}, {**plain, **own}, {"step": CANARY}, CANARY, [CANARY]]
        )

    def imitation(self, wish: Any) -> Any:
        """A text that looks like events that end a turn."""
        event = json.dumps({"type": "done", "data": {"session": wish}})
        escaped = event.replace("done", "d\\u006fne").replace("session", "sess\\u0069on")
        return self.random.choice(
            [
                event,
                escaped,
                f"hello\n{event}",
                f"hello\n{event}\n",
                f"hello\r{event}\r\n",
                f"hello\n\nevent: done\ndata: {event}\n\ndata: ",
                f'hello\n\nevent: done\ndata: {{"data":{{"session":{json.dumps(wish)}}}}}\n\n',
                f"hello\r\n\r\ndata:{escaped}\r\n\r\n",
                f"hello\revent:done\rdata: {event}\r\r",
                "\ndata: ".join(["hello", *event.replace(", ", ",\n").split("\n")]),
                f"\ufeffdata: {event}",
                f"{event}{event}",
                f"[DONE]\n\n{event}",
                "hello",
            ]
        )


async def ask(service: Any, kind: Any, path: Any, body: Any) -> Any:
    """Everything that went out, in pieces."""
    if kind == "websocket":
        return await ask_by_frame(service, path, body)
    pending = [{"type": "http.request", "body": body, "more_body": False}]
    pieces = []

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pieces.append(message.get("body", b"").decode())

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "query_string": kind.encode(), "headers": []}
    await service(scope, receive, send)
    return "".join(pieces)


async def ask_by_frame(service: Any, path: Any, body: Any) -> Any:
    """As a frame, then as a binary one, on one connection; a line of the answer is a frame."""
    pending = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": body.decode()},
        {"type": "websocket.receive", "bytes": body},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    pieces = []

    async def receive() -> Any:
        return pending.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            pieces.append(message["bytes"].decode() if message.get("text") is None else message["text"])

    await service(sockets.scope_of(path), receive, send)
    return "\n".join(pieces)


def mounted(**options: Any) -> Any:
    return SessionMiddleware(application, keys=RING, audience="shop", **options)


async def run(service: Any, kind: Any, number: Any = REQUESTS // len(KINDS), *, encrypt: Any = False) -> Any:
    requests = Requests(3535, encrypt=encrypt)
    asked = [requests.one() for _ in range(number)]
    return [(request, await ask(service, kind, *request[:2])) for request in asked]


def sealed_states(answer: Any, *, encrypt: Any = False) -> Any:
    """The state of every token in an answer that this service would accept."""
    sealer = SEALERS[encrypt]
    for token in TOKEN.findall(answer):
        with suppress(SessionError):
            yield sealer.open({"dcaf": {"token": token}}, sealer.binding()).to_dict()


def assert_no_oracle(answers: Any, *, encrypt: Any = False) -> Any:
    """How many tokens went out, none of which holds anything but what the service itself stored."""
    tokens = 0
    for (_, _, came_in), answer in answers:
        for state in sealed_states(answer, encrypt=encrypt):
            steps = state.pop("step", 0)
            assert CANARY not in json.dumps(state)
            # On a socket the first of two turns may have counted; a token of the user's own may be shown back as it came.
            assert (state, steps) in [({"secret": SECRET}, n) for n in (2, 3, 4)] + [({}, n) for n in (1, 2)], (state, steps)
            assert came_in or "secret" not in state or steps == 2
            tokens += 1
    return tokens


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.promise(35)
def test_nothing_that_imitates_a_terminal_event_is_sealed(measured: Any) -> None:
    tokens, asked = 0, 0
    for kind in KINDS:
        answers = asyncio.run(run(mounted(), kind))
        found = assert_no_oracle(answers)
        assert found > len(answers) // 3
        tokens, asked = tokens + found, asked + len(answers)
    measured(35, f"0 of {tokens:,} tokens in {asked:,} streams and WebSocket answers sealed a user's word")


@pytest.mark.promise(35)
@pytest.mark.parametrize("kind", KINDS)
def test_naming_one_route_opens_no_stream_of_another(kind: Any) -> None:
    assert assert_no_oracle(asyncio.run(run(mounted(plain=("/chat",)), kind, 300))) > 50


@pytest.mark.promise(35)
@pytest.mark.parametrize("kind", KINDS)
def test_control_adoption_everywhere_is_caught_in_every_kind_of_stream(kind: Any) -> None:
    answers = asyncio.run(run(mounted(plain=lambda scope: True), kind, 300))
    with pytest.raises(AssertionError):
        assert_no_oracle(answers)


def assert_nothing_shown(answers: Any) -> Any:
    """Of the state nothing stands in an answer, whose tokens hold it all the same."""
    with_secret = 0
    for _, answer in answers:
        assert SECRET not in answer
        assert '"step": 2' not in answer
        with_secret += any("secret" in state for state in sealed_states(answer, encrypt=True))
    return with_secret


@pytest.mark.promise(35)
@pytest.mark.parametrize("kind", KINDS)
def test_of_an_encrypted_state_no_stream_shows_anything(kind: Any) -> None:
    answers = asyncio.run(run(mounted(encrypt=True), kind, REQUESTS // len(KINDS), encrypt=True))
    assert assert_nothing_shown(answers) > REQUESTS // len(KINDS) // 4
    assert_no_oracle(answers, encrypt=True)


@pytest.mark.promise(35)
@pytest.mark.parametrize("kind", KINDS)
def test_control_a_mirror_of_the_encrypted_state_is_caught(kind: Any) -> None:
    answers = asyncio.run(run(mounted(encrypt=True, mirror=True), kind, 100, encrypt=True))
    with pytest.raises(AssertionError):
        assert_nothing_shown(answers)


INJECTED = 'hello\n\nevent: done\ndata: {"data":{"session":{"admin":"canary-of-the-user"}}}\n\ndata: bye'


def events_of(answer: Any) -> Any:
    """Name and value of each event of a stream of server-sent events that is JSON."""
    for block in answer.split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n")]
        names = [value for name, _, value in lines if name == "event"]
        with suppress(ValueError):
            yield names[-1] if names else None, json.loads("\n".join(value for name, _, value in lines if name == "data"))


def assert_injection_is_overwritten() -> None:
    """The imitation is a real event of the stream by then: the session in it is the service's, and not the user's."""
    body = {"data": {"session": Requests(1).envelope}, "text": INJECTED}
    answer = asyncio.run(ask(mounted(), "sse", "/said_last", json.dumps(body).encode()))
    ends = [value for name, value in events_of(answer) if name == "done"]
    assert len(ends) == 1
    session = ends[0]["data"]["session"]
    assert list(sealed_states(json.dumps(session))) == [KEPT]
    assert {key: value for key, value in session.items() if key != "dcaf"} == KEPT
    assert CANARY not in answer


@pytest.mark.promise(35)
def test_an_event_that_a_user_s_line_feeds_made_carries_the_service_s_session() -> None:
    assert_injection_is_overwritten()


@pytest.mark.promise(35)
def test_control_a_stream_that_takes_the_event_s_own_object_is_caught(monkeypatch: Any) -> None:
    original = ASGITurn._adopt

    def _adopt(self: Any, text: Any) -> None:
        self.adopts = True
        original(self, text)

    async def clear(self: Any, data: Any, *_: Any) -> Any:
        return data

    monkeypatch.setattr(ASGITurn, "_adopt", _adopt)
    monkeypatch.setattr(ASGITurn, "remove_sessions", clear)
    with pytest.raises(AssertionError):
        assert_injection_is_overwritten()


@pytest.mark.promise(35)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_where_no_session_came_in_and_nothing_was_stored_no_token_is_made(kind: Any, path: Any) -> None:
    wish = {"admin": CANARY}
    event = json.dumps({"type": "done", "data": {"session": wish}})
    body = json.dumps({"session": wish, "text": event, "kind": "done"}).encode()
    answer = asyncio.run(ask(mounted(), kind, path, body))
    assert TOKEN.search(answer) is None
