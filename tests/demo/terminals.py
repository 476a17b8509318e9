"""A terminal for tests, in which a program runs."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

DECIDES = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM")
"""Variables that say what a terminal can do."""

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in DECIDES} | {"TERM": "xterm-256color"}


@dataclass(frozen=True)
class Seen:
    """What a program wrote to its terminal."""

    code: int
    raw: str


def run_in_terminal(command: Sequence[str], *, columns: int) -> Seen:
    """Run a program whose standard output and error are one terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT) as process:
            os.close(theirs)
            raw = _read(ours)
        return Seen(process.returncode, raw.decode())
    finally:
        os.close(ours)


def _read(descriptor: int) -> bytes:
    found = b""
    with suppress(OSError):  # Linux says so when the last program has left the terminal; others send an empty read
        while piece := os.read(descriptor, 65536):
            found += piece
    return found
