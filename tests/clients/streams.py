"""Streams of events as bytes: one that is as it should be, cut in many ways, and those that no service sends."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.clients.servers import line, session

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
LONG: Final = {"line": line(type="done", data={"session": session(1)}, text="LONG").decode(), "long": 800_000}
"""One line, which the driver makes and cuts."""

CRLF: Final = STREAM.replace(b"\n", b"\r\n")


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


def carried(parts: Sequence[bytes]) -> list[Any]:
    """Parts of a stream, as JSON carries them to a driver."""
    return [b64encode(part).decode() for part in parts if part]
