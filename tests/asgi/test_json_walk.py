"""What is taken out of an application's text, what stays, and how long it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcaf.asgi.json_walk import BOUNDARY, may_hold_session, remove_sessions, remove_sessions_of_text
from dcaf.core.errors import MalformedJSON

STAYS = [
    b"",
    b"{",
    b"session",
    b'{"session":{"a":1}}',
    b'{"data":[{"session":1}]}',
    b'{"data":{"note":{"session":{"a":1}}}}',
    b'[{"data":{"session":1}}]',
    b'{"data":{"session":null}}',
    b'{"data":{"session" : null , "a":1}}',
    b'{"data":{"session":{"a":1}}} and more',
    b'the model says {"data":{"session":{"a":1}}}',
    b'two words: {"data":{"session":{"a":1}}}',
    b'{"data":{"session":{"a":1}},}',
    b'{"text":"{\\"data\\":{\\"session\\":1}}"}',
    b'{"text":"\\u0022data\\u0022 session \\ud83d"}',
    b'{"text":"session","score":NaN}',
    b"\x00\xffsession\x00",
    '{"data":{"x":1}}'.encode("utf-16"),
    '{"data":{"session":1}'.encode("utf-16-le"),
    b'{"Data":{"Session":1}}',
    b'{"data":{"session ":1}}',
]


@pytest.mark.parametrize("text", STAYS)
def test_what_no_client_takes_for_a_session_stays_byte_for_byte(text: bytes) -> None:
    assert remove_sessions(text) == text
    assert remove_sessions_of_text(text, objects_only=True) == text


@pytest.mark.parametrize("value", ["1", '"text"', "true", "[1]", "{}", '{"a":"null"}', "NaN", "-0", "1e999", '"\\ud800"'])
def test_in_an_event_any_value_goes_and_in_a_whole_answer_an_object(value: str) -> None:
    text = f'{{"data" : {{"session" :\t{value} , "a":1.0}}}}'.encode()
    gone = b'{"data" : {"session" :\tnull , "a":1.0}}'
    assert remove_sessions(text) == gone
    assert remove_sessions_of_text(text, objects_only=True) == (gone if value.startswith("{") else text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_session_in_a_wider_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(MalformedJSON):
        remove_sessions('{"data":{"session":{"a":1}}}'.encode(encoding))


def test_a_text_that_is_too_deep_to_be_read_is_refused_where_it_says_session() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(MalformedJSON):
        remove_sessions(b'{"data":{"session":1},"x":' + deep + b"}")
    assert remove_sessions(b'{"data":{"x":' + deep + b"}}")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "session", "type", "dcaf", "x"]) | st.text(max_size=3), inner, max_size=4)
    ),
)


def emptied(value: Any) -> Any:
    """The value with null at ``data.session``."""
    data = value.get("data") if isinstance(value, dict) else None
    return {**value, "data": {**data, "session": None}} if isinstance(data, dict) and "session" in data else value


@given(VALUES, st.booleans(), st.sampled_from([(",", ":"), (" ,\t", "\r:\n")]))
def test_whatever_an_event_is_nothing_but_its_session_is_another(value: Any, ascii_only: bool, separators: Any) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    gone = remove_sessions(text)
    assert remove_sessions(gone) == gone
    if len(BOUNDARY.split(text)) == 1:
        assert repr(json.loads(gone)) == repr(emptied(value))


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b'"', b"{", b"}", b":", b",", b"data", b"session", b"\\u0073", b"\r"])))
def test_no_bytes_raise_anything_else(text: Any) -> None:
    data = text if isinstance(text, bytes) else b'{"data":{"session":' + b"".join(text)
    remove_sessions(data)


def test_what_has_no_hint_is_not_read() -> None:
    assert not may_hold_session(b'{"type":"text_delta","text":"hello \\ud83d\\ude00 \\n","n":[1,2]}')
    assert may_hold_session(b'{"data":{"\\u0073ession":1}}')
