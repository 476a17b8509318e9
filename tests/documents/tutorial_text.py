"""What a tutorial tells its reader to do: its steps, each with the files to write, the commands to type and the pages to open.

>>> step, = steps("## Hello\\n\\nWrite `a.txt.py`:\\n\\n```python\\n1\\n```\\n\\n```sh\\nls\\n```\\n\\n```text\\na.txt.py\\n```\\n")
>>> step.title, [type(action).__name__ for action in step.actions]
('Hello', ['Write', 'Run'])

The conventions: a ``##`` heading begins a step. "Write `name`:" stands right before the ``python`` block that is the whole file.
What an ``sh`` block prints is in the ``text`` block after it; without one it prints nothing. In it ``…`` stands for the rest of a
line, or alone for any lines. ``<!-- exit status 2 -->`` before an ``sh`` block says that its command fails.

What a reader gets wrong: a block that fits none of this is an error, for nobody would know whether it is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

PIECE: Final = re.compile(
    r"^(?:## (?P<title>.+)"
    r"|Write `(?P<name>[^`]+)`:"
    r"|<!-- exit status (?P<status>\d+) -->"
    r"|Open <(?P<page>[^>]+)>.*"
    r"|```(?P<language>\w*)\n(?P<block>(?:(?!```).*\n)*)```)$",
    re.MULTILINE,
)
"""What means something to the reader's hands; all other lines are for the head."""


class Unclear(AssertionError):
    """The text does not say what to do."""


@dataclass(frozen=True, slots=True)
class Write:
    """A file to write, as a whole."""

    line: int
    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Run:
    """Commands to type, what they print, and the status of the one that fails; 0 if none does."""

    line: int
    commands: str
    printed: str = ""
    status: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """A page to open in a browser."""

    line: int
    address: str


Action = Write | Run | Open


@dataclass(frozen=True, slots=True)
class Step:
    """One section, and what is to be done in it, in order."""

    title: str
    actions: list[Action] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """The steps of a tutorial; what stands before the first heading is told, and not done.

    Raises:
        Unclear: A block fits none of the conventions.
    """
    found: list[Step] = []
    pieces = list(_pieces(text))
    if text.count("```") != 2 * sum(piece.is_block for piece in pieces):
        raise Unclear("a block is indented, or not closed")
    while pieces:
        if pieces[0].title:
            found.append(Step(pieces.pop(0).title))
        elif found:
            found[-1].actions.append(_action(pieces))
        else:
            raise Unclear(f"line {pieces[0].line}: this is to be done before the first step")
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    line: int
    title: str
    name: str
    status: str
    page: str
    language: str
    block: str

    @property
    def is_block(self) -> bool:
        return not (self.title or self.name or self.status or self.page)

    def needs(self, language: str, following: list[_Piece]) -> _Piece:
        """The block that must come next."""
        if not following or following[0].language != language:
            raise Unclear(f"line {self.line}: there is no {language} block after this")
        return following.pop(0)


def _pieces(text: str) -> Iterator[_Piece]:
    for found in PIECE.finditer(text):
        yield _Piece(text.count("\n", 0, found.start()) + 1, **found.groupdict(default=""))


def _action(pieces: list[_Piece]) -> Action:
    """Take the pieces of the next action."""
    piece = pieces.pop(0)
    if piece.page:
        return Open(piece.line, piece.page)
    if piece.name:
        return Write(piece.line, piece.name, piece.needs("python", pieces).block)
    if piece.status:
        return _run(piece.needs("sh", pieces), pieces, status=int(piece.status))
    if piece.language == "sh":
        return _run(piece, pieces, status=0)
    raise Unclear(f"line {piece.line}: nobody said what to do with this {piece.language} block")


def _run(piece: _Piece, following: list[_Piece], *, status: int) -> Run:
    printed = following.pop(0).block if following and following[0].language == "text" else ""
    return Run(piece.line, piece.block, printed, status)
