"""The members of a written object, apart and together, without parsing what they hold.

>>> joined = join([("step", b"1"), ("cart", b'{"items":[]}')])
>>> joined.data
b'{"step":1,"cart":{"items":[]}}'
>>> split(b'{"step":1,"cart":{"items":[]}}', (8, 19))
[('step', b'1'), ('cart', b'{"items":[]}')]
>>> split(b'{"step":1,"cart":{"items":[]}}', (8, 18)) is None
True

What a reader gets wrong: the index says only where to cut. The keys are read from the state itself, and an index that does not
fit it is ignored: the state is parsed as if there were none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from dcaf.core.base64url import Payload

INDEXED_BYTES: Final = 4 * 1024
"""States over this size get an index (docs/protocol.md, section 4)."""

INDEXED_MEMBERS: Final = 256
"""States of more members than this get none."""

NAME: Final = re.compile(rb'("(?:[^"\\]|\\.)*"):')


def join(members: Iterable[tuple[str, bytes]]) -> Payload:
    """One object of keys and written values, with an index where it is large."""
    found = list(members)
    data = orjson.dumps({key: orjson.Fragment(value) for key, value in found})
    if len(data) <= INDEXED_BYTES or len(found) > INDEXED_MEMBERS:
        return Payload(data)
    return Payload(data, index=tuple(len(orjson.dumps(key)) + 1 + len(value) for key, value in found))


def split(data: bytes, index: Sequence[int]) -> list[tuple[str, bytes]] | None:
    """Keys and written values of an object, cut by the lengths of its members; None where they do not fit it."""
    found = spans(data, index)
    return None if found is None else [(key, data[start:end]) for key, start, end in found]


def spans(data: bytes, index: Sequence[int]) -> list[tuple[str, int, int]] | None:
    """Keys of an object, and where their values begin and end; None where the lengths of the members do not fit it."""
    if sum(index) + len(index) + 1 != len(data) or not data.startswith(b"{"):
        return None
    members, at = [], 1
    for length in index:
        member = _member(data, at, at + length)
        at += length + 1
        if member is None or data[at - 1 : at] != (b"}" if at == len(data) else b","):
            return None
        members.append(member)
    return members if len({key for key, _, _ in members}) == len(members) else None


def _member(data: bytes, start: int, end: int) -> tuple[str, int, int] | None:
    name = NAME.match(data, start, end)
    if name is None or name.end() == end:
        return None
    try:
        return orjson.loads(name[1]), name.end(), end
    except orjson.JSONDecodeError:
        return None
