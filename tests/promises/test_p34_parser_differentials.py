"""P34: no unverified state reaches the application, whichever parser the application has."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest

from dcaf.asgi import SessionMiddleware
from dcaf.core import Key, Keyring, Session
from dcaf.testing import sealed, tampered

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
BODIES = max(500, int(50_000 * SCALE))
RING = Keyring(Key.generate("k7"))
GOOD = {"step": 2, "who": "verified"}
NEW = {"dcaf": {"token": "new"}}

TYPES = [
    b"application/json",
    b"text/plain",
    None,
    b"multipart/form-data; boundary=b",
    b"application/octet-stream",
    b"application/x-www-form-urlencoded",
    b"application/json; charset=utf-16",
    b"application/vnd.x+json",
]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
ENCODINGS = ["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
HOSTILE = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\x01"',
    '"\x00"',
    '"\t"',
    "01",
    "+1",
    "1.",
    ".5",
    "'a'",
    "// x\n1",
    "[1,]",
    "9" * 5000,
    "1e-999",
    "-0",
    '"\\x"',
    "[" * 990 + "]" * 990,
    "True",
    '{"a":NaN}',
    "\ufeff1",
]
HARMLESS = [
    "1",
    '"x"',
    "null",
    "[]",
    "{}",
    "12345678901234567890123",
    "1.0",
    "-0.0",
    '{"a":1,"a":2}',
    '"\\ud83d\\ude00"',
    '"é\u2028"',
    '{"session":{"planted":6}}',
    '[{"data":{"session":{"planted":7}}}]',
    '"{\\"data\\":{}}"',
]
LEADING = [""] * 8 + [" ", "\n\t\r ", " " * 40, "\x0b", "\x0c", "\xa0", "\x00", "\x00\x00", "[", "x=", "\u2028"]
TRAILING = [""] * 10 + [" ", "\n", "\x00", "{}", "]", ',"x"', " // x"]


def first_wins(pairs: Any) -> Any:
    return dict(reversed(pairs))


def lax_utf8(body: Any) -> Any:
    return json.loads(body.decode("utf-8", "surrogateescape").strip("\x00"), strict=False)


PARSERS: list[Callable[[Any], Any]] = [
    json.loads,
    orjson.loads,
    lambda body: json.loads(body, strict=False),
    lambda body: json.loads(body, object_pairs_hook=first_wins),
    lambda body: json.loads(body.decode("utf-8", "replace")),
    lax_utf8,
    lambda body: json.loads(gzip.decompress(body)),
]


class Bodies:
    """A seeded source of hostile bodies."""

    def __init__(self, seed: Any) -> None:
        self.random = random.Random(seed)
        good = sealed(GOOD, keys=RING, audience="shop")
        edited = {**good, "step": 99, "planted": 1}
        other = sealed({"planted": 9}, keys=Keyring(Key.generate("k7")), audience="shop")
        plain = {"planted": 2}
        self.sessions = [
            json.dumps(value)
            for value in (good, good, good, edited, {"dcaf": good["dcaf"]}, tampered(good), other, NEW, plain, plain)
        ]
        self.sessions += ["{}", "null", "[]", '"planted"', '{"planted":NaN}', '{"planted":3,"dcaf":null}', '{"planted":"\\ud800"}']

    def one(self) -> Any:
        pick = self.random.choice
        self.hostility = pick([0, 0, 0, 0.02, 0.1])
        text = pick(LEADING) * (self.random.random() < 0.3) + self.top() + pick(TRAILING) * (self.random.random() < 0.2)
        if self.random.random() < 0.03:
            text = text[: self.random.randrange(len(text))]
        with suppress(UnicodeEncodeError):
            body = text.encode(pick(ENCODINGS) if self.random.random() < 0.3 else "utf-8")
        if self.random.random() < 0.02:
            at = self.random.randrange(len(body) + 1)
            body = body[:at] + pick([b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\x00", b"\xef\xbb\xbf"]) + body[at:]
        return body

    def top(self) -> Any:
        members = [("data", self.data)] * pick_count(self.random) + [("messages", self.messages)] * pick_count(self.random)
        return self.object([*members, *self.noise(), *[("session", self.session)] * (self.random.random() < 0.1)])

    def data(self) -> Any:
        if self.random.random() < 0.1:
            return self.value()
        return self.object([*[("session", self.session)] * pick_count(self.random), *self.noise()])

    def messages(self) -> Any:
        if self.random.random() < 0.05:
            return self.value()
        items = [self.message() if self.random.random() < 0.9 else self.value() for _ in range(self.random.randrange(4))]
        return "[" + self.space() + ("," + self.space()).join(items) + "]"

    def message(self) -> Any:
        return self.object([*[("data", self.data)] * pick_count(self.random), *self.noise(), ("role", lambda: '"user"')])

    def session(self) -> Any:
        return self.random.choice(self.sessions)

    def noise(self) -> Any:
        return [(self.random.choice(["id", "x", "Session", "data ", "x"]), self.value) for _ in range(self.random.randrange(3))]

    def value(self) -> Any:
        return self.random.choice(HOSTILE if self.random.random() < self.hostility else HARMLESS)

    def space(self) -> Any:
        return self.random.choice(["", "", "", " ", "\n\t"])

    def object(self, members: Any) -> Any:
        self.random.shuffle(members)
        written = [self.space() + self.name(name) + self.space() + ":" + self.space() + value() for name, value in members]
        return "{" + ",".join(written) + self.space() + "}"

    def name(self, name: Any) -> Any:
        if self.random.random() < 0.7:
            return f'"{name}"'
        return '"' + "".join(self.random.choice([c, c, f"\\u{ord(c):04x}", f"\\u{ord(c):04X}"]) for c in name) + '"'

    def headers(self) -> Any:
        kind = self.random.choice(TYPES)
        headers = [] if kind is None else [(b"content-type", kind)]
        if self.random.random() < 0.03:
            headers.append((b"content-encoding", self.random.choice([b"gzip", b"identity", b"deflate", b"x"])))
        return headers

    def chunks(self, body: Any) -> Any:
        if self.random.random() < 0.5:
            return [body]
        cuts = sorted(self.random.randrange(min(len(body), 12) + 1) for _ in range(self.random.randrange(4)))
        return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def pick_count(source: Any) -> Any:
    return source.choice([0, 1, 1, 1, 1, 1, 1, 2])


def visible(body: Any) -> Any:
    """Every ``data.session`` that a parser of an application finds at the top or in a message."""
    found = []
    for parse in PARSERS:
        with suppress(ValueError, RecursionError, OSError, EOFError):
            found.append(list(_sessions(parse(body))))
    return found


def _sessions(value: Any) -> Any:
    if not isinstance(value, dict):
        return
    messages = value.get("messages")
    for holder in [value, *(messages if isinstance(messages, list) else [])]:
        data = holder.get("data") if isinstance(holder, dict) else None
        if isinstance(data, dict) and "session" in data:
            yield data["session"]


class Application:
    """Reads its body with every parser, and keeps the verified state beside what they see."""

    def __init__(self) -> None:
        self.reached = 0
        self.bodies: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.reached += 1
        self.bodies.append((body, scope["dcaf.session"].to_dict()))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def assert_verified(body: Any, state: Any) -> None:
    assert state in ({}, GOOD)
    for sessions in visible(body):
        assert sessions in ([], [state]), (body[:300], state)


def assert_all_verified(app: Any) -> None:
    for body, state in app.bodies:
        assert_verified(body, state)


async def serve(service: Any, chunks: Any, method: Any, headers: Any) -> Any:
    pending = [{"type": "http.request", "body": chunk, "more_body": at + 1 < len(chunks)} for at, chunk in enumerate(chunks)]
    answer = []

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answer.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": method, "path": "/chat", "query_string": b"", "headers": headers}
    await service(scope, receive, send)
    return answer[0]["status"]


async def run(middleware: Any, count: Any, seed: Any = 34) -> Any:
    bodies, app = Bodies(seed), Application()
    service = middleware(app, keys=RING, audience="shop")
    statuses: dict[Any, Any] = {}
    for _ in range(count):
        body = bodies.one()
        status = await serve(service, bodies.chunks(body), bodies.random.choice(METHODS), bodies.headers())
        statuses[status] = statuses.get(status, 0) + 1
    return app, statuses


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.promise(34)
def test_no_parser_of_the_application_sees_a_session_that_was_not_verified(measured: Any) -> None:
    app, statuses = asyncio.run(run(SessionMiddleware, BODIES))
    seen = 0
    for body, state in app.bodies:
        assert_verified(body, state)
        seen += any(visible(body))
    assert set(statuses) <= {204, 400, 415}
    # The volume means something: many are served, many refused, and in many a session is there to see.
    assert app.reached > BODIES // 20
    assert seen > BODIES // 50
    assert statuses[400] > BODIES // 10
    assert app.reached == statuses[204]
    measured(
        34,
        f"0 of {BODIES:,} bodies showed an unverified session; {app.reached:,} were served, {seen:,} of them with a verified one",
    )


class PassesOnWhatItCannotParse(SessionMiddleware):
    """Broken: what the strict parser refuses is left to the application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        try:
            orjson.loads(b"".join(message.get("body", b"") for message in messages))
        except orjson.JSONDecodeError:
            await self.app({**scope, "dcaf.session": Session()}, _replay(messages), send)
            return
        await super().__call__(scope, _replay(messages), send)


class RewritesOnlyApplicationJSON(SessionMiddleware):
    """Broken: it believes the Content-Type."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if dict(scope["headers"]).get(b"content-type") == b"application/json":
            await super().__call__(scope, receive, send)
        else:
            await self.app({**scope, "dcaf.session": Session()}, receive, send)


class SkipsMethodsWithoutABody(SessionMiddleware):
    """Broken: it believes that GET and DELETE have no body."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] in ("GET", "DELETE"):
            await self.app({**scope, "dcaf.session": Session()}, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _replay(messages: Any) -> Any:
    pending = list(messages)

    async def receive() -> Any:
        return pending.pop(0)

    return receive


@pytest.mark.promise(34)
@pytest.mark.parametrize("broken", [PassesOnWhatItCannotParse, RewritesOnlyApplicationJSON, SkipsMethodsWithoutABody])
def test_control_a_middleware_that_lets_a_body_slip_past_is_caught(broken: Any) -> None:
    app, _ = asyncio.run(run(broken, 500))
    with pytest.raises(AssertionError):
        assert_all_verified(app)


PLANTED = '{"data":{"session":{"planted":1}},"x":%s}'


@pytest.mark.promise(34)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TYPES)
def test_each_known_differential_is_refused_on_every_method_and_content_type(method: Any, kind: Any) -> None:
    texts = [PLANTED % value for value in ("NaN", "Infinity", "1e999", '"\\ud800"', '"\x01"')]
    bodies = [text.encode() for text in texts] + [(PLANTED % 1).encode(encoding) for encoding in ENCODINGS]
    bodies += [
        b" \n" + bodies[0],
        bodies[0] + b"\0",
        b'{"data":{"session":{"planted":1}},"data":{}}',
        b'{"d\\u0061ta":{"sess\\u0069on":{"planted":1}}}',
    ]
    app = Application()
    service = SessionMiddleware(app, keys=RING, audience="shop")
    headers = [] if kind is None else [(b"content-type", kind)]
    assert {asyncio.run(serve(service, [body], method, headers)) for body in bodies} == {400}
    assert app.reached == 0


def _gzipped(data: Any) -> Any:
    """With a file name, so that no NUL stands among the first four bytes."""
    written = io.BytesIO()
    with gzip.GzipFile("x", "wb", fileobj=written) as file:
        file.write(data)
    return written.getvalue()


@pytest.mark.promise(34)
@pytest.mark.parametrize("encodings", [[b"gzip"], [b"identity", b"gzip"], [b"gzip", b"identity"], [b"identity,gzip"]])
def test_a_compressed_body_does_not_carry_a_session_past_the_middleware(encodings: Any) -> None:
    app = Application()
    service = SessionMiddleware(app, keys=RING, audience="shop")
    body = _gzipped((PLANTED % 1).encode())
    status = asyncio.run(serve(service, [body], "POST", [(b"content-encoding", value) for value in encodings]))
    for seen, state in app.bodies:
        assert_verified(seen, state)
    assert status == 415
