"""HTTP headers as ASGI has them: what they say of a body, and what they must say of one that was replaced.

>>> set_length([(b"digest", b"sha-256=x"), (b"content-length", b"9"), (b"server", b"a")], 12)
[(b'content-length', b'12'), (b'server', b'a')]

Digests of a replaced body are dropped and not computed anew: this service does not vouch for the bytes of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

Raw: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Headers as ASGI has them: names in lower case."""

DIGESTS: Final = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest"})
"""RFC 1864, RFC 3230, and RFC 9530 that follows it."""

STALE: Final = DIGESTS | {b"etag", b"content-length", b"cache-control"}
JSON: Final = "application/json"
NO_STORE: Final = (b"cache-control", b"no-store")


def is_encoded(headers: Raw) -> bool:
    """Whether a body has a Content-Encoding."""
    return find_encoding(headers) != ""


def find_encoding(headers: Raw) -> str:
    """The first Content-Encoding that is not ``identity``, or an empty text."""
    found = (value.strip().lower() for name, value in headers if name == b"content-encoding")
    return next((value.decode("latin-1") or "unnamed" for value in found if value != b"identity"), "")


def media_type(headers: Raw) -> str:
    """The media type, in lower case and without its parameters; an empty text where there is none."""
    return dict(headers).get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def is_json_type(kind: str) -> bool:
    """Whether a media type is one of JSON (RFC 6839, section 3.1)."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def set_length(headers: Raw, length: int) -> list[tuple[bytes, bytes]]:
    """The headers of a request with another body; a length stands there only where one stood."""
    new = b"%d" % length
    return [(name, new if name == b"content-length" else value) for name, value in headers if name not in DIGESTS]


def describe_new_body(headers: Raw, length: int | None) -> list[tuple[bytes, bytes]]:
    """The headers of an answer whose body was replaced: not to be stored, and of so many bytes; None where nobody can know."""
    kept = [item for item in headers if item[0] not in STALE]
    return [*kept, NO_STORE] if length is None else [*kept, (b"content-length", b"%d" % length), NO_STORE]


def forbid_storing(headers: Raw) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that was computed from a session and passes as it is."""
    return [*[item for item in headers if item[0] != NO_STORE[0]], NO_STORE]
