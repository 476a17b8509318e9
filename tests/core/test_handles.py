"""What was handed out: only reading it changes nothing, and no change to it is lost, however its type writes and reads it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_serializer, field_validator, model_validator

from dcaf import Session
from dcaf.core import SessionTypeError, SessionValueError
from dcaf.core import handles as handles_of
from dcaf.core.handles import Handle


class Masked(BaseModel):
    name: str = ""
    key: str = ""
    note: str | None = None

    @field_serializer("key")
    def mask(self, key: str) -> str:
        return key[:2] + "**"


class Crypt(BaseModel):
    """Written otherwise each time."""

    name: str = ""
    secret: str = ""

    @field_serializer("secret")
    def hide(self, value: str) -> str:
        return f"{random.random()}:{value}"

    @field_validator("secret", mode="before")
    @classmethod
    def show(cls, value: Any) -> Any:
        return value.partition(":")[2] if isinstance(value, str) and re.match(r"0\.\d+", value) else value


class Numbered(BaseModel):
    """Each object has a number of its own, where none is stored."""

    id: UUID = Field(default_factory=uuid4)
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    name: str | None = None


class Both(Numbered):
    price: Decimal = Decimal(0)

    @field_serializer("price")
    def shown(self, price: Decimal) -> str:
        return f"{price} EUR"

    @field_validator("price", mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        return value.removesuffix(" EUR") if isinstance(value, str) else value


class Failing(BaseModel):
    name: str = ""

    @field_serializer("name")
    def fail(self, _: str) -> str:
        raise KeyError("canary")


class Foreign:
    """An object that nobody can write or compare."""


class Held(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str = ""
    made: Any = None

    @model_validator(mode="after")
    def make(self) -> Held:
        self.made = Foreign()
        return self


class Hidden(BaseModel):
    name: str = ""
    key: str = Field("", exclude=True)
    _seen: int = PrivateAttr(0)


class Base(BaseModel):
    name: str = ""


class Sub(Base):
    more: int = 1


class Plan(BaseModel):
    one: Base = Base()
    some: list[Base] = []
    any: Any = None


READ: list[tuple[Any, Any]] = [
    (Masked, {"name": "a", "key": "sk-123"}),
    (list[Masked], [{"name": "a", "key": "sk-123", "note": None}]),
    (Crypt, {"name": "a", "secret": "s"}),
    (dict[str, Crypt], {"a": {"name": "a", "secret": "s"}}),
    (Numbered, {}),
    (list[Numbered], [{}, {"name": None}]),
    (Both, {"price": "1.10 EUR"}),
    (Failing, {"name": "a"}),
    (Held, {"name": "a"}),
    (Hidden, {"name": "a", "key": "k"}),
    (Plan, {"one": {"name": "a", "else": 1}, "some": [{"name": "b"}], "any": {"x": [None]}}),
]


def only_read(as_type: Any, stored: Any) -> None:
    session = Session.from_dict({"k": stored})
    for _ in range(2):
        assert session.get("k", as_type=as_type) is session.get("k", as_type=as_type)
        assert not session.is_modified
        assert session.changes == {"set": {}, "delete": []}
        assert session.to_dict() == {"k": stored}


@pytest.mark.parametrize(("as_type", "stored"), READ, ids=lambda value: str(value)[:40])
def test_what_is_only_read_is_not_changed(as_type: Any, stored: Any) -> None:
    only_read(as_type, stored)


def test_control_a_handle_that_is_compared_as_it_is_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handle, "is_changed", lambda handle: handle.write_value() != handle.base)
    caught = 0
    for as_type, stored in READ:
        try:
            only_read(as_type, stored)
        except (AssertionError, SessionValueError):
            caught += 1
    assert caught >= 6


def test_a_private_attribute_may_be_filled_by_who_reads() -> None:
    session = Session.from_dict({"k": {"name": "a"}})
    found = session.get("k", as_type=Hidden)
    assert found is not None
    found._seen = 5
    assert not session.is_modified
    found.name = "b"
    assert session.to_dict() == {"k": {"name": "b"}}


KEPT: list[tuple[Any, Any, Callable[[Any], Any], Any]] = [
    (Numbered, {}, lambda v: setattr(v, "name", "q"), lambda k: k["name"] == "q" and len(k) == 3),
    (Both, {}, lambda v: setattr(v, "price", Decimal("2.50")), lambda k: k["price"] == "2.50 EUR"),
    (Crypt, {"secret": "s"}, lambda v: setattr(v, "secret", "t"), lambda k: k["secret"].endswith(":t")),
    (Held, {"name": "a"}, lambda v: setattr(v, "made", 5), None),
    (Masked, {"key": "sk-123"}, lambda v: setattr(v, "key", "sk-999"), None),
    (Masked, {"key": "sk-123"}, lambda v: setattr(v, "name", "b"), None),
    (Hidden, {"key": "k"}, lambda v: setattr(v, "key", "l"), None),
    (Plan, {"one": {"name": "a"}}, lambda v: setattr(v, "one", Sub(name="a")), None),
    (Plan, {"some": [{"name": "a"}]}, lambda v: v.some.__setitem__(0, Sub(name="a")), None),
    (list[Base], [{"name": "a"}], lambda v: v.__setitem__(0, Sub(name="a")), None),
    (dict[str, Base], {"a": {"name": "a"}}, lambda v: v.update(a=Sub(name="a")), None),
    (Plan, {"any": None}, lambda v: setattr(v, "any", float("nan")), None),
    (Plan, {"any": [None]}, lambda v: v.any.__setitem__(0, float("inf")), None),
    (Plan, {"any": [1]}, lambda v: setattr(v, "any", (2,)), None),
    (Plan, {"any": [1]}, lambda v: setattr(v, "any", {1: 2}), None),
]


@pytest.mark.parametrize(("as_type", "stored", "change", "is_kept"), KEPT)
def test_a_change_is_kept_or_refused_and_never_lost(as_type: Any, stored: Any, change: Any, is_kept: Any) -> None:
    session = Session.from_dict({"k": stored})
    change(session.get("k", as_type=as_type))
    if is_kept is None:
        with pytest.raises(SessionValueError, match=r"^k[.\[]"):
            session.to_dict()
        assert session._state.slot("k").data is not None
    else:
        assert is_kept(session.to_dict()["k"])


def test_control_a_handle_that_looks_at_what_is_written_alone_loses_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles_of, "is_conclusive", lambda *_: True)
    lost = 0
    for as_type, stored, change, is_kept in KEPT:
        session = Session.from_dict({"k": stored})
        change(session.get("k", as_type=as_type))
        try:
            lost += is_kept is None and not session.is_modified
        except SessionValueError:
            continue
    assert lost >= 3


def test_an_object_of_another_class_that_a_view_reads_is_stored_and_not_watched() -> None:
    class Row:
        name = "a"

    class FromRow(BaseModel):
        model_config = ConfigDict(from_attributes=True)
        name: str

    class View(Session):
        row: FromRow

    session = Session()
    View.of(session).row = Row()  # type: ignore[assignment]
    assert session.to_dict() == {"row": {"name": "a"}}
    assert View.of(session).row == FromRow(name="a")


class Child(BaseModel):
    name: str | None = None
    parent: Parent | None = Field(None, exclude=True, repr=False)


class Parent(BaseModel):
    children: list[Child] = []

    @model_validator(mode="after")
    def link(self) -> Parent:
        for child in self.children:
            child.parent = self
        return self


Child.model_rebuild()


def test_objects_that_know_who_holds_them_are_stored_and_read() -> None:
    session = Session()
    session.set("k", Parent(children=[Child(parent=None), Child(name="b", parent=None)]))
    session = Session.from_dict(session.to_dict())
    found = session.get("k", as_type=Parent)
    assert found is not None
    assert not session.is_modified
    found.children[0].name = "a"
    assert session.to_dict() == {"k": {"children": [{"name": "a"}, {"name": "b"}]}}
    found.children[0].parent = None
    with pytest.raises(SessionValueError, match=r"^k\.children\[0\]\.parent: has exclude=True"):
        session.to_dict()


def test_a_typed_session_ends_in_an_error_of_ours_where_a_validator_raises_another() -> None:
    class Raising(BaseModel):
        number: int = 0

        @field_validator("number")
        @classmethod
        def check(cls, value: int) -> int:
            raise KeyError("canary")

    class View(Session):
        held: Raising

    session = Session()
    with pytest.raises(SessionTypeError) as caught:
        View.of(session).held = {"number": 3}  # type: ignore[assignment]
    assert str(caught.value) == "held: the value does not fit: the type's own code raised KeyError"
    assert session.is_empty
