r"""Walk the text of a JSON body member by member: find its sessions, or take out those that a client could plant.

Where the sessions stand in the text of a JSON body, member by member: the slow way, which takes any JSON.

>>> text = '{"data": {"session": {"n": 1}, "id": 12345678901234567890}}'
>>> [text[place.start : place.end] for place in find_sessions(text)]
['{"n": 1}']

The text is one character a byte (Latin-1), so that every position is one of the body's bytes. JSON's own characters are ASCII,
and no byte of a longer one in UTF-8 is.

Take out of an application's text every ``data.session`` that a client could read there and take for its own.

The middleware alone says what a client's session is. An event that it cannot complete, because a member is repeated or a strict
parser refuses it, is still read by other parsers, and each of them reads it in its own way. So what stands at ``data.session``
becomes ``null`` in all the places where any of them could look, and every other byte stays.

>>> remove_sessions(b'{"type":"done","data":{"session":1,"s\\u0065ssion":{"dcaf":{"token":"planted"}}},"score":NaN}')
b'{"type":"done","data":{"session":null,"s\\u0065ssion":null},"score":NaN}'

What a reader gets wrong: this is not the strict parser. It takes what JavaScript's, Python's and a reader of single lines take,
and leaves alone only what none of them can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from json import JSONDecoder, detect_encoding
from typing import Any, Final, NamedTuple

import orjson

from dcaf.core.errors import BodyTooLarge, MalformedJSON

MAX_SESSIONS: Final = 10_000
"""Messages with a session that are read, at most: a body with more is none that a conversation made."""

SPACE: Final = re.compile(r"[ \t\n\r]*")


def _skip_number(_: str) -> None:
    """Read nothing of a number: it is only passed over, and reading a very long one costs the square of its length."""


_decode: Final = JSONDecoder(parse_int=_skip_number, parse_float=_skip_number).raw_decode


class Place(NamedTuple):
    """One member ``session`` in a text: its name stands at ``begin``, its value from ``start`` to ``end``."""

    begin: int
    start: int
    end: int
    value: Any

    def __repr__(self) -> str:
        return f"Place({self.start}, {self.end})"


class Member(NamedTuple):
    """One member of an object: its name, where that begins, and where its value stands."""

    name: str
    begin: int
    start: int
    end: int


Inside = Mapping[str, Callable[[str, int], int]]


def find_sessions(text: str) -> list[Place]:
    """Every ``data.session`` of an object: the top-level one first, then those of ``messages``, last message first.

    Raises:
        MalformedJSON: A member is repeated on the way to one.
        BodyTooLarge: There are more of them than are read.
        RecursionError: It is nested too deep.
    """
    groups: list[list[Place]] = []
    arrays: list[list[Place]] = []

    def in_data(text: str, at: int) -> int:
        places, end = _in_data(text, at)
        groups.append(places)
        return end

    def in_messages(text: str, at: int) -> int:
        places, end = _in_messages(text, at)
        arrays.append(places)
        return end

    read_members(text, skip_space(text, 0), {"data": in_data, "messages": in_messages})
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

    def in_data(text: str, at: int) -> int:
        places, after = _in_data(text, at)
        groups.append(places)
        return after

    _, after = read_members(text, at, {"data": in_data})
    return _check_only(groups), after


def _skip_comma(text: str, at: int) -> int:
    at = skip_space(text, at)
    return skip_space(text, at + 1) if text[at] == "," else at


def _check_only(groups: list[list[Place]]) -> list[Place]:
    """The places of the one member that may have any.

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


HINT_BYTES: Final = 8
"""How much of a text that comes in parts is looked at again with its next part, so that no hint falls between two."""

BOUNDARY: Final = re.compile(rb"(\r\n|[\n\r\v\f\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9])")
"""Where some reader of lines ends one: the standard for server-sent events, Python's splitlines, and what is built on it."""

BEFORE: Final = re.compile(r"(?:\xef\xbb\xbf)?[ \t\n\r]*+(?:[\w-]*+[ \t]*+:)?+[ \t]*+", re.ASCII)
"""What may stand before the object in a line: a byte order mark, and the name of a field of a server-sent event."""


def may_hold_session(data: bytes) -> bool:
    """Whether a text has the name, an escape that could be a letter of it, or a byte of a wider encoding; mostly it has not."""
    return data.find(b"session") >= 0 or data.find(b"\\u00") >= 0 or data.find(b"\0") >= 0


def remove_sessions(data: bytes) -> bytes:
    """An event or a frame without the sessions that a client could find in it, read as a whole or line by line.

    Raises:
        MalformedJSON: A session stands in it that some parser reads, and that cannot be taken out.
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
        objects_only: Whether what is no object, and so no session to a client, stays.

    Raises:
        MalformedJSON: As ``remove_sessions``.
    """
    if not may_hold_session(data):
        return data
    if detect_encoding(data).startswith(("utf-16", "utf-32")):
        return _refuse_wide(data, objects_only=objects_only)
    text = data.decode("latin-1")  # one character a byte, as ``read_members`` has it
    planted = _find_removable(text, objects_only=objects_only)
    at, pieces = 0, []
    for start, end in planted:
        pieces += [data[at:start], b"null"]
        at = end
    return b"".join([*pieces, data[at:]]) if planted else data


def _refuse_wide(data: bytes, *, objects_only: bool) -> bytes:
    """A text of another encoding than UTF-8, as it is, if no session is in it: Python's parser reads these from bytes."""
    try:
        text = data.decode(detect_encoding(data))
    except UnicodeDecodeError:
        return data
    if _find_removable(text.removeprefix("\ufeff"), objects_only=objects_only):
        raise MalformedJSON(reason="encoding")
    return data


def _find_removable(text: str, *, objects_only: bool) -> list[tuple[int, int]]:
    """Where each value of ``data.session`` stands, in order; none where the text is no object to any parser."""
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
