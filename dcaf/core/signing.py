"""Bytes <-> token: the shape that both suites share, and the signed suite.

    dcaf1s . kid . claims . state . mac

>>> from dcaf.core.keys import Key, Keyring
>>> ring = Keyring(Key.generate("k7"))
>>> token = SIGNED.seal(ring.active, "shop", b'{"aud":"shop"}', Payload(b'{"step":1}'))
>>> SIGNED.open(token, ring, "shop").payload.data
b'{"step":1}'

The text of the expected mac is compared with the received text. Decoding first, as ``Signer.verify_signature`` does, accepts
several spellings of one signature; here a token has exactly one.
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeAlias

from itsdangerous.signer import SigningAlgorithm

from dcaf.core.base64url import EQUALS, PLUS, SLASH, Payload, decode_known, encode_as_bytes
from dcaf.core.errors import SessionInvalid, SessionTooLarge
from dcaf.core.keys import KID_CHARACTERS, Key, Keyring

MAC_CHARACTERS: Final = 43
BEFORE_MAC: Final = -MAC_CHARACTERS - 1
DOT: Final = ord(".")
HEAD: Final = re.compile(rb"dcaf1s\.([A-Za-z0-9]{1,16})\.([\w-]{2,})\.")
SHAPE: Final = re.compile(rb"dcaf1s\.([A-Za-z0-9]{1,16})\.([\w-]{2,})\.([\w-]{3,})\.[\w-]{43}")

Pieces: TypeAlias = tuple[bytes | memoryview, ...]
"""A text in pieces."""


class Opened(NamedTuple):
    """A token whose seal was verified: its suite and key, its claims as bytes, its state, and the token itself."""

    suite: str
    key: Key
    claims: bytes
    payload: Payload
    token: bytes = b""

    def __repr__(self) -> str:
        return f"Opened(suite={self.suite!r}, key={self.key!r})"


class Suite(Protocol):
    """One way to seal; the prefix of a token names it, and nothing else in the token chooses."""

    prefix: str

    def seal(self, key: Key, audience: str, claims: bytes, payload: Payload) -> bytes:
        """Write a token: ASCII text."""

    def pieces(self, key: Key, audience: str, claims: bytes, payload: Payload) -> Pieces:
        """Write a token in pieces, so that a large one is joined once, with all that stands around it."""

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        """Verify a token.

        Raises:
            SessionInvalid: It was not sealed by one of these keys for this audience; the reason says why.
        """

    def room(self, claims_bytes: int, max_token_bytes: int) -> int:
        """How many bytes of state fit into a token with so many bytes of claims; negative where the claims alone do not fit."""


class SignedSuite:
    """Claims and state in clear, under HMAC-SHA-256 (RFC 2104)."""

    prefix: str = "dcaf1s"

    def seal(self, key: Key, audience: str, claims: bytes, payload: Payload) -> bytes:
        """Write a token."""
        return b"".join(self.pieces(key, audience, claims, payload))

    def pieces(self, key: Key, audience: str, claims: bytes, payload: Payload) -> Pieces:
        """Write a token in pieces. A payload that came from a token is copied, not encoded again."""
        head, segment = b"dcaf1s.%b.%b." % (key.kid.encode(), encode_as_bytes(claims)), payload.segment
        return head, segment, b"." + _mac(key, audience, head, segment)

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        """Verify a token; nothing in it is decoded before its mac has verified.

        Raises:
            SessionInvalid: Shape, key id or mac are not right; the reason says which.
        """
        head, body = HEAD.match(token), memoryview(token)[:BEFORE_MAC]
        key = keys.find(head[1].decode()) if head else None
        if head is None or key is None or not hmac.compare_digest(_mac(key, audience, body), token[-MAC_CHARACTERS:]):
            raise _build_refusal(token, key)
        segment = body[head.end() :]
        state = None if PLUS in token or SLASH in token or EQUALS in token else _state_in(segment)
        # A state that can be read has the shape, and tells so many times faster than a pattern does.
        if (state is None or token[BEFORE_MAC] != DOT) and not SHAPE.fullmatch(token):
            raise SessionInvalid(reason="shape")
        try:
            # The same as ``Opened(...)``, which is a function of Python around this one.
            return tuple.__new__(Opened, ("dcaf1s", key, decode_known(head[2]), Payload(state, segment=segment), token))
        except ValueError:  # the mac is right, so another program with our key wrote it
            raise SessionInvalid(reason="claims", kid=key.kid) from None

    def room(self, claims_bytes: int, max_token_bytes: int) -> int:
        """How many bytes of state fit into a token with so many bytes of claims."""
        other = len(self.prefix) + KID_CHARACTERS + -(-claims_bytes * 4 // 3) + MAC_CHARACTERS + len("....")
        return (max_token_bytes - other) * 3 // 4


def check_text(token: object, max_token_bytes: int) -> bytes:
    """Require a token to be ASCII text within its limit, before anything else is done with it.

    Raises:
        SessionInvalid: It is not ASCII text.
        SessionTooLarge: It is over the limit.
    """
    if not isinstance(token, str) or not token.isascii():
        raise SessionInvalid(reason="ascii")
    if len(token) > max_token_bytes:
        raise SessionTooLarge(reason="length")
    return token.encode()


class Keyed(SigningAlgorithm):
    """HMAC-SHA-256 (RFC 2104) for itsdangerous. The keyed object is made once and copied, in half the time for a small token.

    >>> Keyed(bytes(32)).get_signature(bytes(32), b"text") == hmac.digest(bytes(32), b"text", "sha256")
    True
    """

    def __init__(self, secret: bytes) -> None:
        self._keyed = hmac.new(secret, digestmod="sha256")

    def get_signature(self, key: bytes, value: bytes) -> bytes:  # noqa: ARG002 - itsdangerous passes the key each time
        """The mac of a text, with the key of this object."""
        return self.mac(value)

    def mac(self, text: bytes | memoryview, more: bytes | memoryview = b"") -> bytes:
        """The mac of a text, in one piece or in two."""
        keyed = self._keyed.copy()
        keyed.update(text)
        if more:
            keyed.update(more)
        return keyed.digest()


def _state_in(segment: memoryview) -> bytes | None:
    """The decoded state of a segment; None where it surely has none."""
    try:
        state = decode_known(segment)
    except ValueError:
        return None
    return state if len(state) >= len(b"{}") else None


def _build_refusal(token: bytes, key: Key | None) -> SessionInvalid:
    """The refusal of a token; its shape is checked first."""
    found = SHAPE.fullmatch(token)
    if found is None:
        return SessionInvalid(reason="shape")
    return SessionInvalid(reason="kid" if key is None else "mac", kid=found[1].decode())


@lru_cache(maxsize=256)
def _keyed(secret: bytes) -> Keyed:
    return Keyed(secret)


def _mac(key: Key, audience: str, text: bytes | memoryview, more: bytes | memoryview = b"") -> bytes:
    """The mac that a Signer of itsdangerous appends with ``key_derivation="none"``, without its copies of the text."""
    return encode_as_bytes(_keyed(key.derive("dcaf1s", audience, "mac")).mac(text, more))


SIGNED: Final = SignedSuite()
