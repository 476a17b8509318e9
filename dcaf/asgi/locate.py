"""Where the sessions stand in the text of a JSON body, so that they can be replaced and every other byte kept.

>>> body = JSONText.read(b'{"data": {"session": {"n": 1}, "id": 12345678901234567890}}')
>>> [place.text(body.text) for place in body.sessions()]
['{"n": 1}']
>>> body.rewritten(body.sessions(), {body.sessions()[0]: b'{"n":2}'})
b'{"data": {"session": {"n":2}, "id": 12345678901234567890}}'

What a reader gets wrong: parsing and writing again would round big integers and drop repeated members:
the application would see another body than the client sent. So the text is cut and joined, never written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any, Final

import orjson

from dcaf.asgi.holes import NONE, Holes
from dcaf.core.errors import BodyTooLarge, MalformedJSON

MAX_STRUCTURE: Final = 200_000
"""Braces, brackets and commas that are parsed, at most: 16 MiB of ``{},`` would block the event loop for 1.6 s."""

MAX_SESSIONS: Final = 10_000
"""Messages with a session that are read, at most: a body with more is none that a conversation made."""

SPACE: Final = re.compile(r"[ \t\n\r]*")


def _unread(_: str) -> None:
    """Skip a number: it is only passed over, and reading a very long one costs the square of its length."""


_decode: Final = JSONDecoder(parse_int=_unread, parse_float=_unread).raw_decode


@dataclass(frozen=True, slots=True)
class Place:
    """One member in the text: its value from ``start`` to ``end``, the whole with one comma from ``cut_from`` to ``cut_to``."""

    start: int
    end: int
    cut_from: int
    cut_to: int

    def text(self, text: str) -> str:
        """The value, as written."""
        return text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object: its name, where it begins, and where its value stands."""

    name: str
    begin: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class JSONText:
    """A JSON text that the strict parser accepted, with its value.

    Attributes:
        text: The text; its long tokens may be cut out of it.
        value: What it means.
        holes: What was cut out of both.
    """

    text: str
    value: Any
    holes: Holes = NONE

    @classmethod
    def read(cls, data: bytes, holes: Holes = NONE) -> JSONText:
        """Parse strictly.

        Raises:
            MalformedJSON: A strict parser refuses it (RFC 8259; UTF-8 alone, finite numbers, no lone surrogates).
        """
        try:
            return cls(data.decode(), orjson.loads(data), holes)
        except (orjson.JSONDecodeError, UnicodeDecodeError):
            raise MalformedJSON(reason="syntax") from None

    def sessions(self) -> list[Place]:
        """Every ``data.session``: the top-level one first, then those of ``messages``, last message first.

        Raises:
            MalformedJSON: A member is repeated on the way to one, or the text is nested too deep.
            BodyTooLarge: There are more of them than are read.
        """
        if not isinstance(self.value, dict) or not ("session" in self.text or "\\u" in self.text):
            return []
        try:
            return self._top_level()
        except RecursionError:
            raise MalformedJSON(reason="depth") from None

    def at(self, place: Place) -> Any:
        """The value at a place, with its tokens."""
        text = place.text(self.text)
        value = orjson.loads(text)
        own = value.get("dcaf") if isinstance(value, dict) else None
        if isinstance(own, dict) and isinstance(own.get("token"), str):  # an envelope, of which nothing else is ever read
            own["token"] = self.holes.token(own["token"])
            return value
        filled = self.holes.fill(text)
        return value if filled is text else orjson.loads(filled)

    def rewritten(self, places: Sequence[Place], values: Mapping[Place, bytes]) -> bytes:
        """The text with some members replaced and the others of ``places`` cut out; every other byte as it was."""
        pieces, at = [], 0
        for place in sorted(places, key=lambda place: place.start):
            kept = place in values
            pieces.append(self.holes.fill(self.text[at : place.start if kept else place.cut_from]).encode())
            pieces.append(values.get(place, b""))
            at = place.end if kept else place.cut_to
        pieces.append(self.holes.fill(self.text[at:]).encode())
        return b"".join(pieces)

    def frame(self) -> tuple[bytes, bytes] | None:
        """What stands before and after the value of ``data.session``, which is made where it is absent.

        None where it cannot be: not an object, ``data`` is neither object nor null, a member on the way is repeated, or the
        text is nested too deep.
        """
        if not isinstance(self.value, dict) or not isinstance(self.value.get("data"), dict | None):
            return None
        try:
            return self._frame()
        except RecursionError:
            return None

    def _frame(self) -> tuple[bytes, bytes] | None:
        top, _ = self._members(self._first())
        data = [member for member in top if member.name == "data"]
        if len(data) > 1:
            return None
        if not data:
            return self._insertion(self._first(), top, '"data":{"session":', "}")
        if self.text[data[0].start] == "{":
            return self._frame_in(data[0])
        return self._around(data[0].start, data[0].end, '{"session":', "}")

    def _frame_in(self, data: Member) -> tuple[bytes, bytes] | None:
        members, _ = self._members(data.start)
        found = [member for member in members if member.name == "session"]
        if len(found) > 1:
            return None
        if found:
            return self._around(found[0].start, found[0].end)
        return self._insertion(data.start, members, '"session":', "")

    def _insertion(self, brace: int, members: list[Member], before: str, after: str) -> tuple[bytes, bytes]:
        return self._around(brace + 1, brace + 1, before, after + ("," if members else ""))

    def _around(self, start: int, end: int, before: str = "", after: str = "") -> tuple[bytes, bytes]:
        return (self.text[:start] + before).encode(), (after + self.text[end:]).encode()

    def _top_level(self) -> list[Place]:
        """The places under ``data`` of the whole and of each message, in order of precedence."""
        groups: list[list[Place]] = []
        arrays: list[list[Place]] = []

        def in_data(at: int) -> int:
            places, end = self._in_data(at)
            groups.append(places)
            return end

        def in_messages(at: int) -> int:
            places, end = self._in_messages(at)
            arrays.append(places)
            return end

        self._members(self._first(), {"data": in_data, "messages": in_messages})
        _only(arrays)
        return _only(groups) + [place for places in arrays for place in reversed(places)]

    def _in_data(self, at: int) -> tuple[list[Place], int]:
        """The places of the members ``session`` of one value, and where the value ends."""
        if self.text[at] != "{":
            return [], self._end(at)
        members, end = self._members(at)
        places = [_place(members, index) for index, member in enumerate(members) if member.name == "session"]
        return _only([[place] for place in places]), end

    def _in_messages(self, at: int) -> tuple[list[Place], int]:
        """The places under ``data`` of each object of one array, and where the array ends."""
        if self.text[at] != "[":
            return [], self._end(at)
        found: list[Place] = []
        at = self._skip(at + 1)
        while self.text[at] != "]":
            places, end = self._in_message(at)
            found += places
            if len(found) > MAX_SESSIONS:
                raise BodyTooLarge(reason="sessions")
            at = self._after(end)
        return found, at + 1

    def _in_message(self, at: int) -> tuple[list[Place], int]:
        if self.text[at] != "{":
            return [], self._end(at)
        groups: list[list[Place]] = []

        def in_data(at: int) -> int:
            places, end = self._in_data(at)
            groups.append(places)
            return end

        _, end = self._members(at, {"data": in_data})
        return _only(groups), end

    def _members(self, at: int, inside: Mapping[str, Callable[[int], int]] | None = None) -> tuple[list[Member], int]:
        """The members of the object whose brace stands at ``at``, and where it ends.

        Args:
            at: Of the brace.
            inside: Name -> what looks into that member's value and tells where it ends.
        """
        found, at = [], self._skip(at + 1)
        while self.text[at] != "}":
            name, colon = _decode(self.text, at)
            value = self._skip(self._skip(colon) + 1)
            end = (inside or {}).get(name, self._end)(value)
            found.append(Member(name, at, value, end))
            at = self._after(end)
        return found, at + 1

    def _first(self) -> int:
        return self._skip(0)

    def _end(self, at: int) -> int:
        end: int = _decode(self.text, at)[1]
        return end

    def _after(self, end: int) -> int:
        at = self._skip(end)
        return self._skip(at + 1) if self.text[at] == "," else at

    def _skip(self, at: int) -> int:
        found = SPACE.match(self.text, at)
        assert found is not None
        return found.end()


def structure(data: bytes) -> int:
    """How many braces, brackets and commas stand in a body: what parsing it costs, counted without parsing it."""
    return data.count(b"{") + data.count(b"[") + data.count(b",")


def _only(groups: list[list[Place]]) -> list[Place]:
    """The places of the one member that may have any.

    Raises:
        MalformedJSON: The member is repeated, or the session in it.
    """
    places = [place for group in groups for place in group]
    if places and len(groups) > 1:
        raise MalformedJSON(reason="duplicate")
    return places


def _place(members: list[Member], index: int) -> Place:
    member = members[index]
    if index + 1 < len(members):
        return Place(member.start, member.end, member.begin, members[index + 1].begin)
    begin = members[index - 1].end if index else member.begin
    return Place(member.start, member.end, begin, member.end)
