"""The servers that stand between the middleware and a client: three of ASGI, and nginx before one of them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SERVICE: Final = "tests.refusals.refusing:app"
ROOT: Final = Path(__file__).parents[2]
SERVERS: Final[dict[str, tuple[str, ...]]] = {
    "uvicorn": ("--host", "127.0.0.1", "--port", "{port}", "--log-level", "critical"),
    "hypercorn": ("--bind", "127.0.0.1:{port}", "--log-level", "critical"),
    "granian": ("--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "critical"),
}
START_S: Final = 30.0
NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log /dev/null;
events {{ }}
http {{
  access_log off; client_max_body_size 100m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; }} }}
}}
"""
"""nginx at its defaults, but for the limit of a body, which would refuse it before."""


@contextlib.contextmanager
def served(server: str, service: str = SERVICE) -> Iterator[str]:
    """The service under a server in a process of its own; its URL."""
    port = _free_port()
    arguments = [argument.format(port=port) for argument in SERVERS[server]]
    command = [sys.executable, "-m", server, *arguments, service]
    with _running(command, port) as url:
        yield url


@contextlib.contextmanager
def behind_nginx(nginx: str, upstream: str) -> Iterator[str]:
    """nginx before a server."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "conf")
        path.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
        with _running([nginx, "-c", str(path), "-e", "/dev/null"], port) as url:
            yield url


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[str]:
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(process, port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} did not start")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
