"""An envelope that is taken out of a body before it is parsed: what comes of the body is the same, on every input."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from dcaf.asgi import json_sessions
from dcaf.asgi.body import find_sessions
from dcaf.asgi.json_sessions import NONCE, BodySessions, ShortenedBody, shorten
from dcaf.core.errors import DcafError, SessionInvalid
from dcaf.core.signing import SIGNED, Opened
from tests.asgi.hostile_bodies import RING, STATES, TOKENS, bodies

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
NUMBER = max(5_000, int(200_000 * SCALE))


def verify(token: bytes) -> Opened | None:
    try:
        return SIGNED.open(token, RING, "shop")
    except SessionInvalid:
        return None


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One event loop for all bodies: to make one takes longer than to read a body."""
    with asyncio.Runner() as runner:
        yield runner


def outcome(loop: asyncio.Runner, data: bytes, verified: Any) -> Any:
    """What comes of a body: its sessions, its winner's token, what the application and a resolver read; or the refusal."""
    try:
        found = loop.run(find_sessions(data, verified))
    except DcafError as refusal:
        return type(refusal)
    candidate, state = found.find_candidate(), b'{"verified":true}'
    token, places = _token(found, candidate), len(found.places)
    values = found.strip_sessions()
    body = found.text.rewrite(found.places, candidate, state)
    assert len(body) == found.text.measure(found.places, candidate, len(state))
    return places, token, values, body


def _token(body: BodySessions, candidate: Any) -> Any:
    """The state that the winner seals, or what stands there instead."""
    if body.opened is not None:
        return body.opened.payload.data
    value = None if candidate is None else candidate.value
    own = value.get("dcaf") if isinstance(value, dict) else None
    token = own.get("token") if isinstance(own, dict) else None
    opened = verify(token.encode()) if isinstance(token, str) and token.isascii() else None
    return value if opened is None else opened.payload.data


def differing(loop: asyncio.Runner, number: int, seed: int) -> Iterator[bytes]:
    return (data for data in bodies(number, seed) if outcome(loop, data, verify) != outcome(loop, data, lambda _: None))


def test_both_ways_agree_on_every_body(loop: asyncio.Runner) -> None:
    assert list(differing(loop, NUMBER, seed=21)) == []
    taken = sum(shorten(data, verify) is not None for data in bodies(2_000, seed=21))
    assert taken > 50


def test_control_a_mirror_that_is_not_compared_is_caught(loop: asyncio.Runner, monkeypatch: Any) -> None:
    monkeypatch.setattr(json_sessions, "_find_brace_before", lambda data, own, state: data.rfind(b"{", 0, own))
    assert any(differing(loop, 5_000, seed=22))


def test_control_a_stand_in_that_is_not_looked_for_is_caught(loop: asyncio.Runner, monkeypatch: Any) -> None:
    monkeypatch.setattr(json_sessions, "_find_token", lambda _: NONCE)
    assert any(differing(loop, 5_000, seed=23))


def test_control_a_token_that_is_not_verified_is_caught(loop: asyncio.Runner) -> None:
    """A token may hold anything then, also what is no JSON."""
    data = b'{"data":{"session":{"dcaf":{"token":"dcaf1s.\x01"}}}}'
    taken = Opened("dcaf1s", RING.active, b"{}", SIGNED.open(TOKENS[STATES[0]].encode(), RING, "shop").payload)
    assert outcome(loop, data, lambda _: taken) != outcome(loop, data, lambda _: None)
    assert outcome(loop, data, verify) == outcome(loop, data, lambda _: None)


@pytest.mark.parametrize("state", STATES)
def test_an_envelope_just_as_it_was_sent_is_taken_out(state: bytes) -> None:
    sent = orjson.loads(state) | {"dcaf": {"token": TOKENS[state], "expires_at": 1789000000}}
    for session in (sent, {"dcaf": sent["dcaf"]}, {"dcaf": {"token": TOKENS[state]}}):
        for options in (0, orjson.OPT_INDENT_2):
            body = orjson.dumps({"messages": [], "data": {"session": session}}, option=options)
            found = shorten(body, verify)
            assert found is not None
            assert found.opened.payload.data == state
            own = orjson.loads(found.data)["data"]["session"]
            assert own["dcaf"]["token"] == NONCE
            assert options or list(own) == ["dcaf"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"token":"dcaf1s', b'"token":"dcaf1s '),
        lambda text: text.replace(b"dcaf1s.k7.", b"dcaf1s.k8."),
        lambda text: text.replace(b'"token":"dcaf1s', b'"token":"x","token":"dcaf1t'),
    ],
)
def test_a_token_that_was_changed_stays_where_it_is(change: Any) -> None:
    state = b'{"step":1}'
    sent = orjson.loads(state) | {"dcaf": {"token": TOKENS[state], "expires_at": 1}}
    data = orjson.dumps({"data": {"session": sent}})
    assert shorten(data, verify) is not None
    assert shorten(change(data), verify) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"step":1,', b'"step":NaN,'),
        lambda text: text.replace(b'"step":1,', b'"step":1,,'),
        lambda text: text.replace(b'"step":1,', b'"step":1},"more":{'),
        lambda text: text.replace(b'"step":1,', b","),
        lambda text: text.replace(b'"step":1,', b'"step":1'),
        lambda text: text.replace(b'"step":1,', b'"step":[%b],' % (b"1," * 20_000 + b"1")),
    ],
)
def test_what_is_no_mirror_or_a_very_large_one_stays_where_it_is_and_is_parsed(change: Any) -> None:
    state = b'{"step":1}'
    data = change(orjson.dumps({"data": {"session": orjson.loads(state) | {"dcaf": {"token": TOKENS[state]}}}}))
    found = shorten(data, verify)
    assert isinstance(found, ShortenedBody)
    assert found.data == data.replace(TOKENS[state].encode(), NONCE.encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"step":1', b'"step":2'),
        lambda text: text.replace(b'"step":1,', b'"step": 1 ,\n'),
        lambda text: text.replace(b'"step":1,', b'"step":1,"more":1,'),
        lambda text: text.replace(b'"dcaf":{"token":', b'"dcaf" : {\t"token": '),
        lambda text: json.dumps(json.loads(text), indent=2).encode(),
    ],
)
def test_a_mirror_in_any_spelling_is_taken_out_with_its_token(change: Any) -> None:
    state = b'{"step":1}'
    data = change(orjson.dumps({"data": {"session": orjson.loads(state) | {"dcaf": {"token": TOKENS[state]}}}}))
    found = shorten(data, verify)
    assert isinstance(found, ShortenedBody)
    assert b'"step"' not in found.data
    read = found.read(data)
    assert read is not None
    assert read.text.value == {"data": {"session": {"dcaf": {"token": NONCE}}}}


def test_a_body_without_the_end_of_its_token_is_left_as_it_is() -> None:
    whole = orjson.dumps({"data": {"session": {"dcaf": {"token": TOKENS[STATES[1]]}}}})
    for end in range(len(whole) - 4):
        assert shorten(whole[:end], verify) is None
