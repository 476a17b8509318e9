r"""Walk the text of a JSON body member by member: find its sessions, or take out those that a client could take for its own.

>>> text = '{"data": {"session": {"n": 1}, "id": 12345678901234567890}}'
>>> [text[place.start : place.end] for place in find_sessions(text)]
['{"n": 1}']

This is the slow way to the sessions, and takes any JSON. The text is one character a byte (Latin-1), so that every position is one
of the body's bytes: JSON's own characters are ASCII, and no byte of a longer character in UTF-8 is.

>>> remove_sessions(b'{"type":"done","data":{"session":1,"s\\u0065ssion":{"dcaf":{"token":"planted"}}},"score":NaN}')
b'{"type":"done","data":{"session":null,"s\\u0065ssion":null},"score":NaN}'

The middleware alone says what a client's session is. An event that it cannot complete, because a member is repeated or a strict
parser refuses it, is still read by other parsers, and each of them reads it in its own way. So what stands at ``data.session``
becomes ``null`` in all the places where any of them could look, and every other byte stays.

What a reader gets wrong: ``remove_sessions`` is not the strict parser. It takes what JavaScript's, Python's and a reader of single
lines take, and leaves alone only what none of them can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from json import JSONDecoder, detect_encoding
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from dcaf.core.errors import BodyTooLarge, MalformedJSON

MAX_SESSIONS: Final = 10_000
"""The most messages with a session that are read: no conversation makes a body with more."""

SPACE: Final = re.compile(r"[ \t\n\r]*")

HINT_BYTES: Final = 8
"""How much of a text that comes in parts is searched again with its next part: a hint may begin in one and end in the next."""

BOUNDARY: Final = re.compile(rb"(\r\n|[\n\r\v\f\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9])")
"""Where some reader of lines ends a line: the standard for server-sent events, Python's splitlines, and what is built on it."""

BEFORE: Final = re.compile(r"(?:\xef\xbb\xbf)?[ \t\n\r]*+(?:[\w-]*+[ \t]*+:)?+[ \t]*+", re.ASCII)
"""What may stand before the object in a line: a byte order mark, and the name of a field of a server-sent event."""


def _skip_number(_: str) -> None:
    """Take a number for None: its value is not needed, and reading a very long one costs the square of its length."""


_decode: Final = JSONDecoder(parse_int=_skip_number, parse_float=_skip_number).raw_decode


class Place(NamedTuple):
    """A member ``session`` in a text: its name stands at ``begin``, its value from ``start`` to ``end``."""

    begin: int
    start: int
    end: int
    value: Any

    def __repr__(self) -> str:
        return f"Place({self.start}, {self.end})"


class Member(NamedTuple):
    """A member of an object: its name, where that begins, and where its value stands."""

    name: str
    begin: int
    start: int
    end: int


Inside: TypeAlias = Mapping[str, Callable[[str, int], int]]
"""Name of a member -> what looks into its value, and gives where that ends."""


def find_sessions(text: str) -> list[Place]:
    """Every ``data.session`` of an object: the top-level one first, then those of ``messages``, last message first.

    Raises:
        MalformedJSON: A member is repeated on the way to one.
        BodyTooLarge: There are more sessions than are read.
        RecursionError: The text is nested too deep.
    """
    groups: list[list[Place]] = []
    arrays: list[list[Place]] = []
    read_members(text, skip_space(text, 0), {"data": _gather(_in_data, groups), "messages": _gather(_in_messages, arrays)})
    _check_only(arrays)
    return _check_only(groups) + [place for places in arrays for place in reversed(places)]


def read_members(text: str, at: int, inside: Inside | None = None) -> tuple[list[Member], int]:
    """The members of the object whose brace stands at ``at``, and where it ends.

    Args:
        text: The text.
        at: Of the brace.
        inside: Name -> what looks into that member's value and gives where it ends.
    """
    found, at = [], skip_space(text, at + 1)
    while text[at] != "}":
        name, colon = _decode(text, at)
        value = skip_space(text, skip_space(text, colon) + 1)
        after = (inside or {}).get(name, find_end)(text, value)
        found.append(Member(name, at, value, after))
        at = _skip_comma(text, after)
    return found, at + 1


def find_end(text: str, at: int) -> int:
    """Where the value that stands at ``at`` ends."""
    found: int = _decode(text, at)[1]
    return found


def skip_space(text: str, at: int) -> int:
    """Where the white space that begins at ``at`` ends."""
    found = SPACE.match(text, at)
    assert found is not None
    return found.end()


def may_hold_session(data: bytes) -> bool:
    """Whether a text has the name ``session``, an escape that could be a letter of it, or a byte of a wider encoding."""
    return data.find(b"session") >= 0 or data.find(b"\\u00") >= 0 or data.find(b"\0") >= 0


def remove_sessions(data: bytes) -> bytes:
    """An event or a frame without the sessions that a client could find in it, as a whole or line by line.

    Raises:
        MalformedJSON: Some parser reads a session in it that cannot be taken out.
    """
    if not may_hold_session(data):
        return data
    data = remove_sessions_of_text(data, objects_only=False)
    lines = BOUNDARY.split(data)
    if len(lines) == 1:
        return data
    return b"".join([remove_sessions_of_text(line, objects_only=False) if line.find(b"{") >= 0 else line for line in lines])


def remove_sessions_of_text(data: bytes, *, objects_only: bool) -> bytes:
    """One text without the sessions that a client could find in it.

    Args:
        data: The text.
        objects_only: Whether a value stays that is not an object: no client takes it for a session.

    Raises:
        MalformedJSON: As ``remove_sessions``.
    """
    if not may_hold_session(data):
        return data
    if detect_encoding(data).startswith(("utf-16", "utf-32")):
        return _refuse_wide(data, objects_only=objects_only)
    text = data.decode("latin-1")  # one character a byte, as ``read_members`` has it
    spans = _find_removable(text, objects_only=objects_only)
    at, pieces = 0, []
    for start, end in spans:
        pieces += [data[at:start], b"null"]
        at = end
    return b"".join([*pieces, data[at:]]) if spans else data


def _gather(look: Callable[[str, int], tuple[list[Place], int]], into: list[list[Place]]) -> Callable[[str, int], int]:
    """A function that looks into a value, keeps the places that it finds, and gives where the value ends."""

    def gather(text: str, at: int) -> int:
        places, end = look(text, at)
        into.append(places)
        return end

    return gather


def _in_data(text: str, at: int) -> tuple[list[Place], int]:
    """The places of the members ``session`` of one value, and where the value ends."""
    if text[at] != "{":
        return [], find_end(text, at)
    members, after = read_members(text, at)
    places = [_place(text, member) for member in members if member.name == "session"]
    return _check_only([[place] for place in places]), after


def _in_messages(text: str, at: int) -> tuple[list[Place], int]:
    """The places under ``data`` of each object of one array, and where the array ends."""
    if text[at] != "[":
        return [], find_end(text, at)
    found: list[Place] = []
    at = skip_space(text, at + 1)
    while text[at] != "]":
        places, after = _in_message(text, at)
        found += places
        if len(found) > MAX_SESSIONS:
            raise BodyTooLarge(reason="sessions")
        at = _skip_comma(text, after)
    return found, at + 1


def _in_message(text: str, at: int) -> tuple[list[Place], int]:
    if text[at] != "{":
        return [], find_end(text, at)
    groups: list[list[Place]] = []
    _, after = read_members(text, at, {"data": _gather(_in_data, groups)})
    return _check_only(groups), after


def _skip_comma(text: str, at: int) -> int:
    at = skip_space(text, at)
    return skip_space(text, at + 1) if text[at] == "," else at


def _check_only(groups: list[list[Place]]) -> list[Place]:
    """The places of the one member that may have any.

    Args:
        groups: The places in each member of that name.

    Raises:
        MalformedJSON: The member is repeated, or the session in it.
    """
    places = [place for group in groups for place in group]
    if places and len(groups) > 1:
        raise MalformedJSON(reason="duplicate")
    return places


def _place(text: str, member: Member) -> Place:
    value = orjson.loads(text[member.start : member.end].encode("latin-1"))
    return Place(member.begin, member.start, member.end, value)


def _refuse_wide(data: bytes, *, objects_only: bool) -> bytes:
    """Give back a text in UTF-16 or UTF-32, which Python's parser reads from bytes, unless a session is in it.

    Raises:
        MalformedJSON: A session is in it.
    """
    try:
        text = data.decode(detect_encoding(data))
    except UnicodeDecodeError:
        return data
    if _find_removable(text.removeprefix("\ufeff"), objects_only=objects_only):
        raise MalformedJSON(reason="encoding")
    return data


def _find_removable(text: str, *, objects_only: bool) -> list[tuple[int, int]]:
    """Where each value of ``data.session`` stands, in order; nothing where no parser reads the text as an object."""
    found = BEFORE.match(text)
    begin = found.end() if found else 0
    if not text.startswith("{", begin):
        return []
    try:
        if skip_space(text, find_end(text, begin)) != len(text):
            return []
        top, _ = read_members(text, begin)
        inside = [member for member in top if member.name == "data" and text[member.start] == "{"]
        sessions = [found for data in inside for found in read_members(text, data.start)[0] if found.name == "session"]
    except RecursionError:
        raise MalformedJSON(reason="depth") from None
    except ValueError:
        return []
    wanted = "{" if objects_only else ""
    return [(one.start, one.end) for one in sessions if text.startswith(wanted, one.start) and text[one.start : one.end] != "null"]
