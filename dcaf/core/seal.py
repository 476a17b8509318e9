"""Bytes <-> token: the shape that both suites share, and the signed suite.

    dcaf1s . kid . claims . state . mac

>>> from dcaf.core.keys import Key, Keyring
>>> ring = Keyring(Key.generate("k7"))
>>> token = SIGNED.seal(ring.active, "shop", b'{"aud":"shop"}', Payload(b'{"step":1}'))
>>> SIGNED.open(token, ring, "shop").payload.data
b'{"step":1}'

What a reader gets wrong: the text of the expected mac is compared with the text received. Decoding first, as
``Signer.verify_signature`` does, accepts several spellings of one signature; here a token has exactly one.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

from itsdangerous import Signer
from itsdangerous.signer import SigningAlgorithm

from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.errors import SessionInvalid, SessionTooLarge
from dcaf.core.keys import KID_CHARACTERS, Key, Keyring

MAC_CHARACTERS: Final = 43
HEAD: Final = re.compile(r"dcaf1s\.([A-Za-z0-9]{1,16})\.([\w-]{2,})\.", re.ASCII)
SHAPE: Final = re.compile(r"dcaf1s\.([A-Za-z0-9]{1,16})\.([\w-]{2,})\.([\w-]{3,})\.[\w-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Opened:
    """What stood in a token whose seal was verified: by which suite and key, the claims as bytes, the state."""

    suite: str
    key: Key
    claims: bytes = field(repr=False)
    payload: Payload = field(repr=False)


class Suite(Protocol):
    """One way to seal; the prefix of a token names it, and nothing else in the token chooses."""

    prefix: str

    def seal(self, key: Key, audience: str, claims: bytes, payload: Payload) -> str:
        """Write a token."""

    def open(self, token: str, keys: Keyring, audience: str) -> Opened:
        """Verify a token.

        Raises:
            SessionInvalid: It was not sealed by one of these keys for this audience; the reason says why.
        """

    def room(self, claims_bytes: int, max_token_bytes: int) -> int:
        """How many bytes of state fit into a token beside so many of claims; negative where even those do not."""


class SignedSuite:
    """Claims and state in clear, under HMAC-SHA-256 (RFC 2104)."""

    prefix: str = "dcaf1s"

    def seal(self, key: Key, audience: str, claims: bytes, payload: Payload) -> str:
        """Write a token. A payload that came from a token is copied, not encoded again."""
        body = f"{self.prefix}.{key.kid}.{encode(claims)}.{payload.segment}"
        return f"{body}.{_mac(key, audience, body)}"

    def open(self, token: str, keys: Keyring, audience: str) -> Opened:
        """Verify a token; nothing in it is decoded before its mac has verified.

        Raises:
            SessionInvalid: Shape, key id or mac are not right; the reason says which.
        """
        head, body, mac = HEAD.match(token), token[: -MAC_CHARACTERS - 1], token[-MAC_CHARACTERS:]
        key = keys.find(head[1]) if head else None
        if head is None or key is None or not mac.isascii() or not hmac.compare_digest(_mac(key, audience, body), mac):
            raise _refused(token, key)
        payload = Payload(segment=body[head.end() :])
        if not (token[len(body)] == "." and _is_state(payload)) and SHAPE.fullmatch(token) is None:
            raise SessionInvalid(reason="shape")
        return Opened(self.prefix, key, _decoded(head[2], key.kid), payload)

    def room(self, claims_bytes: int, max_token_bytes: int) -> int:
        """How many bytes of state fit into a token beside so many of claims."""
        beside = len(self.prefix) + KID_CHARACTERS + -(-claims_bytes * 4 // 3) + MAC_CHARACTERS + len("....")
        return (max_token_bytes - beside) * 3 // 4


SIGNED: Final = SignedSuite()


def check_text(token: object, max_token_bytes: int) -> str:
    """Take a token only as ASCII text within its limit, before anything else is done with it.

    Raises:
        SessionInvalid: It is not ASCII text.
        SessionTooLarge: It is over the limit.
    """
    if not isinstance(token, str) or not token.isascii():
        raise SessionInvalid(reason="ascii")
    if len(token) > max_token_bytes:
        raise SessionTooLarge(reason="length")
    return token


def _is_state(payload: Payload) -> bool:
    """Whether a segment has the shape of a state for certain: decoding tells it many times faster than a pattern does."""
    try:
        return len(payload.data) >= len(b"{}")
    except ValueError:
        return False


def _refused(token: str, key: Key | None) -> SessionInvalid:
    """Why a token was refused; the shape comes first."""
    found = SHAPE.fullmatch(token)
    if found is None:
        return SessionInvalid(reason="shape")
    return SessionInvalid(reason="kid" if key is None else "mac", kid=found[1])


def _decoded(claims: str, kid: str) -> bytes:
    try:
        return decode(claims)
    except ValueError:  # vouched for by our key, so written by another program with it
        raise SessionInvalid(reason="claims", kid=kid) from None


class _OneShot(SigningAlgorithm):
    """HMAC-SHA-256 in one call of OpenSSL; itsdangerous' own makes two objects of Python for it."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")


def _signer(secret: bytes) -> Signer:
    return Signer(secret, key_derivation="none", algorithm=_OneShot())


_known_signer: Final = lru_cache(maxsize=256)(_signer)


def _mac(key: Key, audience: str, body: str) -> str:
    return _known_signer(key.derive(SignedSuite.prefix, audience, "mac")).get_signature(body).decode()
