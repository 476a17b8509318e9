from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcaf.core.handles import ABSENT
from dcaf.core.merge import merge

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", 1.0])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)


def same(one: Any, other: Any) -> bool:
    return bool(orjson.dumps(one) == orjson.dumps(other))


@given(values, values, st.booleans())
def test_one_change_alone_is_kept_as_it_is(base: Any, changed: Any, is_read: Any) -> None:
    for earlier, later in ((base, changed), (changed, base)):
        value, clashes = merge(base, earlier, later, is_read=is_read)
        assert same(value, changed)
        assert clashes == []


@given(values, values, values)
def test_without_a_clash_every_change_of_either_side_is_there(base: Any, earlier: Any, later: Any) -> None:
    value, clashes = merge(base, earlier, later, is_read=True)
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
    value, clashes = merge(base, earlier, later, is_read=True)
    if clashes == [""]:
        assert same(value, later)


@given(values, values)
def test_equal_changes_clash_exactly_where_they_were_read(base: Any, changed: Any) -> None:
    value, clashes = merge(base, changed, changed, is_read=False)
    assert clashes == [] or isinstance(changed, list | dict)
    if not isinstance(changed, list | dict) and not same(base, changed):
        assert same(value, changed)
        assert merge(base, changed, changed, is_read=True)[1] == [""]


@pytest.mark.parametrize(
    ("base", "earlier", "later", "value", "clashes"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}, []),
        ({"a": 1}, {}, {"a": 1, "b": 2}, {"b": 2}, []),
        ({"a": 1}, {}, {"a": 2}, {"a": 2}, [".a"]),
        ({"a": 1}, {"a": 2}, {}, {}, [".a"]),
        (["x"], ["x", "y"], ["x", "z"], ["x", "y", "z"], []),
        (["x"], ["x", "y"], ["z", "x"], ["z", "x"], [""]),
        (["x"], [], ["x", "z"], ["x", "z"], [""]),
        ({"a": {"b": [1], "c": 0}}, {"a": {"b": [1, 2], "c": 0}}, {"a": {"b": [1], "c": 5}}, {"a": {"b": [1, 2], "c": 5}}, []),
        (1, 2, 3, 3, [""]),
        (1, 1.0, 1, 1.0, []),
        (0, True, 1, 1, [""]),
        ({"a": 1}, [1], {"a": 1, "b": 2}, {"a": 1, "b": 2}, [""]),
        (ABSENT, {"a": 1}, {"b": 1}, {"b": 1}, [""]),
        (ABSENT, 1, ABSENT, 1, []),
    ],
)
def test_known_merges(base: Any, earlier: Any, later: Any, value: Any, clashes: Any) -> None:
    found, where = merge(base, earlier, later, is_read=True)
    assert found is value or same(found, value)
    assert where == clashes
