"""What a session service keeps: a row for each session, each key of its state, each message, each change, each remembered fact.

>>> owner = Owner("clinic", "p-123", partitions=64)
>>> row, step = owner.session_row("visit-1"), owner.state_row("visit-1", "step")
>>> step.key.startswith(row.key), row.partition == step.partition
(True, True)

All rows of one user of one application lie in one partition, and their keys begin alike: so a turn is one trip to open and one to
commit, and whoever erases the user finds everything.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, TypeAlias

from dcaf.core.store import digest_parts
from dcaf.engines import Now, Plus, Range, Record, Table, Value
from dcaf.engines.partitions import find_partition

SESSIONS: Final = Table(
    "dcaf_kept_sessions",
    {
        "id": bytes,
        "user": bytes,
        "birth": bytes,
        "revision": int,
        "messages": int,
        "changes": int,
        "created": int,
        "updated": int,
        "listed": int,
        "closed": int,
        "archived": int,
        "dropped": int,
        "title": bytes,
        "labels": bytes,
        "metadata": bytes,
        "open_calls": bytes,
        "ends": int,
        "version": int,
    },
    ordered=True,
)
"""Owner and digest of a session's id -> what is known of it.

    id, user      as the application names them; user is None for an anonymous session
    birth         random: a session that is made anew under an old id is another one
    revision      how many turns of it were committed
    messages      how many messages its history has
    changes       how often its state was changed, by turns and by others
    created       when it was made, in milliseconds; updated, when it was committed last
    listed        the minute under which it stands in the list of its owner
    closed        when it was closed for writing, in milliseconds; None while it is open
    archived      when it was archived, in milliseconds; None while it is not. It then stands in another list
    dropped       when its rows began to be dropped; None while it is there
    title, labels, metadata   as the application wrote them; the last two are JSON objects
    open_calls    the calls of tools in its history that no result has answered yet: a JSON list of ids; None for none
    ends          when it ends unless it is committed again, in milliseconds; None for never. The row stays until a purge has
                  dropped all rows of the session: a new one under its id never finds any of them
    version       of the application's schema, behind a middleware that migrates states; None for 0
"""

STATE: Final = Table("dcaf_kept_state", {"name": bytes, "value": bytes}, ordered=True)
"""Session, or owner, or application, and a key of its state -> the key and its value, as JSON."""

MESSAGES: Final = Table("dcaf_kept_messages", {"revision": int, "at": int, "data": bytes}, ordered=True, large=True)
"""Session and number -> a message, and the revision with which it came."""

CHANGES: Final = Table("dcaf_kept_changes", {"revision": int, "messages": int, "at": int, "data": bytes}, ordered=True, large=True)
"""Session and number -> what was changed of its state, as JSON, with which revision, and how many messages there were then.

The first is the whole state with which the session was made, so that a rewind finds it.
"""

CHECKPOINTS: Final = Table(
    "dcaf_kept_checkpoints", {"name": bytes, "messages": int, "changes": int, "at": int, "data": bytes}, ordered=True, large=True
)
"""Session and name -> a point to which it can be taken back: its own state then, as JSON, and its counts."""

LISTS: Final = Table("dcaf_kept_lists", {"session": bytes}, ordered=True)
"""Owner, minute and digest of a session's id -> nothing more than that the session was last committed in that minute.

Archived sessions have a list of their own behind the other one: ``ARCHIVE`` stands before the minute, which begins with a zero.
"""

MEMORY: Final = Table(
    "dcaf_kept_memory",
    {"name": bytes, "value": bytes, "generation": int, "created": int, "updated": int, "expires": int},
    ordered=True,
)
"""Owner or session, a generation and a name -> a remembered fact; and one row more for each that was ever cleared.

    name, value   the name of the fact, and its value as JSON
    generation    in that one row: how often everything was cleared; facts of an older generation do not count
    created       when the fact was first remembered, in milliseconds; updated, when it was last
    expires       when it is forgotten, in milliseconds; None for never
"""

WORDS: Final = Table("dcaf_kept_words", {"birth": bytes, "revision": int, "words": bytes}, ordered=True, searchable="words")
"""Session and number -> the words of a message, and what tells it from others of its number: the birth of its session, and the
revision with which it came. They have no gap, from the first message on.

They are written by a search, and by no turn: a session may have messages behind its last one here, and none in the archive.
"""

INDEXED: Final = Table("dcaf_kept_indexed", {"birth": bytes, "revision": int, "messages": int}, ordered=True)
"""Session -> how far its messages are in the table of words.

    birth         of the session
    revision      that of the session when all of its messages were there; None where they were not
    messages      how many were
"""

DERIVED: Final = (WORDS, INDEXED)
"""Those that are made from others, and are made again where they are missing: their rows go with their session, and never along."""

DOCUMENTS: Final = Table(
    "dcaf_kept_documents",
    {"space": bytes, "name": bytes, "revision": int, "updated": int, "expires": int, "json": bytes, "data": bytes},
    ordered=True,
    large=True,
)
"""Session, or space of an application, and the key of a document -> the document. Keys are in order, so that they are found by
what they begin with.

    space         the name of the space; None for a document of a session
    name          the key of the document
    revision      a number that each write makes anew, at random: a document that is made again under an old key has none of before
    updated       when it was written, in milliseconds
    expires       when it ends, in milliseconds; None for never
    json, data    its value as JSON, or its bytes; the other one is None
"""

ARTIFACTS: Final = Table(
    "dcaf_kept_artifacts",
    {
        "app": bytes,
        "name": bytes,
        "generation": bytes,
        "version": int,
        "latest": int,
        "count": int,
        "mime": bytes,
        "metadata": bytes,
        "size": int,
        "part_bytes": int,
        "at": int,
    },
    ordered=True,
)
"""Owner or session with its birth, and a name or a version -> what is known of an artifact. Its bytes are in another store.

    app           the application
    name          of a name: the name
    generation    of a name: random, what the keys of its versions begin with; one that is deleted and saved anew has another one
    version       of a name: the number of the next version
    latest        of a name: the newest version that was saved to its end; -1 for none
    count         of a name: how many versions there are, or are being saved; of the one row of them all: how many names
    mime          of a version: its media type
    metadata      of a version: what else the application wrote of it, as JSON
    size          of a version: how many bytes it has; None until it was saved to its end
    part_bytes    of a version: how many bytes each object has that it lies in, but for the last; -1 while it is being dropped
    at            when it was begun, and then when it was saved, in milliseconds
"""

OF_SESSIONS: Final = (STATE, MESSAGES, CHANGES, CHECKPOINTS, MEMORY, DOCUMENTS)
"""Those whose rows go with their session."""

Columns: TypeAlias = "dict[str, Value | Now | Plus]"
"""What a write puts into a row."""

TABLES: Final = (SESSIONS, STATE, MESSAGES, CHANGES, CHECKPOINTS, LISTS, MEMORY, DOCUMENTS, WORDS, INDEXED, ARTIFACTS)

DIGEST_BYTES: Final = 16
NUMBER_BYTES: Final = 8
MINUTE_MS: Final = 60_000

ARCHIVE: Final = b"\xff"
OF_SESSION: Final = b"s"
OF_OWNER: Final = b"u"
"""What stands between the owner and a key: rows of a session, and rows of the owner."""

MOST_NAME_BYTES: Final = 180
"""A longer key of a state stands as its digest."""


class Owner:
    """Whose sessions are meant, and where their rows lie.

    Args:
        app: The application.
        user: The user; None for an anonymous session, which shares nothing with any other.
        session_id: The id of an anonymous session; not needed where there is a user.
        partitions: Of the engine.
    """

    def __init__(self, app: str, user: str | None, session_id: str = "", *, partitions: int) -> None:
        whose = (b"user", user.encode()) if user is not None else (b"anonymous", session_id.encode())
        self.key: bytes = digest_parts(app.encode(), *whose)[:DIGEST_BYTES]
        self.partition: int = find_partition(user, session_id, partitions)
        self.user: str | None = user
        self._last: tuple[str, bytes] | None = None

    def session_key(self, session_id: str) -> bytes:
        """What the keys of a session's rows begin with."""
        last = self._last
        if last is None or last[0] != session_id:
            key = self.key + OF_SESSION + hashlib.sha256(session_id.encode()).digest()[:DIGEST_BYTES]
            last = self._last = session_id, key
        return last[1]

    def session_row(self, session_id: str) -> Record:
        """The row of a session."""
        return Record(SESSIONS, self.session_key(session_id), self.partition)

    def state_row(self, session_id: str, name: str) -> Record:
        """The row of a key of a session's state."""
        return Record(STATE, self.session_key(session_id) + pack_name(name), self.partition)

    def shared_row(self, name: str) -> Record:
        """The row of a key that all sessions of the user share."""
        return Record(STATE, self.key + OF_OWNER + pack_name(name), self.partition)

    def numbered_row(self, table: Table, session_id: str, number: int) -> Record:
        """The row of a message or of a change."""
        return Record(table, self.session_key(session_id) + pack_number(number), self.partition)

    def checkpoint_row(self, session_id: str, name: str) -> Record:
        """The row of a checkpoint."""
        return Record(CHECKPOINTS, self.session_key(session_id) + pack_name(name), self.partition)

    def indexed_row(self, session_id: str) -> Record:
        """The row that says how far a session's messages are in the table of words."""
        return Record(INDEXED, self.session_key(session_id), self.partition)

    def list_key(self, *, archived: bool) -> bytes:
        """What the keys begin with of the list of its sessions, or of those that were archived."""
        return self.key + (ARCHIVE if archived else b"\0")

    def list_row(self, minute: int, session_id: str, *, archived: bool = False) -> Record:
        """The row of a session in the list of its owner, or in that of archived ones."""
        digest = self.session_key(session_id)[-DIGEST_BYTES:]
        return Record(LISTS, self.key + (ARCHIVE if archived else b"") + pack_number(minute) + digest, self.partition)

    def memory_key(self, session_id: str) -> bytes:
        """What the keys begin with of the facts that a session remembers alone."""
        return self.session_key(session_id) + OF_SESSION

    def shared_memory_key(self, session_id: str) -> bytes:
        """The same of those of the user. An anonymous session shares them with none, and takes them along when it goes."""
        return (self.session_key(session_id) if self.user is None else self.key) + OF_OWNER

    def rows_of(self, table: Table, session_id: str, limit: int, *, backwards: bool = False) -> Range:
        """Rows of a session."""
        return Range.of_prefix(table, self.session_key(session_id), limit, backwards=backwards, partition=self.partition)

    def shared_rows(self, limit: int) -> Range:
        """The keys that all sessions of the user share."""
        return Range.of_prefix(STATE, self.key + OF_OWNER, limit, partition=self.partition)


def app_rows(app: str, limit: int, *, partitions: int) -> Range:
    """The keys that all sessions of an application share."""
    key, partition = find_app(app, partitions)
    return Range.of_prefix(STATE, key, limit, partition=partition)


def app_row(app: str, name: str, *, partitions: int) -> Record:
    """The row of such a key."""
    key, partition = find_app(app, partitions)
    return Record(STATE, key + pack_name(name), partition)


def pack_number(number: int) -> bytes:
    """A number of 0 or more, as keys have it."""
    return number.to_bytes(NUMBER_BYTES, "big")


def pack_name(name: str) -> bytes:
    """The name of a key of a state, or of a fact, as keys of rows have it: of at most 180 bytes."""
    data = b"=" + name.encode()
    return data if len(data) <= MOST_NAME_BYTES else b"#" + hashlib.sha256(data).digest()


def unpack_number(key: bytes) -> int:
    """The number at the end of a key."""
    return int.from_bytes(key[-NUMBER_BYTES:], "big")


@lru_cache(maxsize=64)
def find_app(app: str, partitions: int) -> tuple[bytes, int]:
    """What the keys begin with that all sessions of an application share, and where they lie."""
    key = digest_parts(app.encode(), b"app")[:DIGEST_BYTES]
    return key, int.from_bytes(key[:2], "big") % partitions


def find_spaces(app: str) -> bytes:
    """What the keys begin with of the documents of an application."""
    return digest_parts(app.encode(), b"documents")[:DIGEST_BYTES]


@lru_cache(maxsize=256)
def find_space(app: str, space: str, partitions: int) -> tuple[bytes, int]:
    """What the keys of the documents of a space begin with, as if it was a session, and where all of them lie."""
    own = digest_parts(app.encode(), b"space", space.encode())[:DIGEST_BYTES]
    return find_spaces(app) + OF_SESSION + own, int.from_bytes(own[:2], "big") % partitions
