"""The services of examples/deploy run as they are: two workers behind nginx, and a real Redis or PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf.testing import Reply, SessionClient
from tests.conftest import program
from tests.engines.postgres_servers import find_programs
from tests.engines.redis_servers import find_server
from tests.package.cli_servers import port

DEPLOY: Final = Path(__file__).parents[2] / "examples" / "deploy"
ADA: Final = {"Authorization": "Basic YWRhOmxvdmU="}
BOB: Final = {"Authorization": "Basic Ym9iOmhvcGU="}
UNSAFE: Final = {
    "redis": ("redis.conf", "appendfsync always", "appendfsync everysec", "Redis has appendfsync everysec"),
    "postgres": ("postgresql.conf", "synchronous_commit = on", "synchronous_commit = off", "synchronous_commit is off"),
}
"""Kind -> a file, what stands there, what a careless operator writes, and how that is refused."""

STOP_S: Final = 20.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, since a socket's may have 107 bytes, and one through which PostgreSQL's user may pass."""
    found = Path(tempfile.mkdtemp(prefix="deploy", dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


def find_places(kind: str) -> list[str]:
    """Folders of the programs that are needed; the test is skipped without one of them."""
    store = Path(find_server()) if kind == "redis" else find_programs()[0] / "postgres"
    return [str(Path(sys.executable).parent), str(store.parent), str(Path(program("nginx", Path("/usr/sbin/nginx"))).parent)]


def start(kind: str, folder: Path, *, deploy: Path = DEPLOY) -> tuple[subprocess.Popen[str], str]:
    """Run the command; its process, and the url of nginx."""
    at = port()
    path = os.pathsep.join([*find_places(kind), os.environ["PATH"]])
    settings = {"PATH": path, "PORT": str(at), "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [str(deploy / "run"), kind, str(folder)],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, f"http://127.0.0.1:{at}"


@contextmanager
def deployed(kind: str, folder: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """The command while the block runs: its url, and what waits until it has ended by itself."""
    process, url = start(kind, folder)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    reading = threading.Thread(target=said.extend, args=(process.stderr,))
    reading.start()
    try:
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith(f"{url} serves ada") for line in lines), said
        draining = threading.Thread(target=lambda: list(lines))
        draining.start()
        yield url, lambda: process.wait(STOP_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) in (0, 1), said
        draining.join()
    finally:
        process.kill()
        process.wait()
        for pid in find_processes(folder):
            os.kill(pid, signal.SIGKILL)
        reading.join()
        process.stdout.close()
        process.stderr.close()


def find_processes(folder: Path) -> list[int]:
    """The processes that run in a folder, or are told of it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words, at = (place / "cmdline").read_bytes(), str((place / "cwd").readlink())
        except OSError:
            continue
        if str(folder).encode() in words or at.startswith(str(folder)):
            found.append(int(place.name))
    return [pid for pid in found if pid != os.getpid()]


def count_served(folder: Path) -> dict[str, int]:
    """Worker -> how many turns nginx has had from it."""
    served = re.findall(r"^ada POST /api/chat 200 unix:workers/(\d)\.sock ", (folder / "access.log").read_text(), re.MULTILINE)
    return {worker: served.count(worker) for worker in served}


@pytest.mark.parametrize("kind", UNSAFE)
def test_two_workers_take_turns_behind_nginx_and_nothing_is_left_running(kind: str, folder: Path) -> None:
    with deployed(kind, folder) as (url, wait):
        assert say(url, "tea").session == {"basket": ["tea"]}
        older = newest = say(url, "tea").envelope
        for number in range(5):
            newest = say(url, f"cup {number}", newest).envelope
        assert set(count_served(folder)) == {"1", "2"}
        for _ in range(2):  # once at each worker
            assert say(url, "again", older).code == "session-superseded"
        assert say(url, "mine", newest, headers=BOB).code == "session-invalid"
        assert say(url, "tea", headers={}).status == 401
        os.kill(find_worker(folder, "1"), signal.SIGKILL)
        assert wait() == 1, "a worker has died, and so all must end"
    assert find_processes(folder) == []

    with deployed(kind, folder) as (url, _):  # the rows, the keys and the password are still there
        session = say(url, "spoon", newest).session
        assert session == {"basket": ["tea", *(f"cup {number}" for number in range(5)), "spoon"]}
        assert find_processes(folder), "this finds what runs"
    assert find_processes(folder) == []


def say(url: str, text: str, envelope: Any = None, headers: Mapping[str, str] = ADA) -> Reply:
    """One turn."""
    with SessionClient(url, headers=headers, envelope=envelope) as client:
        return client.send(text)


def find_worker(folder: Path, number: str) -> int:
    (found,) = [
        pid for pid in find_processes(folder) if f"workers/{number}.sock".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


@pytest.mark.parametrize("kind", UNSAFE)
def test_control_a_server_that_would_lose_a_commit_keeps_the_service_from_starting(kind: str, folder: Path) -> None:
    name, safe, unsafe, refused = UNSAFE[kind]
    careless = shutil.copytree(DEPLOY, folder / "careless")
    text = (careless / name).read_text()
    assert text.count(f"\n{safe}\n") == 1
    (careless / name).write_text(text.replace(safe, unsafe))
    process, _ = start(kind, folder / "data", deploy=careless)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert refused in said
    assert find_processes(folder) == []


def test_a_kind_that_there_is_not_is_answered_with_the_usage(folder: Path) -> None:
    done = subprocess.run([str(DEPLOY / "run"), "mysql", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "examples/deploy/run redis [FOLDER]" in done.stderr
    assert list(folder.iterdir()) == []
