from __future__ import annotations

import json
import os
import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.asgi.json_sessions import count_structure, read_text
from dcaf.core.errors import MalformedJSON

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES = max(60, int(3_000 * SCALE))

SPACES = ["", "", "", " ", "\n\t", "\r\n  "]
ODD = [
    "12345678901234567890123",
    "-9223372036854775809",
    "1.0",
    "-0.0",
    "-0",
    "1e5",
    "1E+05",
    "0.1000000000000000055511151231257827",
    "true",
    "null",
    '"sess\\u0069on"',
    '"\\ud83d\\ude00 \\/ \\" {[,]}"',
    '"ünïcode \U0001f600 \u2028"',
    '{"a":1,"a":2}',
    '{"data":{"session":{"deep":1}}}',
    '[{"data":{"session":1}},{"session":{}}]',
    "[" * 80 + "]" * 80,
    "{}",
    "[]",
    '""',
]
NOISE = ["id", "Session", "session ", "Data", "mess", "a", "a", "", "ü", "messages.data"]


class Text:
    """Writes a JSON text piece by piece, and notes where its sessions stand."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.length = draw, 0
        self.pieces: list[Any] = []
        self.top: list[Any] = []
        self.in_messages: list[Any] = []

    def write(self, piece: Any) -> None:
        self.pieces.append(piece)
        self.length += len(piece)

    def space(self) -> None:
        self.write(self.draw(st.sampled_from(SPACES)))

    def name(self, name: Any) -> None:
        escaped = self.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
        self.write('"' + "".join(f"\\u{ord(c):04x}" if e else c for c, e in zip(name, escaped, strict=True)) + '"')

    def object(self, members: Any) -> Any:
        """Write members, each a name and a function that writes its value; gives (begin, start, end) of each."""
        found = []
        self.write("{")
        for at, (name, value) in enumerate(members):
            self.space()
            begin = self.length
            self.name(name)
            self.space()
            self.write(":")
            self.space()
            start = self.length
            value()
            found.append((begin, start, self.length))
            self.space()
            if at + 1 < len(members):
                self.write(",")
        if not members:
            self.space()
        self.write("}")
        return found

    def noise(self, names: Any = tuple(NOISE)) -> Any:
        picked = self.draw(st.lists(st.sampled_from(names), max_size=3))
        return [(name, self.odd) for name in picked]

    def odd(self) -> None:
        self.write(self.draw(st.sampled_from(ODD)))

    def data(self, into: Any) -> None:
        """Write the value of a member ``data``."""
        if self.draw(st.integers(0, 5)) == 0:
            self.odd_scalar()
            return
        members = self.noise((*NOISE, "data", "messages"))
        has = self.draw(st.booleans())
        if has:
            members.insert(self.draw(st.integers(0, len(members))), ("session", self.odd))
        spans = self.object(members)
        into.extend(span for span, (name, _) in zip(spans, members, strict=True) if name == "session")

    def odd_scalar(self) -> None:
        self.write(self.draw(st.sampled_from(["null", "1.50", '"session"', '[{"session":1}]', "false"])))

    def message(self) -> None:
        if self.draw(st.integers(0, 5)) == 0:
            self.odd_scalar()
            return
        into: list[Any] = []
        members = self.noise((*NOISE, "session", "messages"))
        if self.draw(st.booleans()):
            members.insert(self.draw(st.integers(0, len(members))), ("data", lambda: self.data(into)))
        self.object(members)
        self.in_messages.extend(into)

    def messages(self) -> None:
        self.write("[")
        count = self.draw(st.integers(0, 4))
        for at in range(count):
            self.space()
            self.message()
            self.space()
            if at + 1 < count:
                self.write(",")
        self.write("]")

    def document(self) -> Any:
        members = self.noise((*NOISE, "session"))
        for name, value in (("data", lambda: self.data(self.top)), ("messages", self.messages)):
            if self.draw(st.booleans()):
                members.insert(self.draw(st.integers(0, len(members))), (name, value))
        self.space()
        self.object(members)
        self.space()
        return "".join(self.pieces), self.top + self.in_messages[::-1]


@st.composite
def documents(draw: Any) -> Any:
    return Text(draw).document()


class Obj(list[Any]):
    """The members of an object in order, repeated ones too."""


def tree(text: Any) -> Any:
    """Everything that a text says, numbers as they are written."""
    return json.loads(text, object_pairs_hook=Obj, parse_int=lambda n: ("n", n), parse_float=lambda n: ("n", n))


def on_path(value: Any, change: Any) -> Any:
    """The tree with ``change`` applied to the members of every object ``data`` on the path."""

    def in_data(item: Any) -> Any:
        if not isinstance(item, Obj):
            return item
        return Obj((n, Obj(change(v)) if n == "data" and isinstance(v, Obj) else v) for n, v in item)

    top = in_data(value)
    return Obj(
        (n, [in_data(item) for item in v] if n == "messages" and isinstance(v, list) and not isinstance(v, Obj) else v)
        for n, v in top
    )


def without_sessions(members: Any) -> Any:
    return [(n, v) for n, v in members if n != "session"]


def assert_cut(text: Any, spans: Any, after: Any) -> None:
    """The sessions are gone, and beside their members no more than white space and one comma each."""
    at = 0
    pattern = []
    for begin, _, end in sorted(spans):
        pattern.append(re.escape(text[at:begin].rstrip(" \t\r\n,")) + r"[ \t\r\n]*,?[ \t\r\n]*")
        gap = re.match(r"[ \t\r\n]*,?[ \t\r\n]*", text[end:])
        assert gap is not None
        at = end + len(gap.group())
    pattern.append(re.escape(text[at:]))
    assert re.fullmatch("".join(pattern), after)
    assert tree(after) == on_path(tree(text), without_sessions)


def in_bytes(text: str, span: Any) -> tuple[int, ...]:
    """Positions of characters as positions of bytes."""
    return tuple(len(text[:at].encode()) for at in span)


def replaced(data: bytes, value: bytes) -> bytes:
    """The text with a value in the place of every session, one after the other."""
    for index in range(len(read_text(data).find_sessions())):
        body = read_text(data)
        places = sorted(body.find_sessions(), key=lambda place: place.start)
        data = body.rewrite(places[index : index + 1], places[index], value)
    return data


@given(documents())
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_sessions_are_found_where_they_were_written_and_nowhere_else(written: Any) -> None:
    text, spans = written
    found = read_text(text.encode()).find_sessions()
    assert [(place.start, place.end) for place in found] == [in_bytes(text, span)[1:] for span in spans]
    assert [place.value for place in found] == [orjson.loads(text[start:end]) for _, start, end in spans]


@given(documents(), st.binary(max_size=0) | st.just(b'{"n":1}'), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_replacing_all_sessions_changes_no_other_byte(written: Any, value: Any, data: Any) -> None:
    text, spans = written
    value = value or b"{}"
    after = replaced(text.encode(), value).decode()
    expected, at = "", 0
    for _, start, end in sorted(spans):
        expected += text[at:start] + value.decode()
        at = end
    assert after == expected + text[at:]


@given(documents())
@settings(max_examples=EXAMPLES, deadline=None)
def test_cutting_all_sessions_changes_no_other_byte(written: Any) -> None:
    text, spans = written
    body = read_text(text.encode())
    assert_cut(text, spans, body.rewrite(body.find_sessions(), None, b"").decode())


@given(documents())
@settings(max_examples=EXAMPLES, deadline=None)
def test_keeping_one_session_cuts_exactly_the_others(written: Any) -> None:
    text, spans = written
    body = read_text(text.encode())
    places = body.find_sessions()
    for kept in places:
        after = body.rewrite(places, kept, b'"KEPT"').decode()
        start, end = (len(text.encode()[:at].decode()) for at in (kept.start, kept.end))
        mark = text[:start] + '"KEPT"' + text[end:]
        moved = len('"KEPT"') - (end - start)
        others = [tuple(n + moved if n > start else n for n in span) for span in spans if span[1] != start]
        assert after.count('"KEPT"') == 1
        at, pieces = 0, []
        for begin, _, end in sorted(others):
            pieces.append(mark[at:begin])
            at = end
        pieces.append(mark[at:])
        squeeze = re.compile(r"[ \t\r\n,]+")
        assert squeeze.sub("", after) == squeeze.sub("", "".join(pieces))
        json.loads(after)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda text: json.dumps(_cut(json.loads(text))), id="parsed and written by json"),
        pytest.param(lambda text: orjson.dumps(_cut(orjson.loads(text))).decode(), id="parsed and written by orjson"),
        pytest.param(lambda text: text.replace('"session": {"n": 1}, ', ""), id="literal names only"),
    ],
)
def test_control_a_rewriter_that_writes_anew_or_looks_for_the_literal_name_is_caught(broken: Any) -> None:
    text = '{"a":1,"a":2, "big":12345678901234567890123, "f":1e5, "data": {"sess\\u0069on": {"n": 1}, "x":1.0}}'
    begin, start = text.index('"sess'), text.index('{"n"')
    spans = [(begin, start, start + len('{"n": 1}'))]
    assert_cut(text, spans, read_text(text.encode()).rewrite(read_text(text.encode()).find_sessions(), None, b"").decode())
    with pytest.raises(AssertionError):
        assert_cut(text, spans, broken(text))


def _cut(value: Any) -> Any:
    value["data"].pop("session", None)
    return value


# Precedence and refusals


def test_the_top_level_stands_first_then_the_messages_from_the_last_backwards() -> None:
    body = read_text(b'{"messages":[{"data":{"session":1}},7,{"data":{"session":2}}],"data":{"session":0}}')
    assert [place.value for place in body.find_sessions()] == [0, 2, 1]


@pytest.mark.parametrize(
    "text",
    [
        '{"data":{"session":1,"session":2}}',
        '{"data":{"session":1,"sess\\u0069on":2}}',
        '{"data":{"session":1},"data":{}}',
        '{"data":{},"data":{"session":1}}',
        '{"data":1,"data":{"session":1}}',
        '{"data":{"session":1},"d\\u0061ta":null}',
        '{"messages":[{"data":{"session":1}}],"messages":[]}',
        '{"messages":[],"messages":[{"data":{"session":1}}]}',
        '{"messages":[{"data":{"session":1}}],"messages":null}',
        '{"messages":{},"messages":[{"data":{"session":1}}]}',
        '{"messages":[{"data":{"session":1},"data":2}]}',
        '{"messages":[{"data":{"session":1,"session":1}}]}',
    ],
)
def test_a_member_repeated_on_the_way_to_a_session_is_refused(text: Any) -> None:
    with pytest.raises(MalformedJSON):
        read_text(text.encode()).find_sessions()


@pytest.mark.parametrize(
    "text",
    [
        '{"data":{},"data":null}',
        '{"messages":[],"messages":[{}]}',
        '{"a":1,"a":2,"data":{"session":1,"x":1,"x":2}}',
        '{"session":1,"session":2}',
    ],
)
def test_a_member_repeated_elsewhere_is_not_our_business(text: Any) -> None:
    assert replaced(text.encode(), b"1") == text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b"{,}",
        b'{"a":"\x01"}',
        b"{} \0",
        b"",
    ],
)
def test_what_a_strict_parser_refuses_is_malformed(data: Any) -> None:
    with pytest.raises(MalformedJSON):
        read_text(data)


@pytest.mark.parametrize("depth", [900, 1000, 1010, 1020, 1100, 5000, 100_000])
@pytest.mark.parametrize("bracket", ["[]", '{"a":1}'])
def test_depth_is_either_read_or_malformed_never_another_error(depth: Any, bracket: Any) -> None:
    opening, closing = ("[", "]") if bracket == "[]" else ('{"a":', "}")
    core = "" if bracket == "[]" else "1"
    data = ('{"data":{"session":{}},"x":' + opening * depth + core + closing * depth + "}").encode()
    try:
        assert len(read_text(data).find_sessions()) == 1
    except MalformedJSON:
        assert depth > 900


def test_a_very_long_number_costs_no_more_than_its_length() -> None:
    body = read_text(b'{"data":{"session":{"n":0.' + b"1" * 1_000_000 + b"}}}")
    assert len(body.find_sessions()) == 1


def test_structure_counts_braces_brackets_and_commas() -> None:
    assert count_structure(b'{"a":[1,2],"b":{}}') == 5


# Answers


def framed(before_tree: Any, envelope: Any) -> Any:
    """What the tree of an answer is with an envelope in it; the place of a made member is not looked at."""

    def in_data(members: Any) -> Any:
        rest = [(n, v) for n, v in members if n != "session"]
        return sorted([*rest, ("session", envelope)], key=repr)

    rest = [(n, v) for n, v in before_tree if n != "data"]
    data = [v for n, v in before_tree if n == "data"]
    members = data[0] if data and data[0] is not None else []
    return sorted([*rest, ("data", in_data(members))], key=repr)


@given(documents())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_frame_sets_the_session_and_keeps_every_other_byte(written: Any) -> None:
    text, spans = written
    body = read_text(text.encode())
    frame = body.split_at_session()
    data = [v for n, v in tree(text) if n == "data"]
    if data and not isinstance(data[0], Obj) and data[0] is not None:
        assert frame is None
        return
    assert frame is not None
    before, after = (part.decode() for part in frame)
    found = tree(before + '{"n":7}' + after)
    got = sorted([(n, sorted(v, key=repr) if n == "data" else v) for n, v in found], key=repr)
    assert got == framed(tree(text), Obj([("n", ("n", "7"))]))
    assert any(_kept(text, spans, (before, after), wrap) for wrap in WRAPS), (before, after)


WRAPS = [
    (made + extra, closing + comma)
    for made, closing in (('"data":{"session":', "}"), ('{"session":', "}"), ('"session":', ""))
    for extra, comma in (("", ""), ("", ","))
]


def _kept(text: Any, spans: Any, frame: Any, wrap: Any) -> Any:
    """Whether the answer is its old text with one wrapping put in, or with the old session's value replaced."""
    (before, after), (opening, closing) = frame, wrap
    if spans and text[: spans[0][1]] == before and text[spans[0][2] :] == after:
        return True
    if not (before.endswith(opening) and after.startswith(closing)):
        return False
    head, tail = before.removesuffix(opening), after.removeprefix(closing)
    replaced = text[len(head) : len(text) - len(tail)]
    return text.startswith(head) and text.endswith(tail) and replaced == ("null" if opening == '{"session":' else "")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        '"x"',
        "null",
        '{"data":1}',
        '{"data":[]}',
        '{"data":{},"data":{}}',
        '{"data":null,"data":null}',
        '{"data":{"session":1,"sess\\u0069on":2}}',
    ],
)
def test_where_a_session_cannot_stand_there_is_no_frame(text: Any) -> None:
    assert read_text(text.encode()).split_at_session() is None


@pytest.mark.parametrize("depth", [900, 1000, 1010, 1020])
def test_a_deep_answer_has_a_frame_or_none_never_an_error(depth: Any) -> None:
    text = read_text(b'{"x":' + b"[" * depth + b"]" * depth + b"}")
    frame = text.split_at_session()
    assert frame is None or json.loads(frame[0][:1] + b"}") == {}
