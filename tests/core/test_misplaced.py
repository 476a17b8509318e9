"""A typed value with something of another type in it: the refusal names the item and what belongs there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from dcaf import Session
from dcaf.core import SessionValueError


class Ticket(BaseModel):
    subject: str
    tags: list[str] = []


class Board(BaseModel):
    tickets: list[Ticket] = []
    first: Ticket | None = None
    others: Annotated[dict[str, list[Ticket]], Field(max_length=9)] = {}


@dataclass
class Note:
    text: str


@dataclass
class Late:
    notes: list[Note] = field(default_factory=list)


Pad = make_dataclass("Pad", [("notes", list[Note], field(default_factory=list))])
"""The same, its annotations no text."""


class Desk(Session):
    tickets: list[Ticket] = []
    notes: list[Note] = []
    board: Board = Board()


def message(act: Callable[[], Any]) -> str:
    with pytest.raises(SessionValueError) as refused:
        act()
    return str(refused.value)


def test_an_object_that_stands_where_a_model_belongs_is_named_in_a_typed_session() -> None:
    session = Session()
    desk = Desk.of(session)
    desk.tickets.append(Ticket(subject="a"))
    desk.tickets.append({"subject": "canary"})  # type: ignore[arg-type]
    assert message(session.to_dict) == "tickets[1]: is a dict, where Ticket belongs. Put Ticket(...) there."


@pytest.mark.parametrize(
    ("as_type", "stored", "spoil", "said"),
    [
        (list[Ticket], [], lambda v: v.append({"subject": "x"}), "k[0]: is a dict, where Ticket belongs. Put Ticket(...) there."),
        (list[Note], [], lambda v: v.append({"text": "x"}), "k[0]: is a dict, where Note belongs. Put Note(...) there."),
        (deque[Ticket], [], lambda v: v.append({"subject": "x"}), "k[0]: is a dict, where Ticket belongs. Put Ticket(...) there."),
        (Pad, {}, lambda v: v.notes.append({"text": "x"}), "k.notes[0]: is a dict, where Note belongs. Put Note(...) there."),
        (Late, {}, lambda v: v.notes.append({"text": "x"}), "k: is of type Late, which cannot be stored"),
        (Board, {}, lambda v: setattr(v, "first", {"subject": "x"}), "k.first: is a dict, where Ticket belongs. Put"),
        (
            Board,
            {"others": {"a": [{"subject": "b"}]}},
            lambda v: v.others["a"].append({"subject": "x"}),
            "k.others.a[1]: is a dict, where Ticket belongs. Put Ticket(...) there.",
        ),
        (list[list[int]], [[1]], lambda v: v[0].append("2"), "k[0][1]: is a str, where int belongs"),
        (dict[str, int], {"a b": 1}, lambda v: v.update({"a b": "2"}), "k['a b']: is a str, where int belongs"),
        (list[Ticket | None], [], lambda v: v.append({"subject": "x"}), "k[0]: is a dict, where Ticket belongs. Put"),
        (list[Ticket | int], [], lambda v: v.append("2"), "k[0]: is a str, where Ticket | int belongs"),
        (dict[str, list[Ticket]], {}, lambda v: v.update(a=()), "k.a: is a tuple, where list[Ticket] belongs"),
        (list[Ticket | list[int]], [[1]], lambda v: v[0].append("2"), "k[0][1]: is a str, where int belongs"),
        (list[tuple[int, Ticket]], [], lambda v: v.append((1, {"subject": "x"})), "k[0][1]: is a dict, where Ticket belongs."),
        (list[tuple[int, ...]], [], lambda v: v.append((1, "2")), "k[0][1]: is a str, where int belongs"),
    ],
)
def test_the_innermost_part_that_is_of_another_type_is_named(as_type: Any, stored: Any, spoil: Any, said: str) -> None:
    session = Session.from_dict({"k": stored})
    spoil(session.get("k", as_type=as_type))
    assert message(session.to_dict).startswith(said)


def test_the_value_is_not_quoted() -> None:
    session = Session.from_dict({"k": []})
    found = session.get("k", as_type=list[Ticket])
    assert found is not None
    found.append({"subject": "canary", "tags": ["canary"]})  # type: ignore[arg-type]
    assert "canary" not in message(session.to_dict)


def test_an_item_that_does_not_even_read_as_its_type_is_told_by_what_is_wrong_in_it() -> None:
    session = Session.from_dict({"k": []})
    found = session.get("k", as_type=list[Ticket])
    assert found is not None
    found.append({"title": "x"})  # type: ignore[arg-type]
    assert "value[0].subject: Field required" in message(session.to_dict)
