"""`dcaf serve`, running, for tests of the command line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from dcaf import Key
from dcaf.cli import main
from tests.forked import Forked

START_S = 60
"""Several processes that import an agent framework on a machine that is busy take tens of seconds."""

DCAF = str(Path(sys.executable).with_name("dcaf"))


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def served(folder: Path, *arguments: str, forked: bool = True, **variables: str) -> Iterator[str]:
    """The command, running; its base URL. Where it is not forked, it is started as a user starts it."""
    at, said = port(), folder / "said.txt"
    command = [DCAF, "serve", *arguments, "--port", str(at)]
    settings = {**os.environ, "DCAF_KEYS": Key.generate("k1").text(), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    process: subprocess.Popen[bytes] | Forked
    if forked:
        process = Forked(main, command, folder=folder, environment=settings, said=said)
    else:
        with said.open("wb") as out:
            process = subprocess.Popen(command, cwd=folder, env=settings, stderr=out)
    try:
        url = f"http://127.0.0.1:{at}"
        wait(url, process, said)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait(url: str, process: subprocess.Popen[bytes] | Forked, said: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx2.get(f"{url}/health")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(said.read_text() if process.poll() is not None else "it did not start")
