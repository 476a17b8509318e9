"""P34: no unverified state reaches the application in a frame of a WebSocket, whichever parser the application has."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketState

from dcaf.asgi import SessionMiddleware
from dcaf.asgi import middleware as module
from dcaf.asgi.body import may_be_json
from dcaf.asgi.websocket import SessionWebSocket
from dcaf.core.errors import SessionError
from dcaf.testing import sealed, tampered
from tests.asgi.sockets import DONE, scope_of
from tests.promises.test_p34_parser_differentials import GOOD, PLANTED, RING, Bodies, _sessions, first_wins, visible

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
FRAMES = max(500, int(10_000 * SCALE))
PER_SOCKET = 25
LONG = {**GOOD, "text": "x" * 3_000}
"""Its token is long enough to be cut out of a frame before that is parsed."""

TEXT_PARSERS: list[Callable[[Any], Any]] = [
    json.loads,
    lambda text: json.loads(text, strict=False),
    lambda text: json.loads(text, object_pairs_hook=first_wins),
    lambda text: json.loads(text.strip("\ufeff\x00 \x0b\x0c\xa0\u2028")),
    lambda text: json.loads(text.encode("utf-8", "surrogatepass")),
]


class Frames(Bodies):
    """A seeded source of hostile frames: as bytes, and as the texts that a lenient server may make of them."""

    def __init__(self, seed: Any) -> None:
        super().__init__(seed)
        long = sealed(LONG, keys=RING, audience="shop")
        fake = {"token": "dcaf1" + "A" * 3_000}
        values = [long, {"dcaf": {**long["dcaf"], "planted": 1}}, tampered(long), {"planted": 4, "x": fake}, {"planted": 5, **fake}]
        self.sessions += [json.dumps(value, separators=(",", ":")) for value in values]

    def frame(self) -> Any:
        body = self.one()
        if self.random.random() < 0.4:
            return {"type": "websocket.receive", "bytes": body}
        return {"type": "websocket.receive", "text": self.text(body)}

    def text(self, body: Any) -> Any:
        for encoding in ("utf-8", "utf-16"):
            with suppress(UnicodeDecodeError):
                return body.decode(encoding, "surrogatepass") + self.random.choice([""] * 20 + ["\ud800", "\x00"])
        return body.decode("latin-1")


async def by_starlette(message: Any) -> Any:
    """Every value that Starlette's endpoint makes of a frame."""

    async def receive() -> Any:
        return message

    async def send(message: Any) -> None:
        raise AssertionError(message)

    values = []
    for mode in ("text", "binary"):
        socket = WebSocket(scope_of(), receive, send)
        socket.client_state = socket.application_state = WebSocketState.CONNECTED
        with suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
            values.append(await socket.receive_json(mode))
    return values


async def shown(message: Any) -> Any:
    """What each parser finds at the top or in a message of a frame."""
    found = [list(_sessions(value)) for value in await by_starlette(message)]
    text = message.get("text")
    if text is None:
        return found + visible(message["bytes"])
    for parse in TEXT_PARSERS:
        with suppress(ValueError, RecursionError):
            found.append(list(_sessions(parse(text))))
    with suppress(UnicodeEncodeError):
        found += visible(text.encode())
    return found


class Application:
    """Keeps each frame with the state that stood beside it, and ends its turn."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.seen.append((message, scope["dcaf.session"].to_dict()))
            await send({"type": "websocket.send", "text": DONE.decode()})


async def converse(service: Any, frames: Any) -> Any:
    """One connection; the type and the code of each answer."""
    pending = [{"type": "websocket.connect"}, *frames, {"type": "websocket.disconnect", "code": 1000}]
    answers: Counter[Any] = Counter()

    async def receive() -> Any:
        return pending.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            value = json.loads(message["bytes"] if message.get("text") is None else message["text"])
            answers[value["type"], value.get("code")] += 1

    await service(scope_of(), receive, send)
    return answers


async def run(count: Any, seed: Any = 3434) -> Any:
    frames, app = Frames(seed), Application()
    service = SessionMiddleware(app, keys=RING, audience="shop")
    answers: Counter[Any] = Counter()
    for _ in range(count // PER_SOCKET):
        answers += await converse(service, [frames.frame() for _ in range(PER_SOCKET)])
    return app, answers


async def assert_verified(app: Any) -> Any:
    """How many frames showed a session, all of them the verified one."""
    with_session = 0
    for message, state in app.seen:
        assert state in ({}, GOOD, LONG)
        found = await shown(message)
        assert all(sessions in ([], [state]) for sessions in found), (message, state)
        with_session += any(found)
    return with_session


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.promise(34)
def test_no_parser_of_the_application_sees_a_session_in_a_frame_that_was_not_verified(measured: Any) -> None:
    app, answers = asyncio.run(run(FRAMES))
    with_session = asyncio.run(assert_verified(app))
    codes = {code for kind, code in answers if kind == "error"}
    assert codes == {"malformed-json", "session-invalid", "session-malformed", "session-unsigned"}
    # The volume means something: each frame was served or refused, many of either, and in many there is a session to see.
    refused = sum(number for (kind, _), number in answers.items() if kind == "error")
    assert len(app.seen) + refused == FRAMES // PER_SOCKET * PER_SOCKET
    assert len(app.seen) > FRAMES // 10
    assert refused > FRAMES // 4
    assert with_session > FRAMES // 50
    assert {"text", "bytes"} == {name for message, _ in app.seen for name in message if name != "type"}
    measured(
        34,
        f"0 of {FRAMES:,} WebSocket frames showed an unverified session; {len(app.seen):,} were served, {with_session:,} of them "
        "with a verified one",
    )


class PassesOnWhatItCannotParse(SessionWebSocket):
    """Broken: a frame that the strict parser refuses is left to the application."""

    async def _open(self, message: Any, data: Any) -> Any:
        try:
            return await super()._open(message, data)
        except SessionError as refusal:
            if refusal.code != "malformed-json":
                raise
            return message


class ReadsTextAlone(SessionWebSocket):
    """Broken: bytes are no JSON to it."""

    async def receive(self) -> Any:
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive" or message.get("text") is None:
                return message
            data = message["text"].encode(errors="surrogatepass")
            if not may_be_json(data):
                return message
            try:
                return await self._open(message, data)
            except SessionError as refusal:
                await self._refuse(refusal, as_bytes=False)


class LooksAtTheFirstByte(SessionWebSocket):
    """Broken: white space and byte order marks hide a frame from it."""

    async def receive(self) -> Any:
        message = await self._receive()
        if message["type"] == "websocket.receive" and (message.get("text") or message.get("bytes") or "x")[0] not in ("{", 0x7B):
            return message
        pending = [message]
        outer, self._receive = self._receive, _of(pending, self._receive)
        try:
            return await super().receive()
        finally:
            self._receive = outer


def _of(pending: Any, then: Any) -> Any:
    async def receive() -> Any:
        return pending.pop() if pending else await then()

    return receive


@pytest.mark.promise(34)
@pytest.mark.parametrize("broken", [PassesOnWhatItCannotParse, ReadsTextAlone, LooksAtTheFirstByte])
def test_control_a_socket_that_lets_a_frame_slip_past_is_caught(broken: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "SessionWebSocket", broken)
    app, _ = asyncio.run(run(1_000))
    with pytest.raises(AssertionError):
        asyncio.run(assert_verified(app))


TEXTS = [
    PLANTED % value
    for value in ("NaN", "-Infinity", "1e999", '"\\ud800"', '"\ud800"', '"\x01"', '"\t"', "01", "[" * 2_000 + "]" * 2_000)
]
TEXTS += ["\ufeff" + PLANTED % 1, " \n" + PLANTED % "NaN", PLANTED % 1 + "\x00", "\x0b" + PLANTED % 1, "\xa0" + PLANTED % 1]
TEXTS += ['{"data":{"session":{"planted":1}},"data":{}}', '{"d\\u0061ta":{"sess\\u0069on":{"planted":1}},"data":{}}']
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
KNOWN = [
    *({"text": text} for text in TEXTS),
    *({"bytes": text.encode("utf-8", "surrogatepass")} for text in TEXTS),
    *({"bytes": (PLANTED % 1).encode(encoding)} for encoding in ENCODINGS),
    *({"bytes": b" " + (PLANTED % 1).encode(encoding)} for encoding in ENCODINGS),
    {"text": None, "bytes": (PLANTED % "NaN").encode()},
    {"text": PLANTED % "NaN", "bytes": None},
    {"text": PLANTED % "NaN", "bytes": b"{}"},
]


@pytest.mark.promise(34)
@pytest.mark.parametrize("frame", KNOWN, ids=range(len(KNOWN)))
def test_each_known_differential_is_refused_as_text_and_as_bytes(frame: Any) -> None:
    app = Application()
    service = SessionMiddleware(app, keys=RING, audience="shop")
    answers = asyncio.run(converse(service, [{"type": "websocket.receive", **frame}] * 2))
    assert answers == {("error", "malformed-json"): 2}
    assert app.seen == []
