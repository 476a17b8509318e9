"""The files of a session: ``session.artifacts``, and for a tool ``artifacts: Artifacts``.

    async with sessions.open(user="p-123", id="visit-1") as session:
        version = await session.artifacts.save("scan.png", data)
        session["scan"] = version
    found = await sessions.artifacts(user="p-123", id="visit-1").load("scan.png")

A name that begins with ``user:`` is shared by all sessions of the user. What is saved under a name again is its next version.

What a reader gets wrong: a save is no part of the turn's commit. It is true when it returns, for everybody; a turn that fails
afterwards leaves a version to which no state refers.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread

from dcaf.core.arguments import kind_of, require
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError, DcafError, EngineError, UnknownSessionError
from dcaf.core.journal import Injected
from dcaf.core.json_values import to_json
from dcaf.core.lifecycle import run_shielded
from dcaf.core.mapping import state_of
from dcaf.core.session import Session, require_session
from dcaf.engines import Engine, Transaction
from dcaf.service.artifact_contents import Buffer, Files, Writer
from dcaf.service.artifact_deletion import delete, delete_version
from dcaf.service.artifact_finding import find, list_names, list_versions
from dcaf.service.artifact_saving import About, Begun, abandon, begin, finish, forget
from dcaf.service.artifact_scopes import GENERATION_BYTES, Scope, find_shared
from dcaf.service.artifact_streams import ArtifactStream
from dcaf.service.artifact_values import Artifact, ArtifactVersion, check_name, check_version, find_mime, pack_metadata
from dcaf.service.conversation import is_kept, journal_of
from dcaf.service.kept import is_there
from dcaf.service.listing import MOST_LIMIT, WRONG_CURSOR, ListPage
from dcaf.service.places import UNKNOWN, USER
from dcaf.service.plans import Plan, run, run_async, run_to_end
from dcaf.service.tables import MOST_NAME_BYTES, Owner

T = TypeVar("T")


Source: TypeAlias = "bytes | bytearray | memoryview | str | Iterable[bytes]"
"""What is saved by code without an event loop: bytes, a text, or bytes in pieces, such as an open file."""

AsyncSource: TypeAlias = "Source | AsyncIterable[bytes]"
"""What is saved: the same, or pieces that are awaited."""

TAG_BYTES: Final = 8
OWN: Final = b"s"
SHARED: Final = b"u"

NO_ARTIFACTS: Final = (
    'This service keeps no artifacts: give it a place for them, SessionService(..., artifacts="file:///var/lib/clinic/files").'
)
NO_SESSION: Final = 'Without id= only artifacts whose names begin with "user:" are reached: name the session.'
NO_SOURCE: Final = "An artifact is saved of bytes, a text, or several bytes one after the other, such as an open file; not of {}."
NO_AWAIT: Final = "Code without an event loop cannot wait for these bytes: await artifacts.save(), without .sync."


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose artifacts are meant.

    Attributes:
        app: The digest of the application.
        owner: The user, or the anonymous session.
        session_id: Of the session; None for what all sessions of the user have alone.
        birth: Of the session; None for whichever has the id.
        is_new: Whether it may not be committed yet.
    """

    app: bytes = field(repr=False)
    owner: Owner = field(repr=False)
    session_id: str | None
    birth: bytes | None = field(default=None, repr=False)
    is_new: bool = False

    def find_scope(self, *, shared: bool) -> Plan[Scope]:
        """The rows of the session's own artifacts, or of those that the user shares.

        Raises:
            ConfigurationError: It is a name of a session, and none is given.
            UnknownSessionError: There is no such session.
        """
        if shared and self.owner.user is not None:
            return Scope.of_user(self.app, self.owner)
        if self.session_id is None:
            raise ConfigurationError(NO_SESSION)
        birth = self.birth or (yield from self._find_birth(self.session_id))
        if shared:
            return find_shared(self.app, self.owner, self.session_id, birth, is_new=self.is_new)
        return Scope.of_session(self.app, self.owner, self.session_id, birth, shared=False, is_new=self.is_new)

    def _find_birth(self, session_id: str) -> Plan[bytes]:
        outcome = yield Transaction([self.owner.session_row(session_id)])
        row = outcome.rows[0]
        if row is None or not is_there(row, outcome.now_ms):
            raise UnknownSessionError(UNKNOWN)
        birth = row["birth"]
        assert isinstance(birth, bytes)
        return birth


class Artifacts(Injected):
    """The files of a session, in versions. A tool gets them by a parameter: ``artifacts: Artifacts``.

    Args:
        engine: Where their names are.
        files: Where their bytes are.
        whose: Whose they are.
    """

    def __init__(self, engine: Engine, files: Files, whose: Whose) -> None:
        self._engine = engine
        self._files = files
        self._find_whose: Callable[[], Whose] = lambda: whose
        self._require_turn: Callable[[], None] = _ignore

    @classmethod
    def is_for(cls, session: Session) -> bool:
        """Whether a session service keeps the session, and its artifacts."""
        return is_kept(session) and journal_of(state_of(session)).opened.files is not None

    @classmethod
    def of(cls, session: Session) -> Self:
        """The artifacts of a session.

        Raises:
            ConfigurationError: No session service keeps the session, or it keeps no artifacts.
        """
        state = state_of(require_session(session, "of()"))
        opened = journal_of(state).opened
        files = opened.files
        if files is None:
            raise ConfigurationError(NO_ARTIFACTS)
        partitions = opened.engine.partitions

        def find_whose() -> Whose:
            kept = journal_of(state).opened.kept
            owner = Owner(opened.app, kept.user, kept.id, partitions=partitions)
            return Whose(files.app, owner, kept.id, kept.birth, is_new=not kept.revision)

        found = cls(opened.engine, files, find_whose())
        found._find_whose, found._require_turn = find_whose, state.require_open
        return found

    def __repr__(self) -> str:
        return "<Artifacts>"

    @property
    def sync(self) -> SyncArtifacts:
        """The same methods without ``await``."""
        return SyncArtifacts(self)

    async def save(
        self, name: str, data: AsyncSource, *, mime: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> int:
        """Save the next version of an artifact; returns its number. The first is 0.

        It is true when this returns, whatever becomes of the turn; before, nobody sees anything of it.

        Args:
            name: Its name: 1 to 256 characters, any. One that begins with ``user:`` is shared by all sessions of the user.
            data: Bytes, a text (kept as UTF-8), or several bytes one after the other, with or without ``await``, which are never
                in memory all at once.
            mime: Its media type; None for the one that the ending of the name stands for.
            metadata: What else is to be known of it; plain JSON, at most 16 KiB.

        Raises:
            SessionValueError: The name, the media type or the metadata is none, or it is too large, or there are too many.
            UnknownSessionError: The session is not there any more.
            SessionClosedError: The turn is over, or the session was closed, or archived.
            UnknownArtifactError: The artifact was deleted while it was saved.
            ConfigurationError: The data is something else.
            EngineError: The engine or the store failed; nothing was saved.
            CommitUnknownError: Nobody can tell whether it was saved.
        """
        saving = _Saving(self, name, mime, metadata)
        pieces = _require_source(data, is_async=True)
        try:
            await run_to_end(saving.begin(), self._engine)
            if isinstance(pieces, AsyncIterable):
                async for piece in pieces:
                    for part in saving.writer.cut(_require_piece(piece)):
                        await self._write(saving, part, is_last=False)
            else:
                parts = (part for piece in pieces for part in saving.writer.cut(_require_piece(piece)))
                while full := await anyio.to_thread.run_sync(_take_next, parts):
                    await self._write(saving, full, is_last=False)
            if (rest := saving.writer.take_rest()) is not None:
                await self._write(saving, rest, is_last=True)
            await _run_whole(saving.writer.settle)
            return await run_to_end(saving.finish(), self._engine)
        except BaseException as error:
            with suppress(DcafError):  # what it raises is less than what was raised; a purge drops what is left
                await run_to_end(saving.abandon(error), self._engine)
            raise

    async def _write(self, saving: _Saving, part: Buffer, *, is_last: bool) -> None:
        while not await _run_whole(partial(saving.writer.write, part, is_last=is_last)):
            await run_to_end(saving.begin_anew(), self._engine)

    async def load(self, name: str, version: int | None = None) -> Artifact | None:
        """A version of an artifact with its bytes; None where there is none.

        Args:
            name: Its name.
            version: The number; None for the newest.

        Raises:
            SessionValueError, ConfigurationError: The name is none, or the number.
            UnknownSessionError: There is no such session. In a turn whose session is gone there is no artifact.
            UnknownArtifactError: It was deleted while it was read.
            EngineError: The engine or the store failed.
        """
        stream = await self.open(name, version)
        return None if stream is None else _join(stream.version, [part async for part in stream])

    async def open(self, name: str, version: int | None = None) -> ArtifactStream | None:
        """A version of an artifact, to be read piece by piece; None where there is none.

        Args and errors are those of ``load``.
        """
        return await run_async(self._open(name, version), self._engine)

    async def versions(self, name: str) -> builtins.list[ArtifactVersion]:
        """What is known of the versions of an artifact, oldest first.

        Raises:
            SessionValueError: The name is none.
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.
        """
        return await run_async(self._versions(name), self._engine)

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> ListPage[ArtifactVersion]:
        """A page of the newest versions of all artifacts, by the order of the names: those of the session, then those of the user.

        Args:
            limit: How many at most, up to 1,000. A page may be short, or even empty, and have a cursor all the same.
            cursor: Where the page before ended (``page.cursor``); None for the first page.

        Raises:
            ConfigurationError: The limit is no such number, or the cursor is that of another list.
            UnknownSessionError: There is no such session.
            EngineError: The engine failed.
        """
        return await run_async(self._list(limit, cursor), self._engine)

    async def delete(self, name: str, version: int | None = None) -> int:
        """Delete an artifact, or one version of it; returns how many versions that were.

        Args:
            name: Its name.
            version: The number of the version; None for all. A name that is saved again after all were deleted begins with 0.

        Raises:
            SessionValueError, ConfigurationError: The name is none, or the number.
            UnknownSessionError: The session is not there any more.
            SessionClosedError: The turn is over, or the session was closed, or archived.
            EngineError: The engine or the store failed. It may be gone, and some of its bytes still there; call again.
        """
        return await run_to_end(self._delete(name, version), self._engine)

    def _open(self, name: str, version: int | None) -> Plan[ArtifactStream | None]:
        found, number = check_name(name), check_version(version)
        scope = yield from self._find_scope(found)
        root = yield from self._files.find_root()
        there = yield from find(scope, found, number)
        return None if there is None else ArtifactStream(self._engine, self._files, root, there)

    def _versions(self, name: str) -> Plan[builtins.list[ArtifactVersion]]:
        found = check_name(name)
        return (yield from list_versions((yield from self._find_scope(found)), found))

    def _list(self, limit: int, cursor: str | None) -> Plan[ListPage[ArtifactVersion]]:
        if not 1 <= require("limit=", limit, int, "a number of artifacts") <= MOST_LIMIT:
            raise ConfigurationError(f"limit= is 1 to {MOST_LIMIT:,}.")
        whose = self._find_whose()
        kind, last = _unpack_cursor(whose, cursor)
        items: builtins.list[ArtifactVersion] = []
        if kind == OWN and whose.session_id is not None:
            found, last_name = yield from list_names(self._files, (yield from whose.find_scope(shared=False)), limit, last)
            items, last = [version for _, version in found], b""
            if last_name is not None:
                return ListPage(items, _pack_cursor(whose, OWN + last_name))
        if len(items) == limit:
            return ListPage(items, _pack_cursor(whose, SHARED))
        found, last_name = yield from list_names(self._files, (yield from whose.find_scope(shared=True)), limit - len(items), last)
        items += [version for _, version in found]
        return ListPage(items, None if last_name is None else _pack_cursor(whose, SHARED + last_name))

    def _delete(self, name: str, version: int | None) -> Plan[int]:
        found, number = check_name(name), check_version(version)
        self._require_turn()
        scope = yield from self._find_scope(found)
        root = yield from self._files.find_root()
        if number is None:
            return (yield from delete(self._files, root, scope, found))
        return (yield from delete_version(self._files, root, scope, found, number))

    def _find_scope(self, name: str) -> Plan[Scope]:
        return self._find_whose().find_scope(shared=name.startswith(USER))


class SyncArtifacts:
    """The methods of artifacts for code that runs on no event loop. They block.

    Args:
        artifacts: The artifacts.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def save(self, name: str, data: Source, *, mime: str | None = None, metadata: Mapping[str, Any] | None = None) -> int:
        """As of the artifacts."""
        artifacts = self._artifacts
        saving, engine = _Saving(artifacts, name, mime, metadata), artifacts._engine
        pieces = _require_source(data, is_async=False)
        try:
            run(saving.begin(), engine)
            for piece in pieces:
                for part in saving.writer.cut(_require_piece(piece)):
                    self._write(saving, part, is_last=False)
            if (rest := saving.writer.take_rest()) is not None:
                self._write(saving, rest, is_last=True)
            saving.writer.settle()
            return run(saving.finish(), engine)
        except BaseException as error:
            with suppress(DcafError):
                run(saving.abandon(error), engine)
            raise

    def _write(self, saving: _Saving, part: Buffer, *, is_last: bool) -> None:
        while not saving.writer.write(part, is_last=is_last):
            run(saving.begin_anew(), self._artifacts._engine)

    def load(self, name: str, version: int | None = None) -> Artifact | None:
        """As of the artifacts."""
        stream = self.open(name, version)
        return None if stream is None else _join(stream.version, list(stream))

    def open(self, name: str, version: int | None = None) -> ArtifactStream | None:
        """As of the artifacts."""
        return run(self._artifacts._open(name, version), self._artifacts._engine)

    def versions(self, name: str) -> builtins.list[ArtifactVersion]:
        """As of the artifacts."""
        return run(self._artifacts._versions(name), self._artifacts._engine)

    def list(self, *, limit: int = 100, cursor: str | None = None) -> ListPage[ArtifactVersion]:
        """As of the artifacts."""
        return run(self._artifacts._list(limit, cursor), self._artifacts._engine)

    def delete(self, name: str, version: int | None = None) -> int:
        """As of the artifacts."""
        return run(self._artifacts._delete(name, version), self._artifacts._engine)


class _Saving:
    """A version on its way into the store."""

    writer: Writer

    def __init__(self, artifacts: Artifacts, name: str, mime: str | None, metadata: Mapping[str, Any] | None) -> None:
        found = check_name(name)
        self._about = About(found, find_mime(mime, found), pack_metadata(metadata))
        self._artifacts, self._files = artifacts, artifacts._files
        artifacts._require_turn()
        self._root = ""
        self._begun: Begun | None = None

    def begin(self) -> Plan[None]:
        """Take a number."""
        scope = yield from self._artifacts._find_scope(self._about.name)
        self._root = yield from self._files.find_root()
        self._begun = yield from begin(self._files, scope, self._about, self._files.random(GENERATION_BYTES))
        self.writer = Writer(self._files, self._files.path_of(self._root, self._begun.row.key))

    def begin_anew(self) -> Plan[None]:
        """Take another number: somebody has written objects of this one, and an engine that was restored does not know it."""
        before = self._begun
        assert before is not None
        self._begun = yield from begin(self._files, before.scope, self._about, self._files.random(GENERATION_BYTES))
        self.writer.path = self._files.path_of(self._root, self._begun.row.key)
        yield from forget(before.scope, self._about.name, before.generation, before.number)

    def finish(self) -> Plan[int]:
        """Have it be found."""
        assert self._begun is not None
        yield from finish(self._begun, self.writer.size, self._files.store.part_bytes)
        return self._begun.number

    def abandon(self, error: BaseException) -> Plan[None]:
        """Drop what is there of it. Its number is free again, unless the store may still be writing what it has not answered."""
        if self._begun is not None:
            yield from abandon(self._files, self._root, self._begun, frees=not isinstance(error, EngineError))


async def _run_whole(work: Callable[[], T]) -> T:
    """Do what blocks on a thread, to its end also where whoever waits is cancelled: it writes what is dropped afterwards."""
    found: list[T] = []

    async def call() -> None:
        found.append(await anyio.to_thread.run_sync(work))

    await run_shielded(call)
    return found[0]


def _require_source(data: object, *, is_async: bool) -> Any:
    """The pieces of what is saved."""
    if isinstance(data, str):
        return [cast("str", to_json(str.__str__(data), path="the text of an artifact")).encode()]
    if isinstance(data, bytes | bytearray | memoryview):
        return [data]
    if isinstance(data, AsyncIterable) and not is_async:
        raise ConfigurationError(NO_AWAIT)
    if not isinstance(data, Iterable | AsyncIterable) or isinstance(data, Mapping | type):
        raise ConfigurationError(NO_SOURCE.format(kind_of(data)))
    return data


def _take_next(parts: Iterator[Buffer]) -> Buffer:
    """The next part, none of which is empty; nothing behind the last."""
    return next(parts, b"")


def _require_piece(piece: object) -> bytes | bytearray | memoryview:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise ConfigurationError(NO_SOURCE.format(f"several times {kind_of(piece)}"))
    if isinstance(piece, memoryview):
        return piece.cast("B") if piece.c_contiguous and piece.nbytes else bytes(piece)
    return piece


def _join(version: ArtifactVersion, parts: list[bytes]) -> Artifact:
    about = version.name, version.version, version.mime, version.size, version.metadata, version.created_at
    return Artifact(*about, parts[0] if len(parts) == 1 else b"".join(parts))


def _tag(whose: Whose) -> bytes:
    session = b"" if whose.session_id is None else whose.owner.session_key(whose.session_id)
    return hashlib.sha256(b"artifacts" + whose.owner.key + session).digest()[:TAG_BYTES]


def _pack_cursor(whose: Whose, at: bytes) -> str:
    return encode(_tag(whose) + at)


def _unpack_cursor(whose: Whose, cursor: str | None) -> tuple[bytes, bytes]:
    """Whether the session's own artifacts or the shared ones come next, and after which packed name."""
    if cursor is None:
        return OWN, b""
    try:
        found = decode(require("cursor=", cursor, str, "the cursor of a page, or None"))
    except ValueError:
        raise ConfigurationError(WRONG_CURSOR) from None
    kind, last = found[TAG_BYTES : TAG_BYTES + 1], found[TAG_BYTES + 1 :]
    if found[:TAG_BYTES] != _tag(whose) or kind not in {OWN, SHARED} or len(last) > MOST_NAME_BYTES:
        raise ConfigurationError(WRONG_CURSOR)
    return kind, last


def _ignore() -> None:
    """Nothing tells whether the turn is over."""
