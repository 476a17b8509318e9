"""A session does what a dict does: one program, run on both, gives the same results, the same errors and the same order.

The programs run on a session, on its scopes, on typed views, inside a tool's call and after it, and go on after the session was
sealed and opened again. On the dict that shows a session every second step is done to the session itself. What is different by
choice stands at the end, each with its test.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dcaf import ReadOnlySession, Session
from dcaf.core import SessionTypeError, SessionValueError
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.session_dict import DictState, SessionDict
from dcaf.core.transaction import Overlay

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
SEALER: Final = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000)


class Deploy(Session):
    a: Any = None
    steps: list[int] = []


Step = Callable[[Any], Any]


@dataclass
class World:
    """A dict and a session that are to agree, and what a program holds of each."""

    subject: str
    session: Session = field(default_factory=SEALER.start)
    model: dict[str, Any] = field(default_factory=dict)
    held: list[tuple[Any, Any]] = field(default_factory=list)
    call: Session | None = None
    steps: int = 0

    @property
    def mapping(self) -> Any:
        if self.subject == "shown" and (self.call or self.steps % 2):
            return self.call or self.session
        return SUBJECTS[self.subject](self.call or self.session)

    def mapping_of_session(self) -> Any:
        """What has the methods of a session."""
        return self.mapping if self.subject in SCOPES else self.call or self.session

    def is_shared(self, key: str) -> bool:
        """Whether one list stands under two keys: a typed object is of one of them."""
        return sum(value is self.model[key] for value in self.model.values()) > 1

    def clear(self) -> None:
        """Clear both: a session keeps what is shared."""
        mapping, before = self.mapping, {**self.model}
        mapping.clear()
        self.model.clear()
        if isinstance(mapping, Session):
            self.model.update({key: before[key] for key in before if key.startswith(("user:", "app:"))})


SCOPES: Final = ("user", "app", "temp")


def shown(session: Session) -> Any:
    """The dict that shows a session, the same one each time."""
    state = session._state
    return state._shown if isinstance(state, DictState) else SessionDict.of(session)


SUBJECTS: Final[dict[str, Callable[[Session], Any]]] = {
    "session": lambda session: session,
    "typed": Deploy.of,
    "user": lambda session: session.user,
    "app": lambda session: session.app,
    "temp": lambda session: session.temp,
    "shown": shown,
}

# Keys and values

KEYS = st.sampled_from(["a", "b", "c", "d", "ü", "user:u", "temp:t"])
ODD_KEYS: st.SearchStrategy[Any] = st.sampled_from([1, None, (1,), 1.5, b"a", [], {}, ("a", [])])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
ATOMS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | TEXT
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5)
DICTS = st.dictionaries(KEYS, VALUES, max_size=3)


def outcome(step: Step, mapping: Any) -> Any:
    """What a step gives, as something that can be compared: values exactly, errors by their type."""
    try:
        found = step(mapping)
    except (KeyError, TypeError, RuntimeError, ValueError, StopIteration) as error:
        return (
            TypeError if type(error) is ValueError else type(error)
        )  # the one is what update() raises, where a dict raises the other
    return None if found is mapping else exact(found)


def exact(value: Any) -> Any:
    """A value in which 1, 1.0 and True are three, and the order of keys counts."""
    if isinstance(value, Mapping):
        return ["mapping", *((key, exact(item)) for key, item in value.items())]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(exact, value)]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(map(repr, value))]
    return type(value).__name__, repr(value)


def going(view: str, at: int, change: Step) -> Step:
    """Go through a view, and change the mapping on the way."""

    def step(mapping: Any) -> Any:
        seen = []
        for number, item in enumerate(iter(getattr(mapping, view)()) if view else iter(mapping)):
            seen.append(copy.deepcopy(item))
            if number == at:
                change(mapping)
        return seen

    return step


def changing(mapping: Any, key: str, value: Any) -> Any:
    """Change what is inside a value, in place."""
    found = mapping[key]
    if isinstance(found, list):
        found.append(copy.deepcopy(value))
    elif isinstance(found, dict):
        found["new"] = copy.deepcopy(value)
    return found


def started(make: Step, change: Step) -> Step:
    """Make an iterator, change the mapping, and only then go through it."""

    def step(mapping: Any) -> Any:
        items = make(mapping)
        change(mapping)
        return list(items)

    return step


def assigned(name: str, other: Any) -> Step:
    def step(mapping: Any) -> Any:
        return getattr(mapping, name)(copy.deepcopy(other))

    return step


@st.composite
def reads(draw: st.DrawFn) -> Step:
    """A step that changes nothing."""
    key, value, other = draw(KEYS), draw(VALUES), draw(DICTS)
    keys = draw(st.lists(KEYS, max_size=3))
    odd: Any = draw(ODD_KEYS)
    steps: list[Step] = [
        lambda m: m[key],
        lambda m: m.get(key),
        lambda m: m.get(key, copy.deepcopy(value)),
        lambda m: key in m,
        len,
        list,
        lambda m: list(reversed(m)),
        lambda m: list(m.keys()),
        lambda m: list(m.items()),
        lambda m: list(m.values()),
        lambda m: list(reversed(m.keys())),
        lambda m: list(reversed(m.items())),
        lambda m: list(reversed(m.values())),
        lambda m: len(m.items()),
        lambda m: (key, value) in m.items(),
        lambda m: [(key, item) in m.items() for key, item in list(m.items())],
        lambda m: [item in m.items() for item in (key, (key,), (key, value, value), [key, value], 3)],
        lambda m: (key in m.keys(), value in m.values()),  # noqa: SIM118 - the view itself is asked
        lambda m: m.keys() & keys,
        lambda m: m.keys() | set(keys),
        lambda m: m.keys() - set(keys),
        lambda m: m.keys() ^ set(keys),
        lambda m: set(keys) - m.keys(),
        lambda m: m.keys().isdisjoint(keys),
        lambda m: (m.keys() == set(keys), m.keys() <= set(keys), m.keys() >= set(keys), m.keys() == m.keys()),
        lambda m: (m.items() == other.items(), other.items() == m.items(), m.values() == m.values()),
        lambda m: list(m.keys().mapping),
        lambda m: (m == other, other == m, m != other, m == m.copy(), m == 3, m is None),
        lambda m: m | other,
        lambda m: other | m,
        lambda m: m | 3,
        lambda m: 3 | m,
        lambda m: type(m | other) is dict,
        lambda m: m.copy(),
        dict,
        lambda m: {**m},
        lambda m: dict(**{name: m[name] for name in m}),
        sorted,
        lambda m: min(m, default=None),
        lambda m: list(zip(m, m.values(), strict=True)),
        lambda m: next(iter(m), None),
        lambda m: next(iter(m)),
        lambda m: list(islice(m.items(), 2)),
        lambda m: odd in m,
        lambda m: m[odd],
        lambda m: m.get(odd, 5),
        lambda m: odd in m.keys(),  # noqa: SIM118 - as above
        lambda m: (odd, 1) in m.items(),
        lambda m: m.get(),
        lambda m: m.get(key, 1, 2),
        hash,
        lambda m: m + {},
        lambda m: m < {},
        lambda m: m[0:1],
        lambda m: [key, *m],
        lambda m: OrderedDict(**m),
        lambda m: "{a}".format(**m),
        lambda m: str.format_map("{a}", m),
        lambda m: f"{m['a']}",
    ]
    return draw(st.sampled_from(steps))


@st.composite
def writes(draw: st.DrawFn) -> Step:
    """A step that may change the mapping."""
    key, other_key, value, other = draw(KEYS), draw(KEYS), draw(VALUES), draw(DICTS)
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=3))
    odd: Any = draw(ODD_KEYS)
    no_text: Any = draw(ODD_KEYS.filter(lambda found: not isinstance(found, list | dict) and found != ("a", [])))
    at = draw(st.integers(0, 3))
    change: Step = draw(
        st.sampled_from(
            [
                lambda m: m.update({other_key: copy.deepcopy(value)}),
                lambda m: m.pop(other_key, None),
                lambda m: m.popitem(),
                lambda m: m.setdefault(other_key, 1),
            ]
        )
    )
    words = {name: item for name, item in other.items() if name.isidentifier()}
    steps: list[Step] = [
        lambda m: m.__setitem__(key, copy.deepcopy(value)),
        lambda m: m.__setitem__(key, copy.deepcopy(value)),
        lambda m: m.__delitem__(key),
        lambda m: m.__delitem__(odd),
        lambda m: m.pop(key),
        lambda m: m.pop(key, copy.deepcopy(value)),
        lambda m: m.pop(no_text),
        lambda m: m.pop(no_text, 5),
        lambda m: m.pop(),
        lambda m: m.pop(key, 1, 2),
        lambda m: m.popitem(),
        lambda m: m.popitem(),
        lambda m: m.popitem(1),
        lambda m: m.setdefault(key, copy.deepcopy(value)),
        lambda m: m.setdefault(key),
        lambda m: changing({0: m.setdefault(key, [])}, 0, value),  # type: ignore[arg-type]
        lambda m: m.update(copy.deepcopy(other)),
        lambda m: m.update(copy.deepcopy(pairs)),
        lambda m: m.update(copy.deepcopy(other), **copy.deepcopy(words)),
        lambda m: m.update(iter(copy.deepcopy(pairs))),
        lambda m: m.update(),
        lambda m: m.update(3),
        lambda m: m.update(None),
        lambda m: m.update([3]),
        lambda m: m.update(other, other),
        lambda m: m.update(m),
        assigned("__ior__", other),
        assigned("__ior__", pairs),
        assigned("__ior__", 3),
        going("", at, change),
        going("keys", at, change),
        going("values", at, change),
        going("items", at, change),
        going("items", at, lambda m: changing(m, key, value)),
        going("", at, lambda m: m.__setitem__(key, copy.deepcopy(value))),
        started(iter, change),
        started(lambda m: iter(m.items()), change),
        started(reversed, change),
        lambda m: [m.pop(name) for name in list(m)],
        lambda m: changing(m, key, value),
        lambda m: changing({0: m.get(key)}, 0, value),  # type: ignore[arg-type]
        lambda m: [changing({0: item}, 0, value) for item in m.values()],  # type: ignore[arg-type]
        lambda m: m.__setitem__(key, m[other_key]),
        lambda m: (m.__setitem__(key, m.pop(other_key)), changing(m, key, value)),
        lambda m: (
            (m[key] is m[key], m.get(key) is m[key], m[key] is m.setdefault(key, 1))
            if isinstance(m.get(key), list | dict)
            else None
        ),
        lambda m: m.pop(key) and m.__setitem__(key, copy.deepcopy(value)),
    ]
    return draw(st.sampled_from(steps))


# Steps of a whole world


@st.composite
def giving(draw: st.DrawFn) -> Callable[[World], None]:
    """Give a list to both, and change it afterwards, as long as it is theirs."""
    key, value = draw(KEYS), draw(st.lists(ATOMS, max_size=2))

    def step(world: World) -> None:
        mine, theirs = copy.deepcopy(value), copy.deepcopy(value)
        world.mapping[key], world.model[key] = mine, theirs
        mine.append(1)
        theirs.append(1)
        assert (world.mapping[key] is mine) == (world.model[key] is theirs)
        world.held.append((mine, theirs))

    return step


@st.composite
def holding(draw: st.DrawFn) -> Callable[[World], None]:
    """Take a value out of both, to be changed later, or change what was taken before."""
    key, value, takes = draw(KEYS), draw(ATOMS), draw(st.booleans())

    def step(world: World) -> None:
        if takes and isinstance(world.model.get(key), list):
            world.held.append((world.mapping[key], world.model[key]))
        elif not takes:
            for mine, theirs in world.held:
                mine.append(value)
                theirs.append(value)

    return step


def clearing(world: World) -> None:
    world.clear()


@st.composite
def counting(draw: st.DrawFn) -> Callable[[World], None]:
    """``incr`` and ``append`` are what a dict does in several steps."""
    key, value, counts = draw(KEYS), draw(VALUES), draw(st.booleans())

    def step(world: World) -> None:
        world.held.clear()  # what was held is overtaken
        mapping = world.mapping_of_session()
        nothing: Any = 0 if counts else []
        found = world.model.get(key, nothing)
        if type(found) is not type(nothing):
            with pytest.raises(SessionTypeError):
                mapping.incr(key) if counts else mapping.append(key, value)
        elif counts:
            world.model[key] = found + 2
            assert mapping.incr(key, 2) == found + 2
        else:
            world.model[key] = [*found, copy.deepcopy(value)]
            mapping.append(key, value)

    return step


@st.composite
def reaching(draw: st.DrawFn) -> Callable[[World], None]:
    """Write into the storage of the dict past its methods, as code in C does; of a session, through a typed object."""
    key, value, other, removes, around = draw(KEYS), draw(VALUES), draw(DICTS), draw(st.booleans()), draw(st.booleans())

    def step(world: World) -> None:
        if around and world.subject == "shown" and world.call is None:
            for given, mapping in ((copy.deepcopy(other), shown(world.session)), (copy.deepcopy(other), world.model)):
                dict.update(mapping, given)
                if removes and mapping:
                    dict.popitem(mapping)
                dict.pop(mapping, key, None)
                dict.__setitem__(mapping, key, copy.deepcopy(value))
        elif not around and isinstance(world.model.get(key), list) and not world.is_shared(key):
            world.held.clear()
            world.mapping_of_session().get(key, as_type=list[Any]).append(copy.deepcopy(value))
            world.model[key].append(copy.deepcopy(value))

    return step


def sealing(world: World) -> None:
    """Seal and open: values, and their order, come back."""
    returning(world)
    world.session = SEALER.open(json.loads(SEALER.seal(world.session, SEALER.binding(), sequence=1)), SEALER.binding())
    world.held.clear()
    if world.subject == "temp":
        world.model = {}
    elif world.subject not in SCOPES:
        world.model = {key: item for key, item in world.model.items() if not key.startswith("temp:")}
    world.model = copy.deepcopy(world.model)


def calling(world: World) -> None:
    """Go on inside a call of a tool."""
    if world.call is None:
        world.held.clear()
        world.call = Session._over(Overlay(world.session._state))


def returning(world: World) -> None:
    """The call returns, and what it did is part of the session."""
    if world.call is not None:
        world.held.clear()
        world.model = copy.deepcopy(world.model)
        state = world.call._state
        assert isinstance(state, Overlay)
        assert state.commit().clashes == []
        world.call = None


def pair(step: Step) -> Callable[[World], None]:
    def run(world: World) -> None:
        expected = outcome(step, world.model)
        found = outcome(step, world.mapping)
        assert found == expected, inspect.getsource(step).strip()

    return run


PROGRAMS = st.lists(
    reads().map(pair)
    | writes().map(pair)
    | writes().map(pair)
    | giving()
    | holding()
    | counting()
    | reaching()
    | st.sampled_from([clearing, sealing, calling, returning]),
    max_size=25,
)


def they_agree(world: World) -> None:
    """The law: at every step the session is the dict, by every way to look at it, and in its order."""
    mapping, model = world.mapping, world.model
    assert exact(dict(mapping)) == exact(model)
    assert list(mapping) == list(model)
    assert list(reversed(mapping)) == list(reversed(model))
    assert len(mapping) == len(model)
    assert exact(mapping.copy()) == exact(model)
    if world.subject not in SCOPES:
        session = world.call or world.session
        seen: Any = ReadOnlySession.of(mapping)
        assert exact(session.to_dict()) == exact({key: item for key, item in model.items() if not key.startswith("temp:")})
    if world.subject == "shown" and world.call is None:
        storage = shown(world.session)
        assert orjson.dumps(storage) == orjson.dumps(model)  # which reads the storage, and calls no method
        assert json.dumps(storage) == json.dumps(model)
        assert exact(dict(dict.items(storage))) == exact(dict(world.session)) == exact(model)
        assert isinstance(storage, dict)
    if world.subject in SCOPES:
        seen = getattr(ReadOnlySession.of(world.call or world.session), world.subject)
    assert exact(dict(seen.items())) == exact(model)
    assert (list(seen), list(reversed(seen)), exact(seen | {})) == (list(model), list(reversed(model)), exact(model))
    assert seen == model
    assert model == mapping


def run(subject: str, program: list[Callable[[World], None]]) -> None:
    world = World(subject)
    for step in program:
        step(world)
        they_agree(world)
        world.steps += 1
    returning(world)
    they_agree(world)
    sealing(world)
    they_agree(world)


SETTINGS = settings(
    max_examples=max(50, int(2_500 * SCALE)),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.mark.parametrize("subject", SUBJECTS)
@SETTINGS
@given(program=PROGRAMS)
def test_one_program_gives_the_same_on_a_dict_and_on_a_session(subject: str, program: list[Callable[[World], None]]) -> None:
    run(subject, program)


# Controls: sessions that do something else than a dict


class FirstOut(Session):
    """Its popitem takes the first key, as that of ``MutableMapping`` does."""

    popitem = MutableMapping.popitem


class Unordered(Session):
    """A key that was dropped and set again stands where it stood before."""

    def __iter__(self) -> Iterator[str]:
        arrived = self._state._load()
        return iter(sorted(self._keys(), key=lambda key: key not in arrived))


class Copying(Session):
    """It hands out copies."""

    def get(self, key: Any, default: Any = None, **how: Any) -> Any:
        return copy.deepcopy(super().get(key, default, **how))


class Patient(Session):
    """It goes through the keys that there were when it began, whatever becomes of them."""

    def _iterate(self, keys: list[str]) -> Iterator[str]:
        return iter(keys)


class Plainer(Session):
    """Its views can only be gone through forward."""

    keys = MutableMapping.keys
    items = MutableMapping.items
    values = MutableMapping.values


class Forgiving(Session):
    """It takes what cannot be a key for one that is absent."""

    def _name(self, key: object) -> str | None:
        return key if isinstance(key, str) else None


@pytest.mark.parametrize("broken", [FirstOut, Unordered, Copying, Patient, Plainer, Forgiving])
def test_control_a_session_that_does_something_else_is_caught(broken: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUBJECTS, "broken", broken.of)

    @settings(SETTINGS, max_examples=4_000, phases=[Phase.generate])
    @given(program=PROGRAMS)
    def compared(program: list[Callable[[World], None]]) -> None:
        run("broken", program)

    with pytest.raises((AssertionError, AttributeError)):
        compared()


@pytest.mark.parametrize("method", ["show", "take_in"])
def test_control_a_dict_that_is_kept_in_step_in_one_direction_is_caught(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DictState, method, lambda self: None)

    @settings(SETTINGS, max_examples=200, phases=[Phase.generate])
    @given(program=PROGRAMS)
    def compared(program: list[Callable[[World], None]]) -> None:
        run("shown", program)

    with pytest.raises((AssertionError, KeyError)):
        compared()


# What is different by choice


def test_a_session_is_true_even_when_it_is_empty_and_its_scopes_are_not() -> None:
    assert Session()
    assert not Session().user


@pytest.mark.parametrize("method", ["__setitem__", "setdefault", "set", "append"])
def test_a_key_that_is_no_string_is_absent_and_cannot_be_stored(method: str) -> None:
    session: Any = Session()
    assert 1 not in session
    with pytest.raises(SessionValueError, match="a key of type int cannot be stored; keys must be strings"):
        getattr(session, method)(1, 2)
    with pytest.raises(SessionValueError, match="a key of type int cannot be stored; keys must be strings"):
        session.update({1: 2})


def test_a_value_that_json_cannot_say_is_refused_or_becomes_what_json_says() -> None:
    session = Session()
    with pytest.raises(SessionValueError):
        session["a"] = float("nan")
    session["a"] = (1, 2)
    assert session["a"] == [1, 2]


def test_copy_is_deep_so_that_what_it_gives_is_nobody_elses() -> None:
    session = Session.from_dict({"a": [1]})
    session.copy()["a"].append(2)
    (session | {})["a"].append(3)
    assert session.to_dict() == {"a": [1, 3]}


def test_update_stores_all_or_nothing_where_a_dict_stores_the_first_ones() -> None:
    session = Session()
    with pytest.raises(SessionValueError):
        session.update(a=1, b=object())
    assert session.is_empty


def test_an_order_alone_is_no_modification_and_yet_is_kept_when_the_session_is_sealed() -> None:
    session = SEALER.start()
    session.update(a=1, b=2)
    session = SEALER.open(json.loads(SEALER.seal(session, SEALER.binding(), sequence=1)), SEALER.binding())
    session["a"] = session.pop("a")
    assert (list(session), session.is_modified) == (["b", "a"], False)
    session = SEALER.open(json.loads(SEALER.seal(session, SEALER.binding(), sequence=1)), SEALER.binding())
    assert list(session) == ["b", "a"]


def test_fromkeys_makes_a_session() -> None:
    assert Deploy.fromkeys(["a", "b"], 1) == dict.fromkeys(["a", "b"], 1)
    assert type(Deploy.fromkeys("ab")) is Deploy
    assert Session.fromkeys("ab") == {"a": None, "b": None}
