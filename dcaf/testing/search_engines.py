"""What an engine must do beside that can search, as tests: for those of dcaf, and for one that you write.

    class TestMyEngine(SearchEngineContract):
        def make_engine(self, folder):
            return MyEngine(folder / "rows")

They come after those of ``EngineContract``, which an engine that can search has to pass, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines import Delete, Exists, Not, Plus, Put, Record, Search, SearchEngine, Table, Transaction, Value
from dcaf.engines.words import MOST_CHARACTERS, MOST_WORDS
from dcaf.testing.engines import LOG, ROUNDS, TASKS, EngineContract, catch, put, run_together

NOTES: Final = Table("contract_notes", {"count": int, "words": bytes}, ordered=True, searchable="words")
"""The table of these tests."""

ADA: Final = b"ada---"
BOB: Final = b"bob---"
"""What the keys begin with of the notes of two people."""


class SearchEngineContract(EngineContract):
    """The tests. Inherit from it in a class whose name begins with ``Test``, and say how to make an engine that can search."""

    def make_engine(self, folder: Path) -> SearchEngine:
        """Make an engine that has no rows yet.

        Args:
            folder: An empty folder, which is removed later. An engine with a server takes an empty database there instead.
        """
        raise NotImplementedError

    def test_a_search_finds_the_rows_that_have_a_word_the_best_first(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            write_notes(
                engine, ADA, "no appointment today", "no penicillin today", "a dentist", "penicillin and no more penicillin"
            )
            assert search(engine, ADA, "dentist") == [2]
            assert set(search(engine, ADA, "penicillin", "no")[:2]) == {1, 3}
            assert set(search(engine, ADA, "no", "dentist")) == {0, 1, 2, 3}
            assert search(engine, ADA, "nobody", "appointments") == []
            [(key, row)] = engine.sync.search(Search(NOTES, ADA, ["dentist"], 10))
            assert (key, dict(row)) == (note(ADA, 2).key, {"count": 2, "words": b"a dentist"})

    def test_a_rare_word_counts_more_than_a_frequent_one(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            write_notes(engine, ADA, *["what is the matter"] * 20, "penicillin now please", *["the weather is fine"] * 20)
            assert search(engine, ADA, "is", "the", "penicillin", limit=1) == [20]

    def test_a_word_of_three_characters_finds_those_that_begin_with_it_behind_itself(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            write_notes(engine, ADA, "carpets", "my car", "scar", "in", "inside")
            assert search(engine, ADA, "car") == [1, 0]
            assert search(engine, ADA, "in") == [3]

    def test_a_search_finds_rows_of_its_prefix_alone(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            write_notes(engine, ADA, "penicillin")
            write_notes(engine, BOB, "penicillin", "penicillin")
            assert (search(engine, ADA, "penicillin"), search(engine, b"eve---", "penicillin")) == ([0], [])
            assert set(search(engine, BOB, "penicillin")) == {0, 1}
            assert search(engine, note(BOB, 1).key, "penicillin") == [1]

    def test_a_search_finds_what_the_words_are_now(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            write_notes(engine, ADA, "one", "two", "three")
            first, second, third = (note(ADA, number) for number in range(3))
            put(engine, first, {"words": b"four"})
            put(engine, second, {"count": 7})
            engine.sync.transact(Transaction([], writes=[Delete(third), Put(note(ADA, 3), {"words": b"three", "count": 3})]))
            assert (search(engine, ADA, "one"), search(engine, ADA, "four"), search(engine, ADA, "two")) == ([], [0], [7])
            assert search(engine, ADA, "three") == [3]
            engine.sync.transact(Transaction([], writes=[Put(first, {"words": b"five", "count": 5})]))
            assert (search(engine, ADA, "four"), search(engine, ADA, "five")) == ([], [5])
            put(engine, first, {"words": None})
            put(engine, second, {"words": b""})
            engine.sync.transact(Transaction([], writes=[Delete(note(ADA, 3))]))
            assert search(engine, ADA, "five", "two", "three") == []
            engine.sync.transact(Transaction([], writes=[Delete(first), Delete(second)]))
            put(engine, first, {"words": b"six", "count": 6})  # perhaps where the index had another row
            assert (search(engine, ADA, "one", "two", "three", "four", "five"), search(engine, ADA, "six")) == ([], [6])

    def test_what_was_not_written_is_not_found(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            write_notes(engine, ADA, "one")
            record = note(ADA, 0)
            refused = Transaction([record], when=Not(Exists(record)), writes=[Put(record, {"words": b"two"})])
            assert not engine.sync.transact(refused).applied
            overflow = [Put(record, {"words": b"two"}), Put(note(ADA, 1), {"count": Plus(2**63 - 1), "words": b"two"})]
            put(engine, note(ADA, 1), {"count": 1})
            catch(EngineError, lambda: engine.sync.transact(Transaction([], writes=overflow)))
            assert (search(engine, ADA, "two"), search(engine, ADA, "one")) == ([], [0])

    def test_words_of_any_language_are_found_and_long_rows(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            longest = "\u00e4" * MOST_CHARACTERS
            many = " ".join(f"w{number}" for number in range(MOST_WORDS - 1))
            write_notes(engine, ADA, "\u00e4rztin", "\u5934\u75db \U0001f600", longest, f"{many} end", "\x80\u07ff\uffff")
            assert search(engine, ADA, "\u00e4rztin") == [0]
            assert search(engine, ADA, "\u5934\u75db") == search(engine, ADA, "\U0001f600") == [1]
            assert set(search(engine, ADA, "\u00e4" * 3)) == {2}
            assert search(engine, ADA, "end", "w3998") == [3]
            assert (search(engine, ADA, "\x80\u07ff"), search(engine, ADA, "\x80\u07ff\uffff")) == ([], [4])

    def test_a_search_takes_words_alone_and_says_what_else_is_wrong(self, tmp_path: Path) -> None:
        with self._searching(tmp_path) as engine:
            assert search(engine, ADA, "penicillin") == []
            for words in ([], ["No"], ["a b"], ['"'], ["a*"], ["'"], ["a\x00"], [""], [b"a"], "a", ["x" * 41], ["a"] * 33, None):
                catch(ConfigurationError, lambda words=words: Search(NOTES, ADA, words, 1))  # type: ignore[misc]
            for given in ("x", None, 1):
                catch(ConfigurationError, lambda given=given: engine.sync.search(given))  # type: ignore[misc]
            catch(ConfigurationError, lambda: Search(NOTES, ADA[:5], ["a"], 1))
            catch(ConfigurationError, lambda: Search(NOTES, ADA, ["a"], 0))
            catch(ConfigurationError, lambda: Search(LOG, ADA, ["a"], 1))
            for wrong in (b"No", b"a  b", b" a", b"a\nb", b"\xff", b"a" * 41, b"a " * 4_000 + b"a"):
                catch(ConfigurationError, lambda wrong=wrong: put(engine, note(ADA, 0), {"words": wrong}))  # type: ignore[misc]

    def test_many_write_while_many_search(self, tmp_path: Path) -> None:
        async def run(engine: SearchEngine) -> None:
            engine.declare([NOTES])

            async def write() -> None:
                for number in range(ROUNDS):
                    await engine.transact(Transaction([], writes=[Put(note(ADA, number), {"count": number, "words": b"now"})]))
                    await engine.transact(Transaction([], writes=[Delete(note(ADA, number))]))

            async def look() -> None:
                for _ in range(ROUNDS):
                    await engine.search(Search(NOTES, ADA, ["now"], 100))

            await run_together([write, look] * (TASKS // 2))
            assert await engine.search(Search(NOTES, ADA, ["now"], 100)) == []

        self._run(tmp_path, run)  # type: ignore[arg-type]

    @contextmanager
    def _searching(self, folder: Path) -> Iterator[SearchEngine]:
        engine = self.make_engine(folder)
        engine.declare([LOG, NOTES])
        try:
            yield engine
        finally:
            engine.sync.close()


def note(whose: bytes, number: int) -> Record:
    """A note of somebody."""
    return Record(NOTES, whose + bytes([number]))


def write_notes(engine: SearchEngine, whose: bytes, *words: str) -> None:
    """Write notes of somebody; the first has the number 0."""
    for number, text in enumerate(words):
        put(engine, note(whose, number), {"count": number, "words": text.encode()})


def search(engine: SearchEngine, prefix: bytes, *words: str, limit: int = 100) -> list[Value]:
    """The numbers of the notes that a search finds, the best first."""
    return [row["count"] for _, row in engine.sync.search(Search(NOTES, prefix, words, limit))]
