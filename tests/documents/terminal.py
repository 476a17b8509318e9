"""One terminal: a bash that lives from the first command to the last, so that folders, variables and jobs do too.

What a reader gets wrong: a command that fails ends nothing, as in a terminal. What failed is in the answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Timer
from typing import Final, Self

BEGIN: Final = r"""
exec 9>&1
tell() { printf '%s %s\n' "$1" "${2%%$'\n'*}" >&9; }
trap 'tell "$?" "$BASH_COMMAND"' ERR
"""
"""Where it is and what failed is told on a channel of its own, which no command writes to."""

TYPED: Final = """
source {commands} > {printed} 2>&1 < /dev/null
tell in "$PWD"
"""


class TooLong(AssertionError):
    """The commands did not end in time, or ended the terminal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What commands printed, on both channels, and which of them failed: the status and the command of each."""

    printed: str
    failed: list[tuple[int, str]]


class Terminal:
    """A terminal.

    Attributes:
        folder: Where it is now.
    """

    def __init__(
        self, folder: Path, desk: Path, environment: Mapping[str, str], *, limit: timedelta = timedelta(minutes=4)
    ) -> None:
        """Start it in a folder; ``desk`` is for its own papers, and ``limit`` for all that is typed at once."""
        self.folder = folder
        self._limit = limit
        self._commands, self._printed = desk / "commands", desk / "printed"
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # it and all its jobs are one group, which can be ended as one
        )
        self._tell(BEGIN)

    def type(self, commands: str) -> Answer:
        """Type commands, and wait until they have ended.

        Raises:
            TooLong: They did not.
        """
        self._commands.write_text(f"{commands}\n:\n")  # `source` itself has not failed, too
        self._tell(TYPED.format(commands=f"'{self._commands}'", printed=f"'{self._printed}'"))
        timer = Timer(self._limit.total_seconds(), self.kill)
        timer.start()
        try:
            failed = self._listen()
        finally:
            timer.cancel()
        return Answer(self._printed.read_text(), failed)

    def kill(self) -> None:
        """End it and everything that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._bash.communicate()

    def _tell(self, line: str) -> None:
        assert self._bash.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: whoever listens will hear so
            self._bash.stdin.write(line)
            self._bash.stdin.flush()

    def _listen(self) -> list[tuple[int, str]]:
        """The failures, until it says where it is."""
        assert self._bash.stdout is not None
        failed: list[tuple[int, str]] = []
        for line in self._bash.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "in":
                self.folder = Path(rest)
                return failed
            failed.append((int(word), rest))
        raise TooLong(f"the commands did not end in {self._limit.total_seconds():g} s, or ended the terminal")
