"""Members that a type does not declare stay with the object that they were read into, and with no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from dcaf import DcafError, Session
from dcaf.core.typed_objects import Undeclared
from tests.core.teams import Line, Team, User, changed

T = TypeVar("T")


class Flags(BaseModel):
    a: int = 0
    b: int = 0


def test_a_default_that_is_not_stored_does_not_cost_the_undeclared_members() -> None:
    assert changed({"a": 1, "z": 9}, Flags, lambda flags: setattr(flags, "a", 2)) == {"a": 2, "b": 0, "z": 9}


@pytest.mark.parametrize("seed", ["0", "1", "2", "3", "4", "5"])
def test_sets_do_not_cost_the_undeclared_members_under_any_hash_seed(seed: str) -> None:
    code = (
        "from tests.core.teams import Team, changed\n"
        "stored = {'tags': ['a', 'b', 'c'], 'note': None, 'und': 1}\n"
        "found = changed(stored, Team, lambda team: (setattr(team, 'note', 'c'), team.tags.discard('b')))\n"
        "assert found['und'] == 1 and found['tags'] == ['a', 'c'] and found['note'] == 'c', found\n"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."}, check=True)


ADA = {"name": "ada", "admin": True}


@pytest.mark.parametrize(
    ("stored", "change"),
    [
        ({"users": [ADA]}, lambda team: team.users.__setitem__(0, User(name="eve"))),
        ({"users": [ADA]}, lambda team: (team.users.pop(), team.users.append(User(name="eve")))),
        ({"users": [ADA]}, lambda team: team.users.__setitem__(0, team.users[0].model_copy(update={"name": "eve"}))),
        ({"lines": [ADA]}, lambda team: team.lines.__setitem__(0, Line("eve"))),
        ({"owner": ADA}, lambda team: setattr(team, "owner", User(name="eve"))),
        ({"by_role": {"x": ADA}}, lambda team: team.by_role.__setitem__("x", User(name="eve"))),
    ],
)
def test_a_new_object_takes_over_nothing_from_the_one_that_it_replaces(stored: Any, change: Any) -> None:
    assert "admin" not in str(changed(stored, Team, change))


@pytest.mark.parametrize(
    ("stored", "change"),
    [
        ({"users": [ADA]}, lambda team: setattr(team.users[0], "name", "eve")),
        ({"users": [{"name": "x"}, ADA]}, lambda team: (team.users.reverse(), team.users[0].__setattr__("name", "eve"))),
        ({"lines": [ADA]}, lambda team: (team.lines.insert(0, Line("new")), team.lines[1].__setattr__("name", "eve"))),
        ({"owner": ADA}, lambda team: setattr(team.owner, "name", "eve")),
        ({"by_role": {"x": ADA}}, lambda team: team.by_role.__setitem__("y", team.by_role.pop("x"))),
    ],
)
def test_control_the_object_itself_keeps_them_wherever_it_goes(stored: Any, change: Any) -> None:
    assert str(changed(stored, Team, change)).count("'admin': True") == 1


class Item(BaseModel):
    name: str


class Fixed(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    user_name: str
    line_items: list[Item] = []


class Choice(BaseModel):
    name: str = Field(validation_alias=AliasChoices("n", "userName", AliasPath("who", "name")))


class Path(BaseModel):
    first: str = Field(validation_alias=AliasPath("names", 0))
    last: str = Field("", validation_alias=AliasPath("names", 1))
    age: int = 0


class Same(BaseModel):
    names: str = Field("", validation_alias=AliasPath("names", 0))


class Items(RootModel[list[Item]]):
    pass


class Outer(RootModel[Items]):
    pass


class ByName(RootModel[dict[str, Item]]):
    pass


class Spot(NamedTuple):
    item: Item
    number: int = 0


@dataclass
class Pair:
    name: str
    item: Item | None = None


@dataclass(slots=True)
class Slotted:
    name: str = Field(alias="userName")


@pydantic_dataclass
class Checked:
    user_name: str = Field(alias="userName")
    items: list[Item] = Field(default_factory=list)


class Row(TypedDict):
    name: str


class Aliased(TypedDict):
    user_name: Annotated[str, Field(alias="userName")]
    row: Row


class Filtered(BaseModel):
    items: Annotated[list[Item], BeforeValidator(lambda items: [item for item in items if item["name"] != "x"])]


class Backwards(BaseModel):
    items: Annotated[list[Item], AfterValidator(lambda items: [*reversed(items)])]


class Legacy(BaseModel):
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def rename(cls, value: Any) -> Any:
        return {**value, "name": value["title"]} if isinstance(value, dict) and "title" in value else value


class Box(BaseModel, Generic[T]):
    content: T


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    item: Item


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]


class Everything(BaseModel):
    item: Item | Pair | None = None
    some: tuple[Item, ...] = ()
    queue: deque[Item] = deque()
    kinds: set[Fixed] = set()
    by_number: dict[int, Item] = {}
    lists: list[list[Item]] = []
    rows: dict[str, list[Row]] = {}
    ordered: OrderedDict[str, Item] = OrderedDict()
    lists_by_name: defaultdict[str, list[Item]] = defaultdict(list)
    sequence: Sequence[Item] = []
    mapping: Mapping[str, Item] = {}
    spot: Spot | None = None
    root: Items = Items([])


ItemId = NewType("ItemId", Item)
A = {"name": "a", "z": 1}
B = {"name": "b", "z": 2}
Q = {"name": "q", "z": 1}


def rename(thing: Any, member: str = "name") -> Any:
    if isinstance(thing, dict):
        thing[member] = "q"
    else:
        setattr(thing, member, "q")
    return thing


def rename_all(found: Everything) -> None:
    assert isinstance(found.item, Item)
    assert found.spot is not None
    for item in (
        *(found.item, found.some[0], found.queue[0], found.by_number[1], found.lists[0][0], found.rows["a"][0], found.ordered["a"]),
        *(found.lists_by_name["a"][0], found.sequence[0], found.mapping["a"], found.spot.item, found.root.root[0]),
    ):
        rename(item)


def everything(one: Any) -> dict[str, Any]:
    by_name = {"rows": {"a": [one]}, "ordered": {"a": one}, "lists_by_name": {"a": [one]}, "mapping": {"a": one}}
    lists = {"some": [one], "queue": [one], "kinds": [A, B], "lists": [[one]], "sequence": [one], "spot": [one, 3], "root": [one]}
    return {"item": one, "by_number": {"1": one}, "z": 1, **by_name, **lists}


KEPT: dict[str, tuple[Any, Any, Callable[[Any], Any], Any]] = {
    "list": (list[Item], [A], lambda v: rename(v[0]), [Q]),
    "tuple": (tuple[Item, ...], [A], lambda v: rename(v[0]), [Q]),
    "tuple of two": (tuple[Item, int], [A, 1], lambda v: rename(v[0]), [Q, 1]),
    "deque": (deque[Item], [A], lambda v: rename(v[0]), [Q]),
    "deque, one added": (deque[Item], [A], lambda v: v.appendleft(Item(name="c")), [{"name": "c"}, A]),
    "set, one added": (set[Fixed], [B, A], lambda v: v.add(Fixed(name="c")), [A, B, {"name": "c"}]),
    "set, one removed": (set[Fixed], [A, B], lambda v: v.discard(Fixed(name="a")), [B]),
    "root model": (Items, [A], lambda v: rename(v.root[0]), [Q]),
    "root model of a root model": (Outer, [A], lambda v: rename(v.root.root[0]), [Q]),
    "root model of a dict": (ByName, {"a": A}, lambda v: rename(v.root["a"]), {"a": Q}),
    "named tuple": (Spot, [A, 3], lambda v: rename(v.item), [Q, 3]),
    "list of named tuples": (list[Spot], [[A, 3]], lambda v: rename(v[0].item), [[Q, 3]]),
    "dict by number": (dict[int, Item], {"1": A}, lambda v: rename(v[1]), {"1": Q}),
    "dict by number, written otherwise": (dict[int, Item], {"01": A}, lambda v: rename(v[1]), {"1": Q}),
    "nested": (dict[str, list[dict[str, Item]]], {"a": [{"b": A}]}, lambda v: rename(v["a"][0]["b"]), {"a": [{"b": Q}]}),
    "everything": (Everything, everything(A), rename_all, everything(Q)),
    "dataclass": (Pair, {**A, "item": A}, lambda v: (rename(v), rename(v.item)), {**Q, "item": Q}),
    "dataclass with slots and an alias": (Slotted, {"userName": "a", "z": 1}, rename, Q),
    "dataclass of pydantic": (
        Checked,
        {"userName": "a", "z": 1, "items": [A]},
        lambda v: (rename(v, "user_name"), rename(v.items[0])),
        {"user_name": "q", "items": [Q], "z": 1},
    ),
    "generated aliases": (
        Camel,
        {"userName": "a", "lineItems": [A], "z": 1},
        lambda v: (rename(v, "user_name"), rename(v.line_items[0])),
        {"user_name": "q", "line_items": [Q], "z": 1},
    ),
    "a choice of aliases, and both are there": (Choice, {"n": "a", "userName": "b", "z": 1}, rename, Q),
    "another choice": (Choice, {"userName": "b", "z": 1}, rename, Q),
    "a choice that is a path": (Choice, {"who": {"name": "a", "y": 2}, "z": 1}, rename, {"who": {"name": "q", "y": 2}, "z": 1}),
    "by its own name": (Choice, {"name": "b", "z": 1}, rename, Q),
    "a path": (
        Path,
        {"names": ["a", "b", "c"], "z": 1},
        lambda v: setattr(v, "first", "q"),
        {"names": ["q", "b", "c"], "age": 0, "z": 1},
    ),
    "a path that leads nowhere": (
        Path,
        {"names": ["a"], "z": 1},
        lambda v: setattr(v, "age", 2),
        {"names": ["a"], "last": "", "age": 2, "z": 1},
    ),
    "a path of the same name": (
        Same,
        {"names": ["a", "b"], "z": 1},
        lambda v: setattr(v, "names", "q"),
        {"names": ["q", "b"], "z": 1},
    ),
    "TypedDict": (Row, A, rename, Q),
    "list of TypedDicts": (list[Row], [A, B], lambda v: rename(v[0]), [Q, B]),
    "TypedDict with an alias": (
        Aliased,
        {"userName": "a", "row": A, "z": 1},
        lambda v: (rename(v, "user_name"), rename(v["row"])),
        {"user_name": "q", "row": Q, "z": 1},
    ),
    "a validator that leaves some out": (
        Filtered,
        {"items": [{"name": "x", "z": 9}, A], "z": 1},
        lambda v: rename(v.items[0]),
        {"items": [Q], "z": 1},
    ),
    "a name that a validator reads": (Legacy, {"title": "a", "theme": 1}, rename, {"name": "q", "theme": 1}),
    "such a name in one of two": (
        list[Legacy],
        [{"title": "a", "z": 1}, {"name": "b", "z": 2}],
        lambda v: rename(v[0]),
        [Q, {"name": "b", "z": 2}],
    ),
    "generic model": (Box[Item], {"content": A, "z": 1}, lambda v: rename(v.content), {"content": Q, "z": 1}),
    "extra members, one taken out": (
        Open,
        {"item": A, "z": 1, "y": 2},
        lambda v: (rename(v.item), v.__pydantic_extra__.pop("y")),
        {"item": Q, "z": 1},
    ),
    "a union, one of which allows nothing more": (
        list[Annotated[Cat | Dog, Field(discriminator="kind")]],
        [{"kind": "cat", "z": 1}, {"kind": "dog"}],
        lambda v: setattr(v[0], "lives", 1),
        [{"kind": "cat", "lives": 1, "z": 1}, {"kind": "dog"}],
    ),
    "an object that is moved": (
        dict[str, list[Item]],
        {"a": [A], "b": [B]},
        lambda v: (v["b"].append(v["a"].pop()), rename(v["b"][1])),
        {"a": [], "b": [B, Q]},
    ),
    "optional": (Item | None, A, rename, Q),
    "annotated": (Annotated[Item, "note"], A, rename, Q),
    "a new type": (ItemId, A, rename, Q),
}
"""Type, what is stored, a change of it, and what is stored then. In a set the items have the order of what is written."""


def keeps(row: str) -> None:
    """The law of every row."""
    as_type, stored, change, expected = KEPT[row]
    session = Session.from_dict({"k": stored})
    found = session.get("k", as_type=as_type)
    assert not session.is_modified
    change(found)
    assert session.to_dict() == {"k": expected}


@pytest.mark.parametrize("row", KEPT)
def test_undeclared_members_are_kept(row: str) -> None:
    keeps(row)


@pytest.mark.parametrize("row", KEPT)
def test_control_the_row_catches_a_writer_that_keeps_what_is_declared_alone(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Undeclared, "restore", lambda _, written, *__: written)
    with pytest.raises(AssertionError):
        keeps(row)


def test_no_item_takes_over_what_another_did_not_declare_behind_a_validator_that_moves_them() -> None:
    session = Session.from_dict({"k": {"items": [A, B]}})
    found = session.get("k", as_type=Backwards)
    assert found is not None
    assert [item.name for item in found.items] == ["b", "a"]
    found.items.append(found.items.pop(0))
    try:
        kept = session.to_dict()["k"]["items"]
    except DcafError:  # the validator would move them once more
        return
    assert all(item in (A, B) for item in kept)


BACK: dict[str, tuple[Any, Any, Callable[[Any, Any], Any], Any]] = {
    "set": (Item, A, lambda s, v: (rename(v), s.set("k", v)), Q),
    "[]": (Item, A, lambda s, v: (rename(v), s.__setitem__("k", v)), Q),
    "update": (Item, A, lambda s, v: (rename(v), s.update({"k": v})), Q),
    "set, and changed later": (Item, A, lambda s, v: (s.set("k", v), rename(v)), Q),
    "in another order": (list[Item], [A, B], lambda s, v: s.set("k", [v[1], v[0]]), [B, A]),
    "some of them": (list[Item], [A, B], lambda s, v: s.set("k", [item for item in v if item.name == "b"]), [B]),
    "inside something else": (Item, A, lambda s, v: s.set("k", {"old": [v]}), {"old": [A]}),
    "a TypedDict": (Row, A, lambda s, v: (rename(v), s.set("k", v)), Q),
    "some TypedDicts": (list[Row], [A, B], lambda s, v: s.set("k", [v[1]]), [B]),
    "a dataclass": (Pair, A, lambda s, v: (rename(v), s.set("k", v)), {**Q, "item": None}),
}
"""Ways to change what was handed out, and to store it under its key again."""


@pytest.mark.parametrize("row", BACK)
def test_what_is_stored_again_under_its_key_keeps_them_too(row: str) -> None:
    as_type, stored, change, expected = BACK[row]
    session = Session.from_dict({"k": stored})
    change(session, session.get("k", as_type=as_type))
    assert session.to_dict() == {"k": expected}


def test_a_field_of_a_typed_session_that_is_stored_again_keeps_them_too() -> None:
    class View(Session):
        lines: list[Item] = []

    session = Session.from_dict({"lines": [A, B]})
    view = View.of(session)
    view.lines = sorted(view.lines, key=lambda item: item.name, reverse=True)
    assert session.to_dict() == {"lines": [B, A]}
    rename(view.lines[1])
    assert session.to_dict() == {"lines": [B, Q]}


def test_to_store_again_what_was_only_read_is_no_change() -> None:
    session = Session.from_dict({"k": A})
    session.set("k", session.get("k", as_type=Item))
    assert not session.is_modified


def test_a_new_object_under_the_same_key_takes_over_nothing() -> None:
    session = Session.from_dict({"k": A})
    session.get("k", as_type=Item)
    session.set("k", Item(name="a"))
    assert session.to_dict() == {"k": {"name": "a"}}


def test_as_many_names_as_disturb_nothing_are_kept_and_few_readings_are_needed() -> None:
    read = 0

    class Counted(Legacy):
        @model_validator(mode="before")
        @classmethod
        def count(cls, value: Any) -> Any:
            nonlocal read
            read += 1
            return value

    stored = {f"n{number}": number for number in range(64)} | {"title": "a"}
    session = Session.from_dict({"k": stored})
    rename(session.get("k", as_type=Counted))
    read = 0
    assert session.to_dict() == {"k": {"name": "q", **{f"n{number}": number for number in range(64)}}}
    assert read < 40


def test_what_no_longer_stands_in_the_value_is_not_kept() -> None:
    session = Session()
    for number in range(50):
        session.set("k", {"name": "a", "z": number})
        session.get("k", as_type=Item)
    kept = session._state.slot("k").undeclared
    assert kept is not None
    assert len(kept._kept) == 1
