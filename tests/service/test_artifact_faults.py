"""Artifacts of two writers, of programs that die, of stores that fail, and of sessions that go."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import obstore
import pytest

from dcaf.core.errors import CommitUnknownError, ConfigurationError, EngineError, SessionExistsError, UnknownArtifactError
from dcaf.engines import MemoryEngine, Outcome, SqliteEngine, Transaction
from dcaf.service import Artifacts, ArtifactStore, SessionService, SyncArtifacts, artifact_contents, artifact_saving
from dcaf.service.tables import ARTIFACTS
from tests.service import artifact_processes
from tests.service.artifact_places import (
    ENCRYPTED,
    STORES,
    find_s3,
    list_objects,
    make_bucket,
    make_store,
    open_bucket,
    read_objects,
)
from tests.service.encrypted_places import BEFORE
from tests.service.kept_places import Watched

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
VERSIONS = max(40, round(1_000 * SCALE))
LARGE_MIB = max(96, round(1024 * SCALE))
MOST_MIB = 32
DAY = timedelta(days=1, minutes=5)


class Clock:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def open_on(engine: Any, store: ArtifactStore, app: str = "clinic") -> tuple[SessionService, SyncArtifacts]:
    """A service with a session."""
    service = SessionService(engine, app=app, artifacts=store)
    service.sync.get_or_create(user="p", id="v")
    return service, service.sync.artifacts(user="p", id="v")


def count_rows(engine: Any) -> int:
    """How many rows of artifacts there are, but for the root of the paths."""
    return sum(1 for key, _ in engine.sync.scan(ARTIFACTS, limit=100_000) if not key.endswith(artifact_contents.ROOT))


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that other processes reach."""
    return f"file://{tmp_path}/files" if request.param == "folder" else f"s3 {find_s3()} {make_bucket()}"


def save_from_two(program: Callable[..., None], database: Path, shared: str) -> tuple[list[int], SyncArtifacts]:
    artifacts = artifact_processes.open_artifacts(str(database), shared)
    artifacts._artifacts._engine.sync.transact(Transaction([]))
    SessionService(artifacts._artifacts._engine, app="clinic").sync.create(user="p", id="v")
    writers = [artifact_processes.start(program, database, shared, who, VERSIONS // 2) for who in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    said = [int(line) for writer in writers for line in writer.communicate(timeout=300)[0].split()]
    return said, artifacts


def test_of_two_writers_no_version_is_given_twice_and_none_is_lost(shared: str, tmp_path: Path) -> None:
    said, artifacts = save_from_two(artifact_processes.save_many, tmp_path / "dcaf.db", shared)
    assert sorted(said) == list(range(VERSIONS))
    versions = artifacts.versions("log")
    assert [found.version for found in versions] == list(range(VERSIONS))
    loaded = [artifacts.load("log", number) for number in range(VERSIONS)]
    texts = [found.text for found in loaded if found is not None]
    assert sorted(texts) == sorted(f"{who} {at}" for who in "ab" for at in range(VERSIONS // 2))
    for who in "ab":  # each writer's come in its order
        own = [text for text in texts if text.startswith(who)]
        assert own == sorted(own, key=lambda text: int(text[2:]))


def save_between(tmp_path: Path) -> list[int]:
    """Save a version, and another one by somebody else while the first one takes its number; returns both numbers."""
    engine = MemoryEngine()
    _, others = open_on(engine, make_store("memory", tmp_path))
    others.save("b", b"")
    watched = Watched(engine)
    artifacts = SyncArtifacts(Artifacts(watched, others._artifacts._files, others._artifacts._find_whose()))
    numbers: list[int] = []
    watched.before(2, lambda: numbers.append(others.save("a", b"1")))
    with suppress(UnknownArtifactError):
        numbers.append(artifacts.save("a", b"2"))
    return numbers


def test_who_comes_in_between_has_a_number_of_its_own(tmp_path: Path) -> None:
    assert save_between(tmp_path) == [0, 1]


def test_control_a_writer_that_does_not_look_who_came_first_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_saving, "is_same", lambda *_: [])
    assert save_between(tmp_path) != [0, 1]


def test_a_save_whose_process_was_killed_is_never_seen_and_dropped_by_a_purge(shared: str, tmp_path: Path) -> None:
    clock = Clock()
    engine = SqliteEngine(str(tmp_path / "dcaf.db"), clock=clock)
    kind, *rest = shared.split()
    store = ArtifactStore(open_bucket(rest[1], int(rest[0])) if kind == "s3" else shared)
    service, artifacts = open_on(engine, store)
    artifacts.save("whole", b"1")
    writer = artifact_processes.start(artifact_processes.save_until_killed, tmp_path / "dcaf.db", shared)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.kill()
    writer.wait()
    writer.communicate()
    assert artifacts.load("half") is None
    assert [found.name for found in artifacts.list().items] == ["whole"]
    service.sync.purge()
    assert len(list_objects(store)) == 3  # somebody might still be saving it
    clock.now += DAY.total_seconds()
    service.sync.purge()
    assert len(list_objects(store)) == 1
    assert artifacts.save("half", b"1") == 0
    service.sync.erase(user="p")
    assert count_rows(engine) == len(list_objects(store)) == 0
    engine.sync.close()


@pytest.mark.parametrize(("before", "says"), [("no", "True"), ("yes", "Save and load nothing before the fork.")])
def test_a_process_that_is_forked_saves_or_is_told_and_never_waits(before: str, says: str, shared: str, tmp_path: Path) -> None:
    engine = SqliteEngine(str(tmp_path / "dcaf.db"))
    SessionService(engine, app="clinic").sync.create(user="p", id="v")
    engine.sync.close()
    program = artifact_processes.start(artifact_processes.save_in_a_fork, tmp_path / "dcaf.db", shared, before)
    assert program.communicate(timeout=100)[0].strip().endswith(says)


@pytest.mark.parametrize("kind", ["folder", "s3", ENCRYPTED])
def test_a_large_artifact_is_never_whole_in_memory(kind: str, tmp_path: Path) -> None:
    folder = f"file://{tmp_path}/files"
    shared = {"folder": folder, ENCRYPTED: f"encrypted {folder}"}.get(kind) or f"s3 {find_s3()} {make_bucket()}"
    assert stream_mib(artifact_processes.stream, tmp_path, shared) < MOST_MIB


def test_control_a_large_artifact_that_is_whole_in_memory_is_noticed(tmp_path: Path) -> None:
    assert stream_mib(artifact_processes.load_whole, tmp_path, f"file://{tmp_path}/files") > MOST_MIB


def stream_mib(program: Callable[..., None], folder: Path, shared: str) -> float:
    engine = SqliteEngine(str(folder / "dcaf.db"))
    ring = BEFORE if shared.startswith("encrypted") else None
    SessionService(engine, app="clinic", encrypt=ring).sync.create(user="p", id="v")
    engine.sync.close()
    said, _ = artifact_processes.start(program, folder / "dcaf.db", shared, LARGE_MIB).communicate(timeout=600)
    print(f"{program.__name__}: {LARGE_MIB:,} MiB, grown by {float(said):.0f} MiB")
    return float(said)


class Failing:
    """Objects that fail at a call of a number."""

    def __init__(self, objects: Any, at: int) -> None:
        self._objects, self._left = objects, at

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise EngineError("The store of the artifacts could not do this: Broken.")
            return getattr(self._objects, name)(*arguments)

        return call


@pytest.mark.parametrize("end", ["delete", "erase", "purge"])
@pytest.mark.parametrize("kind", STORES)
def test_what_breaks_off_is_called_again_until_nothing_is_left(kind: str, end: str, tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store(kind, tmp_path)
    service, artifacts = open_on(engine, store)
    for name in ("a", "a", "b", "user:c"):
        artifacts.save(name, bytes(200))
    working = store._objects
    calls: dict[str, Callable[[], Any]] = {
        "delete": lambda: (service.sync.delete(user="p", id="v"), service.sync.purge()),
        "erase": lambda: service.sync.erase(user="p"),
        "purge": lambda: service.sync.purge(before=datetime.now(UTC) + timedelta(hours=1)),
    }
    for at in range(100):
        store._objects = Failing(working, at)
        try:
            calls[end]()
        except EngineError:
            continue
        break
    else:
        raise AssertionError("It never came to its end.")
    assert at > 1
    store._objects = working
    assert len(list_objects(store)) == (0 if end == "erase" else 4)
    assert count_rows(engine) == (0 if end == "erase" else 3)


@pytest.mark.parametrize("at", range(7))
def test_a_deletion_that_breaks_off_is_gone_on_with(at: int, tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("memory", tmp_path)
    service, artifacts = open_on(engine, store)
    for _ in range(2):
        artifacts.save("a", bytes(200))
    watched = Watched(engine)
    artifacts._artifacts._engine = watched
    watched.before(at, lambda: _raise(EngineError("Stopped.")))
    with pytest.raises(EngineError):
        artifacts.delete("a")
    gone = artifacts.load("a") is None
    assert gone == (at > 3)
    artifacts.delete("b")
    assert (len(list_objects(store)) == 0) == gone
    artifacts.delete("a")
    service.sync.purge()
    assert len(list_objects(store)) == count_rows(engine) == 0
    assert artifacts.save("a", b"") == 0


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("at", range(4))
def test_a_save_whose_engine_fails_leaves_nothing(at: int, tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("memory", tmp_path)
    _, artifacts = open_on(engine, store)
    artifacts.save("a", b"1")
    watched = Watched(engine)
    artifacts._artifacts._engine = watched
    watched.before(at, lambda: _raise(EngineError("Stopped.")))
    with pytest.raises(EngineError, match="Stopped"):
        artifacts.save("a", bytes(200))
    assert len(list_objects(store)) == 1
    assert artifacts.save("a", bytes(200)) == (2 if at == 3 else 1)  # the store might write late what it was given for 1


class Lost:
    """An engine one of whose answers is lost after the write was done."""

    def __init__(self, engine: Any, at: int) -> None:
        self._engine, self._left = engine, at
        self.partitions, self.url, self.sync = engine.partitions, engine.url, self

    def transact(self, transaction: Transaction) -> Outcome:
        self._left -= 1
        outcome: Outcome = self._engine.sync.transact(transaction)
        if self._left == -1:
            raise CommitUnknownError("Nobody can tell.")
        return outcome


@pytest.mark.parametrize("at", range(4))
def test_a_save_of_which_nobody_can_tell_is_whole_or_not_there(at: int, tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    engine = MemoryEngine()
    _, artifacts = open_on(engine, store)
    artifacts.save("b", b"")
    artifacts._artifacts._engine = Lost(engine, at)  # type: ignore[assignment]
    with pytest.raises(CommitUnknownError):
        artifacts.save("a", bytes(200))
    artifacts._artifacts._engine = engine
    found = artifacts.load("a")
    assert (found is not None) == (at == 3)
    assert len(list_objects(store)) == (4 if found else 0)
    if found is not None:
        assert found.data == bytes(200)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_save_that_is_cancelled_leaves_nothing(backend: str, tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service, artifacts = open_on(MemoryEngine(), store)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(200)
        await anyio.sleep_forever()

    async def main() -> None:
        with anyio.move_on_after(0.05):
            await service.artifacts(user="p", id="v").save("a", pieces())

    anyio.run(main, backend=backend)
    assert list_objects(store) == []
    assert artifacts.list().items == []
    assert artifacts.save("a", b"1") == 0


def test_a_task_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service, artifacts = open_on(MemoryEngine(), store)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(200)
        await asyncio.sleep(600)

    async def main() -> None:
        task = asyncio.create_task(service.artifacts(user="p", id="v").save("a", pieces()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert list_objects(store) == []
    assert artifacts.list().items == []


@pytest.mark.parametrize("kind", STORES)
def test_bytes_that_are_missing_or_cut_off_are_noticed(kind: str, tmp_path: Path) -> None:
    store = make_store(kind, tmp_path)
    _, artifacts = open_on(MemoryEngine(), store)
    artifacts.save("a", bytes(200))
    path = list_objects(store)[1]
    obstore.put(store._objects._store, path, bytes(63))
    with pytest.raises(EngineError, match="is not whole"):
        artifacts.load("a")
    obstore.delete(store._objects._store, path)
    with pytest.raises(EngineError, match="is not whole"):
        artifacts.load("a")


def test_a_store_that_fails_says_so_without_its_own_words(tmp_path: Path) -> None:
    store = ArtifactStore(open_bucket("no-such-bucket-canary", find_s3()))
    _, artifacts = open_on(MemoryEngine(), store)
    with pytest.raises(EngineError, match="could not write") as caught:
        artifacts.save("a", b"1")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bucket_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    from obstore.store import S3Store

    closed: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
    options: Any = {"allow_http": True}
    store = S3Store("b", endpoint="http://127.0.0.1:9", region="x", access_key_id="a", secret_access_key="s3cret",
                    client_options=options, retry_config=closed)  # fmt: skip
    service, artifacts = open_on(MemoryEngine(), ArtifactStore(store))
    with pytest.raises(EngineError, match="could not write") as caught:
        artifacts.save("a", b"1")
    assert "s3cret" not in repr([caught.value, store, artifacts, service])


def test_an_engine_that_was_restored_never_has_a_number_mean_other_bytes(tmp_path: Path) -> None:
    """The numbers that were given out after the copy was made are found taken."""
    store = make_store("folder", tmp_path)
    database, copy = tmp_path / "dcaf.db", tmp_path / "copy.db"
    engine = SqliteEngine(str(database))
    _, artifacts = open_on(engine, store)
    artifacts.save("a", b"0")
    engine.sync.close()
    shutil.copy(database, copy)
    engine = SqliteEngine(str(database))
    _, artifacts = open_on(engine, store)
    assert [artifacts.save("a", f"lost {at}") for at in range(2)] == [1, 2]
    engine.sync.close()
    engine = SqliteEngine(str(copy))
    service, artifacts = open_on(engine, store)
    before = read_objects(store)
    assert artifacts.save("a", b"new" * 50) == 3
    found = artifacts.load("a")
    assert found is not None
    assert found.data == b"new" * 50
    assert [version.version for version in artifacts.versions("a")] == [0, 3]
    assert b"lost 0" in before
    assert b"lost 0" in read_objects(store)
    service.sync.purge()
    assert b"lost" not in read_objects(store)
    assert artifacts.load("a") is not None
    engine.sync.close()


def test_two_databases_with_one_folder_never_touch_each_others(tmp_path: Path) -> None:
    store = make_store("folder", tmp_path)
    first, second = open_on(MemoryEngine(), store), open_on(MemoryEngine(), store)
    engine = MemoryEngine()
    apps = [open_on(engine, store, app) for app in ("clinic", "bank")]
    for service, artifacts in (first, second, *apps):
        artifacts.save("a", b"1")
        service.sync.purge()
    (tmp_path / "files").mkdir(exist_ok=True)
    assert len(list_objects(store)) == 4
    first[0].sync.erase(user="p")
    apps[0][0].sync.erase(user="p")
    apps[0][0].sync.purge()
    assert len(list_objects(store)) == 2
    assert all(artifacts.load("a") is not None for _, artifacts in (second, apps[1]))


def test_what_a_turn_saved_that_never_was_committed_is_dropped_by_a_purge(tmp_path: Path) -> None:
    clock = Clock()
    engine, store = MemoryEngine(clock=clock, partitions=8), make_store("memory", tmp_path)
    service = SessionService(engine, app="clinic", artifacts=store)
    for user in ("p", None):
        with pytest.raises(RuntimeError), service.sync.open(user=user) as session:
            session.artifacts.sync.save("a", b"1")
            session.artifacts.sync.save("user:b", b"1")
            raise RuntimeError
    with service.sync.open(user="p") as session:
        session.artifacts.sync.save("a", b"1")
    clock.now += 3600
    service.sync.purge()
    assert len(list_objects(store)) == 5
    clock.now += DAY.total_seconds()
    service.sync.purge()
    assert len(list_objects(store)) == 2
    assert service.sync.artifacts(user="p", id=session.id).load("a") is not None
    assert service.sync.artifacts(user="p").load("user:b") is not None
    service.sync.purge(user="p")
    assert len(list_objects(store)) == 2


def test_objects_without_a_row_are_dropped_and_strange_ones_stay(tmp_path: Path) -> None:
    engine, store = MemoryEngine(partitions=8), make_store("folder", tmp_path)
    service, artifacts = open_on(engine, store)
    artifacts.save("a", bytes(200))
    root, owner, _, _ = list_objects(store)[0].split("/")
    for path in (f"{root}/{owner}/{'ab' * 43}/00000000", "other/file", f"{root}/readme"):
        obstore.put(store._objects._store, path, b"x")
    service.sync.purge()
    assert len(list_objects(store)) == 6
    assert not any("ab" * 43 in path for path in list_objects(store))
    assert artifacts.load("a") is not None


def test_a_service_that_does_not_know_the_store_drops_nothing_of_it(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("memory", tmp_path)
    service, artifacts = open_on(engine, store)
    artifacts.save("a", b"1")
    artifacts.save("user:a", b"1")
    other = SessionService(engine, app="clinic")
    for call in (lambda: other.sync.delete(user="p", id="v"), lambda: other.sync.erase(user="p")):
        with pytest.raises(ConfigurationError, match="artifacts="):
            call()
    assert len(list_objects(store)) == 2
    assert service.sync.erase(user="p").artifacts == 2
    assert count_rows(engine) == len(list_objects(store)) == 0


def test_a_fork_has_copies_of_its_own(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("memory", tmp_path)
    service, artifacts = open_on(engine, store)
    for name in ("a", "a", "b", "user:c"):
        artifacts.save(name, name * 50, metadata={"n": name})
    artifacts.delete("a", 0)
    service.sync.fork(user="p", id="v", new_id="w")
    forked = service.sync.artifacts(user="p", id="w")
    assert [(found.name, found.version, found.metadata) for found in forked.list().items] == [
        ("a", 1, {"n": "a"}),
        ("b", 0, {"n": "b"}),
        ("user:c", 0, {"n": "user:c"}),
    ]
    assert forked.save("a", b"2") == 2
    service.sync.delete(user="p", id="v")
    found = forked.load("a", 1)
    assert found is not None
    assert found.text == "a" * 50
    with pytest.raises(SessionExistsError):
        service.sync.fork(user="p", id="w", new_id="w")
    service.sync.erase(user="p")
    assert list_objects(store) == []


def test_a_rewind_and_an_archive_leave_them_and_a_replacing_import_drops_them(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("memory", tmp_path)
    service, artifacts = open_on(engine, store)
    service.sync.append(user="p", id="v", messages=[("user", "?")])
    artifacts.save("a", b"1")
    service.sync.rewind(user="p", id="v", to=0)
    service.sync.archive(user="p", id="v")
    service.sync.restore(user="p", id="v")
    assert artifacts.load("a") is not None
    lines = list(service.sync.export(user="p"))
    assert b'"a"' not in b"".join(lines)
    service.sync.import_lines(lines, replace=True)
    assert artifacts.load("a") is None
    assert list_objects(store) == []


def test_a_session_under_an_old_id_has_nothing_of_the_old_one(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), make_store("memory", tmp_path)
    service, artifacts = open_on(engine, store)
    artifacts.save("a", b"1")
    working, store._objects = store._objects, Failing(store._objects, 0)
    with pytest.raises(EngineError):
        service.sync.delete(user="p", id="v")
    store._objects = working
    assert len(list_objects(store)) == 1
    service.sync.create(user="p", id="v")
    assert artifacts.load("a") is None
    assert list_objects(store) == []


def test_a_folder_keeps_what_was_saved_through_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store("folder", tmp_path)
    _, artifacts = open_on(MemoryEngine(), store)
    synced: Counter[str] = Counter()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced[Path(f"/proc/self/fd/{descriptor}").readlink().name] += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    artifacts.save("a", bytes(200))
    root, owner, version, _ = list_objects(store)[0].split("/")
    folder = store._objects._folder
    assert folder is not None
    assert dict(synced) == dict.fromkeys(["00000000", "00000001", "00000002", "00000003", version, owner, root, folder.name], 1)


def test_saves_at_once_in_one_loop(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service, artifacts = open_on(MemoryEngine(), store)
    numbers: list[int] = []

    async def save(at: int) -> None:
        def pieces() -> Iterator[bytes]:
            yield bytes(at)

        numbers.append(await service.artifacts(user="p", id="v").save("a", pieces()))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for at in range(20):
                tasks.start_soon(save, at)

    anyio.run(main)
    assert sorted(numbers) == list(range(20))
    assert sorted(found.size for found in artifacts.versions("a")) == list(range(20))
