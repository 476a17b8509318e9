"""What stands in a column that is encrypted: XAES-256-GCM, bound to the table, the key of its row and the column.

    cell = 1 . mark 4 . length of the key's id 1 . id . nonce 24 . ciphertext . tag 16

>>> from dcaf.core.keys import Key, Keyring
>>> cells = Cells(Keyring(Key.generate("k7")), "clinic", b"mark")
>>> place = place_of("messages", b"visit 1, message 3", "data")
>>> cell = cells.seal(place, b"Hello!")
>>> cells.open(place, cell), kid_of(cell)
(b'Hello!', 'k7')
>>> cells.open(place_of("messages", b"visit 1, message 4", "data"), cell)
Traceback (most recent call last):
    ...
dcaf.core.errors.SealedRowError: A row of the table `messages` is not the one that was written in its place.

The mark is that of an application in a store. What has another one was never written by this service.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from dcaf.core.encryption import NONCE_BYTES, TAG_BYTES, EncryptedSuite, derive_cipher
from dcaf.core.errors import SealedRowError
from dcaf.core.importing import extra
from dcaf.core.keys import KID, Key, Keyring
from dcaf.service.encryption_layout import begin_place

with extra("Encryption", "dcaf[crypto]"):
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROLE: Final = "rest"
VERSION: Final = b"\1"
MARK_BYTES: Final = 4
HALF_BYTES: Final = NONCE_BYTES // 2
BEFORE_KID: Final = len(VERSION) + MARK_BYTES + 1

MOST_UNDER_A_HALF: Final = 2**20
"""After how many cells a process draws the first half of its nonces anew. The other half is drawn for each cell."""

NOT_SEALED: Final = (
    "A row of the table `{}` was not encrypted by this service: somebody else has written it, or another key of names."
)
UNKNOWN_KEY: Final = (
    "A row of the table `{}` is encrypted under the key {!r}, which the ring does not have. Put that key back into it, as one that "
    "verifies, until `dcaf sessions re-encrypt` has taken it out of all rows."
)
MOVED: Final = "A row of the table `{}` is not the one that was written in its place."


class _Half(NamedTuple):
    """What the cells of a process have in common.

    Attributes:
        key: The key.
        head: What they begin with, up to the first half of the nonce.
        cipher: Of that half.
    """

    key: Key
    head: bytes
    cipher: AESGCM


class Cells:
    """Seals and opens the cells of one application.

    Args:
        keys: The ring: its signer encrypts, all of its keys decrypt.
        app: The application.
        mark: What tells its cells in this store: 4 bytes.
        randomness: That many random bytes.
    """

    def __init__(self, keys: Keyring, app: str, mark: bytes, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._keys = keys
        self._app = app
        self._start = VERSION + mark
        self._randomness = randomness
        self._half: _Half | None = None
        self._last: _Half | None = None
        self._left = 0

    def seal(self, place: bytes, plain: bytes) -> bytes:
        """Encrypt what stands in a place, as ``place_of`` names it."""
        head, cipher = self._begin()
        rest = self._randomness(HALF_BYTES)
        return head + rest + cipher.encrypt(rest, plain, head[:-HALF_BYTES] + place)

    def open(self, place: bytes, cell: bytes) -> bytes:
        """Decrypt what stands in a place.

        Raises:
            SealedRowError: It was not written there, or its key is not in the ring.
        """
        last = self._last
        if last is None or not cell.startswith(last.head) or self._keys.find(last.key.kid) is not last.key:
            last = self._last = self._find_half(place, cell)
        start = len(last.head)
        end = start + HALF_BYTES
        try:
            return last.cipher.decrypt(cell[start:end], memoryview(cell)[end:], last.head[:-HALF_BYTES] + place)
        except (InvalidTag, ValueError):
            raise SealedRowError(MOVED.format(table_of(place))) from None

    def is_ours(self, cell: bytes) -> bool:
        """Whether it has the shape of a cell of this application in this store."""
        return cell.startswith(self._start) and len(cell) >= BEFORE_KID + NONCE_BYTES + TAG_BYTES

    def is_current(self, cell: bytes) -> bool:
        """Whether it is encrypted under the key that encrypts now."""
        return self.is_ours(cell) and kid_of(cell) == self._signer().kid

    def _find_half(self, place: bytes, cell: bytes) -> _Half:
        """What a cell has in common with others of the process that wrote it: mostly that of the last one that was opened.

        Raises:
            SealedRowError: It is no cell of this application, or its key is not in the ring.
        """
        if not self.is_ours(cell):
            raise SealedRowError(NOT_SEALED.format(table_of(place)))
        kid = kid_of(cell)
        key = self._keys.find(kid)
        if key is None:
            raise SealedRowError((UNKNOWN_KEY if KID.fullmatch(kid) else MOVED).format(table_of(place), kid))
        head = cell[: BEFORE_KID + len(kid) + HALF_BYTES]
        return _Half(key, head, derive_cipher(self._secret(key), head[-HALF_BYTES:]))

    def _begin(self) -> tuple[bytes, AESGCM]:
        key, half = self._signer(), self._half
        if half is None or half.key is not key or self._left <= 0:
            first = self._randomness(HALF_BYTES)
            kid = key.kid.encode()
            head = self._start + bytes([len(kid)]) + kid + first
            half = self._half = _Half(key, head, derive_cipher(self._secret(key), first))
            self._left = MOST_UNDER_A_HALF
        self._left -= 1
        return half.head, half.cipher

    def _signer(self) -> Key:
        return self._keys.signer(time.time())

    def _secret(self, key: Key) -> bytes:
        return key.derive(EncryptedSuite.prefix, self._app, ROLE)


def place_of(table: str, key: bytes, column: str) -> bytes:
    """What a cell is bound to."""
    return begin_place(table, column) + key


def table_of(place: bytes) -> str:
    """The table of a place."""
    return place.partition(b"\0")[0].decode()


def kid_of(cell: bytes) -> str:
    """The id of the key of a cell."""
    return cell[BEFORE_KID : BEFORE_KID + cell[BEFORE_KID - 1]].decode("latin-1")
