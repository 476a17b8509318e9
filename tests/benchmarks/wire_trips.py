"""Counts round trips on the wire: a proxy between a client and a server, who talk over Unix sockets.

A trip begins each time that the client says something after the server has. So a pipeline is one, and what a client library asks
by itself, to look whether its connection holds or to prepare a statement, is counted with the rest.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Wire:
    """A wire that counts.

    Args:
        server: The server's socket.

    Attributes:
        trips: How many there were so far, on all connections.
    """

    def __init__(self, server: Path) -> None:
        self._server = server
        self._connections: dict[asyncio.Task[None], list[asyncio.Task[None]]] = {}
        self.trips: int = 0

    async def connect(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection: passes on what either side says, until one of them ends it."""
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        is_asked = False

        async def ask() -> None:
            nonlocal is_asked
            while said := await from_client.read(1 << 16):
                self.trips += not is_asked
                is_asked = True
                to_server.write(said)

        async def answer() -> None:
            nonlocal is_asked
            while said := await from_server.read(1 << 16):
                is_asked = False
                to_client.write(said)

        sides = [asyncio.ensure_future(side()) for side in (ask, answer)]
        connection = asyncio.current_task()
        assert connection is not None
        self._connections[connection] = sides
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        for writer in (to_client, to_server):
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
        del self._connections[connection]

    async def stop(self) -> None:
        """End all connections."""
        connections = dict(self._connections)
        for sides in connections.values():
            for side in sides:
                side.cancel()
        if connections:
            await asyncio.wait(connections)


@contextmanager
def counted(server: Path, at: Path) -> Iterator[Wire]:
    """A wire to a server while the block runs, in a thread of its own; clients connect to ``at``."""
    wire, loop = Wire(server), asyncio.new_event_loop()

    async def serve() -> None:
        listening = await asyncio.start_unix_server(wire.connect, at)
        ready.set()
        with suppress(asyncio.CancelledError):
            await listening.serve_forever()
        await wire.stop()

    ready = threading.Event()
    serving = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,), name="wire")
    thread.start()
    ready.wait()
    try:
        yield wire
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()
        loop.close()
