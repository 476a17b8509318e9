"""A proxy between an engine and PostgreSQL's socket, which counts round trips and can cut a connection at a chosen moment."""

from __future__ import annotations

import shutil
import socket
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

PORT: Final = 5432


class WireProxy:
    """Forwards bytes, and reads the messages of the client on the way.

    Args:
        folder: The folder of the server's socket.

    Attributes:
        round_trips: How often a client has waited for an answer: after Sync, and after a simple Query.
        cut_answers: Whether the answers to these are kept back, and the connection is closed in their place.
    """

    def __init__(self, folder: Path) -> None:
        self.round_trips = 0
        self.cut_answers = False
        self.folder = Path(tempfile.mkdtemp(prefix="px", dir="/tmp"))
        self._server = str(folder / f".s.PGSQL.{PORT}")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / f".s.PGSQL.{PORT}"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self.folder)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        kept, is_started = b"", False
        with suppress(OSError):
            while data := client.recv(65_536):
                kept += data
                while (size := _find_end(kept, is_started=is_started)) is not None:
                    self._note(kept[:size], is_started=is_started)
                    is_started, kept = True, kept[size:]
                server.sendall(data)
        _close(client, server)

    def _note(self, message: bytes, *, is_started: bool) -> None:
        if is_started and message[:1] in {b"S", b"Q"}:
            self.round_trips += 1

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if self.cut_answers:
                    break
                client.sendall(data)
        _close(client, server)


def _find_end(kept: bytes, *, is_started: bool) -> int | None:
    """Where the first message ends; None where it is not there yet."""
    at = 1 if is_started else 0
    if len(kept) < at + 4:
        return None
    (size,) = struct.unpack_from("!I", kept, at)
    end: int = at + size
    return end if len(kept) >= end else None


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
