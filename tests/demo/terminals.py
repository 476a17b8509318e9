r"""A terminal for tests: one that programs run in, one that is standard output, and what a person would see of either.

>>> screen("one\r\nturn 1 of 8\r\n\x1b[1A\x1b[2Ktwo")
'one\ntwo'
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest

PIECE = re.compile(r"\x1b\[(?P<number>\d*)(?P<move>[AK])|\x1b\[\?25[lh]|\x1b\[[\d;]*m|(?P<turn>[\r\n])|(?P<text>[^\x1b\r\n]+)")

DECIDES = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM")
"""Variables that say what a terminal can do."""

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in DECIDES} | {"TERM": "xterm-256color"}


@dataclass(frozen=True)
class Seen:
    """What a program did to its terminal."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        return screen(self.raw).split("\n")


class Terminal(io.StringIO):
    """Standard output of this process that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> str:
        return screen(self.getvalue())


def become_terminal(patch: pytest.MonkeyPatch, **settings: str) -> Terminal:
    """Make standard output a terminal. Not in a fixture: pytest puts its own output in place before a test is called."""
    set_environment(patch, **settings)
    terminal = Terminal()
    patch.setattr(sys, "stdout", terminal)
    return terminal


def set_environment(patch: pytest.MonkeyPatch, **settings: str) -> None:
    """Set what decides about colour, and nothing but that."""
    for name in DECIDES:
        patch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color"} | settings).items():
        patch.setenv(name, value)


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


def screen(raw: str) -> str:
    """What stands there in the end, of output that uses no more than a teller should: lines, and going up to erase one."""
    lines, row, column = [""], 0, 0
    assert "".join(piece[0] for piece in PIECE.finditer(raw)) == raw, "an escape sequence that is not expected"
    for piece in PIECE.finditer(raw):
        if piece["text"]:
            lines[row] = lines[row][:column].ljust(column) + piece["text"] + lines[row][column + len(piece["text"]) :]
            column += len(piece["text"])
        elif piece["turn"]:
            row, column = row + (piece["turn"] == "\n"), 0
            lines += [""] * (row + 1 - len(lines))
        elif piece["move"] == "A":
            row -= int(piece["number"] or 1)
        elif piece["move"] == "K":
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def _read(descriptor: int) -> bytes:
    found = b""
    with suppress(OSError):  # Linux says so when the last program has left the terminal; others send an empty read
        while piece := os.read(descriptor, 65536):
            found += piece
    return found
