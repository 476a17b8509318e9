"""Cut a written JSON object into its members and join them again, without parsing the values.

>>> members = cut(b'{"step":1,"cart":{"items":[]}}', (8, 19))
>>> members.written("step"), members.updated({"step": b"2"}).payload().data
(b'1', b'{"step":2,"cart":{"items":[]}}')
>>> cut(b'{"step":1,"cart":{"items":[]}}', (8, 18)) is None
True

The index says only where to cut. The keys are read from the state itself; where the index does not fit, the state is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

import orjson

from dcaf.core.base64url import Payload
from dcaf.core.errors import SessionInvalid

INDEXED_BYTES: Final = 4 * 1024
"""States over this size get an index (docs/protocol.md, section 4)."""

INDEXED_MEMBERS: Final = 256
"""States of more members than this get none."""

MEMBER_BYTES: Final = 512
"""Nor do states whose members are smaller than this on average: cutting one takes as long as parsing some hundred bytes."""

NAME: Final = re.compile(rb'("(?:[^"\\]|\\.)*"):')
COMMA: Final = ord(",")
BRACE: Final = ord("}")


class Members(dict[str, Any]):
    """The members of an object that was parsed: key -> value, in the order in which they are written."""

    def written(self, key: str) -> bytes:
        """The written value of a key."""
        return orjson.dumps(self[key])

    def updated(self, values: Mapping[str, bytes | None], moved: Iterable[str] = ()) -> Self:
        """A copy with other written values; None removes a key. The keys of ``moved`` move to the end."""
        found = type(self)(self)
        for key in moved:
            found.pop(key, None)
        for key, data in values.items():
            if data is None:
                found.pop(key, None)
            else:
                found[key] = self._member(key, data)
        return found

    def payload(self) -> Payload:
        """All members as one object, with an index where it is large."""
        data = orjson.dumps(self)
        if len(data) <= INDEXED_BYTES or len(self) > most_members(len(data)):
            return Payload(data)
        return Payload(data, index=tuple(len(orjson.dumps(key)) + 1 + len(self.written(key)) for key in self))

    def _member(self, key: str, data: bytes) -> Any:  # noqa: ARG002 - of one that was cut it is a part
        return orjson.Fragment(data)


class Cut(Members):
    """The members of an object that was cut by its index: key -> the whole member as it is written."""

    def written(self, key: str) -> bytes:
        """The written value of a key."""
        name = NAME.match(self[key])
        assert name is not None
        return bytes(self[key][name.end() :])

    def payload(self) -> Payload:
        """All members as one object, joined once, with an index where it is large."""
        pieces: list[bytes | memoryview] = [b","] * (2 * len(self) + 1)
        pieces[1::2] = self.values()
        pieces[0], pieces[-1] = b"{", b"}"
        data = b"".join(pieces) if self else b"{}"
        is_indexed = len(data) > INDEXED_BYTES and len(self) <= most_members(len(data))
        return Payload(data, index=tuple(map(len, self.values())) if is_indexed else None)

    def _member(self, key: str, data: bytes) -> Any:
        return b"%b:%b" % (orjson.dumps(key), data)


def most_members(size: int) -> int:
    """The most members that a state of so many bytes may have to get an index."""
    return min(INDEXED_MEMBERS, size // MEMBER_BYTES)


def members_of(payload: Payload) -> Members:
    """The members of a sealed state: cut by the index where there is one that fits, else parsed.

    Raises:
        SessionInvalid: It is no object: another program that has our key sealed it.
    """
    try:
        data, index = payload.data, payload.index
        found = None if index is None else cut(data, index)
        if found is not None:
            return found
        values = orjson.loads(data)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise SessionInvalid(reason="state")
    return Members(values)


def cut(data: bytes, index: Sequence[int]) -> Cut | None:
    """The members of an object, cut by their lengths; None where those do not fit it."""
    if sum(index) + len(index) + 1 != len(data) or not data.startswith(b"{"):
        return None
    view, last, at = memoryview(data), len(data) - 1, 1
    names, members = [], []
    for length in index:
        end = at + length
        name = NAME.match(data, at, end)
        if name is None or name.end() == end or data[end] != (BRACE if end == last else COMMA):
            return None
        names.append(name[1])
        members.append(view[at:end])
        at = end + 1
    return _named(names, members)


def _named(names: list[bytes], members: list[memoryview]) -> Cut | None:
    """Members by their keys; None where a name is no JSON text, or is repeated."""
    try:
        keys: list[str] = orjson.loads(b"[%b]" % b",".join(names))
    except orjson.JSONDecodeError:
        return None
    found = Cut(zip(keys, members, strict=True))
    return found if len(found) == len(members) else None


def lacks(payload: Payload, name: bytes) -> bool:
    """Whether a payload is an object whose bytes do not have a quoted name anywhere."""
    try:
        data = payload.data
    except ValueError:
        return False
    return data.startswith(b"{") and data.endswith(b"}") and data.find(name) < 0
