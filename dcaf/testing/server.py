"""An application under uvicorn, on a port of its own, in a thread: for tests over the network, and for `dcaf demo`.

    with serving(app) as url:
        SessionClient(url).send("hello")

The socket is bound before the server starts, so the port is known and nobody else can take it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp

from dcaf.client.arguments import check, check_function
from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import load_module

if TYPE_CHECKING:
    import uvicorn

START_S: Final = 10.0
MAX_PORT: Final = 2**16 - 1


def serving(app: ASGIApp, *, port: int = 0) -> AbstractContextManager[str]:
    """Serve an application while a ``with`` block runs, by uvicorn (extra ``server``). Its lifespan is not run.

    Args:
        app: The application.
        port: 0 takes a free one.

    Returns:
        A context manager that gives the base URL. Entering it raises OSError where the port is taken, and TimeoutError where the
        server does not start in time.

    Raises:
        ConfigurationError: uvicorn is not installed, or an argument cannot be.
    """
    check_function("app", app, "an ASGI application")
    if not 0 <= check("port", port, int, "the number of a port; 0 takes a free one") <= MAX_PORT:
        raise ConfigurationError(f"port= takes a number from 0 to {MAX_PORT}; 0 takes a free port.")
    return _run_server(load_module("uvicorn", what="dcaf.testing.serving", extra="server"), app, port)


def serve(app: ASGIApp, *, port: int, announce: Callable[[str], None]) -> int:
    """Serve until interrupted; ``announce`` gets the base URL. Returns the exit code.

    Raises:
        ConfigurationError: uvicorn is not installed, or an argument cannot be.
        OSError: The port is taken.
    """
    with serving(app, port=port) as url:
        try:
            announce(url)
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


@contextmanager
def _run_server(library: ModuleType, app: ASGIApp, port: int) -> Iterator[str]:
    # With the protocol named, so that asyncio sends small answers at once (TCP_NODELAY): without it a turn takes 40 ms more.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        server = library.Server(library.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _wait_for_start(server)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_S)


def _wait_for_start(server: uvicorn.Server) -> None:
    end = time.monotonic() + START_S
    while not server.started:
        if time.monotonic() > end:
            raise TimeoutError("the server did not start")
        time.sleep(0.01)
