"""A search as data: which words, of which rows; and how rows are ranked where no server does it.

>>> from dcaf.engines.transactions import Table
>>> NOTES = Table("notes", {"words": bytes}, ordered=True, searchable="words")
>>> Search(NOTES, b"p-123/", ("penicillin", "no"), limit=10).terms
[('penicillin', False), ('no', False), ('penicillin', True)]
>>> rank({1: ["no", "appointment"], 2: ["no", "penicillin"], 3: ["a", "dentist"]}, ("penicillin", "no"))
[2, 1]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeGuard, TypeVar, cast

from dcaf.core.arguments import has_methods, require
from dcaf.core.errors import ConfigurationError
from dcaf.core.parts import ABSENT
from dcaf.engines.base import Engine, SyncEngine
from dcaf.engines.transactions import LARGEST, MOST_KEY_BYTES, Page, Range, Table
from dcaf.engines.words import SCOPE_BYTES, SHORTEST_START, WORD

K = TypeVar("K")

MOST_ASKED: Final = 32
"""How many words a search has at most."""

SATURATION: Final = 1.2
LENGTH_WEIGHT: Final = 0.75
"""The two constants of BM25 (Robertson and Zaragoza, 2009), as SQLite's FTS5 has them."""


@dataclass(frozen=True, slots=True)
class Search:
    """Rows of a searchable table that have any of some words, the best first.

    A word of three characters or more also finds those that begin with it.

    Attributes:
        table: The table.
        prefix: What the keys of the rows begin with: 6 bytes at least.
        words: 1 to 32 words, as a searchable column has them.
        limit: How many rows at most.
        partition: Where its rows lie.

    Raises:
        ConfigurationError: The table is none or not searchable, the prefix is too short, a word is none, or the limit or the
            partition is no such number.
    """

    table: Table
    prefix: bytes = field(repr=False)
    words: Sequence[str] = field(repr=False)
    limit: int
    partition: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.table, Table) or self.table.searchable is None:
            raise ConfigurationError('A Search is one of a Table(..., ordered=True, searchable="words").')
        prefix = require("prefix= of a Search", self.prefix, bytes, "bytes")
        if not SCOPE_BYTES <= len(prefix) <= MOST_KEY_BYTES:
            raise ConfigurationError(f"prefix= of a Search is {SCOPE_BYTES} to {MOST_KEY_BYTES} bytes.")
        words = require("words= of a Search", self.words, (list, tuple), "a list of words")
        if not 1 <= len(words) <= MOST_ASKED or not all(isinstance(word, str) and WORD.fullmatch(word) for word in words):
            raise ConfigurationError(f"words= of a Search is 1 to {MOST_ASKED} words of small letters and digits.")
        if not 1 <= require("limit= of a Search", self.limit, int, "a number of rows, 1 or more") <= LARGEST:
            raise ConfigurationError("limit= of a Search is 1 or more.")
        Range.of_prefix(self.table, prefix, self.limit, partition=self.partition)  # refuses a partition that is none

    @property
    def column(self) -> str:
        """The column that has the words."""
        return cast("str", self.table.searchable)

    @property
    def rows(self) -> Range:
        """The rows that it looks at."""
        return Range.of_prefix(self.table, self.prefix, LARGEST, partition=self.partition)

    @property
    def terms(self) -> list[tuple[str, bool]]:
        """As of ``list_terms``."""
        return list_terms(self.words)


class SyncSearchEngine(SyncEngine, Protocol):
    """The methods of an engine that can search, for code that runs on no event loop. They block."""

    def search(self, wanted: Search) -> Page:
        """As of an engine that can search."""


class SearchEngine(Engine, Protocol):
    """An engine that can search. One that cannot has no such method."""

    @property
    def sync(self) -> SyncSearchEngine:
        """The same methods without ``await``."""

    async def search(self, wanted: Search) -> Page:
        """Find rows by their words: keys and rows, the best first. How it ranks them is the engine's own.

        Raises:
            EngineError: It could not be done.
            ConfigurationError: The table was not declared, or the server cannot search.
        """


def can_search(engine: Engine) -> TypeGuard[SearchEngine]:
    """Whether an engine can search."""
    return has_methods(engine, "search") and has_methods(getattr(engine, "sync", ABSENT), "search")


def check_search(wanted: Search, partitions: int = 1) -> None:
    """Refuse what ``search`` cannot do.

    Args:
        wanted: What it was given.
        partitions: How many partitions the engine has.

    Raises:
        ConfigurationError: It is no Search, or of a partition that the engine has not.
    """
    most = require("partitions=", partitions, int, "a number of partitions")
    if require("search()", wanted, Search, "a Search").partition >= most:
        raise ConfigurationError(f"The partition of a Search is less than {most}, as many as this engine has.")


def list_terms(words: Sequence[str]) -> list[tuple[str, bool]]:
    """What a search looks for: each word as it is and, where it is long enough, as the beginning of others."""
    found = list(dict.fromkeys(words))
    return [(word, False) for word in found] + [(word, True) for word in found if len(word) >= SHORTEST_START]


def rank(documents: Mapping[K, Sequence[str]], words: Sequence[str]) -> list[K]:
    """The keys of documents that have any of some words, the best first by BM25; of equally good ones the last first.

    Args:
        documents: Key -> words.
        words: What is searched for.
    """
    lengths = {key: len(document) for key, document in documents.items() if document}
    mean = sum(lengths.values()) / max(1, len(lengths))
    scores: dict[K, float] = {}
    for term in list_terms(words):
        counts = {key: count for key in lengths if (count := _count(term, documents[key]))}
        rarity = math.log(1 + (len(lengths) - len(counts) + 0.5) / (len(counts) + 0.5))
        for key, count in counts.items():
            length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths[key] / mean
            scores[key] = scores.get(key, 0.0) + rarity * count * (SATURATION + 1) / (count + SATURATION * length)
    places = {key: place for place, key in enumerate(lengths)}
    return sorted(scores, key=lambda key: (scores[key], places[key]), reverse=True)


def _count(term: tuple[str, bool], words: Sequence[str]) -> int:
    word, is_start = term
    return sum(other.startswith(word) for other in words) if is_start else words.count(word)
