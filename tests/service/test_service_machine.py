"""A service does what a dict does, step by step; and a session is the same kept in an envelope and kept by a service."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import os
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from dcaf.core import Session, SessionHost, transaction
from dcaf.core.errors import DcafError, SessionExistsError, StaleSessionError, StateError, UnknownSessionError
from dcaf.core.keys import Keyring
from dcaf.engines import Delete, Exists, Put, Transaction
from dcaf.service import KeptSession, SessionService, commits, dropping
from dcaf.service.changes import Change
from dcaf.service.places import Place
from dcaf.service.session import KeptState
from tests.service.kept_places import KeptPlace, find_kept_place

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES: Final = max(10, round(1_000 * SCALE))

Key = tuple[str | None, str]
Op = tuple[str, str, Any]

KEYS: Final = [("p", "v"), ("p", "w"), ("q", "v"), (None, "v")]
NAMES: Final = ["n", "log", "x", "app:n", "app:log", "app:x", "user:n", "user:log", "user:x"]
ABSENT: Final[Any] = object()

OPS: Final = st.one_of(
    st.tuples(st.just("incr"), st.sampled_from([name for name in NAMES if name[-1] == "n"]), st.integers(-1, 2)),
    st.tuples(st.just("append"), st.sampled_from([name for name in NAMES if name[-1] == "g"]), st.integers(0, 2)),
    st.tuples(st.just("set"), st.sampled_from(NAMES), st.sampled_from([0, 1, "a", [], [1], {"a": 1}, {"b": 2}])),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.none()),
)
LISTS_OF_OPS: Final = st.lists(OPS, max_size=4)
ONE_KEY: Final = st.sampled_from(KEYS)
TWO_KEYS: Final = st.one_of(ONE_KEY.map(lambda key: (key, key)), st.tuples(ONE_KEY, ONE_KEY))
SOME_OPS: Final = st.lists(OPS, min_size=1, max_size=3)


def do(session: Any, op: Op) -> type[Exception] | None:
    """Do one thing to a session, or to the dict of a model; returns what was raised."""
    kind, name, value = op
    try:
        if kind == "set":
            session[name] = copy.deepcopy(value)
        elif kind == "delete":
            session.pop(name, None)
        elif isinstance(session, dict):
            _do_to_dict(session, kind, name, value)
        elif kind == "incr":
            session.incr(name, value)
        else:
            session.append(name, value)
    except (StateError, TypeError) as error:
        return type(error)
    return None


def _do_to_dict(state: dict[str, Any], kind: str, name: str, value: Any) -> None:
    empty: Any = 0 if kind == "incr" else []
    before: Any = state.get(name, empty)
    if type(before) is not type(empty):
        raise StateError
    state[name] = before + (value if kind == "incr" else [value])


def lay_over(before: Any, theirs: Any, after: Any, ops: list[Op]) -> Any:
    """What becomes of a key that both have written, as the words of the service say."""
    if after == before:
        return theirs
    if theirs == before:
        return after
    kinds = {kind for kind, _, _ in ops}
    if kinds == {"incr"} and (theirs is ABSENT or type(theirs) is int):
        return (0 if theirs is ABSENT else theirs) + sum(value for _, _, value in ops)
    if kinds == {"append"} and (theirs is ABSENT or type(theirs) is list):
        return ([] if theirs is ABSENT else theirs) + [value for _, _, value in ops]
    if all(isinstance(value, dict) for value in (before, theirs, after)):
        names = dict.fromkeys((*theirs, *after))
        members = {name: _lay_member_over(name, before, theirs, after) for name in names}
        return {name: value for name, value in members.items() if value is not ABSENT}
    if all(isinstance(value, list) and value[: len(before)] == before for value in (before, theirs, after)):
        return [*theirs, *after[len(before) :]]
    return after


def _lay_member_over(name: str, *values: dict[str, Any]) -> Any:
    before, theirs, after = (value.get(name, ABSENT) for value in values)
    return lay_over(before, theirs, after, [])


@dataclass
class Kept:
    """A session of the model: its own keys, its revision, and which of those of its id it is."""

    own: dict[str, Any]
    revision: int
    birth: int


@dataclass
class Held:
    """A session that was read, and what its reader did to it since."""

    session: KeptSession
    key: Key
    merges: bool
    birth: int
    revision: int
    base: dict[str, Any]
    now: dict[str, Any]
    done: dict[str, list[Op]] = field(default_factory=dict)


class Model:
    """What a service keeps, as dicts."""

    def __init__(self) -> None:
        self.sessions: dict[Key, Kept] = {}
        self.users: dict[str | None, dict[str, Any]] = {}
        self.app: dict[str, Any] = {}
        self.births = 0

    def read(self, key: Key) -> dict[str, Any]:
        """The state of a session."""
        return copy.deepcopy({**self.sessions[key].own, **self.users.get(key[0], {}), **self.app})

    def commit(self, held: Held) -> type[Exception] | None:
        """What a commit comes to."""
        changed = [name for name in {**held.base, **held.now} if held.base.get(name, ABSENT) != held.now.get(name, ABSENT)]
        kept = self.sessions.get(held.key)
        if not changed:
            return None
        if kept is None or kept.birth != held.birth:
            return UnknownSessionError
        is_stale = kept.revision != held.revision
        if is_stale and not held.merges:
            return StaleSessionError
        theirs = self.read(held.key)
        laid = {name: self._lay(held, name, theirs) for name in changed}
        if is_stale and all(theirs.get(name, ABSENT) == value for name, value in laid.items()):
            return None
        for name, value in laid.items():
            self.write(held.key, name, value)
        kept.revision += 1
        return None

    def write(self, key: Key, name: str, value: Any) -> None:
        place = self.app if name.startswith("app:") else self.sessions[key].own
        place = self.users.setdefault(key[0], {}) if name.startswith("user:") else place
        if value is ABSENT:
            place.pop(name, None)
        else:
            place[name] = copy.deepcopy(value)

    def _lay(self, held: Held, name: str, theirs: dict[str, Any]) -> Any:
        before, other, after = (state.get(name, ABSENT) for state in (held.base, theirs, held.now))
        return lay_over(before, other, after, held.done.get(name, []))


class Machine(RuleBasedStateMachine):
    """A service, and dicts beside it."""

    place: KeptPlace

    def __init__(self) -> None:
        super().__init__()
        self.services = [
            (self.place.open_service(), False),
            (self.place.open_service(), False),
            (self.place.open_service(on_busy="merge"), True),
        ]
        self.model = Model()
        self.held: list[Held] = []

    def teardown(self) -> None:
        self.place.close()

    @initialize()
    def begin(self) -> None:
        for key in KEYS:
            self.create(key, 0, [])

    @rule(key=ONE_KEY, which=st.integers(0, 2), ops=LISTS_OF_OPS)
    def create(self, key: Key, which: int, ops: list[Op]) -> None:
        state: dict[str, Any] = {}
        for op in self._allow(key, ops):
            do(state, op)
        make = self.services[which][0].sync.create
        if key in self.model.sessions:
            with pytest.raises(SessionExistsError):
                make(user=key[0], id=key[1], state=state)
            return
        make(user=key[0], id=key[1], state=state)
        self.model.births += 1
        self.model.sessions[key] = Kept({}, 1, self.model.births)
        for name, value in state.items():
            theirs = self.model.read(key).get(name, ABSENT)
            self.model.write(key, name, lay_over(ABSENT, theirs, value, []))

    @rule(key=ONE_KEY, which=st.integers(0, 2))
    def delete(self, key: Key, which: int) -> None:
        was_there = self.services[which][0].sync.delete(user=key[0], id=key[1])
        assert was_there is (self.model.sessions.pop(key, None) is not None)

    @rule(key=ONE_KEY, which=st.integers(0, 2), ops=LISTS_OF_OPS)
    def make_anew(self, key: Key, which: int, ops: list[Op]) -> None:
        self.delete(key, which)
        self.create(key, which, ops)

    @rule(key=ONE_KEY, which=st.integers(0, 2))
    def get(self, key: Key, which: int) -> None:
        held = self._hold(key, which)
        if held is not None:
            self.held.append(held)

    @rule(key=ONE_KEY, which=st.integers(0, 2), ops=LISTS_OF_OPS, raises=st.booleans())
    def turn(self, key: Key, which: int, ops: list[Op], raises: bool) -> None:
        service, _ = self.services[which]
        held = self._hold(key, which)
        if held is None:
            with pytest.raises(UnknownSessionError), service.sync.open(user=key[0], id=key[1]):
                raise AssertionError
            return
        with suppress(ZeroDivisionError), service.sync.open(user=key[0], id=key[1]) as session:
            held.session = session
            self._do(held, ops)
            if raises:
                raise ZeroDivisionError
        assert raises or self.model.commit(held) is None

    @rule(keys=TWO_KEYS, which=st.integers(0, 2), ops=SOME_OPS)
    def race(self, keys: tuple[Key, Key], which: int, ops: list[Op]) -> None:
        """Two read at once, do the same, and commit one after the other."""
        both = [held for held in (self._hold(key, (which + at) % 3) for at, key in enumerate(keys)) if held is not None]
        for held in both:
            self._do(held, ops)
        for held in both:
            self._save(held)

    @precondition(lambda self: self.held)
    @rule(at=st.integers(0, 5), ops=LISTS_OF_OPS)
    def change(self, at: int, ops: list[Op]) -> None:
        self._do(self.held[at % len(self.held)], ops)

    @precondition(lambda self: self.held)
    @rule(at=st.integers(0, 5))
    def save(self, at: int) -> None:
        self._save(self.held.pop(at % len(self.held)))

    def _save(self, held: Held) -> None:
        service = next(service for service, merges in self.services if merges is held.merges)
        expected = self.model.commit(held)
        if expected is not None:
            with pytest.raises(expected):
                service.sync.save(held.session)
            return
        service.sync.save(held.session)
        kept = self.model.sessions.get(held.key)
        if kept is not None and held.session.revision == kept.revision and held.session.to_dict() == self.model.read(held.key):
            held.base, held.done, held.revision = self.model.read(held.key), {}, kept.revision
            held.now = copy.deepcopy(held.base)
            self.held.append(held)

    @invariant()
    def it_has_what_the_model_has(self) -> None:
        service = self.services[0][0]
        for user, id_ in KEYS:
            found = service.sync.get(user=user, id=id_)
            kept = self.model.sessions.get((user, id_))
            assert (found is None) is (kept is None)
            if found is not None and kept is not None:
                assert found.to_dict() == self.model.read((user, id_))
                assert found.revision == kept.revision

    def _hold(self, key: Key, which: int) -> Held | None:
        service, merges = self.services[which]
        session, kept = service.sync.get(user=key[0], id=key[1]), self.model.sessions.get(key)
        assert (session is None) is (kept is None)
        if session is None or kept is None:
            return None
        state = self.model.read(key)
        assert session.to_dict() == state
        return Held(session, key, merges, kept.birth, kept.revision, state, copy.deepcopy(state))

    def _do(self, held: Held, ops: list[Op]) -> None:
        for op in self._allow(held.key, ops):
            does_nothing = op[0] == "delete" and op[1] not in held.now
            raised = do(held.session, op)
            assert (raised is None) is (do(held.now, op) is None)
            if raised is None and not does_nothing:
                held.done.setdefault(op[1], []).append(op)
        assert held.session.to_dict() == held.now

    @staticmethod
    def _allow(key: Key, ops: list[Op]) -> list[Op]:
        """An anonymous session shares nothing with a user."""
        return [op for op in ops if key[0] is not None or not op[1].startswith("user:")]


def run_machine(kind: str, folder: Path, examples: int, *, is_control: bool = False) -> None:
    class OnPlace(Machine):
        def __init__(self) -> None:
            self.place = find_kept_place(kind, Path(mkdtemp(dir=folder)))
            super().__init__()

    run_state_machine_as_test(
        OnPlace,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            database=None,
            derandomize=is_control,
            suppress_health_check=[*HealthCheck],
            phases=[phase for phase in Phase if not is_control or phase not in {Phase.shrink, Phase.explain}],
        ),
    )


@pytest.mark.parametrize(("kind", "part"), [("memory", 1.0), ("memory-8", 1.0), ("sqlite", 0.4)])
def test_a_service_does_what_dicts_do(kind: str, part: float, tmp_path: Path) -> None:
    run_machine(kind, tmp_path, round(EXAMPLES * part))


def forget_deletes(place: Place, change: Change) -> list[Any]:
    return [
        Put(place.state_row(name), {"name": name.encode(), "value": value.after})
        for name, value in change.values.items()
        if value.after is not None
    ]


def compare_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commits, "is_at", lambda row, _: Exists(row))
    patch.setattr(commits, "catch_up", lambda kept, _: kept)


def delete_row(place: Place, row: Any, **_: Any) -> Generator[Transaction, Any, None]:
    yield Transaction([place.row], writes=[Delete(place.row)])


FAULTS: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "a commit compares nothing": compare_nothing,
    "a merge takes over nothing": lambda patch: patch.setattr(KeptState, "rebase", lambda _, newer: []),
    "what is removed stays": lambda patch: patch.setattr(commits, "write_state", forget_deletes),
    "counts are written as numbers": lambda patch: patch.setattr(KeptState, "find_commuting", lambda *_: None),
    "a delete leaves all rows": lambda patch: patch.setattr(dropping, "drop_rows", delete_row),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_control_a_fault_is_seen(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises((AssertionError, DcafError, pytest.fail.Exception)):
        run_machine("memory", tmp_path, 300, is_control=True)


# ---- the same program on an envelope and on a service


class Typed(Session):
    step: int = 1
    hosts: list[str] = []
    at: dt.datetime | None = None


class Stopped(Exception):
    """What a block raises that is to write nothing."""


PROGRAM_NAMES: Final = ["a", "b", "user:a", "app:a", "temp:a", "k" * 190, "\0", "step", "hosts"]
PLAIN: Final = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 1.0, -0.0, 0.1, "", "a", "\0", "🙂"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "\0"]), inner, max_size=3)),
    max_leaves=5,
)
NAMED: Final = st.sampled_from(PROGRAM_NAMES)
STEPS: Final = st.one_of(
    st.tuples(st.just("set"), NAMED, PLAIN),
    st.tuples(
        st.sampled_from(["delete", "pop", "get", "nest", "setdefault", "typed", "clear", "clear user", "once"]), NAMED, PLAIN
    ),
    st.tuples(st.just("incr"), NAMED, st.integers(-2, 2)),
    st.tuples(st.just("append"), NAMED, PLAIN),
    st.tuples(st.just("update"), NAMED, st.dictionaries(NAMED, PLAIN, max_size=3)),
    st.tuples(st.sampled_from(["draft", "failed draft"]), NAMED, PLAIN),
)
TURNS: Final = st.lists(st.tuples(st.lists(STEPS, max_size=6), st.booleans()), min_size=1, max_size=4)


async def step(session: Session, what: tuple[str, str, Any]) -> Any:
    """Do one step of a program; returns what came of it, as a text."""
    try:
        return repr(await _step(session, *what))
    except (DcafError, KeyError, TypeError, AttributeError) as error:
        return type(error).__name__


async def _step(session: Session, kind: str, name: str, value: Any) -> Any:
    value = copy.deepcopy(value)
    if kind == "set":
        session[name] = value
    elif kind == "nest":
        _change_in_place(session[name], value)
    elif kind == "typed":
        typed = Typed.of(session)
        typed.hosts.append(name)
        typed.at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        typed.step += 1
    elif kind == "clear user":
        session.user.clear()
    elif kind in {"draft", "failed draft"}:
        with transaction(session) as draft:
            draft[name] = value
            draft.incr("count")
            draft.append("list", name)
            if kind == "failed draft":
                raise KeyError
    elif kind == "once":
        session.incr("touched")  # what is used up is not written where no key was touched
        return await session.once(name)
    elif kind in {"delete", "get", "pop"}:
        return getattr(session, kind)(name)
    elif kind in {"incr", "append", "setdefault"}:
        return getattr(session, kind)(name, value)
    else:
        session.update(value) if kind == "update" else session.clear()
    return None


def _change_in_place(found: Any, value: Any) -> None:
    if isinstance(found, dict):
        found["in place"] = value
    else:
        found.insert(0, value)


async def run_turn(session: Session, steps: list[tuple[str, str, Any]], *, raises: bool) -> list[Any]:
    found: list[Any] = [await step(session, one) for one in steps]
    changes = session.changes
    found += [changes["set"], sorted(changes["delete"]), session.is_modified, session.to_dict()]
    if raises:
        raise Stopped(found)
    return found


async def run_on_envelopes(program: list[Any]) -> list[Any]:
    host = SessionHost(keys=Keyring.ephemeral(), audience="jobs")
    envelope: dict[str, Any] | None = None
    found: list[Any] = []
    for steps, raises in program:
        turn = host.turn(envelope)
        try:
            async with turn:
                found.append(await run_turn(turn.session, steps, raises=raises))
            envelope = turn.envelope
        except Stopped as error:
            found.append(error.args[0])
        except DcafError as error:
            found.append(type(error).__name__)
    async with host.turn(envelope) as turn:
        return [*found, turn.session.to_dict()]


async def run_on_a_service(program: list[Any], service: SessionService) -> list[Any]:
    made = await service.create(user="p")
    found: list[Any] = []
    for steps, raises in program:
        try:
            async with service.open(user="p", id=made.id) as session:
                found.append(await run_turn(session, steps, raises=raises))
        except Stopped as error:
            found.append(error.args[0])
        except DcafError as error:
            found.append(type(error).__name__)
    last = await service.get(user="p", id=made.id)
    assert last is not None
    return [*found, last.to_dict()]


def compare(program: list[Any], place: KeptPlace) -> None:
    async def test() -> None:
        service = SessionService(place.open_engine(), app=f"clinic{os.urandom(8).hex()}")
        assert repr(_sort(await run_on_envelopes(program))) == repr(_sort(await run_on_a_service(program, service)))

    asyncio.run(test())


def _sort(found: Any) -> Any:
    """The same with the keys of each dict in one order: a service does not keep that of a session's keys."""
    if isinstance(found, dict):
        return {name: _sort(found[name]) for name in sorted(found)}
    return [_sort(one) for one in found] if isinstance(found, list) else found


@pytest.mark.parametrize(("kind", "part"), [("memory-8", 2.0), ("sqlite", 1.0), ("redis", 0.5)])
def test_a_program_ends_in_the_same_state_in_envelopes_and_in_a_service(kind: str, part: float, tmp_path: Path) -> None:
    place = find_kept_place(kind, tmp_path)

    @settings(max_examples=round(EXAMPLES * part), deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(TURNS)
    @example([([("set", "a", {"a": 1}), ("nest", "a", -0.0), ("typed", "a", 1), ("once", "a", 1)], False)] * 2)
    def test(program: list[Any]) -> None:
        compare(program, place)

    test()
    place.close()


def test_control_a_program_ends_in_another_state_where_what_is_removed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "write_state", forget_deletes)
    with pytest.raises(AssertionError):
        compare([([("set", "a", 1)], False), ([("delete", "a", None)], False)], KeptPlace("memory"))
