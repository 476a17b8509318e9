"""Artifacts of a service that encrypts: what a folder and a database have of them, what is refused, and keys that go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from dcaf.core import ConfigurationError, EngineError, Key, Keyring, SealedRowError
from dcaf.engines import Engine, MemoryEngine, Put, Record, SqliteEngine, Transaction
from dcaf.service import (
    ArtifactStore,
    SessionService,
    SyncArtifacts,
    artifact_finding,
    artifact_remains,
    artifact_rotation,
    artifact_sealing,
)
from dcaf.service.artifact_sealing import LAYOUT
from dcaf.service.encryption import Reencrypted
from dcaf.service.plans import Aside
from dcaf.service.tables import Owner
from tests.service.artifact_places import list_objects, make_store
from tests.service.encrypted_places import AFTER, BEFORE, MEANWHILE, NEW, OLD

USER, ID = "needle-user-51ce", "needle-session-51ce"
NAME, MIME, PAGES, SAID = "needle-name-51ce.txt", "text/x-needle-mime-51ce", "needle-metadata-51ce", "needle-content-51ce"
DATA = bytes(range(200))


def open_on(
    engine: Engine, store: ArtifactStore | None, ring: Keyring | None = BEFORE, app: str = "clinic"
) -> tuple[SessionService, SyncArtifacts]:
    """A service with a session."""
    service = SessionService(engine, app=app, artifacts=store, encrypt=ring)
    service.sync.get_or_create(user=USER, id=ID)
    return service, service.sync.artifacts(user=USER, id=ID) if store is not None else None  # type: ignore[return-value]


def find_needles(folder: Path, ring: Keyring | None) -> set[str]:
    """What of an artifact can be read in the database and the folder, in what they have and in what its files are called."""
    engine = SqliteEngine(str(folder / "dcaf.db"))
    service, artifacts = open_on(engine, make_store("folder", folder, part_bytes=4096), ring)
    for name in (NAME, f"user:{NAME}", "empty"):
        artifacts.save(name, SAID if name != "empty" else b"", mime=MIME, metadata={"pages": PAGES})
    service.sync.fork(user=USER, id=ID, new_id="other")
    if ring is not None:
        service.sync.reencrypt()
    found = artifacts.load(NAME)
    assert found is not None
    assert (found.text, found.mime, found.metadata) == (SAID, MIME, {"pages": PAGES})
    owner = Owner("clinic", USER, partitions=1)
    words = {word: word.encode() for word in (USER, ID, NAME, MIME, PAGES, SAID)}
    words |= {"digest of the user": owner.key, "digest of the session": owner.session_key(ID)[-16:]}
    words |= {f"{what} in a path": word.hex().encode() for what, word in words.items() if what.startswith("digest")}
    files = [path for path in folder.rglob("*") if path.is_file()]
    data = b"".join(path.read_bytes() for path in files) + b"\n".join(str(path.relative_to(folder)).encode() for path in files)
    engine.sync.close()
    return {what for what, word in words.items() if word in data}


def test_nothing_of_an_artifact_stands_in_the_database_or_the_folder(tmp_path: Path) -> None:
    assert find_needles(tmp_path, BEFORE) == set()


def test_control_without_a_ring_all_of_it_stands_there(tmp_path: Path) -> None:
    found = find_needles(tmp_path, None)
    assert {NAME, MIME, PAGES, SAID, "digest of the user in a path", "digest of the session in a path"} <= found


# What somebody does who may write to the store and the database.


class Tampering:
    """A folder with two artifacts, each in four parts, and one without bytes; and what can be done to it."""

    def __init__(self, folder: Path) -> None:
        self.engine = MemoryEngine()
        self.store = make_store("folder", folder)
        self.service, self.artifacts = open_on(self.engine, self.store)
        self.parts: dict[str, list[str]] = {}
        for name, data in (("a", DATA), ("b", DATA[::-1]), ("whole", DATA[:192])):
            before = set(list_objects(self.store))
            self.artifacts.save(name, data)
            self.parts[name] = [path for path in list_objects(self.store) if path not in before]

    def read(self, path: str) -> bytes:
        return bytes(obstore.get(self.store._objects._store, path).bytes())

    def write(self, path: str, data: bytes) -> None:
        obstore.put(self.store._objects._store, path, data)

    def swap(self, one: str, other: str) -> None:
        first, second = self.read(one), self.read(other)
        self.write(one, second)
        self.write(other, first)

    def set_size(self, name: str, size: int) -> None:
        """Have the row of a version say another size."""
        *_, owner, rest, _ = self.parts[name][0].split("/")
        record = Record(LAYOUT.sealed, bytes.fromhex(owner + rest))
        self.engine.sync.transact(Transaction([], writes=[Put(record, {"size": size})]))


def swap_artifacts(found: Tampering) -> None:
    found.swap(found.parts["a"][0], found.parts["b"][0])


def swap_parts(found: Tampering) -> None:
    found.swap(found.parts["a"][0], found.parts["a"][1])


def cut_parts(found: Tampering) -> None:
    found.set_size("a", 128)


def cut_to_nothing(found: Tampering) -> None:
    found.set_size("a", 0)


def lengthen(found: Tampering) -> None:
    found.set_size("a", 264)
    found.write(found.parts["a"][3].removesuffix("3") + "4", found.read(found.parts["a"][3]))


@pytest.mark.parametrize("tamper", [swap_artifacts, swap_parts, cut_parts, cut_to_nothing, lengthen])
def test_objects_that_were_swapped_reordered_or_left_out_are_refused(tamper: Callable[..., None], tmp_path: Path) -> None:
    found = Tampering(tmp_path)
    tamper(found)
    with pytest.raises(SealedRowError, match="An object of an artifact is not the one that was written in its place") as refused:
        found.artifacts.load("a")
    assert not [word for word in (USER, ID, "a.", found.parts["a"][0]) if word in str(refused.value)]
    untouched = found.artifacts.load("whole")
    assert untouched is not None
    assert untouched.data == DATA[:192]


@pytest.mark.parametrize("tamper", [swap_artifacts, swap_parts, cut_parts])
def test_control_objects_that_are_bound_to_nothing_are_noticed(
    tamper: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_sealing, "_place_of", lambda *_, **_named: b"artifacts\0part\0")
    with pytest.raises(pytest.fail.Exception):
        test_objects_that_were_swapped_reordered_or_left_out_are_refused(tamper, tmp_path)


def test_control_a_last_part_that_does_not_know_it_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = artifact_sealing._place_of
    monkeypatch.setattr(artifact_sealing, "_place_of", lambda path, number, **_: right(path, number, is_last=True))
    test_objects_that_were_swapped_reordered_or_left_out_are_refused(swap_parts, tmp_path)
    with pytest.raises(pytest.fail.Exception):
        test_objects_that_were_swapped_reordered_or_left_out_are_refused(cut_parts, tmp_path)


def test_bytes_that_were_changed_cut_off_or_never_encrypted_are_refused(tmp_path: Path) -> None:
    found = Tampering(tmp_path)
    path = found.parts["a"][1]
    right = found.read(path)
    for wrong in (right[:-1], right[:60], right[:60] + b"?" + right[61:], right + b"?", DATA[64:128], b""):
        found.write(path, wrong)
        with pytest.raises(SealedRowError, match="An object of an artifact"):
            found.artifacts.load("a")
    found.write(path, right)
    loaded = found.artifacts.load("a")
    assert loaded is not None
    assert loaded.data == DATA


def test_an_artifact_of_which_somebody_says_that_it_is_empty_is_refused_without_its_objects_too(tmp_path: Path) -> None:
    found = Tampering(tmp_path)
    found.set_size("a", 0)
    obstore.delete(found.store._objects._store, found.parts["a"])
    with pytest.raises(EngineError, match="is not whole"):
        found.artifacts.load("a")


@pytest.mark.parametrize("column", LAYOUT.cells)
def test_rows_that_were_swapped_are_refused(column: str, tmp_path: Path) -> None:
    found = Tampering(tmp_path)
    rows = [(key, row) for key, row in found.engine.sync.scan(LAYOUT.sealed) if row["metadata"] is not None]
    (first, one), (second, other), *_ = rows
    writes = [Put(Record(LAYOUT.sealed, key), {column: row[column]}) for key, row in ((first, other), (second, one))]
    found.engine.sync.transact(Transaction([], writes=writes))
    with pytest.raises(SealedRowError, match="not the one that was written in its place"):
        found.artifacts.list()


# Keys that go.


def fill(artifacts: SyncArtifacts) -> None:
    for name, data in (("a", DATA), ("a", DATA[:64]), ("user:b", DATA[::-1]), ("empty", b"")):
        artifacts.save(name, data, metadata={"of": name})


OBJECTS = 4 + 1 + 4 + 1
"""How many objects these are, of 64 bytes each, with the one of what has no bytes."""


def read_all(artifacts: SyncArtifacts) -> None:
    found = [artifacts.load(*one) for one in (("a", 0), ("a", 1), ("user:b", 0), ("empty", 0))]
    assert [one and (one.data, one.metadata["of"]) for one in found] == [
        (DATA, "a"),
        (DATA[:64], "a"),
        (DATA[::-1], "user:b"),
        (b"", "empty"),
    ]


def list_kids(store: ArtifactStore) -> set[bytes]:
    """The keys under which objects are encrypted."""
    objects = (bytes(obstore.get(store._objects._store, path).bytes()) for path in list_objects(store))
    return {data[6 : 6 + data[5]] for data in objects}


@pytest.mark.parametrize("kind", ["memory", "folder", "s3"])
def test_after_the_command_the_old_key_can_go(kind: str, tmp_path: Path) -> None:
    engine, store = MemoryEngine(partitions=8), make_store(kind, tmp_path)
    fill(open_on(engine, store)[1])
    service, _ = open_on(engine, store, MEANWHILE)
    found = service.sync.reencrypt()
    assert (found.objects, found.refused) == (OBJECTS, 0)
    assert list_kids(store) == {b"new"}
    again = service.sync.reencrypt()
    assert again == (0, again.current, 0, 0)
    assert again.current > OBJECTS
    read_all(open_on(engine, store, AFTER)[1])


def test_control_objects_that_are_left_out_miss_the_old_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, store = MemoryEngine(), make_store("folder", tmp_path)
    fill(open_on(engine, store)[1])
    monkeypatch.setattr(artifact_rotation._Renewal, "renew", _renew_nothing)
    service, artifacts = open_on(engine, store, MEANWHILE)
    assert service.sync.reencrypt().objects == 0
    with pytest.raises(SealedRowError, match="An object of an artifact is encrypted under the key 'old'"):
        read_all(open_on(engine, store, AFTER)[1])
    read_all(artifacts)


def _renew_nothing(*_: Any) -> Any:
    yield Aside(lambda: None)
    return Reencrypted()


class Calling:
    """Objects that call something before and after a method of theirs.

    Args:
        store: Its objects are replaced by these.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._objects = store._objects
        self._before: dict[str, Callable[[int], None]] = {}
        self._after: dict[str, Callable[[int], None]] = {}
        self._count = 0
        store._objects = self

    def before(self, method: str, call: Callable[[int], None]) -> None:
        self._before[method] = call

    def after(self, method: str, call: Callable[[int], None]) -> None:
        self._after[method] = call

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            number = self._count
            if name in self._before:
                self._count += 1
                self._before[name](number)
            found = getattr(self._objects, name)(*arguments)
            if name in self._after:
                self._after[name](number)
            return found

        return getattr(self._objects, name) if name.startswith("_") else call


def test_a_reader_meanwhile_finds_the_old_object_or_the_new_one(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("folder", tmp_path)
    fill(open_on(engine, store)[1])
    service, artifacts = open_on(engine, store, MEANWHILE)
    seen: list[int] = []

    def read(number: int) -> None:
        read_all(artifacts)
        seen.append(number)

    calling = Calling(store)
    calling.before("put", read)
    calling.after("put", read)
    assert service.sync.reencrypt().objects == OBJECTS
    assert len(seen) == 2 * OBJECTS


@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_what_breaks_off_is_called_again_and_goes_on(at: int, tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("folder", tmp_path)
    fill(open_on(engine, store)[1])

    def fail(number: int) -> None:
        if number == at:
            raise EngineError("The store of the artifacts could not write: Broken.")

    Calling(store).before("put", fail)
    service, artifacts = open_on(engine, store, MEANWHILE)
    with pytest.raises(EngineError, match="Broken"):
        service.sync.reencrypt()
    read_all(artifacts)
    assert service.sync.reencrypt().objects == OBJECTS - at
    assert list_kids(store) == {b"new"}
    read_all(open_on(engine, store, AFTER)[1])


@pytest.mark.parametrize("at", range(4))
def test_what_is_deleted_meanwhile_does_not_come_back(at: int, tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("folder", tmp_path)
    service, artifacts = open_on(engine, store)
    artifacts.save("a", DATA)
    service, artifacts = open_on(engine, store, MEANWHILE)

    def delete(number: int) -> None:
        if number == at:
            artifacts.delete("a")

    Calling(store).before("put", delete)
    service.sync.reencrypt()
    assert list_objects(store) == []


def test_objects_that_cannot_be_opened_and_those_of_a_save_that_goes_on_count_as_refused(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("folder", tmp_path)
    _, old = open_on(engine, store, Keyring(OLD, NEW))
    service, _ = open_on(engine, store, MEANWHILE)
    told: list[Any] = []

    def pieces() -> Any:
        yield bytes(130)
        (tmp_path / store._objects._folder / f"{list_objects(store)[0]}#1").write_bytes(b"?")  # of a process that has died
        told.append(service.sync.reencrypt())
        yield bytes(130)

    old.save("a", pieces())
    assert (told[0].refused, told[0].objects) == (2, 0)
    found = service.sync.reencrypt()
    assert (found.refused, found.objects) == (0, 5)
    path = list_objects(store)[0]
    obstore.put(store._objects._store, path, b"?" * 100)
    assert service.sync.reencrypt().refused == 1


def test_without_its_store_nothing_is_encrypted_anew(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("folder", tmp_path)
    open_on(engine, None)[0].sync.reencrypt()  # there are no artifacts yet
    service, artifacts = open_on(engine, store)
    artifacts.save("a", DATA)
    before = engine.sync.scan(LAYOUT.sealed)
    with pytest.raises(ConfigurationError, match=r"There are artifacts.*--artifacts URL\. Nothing was encrypted anew"):
        open_on(engine, None, MEANWHILE)[0].sync.reencrypt()
    assert engine.sync.scan(LAYOUT.sealed) == before
    assert service is not None


# Lists and purges.


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_names_are_listed_in_their_order_page_by_page(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_finding, "AT_ONCE", 2)
    _, artifacts = open_on(MemoryEngine(), make_store("memory", tmp_path))
    own, shared = [f"n{at}" for at in range(7)] + ["x" * 250], [f"user:{at}" for at in range(4)]
    for name in (*reversed(own), *shared):
        artifacts.save(name, b"")
    names: list[str] = []
    cursor = None
    for _ in range(40):
        page = artifacts.list(limit=limit, cursor=cursor)
        names += [found.name for found in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(names) == sorted([*own, *shared])
    assert names[:7] == own[:7] or names[1:8] == own[:7]  # a long name stands in the order by its digest
    assert names[8:] == shared


@pytest.mark.parametrize("at_once", [1, 3, 200])
def test_a_purge_walks_through_the_rows_of_other_applications(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_remains, "AT_ONCE", at_once)
    engine, store = MemoryEngine(partitions=2), make_store("folder", tmp_path)
    others = Keyring(Key.generate("others"))
    services = [open_on(engine, store, ring, app) for ring, app in ((BEFORE, "clinic"), (others, "ward"))]
    for number in range(3):
        for _, artifacts in services:
            artifacts.save(f"user:{number}", DATA)
            artifacts.save(f"{number}", DATA)
    objects = list_objects(store)
    for key, row in list(_scan(engine)):  # what a save has left whose process died, of each application
        if row["size"] is not None and row["metadata"] is not None:
            engine.sync.transact(Transaction([], writes=[Put(_record(engine, key), {"size": None, "part_bytes": -1})]))
    services[0][0].sync.purge()
    left = list_objects(store)
    assert len(left) == len(objects) // 2
    assert {path.split("/")[0] for path in left} < {path.split("/")[0] for path in objects}
    services[1][0].sync.purge()
    assert list_objects(store) == []


def _scan(engine: MemoryEngine) -> Any:
    return engine.sync.scan(LAYOUT.sealed, limit=1000)


def _record(engine: MemoryEngine, key: bytes) -> Record:
    for partition in range(engine.partitions):
        record = Record(LAYOUT.sealed, key, partition)
        if engine.sync.transact(Transaction([record])).rows[0] is not None:
            return record
    raise AssertionError("There is no such row.")
