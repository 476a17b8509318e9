"""Documents: where they lie, what one is, and what is written of several in one commit.

>>> from dcaf.service.tables import Owner
>>> scope = DocumentScope.of_session(Owner("clinic", "p-123", partitions=1), "visit-1")
>>> change = DocumentChange(scope, {"report": Written(freeze({"text": "Well."}, None), revision=7, expect=0)})
>>> change.conditions() == [Not(Exists(scope.row("report")))]
True

What a reader gets wrong: a revision does not count. Each write makes a number at random, so that a document which was deleted and
made again never has a revision of before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar, cast

from typing_extensions import TypeForm

from dcaf.core.arguments import kind_of, require, require_text
from dcaf.core.errors import ConfigurationError, DocumentConflictError, SessionTypeError, SessionValueError
from dcaf.core.json_values import from_json, read, to_json, write
from dcaf.engines import Condition, Delete, Exists, Is, Not, Now, Outcome, Put, Range, Record, Row, Write
from dcaf.service.kept import is_there, moment_of
from dcaf.service.remembered import LONGEST_TTL, SHORTEST_TTL
from dcaf.service.tables import DOCUMENTS, Owner, find_space

T = TypeVar("T")

LIMIT_BYTES: Final = 4 * 1024 * 1024
"""How large the value of a document may be."""

MOST_KEY_BYTES: Final = 200
"""How long its key may be, in UTF-8."""

ABSENT: Final = 0
"""The revision of a document that is not there."""

REVISION_BYTES: Final = 7
SPARE_BITS: Final = 3
"""A revision has 53 bits, so that every reader of JSON keeps it."""

MOST: Final = 2**53

CONFLICT: Final = "A document is of another revision than expect= says. Read it again, and do it again."

KEY: Final = b"="
"""What stands between a scope and the key of a document."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was read.

    Attributes:
        key: Its key.
        value: Its value, as JSON has it; or its bytes.
        revision: A number from 1 to 2**53 that each write makes anew, for ``expect=``. It does not count, and says no order.
        updated_at: When it was written, in UTC.
        expires_at: When it ends, in UTC; None for never.
    """

    key: str = field(repr=False)
    value: Any = field(repr=False)
    revision: int
    updated_at: datetime
    expires_at: datetime | None

    def value_as(self, as_type: TypeForm[T]) -> T:
        """Its value as a type.

        Args:
            as_type: Any type that pydantic understands.

        Raises:
            SessionTypeError: The value does not fit, or is no JSON; the message has the path, and never the value.
        """
        if isinstance(self.value, bytes):
            raise SessionTypeError("document: its value is bytes, and is read as it is: document.value.")
        return cast("T", from_json(write(self.value), as_type, path="document"))


class Content(NamedTuple):
    """What is to stand in a document.

    Attributes:
        json: Its value as JSON; None where it is bytes.
        data: Its bytes; None where it is JSON.
        ttl_ms: For how long, in milliseconds; None for ever.
    """

    json: bytes | None
    data: bytes | None
    ttl_ms: int | None = None

    def __repr__(self) -> str:
        return "Content(...)"

    @property
    def value(self) -> Any:
        """The value as it is read."""
        return self.data if self.json is None else read(self.json)


class Written(NamedTuple):
    """What is going to be under a key.

    Attributes:
        content: What stands there; None where the document is deleted.
        revision: The new one; 0 where it is deleted.
        expect: The revision that has to be there until then, 0 for none; None for any.
    """

    content: Content | None
    revision: int
    expect: int | None


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """Where documents lie: under a session, or in a space of an application.

    Attributes:
        prefix: What the keys of their rows begin with.
        partition: Where these lie.
        space: The name of the space; None for those of a session.
        session: The row of the session; None for a space.
        birth: Of that session; None for whichever has its id.
    """

    prefix: bytes = field(repr=False)
    partition: int
    space: str | None = field(default=None, repr=False)
    session: Record | None = field(default=None, repr=False)
    birth: bytes | None = field(default=None, repr=False)

    @classmethod
    def of_session(cls, owner: Owner, session_id: str, birth: bytes | None = None) -> DocumentScope:
        """The documents of a session."""
        return cls(owner.session_key(session_id) + KEY, owner.partition, None, owner.session_row(session_id), birth)

    @classmethod
    def of_space(cls, app: str, space: str, partitions: int) -> DocumentScope:
        """Those of a space of an application."""
        prefix, partition = find_space(app, space, partitions)
        return cls(prefix + KEY, partition, space)

    @property
    def guards(self) -> list[Record]:
        """The row of its session, if it has one."""
        return [] if self.session is None else [self.session]

    def has_session(self, outcome: Outcome) -> bool:
        """Whether its session is there, if it has one, by a transaction that has read its guards first."""
        if self.session is None:
            return True
        row = outcome.rows[0]
        return row is not None and is_there(row, outcome.now_ms) and self.birth in {None, row["birth"]}

    @property
    def whole(self) -> bytes:
        """What the keys of all of its rows begin with. Who reads them by it takes them in whichever order they come."""
        return self.prefix[: -len(KEY)]

    def rows(self, prefix: str, limit: int) -> Range:
        """The rows whose keys begin so, in their order; for an empty prefix all of them, in whichever order they come."""
        stem = self.prefix + prefix.encode() if prefix else self.whole
        return Range.of_prefix(DOCUMENTS, stem, limit, partition=self.partition)

    def row(self, key: str) -> Record:
        """The row of a document."""
        return Record(DOCUMENTS, self.prefix + key.encode(), self.partition)

    def write(self, key: str, written: Written) -> Write:
        """What writes a document, or deletes it."""
        content, row = written.content, self.row(key)
        if content is None:
            return Delete(row)
        ends = None if content.ttl_ms is None else Now(content.ttl_ms)
        space = None if self.space is None else self.space.encode()
        about = {"space": space, "name": key.encode(), "revision": written.revision, "updated": Now(), "expires": ends}
        return Put(row, {**about, "json": content.json, "data": content.data})


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """What is written to documents of one scope: part of a transaction.

    Attributes:
        scope: Where they lie.
        written: Key -> what is going to be there.
    """

    scope: DocumentScope
    written: Mapping[str, Written] = field(repr=False)

    def reads(self) -> list[Record]:
        """The rows that are read and compared."""
        return [self.scope.row(key) for key, written in self.written.items() if written.expect is not None]

    def conditions(self) -> list[Condition]:
        """Each document is of the revision that is expected."""
        return [is_at(self.scope.row(key), one.expect) for key, one in self.written.items() if one.expect is not None]

    def writes(self) -> list[Write]:
        """What is written."""
        return [self.scope.write(key, written) for key, written in self.written.items()]

    def check(self, rows: Sequence[Row | None]) -> None:
        """Refuse to be written over documents of other revisions.

        Args:
            rows: Those of ``reads``, in its order.

        Raises:
            DocumentConflictError: One of them is of another revision than is expected.
        """
        expected = [written.expect for written in self.written.values() if written.expect is not None]
        for expect, row in zip(expected, rows, strict=False):
            require_revision(expect, revision_of(row))


def is_at(record: Record, expect: int) -> Condition:
    """A document is of a revision; 0 for none there."""
    return Is(record, "revision", expect) if expect else Not(Exists(record))


def require_revision(expect: int | None, revision: int) -> None:
    """Require the revision that is expected; None for any.

    Raises:
        DocumentConflictError: It is another one.
    """
    if expect not in {None, revision}:
        raise DocumentConflictError(CONFLICT)


def revision_of(row: Row | None) -> int:
    """The revision of a row; 0 where there is none."""
    return ABSENT if row is None else cast("int", row["revision"])


def describe(row: Row) -> Document:
    """The document of a row."""
    expires = row["expires"]
    return Document(
        key=cast("bytes", row["name"]).decode(),
        value=Content(cast("bytes | None", row["json"]), cast("bytes | None", row["data"])).value,
        revision=revision_of(row),
        updated_at=moment_of(cast("int", row["updated"])),
        expires_at=moment_of(expires) if isinstance(expires, int) else None,
    )


def foresee(key: str, written: Written, now_ms: int) -> Document | None:
    """A document as it would be if it was committed now; None where it is deleted."""
    content = written.content
    if content is None:
        return None
    ends = None if content.ttl_ms is None else moment_of(now_ms + content.ttl_ms)
    return Document(key, content.value, written.revision, moment_of(now_ms), ends)


def make_revision(randomness: Callable[[int], bytes] = os.urandom) -> int:
    """A new revision."""
    return max(1, int.from_bytes(randomness(REVISION_BYTES), "big") >> SPARE_BITS)


def freeze(value: object, ttl: timedelta | None) -> Content:
    """What is written of a value.

    Raises:
        SessionValueError: It may not be stored, or is too large.
        ConfigurationError: The ttl is no timedelta of 1 millisecond to 100 years.
    """
    data = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None
    json = write(to_json(value, path="document")) if data is None else None
    check_size(json, data)
    return Content(json, data, check_ttl(ttl))


def check_size(json: bytes | None, data: bytes | None) -> None:
    """Refuse a value that is too large, as JSON or as bytes.

    Raises:
        SessionValueError: It is.
    """
    size, kind = (len(json), "bytes as JSON") if json is not None else (len(data or b""), "bytes")
    if size > LIMIT_BYTES:
        raise SessionValueError(
            f"document: the value has {size:,} {kind}, and may have {LIMIT_BYTES:,}. Put parts of it under several keys."
        )


def check_ttl(ttl: timedelta | None) -> int | None:
    """A time to live, in milliseconds; None for ever.

    Raises:
        ConfigurationError: It is no timedelta of 1 millisecond to 100 years.
    """
    if ttl is None:
        return None
    if not SHORTEST_TTL <= require("ttl=", ttl, timedelta, "a timedelta, or None") <= LONGEST_TTL:
        raise ConfigurationError("ttl= is 1 millisecond to 100 years, for instance timedelta(days=90); None keeps it for ever.")
    return int(ttl / timedelta(milliseconds=1))


def check_key(key: object) -> str:
    """Refuse what is no key of a document.

    Raises:
        SessionValueError: It is no text of 1 to 200 bytes in UTF-8.
    """
    if not isinstance(key, str):
        raise SessionValueError(f"The key of a document is a text, not {kind_of(key)}.")
    found = cast("str", to_json(str.__str__(key), path="the key of a document"))
    if not 0 < (size := len(found.encode())) <= MOST_KEY_BYTES:
        raise SessionValueError(f"The key of a document has 1 to {MOST_KEY_BYTES} bytes in UTF-8, not {size:,}.")
    return found


def check_prefix(prefix: object) -> str:
    """Refuse what no key of a document begins with.

    Raises:
        ConfigurationError: It is no text of at most 200 bytes in UTF-8.
    """
    found = require_text("prefix=", prefix, "what the keys of documents begin with")
    if (size := len(found.encode())) > MOST_KEY_BYTES:
        raise ConfigurationError(f"prefix= has at most {MOST_KEY_BYTES} bytes in UTF-8, as keys of documents have, not {size:,}.")
    return found


def check_expect(expect: object) -> int | None:
    """Refuse what is no revision of a document.

    Raises:
        ConfigurationError: It is no number of 0 or more, and not None.
    """
    if expect is None:
        return None
    if not ABSENT <= (found := require("expect=", expect, int, "the revision of a document, 0 for none there, or None")) <= MOST:
        raise ConfigurationError("expect= is the revision of a document; 0 for none there; None for any.")
    return found
