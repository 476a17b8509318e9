"""Encrypt the objects of artifacts anew that are not under the key that encrypts now, one at a time.

An object is replaced by one that has the same bytes. Whoever reads meanwhile finds either of them, and opens both. Where it breaks
off, the next one looks at the first bytes of each object, and goes on.

What a reader gets wrong: a save that is not at its end yet is left alone, since its number may be used again. Objects of it
that are under an older key count as refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dcaf.core.errors import ConfigurationError, SealedRowError
from dcaf.engines import Page, Range, Record, Row, Transaction
from dcaf.service.artifact_contents import Files, count_parts, drop_parts, join_path, name_root, path_of_part
from dcaf.service.artifact_scopes import AT_ONCE, DYING, is_saved
from dcaf.service.artifact_sealing import LAYOUT, START_BYTES, SealedContents
from dcaf.service.encryption import Reencrypted
from dcaf.service.plans import Aside, Plan
from dcaf.service.tables import find_app

if TYPE_CHECKING:
    from dcaf.service.encryption_rows import Rows

PART: Final = re.compile(r"/[0-9a-f]{8}$")
"""The end of the path of an object that was written. A folder may have files besides, which a process was writing that has died."""

NO_STORE: Final = (
    "There are artifacts, and this service does not know where their bytes are, which have to be encrypted anew, too: give it what "
    "the other one has, SessionService(artifacts=...), or on the command line --artifacts URL. Nothing was encrypted anew."
)

RENEWED: Final = Reencrypted(objects=1)
CURRENT: Final = Reencrypted(current=1)
REFUSED: Final = Reencrypted(refused=1)
NOTHING: Final = Reencrypted()


def reencrypt(rows: Rows, files: Files | None, app: str, partitions: int) -> Plan[Reencrypted]:
    """Encrypt the objects of all artifacts of an application anew; for the engine below.

    Args:
        rows: What seals the rows of the application.
        files: The bytes; None where the service has none.
        app: The application.
        partitions: Of the engine.

    Raises:
        ConfigurationError: There are artifacts, and ``files`` is None.
    """
    root = None if files is None else (yield Transaction([rows.hide(files.root_record)])).rows[0]
    renewal = None if files is None or root is None else _Renewal(files, SealedContents(rows), name_root(root))
    found, digest = NOTHING, find_app(app, partitions)[0]
    for partition in range(partitions):
        after = b""
        while True:
            page = yield from _read_page(after, partition)
            for key, row in page:
                if row["app"] == digest and row["metadata"] is not None:
                    if renewal is None:
                        raise ConfigurationError(NO_STORE)
                    found = found.plus((yield from renewal.renew(Record(LAYOUT.sealed, key, partition), row)))
            if len(page) < AT_ONCE:
                break
            after = page[-1][0] + b"\0"
    return found


class _Renewal:
    """Encrypts the objects of versions anew.

    Args:
        files: Where they are.
        contents: What encrypts them.
        root: What their paths begin with.
    """

    def __init__(self, files: Files, contents: SealedContents, root: str) -> None:
        self._files = files
        self._objects: Any = files.objects
        self._contents = contents
        self._root = root

    def renew(self, record: Record, row: Row) -> Plan[Reencrypted]:
        """Encrypt the objects of a version anew; ``row`` as it is in the database."""
        path = join_path(self._root, record.key)
        if row["part_bytes"] == DYING:
            return NOTHING
        if not is_saved(row):
            return (yield from _do(partial(self._count_old, path)))
        found, count = NOTHING, count_parts(self._contents, row)
        for number in range(count):
            found = found.plus((yield from _do(partial(self._renew_part, path, number, is_last=number == count - 1))))
        if found.objects:
            yield Aside(partial(self._objects.settle, path))
            now = (yield Transaction([record])).rows[0]
            if now is None or not is_saved(now):  # it was deleted meanwhile, and what was written here came after that
                yield Aside(partial(drop_parts, self._files, path, None))
        return found

    def _renew_part(self, path: str, number: int, *, is_last: bool) -> Reencrypted:
        place = path_of_part(path, number)
        start = self._objects.read_start(place, START_BYTES)
        if start is not None and self._contents.is_current(start):
            return CURRENT
        data = None if start is None else self._objects.get(place)
        if data is None:
            return NOTHING
        try:
            part = self._contents.unpack(path, number, data, is_last=is_last)
        except SealedRowError:
            return REFUSED
        self._objects.put(place, self._contents.pack(path, number, part, is_last=is_last))
        return RENEWED

    def _count_old(self, path: str) -> Reencrypted:
        """How many objects of a save that goes on are under an older key."""
        found = NOTHING
        for paths in self._objects.list_paths(path):
            for place in (place for place in paths if PART.search(place)):
                start = self._objects.read_start(place, START_BYTES)
                found = found.plus(NOTHING if start is None or self._contents.is_current(start) else REFUSED)
        return found


def _read_page(start: bytes, partition: int) -> Plan[Page]:
    return (yield Transaction([], ranges=[Range(LAYOUT.sealed, start, None, AT_ONCE, partition=partition)])).pages[0]


def _do(work: Callable[[], Reencrypted]) -> Plan[Reencrypted]:
    """Do something beside the engine, and give what it returns."""
    found: list[Reencrypted] = []
    yield Aside(lambda: found.append(work()))
    return found[0]
