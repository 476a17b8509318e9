"""P18: a stream that is cut at any byte leaves the client with one valid session, and no event waits for a later one."""

from __future__ import annotations

import asyncio
import json
import os
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pytest

from dcaf import Key, Keyring, current_session
from dcaf.asgi import SessionMiddleware, checkpoint
from dcaf.asgi.framing import Piece
from dcaf.asgi.streams import SessionStream
from dcaf.core.sealer import Sealer

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
RANDOM = max(2, int(150 * SCALE))
NOW = 1_789_000_000
RING = Keyring(Key.generate("k7"))
SEALER = Sealer(keys=RING, audience="shop", clock=lambda: NOW, randomness=bytes)
NUMBER = 200
CHECKPOINTS = (60, 120)
TERMINAL = 196
TEXTS = ("é😀", "\u2028\u2029", "done", '"type":"done"', "data: x\\n\\n", "}\t{", "ﷺ" * 9, "")
KINDS = {"application/x-ndjson": "lines", "text/event-stream": "events"}


def envelope(step: int) -> bytes:
    """What goes out when this is the state: the session arrived with the step 0 and the number 1."""
    session = SEALER.start()
    session["step"] = step
    return SEALER.seal(session, SEALER.binding(), sequence=step + 1)


ARRIVED = json.dumps({"data": {"session": json.loads(envelope(0))}}).encode()


# The application: the same with the middleware and without it


def text_of(kind: str, number: int, source: random.Random) -> bytes:
    """One event of the application."""
    value: dict[str, Any] = {"type": "delta", "n": number, "text": source.choice(TEXTS)}
    if number == TERMINAL:
        value = {"type": "done", "data": {"id": 2**60}}
    text = json.dumps(value, ensure_ascii=source.random() < 0.3).encode()
    if KINDS[kind] == "lines":
        return text + source.choice([b"\n", b"\n", b"\r\n", b" \n"])
    if number == NUMBER - 1:
        text = b"[DONE]"
    end = source.choice([b"\n", b"\n", b"\r\n", b"\r"])
    head = source.choice([b"", b": ping" + end, b"event: %b" % (b"done" if number == TERMINAL else b"delta") + end, b"id: 7" + end])
    body = text if source.random() < 0.8 else text.replace(b', "', b"," + end + b'data: "')
    return head + b"data: " + body + end + end


@dataclass(frozen=True)
class Script:
    """What an application sends and does: its events, and where the session changes or a checkpoint falls.

    Attributes:
        kind: Media type.
        events: Its events.
        changes_after: Whether the session changes after the event that ends the turn.
    """

    kind: str
    events: tuple[bytes, ...]
    changes_after: bool

    @classmethod
    def of(cls, kind: str, seed: int, *, changes_after: bool) -> Script:
        source = random.Random(seed)
        return cls(kind, tuple(text_of(kind, number, source) for number in range(NUMBER)), changes_after)

    @property
    def acts(self) -> tuple[int, ...]:
        """Before which events the session changes."""
        return (*CHECKPOINTS, TERMINAL, *((TERMINAL + 2,) if self.changes_after else ()))

    def steps(self, chunks: Callable[[bytes], Iterator[bytes]]) -> Iterator[bytes | int]:
        """Chunks, and the number of the change that comes between them."""
        bounds = [0, *self.acts, NUMBER]
        for change, (start, end) in enumerate(pairwise(bounds)):
            if change:
                yield change
            yield from chunks(b"".join(self.events[start:end]))

    async def serve(self, chunks: Any, send: Any, *, session: Any = None, paused: Callable[[int], None] | None = None) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind.encode())]})
        sent = 0
        for step in self.steps(chunks):
            if isinstance(step, bytes):
                await send({"type": "http.response.body", "body": step, "more_body": True})
                sent += len(step)
                if paused is not None:
                    paused(sent)
            elif session is not None:
                session.incr("step")
                if step <= len(CHECKPOINTS):
                    await checkpoint()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def whole(text: bytes) -> Iterator[bytes]:
    yield text


def bytewise(text: bytes) -> Iterator[bytes]:
    """Each byte alone, and an empty chunk wherever two bytes may be one end of a line."""
    for at in range(len(text)):
        yield text[at : at + 1]
        if text[at : at + 1] == b"\r":
            yield b""


def at_random(seed: int) -> Callable[[bytes], Iterator[bytes]]:
    source = random.Random(seed)

    def chunks(text: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(text):
            size = source.choice([0, 1, 2, 3, 7, 40, 200])
            yield text[at : at + size]
            at += size

    return chunks


# The client: it reads complete events alone


class Reader:
    """Reads a byte at a time; of each complete event it keeps the session, and counts the application's own.

    Attributes:
        session: The text of the last session that an event carried; None until then.
        read: How many of the application's events were complete.
    """

    def __init__(self, kind: str) -> None:
        self.is_lines = KINDS[kind] == "lines"
        self.session: Any = None
        self.read = 0
        self._line = bytearray()
        self._data: list[bytes] = []
        self._returned = False

    def feed(self, byte: int) -> None:
        if self.is_lines:
            self._line.append(byte)
            if byte == 10:
                self._dispatch(bytes(self._line))
                self._line.clear()
            return
        if byte in (10, 13):
            if not (byte == 10 and self._returned):
                self._end_line()
            self._returned = byte == 13
            return
        self._returned = False
        self._line.append(byte)

    def _end_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if not line and self._data:
            self._dispatch(b"\n".join(self._data))
            self._data.clear()
        elif line.startswith(b"data: "):
            self._data.append(line.removeprefix(b"data: "))

    def _dispatch(self, text: bytes) -> None:
        value = {} if text == b"[DONE]" else json.loads(text)
        self.read += value.get("type") != "session"
        if "data" in value:
            self.session = value["data"].get("session", self.session)


# The promise


def served(script: Script, chunks: Any) -> bytes:
    """One turn under the middleware. Whenever the application pauses, what it completed so far has left."""
    out = bytearray()
    reader, ends, seen = Reader(script.kind), list(accumulate(map(len, script.events))), 0

    def paused(sent: int) -> None:
        nonlocal seen
        for byte in out[seen:]:
            reader.feed(byte)
        seen = len(out)
        complete = bisect_right(ends, sent)
        # an empty line may end with a carriage return: its line feed is still to come then
        closing = complete < NUMBER and ends[complete] - sent == 1 and script.events[complete].endswith(b"\r\n\r\n")
        assert complete <= reader.read <= complete + closing, "an event waited for a later one"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await script.serve(chunks, send, session=current_session(), paused=paused)

    pending = [{"type": "http.request", "body": ARRIVED}]

    async def receive() -> Any:
        return pending.pop()

    async def send(message: Any) -> None:
        out.extend(message.get("body", b""))

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    service = SessionMiddleware(app, keys=RING, audience="shop", clock=lambda: NOW, randomness=bytes)
    asyncio.run(service(scope, receive, send))
    return bytes(out)


def unwrapped(script: Script) -> bytes:
    """The same application without the middleware."""
    out = bytearray()

    async def send(message: Any) -> None:
        out.extend(message.get("body", b""))

    asyncio.run(script.serve(whole, send))
    return bytes(out)


def without_ours(script: Script, body: bytes) -> bytes:
    """The body without the events that are ours, and without our member of the event that ends the turn."""
    for step in range(1, len(script.acts) + 1):
        own = b'{"type":"session","data":{"session":' + envelope(step) + b"}}"
        body = body.replace(own + b"\n" if KINDS[script.kind] == "lines" else b"event: session\ndata: " + own + b"\n\n", b"", 1)
        body = body.replace(b'"session":' + envelope(step) + b",", b"", 1)
    return body


def due(script: Script, read: int) -> set[int]:
    """Which steps the client may hold when it has read so many of the application's events.

    Two where an event of ours stands between those of the application: a checkpoint, and a change after the turn's last event.
    """
    steps = {sum(read > at for at in (*CHECKPOINTS, TERMINAL))}
    steps |= {index + 1 for index, at in enumerate(CHECKPOINTS) if read == at}
    if not script.changes_after:
        return steps
    closer = NUMBER if KINDS[script.kind] == "lines" else NUMBER - 1  # our event stands before [DONE]
    return {3, 4} if read == closer else {4} if read > closer else steps


def check(script: Script, chunks: Any) -> int:
    """Cut at every byte; how many cuts there were."""
    body = served(script, chunks)
    held: list[int] = []
    reader, opened = Reader(script.kind), {None: 0}
    for byte in body:
        reader.feed(byte)
        token = None if reader.session is None else reader.session["dcaf"]["token"]
        if token not in opened:
            opened[token] = SEALER.open(reader.session, SEALER.binding())["step"]
        if not held or held[-1] != opened[token]:
            held.append(opened[token])
        assert opened[token] in due(script, reader.read), f"after {reader.read} events the client holds {opened[token]}"
    assert held == [0, 1, 2, 3, *([4] if script.changes_after else [])]
    assert reader.read == NUMBER
    assert without_ours(script, body) == unwrapped(script)
    return len(body) + 1


@pytest.mark.promise(18)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_a_stream_that_is_cut_anywhere_holds_one_valid_session(kind: str, measured: Callable[[int, str], None]) -> None:
    cuts = streams = 0
    for changes_after in (False, True):
        for seed in range(RANDOM):
            script = Script.of(kind, seed, changes_after=changes_after)
            for chunks in (at_random(seed), *((whole, bytewise) if seed < max(1, RANDOM // 5) else ())):
                cuts += check(script, chunks)
                streams += 1
    measured(
        18,
        f"{KINDS[kind]}: 0 of {cuts:,} cuts of {streams} streams left the client without one valid session, the one that was due; "
        f"0 of the application's bytes changed; 0 of {streams * NUMBER:,} events waited for a later one",
    )


@pytest.mark.promise(18)
def test_the_reader_that_goes_on_and_one_that_starts_anew_at_each_cut_agree() -> None:
    script = Script.of("text/event-stream", 5, changes_after=True)
    body = served(script, whole)
    for cut in random.Random(18).sample(range(len(body)), 20):
        anew = Reader(script.kind)
        for byte in body[:cut]:
            anew.feed(byte)
        text = body[:cut].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events = [event for event in text.split(b"\n\n")[:-1] if b"data: " in event]
        with_session = [event for event in events if b"dcaf1s" in event]
        assert anew.read == len(events) - sum(event.startswith(b"event: session") for event in events)
        assert (anew.session is None) == (not with_session)
        assert anew.session is None or anew.session["dcaf"]["token"].encode() in with_session[-1]


# Controls: broken streams that the same check must catch


class OneEventBehind(SessionStream):
    """Broken: it holds an event until the next one comes."""

    _behind = b""

    async def _complete_piece(self, piece: Piece) -> bytes:
        given, self._behind = self._behind, await super()._complete_piece(piece)
        return given

    async def _finish(self) -> bytes:
        rest = await super()._finish()
        return self._behind + rest


class OnlyAtTheEnd(SessionStream):
    """Broken: it writes the session when the stream is over."""

    async def checkpoint(self) -> bool:
        return True

    async def _complete_piece(self, piece: Piece) -> bytes:
        return piece.raw


class Anywhere(SessionStream):
    """Broken: it passes bytes as they come, and writes the session wherever that is."""

    async def _send_body(self, chunk: bytes, *, more: bool) -> None:
        own = b"" if self._turn.is_sent and more else await self._session_event(ends_turn=False)
        half = len(chunk) // 2
        await self._send_message({"type": "http.response.body", "body": chunk[:half] + own + chunk[half:], "more_body": more})


class Late(SessionStream):
    """Broken: a checkpoint waits for the end of the turn."""

    async def checkpoint(self) -> bool:
        return True


class Tidy(SessionStream):
    """Broken: it writes each line end anew."""

    async def _complete_piece(self, piece: Piece) -> bytes:
        return (await super()._complete_piece(piece)).replace(b"\r\n", b"\n")


@pytest.mark.promise(18)
@pytest.mark.parametrize("broken", [OneEventBehind, OnlyAtTheEnd, Anywhere, Late, Tidy])
@pytest.mark.parametrize("kind", KINDS)
def test_control_a_broken_stream_is_caught(monkeypatch: Any, kind: str, broken: Any) -> None:
    script = Script.of(kind, 1, changes_after=True)
    check(script, at_random(1))
    monkeypatch.setattr("dcaf.asgi.responses.SessionStream", broken)
    with pytest.raises((AssertionError, json.JSONDecodeError)):
        check(script, at_random(1))
