r"""The fast path over bytes: where the sessions of a JSON body stand, told from its parsed value and a search for their names.

>>> data = b'{"data":{"session":{"n":1}},"messages":[]}'
>>> sessions(data, orjson.loads(data))
[Place(19, 26)]

Why it is right. In a text without ``\u`` a member's name is spelled in one way, the other escapes being no letters. So each
session of the parsed value has a ``"session"`` of its own in the text, and where the text has no more of these, each of them is
one, in the order of the text. In the same way no ``data`` and no ``messages`` is repeated where the text has just as many as
the value. What the counts do not settle is left to ``walk``, as is every text with ``\u``.

What a reader gets wrong: a string can end in ``\"session"``, so finding the name alone proves nothing. The counts do.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from dcaf.asgi import walk
from dcaf.asgi.walk import MAX_SESSIONS, Place

NAME: Final = b'"session"'
DATA: Final = b'"data"'
ESCAPED: Final = b"\\u"
COLON: Final = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
NEXT: Final = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
WHITE: Final = b" \t\n\r"


def sessions(data: bytes, value: dict[str, Any]) -> list[Place] | None:
    """Every ``data.session``, by precedence as ``walk.sessions``; None where this way cannot tell."""
    if data.find(ESCAPED) >= 0:
        return None
    number = data.count(NAME)
    if number == 0:
        return []
    top = value.get("data")
    if number == 1 == data.count(DATA) and type(top) is dict and "session" in top:
        return [_place(data, data.index(NAME), top["session"])]
    found = [value, *_messages(value)]
    below = [item["data"] for item in found if "data" in item]
    carried = [item["session"] for item in below if type(item) is dict and "session" in item]
    if number != len(carried) or number > MAX_SESSIONS or data.count(DATA) != len(below):
        return None
    if data.count(b'"messages"') != ("messages" in value):
        return None
    return _in_order(value, data, carried)


def is_alone(data: bytes) -> bool:
    """Whether both names stand once in a text, so that they are those of the one session that its value has."""
    return data.count(NAME) == 1 == data.count(DATA) and data.find(ESCAPED) < 0


def frame(data: bytes, value: dict[str, Any]) -> tuple[bytes, bytes] | None:
    """What stands before and after the value of ``data.session``, as ``JSONText.frame``; None where this way cannot tell."""
    if data.find(ESCAPED) >= 0:
        return None
    brace = data.index(b"{") + 1
    number = data.count(DATA)
    if number == 0:
        return data[:brace] + b'"data":{"session":', (b"}," if value else b"}") + data[brace:]
    inside = value.get("data")
    if number != 1 or type(inside) is not dict:
        return None
    if (own := data.count(NAME)) == 0:
        brace = _value_of(data, data.index(DATA)) + 1
        return data[:brace] + b'"session":', (b"," if inside else b"") + data[brace:]
    if own != 1 or "session" not in inside:
        return None
    start = _value_of(data, data.index(NAME))
    return data[:start], data[_end(data, start, inside["session"]) :]


def around(data: bytes, begin: int, start: int, end: int, value: Any) -> Place:
    """The place of a member whose name begins at ``begin``, and its value at ``start``."""
    following = NEXT.match(data, end)
    if following is not None:
        return Place(start, end, begin, following.end(), value)
    before = _back(data, begin)
    return Place(start, end, _back(data, before - 1) if data[before - 1 : before] == b"," else begin, end, value)


def _messages(value: dict[str, Any]) -> list[dict[str, Any]]:
    messages = value.get("messages")
    return [item for item in messages if type(item) is dict] if type(messages) is list else []


def _in_order(value: dict[str, Any], data: bytes, carried: list[Any]) -> list[Place]:
    """The places of some sessions, given as the top-level one, if there is one, then those of the messages in order."""
    own = value.get("data")
    top = carried[:1] if type(own) is dict and "session" in own else []
    rest = carried[len(top) :]
    is_first = not rest or not top or next(name for name in value if name in ("data", "messages")) == "data"
    places, at = [], 0
    for session in [*top, *rest] if is_first else [*rest, *top]:
        places.append(_place(data, data.index(NAME, at), session))
        at = places[-1].end
    if is_first:
        return places[: len(top)] + places[len(top) :][::-1]
    return places[::-1]


def _place(data: bytes, begin: int, value: Any) -> Place:
    start = _value_of(data, begin)
    return around(data, begin, start, _end(data, start, value), value)


def _value_of(data: bytes, name: int) -> int:
    """Where the value of the member begins whose name stands at ``name``."""
    found = COLON.match(data, data.index(b'"', name + 1) + 1)
    assert found is not None
    return found.end()


def _end(data: bytes, start: int, value: Any) -> int:
    """Where a value ends that begins at ``start``: most are written as we write them."""
    if type(value) in (dict, str):
        written = orjson.dumps(value)
        if data.startswith(written, start):
            return start + len(written)
    return start + walk.end(data[start:].decode("latin-1"), 0)


def _back(data: bytes, at: int) -> int:
    """Where the white space that ends at ``at`` begins."""
    while at > 0 and data[at - 1] in WHITE:
        at -= 1
    return at
