"""The objects of artifacts, encrypted: each bound to its version, its number, and to whether it is the last.

    path      <random>/<owner, hidden>/<rest of the key of the version's row, hidden>/<number of the part>
    object    a cell, as ``encryption_cells`` has it, of the place: its path, the number, 1 for the last and 0 for the others

What a reader gets wrong: an artifact without bytes has an object, too. Otherwise whoever may write to the database could say of any
artifact that it is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dcaf.service.artifact_contents import Buffer, Contents
from dcaf.service.encryption_layout import LAYOUTS, OBJECTS, OWNER_END, SESSION_END, SESSION_START, begin_place
from dcaf.service.tables import ARTIFACTS, NUMBER_BYTES, OF_SESSION

if TYPE_CHECKING:
    from dcaf.service.encryption_rows import Rows

START_BYTES: Final = 512
"""Of so many bytes at its beginning can be told under which key an object is."""

LAYOUT: Final = LAYOUTS[ARTIFACTS.name]


class SealedContents(Contents):
    """The objects of a service that encrypts.

    Args:
        rows: What seals the rows.
    """

    fewest: int = 1

    def __init__(self, rows: Rows) -> None:
        self._names = rows.names
        self._cells = rows.cells

    def hide(self, key: bytes) -> bytes:
        """What the key of the row is in the database."""
        return self._names.hide(LAYOUT, key)

    def show(self, hidden: bytes) -> bytes:
        """The key of the row.

        Raises:
            ValueError: It is none.
        """
        if len(hidden) < (SESSION_END if hidden[OWNER_END:SESSION_START] == OF_SESSION else SESSION_START):
            raise ValueError("This is no key of a version.")
        return self._names.show(LAYOUT, hidden)

    def pack(self, path: str, number: int, part: Buffer, *, is_last: bool) -> Buffer:
        """A part, encrypted."""
        return self._cells.seal(_place_of(path, number, is_last=is_last), part)

    def unpack(self, path: str, number: int, data: bytes, *, is_last: bool) -> bytes:
        """A part, decrypted.

        Raises:
            SealedRowError: It was not written in its place, or its key is not in the ring.
        """
        return self._cells.open(_place_of(path, number, is_last=is_last), data)

    def is_current(self, start: bytes) -> bool:
        """Whether an object that begins with this is encrypted under the key that encrypts now."""
        return self._cells.is_current(start)


def _place_of(path: str, number: int, *, is_last: bool) -> bytes:
    return begin_place(OBJECTS, "part") + path.encode() + number.to_bytes(NUMBER_BYTES, "big") + bytes([is_last])
