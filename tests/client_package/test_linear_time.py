"""What a client reads takes a time that grows with its size, however it is cut: no accumulator joins or searches it again."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dcaf.client import Conversation, Event, Turn
from dcaf.client.reply import find_waiting, gather_events
from dcaf.testing import Reply, held
from dcaf.testing.asgi import InProcessWebSocket
from dcaf.testing.conversation import TurnFrames
from dcaf.testing.reply import events_in

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
SMALLEST, BRIEFLY, LARGEST = 10, 19, 22
"""Powers of two: sizes in bytes, up to the second where not all numbers are asked for."""

MOST = 4.0
"""How much longer a byte may take at one size than at a smaller one."""

NOISE_NS = 400_000
"""What a measurement may be off by: a run of a few hundred microseconds says nothing of a byte."""

DONE = b'{"type":"done"}\n'
DELTA = b'{"type":"text_delta","text":"0123456789abcdef"}\n'
CHECKPOINT = b'{"type":"session","data":{"session":{"dcaf":{"token":"t"}}}}\n'
LISTED = b'{"type":"executed_tool_calls","executed_tool_calls":[{"id":"c"}]}\n'
OVERLAID = b'{"type":"approvals","approvals":[{"id":"c"}],"data":{"approvals":[]}}\n'


def pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def fed(text: bytes, size: int) -> None:
    turn = Turn(Conversation(), "hi")
    for piece in pieces(text, size):
        for _ in turn.feed(piece):
            pass
    list(turn.ended())
    assert turn.reply


def unended(size: int) -> None:
    turn = Turn(Conversation(), "hi")
    for _ in range(size // 64 + 1):
        assert list(turn.feed(b"y" * 64)) == []


def long_line(size: int) -> bytes:
    return b'{"type":"done","x":"' + b"y" * size + b'"}\n'


def times(line: bytes, size: int) -> bytes:
    return line * (size // len(line) + 1)


def framed(line: bytes, size: int) -> None:
    turn = Turn(Conversation(), "hi")
    for one in [*itertools.repeat(line.decode(), size // len(line) + 1), DONE.decode()]:
        turn.frame(one)
    assert turn.reply


def denied(size: int) -> None:
    """An application of this process that refuses a WebSocket with a long body, in small pieces."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        for _ in range(size // 16 + 1):
            await send({"type": "websocket.http.response.body", "body": b"0123456789abcdef", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b""})

    refusal = asyncio.run(InProcessWebSocket(app, "/ws", {}, raises=True).open(60))
    assert refusal
    assert len(refusal.content) >= size


def of_frames(size: int) -> None:
    frames = TurnFrames()
    for _ in range(size // len(DELTA) + 1):
        frames.take(DELTA)
    frames.take(DONE)
    assert frames.reply(sent_bytes=0).text


def many_messages(size: int) -> None:
    message = {"role": "assistant", "content": "x" * 32, "data": {"executed_approvals": [{"id": "a"}]}}
    find_waiting([message] * (size // 64 + 1))


READERS: dict[str, Callable[[int], Any]] = {
    "one long line in pieces of 512": lambda size: fed(long_line(size), 512),
    "one long line in pieces of 64": lambda size: fed(long_line(size), 64),
    "a long line that never ends": unended,
    "deltas in pieces of 512": lambda size: fed(times(DELTA, size) + DONE, 512),
    "deltas in one piece": lambda size: fed(times(DELTA, size) + DONE, 2**30),
    "checkpoints": lambda size: fed(times(CHECKPOINT, size) + DONE, 512),
    "lists": lambda size: fed(times(LISTED, size) + DONE, 512),
    "lists that are overlaid": lambda size: fed(times(OVERLAID, size) + DONE, 512),
    "events after the end": lambda size: fed(DONE + times(DELTA, size), 512),
    "errors": lambda size: _suppressed(fed, times(b'{"type":"error","code":"x","error":"y"}\n', size), 512),
    "frames": lambda size: framed(DELTA, size),
    "frames that are lists": lambda size: framed(LISTED, size),
    "gathered": lambda size: gather_events([Event(json.loads(LISTED))] * (size // len(LISTED) + 1)),
    "messages": many_messages,
    "kit: lines": lambda size: held("application/x-ndjson", times(CHECKPOINT, size), None),
    "kit: one long line": lambda size: held("application/x-ndjson", long_line(size), None),
    "kit: events": lambda size: events_in("text/event-stream", times(b"data: " + DELTA + b"\n", size)),
    "kit: data lines": lambda size: events_in("text/event-stream", b"data: [\n" + times(b"data: 1,\n", size) + b"data: 1]\n\n"),
    "kit: a stream": lambda size: (
        Reply.of_answer(200, {"content-type": "application/x-ndjson"}, times(DELTA, size), sent_bytes=0).message
    ),
    "kit: frames": of_frames,
    "kit: a refused handshake": denied,
}


def _suppressed(function: Any, *arguments: Any) -> None:
    with pytest.raises(Exception, match="answered with an error event"):
        function(*arguments)


def nanoseconds(read: Callable[[int], Any], size: int) -> int:
    """The time of a reading: the best of some, of this thread alone."""
    found = []
    for _ in range(3):
        begun = time.thread_time_ns()
        read(size)
        found.append(time.thread_time_ns() - begun)
    return min(found)


def worst(read: Callable[[int], Any], *, largest: int = BRIEFLY if SCALE < 1 else LARGEST) -> float:
    """How many times longer a byte takes at a size than at the cheapest below it: the most, or the first that is too much."""
    cheapest, ratio, power = float("inf"), 0.0, SMALLEST
    while power <= largest and ratio <= MOST:
        size, took = 2**power, nanoseconds(read, 2**power)
        cheapest = min(cheapest, (took + NOISE_NS) / size)
        ratio = max(ratio, max(took - NOISE_NS, 0) / size / cheapest)
        power += 1
    return ratio


@pytest.mark.parametrize("name", READERS)
def test_the_time_of_a_byte_does_not_grow_with_what_is_read(name: str) -> None:
    assert worst(READERS[name]) < MOST


class Rejoining(Turn):
    """As it was: for each chunk the whole line is joined and searched again."""

    _line = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        *lines, self._line = (self._line + chunk).split(b"\n")
        return (event for line in lines if (event := self.frame(line)) is not None)


def regathered(size: int) -> Any:
    data: list[Any] = []
    for _ in range(size // 16 + 1):
        data = [*data, {"id": "c"}]
    return data


def rejoined(size: int) -> None:
    turn = Rejoining(Conversation(), "hi")
    for piece in pieces(long_line(size), 512):
        for _ in turn.feed(piece):
            pass


def regathered_each_time(size: int) -> None:
    """As it was: after the end, the reply is made anew for each event."""
    turn = Turn(Conversation(), "hi")
    for line in [DONE, *itertools.repeat(DELTA, size // 8 // len(DELTA))]:
        list(turn.feed(line))
        assert turn.reply


@pytest.mark.parametrize("read", [rejoined, regathered, regathered_each_time])
def test_control_a_reader_that_begins_anew_takes_longer_for_each_byte(read: Any) -> None:
    assert worst(read, largest=BRIEFLY) > MOST
