"""A JSON text that was parsed strictly: where its sessions stand, so that they can be replaced and every other byte kept.

>>> body = JSONText.read(b'{"data": {"session": {"n": 1}, "id": 12345678901234567890}}')
>>> [place.value for place in body.sessions()]
[{'n': 1}]
>>> body.rewritten(body.sessions(), body.sessions()[0], b'{"n":2}')
b'{"data": {"session": {"n":2}, "id": 12345678901234567890}}'

What a reader gets wrong: parsing and writing again would round big integers and drop repeated members:
the application would see another body than the client sent. So the text is cut and joined, never written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, Final, NamedTuple

import orjson

from dcaf.asgi import splice, walk
from dcaf.asgi.walk import Place
from dcaf.core.errors import MalformedJSON

MAX_STRUCTURE: Final = 200_000
"""Braces, brackets and commas that are parsed, at most: 16 MiB of ``{},`` would block the event loop for 1.6 s."""


class JSONText(NamedTuple):
    """A JSON text that the strict parser accepted: its bytes, and what they mean."""

    data: bytes
    value: Any

    @classmethod
    def read(cls, data: bytes) -> JSONText:
        """Parse strictly.

        Raises:
            MalformedJSON: A strict parser refuses it (RFC 8259; UTF-8 alone, finite numbers, no lone surrogates).
        """
        try:
            return cls(data, orjson.loads(data))
        except orjson.JSONDecodeError:
            raise MalformedJSON(reason="syntax") from None

    def sessions(self) -> list[Place]:
        """Every ``data.session``: the top-level one first, then those of ``messages``, last message first.

        Raises:
            MalformedJSON: A member is repeated on the way to one, or the text is nested too deep.
            BodyTooLarge: There are more of them than are read.
        """
        if not isinstance(self.value, dict):
            return []
        try:
            found = splice.sessions(self.data, self.value)
            return walk.sessions(self.data.decode("latin-1")) if found is None else found
        except RecursionError:
            raise MalformedJSON(reason="depth") from None

    def rewritten(self, places: Sequence[Place], kept: Place | None, value: bytes) -> bytes:
        """The text with another value at one of ``places``, and the others cut out; every other byte as it was."""
        if len(places) == 1 and places[0] is kept:
            return b"".join((self.data[: kept.start], value, self.data[kept.end :]))
        pieces: list[bytes] = []
        at = 0
        for place in sorted(places, key=lambda place: place.start):
            if kept is not None and place.start == kept.start:
                pieces += (self.data[at : place.start], value)
                at = place.end
            else:
                pieces.append(self.data[at : place.cut_from])
                at = place.cut_to
        pieces.append(self.data[at:])
        return b"".join(pieces)

    def frame(self) -> tuple[bytes, bytes] | None:
        """What stands before and after the value of ``data.session``, which is made where it is absent.

        None where it cannot be: not an object, ``data`` is neither object nor null, a member on the way is repeated, or the
        text is nested too deep.
        """
        if type(self.value) is not dict or type(self.value.get("data")) not in (dict, NoneType):
            return None
        try:
            return splice.frame(self.data, self.value) or self._walked()
        except RecursionError:
            return None

    def _walked(self) -> tuple[bytes, bytes] | None:
        text = self.data.decode("latin-1")
        first = walk.skip(text, 0)
        top, _ = walk.members(text, first)
        data = [member for member in top if member.name == "data"]
        if len(data) > 1:
            return None
        if not data:
            return self._around(first + 1, first + 1, b'"data":{"session":', b"}," if top else b"}")
        if text[data[0].start] != "{":
            return self._around(data[0].start, data[0].end, b'{"session":', b"}")
        return self._walked_in(text, data[0].start)

    def _walked_in(self, text: str, brace: int) -> tuple[bytes, bytes] | None:
        members, _ = walk.members(text, brace)
        found = [member for member in members if member.name == "session"]
        if len(found) > 1:
            return None
        if found:
            return self._around(found[0].start, found[0].end)
        return self._around(brace + 1, brace + 1, b'"session":', b"," if members else b"")

    def _around(self, start: int, end: int, before: bytes = b"", after: bytes = b"") -> tuple[bytes, bytes]:
        return self.data[:start] + before, after + self.data[end:]


def structure(data: bytes) -> int:
    """How many braces, brackets and commas stand in a body: what parsing it costs, counted without parsing it."""
    return data.count(b"{") + data.count(b"[") + data.count(b",")
