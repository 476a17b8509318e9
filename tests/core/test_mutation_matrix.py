"""Every change made in place is kept, or refused with SessionAliasError; nothing else counts as a change.

Each row runs against a Session and against two deliberately broken sessions that the same verdict must catch: one that
notices changes of its top level alone, as Starlette's does, and one that takes every read for a change.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from itertools import permutations
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from dcaf.core import Session, SessionAliasError, SessionValueError
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer

SEALER = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000)
ALIASED = (
    "session['l'] was changed through two objects that were handed out of it, and one change would be lost. "
    "Change it through one of them, or store the result with set()."
)


class Cart(BaseModel):
    items: list[str] = []
    notes: dict[str, Any] = {}


@dataclass
class Box:
    things: list[str] = field(default_factory=list)
    inner: dict[str, list[int]] = field(default_factory=dict)


class Deploy(Session):
    l: list[int] = [1]  # noqa: E741
    cart: Cart = Cart()
    fresh: list[int] = []


class Naive(dict[Any, Any]):
    """A dict with a dirty flag at its top level; what is sealed is what was there when the flag was set."""

    def __init__(self, arrived: Any, prefix: Any = "", sealed: Any = None) -> None:
        super().__init__(deepcopy(arrived))
        self._prefix = prefix
        self._sealed = deepcopy(arrived) if sealed is None else sealed
        self._arrived = deepcopy(arrived)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._sealed[self._prefix + key] = _plain(value)

    set = __setitem__

    def get(self, key: Any, default: Any = None, *, as_type: Any = None) -> Any:
        found = super().get(key, default)
        return found if as_type is None else TypeAdapter(as_type).validate_python(_plain(found))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def _scope(self, prefix: Any) -> Any:
        inside = {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}
        return Naive(inside, prefix, self._sealed)

    user = property(lambda self: self._scope("user:"))
    app = property(lambda self: self._scope("app:"))
    is_modified = property(lambda self: self._sealed != self._arrived)

    def to_dict(self) -> Any:
        return self._sealed


class Overeager(Session):
    """Takes whoever reads a container for one who changes it."""

    def get(self, key: Any, default: Any = None, *, as_type: Any = None) -> Any:
        self.__dict__["read"] = True
        return super().get(key, default, as_type=as_type)

    is_modified = property(lambda self: "read" in self.__dict__)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(TypeAdapter(type(value)).dump_python(value, mode="json")))


def attribute(session: Any, name: Any) -> Any:
    if isinstance(session, Naive):
        return session.get(name, {"cart": {}, "fresh": []}.get(name), as_type=Deploy.__dict__[name].as_type)
    return getattr(Deploy.of(session), name)


def next_turn(session: Session) -> Session:
    return SEALER.open(json.loads(SEALER.seal(session, SEALER.binding(), sequence=1)), SEALER.binding())


ARRIVED = {
    "l": [1],
    "d": {"x": 1},
    "deep": {"a": [{"b": [1]}]},
    "cart": {"items": ["a"], "notes": {}},
    "box": {"things": [], "inner": {"k": [1]}},
    "user:l": [1],
    "app:d": {"x": 1},
}


def with_default(session: Any) -> None:
    default = Cart()
    session.get("new", default, as_type=Cart)
    default.items.append("z")


def with_default_returned(session: Any) -> None:
    session.get("new", Cart(), as_type=Cart).items.append("z")


def with_given(session: Any) -> None:
    given: dict[str, Any] = {"items": []}
    session.set("new", given)
    given["items"].append("z")


def with_given_model(session: Any) -> None:
    given = Cart()
    session.set("new", given)
    given.items.append("z")


def with_given_dataclass(session: Any) -> None:
    given = Box()
    session.set("new", given)
    given.things.append("z")


def with_given_model_in_a_list(session: Any) -> None:
    given = Cart()
    session.set("new", [given])
    given.items.append("z")


def with_given_set(session: Any) -> None:
    given = {1}
    session.set("new", given)
    given.add(2)


def after_to_dict(session: Any) -> None:
    held = session["l"]
    session.to_dict()
    held.append(2)


def after_is_modified_and_changes(session: Any) -> None:
    held = session.get("cart", as_type=Cart)
    held.items.append("y")
    assert session.is_modified
    _ = getattr(session, "changes", None)
    held.items[-1] = "z"


def after_an_exception(session: Any) -> None:
    try:
        session.get("cart", as_type=Cart).items.append("z")
        raise RuntimeError("the tool failed")  # noqa: TRY301
    except RuntimeError:
        pass


def after_a_refusal(session: Any) -> None:
    held = session["l"]
    with suppress(Exception):
        session.set("l", object())
    held.append(2)


def through_two_names_of_one_object(session: Any) -> None:
    one, other = session.get("cart", as_type=Cart), session.get("cart", as_type=Cart)
    one.items.append("y")
    other.items.append("z")


def raw_after_typed(session: Any) -> None:
    session.get("cart", as_type=Cart).items.append("y")
    session["cart"]["items"].append("z")


def typed_after_raw(session: Any) -> None:
    session["cart"]["items"].append("y")
    session.get("cart", as_type=Cart).items.append("z")


def popped_and_set_again(session: Any) -> None:
    held = session.pop("l")
    session["l"] = held
    held.append(2)


CART_Z = {"items": ["z"], "notes": {}}
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "list, get()": (lambda s: s.get("l").append(2), {"l": [1, 2]}),
    "list, []": (lambda s: s["l"].append(2), {"l": [1, 2]}),
    "list, setdefault() of a present key": (lambda s: s.setdefault("l", []).append(2), {"l": [1, 2]}),
    "list, setdefault() of an absent key": (lambda s: s.setdefault("new", []).append(2), {"new": [2]}),
    "list, items()": (lambda s: dict(s.items())["l"].append(2), {"l": [1, 2]}),
    "list, values()": (lambda s: next(iter(s.values())).append(2), {"l": [1, 2]}),
    "list, slice": (lambda s: s["l"].__setitem__(slice(0, 1), [8, 9]), {"l": [8, 9]}),
    "list, +=": (lambda s: s.get("l").__iadd__([2]), {"l": [1, 2]}),
    "list, clear": (lambda s: s["l"].clear(), {"l": []}),
    "dict, get()": (lambda s: s.get("d").update(y=2), {"d": {"x": 1, "y": 2}}),
    "dict, []": (lambda s: s["d"].pop("x"), {"d": {}}),
    "dict, setdefault()": (lambda s: s.setdefault("d", {}).setdefault("y", 2), {"d": {"x": 1, "y": 2}}),
    "dict, items()": (lambda s: dict(s.items())["d"].clear(), {"d": {}}),
    "dict, an integer becomes true": (lambda s: s["d"].update(x=True), {"d": {"x": True}}),
    "dict, an integer becomes null": (lambda s: s["d"].update(x=None), {"d": {"x": None}}),
    "three deep, get()": (lambda s: s.get("deep")["a"][0]["b"].append(2), {"deep": {"a": [{"b": [1, 2]}]}}),
    "three deep, []": (lambda s: s["deep"]["a"][0].clear(), {"deep": {"a": [{}]}}),
    "three deep, setdefault()": (lambda s: s.setdefault("deep", {})["a"].pop(), {"deep": {"a": []}}),
    "three deep, items()": (lambda s: dict(s.items())["deep"]["a"][0]["b"].insert(0, 0), {"deep": {"a": [{"b": [0, 1]}]}}),
    "user scope": (lambda s: s.user["l"].append(2), {"user:l": [1, 2]}),
    "user scope, by its whole key": (lambda s: s["user:l"].append(2), {"user:l": [1, 2]}),
    "user scope, setdefault()": (lambda s: s.user.setdefault("new", []).append(2), {"user:new": [2]}),
    "app scope": (lambda s: s.app["d"].update(y=2), {"app:d": {"x": 1, "y": 2}}),
    "app scope, typed": (lambda s: s.app.get("d", as_type=dict[str, int]).update(y=2), {"app:d": {"x": 1, "y": 2}}),
    "typed list": (lambda s: s.get("l", as_type=list[int]).append(2), {"l": [1, 2]}),
    "typed set": (lambda s: s.get("l", as_type=set[int]).add(2), {"l": [1, 2]}),
    "model": (lambda s: s.get("cart", as_type=Cart).items.append("z"), {"cart": {"items": ["a", "z"], "notes": {}}}),
    "model, attribute": (lambda s: setattr(s.get("cart", as_type=Cart), "items", ["z"]), {"cart": CART_Z}),
    "model, nested dict": (
        lambda s: s.get("cart", as_type=Cart).notes.setdefault("n", []).append({}),
        {"cart": {"items": ["a"], "notes": {"n": [{}]}}},
    ),
    "dataclass": (lambda s: s.get("box", as_type=Box).things.append("z"), {"box": {"things": ["z"], "inner": {"k": [1]}}}),
    "dataclass, three deep": (
        lambda s: s.get("box", as_type=Box).inner["k"].append(2),
        {"box": {"things": [], "inner": {"k": [1, 2]}}},
    ),
    "typed session, list": (lambda s: attribute(s, "l").append(2), {"l": [1, 2]}),
    "typed session, model": (lambda s: attribute(s, "cart").items.append("z"), {"cart": {"items": ["a", "z"], "notes": {}}}),
    "typed session, default": (lambda s: attribute(s, "fresh").append(1), {"fresh": [1]}),
    "a default given with as_type": (with_default, {"new": CART_Z}),
    "a default returned with as_type": (with_default_returned, {"new": CART_Z}),
    "the dict given to set()": (with_given, {"new": {"items": ["z"]}}),
    "the model given to set()": (with_given_model, {"new": CART_Z}),
    "the dataclass given to set()": (with_given_dataclass, {"new": {"things": ["z"], "inner": {}}}),
    "a model inside a list given to set()": (with_given_model_in_a_list, {"new": [CART_Z]}),
    "the set given to set()": (with_given_set, {"new": [1, 2]}),
    "after to_dict()": (after_to_dict, {"l": [1, 2]}),
    "after is_modified and changes": (after_is_modified_and_changes, {"cart": {"items": ["a", "z"], "notes": {}}}),
    "after an exception": (after_an_exception, {"cart": {"items": ["a", "z"], "notes": {}}}),
    "after a refused set()": (after_a_refusal, {"l": [1, 2]}),
    "two gets of one type": (through_two_names_of_one_object, {"cart": {"items": ["a", "y", "z"], "notes": {}}}),
    "raw after typed": (raw_after_typed, {"cart": {"items": ["a", "y", "z"], "notes": {}}}),
    "typed after raw": (typed_after_raw, {"cart": {"items": ["a", "y", "z"], "notes": {}}}),
    "popped and set again": (popped_and_set_again, {"l": [1, 2]}),
}


def verdict(session: Any, change: Any, expected: Any) -> None:
    """The law of every row: the change is seen, and it is in what is sealed."""
    change(session)
    assert session.is_modified
    assert session.to_dict() == ARRIVED | expected


@pytest.mark.parametrize("row", ROWS)
def test_a_change_in_place_is_kept(row: Any) -> None:
    change, expected = ROWS[row]
    session = Session.from_dict(ARRIVED)
    verdict(session, change, expected)
    assert session.changes == {"set": expected, "delete": []}


@pytest.mark.parametrize("row", ROWS)
def test_a_change_in_place_arrives_in_the_next_turn(row: Any) -> None:
    change, expected = ROWS[row]
    session = SEALER.start()
    session.update(ARRIVED)
    session = next_turn(session)
    verdict(session, change, expected)
    assert next_turn(session).to_dict() == ARRIVED | expected


@pytest.mark.parametrize("row", ROWS)
def test_the_row_catches_a_session_that_sees_its_top_level_alone(row: Any) -> None:
    change, expected = ROWS[row]
    with pytest.raises((AssertionError, AttributeError, KeyError)):
        verdict(Naive(ARRIVED), change, expected)


READS: dict[str, Any] = {
    "get()": lambda s: s.get("l"),
    "[]": lambda s: s["deep"],
    "setdefault()": lambda s: s.setdefault("l", []),
    "items()": lambda s: dict(s.items()),
    "a list, typed": lambda s: s.get("l", as_type=list[int]),
    "a set": lambda s: s.get("l", as_type=set[int]),
    "a model": lambda s: s.get("cart", as_type=Cart),
    "a dataclass": lambda s: s.get("box", as_type=Box),
    "a default": lambda s: s.get("new", Cart(), as_type=Cart),
    "raw and typed": lambda s: (s.get("cart"), s.get("cart", as_type=Cart), s.get("cart", as_type=dict[str, Any])),
    "a change that was undone": lambda s: (s.get("l").append(2), s.get("l").pop()),
    "an equal value": lambda s: s.set("d", {**s.get("d")}),
    "an equal model": lambda s: s.set("cart", s.get("cart", as_type=Cart)),
    "to_dict() and len()": lambda s: (s.get("l"), s.to_dict(), len(s), list(s), repr(s), s == {}),
}


def unread(session: Any, read: Any) -> None:
    """The law of every read: nothing was changed, and nothing counts as changed."""
    read(session)
    assert not session.is_modified
    assert session.changes == {"set": {}, "delete": []}
    assert session.to_dict() == ARRIVED


@pytest.mark.parametrize("row", READS)
def test_reading_is_no_change(row: Any) -> None:
    unread(Session.from_dict(ARRIVED), READS[row])


@pytest.mark.parametrize("row", READS)
def test_the_row_catches_a_session_that_takes_reading_for_changing(row: Any) -> None:
    with pytest.raises(AssertionError):
        unread(Overeager.from_dict(ARRIVED), READS[row])


def test_reading_through_a_typed_session_is_no_change() -> None:
    session = Session.from_dict(ARRIVED)
    view = Deploy.of(session)
    assert (view.l, view.cart.items, view.fresh) == ([1], ["a"], [])
    assert not session.is_modified


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.temp.set("x", [1]),
        lambda s: s.temp.setdefault("x", []).append(1),
        lambda s: s.get("temp:x", Cart(), as_type=Cart).items.append("z"),
        lambda s: s.set("temp:x", 1),
        lambda s: (s.temp.update(x=1), s.temp.clear()),
        lambda s: s.temp.incr("x"),
    ],
)
def test_a_temporary_key_never_counts_as_modified_and_is_never_sealed(change: Any) -> None:
    session = SEALER.start()
    session["l"] = [1]
    session = next_turn(session)
    change(session)
    assert not session.is_modified
    assert session.changes == {"set": {}, "delete": []}
    assert session.to_dict() == {"l": [1]}
    assert next_turn(session).to_dict() == {"l": [1]}


def test_a_temporary_key_is_live_while_the_turn_runs() -> None:
    session = Session()
    session.temp["x"] = [1]
    session.temp["x"].append(2)
    assert session["temp:x"] == [1, 2]
    assert dict(session.temp) == {"x": [1, 2]}


def test_the_law_of_temporary_keys_catches_a_plain_key() -> None:
    session = Session.from_dict({"l": [1]})
    session["tmp:x"] = 1
    assert session.is_modified


ROUTES: dict[str, Callable[[Any], Any]] = {
    "raw": lambda s: s["l"],
    "list[int]": lambda s: s.get("l", as_type=list[int]),
    "list[float]": lambda s: s.get("l", as_type=list[float]),
    "typed session": lambda s: Deploy.of(s).l,
}


def test_two_reads_of_one_type_give_one_object() -> None:
    session = Session.from_dict(ARRIVED)
    assert session.get("cart", as_type=Cart) is session.get("cart", as_type=Cart)
    assert session["l"] is session.get("l")
    assert Deploy.of(session).l is session.get("l", as_type=list[int])
    assert Deploy.of(session).cart is Deploy.of(session).cart
    assert session.get("cart", as_type=Cart) is not session.get("cart")


def test_two_equal_defaults_of_one_type_give_one_object() -> None:
    session = Session()
    one = session.get("new", [], as_type=list[int])
    assert session.get("new", [], as_type=list[int]) is one


def test_the_object_given_to_set_is_the_one_that_is_read() -> None:
    session, cart = Session(), Cart()
    session.set("cart", cart)
    assert session.get("cart", as_type=Cart) is cart


OTHERS = [pair for pair in permutations(ROUTES, 2) if set(pair) != {"list[int]", "typed session"}]


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_changing_one_value_through_two_objects_is_refused(first: Any, second: Any) -> None:
    session = Session.from_dict({"l": [1]})
    one, other = ROUTES[first](session), ROUTES[second](session)
    one.append(2)
    other.append(3)
    for look in (Session.to_dict, lambda s: s.is_modified, lambda s: s.changes, lambda s: s["l"], lambda s: "l" in s, len, list):
        with pytest.raises(SessionAliasError) as caught:
            look(session)
        assert str(caught.value) == ALIASED


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_changing_through_an_object_that_was_overtaken_is_refused(first: Any, second: Any) -> None:
    session = Session.from_dict({"l": [1]})
    one, other = ROUTES[first](session), ROUTES[second](session)
    one.append(2)
    assert session.is_modified
    other.append(3)
    with pytest.raises(SessionAliasError) as caught:
        session.to_dict()
    assert str(caught.value) == ALIASED


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_an_object_that_was_overtaken_and_only_read_does_no_harm(first: Any, second: Any) -> None:
    session = Session.from_dict({"l": [1]})
    one, other = ROUTES[first](session), ROUTES[second](session)
    one.append(2)
    assert session.to_dict() == {"l": [1, 2]}
    assert other == [1]
    assert session.to_dict() == {"l": [1, 2]}
    assert ROUTES[second](session) == [1, 2]


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_set_resolves_what_two_objects_made_of_a_value(first: Any, second: Any) -> None:
    session = Session.from_dict({"l": [1]})
    one, other = ROUTES[first](session), ROUTES[second](session)
    one.append(2)
    other.append(3)
    session.set("l", [9])
    assert session.to_dict() == {"l": [9]}


@pytest.mark.parametrize("route", ROUTES)
def test_set_after_a_change_wins(route: Any) -> None:
    session = Session.from_dict({"l": [1]})
    ROUTES[route](session).append(2)
    session.set("l", [9])
    assert session.to_dict() == {"l": [9]}


def kept_or_refused(session: Any, expected: Any) -> None:
    try:
        found = session.to_dict()
    except SessionAliasError:
        return
    assert found == expected


@pytest.mark.parametrize("route", ROUTES)
def test_a_change_after_append_is_kept_or_refused(route: Any) -> None:
    session = Session.from_dict({"l": [1]})
    held = ROUTES[route](session)
    session.append("l", 2)
    held.append(3)
    kept_or_refused(session, {"l": [1, 2, 3]})


@pytest.mark.parametrize("route", ROUTES)
def test_set_ends_what_was_handed_out_before_as_in_a_dict(route: Any) -> None:
    session = Session.from_dict({"l": [1]})
    held = ROUTES[route](session)
    session.set("l", [9])
    while held:
        held.pop()
    assert session.to_dict() == {"l": [9]}


def test_set_ends_a_default_that_was_offered_before() -> None:
    session = Session()
    held = session.get("l", [], as_type=list[int])
    session.set("l", [9])
    held.append(3)
    assert session.to_dict() == {"l": [9]}


def test_the_law_of_aliases_catches_a_session_where_the_last_one_wins() -> None:
    class LastWins(dict[str, Any]):
        def to_dict(self) -> Any:
            return {"l": [1, 3]}

    with pytest.raises(AssertionError):
        kept_or_refused(LastWins(), {"l": [1, 2, 3]})


def test_two_different_defaults_that_both_changed_are_refused() -> None:
    session = Session()
    session.get("l", [1], as_type=list[int]).append(2)
    other = Session()
    one, two = other.get("l", [1], as_type=list[int]), other.get("l", [2], as_type=list[int])
    one.append(3)
    two.append(3)
    with pytest.raises(SessionAliasError):
        other.to_dict()
    assert session.to_dict() == {"l": [1, 2]}


class Older(BaseModel):
    id: int = 0
    tags: list[str] = []


class OlderCart(BaseModel):
    items: list[Older] = []


@dataclass
class OlderBox:
    id: int = 0


class Loose(BaseModel):
    flag: Any = None


NEWER = {"id": 1, "tags": ["a"], "price": 5, "nested": {"x": None}}


def drop_undeclared(session: Any, key: Any, as_type: Any, change: Any) -> None:
    """The broken twin: writes back what the model declares, as most libraries do."""
    found = TypeAdapter(as_type).validate_python(session[key])
    change(found)
    session.set(key, TypeAdapter(as_type).dump_python(found, mode="json"))


def edit(session: Any, key: Any, as_type: Any, change: Any) -> None:
    change(session.get(key, as_type=as_type))


def give_tags(model: Any) -> Any:
    model.tags.append("b")


FEWER: dict[str, tuple[Any, Any, Any, Any]] = {
    "a member": (NEWER, Older, lambda m: setattr(m, "id", 2), NEWER | {"id": 2}),
    "a list": (NEWER, Older, give_tags, NEWER | {"tags": ["a", "b"]}),
    "a dataclass": (NEWER, OlderBox, lambda m: setattr(m, "id", 2), NEWER | {"id": 2}),
    "an item": (
        {"items": [NEWER, NEWER | {"id": 2}], "more": 1},
        OlderCart,
        lambda m: setattr(m.items[1], "id", 3),
        {"items": [NEWER, NEWER | {"id": 3}], "more": 1},
    ),
    "items, one appended": (
        [NEWER, NEWER],
        list[Older],
        lambda m: m.append(Older(id=9)),
        [NEWER, NEWER, {"id": 9, "tags": []}],
    ),
    "items, one removed": ([NEWER, NEWER | {"id": 2}], list[Older], lambda m: m.pop(0), [NEWER | {"id": 2}]),
    "items, one inserted": (
        [NEWER, NEWER | {"id": 2}],
        list[Older],
        lambda m: m.insert(1, Older(id=9)),
        [NEWER, {"id": 9, "tags": []}, NEWER | {"id": 2}],
    ),
    "items, reversed": (
        [NEWER, NEWER | {"id": 2, "price": 6}],
        list[Older],
        lambda m: m.reverse(),
        [NEWER | {"id": 2, "price": 6}, NEWER],
    ),
    "items, sorted": (
        [NEWER | {"id": 3, "price": 7}, NEWER | {"id": 1}, NEWER | {"id": 2, "price": 6}],
        list[Older],
        lambda m: m.sort(key=lambda item: item.id),
        [NEWER | {"id": 1}, NEWER | {"id": 2, "price": 6}, NEWER | {"id": 3, "price": 7}],
    ),
    "items, the first edited and one appended": (
        [NEWER, NEWER | {"id": 2}],
        list[Older],
        lambda m: (give_tags(m[0]), m.append(Older(id=9))),
        [NEWER | {"tags": ["a", "b"]}, NEWER | {"id": 2}, {"id": 9, "tags": []}],
    ),
    "values of a dict": (
        {"a": NEWER, "b": NEWER},
        dict[str, Older],
        lambda m: setattr(m["a"], "id", 2),
        {"a": NEWER | {"id": 2}, "b": NEWER},
    ),
    "1 becomes true": ({"flag": 1, "more": 1}, Loose, lambda m: setattr(m, "flag", True), {"flag": True, "more": 1}),
    "a list of 1 becomes true": (
        {"flag": [1, 2], "more": 1},
        Loose,
        lambda m: setattr(m, "flag", [True, 2]),
        {"flag": [True, 2], "more": 1},
    ),
}


def exactly(value: Any) -> Any:
    return json.dumps(value, sort_keys=True)


def keeps_undeclared(row: Any, write: Any) -> None:
    stored, as_type, change, expected = FEWER[row]
    session = Session.from_dict({"k": stored})
    write(session, "k", as_type, change)
    assert exactly(session.to_dict()["k"]) == exactly(expected)


@pytest.mark.parametrize("row", FEWER)
def test_an_older_model_keeps_the_members_that_it_does_not_declare(row: Any) -> None:
    keeps_undeclared(row, edit)


@pytest.mark.parametrize("row", FEWER)
def test_the_row_catches_a_model_that_writes_only_what_it_declares(row: Any) -> None:
    with pytest.raises(AssertionError):
        keeps_undeclared(row, drop_undeclared)


@pytest.mark.parametrize("as_type", [Older, OlderBox, Loose])
def test_an_older_model_that_was_only_read_erases_nothing(as_type: Any) -> None:
    session = Session.from_dict({"k": NEWER})
    session.get("k", as_type=as_type)
    assert session.to_dict() == {"k": NEWER}
    assert not session.is_modified


def test_a_key_that_the_handle_removed_is_gone() -> None:
    session = Session.from_dict({"k": {"a": NEWER, "b": NEWER}})
    del session.get("k", as_type=dict[str, Older])["a"]  # type: ignore[union-attr]
    assert session.to_dict() == {"k": {"b": NEWER}}


def test_a_model_that_allows_extra_members_can_remove_one() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    session = Session.from_dict({"k": {"a": 1, "b": 2}})
    del session.get("k", as_type=Open).__pydantic_extra__["a"]  # type: ignore[union-attr]
    assert session.to_dict() == {"k": {"b": 2}}


@pytest.mark.parametrize(
    ("key", "as_type", "spoil", "message"),
    [
        ("l", None, lambda v: v.append(object()), "l[1]: is of type object, which cannot be stored"),
        ("d", None, lambda v: v.update(x=float("nan")), "d.x: is not a finite number, which JSON cannot say"),
        ("d", None, lambda v: v.update({"\ud800": 1}), "d['\\ud800']: has a lone surrogate, which is no Unicode text"),
        ("deep", None, lambda v: v["a"].append(2**70), "deep.a[1]: is an integer beyond 64 bits; store it as a string"),
        (
            "cart",
            Cart,
            lambda v: setattr(v, "items", 3),
            "cart.items: would not be read back: Input should be a valid array",
        ),
        ("cart", Cart, lambda v: v.notes.update(x=float("inf")), "cart.notes.x: is not a finite number, which JSON cannot say"),
    ],
)
def test_what_a_handle_may_not_hold_is_refused_before_it_is_sealed(key: Any, as_type: Any, spoil: Any, message: Any) -> None:
    session = SEALER.start()
    session.update(ARRIVED)
    session = next_turn(session)
    spoil(session.get(key, as_type=as_type))
    with pytest.raises(SessionValueError) as caught:
        SEALER.seal(session, SEALER.binding(), sequence=1)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"due": date(2026, 1, 31)}, {"due": "2026-01-31"}),
        ([Cart()], [{"items": [], "notes": {}}]),
        ([(1, 2)], [[1, 2]]),
        ({"cart": Box()}, {"cart": {"things": [], "inner": {}}}),
        (Cart(), {"items": [], "notes": {}}),
        ((1, 2), [1, 2]),
        (date(2026, 1, 31), "2026-01-31"),
    ],
)
def test_get_without_a_type_is_the_json_value_in_this_turn_as_in_the_next(given: Any, stored: Any) -> None:
    session = SEALER.start()
    session.set("k", given)
    assert next_turn(session)["k"] == stored
    assert session["k"] == stored


def test_what_a_copy_of_the_state_holds_is_its_own() -> None:
    session = Session.from_dict(ARRIVED)
    for plain in (session.to_dict(), session.copy(), session.changes["set"]):
        plain.clear()
    session.to_dict()["l"].append(2)
    session.copy()["l"].append(2)
    assert session.to_dict() == ARRIVED
    assert not session.is_modified


@dataclass
class Ranking:
    id: int
    order: list[int] = field(default_factory=list, compare=False)


class ById(BaseModel):
    id: int
    order: list[int] = []

    def __eq__(self, other: object) -> Any:
        return isinstance(other, ById) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("stored", "as_type", "change", "expected"),
    [
        ([1, True], None, lambda v: v.reverse(), [True, 1]),
        ([1, 1.0], None, lambda v: v.reverse(), [1.0, 1]),
        ([{"a": 0}, {"a": False}], None, lambda v: v.reverse(), [{"a": False}, {"a": 0}]),
        ({"id": 1, "order": [1, 2]}, Ranking, lambda v: v.order.reverse(), {"id": 1, "order": [2, 1]}),
        ({"id": 1, "order": [1, 2]}, ById, lambda v: v.order.reverse(), {"id": 1, "order": [2, 1]}),
        ([1, 2], None, lambda v: v.reverse(), [2, 1]),
    ],
)
def test_a_new_order_of_a_list_is_a_change_whatever_python_takes_for_equal(
    stored: Any, as_type: Any, change: Any, expected: Any
) -> None:
    session = Session.from_dict({"k": stored})
    change(session.get("k", as_type=as_type))
    assert exactly(session.to_dict()) == exactly({"k": expected})
    session = Session.from_dict({"k": stored})
    session["k"] = expected
    assert exactly(session.to_dict()) == exactly({"k": expected})


def test_no_new_item_takes_over_what_another_item_did_not_declare() -> None:
    session = Session.from_dict({"k": [NEWER | {"id": 1, "price": 5}, NEWER | {"id": 2, "price": 6}]})
    items = session.get("k", as_type=list[Older])
    assert items is not None
    items[0].tags.append("b")
    items.insert(0, Older(id=9))
    kept = session.to_dict()["k"]
    assert [(item["id"], item.get("price")) for item in kept if item["id"] == 9] == [(9, None)]


def test_appending_many_items_keeps_no_object_for_each() -> None:
    session = Session()
    for number in range(200):
        session.append("log", number)
    assert session["log"] == list(range(200))
    assert len(session._state.slot("log").handles) < 10
