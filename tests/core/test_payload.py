"""A state cut by its index: equal to a parsed one wherever the index fits, and parsed wherever it does not."""

from __future__ import annotations

import json
import os
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core import SessionInvalid, SessionValueError
from dcaf.core.base64url import Payload
from dcaf.core.claims import Claims, Standing
from dcaf.core.payload import INDEXED_BYTES, INDEXED_MEMBERS, MEMBER_BYTES, Members, cut, lacks, members_of
from dcaf.core.session import Session
from dcaf.core.state import State

STANDING = Standing(Claims("shop", "s" * 22, 1, 0, 0, 9))
SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['":', '\\"', "\\", '{"a":1}', ",", "é", "\0"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
STATES = st.dictionaries(TEXT.filter(lambda key: key != "dcaf" and not key.startswith("temp:")), VALUES, max_size=6)


def lengths(values: dict[str, Any]) -> tuple[int, ...]:
    return tuple(len(orjson.dumps({key: value})) - 2 for key, value in values.items())


def split(data: bytes, index: Any) -> Any:
    found = cut(data, index)
    return None if found is None else [(key, found.written(key)) for key in found]


def join(members: Any) -> Payload:
    return Members().updated(dict(members)).payload()


def state_of(data: bytes, index: tuple[int, ...] | None) -> Session:
    return Session._over(State(Payload(data, index=index)))


@settings(deadline=None, max_examples=max(200, int(20_000 * SCALE)))
@given(STATES)
def test_a_state_that_is_cut_is_the_one_that_is_parsed(values: Any) -> None:
    data = orjson.dumps(values)
    cut, parsed = state_of(data, lengths(values)), state_of(data, None)
    assert list(cut.items()) == list(parsed.items()) == list(values.items())
    assert cut._state.plain() == parsed._state.plain() == data
    if values:
        assert split(data, lengths(values)) == [(key, orjson.dumps(value)) for key, value in values.items()]


@settings(deadline=None, max_examples=max(200, int(20_000 * SCALE)))
@given(STATES, st.lists(st.integers(0, 40), max_size=6), st.integers(-3, 3))
def test_an_index_that_does_not_fit_decides_nothing(values: Any, index: Any, by: int) -> None:
    data = orjson.dumps(values)
    shifted = tuple(length + by for length in lengths(values))
    for wrong in (tuple(index), shifted, lengths(values)[:-1], lengths(values)[::-1], (*lengths(values), 0)):
        if split(data, wrong) is None:
            assert list(state_of(data, wrong).items()) == list(values.items())


def test_no_index_makes_a_key_of_a_text_without_the_whole_of_the_state_being_cut_so() -> None:
    data = orjson.dumps({"a": 'x,"b":1', "c": 2})
    assert split(data, (4, 9, 5)) is None
    assert dict(state_of(data, (4, 9, 5))) == {"a": 'x,"b":1', "c": 2}


@pytest.mark.parametrize("data", [b"[1,2]", b'{"a":1', b'"a":1}', b"{}", b'{"a" :1}', b'{"a":}', b'{"\\x":1}', b"{1:2}"])
def test_what_is_no_object_of_ours_is_not_cut(data: bytes) -> None:
    for index in ((), (len(data) - 2,), (5, 5), (1, 1)):
        assert split(data, index) is None


def test_an_index_is_made_for_large_states_of_few_members() -> None:
    small = {"a": "x" * (INDEXED_BYTES - len('{"a":""}'))}
    assert join([("a", orjson.dumps(small["a"]))]).index is None
    large = join([("a", orjson.dumps(small["a"] + "x")), ("é", b"1")])
    assert large.index == (INDEXED_BYTES - 1, 6)
    assert split(large.data, large.index) is not None
    many = [(f"k{number}", b'"' + b"x" * MEMBER_BYTES + b'"') for number in range(INDEXED_MEMBERS + 1)]
    assert join(many).index is None
    assert join(many[:-1]).index is not None
    assert join([(key, b"1") for key, _ in many[:-1]] + [("last", many[0][1] * 8)]).index is None


def test_only_what_a_turn_touches_is_parsed(monkeypatch: Any) -> None:
    values = {"step": 1, "messages": ["m" * 100] * 100, "cart": {"items": [1]}}
    read: list[int] = []

    def seen(data: bytes) -> Any:
        read.append(len(data))
        return json.loads(data)

    monkeypatch.setattr("dcaf.core.handles.read", seen)
    session = state_of(orjson.dumps(values), lengths(values))
    session["step"] = session["step"] + 1
    session["cart"]["items"].append(2)
    assert read == [1, len(b'{"items":[1]}')]
    payload = session._state.payload()
    assert orjson.loads(payload.data) == {**values, "step": 2, "cart": {"items": [1, 2]}}
    assert payload.index == lengths({**values, "step": 2, "cart": {"items": [1, 2]}})


def test_the_librarys_own_member_is_cut_out_too() -> None:
    values = {"a": "x" * 5_000, "dcaf": {"used": [1]}}
    session = state_of(orjson.dumps(values), lengths(values))
    assert dict(session) == {"a": "x" * 5_000}
    session["b"] = 1
    payload = session._state.payload()
    assert orjson.loads(payload.data) == {**values, "b": 1}
    assert split(payload.data, payload.index or ()) is not None


@pytest.mark.parametrize("size", [10, 5_000])
def test_what_a_tool_holds_is_live_after_a_seal_too(size: int) -> None:
    values = {"log": ["x" * size], "step": 1}
    session = state_of(orjson.dumps(values), lengths(values) if size > INDEXED_BYTES else None)
    log, state = session["log"], session._state
    for count in (2, 3):
        log.append("y")
        payload = state.payload()
        state.mark_sealed(payload, STANDING)
        assert not session.is_modified
        assert session.to_dict() == orjson.loads(payload.data) == {"log": ["x" * size, *"y" * (count - 1)], "step": 1}
    log.append("z")
    assert session.is_modified
    assert session.to_dict()["log"][-1] == "z"
    session["step"] = 2
    assert session.changes == {"set": {"log": log, "step": 2}, "delete": []}


def test_a_state_is_searched_for_room_again_after_a_seal() -> None:
    state = State(Payload(b'{"a":"","b":1}'), limit_bytes=60)
    state.put("a", "x" * 30)
    state.mark_sealed(state.payload(), STANDING)
    with pytest.raises(SessionValueError):
        state.put("a", "x" * 60)
    state.put("b", 2)
    with pytest.raises(SessionValueError):
        state.put("c", "x" * 30)


def test_another_program_s_temporary_keys_are_read_and_not_sealed_again() -> None:
    for index in (None, (10, 5)):
        state = State(Payload(b'{"temp:a":1,"b":2}', index=index))
        assert list(state) == ["temp:a", "b"]
        state.put("b", 3)
        assert state.payload().data == b'{"b":3}'


def test_what_is_not_even_parsed_is_invalid() -> None:
    with pytest.raises(SessionInvalid):
        list(state_of(b"[1]", (1,)))


def test_a_value_that_another_programs_index_cut_wrong_is_invalid_when_it_is_read() -> None:
    session = state_of(b'{"a":1,"b":2}', (11,))
    with pytest.raises(SessionInvalid):
        session.get("a")
    assert split(b'{"a":1,"a":2}', (5, 5)) is None


@settings(deadline=None, max_examples=max(200, int(20_000 * SCALE)))
@given(STATES, st.sampled_from(["nothing", "read", "changed", "temporary", "dropped"]), st.booleans())
def test_what_is_sealed_is_shown_as_if_it_were_written_again(values: Any, done: str, has_own: bool) -> None:
    session = state_of(orjson.dumps(values | ({"dcaf": {"used": [1]}} if has_own else {})), None)
    state = session._state
    if done == "read":
        list(session.items())
    elif done == "changed":
        session["new"] = {"dcaf": [1]}
    elif done == "temporary":
        session.temp["new"] = 1
    elif done == "dropped":
        session.clear()
    assert state.plain(None, state.payload()) == state.plain()


def of(members: int, size: int) -> tuple[bytes, tuple[int, ...]]:
    """A written state of so many members and bytes, and the lengths of its members."""
    values = {f"k{number:03}": "" for number in range(members)}
    values["k000"] = "x" * (size - len(orjson.dumps(values)))
    return orjson.dumps(values), lengths(values)


@pytest.mark.parametrize(
    ("members", "size", "is_indexed"),
    [
        (1, INDEXED_BYTES, False),
        (1, INDEXED_BYTES + 1, True),
        (3, 100, False),
        (16, MEMBER_BYTES * 16 - 1, False),
        (16, MEMBER_BYTES * 16, True),
        (INDEXED_MEMBERS, MEMBER_BYTES * INDEXED_MEMBERS, True),
        (INDEXED_MEMBERS + 1, MEMBER_BYTES * INDEXED_MEMBERS * 2, False),
    ],
)
def test_a_state_that_was_cut_gets_an_index_where_a_parsed_one_does(members: int, size: int, *, is_indexed: bool) -> None:
    data, index = of(members, size)
    found = cut(data, index)
    assert found is not None
    assert (found.payload().data, found.payload().index) == (data, index if is_indexed else None)
    parsed = members_of(Payload(data)).payload()
    assert (parsed.data, parsed.index) == (data, index if is_indexed else None)


@pytest.mark.parametrize("index", [None, (5, 5)], ids=["parsed", "cut"])
def test_a_key_that_has_moved_takes_the_last_place_and_one_that_has_gone_takes_none(index: Any) -> None:
    found = members_of(Payload(b'{"a":1,"b":2}', index=index)).updated({"a": b"3"}, moved=("a", "gone"))
    assert found.payload().data == b'{"b":2,"a":3}'


def test_a_state_that_was_cut_and_emptied_is_an_empty_object() -> None:
    found = cut(b'{"a":1}', (5,))
    assert found is not None
    assert found.updated({"a": None}).payload().data == b"{}"


@pytest.mark.parametrize("data", [b"[1]", b'"a"', b"1", b"null", b"{", b""])
def test_a_state_that_is_no_object_is_refused_for_what_it_is(data: bytes) -> None:
    with pytest.raises(SessionInvalid) as caught:
        members_of(Payload(data))
    assert caught.value.reason == "state"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1}', True),
        (b"{}", True),
        (b'{"dcaf":1}', False),
        (b'["a"]', False),
        (b'{"a":1', False),
        (b'"a":1}', False),
    ],
)
def test_a_name_is_looked_for_in_the_bytes_of_an_object(data: bytes, *, expected: bool) -> None:
    assert lacks(Payload(data), b'"dcaf"') is expected


def test_in_a_state_that_cannot_be_read_nothing_is_known_to_be_absent() -> None:
    assert not lacks(Payload(None, segment=b"!"), b'"dcaf"')
