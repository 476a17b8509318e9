"""The floor: nothing but the work that cannot be left out, in one plain function, with the bytes of dcaf's own token.

Two changes of a state: ``touch`` cuts one small member out and writes it anew, ``whole`` parses and writes everything.

>>> touch(b'{"step":3,"cart":{}}'), whole(b'{"step":3,"cart":{}}')
(b'{"step":4,"cart":{}}', b'{"step":4,"cart":{}}')

What a reader gets wrong: a floor checks no claims, no time, no shape and no key id, and it knows where the member stands.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import orjson
import pybase64
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Change: TypeAlias = Callable[[bytes], bytes]
Turn: TypeAlias = Callable[[str], bytes]

STEP: Final = slice(len('{"step":'), len('{"step":3'))
MAC_CHARACTERS: Final = 43
NONCE_BYTES: Final = 24
"""As long as dcaf's; AES-GCM takes its last 12."""


def touch(data: bytes) -> bytes:
    """Add one to ``step``, which stands first, and leave all else as it is."""
    step = orjson.loads(data[STEP]) + 1
    return data[: STEP.start] + orjson.dumps(step) + data[STEP.stop :]


def whole(data: bytes) -> bytes:
    """Add one to ``step``, with all parsed and written anew."""
    state = orjson.loads(data)
    state["step"] += 1
    return orjson.dumps(state)


def signed(secret: bytes, change: Change) -> Turn:
    """Verify the HMAC-SHA-256 of a ``dcaf1s`` token, change its state, and sign it."""

    def turn(token: str) -> bytes:
        text = memoryview(token.encode())
        body, mac, at = text[: -MAC_CHARACTERS - 1], text[-MAC_CHARACTERS:], token.rindex(".", 0, -MAC_CHARACTERS - 1)
        if not hmac.compare_digest(_encode(hmac.digest(secret, body, "sha256")), mac):
            raise ValueError("mac")
        sent = b".".join((body[:at], _encode(change(_decode(body[at + 1 :])))))
        return b".".join((sent, _encode(hmac.digest(secret, sent, "sha256"))))

    return turn


def boxed(secret: bytes, change: Change) -> Turn:
    """Decrypt AES-256-GCM, change the state, and encrypt it; of the length of a ``dcaf1e`` token."""
    cipher = AESGCM(secret)

    def turn(token: str) -> bytes:
        text, at = memoryview(token.encode()), token.rindex(".")
        data = memoryview(_decode(text[at + 1 :]))
        plain = cipher.decrypt(data[12:NONCE_BYTES], data[NONCE_BYTES:], None)
        nonce = os.urandom(NONCE_BYTES)
        return b".".join((text[:at], _encode(nonce + cipher.encrypt(nonce[12:], change(plain), None))))

    return turn


def box(secret: bytes, state: dict[str, Any]) -> str:
    """What ``boxed`` takes."""
    nonce = os.urandom(NONCE_BYTES)
    return f"dcaf1e.bench.{bytes(_encode(nonce + AESGCM(secret).encrypt(nonce[12:], orjson.dumps(state), None))).decode()}"


def unboxed(secret: bytes, token: bytes) -> Any:
    """What ``boxed`` makes."""
    data = _decode(memoryview(token.rpartition(b".")[2]))
    return orjson.loads(AESGCM(secret).decrypt(data[12:NONCE_BYTES], data[NONCE_BYTES:], None))


def _encode(data: bytes) -> memoryview:
    padded = pybase64.b64encode(data, altchars=b"-_")
    return memoryview(padded)[: len(padded) - -len(data) % 3]


def _decode(segment: memoryview) -> bytes:
    padding = b"=" * (-len(segment) % 4)
    return pybase64.b64decode(b"".join((segment, padding)) if padding else segment, altchars=b"-_", validate=True)
