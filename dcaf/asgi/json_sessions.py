r"""Find every session in a JSON body, put the verified state in the place of one, and keep every other byte.

>>> body = read_text(b'{"data": {"session": {"n": 1}, "id": 12345678901234567890}}')
>>> body.rewrite(body.find_sessions(), body.find_sessions()[0], b'{"n":2}')
b'{"data": {"session": {"n":2}, "id": 12345678901234567890}}'

Parsing the body and writing it again would round big integers and drop repeated members: the application would see another body
than the client sent. So the text is cut and joined, and never written anew.

**The quick way, and why it is right.** The names ``session``, ``data`` and ``messages`` are lower-case letters, U+0061 to U+007A.
In a text without ``\u006`` and ``\u007`` such a name is spelled in one way, the other escapes being no letters. So each session
of the parsed value has a ``"session"`` of its own in the text, and where the text has no more of these, each of them is one, in
the order of the text. In the same way no ``data`` and no ``messages`` is repeated where the text has just as many as the value.
A string can end in ``\"session"``, so finding the name alone proves nothing: the counts do. Where they do not decide,
``json_walk`` does.

**The token is taken out before the text is parsed**, because it may be long, and the mirror with it: where the mirror is the sealed
state byte for byte, or where a client spells it otherwise and it is the beginning of an object when it is parsed by itself. A
string that only this process knows stands in for the token::

    {"data":{"session":{"step":1,"dcaf":{"token":"dcaf1s.k7...","expires_at":9}},"id":2}}     as it came
    {"data":{"session":{"dcaf":{"token":"0f3a...","expires_at":9}},"id":2}}                   what is parsed

Where the parser finds that string at ``data.session.dcaf.token``, it stood before a value there, and goes on after it as it would
have gone on after the token. The bytes before the string are then the beginning of the object ``session``, and where the bytes
after it are ``}}``, with ``expires_at`` or without, they are its end. Where the parser does not find it there, the whole text is
parsed instead.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from dcaf.asgi import json_walk
from dcaf.asgi.json_walk import MAX_SESSIONS, Place
from dcaf.core.errors import MalformedJSON
from dcaf.core.signing import Opened

STRUCTURE: Final = b"{[,"
MAX_STRUCTURE: Final = 200_000
"""The most braces, brackets and commas that are parsed: 16 MiB of ``{},`` would block the event loop for 1.6 s."""

NAME: Final = b'"session"'
DATA: Final = b'"data"'
MESSAGES: Final = b'"messages"'
COLON: Final = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
NEXT: Final = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
WHITE: Final = b" \t\n\r"

TOKEN: Final = b'"dcaf1'
"""How the value of a sealed token begins."""

OWN: Final = b'"dcaf":{"token":'
"""What stands before a token, as we write it."""

DCAF: Final = b'"dcaf"'
ANY_OWN: Final = re.compile(rb'"dcaf"[ \t\n\r]*:[ \t\n\r]*\{[ \t\n\r]*"token"[ \t\n\r]*:[ \t\n\r]*')
"""The same in any spelling."""

MIRROR_STRUCTURE: Final = 20_000
"""The most braces, brackets and commas of a mirror that is parsed by itself: that takes 2 ms of the event loop."""

AFTER: Final = re.compile(
    rb'[ \t\n\r]*(?:,[ \t\n\r]*"expires_at"[ \t\n\r]*:[ \t\n\r]*(?:0|[1-9][0-9]{0,14})[ \t\n\r]*)?\}[ \t\n\r]*\}'
)

ESCAPED: Final = re.compile(rb"\\u00[67]")
"""An escape that may be a letter of a name."""

NONCE: Final = secrets.token_hex(16)
STAND_IN: Final = f'"{NONCE}"'.encode()

Verify: TypeAlias = Callable[[bytes], Opened | None]
"""Opens a token as it stands in a body; None where it is not one of ours."""


class JSONText(NamedTuple):
    """A JSON text that the strict parser accepted: its bytes and its value."""

    data: bytes
    value: Any

    def find_sessions(self) -> list[Place]:
        """Every ``data.session``: the top-level one first, then those of ``messages``, last message first.

        Raises:
            MalformedJSON: A member is repeated on the way to a session, or the text is nested too deep.
            BodyTooLarge: There are more sessions than are read.
        """
        if not isinstance(self.value, dict):
            return []
        try:
            found = _find_quickly(self.data, self.value)
            return json_walk.find_sessions(self.data.decode("latin-1")) if found is None else found
        except RecursionError:
            raise MalformedJSON(reason="depth") from None

    def rewrite(self, places: Sequence[Place], kept: Place | None, value: bytes) -> bytes:
        """The text with another value at the kept place, and the other places cut out with one comma each."""
        data = self.data
        if len(places) == 1 and places[0] is kept:
            return b"".join((data[: kept.start], value, data[kept.end :]))
        pieces: list[bytes] = []
        at = 0
        for place in sorted(places, key=lambda place: place.start):
            if kept is not None and place.start == kept.start:
                pieces += (data[at : place.start], value)
                at = place.end
            else:
                begin, end = _find_cut(data, place)
                pieces.append(data[at:begin])
                at = end
        pieces.append(data[at:])
        return b"".join(pieces)

    def measure(self, places: Sequence[Place], kept: Place | None, size: int) -> int:
        """The length of what ``rewrite`` gives with a value of so many bytes."""
        removed = 0
        for place in places:
            begin, end = (place.start, place.end) if place is kept else _find_cut(self.data, place)
            removed += end - begin
        return len(self.data) - removed + (0 if kept is None else size)

    def split_at_session(self) -> tuple[bytes, bytes] | None:
        """The text before and after the value of ``data.session``, with the member added where it is absent.

        None where it cannot stand there: the text is not an object, ``data`` is neither object nor null, a member on the way is
        repeated, or the text is nested too deep.
        """
        data, value = self.data, self.value
        if type(value) is not dict or type(value.get("data")) not in (dict, NoneType):
            return None
        try:
            return _split_quickly(data, value) or self._split_by_walking()
        except RecursionError:
            return None

    def _split_by_walking(self) -> tuple[bytes, bytes] | None:
        text = self.data.decode("latin-1")
        first = json_walk.skip_space(text, 0)
        top, _ = json_walk.read_members(text, first)
        data = [member for member in top if member.name == "data"]
        if len(data) > 1:
            return None
        if not data:
            return self._around(first + 1, first + 1, b'"data":{"session":', b"}," if top else b"}")
        if text[data[0].start] != "{":
            return self._around(data[0].start, data[0].end, b'{"session":', b"}")
        return self._split_in_data(text, data[0].start)

    def _split_in_data(self, text: str, brace: int) -> tuple[bytes, bytes] | None:
        members, _ = json_walk.read_members(text, brace)
        found = [member for member in members if member.name == "session"]
        if len(found) > 1:
            return None
        if found:
            return self._around(found[0].start, found[0].end)
        return self._around(brace + 1, brace + 1, b'"session":', b"," if members else b"")

    def _around(self, start: int, end: int, before: bytes = b"", after: bytes = b"") -> tuple[bytes, bytes]:
        return self.data[:start] + before, after + self.data[end:]


class BodySessions(NamedTuple):
    """The sessions of a body.

    Attributes:
        text: The body, perhaps with a stand-in for its token.
        places: Every ``data.session`` in the text, by precedence.
        opened: The token of the first one, where it was opened already.
    """

    text: JSONText
    places: Sequence[Place]
    opened: Opened | None = None

    def find_candidate(self) -> Place | None:
        """The one session to verify: the first that is neither ``null`` nor ``{}``."""
        for place in self.places:
            if place.value or place.value not in (None, {}):
                return place
        return None

    def strip_sessions(self) -> Any:
        """Take every session out of the parsed value of the body, and give that."""
        value = self.text.value
        if isinstance(value, dict):
            messages = value.get("messages")
            for carrying in (value, *(messages if isinstance(messages, list) else ())):
                data = carrying.get("data") if isinstance(carrying, dict) else None
                if isinstance(data, dict):
                    data.pop("session", None)
        return value


class ShortenedBody(NamedTuple):
    """A body without its token.

    Attributes:
        data: The text, with the stand-in.
        at: Where the stand-in is.
        brace: Where the object begins whose first member is now ``dcaf``; -1 where others stand before it.
        opened: The token that was taken out.
    """

    data: bytes
    at: int
    brace: int
    opened: Opened

    def read(self, _: bytes) -> BodySessions | None:
        """The sessions of the shortened text; None where the token is not that of the session that counts.

        Raises:
            MalformedJSON, BodyTooLarge: As ``read_body``.
        """
        text = read_text(self.data)
        data, session = self.data, find_session(text.value)
        end = AFTER.match(data, self.at + len(STAND_IN)) if _find_token(session) == NONCE else None
        # It is the only session of the text, and spelled as we spell it: its end is known already.
        if end is not None and data.count(NAME) == 1 == data.count(DATA) and not ESCAPED.search(data):
            begin = data.index(NAME)
            start = _find_value(data, begin) if self.brace < 0 else self.brace
            return BodySessions(text, (Place(begin, start, end.end(), session),), self.opened)
        places = text.find_sessions()
        return BodySessions(text, places, self.opened) if places and _find_token(places[0].value) == NONCE else None


def read_text(data: bytes) -> JSONText:
    """Parse strictly.

    Raises:
        MalformedJSON: A strict parser refuses it (RFC 8259; UTF-8 alone, finite numbers, no lone surrogates).
    """
    try:
        return JSONText(data, orjson.loads(data))
    except orjson.JSONDecodeError:
        raise MalformedJSON(reason="syntax") from None


def read_body(data: bytes) -> BodySessions:
    """Parse a body, and find its sessions.

    Raises:
        MalformedJSON: A strict parser refuses it, a member is repeated on the way to a session, or it is nested too deep.
        BodyTooLarge: It has more sessions than are read.
    """
    text = read_text(data)
    return BodySessions(text, text.find_sessions())


def shorten(data: bytes, verify: Verify) -> ShortenedBody | None:
    """Take the first token out of a body; None where it is not one of ours."""
    at = data.find(TOKEN)
    end = data.find(b'"', at + len(TOKEN)) if at >= 0 else -1
    opened = verify(data[at + 1 : end]) if end >= 0 else None
    if opened is None:
        return None
    own = at - len(OWN)
    brace = _find_brace_before(data, own, opened.payload.data) if own > 0 and data.startswith(OWN, own) else -1
    if brace < 0:
        brace = _find_any_brace(data, at)
    before = data[:at] if brace < 0 else data[: brace + 1] + OWN
    return ShortenedBody(b"".join((before, STAND_IN, data[end + 1 :])), len(before), brace, opened)


def count_structure(data: bytes) -> int:
    """How many braces, brackets and commas stand in a body: what parsing it costs, counted without parsing it."""
    return len(data) - len(data.translate(None, STRUCTURE))


def _find_brace_before(data: bytes, own: int, state: bytes) -> int:
    """Where the object begins that has only the members of a state before its member ``dcaf``; -1 for any other."""
    if data.startswith(b"{", own - 1):
        return own - 1
    brace = own - len(state)
    return brace if brace >= 0 and data.startswith(b",", own - 1) and data.startswith(state[:-1], brace) else -1


def _find_any_brace(data: bytes, at: int) -> int:
    """Where the object begins that ends with the token at ``at``, however it is spelled; -1 where this way cannot tell.

    The part before ``dcaf`` becomes no part of any value: it is only parsed by itself, to make sure that it is JSON.
    """
    own = data.rfind(DCAF, 0, at)
    begin = data.find(NAME, 0, own) if own >= 0 and ANY_OWN.fullmatch(data, own, at) else -1
    found = COLON.match(data, begin + len(NAME)) if begin >= 0 else None
    if found is None or not data.startswith(b"{", found.end()):
        return -1
    brace = found.end()
    others = data[brace:own].rstrip(WHITE)
    if others == b"{":
        return brace
    if len(others) > MIRROR_STRUCTURE and count_structure(others) > MIRROR_STRUCTURE:
        return -1
    try:
        return brace if others.endswith(b",") and orjson.loads(others[:-1] + b"}") else -1
    except orjson.JSONDecodeError:
        return -1


def find_session(value: Any) -> Any:
    """What stands at ``data.session`` of a parsed text; None where nothing does."""
    data = value.get("data") if type(value) is dict else None
    return data.get("session") if type(data) is dict else None


def _find_token(session: Any) -> Any:
    own = session.get("dcaf") if type(session) is dict else None
    return own.get("token") if type(own) is dict else None


class _EndFinder:
    """Finds where values of a text end. The text is decoded once, and only if a value is not written as we write it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._text: str | None = None

    def find(self, start: int, value: Any) -> int:
        """The end of a value that begins at ``start``."""
        text = _write(value)
        if text is not None and self._data.startswith(text, start):
            return start + len(text)
        if self._text is None:
            self._text = self._data.decode("latin-1")
        return json_walk.find_end(self._text, start)


def _write(value: Any) -> bytes | None:
    """An object or a text as we write it; None for anything else, and for a value nested deeper than orjson writes."""
    if type(value) not in (dict, str):
        return None
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None


def _find_quickly(data: bytes, value: dict[str, Any]) -> list[Place] | None:
    """Every ``data.session``, by precedence as ``json_walk.find_sessions``; None where this way cannot tell."""
    number = data.count(NAME)
    if ESCAPED.search(data):
        return None
    if number == 0:
        return []
    top = value.get("data")
    if number == 1 == data.count(DATA) and type(top) is dict and "session" in top:
        return [_make_place(data, data.index(NAME), top["session"], _EndFinder(data))]
    holders = [value, *_find_messages(value)]
    below = [item["data"] for item in holders if "data" in item]
    carried = [item["session"] for item in below if type(item) is dict and "session" in item]
    if number != len(carried) or number > MAX_SESSIONS or data.count(DATA) != len(below):
        return None
    if data.count(MESSAGES) != ("messages" in value):
        return None
    return _order_places(value, data, carried)


def _split_quickly(data: bytes, value: dict[str, Any]) -> tuple[bytes, bytes] | None:
    """What stands before and after the value of ``data.session``, as ``split_at_session``; None where this way cannot tell."""
    number = data.count(DATA)
    if ESCAPED.search(data):
        return None
    if number == 0:
        brace = data.index(b"{") + 1
        return data[:brace] + b'"data":{"session":', (b"}," if value else b"}") + data[brace:]
    inside = value.get("data")
    if number != 1 or type(inside) is not dict:
        return None
    if (own := data.count(NAME)) == 0:
        brace = _find_value(data, data.index(DATA)) + 1
        return data[:brace] + b'"session":', (b"," if inside else b"") + data[brace:]
    if own != 1 or "session" not in inside:
        return None
    start = _find_value(data, data.index(NAME))
    return data[:start], data[_EndFinder(data).find(start, inside["session"]) :]


def _find_messages(value: dict[str, Any]) -> list[dict[str, Any]]:
    messages = value.get("messages")
    return [item for item in messages if type(item) is dict] if type(messages) is list else []


def _order_places(value: dict[str, Any], data: bytes, carried: list[Any]) -> list[Place]:
    """The places of some sessions: of the top-level one, if there is one, and of those of the messages in order."""
    own = value.get("data")
    top = carried[:1] if type(own) is dict and "session" in own else []
    rest = carried[len(top) :]
    is_first = not rest or not top or next(name for name in value if name in ("data", "messages")) == "data"
    places, at, ends = [], 0, _EndFinder(data)
    for session in [*top, *rest] if is_first else [*rest, *top]:
        places.append(_make_place(data, data.index(NAME, at), session, ends))
        at = places[-1].end
    if is_first:
        return places[: len(top)] + places[len(top) :][::-1]
    return places[::-1]


def _make_place(data: bytes, begin: int, value: Any, ends: _EndFinder) -> Place:
    start = _find_value(data, begin)
    return Place(begin, start, ends.find(start, value), value)


def _find_value(data: bytes, name: int) -> int:
    """Where the value of a member begins; its name stands at ``name``."""
    found = COLON.match(data, data.index(b'"', name + 1) + 1)
    assert found is not None
    return found.end()


def _find_cut(data: bytes, place: Place) -> tuple[int, int]:
    """The span of a member and of one comma: the one after it, or the one before it where it is the last member."""
    following = NEXT.match(data, place.end)
    if following is not None:
        return place.begin, following.end()
    before = _skip_space_back(data, place.begin)
    return (_skip_space_back(data, before - 1) if data.startswith(b",", before - 1) else place.begin), place.end


def _skip_space_back(data: bytes, at: int) -> int:
    """Where the white space that ends at ``at`` begins."""
    while at > 0 and data[at - 1] in WHITE:
        at -= 1
    return at
