"""The encrypted suite: a token that nobody without the key can read, XAES-256-GCM (https://c2sp.org/XAES-256-GCM).

    dcaf1e . kid . box          box = base64url(nonce 24 | ciphertext | tag 16)

>>> from dcaf.core.base64url import Payload
>>> from dcaf.core.keys import Key, Keyring
>>> ring = Keyring(Key.generate("k7"))
>>> token = ENCRYPTED.seal(ring.active, "shop", b'{"aud":"shop"}', Payload(b'{"step":1}'))
>>> ENCRYPTED.open(token, ring, "shop").payload.data
b'{"step":1}'

XAES-256-GCM is AES-256-GCM with a nonce long enough to be drawn at random without a limit: its first half derives a key, and its
second half is that key's nonce.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from threading import get_ident
from typing import Final

from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.errors import SessionInvalid
from dcaf.core.importing import extra
from dcaf.core.keys import KID_CHARACTERS, Key, Keyring, length_prefixed
from dcaf.core.signing import Opened, Pieces

with extra("Encryption", "dcaf[crypto]"):
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES

HEAD: Final = re.compile(rb"dcaf1e\.([A-Za-z0-9]{1,16})\.")
SHAPE: Final = re.compile(rb"dcaf1e\.([A-Za-z0-9]{1,16})\.([\w-]{54,})")
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16
SEPARATOR: Final = b"\n"
"""Between claims and state; compact JSON has no line feed of its own."""


class EncryptedSuite:
    """Claims and state under XAES-256-GCM, with the key id and the audience as associated data."""

    prefix: str = "dcaf1e"

    def __init__(self, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._randomness = randomness

    def seal(self, key: Key, audience: str, claims: bytes, payload: Payload) -> bytes:
        """Write a token; each call makes another one."""
        return b"".join(self.pieces(key, audience, claims, payload))

    def pieces(self, key: Key, audience: str, claims: bytes, payload: Payload) -> Pieces:
        """Write a token in pieces. The nonce's 24 bytes are 32 characters, so what follows is encoded on its own."""
        nonce = self._randomness(NONCE_BYTES)
        secret = key.derive(self.prefix, audience, "box")
        box = encrypt(secret, nonce, claims + SEPARATOR + payload.data, _bound_to(key.kid, audience))
        return f"{self.prefix}.{key.kid}.{encode(nonce)}".encode(), Payload(box).segment

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        """Decrypt a token; nothing but the one base64 step is done before it is authentic.

        Raises:
            SessionInvalid: Shape, spelling, key id or tag are not right; the reason says which.
        """
        head = HEAD.match(token)
        key = keys.find(head[1].decode()) if head else None
        data = None if head is None else _spelled_once(token[head.end() :])
        if key is None or data is None or len(data) < NONCE_BYTES + TAG_BYTES:
            raise _build_refusal(token, key)
        try:
            plain = decrypt(
                key.derive(self.prefix, audience, "box"),
                data[:NONCE_BYTES],
                memoryview(data)[NONCE_BYTES:],
                _bound_to(key.kid, audience),
            )
        except InvalidTag:
            raise SessionInvalid(reason="tag", kid=key.kid) from None
        claims, separator, state = plain.partition(SEPARATOR)
        if not separator:
            raise SessionInvalid(reason="claims", kid=key.kid)
        return Opened(self.prefix, key, claims, Payload(state), token)

    def room(self, claims_bytes: int, max_token_bytes: int) -> int:
        """How many bytes of state fit into a token with so many bytes of claims."""
        box = (max_token_bytes - len(self.prefix) - KID_CHARACTERS - len("..")) * 3 // 4
        return box - NONCE_BYTES - claims_bytes - len(SEPARATOR) - TAG_BYTES


def encrypt(secret: bytes, nonce: bytes, plain: bytes, bound_to: bytes) -> bytes:
    """XAES-256-GCM: ciphertext and tag. ``secret`` 32 bytes, ``nonce`` 24, never twice with one secret."""
    return AESGCM(_subkey(secret, nonce)).encrypt(nonce[12:], plain, bound_to)


def decrypt(secret: bytes, nonce: bytes, box: bytes | memoryview, bound_to: bytes) -> bytes:
    """XAES-256-GCM, back.

    Raises:
        InvalidTag: The box, the nonce or what it is bound to is not what was encrypted.
    """
    return AESGCM(_subkey(secret, nonce)).decrypt(nonce[12:], box, bound_to)


def try_decrypt(secret: bytes, nonce: bytes, box: bytes, bound_to: bytes) -> bytes | None:
    """XAES-256-GCM, back; None where the box, the nonce or what it is bound to is not what was encrypted."""
    try:
        return decrypt(secret, nonce, box, bound_to)
    except (InvalidTag, ValueError):
        return None


@lru_cache(maxsize=256)
def derive_cipher(secret: bytes, half: bytes) -> AESGCM:
    """The cipher of all nonces that begin with these 12 bytes, for who encrypts many small texts: most of the time goes into it.

    The other 12 bytes of a nonce are drawn for each text. Of random ones, 2**20 under one half leave the odds of a repetition under
    2**-57.
    """
    return AESGCM(_subkey(secret, half))


def _subkey(secret: bytes, nonce: bytes) -> bytes:
    """Steps 3 to 5 of the specification: CMAC-AES-256 in counter mode over the first half of the nonce."""
    half = nonce[:12]
    blocks = b"\0\1X\0" + half + b"\0\2X\0" + half
    mask = _known_cmac_key(secret) * 2
    return _aes(secret, (int.from_bytes(blocks, "big") ^ int.from_bytes(mask, "big")).to_bytes(32, "big"))


def _cmac_key(secret: bytes) -> bytes:
    """Steps 1 and 2: the key K1 of CMAC (NIST SP 800-38B, section 6.1)."""
    block = int.from_bytes(_aes(secret, bytes(16)), "big")
    carry = 0b10000111 if block >> 127 else 0
    return ((block << 1 & (1 << 128) - 1) ^ carry).to_bytes(16, "big")


_known_cmac_key: Final = lru_cache(maxsize=64)(_cmac_key)


def _aes(secret: bytes, blocks: bytes) -> bytes:
    # Whole blocks leave nothing behind in an encryptor, so it is never finalized, and serves again.
    return _encryptor(secret, get_ident()).update(blocks)


@lru_cache(maxsize=64)
def _encryptor(secret: bytes, thread: int) -> CipherContext:  # noqa: ARG001 - each thread has one of its own
    # Each block on its own, which is what the specification asks for; no message is encrypted this way.
    return Cipher(AES(secret), modes.ECB()).encryptor()  # noqa: S305


@lru_cache(maxsize=256)
def _bound_to(kid: str, audience: str) -> bytes:
    return b"".join(length_prefixed(part) for part in (EncryptedSuite.prefix, kid, audience))


def _spelled_once(box: bytes) -> bytes | None:
    """Decode strictly: of all spellings of the same bytes only one is accepted; None for any other.

    They differ only in the last characters, in bits that belong to no byte.
    """
    try:
        data = decode(box)
    except ValueError:
        return None
    return data if encode(data[len(data) // 3 * 3 :]).encode() == box[len(box) // 4 * 4 :] else None


def _build_refusal(token: bytes, key: Key | None) -> SessionInvalid:
    """The refusal of a token that was not decrypted; its shape is checked first."""
    found = SHAPE.fullmatch(token)
    if found is None:
        return SessionInvalid(reason="shape")
    return SessionInvalid(reason="kid" if key is None else "base64", kid=found[1].decode())


ENCRYPTED: Final = EncryptedSuite()
