from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcaf.core.merging import changes, merge
from dcaf.core.parts import ABSENT

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", 1.0])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)


def same(one: Any, other: Any) -> bool:
    return bool(orjson.dumps(one) == orjson.dumps(other))


@given(values, values)
def test_one_change_alone_is_kept_as_it_is(base: Any, changed: Any) -> None:
    for earlier, later in ((base, changed), (changed, base)):
        value, clashes = merge(base, earlier, later)
        assert same(value, changed)
        assert clashes == []


@given(values, values, values)
def test_without_a_clash_every_change_of_either_side_is_there(base: Any, earlier: Any, later: Any) -> None:
    value, clashes = merge(base, earlier, later)
    if clashes or not all(isinstance(side, dict) for side in (base, earlier, later)):
        return
    for side in (earlier, later):
        for key in {*base, *side}:
            if same(side.get(key, "ABSENT"), base.get(key, "ABSENT")):
                continue
            assert key not in side or key in value
            if key not in side:
                assert key not in value


@given(values, values, values)
def test_the_later_change_is_never_lost_without_a_trace(base: Any, earlier: Any, later: Any) -> None:
    value, clashes = merge(base, earlier, later)
    if clashes == [()]:
        assert same(value, later)


@given(values, values)
def test_equal_changes_clash_but_where_both_only_added_to_a_list(base: Any, changed: Any) -> None:
    value, clashes = merge(base, changed, changed)
    if same(base, changed):
        assert (value, clashes) == (changed, [])
    elif not isinstance(changed, list | dict):
        assert same(value, changed)
        assert clashes == [()]


def ordered(value: Any) -> Any:
    """A value whose members are in the order of their names, as deep as ``changes`` looks: a list is one value."""
    return {name: ordered(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


@given(values, values)
def test_changes_are_the_paths_at_which_two_values_differ(base: Any, value: Any) -> None:
    paths = changes(base, value)
    assert (paths == []) == same(ordered(base), ordered(value)), "members in another order are the same members"
    for path in paths:
        one, other = base, value
        for name in path:
            one, other = one.get(name, ABSENT), other.get(name, ABSENT)
        assert one is ABSENT or other is ABSENT or not same(one, other)


@given(values, values, values)
def test_which_side_wins_at_a_path_is_the_callers_to_say(base: Any, theirs: Any, mine: Any) -> None:
    by_mine, clashes = merge(base, theirs, mine, wins=lambda _: True)
    by_theirs, others = merge(base, mine, theirs, wins=lambda _: False)
    assert sorted(clashes) == sorted(others)
    assert orjson.dumps(by_mine, option=orjson.OPT_SORT_KEYS) == orjson.dumps(by_theirs, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize(
    ("base", "earlier", "later", "value", "clashes"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}, []),
        ({"a": 1}, {}, {"a": 1, "b": 2}, {"b": 2}, []),
        ({"a": 1}, {}, {"a": 2}, {"a": 2}, [("a",)]),
        ({"a": 1}, {"a": 2}, {}, {}, [("a",)]),
        (["x"], ["x", "y"], ["x", "z"], ["x", "y", "z"], []),
        (["x"], ["x", "y"], ["z", "x"], ["z", "x"], [()]),
        (["x"], [], ["x", "z"], ["x", "z"], [()]),
        ({"a": {"b": [1], "c": 0}}, {"a": {"b": [1, 2], "c": 0}}, {"a": {"b": [1], "c": 5}}, {"a": {"b": [1, 2], "c": 5}}, []),
        (1, 2, 3, 3, [()]),
        (1, 1.0, 1, 1.0, []),
        (0, True, 1, 1, [()]),
        ({"a": 1}, [1], {"a": 1, "b": 2}, {"a": 1, "b": 2}, [()]),
        (ABSENT, {"a": 1}, {"b": 1}, {"b": 1}, [()]),
        (ABSENT, 1, ABSENT, 1, []),
    ],
)
def test_known_merges(base: Any, earlier: Any, later: Any, value: Any, clashes: Any) -> None:
    found, where = merge(base, earlier, later)
    assert found is value or same(found, value)
    assert where == clashes
