"""Save a version of an artifact: what the engine is told before its bytes are written, and after.

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

from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, cast

from dcaf.core.errors import SessionValueError, UnknownArtifactError
from dcaf.engines import AllOf, AnyOf, AtMost, Delete, Exists, Is, Not, Now, Plus, Put, Record, Row, Transaction, Write
from dcaf.service.artifact_contents import Files, drop_parts, path_of
from dcaf.service.artifact_scopes import DYING, NONE_YET, Scope, is_same, number_of
from dcaf.service.plans import Aside, Plan
from dcaf.service.remembered import join
from dcaf.service.tables import Columns

DELETED: Final = "The artifact was deleted while this version of it was saved."
MOST_NAMES: Final = "There may be {:,} artifacts here, and so many there are. Delete one, or save another version of one."
MOST_VERSIONS: Final = "An artifact may have {:,} versions, and so many it has. Delete some: delete(name, version=...)."


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
        begun = Begun(scope, about, random if row is None else cast("bytes", row["generation"]), number_of(row, "version"))
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
            left = number_of(named, "count") - 1
            freed: Columns = {"version": number} if frees and named["version"] == number + 1 else {}
            writes += [Put(head, {"count": left, **freed})] if left else [Delete(head), Put(counter, {"count": Plus(-1)})]
        conditions = [Exists(row), *is_same(head, named)]
        if (yield Transaction([head, row, counter], when=join(conditions), writes=writes)).applied:
            return


def _require_room(files: Files, named: Row | None, counted: Row | None) -> None:
    store = files.store
    if named is None and number_of(counted, "count") >= store.most_names:
        raise SessionValueError(MOST_NAMES.format(store.most_names))
    if number_of(named, "count") >= store.most_versions:
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
