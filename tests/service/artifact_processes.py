"""Programs that save artifacts beside a test: ``python -m tests.service.artifact_processes NAME DATABASE STORE ...``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from dcaf.core.errors import EngineError
from dcaf.engines import SqliteEngine
from dcaf.service import ArtifactStore, SessionService, SyncArtifacts
from tests.service.artifact_places import open_bucket

ROOT: Final = Path(__file__).parents[2]
MIB: Final = 1024 * 1024


def start(program: Callable[..., None], database: Path, place: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program of this module.

    Args:
        program: Which.
        database: The file of the engine.
        place: A url, or ``s3 PORT BUCKET``.
        arguments: What else it takes.
    """
    command = [sys.executable, "-m", "tests.service.artifact_processes", program.__name__, str(database), place]
    return subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def open_artifacts(database: str, place: str) -> SyncArtifacts:
    """The artifacts of the session v of p."""
    kind, *rest = place.split()
    store: Any = open_bucket(rest[1], int(rest[0])) if kind == "s3" else place
    return SessionService(SqliteEngine(database), app="clinic", artifacts=ArtifactStore(store)).sync.artifacts(user="p", id="v")


def save_many(artifacts: SyncArtifacts, who: str, number: str) -> None:
    """As soon as the parent says so, save so many versions of one name, and say the number of each."""
    print("ready", flush=True)
    sys.stdin.readline()
    for at in range(int(number)):
        print(artifacts.save("log", f"{who} {at}"), flush=True)


def save_until_killed(artifacts: SyncArtifacts) -> None:
    """Save half of an artifact, say so, and wait."""

    def pieces() -> Iterator[bytes]:
        yield bytes(9 * MIB)
        os.write(1, b"half\n")
        time.sleep(600)

    artifacts.save("half", pieces())


def save_in_a_fork(artifacts: SyncArtifacts, before: str) -> None:
    """Save in a forked process; in its parent before that, if it is to be. Say the number, or the error."""
    if before == "yes":
        artifacts.save("a", b"1")
    artifacts._artifacts._engine.sync.close()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    signal.alarm(60)
    try:
        print(artifacts._artifacts._files.objects.create("a/b/c/d", b"1"), flush=True)
    except EngineError as error:
        print(error, flush=True)
    os._exit(0)


def stream(artifacts: SyncArtifacts, mib: str) -> None:
    """Save and read so many MiB, piece by piece, and say by how many MiB the memory has grown with it."""
    _stream(artifacts, 16)
    before = forget_peak()
    _stream(artifacts, int(mib))
    print(read_mib("VmHWM") - before)


def load_whole(artifacts: SyncArtifacts, mib: str) -> None:
    """The same, with all of it in memory."""
    _stream(artifacts, 16)
    before = forget_peak()
    _stream(artifacts, int(mib))
    found = artifacts.load("large")
    assert found is not None
    print(read_mib("VmHWM") - before)


def _stream(artifacts: SyncArtifacts, mib: int) -> None:
    piece = bytes(range(256)) * 4096
    version = artifacts.save("large", (piece for _ in range(mib)))
    found = artifacts.open("large", version)
    assert found is not None
    size = 0
    for part in found:
        assert part[:256] == piece[:256]
        size += len(part)
    assert size == mib * MIB


def forget_peak() -> float:
    """How many MiB the process has in memory now; from now on its peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_mib("VmRSS")


def read_mib(name: str) -> float:
    """What Linux says of the memory of this process. What the process that started it had is no part of that."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    name, database, place, *rest = sys.argv[1:]
    globals()[name](open_artifacts(database, place), *rest)
