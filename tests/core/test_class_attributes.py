"""What stands in the class of a typed session is a field of each session, code, or a constant: nothing is shared by users."""

from __future__ import annotations

import abc
import dataclasses
import functools
import re
import typing
from collections.abc import Callable
from datetime import UTC, date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType, new_class
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from dcaf import ConfigurationError, ReadOnlySession, Session
from dcaf.core.class_attributes import is_constant

T = TypeVar("T")


class Base(Session):
    notes: list[str] = []


class Notes(BaseModel):
    notes: list[str] = []


class Itself(BaseModel):
    notes: list[str] = []

    def __deepcopy__(self, memo: Any = None) -> Itself:
        return self


class Untouched(Session): ...


class Descriptor:
    """Gives one list to everybody, as a property-like object of another library does."""

    kept: list[str]

    def __init__(self) -> None:
        self.kept = []

    def __get__(self, session: Any, owner: Any) -> Any:
        return self.kept


class Mixin:
    notes = []  # type: ignore[var-annotated]


class AnnotatedMixin:
    notes: list[str] = []


class ConstantMixin:
    notes: ClassVar[list[str]] = []


@dataclasses.dataclass
class DataMixin:
    notes: list[str] = dataclasses.field(default_factory=list)


class ProtocolMixin(Protocol):
    notes: list[str] = []


class DeepMixin(Mixin): ...


def overridden() -> Any:
    class View(Base):
        notes = ["welcome"]

    return View


def forgotten() -> Any:
    class View(Session):
        notes = []  # type: ignore[var-annotated]

    return View


def private() -> Any:
    class View(Session):
        _notes: list[str] = []

        @property
        def notes(self) -> list[str]:
            return self._notes

    return View


def mangled() -> Any:
    class View(Session):
        __notes = []  # type: ignore[var-annotated]

        @property
        def notes(self) -> list[str]:
            return self.__notes

    return View


def dunder() -> Any:
    class View(Session):
        __notes__: list[str] = []

        @property
        def notes(self) -> list[str]:
            return self.__notes__

    return View


def slotted() -> Any:
    class View(Session):
        __slots__ = ("notes",)

    return View


def cached() -> Any:
    class View(Session):
        @functools.cached_property
        def notes(self) -> list[str]:
            return []

    return View


def cached_method() -> Any:
    class View(Session):
        @staticmethod
        @functools.cache
        def all_notes() -> list[str]:
            return []

        @property
        def notes(self) -> list[str]:
            return self.all_notes()

    return View


def nested() -> Any:
    class View(Session):
        class Kept:
            notes = []  # type: ignore[var-annotated]

        @property
        def notes(self) -> list[str]:
            return self.Kept.notes

    return View


def inside_a_default() -> Any:
    shared = Itself()

    class View(Session):
        box: Itself = shared
        boxes: list[Itself] = [shared]

        @property
        def notes(self) -> list[str]:
            return self.boxes[0].notes

    return View


def set_later() -> Any:
    class View(Session): ...

    View.notes = []  # type: ignore[attr-defined]
    return View


def field_set_later() -> Any:
    class View(Base): ...

    View.notes = []
    return View


def inherited_field_set_later() -> Any:
    class View(Base): ...

    class Under(View): ...

    View.notes = ["welcome"]
    return Under


def parametrised_and_set_later() -> Any:
    class View(Session, Generic[T]): ...

    made: Any = View[int]
    made.notes = []
    return made


def of(value: Any, annotation: Any = None, *, bases: tuple[type, ...] = (Session,)) -> Callable[[], Any]:
    annotations = {} if annotation is None else {"__annotations__": {"notes": annotation}}
    return lambda: type(bases[0])("View", bases, {"notes": value, "__module__": __name__, **annotations})


SHARED: dict[str, Callable[[], Any]] = {
    "an inherited default, overridden": overridden,
    "no annotation": forgotten,
    "a private name": private,
    "a mangled name": mangled,
    "a dunder name": dunder,
    "a slot": slotted,
    "a cached property": cached,
    "a cached function": cached_method,
    "a class inside": nested,
    "a default that is its own copy": inside_a_default,
    "set later": set_later,
    "a field, set later": field_set_later,
    "an inherited field, set later": inherited_field_set_later,
    "a parametrised class, set later": parametrised_and_set_later,
    "a constant that is a list": of([], ClassVar[list[str]]),
    "a constant that is a list, by name": of([], "ClassVar[list[str]]"),
    "a constant that is a list, by another name": of([], "typing.ClassVar[list[str]]"),
    "a final list": of([], Final[list[str]]),
    "a bare final list": of([], Final),
    "a constant that is a model": of(Notes(), ClassVar[Notes]),
    "a list in a tuple": of(([],), ClassVar[Any]),
    "a list in a frozen dataclass": of(dataclasses.make_dataclass("D", ["x"], frozen=True)([]), ClassVar[Any]),
    "a list in a read-only mapping": of(MappingProxyType({"a": []}), ClassVar[Any]),
    "a list in an enum": of(Enum("E", {"A": []}).A, ClassVar[Any]),  # type: ignore[attr-defined]
    "a bound method of a list": of([].append, ClassVar[Any]),
    "a descriptor": of(Descriptor()),
    "an annotated descriptor": of(Descriptor(), list[str]),
    "a static method around a list": of(staticmethod([])),  # type: ignore[arg-type]
    "a class method around a partial": of(classmethod(functools.partial(list, []))),
    "a dataclass field": of(dataclasses.field(default_factory=list), list[str]),
    "a pydantic field": of(Field(default_factory=list), list[str]),
    "a private attribute of pydantic": of(PrivateAttr(default_factory=list)),
    "a factory as the default": of(list, list[str]),
    "a function as the default": of(list, list[str]),
    "a mixin": lambda: new_class("View", (Mixin, Session)),
    "a mixin behind": lambda: new_class("View", (Session, Mixin)),
    "a mixin before a field": lambda: new_class("View", (Mixin, Base)),
    "a mixin of a mixin": lambda: new_class("View", (DeepMixin, Session)),
    "an annotated mixin": lambda: new_class("View", (AnnotatedMixin, Session)),
    "a mixin with a constant list": lambda: new_class("View", (ConstantMixin, Session)),
    "a dataclass as a mixin": lambda: new_class("View", (DataMixin, Session)),
    "a protocol with a list": lambda: new_class("View", (Session, ProtocolMixin)),
    "a typed session as a dataclass": lambda: dataclasses.dataclass(type("View", (Session,), {"__annotations__": {"notes": str}})),
    "a read-only session": of([], bases=(ReadOnlySession,)),
    "a field of a read-only session": of([], list[str], bases=(ReadOnlySession,)),
    "a read-only session, set later": lambda: setattr(type("View", (ReadOnlySession,), {}), "notes", []),
}


class Unchecked:
    """A control: a typed session as a plain class would have it, where an attribute is what Python makes of it."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    @classmethod
    def of(cls, _: Any) -> Any:
        return cls()


def shares_nothing(view: Any) -> None:
    """The law: what is done to one session is in it, and not in another."""
    ada, eve = Session(), Session()
    view.of(ada).notes.append("my PIN is 1234")
    assert "PIN" not in str(view.of(eve).notes)
    assert "PIN" in str(ada.to_dict())


def is_safe(make: Callable[[], Any]) -> None:
    try:
        view = make()
    except ConfigurationError:
        return
    shares_nothing(view)


@pytest.mark.parametrize("row", SHARED)
def test_nothing_in_a_class_is_shared_by_users(row: str) -> None:
    is_safe(SHARED[row])


@pytest.mark.parametrize("row", [row for row in SHARED if row != "a default that is its own copy"])
def test_the_class_is_refused_when_it_is_made_and_not_when_it_is_used(row: str) -> None:
    with pytest.raises(ConfigurationError):
        SHARED[row]()


@pytest.mark.parametrize("value", [[], Descriptor(), MappingProxyType({"a": 1})], ids=["list", "descriptor", "proxy"])
def test_control_a_plain_class_shares_its_attributes(value: Any) -> None:
    with pytest.raises((AssertionError, AttributeError)):
        is_safe(lambda: type("View", (Unchecked,), {"notes": value}))


# What each of them is told


def told(make: Callable[[], Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return str(caught.value)


def test_a_forgotten_annotation_is_told_with_what_to_write() -> None:
    assert told(overridden) == (
        "View.notes has no annotation, so that it is no field: one list for all users. Write `notes: ... = ...` with its type, "
        "also where it overrides a field that is inherited; for a constant `notes: ClassVar[...] = ...`."
    )


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ("a private name", r"Give a field a name without one, or declare a constant: `_notes: ClassVar\[\.\.\.\] = \.\.\.`\."),
        ("a constant that is a list", r"Drop ClassVar, .* or make it a tuple, a frozenset or a MappingProxyType"),
        ("a slot", r"Take it out of __slots__, and annotate it as a field"),
        ("a cached property", r"Write @property\."),
        ("a class inside", r"View\.Kept is a class inside .* Write it beside the session's class"),
        ("a descriptor", r"is a Descriptor, which is no field, no method and no property"),
        ("a factory as the default", r"Write the value itself, as in notes: list\[str\] = \[\]"),
        ("a dataclass field", r"write the default itself"),
        ("a mixin of a mixin", r"comes from Mixin, which is no Session.* Write `class Mixin\(Session\)`, and annotate notes there"),
        ("an annotated mixin", r"comes from AnnotatedMixin"),
        ("a field, set later", r"would write it for all users\. Write it on the session: session\.notes = \.\.\."),
        ("a field of a read-only session", r"get\('notes', as_type="),
    ],
)
def test_each_is_told_what_to_write(row: str, advice: str) -> None:
    assert re.search(advice, told(SHARED[row]))


def test_no_message_has_the_value() -> None:
    for make in SHARED.values():
        with pytest.raises(ConfigurationError) as caught:
            make()
            raise ConfigurationError
        assert "welcome" not in str(caught.value)


def test_a_private_annotation_without_a_value_is_refused_as_its_value_would_be_lost() -> None:
    assert "_cache begins with an underscore" in told(
        lambda: type("View", (Session,), {"__annotations__": {"_cache": dict}, "__module__": __name__})
    )


def test_a_private_attribute_is_lost_with_the_view_and_so_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no field '_cache', so the value would be lost"):
        Base()._cache = {}  # type: ignore[attr-defined]


def test_a_default_in_the_annotation_is_told_where_it_belongs() -> None:
    def early() -> Any:
        class View(Session):
            step: Annotated[int, Field(default=1)]

        return View

    def factory() -> Any:
        class View(Session):
            steps: Annotated[list[int], Field(default_factory=list)]

        return View

    assert told(early).startswith("View.step: the default stands in pydantic's Field. Write it after the annotation")
    assert told(factory).startswith("View.steps: the default stands in pydantic's Field.")


def test_an_annotation_that_is_no_type_is_told_when_the_class_is_made() -> None:
    assert told(lambda: type("View", (Session,), {"__annotations__": {"step": "1 +"}, "__module__": __name__})) == (
        "View.step: the annotation is no type (SyntaxError). Write one, as in step: int = 1."
    )


def test_a_constant_does_not_hide_what_a_session_has() -> None:
    made: Any = {"__annotations__": {"id": ClassVar[str]}, "id": "x", "__module__": __name__}
    assert told(lambda: type("View", (Session,), made)) == "View.id: Session has an attribute of that name. Choose another."


# What may stand there


class Level(Enum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Limits:
    steps: int = 3
    names: tuple[str, ...] = ("a",)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    steps: int = 3


class HasSteps(Protocol):
    step: int

    def advance(self) -> int: ...


class Methods(abc.ABC):
    LIMIT: ClassVar[int] = 9

    def doubled(self: HasSteps) -> int:
        return self.step * 2

    @abc.abstractmethod
    def advance(self) -> int: ...


class Wide(Session, HasSteps, Methods):
    """It has a bit of everything that a class may have."""

    __slots__ = ()
    step: int = 1
    notes: list[str] = []
    MOST: ClassVar[int] = 3
    NAMES: ClassVar[tuple[str, ...]] = ("a", "b")
    KINDS: Final = frozenset({"x"})
    LEVEL: ClassVar[Level] = Level.LOW
    LIMITS: ClassVar[Limits] = Limits()
    FROZEN: ClassVar[Frozen] = Frozen()
    TABLE: ClassVar[typing.Mapping[str, int]] = MappingProxyType({"a": 1})
    PATTERN: ClassVar[re.Pattern[str]] = re.compile("x")
    SINCE: ClassVar[date] = date(2026, 1, 31)
    _PRIVATE: ClassVar[str] = "x"
    __version__ = "1"

    def advance(self) -> int:
        self.step += 1
        return self.step

    @property
    def is_done(self) -> bool:
        return self.step > self.MOST

    @is_done.setter
    def is_done(self, value: bool) -> None:
        self.step = self.MOST + 1 if value else 1

    @staticmethod
    def label(step: int) -> str:
        return f"step {step}"

    @classmethod
    def most(cls) -> int:
        return cls.MOST

    by_two = functools.partialmethod(label, 2)
    again = advance

    async def wait(self) -> None: ...


def test_methods_properties_and_constants_are_what_they_are_elsewhere() -> None:
    session = Session()
    view = Wide.of(session)
    assert (view.advance(), view.again(), view.doubled(), view.is_done, view.label(3), view.most()) == (2, 3, 6, False, "step 3", 3)
    view.is_done = True
    assert session.to_dict() == {"step": 4}
    assert (view.NAMES, view.LIMITS.steps, view.TABLE["a"], view.LIMIT, view._PRIVATE) == (("a", "b"), 3, 1, 9, "x")
    shares_nothing(Wide)


def test_a_constant_cannot_be_assigned_on_a_session() -> None:
    with pytest.raises(AttributeError, match="has no field 'MOST'"):
        Wide().MOST = 4  # type: ignore[misc]


def test_a_method_may_be_replaced_on_the_class_as_tests_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wide, "advance", lambda self: 99)
    assert Wide().advance() == 99


def test_sessions_with_fields_mix() -> None:
    class Other(Session):
        tags: list[str] = []

    class Both(Base, Other): ...

    session = Session()
    Both.of(session).tags.append("a")
    Both.of(session).notes.append("b")
    assert session.to_dict() == {"tags": ["a"], "notes": ["b"]}
    shares_nothing(Both)


def test_a_read_only_session_may_have_methods() -> None:
    class Seen(ReadOnlySession):
        MOST: ClassVar[int] = 3

        def is_done(self) -> bool:
            return bool(self.get("step", 0, as_type=int) > self.MOST)

    assert Seen.of(Session.from_dict({"step": 4})).is_done()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, True) for value in ("a", b"a", 1, 1.5, 2j, None, True, range(3), ..., (1, ("a",)), frozenset({1}))),
        *((value, True) for value in (date.min, UTC, Decimal(1), UUID(int=1), Path("a"), re.compile("a"), Level.LOW, Frozen())),
        *((value, False) for value in ([], {}, set(), bytearray(), (1, []), Notes(), object(), Base, Wide(), len, Level)),
        *((value, False) for value in (type("Text", (str,), {})("a"), type("Number", (int,), {})(1), iter(()))),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_nobody_can_change_is_a_constant(value: Any, expected: bool) -> None:
    assert is_constant(value) is expected


# Defaults


def test_a_default_is_made_anew_for_each_session_even_where_it_is_its_own_copy() -> None:
    class View(Session):
        box: Itself = Itself(notes=["a"])

    ada, eve = Session(), Session()
    View.of(ada).box.notes.append("b")
    assert (View.of(ada).box.notes, View.of(eve).box.notes, eve.is_empty) == (["a", "b"], ["a"], True)


def test_a_list_that_two_fields_have_as_their_default_is_two_lists() -> None:
    one: list[str] = []

    class View(Session):
        left: list[str] = one
        right: list[str] = one

    session = View()
    session.left.append("a")
    assert (session.left, session.right, one) == (["a"], [], [])


def test_a_default_that_is_a_tuple_or_none_stays_what_it_is() -> None:
    class View(Session):
        pair: tuple[int, int] = (1, 2)
        name: str | None = None

    assert (View().pair, View().name, View().to_dict()) == ((1, 2), None, {})
