"""P38: no parser, finder or cutter grows faster than what it reads, whatever that is, spelled compactly or with spaces.

Each is given inputs of 40 shapes, up to 2^22 bytes at full numbers. A byte of the largest may take four times as long as one of an
input of a sixteenth of its size.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
import pytest

from dcaf.asgi import body, json_sessions
from dcaf.asgi.framing import EventStream, LineStream
from dcaf.asgi.json_sessions import JSONText, read_text
from dcaf.asgi.json_walk import find_end
from dcaf.core.errors import DcafError
from dcaf.core.sealer import Sealer
from dcaf.core.signing import Opened
from tests.asgi.wire import AUDIENCE, RING, envelope

Measured = Callable[[int, str], None]

SMALLEST: Final = 10
MOST: Final = 4
MEMORY_NS: Final = 0.25
"""What a byte takes at least. The parser copies a text for its error: eight times as long a byte where memory is new."""

SEALER: Final = Sealer(keys=RING, audience=AUDIENCE)
TOKEN: Final = envelope({"n": 1})["dcaf"]["token"]
OWN: Final = '{"dcaf":{"token":"%s"}}' % TOKEN


def repeated(piece: str, begin: str = "", end: str = "", between: str = ",") -> Callable[[int], str]:
    """A text of about so many bytes: a piece again and again."""
    return lambda size: begin + between.join([piece] * max(1, (size - len(begin) - len(end)) // len(piece + between))) + end


def once(begin: str, filling: str, end: str) -> Callable[[int], str]:
    """A text with one long part."""
    return lambda size: begin + filling * max(1, (size - len(begin) - len(end)) // len(filling)) + end


BODIES: Final[dict[str, Callable[[int], str]]] = {
    "messages with a session": repeated('{"data":{"session":{"a":1}}}', '{"messages":[', "]}"),
    "messages with a token": repeated('{"data":{"session":%s}}' % OWN, '{"messages":[', "]}"),
    "messages with a long session": repeated('{"data":{"session":{"a":"%s"}}}' % ("x" * 300), '{"messages":[', "]}"),
    "messages without": repeated('{"role":"user","content":"hi"}', '{"messages":[', '],"data":{"session":%s}}' % OWN),
    "names in texts": repeated('"\\"session\\":{"', '{"messages":[', '],"data":{"session":%s}}' % OWN),
    "names of other members": repeated('{"session":1}', '{"events":[', '],"data":{"session":%s}}' % OWN),
    "names of data": repeated('{"data":1}', '{"messages":[', '],"data":{"session":%s}}' % OWN),
    "escaped names": repeated('{"d\\u0061ta":{"session":{}}}', '{"messages":[', "]}"),
    "escapes": once('{"x":"', "\\u0073", '","data":{"session":%s}}' % OWN),
    "other escapes": once('{"x":"', "\\u00e9", '","data":{"session":%s}}' % OWN),
    "one text": once('{"x":"', "x", '","data":{"session":%s}}' % OWN),
    "one text behind": once('{"data":{"session":%s},"x":"' % OWN, "x", '"}'),
    "a long mirror": once('{"data":{"session":{"x":"', "x", '","dcaf":{"token":"%s"}}}}' % TOKEN),
    "a mirror of many": repeated('"k":1', '{"data":{"session":{', ',"dcaf":{"token":"%s"}}}}' % TOKEN),
    "a mirror behind": once('{"data":{"session":{"dcaf":{"token":"%s"},"x":"' % TOKEN, "x", '"}}}'),
    "tokens in texts": once('{"x":"', "dcaf1s.", '","data":{"session":%s}}' % OWN),
    "tokens of others": repeated('"dcaf1s.k7.e30.e30.x"', '{"x":[', '],"data":{"session":%s}}' % OWN),
    "quotes": once('{"x":"', '\\"', '","data":{"session":%s}}' % OWN),
    "backslashes": once('{"x":"', "\\\\", '","data":{"session":%s}}' % OWN),
    "numbers": repeated("1", '{"x":[', '],"data":{"session":%s}}' % OWN),
    "one number": once('{"data":{"session":{"a":0.', "1", "}}}"),
    "members": repeated('"k":1', '{"data":{"session":%s},' % OWN, "}"),
    "white space": once("{", " ", '"data":{"session":%s}}' % OWN),
    "white space inside": once('{"data":{"session":{"a":1', " ", "}}}"),
    "white space between": once('{"messages":[{"data":{"session":{}}}', " ", ',{"data":{"session":{}}}]}'),
    "line feeds": once("", "\n", '{"data":{"session":%s}}' % OWN),
    "wide": once('{"x":"', "é", '","data":{"session":%s}}' % OWN),
    "no json": once("{", "x", ""),
}
STREAMS: Final[dict[str, Callable[[int], str]]] = {
    "lines": repeated('{"type":"text_delta","text":"hi"}', "", "\n", "\n"),
    "one line": once('{"x":"', "x", '"}\n'),
    "a line without an end": once('{"x":"', "x", ""),
    "empty lines": once("", "\n", ""),
    "returns": once("", "\r", ""),
    "both": once("", "\r\n", ""),
    "events": repeated("data: x", "", "\n\n", "\n\n"),
    "an event of many lines": repeated("data: x", "", "\n\n", "\n"),
    "comments": repeated(": ping", "", "\n\n", "\n"),
    "fields": repeated("event: done", "", "\n\n", "\n"),
    "colons": once("data", ":", "\n\n"),
    "marks": once("", "\ufeffab", "\n\n"),
}


def spaced(make: Callable[[int], str]) -> Callable[[int], str]:
    """The same JSON, spelled with spaces; as it is where it is none, or cannot be written anew without losing what it is about."""

    def made(size: int) -> str:
        text = make(size)
        if "\\u" in text or "  " in text or "\n" in text:
            return text
        try:
            return json.dumps(json.loads(text), ensure_ascii=False)
        except ValueError:
            return text

    return made


def find(data: bytes) -> None:
    """Everything that is done to a body; without the limit of its structure, which refuses some of these."""
    try:
        short = json_sessions.shorten(data, _verify)
        found = (short.read(data) if short is not None else None) or json_sessions.read_body(data)
        found.text.measure(found.places, None, 0)
        found.text.rewrite(found.places, found.find_candidate(), b"{}")
        found.strip_sessions()
    except DcafError:
        return


def frame(data: bytes) -> None:
    """What is done to an answer."""
    try:
        text: JSONText = read_text(data)
    except DcafError:
        return
    text.split_at_session()


def cut(kind: Any, size: int) -> Callable[[bytes], None]:
    """What is done to a stream that comes in chunks of so many bytes."""

    def feed(data: bytes) -> None:
        cutter = kind(limit_bytes=16 * 1024 * 1024)
        for at in range(0, len(data), size):
            cutter.feed(data[at : at + size])
        cutter.rest()

    return feed


def look(data: bytes) -> None:
    """What tells whether a body is JSON."""
    body.may_be_json(data)


def _verify(token: bytes) -> Opened | None:
    return SEALER.opened(token)


READERS: Final[dict[str, tuple[Callable[[bytes], None], dict[str, Callable[[int], str]]]]] = {
    "find": (find, BODIES),
    "frame": (frame, BODIES),
    "look": (look, BODIES),
    "lines at once": (cut(LineStream, 1 << 30), STREAMS),
    "lines by 4 KiB": (cut(LineStream, 4096), STREAMS),
    "events at once": (cut(EventStream, 1 << 30), STREAMS),
    "events by 4 KiB": (cut(EventStream, 4096), STREAMS),
}


def per_byte(read: Callable[[bytes], None], data: bytes) -> float:
    """The least time of some tries, in nanoseconds a byte."""
    repeat, found = max(1, 20_000 // len(data)), []
    gc.disable()  # what it looks at grows with all that the process holds
    try:
        for _ in range(3):
            begun = time.process_time_ns()
            for _ in range(repeat):
                read(data)
            found.append((time.process_time_ns() - begun) / repeat / len(data))
    finally:
        gc.enable()
    return min(found)


def growth(read: Callable[[bytes], None], make: Callable[[int], str], largest: int) -> float:
    """How many times longer a byte takes in the largest input than in one of a sixteenth of its size."""
    small, large = (make(1 << power).encode() for power in (max(SMALLEST, largest - 4), largest))
    return per_byte(read, large) / max(per_byte(read, small), MEMORY_NS)


def steepest(readers: Any, largest: int) -> tuple[float, str]:
    """The worst growth, and where."""
    found = [(0.0, "")]
    for name, (read, shapes) in readers.items():
        for shape, make in shapes.items():
            for spelled, made in (("compact", make), ("spaced", spaced(make))):
                if spelled == "spaced" and shapes is STREAMS:
                    continue
                grown = growth(read, made, largest)
                if grown > MOST:  # once more: something else may have run
                    grown = min(grown, growth(read, made, largest))
                found.append((grown, f"{name}, {shape}, {spelled}"))
    return max(found)


@pytest.mark.promise(38)
def test_nothing_grows_faster_than_what_it_reads(scale: float, measured: Measured) -> None:
    largest = 22 if scale == 1 else 16
    number = sum(len(shapes) * (1 if shapes is STREAMS else 2) for _, shapes in READERS.values())
    grown, where = steepest(READERS, largest)
    measured(
        38, f"of {number} pairs of reader and shape up to 2^{largest} bytes, the steepest took {grown:.1f} times as long a byte"
    )
    assert grown <= MOST, where


@pytest.mark.promise(38)
def test_a_body_of_any_shape_does_not_hold_the_loop_for_longer_than_the_standard_library_needs(measured: Measured) -> None:
    """Through the middleware's own door, with its limits: 4 MiB of every shape."""
    ordinary = BODIES["messages without"](1 << 22)
    unit = _least(lambda: _timed(lambda: json.loads(ordinary)))
    held = {shape: _held(make(1 << 22).encode()) / unit for shape, make in BODIES.items()}
    worst = max(held, key=held.__getitem__)
    measured(
        38,
        f"a body of 4 MiB held the loop for at most {held[worst]:.2f} times what json.loads takes for ordinary messages ({worst})",
    )
    assert held[worst] <= 1, worst


@pytest.mark.promise(38)
def test_control_a_search_that_begins_anew_and_in_no_thread_holds_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def here(function: Callable[[bytes], Any], data: bytes) -> Any:
        return function(data)

    monkeypatch.setattr(json_sessions, "_EndFinder", DecodesAnew)
    monkeypatch.setattr(body, "off_the_loop", here)
    ordinary, hostile = (BODIES[name](1 << 20) for name in ("messages without", "messages with a long session"))
    assert _held(hostile.encode()) > 2 * _least(lambda: _timed(lambda: json.loads(ordinary)))


def _held(data: bytes) -> float:
    return _least(lambda: asyncio.run(_blocked(data)))


def _least(measure: Callable[[], float]) -> float:
    """The least of five, in seconds: the machine does other things too. Without the collector, as in `per_byte`."""
    gc.disable()
    try:
        return min(measure() for _ in range(5))
    finally:
        gc.enable()


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


async def _blocked(data: bytes) -> float:
    """The longest that a task beside it had to wait while a body is read."""
    waited = 0.0

    async def tick() -> None:
        nonlocal waited
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            waited, last = max(waited, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.005)
    waited = 0.0
    try:
        await body.find_sessions(data, _verify)
    except DcafError:
        pass
    finally:
        await asyncio.sleep(0.002)
        ticking.cancel()
    return waited


class DecodesAnew:
    """Broken, the way of before: the rest of the text is decoded for each session, and gone through."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def find(self, start: int, _: Any) -> int:
        rest = self._data[start:].decode("latin-1")
        rest.count('"')  # to decode alone is to copy, which takes next to nothing where the process has used the memory before
        return start + find_end(rest, 0)


@pytest.mark.promise(38)
def test_control_a_search_that_begins_anew_for_each_session_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_sessions, "_EndFinder", DecodesAnew)
    # As many sessions as a body may have, in as long a body as they fill: what is decoded anew is most of what is done.
    sessions = repeated('{"data":{"session":{"a":"%s"}}}' % ("x" * 600), '{"messages":[', "]}")
    assert growth(find, sessions, 21) > MOST


def test_every_shape_is_about_as_long_as_it_is_meant_to_be() -> None:
    for shape, make in {**BODIES, **STREAMS}.items():
        assert 0.8 * 65_536 < len(make(1 << 16).encode()) < 2.2 * 65_536, shape
    assert sum(_is_json(make(1 << 12)) for make in BODIES.values()) >= len(BODIES) - 1


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
