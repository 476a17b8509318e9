"""P37: nothing from outside is read under one limit and written or walked under another: depth and digits, at every place.

A service is asked with values nested 1 to 2,000 deep, and with numbers of 1 to 5,000 digits, wherever a client or an application
can put one. No answer is a 5xx and no exception comes out, a socket goes on, and an answer takes no more than twice the time of
that to a flat body of the same size.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pytest

from dcaf.asgi import json_sessions
from dcaf.core.errors import SessionValueError
from dcaf.core.migrations import Import
from tests.asgi.sockets import Peer
from tests.asgi.wire import JSON_TYPE, Recorder, call, envelope, mounted

Measured = Callable[[int, str], None]

DEPTHS: Final = sorted({*range(1, 70, 9), *range(240, 270, 3), *range(480, 1_060, 29), *range(1_015, 1_030), 1_500, 2_000})
DIGITS: Final = (1, 15, 16, 17, 19, 20, 21, 308, 309, 310, 999, 4_299, 4_300, 4_301, 5_000)
TIMES: Final = 2
SLACK_S: Final = 0.002
"""What a short answer may take longer, whatever its body: a garbage collection."""


def nested(depth: int, kind: str) -> str:
    """A value that is so deep."""
    return {"arrays": "[" * depth + "]" * depth, "objects": '{"a":' * depth + "1" + "}" * depth}[kind]


def values(scale: float) -> Iterator[str]:
    """Deep ones, and long ones."""
    step = 1 if scale == 1 else 3
    for depth in DEPTHS[::step]:
        yield from (nested(depth, kind) for kind in ("arrays", "objects"))
    for digits in DIGITS[::step]:
        yield from ("9" * digits, "-" + "9" * digits, "1." + "9" * digits, "1e" + "9" * min(digits, 9), "0." + "0" * digits + "1")


TOKEN: Final = envelope({"n": 1})["dcaf"]["token"]

PLACES: Final = {
    "at data.session": '{"data":{"session":%s}}',
    "in a message": '{"messages":[{"role":"user","data":{"session":%s}}]}',
    "in the mirror": '{"data":{"session":{"dcaf":{"token":"TOKEN"},"x":%s}}}',
    "in the mirror, spaced": '{"data": {"session": {"x": %s, "dcaf": {"token": "TOKEN"}}}}',
    "beside the token": '{"data":{"session":{"dcaf":{"x":%s,"token":"TOKEN"}}}}',
    "beside the session": '{"data":{"x":%s,"session":{"dcaf":{"token":"TOKEN"}}}}',
    "in the body": '{"x":%s,"data":{"session":{"dcaf":{"token":"TOKEN"}}}}',
    "where the conversation is": '{"thread_id":%s,"data":{"session":{"dcaf":{"token":"TOKEN"}}}}',
    "twice": '{"messages":[{"data":{"session":%s}},{"data":{"session":{"a": 1}}}]}',
    "behind an escape": '{"d\\u0061ta":1,"data":{"session":%s}}',
}


def bodies(scale: float) -> Iterator[tuple[str, bytes]]:
    """Place -> body."""
    for name, place in PLACES.items():
        for value in values(scale):
            yield name, (place % value).replace("TOKEN", TOKEN).encode()


def services() -> list[Any]:
    """One that counts, one that lets plain sessions in, and one that restarts."""
    door = Import(until=datetime(2999, 1, 1, tzinfo=UTC), accept=lambda plain: plain)

    def count(session: Any) -> None:
        session.incr("count")

    return [
        mounted(Recorder(tool=count), conversation="/thread_id/0"),
        mounted(Recorder(tool=count), unsigned=door),
        mounted(Recorder(tool=count), on_refused="restart", unsigned="ignore"),
    ]


def crashes(scale: float) -> tuple[int, int]:
    """How many requests ended in a 5xx or an exception, of how many."""
    broken = asked = 0
    for service in services():
        for _, body in bodies(scale):
            asked += 1
            try:
                broken += call(service, body).status >= 500
            except Exception:  # noqa: BLE001 - any of them would be a 500
                broken += 1
    return broken, asked


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.promise(37)
def test_no_depth_and_no_number_at_any_place_of_a_body_is_a_server_error(scale: float, measured: Measured) -> None:
    broken, asked = crashes(scale)
    measured(37, f"{broken} of {asked:,} bodies with deep or long values were a server error")
    assert broken == 0


ANSWERS: Final = {
    "in an answer": '{"x":%s}',
    "in its data": '{"data":{"x":%s}}',
    "as its session": '{"data":{"session":%s}}',
    "in its session": '{"data":{"session":{"x":%s}}}',
    "spaced": '{ "data" : { "session" : {"x" : %s} } }',
}
STREAMS: Final = {
    b"application/x-ndjson": ('{"type":"done","x":%s}\n', '{"type":"done","data":{"session":%s}}\n'),
    b"text/event-stream": ('event: done\ndata: {"x":%s}\n\n', 'data: {"type":"done","data":{"session":{"y":%s}}}\n\n'),
}


def answers(scale: float) -> Iterator[tuple[bytes, bytes]]:
    """What applications answer: a media type and a text."""
    for value in values(scale):
        for place in ANSWERS.values():
            yield b"application/json", (place % value).encode()
        for kind, events in STREAMS.items():
            for event in events:
                yield kind, (event % value).encode()


@pytest.mark.promise(37)
@pytest.mark.parametrize("plain", [(), ("/api/chat",)])
def test_nor_in_an_answer_or_an_event_of_the_application(plain: Any, scale: float, measured: Measured) -> None:
    asked = 0
    for kind, text in answers(scale):
        service = mounted(Recorder(text, headers=((b"content-type", kind),)), plain=plain)
        try:
            sent = call(service, b'{"data":{"session":{"dcaf":{"token":"%b"}}}}' % TOKEN.encode())
        except SessionValueError:  # the application's own new state cannot be stored, and it is told so
            assert plain
        else:
            # without its route named, what cannot be taken out of it does not leave
            assert sent.status == 200 or (sent.status, sent.code, plain) == (400, "malformed-json", ()), text[:80]
        asked += 1
    measured(37, f"0 of {asked:,} answers and events with them broke, {'on named routes' if plain else 'on other routes'}")


async def echoing(scope: Any, receive: Any, send: Any) -> None:
    """A socket whose every turn ends."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        scope["dcaf.session"].incr("n")
        await send({"type": "websocket.send", "text": '{"type":"done"}'})


@pytest.mark.promise(37)
def test_a_socket_goes_on_after_each_of_them(scale: float, measured: Measured) -> None:
    service, number = mounted(echoing, unsigned="ignore"), 0
    with Peer(service) as peer:
        for _, body in bodies(scale):
            peer.say(body if number % 2 else body.decode())
            assert peer.hear()["type"] == "websocket.send"
            number += 1
        assert b'"done"' in str(peer.ask({})).replace("'", '"').encode()
    measured(37, f"a socket went on after {number:,} frames with them")


def fastest(service: Any, body: bytes) -> float:
    """The least time of some tries, in seconds of this process."""
    found = []
    for _ in range(7):
        begun = time.process_time()
        call(service, body)
        found.append(time.process_time() - begun)
    return min(found)


def slowest(places: dict[str, str], depths: list[int]) -> float:
    """How many times longer than a flat body of its size the slowest takes."""
    service, worst = mounted(Recorder(), unsigned="ignore"), 0.0
    for place in places.values():
        for depth in depths:
            for kind in ("arrays", "objects"):
                body = (place % nested(depth, kind)).replace("TOKEN", TOKEN).encode()
                flat = (place % orjson.dumps("x" * (len(body) - len(place))).decode()).replace("TOKEN", TOKEN).encode()
                worst = max(worst, (fastest(service, body) - SLACK_S) / fastest(service, flat))
    return worst


@pytest.mark.promise(37)
@pytest.mark.alone
def test_a_deep_body_takes_no_more_than_twice_the_time_of_a_flat_one(measured: Measured) -> None:
    found = slowest(PLACES, [250, 900, 1_020, 2_000])
    measured(37, f"the slowest deep body took {max(found, 1):.1f} times as long as a flat one of its size, but for 2 ms")
    assert found <= TIMES


@pytest.mark.promise(37)
def test_control_what_is_written_to_find_its_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of before: a session's end was found by writing it, under the writer's own limit of depth."""
    monkeypatch.setattr(json_sessions, "_write", lambda value: orjson.dumps(value) if type(value) in (dict, str) else None)
    broken, _ = crashes(0.02)
    assert broken > 0


def test_the_limit_of_depth_is_the_parsers_own() -> None:
    """What the documents say: 1,024 containers inside one another are read, and one more is refused."""
    app = Recorder()
    for depth, code in ((900, None), (1_023, None), (1_025, "malformed-json")):
        sent = call(mounted(app), b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}", headers=(JSON_TYPE,))
        assert sent.code == code


def test_every_body_is_what_it_is_meant_to_be() -> None:
    """The bodies reach the places: most of the shallow ones are JSON."""
    shallow = [body for _, body in bodies(0.02) if len(body) < 600]
    assert len(shallow) > 100
    assert sum(_is_json(body) for body in shallow) > 0.7 * len(shallow)


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def test_a_deep_socket_frame_does_not_end_the_loop() -> None:
    """The same under one event loop, where an error of the first would leave the second without an answer."""

    async def both() -> list[Any]:
        service = mounted(Recorder())
        return [await _status(service, nested(300, kind)) for kind in ("arrays", "objects")]

    assert asyncio.run(both()) == [400, 400]


async def _status(service: Any, value: str) -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": ('{"data":{"session":%s}}' % value).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/", "query_string": b"", "headers": [JSON_TYPE]}
    await service(scope, receive, send)
    return int(sent[0]["status"])
