"""The fast path over bytes: equal to the plain one on every input, and so are the frames of answers."""

from __future__ import annotations

import os
import re
from typing import Any

import orjson
import pytest

from dcaf.asgi import json_sessions, json_walk
from dcaf.asgi.json_sessions import read_text
from dcaf.core.errors import DcafError, MalformedJSON
from tests.asgi.hostile_bodies import bodies

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
NUMBER = max(5_000, int(200_000 * SCALE))


def plain(data: bytes) -> Any:
    """What the plain path finds, or why it refuses."""
    try:
        return json_walk.find_sessions(data.decode("latin-1"))
    except DcafError as refusal:
        return type(refusal)


def verdict(data: bytes) -> str:
    """Whether the fast path agrees with the plain one, leaves the body to it, or differs."""
    try:
        text = read_text(data)
    except MalformedJSON:
        return "no JSON"
    if not isinstance(text.value, dict):
        return "no object"
    found = json_sessions._find_quickly(data, text.value)
    if found is None:
        return "left"
    return "equal" if found == plain(data) else "differs"


def framing(data: bytes) -> str:
    """The same of an answer's frame."""
    try:
        text = read_text(data)
    except MalformedJSON:
        return "no JSON"
    if not isinstance(text.value, dict) or not isinstance(text.value.get("data"), dict | None):
        return "no object"
    found = json_sessions._split_quickly(data, text.value)
    if found is None:
        return "left"
    return "equal" if found == text._split_by_walking() else "differs"


def tally(judge: Any, number: int, seed: int) -> dict[str, int]:
    counted: dict[str, int] = {}
    for data in bodies(number, seed):
        said = judge(data)
        counted[said] = counted.get(said, 0) + 1
    return counted


@pytest.mark.parametrize("judge", [verdict, framing])
def test_both_paths_find_the_same_in_every_body(judge: Any) -> None:
    counted = tally(judge, NUMBER, seed=11)
    assert "differs" not in counted, next(data for data in bodies(NUMBER, seed=11) if judge(data) == "differs")
    assert counted["equal"] > NUMBER / 5
    assert counted["left"] > NUMBER / 50
    assert counted["no JSON"] > NUMBER / 20


class CountsNothing(bytes):
    """A body whose names are counted as they are needed, so that the counts settle nothing."""

    wanted: int = 0

    def count(self, *_: Any) -> int:
        return 1


def test_control_without_the_counts_the_fast_path_is_wrong(monkeypatch: Any) -> None:
    """What the counts refuse is taken: a repeated member, a name in a string."""
    sessions = json_sessions._find_quickly
    monkeypatch.setattr(json_sessions, "_find_quickly", lambda data, value: sessions(CountsNothing(data), value))
    wrong = 0
    for data in bodies(5_000, seed=12):
        try:
            wrong += verdict(data) == "differs"
        except (ValueError, AssertionError, StopIteration, IndexError):
            wrong += 1
    assert wrong > 10


def test_control_without_a_look_at_escapes_the_fast_path_is_wrong(monkeypatch: Any) -> None:
    monkeypatch.setattr(json_sessions, "ESCAPED", re.compile(b"(?!)"))
    data = b'{"data":{"session":{"n":1}},"d\\u0061ta":{"session":{"n":2}}}'
    assert plain(data) is MalformedJSON
    assert verdict(data) == "left" or verdict(data) == "differs"
    only = b'{"data":{"sess\\u0069on":{"n":1}}}'
    assert verdict(only) == "differs"


@pytest.mark.parametrize(
    "data",
    [
        b'{"data":{"session":{}},"x":"\\"session"}',
        b'{"data":{"session":1.50}}',
        b'{"data":{"session":-0}}',
        b'{"data":{"session": {"n" : 1.50} , "m":1}}',
        b'{"data":{"a":1,"session":"x" }}',
        b'{"messages":[{"data":{"session":{"n":1}}},{"data":{"session":{"n":2}}}],"data":{"session":{"n":3}}}',
        b'{"data":{"session":{"n":3}},"messages":[{"data":{"a":1 , "session":{"n":1}}},{"data":{"session":null}}]}',
        b'{"data":{},"data":{"session":{"n":1}}}',
        b'{"messages":[],"messages":[{"data":{"session":1}}]}',
    ],
)
def test_known_traps_are_equal_or_left(data: bytes) -> None:
    assert verdict(data) in ("equal", "left")
    assert framing(data) in ("equal", "left", "no object")


def test_most_bodies_of_ordinary_clients_take_the_fast_path() -> None:
    session = {"step": 1, "dcaf": {"token": "dcaf1s.k7.e.e.e", "expires_at": 1}}
    messages = [{"role": "user", "content": 'say "session"\n'}, {"role": "assistant", "content": "é", "data": {"session": session}}]
    for body in ({"messages": messages}, {"messages": messages, "data": {"session": session}}, {"data": {"session": session}}):
        for data in (orjson.dumps(body), orjson.dumps(body, option=orjson.OPT_INDENT_2)):
            assert verdict(data) == "equal"
