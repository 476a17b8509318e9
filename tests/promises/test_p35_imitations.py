"""P35: whatever the lines of a stream say, no client ever holds a session that its own turn has not given it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from dcaf import DcafError, Key, Keyring, SessionMiddleware, current_session
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.streams import SessionStream
from dcaf.core.sealer import Sealer
from dcaf.testing import sealed
from tests.asgi import sockets
from tests.promises import readers
from tests.promises.imitations import spellings

RING = Keyring(Key.generate("k7"))
SEALER = Sealer(keys=RING, audience="shop")
WIRES = ("lines", "events", "text frames", "binary frames")
TYPES = {"lines": b"application/x-ndjson", "events": b"text/event-stream"}
PLANTED: dict[str, Any] = {
    "a genuine session": sealed({"owner": "mallory"}, keys=RING, audience="shop"),
    "the wish for a new one": {"dcaf": {"token": "new"}},
    "a plain object": {"owner": "mallory"},
}
SPELLINGS = {(wire, name): spellings(wire, planted) for wire in WIRES for name, planted in PLANTED.items()}
TURNS = ("stored", "arrived", "nothing")
"""What the turn does: something is stored in it, a session comes in, or neither."""

PLACES = ("only", "before", "after", "between")
"""Where the imitation stands beside the application's own terminal events."""

DONE = {"lines": b'{"type":"done"}\n', "events": b'event: done\ndata: {"type":"done"}\n\n'}
LIMIT = 16_384
IN_JAVASCRIPT = 6
READERS = len(readers.LINES) + len(readers.EVENTS) + len(readers.FRAMES) + IN_JAVASCRIPT


class Careless:
    """An application that streams what a model has said as it is, beside an event of its own."""

    def __init__(self, wire: str, turn: str, place: str, imitation: bytes, size: int) -> None:
        done = DONE.get(wire, b'{"type":"done"}')
        parts = {"only": [imitation], "before": [imitation, done], "after": [done, imitation], "between": [done, imitation, done]}
        self.wire, self.turn, self.parts, self.size = wire, turn, parts[place], size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (self._talk if scope["type"] == "websocket" else self._stream)(receive, send)

    def _act(self) -> None:
        if self.turn == "stored":
            current_session()["owner"] = "ada"

    async def _stream(self, receive: Any, send: Any) -> None:
        await receive()
        self._act()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TYPES[self.wire])]})
        body = b"".join(self.parts)
        for at in range(0, len(body), self.size):
            await send({"type": "http.response.body", "body": body[at : at + self.size], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _talk(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        self._act()
        for part in self.parts:
            if self.wire == "binary frames":
                await send({"type": "websocket.send", "bytes": part})
            else:
                await send({"type": "websocket.send", "text": part.decode(errors="surrogatepass")})
        await send({"type": "websocket.close", "code": 1000})


async def answer(application: Careless) -> Any:
    """What goes out: the bytes of a stream, or a list of frames."""
    service = SessionMiddleware(application, keys=RING, audience="shop", max_response_bytes=LIMIT)
    arrived = sealed({"owner": "ada"}, keys=RING, audience="shop") if application.turn == "arrived" else None
    body = json.dumps({"data": {"session": arrived}})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    if application.wire in TYPES:
        pending: list[Any] = [{"type": "http.request", "body": body.encode(), "more_body": False}]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    else:
        pending = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": body}]
        scope = sockets.scope_of("/")

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    await service(scope, receive, send)
    if application.wire in TYPES:
        return b"".join(message.get("body", b"") for message in sent)
    frames = [message for message in sent if message["type"] == "websocket.send"]
    return [frame["bytes"] if frame.get("text") is None else frame["text"] for frame in frames]


def of_the_turn(found: Any) -> bool:
    """Whether a client that holds this holds the session of its own turn."""
    with suppress(DcafError, TypeError, KeyError):
        token = found["dcaf"]["token"]
        return token != "new" and SEALER.open({"dcaf": {"token": token}}, SEALER.binding()).get("owner") in ("ada", None)
    return found is None


def cells() -> Iterator[tuple[str, str, str, str, str, int]]:
    """Every wire, spelling, planted session, kind of turn, place and size of chunks."""
    for wire in WIRES:
        for planted, turn, place in itertools.product(PLANTED, TURNS, PLACES):
            for name in SPELLINGS[wire, planted]:
                yield from ((wire, name, planted, turn, place, size) for size in ((7, 1 << 20) if wire in TYPES else (0,)))


def sampled(scale: float) -> list[Any]:
    """All at full numbers; else a part, with every spelling on every wire in it at least three times."""
    shuffled = list(cells())
    random.Random(35).shuffle(shuffled)
    number, seen, kept = int(len(shuffled) * scale), dict[Any, int](), []
    for at, cell in enumerate(shuffled):
        seen[cell[:2]] = seen.get(cell[:2], 0) + 1
        if at < number or seen[cell[:2]] <= 3:
            kept.append(cell)
    return kept


def held(node: str, wire: str, answers: list[Any]) -> list[dict[str, list[Any]]]:
    """The sessions that each client held, one after the other, for each answer."""
    own: dict[str, Callable[[Any], Any]] = {"lines": readers.LINES, "events": readers.EVENTS}.get(wire, readers.FRAMES)
    by_python = [{name: list(reader(body)) for name, reader in own.items()} for body in answers]
    texts = answers
    if wire not in TYPES:
        frames = [[one if isinstance(one, str) else one.decode(errors="replace") for one in body] for body in answers]
        texts, wire = [json.dumps(body).encode() for body in frames], "frames"
    return [one | more for one, more in zip(by_python, readers.by_node(node, wire, texts), strict=True)]


async def answered(chosen: list[Any]) -> list[Any]:
    return [
        await answer(Careless(wire, turn, place, SPELLINGS[wire, planted][name], size))
        for wire, name, planted, turn, place, size in chosen
    ]


def judged(node: str, chosen: list[Any]) -> Iterator[tuple[Any, list[Any], bool]]:
    """Of each answer: its cell, the sessions that clients held, and whether one was due that none of them got."""
    for wire in WIRES:
        of_wire = [cell for cell in chosen if cell[0] == wire]
        answers = asyncio.run(answered(of_wire))
        for cell, sent, by_reader in zip(of_wire, answers, held(node, wire, answers) if of_wire else [], strict=True):
            # What is too long to be read passes, and ours comes after it.
            sessions = [found for each in by_reader.values() for found in (each[-1:] if "too long" in cell[1] else each)]
            is_refused = b"malformed-json" in (sent if wire in TYPES else json.dumps(sent, default=repr).encode())
            is_due = cell[3] != "nothing" and (wire in TYPES or cell[4] != "only") and not is_refused
            yield cell, sessions, is_due and not any(sessions)


def assert_own(node: str, chosen: list[Any]) -> int:
    """No client held what is not its own, and somebody holds what was stored. How many sessions were held."""
    number = 0
    for cell, sessions, is_missed in judged(node, chosen):
        assert all(map(of_the_turn, sessions)), cell
        assert not is_missed, cell
        number += len(sessions)
    return number


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


@pytest.mark.promise(35)
def test_no_client_ever_holds_a_session_that_its_turn_did_not_give(
    node: str, scale: float, measured: Callable[[int, str], None]
) -> None:
    chosen = sampled(scale)
    number = assert_own(node, chosen)
    measured(
        35, f"0 of {number:,} sessions that {READERS} readers held of {len(chosen):,} streams and sockets were planted in them"
    )


async def as_it_is(self: Any, data: bytes, *_: Any) -> bytes:
    return data


@pytest.mark.promise(35)
@pytest.mark.parametrize("wire", WIRES)
def test_control_what_cannot_be_completed_and_is_passed_on_is_caught(node: str, monkeypatch: Any, wire: str) -> None:
    monkeypatch.setattr(ASGITurn, "remove_sessions", as_it_is)
    names = ("session twice", "data twice", "another type", "NaN", "an overflow", "a lone surrogate")
    chosen = [(wire, name, "a genuine session", turn, place, 7) for name in names for turn in TURNS for place in PLACES]
    caught = [cell for cell, sessions, _ in judged(node, chosen) if not all(map(of_the_turn, sessions))]
    assert len(caught) > len(chosen) // 2


async def whole(planted: str, name: str, turn: str, status: int) -> bytes:
    """A JSON answer that is the imitation."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": SPELLINGS["binary frames", planted][name]})

    service = SessionMiddleware(application, keys=RING, audience="shop")
    arrived = sealed({"owner": "ada"}, keys=RING, audience="shop") if turn == "arrived" else None
    body = json.dumps({"data": {"session": arrived}}).encode()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await service({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}, receive, send)
    body = b"".join(message["body"] for message in sent[1:])
    assert [value for name, value in sent[0]["headers"] if name == b"content-length"] in ([], [b"%d" % len(body)])
    return body


def planted_in_whole_answers(node: str) -> tuple[int, int]:
    """Of how many JSON answers a client takes a planted session, and how many there were."""
    cells = list(itertools.product(PLANTED, SPELLINGS["binary frames", "a plain object"], ("arrived", "nothing"), (200, 404, 500)))
    answers = [asyncio.run(whole(*cell)) for cell in cells]
    texts = [json.dumps([body.decode(errors="replace")]).encode() for body in answers]
    by_node = [one["JavaScript, frames"] for one in readers.by_node(node, "frames", texts)]
    by_python = [list(readers.adopted([body])) for body in answers]
    found = [[one for one in more + less if isinstance(one, dict)] for more, less in zip(by_node, by_python, strict=True)]
    return sum(not all(map(of_the_turn, sessions)) for sessions in found), len(cells)


@pytest.mark.promise(35)
def test_no_client_takes_a_session_from_a_json_answer_that_could_not_be_completed(
    node: str, monkeypatch: Any, measured: Callable[[int, str], None]
) -> None:
    planted, number = planted_in_whole_answers(node)
    measured(35, f"a client would take a planted session from {planted} of {number:,} JSON answers that are as hostile")
    assert planted == 0
    monkeypatch.setattr(ASGITurn, "remove_sessions", as_it_is)
    assert planted_in_whole_answers(node)[0] > number // 4  # the control


@pytest.mark.promise(35)
def test_control_nothing_of_ours_after_what_was_too_long_to_read_is_caught(node: str, monkeypatch: Any) -> None:
    cell = ("lines", "too long", "a genuine session", "nothing", "only", 7)
    body = asyncio.run(answered([cell]))[0]
    assert of_the_turn(list(readers.LINES["Python, lines"](body))[-1])
    monkeypatch.setattr(SessionStream, "_pass_part", lambda self, part: part)
    body = asyncio.run(answered([cell]))[0]
    assert not of_the_turn(list(readers.LINES["Python, lines"](body))[-1])
