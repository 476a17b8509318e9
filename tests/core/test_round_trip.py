"""The comparison that decides what may be stored: what is the same, what is not, and where the first difference is."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

from dcaf.core.parts import Refusal
from dcaf.core.round_trip import is_same, require_same

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES: Final = max(50, int(5_000 * SCALE))


class Mode(StrEnum):
    FAST = "fast"


class Color(Enum):
    RED = "red"


class Item(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Any = ""
    rest: Any = None
    _seen: Any = PrivateAttr(None)


@dataclass
class Line:
    first: Any = None
    other: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Key:
    value: Any = None


class Text(str):
    __slots__ = ()


class Opaque:
    """Equal to itself alone."""

    def __init__(self, held: Any) -> None:
        self.held = held


ZURICH = ZoneInfo("Europe/Zurich")
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 2.5])
    | st.text("ab1", max_size=2)
    | st.binary(max_size=1)
    | st.sampled_from([Decimal("1.0"), Decimal("1.00"), Color.RED, Mode.FAST, timedelta(0), datetime(2026, 1, 1, tzinfo=UTC)])
)
HASHABLE = st.recursive(LEAVES, lambda inner: st.tuples(inner, inner) | st.builds(Key, inner), max_leaves=4)
VALUES = st.recursive(
    LEAVES | st.frozensets(HASHABLE, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.lists(inner, max_size=2).map(deque)
        | st.dictionaries(st.text("ab", max_size=1) | st.integers(0, 2), inner, max_size=3)
        | st.builds(Item, name=inner, rest=inner)
        | st.builds(lambda inner: Item.model_validate({"more": inner}), inner)
        | st.builds(Line, inner, inner)
    ),
    max_leaves=8,
)


def exact(value: Any) -> Any:
    """The same told in another way: a text of all that is there."""
    if isinstance(value, dict):
        return "dict", sorted(((repr(key), exact(item)) for key, item in value.items()), key=repr)
    if isinstance(value, frozenset):
        return "frozenset", sorted(map(exact, value), key=repr)
    if isinstance(value, list | tuple | deque):
        return type(value).__name__, [*map(exact, value)]
    if isinstance(value, Item | Line | Key):
        extra = value.__pydantic_extra__ if isinstance(value, Item) else None
        return type(value).__name__, exact(dict(value.__dict__)), exact(extra or {})
    return type(value).__name__, repr(value)


def test_a_value_is_the_same_as_its_copy() -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(VALUES)
    def law(value: Any) -> None:
        require_same(value, deepcopy(value))

    law()


def differs(same: Any) -> None:
    """The law: two values are the same where all that can be seen of them is, but for what the guide lists."""

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
    @given(VALUES, VALUES)
    def law(one: Any, other: Any) -> None:
        for beside in (other, confused(one)):
            if same(one, beside):
                assert loosely(exact(one)) == loosely(exact(beside))
            else:
                assert exact(one) != exact(beside)

    law()


def confused(value: Any) -> Any:
    """A value like another one, in which each part is one that Python calls equal to it, or that is written the same."""
    if isinstance(value, Item):
        return Item.model_validate(
            {name: confused(item) for name, item in {**value.__dict__, **(value.__pydantic_extra__ or {})}.items()}
        )
    if isinstance(value, Line):
        return Line(confused(value.first), confused(value.other))
    if isinstance(value, dict):
        return {key: confused(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque | frozenset):
        return type(value)(map(confused, value))
    return next((other for one, other in CONFUSED if exact(one) == exact(value)), value)


CONFUSED: Final[list[tuple[Any, Any]]] = [
    *((1, True), (True, 1), (0, False), (0.0, -0.0), (1.0, True), (Decimal("1.0"), Decimal("1.00")), ("b", b"b"), (b"a", "a")),
    *((Color.RED, "red"), (None, "null"), (timedelta(0), 0)),
]


def loosely(seen: Any) -> Any:
    """What is seen, with a member of a StrEnum as its text, and a whole float as an integer."""
    if isinstance(seen, tuple) and seen[0] == "Mode":
        return "str", "'fast'"
    if isinstance(seen, tuple) and seen[0] == "float" and float(seen[1]).is_integer():
        return "int", str(int(float(seen[1])))
    return type(seen)(map(loosely, seen)) if isinstance(seen, tuple | list) else seen


def test_two_values_are_the_same_where_all_that_is_there_is() -> None:
    differs(is_same)


def test_control_a_comparison_by_equality_is_caught() -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        differs(lambda one, other: one == other)


def test_the_path_of_a_refusal_leads_to_what_was_changed() -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.lists(st.sampled_from(["list", "dict", "model", "line", "tuple"]), max_size=6), LEAVES)
    def law(steps: list[str], leaf: Any) -> None:
        one, other, path = leaf, object(), ""
        for step in steps:
            around, said = AROUND[step]
            one, other, path = around(one), around(other), said + path
        with pytest.raises(Refusal) as caught:
            require_same(one, other)
        assert caught.value.path == path

    law()


AROUND: Final[dict[str, tuple[Any, str]]] = {
    "list": (lambda value: [1, value], "[1]"),
    "tuple": (lambda value: (value, 2), "[0]"),
    "dict": (lambda value: {"a": 1, "b c": value}, "['b c']"),
    "model": (lambda value: Item(rest=value), ".rest"),
    "line": (lambda value: Line(other=value), ".other"),
}

NIGHT: Final = [
    (datetime(2026, 10, 24, 22, tzinfo=UTC) + timedelta(minutes=30 * step)).astimezone(zone)
    for step in range(16)
    for zone in (ZURICH, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), UTC)
]


@pytest.mark.parametrize("at", NIGHT, ids=str)
def test_a_time_is_the_same_as_what_is_written_of_it_at_every_hour(at: datetime) -> None:
    read = datetime.fromisoformat(at.isoformat())
    require_same(at, read)
    require_same({at}, {read})
    require_same({"a": [at]}, {"a": [read]})
    assert not is_same(at, read + timedelta(microseconds=1))
    assert not is_same(at, read.astimezone(timezone(timedelta(hours=13, minutes=7))))
    assert not is_same(at, read.replace(tzinfo=None))


def test_control_equality_does_not_hold_in_the_repeated_hour() -> None:
    assert any(at != datetime.fromisoformat(at.isoformat()) for at in NIGHT)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, True, False),
        (0, False, False),
        (1, 1.0, True),  # a whole number where a float is declared
        (1.0, 1, False),
        (True, 1.0, False),
        (2**53 + 1, float(2**53), False),
        (0.0, -0.0, False),
        ("a", Text("a"), False),
        (Text("a"), "a", True),
        (Mode.FAST, "fast", True),
        ("fast", Mode.FAST, False),
        (Color.RED, "red", False),
        ((1,), [1], False),
        ({1}, frozenset([1]), False),
        ({1}, {True}, False),
        ({1: "a"}, {"1": "a"}, False),
        ({1: "a"}, {True: "a"}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (OrderedDict(a=1), {"a": 1}, False),
        (Decimal("1.10"), Decimal("1.1"), False),
        (b"a", bytearray(b"a"), False),
        (time(12, tzinfo=UTC), time(12), False),
        (Line(1, 2), Line(1, 3), False),
        (Item(name="a"), Item.model_validate({"name": "a", "more": 1}), False),
        (Opaque([1]), Opaque([1]), True),
        (Opaque([1]), Opaque([2]), False),
        (threading.Lock(), threading.Lock(), True),  # of which nothing can be seen
    ],
)
def test_what_is_the_same(one: Any, other: Any, same: bool) -> None:
    assert is_same(one, other) is same
    assert is_same([one], [other]) is same
    assert is_same(Item(rest={"a": one}), Item(rest={"a": other})) is same


def test_private_attributes_are_no_part_of_a_value() -> None:
    one, other = Item(), Item()
    one._seen = 5
    assert is_same(one, other)


def test_objects_that_hold_each_other_are_compared() -> None:
    def circle(name: str) -> Item:
        inner = Item(name=name)
        outer = Item(rest=[inner])
        inner.rest = outer
        return outer

    assert is_same(circle("a"), circle("a"))
    assert not is_same(circle("a"), circle("b"))


class Failing:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


def test_an_object_that_cannot_be_compared_is_another() -> None:
    assert not is_same(Failing(), Failing())


@dataclass(frozen=True)
class Counted:
    """Counts how often two of it are compared."""

    value: int
    asked: Any = field(default=None, compare=False)

    def __eq__(self, other: object) -> bool:
        COMPARISONS.append(1)
        return isinstance(other, Counted) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


COMPARISONS: list[int] = []


def test_sets_are_compared_without_asking_every_item_for_every_other() -> None:
    one, other = ({Counted(number) for number in range(2_000)} for _ in range(2))
    COMPARISONS.clear()
    require_same(one, other)
    assert len(COMPARISONS) <= 2_000


def test_objects_inside_one_another_without_end_are_refused_in_words_of_ours() -> None:
    one, other = Opaque(None), Opaque(None)
    for _ in range(20_000):
        one, other = Opaque(one), Opaque(other)
    with pytest.raises(Refusal, match="deeper than can be compared"):
        require_same(one, other)
    assert not is_same(one, other)
