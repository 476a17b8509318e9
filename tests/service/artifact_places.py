"""Where the artifacts of tests have their bytes: in memory, in a folder, and in an S3 that moto serves on this machine.

>>> make_store("memory", Path()).limit_bytes
1073741824
"""

from __future__ import annotations

import atexit
import http.client
import socket
import subprocess
import sys
import time
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import obstore
import pytest
from obstore.store import S3Store

from dcaf.core import Keyring
from dcaf.service import ArtifactStore, SessionService

STORES: Final = ("memory", "folder", "s3")

ENCRYPTED: Final = "encrypted folder"
"""A folder, and a service that encrypts."""

_BUCKETS = count()


@cache
def find_s3() -> int:
    """The port of an S3 that runs as long as these tests do."""
    if find_spec("moto") is None:
        pytest.skip("moto is not installed")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.kill)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return port
    raise AssertionError("moto does not listen.")


def make_bucket() -> str:
    """A bucket without objects."""
    name = f"files-{next(_BUCKETS)}-{uuid4().hex[:8]}"
    connection = http.client.HTTPConnection("127.0.0.1", find_s3())
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()
    return name


def open_bucket(name: str, port: int) -> S3Store:
    """A store over a bucket."""
    return S3Store(
        name,
        prefix="some/where",
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id="a",
        secret_access_key="b",
        region="us-east-1",
        client_options={"allow_http": True, "timeout": "30s"},
    )


def make_store(kind: str, folder: Path, **settings: Any) -> ArtifactStore:
    """A store of a kind, without objects; with parts of 64 bytes where nothing else is said."""
    settings.setdefault("part_bytes", 64)
    if kind == "s3":
        return ArtifactStore(open_bucket(make_bucket(), find_s3()), **settings)
    return ArtifactStore("memory://" if kind == "memory" else f"file://{folder / uuid4().hex}", **settings)


def list_objects(store: ArtifactStore) -> list[str]:
    """The paths of all objects."""
    return sorted(str(one["path"]) for chunk in obstore.list(store._objects._store) for one in chunk)


def read_objects(store: ArtifactStore) -> bytes:
    """The bytes of all objects, one after the other."""
    return b"".join(bytes(obstore.get(store._objects._store, path).bytes()) for path in list_objects(store))


@pytest.fixture(params=[*STORES, ENCRYPTED])
def kind_of_files(request: pytest.FixtureRequest) -> Any:
    """Each kind of store in turn, and one with a service that encrypts."""
    return request.param


@pytest.fixture
def store(kind_of_files: str, tmp_path: Path) -> ArtifactStore:
    """Each kind of store in turn, without objects."""
    return make_store(kind_of_files, tmp_path)


@pytest.fixture
def files(kind_of_files: str, store: ArtifactStore) -> SessionService:
    """A service in memory with each kind of store."""
    ring = Keyring.ephemeral() if kind_of_files == ENCRYPTED else None
    return SessionService("memory://", app="clinic", artifacts=store, encrypt=ring)
