"""The contract of artifacts, on memory, a folder and S3; called on asyncio, on trio, and without an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core.errors import (
    ConfigurationError,
    SessionArchivedError,
    SessionClosedError,
    SessionValueError,
    UnknownArtifactError,
    UnknownSessionError,
)
from dcaf.service import Artifact, Artifacts, ArtifactStore, ArtifactVersion, SessionService
from tests.service.artifact_places import list_objects, make_store
from tests.service.kept_places import KeptPlace

NAME = "scan.png"


class Ways:
    """The artifacts of a session, called in one way."""

    def __init__(self, way: str, artifacts: Artifacts) -> None:
        self.way = way
        self.artifacts = artifacts

    async def ask(self, method: str, *given: Any, **named: Any) -> Any:
        if self.way == "sync":
            return getattr(self.artifacts.sync, method)(*given, **named)
        return await getattr(self.artifacts, method)(*given, **named)

    async def read(self, stream: Any) -> list[bytes]:
        return list(stream) if self.way == "sync" else [part async for part in stream]


def run_way(way: str, test: Callable[[], Awaitable[None]]) -> None:
    anyio.run(test, backend="trio" if way == "trio" else "asyncio")


@pytest.fixture
def service(files: SessionService) -> SessionService:
    files.sync.create(user="p", id="v")
    files.sync.create(user="p", id="w")
    return files


@pytest.mark.parametrize("way", ["asyncio", "trio", "sync"])
class TestContract:
    """What is promised of artifacts, wherever their bytes are."""

    def test_a_version_comes_back_with_all_that_is_known_of_it(self, way: str, service: SessionService) -> None:
        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            before = datetime.now(UTC) - timedelta(seconds=1)
            assert await ways.ask("save", NAME, b"\0" * 200, metadata={"pages": 2}) == 0
            found = await ways.ask("load", NAME)
            assert (found.name, found.version, found.mime, found.size) == (NAME, 0, "image/png", 200)
            assert found.data == b"\0" * 200
            assert found.metadata == {"pages": 2}
            assert before < found.created_at < datetime.now(UTC) + timedelta(seconds=1)
            assert isinstance(found, Artifact)

        run_way(way, test)

    def test_each_save_is_the_next_version(self, way: str, service: SessionService) -> None:
        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            assert [await ways.ask("save", NAME, f"text {at}", mime="text/plain") for at in range(3)] == [0, 1, 2]
            assert (await ways.ask("load", NAME)).text == "text 2"
            assert [(await ways.ask("load", NAME, at)).text for at in range(3)] == ["text 0", "text 1", "text 2"]
            assert await ways.ask("load", NAME, 3) is None
            versions = await ways.ask("versions", NAME)
            assert [(found.version, found.size, found.mime) for found in versions] == [(at, 6, "text/plain") for at in range(3)]

        run_way(way, test)

    def test_names_are_listed_with_their_newest_version(self, way: str, service: SessionService) -> None:
        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            for name in ("b", "user:z", "a", "b", "user:c"):
                await ways.ask("save", name, name * 2)
            page = await ways.ask("list")
            assert [(found.name, found.version) for found in page.items] == [("a", 0), ("b", 1), ("user:c", 0), ("user:z", 0)]
            assert page.cursor is None
            names: list[str] = []
            cursor = None
            for _ in range(9):
                page = await ways.ask("list", limit=1, cursor=cursor)
                names += [found.name for found in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert names == ["a", "b", "user:c", "user:z"]

        run_way(way, test)

    def test_user_names_are_shared_by_the_sessions_of_the_user_alone(self, way: str, service: SessionService) -> None:
        async def test() -> None:
            service.sync.create(user="q", id="v")
            here, there, other, user = (
                Ways(way, service.artifacts(user=name, id=found))
                for name, found in [("p", "v"), ("p", "w"), ("q", "v"), ("p", None)]
            )
            await here.ask("save", "user:card", b"1")
            await here.ask("save", "own", b"2")
            assert (await there.ask("load", "user:card")).data == (await user.ask("load", "user:card")).data == b"1"
            assert await other.ask("load", "user:card") is None
            assert await there.ask("load", "own") is None
            assert await other.ask("load", "own") is None
            assert await there.ask("save", "user:card", b"3") == 1
            assert [found.name for found in (await user.ask("list")).items] == ["user:card"]
            with pytest.raises(ConfigurationError, match="name the session"):
                await user.ask("load", "own")

        run_way(way, test)

    def test_what_is_deleted_is_gone_with_its_bytes(self, way: str, service: SessionService, store: ArtifactStore) -> None:
        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            for at in range(3):
                await ways.ask("save", NAME, bytes(100 + at))
            assert await ways.ask("delete", NAME, 1) == 1
            assert await ways.ask("delete", NAME, 1) == 0
            assert [found.version for found in await ways.ask("versions", NAME)] == [0, 2]
            assert await ways.ask("load", NAME, 1) is None
            assert await ways.ask("delete", NAME, 2) == 1
            assert (await ways.ask("load", NAME)).version == 0
            assert await ways.ask("save", NAME, b"") == 3  # a number is not given twice
            assert await ways.ask("delete", NAME) == 2
            assert await ways.ask("load", NAME) is None
            assert await ways.ask("versions", NAME) == (await ways.ask("list")).items == []
            assert await ways.ask("delete", NAME) == 0
            assert list_objects(store) == []
            assert await ways.ask("save", NAME, b"1") == 0

        run_way(way, test)

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 1000])
    def test_a_stream_comes_back_in_parts(self, way: str, size: int, service: SessionService, store: ArtifactStore) -> None:
        data = bytes(at % 251 for at in range(size))

        def pieces() -> Iterator[bytes]:
            for at in range(0, size, 7):
                yield data[at : at + 7]

        async def slow_pieces() -> AsyncIterator[bytes]:
            for piece in pieces():
                await anyio.lowlevel.checkpoint()
                yield piece

        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            for source in (data, bytearray(data), memoryview(data), pieces(), *([] if way == "sync" else [slow_pieces()])):
                await ways.ask("save", NAME, source)
                stream = await ways.ask("open", NAME)
                assert isinstance(stream.version, ArtifactVersion)
                parts = await ways.read(stream)
                assert b"".join(parts) == data
                assert [len(part) for part in parts[:-1]] == [64] * (len(parts) - 1)
                assert stream.version.size == size
            assert await ways.ask("open", "other") is None

        run_way(way, test)

    def test_a_save_that_breaks_off_is_never_seen_and_leaves_nothing(
        self, way: str, service: SessionService, store: ArtifactStore
    ) -> None:
        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            seen: list[Any] = []

            def pieces() -> Iterator[bytes]:
                yield bytes(200)
                seen.extend([service.sync.artifacts(user="p", id="v").load(NAME), len(list_objects(store))])
                seen.append(service.sync.artifacts(user="p", id="v").list().items)
                raise RuntimeError("the source broke off")

            with pytest.raises(RuntimeError, match="broke off"):
                await ways.ask("save", NAME, pieces())
            assert seen == [None, 3, []]
            assert list_objects(store) == []
            assert await ways.ask("load", NAME) is None
            assert await ways.ask("save", NAME, b"1") == 0

        run_way(way, test)

    def test_what_is_too_large_is_refused_and_leaves_nothing(self, way: str, service: SessionService, store: ArtifactStore) -> None:
        store.limit_bytes = 1000

        async def test() -> None:
            ways = Ways(way, service.artifacts(user="p", id="v"))
            await ways.ask("save", NAME, bytes(1000))
            for data in (bytes(1001), iter([bytes(501), bytes(500)])):
                with pytest.raises(SessionValueError, match="more than the 1,000 bytes"):
                    await ways.ask("save", NAME, data)
            assert len(await ways.ask("versions", NAME)) == 1
            assert len(list_objects(store)) == 16

        run_way(way, test)


def test_control_bytes_that_are_not_dropped_are_noticed(
    service: SessionService, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcaf.service.artifact_deletion.drop_parts", lambda *_: None)
    with pytest.raises(AssertionError):
        TestContract().test_what_is_deleted_is_gone_with_its_bytes("sync", service, store)


def test_control_a_version_that_is_found_before_its_end_is_noticed(
    service: SessionService, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(files: Any, scope: Any, about: Any, random: bytes) -> Any:
        from dcaf.service.artifact_saving import begin as right
        from dcaf.service.artifact_saving import finish

        begun = yield from right(files, scope, about, random)
        yield from finish(begun, 0, 64)
        return begun

    monkeypatch.setattr("dcaf.service.artifacts.begin", begin)
    with pytest.raises(AssertionError):
        TestContract().test_a_save_that_breaks_off_is_never_seen_and_leaves_nothing("sync", service, store)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> SessionService:
    """A service with a folder, which has a secret beside it."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "secret").write_text("untouched")
    service = SessionService("memory://", app="clinic", artifacts=ArtifactStore(f"file://{folder}/files"))
    service.sync.create(user="../p", id="..")
    return service


HOSTILE = [
    "..",
    ".",
    "/",
    "../../secret",
    "a/b",
    "a\0b",
    "a\nb",
    "C:\\x",
    "%2e%2e",
    "user:../x",
    "x" * 256,
    "é" * 256,
    "\U0001f600",
    " ",
]


def test_any_name_is_only_a_name(named: SessionService, tmp_path: Path) -> None:
    artifacts = named.sync.artifacts(user="../p", id="..")
    folder = artifacts._artifacts._files.objects._folder

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=256)), min_size=1, max_size=3, unique=True))
    def law(names: list[str]) -> None:
        names = [name for name in names if name != "user:"]
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                with pytest.raises(SessionValueError):
                    artifacts.save(name, b"")
                continue
            artifacts.save(name, name)
            found = artifacts.load(name)
            assert found is not None
            assert (found.name, found.text) == (name, name)
        sayable = sorted(name for name in names if not any("\ud800" <= letter <= "\udfff" for letter in name))
        assert sorted(found.name for found in artifacts.list().items) == sayable
        for name in sayable:
            assert artifacts.delete(name) == 1

    law()
    assert (folder.parent / "secret").read_text() == "untouched"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["files", "secret"]


def test_no_name_is_in_the_folder(named: SessionService) -> None:
    artifacts = named.sync.artifacts(user="../p", id="..")
    folder = artifacts._artifacts._files.objects._folder
    artifacts.save("canary.txt", b"1", metadata={"canary": 1})
    paths = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    assert paths
    assert all(set(path) <= set("0123456789abcdef/") for path in paths)
    artifacts.delete("canary.txt")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"name": ""}, SessionValueError, "1 to 256 characters, not 0"),
        ({"name": "x" * 257}, SessionValueError, "1 to 256 characters, not 257"),
        ({"name": 1}, SessionValueError, "is a text, not an int"),
        ({"name": "user:"}, SessionValueError, 'something after "user:"'),
        ({"data": 1}, ConfigurationError, "not of an int"),
        ({"data": {"a": 1}}, ConfigurationError, "not of a dict"),
        ({"data": ["a"]}, ConfigurationError, "not of several times a str"),
        ({"mime": "png"}, SessionValueError, "media type"),
        ({"mime": "text/plain\r\nx: y"}, SessionValueError, "media type"),
        ({"mime": "text/" + "x" * 300}, SessionValueError, "media type"),
        ({"metadata": []}, ConfigurationError, "metadata="),
        ({"metadata": {"a": object()}}, SessionValueError, "metadata"),
        ({"metadata": {"a": "x" * 20_000}}, SessionValueError, "16,384"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(
    arguments: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    store = make_store("memory", tmp_path)
    service = SessionService("memory://", app="clinic", artifacts=store)
    service.sync.create(user="p", id="v")
    with pytest.raises(error, match=says):
        service.sync.artifacts(user="p", id="v").save(**{"name": "a", "data": b"1", **arguments})
    assert service.sync.artifacts(user="p", id="v").list().items == []
    assert list_objects(store) == []


@pytest.mark.parametrize(
    ("method", "arguments", "says"),
    [
        ("load", {"name": "a", "version": -1}, "version= is 0"),
        ("load", {"name": "a", "version": "1"}, "version="),
        ("delete", {"name": "a", "version": True}, "version="),
        ("list", {"limit": 0}, "limit= is 1 to 1,000"),
        ("list", {"limit": 1001}, "limit= is 1 to 1,000"),
        ("list", {"cursor": "!"}, "cursor="),
        ("list", {"cursor": "AAAA"}, "cursor="),
    ],
)
def test_wrong_numbers_and_cursors_are_refused(method: str, arguments: dict[str, Any], says: str) -> None:
    service = SessionService("memory://", app="clinic", artifacts="memory://")
    service.sync.create(user="p", id="v")
    with pytest.raises(ConfigurationError, match=says):
        getattr(service.sync.artifacts(user="p", id="v"), method)(**arguments)


def test_a_cursor_of_another_session_is_refused() -> None:
    service = SessionService("memory://", app="clinic", artifacts="memory://")
    for session_id in ("v", "w"):
        service.sync.create(user="p", id=session_id)
        for name in ("a", "b"):
            service.sync.artifacts(user="p", id=session_id).save(name, b"")
    cursor = service.sync.artifacts(user="p", id="v").list(limit=1).cursor
    assert cursor is not None
    with pytest.raises(ConfigurationError, match="cursor="):
        service.sync.artifacts(user="p", id="w").list(cursor=cursor)


def test_there_is_a_most_of_names_and_of_versions(tmp_path: Path) -> None:
    store = make_store("memory", tmp_path, most_names=2, most_versions=2)
    service = SessionService("memory://", app="clinic", artifacts=store)
    service.sync.create(user="p", id="v")
    artifacts = service.sync.artifacts(user="p", id="v")
    for name in ("a", "b", "a", "user:c"):
        artifacts.save(name, b"1")
    with pytest.raises(SessionValueError, match="may be 2 artifacts"):
        artifacts.save("c", b"1")
    with pytest.raises(SessionValueError, match="may have 2 versions"):
        artifacts.save("a", b"1")
    artifacts.delete("a", 0)
    artifacts.save("a", b"1")
    artifacts.delete("b")
    artifacts.save("c", b"1")
    assert len(list_objects(store)) == 4


def test_a_session_without_a_store_of_artifacts_says_so() -> None:
    service = SessionService("memory://", app="clinic")
    with service.sync.open(user="p") as session:
        assert not Artifacts.is_for(session)
        with pytest.raises(ConfigurationError, match="keeps no artifacts"):
            session.artifacts  # noqa: B018
    with pytest.raises(ConfigurationError, match="keeps no artifacts"):
        service.artifacts(user="p", id="v")


@pytest.mark.parametrize(
    "place", ["ftp://x/y", "files", "file://files", "file:///", "nothing://", 1, None.__class__, "https://x/y"]
)
def test_what_is_no_store_is_refused(place: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"artifacts=|file url|plain HTTP"):
        SessionService("memory://", app="clinic", artifacts=place)


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "dcaf.service.artifact_objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dcaf\[artifacts\]'"):
        SessionService("memory://", app="clinic", artifacts="memory://")


def test_sessions_that_are_not_there_have_no_artifacts() -> None:
    service = SessionService("memory://", app="clinic", artifacts="memory://")
    artifacts = service.sync.artifacts(user="p", id="v")
    calls: list[Callable[[], Any]] = [
        lambda: artifacts.save("a", b""),
        lambda: artifacts.load("a"),
        lambda: artifacts.versions("a"),
        artifacts.list,
        lambda: artifacts.delete("a"),
    ]
    for call in calls:
        with pytest.raises(UnknownSessionError):
            call()
    with pytest.raises(ConfigurationError, match="give id="):
        service.artifacts(user=None)


def test_a_closed_session_is_read_and_not_written() -> None:
    service = SessionService("memory://", app="clinic", artifacts="memory://")
    for session_id, end, error in (("v", "close", SessionClosedError), ("w", "archive", SessionArchivedError)):
        service.sync.create(user="p", id=session_id)
        artifacts = service.sync.artifacts(user="p", id=session_id)
        artifacts.save("a", b"1")
        getattr(service.sync, end)(user="p", id=session_id)
        found = artifacts.load("a")
        assert found is not None
        assert found.data == b"1"
        with pytest.raises(error):
            artifacts.save("a", b"2")
        with pytest.raises(error):
            artifacts.delete("a")
        with pytest.raises(error):
            artifacts.delete("a", 0)
    service.sync.restore(user="p", id="w")
    assert service.sync.artifacts(user="p", id="w").save("a", b"2") == 1


def test_in_a_turn_it_is_saved_at_once_and_after_the_turn_not_at_all() -> None:
    service = SessionService("memory://", app="clinic", artifacts="memory://")
    with pytest.raises(RuntimeError), service.sync.open(user="p") as session:
        assert session.artifacts.sync.save("a", b"1") == 0
        raise RuntimeError
    with pytest.raises(SessionClosedError):
        session.artifacts.sync.save("a", b"2")
    with service.sync.open(user="p") as session:  # one that is new
        assert session.artifacts.sync.save("a", b"1") == 0
        found = session.artifacts.sync.load("a")
        assert found is not None
    with pytest.raises(RuntimeError), service.sync.open(user="p", id=session.id) as session:
        assert session.artifacts.sync.save("a", b"2") == 1
        raise RuntimeError
    kept = service.sync.artifacts(user="p", id=session.id)
    assert [found.version for found in kept.versions("a")] == [0, 1]
    with service.sync.open(user="p", id=session.id) as session:
        service.sync.delete(user="p", id=session.id)
        assert session.artifacts.sync.load("a") is None
        with pytest.raises(UnknownSessionError):
            session.artifacts.sync.save("a", b"3")
        session.clear()


def test_what_is_deleted_while_it_is_read_or_saved_says_so(tmp_path: Path) -> None:
    service = SessionService("memory://", app="clinic", artifacts=make_store("memory", tmp_path))
    service.sync.create(user="p", id="v")
    artifacts = service.sync.artifacts(user="p", id="v")
    artifacts.save("a", bytes(200))
    stream = artifacts.open("a")
    assert stream is not None
    parts = iter(stream)
    assert len(next(parts)) == 64
    artifacts.delete("a")
    with pytest.raises(UnknownArtifactError, match="while it was read"):
        next(parts)

    def pieces() -> Iterator[bytes]:
        yield bytes(200)
        artifacts.delete("a")
        yield bytes(200)

    with pytest.raises(UnknownArtifactError, match="while this version of it was saved"):
        artifacts.save("a", pieces())
    assert list_objects(artifacts._artifacts._files.store) == []


def test_the_rules_hold_on_every_engine(kept_place: KeptPlace, tmp_path: Path) -> None:
    store = make_store("memory", tmp_path)
    service = kept_place.open_service(artifacts=store)
    for user, session_id in (("p", "v"), ("p", "w"), (None, "v")):
        service.sync.create(user=user, id=session_id)
        artifacts = service.sync.artifacts(user=user, id=session_id)
        for name in ("a", "a", "b", "user:c"):
            artifacts.save(name, bytes(100))
    assert len(list_objects(store)) == 24
    artifacts = service.sync.artifacts(user="p", id="v")
    assert [found.version for found in artifacts.versions("user:c")] == [0, 1]
    assert artifacts.delete("a", 1) == artifacts.delete("b") == 1
    assert [(found.name, found.version) for found in artifacts.list().items] == [("a", 0), ("user:c", 1)]
    service.sync.fork(user="p", id="w", new_id="x")
    assert [found.version for found in service.sync.artifacts(user="p", id="x").versions("a")] == [0, 1]
    assert service.sync.delete(user="p", id="w")
    loaded = service.sync.artifacts(user="p", id="x").load("a", 0)
    assert loaded is not None
    assert loaded.data == bytes(100)
    assert service.sync.delete(user=None, id="v")
    erased = service.sync.erase(user="p")
    assert (erased.sessions, erased.artifacts) == (2, 6)
    assert list_objects(store) == []
    assert service.sync.purge()[:3] == (0, 0, 0)
