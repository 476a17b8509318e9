"""What the engine knows of artifacts: their names and versions, and which of these were saved to their end.

    begin      the next number of a name is taken, and a row of the version made that nobody finds     one transaction
    write      its bytes, elsewhere
    finish     the row says how many they are: from now on it is found                                 one transaction
    abandon    what was written is dropped, then the row; the number is free where nobody took a later one

So two writers never have one number, on whatever store; a version is seen whole or not at all; and all bytes have a row, from
before the first is written until after the last is gone.

What a reader gets wrong: a name that is deleted and saved anew begins with version 0 again, and is another artifact: the keys of
its versions begin with another generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, cast

from dcaf.core.errors import SessionValueError, UnknownArtifactError
from dcaf.engines import (
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Delete,
    Exists,
    Is,
    Not,
    Now,
    Outcome,
    Page,
    Plus,
    Put,
    Range,
    Record,
    Row,
    Transaction,
    Value,
    Write,
)
from dcaf.engines.transactions import LARGEST
from dcaf.service.artifact_contents import Files, drop_parts, path_of
from dcaf.service.artifact_values import ArtifactVersion, describe_version
from dcaf.service.kept import is_alive, is_open, is_there
from dcaf.service.places import require_there
from dcaf.service.plans import Aside, Plan
from dcaf.service.remembered import join
from dcaf.service.tables import ARTIFACTS, OF_OWNER, OF_SESSION, Columns, Owner, pack_name, pack_number, unpack_number

COUNT: Final = b"c"
DROPPED: Final = b"d"
HEAD: Final = b"h"
VERSION: Final = b"v"
"""What stands between a scope and the rest of a key: the count of names, a generation that is being dropped, a name, a version."""

GENERATION_BYTES: Final = 8
AT_ONCE: Final = 200
NONE_YET: Final = -1
DYING: Final = -1

DELETED: Final = "The artifact was deleted while this version of it was saved."
MOST_NAMES: Final = "There may be {:,} artifacts here, and so many there are. Delete one, or save another version of one."
MOST_VERSIONS: Final = "An artifact may have {:,} versions, and so many it has. Delete some: delete(name, version=...)."


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose artifacts: a session's, or a user's.

    Attributes:
        app: The digest of the application.
        prefix: What the keys of its rows begin with.
        partition: Where they lie.
        session: The row of the session with which all of it goes; None for a user's.
        birth: Of that session.
        is_new: Whether that session may be one that was not committed yet.
    """

    app: bytes = field(repr=False)
    prefix: bytes = field(repr=False)
    partition: int
    session: Record | None = field(default=None, repr=False)
    birth: bytes = field(default=b"", repr=False)
    is_new: bool = False

    @classmethod
    def of_user(cls, app: bytes, owner: Owner) -> Scope:
        """What all sessions of a user have."""
        return cls(app, owner.key + OF_OWNER, owner.partition)

    @classmethod
    def of_session(cls, app: bytes, owner: Owner, session_id: str, birth: bytes, *, shared: bool, is_new: bool = False) -> Scope:
        """What one session has; ``shared`` for what it would have as a user, if it is an anonymous one."""
        prefix = owner.session_key(session_id) + birth + (OF_OWNER if shared else OF_SESSION)
        return cls(app, prefix, owner.partition, owner.session_row(session_id), birth, is_new)

    @property
    def guards(self) -> list[Record]:
        """The row of its session, if it has one."""
        return [] if self.session is None else [self.session]

    @property
    def counter(self) -> Record:
        """The row with the number of its names."""
        return Record(ARTIFACTS, self.prefix + COUNT, self.partition)

    def head(self, name: str) -> Record:
        """The row of a name."""
        return Record(ARTIFACTS, self.prefix + HEAD + pack_name(name), self.partition)

    def version(self, generation: bytes, number: int) -> Record:
        """The row of a version."""
        return Record(ARTIFACTS, self.prefix + VERSION + generation + pack_number(number), self.partition)

    def dropped(self, generation: bytes) -> Record:
        """The row that says that a generation is being dropped."""
        return Record(ARTIFACTS, self.prefix + DROPPED + generation, self.partition)

    def versions(self, generation: bytes, limit: int, after: int = -1) -> Range:
        """The rows of the versions of a generation, those behind a number."""
        whole = Range.of_prefix(ARTIFACTS, self.prefix + VERSION + generation, limit, partition=self.partition)
        start = self.version(generation, after + 1).key
        return Range(ARTIFACTS, start, whole.end, limit, partition=self.partition)

    def conditions(self) -> list[Condition]:
        """Its session is there and can be written, or is not committed yet."""
        if self.session is None:
            return []
        is_ours = Is(self.session, "birth", self.birth)
        found = join([is_ours, is_alive(self.session), is_open(self.session)])
        return [AnyOf(Not(is_ours), found) if self.is_new else found]

    def require_open(self, outcome: Outcome) -> None:
        """Say why it cannot be written, if it cannot.

        Raises:
            UnknownSessionError, SessionClosedError: Its session is not there, or was closed or archived.
        """
        if self.session is not None and not self._is_unborn(outcome):
            require_there(outcome, self.birth)

    def can_be_read(self, outcome: Outcome) -> bool:
        """Whether its session is there, of a transaction that has read the guards first."""
        if self.session is None or self._is_unborn(outcome):
            return True
        row = outcome.rows[0]
        return row is not None and row["birth"] == self.birth and is_there(row, outcome.now_ms)

    def _is_unborn(self, outcome: Outcome) -> bool:
        row = outcome.rows[0]
        return self.is_new and (row is None or row["birth"] != self.birth)


class About(NamedTuple):
    """What is known of a version before its bytes are.

    Attributes:
        name: Of the artifact.
        mime: The media type.
        metadata: As JSON.
    """

    name: str
    mime: str
    metadata: bytes

    def __repr__(self) -> str:
        return "About(...)"


@dataclass(frozen=True, slots=True)
class Begun:
    """A version that is being saved.

    Attributes:
        scope: Whose it is.
        about: What it is.
        generation: Of its name.
        number: Its number.
    """

    scope: Scope
    about: About
    generation: bytes = field(repr=False)
    number: int

    @property
    def row(self) -> Record:
        """Its row."""
        return self.scope.version(self.generation, self.number)

    @property
    def head(self) -> Record:
        """The row of its name."""
        return self.scope.head(self.about.name)


class Found(NamedTuple):
    """A version that was found.

    Attributes:
        version: What is known of it.
        record, row: Its row.
    """

    version: ArtifactVersion
    record: Record
    row: Row

    def __repr__(self) -> str:
        return "Found(...)"


def begin(files: Files, scope: Scope, about: About, random: bytes) -> Plan[Begun]:
    """Take the next number of a name.

    Args:
        files: The limits are those of its store.
        scope: Whose the artifact is.
        about: What is saved.
        random: The generation of a name that is new.

    Raises:
        UnknownSessionError, SessionClosedError: The session is not there, or was closed or archived.
        SessionValueError: There are too many names, or versions.
    """
    head, counter = scope.head(about.name), scope.counter
    reads = [*scope.guards, head, counter]
    outcome = yield Transaction(reads)
    while True:
        scope.require_open(outcome)
        row, counted = outcome.rows[-2:]
        _require_room(files, row, counted)
        begun = Begun(scope, about, random if row is None else cast("bytes", row["generation"]), _number(row, "version"))
        conditions = [*scope.conditions(), *is_same(head, row)]
        if row is None:
            conditions.append(AnyOf(Not(Exists(counter)), AtMost(counter, "count", files.store.most_names - 1)))
        outcome = yield Transaction(reads, when=join(conditions), writes=_write_begun(begun, row))
        if outcome.applied:
            return begun


def finish(begun: Begun, size: int, part_bytes: int) -> Plan[None]:
    """Have a version be found from now on.

    Raises:
        UnknownSessionError, SessionClosedError: The session is not there any more, or was closed or archived.
        UnknownArtifactError: The artifact was deleted meanwhile.
    """
    scope, head, row = begun.scope, begun.head, begun.row
    saved = Put(row, {"size": size, "part_bytes": part_bytes, "at": Now()})
    still = [*scope.conditions(), Is(head, "generation", begun.generation), Is(row, "size", None), Is(row, "part_bytes", None)]
    is_newest = AtMost(head, "latest", begun.number - 1)
    while True:
        newest = Put(head, {"latest": begun.number})
        outcome = yield Transaction([*scope.guards, head, row], when=join([*still, is_newest]), writes=[saved, newest])
        if outcome.applied:
            return
        outcome = yield Transaction([*scope.guards, head, row], when=join([*still, Not(is_newest)]), writes=[saved])
        if outcome.applied:
            return
        scope.require_open(outcome)
        named, version = outcome.rows[-2:]
        if named is None or version is None or named["generation"] != begun.generation or version["part_bytes"] is not None:
            raise UnknownArtifactError(DELETED)


def abandon(files: Files, root: str, begun: Begun, *, frees: bool = True) -> Plan[None]:
    """Drop what is left of a save that broke off. One that was finished after all stays.

    Args:
        files: The bytes.
        root: Of all paths.
        begun: What was begun.
        frees: Whether nobody writes to it any more, so that its number may be used again.
    """
    row = begun.row
    is_unfinished = AllOf(Exists(row), Is(row, "size", None))
    outcome = yield Transaction([row], when=is_unfinished, writes=[Put(row, {"part_bytes": DYING})])
    if outcome.applied or outcome.rows[0] is None:
        yield Aside(partial(drop_parts, files.objects, path_of(root, row.key), None))
        yield from forget(begun.scope, begun.about.name, begun.generation, begun.number, frees=frees)


def forget(scope: Scope, name: str, generation: bytes, number: int, *, frees: bool = False) -> Plan[None]:
    """Drop the row of a version whose bytes are gone, and with the last one that of its name.

    Args:
        scope: Whose.
        name: Of the artifact.
        generation, number: Of the version.
        frees: Whether its number may be used again, if nobody took a later one.
    """
    head, row, counter = scope.head(name), scope.version(generation, number), scope.counter
    while True:
        named, version, _ = (yield Transaction([head, row, counter])).rows
        if version is None:
            return
        writes: list[Write] = [Delete(row)]
        if named is not None and named["generation"] == generation:
            left = _number(named, "count") - 1
            freed: Columns = {"version": number} if frees and named["version"] == number + 1 else {}
            writes += [Put(head, {"count": left, **freed})] if left else [Delete(head), Put(counter, {"count": Plus(-1)})]
        conditions = [Exists(row), *is_same(head, named)]
        if (yield Transaction([head, row, counter], when=join(conditions), writes=writes)).applied:
            return


def find(scope: Scope, name: str, number: int | None) -> Plan[Found | None]:
    """A version of an artifact; the newest for None. None where there is none."""
    head, looked = scope.head(name), None
    while True:
        outcome = yield Transaction([*scope.guards, head])
        named = outcome.rows[-1]
        if named is None or named["latest"] == NONE_YET or not scope.can_be_read(outcome):
            return None
        wanted = _number(named, "latest") if number is None else number
        if wanted >= _number(named, "version"):
            return None
        record = scope.version(cast("bytes", named["generation"]), wanted)
        row = (yield Transaction([record])).rows[0]
        if row is not None and is_saved(row):
            return Found(describe_version(name, wanted, row), record, row)
        if number is not None or looked == record:
            return None
        looked = record


def list_versions(scope: Scope, name: str) -> Plan[list[ArtifactVersion]]:
    """The versions of an artifact, oldest first."""
    found: list[ArtifactVersion] = []
    outcome = yield Transaction([*scope.guards, scope.head(name)])
    named = outcome.rows[-1]
    if named is None or not scope.can_be_read(outcome):
        return found
    generation, after = cast("bytes", named["generation"]), -1
    while True:
        (page,) = (yield Transaction([], ranges=[scope.versions(generation, AT_ONCE, after)])).pages
        found += [describe_version(name, unpack_number(key), row) for key, row in page if is_saved(row)]
        if len(page) < AT_ONCE:
            return found
        after = unpack_number(page[-1][0])


def list_names(scope: Scope, limit: int, last: bytes) -> Plan[tuple[list[tuple[bytes, ArtifactVersion]], bytes | None]]:
    """The newest version of each artifact, by the order of the names.

    Args:
        scope: Whose.
        limit: How many names are looked at.
        last: The packed name after which to begin; none for the first.

    Returns them with their packed names, and the packed name at which to go on; None where there are no more.
    """
    whole = Range.of_prefix(ARTIFACTS, scope.prefix + HEAD, limit, partition=scope.partition)
    start = whole.start + last + b"\0" if last else whole.start
    rows = Range(ARTIFACTS, start, whole.end, limit, partition=scope.partition)
    outcome = yield Transaction(scope.guards, ranges=[rows])
    if not scope.can_be_read(outcome):
        return [], None
    (page,) = outcome.pages
    stem, names = len(whole.start), [(key, row) for key, row in page if row["latest"] != NONE_YET]
    records = [scope.version(cast("bytes", row["generation"]), _number(row, "latest")) for _, row in names]
    versions = (yield Transaction(records)).rows if records else ()
    found = [
        (key[stem:], describe_version(cast("bytes", named["name"]).decode(), _number(named, "latest"), version))
        for (key, named), version in zip(names, versions, strict=True)
        if version is not None and is_saved(version)
    ]
    return found, page[-1][0][stem:] if len(page) == limit else None


def delete(files: Files, root: str, scope: Scope, name: str) -> Plan[int]:
    """Delete an artifact; returns how many versions that were.

    It is gone with the first step. Its bytes follow, and its rows, in steps that everybody may go on with.

    Raises:
        UnknownSessionError, SessionClosedError: The session is not there, or was closed or archived.
    """
    head, counter = scope.head(name), scope.counter
    yield from drop_deleted(files, root, scope)
    while True:
        outcome = yield Transaction([*scope.guards, head, counter])
        scope.require_open(outcome)
        named = outcome.rows[-2]
        if named is None:
            return 0
        generation = cast("bytes", named["generation"])
        dropped = Put(scope.dropped(generation), {"app": scope.app})
        writes: list[Write] = [Delete(head), Put(counter, {"count": Plus(-1)}), dropped]
        conditions = [*scope.conditions(), *is_same(head, named)]
        if (yield Transaction([*scope.guards, head, counter], when=join(conditions), writes=writes)).applied:
            return (yield from drop_generation(files, root, scope, generation))


def delete_version(files: Files, root: str, scope: Scope, name: str, number: int) -> Plan[int]:
    """Delete one version; returns how many that were, 1 or 0. Its number is never used again as long as there are others.

    Raises as ``delete``.
    """
    head = scope.head(name)
    while True:
        outcome = yield Transaction([*scope.guards, head])
        scope.require_open(outcome)
        named = outcome.rows[-1]
        if named is None:
            return 0
        if number >= _number(named, "version"):
            return 0
        generation = cast("bytes", named["generation"])
        row = scope.version(generation, number)
        latest = yield from _find_latest(scope, generation, named, number)
        reads, dying = [*scope.guards, head, row], Put(row, {"part_bytes": DYING, "size": None})
        when = join([*scope.conditions(), *is_same(head, named), Exists(row), Not(Is(row, "size", None))])
        outcome = yield Transaction(reads, when=when, writes=[dying, Put(head, {"latest": latest})])
        version = outcome.rows[-1]
        if outcome.applied:
            yield from _raise_latest(scope, generation, head)
            yield Aside(partial(drop_parts, files.objects, path_of(root, row.key), version))
            yield from forget(scope, name, generation, number)
            return 1
        if version is None or not is_saved(version):
            return 0


def drop_deleted(files: Files, root: str, scope: Scope) -> Plan[None]:
    """Drop what is left of artifacts that were deleted, where somebody did not come to the end of it."""
    begins = scope.prefix + DROPPED
    rows = Range.of_prefix(ARTIFACTS, begins, AT_ONCE, partition=scope.partition)
    for key, _ in (yield Transaction([], ranges=[rows])).pages[0]:
        yield from drop_generation(files, root, scope, key[len(begins) :])


def drop_generation(files: Files, root: str, scope: Scope, generation: bytes) -> Plan[int]:
    """Drop the bytes and the rows of all versions of a name that was deleted; returns how many had been saved."""
    begins = scope.versions(generation, AT_ONCE)
    count = yield from drop_range(files, root, begins)
    yield Transaction([], writes=[Delete(scope.dropped(generation))])
    return count


def drop_range(files: Files, root: str, rows: Range) -> Plan[int]:
    """Drop rows of artifacts, the bytes of each version before its row; returns how many versions had been saved.

    Where it breaks off, the rows that are left know the bytes that are left.
    """
    count = 0
    while True:
        (page,) = (yield Transaction([], ranges=[rows])).pages
        if not page:
            return count
        yield from drop_contents(files, root, page)
        yield Transaction([], writes=[Delete(Record(ARTIFACTS, key, rows.partition)) for key, _ in page])
        count += count_saved(page)


def drop_contents(files: Files, root: str, page: Page) -> Plan[None]:
    """Drop the bytes of all versions among rows."""
    versions = [(key, row) for key, row in page if row["mime"] is not None]
    if versions:
        yield Aside(partial(_drop_all, files, root, versions))


def count_saved(page: Page) -> int:
    """How many of these rows are versions that were saved to their end."""
    return sum(is_saved(row) for _, row in page)


def is_saved(row: Row) -> bool:
    """Whether a version was saved to its end, and is not being dropped."""
    return row["size"] is not None


def is_same(head: Record, named: Row | None) -> list[Condition]:
    """Nobody has written a name since it was read."""
    if named is None:
        return [Not(Exists(head))]
    return [Is(head, column, named[column]) for column in ("generation", "version", "count", "latest")]


def _drop_all(files: Files, root: str, versions: list[tuple[bytes, Row]]) -> None:
    for key, row in versions:
        drop_parts(files.objects, path_of(root, key), row if is_saved(row) else None)


def _require_room(files: Files, named: Row | None, counted: Row | None) -> None:
    store = files.store
    if named is None and _number(counted, "count") >= store.most_names:
        raise SessionValueError(MOST_NAMES.format(store.most_names))
    if _number(named, "count") >= store.most_versions:
        raise SessionValueError(MOST_VERSIONS.format(store.most_versions))


def _write_begun(begun: Begun, named: Row | None) -> list[Write]:
    about, scope = begun.about, begun.scope
    version: Columns = {
        "app": scope.app,
        "name": about.name.encode(),
        "mime": about.mime.encode(),
        "metadata": about.metadata,
        "at": Now(),
    }
    head: Columns = {"version": begun.number + 1, "count": Plus(1)}
    writes: list[Write] = [Put(begun.row, version)]
    if named is None:
        head |= {"app": scope.app, "name": about.name.encode(), "generation": begun.generation, "latest": NONE_YET, "at": Now()}
        writes.append(Put(scope.counter, {"app": scope.app, "count": Plus(1)}))
    return [*writes, Put(begun.head, head)]


def _find_latest(scope: Scope, generation: bytes, named: Mapping[str, Value], without: int) -> Plan[int]:
    """The newest version but for one."""
    if named["latest"] not in {None, without}:
        return _number(named, "latest")
    start, end = scope.version(generation, 0).key, scope.version(generation, without).key
    while True:
        rows = Range(ARTIFACTS, start, end, AT_ONCE, backwards=True, partition=scope.partition)
        (page,) = (yield Transaction([], ranges=[rows])).pages
        saved = next((unpack_number(key) for key, row in page if is_saved(row)), None)
        if saved is not None or len(page) < AT_ONCE:
            return NONE_YET if saved is None else saved
        end = page[-1][0]


def _raise_latest(scope: Scope, generation: bytes, head: Record) -> Plan[None]:
    """Have a name know the newest version, where one was finished while that was looked for."""
    latest = yield from _find_latest(scope, generation, {"latest": None}, LARGEST)
    is_older = AllOf(Is(head, "generation", generation), AtMost(head, "latest", latest - 1))
    yield Transaction([head], when=is_older, writes=[Put(head, {"latest": latest})])


def _number(row: Row | None, column: str) -> int:
    found = None if row is None else row[column]
    return found if isinstance(found, int) else 0
