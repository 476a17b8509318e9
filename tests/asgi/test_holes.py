"""A body whose long tokens are cut out before it is parsed: equal to one that is parsed whole, on every input."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import orjson
import pytest

from dcaf.asgi import holes, request
from dcaf.asgi.holes import NONE, Holes, cut
from dcaf.asgi.locate import JSONText
from dcaf.core.errors import DcafError

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
TOKEN = "dcaf1s.k7." + "eyJh" * 400 + "." + "eyJh" * 400 + "." + "A" * 43
ODD = [
    '"',
    "\\",
    "\\u0041",
    "\n",
    "\0",
    "é",
    "{",
    "}",
    ",",
    " ",
    "=",
    "\x7f",
    '\\"',
    "\ud800".encode(errors="surrogatepass").decode("latin-1"),
]


def outcome(data: bytes, small: bytes, kept: Holes) -> Any:
    """What the whole way makes of a body: its sessions, what the application reads, what a resolver reads; or the refusal."""
    try:
        text = JSONText.read(small, kept)
        places = tuple(text.sessions())
        body = request.Body(data, json=text, places=places, is_json=True)
        candidate = body.candidate()
        member = None if candidate is None else body.member(candidate)
        token = member.get("dcaf", {}).get("token") if isinstance(member, dict) and isinstance(member.get("dcaf"), dict) else member
        values = body.without_sessions()
        body.rewrite(candidate, b'{"verified":true}')
    except DcafError as refusal:
        return type(refusal), getattr(refusal, "reason", None)
    except orjson.JSONDecodeError:  # a hole that should not have been cut
        return (None,)
    return len(places), token, values, body.data


def differ(data: bytes) -> bool:
    return bool(outcome(data, *cut(data)) != outcome(data, data, NONE))


def bodies(number: int, seed: int = 5) -> Any:
    """Bodies with sessions at every place, and then a little harm done to most of them."""
    source = random.Random(seed)
    for _ in range(number):
        yield harmed(source, body(source))


def token(source: random.Random) -> str:
    return source.choice([TOKEN, TOKEN[:-1] + "B", "dcaf1e.k7." + "x" * source.randrange(1_900, 2_200), "dcaf1s.short", "new"])


def member(source: random.Random) -> Any:
    envelope = {"step": 1, "dcaf": {"token": token(source), "expires_at": 1}}
    return source.choice(
        [envelope, {"dcaf": {"token": token(source)}}, {"token": token(source)}, {}, None, {"x": {"token": token(source)}}]
    )


def body(source: random.Random) -> bytes:
    messages = [
        source.choice([{"content": "hi"}, {"data": {"session": member(source)}}, {"token": token(source)}, token(source)])
        for _ in range(source.randrange(4))
    ]
    parts = {
        "messages": messages,
        "data": {"session": member(source), "token": token(source)},
        "token": token(source),
        "thread": "é",
    }
    chosen = {key: parts[key] for key in source.sample(list(parts), source.randrange(1, 5))}
    separators = source.choice([(",", ":"), (", ", ": ")])
    return json.dumps(chosen, separators=separators, ensure_ascii=source.random() < 0.5).encode()


def harmed(source: random.Random, data: bytes) -> bytes:
    if source.random() < 0.3:
        return data
    begin = data.find(b'"token":"dcaf1')
    near = (
        begin + source.choice([0, 1, 7, 8, 9, 10, 20, 2_000, 3_200])
        if begin >= 0 and source.random() < 0.8
        else source.randrange(len(data))
    )
    near = min(near, len(data))
    odd = source.choice(ODD).encode("latin-1" if source.random() < 0.2 else "utf-8", errors="replace")
    return data[:near] + odd + data[near + source.randrange(3) :]


def test_both_ways_agree_on_every_body() -> None:
    number = max(2_000, int(100_000 * SCALE))
    found = list(bodies(number))
    assert [data for data in found if differ(data)] == []
    fast = sum(cut(data)[1] is not NONE for data in found)
    refused = sum(isinstance(outcome(data, data, NONE)[0], type) for data in found)
    assert fast > number / 5
    assert number / 20 < refused < number


def test_control_holes_of_any_alphabet_are_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(holes, "ALPHABET", bytes(code for code in range(256) if code not in b'"'))
    assert any(differ(data) for data in bodies(3_000))


def test_control_a_token_that_is_not_put_back_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr(Holes, "fill", lambda _self, text: text)
    assert any(differ(data) for data in bodies(1_000))


def test_only_long_tokens_are_cut_out_and_at_most_so_many() -> None:
    short = json.dumps({"token": "dcaf1s." + "A" * 1_000, "x": "y" * 3_000}, separators=(",", ":")).encode()
    assert cut(short) == (short, NONE)
    many = orjson.dumps([{"token": TOKEN}] * (holes.MOST + 3))
    small, found = cut(many)
    assert small.count(b"dcaf1s") == 3
    assert found.fill(small.decode()).encode() == many


@pytest.mark.parametrize("data", [b"", b"{}", b'{"token":"dcaf1', b'{"token":"dcaf1' + b"A" * 5_000])
def test_a_token_without_an_end_is_left_where_it_is(data: bytes) -> None:
    assert cut(data) == (data, NONE)
