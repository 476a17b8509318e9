"""What a client holds after an answer that broke off."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcaf.core import ConfigurationError
from dcaf.testing import cut, held

LINES = "application/x-ndjson"
EVENTS = "text/event-stream; charset=utf-8"
OLD = {"n": 0}


def event(n: Any) -> str:
    return json.dumps({"type": "session", "data": {"session": {"n": n}}})


def after(content_type: str, text: str, **options: Any) -> Any:
    return held(content_type, text.encode(), OLD, **options)


def test_a_body_is_cut_at_every_place_it_has_and_at_no_other() -> None:
    assert [cut(b"abc", at) for at in range(4)] == [b"", b"a", b"ab", b"abc"]
    for at in (-1, 4):
        with pytest.raises(ConfigurationError, match="a body of 3 bytes cannot be cut at"):
            cut(b"abc", at)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"])
def test_a_json_answer_counts_only_when_all_of_it_has_come(content_type: str) -> None:
    text = event(1)
    assert all(after(content_type, text[:at]) == OLD for at in range(len(text)))
    assert after(content_type, text) == {"n": 1}


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/octet-stream"])
def test_other_answers_have_no_session(content_type: str) -> None:
    assert after(content_type, event(1) + "\n\n") == OLD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "1",
        '"x"',
        "{}",
        '{"data":null}',
        '{"data":[]}',
        '{"data":{}}',
        '{"data":{"session":null}}',
        '{"data":{"session":[]}}',
        '{"session":{"n":1}}',
        '{"data":{"session":{"n":NaN}}}',
        "{",
    ],
)
def test_an_event_without_an_object_at_data_session_changes_nothing(text: str) -> None:
    assert after("application/json", text) == OLD
    assert after(LINES, f"{text}\n") == OLD
    assert after(EVENTS, f"data: {text}\n\n") == OLD


def test_an_empty_object_is_an_object() -> None:
    assert after("application/json", '{"data":{"session":{}}}') == {}


def test_without_an_old_session_a_cut_answer_leaves_none() -> None:
    assert held(LINES, b"", None) is None


@pytest.mark.parametrize(
    "content_type", ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"]
)
def test_the_last_line_with_a_session_wins(content_type: str) -> None:
    assert after(content_type, f'{event(1)}\n{event(2)}\n{{"type":"done"}}\n') == {"n": 2}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_line_counts_from_its_line_feed_on(end: str) -> None:
    text = event(1) + end + event(2) + end
    seen = [after(LINES, text[:at])["n"] for at in range(len(text) + 1)]
    first, second = text.index("\n") + 1, text.index("\n", text.rindex("{")) + 1
    assert [seen.index(n) for n in (0, 1, 2)] == [0, first, second]
    assert seen == sorted(seen)


def test_a_last_line_without_its_line_feed_counts_only_where_the_answer_ended_by_itself() -> None:
    text = f"{event(1)}\n{event(2)}"
    assert after(LINES, text) == {"n": 1}
    assert after(LINES, text, whole=True) == {"n": 2}


def test_a_line_that_is_no_json_is_passed_over() -> None:
    assert after(LINES, f"{event(1)}\nnot json\n") == {"n": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_event_counts_from_its_empty_line_on(end: str) -> None:
    text = f"event: session{end}data: {event(1)}{end}{end}: ping{end}{end}data: {event(2)}{end}{end}"
    seen = [after(EVENTS, text[:at])["n"] for at in range(len(text) + 1)]
    short = end[:1]  # a carriage return ends its line at once
    ends = [text.index(json_ + end + short) + len(json_ + end + short) for json_ in (event(1), event(2))]
    assert [seen.index(n) for n in (0, 1, 2)] == [0, *ends]
    assert seen == sorted(seen)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_lines_of_an_event_are_joined(end: str) -> None:
    lines = ['data: {"data":', 'data:{"session":', "id: 7", 'data:  {"n":', "data: 1}}", "data", "data: }", "", ""]
    assert after(EVENTS, end.join(lines)) == {"n": 1}


def test_a_line_feed_joins_them_so_that_two_numbers_stay_two() -> None:
    assert after(EVENTS, 'data: {"data":{"session":{"n":1\ndata:2}}}\n\n') == OLD


def test_an_incomplete_last_event_is_ignored_even_where_the_answer_ended_by_itself() -> None:
    text = f"data: {event(1)}\n\ndata: {event(2)}\n"
    assert after(EVENTS, text) == {"n": 1}
    assert after(EVENTS, text, whole=True) == {"n": 1}


def test_comments_other_fields_and_a_byte_order_mark_are_no_data() -> None:
    text = f"\ufeffdata: {event(1)}\nretry: 5\n: data: x\nDATA: x\ndatax: x\n\ndata: [DONE]\n\n"
    assert after(EVENTS, text) == {"n": 1}
    assert after(EVENTS, f"x: y\n: {event(1)}\nbody: {event(1)}\n\n") == OLD
