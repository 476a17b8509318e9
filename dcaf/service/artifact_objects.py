"""Objects of bytes by their paths, as obstore has them: in memory, in a folder, in S3 and what speaks as it does.

What a reader gets wrong: obstore's own async calls know asyncio alone. These block, and whoever calls them does so on a thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from dcaf.core.arguments import kind_of
from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.core.importing import extra

with extra("dcaf.service.artifact_objects", "dcaf[artifacts]"):
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError
    from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store, from_url

TAKES: Final = (
    'artifacts= takes "file:///var/lib/clinic/files", "s3://bucket/prefix" or another url of obstore, "memory://" for tests, '
    "a store of obstore, or an ArtifactStore."
)
KINDS: Final[tuple[type, ...]] = (AzureStore, GCSStore, LocalStore, MemoryStore, S3Store)

CLIENT: Final[Any] = {"timeout": "30s", "connect_timeout": "5s"}
RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
"""How long a store behind a url may take for an object, and how often it is asked once more."""

STAGED: Final = "#"
"""What stands behind the name of a file as long as obstore writes it, with a number."""

LISTED_AT_ONCE: Final = 500

FORKED: Final = (
    "The store of the artifacts was used before this process was forked, and the threads of obstore do not go along. "
    "Save and load nothing before the fork."
)

_USERS: Final[dict[str, int]] = {}
"""The process in which obstore was used first."""

STATUS: Final = re.compile(r"status code: ([0-9]{3})")


class Objects:
    """A store of objects.

    Args:
        place: A url, or a store of obstore.

    Raises:
        ConfigurationError: It is neither, or obstore cannot use it.
    """

    def __init__(self, place: object) -> None:
        self._store: Any = _open(place) if isinstance(place, str) else _require_store(place)
        self._folder = Path(self._store.prefix or "/") if isinstance(self._store, LocalStore) else None

    def create(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        """Write an object; False where there is one, which stays as it is.

        Raises:
            EngineError: The store failed.
        """
        try:
            with _failing("write", AlreadyExistsError):
                obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        self._sync(path)
        return True

    def put(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Write an object, in place of one that is there.

        Raises:
            EngineError: The store failed.
        """
        with _failing("write"):
            obstore.put(self._store, path, data, use_multipart=False)
        self._sync(path)

    def get(self, path: str) -> bytes | None:
        """Read an object; None where there is none.

        Raises:
            EngineError: The store failed.
        """
        try:
            with _failing("read", FileNotFoundError):
                return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            return None

    def read_start(self, path: str, size: int) -> bytes | None:
        """The first bytes of an object, at most so many; None where there is none.

        Raises:
            EngineError: The store failed.
        """
        try:
            with _failing("read", FileNotFoundError):
                return bytes(obstore.get(self._store, path, options={"range": (0, size)}).bytes())
        except FileNotFoundError:
            return None

    def delete(self, paths: list[str]) -> None:
        """Delete objects; nothing happens where there is none.

        Raises:
            EngineError: The store failed.
        """
        if self._folder is None:
            with _failing("delete"):
                obstore.delete(self._store, paths)
            return
        for path in paths:
            if STAGED in path:  # obstore takes no such path
                with _failing("delete"):
                    (self._folder / path).unlink(missing_ok=True)
        for path in (path for path in paths if STAGED not in path):  # the first one that is not there would end the whole call
            with suppress(FileNotFoundError), _failing("delete", FileNotFoundError):
                obstore.delete(self._store, path)

    def list_paths(self, prefix: str) -> Iterator[list[str]]:
        """The paths of the objects below a path, some at a time; in a folder also of what a process was writing that has died.

        Raises:
            EngineError: The store failed.
        """
        if self._folder is not None:
            yield from _list_files(self._folder, prefix)
            return
        with _failing("list"):
            for chunk in obstore.list(self._store, prefix, chunk_size=LISTED_AT_ONCE):
                yield [one["path"] for one in chunk]

    def settle(self, path: str) -> None:
        """Have a folder keep the entries of what was written below a path, also through a power cut.

        Raises:
            EngineError: The store failed.
        """
        if self._folder is not None and os.name == "posix":
            for folder in [self._folder / path, *(self._folder / path).parents]:
                _sync_file(folder)
                if folder == self._folder:
                    return

    def _sync(self, path: str) -> None:
        if self._folder is not None:
            _sync_file(self._folder / path)


def _open(url: str) -> Any:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(TAKES)
    if scheme == "memory":
        return MemoryStore()
    if scheme == "file":
        if not rest.startswith("/") or rest == "/":
            raise ConfigurationError("A file url has three slashes before an absolute path: file:///var/lib/clinic/files.")
        return _make(lambda: LocalStore(unquote(rest), automatic_cleanup=True, mkdir=True))
    return _require_store(_make(lambda: from_url(url, client_options=CLIENT, retry_config=RETRIES)))


def _make(make: Any) -> Any:
    try:
        return make()
    except (BaseError, ValueError, OSError, TypeError):
        raise ConfigurationError(f"obstore cannot use this url. {TAKES}") from None


def _require_store(store: object) -> Any:
    if isinstance(store, HTTPStore):
        raise ConfigurationError("A store over plain HTTP makes no promise that an object is written once: take another one.")
    if not isinstance(store, KINDS):
        raise ConfigurationError(f"{TAKES} This is {kind_of(store)}.")
    return store


@contextmanager
def _failing(what: str, *expected: type[Exception]) -> Iterator[None]:
    """Say that the store failed, without its own words: they have urls, and may have what signs these."""
    if _USERS.setdefault("pid", os.getpid()) != os.getpid():
        raise EngineError(FORKED)  # obstore itself would wait for ever
    try:
        yield
    except expected:
        raise
    except (BaseError, OSError, ValueError) as error:
        status = STATUS.search(str(error))
        said = f"{type(error).__name__}, status {status[1]}" if status else type(error).__name__
        raise EngineError(f"The store of the artifacts could not {what}: {said}.") from None


def _list_files(folder: Path, prefix: str) -> Iterator[list[str]]:
    files = (Path(where, name) for where, _, names in os.walk(folder / prefix) for name in names)
    while found := [file.relative_to(folder).as_posix() for file in islice(files, LISTED_AT_ONCE)]:
        yield found


def _sync_file(path: Path) -> None:
    with suppress(FileNotFoundError), _failing("write", FileNotFoundError):  # somebody has dropped it meanwhile
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
