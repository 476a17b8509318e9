"""What is known of a kept session, and its state, as rows have them.

>>> join_state([(b"k", {"name": b"step", "value": b"2"}), (b"l", {"name": b"user:theme", "value": b'"dark"'})]).data
b'{"step":2,"user:theme":"dark"}'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, Final, NamedTuple, cast

import orjson

from dcaf.core.arguments import require, require_text
from dcaf.core.base64url import Payload
from dcaf.core.errors import ConfigurationError
from dcaf.core.json_values import read, to_json
from dcaf.engines import AllOf, AtMost, Condition, Exists, Is, Not, Now, Page, Record, Row

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)


class About(NamedTuple):
    """What an application writes of a session.

    Attributes:
        title: Its title; None for none.
        labels: Texts that stand in lists.
        metadata: What else is to be known of it, as JSON has it.
    """

    title: str | None = None
    labels: Mapping[str, str] = {}
    metadata: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return "About(...)"

    @classmethod
    def of(cls, title: object, labels: object, metadata: object) -> About:
        """Check what was given.

        Raises:
            ConfigurationError: A title or a label is no text.
            SessionValueError: The metadata is no JSON.
        """
        found = require("labels=", {} if labels is None else labels, Mapping, "a dict of texts")
        texts = {
            require_text("A key of labels=", name, "the name of a label"): require_text("labels=", value, "for each label")
            for name, value in found.items()
        }
        plain = to_json(dict(require("metadata=", {} if metadata is None else metadata, Mapping, "a dict")), path="metadata")
        return cls(None if title is None else require_text("title=", title, "or None"), texts, cast("dict[str, Any]", plain))


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a session.

    Attributes:
        id: Its id.
        user: Whose it is; None for an anonymous one.
        revision: How many turns of it were committed.
        messages: How many messages its history has.
        changes: How often its state was changed.
        created_at: When it was made, in UTC.
        updated_at: When it was committed last, in UTC.
        closed_at: When it was closed for writing; None while it is open.
        ends_at: When it ends unless it is committed again; None for never.
        title: Its title; None for none.
        labels: Its labels.
        metadata: What else the application wrote of it.
        birth: Tells it from an older one of the same id.
        listed: The minute under which it stands in lists.
        archived_at: When it was archived; None while it is not.
        open_calls: The calls of tools in its history that no result has answered yet, oldest first, as ``links.follow`` gives them.
        state: The values of the keys that a list was asked for, as far as they are there; of no others.
        version: Of the application's schema, behind a middleware.
    """

    id: str
    user: str | None = field(repr=False)
    revision: int
    messages: int
    changes: int
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    ends_at: datetime | None
    title: str | None = field(repr=False)
    labels: Mapping[str, str] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    birth: bytes = field(repr=False)
    listed: int = field(repr=False)
    archived_at: datetime | None = None
    open_calls: tuple[str, ...] = field(default=(), repr=False)
    state: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: int = field(default=0, repr=False)

    @classmethod
    def new(cls, session_id: str, user: str | None, birth: bytes, about: About, now_ms: int) -> Kept:
        """What is known of a session that is not kept yet: its revision is 0."""
        now = moment_of(now_ms)
        return cls(session_id, user, 0, 0, 0, now, now, None, None, *about, birth, 0)

    def after(
        self, messages: int, changes: int, minute: int, now_ms: int, ttl_ms: int | None, *, open_calls: tuple[str, ...]
    ) -> Kept:
        """What is known after a commit.

        Args:
            messages, changes: How many were added.
            minute: Under which it stands in lists.
            now_ms: The engine's clock.
            ttl_ms: For how long it is kept; None for ever.
            open_calls: The calls of tools that are open.
        """
        return replace(
            self,
            revision=self.revision + 1,
            messages=self.messages + messages,
            changes=self.changes + changes,
            created_at=self.created_at if self.revision else moment_of(now_ms),
            updated_at=moment_of(now_ms),
            ends_at=None if ttl_ms is None else moment_of(now_ms + ttl_ms),
            listed=minute,
            open_calls=open_calls,
        )

    @property
    def is_open(self) -> bool:
        """Whether it can be written: it was neither closed nor archived."""
        return self.closed_at is None and self.archived_at is None

    def moved(self, session_id: str, user: str | None, birth: bytes) -> Kept:
        """What is known of a session that is going to be made of this one."""
        return replace(self, id=session_id, user=user, birth=birth, revision=0, changes=0, listed=0, version=0, archived_at=None)

    @classmethod
    def of(cls, row: Row) -> Kept:
        """What a row says."""
        title = row["title"]
        return cls(
            id=_text(row, "id"),
            user=None if row["user"] is None else _text(row, "user"),
            revision=_number(row, "revision"),
            messages=_number(row, "messages"),
            changes=_number(row, "changes"),
            created_at=moment_of(_number(row, "created")),
            updated_at=moment_of(_number(row, "updated")),
            closed_at=_moment(row, "closed"),
            ends_at=_moment(row, "ends"),
            title=None if title is None else _text(row, "title"),
            labels=_object(row, "labels"),
            metadata=_object(row, "metadata"),
            birth=cast("bytes", row["birth"]),
            listed=_number(row, "listed"),
            archived_at=_moment(row, "archived"),
            open_calls=tuple(_list(row, "open_calls")),
            version=_number(row, "version"),
        )


def is_there(row: Row | None, now_ms: int) -> bool:
    """Whether a session is there: it was not deleted, and has not ended."""
    if row is None or row["dropped"] is not None:
        return False
    return not (isinstance(row["ends"], int) and row["ends"] <= now_ms)


def is_alive(record: Record) -> Condition:
    """The same, for the engine."""
    return AllOf(Is(record, "dropped", None), Not(AtMost(record, "ends", Now())))


def is_open(record: Record) -> Condition:
    """It can be written: it was neither closed nor archived."""
    return AllOf(Is(record, "closed", None), Is(record, "archived", None))


def is_at(record: Record, kept: Kept) -> Condition:
    """Nobody has written a session since it was read, it is open, and it has not ended."""
    counts: list[Condition] = [
        Is(record, "revision", kept.revision),
        Is(record, "messages", kept.messages),
        Is(record, "changes", kept.changes),
    ]
    is_same = AllOf(Is(record, "birth", kept.birth), is_open(record))
    return reduce(AllOf, counts, AllOf(is_same, is_alive(record)))


def has_value(record: Record, value: bytes | None) -> Condition:
    """A key of a state has the value with which it arrived; None for absent."""
    return Not(Exists(record)) if value is None else Is(record, "value", value)


def value_of(row: Row | None) -> bytes | None:
    """The value of a row of a state; None where there is none."""
    return None if row is None else cast("bytes", row["value"])


def join_state(*pages: Page) -> Payload:
    """The state of a session: its own keys, those of its user and those of the application."""
    members = [orjson.dumps(_text(row, "name")) + b":" + cast("bytes", row["value"]) for page in pages for _, row in page]
    return Payload(b"{" + b",".join(members) + b"}")


def values_of(*pages: Page) -> dict[str, bytes]:
    """Key -> value as JSON."""
    return {_text(row, "name"): cast("bytes", row["value"]) for page in pages for _, row in page}


def moment_of(moment_ms: int) -> datetime:
    """A moment in milliseconds since the epoch, in UTC."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC)


def require_moment(argument: str, moment: object) -> int:
    """Require a moment, and give its milliseconds since the epoch.

    Raises:
        ConfigurationError: It is none, or has no time zone.
    """
    found = require(argument, moment, datetime, "a datetime with a time zone, such as datetime.now(UTC) - timedelta(days=30)")
    if found.utcoffset() is None:
        raise ConfigurationError(f"{argument} takes a datetime with a time zone: datetime.now(UTC) - timedelta(days=30).")
    return (found - EPOCH) // MILLISECOND


def _moment(row: Row, column: str) -> datetime | None:
    found = row[column]
    return moment_of(found) if isinstance(found, int) else None


def _number(row: Row, column: str) -> int:
    found = row[column]
    return found if isinstance(found, int) else 0


def _text(row: Row, column: str) -> str:
    return cast("bytes", row[column]).decode()


def _list(row: Row, column: str) -> list[str]:
    found = row[column]
    return cast("list[str]", read(found)) if isinstance(found, bytes) else []


def _object(row: Row, column: str) -> dict[str, Any]:
    found = row[column]
    return cast("dict[str, Any]", read(found)) if isinstance(found, bytes) else {}
