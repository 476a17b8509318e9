"""Unpadded base64url, and the state of a token in whichever of its two forms it is at hand.

>>> encode(b'{"step":1}')
'eyJzdGVwIjoxfQ'
>>> Payload(segment="eyJzdGVwIjoxfQ").data
b'{"step":1}'

What a reader gets wrong: several spellings decode to the same bytes, so decoding never verifies anything. A seal is
compared as text, before anything is decoded.
"""

from __future__ import annotations

from functools import cached_property

import pybase64


class Payload:
    """The state of one session: as bytes, or as the segment it arrived in; the other form is made when asked for.

    Attributes:
        index: Byte length of each member, in order; None where there is no index.
    """

    def __init__(self, data: bytes | None = None, *, segment: str | None = None, index: tuple[int, ...] | None = None) -> None:
        self.index = index
        if data is not None:
            self.data = data
        if segment is not None:
            self.segment = segment

    @cached_property
    def data(self) -> bytes:
        """A compact JSON object in UTF-8.

        Raises:
            ValueError: The segment is no base64url.
        """
        return decode(self.segment)

    @cached_property
    def segment(self) -> str:
        """The same in unpadded base64url."""
        return encode(self.data)


def encode(data: bytes) -> str:
    """Write unpadded base64url (RFC 4648, section 5)."""
    return pybase64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(segment: str) -> bytes:
    """Read unpadded base64url.

    Raises:
        ValueError: It has other characters, or a length that no bytes have.
    """
    if "+" in segment or "/" in segment or "=" in segment:
        raise ValueError("not base64url")
    return pybase64.b64decode(segment + "=" * (-len(segment) % 4), altchars="-_", validate=True)
