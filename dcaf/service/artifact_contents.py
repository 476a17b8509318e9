"""The bytes of artifacts as objects: cut into parts of one size, written, read, dropped.

    <random, of the application in its engine>/<digest of the owner>/<rest of the key of the version's row>/<number of the part>

So no name of an artifact, a user or a session is in a path; what the objects of a version are called follows from the key of its
row, and the other way round; and two databases that share a bucket never have a path in common. Where a service encrypts, the key
is in a path as the database has it, and the bytes are encrypted (``artifact_sealing``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from dcaf.core.errors import EngineError, SessionValueError
from dcaf.engines import Exists, Not, Put, Record, Row, Transaction
from dcaf.service.artifact_store import ArtifactStore
from dcaf.service.plans import Plan
from dcaf.service.tables import ARTIFACTS, DIGEST_BYTES, find_app

if TYPE_CHECKING:
    from dcaf.service.encryption import EncryptedEngine

Buffer: TypeAlias = bytes | bytearray | memoryview

ROOT: Final = b"root"
ROOT_BYTES: Final = 16

NOT_WHOLE: Final = "An artifact is not whole: its store does not have the bytes that were saved."
TOO_LARGE: Final = "An artifact has more than the {:,} bytes that it may have. Nothing was saved."


class Contents:
    """How the objects of artifacts are called, and what is in them: of a service that does not encrypt, as they are.

    Attributes:
        fewest: How many objects a version has at least.
    """

    fewest: int = 0

    def hide(self, key: bytes) -> bytes:
        """What stands in paths for the key of a row, or for what such keys begin with."""
        return key

    def show(self, hidden: bytes) -> bytes:
        """The key of a row of which that stands in a path.

        Raises:
            ValueError: It is none.
        """
        return hidden

    def pack(self, path: str, number: int, part: Buffer, *, is_last: bool) -> Buffer:  # noqa: ARG002 - what a seal is bound to
        """A part as its object has it."""
        return part

    def unpack(self, path: str, number: int, data: bytes, *, is_last: bool) -> bytes:  # noqa: ARG002 - what a seal is bound to
        """A part from its object.

        Raises:
            SealedRowError: It is encrypted, and was not written in its place, or its key is not in the ring.
        """
        return data


class Files:
    """The bytes of all artifacts of an application.

    Args:
        store: Where they are.
        app: The application.
        partitions: Of the engine.
        random: So many random bytes.
        encrypted: The engine, where it encrypts; None where it does not.

    Attributes:
        store, partitions, random: As above.
        app: The digest of the application.
        hides_names: Whether pages of rows are not in the order of their names.
    """

    def __init__(
        self,
        store: ArtifactStore,
        app: str,
        partitions: int,
        random: Callable[[int], bytes],
        encrypted: EncryptedEngine | None = None,
    ) -> None:
        self.store: ArtifactStore = store
        self.partitions: int = partitions
        self.random: Callable[[int], bytes] = random
        key, self._partition = find_app(app, partitions)
        self.app: bytes = key
        self.hides_names: bool = encrypted is not None
        self._encrypted = encrypted
        self._contents = Contents()
        self._root: str | None = None

    @property
    def objects(self) -> Any:
        """The store's objects."""
        return self.store._objects

    @property
    def root_record(self) -> Record:
        """The row that has what all paths begin with."""
        return Record(ARTIFACTS, self.app + ROOT, self._partition)

    @property
    def contents(self) -> Contents:
        """How the objects are. It is known as soon as the root was found."""
        return self._contents

    def find_root(self) -> Plan[str]:
        """What all paths begin with. It is made up once, and kept in the engine."""
        record = self.root_record
        while self._root is None:
            outcome = yield Transaction(
                [record], when=Not(Exists(record)), writes=[Put(record, {"generation": self.random(ROOT_BYTES)})]
            )
            if (row := outcome.rows[0]) is not None:
                if self._encrypted is not None:
                    self._contents = self._encrypted._seal_contents()
                self._root = name_root(row)
        return self._root

    def path_of(self, root: str, key: bytes) -> str:
        """Where the objects of a version lie."""
        return join_path(root, self._contents.hide(key))

    def path_of_owner(self, root: str, owner: bytes) -> str:
        """Where all objects of a user lie."""
        return f"{root}/{self._contents.hide(owner).hex()}"

    def key_of(self, path: str) -> bytes:
        """The key of the row of the version that an object is of.

        Raises:
            ValueError: The path is none of ours.
        """
        _, owner, rest, _ = path.split("/")[-4:]
        return self._contents.show(bytes.fromhex(owner + rest))


def name_root(row: Row) -> str:
    """What all paths begin with, of the row that has it."""
    return cast("bytes", row["generation"]).hex()


def join_path(root: str, hidden: bytes) -> str:
    """Where the objects of a version lie, of what stands in paths for the key of its row."""
    return f"{root}/{hidden[:DIGEST_BYTES].hex()}/{hidden[DIGEST_BYTES:].hex()}"


class Writer:
    """Cuts what is saved into parts, and writes them.

    Args:
        files: Where to.
        path: Where the version lies.

    Attributes:
        path: As above. It may be changed as long as nothing was written.
        size: How many bytes it was given.
    """

    def __init__(self, files: Files, path: str) -> None:
        self.path: str = path
        self.size: int = 0
        self._store = files.store
        self._contents = files.contents
        self._objects: Any = files.objects
        self._held = bytearray()
        self._number = 0

    def cut(self, chunk: Buffer) -> Iterator[Buffer]:
        """The parts that are full with a chunk. What came last is held back, since it may be the last.

        Raises:
            SessionValueError: The artifact is too large.
        """
        self.size += len(chunk)
        if self.size > self._store.limit_bytes:
            raise SessionValueError(TOO_LARGE.format(self._store.limit_bytes))
        view, part_bytes = memoryview(chunk), self._store.part_bytes
        while len(self._held) + len(view) > part_bytes:
            room = part_bytes - len(self._held)
            self._held += view[:room]
            view = view[room:]
            part, self._held = self._held, bytearray()
            yield part
        self._held += view

    def take_rest(self) -> Buffer | None:
        """The last part, which was held back; None where there is none, of an artifact without bytes."""
        return self._held if self._held or self._contents.fewest else None

    def write(self, part: Buffer, *, is_last: bool) -> bool:
        """Write the next part; False where there is a first part already, which stays as it is.

        Raises:
            EngineError: The store failed.
        """
        data = self._contents.pack(self.path, self._number, part, is_last=is_last)
        path = path_of_part(self.path, self._number)
        if self._number:
            self._objects.put(path, data)
        elif not self._objects.create(path, data):
            return False
        self._number += 1
        return True

    def settle(self) -> None:
        """Have what was written survive a power cut."""
        self._objects.settle(self.path)


def count_parts(contents: Contents, row: Row) -> int:
    """In how many objects a version lies that was saved to its end."""
    return max(contents.fewest, -(-cast("int", row["size"]) // cast("int", row["part_bytes"])))


def read_part(files: Files, path: str, row: Row, number: int) -> bytes | None:
    """A part of a version; None where it is not there.

    Args:
        files: Where the objects are.
        path: Where the version lies.
        row: Its row.
        number: Of the part: the first is 0.

    Raises:
        EngineError: It has not the bytes that were saved, or the store failed.
        SealedRowError: It is encrypted, and cannot be opened.
    """
    is_last = number == count_parts(files.contents, row) - 1
    data = files.objects.get(path_of_part(path, number))
    if data is None:
        return None
    part = files.contents.unpack(path, number, data, is_last=is_last)
    size, part_bytes = cast("int", row["size"]), cast("int", row["part_bytes"])
    if len(part) != min(part_bytes, size - number * part_bytes):
        raise EngineError(NOT_WHOLE)
    return part


def copy_parts(files: Files, path: str, row: Row, target: str) -> None:
    """Write the objects of a version once more.

    Raises:
        EngineError: They are not there, or not whole, or the store failed.
    """
    objects, contents = files.objects, files.contents
    count = count_parts(contents, row)
    for number in range(count):
        part = read_part(files, path, row, number)
        if part is None:
            raise EngineError(NOT_WHOLE)
        objects.put(path_of_part(target, number), contents.pack(target, number, part, is_last=number == count - 1))
    objects.settle(target)


def drop_parts(files: Files, path: str, row: Row | None) -> None:
    """Drop the objects of a version.

    Args:
        files: Where they are.
        path: Where the version lies.
        row: Its row, where it was saved to its end; None where nobody knows how many objects there are.

    Raises:
        EngineError: The store failed; some may be gone.
    """
    if row is not None:
        files.objects.delete([path_of_part(path, number) for number in range(count_parts(files.contents, row))])
        return
    for paths in files.objects.list_paths(path):
        files.objects.delete(paths)


def path_of_part(path: str, number: int) -> str:
    """Where a part of a version lies."""
    return f"{path}/{number:08x}"
