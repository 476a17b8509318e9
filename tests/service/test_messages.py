"""A message is checked when it comes in, comes back as it was, and answers a call that was made."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage

from dcaf.core.errors import ConfigurationError, DcafError, SessionTypeError, SessionValueError
from dcaf.service.links import check_links
from dcaf.service.messages import Message, pack, unpack
from tests.promises.wrong_values import VALUES as WRONG
from tests.promises.wrong_values import put_away

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES = max(50, int(2_500 * SCALE))
often = settings(max_examples=EXAMPLES, deadline=None)

SECRET = "canary-5d1f"
AT_MS = 1_767_225_600_123

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FILLED = TEXT.filter(bool)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
PARTS = st.lists(st.builds(lambda extra, kind: {**extra, "type": kind}, OBJECTS, FILLED), min_size=1, max_size=3)
CALLS = st.lists(
    st.builds(
        lambda extra, call_id, name, arguments: (
            {**extra, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        ),
        OBJECTS,
        FILLED,
        FILLED,
        TEXT,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda call: call["id"],
)


def _fixed(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


SAID = TEXT | PARTS
SHAPES = (
    _fixed({"role": st.sampled_from(["system", "developer", "user"]), "content": SAID}, name=FILLED)
    | _fixed({"role": st.just("assistant"), "content": SAID}, name=FILLED, tool_calls=CALLS)
    | _fixed({"role": st.just("assistant"), "tool_calls": CALLS}, name=FILLED)
    | _fixed({"role": st.just("tool"), "content": SAID, "tool_call_id": FILLED}, name=FILLED)
)
"""What OpenAI's chat API takes."""

MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones() | st.just(UTC))  # noqa: DTZ001 - timezones=
WHOLE = st.builds(lambda shape, more: {**shape, **more}, SHAPES, _fixed({}, metadata=OBJECTS, at=MOMENTS))

CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
EDGES = {
    "texts": ["\0", "a\0b", "😀", "\u2028", '"\\'],
    "integers": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "fractions": [1.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308],
    "others": [None, True, False, [], {}],
}


def exactly(value: Any) -> str:
    """A text that differs where 1 is not 1.0, and 0.0 not -0.0."""
    return json.dumps(value, sort_keys=True)


@often
@given(SHAPES)
@example({"role": "user", "content": [{"type": "text", "edges": EDGES}]})
@example({"role": "assistant", "tool_calls": [{**CALL, "extra_content": EDGES}]})
def test_a_dict_comes_back_exactly_as_it_came_in(shape: dict[str, Any]) -> None:
    before = exactly(shape)
    assert exactly(Message.of(shape).to_dict()) == before
    assert exactly(shape) == before, "what was given was changed"


@often
@given(WHOLE, st.integers(0, 2**40), st.integers(-62_000_000_000_000, 253_000_000_000_000))
@example({"role": "user", "content": "\0 😀", "metadata": EDGES}, 0, AT_MS)
def test_a_message_comes_back_from_its_bytes(shape: dict[str, Any], number: int, at_ms: int) -> None:
    message = Message.of(shape)
    kept = unpack(pack(message), number=number, at_ms=at_ms)
    assert exactly(kept.to_dict()) == exactly(message.to_dict())
    assert exactly(kept.metadata) == exactly(message.metadata)
    assert (kept.number, kept.at_ms) == (number, at_ms)
    assert kept == dataclasses.replace(message, number=number, at=kept.at) == message.placed(number=number, at_ms=at_ms)
    assert pack(kept) == pack(message)


def test_control_a_json_writer_that_makes_numbers_of_one_kind_is_caught() -> None:
    careless = json.loads(json.dumps(EDGES), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text))
    assert careless == EDGES
    assert exactly(careless) != exactly(EDGES)


@often
@given(WHOLE, st.none() | st.integers(0, 2**40))
def test_what_is_exported_is_read_back_equal(shape: dict[str, Any], number: int | None) -> None:
    message = Message.of({**shape, "number": number})
    assert Message.of(json.loads(json.dumps(message.to_dict(whole=True)))) == message


@often
@given(SHAPES)
def test_the_attributes_are_the_members(shape: dict[str, Any]) -> None:
    message = Message.of(shape)
    found = {name: getattr(message, name) for name in ("role", "content", "tool_call_id", "name")}
    expected = dict.fromkeys(found) | {name: value for name, value in shape.items() if name != "tool_calls"}
    assert found == expected
    assert message.tool_calls == tuple(shape.get("tool_calls", ()))


@often
@given(SHAPES)
def test_the_three_ways_to_make_a_message_agree(shape: dict[str, Any]) -> None:
    message = Message.of(shape)
    assert Message.of(message) is message
    assert Message(**{**shape, "tool_calls": tuple(shape.get("tool_calls", ()))}) == message
    assume(shape.keys() == {"role", "content"})
    assert Message.of((shape["role"], shape["content"])) == message


def test_what_the_openai_client_returns_is_taken() -> None:
    said = ChatCompletionMessage.model_validate({"role": "assistant", "content": None, "tool_calls": [CALL], "annotations": []})
    assert Message.of(said.model_dump()).to_dict() == {"role": "assistant", "tool_calls": [CALL]}
    with pytest.raises(ConfigurationError, match=r"not a ChatCompletionMessage\. Give its model_dump\(\)\."):
        Message.of(said)  # type: ignore[arg-type]


def test_members_that_say_nothing_count_as_absent() -> None:
    given: dict[str, Any] = {
        "role": "assistant",
        "content": "Yes.",
        "refusal": None,
        "tool_calls": [],
        "annotations": [],
        "name": None,
    }
    assert Message.of(given).to_dict() == {"role": "assistant", "content": "Yes."}


def test_metadata_is_for_the_application_alone() -> None:
    message = Message.of(
        {"role": "user", "content": "Hi", "metadata": {"ip": "::1"}, "number": 3, "at": "2026-01-01T01:00:00.5+01:00"}
    )
    assert message.to_dict() == {"role": "user", "content": "Hi"}
    assert message.to_dict(whole=True) == {
        "role": "user",
        "content": "Hi",
        "metadata": {"ip": "::1"},
        "number": 3,
        "at": "2026-01-01T00:00:00.500+00:00",
    }
    assert Message("user", "Hi", metadata={}).to_dict(whole=True) == {"role": "user", "content": "Hi", "metadata": {}}


def test_a_time_is_kept_in_utc_and_whole_milliseconds() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    message = Message("user", "Hi", at=datetime(2026, 1, 1, 5, 30, 0, 123_999, zone))
    assert message.at == datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)
    assert message.at_ms == AT_MS
    assert message.at.tzinfo is UTC
    assert unpack(pack(message), number=1, at_ms=AT_MS).at == message.at
    assert Message("user", "Hi").at_ms is None


def test_a_repr_says_role_and_number_and_no_content() -> None:
    message = Message(
        "assistant", SECRET, tool_calls=({**CALL, "id": SECRET},), name=SECRET, metadata={SECRET: SECRET}, at=datetime.now(UTC)
    )
    assert repr(message) == "Message(role='assistant', number=None)"
    assert repr(message.placed(number=12, at_ms=AT_MS)) == "Message(role='assistant', number=12)"


def test_a_message_is_a_copy_that_nobody_changes() -> None:
    part = {"type": "text", "text": "Hello!"}
    message = Message.of({"role": "user", "content": [part]})
    expected = {"role": "user", "content": [{"type": "text", "text": "Hello!"}]}
    part["text"] = "changed where it came from"
    assert message.content == expected["content"]
    message.content[0]["text"] = float("nan")  # type: ignore[index]
    message.to_dict()["content"][0]["text"] = "changed where it went"
    assert message.to_dict() == expected
    assert unpack(pack(message), number=1, at_ms=AT_MS).to_dict() == expected
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.role = "system"  # type: ignore[misc]
    assert not hasattr(message, "__dict__")


def test_a_message_can_be_copied_pickled_replaced_and_put_into_a_set() -> None:
    message = Message("assistant", tool_calls=(CALL,), number=4)
    assert copy.deepcopy(message) == pickle.loads(pickle.dumps(message)) == message
    assert pack(pickle.loads(pickle.dumps(message))) == pack(message)
    assert dataclasses.replace(message, content="Wait.").to_dict() == {**message.to_dict(), "content": "Wait."}
    assert len({message, copy.deepcopy(message)}) == 1
    with pytest.raises(ConfigurationError, match=r"^Message\.role takes one of"):
        dataclasses.replace(message, role=SECRET)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Any, str]] = {
    "no role": ({"content": SECRET}, "message.role is missing"),
    "an unknown role": ({"role": SECRET, "content": "x"}, 'message.role takes one of "system"'),
    "the role of functions": ({"role": "function", "name": "f", "content": "x"}, 'message.role takes one of "system"'),
    "a role that is no text": ({"role": 5, "content": SECRET}, "message.role takes one of"),
    "no content": ({"role": "user"}, "message.content is missing"),
    "None without calls": ({"role": "assistant", "content": None}, "message.content is missing"),
    "no parts": ({"role": "user", "content": []}, "message.content is missing"),
    "None of a tool": ({"role": "tool", "content": None, "tool_call_id": SECRET}, "message.content is missing"),
    "a number": ({"role": "user", "content": 5}, "message.content takes a text or a list of parts, not an int"),
    "a dict": ({"role": "user", "content": {"text": SECRET}}, "message.content takes a text or a list of parts, not a dict"),
    "a time": (("user", datetime.now(UTC)), "message.content takes a text or a list of parts, not a datetime"),
    "a part that is a text": (("user", [SECRET]), "message.content[0] takes a dict"),
    "a part without a type": (("user", [{"type": "text"}, {"text": SECRET}]), "message.content[1].type is missing"),
    "a part with another type": (("user", [{"type": 5}]), "message.content[0].type takes a text"),
    "a tool without an id": ({"role": "tool", "content": SECRET}, "message.tool_call_id is missing"),
    "an id that is no text": ({"role": "tool", "content": "x", "tool_call_id": 7}, "message.tool_call_id takes a text, not an int"),
    "an empty id": ({"role": "tool", "content": "x", "tool_call_id": ""}, "message.tool_call_id takes a text that is not empty"),
    "an id of a user": ({"role": "user", "content": "x", "tool_call_id": SECRET}, "message.tool_call_id is for a message whose"),
    "calls of a user": ({"role": "user", "content": "x", "tool_calls": [CALL]}, "message.tool_calls are for a message whose"),
    "a call that is no list": ({"role": "assistant", "tool_calls": CALL}, "message.tool_calls takes a list of calls, not a dict"),
    "an empty name": ({"role": "user", "content": "x", "name": ""}, "message.name takes a text that is not empty"),
    "an unknown member": ({"role": "assistant", "content": "x", "refusal": SECRET}, "message.refusal would be lost"),
    "a member without a name": ({"role": "user", "content": "x", 5: SECRET}, "message[5] would be lost"),
    "metadata that is no dict": ({"role": "user", "content": "x", "metadata": SECRET}, "message.metadata takes a dict, not a str"),
    "a number below 0": ({"role": "user", "content": "x", "number": -1}, "message.number takes a whole number, 0 or more"),
    "a number that is True": ({"role": "user", "content": "x", "number": True}, "message.number takes a whole number, not a bool"),
    "a time without a zone": ({"role": "user", "content": "x", "at": datetime(2026, 1, 1)}, "this one has no time zone"),  # noqa: DTZ001
    "a time before the first": (
        {"role": "user", "content": "x", "at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        "message.at takes a moment of the years 1 to 9999",
    ),
    "the text of no time": ({"role": "user", "content": "x", "at": SECRET}, "message.at takes a datetime with a time zone"),
    "a text alone": (SECRET, "message takes a Message, a dict such as"),
    "a list": ([SECRET], "message takes a Message"),
    "three things": (("user", "x", SECRET), "message takes a Message"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_message_is_refused_by_the_name_of_the_member(case: str) -> None:
    given, said = REFUSED[case]
    with pytest.raises(
        ConfigurationError, match=f"^{re.escape(said)}" if said.startswith("message") else re.escape(said)
    ) as caught:
        Message.of(given)
    assert SECRET not in str(caught.value)


WRONG_CALLS: dict[str, tuple[Any, str]] = {
    "no dict": (SECRET, " takes a dict, not a str"),
    "no id": ({"type": "function", "function": CALL["function"]}, ".id is missing"),
    "an empty id": ({**CALL, "id": ""}, ".id takes a text that is not empty"),
    "no type": ({"id": SECRET, "function": CALL["function"]}, ".type is missing"),
    "another type": ({"id": "c", "type": "custom", "custom": {"name": "f", "input": SECRET}}, '.type takes "function"'),
    "no function": ({"id": "c", "type": "function"}, ".function takes a dict with name and arguments, not None"),
    "no name": ({**CALL, "function": {"arguments": SECRET}}, ".function.name is missing"),
    "no arguments": ({**CALL, "function": {"name": SECRET}}, ".function.arguments takes a text, not None"),
    "arguments that are a dict": (
        {**CALL, "function": {"name": "f", "arguments": {"a": SECRET}}},
        ".function.arguments takes a text",
    ),
    "the id of another": (CALL, ".id is that of another call"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_a_wrong_call_is_refused_by_its_place_and_member(case: str) -> None:
    call, said = WRONG_CALLS[case]
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'messages[3].tool_calls[1]{said}')}") as caught:
        Message.of({"role": "assistant", "tool_calls": [CALL, call]}, path="messages[3]")
    assert SECRET not in str(caught.value)


NOT_STORED: dict[str, tuple[Any, str]] = {
    "NaN": (float("nan"), "is not a finite number"),
    "infinity": (float("inf"), "is not a finite number"),
    "a lone surrogate": (f"{SECRET}\ud800", "has a lone surrogate"),
    "an integer beyond 64 bits": (2**64, "is an integer beyond 64 bits"),
    "a key that is no text": ({5: SECRET}, "has a key of type int"),
    "an object": (object(), "is of type object"),
}


@pytest.mark.parametrize("case", NOT_STORED)
@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda value: {"role": "user", "content": [{"type": "text", "text": value}]}, "message.content[0].text"),
        (lambda value: {"role": "user", "content": "x", "metadata": {"a": [value]}}, "message.metadata.a[0]"),
        (lambda value: {"role": "assistant", "tool_calls": [{**CALL, "more": value}]}, "message.tool_calls[0].more"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_by_its_path(case: str, build: Callable[[Any], Any], path: str) -> None:
    value, said = NOT_STORED[case]
    with pytest.raises(SessionValueError, match=f"^{re.escape(path)}: {said}") as caught:
        Message.of(build(value))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("member", ["content", "name", "tool_call_id"])
def test_a_lone_surrogate_in_a_text_is_refused(member: str) -> None:
    with pytest.raises(SessionValueError, match=rf"^message\.{member}: has a lone surrogate"):
        Message.of({"role": "tool", "content": "x", "tool_call_id": "c1", member: "\udfff"})


def test_a_message_may_have_so_many_bytes_as_its_written_form() -> None:
    given = {"role": "user", "content": f"😀{SECRET}", "metadata": {"a": 1}}
    size = len(pack(Message.of(given)))
    assert Message.of(given, limit_bytes=size) == Message.of(Message.of(given), limit_bytes=size)
    for over in (given, Message.of(given)):
        with pytest.raises(SessionValueError, match=rf"^message has {size} bytes, and may have {size - 1}\. Keep") as caught:
            Message.of(over, limit_bytes=size - 1)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "10"])
def test_a_limit_is_a_number_of_bytes(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^limit_bytes= takes a number of bytes"):
        Message.of(("user", "x"), limit_bytes=limit)


@pytest.mark.parametrize("data", [b"", b"\xff", b"5", b"[]", b"{}", b'{"role":"user","refusal":"x"}', b'{"content":"x"}'])
@pytest.mark.parametrize(
    "look",
    [
        Message.to_dict,
        lambda message: message.role,
        lambda message: message.content,
        repr,
        lambda message: message == Message("user", "x"),
    ],
)
def test_bytes_that_are_no_message_are_refused_when_somebody_looks_at_them(data: bytes, look: Callable[[Message], Any]) -> None:
    message = unpack(data, number=9, at_ms=AT_MS)
    for _ in range(2):
        with pytest.raises(SessionTypeError, match=r"^entry 9 of the history is no message"):
            look(message)


def test_a_message_that_was_read_has_the_attributes_of_a_message_alone() -> None:
    message = unpack(pack(Message("user", "x")), number=9, at_ms=AT_MS)
    assert not hasattr(message, "refusal")
    assert {one.name for one in dataclasses.fields(message)} == {name for name in Message.__slots__ if hasattr(message, name)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.role = "system"  # type: ignore[misc]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda message: pickle.loads(pickle.dumps(message)), dataclasses.replace]
)
def test_a_message_that_nobody_has_looked_at_is_copied_as_it_is(copied: Callable[[Message], Message]) -> None:
    message = Message("assistant", "x", tool_calls=(CALL,), metadata={"a": 1})
    unseen = unpack(pack(message), number=9, at_ms=AT_MS)
    found = copied(unseen)
    assert found == message.placed(number=9, at_ms=AT_MS)
    assert (pack(found), found.at_ms) == (pack(message), AT_MS)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("member", [None, "role", "content", "tool_calls", "tool_call_id", "name", "metadata", "number", "at"])
def test_whatever_is_given_by_mistake_ends_in_an_error_of_ours(name: str, member: str | None) -> None:
    value = WRONG[name]()
    valid: dict[str, Any] = {"role": "assistant", "content": "x", "tool_calls": [CALL]}
    if member == "tool_call_id":
        valid = {"role": "tool", "content": "x"}
    try:
        Message.of(value if member is None else {**valid, member: value})
    except DcafError:
        pass
    finally:
        put_away(value)


# Calls and their results


def asks(*ids: str) -> Message:
    return Message("assistant", tool_calls=tuple({**CALL, "id": call_id} for call_id in ids))


def answers(call_id: str) -> Message:
    return Message("tool", "x", tool_call_id=call_id)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Message], list[str]]:
    """A history in which each result answers an open call, and the calls that are open in the end."""
    messages, waiting = [Message("user", "Go!")], list[str]()
    for step in draw(st.lists(st.integers(0, 3), max_size=12)):
        free = [one for one in "abcdefgh" if one not in waiting]
        if step == 0 and waiting:
            messages.append(answers(waiting.pop(draw(st.integers(0, len(waiting) - 1)))))
        elif step == 1 or not free:
            messages.append(Message("user", "And then?"))
        else:
            ids = draw(st.lists(st.sampled_from(free), unique=True, min_size=1, max_size=step + 1))
            messages.append(asks(*ids))
            waiting += ids
    return messages, waiting


@often
@given(histories(), st.data())
def test_links_hold_over_turns_as_over_the_whole_history(made: tuple[list[Message], list[str]], data: st.DataObject) -> None:
    messages, waiting = made
    assert check_links(messages) == tuple(waiting)
    cut = data.draw(st.integers(0, len(messages)))
    assert check_links(messages[cut:], check_links(messages[:cut])) == tuple(waiting)


@often
@given(histories(), st.data())
def test_a_result_that_answers_no_open_call_is_refused(made: tuple[list[Message], list[str]], data: st.DataObject) -> None:
    messages, waiting = made
    stranger = data.draw(st.sampled_from("abcdefgh").filter(lambda one: one not in waiting))
    with pytest.raises(ConfigurationError, match=rf"^messages\[{len(messages)}\]\.tool_call_id answers no open call"):
        check_links([*messages, answers(stranger)])


def test_a_call_is_answered_once_and_after_it_was_made() -> None:
    assert check_links([asks("a", "b"), answers("b")]) == ("a",)
    for wrong in ([answers("a"), asks("a")], [asks("a"), answers("a"), answers("a")], [answers("a")]):
        with pytest.raises(ConfigurationError, match="answers no open call"):
            check_links(wrong)
    assert check_links([asks("a"), answers("a"), asks("a")]) == ("a",)


def test_control_a_check_of_the_ids_alone_takes_two_results_of_one_call() -> None:
    def check_ids(messages: list[Message]) -> None:
        called = {call["id"] for message in messages for call in message.tool_calls}
        assert {message.tool_call_id for message in messages if message.role == "tool"} <= called

    check_ids([answers("a"), asks("a")])
    check_ids([asks("a"), answers("a"), answers("a")])


def test_two_open_calls_have_two_ids() -> None:
    with pytest.raises(ConfigurationError, match=r"^new\[1\]\.tool_calls\[1\]\.id is that of a call that has no result yet"):
        check_links([Message("user", "x"), asks("b", "a")], ["a"], path="new")


@pytest.mark.parametrize("wrong", [None, 5, [{"role": "user", "content": SECRET}], [None], "text"])
def test_links_are_of_messages(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^messages(\[0\])? takes a") as caught:
        check_links(wrong)
    assert SECRET not in str(caught.value)
