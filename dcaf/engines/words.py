"""Words as a searchable column has them, so that each engine splits them in the same way: at a space, and nowhere else.

>>> are_words(b"no penicillin 2026"), are_words("Ärztin".encode()), are_words(b"No"), are_words(b"no-one")
(True, True, False, False)

Of ASCII a word has small letters and digits alone: whatever stands for something in the query language of a server is never there.
"""

from __future__ import annotations

import re
from typing import Final

MOST_WORDS: Final = 4_000
"""How many words one row has at most: the index of PostgreSQL takes a megabyte of them."""

MOST_CHARACTERS: Final = 40
"""How long a word is at most."""

SHORTEST_START: Final = 3
"""How long a word of a search is at least that also finds longer words which begin with it."""

SCOPE_BYTES: Final = 6
"""How much of the beginning of keys a search has at least. It stands before each word in an index: so a search goes through rows of
those keys alone, however many others have the word."""

_WORD: Final = rf"[^\x00-/:-`{{-\x7f]{{1,{MOST_CHARACTERS}}}"
WORD: Final = re.compile(_WORD)
WORDS: Final = re.compile(rf"(?:{_WORD}(?: {_WORD}){{0,{MOST_WORDS - 1}}})?")


def are_words(value: bytes) -> bool:
    """Whether a searchable column may have this."""
    try:
        return WORDS.fullmatch(value.decode()) is not None
    except UnicodeDecodeError:
        return False


def name_scope(key: bytes) -> str:
    """What stands before the words of a row in an index.

    Args:
        key: Its key, or what its key begins with.
    """
    return key[:SCOPE_BYTES].hex()
