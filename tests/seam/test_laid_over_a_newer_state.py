"""What a turn did, laid over what another one has committed: nothing is lost where both did what can go together."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dcaf.core.base64url import Payload
from dcaf.core.json_values import write
from dcaf.core.rebasing import RebasableState
from dcaf.core.state import State

BASE: dict[str, Any] = {"n": 1, "log": ["a"], "cart": {"x": 1, "deep": {"y": 1}}, "going": 1}


def change(state: State, who: str, dice: random.Random, model: dict[str, Any]) -> None:
    """A few changes that go together with those of another, and what must have come of them all."""
    for number in range(dice.randrange(6)):
        name = f"{who}{number}"
        what = dice.choice(("count", "append", "set", "member", "deep", "look", "drop"))
        if what == "count":
            state.add("n", 1)
            model["n"] += 1
        elif what == "append":
            state.append("log", name)
            model["log"].append(name)
        elif what == "set":
            state.put(name, number)
            model[name] = number
        elif what == "member":
            state.slot("cart").get_live()[name] = model["cart"][name] = number
        elif what == "deep":
            state.slot("cart").get_live()["deep"][name] = model["cart"]["deep"][name] = number
        elif what == "drop":
            state.drop("going")
            model.pop("going", None)
        else:
            state.keys()


@pytest.mark.parametrize("seed", range(150))
def test_nothing_is_lost(seed: int) -> None:
    """Three times, each over what the others have committed meanwhile."""
    dice, payload = random.Random(seed), Payload(write(BASE))
    model: dict[str, Any] = json.loads(payload.data)
    mine = RebasableState(payload)
    for turn in range(3):
        change(mine, f"mine{turn}-", dice, model)
        theirs = State(payload)
        change(theirs, f"theirs{turn}-", dice, model)
        payload = theirs.payload()
        assert mine.rebase(payload) in ([], ["going"])  # which both may have dropped
    found = json.loads(mine.plain())
    assert sorted(found.pop("log")) == sorted(model.pop("log"))
    assert found == model


def test_what_was_undone_does_not_tell_how_a_value_is_changed_later() -> None:
    state = RebasableState(Payload(b'{"n":1}'))
    state.put("n", 2)
    state.put("n", 1)
    assert state.rebase(Payload(b'{"n":11}')) == []
    state.add("n", 1)
    assert state.rebase(Payload(b'{"n":21}')) == []
    assert state.plain() == b'{"n":22}'
