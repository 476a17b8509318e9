"""The encrypted suite: a token that nobody without the key can read, XAES-256-GCM (https://c2sp.org/XAES-256-GCM).

    dcaf1e . kid . box          box = base64url(nonce 24 | ciphertext | tag 16)

>>> from dcaf.core.base64url import Payload
>>> from dcaf.core.keys import Key, Keyring
>>> ring = Keyring(Key.generate("k7"))
>>> token = ENCRYPTED.seal(ring.active, "shop", b'{"aud":"shop"}', Payload(b'{"step":1}'))
>>> ENCRYPTED.open(token, ring, "shop").payload.data
b'{"step":1}'

What a reader gets wrong: it is AES-256-GCM with a nonce long enough to be drawn at random for ever, not a cipher of our own.
The nonce's first half derives a key, its second half is that key's nonce.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.errors import SessionInvalid
from dcaf.core.keys import KID_CHARACTERS, Key, Keyring, length_prefixed
from dcaf.core.seal import Opened

SHAPE: Final = re.compile(r"dcaf1e\.([A-Za-z0-9]{1,16})\.([\w-]{54,})", re.ASCII)
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16
SEPARATOR: Final = b"\n"
"""Between claims and state; compact JSON has no line feed of its own."""


class EncryptedSuite:
    """Claims and state under XAES-256-GCM, with the key id and the audience as associated data."""

    prefix: str = "dcaf1e"

    def __init__(self, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._randomness = randomness

    def seal(self, key: Key, audience: str, claims: bytes, payload: Payload) -> str:
        """Write a token, each time another one."""
        nonce = self._randomness(NONCE_BYTES)
        secret = key.derive(self.prefix, audience, "box")
        box = encrypt(secret, nonce, claims + SEPARATOR + payload.data, _bound_to(key.kid, audience))
        return f"{self.prefix}.{key.kid}.{encode(nonce + box)}"

    def open(self, token: str, keys: Keyring, audience: str) -> Opened:
        """Decrypt a token; nothing but the one base64 step is done before it is authentic.

        Raises:
            SessionInvalid: Shape, spelling, key id or tag are not right; the reason says which.
        """
        found = SHAPE.fullmatch(token)
        if found is None:
            raise SessionInvalid(reason="shape")
        kid, box = found.groups()
        key = keys.find(kid)
        if key is None:
            raise SessionInvalid(reason="kid", kid=kid)
        data = _spelled_once(box, kid)
        try:
            plain = decrypt(
                key.derive(self.prefix, audience, "box"), data[:NONCE_BYTES], data[NONCE_BYTES:], _bound_to(kid, audience)
            )
        except InvalidTag:
            raise SessionInvalid(reason="tag", kid=kid) from None
        claims, separator, state = plain.partition(SEPARATOR)
        if not separator:
            raise SessionInvalid(reason="claims", kid=kid)
        return Opened(self.prefix, key, claims, Payload(state))

    def room(self, claims_bytes: int, max_token_bytes: int) -> int:
        """How many bytes of state fit into a token beside so many of claims."""
        box = (max_token_bytes - len(self.prefix) - KID_CHARACTERS - len("..")) * 3 // 4
        return box - NONCE_BYTES - claims_bytes - len(SEPARATOR) - TAG_BYTES


def encrypt(secret: bytes, nonce: bytes, plain: bytes, bound_to: bytes) -> bytes:
    """XAES-256-GCM: ciphertext and tag. ``secret`` 32 bytes, ``nonce`` 24, never twice with one secret."""
    return AESGCM(_subkey(secret, nonce)).encrypt(nonce[12:], plain, bound_to)


def decrypt(secret: bytes, nonce: bytes, box: bytes, bound_to: bytes) -> bytes:
    """XAES-256-GCM, back.

    Raises:
        InvalidTag: The box, the nonce or what it is bound to is not what was encrypted.
    """
    return AESGCM(_subkey(secret, nonce)).decrypt(nonce[12:], box, bound_to)


def _subkey(secret: bytes, nonce: bytes) -> bytes:
    """Steps 3 to 5 of the specification: CMAC-AES-256 in counter mode over the first half of the nonce."""
    blocks = b"".join(bytes([0, counter, 0x58, 0]) + nonce[:12] for counter in (1, 2))
    mask = _known_cmac_key(secret) * 2
    return _aes(secret, bytes(a ^ b for a, b in zip(blocks, mask, strict=True)))


def _cmac_key(secret: bytes) -> bytes:
    """Steps 1 and 2: the key K1 of CMAC (NIST SP 800-38B, section 6.1)."""
    block = int.from_bytes(_aes(secret, bytes(16)), "big")
    carry = 0b10000111 if block >> 127 else 0
    return ((block << 1 & (1 << 128) - 1) ^ carry).to_bytes(16, "big")


_known_cmac_key: Final = lru_cache(maxsize=64)(_cmac_key)


def _aes(secret: bytes, blocks: bytes) -> bytes:
    # Each block on its own, which is what the specification asks for; no message is encrypted this way.
    encryptor = Cipher(AES(secret), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(blocks) + encryptor.finalize()


def _bound_to(kid: str, audience: str) -> bytes:
    return b"".join(length_prefixed(part) for part in (EncryptedSuite.prefix, kid, audience))


def _spelled_once(box: str, kid: str) -> bytes:
    """Decode strictly: of the spellings that decode to the same bytes, one is accepted."""
    try:
        data = decode(box)
    except ValueError:
        raise SessionInvalid(reason="base64", kid=kid) from None
    if encode(data) != box:
        raise SessionInvalid(reason="base64", kid=kid)
    return data


ENCRYPTED: Final = EncryptedSuite()
