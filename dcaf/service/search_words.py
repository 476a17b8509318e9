"""The words of a text, as a search sees them; and the part of a text that shows why it was found.

>>> [word.text for word in find_words("Dr. Müller's 2 ÄRZTE: 頭痛薬")]
['dr', 'muller', 's', '2', 'arzte', '頭痛', '痛薬']
>>> build_snippet("You are allergic to Penicillin.", ["penicillin"])
Snippet(31 characters, 1 marked)

Accents and capitals do not count. Whatever is neither a letter nor a digit is between words, also what a query language would
understand: a search has words, and no syntax. Where a script has no spaces, each two characters that stand together are a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Final, NamedTuple

from dcaf.core.arguments import require
from dcaf.core.errors import ConfigurationError
from dcaf.engines.searching import MOST_ASKED, list_terms
from dcaf.engines.words import MOST_CHARACTERS, MOST_WORDS

MOST_QUERY_CHARACTERS: Final = 1_000

WIDTH: Final = 160
"""How many characters a snippet has at most, without the dots where it is cut."""

BEFORE: Final = 40
"""How many characters stand before the first word that is marked, if the text is long."""

DOTS: Final = "…"

ACCENTS: Final = re.compile("[\u0300-\u036f]+")
NO_WORD: Final = re.compile(r"[\x00-/:-`{-\x7f\s]+")
WITHOUT_SPACES: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]+"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese."""

ONE_LINE: Final = str.maketrans("\n\r\t\v\f\x85\u2028\u2029", " " * 8)


class Word(NamedTuple):
    """A word of a text.

    Attributes:
        text: The word as a search sees it.
        start, end: Where it stands.
    """

    text: str
    start: int
    end: int


class Snippet(NamedTuple):
    """A part of a text.

    Attributes:
        text: The part, in one line; it begins or ends with dots where more of the text is there.
        marks: Where the words of the search stand in it: start and end, in their order.
    """

    text: str
    marks: tuple[tuple[int, int], ...]

    def __repr__(self) -> str:
        return f"Snippet({len(self.text)} characters, {len(self.marks)} marked)"


def find_words(text: str) -> Iterator[Word]:
    """The words of a text, in its order."""
    for match in _find_pattern().finditer(text.replace("_", " ")):
        for start, end in _split(match[0]):
            if word := _fold(match[0][start:end]):
                yield Word(word, match.start() + start, match.start() + end)


def pack_words(text: str) -> bytes:
    """The first words of a text, as a searchable column has them."""
    return " ".join(word.text for word in islice(find_words(text), MOST_WORDS)).encode()


def read_query(query: object) -> list[str]:
    """The words that a search looks for, each once; none of a text that has none.

    Raises:
        ConfigurationError: It is no text, or longer than 1,000 characters.
    """
    text = require("query=", query, str, "the words to look for, in a text")
    if len(text) > MOST_QUERY_CHARACTERS:
        raise ConfigurationError(f"query= has {MOST_QUERY_CHARACTERS:,} characters at most: give the words that matter.")
    return list(dict.fromkeys(word.text for word in find_words(text)))[:MOST_ASKED]


def build_snippet(text: str, words: Sequence[str]) -> Snippet:
    """The part of a text that has most of some words; its beginning where it has none.

    Args:
        text: The text.
        words: What was searched for.
    """
    line = unicodedata.normalize("NFC", text).translate(ONE_LINE)
    terms = list_terms(words)
    found = [(word, asked) for word in islice(find_words(line), MOST_WORDS) if (asked := _find_asked(word.text, terms))]
    start = _find_start(line, found)
    end = len(line) if len(line) <= start + WIDTH else max(line.rfind(" ", start + BEFORE, start + WIDTH), start + WIDTH - BEFORE)
    dots = DOTS if start else ""
    shift = len(dots) - start
    marks = [(word.start + shift, word.end + shift) for word, _ in found if start <= word.start and word.end <= end]
    return Snippet(f"{dots}{line[start:end]}{DOTS if end < len(line) else ''}", tuple(marks))


@cache
def _find_pattern() -> re.Pattern[str]:
    """A letter or a digit, and what belongs to it: the letters of ``re`` leave out the vowel signs of the scripts of India."""
    marks = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)) in {"Mn", "Mc"})
    return re.compile(rf"\w[\w{marks}]*")


def _split(run: str) -> Iterator[tuple[int, int]]:
    """Where the words of a run without spaces begin and end."""
    at = 0
    for match in WITHOUT_SPACES.finditer(run):
        if at < match.start():
            yield at, match.start()
        at = match.end()
        yield from ((start, start + 2) for start in range(match.start(), at - 1))
        if at - match.start() == 1:
            yield match.span()
    if at < len(run):
        yield at, len(run)


def _fold(word: str) -> str:
    """A word without capitals and accents, as a searchable column takes it; an empty text where nothing is left."""
    if word.isascii():
        return word.lower()[:MOST_CHARACTERS]
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", word).casefold())
    return NO_WORD.sub("", unicodedata.normalize("NFC", ACCENTS.sub("", plain)))[:MOST_CHARACTERS]


def _find_asked(word: str, terms: Sequence[tuple[str, bool]]) -> str | None:
    """Which of the words that were searched for a word is, or begins with; None for none."""
    return next((asked for asked, is_start in terms if word == asked or (is_start and word.startswith(asked))), None)


def _find_start(line: str, found: Sequence[tuple[Word, str]]) -> int:
    """Where the part begins that has most of the words, and the first of such parts."""
    if len(line) <= WIDTH or not found:
        return 0
    best, most = found[0][0], 0
    for place, (word, _) in enumerate(found):
        here = {asked for other, asked in found[place : place + WIDTH] if other.end <= word.start - BEFORE + WIDTH}
        if len(here) > most:
            best, most = word, len(here)
    earliest = max(0, min(best.start - BEFORE, len(line) - WIDTH))
    space = line.find(" ", earliest, best.start)
    return 0 if earliest == 0 else (space + 1 if space >= 0 else earliest)
