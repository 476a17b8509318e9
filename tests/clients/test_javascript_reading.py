"""How ``examples/client.mjs`` reads a stream: however it is cut into parts, whatever is in it, and in time that grows with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.driven import CLIENT, Node, Told
from tests.clients.servers import answering, session, streamed
from tests.clients.streams import CRLF, CUTTINGS, LONG, STREAM, WORDS, carried, hostile

Variant = Callable[[str, str], Path]


def heard(told: Told) -> dict[str, Any]:
    """What a turn came to."""
    assert told.answer is not None, told.error
    return {"answer": told.answer, "messages": told.messages, "session": told.session, "events": told.events}


def read(browser: Node, parts: list[bytes], *, module: Path = CLIENT, broken: bool = False) -> Told:
    """A turn whose stream comes in exactly these parts."""
    chat = browser.conversation("http://nowhere", session=session(0), module=module)
    return chat.send("hi", parts=carried(parts), broken=broken)


@pytest.fixture(scope="module")
def whole(browser: Node) -> dict[str, Any]:
    """The turn, where its stream comes in one part."""
    with answering(streamed(STREAM)) as service:
        found = heard(browser.conversation(service.url).send("hi"))
    assert found["answer"]["content"] == f"{WORDS}."
    return found


@pytest.mark.parametrize("name", CUTTINGS)
def test_however_a_stream_is_cut_the_turn_is_the_same(browser: Node, whole: dict[str, Any], name: str) -> None:
    assert heard(read(browser, CUTTINGS[name])) == whole


def test_a_stream_is_read_the_same_wherever_it_is_cut_in_two(browser: Node, whole: dict[str, Any]) -> None:
    for at in range(1, len(CRLF)):
        assert heard(read(browser, [CRLF[:at], CRLF[at:]])) == whole, at


def test_a_service_that_sends_single_bytes_is_read_too(browser: Node, whole: dict[str, Any]) -> None:
    """Over a real connection, with a pause after each byte."""
    with answering(streamed(*CUTTINGS["crlf, byte by byte"]), pause_s=0.0002) as service:
        assert heard(browser.conversation(service.url).send("hi")) == whole


@pytest.mark.parametrize(
    ("place", "by"),
    [
        ("new TextDecoderStream()", "new TransformStream({ transform: (b, c) => c.enqueue(new TextDecoder().decode(b)) })"),
        ("lines.unshift(begun + first);", "lines.unshift(first);"),
        ("=> line.trim())", "=> line)"),
    ],
)
def test_control_a_reader_that_takes_parts_for_lines_or_characters_is_found(
    browser: Node, whole: dict[str, Any], variant: Variant, place: str, by: str
) -> None:
    wrong = variant(place, by)
    told = [read(browser, parts, module=wrong) for parts in CUTTINGS.values()]
    assert any(turn.answer is None or heard(turn) != whole for turn in told)


def cpu_us(browser: Node, module: Path = CLIENT) -> int:
    """What one long line costs."""
    chat = browser.conversation("http://nowhere", module=module)
    told = [chat.send("hi", parts=LONG, silent=True) for _ in range(2)]
    assert [turn.session for turn in told] == [session(1)] * 2
    return min(turn.cpu_us for turn in told)


SLOW: Final = (
    '      const [first, ...lines] = (part.done ? "\\n" : part.value).split("\\n");',
    '      const [first, ...lines] = (begun + (part.done ? "\\n" : part.value)).split("\\n"); begun = "";',
)


def test_a_long_line_is_read_in_time_that_grows_with_it(browser: Node, variant: Variant) -> None:
    """The control joins and searches the whole line again for every part of it."""
    assert 2 * cpu_us(browser) < cpu_us(browser, variant(*SLOW))


def test_whatever_comes_a_turn_is_an_answer_or_an_error_with_a_code(browser: Node, scale: float) -> None:
    """And no answer writes into the prototype of all objects, which the driver looks at after each turn."""
    rng = random.Random(16)
    streams = [hostile(rng) for _ in range(max(200, int(4000 * scale)))]
    ends = set()
    for stream in streams:
        told = read(browser, [stream], broken=rng.random() < 0.3)
        ends.add(told.error is None)
        assert told.error is None or told.code, stream
        assert told.session is not None
        assert isinstance(told.session["dcaf"]["token"], str), stream
        assert len(told.messages) == (2 if told.error is None else 0), stream
        assert "session" not in {name for message in told.messages for name in message.get("data", {})}, stream
        assert all(call["id"] for call in told.waiting), stream
    assert ends == {True, False}
