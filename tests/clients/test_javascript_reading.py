"""How ``examples/client.mjs`` reads a stream: however it is cut into parts, whatever is in it, and in time that grows with it."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.driven import CLIENT, Node, Told
from tests.clients.servers import answering, line, session, streamed

Variant = Callable[[str, str], Path]
WORDS: Final = 'Zoë 北京 🚀 {"type":"done"}\n{"type":"error"}\r\n\u2028'
"""Characters of two to four bytes, and what imitates the end of a turn."""

LINES: Final = [
    line(type="text_delta", text=WORDS),
    line(type="executed_tool_calls", executed_tool_calls=[{"id": "c1", "name": "n", "input": {}, "output": WORDS}]),
    line(type="session", data={"session": session(1)}),
    line(type="text_delta", text="."),
    line(type="done", data={"session": session(2)}, meta_data={"stop_reason": "end_turn"}),
]
STREAM: Final = b"".join(LINES)
CRLF: Final = STREAM.replace(b"\n", b"\r\n")


def heard(told: Told) -> dict[str, Any]:
    """What a turn came to."""
    assert told.answer is not None, told.error
    return {"answer": told.answer, "messages": told.messages, "session": told.session, "events": told.events}


def read(browser: Node, parts: list[bytes], *, module: Path = CLIENT, broken: bool = False) -> Told:
    """A turn whose stream comes in exactly these parts."""
    told = [b64encode(part).decode() for part in parts if part]
    return browser.conversation("http://nowhere", session=session(0), module=module).send("hi", parts=told, broken=broken)


@pytest.fixture(scope="module")
def whole(browser: Node) -> dict[str, Any]:
    """The turn, where its stream comes in one part."""
    with answering(streamed(STREAM)) as service:
        found = heard(browser.conversation(service.url).send("hi"))
    assert found["answer"]["content"] == f"{WORDS}."
    return found


def cuttings() -> Iterator[tuple[str, list[bytes]]]:
    """The stream, cut in many ways."""
    for name, stream in (
        ("lf", STREAM),
        ("crlf", CRLF),
        ("mark", b"\xef\xbb\xbf" + STREAM),
        ("blank", b"\n\r\n" + STREAM + b" \n"),
    ):
        yield f"{name}, byte by byte", [stream[at : at + 1] for at in range(len(stream))]
        yield f"{name}, whole", [stream]
        yield f"{name}, without its last end", [stream.rstrip()]
        rng = random.Random(name)
        for number in range(10):
            cuts = sorted(rng.sample(range(len(stream)), rng.randint(1, 40)))
            yield f"{name}, {number}", [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


CUTTINGS: Final = dict(cuttings())


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
        ("if (line.trim())", "if (line)"),
    ],
)
def test_control_a_reader_that_takes_parts_for_lines_or_characters_is_found(
    browser: Node, whole: dict[str, Any], variant: Variant, place: str, by: str
) -> None:
    wrong = variant(place, by)
    told = [read(browser, parts, module=wrong) for parts in CUTTINGS.values()]
    assert any(turn.answer is None or heard(turn) != whole for turn in told)


def cpu_us(browser: Node, size: int, module: Path = CLIENT) -> int:
    """What one line of that size costs, in parts of 512 bytes."""
    body = line(type="done", data={"session": session(1)}, text="y" * size)
    parts = [body[at : at + 512] for at in range(0, len(body), 512)]
    told = [read(browser, parts, module=module) for _ in range(2)]
    assert [turn.session for turn in told] == [session(1)] * 2
    return min(turn.cpu_us for turn in told)


SLOW: Final = (
    '      const [first, ...lines] = (part.done ? "\\n" : part.value).split("\\n");',
    '      const [first, ...lines] = (begun + (part.done ? "\\n" : part.value)).split("\\n"); begun = "";',
)


def test_a_long_line_is_read_in_time_that_grows_with_it(browser: Node, variant: Variant) -> None:
    """The control joins and searches the whole line again for every part of it."""
    small, large = (cpu_us(browser, size) for size in (200_000, 800_000))
    slow = cpu_us(browser, 800_000, variant(*SLOW))
    assert large < 8 * small
    assert 3 * large < slow


KINDS: Final = (
    "text_delta",
    "approvals",
    "tool_calls",
    "session",
    "done",
    "error",
    "data",
    "__proto__",
    "constructor",
    "toString",
    "x",
)
VALUES: Final = (
    "null",
    "true",
    "-0",
    "1e999",
    "1" * 400,
    "9007199254740993",
    '""',
    '"text"',
    "[]",
    "{}",
    "[null]",
    '[{"id":"c1","name":"n","input":{}}]',
    '{"__proto__":{"polluted":1}}',
    '{"__proto__":[1]}',
    '{"session":null}',
    '{"session":{"dcaf":{"token":"t"}}}',
    '{"session":{"dcaf":{"token":"new"}},"approvals":5}',
    '{"session":{"__proto__":{"dcaf":{"token":"planted"}}}}',
    '{"approvals":{"length":1e9}}',
    '{"constructor":{"prototype":{"polluted":1}}}',
    '{"toString":1,"valueOf":1}',
    '"' + "\\ud83d" + '"',
)
JUNK: Final = ("", " ", "\t\r", "{", "}", "nul", "NaN", "data: {}", "\x00", "<p>", '{"type":"done"', "[" * 2000)


def hostile(rng: random.Random) -> bytes:
    """A stream that no service sends, most of it events whose members are something else than they should be."""
    lines = []
    for _ in range(rng.randint(1, 6)):
        kind = rng.choice(KINDS)
        members = [f'"type":"{kind}"', f'"{kind}":{rng.choice(VALUES)}']
        names = rng.sample(["data", "text", "code", "error", "meta_data", "__proto__"], rng.randint(0, 4))
        members += [f'"{name}":{rng.choice(VALUES)}' for name in names]
        lines.append(rng.choice(JUNK) if rng.random() < 0.08 else "{" + ",".join(members) + "}")
    return "\n".join(lines).encode() + rng.choice([b"\n", b"\r\n", b"", b"{", b"\xff\xfe\n"])


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
