"""Encrypt an answer's session for a store that keeps it for a while: for the client that never got that answer.

>>> from dcaf.core.keys import Key, Keyring
>>> ring = Keyring(Key.generate("k7"))
>>> kept = encrypt_kept(ring.active, "shop", "session id", b"token and mirror")
>>> decrypt_kept(ring, "shop", "session id", kept)
b'token and mirror'
>>> decrypt_kept(ring, "shop", "another session", kept) is None
True

Who reads the store's rows has no token to present. It is XAES-256-GCM, as for encrypted tokens, under a key of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from dcaf.core.encryption import NONCE_BYTES, EncryptedSuite, encrypt, try_decrypt
from dcaf.core.keys import Key, Keyring, length_prefixed

ROLE: Final = "keep"
SEPARATOR: Final = b"."
"""Between the id of the key and what it has encrypted."""


def encrypt_kept(
    key: Key, audience: str, session_id: str, plain: bytes, *, randomness: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Encrypt what a store is to keep of a session."""
    nonce = randomness(NONCE_BYTES)
    box = encrypt(_secret(key, audience), nonce, plain, _bound_to(key, session_id))
    return b"".join((key.kid.encode(), SEPARATOR, nonce, box))


def decrypt_kept(keys: Keyring, audience: str, session_id: str, kept: bytes) -> bytes | None:
    """Decrypt what a store has kept; None where its key is no longer known, or it is of another session."""
    kid, _, rest = kept.partition(SEPARATOR)
    key = keys.find(kid.decode("latin-1"))
    if key is None:
        return None
    return try_decrypt(_secret(key, audience), rest[:NONCE_BYTES], rest[NONCE_BYTES:], _bound_to(key, session_id))


def _secret(key: Key, audience: str) -> bytes:
    return key.derive(EncryptedSuite.prefix, audience, ROLE)


def _bound_to(key: Key, session_id: str) -> bytes:
    return b"".join(length_prefixed(part) for part in (ROLE, key.kid, session_id))
