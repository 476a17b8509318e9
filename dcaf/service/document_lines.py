"""Documents as lines of an export: those of a session, and those of an application, space by space.

>>> from dcaf.service import SessionService
>>> sessions, others = SessionService("memory://", app="clinic"), SessionService("memory://", app="clinic")
>>> revision = sessions.sync.documents.put("threads", "t1", b"...")
>>> others.sync.import_lines(sessions.sync.export()).shared
1
>>> others.sync.documents.get("threads", "t1").revision == revision
True
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error
from collections import deque
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final, cast

from dcaf.core.errors import ConfigurationError, SessionValueError
from dcaf.core.json_values import to_json, write
from dcaf.engines import Put, Range, Row, Transaction
from dcaf.service.document_rows import DocumentScope, check_key, check_size
from dcaf.service.lines import check_line, write_line
from dcaf.service.plans import Stream, read_once
from dcaf.service.tables import DOCUMENTS, find_spaces

AT_ONCE: Final = 50


class Reader:
    """Reads documents in the order in which their engine has them, of which a few are held.

    Args:
        prefix: What the keys begin with.
        partition: Where they lie.
    """

    def __init__(self, prefix: bytes, partition: int) -> None:
        self._rest: Range | None = Range.of_prefix(DOCUMENTS, prefix, AT_ONCE, partition=partition)
        self._held: deque[tuple[bytes, Row]] = deque()

    def find_next(self) -> Stream[tuple[bytes, Row] | None]:
        """The next one, which stays; None behind the last."""
        if not self._held and self._rest is not None:
            (page,) = (yield from read_once(Transaction([], ranges=[self._rest]))).pages
            self._held.extend(page)
            is_last, end, partition = len(page) < AT_ONCE, self._rest.end, self._rest.partition
            self._rest = None if is_last else Range(DOCUMENTS, page[-1][0] + b"\0", end, AT_ONCE, partition=partition)
        return self._held[0] if self._held else None

    def pass_by(self) -> None:
        """Go on to the one behind it."""
        self._held.popleft()


def write_documents(scope: DocumentScope) -> Stream[int]:
    """Write the documents of a session; returns how many there were."""
    reader, count = Reader(scope.whole, scope.partition), 0
    while (found := (yield from reader.find_next())) is not None:
        yield check_line(_write_document(found[1]))
        reader.pass_by()
        count += 1
    return count


def write_spaces(app: str, partitions: int) -> Stream[None]:
    """Write the documents of an application, in the order of the keys of rows, which is the same in every engine."""
    readers = [Reader(find_spaces(app), partition) for partition in range(partitions)]
    heads: list[tuple[bytes, int]] = []
    for partition, reader in enumerate(readers):
        if (found := (yield from reader.find_next())) is not None:
            heads.append((found[0], partition))
    heapify(heads)
    while heads:
        _, partition = heappop(heads)  # all documents of a space lie in one
        if (found := (yield from _write_space(readers[partition]))) is not None:
            heappush(heads, (found[0], partition))


def read_document(scope: DocumentScope, members: Mapping[str, Any], number: int) -> Put:
    """What writes the document of a line.

    Args:
        scope: Where it is to lie.
        members: Those of the line.
        number: Of the line.

    Raises:
        ConfigurationError, SessionValueError: No export has it.
    """
    try:
        key = check_key(members["key"])
        data = _read_bytes(members, number) if members["binary"] else None
        json = None if members["binary"] else write(to_json(members["value"], path="value"))
        check_size(json, data)
    except SessionValueError as error:
        raise SessionValueError(f"Line {number}: {error}") from None
    if not members["revision"]:
        raise ConfigurationError(f"Line {number}: a document has a revision of 1 or more.")
    space = None if scope.space is None else scope.space.encode()
    moments = {name: members[name] for name in ("revision", "updated", "expires")}
    return Put(scope.row(key), {"space": space, "name": key.encode(), **moments, "json": json, "data": data})


def _write_space(reader: Reader) -> Stream[tuple[bytes, Row] | None]:
    """Write the documents of the space that comes next; returns the first one of the space behind it."""
    found = yield from reader.find_next()
    space, count = None if found is None else found[1]["space"], 0
    yield write_line("space", {"space": cast("bytes", space).decode()})
    while found is not None and found[1]["space"] == space:
        yield check_line(_write_document(found[1]))
        reader.pass_by()
        count += 1
        found = yield from reader.find_next()
    yield write_line("end", {"lines": count})
    return found


def _write_document(row: Row) -> bytes:
    json, data = row["json"], row["data"]
    moments = {name: row[name] for name in ("revision", "updated", "expires")}
    members = {"key": cast("bytes", row["name"]).decode(), **moments, "binary": json is None}
    if isinstance(json, bytes):
        return write_line("document", members, value=json)
    return write_line("document", {**members, "value": b64encode(cast("bytes", data)).decode()})


def _read_bytes(members: Mapping[str, Any], number: int) -> bytes:
    try:
        return b64decode(members["value"], validate=True)
    except (Error, TypeError, ValueError):
        raise ConfigurationError(f'Line {number}: value of a line of kind "document" is not as an export writes it.') from None
