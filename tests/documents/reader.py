"""A reader of a tutorial, who does what it says and compares what happens with what it shows.

What a reader gets wrong: steps rest on those before. A step is done once, after them, and not at all where one of them failed.
"""

from __future__ import annotations

import difflib
import re
import urllib.error
import urllib.request
from collections.abc import Sequence

from tests.documents.terminal import Terminal
from tests.documents.tutorial_text import Action, Open, Run, Step, Write


class Untrue(AssertionError):
    """What happens is not what the tutorial shows."""


class Reader:
    """Follows steps, in a terminal."""

    def __init__(self, steps: Sequence[Step], terminal: Terminal) -> None:
        self._steps = list(steps)
        self._terminal = terminal
        self._failed: Step | None = None

    def follow(self, step: Step) -> None:
        """Do a step, after those before it that were not done yet.

        Raises:
            Untrue: Something else happened than the tutorial shows, in this step or in one before it.
            TooLong: Commands did not end.
        """
        while step in self._steps:
            if self._failed is not None:
                raise Untrue(f"not tried, for a step before this one failed: {self._failed.title}")
            self._failed = self._steps[0]
            for action in self._failed.actions:
                self._do(action)
            self._steps.pop(0)
            self._failed = None

    def _do(self, action: Action) -> None:
        match action:
            case Write(name=name, content=content):
                (self._terminal.folder / name).write_text(content)
            case Open():
                _open(action)
            case Run():
                _compare(action, self._terminal)


def _compare(run: Run, terminal: Terminal) -> None:
    answer = terminal.type(run.commands)
    expected = [run.status] if run.status else []
    if [status for status, _ in answer.failed] != expected:
        raise Untrue(f"line {run.line}: {_told(answer.failed)}, not with {run.status}\n{answer.printed}")
    if not fits(run.printed, answer.printed):
        raise Untrue(f"line {run.line}: this is not what is printed\n{_difference(run.printed, answer.printed)}")


def fits(shown: str, printed: str) -> bool:
    """Whether what was printed is what is shown, where ``…`` stands for the rest of a line, or alone for any lines.

    >>> fits("…\\n2 passed in …s", "setting up\\nand on\\n2 passed in 0.31s\\n")
    True
    >>> fits("2 passed in …s", "1 failed\\n2 passed in 0.31s\\n")
    False
    """
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in _lines(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").split("\n")] if text.strip() else []


def _difference(shown: str, printed: str) -> str:
    return "\n".join(difflib.unified_diff(_lines(shown), _lines(printed), "shown", "printed", lineterm=""))


def _told(failed: list[tuple[int, str]]) -> str:
    return "; ".join(f"`{command}` ended with {status}" for status, command in failed) or "all commands ended with 0"


def _open(page: Open) -> None:
    try:
        with urllib.request.urlopen(page.address, timeout=10) as answer:
            text = answer.read().decode()
    except (OSError, ValueError) as error:
        raise Untrue(f"line {page.line}: {page.address} cannot be opened: {error}") from error
    if "<title>" not in text:
        raise Untrue(f"line {page.line}: {page.address} is no page")
