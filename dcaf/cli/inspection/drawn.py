r"""Trees, columns and numbers in plain ASCII, for any terminal, log or ticket.

>>> print("\n".join(tree("two things", [("a", "1 byte"), ("long", "2 bytes")], marked=1)))
two things
|-- a      1 byte
`-> long   2 bytes

What a reader gets wrong: names come from whoever sent the text. What is drawn has no control characters of theirs, so it can
move no cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LONGEST: Final = 60
"""Characters of a name that are shown, at most."""


def tree(title: str, rows: Sequence[tuple[str, str]], *, marked: int | None = None) -> list[str]:
    """A title, and below it rows of a name and some words.

    Args:
        title: The first line.
        rows: The others; an empty name is allowed.
        marked: Which row has an arrow; None for none.
    """
    width = max((len(name) for name, _ in rows), default=0)
    drawn = [title]
    for index, (name, words) in enumerate(rows):
        corner, end = "`" if index == len(rows) - 1 else "|", ">" if index == marked else "-"
        drawn.append(f"{corner}-{end} {name:{width}}   {words}".rstrip())
    return drawn


def columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names and words, the words below one another."""
    return [f"{name:10} {words}".rstrip() for name, words in rows]


def plain(text: str) -> str:
    """A name as it is, without what is not printed, and not too long."""
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown}..."


def count(number: int, word: str) -> str:
    """A number of things: ``1 message``, ``2 messages``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
