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
from hashlib import sha256
from typing import Final, Protocol

from itsdangerous import Signer

from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.errors import SessionInvalid, SessionTooLarge
from dcaf.core.keys import KID_CHARACTERS, Key, Keyring

MAC_CHARACTERS: Final = 43
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
        """Verify a token; nothing in it is decoded before.

        Raises:
            SessionInvalid: Shape, key id or mac are not right; the reason says which.
        """
        found = SHAPE.fullmatch(token)
        if found is None:
            raise SessionInvalid(reason="shape")
        kid, claims, state = found.groups()
        key = keys.find(kid)
        if key is None:
            raise SessionInvalid(reason="kid", kid=kid)
        body, _, mac = token.rpartition(".")
        if not hmac.compare_digest(_mac(key, audience, body), mac):
            raise SessionInvalid(reason="mac", kid=kid)
        return Opened(self.prefix, key, _decoded(claims, kid), Payload(segment=state))

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


def _decoded(claims: str, kid: str) -> bytes:
    try:
        return decode(claims)
    except ValueError:  # vouched for by our key, so written by another program with it
        raise SessionInvalid(reason="claims", kid=kid) from None


def _mac(key: Key, audience: str, body: str) -> str:
    secret = key.derive(SignedSuite.prefix, audience, "mac")
    signer = Signer(secret, key_derivation="none", digest_method=sha256)
    return signer.get_signature(body).decode()
