"""Bodies with sessions at every place, as clients, careless ones and attackers write them: for the fast paths' equality."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import orjson

from dcaf.core.base64url import Payload
from dcaf.core.keys import Key, Keyring
from dcaf.core.signing import SIGNED

KEY = Key.from_bytes("k7", bytes(range(128, 160)))
RING = Keyring(KEY)
STATES = [b"{}", b'{"step":1}', b'{"step":1,"note":"%b"}' % (b"x" * 3_000), b'{"cart":{"items":[1,2]},"n":1.5}']
TOKENS = {state: SIGNED.seal(KEY, "shop", b'{"aud":"shop"}', Payload(state)).decode() for state in STATES}
FOREIGN = "dcaf1s.k7." + "eyJh" * 40 + "." + "eyJh" * 400 + "." + "A" * 43
ODD = [
    '"',
    "\\",
    "\\u0041",
    "\\u0073",
    "\n",
    "\0",
    "é",
    "{",
    "}",
    ",",
    " ",
    ":",
    "=",
    "\x7f",
    '\\"',
    '"session":{',
    '"data":',
    "1.50",
]


def bodies(number: int, seed: int) -> Iterator[bytes]:
    """So many bodies, most of them with a little harm done to them."""
    source = random.Random(seed)
    for _ in range(number):
        yield _harmed(source, _written(source, _body(source)))


def _body(source: random.Random) -> list[tuple[str, Any]]:
    """Members in any order, now and then one of them twice."""
    parts: list[tuple[str, Any]] = [
        ("messages", [_message(source) for _ in range(source.randrange(4))]),
        ("data", _data(source)),
        ("thread", source.choice(["é", "a session", 'x"session"', 12345678901234567890123 % 2**63])),
        ("other", {"data": _data(source), "session": _session(source)}),
        ("data", source.choice([None, {}, 1, _data(source)])),
        ("messages", source.choice([None, [], [_message(source)]])),
    ]
    weights = source.random()
    chosen = parts[:3] if weights < 0.7 else parts
    return source.sample(chosen, source.randrange(1, len(chosen) + 1))


def _message(source: random.Random) -> Any:
    return source.choice([{"content": "hi"}, {"data": _data(source)}, {"role": "user", "data": {}}, "data", '"session":{'])


def _data(source: random.Random) -> Any:
    return source.choice([{"session": _session(source)}, {"id": 1, "session": _session(source)}, {"session": {}}, {}, None, 7])


def _session(source: random.Random) -> Any:
    state = source.choice(STATES)
    own = {"dcaf": {"token": source.choice([TOKENS[state], TOKENS[state], TOKENS[state], FOREIGN, "new"]), "expires_at": 1}}
    mirror = orjson.loads(state)
    return source.choice(
        [mirror | own, mirror | own, own, {"dcaf": {"token": TOKENS[state]}}, mirror, {}, None, own | mirror, 1, "x"]
    )


def _written(source: random.Random, members: list[tuple[str, Any]]) -> bytes:
    separators = source.choice([(",", ":"), (",", ":"), (", ", ": ")])
    ascii_only = source.random() < 0.3
    pieces = [
        json.dumps(name) + separators[1] + json.dumps(value, separators=separators, ensure_ascii=ascii_only)
        for name, value in members
    ]
    return ("{" + separators[0].join(pieces) + "}").encode()


def _harmed(source: random.Random, data: bytes) -> bytes:
    if source.random() < 0.4:
        return data
    marks = [b'"session"', b'"data"', b'"token":"dcaf1', b'"expires_at"', b'"dcaf"', b'"messages"']
    begin = data.find(source.choice(marks))
    at = (
        begin + source.choice([-1, 0, 1, 5, 8, 9, 10, 11, 30])
        if begin >= 0 and source.random() < 0.8
        else source.randrange(len(data))
    )
    at = max(0, min(at, len(data)))
    return data[:at] + source.choice(ODD).encode("latin-1" if source.random() < 0.1 else "utf-8") + data[at + source.randrange(3) :]
