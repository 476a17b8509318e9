"""Messages are added in one trip to the engine where nobody else has written the session, and rightly where somebody has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core.errors import ConfigurationError, SessionClosedError, UnknownSessionError
from dcaf.engines import MemoryEngine, Outcome, Transaction
from dcaf.service import SessionService
from dcaf.service.recent import Recent

CALL = {"id": "c1", "type": "function", "function": {"name": "find_slot", "arguments": "{}"}}
ASKED = {"role": "assistant", "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "14:00"}


class Counting:
    """Counts what an engine is asked."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.asked = 0
        self._transact = engine.sync.transact
        engine.sync.transact = self._count  # type: ignore[method-assign]

    def _count(self, transaction: Transaction) -> Outcome:
        self.asked += 1
        return self._transact(transaction)


class Pair:
    """Two services of one engine, as two processes have them, each of which remembers for itself."""

    def __init__(self) -> None:
        engine = MemoryEngine()
        self.here, self.there = SessionService(engine, app="clinic").sync, SessionService(engine, app="clinic").sync
        self.here.create(user="p-1", id="s")
        self.counting = Counting(engine)

    def add(self, *messages: Any) -> tuple[int, int]:
        """Add messages here; returns how many there are then, and how often the engine was asked."""
        before = self.counting.asked
        return self.here.append(user="p-1", id="s", messages=messages or [("user", "Hello!")]), self.counting.asked - before


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_the_first_takes_two_trips_and_each_later_one_takes_one(pair: Pair) -> None:
    assert [pair.add() for _ in range(3)] == [(1, 2), (2, 1), (3, 1)]


def test_what_another_process_adds_costs_one_trip_more(pair: Pair) -> None:
    pair.add()
    pair.there.append(user="p-1", id="s", messages=[("user", "From there.")])
    assert [pair.add() for _ in range(2)] == [(3, 2), (4, 1)]
    contents = [message.content for message in pair.here.messages(user="p-1", id="s").items]
    assert contents == ["Hello!", "From there.", "Hello!", "Hello!"]


def test_a_result_of_a_call_that_another_process_has_made_is_taken(pair: Pair) -> None:
    pair.add()
    pair.there.append(user="p-1", id="s", messages=[ASKED])
    assert pair.add(ANSWERED) == (3, 2)


def test_a_result_of_a_call_that_another_process_has_answered_is_refused(pair: Pair) -> None:
    pair.add(ASKED)
    pair.there.append(user="p-1", id="s", messages=[ANSWERED])
    with pytest.raises(ConfigurationError, match="answers no open call"):
        pair.add(ANSWERED)
    assert pair.add() == (3, 2)


def change_by_a_turn(pair: Pair) -> int:
    with pair.there.open(user="p-1", id="s") as session:
        session["step"] = 2
    return 2


def make_anew(pair: Pair) -> int:
    pair.there.delete(user="p-1", id="s")
    pair.there.create(user="p-1", id="s")
    return 1


@pytest.mark.parametrize("change", [change_by_a_turn, make_anew])
def test_what_else_happens_to_the_session_is_seen(pair: Pair, change: Callable[[Pair], int]) -> None:
    pair.add()
    assert pair.add()[1] == 1
    total = change(pair)
    assert pair.add() == (total + (change is change_by_a_turn), 2)


@pytest.mark.parametrize(
    ("end", "error"), [("close", SessionClosedError), ("archive", SessionClosedError), ("delete", UnknownSessionError)]
)
def test_a_session_that_has_ended_takes_no_more(pair: Pair, end: str, error: type[Exception]) -> None:
    pair.add()
    getattr(pair.there, end)(user="p-1", id="s")
    with pytest.raises(error):
        pair.add()


def test_control_what_was_known_is_compared(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.service.beside.is_at", lambda row, kept: None)
    pair.add()
    pair.there.append(user="p-1", id="s", messages=[("user", "From there.")])
    assert pair.add() == (2, 1), "the message from there is overwritten"


def test_nothing_that_an_application_wrote_is_remembered() -> None:
    service = SessionService(MemoryEngine(), app="clinic")
    service.sync.create(user="p-1", id="s", title="Secret", labels={"a": "secret"}, metadata={"b": "secret"})
    service.sync.append(user="p-1", id="s", messages=[("user", "secret")])
    kept = next(iter(service._calls._recent._found.values()))
    assert (kept.user, kept.title, kept.labels, kept.metadata) == (None, None, {}, {})


@settings(max_examples=200)
@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=30), st.integers(1, 3))
def test_the_newest_are_remembered(keys: list[bytes], most: int) -> None:
    recent = Recent[int](most)
    for at, key in enumerate(keys):
        recent.note(key, at)
    newest = list(dict.fromkeys(reversed(keys)))[:most]
    last = {key: at for at, key in enumerate(keys)}
    assert {key: recent.find(key) for key in set(keys)} == {key: last[key] if key in newest else None for key in set(keys)}
