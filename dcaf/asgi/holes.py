"""The fast path over bytes: long tokens are cut out of a body before it is parsed, and put back where they are asked for.

>>> body = b'{"data":{"session":{"dcaf":{"token":"dcaf1s.' + b"A" * 3_000 + b'"}}}}'
>>> small, holes = cut(body)
>>> len(small) < 150, holes.fill(small.decode()).encode() == body
(True, True)

Why the two texts mean the same: what is cut out begins after ``"token":"`` and ends before the next quote, and consists of
letters, digits, ``-``, ``_`` and ``.``. If that third quote opens a string, the text between is its content, and any other text
without quotes and backslashes leaves the rest as it is. If it does not, the text stands outside a string, and so does what
stands in for it: neither is JSON, so a strict parser refuses both.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from typing import Final

BEGIN: Final = b'"token":"dcaf1'
LEAST_BYTES: Final = 2 * 1024
"""Shorter tokens are parsed with the rest: cutting them out would take longer."""

MOST: Final = 64
"""Tokens that are cut out of one body, at most."""

ALPHABET: Final = (string.ascii_letters + string.digits + "-_.").encode()


class Holes:
    """What was cut out of a text: stand-in -> token."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._found = re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def token(self, text: str) -> str:
        """The token that a text stands in for; the text itself where it stands for none."""
        return self._tokens.get(text, text)

    def fill(self, text: str) -> str:
        """A part of the text with every token back in its place."""
        return text if self._found is None else self._found.sub(lambda found: self._tokens[found[0]], text)


NONE: Final = Holes({})


def cut(data: bytes) -> tuple[bytes, Holes]:
    """A text without its long tokens, and these."""
    if len(data) < LEAST_BYTES:
        return data, NONE
    mark = secrets.token_hex(16)
    pieces: list[bytes] = []
    tokens: dict[str, str] = {}
    at = 0
    while len(tokens) < MOST and (begin := data.find(BEGIN, at)) >= 0:
        start = begin + len(b'"token":"')
        end = data.find(b'"', start)
        if end - start < LEAST_BYTES or data[start:end].translate(None, ALPHABET):
            pieces.append(data[at:start])
            at = start
            continue
        stand_in = f"{mark}.{len(tokens)}."
        tokens[stand_in] = data[start:end].decode()
        pieces += [data[at:start], stand_in.encode()]
        at = end
    if not tokens:
        return data, NONE
    return b"".join([*pieces, data[at:]]), Holes(tokens)
