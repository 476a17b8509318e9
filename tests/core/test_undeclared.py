"""Members that a model does not declare stay with the object that they were read into, and with no other."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel

from tests.core.teams import Line, Team, User, changed


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
