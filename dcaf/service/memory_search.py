"""Find what is remembered by its words, in every engine: it looks at each fact.

A memory has tens of facts, seldom thousands, and nothing counts its changes: to learn which of them an index lacks would take as
long as to read them all. So there is no index, and nothing of a fact is kept a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from dcaf.engines.searching import rank
from dcaf.service.plans import Plan
from dcaf.service.remembered import Remembered
from dcaf.service.search import require_limit
from dcaf.service.search_words import Snippet, build_snippet, find_words, read_query


class FoundFact(NamedTuple):
    """Something that is remembered, and that a search has found.

    Attributes:
        fact: What it is.
        snippet: The part of its key and value that has most of the words.
    """

    fact: Remembered
    snippet: Snippet

    def __repr__(self) -> str:
        return f"FoundFact({self.fact!r})"


def search_facts(facts: Plan[list[Remembered]], query: object, limit: object) -> Plan[list[FoundFact]]:
    """Find facts.

    Args:
        facts: Reads them.
        query: Words, in a text.
        limit: How many at most.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return _search(facts, read_query(query), require_limit(limit))


def _search(facts: Plan[list[Remembered]], words: list[str], limit: int) -> Plan[list[FoundFact]]:
    found = {fact.key: fact for fact in (yield from facts)}
    texts = {key: f"{key}: {', '.join(_list_texts(fact.value))}" for key, fact in found.items()}
    best = rank({key: [word.text for word in find_words(text)] for key, text in texts.items()}, words)
    return [FoundFact(found[key], build_snippet(texts[key], words)) for key in best[:limit]]


def _list_texts(value: Any) -> Iterator[str]:
    """What a value says, as texts: those of a list one after the other, those of a dict with their keys."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from (f"{name} {text}" for text in _list_texts(one))
    elif isinstance(value, list):
        for one in value:
            yield from _list_texts(one)
    elif value is not None:
        yield str(value)
