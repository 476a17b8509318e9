"""What stands in the keys of encrypted rows in place of owners, sessions and names, and the key with which that is worked out.

>>> names = Names(bytes(range(32)))
>>> from dcaf.service.encryption_layout import LAYOUTS
>>> from dcaf.service.tables import Owner
>>> layout, key = LAYOUTS["dcaf_kept_state"], Owner("clinic", "p-123", partitions=1).state_row("visit-1", "step").key
>>> hidden = names.hide(layout, key)
>>> b"step" in hidden, names.hide(layout, key) == hidden
(False, True)
>>> layout.restore_name(names.show(layout, hidden), {"name": b"step"}) == key
True

The key is random, one for each application, and stands in the database encrypted under the ring. So a rotation of the ring encrypts
it anew, and no row has to move. Owners and sessions are permuted by it, block by block, so that they are found again in what is
read; of a name there is a digest, and the name stands in the row.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, cast

from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import extra
from dcaf.core.keys import Keyring, hkdf_sha256
from dcaf.engines import Exists, Not, Put, Range, Table, Transaction
from dcaf.service.encryption_cells import MARK_BYTES, Cells, place_of
from dcaf.service.encryption_layout import NAMES, OWNER_END, SESSION_START, UNKNOWN, Layout, name_row
from dcaf.service.plans import Plan
from dcaf.service.purging import find_place
from dcaf.service.tables import DIGEST_BYTES, DOCUMENTS, NUMBER_BYTES, OF_SESSION, SESSIONS, STATE, app_rows, find_app, find_spaces

with extra("Encryption", "dcaf[crypto]"):
    from cryptography.hazmat.primitives.ciphers import Cipher, modes
    from cryptography.hazmat.primitives.ciphers.algorithms import AES

SECRET_BYTES: Final = 32
LAST_BYTE: Final = 0xFF
PLACES_KNOWN: Final = 4_096
AT_ONCE: Final = 200
OF_NAME: Final = b"="
"""What stands before the digest of a name, so that the key is never taken for one of a session, or of a user."""

NO_MARK: Final = bytes(MARK_BYTES)

WHOLE: Final = "A range of {} ends or begins within an owner, a session or a name, which are not in order where they are encrypted."
NOT_COMPARED: Final = "Rows of {} that only one session has are not compared by value where they are encrypted."
PLAIN: Final = (
    "The application {!r} has sessions or documents here that are not encrypted, and encrypt= takes none of them over. Write them "
    "to a file by `dcaf sessions export --all-users`, erase them, and import them with `--encrypted`; or leave out encrypt=."
)


class Names:
    """Hides what stands in keys, and shows it again.

    Args:
        secret: The application's key of names.

    Attributes:
        mark: What tells the cells of the application.
    """

    def __init__(self, secret: bytes) -> None:
        self.mark: bytes = hkdf_sha256(secret, b"mark", length=MARK_BYTES)
        self._digests = hkdf_sha256(secret, b"names")
        self._tags = hkdf_sha256(secret, b"tags")
        owners, sessions = (_Blocks(hkdf_sha256(secret, part)) for part in (b"owners", b"sessions"))
        self._hide_owner: Callable[[bytes], bytes] = lru_cache(PLACES_KNOWN)(owners.hide)
        self._show_owner: Callable[[bytes], bytes] = lru_cache(PLACES_KNOWN)(owners.show)

        def hide_session(owner: bytes, session: bytes) -> bytes:
            return sessions.hide(_xor(session, sessions.hide(owner)))

        def show_session(owner: bytes, hidden: bytes) -> bytes:
            return _xor(sessions.show(hidden), sessions.hide(owner))

        self._hide_session: Callable[[bytes, bytes], bytes] = lru_cache(PLACES_KNOWN)(hide_session)
        self._show_session: Callable[[bytes, bytes], bytes] = lru_cache(PLACES_KNOWN)(show_session)

    def hide(self, layout: Layout, key: bytes) -> bytes:
        """The key of a row in the database; or what such keys begin with.

        Raises:
            ConfigurationError: It ends within an owner or a session.
        """
        start = layout.start_of_name(key)
        if layout.refused is not None:
            return self._digest(layout, key)
        if start is None or len(key) <= start:
            return self._hide_place(layout, key)
        if key.startswith(UNKNOWN, start):
            return self._hide_place(layout, key[:start]) + key[start + len(UNKNOWN) :]
        return self._hide_place(layout, key[:start]) + OF_NAME + self._digest(layout, key)

    def show(self, layout: Layout, key: bytes) -> bytes:
        """The key of a row as the service knows it, but for the name."""
        owner = self._show_owner(key[:OWNER_END])
        start = _find_session(layout, key)
        if start is None:
            return owner + key[OWNER_END:]
        end = start + DIGEST_BYTES
        return b"".join((owner, key[OWNER_END:start], self._show_session(owner, key[start:end]), key[end:]))

    def hide_range(self, layout: Layout, wanted: Range) -> Range:
        """A range in the database.

        Raises:
            ConfigurationError: A bound lies within an owner, a session or a name.
        """
        if layout.refused is not None:  # there is no row, and so all ranges are alike
            return Range(layout.sealed, b"\0", b"\0", wanted.limit, wanted.backwards, wanted.partition)
        start, end = self._hide_start(layout, wanted.start), wanted.end
        if end is not None:
            end = self._hide_end(layout, wanted.start, end)
        return Range(layout.sealed, start, end, wanted.limit, wanted.backwards, wanted.partition)

    def tag(self, layout: Layout, key: bytes, value: bytes | None) -> bytes | None:
        """What stands beside a value, so that a condition can compare it; None for none.

        Raises:
            ConfigurationError: Nothing stands there in a row of this key.
        """
        if not layout.has_tag(key):
            raise ConfigurationError(NOT_COMPARED.format(layout.table.name))
        return None if value is None else _mac(self._tags, layout, key, value)

    def _hide_start(self, layout: Layout, key: bytes) -> bytes:
        """The first key of a range: what keys begin with; or the last key of a page, and a zero."""
        start = layout.start_of_name(key)
        if start is None or len(key) <= start:
            return self._hide_place(layout, key)
        if not key.endswith(b"\0"):
            raise ConfigurationError(WHOLE.format(layout.table.name))
        return self.hide(layout, key[:-1]) + b"\0"

    def _hide_end(self, layout: Layout, start: bytes, end: bytes) -> bytes:
        """The end of a range: what comes behind all keys that begin as the start does, or a key of its own."""
        size = len(end)
        if len(start) >= size and start[: size - 1] == end[:-1] and start[size - 1] + 1 == end[-1]:
            while size < len(start) and start[size] == LAST_BYTE and not _is_whole(layout, start[:size]):
                size += 1
            return _follow(self._hide_place(layout, start[:size]))
        return self._hide_place(layout, end)

    def _hide_place(self, layout: Layout, key: bytes) -> bytes:
        if not key:
            return key
        if not _is_whole(layout, key):
            raise ConfigurationError(WHOLE.format(layout.table.name))
        owner, start = key[:OWNER_END], _find_session(layout, key)
        if start is None or len(key) == start:
            return self._hide_owner(owner) + key[OWNER_END:]
        end = start + DIGEST_BYTES
        return b"".join((self._hide_owner(owner), key[OWNER_END:start], self._hide_session(owner, key[start:end]), key[end:]))

    def _digest(self, layout: Layout, key: bytes) -> bytes:
        return _mac(self._digests, layout, key, b"")


class _Blocks(threading.local):
    """A permutation of 16 bytes: one block of AES-256. Each thread has its own, because an object of it serves one at a time."""

    def __init__(self, key: bytes) -> None:
        # Blocks on their own: what is permuted is a digest, of which no two are alike, and no text.
        cipher = Cipher(AES(key), modes.ECB())  # noqa: S305
        self._hide, self._show = cipher.encryptor().update, cipher.decryptor().update

    def hide(self, block: bytes) -> bytes:
        """What stands for a block."""
        return self._hide(_require_block(block))

    def show(self, hidden: bytes) -> bytes:
        """The block for which that stands."""
        return self._show(_require_block(hidden))


def _require_block(block: bytes) -> bytes:
    """A whole block. The cipher would keep a part of one, and permute every block after it wrongly."""
    assert len(block) == DIGEST_BYTES
    return block


def open_names(
    app: str,
    keys: Keyring,
    partitions: int,
    declare: Callable[[Iterable[Table]], None],
    randomness: Callable[[int], bytes] = os.urandom,
) -> Plan[Names]:
    """Read the key of names of an application; draw one where there is none.

    Args:
        app: The application.
        keys: The ring.
        partitions: Of the engine.
        declare: Of the engine.
        randomness: That many random bytes.

    Raises:
        ConfigurationError: There is none, and the application has sessions or documents that are not encrypted.
        SealedRowError: It cannot be opened.
    """
    row, cells = name_row(app, find_app(app, partitions)[1]), Cells(keys, app, NO_MARK, randomness)
    place = place_of(NAMES.name, row.key, "box")
    while True:
        found = (yield Transaction([row])).rows[0]
        if found is not None:
            return Names(cells.open(place, cast("bytes", found["box"] or b"")))
        declare([SESSIONS, STATE, DOCUMENTS])
        yield from _refuse_plain(app, partitions)
        sealed = cells.seal(place, randomness(SECRET_BYTES))
        yield Transaction([row], when=Not(Exists(row)), writes=[Put(row, {"box": sealed})])


def _refuse_plain(app: str, partitions: int) -> Plan[None]:
    """Require that an application has no sessions that are not encrypted, and no keys and documents of its own.

    Raises:
        ConfigurationError: It has.
    """
    (shared,) = (yield Transaction([], ranges=[app_rows(app, 1, partitions=partitions)])).pages
    if shared:
        raise ConfigurationError(PLAIN.format(app))
    for partition in range(partitions):
        documents = Range.of_prefix(DOCUMENTS, find_spaces(app), 1, partition=partition)
        if (yield Transaction([], ranges=[documents])).pages[0]:
            raise ConfigurationError(PLAIN.format(app))
        rows = Range(SESSIONS, b"", None, AT_ONCE, partition=partition)
        while True:
            (page,) = (yield Transaction([], ranges=[rows])).pages
            if any(find_place(app, key, row, partitions) is not None for key, row in page):
                raise ConfigurationError(PLAIN.format(app))
            if len(page) < AT_ONCE:
                break
            rows = Range(SESSIONS, page[-1][0] + b"\0", None, AT_ONCE, partition=partition)


def _find_session(layout: Layout, key: bytes) -> int | None:
    """Where in a key the session begins; None where it has none."""
    if layout.is_list:
        start = OWNER_END + key.startswith(b"\xff", OWNER_END) + NUMBER_BYTES
        return start if len(key) >= start else None
    return SESSION_START if key[OWNER_END:SESSION_START] == OF_SESSION else None


def _is_whole(layout: Layout, key: bytes) -> bool:
    """Whether what keys begin with ends behind an owner and a session, and not within them."""
    start = _find_session(layout, key)
    return len(key) >= OWNER_END and (start is None or len(key) == start or len(key) >= start + DIGEST_BYTES)


def _follow(key: bytes) -> bytes:
    """The first key behind all that begin with this one."""
    stem = key.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])


def _mac(secret: bytes, layout: Layout, key: bytes, value: bytes) -> bytes:
    """A keyed digest (BLAKE2b, RFC 7693) of a row's key, and of a value of it."""
    parts = (layout.table.name.encode(), len(key).to_bytes(2, "big"), key, value)
    return hashlib.blake2b(b"\0".join(parts), key=secret, digest_size=DIGEST_BYTES).digest()


def _xor(first: bytes, second: bytes) -> bytes:
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).to_bytes(DIGEST_BYTES, "big")
