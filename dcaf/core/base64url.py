"""Unpadded base64url, and the state of a token in whichever of its two forms it is at hand.

>>> encode(b'{"step":1}')
'eyJzdGVwIjoxfQ'
>>> Payload(segment=b"eyJzdGVwIjoxfQ").data
b'{"step":1}'

What a reader gets wrong: several spellings decode to the same bytes, so decoding verifies nothing. A seal is compared as text,
before anything is decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pybase64

PLUS: Final = ord("+")
SLASH: Final = ord("/")
EQUALS: Final = ord("=")
ALTERNATIVE: Final = b"-_"
"""The last two characters of base64url's alphabet (RFC 4648, section 5)."""


class Payload:
    """The state of one session: as bytes, or as the segment it arrived in. The other form is made when it is first asked for.

    Attributes:
        data: A compact JSON object in UTF-8. Reading it raises ValueError where the segment is no base64url; characters of plain
            base64 are found by ``is_foreign`` alone.
        index: Byte length of each member, in order; None where there is no index.
    """

    __slots__ = ("_segment", "data", "index")

    data: bytes

    def __init__(
        self, data: bytes | None = None, *, segment: bytes | memoryview = b"", index: tuple[int, ...] | None = None
    ) -> None:
        if data is not None:
            self.data = data
        self._segment: bytes | memoryview = segment
        self.index: tuple[int, ...] | None = index

    if not TYPE_CHECKING:  # type checkers would allow any attribute

        def __getattr__(self, name: str) -> Any:
            """Decode the segment when the bytes are first read."""
            if name == "data":
                self.data = decode_known(self._segment)
            return object.__getattribute__(self, name)

    @property
    def segment(self) -> bytes | memoryview:
        """The state in unpadded base64url; a view where that saves a copy."""
        if not self._segment:
            padded = pybase64.b64encode(self.data, ALTERNATIVE)
            padding = -len(self.data) % 3
            self._segment = memoryview(padded)[:-padding] if padding else padded
        return self._segment


def add_index(payload: Payload, index: tuple[int, ...]) -> Payload:
    """The same state with an index."""
    try:
        return Payload(payload.data, segment=payload._segment, index=index)
    except ValueError:  # reading the bytes later raises it again
        return Payload(segment=payload._segment, index=index)


def encode(data: bytes) -> str:
    """Write unpadded base64url (RFC 4648, section 5)."""
    return pybase64.b64encode_as_string(data, ALTERNATIVE).rstrip("=")


def encode_as_bytes(data: bytes) -> bytes:
    """Write unpadded base64url as bytes."""
    return pybase64.b64encode(data, ALTERNATIVE).rstrip(b"=")


def decode(segment: str | bytes) -> bytes:
    """Read unpadded base64url.

    Raises:
        ValueError: It has other characters, or a length that no bytes have.
    """
    text = segment.encode() if isinstance(segment, str) else segment
    if is_foreign(text):
        raise ValueError("not base64url")
    return decode_known(text)


def is_foreign(text: bytes) -> bool:
    """Whether a text has a character of plain base64, which the decoder would accept."""
    # Numbers, because CPython raises and drops an exception for each ``bytes in bytes`` before it looks: ten times the time.
    return PLUS in text or SLASH in text or EQUALS in text


def decode_known(text: bytes | memoryview) -> bytes:
    """Read a text that is known not to be foreign. Raises as ``decode``."""
    missing = -len(text) % 4
    return pybase64.b64decode(b"".join((text, b"==="[:missing])) if missing else text, ALTERNATIVE, validate=True)
