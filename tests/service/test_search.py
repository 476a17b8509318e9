"""A search finds what is kept now, of one user alone, and nothing else; and a turn pays nothing for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final, cast

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dcaf.core import (
    ConfigurationError,
    EngineError,
    SessionArchivedError,
    SessionClosedError,
    SessionExistsError,
    SessionValueError,
    UnknownSessionError,
)
from dcaf.engines import AllOf, MemoryEngine, Outcome, Page, Search, SqliteEngine, Transaction
from dcaf.engines.sqlite.worker import Job
from dcaf.engines.sqlite.writer import Writer
from dcaf.engines.words import SHORTEST_START
from dcaf.service import SessionService, search, search_index
from dcaf.service.plans import Plan, run
from dcaf.service.search_index import AT_ONCE
from dcaf.service.search_words import find_words
from dcaf.service.tables import DERIVED, INDEXED, WORDS, Owner
from dcaf.testing import FrozenClock
from tests.service.kept_places import Calls, KeptPlace, Watched, find_kept_place

SEARCHING: Final = ("memory", "memory-8", "sqlite", "postgres")
"""The kinds of places that can search."""

EXAMPLES: Final = max(30, round(1_500 * float(os.environ.get("DCAF_SCALE", "0.02"))))

SAID: Final = ("red apples", "a green pear", "red wine and a red rose", "nothing")


@pytest.fixture(params=SEARCHING)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    """Each kind of place that can search, without rows."""
    found = find_kept_place(request.param, tmp_path)
    yield found
    found.close()


@pytest.fixture
def sessions() -> SessionService:
    """A service in memory, for rules that do not depend on the engine."""
    return SessionService(MemoryEngine(partitions=8), app="clinic")


def say(sessions: SessionService, user: str | None, session_id: str, *texts: str) -> None:
    """Have a session with messages."""
    sessions.sync.get_or_create(user=user, id=session_id)
    sessions.sync.append(user=user, id=session_id, messages=[("user", text) for text in texts])


def find(sessions: SessionService, query: str, user: str | None = "p", **arguments: Any) -> set[tuple[str, int | None]]:
    """The messages that a search finds."""
    return {(hit.session, hit.message.number) for hit in sessions.sync.search(query, user=user, **{"limit": 100, **arguments})}


def rows_of(sessions: SessionService) -> int:
    """How many rows of the index there are, of whatever user."""
    return sum(len(sessions.engine.sync.scan(table, limit=10_000)) for table in DERIVED)


# What is found


def test_a_search_finds_messages_of_all_sessions_of_a_user_with_the_part_that_shows_why(place: KeptPlace) -> None:
    sessions = place.open_service()
    say(sessions, "p", "v", *SAID)
    say(sessions, "p", "w", "A Red\nCar!", "blue")
    hits = sessions.sync.search("red", user="p")
    assert {(hit.session, hit.message.content) for hit in hits} == {("v", SAID[0]), ("v", SAID[2]), ("w", "A Red\nCar!")}
    assert {hit.snippet.text[slice(*hit.snippet.marks[0])] for hit in hits} == {"red", "Red"}
    assert len(sessions.sync.search("red", user="p", limit=2)) == 2
    assert find(sessions, "red", id="w") == {("w", 1)}
    assert [hit.message.number for hit in sessions.sync.search("rose wine", user="p")] == [3]


def test_a_search_finds_nothing_of_another_user_or_of_another_application(place: KeptPlace) -> None:
    sessions, shop = place.open_service(), place.open_service(app="shop")
    for service, user in ((sessions, "p"), (sessions, "q"), (shop, "p"), (sessions, None)):
        say(service, user, "v", f"red {user} {service.app}")
    assert [hit.message.content for hit in sessions.sync.search("red", user="p")] == ["red p clinic"]
    assert [hit.message.content for hit in shop.sync.search("red", user="p")] == ["red p shop"]
    assert [hit.message.content for hit in sessions.sync.search("red", user=None, id="v")] == ["red None clinic"]
    assert find(sessions, "red", user="nobody") == set()
    with pytest.raises(ConfigurationError, match="alone"):
        sessions.sync.search("red", user=None)
    for wrong in ({"user": "p", "id": "w"}, {"user": None, "id": "w"}):
        with pytest.raises(UnknownSessionError):
            sessions.sync.search("red", **wrong)


def test_a_search_reads_what_was_committed_before_it_whoever_wrote_it(place: KeptPlace) -> None:
    sessions, other = place.open_service(), place.open_service()
    with sessions.sync.open(user="p", id=None) as session:
        session.messages.add("user", "one")
    name = session.id
    assert find(sessions, "one") == {(name, 1)}
    other.sync.append(user="p", id=name, messages=[("assistant", "two")])
    assert find(sessions, "two") == find(other, "two") == {(name, 2)}
    assert sessions.sync.fork(user="p", id=name, new_id="f", at=1).messages == 1
    assert find(other, "one two") == {(name, 1), (name, 2), ("f", 1)}
    with sessions.sync.open(user="p", id=name) as session:
        session.messages.add("user", "three")
        assert [hit.message.number for hit in session.messages.sync.search("one three")] == [1]
    assert find(sessions, "three") == {(name, 3)}


def test_many_messages_are_indexed_in_steps_and_each_once(place: KeptPlace) -> None:
    sessions = place.open_service()
    count = 2 * AT_ONCE + 3
    say(sessions, "p", "v", *[f"note w{number}" for number in range(1, count + 1)])
    assert find(sessions, f"w1 w{AT_ONCE} w{AT_ONCE + 1} w{count}") >= {("v", 1), ("v", AT_ONCE), ("v", AT_ONCE + 1), ("v", count)}
    assert rows_of(sessions) == count + 1
    assert len(find(sessions, "note")) == count if count <= 100 else 100


@pytest.mark.parametrize("way", ["asyncio", "trio", "sync"])
def test_the_ways_to_call_it_find_the_same(way: str, tmp_path: Path) -> None:
    place = find_kept_place("sqlite", tmp_path)
    sessions = place.open_service()
    say(sessions, "p", "v", *SAID)

    async def ask(calls: Calls) -> list[list[int | None]]:
        whole = await calls.ask("search", "red", user="p", limit=5)
        async with calls.open(user="p", id="v") as session:
            session.memory.set("colour", "red")
            if way == "sync":
                found, facts = session.messages.sync.search("red"), session.memory.sync.search("red")
            else:
                found, facts = await session.messages.search("red"), await session.memory.search("red")
        memory = sessions.memory(user="p")
        later = memory.sync.search("red") if way == "sync" else await memory.search("red")
        assert [hit.fact.key for hit in [*facts, *later]] == ["colour", "colour"]
        return [[hit.message.number for hit in hits] for hits in (whole, found)]

    assert Calls(way, sessions).run(ask) == [[1, 3], [1, 3]]
    place.close()


def test_parts_and_results_are_found_by_their_texts_and_what_is_no_text_is_not(sessions: SessionService) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    parts = [{"type": "text", "text": "an apple"}, {"type": "image_url", "image_url": {"url": "pear"}}, {"type": "text", "text": 5}]
    messages = [
        {"role": "user", "content": parts, "metadata": {"plum": "plum"}},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "a cherry", "tool_call_id": "c1"},
    ]
    sessions.sync.create(user="p", id="v")
    sessions.sync.append(user="p", id="v", messages=messages)
    assert find(sessions, "apple pear plum cherry look") == {("v", 1), ("v", 3)}
    assert sessions.sync.search("apple", user="p")[0].snippet.text == "an apple"


# What is gone


def _expire(sessions: SessionService, clock: FrozenClock) -> None:
    clock.tick(timedelta(days=2))


def _purge_expired(sessions: SessionService, clock: FrozenClock) -> None:
    clock.tick(timedelta(days=2))
    assert sessions.sync.purge().sessions == 1


def _recreate(sessions: SessionService, clock: FrozenClock) -> None:
    sessions.sync.delete(user="p", id="v")
    say(sessions, "p", "v", "blue", "blue", "blue")


def _rewind_and_go_on(sessions: SessionService, clock: FrozenClock) -> None:
    sessions.sync.rewind(user="p", id="v", to=0)
    say(sessions, "p", "v", *["blue"] * 4)


def _archive_idle(sessions: SessionService, clock: FrozenClock) -> None:
    clock.tick(timedelta(hours=1))
    assert sessions.sync.archive(idle=timedelta(minutes=1)) == 1


def _rewind_and_say(sessions: SessionService) -> None:
    sessions.sync.rewind(user="p", id="v", to=1)
    say(sessions, "p", "v", *["red new"] * 60)


def _delete_and_say(sessions: SessionService) -> None:
    sessions.sync.delete(user="p", id="v")
    say(sessions, "p", "v", *["red new"] * 60)


GOING: Final[dict[str, Callable[[SessionService, FrozenClock], object]]] = {
    "deleted": lambda sessions, _: sessions.sync.delete(user="p", id="v"),
    "erased": lambda sessions, _: sessions.sync.erase(user="p"),
    "purged": lambda sessions, _: sessions.sync.purge(before=datetime.now(UTC) + timedelta(days=1)),
    "purged of a user": lambda sessions, _: sessions.sync.purge(user="p", before=datetime.now(UTC) + timedelta(days=1)),
    "expired": _expire,
    "expired and purged": _purge_expired,
    "archived": lambda sessions, _: sessions.sync.archive(user="p", id="v"),
    "archived with all": _archive_idle,
    "rewound": lambda sessions, _: sessions.sync.rewind(user="p", id="v", to=0),
    "rewound to a checkpoint": lambda sessions, _: sessions.sync.rewind(user="p", id="v", checkpoint="start"),
    "rewound before a message": lambda sessions, _: sessions.sync.rewind(user="p", id="v", message=1),
    "rewound and gone on": _rewind_and_go_on,
    "deleted and made again": _recreate,
}


@pytest.mark.parametrize("is_indexed", [True, False], ids=["indexed", "behind"])
@pytest.mark.parametrize("how", GOING)
def test_what_is_gone_is_never_found(how: str, is_indexed: bool) -> None:
    clock = FrozenClock(datetime.now(UTC))
    sessions = SessionService(MemoryEngine(clock=clock, partitions=8), app="clinic", ttl=timedelta(days=1))
    sessions.sync.create(user="p", id="v")
    sessions.sync.checkpoint(user="p", id="v", name="start")
    say(sessions, "p", "v", *SAID)
    assert not is_indexed or len(find(sessions, "red")) == 2
    GOING[how](sessions, clock)
    if how not in {"expired", "archived", "archived with all"}:
        assert b"red" not in b"".join(cast("bytes", row["words"]) for _, row in sessions.engine.sync.scan(WORDS))
    assert find(sessions, "red") == set()
    if "gone on" not in how and "again" not in how and "rewound" not in how:
        assert rows_of(sessions) == 0


@pytest.mark.parametrize("how", ["deleted", "erased", "purged", "archived", "rewound", "deleted and made again"])
def test_what_is_gone_is_never_found_on_each_engine(how: str, place: KeptPlace) -> None:
    sessions = place.open_service()
    say(sessions, "p", "v", *SAID)
    assert len(find(sessions, "red")) == 2
    sessions.sync.append(user="p", id="v", messages=[("user", "red again")])  # this lies behind
    GOING[how](sessions, FrozenClock(datetime.now(UTC)))
    assert find(sessions, "red") == set()
    assert rows_of(sessions) == (4 if "again" in how else 1 if how == "rewound" else 0)


def test_an_archived_session_leaves_the_index_and_comes_back_with_its_restoration(place: KeptPlace) -> None:
    sessions = place.open_service()
    say(sessions, "p", "v", *SAID)
    find(sessions, "red")
    sessions.sync.archive(user="p", id="v")
    assert (rows_of(sessions), find(sessions, "red")) == (0, set())
    with pytest.raises(SessionArchivedError):
        sessions.sync.search("red", user="p", id="v")
    sessions.sync.restore(user="p", id="v")
    assert find(sessions, "red") == {("v", 1), ("v", 3)}


def test_words_that_an_archive_has_left_behind_are_dropped_by_the_next_search(sessions: SessionService) -> None:
    say(sessions, "p", "v", *SAID)
    find(sessions, "red")
    plan = sessions._calls.archive("p", "v")
    outcome = sessions.engine.sync.transact(next(plan))  # type: ignore[arg-type]
    sessions.engine.sync.transact(plan.send(outcome))  # type: ignore[arg-type]
    plan.close()  # it has died
    assert rows_of(sessions) == 5
    assert (find(sessions, "red"), rows_of(sessions)) == (set(), 0)


# The law


NAMES = st.sampled_from(["v", "w"])
STEPS = st.one_of(
    st.tuples(st.just("say"), NAMES, st.integers(1, 3)),
    st.tuples(st.just("turn"), NAMES, st.integers(0, 2)),
    st.tuples(st.sampled_from(["rewind", "fork"]), NAMES, st.integers(0, 6)),
    st.tuples(st.sampled_from(["delete", "archive", "restore", "close", "purge", "find", "find here"]), NAMES, st.just(0)),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=14))
@example([("say", "v", 3), ("find", "v", 0), ("rewind", "v", 1), ("say", "v", 2), ("find", "v", 0)])
@example([("say", "v", 3), ("find", "v", 0), ("archive", "v", 0), ("restore", "v", 0), ("find", "v", 0)])
def test_a_search_finds_just_what_a_look_at_each_message_finds(program: Sequence[tuple[str, str, int]]) -> None:
    play(SessionService(MemoryEngine(partitions=8), app="clinic"), program)


@settings(max_examples=max(5, EXAMPLES // 10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.lists(STEPS, max_size=14))
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_search_finds_just_that_on_each_engine(kind: str, program: Sequence[tuple[str, str, int]], tmp_path: Path) -> None:
    place = find_kept_place(kind, tmp_path)
    play(place.open_service(), program)
    place.close()


def play(sessions: SessionService, program: Sequence[tuple[str, str, int]]) -> None:
    """Do steps to two sessions, and look that each search finds what is there."""
    for number, (step, name, count) in enumerate([*program, ("find", "v", 0)]):
        with suppress(UnknownSessionError, SessionArchivedError, SessionClosedError, SessionExistsError, ConfigurationError):
            take_step(sessions, step, name, count, f"red w{number}")


def take_step(sessions: SessionService, step: str, name: str, count: int, text: str) -> None:
    sync = sessions.sync
    if step == "say":
        say(sessions, "p", name, *[text] * count)
    elif step == "turn":
        with sync.open(user="p", id=name) as session:
            session.incr("n")
            for _ in range(count):
                session.messages.add("user", text)
    elif step == "rewind":
        sync.rewind(user="p", id=name, to=count)
    elif step == "fork":
        sync.fork(user="p", id=name, new_id=f"{name}{text}", at=count)
    elif step == "purge":
        sync.purge()
    elif step == "find":
        said = live(sessions)
        for word in {"red", *(word for _, _, content in said for word in content.split())}:
            assert find(sessions, word) == {(one, at) for one, at, content in said if has(content, word)}
    elif step == "find here":
        assert find(sessions, "red", id=name) == {(one, at) for one, at, _ in live(sessions) if one == name}
    else:
        getattr(sync, step)(user="p", id=name)


def has(content: str, word: str) -> bool:
    """Whether a text has a word, or a longer one that begins with it."""
    return any(other == word or (len(word) >= SHORTEST_START and other.startswith(word)) for other in content.split())


def live(sessions: SessionService) -> list[tuple[str, int, str]]:
    """All messages of a user: session, number, text."""
    return [
        (kept.id, message.number or 0, str(message.content))
        for kept in sessions.sync.list(user="p", limit=1000).items
        for message in sessions.sync.messages(user="p", id=kept.id, limit=1000).items
    ]


# Beside others


class Searched(Watched):
    """An engine whose transactions are counted, and that can search.

    Attributes:
        transactions: Those that were sent to it.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.transactions: list[Transaction] = []
        self.sync.search = self._search
        self._whole = self.sync.transact
        self.sync.transact = self._transact

    def _transact(self, transaction: Transaction) -> Outcome:
        self.transactions.append(transaction)
        outcome: Outcome = self._whole(transaction)
        return outcome

    async def search(self, wanted: Search) -> Page:
        return self._search(wanted)

    def _search(self, wanted: Search) -> Page:
        self.count()
        page: Page = self._engine.sync.search(wanted)  # type: ignore[attr-defined]
        return page


BESIDE: Final[dict[str, Callable[[SessionService], object]]] = {
    "purge": lambda sessions: sessions.sync.purge(before=datetime.now(UTC) + timedelta(days=1)),
    "delete": lambda sessions: sessions.sync.delete(user="p", id="v"),
    "erase": lambda sessions: sessions.sync.erase(user="p"),
    "archive": lambda sessions: sessions.sync.archive(user="p", id="v"),
    "archive and restore": lambda sessions: (sessions.sync.archive(user="p", id="v"), sessions.sync.restore(user="p", id="v")),
    "rewind": lambda sessions: sessions.sync.rewind(user="p", id="v", to=1),
    "rewind and say": _rewind_and_say,
    "delete and say": _delete_and_say,
    "say": lambda sessions: say(sessions, "p", "v", "red new"),
    "search": lambda sessions: find(sessions, "red"),
}


def search_beside(how: str, step: int) -> tuple[int, list[str]]:
    """Search, and do something else before one of the steps of the search; returns how many steps there were, and what is wrong."""
    plain = MemoryEngine(partitions=8)
    other = SessionService(plain, app="clinic")
    say(other, "p", "v", *["red old"] * (AT_ONCE + 5))
    watched = Searched(plain)
    watched.before(step, lambda: BESIDE[how](other))
    first = SessionService(watched, app="clinic").sync.search("old", user="p", limit=100)
    steps, wrong = watched.done, list[str]()
    said = {(one, at): content for one, at, content in live(other)}
    if any(hit.message.content != "red old" or said.get((hit.session, hit.message.number or 0)) != "red old" for hit in first):
        wrong.append("what is gone was found")
    if find(other, "red") != set(said) or find(other, "new") != {place for place, text in said.items() if "new" in text}:
        wrong.append("a later search finds something else than what is there")
    left = [key for key, _ in plain.sync.scan(WORDS, limit=1000)]
    if len(left) != len(said):
        wrong.append("words of other messages are left")
    return steps, wrong


@pytest.mark.parametrize("how", BESIDE)
def test_whatever_happens_between_two_steps_of_a_search_nothing_gone_is_found_then_or_later(how: str) -> None:
    steps, _ = search_beside(how, 1_000)
    for step in range(steps):
        assert search_beside(how, step)[1] == [], f"before step {step}"


def _write_anyway(*given: Any) -> Transaction:
    whole = WHOLE_WRITE(*given)
    return Transaction([], writes=whole.writes)


def _trust_what_is_there(place: Any, row: Any, done: int, outcome: Outcome) -> Transaction:
    whole = WHOLE_WRITE(place, row, done, outcome)
    assert isinstance(whole.when, AllOf)
    return Transaction(whole.reads, when=whole.when.first, writes=whole.writes)  # not the last message of the step


WHOLE_WRITE = search_index._write


@pytest.mark.parametrize("broken", [_write_anyway, _trust_what_is_there], ids=["no condition", "another message"])
def test_control_an_index_that_is_written_without_a_look_is_noticed(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "_write", broken)
    assert any(search_beside(how, step)[1] for how in BESIDE for step in range(4))


def test_control_a_search_that_does_not_read_what_it_has_found_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_is_same", lambda session, message, indexed: message is not None)
    steps, _ = search_beside("rewind and say", 1_000)
    assert any(search_beside("rewind and say", step)[1] for step in range(steps))


@pytest.mark.parametrize("forgotten", [WORDS, INDEXED], ids=lambda table: table.name)
def test_control_rows_of_the_index_that_stay_are_noticed(forgotten: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.service.dropping.DERIVED", tuple(table for table in DERIVED if table is not forgotten))
    with pytest.raises(AssertionError):
        test_what_is_gone_is_never_found("purged", is_indexed=True)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_writers_and_searches_at_once_end_with_an_index_of_what_is_there(kind: str, tmp_path: Path) -> None:
    place = find_kept_place(kind, tmp_path)
    sessions = place.open_service()
    say(sessions, "p", "v", "red 0")

    def write(number: int) -> None:
        for at in range(12):
            say(sessions, "p", "v", *[f"red n{number}x{at}"] * 5)
            with suppress(ConfigurationError):  # the other one has taken it back further
                sessions.sync.rewind(user="p", id="v", message=3 + 2 * at)

    def look(number: int) -> None:
        for _ in range(12):
            sessions.sync.search("red", user="p", id="v" if number else None, limit=100)

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(write, 0), threads.submit(write, 1), threads.submit(look, 0), threads.submit(look, 1)]:
            future.result()
    said = live(sessions)
    assert find(sessions, "red") == {(one, at) for one, at, _ in said}
    for number in (0, 1):
        for at in range(12):
            word = f"n{number}x{at}"
            assert find(sessions, word) >= {(one, place) for one, place, content in said if word in content.split()}
    assert rows_of(sessions) == len(said) + 1
    place.close()


# What a turn pays


def turn(sessions: SessionService, session_id: str) -> None:
    with sessions.sync.open(user="p", id=session_id) as session:
        session["step"] = 1
        session.incr("n")
        session.messages.add("user", "red")
        session.memory.set("colour", "red")


def test_a_turn_asks_the_same_before_and_after_a_search_and_nothing_of_its_tables() -> None:
    watched = Searched(MemoryEngine())
    sessions = SessionService(watched, app="clinic")
    asked: list[list[tuple[list[str], int]]] = []
    say(sessions, "p", "v", *SAID)
    turn(sessions, "v")
    for _ in range(2):
        watched.transactions.clear()
        turn(sessions, "v")
        asked.append([describe(one) for one in watched.transactions])
        assert find(sessions, "red")
    assert asked[0] == asked[1]
    assert len(asked[0]) == 3  # it commits what the user remembers with what it found of it
    assert not {name for tables, _ in asked[0] for name in tables} & {table.name for table in DERIVED}


def describe(transaction: Transaction) -> tuple[list[str], int]:
    return [one.table.name for one in transaction.named], len(transaction.writes)


def test_a_turn_runs_the_same_statements_in_a_file_that_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    monkeypatch.setattr(sqlite3, "connect", partial(_connect_traced, sqlite3.connect, statements))
    sessions = SessionService(f"sqlite:///{tmp_path}/rows.db", app="clinic")
    say(sessions, "p", "v", *SAID)
    turn(sessions, "v")
    found: list[list[str]] = []
    for _ in range(2):
        turn(sessions, "v")  # the connections know their tables
        statements.clear()
        turn(sessions, "v")
        found.append([_name(statement) for statement in statements])
        assert find(sessions, "red")
    assert found[0] == found[1]
    assert len(found[0]) > 5
    assert not any("words" in name for name in found[0])
    assert any("words" in statement for statement in statements), "nothing was traced"
    sessions.engine.sync.close()


def _connect_traced(connect: Any, seen: list[str], *given: Any, **arguments: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = connect(*given, **arguments)
    connection.set_trace_callback(seen.append)
    return connection


def _name(statement: str) -> str:
    """A statement without its values."""
    return " ".join([statement.split(" ", maxsplit=1)[0], *statement.split('"')[1::2]])


@pytest.mark.parametrize(("thread", "waits"), [("_searcher", False), ("_reader", True)], ids=["searches", "control: reads"])
def test_no_turn_waits_for_a_search_in_a_file(thread: str, waits: bool, tmp_path: Path) -> None:
    sessions = SessionService(SqliteEngine(tmp_path / "rows.db", timeout=timedelta(milliseconds=400)), app="clinic")
    turn(sessions, sessions.sync.create(user="p", id="v").id)
    is_over = Event()
    worker = getattr(sessions.engine._calls, thread)  # type: ignore[attr-defined]
    job = Job(lambda *_: is_over.wait(5), writes=False)
    job.woken = Lock()
    job.woken.acquire()
    worker.put(job)
    try:
        with pytest.raises(EngineError) if waits else nullcontext():
            turn(sessions, "v")
    finally:
        is_over.set()
        sessions.engine.sync.close()


# What is asked


ODD: Final = (
    "",
    " ",
    "?!",
    '"',
    "'",
    "red'",
    '"red',
    "red*",
    "*",
    "red AND",
    "NOT red",
    "NEAR(red",
    "red OR",
    "words:red",
    "-red",
    "^red",
    "red\0",
    "\0",
    "(",
    ")",
    "((((",
    "red:*",
    "red & !x",
    "red <-> x",
    "\\",
    "\\'",
    "%",
    "_",
    "';DROP TABLE dcaf_kept_words;--",
    "\ud800",
    "red \udfff",
    "{red}",
    "red + rose",
    "\u200bred",
    "r\u0301ed",
    "a" * 1_000,
    "red " * 250,
    "\U0001f600",
    "\uffff",
    "1e999",
    "NULL",
    "$1",
    "?",
)


@pytest.mark.parametrize("kind", SEARCHING)
def test_whatever_is_asked_is_words_and_never_an_error(kind: str, tmp_path: Path) -> None:
    place = find_kept_place(kind, tmp_path)
    sessions = place.open_service()
    say(sessions, "p", "v", *SAID)
    for query in ODD:
        expected = {("v", 1), ("v", 3)} if "red" in query.replace("\u0301", "").lower() else set()
        assert find(sessions, query) & {("v", 1), ("v", 3)} == expected, repr(query)
        sessions.sync.memory(user="p").search(query)
    place.close()


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=st.text(max_size=60))
def test_each_text_that_is_kept_is_found_by_its_words(on_file: SessionService, text: str) -> None:
    user, words = os.urandom(8).hex(), [text[word.start : word.end] for word in find_words(text)]
    with suppress(SessionValueError):  # a lone surrogate is not kept
        say(on_file, user, "v", text)
        for query in {text, *words}:
            expected = {("v", 1)} if list(find_words(query)) else set()  # a vowel sign of Lao alone is no word
            assert find(on_file, query, user=user) == expected, ascii(query)


@pytest.fixture(scope="module")
def on_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionService]:
    """A service on one file for many examples."""
    place = find_kept_place("sqlite", tmp_path_factory.mktemp("words"))
    yield place.open_service()
    place.close()


def test_wrong_arguments_fail_at_the_call(sessions: SessionService) -> None:
    memory = sessions.memory(user="p").sync
    wrongs: tuple[Any, ...] = (None, 5, b"red", ["red"], "x" * 1_001)
    for wrong in wrongs:
        for call in (lambda query: sessions.sync.search(query, user="p"), memory.search):
            with pytest.raises(ConfigurationError, match="query="):
                call(wrong)
    for limit in (0, -1, 101, "5", None, True, 2.0):
        for ask in (
            lambda limit: sessions.sync.search("red", user="p", limit=limit),
            lambda limit: memory.search("red", limit=limit),
        ):
            with pytest.raises(ConfigurationError, match="limit="):
                ask(limit)
    for user in ("", 5, "\ud800"):
        with pytest.raises(ConfigurationError):
            sessions.sync.search("red", user=user)  # type: ignore[arg-type]


def test_what_was_found_shows_nothing_of_it_in_a_log(sessions: SessionService) -> None:
    say(sessions, "p-secret", "v", "a secret")
    sessions.sync.memory(user="p-secret").set("secret", "secret")
    shown = repr(sessions.sync.search("secret", user="p-secret")) + repr(sessions.sync.memory(user="p-secret").search("secret"))
    shown += repr(sessions.sync.search("secret", user="p-secret")[0].snippet)
    assert "secret" not in shown


# Engines that cannot


@pytest.mark.parametrize("kind", ["redis", "redis-cluster"])
def test_redis_says_that_it_cannot_and_what_to_do_and_its_memory_can_be_searched(kind: str, tmp_path: Path) -> None:
    place = find_kept_place(kind, tmp_path)
    sessions = place.open_service()
    say(sessions, "p", "v", *SAID)
    with pytest.raises(ConfigurationError, match=r"sqlite:///.*postgresql://.*memory\.search"):
        sessions.sync.search("red", user="p")
    with sessions.sync.open(user="p", id="v") as session:
        with pytest.raises(ConfigurationError, match="cannot search"):
            session.messages.sync.search("red")
        session.memory.set("colour", "red")
    assert [hit.fact.key for hit in sessions.sync.memory(user="p").search("RED")] == ["colour"]
    assert sessions.sync.rewind(user="p", id="v", to=1) == 3
    assert sessions.sync.archive(user="p", id="v") == 1
    assert sessions.sync.erase(user="p").messages == 1
    place.close()


def test_a_sqlite_without_fts5_keeps_sessions_and_says_that_it_cannot_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_none(self: Writer, sql: Any, words: Any) -> None:
        sql.words = None

    monkeypatch.setattr(Writer, "_make_words", make_none)
    sessions = SessionService(f"sqlite:///{tmp_path}/plain.db", app="clinic")
    say(sessions, "p", "v", *SAID)
    with pytest.raises(ConfigurationError, match="FTS5"):
        sessions.sync.search("red", user="p")
    assert sessions.sync.rewind(user="p", id="v", to=1) == 3
    assert sessions.sync.delete(user="p", id="v")


# Memory


def test_a_memory_is_searched_by_keys_and_values_and_finds_what_this_turn_has_set(sessions: SessionService) -> None:
    memory = sessions.sync.memory(user="p")
    memory.set("allergies", ["penicillin", {"since": "spring 2019"}])
    memory.set("doctor", "Dr. Rose")
    sessions.sync.memory(user="q").set("allergies", "penicillin")
    assert [hit.fact.key for hit in memory.search("PENICILLIN")] == ["allergies"]
    assert [hit.fact.value for hit in memory.search("doctors doctor")] == ["Dr. Rose"]
    assert memory.search("spring")[0].snippet.text == "allergies: penicillin, since spring 2019"
    with sessions.sync.open(user="p") as session:
        session.memory.set("pet", "a rose")
        session.memory.here.set("mood", "rosy")
        assert {hit.fact.key for hit in session.memory.sync.search("rose", limit=5)} == {"doctor", "pet"}
        assert [hit.fact.key for hit in session.memory.here.sync.search("ros")] == ["mood"]
        session.memory.delete("doctor")
        assert [hit.fact.key for hit in session.memory.sync.search("rose")] == ["pet"]
        session.memory.clear()
        assert session.memory.sync.search("rose penicillin") == []
    assert memory.search("rose penicillin pet") == []


def test_a_fact_that_is_forgotten_is_never_found() -> None:
    clock = FrozenClock(datetime.now(UTC))
    sessions = SessionService(MemoryEngine(clock=clock), app="clinic")
    memory = sessions.sync.memory(user="p")
    memory.set("a", "red", ttl=timedelta(days=1))
    memory.set("b", "red")
    assert {hit.fact.key for hit in memory.search("red")} == {"a", "b"}
    clock.tick(timedelta(days=2))
    assert [hit.fact.key for hit in memory.search("red")] == ["b"]
    memory.set("b", "blue")
    assert memory.search("red") == []
    memory.set("c", "red")
    sessions.sync.erase(user="p")
    assert memory.search("red blue") == []


# The file


def test_the_index_of_a_file_is_whole_and_has_nothing_of_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    sessions = SessionService(f"sqlite:///{path}", app="clinic")
    say(sessions, "p", "v", *["xylophone"] * 50)
    say(sessions, "p", "w", "red")
    assert len(find(sessions, "xylophone", limit=50)) == 50
    sessions.sync.delete(user="p", id="v")
    sessions.engine.sync.close()
    with sqlite3.connect(path) as database:
        database.execute('INSERT INTO "dcaf_kept_words-words" ("dcaf_kept_words-words") VALUES (\'integrity-check\')')
        database.execute('INSERT INTO "dcaf_kept_words-words" ("dcaf_kept_words-words") VALUES (\'optimize\')')
        found = b"".join(row[0] for row in database.execute('SELECT block FROM "dcaf_kept_words-words_data"'))
    assert b"xylophone" not in found
    assert b"red" in found


def test_a_plan_of_a_search_needs_an_engine_that_can(sessions: SessionService) -> None:
    def plan() -> Plan[Outcome]:
        return (yield Search(WORDS, Owner("clinic", "p", partitions=8).key, ["red"], 1))

    assert run(plan(), sessions.engine).pages == ([],)

    async def main() -> None:
        assert await sessions.search("red", user="p") == []

    anyio.run(main)
