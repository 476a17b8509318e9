r"""Take out of an application's text every ``data.session`` that a client could read there and take for its own.

The middleware alone says what a client's session is. An event that it cannot complete, because a member is repeated or a strict
parser refuses it, is still read by other parsers, and each of them reads it in its own way. So what stands at ``data.session``
becomes ``null`` in all the places where any of them could look, and every other byte stays.

>>> clear(b'{"type":"done","data":{"session":1,"s\\u0065ssion":{"dcaf":{"token":"planted"}}},"score":NaN}')
b'{"type":"done","data":{"session":null,"s\\u0065ssion":null},"score":NaN}'

What a reader gets wrong: this is not the strict parser. It takes what JavaScript's, Python's and a reader of single lines take,
and leaves alone only what none of them can read.
"""

from __future__ import annotations

import re
from json import detect_encoding
from typing import Final

from dcaf.asgi import json_walk
from dcaf.core.errors import MalformedJSON

HINT_BYTES: Final = 8
"""How much of a text that comes in parts is looked at again with its next part, so that no hint falls between two."""

BOUNDARY: Final = re.compile(rb"(\r\n|[\n\r\v\f\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9])")
"""Where some reader of lines ends one: the standard for server-sent events, Python's splitlines, and what is built on it."""

BEFORE: Final = re.compile(r"(?:\xef\xbb\xbf)?[ \t\n\r]*+(?:[\w-]*+[ \t]*+:)?+[ \t]*+", re.ASCII)
"""What may stand before the object in a line: a byte order mark, and the name of a field of a server-sent event."""


def may_plant(data: bytes) -> bool:
    """Whether a text has the name, an escape that could be a letter of it, or a byte of a wider encoding; mostly it has not."""
    return data.find(b"session") >= 0 or data.find(b"\\u00") >= 0 or data.find(b"\0") >= 0


def clear(data: bytes) -> bytes:
    """An event or a frame without the sessions that a client could find in it, read as a whole or line by line.

    Raises:
        MalformedJSON: A session stands in it that some parser reads, and that cannot be taken out.
    """
    if not may_plant(data):
        return data
    data = clear_whole(data, objects_only=False)
    lines = BOUNDARY.split(data)
    if len(lines) == 1:
        return data
    return b"".join([clear_whole(line, objects_only=False) if line.find(b"{") >= 0 else line for line in lines])


def clear_whole(data: bytes, *, objects_only: bool) -> bytes:
    """One text without the sessions that a client could find in it.

    Args:
        data: The text.
        objects_only: Whether what is no object, and so no session to a client, stays.

    Raises:
        MalformedJSON: As ``clear``.
    """
    if not may_plant(data):
        return data
    if detect_encoding(data).startswith(("utf-16", "utf-32")):
        return _refuse_wide(data, objects_only=objects_only)
    text = data.decode("latin-1")  # one character a byte, as ``json_walk`` has it
    planted = _planted(text, objects_only=objects_only)
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
    if _planted(text.removeprefix("\ufeff"), objects_only=objects_only):
        raise MalformedJSON(reason="encoding")
    return data


def _planted(text: str, *, objects_only: bool) -> list[tuple[int, int]]:
    """Where each value of ``data.session`` stands, in order; none where the text is no object to any parser."""
    found = BEFORE.match(text)
    begin = found.end() if found else 0
    if not text.startswith("{", begin):
        return []
    try:
        if json_walk.skip_space(text, json_walk.find_end(text, begin)) != len(text):
            return []
        top, _ = json_walk.read_members(text, begin)
        inside = [member for member in top if member.name == "data" and text[member.start] == "{"]
        sessions = [found for data in inside for found in json_walk.read_members(text, data.start)[0] if found.name == "session"]
    except RecursionError:
        raise MalformedJSON(reason="depth") from None
    except ValueError:
        return []
    wanted = "{" if objects_only else ""
    return [(one.start, one.end) for one in sessions if text.startswith(wanted, one.start) and text[one.start : one.end] != "null"]
