"""A type is what it says: arms in their order, nothing that can be read once, and no name that is only found by luck."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from types import EllipsisType
from typing import TYPE_CHECKING, Annotated, Any, Final, ForwardRef, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter
from typing_extensions import TypeAliasType, TypedDict

from dcaf import ConfigurationError, DcafError, Session, SessionKey, tool
from dcaf.core import SessionValueError
from dcaf.core.adapters import _cached, adapter, describe, same_type

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Once(BaseModel):
    items: Iterable[int] = ()


@dataclass
class OnceData:
    items: Iterable[int] = ()


class OnceRow(TypedDict):
    items: Generator[int, None, None]


class OnceTuple(NamedTuple):
    items: Iterable[int] = ()


class OnceRoot(RootModel[Iterable[int]]):
    pass


class Box(BaseModel, Generic[T]):
    content: T


class Deep(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    boxes: dict[str, list[Once]] = {}


class Chain(BaseModel):
    next: Optional["Chain"] = None  # noqa: UP037, UP045
    items: Iterable[int] = ()


class Fields(BaseModel):
    """Names that a schema uses itself."""

    default: int = 0
    metadata: Iterable[int] = ()


ALIAS = TypeAliasType("ALIAS", list[Iterable[int]])

ONCE: Final[list[Any]] = [
    *(Iterable[int], Iterator[int], Generator[int, None, None], AsyncIterable[int], AsyncIterator[int]),
    *(typing.Iterable[int], typing.Iterator[int], typing.Generator[int, None, None], typing.Iterable, collections.abc.Iterable),
    *(list[Iterable[int]], dict[str, Iterable[int]], tuple[Iterable[int], ...], Iterable[int] | None, list[int] | Iterable[int]),
    *(Annotated[Iterable[int], "note"], NewType("New", Iterable[int]), ALIAS),
    *(Once, OnceData, OnceRow, OnceTuple, OnceRoot, Box[Iterable[int]], Deep, Chain, Fields, list[Chain], dict[str, OnceRow]),
]


@pytest.mark.parametrize("as_type", ONCE, ids=str)
def test_nothing_that_can_be_read_once_is_handed_out(as_type: Any) -> None:
    session = Session.from_dict({"k": [1, 2]})
    with pytest.raises(ConfigurationError):
        session.get("k", as_type=as_type)
    assert not session.is_modified
    assert session.to_dict() == {"k": [1, 2]}


@pytest.mark.parametrize(
    "as_type", [list[int], tuple[int, ...], set[int], typing.Sequence[int], collections.abc.MutableSequence[int]]
)
def test_control_what_can_be_read_again_is(as_type: Any) -> None:
    session = Session.from_dict({"k": [1, 2]})
    for _ in range(2):
        assert sorted(session.get("k", as_type=as_type)) == [1, 2]
    assert not session.is_modified


SAID = "is an Iterable, an Iterator or a Generator, and gives its items one time only. Write list[...]"


def test_the_refusal_says_which_part_and_what_to_write() -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter(list[Deep])
    assert str(caught.value) == f"Once.items {SAID}"
    with pytest.raises(ConfigurationError, match=r"^Fields\.metadata is an Iterable"):
        adapter(Fields)


@pytest.mark.parametrize(
    "value",
    [
        Once(items=[1]),
        OnceData([1]),
        OnceTuple([1]),
        OnceRoot([1]),
        [Once()],
        {"a": Deep(boxes={"b": [Once()]})},
        Box[Once](content=Once()),
    ],
)
def test_nothing_that_can_be_read_once_goes_in(value: Any) -> None:
    session = Session()
    with pytest.raises(SessionValueError, match=r"^k.*gives its items one time only. Write list\[\.\.\.\]$"):
        session.set("k", value)
    assert session.is_empty


@pytest.mark.parametrize("value", [(x for x in [1]), iter([1]), map(str, [1]), [zip([1], [2], strict=True)]])
def test_an_iterator_itself_is_refused(value: Any) -> None:
    with pytest.raises(SessionValueError, match="which cannot be stored"):
        Session().set("k", value)


def test_a_default_a_view_and_a_parameter_are_refused_too() -> None:
    class View(Session):
        some: Iterable[int]

    with pytest.raises(SessionValueError, match=f"Once.items {SAID[:20]}"):
        Session().get("k", Once(), as_type=Once)
    with pytest.raises(ConfigurationError):
        _ = View.of(Session.from_dict({"some": [1]})).some
    with pytest.raises(ConfigurationError):

        @tool
        def read(some: Annotated[Iterable[int], SessionKey("k")]) -> None: ...


class Cart(BaseModel):
    items: list[str] = []


@pytest.mark.parametrize(
    "as_type",
    [
        *("Cart", list["Cart"], Optional["Cart"], dict[str, "Cart"], Union["Cart", int], typing.List["Cart"], tuple["Cart", ...]),  # noqa: UP006
        *(Annotated["Cart", 1], Annotated[list["Cart"], 1], list[list["Cart"]], ForwardRef("Cart"), Optional["Refusal"]),  # noqa: F821
        *("JSON", list["TypeAdapter[Any]"], type["Cart"], collections.abc.Callable[["Cart"], int]),
    ],
    ids=str,
)
def test_a_type_that_is_only_named_is_refused_with_what_to_pass(as_type: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"by a text, which cannot be looked up here\. Pass the type itself"):
        Session.from_dict({"k": {"items": []}}).get("k", as_type=as_type)


def test_a_text_in_a_literal_is_no_name() -> None:
    assert Session.from_dict({"k": "Cart"}).get("k", as_type=Literal["Cart"]) == "Cart"
    assert Session.from_dict({"k": "Cart"}).get("k", as_type=Annotated[str, "Cart"]) == "Cart"


@dataclass
class Price:
    amount: Decimal | None = None


@dataclass
class Lucky:
    """Names what a module of the library happens to import."""

    described: "Description | None" = None  # type: ignore[name-defined]  # noqa: F821, UP037


class LuckyRow(TypedDict):
    walked: "Refusal"  # type: ignore[name-defined]  # noqa: F821, UP037


class Incomplete(BaseModel):
    cached: "lru_cache_of_a_kind"  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.parametrize("as_type", [Price, Lucky, LuckyRow, Incomplete, list[Price], dict[str, LuckyRow]])
def test_a_name_that_is_not_found_where_the_type_is_written_is_found_nowhere_else(as_type: Any) -> None:
    with pytest.raises(ConfigurationError, match="which is not found: import it where the type is written"):
        adapter(as_type)


def test_an_object_of_such_a_class_is_refused_with_the_same_words() -> None:
    with pytest.raises(
        SessionValueError, match=r"^k: is of type Price, which cannot be stored: .* names 'Decimal', which is not found"
    ):
        Session().set("k", Price())


def test_a_model_that_is_built_late_is_read() -> None:
    class Deferred(BaseModel):
        model_config = ConfigDict(defer_build=True)
        name: str = ""

    assert Session.from_dict({"k": {"name": "a"}}).get("k", as_type=Deferred) == Deferred(name="a")


@pytest.mark.parametrize(
    "as_type", [5, [int], ..., object(), len, {"a": 1}, typing.NoReturn, EllipsisType, collections.abc.Callable[[int], str], type]
)
def test_what_is_no_type_ends_in_an_error_of_ours(as_type: Any) -> None:
    with pytest.raises(DcafError):
        Session.from_dict({"k": {"a": 1}}).get("k", as_type=as_type)


PAIRS: Final[list[tuple[Any, Any, Any]]] = [
    (bytes | str, str | bytes, "abcd"),
    (date | str, str | date, "2026-01-31"),
    (UUID | str, str | UUID, "00000000-0000-0000-0000-000000000005"),
    (list[bytes | str], list[str | bytes], ["abcd"]),
    (dict[str, bytes | str], dict[str, str | bytes], {"a": "abcd"}),
    (tuple[bytes | str, ...], tuple[str | bytes, ...], ["abcd"]),
    (list[bytes | str] | None, list[str | bytes] | None, ["abcd"]),
    (Annotated[bytes | str, "a"], Annotated[str | bytes, "b"], "abcd"),
    (Annotated[int | str, Field(union_mode="left_to_right")], Annotated[str | int, Field(union_mode="left_to_right")], "1"),
    (Literal[1], Literal[True], 1),
    (Annotated[int, Field(ge=1)], Annotated[int, Field(ge=2)], 1),
]


def reading(as_type: Any, stored: Any) -> str:
    try:
        return repr(Session.from_dict({"k": stored}).get("k", as_type=as_type))
    except DcafError as error:
        return str(error)


@pytest.mark.parametrize(("one", "other", "stored"), PAIRS)
def test_what_is_read_depends_on_the_type_and_not_on_what_was_asked_before(one: Any, other: Any, stored: Any) -> None:
    alone = []
    for as_type in (one, other):
        _cached.cache_clear()
        alone.append(reading(as_type, stored))
    for first in (one, other):
        _cached.cache_clear()
        reading(first, stored)
        assert [reading(one, stored), reading(other, stored)] == alone


def test_control_a_cache_by_equality_is_caught() -> None:
    equal = lru_cache(TypeAdapter)
    assert equal(bytes | str) is equal(str | bytes)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (int, int, True),
        (int, bool, False),
        (list[int], typing.List[int], True),  # noqa: UP006
        (dict[str, list[int]], typing.Dict[str, typing.List[int]], True),  # noqa: UP006
        (int | None, Optional[int], True),  # noqa: UP045
        (int | None, None | int, False),
        (bytes | str, str | bytes, False),
        (list[bytes | str], list[str | bytes], False),
        (Literal[1], Literal[True], False),
        (Literal["a", "b"], Literal["a", "b"], True),
        (list[Literal[1]], list[Literal[True]], False),
        (Annotated[int, 1], Annotated[int, True], False),
        (Annotated[int, "a"], Annotated[int, "a"], True),
        (Annotated[int, "a"], int, False),
        (collections.abc.Callable[[int], str], collections.abc.Callable[[int], str], True),
        (collections.abc.Callable[[int | str], str], collections.abc.Callable[[str | int], str], False),
        (Box[int], Box[int], True),
        (Any, Any, True),
        (None, None, True),
    ],
)
def test_two_types_are_the_same_where_they_are_read_alike(one: Any, other: Any, same: bool) -> None:
    assert same_type(one, other) is same


def test_an_object_is_handed_out_again_for_the_same_type_alone() -> None:
    session = Session.from_dict({"k": ["abcd"]})
    assert session.get("k", as_type=list[str]) is session.get("k", as_type=typing.List[str])  # noqa: UP006
    assert session.get("k", as_type=list[bytes | str]) != session.get("k", as_type=list[str | bytes])


def test_a_type_is_described_once() -> None:
    assert describe(list[Cart]) is describe(list[Cart])
    assert adapter(Cart | None) is adapter(Cart | None)
