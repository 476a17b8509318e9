"""Laws of what cuts a stream, against a reader of the HTML standard's event stream that is slow and obvious."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcaf.asgi.framing import LINE_FEED, Cutter, EventStream, Lines, LineStream, Piece

Make = Callable[[int], Cutter]
Event = tuple[str | None, bytes]

MARK = b"\xef\xbb\xbf"
WIDE = 100_000
OWN = b'{"type":"session","data":{"session":{"n":1}}}'
ENDS = [b"\n", b"\r", b"\r\n"]
WORDS = [
    *ENDS,
    *ENDS,
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r",
    b"\n\r\n",
    b"data",
    b"data:",
    b"data: ",
    b"data:  ",
    b"data: [DONE]",
    b'data: {"type":"done"}',
    b'{"type":"done"}',
    b"event: done",
    b"event:",
    b"event: \xc3\xa9",
    b"event: \xff",
    b"id: 7",
    b"retry: 5",
    b"retry",
    b": ping",
    b"\xc3\xa9\xf0\x9f\x98\x80",
    b"\xe2\x80\xa8\xc2\x85\x0b\x0c",
    b"\xc3",
    b" ",
    b":",
    b"x" * 30,
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(b"".join)
EVENT_TEXTS = st.tuples(st.sampled_from([b"", b"", MARK]), TEXTS).map(b"".join)
SIZES = st.lists(st.integers(0, 9), max_size=12)


def chunked(text: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The text in chunks of these sizes, some of them empty; what is left comes last."""
    chunks, at = [], 0
    for size in sizes:
        chunks.append(text[at : at + size])
        at += size
    return [*chunks, text[at:]]


# The reference


def lines_of(text: bytes) -> list[bytes]:
    """The complete lines, without their ends: a carriage return, a line feed or both."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]


def standard(text: bytes) -> list[Event]:
    """The events of a stream (HTML, 9.2.6), and those that have a name and no data, which a browser would not dispatch."""
    found: list[Event] = []
    name: str | None = None
    data: list[bytes] = []
    for line in lines_of(text.removeprefix(MARK)):
        if line == b"":
            if data or name is not None:
                found.append((name or None, b"\n".join(data)))
            name, data = None, []
        elif line.startswith(b":"):
            continue
        else:
            field, value = line.split(b":", 1) if b":" in line else (line, b"")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode(errors="replace")
            elif field == b"data":
                data.append(value)
    return found


def json_lines(text: bytes) -> list[Event]:
    """The complete lines that are not blank; a line feed alone ends one."""
    return [(None, line + b"\n") for line in text.split(b"\n")[:-1] if line.strip()]


def incomplete_event(text: bytes) -> bytes:
    """What follows the last event, comment or time to reconnect that is complete."""
    start, inside = 0, False
    for found in re.finditer(rb"[^\r\n]*(?:\r\n|\r|\n)", text):
        line = found[0].rstrip(b"\r\n")
        inside = bool(line) and (inside or not line.startswith((b":", b"retry:")))
        start = start if inside else found.end()
    return text[start:]


def incomplete_line(text: bytes) -> bytes:
    return text.rpartition(b"\n")[2]


REFERENCE: dict[Any, tuple[Callable[[bytes], list[Event]], Callable[[bytes], bytes]]] = {
    LineStream: (json_lines, incomplete_line),
    EventStream: (standard, incomplete_event),
}
BOTH = pytest.mark.parametrize("kind", [LineStream, EventStream])


# The laws: each takes the cutter, so that a broken one can be given


def events_of(pieces: Iterable[Piece]) -> list[Event]:
    return [(piece.name or None, piece.data) for piece in pieces if piece.data is not None]


def no_byte_is_lost_or_changed(make: Make, chunks: list[bytes], limit: int = WIDE) -> None:
    cutter = make(limit)
    given = b"".join(piece.raw for chunk in chunks for piece in cutter.feed(chunk))
    assert given + cutter.rest().raw == b"".join(chunks)
    assert cutter.rest().raw == b""


def the_events_are_those_of_the_reference(make: Make, kind: Any, chunks: list[bytes]) -> None:
    cutter = make(WIDE)
    pieces = [piece for chunk in chunks for piece in cutter.feed(chunk)]
    assert events_of(pieces) == REFERENCE[kind][0](b"".join(chunks))


def an_event_comes_with_its_last_byte(make: Make, kind: Any, text: bytes) -> None:
    events, incomplete = REFERENCE[kind]
    cutter, given, found = make(WIDE), b"", 0
    for at in range(len(text)):
        pieces = cutter.feed(text[at : at + 1])
        given += b"".join(piece.raw for piece in pieces)
        found += len(events_of(pieces))
        assert found == len(events(text[: at + 1]))
        assert text[: at + 1] == given + incomplete(text[: at + 1])


def our_event_stands_between_theirs(make: Make, kind: Any, chunks: list[bytes], at: int, limit: int) -> None:
    """Written where the cutter says that it can be, an event of ours takes nothing from theirs."""
    cutter, out, is_in = make(limit), b"", False
    own = cutter.write_event("session", OWN)
    for index, chunk in enumerate(chunks):
        out += b"".join(piece.raw for piece in cutter.feed(chunk))
        if index >= at and not is_in and cutter.is_between:
            out, is_in = out + own, True
    found = REFERENCE[kind][0](out + cutter.rest().raw)
    assert with_own(kind, found, is_in=is_in) == REFERENCE[kind][0](b"".join(chunks))


def our_event_can_be_read_at_the_end(make: Make, kind: Any, chunks: list[bytes], limit: int) -> None:
    cutter = make(limit)
    given = b"".join(piece.raw for chunk in chunks for piece in cutter.feed(chunk))
    rest = cutter.rest().raw
    out = given + cutter.close(rest, cutter.write_event("session", OWN))
    theirs = REFERENCE[kind][0](b"".join(chunks))
    found = with_own(kind, REFERENCE[kind][0](out), is_in=True)
    assert found[: len(theirs)] == theirs
    assert len(found) <= len(theirs) + 1  # what nothing ended may have become an event


def with_own(kind: Any, found: list[Event], *, is_in: bool) -> list[Event]:
    own: Event = ("session", OWN) if kind is EventStream else (None, OWN + b"\n")
    assert found.count(own) == is_in
    return [event for event in found if event != own]


@BOTH
@given(text=EVENT_TEXTS, sizes=SIZES, limit=st.sampled_from([1, 2, 5, 16, WIDE]))
@settings(max_examples=150, deadline=None)
def test_the_pieces_and_the_rest_are_the_stream_whatever_the_chunks_and_the_limit(
    kind: Any, text: bytes, sizes: list[int], limit: int
) -> None:
    no_byte_is_lost_or_changed(kind, chunked(text, sizes), limit)


@BOTH
@given(text=EVENT_TEXTS, sizes=SIZES)
@example(text=b"event: done\r\ndata: {}\r\n\r\n", sizes=[12, 0, 1])
@settings(max_examples=150, deadline=None)
def test_the_events_are_those_of_the_standard_whatever_the_chunks(kind: Any, text: bytes, sizes: list[int]) -> None:
    the_events_are_those_of_the_reference(kind, kind, chunked(text, sizes))


@BOTH
@given(text=TEXTS)
@settings(max_examples=80, deadline=None)
def test_an_event_is_given_with_its_last_byte_and_nothing_but_an_incomplete_one_is_held(kind: Any, text: bytes) -> None:
    an_event_comes_with_its_last_byte(kind, kind, text)


@BOTH
@given(text=TEXTS, sizes=SIZES, at=st.integers(0, 8), limit=st.sampled_from([1, 5, 16, WIDE]))
@example(text=b"data: a\r\ndata: b\r\n\r\n", sizes=[8, 0, 1], at=2, limit=WIDE)
@settings(max_examples=150, deadline=None)
def test_an_event_of_ours_between_theirs_takes_nothing_from_them(
    kind: Any, text: bytes, sizes: list[int], at: int, limit: int
) -> None:
    our_event_stands_between_theirs(kind, kind, chunked(text, sizes), at, limit)


@BOTH
@given(text=TEXTS, sizes=SIZES, limit=st.sampled_from([1, 5, 16, WIDE]))
@settings(max_examples=150, deadline=None)
def test_an_event_of_ours_at_the_end_can_be_read_whatever_was_left(kind: Any, text: bytes, sizes: list[int], limit: int) -> None:
    our_event_can_be_read_at_the_end(kind, kind, chunked(text, sizes), limit)


@BOTH
def test_an_event_split_in_the_middle_of_a_letter_is_whole_again(kind: Any) -> None:
    text = 'data: {"text":"é😀"}\n\n'.encode() if kind is EventStream else '{"text":"é😀"}\n'.encode()
    for at in range(len(text) + 1):
        the_events_are_those_of_the_reference(kind, kind, [text[:at], text[at:]])


# An empty chunk and a byte order mark


@pytest.mark.parametrize("empty", [[], [b""], [b"", b""]], ids=["none", "one", "two"])
def test_an_empty_chunk_between_carriage_return_and_line_feed_ends_no_event(empty: list[bytes]) -> None:
    cutter = EventStream(WIDE)
    chunks = [b"event: done\r", *empty, b"\ndata: {}\r", *empty, b"\n\r", *empty, b"\n"]
    pieces = [piece for chunk in chunks for piece in cutter.feed(chunk)]
    assert events_of(pieces) == [("done", b"{}")]


def test_a_byte_order_mark_counts_before_the_first_line_alone() -> None:
    text = MARK + b"data: 1\n\n" + MARK + b"data: 2\n\ndata: 3\n\n"
    assert standard(text) == [(None, b"1"), (None, b"3")]
    the_events_are_those_of_the_reference(EventStream, EventStream, [text])


# The limit


def held_bytes(cutter: Cutter, chunks: Iterable[bytes]) -> int:
    """The most that was held after any chunk."""
    most = now = 0
    for chunk in chunks:
        now += len(chunk) - sum(len(piece.raw) for piece in cutter.feed(chunk))
        most = max(most, now)
    return most


@BOTH
@pytest.mark.parametrize("size", [1, 7])
def test_no_more_than_twice_the_limit_is_held_of_an_event_that_never_ends(kind: Any, size: int) -> None:
    lines = [b"data: " + b"x" * 90 + b"\n"] * 100 if kind is EventStream else [b"x" * 9_700]
    text = b"".join(lines)
    assert held_bytes(kind(200), chunked(text, [size] * (len(text) // size))) <= 2 * 200


@BOTH
@pytest.mark.parametrize("size", [1, 3, WIDE])
def test_an_event_over_the_limit_is_not_looked_at_however_it_comes(kind: Any, size: int) -> None:
    long = b'{"type":"done","text":"' + b"x" * 100 + b'"}'
    text = (b"data: %b\n\ndata: 1\n\n" if kind is EventStream else b"%b\n1\n") % long
    cutter = kind(50)
    pieces = [piece for chunk in chunked(text, [size] * (len(text) // size)) for piece in cutter.feed(chunk)]
    assert [data.strip() for _, data in events_of(pieces)] == [b"1"]


@pytest.mark.parametrize(
    ("kind", "chunks"),
    [
        (LineStream, [b'{"text":"' + b"x" * 100, b'{"type":"done"}']),
        (LineStream, [b"x" * 100, b"[DONE]"]),
        (EventStream, [b"data: " + b"x" * 100 + b"\n", b'data: {"type":"done"}']),
        (EventStream, [b"data: " + b"x" * 100 + b"\n", b"data: [DONE]"]),
    ],
)
def test_the_rest_of_an_event_over_the_limit_is_no_event(kind: Any, chunks: list[bytes]) -> None:
    cutter = kind(50)
    assert not events_of([piece for chunk in chunks for piece in cutter.feed(chunk)])
    assert cutter.rest() == Piece(chunks[1], is_part=kind is LineStream)


@BOTH
def test_after_an_event_over_the_limit_the_next_is_looked_at(kind: Any) -> None:
    parts = [b"data: xxxxxxxx\r", b"\n", b"\r", b"\n"] if kind is EventStream else [b"xxxxxxxx", b"xxxxxxxx", b"\n"]
    cutter = kind(6)
    for part in parts[:-1]:
        cutter.feed(part)
    assert cutter.is_between == (kind is EventStream)  # a carriage return is an empty line already
    cutter.feed(parts[-1])
    assert cutter.is_between
    ended = b"data\n\n" if kind is EventStream else b"1\n"
    assert len(events_of(cutter.feed(ended))) == 1


# An event with another text


FIELDS = [b"event: done", b"id: 7", b": note", b"retry: 5", b"datum: 1", b"data_", b"dat"]
DATA_LINES = [b"data: a", b"data:b", b"data", b"data:", b"data:  c", b"data:  d:e"]


def replaced_changes_the_data_lines_alone(make: Make, lines: list[bytes], ends: list[bytes], texts: list[bytes]) -> None:
    raw = b"".join(line + end for line, end in zip(lines, ends, strict=True)) + b"\n"
    cutter = make(WIDE)
    (piece,) = [found for found in cutter.feed(b"data: first\n\n" + raw) if found.data is not None][1:]
    found = cutter.replace_data(piece, b"\n".join(texts))
    assert [data for _, data in standard(found)] == [b"\n".join(texts)]
    kept, theirs = [
        [line for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)", whole) if not re.match(rb"data(?::|[\r\n])", line)]
        for whole in (found, piece.raw)
    ]
    assert kept == theirs
    given = len(lines_of(piece.raw)) - len(lines_of(found))
    assert given == sum(line in DATA_LINES for line in lines) - len(texts)


@st.composite
def rewritings(draw: Any) -> tuple[list[bytes], list[bytes], list[bytes]]:
    lines = draw(st.lists(st.sampled_from(FIELDS + DATA_LINES), min_size=1, max_size=8))
    lines = [draw(st.sampled_from(DATA_LINES)), *lines]
    ends = [draw(st.sampled_from([b"\n", b"\r\n"])) for _ in lines]
    number = draw(st.integers(1, sum(line in DATA_LINES for line in lines)))
    return lines, ends, draw(st.lists(st.sampled_from([b"", b"x", b'{"a":1}', b"y: z"]), min_size=number, max_size=number))


@given(rewritings())
@settings(max_examples=150, deadline=None)
def test_another_text_changes_the_data_lines_alone(case: tuple[list[bytes], list[bytes], list[bytes]]) -> None:
    replaced_changes_the_data_lines_alone(EventStream, *case)


def test_a_line_of_ndjson_is_its_text() -> None:
    cutter = LineStream(WIDE)
    (piece,) = cutter.feed(b' {"a":1} \r\n')
    assert piece == Piece(b' {"a":1} \r\n', data=b' {"a":1} \r\n')
    assert cutter.replace_data(piece, b' {"a":2} \r\n') == b' {"a":2} \r\n'


# Controls: a broken cutter fails the same laws


class AtLineFeeds(EventStream):
    """Broken: a carriage return ends no line."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._lines = Lines(LINE_FEED, limit_bytes)


class OneChunkBehind(EventStream):
    """Broken: it waits for the next chunk before it gives what the last one completed."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._waiting: list[Piece] = []

    def feed(self, chunk: bytes) -> list[Piece]:
        given, self._waiting = self._waiting, super().feed(chunk)
        return given


class OneLineBehind(LineStream):
    """Broken likewise, for lines."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._waiting: list[Piece] = []

    def feed(self, chunk: bytes) -> list[Piece]:
        given, self._waiting = self._waiting, super().feed(chunk)
        return given


class Tidy(EventStream):
    """Broken: it leaves out what is no event."""

    def feed(self, chunk: bytes) -> list[Piece]:
        return [piece for piece in super().feed(chunk) if piece.data is not None]


class Writer(EventStream):
    """Broken: it writes an event anew."""

    def replace_data(self, _piece: Piece, data: bytes) -> bytes:
        return self.write_event(_piece.name or "message", data.replace(b"\n", b"\ndata: "))


class Reckless(EventStream):
    """Broken: it says that an event of ours can stand anywhere."""

    @property
    def is_between(self) -> bool:
        return True


class RecklessLines(LineStream):
    """Broken likewise, for lines."""

    @property
    def is_between(self) -> bool:
        return True


def test_control_a_cutter_at_line_feeds_is_caught() -> None:
    with pytest.raises(AssertionError):
        the_events_are_those_of_the_reference(AtLineFeeds, EventStream, [b"data: a\r\rdata: b\r\r"])
    with pytest.raises(AssertionError):
        an_event_comes_with_its_last_byte(AtLineFeeds, EventStream, b"data: a\r\rdata: b\n\n")


@pytest.mark.parametrize(("broken", "kind"), [(OneChunkBehind, EventStream), (OneLineBehind, LineStream)])
def test_control_a_cutter_that_waits_for_the_next_chunk_is_caught(broken: Any, kind: Any) -> None:
    with pytest.raises(AssertionError):
        an_event_comes_with_its_last_byte(broken, kind, b"data: a\n\ndata: b\n\n")
    with pytest.raises(AssertionError):
        no_byte_is_lost_or_changed(broken, [b"data: a\n\n"])


def test_control_a_cutter_that_leaves_out_comments_is_caught() -> None:
    with pytest.raises(AssertionError):
        no_byte_is_lost_or_changed(Tidy, [b": ping\n\ndata: a\n\n"])


def test_control_a_cutter_that_writes_an_event_anew_is_caught() -> None:
    with pytest.raises(AssertionError):
        replaced_changes_the_data_lines_alone(Writer, [b"id: 7", b"data: a"], [b"\n", b"\r\n"], [b"x"])


@pytest.mark.parametrize(("broken", "kind"), [(Reckless, EventStream), (RecklessLines, LineStream)])
def test_control_a_cutter_that_lets_our_event_into_theirs_is_caught(broken: Any, kind: Any) -> None:
    chunks = [b"data: " + b"x" * 20, b"y\n\n"]
    our_event_stands_between_theirs(kind, kind, chunks, 0, 5)
    with pytest.raises(AssertionError):
        our_event_stands_between_theirs(broken, kind, chunks, 0, 5)
    with pytest.raises(AssertionError):
        our_event_can_be_read_at_the_end(broken, kind, chunks[:1], 5)
