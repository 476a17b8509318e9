"""The demo's service under uvicorn, on a port of its own, in a thread.

What a reader gets wrong: the socket is bound before the server starts, so the port is known and nobody else can take it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import ASGIApp

from dcaf.core.importing import extra

with extra("The demo", "dcaf[demo]"):
    import uvicorn

START_S: Final = 10.0


@contextmanager
def serving(app: ASGIApp, *, port: int = 0) -> Iterator[str]:
    """Serve an application while the block runs.

    Args:
        app: The application.
        port: 0 takes a free one.

    Yields:
        Its base URL.

    Raises:
        OSError: The port is taken.
        TimeoutError: It did not start in time.
    """
    # With the protocol named, so that asyncio sends small answers at once (TCP_NODELAY): without it a turn takes 40 ms more.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _wait(server)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_S)


def serve(app: ASGIApp, *, port: int, announce: Callable[[str], None]) -> int:
    """Serve until interrupted; ``announce`` is told the base URL. Returns the exit code.

    Raises:
        OSError: The port is taken.
    """
    with serving(app, port=port) as url:
        try:
            announce(url)
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


def _wait(server: uvicorn.Server) -> None:
    end = time.monotonic() + START_S
    while not server.started:
        if time.monotonic() > end:
            raise TimeoutError("the demo's server did not start")
        time.sleep(0.01)
