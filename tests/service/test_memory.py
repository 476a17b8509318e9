"""What a user or a session remembers: a plain dict says what each must find, on memory, in SQLite and in Redis.

Programs of turns and single calls are made up by Hypothesis. Two turns may be open at once, and the clock goes on where it can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import anyio
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dcaf.core.errors import (
    ConfigurationError,
    SessionClosedError,
    SessionTypeError,
    SessionValueError,
    UnknownSessionError,
)
from dcaf.engines import Engine, Exists, Is, MemoryEngine, Not, Record, RedisEngine, SqliteEngine, Transaction
from dcaf.service import SessionService
from dcaf.service.listing import ListPage
from dcaf.service.memory import Memory, end_memory, find_changes, take_committed
from dcaf.service.memory_plans import (
    clear_memory,
    commit_changes,
    delete_memory,
    drop_cleared,
    drop_hidden,
    list_memory,
    read_memory,
    write_memory,
)
from dcaf.service.plans import Plan, ask, run, run_async
from dcaf.service.remembered import Fact, MemoryChange, MemoryScope, Remembered
from dcaf.service.session import state_of_kept
from dcaf.service.tables import MEMORY, Owner
from dcaf.service.user_memory import UserMemory
from dcaf.testing import FrozenClock
from tests.engines.redis_servers import share_server

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES = max(100, int(5000 * SCALE))
SLOW_EXAMPLES = max(30, int(1500 * SCALE))

NAMES = ["allergies", "a", "b", "ключ", "x" * 256, "y" * 255 + "é"]
ACTORS = [("ann", "1"), ("ann", "2"), ("bob", "1"), (None, "x"), (None, "y")]
TTLS = [None, timedelta(seconds=5), timedelta(days=90)]

names = st.sampled_from([*NAMES, "a", "a", "a", "b"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
calls = st.one_of(
    st.tuples(st.just("set"), names, values, st.sampled_from(TTLS)),
    st.tuples(st.just("get"), names),
    st.tuples(st.just("delete"), names),
    st.tuples(st.sampled_from(["clear", "all"])),
)
slots = st.integers(0, 1)
several = st.lists(calls, min_size=1, max_size=5)
turns = st.tuples(st.just("turn"), slots, st.sampled_from(ACTORS), st.booleans(), several)
outside = st.tuples(st.just("outside"), st.sampled_from(["ann", "bob"]), several)
ends = st.one_of(st.tuples(st.just("commit"), slots), st.tuples(st.just("commit"), slots), st.tuples(st.just("abandon"), slots))
ticks = st.tuples(st.just("tick"), st.sampled_from([0.5, 5, 10]))
programs = st.lists(st.one_of(turns, turns, ends, outside, ticks), min_size=8, max_size=30)

ANN, ANN_2, BOB = ACTORS[:3]
PLAIN: list[Any] = [
    ("outside", "ann", [("set", "a", 1, None), ("set", "b", 2, TTLS[1])]),
    ("turn", 0, ANN, True, [("set", "a", "here", None), ("get", "a"), ("all",)]),
    ("turn", 0, ANN, False, [("get", "a"), ("set", "a", 3, TTLS[2]), ("get", "a"), ("all",)]),
    ("turn", 1, BOB, False, [("all",), ("set", "a", "bob", None)]),
    ("tick", 0.5),
    ("commit", 0),
    ("commit", 1),
    ("turn", 0, ANN_2, False, [("get", "a"), ("all",), ("set", "late", 4, None)]),
    ("turn", 0, ANN_2, True, [("get", "a"), ("all",)]),
    ("tick", 5),
    ("outside", "ann", [("all",), ("get", "b"), ("clear",), ("set", "a", 5, None)]),
    ("commit", 0),
    ("turn", 0, ANN, False, [("set", "b", 1, None), ("clear",), ("get", "a"), ("get", "b"), ("set", "c", 6, None), ("all",)]),
    ("commit", 0),
    ("outside", "ann", [("all",), ("set", "c", 7, None), ("delete", "c"), ("delete", "c")]),
]
"""What each of them must be able to do; a control is found by it, and by programs that are made up."""


@dataclass
class Known:
    """What must be found of a fact."""

    value: Any
    created: float
    updated: float
    expires: float | None


@dataclass
class Open:
    """A turn, and what it must find."""

    actor: tuple[str | None, str]
    memory: Memory
    cleared: dict[bool, bool] = field(default_factory=lambda: {True: False, False: False})
    facts: dict[bool, dict[str, Any]] = field(default_factory=lambda: {True: {}, False: {}})


class World:
    """Sessions of two users and of nobody, and a dict for each memory."""

    def __init__(self, engine: Engine, clock: FrozenClock | None) -> None:
        self.engine, self.clock = engine, clock
        self.sessions = SessionService(engine, app=f"app-{uuid4().hex}")
        self.births = {actor: self._create(*actor) for actor in ACTORS}
        self.known: dict[Any, dict[str, Known]] = {}
        self.turns: dict[int, Open] = {}

    def _create(self, user: str | None, name: str) -> bytes:
        return state_of_kept(self.sessions.sync.create(user=user, id=name)).opened.kept.birth

    @property
    def now(self) -> float:
        return 0.0 if self.clock is None else int(self.clock() * 1000) / 1000

    def owner(self, user: str | None, name: str = "") -> Owner:
        return Owner(self.sessions.app, user, name, partitions=self.engine.partitions)

    def begin(self, user: str | None, name: str) -> Memory:
        owner, birth = self.owner(user, name), self.births[user, name]
        here = Memory(self.engine, MemoryScope.of_session(owner, name, birth))
        return Memory(self.engine, MemoryScope.of_user(owner, name, birth), here=here)

    def outside(self, user: str) -> UserMemory:
        return UserMemory(self.engine, MemoryScope.of_user(self.owner(user)))

    def run(self, program: list[Any]) -> None:
        for name, *arguments in program:
            getattr(self, f"do_{name}")(*arguments)
        for actor in ACTORS:
            memory = self.begin(*actor)
            for is_here in (False, True):
                self.check_all(memory.here if is_here else memory, self.live(key_of(actor, is_here=is_here)))

    def do_turn(self, slot: int, actor: tuple[str | None, str], is_here: bool, several: list[Any]) -> None:
        turn = self.turns.setdefault(slot, Open(actor, self.begin(*actor)))
        for call in several:
            self.call(turn, is_here, call)

    def call(self, turn: Open, is_here: bool, call: Any) -> None:
        memory = turn.memory.here if is_here else turn.memory
        view = {} if turn.cleared[is_here] else {**self.live(key_of(turn.actor, is_here=is_here))}
        for key, fact in turn.facts[is_here].items():
            before = view.pop(key, None)
            if fact is not None:
                view[key] = self.fact(fact, before)
        kind, *arguments = call
        if kind == "set":
            key, value, ttl = arguments
            memory.set(key, value, ttl=ttl)
            turn.facts[is_here][key] = (value, ttl)
        elif kind == "delete":
            memory.delete(*arguments)
            turn.facts[is_here][arguments[0]] = None
        elif kind == "clear":
            memory.clear()
            turn.cleared[is_here], turn.facts[is_here] = True, {}
        elif kind == "get":
            assert memory.sync.get(arguments[0], "absent") == (view[arguments[0]].value if arguments[0] in view else "absent")
        else:
            self.check_all(memory, view)

    def do_commit(self, slot: int) -> None:
        turn = self.turns.pop(slot, None)
        if turn is not None:
            commit(self.engine, turn.memory)
            for is_here in (False, True):
                self.write(key_of(turn.actor, is_here=is_here), turn.facts[is_here], is_cleared=turn.cleared[is_here])

    def do_abandon(self, slot: int) -> None:
        self.turns.pop(slot, None)

    def do_outside(self, user: str, several: list[Any]) -> None:
        for call in several:
            self.call_outside(user, call)

    def call_outside(self, user: str, call: Any) -> None:
        memory, place = self.outside(user).sync, key_of((user, ""), is_here=False)
        live = self.live(place)
        kind, *arguments = call
        if kind == "set":
            key, value, ttl = arguments
            memory.set(key, value, ttl=ttl)
            self.write(place, {key: (value, ttl)})
        elif kind == "delete":
            assert memory.delete(*arguments) is (arguments[0] in live)
            self.write(place, {arguments[0]: None})
        elif kind == "clear":
            assert memory.clear() == len(live)
            self.known[place] = {}
        elif kind == "get":
            assert memory.get(arguments[0], "absent") == (live[arguments[0]].value if arguments[0] in live else "absent")
        else:
            assert {fact.key: fact.value for fact in memory.all()} == {key: fact.value for key, fact in live.items()}

    def do_tick(self, seconds: float) -> None:
        if self.clock is not None:
            self.clock.tick(timedelta(seconds=seconds))

    def live(self, place: Any) -> dict[str, Known]:
        if self.clock is None:
            return self.known.get(place, {})
        found = self.known.get(place, {}).items()
        return {key: fact for key, fact in found if fact.expires is None or fact.expires > self.now}

    def write(self, place: Any, facts: dict[str, Any], *, is_cleared: bool = False) -> None:
        found = {} if is_cleared else self.live(place)
        for key, fact in facts.items():
            before = found.pop(key, None)
            if fact is not None:
                found[key] = self.fact(fact, before)
        self.known[place] = {**found}

    def fact(self, fact: tuple[Any, timedelta | None], before: Known | None) -> Known:
        value, ttl = fact
        ends = None if ttl is None else self.now + ttl.total_seconds()
        return Known(value, self.now if before is None else before.created, self.now, ends)

    def check_all(self, memory: Memory, expected: dict[str, Known]) -> None:
        found = memory.sync.all()
        assert [fact.key for fact in found] == sorted(expected)
        for fact in found:
            known = expected[fact.key]
            assert fact.value == known.value
            assert (fact.expires_at is None) == (known.expires is None)
            if self.clock is not None:
                assert (fact.created_at.timestamp(), fact.updated_at.timestamp()) == (known.created, known.updated)
                assert fact.expires_at is None or fact.expires_at.timestamp() == known.expires


def key_of(actor: tuple[str | None, str], *, is_here: bool) -> Any:
    user, name = actor
    return ("session", user, name) if is_here else (("user", user) if user is not None else ("anonymous", name))


def commit(engine: Engine, memory: Memory) -> None:
    changes = find_changes(memory)
    if changes:
        take_committed(memory, run(commit_changes(changes), engine))
        run(drop_hidden(changes), engine)
    assert not find_changes(memory)


KINDS = ["memory", "memory-8", "sqlite", "redis"]


def make_engine(kind: str, folder: Path, clock: FrozenClock | None = None) -> Engine:
    if kind == "redis":
        return RedisEngine(share_server().socket_url, prefix=f"test-{uuid4().hex[:16]}")
    if kind == "sqlite":
        return SqliteEngine(folder / "dcaf.db", clock=clock or time.time)
    return MemoryEngine(clock=clock or time.time, partitions=8 if kind == "memory-8" else 1)


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    found = make_engine(request.param, tmp_path)
    found.declare([MEMORY])
    yield found
    found.sync.close()


@pytest.fixture
def scope(engine: Engine) -> MemoryScope:
    return MemoryScope.of_user(Owner("clinic", "p-123", partitions=engine.partitions))


@pytest.fixture
def memory(engine: Engine, scope: MemoryScope) -> Memory:
    return Memory(engine, scope)


def run_programs(kind: str, folder: Path, examples: int = EXAMPLES) -> None:
    """Run programs on one engine, each in an application of its own."""
    clock = None if kind == "redis" else FrozenClock()
    engine = make_engine(kind, folder, clock)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        report_multiple_bugs=False,
    )
    @given(programs)
    @example(PLAIN)
    def check(program: list[Any]) -> None:
        World(engine, clock).run(program)

    try:
        check()
    finally:
        engine.sync.close()


class TestItDoesWhatADictDoes:
    @pytest.mark.parametrize("kind", KINDS)
    def test_in_any_program_of_turns_and_calls(self, kind: str, tmp_path: Path) -> None:
        run_programs(kind, tmp_path, EXAMPLES if kind.startswith("memory") else SLOW_EXAMPLES)


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "all users have one memory": lambda patch: patch.setattr(Owner, "shared_memory_key", lambda *_: b"the same for all"),
    "all sessions have one memory": lambda patch: patch.setattr(Owner, "memory_key", lambda owner, _: owner.key),
    "a session's memory is its user's": lambda patch: patch.setattr(Owner, "memory_key", Owner.shared_memory_key),
    "a turn reads only what is committed": lambda patch: patch.setattr(
        Memory,
        "_get",
        lambda memory, key, default, _: UserMemory(memory._engine, memory._draft.scope)._plans.get(key, default, None),
    ),
    "a clear forgets what the turn has set, and nothing else": lambda patch: patch.setattr(
        Memory, "clear", lambda memory: setattr(memory, "_facts", {})
    ),
    "a clear comes before what the turn had set": lambda patch: patch.setattr(
        Memory, "clear", lambda memory: setattr(memory, "_clears", 1)
    ),
    "a turn that read before another one cleared writes what nobody finds": lambda patch: patch.setattr(
        MemoryScope, "is_at", lambda scope, _: Not(Is(scope.head, "generation", -1))
    ),
    "nothing says when a fact was first remembered": lambda patch: patch.setattr(
        MemoryChange, "_has_known", lambda change, _: Not(Exists(Record(MEMORY, b"none", change.scope.partition)))
    ),
    "a fact outlives its time": lambda patch: patch.setattr("dcaf.service.memory.Fact", lambda value, _=None: Fact(value)),
}


class TestControls:
    @pytest.mark.parametrize("broken", BROKEN)
    def test_control_programs_find(self, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        BROKEN[broken](monkeypatch)
        with pytest.raises((AssertionError, ConfigurationError)):
            run_programs("memory", tmp_path)


def play(plans: list[Plan[Any]], engine: Engine, order: Iterator[int]) -> list[Any]:
    """Do several calls at once, a transaction of one and a transaction of another; ``order`` says whose turn it is."""
    results: list[Any] = [None] * len(plans)
    waiting: dict[int, Any] = {}
    for at, plan in enumerate(plans):
        waiting[at] = (plan, None)
    while waiting:
        at = sorted(waiting)[next(order) % len(waiting)]
        plan, outcome = waiting.pop(at)
        try:
            transaction = next(plan) if outcome is None else plan.send(outcome)
        except StopIteration as end:
            results[at] = end.value
        else:
            waiting[at] = (plan, engine.sync.transact(transaction))
    return results


def check_clear_among_writes(engine: Engine, orders: list[int]) -> None:
    """A clear of ten facts, while ten more are written: each is either counted by the clear, or still there."""
    scope = MemoryScope.of_user(Owner("clinic", uuid4().hex, partitions=engine.partitions))
    for at in range(10):
        run(write_memory(scope, f"before-{at}", Fact(b"1")), engine)
    plans = [clear_memory(scope), *(write_memory(scope, f"during-{at}", Fact(b"2")) for at in range(10))]
    counted, *_ = play(plans, engine, iter([*orders, *range(10_000)]))
    left = [fact.key for fact in run(list_memory(scope, 1000), engine).items]
    assert not [key for key in left if key.startswith("before")]
    assert counted + len(left) == 20
    assert run(drop_cleared(scope), engine) == 0


class TestAtOnce:
    def test_a_clear_among_writes_counts_a_fact_or_leaves_it(self, engine: Engine) -> None:
        @settings(max_examples=SLOW_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, 10), max_size=40))
        def check(orders: list[int]) -> None:
            check_clear_among_writes(engine, orders)

        check()

    def test_control_a_write_that_does_not_compare_the_generation_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = MemoryEngine()
        engine.declare([MEMORY])
        monkeypatch.setattr(MemoryChange, "conditions", lambda change: [Not(Is(change.scope.head, "generation", -1))])
        with pytest.raises(AssertionError):
            check_clear_among_writes(engine, [0] * 20)

    def test_a_turn_and_a_clear_of_another_one(self, engine: Engine, scope: MemoryScope, memory: Memory) -> None:
        run(write_memory(scope, "a", Fact(b"1")), engine)
        assert memory.sync.get("a") == 1  # now it knows the generation, and when the fact was remembered
        assert run(clear_memory(scope), engine) == 1
        memory.set("b", 2)
        memory.set("a", 3)
        commit(engine, memory)
        assert [(fact.key, fact.value) for fact in memory.sync.all()] == [("a", 3), ("b", 2)]

    def test_rows_are_dropped_in_steps_and_the_memory_is_empty_from_the_first(self, engine: Engine, scope: MemoryScope) -> None:
        changes = [MemoryChange(scope, {f"k{at}": Fact(b"1") for at in range(450)})]
        run(commit_changes(changes), engine)
        plan, steps = clear_memory(scope), 0
        outcome = ask(engine, next(plan))
        with pytest.raises(StopIteration) as end:
            while True:
                transaction = plan.send(outcome)
                assert isinstance(transaction, Transaction)
                outcome = ask(engine, transaction)
                steps += outcome.applied and bool(transaction.writes)
                assert run(list_memory(scope, 10), engine).items == []
        assert end.value.value == 450
        assert steps == 3  # of 200, 200 and 50 rows


class TestTurns:
    def test_a_turn_finds_what_it_has_set(self, engine: Engine, scope: MemoryScope, memory: Memory) -> None:
        run(write_memory(scope, "old", Fact(b"1")), engine)
        memory.set("allergies", ["penicillin"])
        assert memory.sync.get("allergies") == ["penicillin"]
        assert memory.sync.get("old") == 1
        assert run(read_memory(scope, "allergies"), engine).row is None
        memory.clear()
        assert (memory.sync.get("allergies"), memory.sync.get("old"), memory.sync.all()) == (None, None, [])
        assert len(run(list_memory(scope, 10), engine).items) == 1
        commit(engine, memory)
        assert run(list_memory(scope, 10), engine).items == []

    def test_a_value_is_a_copy(self, engine: Engine, memory: Memory) -> None:
        given = {"items": [1]}
        memory.set("cart", given)
        given["items"].append(2)
        memory.sync.get("cart")["items"].append(3)
        commit(engine, memory)
        assert memory.sync.get("cart") == {"items": [1]}

    def test_a_turn_of_a_new_fact_is_one_transaction(self, engine: Engine, memory: Memory) -> None:
        for key in "abc":
            memory.set(key, 1)
        assert count_transactions(commit_changes(find_changes(memory)), engine) == 1

    def test_a_turn_that_has_read_what_it_writes_again_is_one_transaction(self, engine: Engine, memory: Memory) -> None:
        memory.set("a", 1)
        memory.clear()
        memory.set("a", 2)
        commit(engine, memory)
        assert memory.sync.get("a") == 2
        memory.set("a", 3)
        assert count_transactions(commit_changes(find_changes(memory)), engine) == 1

    def test_a_turn_of_hundreds_of_facts(self, engine: Engine, memory: Memory) -> None:
        for at in range(700):
            memory.set(f"k{at:03}", at)
        commit(engine, memory)
        assert [fact.value for fact in memory.sync.all()] == [*range(700)]
        for at in range(700):
            memory.set(f"k{at:03}", -at)
        commit(engine, memory)
        assert memory.sync.get("k699") == -699

    def test_what_is_set_while_a_commit_is_under_way_is_kept_for_the_next(self, engine: Engine, memory: Memory) -> None:
        memory.set("a", 1)
        memory.set("b", 1)
        changes = find_changes(memory)
        memory.set("a", 2)
        run(commit_changes(changes), engine)
        take_committed(memory, changes)
        (change,) = find_changes(memory)
        assert list(change.facts) == ["a"]
        assert (memory.sync.get("a"), memory.sync.get("b")) == (2, 1)

    def test_nothing_is_set_after_the_turn(self, memory: Memory) -> None:
        end_memory(memory)
        changes: list[Callable[[], None]] = [lambda: memory.set("a", 1), lambda: memory.delete("a"), memory.clear]
        for change in changes:
            with pytest.raises(SessionClosedError):
                change()


def count_transactions(plan: Plan[Any], engine: Engine) -> int:
    count = 0
    try:
        transaction = next(plan)
        while True:
            count += 1
            transaction = plan.send(ask(engine, transaction))
    except StopIteration:
        return count


@dataclass
class Dose:
    name: str
    milligrams: Decimal


class Patient(BaseModel):
    born: datetime
    doses: list[Dose]


TYPED: list[tuple[Any, Any]] = [
    (["penicillin"], list[str]),
    ({"a", "b"}, set[str]),
    (Decimal("1.10"), Decimal),
    (datetime(2026, 1, 31, 12, tzinfo=UTC), datetime),
    (Dose("lisinopril", Decimal("2.50")), Dose),
    (Patient(born=datetime(1990, 2, 3, tzinfo=UTC), doses=[Dose("a", Decimal(1))]), Patient),
    ([Dose("a", Decimal("0.5"))], list[Dose]),
    (None, int | None),
    (2**63, int),
    ("\U0001f600\0", str),
]


class TestValues:
    @pytest.mark.parametrize(("value", "as_type"), TYPED, ids=[str(kind) for _, kind in TYPED])
    def test_a_value_comes_back_as_its_type(self, engine: Engine, memory: Memory, value: Any, as_type: Any) -> None:
        memory.set("k", value)
        for _ in range(2):
            found = memory.sync.get("k", "absent", as_type=as_type)
            assert (type(found), found) == (type(value), value)
            commit(engine, memory)

    def test_a_value_that_does_not_fit_is_not_in_the_message(self, engine: Engine, memory: Memory, scope: MemoryScope) -> None:
        memory.set("k", {"name": "a", "milligrams": "canary"})
        UserMemory(engine, scope).sync.set("k", {"name": "a", "milligrams": "canary"})
        for read in (memory.sync.get, UserMemory(engine, scope).sync.get):
            with pytest.raises(SessionTypeError, match=r"memory\.milligrams") as caught:
                read("k", as_type=Dose)
            assert "canary" not in str(caught.value)

    def test_an_absent_key_is_none_or_the_default(self, memory: Memory, engine: Engine, scope: MemoryScope) -> None:
        outside = UserMemory(engine, scope).sync
        assert (memory.sync.get("k"), memory.sync.get("k", as_type=int), memory.sync.get("k", 7, as_type=int)) == (None, None, 7)
        assert (outside.get("k"), outside.get("k", as_type=int), outside.get("k", 7, as_type=int)) == (None, None, 7)

    @pytest.mark.parametrize("key", ["", "x" * 257, "\ud800", 7, None, b"k"])
    def test_a_wrong_key_is_refused_everywhere(self, memory: Memory, engine: Engine, scope: MemoryScope, key: Any) -> None:
        outside = UserMemory(engine, scope).sync
        calls: list[Callable[[], object]] = [
            lambda: memory.set(key, 1),
            lambda: memory.delete(key),
            lambda: memory.sync.get(key),
            lambda: outside.set(key, 1),
            lambda: outside.get(key),
            lambda: outside.delete(key),
        ]
        for call in calls:
            with pytest.raises(SessionValueError):
                call()
        assert not find_changes(memory)

    @pytest.mark.parametrize("key", ["k", "x" * 256, "\U0001f600" * 256, " ", "a/b:{c}*", "é", "e\u0301", "\0"])
    def test_any_other_text_is_a_key(self, engine: Engine, memory: Memory, key: str) -> None:
        memory.set(key, key)
        commit(engine, memory)
        assert [(fact.key, fact.value) for fact in memory.sync.all()] == [(key, key)]
        assert memory.sync.get(key) == key

    @pytest.mark.parametrize("value", [float("nan"), object(), {1: 2}, "\ud800", 2**64])
    def test_what_json_cannot_say_is_refused(self, memory: Memory, value: Any) -> None:
        memory.set("k", "before")
        with pytest.raises(SessionValueError):
            memory.set("k", value)
        assert memory.sync.get("k") == "before"

    def test_a_value_has_a_limit(self, engine: Engine, scope: MemoryScope) -> None:
        memory = Memory(engine, scope, limit_bytes=10)
        memory.set("k", "x" * 8)
        for call in (memory.set, UserMemory(engine, scope, limit_bytes=10).sync.set):
            with pytest.raises(SessionValueError, match="has 11 bytes as JSON, and may have 10"):
                call("k", "canary-xx")
        Memory(engine, scope).set("k", "x" * (256 * 1024 - 2))
        with pytest.raises(SessionValueError, match="262,145 bytes"):
            Memory(engine, scope).set("k", "x" * (256 * 1024 - 1))

    @pytest.mark.parametrize("limit", [0, -1, 1.5, None, True])
    def test_a_wrong_limit_is_refused(self, engine: Engine, scope: MemoryScope, limit: Any) -> None:
        for kind in (Memory, UserMemory):
            with pytest.raises(ConfigurationError):
                kind(engine, scope, limit_bytes=limit)

    def test_no_repr_has_a_key_or_a_value(self, engine: Engine, memory: Memory, scope: MemoryScope) -> None:
        memory.set("canary-key", "canary-value")
        changes = find_changes(memory)
        commit(engine, memory)
        shown = repr([memory, memory.sync.all(), changes, scope, UserMemory(engine, scope), Fact(b"canary")])
        assert "canary" not in shown
        assert scope.prefix.hex() not in shown
        assert repr(scope.prefix)[2:-1] not in shown


class TestTime:
    def test_what_has_expired_is_absent_at_once(self, engine: Engine, memory: Memory, scope: MemoryScope) -> None:
        memory.set("short", 1, ttl=timedelta(milliseconds=30))
        memory.set("long", 2, ttl=timedelta(days=90))
        commit(engine, memory)
        time.sleep(0.05)
        assert (memory.sync.get("short"), memory.sync.get("long")) == (None, 2)
        assert [fact.key for fact in memory.sync.all()] == ["long"]
        assert UserMemory(engine, scope).sync.delete("short") is False
        assert UserMemory(engine, scope).sync.clear() == 1

    def test_a_fact_that_is_set_again_without_an_end_stays(self, engine: Engine, memory: Memory) -> None:
        memory.set("k", 1, ttl=timedelta(milliseconds=30))
        commit(engine, memory)
        memory.set("k", 2)
        commit(engine, memory)
        time.sleep(0.05)
        (fact,) = memory.sync.all()
        assert (fact.value, fact.expires_at) == (2, None)

    def test_a_fact_says_when_it_was_remembered(self, engine: Engine, scope: MemoryScope) -> None:
        memory = UserMemory(engine, scope).sync
        memory.set("k", 1)
        (first,) = memory.all()
        time.sleep(0.02)
        memory.set("k", 2, ttl=timedelta(hours=1))
        (second,) = memory.all()
        assert first.created_at == first.updated_at == second.created_at < second.updated_at
        assert second.expires_at == second.updated_at + timedelta(hours=1)
        assert second.updated_at.tzinfo is UTC

    @pytest.mark.parametrize("ttl", [timedelta(), timedelta(days=-1), timedelta(microseconds=999), timedelta(days=36_526), 5, True])
    def test_a_wrong_ttl_is_refused(self, memory: Memory, engine: Engine, scope: MemoryScope, ttl: Any) -> None:
        for call in (memory.set, UserMemory(engine, scope).sync.set):
            with pytest.raises(ConfigurationError, match="ttl="):
                call("k", 1, ttl=ttl)
        assert not find_changes(memory)

    def test_the_longest_ttl_can_be_read(self, engine: Engine, memory: Memory) -> None:
        memory.set("k", 1, ttl=timedelta(days=36_525))
        commit(engine, memory)
        assert memory.sync.all()[0].expires_at is not None


class TestPages:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
    def test_pages_have_each_fact_once(self, engine: Engine, scope: MemoryScope, limit: int) -> None:
        memory = UserMemory(engine, scope).sync
        keys = {*(f"k{at}" for at in range(5)), "k", "k" * 256, "\U0001f600" * 256}
        for key in keys:
            memory.set(key, key)
        found: list[Remembered] = []
        page = memory.page(limit=limit)
        while True:
            assert 0 < len(page.items) <= limit
            found += page.items
            if page.cursor is None:
                break
            page = memory.page(limit=limit, cursor=page.cursor)
        assert len(found) == len(keys)
        assert {fact.key for fact in found} == keys

    def test_pages_go_on_while_facts_come_and_go(self, engine: Engine, scope: MemoryScope) -> None:
        memory = UserMemory(engine, scope).sync
        for key in "abcd":
            memory.set(key, 1)
        page = memory.page(limit=2)
        memory.delete("b")
        memory.set("aa", 1)
        memory.set("e", 1)
        assert [fact.key for fact in memory.page(limit=10, cursor=page.cursor).items] == ["c", "d", "e"]
        memory.clear()
        memory.set("d", 2)
        assert [fact.value for fact in memory.page(limit=10, cursor=page.cursor).items] == [2]

    def test_a_limit_of_none_is_an_empty_page(self, engine: Engine, scope: MemoryScope) -> None:
        memory = UserMemory(engine, scope).sync
        memory.set("a", 1)
        memory.set("b", 1)
        cursor = memory.page(limit=1).cursor
        assert (memory.page(limit=0), memory.page(limit=0, cursor=cursor)) == (ListPage([], None), ListPage([], cursor))

    @pytest.mark.parametrize("limit", [-1, 1001, 1.0, None, True, "1"])
    def test_a_wrong_limit_is_refused(self, engine: Engine, scope: MemoryScope, limit: Any) -> None:
        with pytest.raises(ConfigurationError, match="limit="):
            UserMemory(engine, scope).sync.page(limit=limit)

    def test_a_cursor_of_another_list_is_refused(self, engine: Engine, scope: MemoryScope) -> None:
        memory = UserMemory(engine, scope).sync
        memory.set("a", 1)
        memory.set("b", 1)
        cursor = memory.page(limit=1).cursor
        other = UserMemory(engine, MemoryScope.of_user(Owner("clinic", "p-124", partitions=engine.partitions))).sync
        assert cursor is not None
        for wrong in ("", "!", "AAAA", cursor[:5], cursor + "A" * 400, cursor + "=", 7, b"x"):
            with pytest.raises(ConfigurationError, match="cursor="):
                memory.page(cursor=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="cursor="):
            other.page(cursor=cursor)


class TestSessions:
    """The memory of a session goes with it; that of an anonymous one goes with it, too."""

    @pytest.fixture
    def sessions(self, engine: Engine) -> SessionService:
        return SessionService(engine, app="clinic")

    @pytest.mark.parametrize("user", ["p-123", None])
    def test_a_session_that_is_gone_remembers_nothing(self, engine: Engine, sessions: SessionService, user: str | None) -> None:
        scopes = make_scopes(sessions, user, "v1")
        for scope in scopes:
            run(write_memory(scope, "k", Fact(b"1")), engine)
        assert sessions.sync.delete(user=user, id="v1")
        for scope in scopes:
            assert run(read_memory(scope, "k"), engine).row is None
            assert run(list_memory(scope, 10), engine).items == []
            with pytest.raises(UnknownSessionError):
                run(write_memory(scope, "k", Fact(b"2")), engine)
            for gone in (clear_memory(scope), delete_memory(scope, "k")):
                with pytest.raises(UnknownSessionError):
                    run(cast("Plan[Any]", gone), engine)

    def test_a_session_that_was_closed_can_be_asked_and_learns_nothing(self, engine: Engine, sessions: SessionService) -> None:
        (scope,) = make_scopes(sessions, "p-123", "v1")
        run(write_memory(scope, "k", Fact(b"1")), engine)
        sessions.sync.close(user="p-123", id="v1")
        for refused in (clear_memory(scope), delete_memory(scope, "k"), write_memory(scope, "k", Fact(b"2"))):
            with pytest.raises(SessionClosedError):
                run(cast("Plan[Any]", refused), engine)
        assert Memory(engine, scope).sync.get("k") == 1

    def test_an_older_session_of_the_same_id_finds_nothing_of_the_new_one(self, engine: Engine, sessions: SessionService) -> None:
        before = make_scopes(sessions, None, "v1")
        sessions.sync.delete(user=None, id="v1")
        for scope, old in zip(make_scopes(sessions, None, "v1"), before, strict=True):
            run(write_memory(scope, "k", Fact(b"1")), engine)
            assert run(read_memory(scope, "k"), engine).row is not None
            assert run(read_memory(old, "k"), engine).row is None
            with pytest.raises(UnknownSessionError):
                run(write_memory(old, "k", Fact(b"2")), engine)

    def test_a_user_remembers_what_a_session_has_set_that_is_gone(self, engine: Engine, sessions: SessionService) -> None:
        owner = Owner("clinic", "p-123", partitions=engine.partitions)
        (here,) = make_scopes(sessions, "p-123", "v1")
        memory = Memory(engine, MemoryScope.of_user(owner), here=Memory(engine, here))
        memory.set("k", "of the user")
        memory.here.set("k", "of the session")
        assert count_transactions(commit_changes(find_changes(memory)), engine) == 1
        assert (memory.here.sync.get("k"), memory.sync.here.get("k")) == ("of the session", "of the session")
        sessions.sync.delete(user="p-123", id="v1")
        assert UserMemory(engine, MemoryScope.of_user(owner)).sync.get("k") == "of the user"
        assert Memory(engine, here).sync.get("k") is None


def make_scopes(sessions: SessionService, user: str | None, name: str) -> list[MemoryScope]:
    """The scopes that go with a new session."""
    birth = state_of_kept(sessions.sync.create(user=user, id=name)).opened.kept.birth
    owner = Owner(sessions.app, user, name, partitions=sessions.engine.partitions)
    here = MemoryScope.of_session(owner, name, birth)
    return [here] if user is not None else [here, MemoryScope.of_user(owner, name, birth)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_same_with_await(backend: str, engine: Engine, scope: MemoryScope) -> None:
    async def main() -> None:
        outside, memory = UserMemory(engine, scope), Memory(engine, scope)
        await outside.set("allergies", ["penicillin"], ttl=timedelta(days=90))
        assert await outside.get("allergies", as_type=list[str]) == ["penicillin"]
        memory.set("b", 2)
        assert (await memory.get("allergies"), await memory.get("b", as_type=int)) == (["penicillin"], 2)
        assert [fact.key for fact in await memory.all()] == ["allergies", "b"]
        await run_async(commit_changes(find_changes(memory)), engine)
        assert [fact.key for fact in (await outside.page(limit=1)).items] == ["allergies"]
        assert (await outside.delete("b"), await outside.delete("b")) == (True, False)
        assert (await outside.clear(), await outside.all()) == (1, [])
        await engine.aclose()

    anyio.run(main, backend=backend)
