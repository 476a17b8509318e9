"""Generic typed sessions: brackets make a class whose fields have the types that stand in them."""

from __future__ import annotations

import sys
from datetime import date
from typing import Annotated, Any, Generic, TypeVar

import pytest
import typing_extensions
from pydantic import BaseModel, Field

from dcaf import ConfigurationError, Session, current_session
from dcaf.core import SessionTypeError
from dcaf.core.context import running

T = TypeVar("T")
U = TypeVar("U")
Whole = TypeVar("Whole", bound=int)
Defaulted = typing_extensions.TypeVar("Defaulted", default=int)


class Box(BaseModel, Generic[T]):
    inside: T


class Step(Session, Generic[T]):
    item: T
    many: list[T] = []
    maybe: T | None = None
    box: Box[T]
    boxes: dict[str, Box[T]] = {}
    short: Annotated[list[T], Field(max_length=2)] = []
    later: Later[T]
    count: int = 0

    def first(self) -> T:
        return self.many[0]


class Later(BaseModel, Generic[T]):
    value: T


WHEN = date(2026, 1, 31)
VALUES: dict[str, Any] = {
    "item": WHEN,
    "many": [WHEN],
    "maybe": WHEN,
    "box": Box(inside=WHEN),
    "boxes": {"a": Box(inside=WHEN)},
    "short": [WHEN],
    "later": Later(value=WHEN),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_field_has_the_type_that_stands_in_the_brackets(name: str) -> None:
    session = Session()
    setattr(Step[date].of(session), name, VALUES[name])
    kept = Session.from_dict(session.to_dict())
    found = getattr(Step[date].of(kept), name)
    assert str(found).replace("Box[date]", "Box") == str(VALUES[name])
    with pytest.raises(SessionTypeError, match=name):
        getattr(Step[bytes].of(Session.from_dict({name: 7})), name)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(SessionTypeError, match=name):
        setattr(Step[int].of(Session()), name, VALUES[name])


def test_control_without_brackets_any_item_is_taken() -> None:
    step: Step[Any] = Step.of(Session())
    step.many = [1, "a"]
    assert step.many == [1, "a"]


def test_a_default_is_each_sessions_own() -> None:
    ada, eve = Session(), Session()
    Step[str].of(ada).many.append("a")
    assert (Step[str].of(ada).first(), Step[str].of(eve).many, ada.to_dict()) == ("a", [], {"many": ["a"]})


def test_the_class_is_the_same_one_each_time_and_a_subclass() -> None:
    generic: Any = Step
    assert generic[int] is generic[int]
    assert generic[int] is not generic[str]
    assert issubclass(Step[int], Step)
    assert isinstance(Step[int].of(Session()), Step)
    assert (Step[int].__name__, Step[int].__module__) == ("Step[int]", __name__)
    assert repr(Step[int].of(Session())) == "<Step[int] keys=[]>"


def test_two_unions_in_another_order_are_two_classes() -> None:
    generic: Any = Step
    assert generic[int | str] is not generic[str | int]
    assert generic[int | str] is generic[int | str]


def test_what_cannot_be_hashed_may_stand_there_too() -> None:
    unhashable = Annotated[int, {"ge": 0}]
    session = Session()
    Step[unhashable].of(session).many.append(3)
    assert session.to_dict() == {"many": [3]}


def test_a_subclass_goes_on_with_its_variables() -> None:
    class Middle(Step[list[U]], Generic[U]):
        more: U

    class Bare(Step[U]): ...

    class End(Middle[int]): ...

    generic: Any = Step

    session = Session()
    End.of(session).many.append([1])
    End.of(session).more = 2
    assert session.to_dict() == {"many": [[1]], "more": 2}
    with pytest.raises(SessionTypeError):
        End.of(session).many = ["a"]  # type: ignore[list-item]
    with pytest.raises(SessionTypeError):
        Bare[int].of(session).item = "a"  # type: ignore[assignment]
    with pytest.raises(SessionTypeError):
        generic[U][int].of(session).item = "a"


def test_a_field_that_is_declared_anew_is_not_replaced() -> None:
    class Own(Step[int]):
        item: str = "x"  # type: ignore[assignment]

    class Code(Step[T]):
        @property
        def item(self) -> Any:  # type: ignore[override]
            return "computed"

    assert Own().item == "x"
    assert Code[int]().item == "computed"


def test_a_variable_has_its_default_and_several_are_told_apart() -> None:
    class Pair(Session, Generic[T, Defaulted]):
        left: T
        right: Defaulted

    pair = Pair[str].of(Session())
    pair.left = "a"
    with pytest.raises(SessionTypeError):
        pair.right = "b"  # type: ignore[assignment]
    assert Pair[str, date].__name__ == "Pair[str, date]"


def test_current_session_gives_it() -> None:
    with running(Session.from_dict({"many": [1]})):
        assert current_session(Step[int]).first() == 1


class Plain(Session):
    step: int = 1


WRONG: dict[str, Any] = {
    "of a session": lambda: Session[int],  # type: ignore[misc]
    "of a class without variables": lambda: Plain[int],  # type: ignore[misc]
    "of a finished class": lambda: Step[int][str],
    "too many": lambda: Step[int, str],  # type: ignore[misc]
    "none": lambda: Step[()],  # type: ignore[misc]
    "a name": lambda: Step["Item"],  # type: ignore[name-defined]
}


@pytest.mark.parametrize("row", WRONG)
def test_wrong_brackets_say_what_to_write(row: str) -> None:
    with pytest.raises(ConfigurationError, match=r"has no type variables to replace|takes 1 types, and has|takes types, not"):
        WRONG[row]()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement came with Python 3.12")
def test_type_parameters_of_a_class_statement_are_variables_too() -> None:
    space: dict[str, Any] = {"Session": Session, "__name__": __name__}
    exec("class Basket[Item](Session):\n    numbers: list[Item] = []", space)
    session = Session()
    space["Basket"][int].of(session).numbers.append(1)
    with pytest.raises(SessionTypeError):
        space["Basket"][int].of(session).numbers = ["a"]
    assert session.to_dict() == {"numbers": [1]}
