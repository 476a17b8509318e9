"""Which parameters a tool's session fills, by annotation and identity."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Annotated, Any, NewType, Optional

import pytest
from pydantic import BaseModel
from typing_extensions import TypeAliasType

from dcaf import ConfigurationError, Session, current_session, tool
from dcaf.tools.injectables import ReadOnlyFill, SessionFill
from dcaf.tools.injection_plan import Plan


class Deploy(Session):
    step: int = 1


class Elsewhere:
    """A class of the same kind of name, from another library."""


Elsewhere.__name__ = "Session"


class Theirs(BaseModel):
    """A pydantic model of another library that is called Session."""

    owner: str


Theirs.__name__ = "Session"


def injected(function: Callable[..., Any]) -> dict[str, type]:
    return {name: fill.kind for name, fill in Plan.of(function).injected.items() if isinstance(fill, SessionFill | ReadOnlyFill)}


def plain(name: str, session: Session) -> None: ...
def first(session: Session, name: str) -> None: ...
def any_name(name: str, memory: Session) -> None: ...
def unannotated(name: str, session) -> None: ...  # type: ignore[no-untyped-def]
def optional(name: str, session: Optional[Session] = None) -> None: ...  # noqa: UP045
def union(name: str, session: Session | None = None) -> None: ...
def annotated(name: str, session: Annotated[Session, "said"]) -> None: ...
def annotated_union(name: str, session: Annotated[Session | None, "said"] = None) -> None: ...
def subclass(name: str, session: Deploy) -> None: ...
def quoted(name: str, session: "Session") -> None: ...  # noqa: UP037
def keyword_only(name: str, *, session: Session) -> None: ...
def positional_only(session: Session, name: str, /) -> None: ...
def two(session: Session, name: str, deploy: Deploy) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, {"session": Session}),
        (first, {"session": Session}),
        (any_name, {"memory": Session}),
        (unannotated, {"session": Session}),
        (optional, {"session": Session}),
        (union, {"session": Session}),
        (annotated, {"session": Session}),
        (annotated_union, {"session": Session}),
        (subclass, {"session": Deploy}),
        (quoted, {"session": Session}),
        (keyword_only, {"session": Session}),
        (positional_only, {"session": Session}),
        (two, {"session": Session, "deploy": Deploy}),
    ],
)
def test_an_annotation_that_is_a_session_is_filled(function: Callable[..., Any], expected: dict[str, type]) -> None:
    assert injected(function) == expected
    assert [parameter.name for parameter in Plan.of(function).open] == ["name"]


def text(session: str) -> None: ...
def look_alike(session: Elsewhere) -> None: ...
def several(sessions: list[Session]) -> None: ...
def either(session: Session | int) -> None: ...


@pytest.mark.parametrize("function", [text, look_alike])
def test_an_annotation_that_is_something_else_is_not_filled(function: Callable[..., Any]) -> None:
    assert injected(function) == {}


def test_names_of_an_enclosing_function_are_found() -> None:
    class Local(Session):
        step: int = 1

    def inner(session: Local) -> int:
        return Local.of(session).step

    assert asyncio.run(tool(inner).run({}, session=Session())) == 1


def test_an_annotation_that_cannot_be_found_says_so() -> None:
    def lost(session: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    made = tool(lost)
    with pytest.raises(ConfigurationError) as caught:
        made.input_schema  # noqa: B018
    assert str(caught.value) == (
        "lost: the annotation of 'session' names 'Missing', which cannot be found. Import it in the function's module."
    )


def quoted_inside_optional(name: str, session: Optional["Session"] = None) -> None: ...  # noqa: UP037, UP045
def quoted_inside_annotated(name: str, session: Annotated["Session", "said"]) -> None: ...  # noqa: UP037


@pytest.mark.parametrize("function", [quoted_inside_optional, quoted_inside_annotated])
def test_a_name_that_is_quoted_inside_an_annotation_is_found(function: Callable[..., Any]) -> None:
    assert injected(function) == {"session": Session}


BROKEN = {
    "syntax": "not a type",
    "operator": "int + None",
}


@pytest.mark.parametrize("annotation", BROKEN.values(), ids=BROKEN)
def test_an_annotation_that_cannot_be_evaluated_is_the_developers_error(annotation: str) -> None:
    def broken(value: int) -> None: ...

    broken.__annotations__["value"] = annotation
    broken.__globals__["asyncio"] = asyncio
    with pytest.raises(ConfigurationError, match="broken: the annotation of 'value'"):
        tool(broken)


def test_control_the_same_function_with_a_good_annotation_is_a_tool() -> None:
    def sound(value: int) -> None: ...

    sound.__annotations__["value"] = "asyncio.AbstractEventLoop | None"
    assert [parameter.annotation for parameter in Plan.of(sound).open] == [asyncio.AbstractEventLoop | None]


Alias = NewType("Alias", Session)
Exported = TypeAliasType("Exported", Session)


def by_new_type(session: Alias) -> None: ...
def by_alias_type(session: Exported) -> None: ...
def nested_in_a_union(session: list[Session] | None = None) -> None: ...
def two_kinds(session: Deploy | Session) -> None: ...


@pytest.mark.parametrize("function", [by_new_type, nested_in_a_union, two_kinds, either, several])
def test_a_disguised_session_is_never_left_to_the_model(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"has a session inside another type.*Annotate it as Session"):
        tool(function)


def test_an_alias_of_the_session_is_the_session() -> None:
    assert injected(by_alias_type) == {"session": Session}


def test_control_a_session_of_another_library_is_an_ordinary_parameter() -> None:
    def theirs(session: Annotated[Theirs, "a model of another library"]) -> str:
        return session.owner

    assert list(tool(theirs).input_schema["properties"]) == ["session"]


def test_a_parameter_named_session_with_another_annotation_is_the_models() -> None:
    def book(session: str) -> str:
        return session

    assert list(tool(book).input_schema["properties"]) == ["session"]
    assert asyncio.run(tool(book).run({"session": "Monday"})) == "Monday"


async def in_every_form(first: Session, /, name: str, second: Deploy, *, third: Session | None = None) -> list[Session | None]:
    return [first, second, third]


def test_every_form_in_one_signature_gets_the_same_state() -> None:
    @tool
    @functools.wraps(in_every_form)
    async def steps(*args: Any, **named: Any) -> list[int]:
        found: list[Any] = await in_every_form(*args, **named)
        assert [type(item) for item in found] == [Session, Deploy, Session]
        found[1].step += 1
        return [item["step"] for item in found]

    session = Session()
    assert asyncio.run(steps.run({"name": "x"}, session=session)) == [2, 2, 2]
    assert session.to_dict() == {"step": 2}


def test_the_session_of_the_call_is_injected_where_its_class_is_asked_for() -> None:
    @tool
    def same(session: Session) -> bool:
        return session is current_session()

    assert asyncio.run(same.run({}, session=Session()))


def test_a_typed_session_that_is_passed_serves_a_tool_that_wants_a_plain_one() -> None:
    @tool
    def plain_one(session: Session) -> str:
        session["step"] = 7
        return type(session).__name__

    deploy = Deploy()
    assert asyncio.run(plain_one.run({}, session=deploy)) == "Session"
    assert deploy.step == 7


def test_a_bound_method_needs_no_self() -> None:
    class Shop:
        def __init__(self) -> None:
            self.sold = 0

        def sell(self, number: int, session: Session) -> int:
            self.sold += number
            return session.incr("sold", self.sold)

    made = tool(Shop().sell)
    assert list(made.input_schema["properties"]) == ["number"]
    assert asyncio.run(made.run({"number": 3}, session=Session())) == 3


def test_star_keywords_have_no_names_for_a_model() -> None:
    def many(**options: str) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        tool(many)
    assert str(caught.value) == (
        "many: **options has no names that a model could fill. Declare the parameters; a decorator keeps those of its function "
        "with functools.wraps."
    )


def test_star_arguments_have_no_names_for_a_model() -> None:
    def many(*names: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"many: \*names has no names that a model could fill"):
        Plan.of(many)
