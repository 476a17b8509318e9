"""The four example programs: imported into this process, or under a server in a process of their own."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from dcaf import SessionMiddleware

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMEWORKS = ("starlette", "fastapi", "litestar", "quart")
SERVERS: dict[str, tuple[str, ...]] = {
    "uvicorn": ("--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
    "hypercorn": ("--bind", "127.0.0.1:{port}"),
    "granian": ("--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
}
AUDIENCE = "deploy-agent"
START_S = 60.0
STOP_S = 5.0


def program(framework: str) -> ModuleType:
    """The example's module. Litestar takes the root logger over when an application is made; here it is given back."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    with put_on_path():
        module = importlib.import_module(f"{framework}_app")
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    return module


def bare(framework: str) -> Any:
    """The example's application without the session middleware, to mount another one around it."""
    module = program(framework)
    mounted = getattr(module.app, "asgi_app", module.app)
    assert isinstance(mounted, SessionMiddleware)
    return mounted.app


@contextlib.contextmanager
def put_on_path() -> Iterator[None]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield
    finally:
        sys.path.remove(str(EXAMPLES))


@dataclass
class Running:
    """One example under one server, in a process of its own."""

    framework: str
    server: str
    port: int
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    @property
    def url(self) -> str:
        """Its base URL, once it takes connections."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return f"http://127.0.0.1:{self.port}"
            time.sleep(0.05)
        self.said.seek(0)
        raise AssertionError(f"{self.framework} under {self.server} did not start: {self.said.read().decode(errors='replace')}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.said.close()


def start(framework: str, server: str, port: int, key: str, said: IO[bytes]) -> Running:
    """Start a program as its users do; it is not waited for."""
    options = [option.format(port=port) for option in SERVERS[server]]
    process = subprocess.Popen(
        [sys.executable, "-m", server, *options, f"{framework}_app:app"],
        cwd=EXAMPLES,
        env={**os.environ, "DCAF_KEYS": key},
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Running(framework, server, port, process, said)


def free_ports(count: int) -> list[int]:
    """That many ports, all different, that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
