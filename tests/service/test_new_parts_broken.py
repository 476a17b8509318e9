"""What a hostile reading of artifacts, documents, search, resume and lists has broken, each as a test of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dcaf.core.errors import ConfigurationError, EngineError, SessionValueError, UnknownArtifactError
from dcaf.engines import MemoryEngine
from dcaf.service import ArtifactStore, SessionService, artifact_remains
from tests.service.artifact_places import list_objects, make_store
from tests.service.test_artifact_faults import Clock, count_rows, open_on

DAY = timedelta(days=1, minutes=5).total_seconds()


class Hooked:
    """The objects of a store, before each call of which something happens once."""

    def __init__(self, store: ArtifactStore) -> None:
        self._objects = store._objects
        self.hooks: dict[str, Callable[[str], object]] = {}
        store._objects = self

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._objects, name)

        def call(*arguments: Any) -> Any:
            if (hook := self.hooks.pop(name, None)) is not None:
                hook(arguments[0])
            return found(*arguments)

        return call if callable(found) else found


def test_a_part_that_is_still_written_when_its_task_is_cancelled_does_not_come_into_another_version(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service, artifacts = open_on(MemoryEngine(), store)
    artifacts.save("a", b"0")
    hooked, started, goes_on = Hooked(store), threading.Event(), threading.Event()

    def wait(_: str) -> None:
        started.set()
        goes_on.wait(1)

    async def main() -> None:
        hooked.hooks["put"] = wait  # the second part
        task = asyncio.create_task(service.artifacts(user="p", id="v").save("a", b"x" * 200))
        await asyncio.to_thread(started.wait, 5)
        task.cancel()
        await asyncio.sleep(0.05)
        saved = await service.artifacts(user="p", id="v").save("a", b"y" * 200)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        found = await service.artifacts(user="p", id="v").load("a", saved)
        assert found is not None
        assert found.data == b"y" * 200

    asyncio.run(main())
    assert len(list_objects(store)) == 5


def test_what_is_saved_while_a_user_is_erased_is_whole_or_gone(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service, _ = open_on(MemoryEngine(), store)
    shared = service.sync.artifacts(user="p")
    shared.save("user:a", b"1")
    hooked = Hooked(store)
    again = lambda _: shared.save("user:b", bytes(200))  # noqa: E731
    hooked.hooks["list_paths"] = again
    service.sync.erase(user="p")
    found = shared.load("user:b")
    assert found is None or found.data == bytes(200)


@pytest.mark.parametrize("deleted", [1, None])
def test_a_fork_of_an_artifact_of_which_the_newest_is_deleted_meanwhile_can_be_read(deleted: int | None, tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service, artifacts = open_on(MemoryEngine(), store)
    artifacts.save("a", b"0")
    artifacts.save("a", b"1")
    service.sync.append(user="p", id="v", messages=[{"role": "user", "content": "x"}])
    done: list[int] = []
    read_heads = artifact_remains._read_heads

    def read_then_delete(scope: Any) -> Any:
        heads = yield from read_heads(scope)
        if heads and not done:
            done.append(artifacts.delete("a", deleted))
        return heads

    artifact_remains._read_heads = read_then_delete
    try:
        service.sync.fork(user="p", id="v", new_id="w")
    finally:
        artifact_remains._read_heads = read_heads
    assert done == [1 if deleted else 2]
    other = service.sync.artifacts(user="p", id="w")
    worker = threading.Thread(target=lambda: done.append(0 if (one := other.load("a")) is None else len(one.data)), daemon=True)
    worker.start()
    worker.join(2)
    assert done[1:] == [1 if deleted else 0]
    assert [one.version for one in other.list().items] == ([0] if deleted else [])


def test_a_purge_leaves_the_copies_of_a_fork_that_is_being_made(tmp_path: Path) -> None:
    store, clock = make_store("memory", tmp_path), Clock()
    service, artifacts = open_on(MemoryEngine(clock=clock), store)
    artifacts.save("a", bytes(200))
    clock.now += DAY
    hooked = Hooked(store)

    def purge_in_between(path: str) -> None:
        hooked.hooks["settle"] = lambda _: service.sync.purge()

    hooked.hooks["get"] = purge_in_between
    service.sync.fork(user="p", id="v", new_id="w")
    found = service.sync.artifacts(user="p", id="w").load("a")
    assert found is not None
    assert found.data == bytes(200)


def test_a_purge_of_a_session_that_never_was_goes_on_after_its_store_has_failed(tmp_path: Path) -> None:
    store, clock = make_store("memory", tmp_path), Clock()
    service = SessionService(MemoryEngine(clock=clock), app="clinic", artifacts=store)
    with pytest.raises(KeyError), service.sync.open(user="p") as session:
        for number in range(205):
            session.artifacts.sync.save(f"a{number}", b"1")
        raise KeyError
    clock.now += DAY
    hooked, left = Hooked(store), 200

    def fail_late(_: object) -> None:
        nonlocal left
        left -= 1
        hooked.hooks["delete"] = fail_late
        if left < 0:
            raise EngineError("It failed.")

    hooked.hooks["delete"] = fail_late
    with pytest.raises(EngineError):
        service.sync.purge()
    hooked.hooks.clear()
    clock.now += DAY
    service.sync.purge()
    assert list_objects(store) == []
    assert count_rows(service.engine) == 0


def test_a_service_without_artifacts_that_refuses_to_delete_a_session_leaves_it(tmp_path: Path) -> None:
    store, engine = make_store("memory", tmp_path), MemoryEngine()
    service, artifacts = open_on(engine, store)
    artifacts.save("a", b"1")
    other = SessionService(engine, app="clinic")
    service.sync.memory(user="p").set("allergies", "pollen")
    soon = datetime.now(UTC) + timedelta(hours=1)
    for refused in (
        lambda: other.sync.delete(user="p", id="v"),
        lambda: other.sync.erase(user="p"),
        lambda: other.sync.purge(before=soon),
        lambda: other.sync.purge(user="p", before=soon),
    ):
        with pytest.raises(ConfigurationError, match="artifacts="):
            refused()
        assert service.sync.get(user="p", id="v") is not None
        assert artifacts.load("a") is not None
        assert service.sync.memory(user="p").get("allergies") == "pollen"


def test_what_a_killed_process_was_writing_into_a_folder_is_erased_with_its_user(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/files", part_bytes=64)
    service, artifacts = open_on(MemoryEngine(), store)
    artifacts.save("a", b"1")
    (saved,) = (path for path in (tmp_path / "files").rglob("*") if path.is_file())
    half = saved.with_name("00000001#1")  # what obstore writes before it gives a file its name
    half.write_bytes(b"canary")
    service.sync.erase(user="p")
    assert not half.exists()


@pytest.mark.parametrize("data", [memoryview(b""), memoryview(b"abcd")[::2], bytearray(b""), [memoryview(b"")]])
def test_any_view_of_bytes_is_saved(data: Any, tmp_path: Path) -> None:
    _, artifacts = open_on(MemoryEngine(), make_store("memory", tmp_path))
    artifacts.save("a", data)
    found = artifacts.load("a")
    assert found is not None
    assert found.data == (b"".join(data) if isinstance(data, list) else bytes(data))


def test_a_text_that_is_none_is_refused_without_being_quoted(tmp_path: Path) -> None:
    _, artifacts = open_on(MemoryEngine(), make_store("memory", tmp_path))
    with pytest.raises(SessionValueError) as caught:
        artifacts.save("a", "canary\ud800")
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_what_ends_as_a_packed_file_is_not_said_to_be_what_is_in_it(tmp_path: Path) -> None:
    _, artifacts = open_on(MemoryEngine(), make_store("memory", tmp_path))
    artifacts.save("notes.tgz", b"\x1f\x8b")
    assert artifacts.versions("notes.tgz")[0].mime != "application/x-tar"


def test_a_version_that_was_deleted_is_told_while_it_is_saved(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    _, artifacts = open_on(MemoryEngine(), store)
    hooked = Hooked(store)
    hooked.hooks["settle"] = lambda _: artifacts.delete("a")
    with pytest.raises(UnknownArtifactError):
        artifacts.save("a", bytes(200))
    assert list_objects(store) == []


def test_a_session_that_never_was_leaves_no_row_of_artifacts(tmp_path: Path) -> None:
    store, clock = make_store("memory", tmp_path), Clock()
    engine = MemoryEngine(clock=clock)
    service = SessionService(engine, app="clinic", artifacts=store)
    with pytest.raises(KeyError), service.sync.open(user="p") as session:
        session.artifacts.sync.save("a", b"1")
        session.artifacts.sync.delete("a")
        raise KeyError
    clock.now += DAY
    service.sync.purge()
    assert count_rows(engine) == 0


@pytest.mark.parametrize("number", [1, 2**63 - 1, 2**64, 2**200])
def test_a_number_that_no_version_has_is_none_to_delete_and_none_to_load(number: int, tmp_path: Path) -> None:
    _, artifacts = open_on(MemoryEngine(), make_store("memory", tmp_path))
    artifacts.save("a", b"1")
    assert (artifacts.delete("a", number), artifacts.load("a", number)) == (0, None)
    assert artifacts.load("a") is not None
