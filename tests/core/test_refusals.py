"""What may not be stored is refused by its path, down to the innermost part, and in words that say why and what to write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, PlainSerializer, field_serializer, field_validator

from dcaf import Session
from dcaf.core import SessionValueError
from dcaf.core.round_trip import find_unwritable


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
        (Late, {}, lambda v: v.notes.append({"text": "x"}), "k.notes[0]: is a dict, where Note belongs. Put Note(...) there."),
        (Board, {}, lambda v: setattr(v, "first", {"subject": "x"}), "k.first: is a dict, where Ticket belongs. Put"),
        (
            Board,
            {"others": {"a": [{"subject": "b"}]}},
            lambda v: v.others["a"].append({"subject": "x"}),
            "k.others.a[1]: is a dict, where Ticket belongs. Put Ticket(...) there.",
        ),
        (list[list[int]], [[1]], lambda v: v[0].append("2"), "k[0][1]: is of type str, and would come back as int"),
        (dict[str, int], {"a b": 1}, lambda v: v.update({"a b": "2"}), "k['a b']: is of type str, and would come back as int"),
        (list[Ticket | None], [], lambda v: v.append({"subject": "x"}), "k[0]: is a dict, where Ticket belongs. Put"),
        (list[Ticket | int], [], lambda v: v.append("2"), "k[0]: is of type str, and would come back as int"),
        (dict[str, list[Ticket]], {}, lambda v: v.update(a=()), "k.a: is of type tuple, and would come back as list"),
        (list[Ticket | list[int]], [[1]], lambda v: v[0].append("2"), "k[0][1]: is of type str, and would come back as int"),
        (list[tuple[int, Ticket]], [], lambda v: v.append((1, {"subject": "x"})), "k[0][1]: is a dict, where Ticket belongs."),
        (list[tuple[int, ...]], [], lambda v: v.append((1, "2")), "k[0][1]: is of type str, and would come back as int"),
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
    assert message(session.to_dict) == "k[0].subject: would not be read back: Field required"


class Page(BaseModel):
    title: str = ""
    thumb: bytes = b""


class Doc(BaseModel):
    pages: list[Page] = []
    by_name: dict[str, Page] = {}
    rest: tuple[Page, ...] = ()
    any: Any = None


class Basket(BaseModel):
    items: list[int] = None  # type: ignore[assignment]


class Hidden(BaseModel):
    key: str = Field("", exclude=True)


class Rounded(BaseModel):
    price: Annotated[float, PlainSerializer(lambda price: round(price, 1))] = 0.0


class Failing(BaseModel):
    name: str = ""

    @field_serializer("name")
    def fail(self, _: str) -> str:
        raise KeyError("canary")


class Even(BaseModel):
    number: int = 0

    @field_validator("number")
    @classmethod
    def check(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"canary {value}")
        return value


class Broken(BaseModel):
    number: int = 0

    @field_validator("number")
    @classmethod
    def check(cls, value: int) -> int:
        return value // 0 if value else 0


class Node(BaseModel):
    next: Any = None


def circle() -> Node:
    made = Node()
    made.next = made
    return made


NO_TEXT = b"\xff\xd8"
REMEDY = 'holds bytes that are no text. In the model\'s configuration write ser_json_bytes="base64" and val_json_bytes="base64"'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Doc(pages=[Page(), Page(thumb=NO_TEXT)]), f"doc.pages[1].thumb: {REMEDY}"),
        (Doc(by_name={"a b": Page(thumb=NO_TEXT)}), f"doc.by_name['a b'].thumb: {REMEDY}"),
        (Doc(rest=(Page(), Page(), Page(thumb=NO_TEXT))), f"doc.rest[2].thumb: {REMEDY}"),
        ([{"a": Doc(pages=[Page(thumb=NO_TEXT)])}], f"doc[0].a.pages[0].thumb: {REMEDY}"),
        (Doc(any={"a": [object()]}), "doc.any.a[0]: is of type object, which cannot be stored"),
        (Doc(any={"a": [len]}), "doc.any.a[0]: is of type builtin_function_or_method, which cannot be stored"),
        (Doc(any={"a": "\ud800"}), "doc.any.a: has a lone surrogate, which is no Unicode text"),
        (Doc(any={"a": {1: 2}}), "doc.any.a: has a key of type int, which would come back as str"),
        (Doc(any=[2**64]), "doc.any[0]: is an integer beyond 64 bits; store it as a string"),
        (Basket(), "doc.items: would not be read back: Input should be a valid array"),
        (
            Hidden(key="canary"),
            "doc.key: has exclude=True, so it is not written, and would come back as another value. What is not to be stored "
            "belongs in a private attribute",
        ),
        (
            [Rounded(price=1.25)],
            "doc[0].price: would come back as another value: its type does not write all of it, or reads it otherwise",
        ),
        (Failing(name="canary"), "doc.name: cannot be written: the type's own code failed at it"),
        (Even.model_construct(number=3), "doc.number: would not be read back: refused by the type's own validator"),
        (Broken.model_construct(number=3), "doc: would not be read back: its type's own code raised ZeroDivisionError"),
        (circle(), "doc: is of type Node, and nested deeper than 64, or holds itself"),
        (
            Board.model_construct(first=Ticket.model_construct(subject="a", tags=["b", 3])),
            "doc.first.tags[1]: would not be read back: Input should be a valid string",
        ),
    ],
)
def test_a_refusal_names_key_and_path_and_says_why(value: Any, said: str) -> None:
    session = Session()
    assert message(lambda: session.set("doc", value)) == said
    assert session.is_empty


@pytest.mark.parametrize("number", [1_000, 16_000])
def test_the_part_is_found_by_halves(number: int) -> None:
    asked: list[Any] = []

    def dump(include: Any) -> object:
        asked.append(include)
        if include["raw"] is True or number - 1 in include["raw"]:
            raise ValueError
        return None

    assert find_unwritable({"raw": [0] * number}, dump).path == f".raw[{number - 1}]"
    assert len(asked) < 25
